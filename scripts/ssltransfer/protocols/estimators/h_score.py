"""H-score and shrunk H-score: how much of the features' covariance lies between classes."""

import numpy as np

from ssltransfer.protocols.estimators.feature_moments import FeatureMoments


def h_score(moments: FeatureMoments) -> float:
    """H-score: trace of (covariance of features)^+ (covariance of class means), from 0 to min(C - 1, rank).

    It is the sum of the squared canonical correlations of features and one-hot labels. For features in general
    position that are no fewer than the images less one, it is C - 1 whatever they are.

    Notes
    -----
    Y. Bao et al., "An information-theoretic approach to transferability in task transfer learning", ICIP 2019.
    """
    spectrum = moments.centred
    return float((_between(moments) / spectrum.values).sum())


def h_score_above_chance(moments: FeatureMoments) -> float:
    """H-score less its expected value for features that have nothing to do with the labels, (C - 1) rank / (n - 1)."""
    chance = (moments.classes - 1) * len(moments.centred.values) / (moments.count - 1)
    return h_score(moments) - chance


def shrunk_h_score(moments: FeatureMoments) -> float:
    """H-score with the covariance of the features shrunk towards a multiple of the identity (Ledoit and Wolf).

    Notes
    -----
    S. Ibrahim, N. Ponomareva and R. Mazumder, "Newer is not always better: rethinking transferability metrics, their
    peculiarities, stability and performance", 2021 (arXiv 2110.06893).
    """
    shrinkage, values = ledoit_wolf_shrinkage(moments), moments.centred.values
    shrunk = (1 - shrinkage) * values + shrinkage * values.sum() / moments.width
    return float(((1 - shrinkage) * _between(moments) / shrunk).sum())


def ledoit_wolf_shrinkage(moments: FeatureMoments) -> float:
    """Weight, from 0 to 1, of the identity in the shrunk covariance of the features.

    Notes
    -----
    O. Ledoit and M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004.
    """
    n, d, values = moments.count, moments.width, moments.centred.values / moments.count
    squares = float((values**2).sum())
    distance = (squares - values.sum() ** 2 / d) / d
    noise = (moments.fourth / n - squares) / (n * d)
    return 0.0 if distance <= 0 else float(np.clip(noise / distance, 0.0, 1.0))


def _between(moments: FeatureMoments) -> np.ndarray:
    """Scatter between classes along each eigenvector of the scatter of the features (k,)."""
    weighted = np.sqrt(moments.class_counts)[:, None] * moments.class_means
    return ((weighted @ moments.centred.vectors) ** 2).sum(axis=0)
