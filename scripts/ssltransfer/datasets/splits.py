"""Training, validation and test split of the many-shot experiments (paper section 4.1)."""

from dataclasses import dataclass

import numpy as np

from ssltransfer.errors import InputError


@dataclass(frozen=True)
class Split:
    """Row numbers of an index: training, validation and test part."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    @property
    def trainval(self) -> np.ndarray:
        """Rows of the final fit, in index order."""
        return np.sort(np.concatenate([self.train, self.val]))


def random_validation(count: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split 0..count-1 into (training, validation) positions.

    One in-place shuffle by NumPy's legacy generator; the first floor(fraction * count) are validation. Not
    stratified, and the same for every model: with seed 0 and a fifth it is the official code's split.
    """
    order = np.arange(count)
    np.random.RandomState(seed).shuffle(order)
    cut = int(np.floor(fraction * count))
    return np.sort(order[cut:]), np.sort(order[:cut])


def make_split(split: np.ndarray, fraction: float, seed: int, name: str = "the dataset") -> Split:
    """Split the rows of an index by its official parts; without a validation part, draw one from training.

    Parameters
    ----------
    split : ndarray of str, shape (n,)
        The index column: ``train``, ``val`` or ``test``.
    fraction : float
        Part of the training rows that becomes validation if the dataset has no official one; in (0, 1).
    seed : int
        Seed of that draw.
    name : str
        Name of the dataset, for messages.

    Raises
    ------
    InputError
        If a part is empty.
    """
    train, val, test = (np.flatnonzero(split == part) for part in ("train", "val", "test"))
    for part, rows in (("training", train), ("test", test)):
        if not len(rows):
            raise InputError(f"{name} has no {part} image")
    images = len(train)
    if len(val) == 0:
        inner, outer = random_validation(images, fraction, seed)
        train, val = train[inner], train[outer]
    if not (len(train) and len(val)):
        raise InputError(f"{name}: {images} training images are too few to draw a validation part of {fraction:g} from")
    return Split(train, val, test)
