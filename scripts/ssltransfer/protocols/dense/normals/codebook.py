"""The codebook: a small set of directions (code words) into which normals are classified.

The paper's software clusters the training normals into 40 code words and labels each pixel with the nearest one. The
predicted normal is the mean of the code words, weighted by the predicted probabilities.
"""

import numpy as np

from ssltransfer.datasets.masks import IGNORE
from ssltransfer.errors import InputError

MAX_CODES = 200
SAMPLES = 30_000
"""Number of normals that a codebook is fitted to."""
ITERATIONS = 100
TOLERANCE = 1e-3
"""Fraction of normals below which changes of label end the fit."""


def nearest(normals: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Label of each normal: the number of its nearest code word (Euclidean distance, the first of equals).

    Parameters
    ----------
    normals : ndarray of float, shape (..., 3)
    codebook : ndarray of float, shape (k, 3)

    Returns
    -------
    ndarray of int64, shape (...)
    """
    return (normals @ codebook.T - (codebook**2).sum(axis=1) / 2).argmax(axis=-1)


def fit_codebook(normals: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Fit a codebook by spherical k-means; its code words are unit vectors, as in the paper's software.

    Parameters
    ----------
    normals : ndarray of float, shape (n, 3)
        Unit vectors.
    count : int
        Number of code words, 2 to `MAX_CODES`.
    seed : int
        Seed of the k-means++ initialisation.

    Returns
    -------
    ndarray of float64, shape (count, 3)
        Unit vectors in ascending order of height (y).

    Raises
    ------
    InputError
        If there are fewer different normals than code words.
    """
    different = len(np.unique(normals, axis=0))
    if different < count:
        raise InputError(f"targets: codes is {count}; the training images have {different} different normals")
    normals = np.asarray(normals, np.float64)
    codebook = _initial_centres(normals, count, seed)
    labels = np.full(len(normals), -1)
    for _ in range(ITERATIONS):
        previous, labels = labels, nearest(normals, codebook)
        if np.count_nonzero(labels != previous) <= TOLERANCE * len(labels):
            break
        sums = np.stack([np.bincount(labels, normals[:, axis], count) for axis in range(3)], axis=1)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        # A code word without normals, or between opposite ones, is kept.
        codebook = np.where(length > 1e-9, sums / np.maximum(length, 1e-9), codebook)
    return codebook[np.argsort(codebook[:, 1], kind="stable")]


def _initial_centres(normals: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Initialise by k-means++.

    Each new centre is sampled with probability proportional to its squared distance to the nearest existing centre.
    """
    rng = np.random.default_rng(seed)
    centres = [normals[rng.integers(len(normals))]]
    distance = np.full(len(normals), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, ((normals - centres[-1]) ** 2).sum(axis=1))
        centres.append(normals[rng.choice(len(normals), p=distance / distance.sum())])
    return np.array(centres)


def check_codebook(codebook: np.ndarray, where: str) -> None:
    """Require 2 to `MAX_CODES` finite code words of length 1 (within a percent); InputError otherwise."""
    if codebook.ndim != 2 or codebook.shape[1] != 3 or not 2 <= len(codebook) <= MAX_CODES:
        raise InputError(f"{where}: code words of shape {codebook.shape}; expected (k, 3) with k from 2 to {MAX_CODES}")
    length = np.linalg.norm(codebook, axis=1)
    if not (np.abs(length - 1) < 0.01).all():  # NaN is wrong too
        row = int(np.argmax(~(np.abs(length - 1) < 0.01)))
        raise InputError(f"{where}: code word {row} has length {length[row]:.3g}; expected unit vectors")


def check_labels(labels: np.ndarray, count: int, where: str) -> None:
    """Require labels 0 to count - 1, or `IGNORE`; InputError otherwise."""
    wrong = (labels >= count) & (labels != IGNORE)
    if wrong.any():
        raise InputError(f"{where}: label {labels[wrong].max()}; expected 0 to {count - 1}, or {IGNORE} where unknown")
