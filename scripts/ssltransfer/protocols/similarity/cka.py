"""Debiased linear centred kernel alignment (CKA) of two sets of features of the same images.

HSIC is estimated without bias in the space of the features, from the d x d cross products of row blocks, so that the
cost is n d^2 and no n x n matrix is made.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import stdtrit

from ssltransfer.array_backend import NUMPY, Array, Arrays

FOLDS, FOLD_IMAGES = 10, 20
"""Number of folds for the interval, and the fewest images of one; with fewer images there are fewer folds."""
BLOCK = 4096
"""Number of rows at a time."""
SEED = 0


@dataclass(frozen=True)
class Representation:
    """The features of a model for all compared images, centred.

    Attributes
    ----------
    values : ndarray, shape (n, r)
        Centred; in a basis of their span where n < d.
    folds : list of slice
        Rows of each fold.
    norms : ndarray of float64, shape (n,)
        Squared norms.
    fold_means : ndarray of float64, shape (folds, r)
    fold_norms : ndarray of float64, shape (n,)
        Squared distances to the mean of the own fold.
    """

    values: np.ndarray
    folds: list[slice]
    norms: np.ndarray
    fold_means: np.ndarray
    fold_norms: np.ndarray


@dataclass(frozen=True)
class Alignment:
    """Similarity of two representations.

    Attributes
    ----------
    value : float
        Debiased linear CKA: 1 for equal representations up to rotation, scaling and shift, 0 on average for unrelated
        ones; may be slightly negative.
    low, high : float or None
        95 % interval over images: Student's t from the values on disjoint folds of them. None with a single fold.
    biased : float
        CKA without the correction, as many papers print it; that of unrelated features is near d / (n + d).
    chance : float
        Debiased CKA of the first fold after one permutation of the images of one representation.
    """

    value: float
    low: float | None
    high: float | None
    biased: float
    chance: float


def image_order(count: int) -> np.ndarray:
    """Order in which images are compared; folds are parts of it, which therefore are random."""
    return np.random.RandomState(SEED).permutation(count)


def represent(features: np.ndarray, rows: np.ndarray) -> Representation:
    """Bring the features of some images into the form that `align` compares.

    Parameters
    ----------
    features : ndarray of float32, shape (m, d)
        May be a memory map.
    rows : ndarray of int, shape (n,)
        Images in the order of `image_order`.
    """
    values = np.asarray(features[rows], np.float64)
    values -= values.mean(axis=0)
    if len(rows) < values.shape[1]:
        values = np.linalg.qr(values.T, mode="r").T  # the same inner products in n columns
    count = max(1, min(FOLDS, len(rows) // FOLD_IMAGES))
    edges = np.linspace(0, len(rows), count + 1).astype(int)
    folds = [slice(first, last) for first, last in pairwise(edges)]
    means = np.stack([values[fold].mean(axis=0) for fold in folds])
    own = np.concatenate([((values[fold] - mean) ** 2).sum(axis=1) for fold, mean in zip(folds, means, strict=True)])
    return Representation(values, folds, (values**2).sum(axis=1), means, own)


@dataclass(frozen=True)
class Hsic:
    """Dependence of two representations.

    Attributes
    ----------
    square : float
        Squared Frobenius norm of the cross product of the features (biased HSIC).
    whole : float
        Unbiased HSIC times n (n - 3).
    folds : ndarray of float64, shape (folds,)
        The same of each fold.
    """

    square: float
    whole: float
    folds: np.ndarray


def dependence(first: Representation, second: Representation, arrays: Arrays = NUMPY) -> Hsic:
    """HSIC of two representations of the same images; that of one with itself is part of all its alignments."""
    total, squares = None, []
    for number, fold in enumerate(first.folds):
        product = _cross_product(first.values[fold], second.values[fold], arrays)
        total = product if total is None else total + product
        squares.append(_centred_square(product, first, second, number, arrays))
    square = float((total**2).sum())
    folds = [
        _debiased(each, first.fold_norms[fold], second.fold_norms[fold])
        for each, fold in zip(squares, first.folds, strict=True)
    ]
    return Hsic(square, _debiased(square, first.norms, second.norms), np.array(folds))


def align(
    first: Representation, second: Representation, own_first: Hsic, own_second: Hsic, arrays: Arrays = NUMPY
) -> Alignment | None:
    """Compare two representations of the same images, given the `dependence` of each on itself.

    None where one is constant.

    Notes
    -----
    S. Kornblith et al., "Similarity of neural network representations revisited", ICML 2019; L. Song et al., "Feature
    selection via dependence maximization", 2012 (the unbiased HSIC).
    """
    if min(own_first.whole, own_second.whole) <= 0:
        return None
    both = dependence(first, second, arrays)
    value = both.whole / np.sqrt(own_first.whole * own_second.whole)
    scales = own_first.folds * own_second.folds
    low, high = _interval(value, both.folds, scales)
    biased = both.square / np.sqrt(own_first.square * own_second.square)
    return Alignment(float(value), low, high, float(biased), _chance(first, second, float(scales[0]), arrays))


def _debiased(square: float, first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased HSIC times n (n - 3), from the squared norm of the cross product and the squared norms of rows."""
    n = len(first)
    correction = n / (n - 2) * float(first @ second)
    return square - correction + float(first.sum()) * float(second.sum()) / ((n - 1) * (n - 2))


def _centred_square(
    product: Array, first: Representation, second: Representation, number: int, arrays: Arrays
) -> float:
    """Squared norm of the cross product of a fold, whose features are centred over all images, centred there."""
    fold = first.folds[number]
    means = arrays.place(first.fold_means[number])[:, None] * arrays.place(second.fold_means[number])
    return float(((product - (fold.stop - fold.start) * means) ** 2).sum())


def _cross_product(a: np.ndarray, b: np.ndarray, arrays: Arrays) -> Array:
    total = None
    for start in range(0, len(a), BLOCK):
        product = arrays.place(a[start : start + BLOCK]).T @ arrays.place(b[start : start + BLOCK])
        total = product if total is None else total + product
    return total


def _interval(value: float, cross: np.ndarray, scales: np.ndarray) -> tuple[float | None, float | None]:
    """Interval around a value from the HSIC of each fold, and the products of both with themselves."""
    if len(cross) < 2 or scales.min() <= 0:
        return None, None
    values = cross / np.sqrt(scales)
    half = float(stdtrit(len(values) - 1, 0.975)) * float(values.std(ddof=1)) / np.sqrt(len(values))
    return float(max(value - half, -1.0)), float(min(value + half, 1.0))


def _chance(first: Representation, second: Representation, scale: float, arrays: Arrays) -> float:
    """Debiased CKA of the first fold with permuted images."""
    fold = first.folds[0]
    order = fold.start + np.random.RandomState(SEED + 1).permutation(fold.stop - fold.start)
    product = _cross_product(first.values[fold], second.values[order], arrays)
    square = _centred_square(product, first, second, 0, arrays)
    hsic = _debiased(square, first.fold_norms[fold], second.fold_norms[order])
    return float(hsic / np.sqrt(scale)) if scale > 0 else 0.0
