"""Oxford 102 Flowers: ``jpg/image_NNNNN.jpg``, ``imagelabels.mat``, ``setid.mat``; official train, val and test.

The classes have no official names; their numbers are used.
"""

from pathlib import Path

import numpy as np

from ssltransfer.datasets.index import Index
from ssltransfer.datasets.layout import read_mat, renumber
from ssltransfer.errors import InputError

SETS = {"train": "trnid", "val": "valid", "test": "tstid"}


def index(root: Path) -> Index:
    """Index the three sets; images and classes are numbered from 1 in the files."""
    labels = _vector(root / "imagelabels.mat", "labels")
    parts = {}
    for split, key in SETS.items():
        numbers = _vector(root / "setid.mat", key)
        if len(wrong := numbers[(numbers < 1) | (numbers > len(labels))]):
            raise InputError(f"{root / 'setid.mat'}: {key} names image {wrong[0]}, imagelabels.mat has {len(labels)}")
        parts[split] = [f"jpg/image_{number:05}.jpg" for number in numbers], labels[numbers - 1].tolist()
    return renumber(parts, {number: str(number) for number in labels.tolist()})


def _vector(path: Path, key: str) -> np.ndarray:
    values = read_mat(path, key)
    if values.ndim != 2 or 1 not in values.shape or not np.issubdtype(values.dtype, np.number):
        raise InputError(f"{path}: {key!r} is {values.dtype} {values.shape}, expected numbers of shape (1, n)")
    return values.ravel().astype(np.int64)
