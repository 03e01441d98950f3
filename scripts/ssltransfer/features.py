"""Frozen features (paper section 3.1): one pass of a backbone over prepared images."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from ssltransfer.backbones import ResNet, normalise
from ssltransfer.errors import InputError
from ssltransfer.files import replacing


@torch.inference_mode()
def extract_features(
    backbone: ResNet,
    images: np.ndarray,
    norm: str,
    output: Path,
    device: torch.device,
    batch_size: int = 64,
    progress: Callable[[Iterable], Iterable] = iter,
) -> None:
    """Write the pooled features of all images to a .npy file.

    Memory is bounded by the batch: images are read from and features written to memory-mapped files.

    Parameters
    ----------
    backbone : ResNet
        In evaluation mode (running batch-norm statistics).
    images : ndarray of uint8, shape (n, h, w, 3)
    norm : {'imagenet', 'none'}
    output : Path
        Becomes float32 (n, d), row i from image i.
    device : torch.device
    batch_size : int
        Does not change the result beyond rounding.
    progress : callable
        Wraps the iterable of batch starts.

    Raises
    ------
    InputError
        If a feature is not finite.
    """
    backbone = backbone.to(device, memory_format=torch.channels_last)
    with replacing(output) as temporary:
        shape = (len(images), backbone.num_features)
        features = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        for start in progress(range(0, len(images), batch_size)):
            batch = torch.from_numpy(np.array(images[start : start + batch_size])).to(device)
            features[start : start + batch_size] = backbone(normalise(batch, norm)).float().cpu().numpy()
            if not np.isfinite(features[start : start + batch_size]).all():
                raise InputError(f"{output}: features of rows {start}.. are not finite; is the checkpoint sound?")
        features.flush()
