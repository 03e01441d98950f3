"""Intersections and unions of predicted and known classes, pooled over the pixels of all images (v2 Table 5).

A mean of the images' own IoUs would be another metric. Unlabelled pixels do not count, whatever is predicted there.
"""

from pathlib import Path

import numpy as np

from ssltransfer.datasets.masks import IGNORE
from ssltransfer.errors import InputError
from ssltransfer.files import atomic_write
from ssltransfer.row_file import load_arrays

COUNTS = ("intersection", "predicted", "truth")


class ClassCounts:
    """Pixels of each class in each image of a test set: correctly predicted, predicted, and known.

    Parameters
    ----------
    classes : int

    Attributes
    ----------
    table : ndarray of int64, shape (images, 3, classes)
        `COUNTS` of the images added so far.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._images: list[np.ndarray] = []

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Add an image.

        Parameters
        ----------
        predicted : ndarray of int, shape (h, w)
            0 to `classes` - 1.
        truth : ndarray of int, shape (h, w)
            The same, or `IGNORE`.
        """
        known = truth != IGNORE
        predicted, truth = predicted[known], truth[known]
        counted = (truth[predicted == truth], predicted, truth)
        self._images.append(np.stack([np.bincount(labels, minlength=self.classes) for labels in counted]))

    @property
    def table(self) -> np.ndarray:
        """Counts of all images."""
        return np.stack(self._images) if self._images else np.zeros((0, len(COUNTS), self.classes), np.int64)


def class_iou(totals: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, from totals (..., 3, classes); NaN for a class without known pixels."""
    intersection, predicted, truth = np.moveaxis(np.asarray(totals, np.float64), -2, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(truth > 0, intersection / (predicted + truth - intersection), np.nan)


def mean_iou(totals: np.ndarray, absent_classes: str) -> np.ndarray:
    """Mean intersection over union, a fraction, from totals (..., 3, classes).

    Parameters
    ----------
    totals : ndarray
        Sums over images of `COUNTS`.
    absent_classes : {'left-out', 'zero'}
        A class without known pixels takes no part, or counts as 0 as in the official code.
    """
    iou = class_iou(totals)
    if absent_classes == "zero":
        return np.nan_to_num(iou).mean(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.nansum(iou, axis=-1) / (~np.isnan(iou)).sum(axis=-1)


def pixel_accuracy(totals: np.ndarray) -> np.ndarray:
    """Percentage of the known pixels whose class was predicted, from totals (..., 3, classes)."""
    sums = np.asarray(totals, np.float64).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * sums[..., 0] / sums[..., 2]


def require_pixels(table: np.ndarray) -> None:
    """Require a labelled pixel in some image; InputError otherwise."""
    if not table[:, 2].any():
        raise InputError("no test image has a labelled pixel; expected masks with numbers of classes")


def save_counts(path: str | Path, images: list[str], table: np.ndarray) -> None:
    """Write the counts of a test set (n, 3, classes) and the names of its images."""
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, images=np.array(images), counts=table.astype(np.uint32))


def load_counts(path: str | Path) -> tuple[list[str], np.ndarray]:
    """Read what `save_counts` wrote; InputError if the file is something else."""
    arrays = load_arrays(path, "counts of pixels")
    try:
        images, counts = [str(name) for name in arrays["images"]], arrays["counts"].astype(np.int64)
    except KeyError as error:
        raise InputError(f"{path} holds no counts of pixels of this workflow ({error}); delete it") from None
    if counts.ndim != 3 or counts.shape[:2] != (len(images), len(COUNTS)):
        raise InputError(f"{path}: counts {counts.shape} of {len(images)} images; delete it")
    return images, counts
