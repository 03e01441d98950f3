"""Input normalisations: mean and standard deviation of each channel, by which pixel / 255 is normalised."""

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
    mean, std = (torch.tensor(v, device=images.device) * 255 for v in mean_and_std(norm))
    return ((images - mean) / std).permute(0, 3, 1, 2)
