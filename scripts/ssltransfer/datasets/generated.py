"""The result of a generator of a built-in dataset: images, labels and dense targets."""

from dataclasses import dataclass, field

import numpy as np

from ssltransfer.datasets.index import Index


@dataclass(frozen=True)
class Generated:
    """Images held in memory with the fields of their index.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, h, w, 3)
        Row i is the image that the index calls ``originals.npy#i``.
    split : list of str
        ``train`` or ``test`` for each image.
    label : list of int
        Class of each image, 0 <= label < len(classes).
    classes : list of str
        Names of the classes.
    extra : dict of list
        Further columns of the index, each with n entries.
    arrays : dict of ndarray
        Dense targets, each with n rows.
    promised : dict of str to int or None
        See `index.Index`.
    """

    images: np.ndarray
    split: list[str]
    label: list[int]
    classes: list[str]
    extra: dict[str, list] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    promised: dict[str, int] | None = None

    @property
    def files(self) -> dict[str, np.ndarray]:
        """Arrays to be saved, by the stem of their file."""
        return {"originals": self.images} | self.arrays

    @property
    def index(self) -> Index:
        """The index of the images, kept as rows of ``originals.npy``."""
        references = [f"originals.npy#{row}" for row in range(len(self.images))]
        return Index(references, self.split, self.label, self.classes, self.extra, self.promised)
