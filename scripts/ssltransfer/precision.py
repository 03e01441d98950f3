"""Precisions in which networks compute."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ssltransfer.jobs import log


@contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """Compute convolutions and matrix products of networks in a precision; parameters stay float32.

    Parameters
    ----------
    precision : str
        ``float32``; ``tf32``, in which tensor cores of NVIDIA GPUs round the factors to 10 bits (a CPU computes in
        float32); or ``bfloat16`` (autocast), which rounds factors and activations to 8 bits (but see `_NarrowMaps`).
    device : torch.device
        The device of the network.
    """
    if precision == "bfloat16":
        training_on_cpu = device.type == "cpu" and torch.is_grad_enabled()
        with torch.autocast(device.type, torch.bfloat16), _NarrowMaps() if training_on_cpu else nullcontext():
            yield
        return
    if precision != "tf32":
        yield
        return
    if device.type != "cuda":
        _say_once("precision tf32 needs a GPU; computing in float32")
    with tf32_allowed(True):
        yield


class _NarrowMaps(TorchFunctionMode):
    """Convolutions in float32 where the map is narrower than the stride, such as one pixel and a stride of 2.

    On processors with AMX, the gradients that oneDNN gives for such kernels in bfloat16 are unset memory: often not
    finite, and wrong where they are. The output is rounded to bfloat16 as that of other convolutions.
    """

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is not torch.conv2d or not _is_narrow(*args, **kwargs):
            return function(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return function(*map(_widened, args), **{k: _widened(value) for k, value in kwargs.items()}).bfloat16()


def _is_narrow(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, *_: Any, **__: Any) -> bool:
    """Whether a convolution has a trained kernel of several columns, and a map narrower than its stride."""
    across = stride if isinstance(stride, int) else stride[-1]
    return weight.requires_grad and weight.shape[-1] > 1 and input.shape[-1] < across


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value


@contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """Allow tensor cores to round the factors of products and convolutions or not; what a caller has set comes back.

    torch has two interfaces for this. Setting the older one sets the newer one as well, but reading it is an error
    once a program has used the newer one.
    """
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn  # whose parts torch does not declare
    parts = (matmul, cudnn.conv, cudnn.rnn)
    precisions = [part.fp32_precision for part in parts]
    flags = [_flag(matmul), _flag(cudnn)]
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        for owner, flag in zip((matmul, cudnn), flags, strict=True):
            if flag is not None:
                owner.allow_tf32 = flag
        for part, precision in zip(parts, precisions, strict=True):
            part.fp32_precision = precision


def _flag(owner: Any) -> bool | None:
    """Return the older flag; None where only the newer interface may be read."""
    try:
        return owner.allow_tf32
    except RuntimeError:
        return None


@lru_cache
def _say_once(warning: str) -> None:
    log.warning(warning)
