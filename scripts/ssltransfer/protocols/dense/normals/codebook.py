"""Code words: a small set of directions that stand for all normals, so that a classifier can predict them.

The paper's software clusters the training normals into 40 code words, labels each pixel with the nearest one, and
takes the mean of the words under the predicted probabilities as the predicted normal.
"""

import numpy as np

from ssltransfer.errors import InputError

IGNORE = 255
"""Label of a pixel whose normal is not known; also in the data set's own images of labels."""
MOST_CODES = 200
SAMPLES = 30_000
"""Normals that words are fitted to."""
ITERATIONS = 100
SETTLED = 1e-3
"""Share of normals that may still change their word when the fit ends."""


def nearest(normals: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Number of the nearest word (Euclidean, the first one on ties) of each normal.

    Parameters
    ----------
    normals : ndarray of float, shape (..., 3)
    words : ndarray of float, shape (k, 3)

    Returns
    -------
    ndarray of int64, shape (...)
    """
    return (normals @ words.T - (words**2).sum(axis=1) / 2).argmax(axis=-1)


def fit_words(normals: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Find code words by spherical k-means: centres are unit vectors, as the words of the paper's software are.

    Parameters
    ----------
    normals : ndarray of float, shape (n, 3)
        Unit vectors.
    count : int
        Number of words, 2 to `MOST_CODES`.
    seed : int
        Of the start (k-means++); the rest follows from it.

    Returns
    -------
    ndarray of float64, shape (count, 3)
        Unit vectors in ascending order of height (y).

    Raises
    ------
    InputError
        If there are fewer different normals than words.
    """
    different = len(np.unique(normals, axis=0))
    if different < count:
        raise InputError(f"targets: codes is {count}; the training images have {different} different normals")
    normals = np.asarray(normals, np.float64)
    words = _spread(normals, count, seed)
    labels = np.full(len(normals), -1)
    for _ in range(ITERATIONS):
        previous, labels = labels, nearest(normals, words)
        if np.count_nonzero(labels != previous) <= SETTLED * len(labels):
            break
        sums = np.stack([np.bincount(labels, normals[:, axis], count) for axis in range(3)], axis=1)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        # A word without normals, or in the middle of opposite ones, stays where it is.
        words = np.where(length > 1e-9, sums / np.maximum(length, 1e-9), words)
    return words[np.argsort(words[:, 1], kind="stable")]


def _spread(normals: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Start of k-means++: each further centre is drawn with the squared distance from those before as its odds."""
    rng = np.random.default_rng(seed)
    centres = [normals[rng.integers(len(normals))]]
    distance = np.full(len(normals), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, ((normals - centres[-1]) ** 2).sum(axis=1))
        centres.append(normals[rng.choice(len(normals), p=distance / distance.sum())])
    return np.array(centres)


def check_words(words: np.ndarray, where: str) -> None:
    """Require 2 to `MOST_CODES` finite code words of length 1 (within a percent); InputError otherwise."""
    if words.ndim != 2 or words.shape[1] != 3 or not 2 <= len(words) <= MOST_CODES:
        raise InputError(f"{where}: code words of shape {words.shape}; expected (k, 3) with k from 2 to {MOST_CODES}")
    length = np.linalg.norm(words, axis=1)
    if not (np.abs(length - 1) < 0.01).all():  # NaN is wrong too
        row = int(np.argmax(~(np.abs(length - 1) < 0.01)))
        raise InputError(f"{where}: code word {row} has length {length[row]:.3g}; expected unit vectors")


def check_labels(labels: np.ndarray, count: int, where: str) -> None:
    """Require labels 0 to count - 1, or `IGNORE`; InputError otherwise."""
    wrong = (labels >= count) & (labels != IGNORE)
    if wrong.any():
        raise InputError(f"{where}: label {labels[wrong].max()}; expected 0 to {count - 1}, or {IGNORE} where unknown")
