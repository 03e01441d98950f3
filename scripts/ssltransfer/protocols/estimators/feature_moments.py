"""Moments of training features: mean, scatter matrix and class means, read in blocks in float64."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ssltransfer.array_backend import NUMPY, Arrays

BLOCK = 4096
"""Number of rows at a time."""
RANK_TOLERANCE = 1e-12
"""Eigenvalues of a scatter matrix below this part of the largest one count as 0: features are rounded to float32."""


@dataclass(frozen=True)
class Spectrum:
    """Positive eigenvalues of a symmetric positive semidefinite matrix, and their eigenvectors.

    Attributes
    ----------
    values : ndarray of float64, shape (k,)
        Rising, where k is the rank.
    vectors : ndarray of float64, shape (r, k)
    """

    values: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class FeatureMoments:
    """Moments of the features of n training images, d wide.

    Where n < d, the features are expressed in an orthonormal basis of their span (r = n), otherwise r = d.

    Attributes
    ----------
    count, width : int
        n and d.
    mean : ndarray of float64, shape (r,)
    scatter : ndarray of float64, shape (r, r)
        Sum over images of the outer products of centred features.
    fourth : float
        Sum over images of the fourth powers of the norms of centred features.
    class_counts : ndarray of int, shape (C,)
        Images of each class; a class without one is left out. Of a multi-label set an image counts for each label.
    class_means : ndarray of float64, shape (C, r)
        Means of the centred features.
    within : ndarray of float64, shape (C,)
        Sum over the images of a class of the squared distances to the class mean.
    arrays : Arrays
        Where eigenvalues are computed.
    """

    count: int
    width: int
    mean: np.ndarray
    scatter: np.ndarray
    fourth: float
    class_counts: np.ndarray
    class_means: np.ndarray
    within: np.ndarray
    arrays: Arrays = NUMPY

    @property
    def classes(self) -> int:
        """Number of classes with an image."""
        return len(self.class_counts)

    @cached_property
    def centred(self) -> Spectrum:
        """Spectrum of the scatter matrix."""
        return _spectrum(self.scatter, self.arrays)

    @cached_property
    def uncentred(self) -> Spectrum:
        """Spectrum of the sum of outer products of the features as they are."""
        return _spectrum(self.scatter + self.count * np.outer(self.mean, self.mean), self.arrays)


def _spectrum(matrix: np.ndarray, arrays: Arrays) -> Spectrum:
    values, vectors = (arrays.numpy(found) for found in arrays.xp.linalg.eigh(arrays.place(matrix)))
    kept = values > RANK_TOLERANCE * values[-1]
    return Spectrum(values[kept], vectors[:, kept])


def reduced(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return some rows of features, or, where they are fewer than wide, their coordinates in a basis of their span.

    Inner products and norms stay, so that every estimator that is invariant to rotations takes n columns instead of d.

    Parameters
    ----------
    features : ndarray of float32, shape (m, d)
        May be a memory map.
    rows : ndarray of int, shape (n,)

    Returns
    -------
    ndarray, shape (n, d) or (n, n)
    """
    if len(rows) >= features.shape[1]:
        every = len(rows) == len(features) and np.array_equal(rows, np.arange(len(rows)))
        return features if every else features[rows]
    return np.linalg.qr(np.asarray(features[rows], np.float64).T, mode="r").T


def blocks(values: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Read copies of rows in blocks of float64."""
    for start in range(0, len(values), BLOCK):
        part = slice(start, start + BLOCK)
        yield part, np.array(values[part], np.float64)


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels (n,) or (n, C) as float64 (n, C) of zeros and ones."""
    return np.eye(classes)[labels] if labels.ndim == 1 else (labels > 0).astype(np.float64)


def feature_moments(
    values: np.ndarray, labels: np.ndarray, classes: int, width: int, arrays: Arrays = NUMPY
) -> FeatureMoments:
    """Compute the moments of training features in two passes: means first, so that no digits cancel.

    Parameters
    ----------
    values : ndarray, shape (n, r)
        See `reduced`.
    labels : ndarray
        (n,) of int, or (n, C) of a multi-label set.
    classes : int
        Number of classes of the dataset.
    width : int
        Width d of the features.
    arrays : Arrays
        Where to compute.
    """
    count, size = values.shape
    sums, numbers = np.zeros((classes, size)), np.zeros(classes)
    total = np.zeros(size)
    for part, block in blocks(values):
        targets = one_hot(labels[part], classes)
        sums += targets.T @ block
        numbers += targets.sum(axis=0)
        total += block.sum(axis=0)
    mean = total / count
    scatter, fourth, squares = arrays.place(np.zeros((size, size))), 0.0, np.zeros(classes)
    for part, block in blocks(values):
        block -= mean
        norms = (block**2).sum(axis=1)
        fourth += float((norms**2).sum())
        squares += norms @ one_hot(labels[part], classes)
        placed = arrays.place(block)
        scatter += placed.T @ placed
    present = numbers > 0
    counts = numbers[present]
    means = sums[present] / counts[:, None] - mean
    within = np.maximum(squares[present] - counts * (means**2).sum(axis=1), 0.0)
    return FeatureMoments(
        count, width, mean, arrays.numpy(scatter), fourth, counts.astype(np.int64), means, within, arrays
    )
