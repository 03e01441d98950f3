"""How much of a dataset a score was measured on: images and classes, beside what the table of datasets promises."""

from collections.abc import Iterable

import numpy as np

from ssltransfer.datasets.index import Index

MAX_NAMES = 20
"""Number of classes that are named."""


def coverage(index: Index, parts: Iterable[str] = ("test",), used: np.ndarray | None = None) -> dict:
    """Describe how much of a dataset a score covers.

    Parameters
    ----------
    index : Index
    parts : iterable of str
        The splits that the score was measured on; all images of them were used.
    used : ndarray of bool, shape (k,), optional
        Whether each class of the index takes part; without it, the classes with an image in these splits.

    Returns
    -------
    dict
        ``images`` (``used`` and ``promised``), ``skipped`` (unreadable images of these splits), ``classes`` (``used``,
        ``promised``, and ``left_out``: names of at most `MAX_NAMES` classes of the index that take no part).
        ``promised`` and ``skipped`` are None if the index does not tell them.
    """
    parts, promised = set(parts), index.promised
    rows = index.rows_of(parts)
    if used is None:
        labels = [index.label[row] for row in rows] if index.multi_label else [np.asarray(index.label)[rows]]
        used = np.zeros(len(index.classes), dtype=bool)
        for label in labels:
            used[label] = True
    return {
        "images": {
            "used": len(rows),
            "promised": None if promised is None else sum(promised[part] for part in parts),
        },
        "skipped": None if promised is None else sum(index.skipped.get(part, 0) for part in parts),
        "classes": {
            "used": int(np.sum(used)),
            "promised": None if promised is None else promised["classes"],
            "left_out": [index.classes[k] for k in np.flatnonzero(~used)[:MAX_NAMES]],
        },
    }
