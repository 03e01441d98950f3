"""Backbones from a user's own code: a function in a Python file that returns a torch module."""

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssltransfer.errors import InputError, first_line
from ssltransfer.files import expand_path
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.readout import parse_pool


def build(name: str, pool: str = "") -> "ModuleBackbone":
    """Run ``FILE.py:FUNCTION``, a file that the user names in the model table, and wrap the module that it returns.

    Raises
    ------
    InputError
        If the file or function is missing, fails, or returns something else than a module.
    """
    file, _, function = name.partition(":")
    path = Path(expand_path(file))
    where = f"arch python:{name}"
    if not path.is_file():
        raise InputError(f"{where}: {path} is not a file; paths start in the folder where snakemake runs")
    spec = importlib.util.spec_from_file_location(f"ssltransfer_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{where}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        network = getattr(module, function)()
    except Exception as error:
        raise InputError(f"{where}: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{where}: returned a {type(network).__name__}, expected a torch.nn.Module")
    return ModuleBackbone(network.eval(), pool)


class ModuleBackbone(Backbone):
    """A module of any kind as a backbone."""

    def __init__(self, network: nn.Module, pool: str = "") -> None:
        super().__init__()
        self.network: Any = network
        self.pool = parse_pool(pool)
        self.strides, self.channels = (), ()

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors under the module's own names."""
        return self.network.state_dict()

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Set all tensors of the module (see `tensors`)."""
        self.network.load_state_dict(tensors)

    def pooled(self, images: Tensor) -> Tensor:
        """Map normalised images (n, 3, h, w) to one vector each, (n, width)."""
        output = self.network(images)
        if not isinstance(output, torch.Tensor) or output.ndim != 2:
            raise InputError(f"{type(self.network).__name__}: expected vectors (images, features)")
        return output

    def maps(self, images: Tensor) -> list[Tensor]:
        """Map normalised images (n, 3, h, w) to maps, finest first."""
        return self.network.maps(images)

    def stages(self) -> list[list[nn.Parameter]]:
        """All parameters as one part."""
        return [list(self.network.parameters())]
