"""Input normalisations: mean and standard deviation of each channel, by which pixel / 255 is normalised."""

from functools import lru_cache

import torch
from torch import Tensor

from ssltransfer.models.norm_table import mean_and_std


def normalise(images: Tensor, norm: str) -> Tensor:
    """Turn uint8 (n, h, w, 3) into normalised float32 (n, 3, h, w) in channels-last memory.

    Parameters
    ----------
    images : Tensor
    norm : str
        See `norm_table.mean_and_std`.
    """
    mean, std = pixel_mean_and_std(norm, images.device)
    return ((images - mean) / std).permute(0, 3, 1, 2)


@lru_cache
def pixel_mean_and_std(norm: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the channels of pixels from 0 to 255, (3,) each, on a device.

    They are kept, because copying such a tensor to a GPU waits until the GPU has done all its work so far.
    """
    with torch.inference_mode(False):  # they serve trainings, too
        mean, std = (torch.tensor(v, device=device) * 255 for v in mean_and_std(norm))
    return mean, std
