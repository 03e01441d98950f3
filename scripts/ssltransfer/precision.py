"""Precisions in which networks compute."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

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
    with tf32_allowed(True):
        yield


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
