"""Boxes of many images: annotated objects and detections."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Boxes:
    """Boxes of many images, a row each.

    Attributes
    ----------
    image : ndarray of int, shape (n,)
        Number of the image.
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
class Objects(Boxes):
    """Annotated boxes; ``difficult`` (n,) marks those that the evaluation ignores."""

    difficult: np.ndarray


@dataclass(frozen=True)
class Detections(Boxes):
    """Detected boxes; ``score`` (n,) is what they are ranked by."""

    score: np.ndarray
