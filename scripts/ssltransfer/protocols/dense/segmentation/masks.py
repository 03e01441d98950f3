"""Masks: the class of each pixel of an image, read one at a time."""

from pathlib import Path

import numpy as np

from ssltransfer.datasets.containers import open_rows
from ssltransfer.datasets.index import split_reference
from ssltransfer.errors import InputError
from ssltransfer.protocols.dense.frames import IGNORE, read_labels

MAX_CLASSES = IGNORE
"""Labels are bytes, of which one is `IGNORE`."""


def read_mask(root: Path, reference: str, classes: int, unlabelled: int) -> np.ndarray:
    """Read the labels of an image.

    Parameters
    ----------
    root : Path
    reference : str
        Image of one channel, grey or with a palette, or a row of an array (``masks.npy#0``).
    classes : int
        Number of classes.
    unlabelled : int
        Value of unlabelled pixels: 0, with classes counted from 1, or 255, with classes counted from 0.

    Returns
    -------
    ndarray of uint8, shape (h, w)
        0 to `classes` - 1, or `IGNORE`.

    Raises
    ------
    InputError
        If the file is missing or damaged, has several channels, or holds another value.
    """
    container, row = split_reference(reference)
    path = root / reference
    if row is not None and not path.is_file():
        values = np.asarray(open_rows(root / container)[row])
    else:
        values = read_labels(path)
    first = 1 if unlabelled == 0 else 0
    known = values != unlabelled
    wrong = known & (values.astype(np.int16) - first >= classes)
    if wrong.any():
        raise InputError(
            f"{path}: value {values[wrong].max()} found, expected {first} to {classes - 1 + first}, or {unlabelled} "
            "where no class is known; masks hold numbers of classes, not the colours or grey values that show them"
        )
    return np.where(known, values - np.uint8(first), np.uint8(IGNORE))
