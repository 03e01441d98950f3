"""Positions of the masks, and the maps that follow from the error at each of them."""

from dataclasses import dataclass

import numpy as np

from ssltransfer.errors import InputError


@dataclass(frozen=True)
class MaskGrid:
    """Positions of the mask along one side of a square image; they are the same for rows and columns.

    Attributes
    ----------
    size : int
        Side of the image whose attention is measured.
    mask : int
        Side of the mask. The image has a border of mask - 1 pixels, so that as many masks cover a pixel at its edge
        as one in its middle.
    stride : int
        Step between masks in pixels; more than 1 is an approximation.
    """

    size: int
    mask: int
    stride: int

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.mask:
            raise InputError(
                f"stride {self.stride} of the mask: write 1 to {self.mask} (its side), so that each pixel is covered"
            )

    @property
    def margin(self) -> int:
        """Width of the border around the image."""
        return self.mask - 1

    @property
    def bordered_size(self) -> int:
        """Side of the image with its border."""
        return self.size + 2 * self.margin

    @property
    def starts(self) -> range:
        """First row of each mask, in the image with its border."""
        return range(0, self.bordered_size - self.mask + 1, self.stride)

    def coverage(self) -> np.ndarray:
        """Whether each mask covers each row of the image: bool (size, masks)."""
        rows, starts = np.arange(self.size)[:, None] + self.margin, np.array(self.starts)[None]
        return (starts <= rows) & (rows < starts + self.mask)


def attention_map(errors: np.ndarray, grid: MaskGrid) -> np.ndarray:
    """Mean error of the masks that cover each pixel.

    Parameters
    ----------
    errors : ndarray, shape (masks, masks)
        Error of each mask by row and column.
    grid : MaskGrid

    Returns
    -------
    ndarray of float64, shape (size, size)
    """
    covers = grid.coverage().astype(np.float64)
    return covers @ errors @ covers.T / np.outer(covers.sum(1), covers.sum(1))


def diffusion(attention: np.ndarray) -> float:
    """Percentage of pixels above the mean of their own map; higher means wider attention."""
    attention = np.asarray(attention, np.float64)
    return float(100 * (attention > attention.mean()).mean())
