"""Precisions in which networks compute."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

from ssltransfer.jobs import log


@contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """Compute convolutions and matrix products of networks in a precision; parameters stay float32.

    Parameters
    ----------
    precision : str
        ``float32``; ``tf32``, in which tensor cores of NVIDIA GPUs round the factors to 10 bits (a CPU computes in
        float32); or ``bfloat16`` (autocast), which rounds factors and activations to 8 bits.
    device : torch.device
        The device of the network.
    """
    if precision == "bfloat16":
        with torch.autocast(device.type, torch.bfloat16):
            yield
        return
    if precision != "tf32":
        yield
        return
    if device.type != "cuda":
        _say_once("precision tf32 is one of GPUs; computed in float32")
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@lru_cache
def _say_once(warning: str) -> None:
    log.warning(warning)
