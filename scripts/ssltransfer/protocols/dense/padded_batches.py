"""Batches of images with padding (see `frames`), and the maps that networks make of them at the original size.

Preparing the labels of a dataset needs `frames` alone, and no torch.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssltransfer.datasets.masks import IGNORE
from ssltransfer.models.input_norm import normalise
from ssltransfer.protocols.dense.frames import padded


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


def padded_logits(
    network: nn.Module, images: Iterable[Tensor], multiple: int, norm: str, device: torch.device
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Logits of images that are padded to sides of whole multiples, and the sizes of the images without padding.

    Parameters
    ----------
    network : nn.Module
    images : iterable of Tensor
        Each uint8 (h, w, 3).
    multiple : int
    norm : str
        Input normalisation.
    device : torch.device
        That of the network.
    """
    batch, sizes, _ = collate([(image, torch.empty(0, 0)) for image in images], multiple)
    return network(network_input(batch.to(device), sizes, norm)), sizes


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
