"""Geometry of a sample of features, without labels: intrinsic dimension by TwoNN and maximum likelihood, uniformity."""

import numpy as np
from scipy.special import logsumexp

from ssltransfer.protocols.knn.neighbours import nearest_neighbours

DISCARDED = 0.1
"""Part of the largest ratios of distances that TwoNN leaves out."""
NEIGHBOURS = 20
"""Number of neighbours of the maximum-likelihood estimator."""


def sample_rows(count: int, images: int, seed: int) -> np.ndarray:
    """Draw rising row numbers of at most `images` out of `count` images; the same for every model."""
    if images >= count:
        return np.arange(count)
    return np.sort(np.random.RandomState(seed).permutation(count)[:images])


def neighbour_distances(features: np.ndarray) -> np.ndarray | None:
    """Euclidean distances (m, `NEIGHBOURS`) of the distinct rows to their nearest ones, rising; None of too few rows.

    Repeated rows count once, because a distance of 0 has no logarithm.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
    """
    distinct = np.unique(features, axis=0)
    if len(distinct) <= NEIGHBOURS:
        return None
    every = np.arange(len(distinct))
    found = nearest_neighbours(distinct, every, every, NEIGHBOURS, "euclidean")
    values = distinct.astype(np.float64)
    return np.sort(
        np.sqrt([((values[i] - values[rows]) ** 2).sum(axis=1) for i, rows in enumerate(found.rows)]), axis=1
    )


def two_nn_dimension(distances: np.ndarray) -> float:
    """Intrinsic dimension from the ratios of the distances to the second and the first neighbour.

    Notes
    -----
    E. Facco et al., "Estimating the intrinsic dimension of datasets by a minimal neighborhood information", 2017. The
    line through the origin is fitted without the largest tenth of the ratios, as in scikit-dimension.
    """
    ratios = np.sort(np.log(distances[:, 1] / distances[:, 0]))
    kept = int(len(ratios) * (1 - DISCARDED))
    share = np.arange(kept) / len(ratios)
    return float(-(ratios[:kept] * np.log1p(-share)).sum() / (ratios[:kept] ** 2).sum())


def likelihood_dimension(distances: np.ndarray) -> float:
    """Intrinsic dimension by maximum likelihood (harmonic mean over images).

    Notes
    -----
    E. Levina and P. J. Bickel, "Maximum likelihood estimation of intrinsic dimension", 2004; D. J. C. MacKay and
    Z. Ghahramani, comments on it, 2005.
    """
    return float(1 / np.log(distances[:, -1:] / distances[:, :-1]).mean())


def uniformity(features: np.ndarray) -> float | None:
    """Logarithm of the mean Gaussian potential exp(-2 |x - y|^2) of pairs of features of norm 1; lower is more uniform.

    None with fewer than two features that are not 0.

    Notes
    -----
    T. Wang and P. Isola, "Understanding contrastive representation learning through alignment and uniformity on the
    hypersphere", ICML 2020.
    """
    values = np.asarray(features, np.float64)
    norms = np.sqrt((values**2).sum(axis=1))
    values = values[norms > 0] / norms[norms > 0, None]
    if len(values) < 2:
        return None
    cosines = (values @ values.T)[np.triu_indices(len(values), 1)]
    return float(logsumexp(-2 * (2 - 2 * np.minimum(cosines, 1.0))) - np.log(len(cosines)))
