"""Images and labels of the network for surface normals, resized the same way in training and testing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssltransfer.datasets.dataset import Dataset
from ssltransfer.datasets.images import read_image
from ssltransfer.datasets.masks import read_labels
from ssltransfer.datasets.nyuv2 import read_code_words
from ssltransfer.errors import InputError
from ssltransfer.protocols.dense.frames import label_cells, resized
from ssltransfer.protocols.dense.normals.codebook import check_labels
from ssltransfer.protocols.dense.normals.ground_truth import label_normals, make_codebook, open_normals
from ssltransfer.protocols.dense.normals.network import STRIDE
from ssltransfer.protocols.dense.normals.settings import NormalsSettings


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
