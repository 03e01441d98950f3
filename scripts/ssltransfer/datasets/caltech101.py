"""Caltech-101: ``101_ObjectCategories/CLASS/image_NNNN.jpg``; no official split, so one is drawn.

The clutter class ``BACKGROUND_Google`` is kept as one of 102 classes, first in alphabetical order, as the official
code does. A random 30 images of each class train, all others test.

By default the 30 are distinct, as the paper says. The official code draws them with replacement (protocol D2, trap
T2): variant ``official`` repeats that draw, and with it the repeated rows. On the full dataset it gives exactly the
list ``caltech101-splits/train.txt`` that the authors first published (3060 lines, 2416 images; a test compares).
"""

from pathlib import Path

import numpy as np

from ssltransfer.datasets.index import Index, concatenate
from ssltransfer.datasets.layout import class_folders, folder_part, inner_folder

TRAIN_PER_CLASS = 30
SEED = 0


def index(root: Path, variant: str = "") -> Index:
    """Index the class folders in alphabetical order and draw the split."""
    folder = inner_folder(root, "caltech-101", "caltech101") / "101_ObjectCategories"
    classes = class_folders(folder)
    images, labels = folder_part(root, folder, classes)
    train = draw_training(np.bincount(labels, minlength=len(classes)), repeats=variant == "official")
    test = np.setdiff1d(np.arange(len(images)), train)
    return concatenate(
        {
            split: ([images[row] for row in rows], [labels[row] for row in rows])
            for split, rows in (("train", train), ("test", test))
        },
        classes,
    )


def draw_training(sizes: np.ndarray, repeats: bool) -> np.ndarray:
    """Draw the training rows of all classes, class after class, sorted within each.

    Parameters
    ----------
    sizes : ndarray of int, shape (classes,)
        Images of each class; rows are numbered through the classes.
    repeats : bool
        Whether to draw with replacement. Without, a class of 30 images or fewer keeps one for testing.
    """
    generator = np.random.RandomState(SEED)
    rows, first = [], 0
    for size in sizes:
        count = TRAIN_PER_CLASS if repeats else min(TRAIN_PER_CLASS, max(size - 1, 1))
        if size:
            rows.append(np.sort(first + generator.choice(size, count, replace=repeats)))
        first += size
    return np.concatenate(rows)
