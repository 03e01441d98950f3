"""Images and labels of the network for surface normals, resized the same way in training and testing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssltransfer.datasets.dataset import Dataset
from ssltransfer.datasets.images import FORMATS, read_image
from ssltransfer.datasets.nyuv2 import read_code_words
from ssltransfer.errors import InputError
from ssltransfer.models.input_norm import normalise
from ssltransfer.protocols.dense.normals.codebook import IGNORE, check_labels
from ssltransfer.protocols.dense.normals.ground_truth import (
    label_cells,
    label_normals,
    make_codebook,
    open_normals,
    padded,
)
from ssltransfer.protocols.dense.normals.network import STRIDE
from ssltransfer.protocols.dense.normals.settings import NormalsSettings


def resized(width: int, height: int, shorter: int, longest: int) -> tuple[int, int]:
    """Width and height with the shorter side `shorter`, or the longer one `longest` if it would become longer."""
    scale = min(shorter / min(width, height), longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


@dataclass(frozen=True)
class NormalsDataset:
    """Images with their known normals.

    Attributes
    ----------
    root : Path
        Folder that the references start from.
    images : sequence of str
        Column `image` of the index.
    normals : ndarray of int, shape (n, h, w, 3)
        See `ground_truth`.
    codebook : ndarray, shape (k, 3)
    longest : int
        Limit of the longer side in pixels.
    label_images : sequence of str
        References of the dataset's own images of labels; empty to label pixels with the nearest code word.
    stride : int
        Pixels of the resized image between neighbouring labels.
    """

    root: Path
    images: Sequence[str]
    normals: np.ndarray
    codebook: np.ndarray
    longest: int
    label_images: Sequence[str] = ()
    stride: int = STRIDE

    def image(self, row: int, shorter: int) -> np.ndarray:
        """Read an image and resize it bilinearly (antialiased) to this shorter side: uint8 (h, w, 3)."""
        image = read_image(self.root, self.images[row])
        known = self.normals.shape[2], self.normals.shape[1]
        if image.size != known:
            raise InputError(
                f"{self.root / self.images[row]}: {image.width}x{image.height} pixels, its normals and mask have "
                f"{known[0]}x{known[1]}"
            )
        new = resized(*image.size, shorter, self.longest)
        return np.array(image if new == image.size else image.resize(new, Image.Resampling.BILINEAR))

    def labels(self, row: int, height: int, width: int) -> np.ndarray:
        """Labels of the output cells for the image resized to (height, width), int64 (h / stride, w / stride)."""
        if not self.label_images:
            return label_cells(self.normals[row], height, width, self.stride, lambda n: label_normals(n, self.codebook))
        path = self.root / self.label_images[row]
        labels = read_labels(path)
        if labels.shape != self.normals.shape[1:3]:
            raise InputError(f"{path}: {labels.shape[1]}x{labels.shape[0]} pixels, its image has another size")
        check_labels(labels, len(self.codebook), str(path))
        return label_cells(labels, height, width, self.stride, lambda values: values)

    def example(self, row: int, shorter: int) -> tuple[Tensor, Tensor]:
        """Image (uint8) and labels (int64) at this shorter side."""
        image = self.image(row, shorter)
        return torch.from_numpy(image), torch.from_numpy(self.labels(row, *image.shape[:2]))


def training_data(
    source: Dataset, normals_file: str | Path, settings: NormalsSettings, config_path: str, stride: int = STRIDE
) -> tuple[NormalsDataset, np.ndarray]:
    """Open the images that a network is trained on, with the code words of its settings.

    Returns
    -------
    dataset : NormalsDataset
    rows : ndarray of int
        Rows of the training images.

    Raises
    ------
    InputError
        See `ground_truth.make_codebook`; `config_path` names the settings.
    """
    index = source.index
    normals, rows = open_normals(normals_file, len(index)), np.flatnonzero(index.split_array() == "train")
    codebook = make_codebook(settings, normals, rows, lambda: read_code_words(source.root), config_path)
    labels = index.extra.get("codes", ()) if settings.targets == "images" else ()
    return NormalsDataset(source.root, index.image, normals, codebook, settings.sides.longest, labels, stride), rows


def evaluation_data(
    source: Dataset, normals_file: str | Path, settings: NormalsSettings, codebook: np.ndarray
) -> tuple[NormalsDataset, np.ndarray]:
    """Open the images that a network with this codebook is tested on, and return the rows of the test images, too."""
    index = source.index
    normals, rows = open_normals(normals_file, len(index)), np.flatnonzero(index.split_array() == "test")
    return NormalsDataset(source.root, index.image, normals, codebook, settings.sides.longest), rows


def read_labels(path: Path) -> np.ndarray:
    """Read an image of labels, 8 bit and of one channel; InputError if it is something else."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.mode not in ("L", "P"):
                raise ValueError(f"mode {image.mode}, expected one channel of 8 bit")
            return np.array(image)
    except FileNotFoundError:
        raise InputError(f"labels {path} are missing") from None
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"labels {path} cannot be read: {error}") from None


def collate(
    examples: list[tuple[Tensor, Tensor]], stride: int = STRIDE
) -> tuple[Tensor, list[tuple[int, int]], Tensor]:
    """Pad images and labels at the right and at the bottom to a common size of whole cells.

    Returns
    -------
    images : Tensor of uint8, shape (n, h, w, 3)
    sizes : list of tuple of int
        Height and width of each without the padding.
    labels : Tensor of int64, shape (n, h / stride, w / stride)
        `IGNORE` in the padding.
    """
    sizes = [tuple(image.shape[:2]) for image, _ in examples]
    height, width = (padded(max(sides), stride) for sides in zip(*sizes, strict=True))
    images = torch.zeros(len(examples), height, width, 3, dtype=torch.uint8)
    labels = torch.full((len(examples), height // stride, width // stride), IGNORE)
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
