"""Images and labels of dense prediction: sizes, padding to whole cells, label cells, and maps at the original size.

A network sees an image resized to a shorter side and padded at the right and at the bottom to a multiple of its stride.
Its output has one cell for every `stride` pixels of what it sees.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ssltransfer.datasets.masks import IGNORE
from ssltransfer.errors import InputError
from ssltransfer.models.input_norm import normalise


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


def check_size(where: str, mask: np.ndarray, image: str, size_of_image: tuple[int, int]) -> None:
    """Require a mask of the size (width, height) of its image; InputError otherwise."""
    if mask.shape != size_of_image[::-1]:
        width, height = size_of_image
        raise InputError(f"{where}: mask of {size(mask)} pixels; its image {image} has {width}x{height}")


def size(array: np.ndarray) -> str:
    """Width x height of an image."""
    return f"{array.shape[1]}x{array.shape[0]}"


def collate(
    examples: list[tuple[Tensor, Tensor]],
    stride: int,
    label_stride: int | None = None,
    padding_label: int = IGNORE,
    smallest: int = 0,
) -> tuple[Tensor, list[tuple[int, int]], Tensor]:
    """Pad images and labels at the right and at the bottom to a common size of whole cells.

    Parameters
    ----------
    examples : list of (Tensor, Tensor)
        Image, uint8 (h, w, 3), and labels of its cells, int64.
    stride : int
        Sides of the batch are multiples of it.
    label_stride : int, optional
        Pixels between the labels; a divisor of `stride`, which is the default.
    padding_label : int
        Label of the cells beyond those of an image.
    smallest : int
        Smallest side of the batch.

    Returns
    -------
    images : Tensor of uint8, shape (n, h, w, 3)
    sizes : list of tuple of int
        Height and width of each without the padding.
    labels : Tensor of int64, shape (n, h / label_stride, w / label_stride)
    """
    spacing = label_stride or stride
    sizes = [tuple(image.shape[:2]) for image, _ in examples]
    height, width = (padded(max(smallest, *sides), stride) for sides in zip(*sizes, strict=True))
    images = torch.zeros(len(examples), height, width, 3, dtype=torch.uint8)
    labels = torch.full((len(examples), height // spacing, width // spacing), padding_label)
    for n, (image, label) in enumerate(examples):
        images[n, : image.shape[0], : image.shape[1]] = image
        labels[n, : label.shape[0], : label.shape[1]] = label
    return images, sizes, labels


def network_input(images: Tensor, sizes: list[tuple[int, int]], norm: str) -> Tensor:
    """Normalise images (see `resnet.normalise`), with zeros, the mean colour, in the padding: (n, 3, h, w)."""
    x = normalise(images, norm)
    for n, (height, width) in enumerate(sizes):
        if (height, width) != tuple(x.shape[2:]):
            x[n, :, height:] = 0
            x[n, :, :, width:] = 0
    return x


def upsample(
    logits: Tensor, resized: tuple[int, int], original: tuple[int, int], stride: int, rows: slice = slice(None)
) -> Tensor:
    """Resize the logits of an image bilinearly to its original size.

    Parameters
    ----------
    logits : Tensor, shape (n, k, h, w)
        A cell covers `stride` pixels of the resized image; the last cells may lie in the padding.
    resized, original : tuple of int
        Height and width of the images as the network saw them (without padding) and as they are.
    stride : int
    rows : slice
        Rows of the result to compute, which bounds its memory and changes none of its values.

    Returns
    -------
    Tensor of float32, shape (n, k, rows, width)
    """
    # Positions in [-1, 1] from edge to edge of the map, of which the resized image fills only a part.
    axes = [
        (torch.arange(side, device=logits.device) + 0.5) * (2 * inner / (side * stride * count)) - 1
        for side, inner, count in zip(original, resized, logits.shape[2:], strict=True)
    ]
    grid = torch.stack(torch.meshgrid(axes[1], axes[0][rows], indexing="xy"), dim=-1)
    return functional.grid_sample(
        logits.float(), grid.expand(len(logits), *grid.shape), padding_mode="border", align_corners=False
    )
