"""Give torch a pretended GPU in each process that imports it, where this folder is on PYTHONPATH."""

import contextlib
import importlib.abc
import importlib.util
import sys


class AfterTorch(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import torch as usual and start the pretended GPU after it; processes without torch stay as quick as before."""

    def find_spec(self, name, path=None, target=None):
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        self.loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        from pretend_cuda import pretend_cuda

        UNTIL_THE_END.enter_context(pretend_cuda())


UNTIL_THE_END = contextlib.ExitStack()
sys.meta_path.insert(0, AfterTorch())
