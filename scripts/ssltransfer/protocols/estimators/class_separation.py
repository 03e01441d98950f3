"""Separation of classes: nearest class mean, class-distance normalised variance, and Gaussian Bhattacharyya overlap."""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from ssltransfer.protocols.estimators.feature_moments import FeatureMoments, blocks

COMPONENTS = 64
"""Principal components in which classes are described by Gaussians."""
FLOOR = 1e-6
"""Smallest variance of a class, as a part of the mean variance of all images in the components used."""


def class_mean_scores(values: np.ndarray, labels: np.ndarray, moments: FeatureMoments) -> np.ndarray:
    """Negative squared distances of images to the means of the classes, each image left out of the mean of its own.

    Parameters
    ----------
    values : ndarray, shape (n, r)
        Rows that `moments` are of.
    labels : ndarray of int, shape (n,)
        Positions of the classes in `moments`.

    Returns
    -------
    ndarray of float64, shape (n, C)
        -inf for the class of an image that is alone in it.
    """
    means = moments.class_means
    squares = (means**2).sum(axis=1)
    with np.errstate(divide="ignore"):
        factor = (moments.class_counts / (moments.class_counts - 1)) ** 2  # without the image, its mean is farther
    scores = np.empty((len(values), moments.classes))
    for part, block in blocks(values):
        block -= moments.mean
        distances = np.maximum((block**2).sum(axis=1)[:, None] - 2 * block @ means.T + squares, 0.0)
        own = (np.arange(len(block)), labels[part])
        alone = np.isinf(factor[labels[part]])
        distances[own] = np.where(alone, np.inf, distances[own] * np.where(alone, 1.0, factor[labels[part]]))
        scores[part] = -distances
    return scores


@dataclass(frozen=True)
class Variability:
    """Class-distance normalised variance over pairs of classes.

    Attributes
    ----------
    mean, median : float
        Of all pairs; infinite where a pair (half of the pairs) is no farther apart than noise explains.
    close_pairs : int
        Pairs of classes whose distance noise explains.
    single_images : int
        Classes that are left out, because one image has no variance.
    """

    mean: float
    median: float
    close_pairs: int
    single_images: int


def class_distance_variance(moments: FeatureMoments) -> Variability:
    """Class-distance normalised variance (CDNV), (V_a + V_b) / (2 |m_a - m_b|^2), without the bias of few images.

    The variances are unbiased, and what noise adds to the squared distance of two means, V_a / n_a + V_b / n_b, is
    subtracted from it.

    Notes
    -----
    T. Galanti, A. Gyorgy and M. Hutter, "On the role of neural collapse in transfer learning", 2021 (arXiv 2112.15121).
    """
    kept = moments.class_counts > 1
    counts, means = moments.class_counts[kept], moments.class_means[kept]
    variances = moments.within[kept] / (counts - 1)
    first, second = np.triu_indices(len(counts), 1)
    squares = (means**2).sum(axis=1)
    distances = (squares[:, None] + squares - 2 * means @ means.T)[first, second]
    distances = distances - (variances / counts)[first] - (variances / counts)[second]
    near = distances <= 0
    ratios = np.full(len(distances), np.inf)
    ratios[~near] = (variances[first] + variances[second])[~near] / (2 * distances[~near])
    mean, median = (float(np.mean(ratios)), float(np.median(ratios))) if len(ratios) else (np.inf, np.inf)
    return Variability(mean, median, int(near.sum()), int((~kept).sum()))


def bhattacharyya_separation(values: np.ndarray, labels: np.ndarray, moments: FeatureMoments) -> float:
    """Negative logarithm of the overlap of all pairs of classes, as spherical Gaussians in 64 principal components.

    The overlap of the Gaussian Bhattacharyya coefficient (GBC) is a sum of exp(-D) over ordered pairs, where D is their
    Bhattacharyya distance. It underflows for separable classes, its logarithm does not.

    Parameters
    ----------
    values, labels
        See `class_mean_scores`.

    Notes
    -----
    M. Pandy et al., "Transferability estimation using Bhattacharyya class separability", CVPR 2022 (arXiv 2111.12780).
    """
    basis = moments.centred.vectors[:, ::-1][:, :COMPONENTS]
    kept = np.flatnonzero(moments.class_counts > 1)
    means = moments.class_means[kept] @ basis
    squares = np.zeros(moments.classes)
    for part, block in blocks(values):
        residuals = (block - moments.mean - moments.class_means[labels[part]]) @ basis
        squares += np.bincount(labels[part], (residuals**2).sum(axis=1), moments.classes)
    components = basis.shape[1]
    variances = squares[kept] / moments.class_counts[kept] / components
    variances = np.maximum(variances, FLOOR * moments.centred.values[-components:].mean() / moments.count)
    first, second = np.triu_indices(len(kept), 1)
    pooled = (variances[first] + variances[second]) / 2
    norms = (means**2).sum(axis=1)
    distances = np.maximum((norms[:, None] + norms - 2 * means @ means.T)[first, second], 0.0)
    spread = np.log(pooled) - (np.log(variances[first]) + np.log(variances[second])) / 2
    return float(-logsumexp(-(distances / (8 * pooled) + components / 2 * spread)) - np.log(2))
