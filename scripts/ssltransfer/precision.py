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
    on_cpu = device.type == "cpu"
    if precision == "tf32" and on_cpu:
        _say_once("precision tf32 needs a GPU; computing in float32")
    with nullcontext() if on_cpu else tf32_allowed(precision == "tf32"):  # whatever a user's network has set
        if precision != "bfloat16":
            yield
            return
        narrow = _NarrowMaps() if on_cpu and torch.is_grad_enabled() else nullcontext()
        with torch.autocast(device.type, torch.bfloat16), narrow:
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
    """Allow tensor cores to round the factors of products and convolutions or not.

    What was set before comes back at the end, for processors as well, whatever is set meanwhile.

    torch has two interfaces for this. Setting the older one leaves the parts of the newer one to what a program has set
    for all of them; reading it is an error once a program has used the newer one.
    """
    cudnn: Any = torch.backends.cudnn  # whose parts torch does not declare
    mkldnn: Any = torch.backends.mkldnn
    wholes: tuple[Any, ...] = (torch.backends, cudnn, mkldnn)
    on_gpus: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
    parts = (*wholes, *on_gpus, mkldnn.matmul, mkldnn.conv, mkldnn.rnn)
    precisions = [part.fp32_precision for part in parts]
    products, convolutions = _older(torch.get_float32_matmul_precision), _older(lambda: cudnn.allow_tf32)
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    cudnn.allow_tf32 = allowed
    for part in on_gpus:
        part.fp32_precision = "tf32" if allowed else "ieee"
    try:
        yield
    finally:
        if products is not None:
            torch.set_float32_matmul_precision(products)
        if convolutions is not None:
            cudnn.allow_tf32 = convolutions
        for part, precision in zip(parts, precisions, strict=True):
            part.fp32_precision = precision


def _older(read: Callable[[], Any]) -> Any:
    """Read a value of the older interface; None where only the newer one may be read."""
    try:
        return read()
    except RuntimeError:
        return None


@lru_cache
def _say_once(warning: str) -> None:
    log.warning(warning)
