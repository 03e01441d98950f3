"""Spectral estimators, which need no labels: RankMe, effective rank, stable rank and the decay of eigenvalues."""

import numpy as np

from ssltransfer.protocols.estimators.feature_moments import FeatureMoments

RANK_ME_EPSILON = 1e-7
FIRST_RANK = 11
"""First eigenvalue of the fitted power law; the last is a quarter of all."""
FEWEST_RANKS = 10
"""Fewest eigenvalues that a power law is fitted to."""


def rank_me(moments: FeatureMoments) -> float:
    """RankMe: exponential of the entropy of the singular values of the features, which are not centred.

    From 1 to min(n, d). It was made to compare runs of one method, and depends on n and d.

    Notes
    -----
    Q. Garrido et al., "RankMe: assessing the downstream performance of pretrained self-supervised representations by
    their rank", ICML 2023 (arXiv 2210.02885).
    """
    singular = np.sqrt(moments.uncentred.values)
    shares = np.zeros(min(moments.count, moments.width))
    shares[: len(singular)] = singular / singular.sum()
    shares += RANK_ME_EPSILON
    return float(np.exp(-(shares * np.log(shares)).sum()))


def effective_rank(moments: FeatureMoments) -> float:
    """Exponential of the entropy of the singular values of the centred features, from 1 to min(n - 1, d).

    Notes
    -----
    O. Roy and M. Vetterli, "The effective rank: a measure of effective dimensionality", 2007.
    """
    singular = np.sqrt(moments.centred.values)
    shares = singular / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def stable_rank(moments: FeatureMoments) -> float:
    """Total variance of the features divided by that of their first principal component."""
    return float(moments.centred.values.sum() / moments.centred.values[-1])


def power_law(moments: FeatureMoments) -> float | None:
    """Exponent of the decay of the eigenvalues of the covariance (alpha-ReQ), from the 11th to a quarter of them.

    Weighted least squares of log eigenvalue on log rank with weights 1 / rank. None with fewer than `FEWEST_RANKS`
    eigenvalues in that range. The exponent depends on the range, which depends on n and d alone.

    Notes
    -----
    K. K. Agrawal et al., "alpha-ReQ: assessing representation quality in self-supervised learning by measuring
    eigenspectrum decay", NeurIPS 2022.
    """
    ranks = np.arange(FIRST_RANK, min(moments.count, moments.width) // 4 + 1)
    values = moments.centred.values[::-1]
    if len(ranks) < FEWEST_RANKS or len(values) < ranks[-1]:
        return None
    slope, _ = np.polyfit(np.log(ranks), np.log(values[ranks - 1]), 1, w=1 / np.sqrt(ranks))
    return float(-slope)
