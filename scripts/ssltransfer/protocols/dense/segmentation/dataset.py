"""Images and masks for semantic segmentation, resized, flipped and cropped together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssltransfer.datasets.dataset import Dataset
from ssltransfer.datasets.images import read_image
from ssltransfer.datasets.mask_classes import segmentation_classes
from ssltransfer.datasets.masks import IGNORE, check_size, mask_references, read_mask
from ssltransfer.protocols.dense.frames import label_cells, resized
from ssltransfer.protocols.dense.segmentation.settings import Augmentation

CROP_TRIES = 10
"""Crops that are drawn before one with more than the largest share of a class is taken."""
BRIGHTNESS = 32
CONTRAST = SATURATION = (0.5, 1.5)
HUE = (-0.5, 0.5)


@dataclass(frozen=True)
class SegmentationDataset:
    """Images with their masks.

    Attributes
    ----------
    root, mask_root : Path
        Folders that the references of images and masks start from.
    images, masks : sequence of str
        References by row of the index.
    classes : sequence of str
        Names in label order.
    unlabelled : int
        Value of unlabelled pixels in the masks (see `masks.read_mask`).
    longest : int
        Limit of the longer side of a resized image in pixels.
    sizes : sequence of (int, int) or None
        Width and height of each image; None if all are alike.
    """

    root: Path
    mask_root: Path
    images: Sequence[str]
    masks: Sequence[str]
    classes: Sequence[str]
    unlabelled: int
    longest: int
    sizes: Sequence[Sequence[int]] | None = None

    def mask(self, row: int) -> np.ndarray:
        """Labels of an image, uint8 (h, w): a class, or `IGNORE`; InputError as `masks.read_mask`."""
        return read_mask(self.mask_root, self.masks[row], len(self.classes), self.unlabelled)

    def read(self, row: int) -> tuple[Image.Image, np.ndarray]:
        """Image and labels of a row; InputError if they differ in size."""
        image, mask = read_image(self.root, self.images[row]), self.mask(row)
        check_size(str(self.mask_root / self.masks[row]), mask, str(self.root / self.images[row]), image.size)
        return image, mask

    def shrink(self, image: Image.Image, shorter: int) -> Image.Image:
        """Resize an image bilinearly (antialiased) to this shorter side, within the limit of the longer one."""
        new = resized(*image.size, shorter, self.longest)
        return image if new == image.size else image.resize(new, Image.Resampling.BILINEAR)

    def example(
        self,
        row: int,
        shorter: int,
        jitter: tuple[float, float],
        crop: int,
        label_stride: int,
        augmentation: Augmentation,
        rng: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Draw a training example.

        Parameters
        ----------
        row : int
        shorter : int
            Shorter side of the batch.
        jitter, crop
            See `settings.Sides`.
        label_stride : int
            Pixels between labels; 1 for one of every pixel.
        augmentation : Augmentation
        rng : Generator
            Of this example.

        Returns
        -------
        image : Tensor of uint8, shape (h, w, 3)
        labels : Tensor of int64, shape (h / label_stride, w / label_stride)
        """
        image, mask = self.read(row)
        if rng.random() < augmentation.flip:
            image, mask = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mask[:, ::-1]
        if jitter[0] != jitter[1]:
            shorter = max(1, int(shorter * rng.uniform(*jitter)))
        image = self.shrink(image, shorter)
        if not crop:
            labels = label_cells(mask, image.height, image.width, label_stride, lambda values: values)
        else:
            labels = label_cells(mask, image.height, image.width, 1, lambda values: values)
            left, top = draw_crop(labels, crop, augmentation.largest_share, rng)
            labels = labels[top : top + crop, left : left + crop]
            image = image.crop((left, top, left + labels.shape[1], top + labels.shape[0]))
            labels = label_cells(labels, *labels.shape, label_stride, lambda values: values)
        if augmentation.colours:
            image = distort_colours(image, rng)
        return torch.from_numpy(np.array(image)), torch.from_numpy(labels.astype(np.int64))


def draw_crop(labels: np.ndarray, side: int, largest_share: float, rng: np.random.Generator) -> tuple[int, int]:
    """Draw left and top of a square crop in which no class has more than its largest share of the labelled pixels.

    After `CROP_TRIES` crops the last one is taken. An image that is smaller than the square is taken from its edge.
    """
    height, width = labels.shape
    left = top = 0
    for _ in range(CROP_TRIES):
        left, top = (int(rng.integers(max(length - side, 0) + 1)) for length in (width, height))
        counts = np.bincount(labels[top : top + side, left : left + side].ravel(), minlength=IGNORE + 1)[:IGNORE]
        if largest_share >= 1 or (np.count_nonzero(counts) > 1 and counts.max() < largest_share * counts.sum()):
            break
    return left, top


def distort_colours(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Distort brightness, contrast, saturation and hue, each in one of two images, as DINOv3's training does."""
    from torchvision.transforms import functional  # seconds of import that other networks do not need

    def linear(picture: Image.Image, factor: float, shift: float) -> Image.Image:
        return Image.fromarray(np.clip(np.asarray(picture, np.float32) * factor + shift, 0, 255).astype(np.uint8))

    brightness, contrast, saturation, hue, contrast_last = rng.random(5) < 0.5
    shift, factor = rng.uniform(-BRIGHTNESS, BRIGHTNESS), rng.uniform(*CONTRAST)
    stronger, turn = rng.uniform(*SATURATION), rng.uniform(*HUE)
    if brightness:
        image = linear(image, 1.0, shift)
    if contrast and not contrast_last:
        image = linear(image, factor, 0.0)
    if saturation:
        image = functional.adjust_saturation(image, stronger)
    if hue:
        image = functional.adjust_hue(image, turn)
    if contrast and contrast_last:
        image = linear(image, factor, 0.0)
    return image


def open_dataset(source: Dataset, masks: str | Path | None, longest: int) -> SegmentationDataset:
    """Open the images and masks of a dataset.

    Parameters
    ----------
    source : Dataset
        Its index has the columns ``mask`` and ``unlabelled``, or it is a generated one.
    masks : path or None
        Array of the masks of a generated dataset.
    longest : int
    """
    index = source.index
    classes = segmentation_classes(source.source, index.classes)
    references, unlabelled = mask_references(index, masks)
    root = Path(masks).parent if masks else source.root
    sizes = index.extra.get("size")
    return SegmentationDataset(source.root, root, index.image, references, classes, unlabelled, longest, sizes)
