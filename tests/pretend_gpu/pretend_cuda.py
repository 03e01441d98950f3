"""A GPU for machines without one: tensors that say ``cuda:0`` and compute on the CPU.

What CUDA refuses is refused: operations on tensors of both devices, arrays of numpy from tensors of the GPU, and CPU
generators for them. It is checked at each call of torch's public functions, by a mode that is on in one thread; what
happens inside of a call is not looked at. Between devices tensors are copied, as they are by CUDA.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps

import torch
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
MEMORY = 8 << 30
Tensor = torch.Tensor

COPIES = {
    Tensor.copy_,
    Tensor.data.__set__,
    Tensor.grad.__set__,
    Tensor.type_as,
    torch._has_compatible_shallow_copy_type,
}
"""Functions that may have arguments on both devices."""
TO_NUMPY = {Tensor.numpy, Tensor.__array__}
PLACES = {
    Tensor.device.__get__: lambda gpu: GPU if gpu else CPU,
    Tensor.is_cuda.__get__: lambda gpu: gpu,
    Tensor.is_cpu.__get__: lambda gpu: not gpu,
    Tensor.get_device: lambda gpu: 0 if gpu else -1,
}
"""Functions that say where a tensor lies."""


class PretendCuda(TorchFunctionMode):
    """Torch's functions, with tensors of a GPU told apart from those of the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self._on_gpu = WeakTensorKeyDictionary()
        self.calls = 0

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor lies on the GPU."""
        return tensor in self._on_gpu

    def mark(self, value: object) -> None:
        """Say that the tensors in a value lie on the GPU."""
        for leaf in tree_leaves(value):
            if isinstance(leaf, Tensor):
                self._on_gpu[leaf] = True

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in PLACES:
            return PLACES[func](self.holds(args[0]))
        if func is Tensor.backward:  # so that functions called on the way see this mode
            with self:
                return torch.autograd.backward(args[0], kwargs.pop("gradient", None), **kwargs)
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._move(func, args, kwargs)
        if func is Tensor.pin_memory:
            return args[0]
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_gpu = [tensor for tensor in tensors if self.holds(tensor)]
        self._refuse(func, args, kwargs, tensors, on_gpu)
        gpu = bool(on_gpu)
        if kwargs.get("device") is not None:
            gpu = torch.device(kwargs["device"]).type == "cuda"
            kwargs["device"] = "cpu"
        result = func(*args, **kwargs)
        self.calls += gpu
        if func == Tensor.data.__set__:
            self._replace(args[0], gpu=self.holds(args[1]))
        elif gpu and func is not Tensor.copy_:
            self.mark(result)
        return result

    def _replace(self, tensor: Tensor, gpu: bool) -> None:
        if gpu:
            self._on_gpu[tensor] = True
        else:
            self._on_gpu.pop(tensor, None)

    def _move(self, func, args, kwargs) -> Tensor:
        """Copy between the devices, and change the type where `to` is asked for it."""
        tensor, *rest = args
        before = self.holds(tensor)
        if func is Tensor.cpu:
            target = CPU
        elif func is Tensor.cuda:
            target, rest, kwargs = GPU, [], {}
        else:
            target = GPU if before else CPU
            given = [*rest, *(kwargs[name] for name in ("device", "other") if kwargs.get(name) is not None)]
            for value in given:
                if isinstance(value, Tensor):
                    target = GPU if self.holds(value) else CPU
                elif isinstance(value, torch.device | str):
                    target = torch.device(value)
            rest = [
                CPU if isinstance(value, torch.device | str) else value
                for value in rest
                if value is not None or len(rest) > 1
            ]
            if kwargs.get("device") is not None:
                kwargs["device"] = CPU
        after = target.type == "cuda"
        result = func(tensor, *rest, **kwargs) if func is Tensor.to else tensor
        if after != before and result is tensor:
            result = tensor.clone()
        self._replace(result, after)
        return result

    def _refuse(self, func, args, kwargs, tensors, on_gpu) -> None:
        """Raise the errors of CUDA."""
        name = resolve_name(func) or getattr(func, "__name__", func)
        if func in TO_NUMPY and on_gpu:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it first.")
        generator = kwargs.get("generator")
        place = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else ""
        if generator is not None and (on_gpu or place == "cuda"):
            raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' ({name})")
        if func in COPIES or not on_gpu:
            return
        if func in (Tensor.__getitem__, Tensor.__setitem__) and self.holds(args[0]):
            return  # an index may lie on the CPU, and a value is copied
        if any(tensor.ndim and not self.holds(tensor) for tensor in tensors):
            raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu ({name})")


@contextmanager
def pretend_cuda() -> Iterator[PretendCuda]:
    """Give torch a GPU, and take it away again."""
    mode = PretendCuda()
    make_subclass, autocast = Tensor._make_subclass, torch.autocast

    @wraps(make_subclass)  # torch compares signatures
    def make_and_mark(cls, data, *args, **kwargs):
        made = make_subclass(cls, data, *args, **kwargs)
        mode._replace(made, mode.holds(data))
        return made

    class CpuAutocast(autocast):
        """Autocast of the CPU, with what `computing_in` adds there because its gradients may be unset memory."""

        def __init__(self, device_type, *args, **kwargs):
            super().__init__("cpu", *args, **kwargs)
            self.narrow = nullcontext()

        def __enter__(self):
            super().__enter__()
            if self._enabled and torch.is_grad_enabled():
                from ssltransfer.precision import _NarrowMaps

                self.narrow = _NarrowMaps()
            self.narrow.__enter__()

        def __exit__(self, *error):
            self.narrow.__exit__(*error)
            return super().__exit__(*error)

    replaced = {
        (torch.cuda, "is_available"): lambda: True,
        (torch.cuda, "is_initialized"): lambda: True,
        (torch.cuda, "device_count"): lambda: 1,
        (torch.cuda, "current_device"): lambda: 0,
        (torch.cuda, "get_device_name"): lambda device=None: "pretended GPU",
        (torch.cuda, "mem_get_info"): lambda device=None: (MEMORY, MEMORY),
        (torch.cuda, "memory_reserved"): lambda device=None: 0,
        (torch.cuda, "memory_allocated"): lambda device=None: 0,
        (torch.cuda, "max_memory_reserved"): lambda device=None: 1 << 20,
        (torch.cuda, "max_memory_allocated"): lambda device=None: 1 << 20,
        (torch.cuda, "reset_peak_memory_stats"): lambda device=None: None,
        (torch.cuda, "synchronize"): lambda device=None: None,
        (torch.cuda, "empty_cache"): lambda: None,
        (torch.cuda, "manual_seed_all"): lambda seed: None,
        (torch.cuda, "is_bf16_supported"): lambda including_emulation=True: True,
        (Tensor, "_make_subclass"): staticmethod(make_and_mark),
        (Tensor, "pin_memory"): lambda self, device=None: self,
        (torch, "autocast"): CpuAutocast,
    }
    for name in ("_cuda_graph_capture_health_check", "_accelerator_graph_capture_health_check"):
        if hasattr(torch.optim.Optimizer, name):  # the name of some versions of torch
            replaced[torch.optim.Optimizer, name] = lambda self: None
    before = {key: key[0].__dict__[key[1]] if key[0] is not Tensor else getattr(*key) for key in replaced}
    for (owner, name), value in replaced.items():
        setattr(owner, name, value)
    try:
        with mode:
            yield mode
    finally:
        for (owner, name), value in before.items():
            setattr(owner, name, value)
        if kept := sys.modules.get("ssltransfer.models.input_norm"):
            kept.pixel_mean_and_std.cache_clear()  # tensors of this mode
