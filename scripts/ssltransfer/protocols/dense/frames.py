"""Sizes of images and labels of dense prediction: resizing, padding to whole cells, label cells.

A network sees an image resized to a shorter side and padded at the right and at the bottom to a multiple of its stride.
Its output has one cell for every `stride` pixels of what it sees.
"""

from collections.abc import Callable

import numpy as np

from ssltransfer.datasets.masks import IGNORE


def resized(width: int, height: int, shorter: int, longest: int) -> tuple[int, int]:
    """Width and height with the shorter side `shorter`, or the longer one `longest` if it would become longer."""
    scale = min(shorter / min(width, height), longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def padded(side: int, stride: int) -> int:
    """The smallest multiple of `stride` that is not below `side`."""
    return -(-side // stride) * stride


def cells(side: int, original: int, stride: int) -> np.ndarray:
    """Pixels of the original that the cells of a network's output represent, along one axis.

    The image of `original` pixels is resized to `side` and then padded to a multiple of `stride`. A cell represents
    the pixel in its middle, `stride` / 2 from its edge, found by nearest-neighbour resizing; -1 where that lies in the
    padding.
    """
    middle = np.arange(stride // 2, padded(side, stride), stride)
    source = ((middle + 0.5) * original / side).astype(np.int64)
    return np.where(middle < side, source, -1)


def label_cells(
    values: np.ndarray, height: int, width: int, stride: int, label: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Labels of the output cells for an image resized to (height, width), int64 (rows, columns).

    Parameters
    ----------
    values : ndarray, shape (h, w, ...)
        Value of each pixel of the original.
    height, width : int
    stride : int
        Pixels of the resized image between cells; 1 for a label of every pixel.
    label : callable
        Turns values (..., ) of pixels into labels.
    """
    rows, columns = (cells(*sides, stride) for sides in zip((height, width), values.shape, strict=False))
    labels = label(values[np.ix_(rows, columns)])
    return np.where((rows[:, None] < 0) | (columns < 0), IGNORE, labels)
