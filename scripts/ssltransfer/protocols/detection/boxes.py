"""Boxes of many images: annotated objects and detections."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Boxes:
    """Boxes of many images, one per row.

    Attributes
    ----------
    image : ndarray of int, shape (n,)
        Row of the image in the index.
    label : ndarray of int, shape (n,)
        0-based class.
    box : ndarray of float, shape (n, 4)
        ``xmin, ymin, xmax, ymax``.
    """

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class GroundTruth(Boxes):
    """Annotated boxes; ``difficult`` (n,) marks those that the evaluation ignores."""

    difficult: np.ndarray


@dataclass(frozen=True)
class Detections(Boxes):
    """Detected boxes; ``score`` (n,) ranks them."""

    score: np.ndarray
