"""LogME: maximum evidence of a Bayesian linear model of the labels given the features."""

import numpy as np

from ssltransfer.protocols.estimators.feature_moments import FeatureMoments

GRID = 161
"""Values of the ratio of precisions that are tried, before the best one is refined."""
STEPS = 60
"""Steps of the golden-section search; each shortens the bracket to 0.62 of its length."""
PERFECT = 1e-9
"""Part of the labels below which what the features do not explain counts as rounding."""
GOLDEN = (np.sqrt(5) - 1) / 2


def log_me(moments: FeatureMoments) -> tuple[float, int]:
    """Mean over classes of the maximum log evidence per image.

    The labels t of a class (0 or 1) are modelled as F w plus noise of precision beta, with a prior of precision alpha
    on w. For a fixed ratio a = alpha / beta the best beta is n / Q(a), which leaves one number to maximise:

        log evidence = (-sum_k log(1 + s_k / a) + n log(n / Q(a)) - n - n log 2 pi) / 2,
        Q(a) = |t|^2 - sum_k z_k^2 s_k / (a + s_k)

    with the squared singular values s_k of F and the projections z_k of t on its left singular vectors. Directions
    without features cancel, so that n < d needs no care.

    Returns
    -------
    evidence : float
        In nats per image.
    perfect : int
        Number of classes that the features fit without an error although they are fewer than the images: their
        evidence has no maximum, and the value is that at the smallest ratio tried.

    Notes
    -----
    K. You et al., "LogME: practical assessment of pre-trained models for transfer learning", ICML 2021, and "Ranking
    and tuning pre-trained models", JMLR 2022.
    """
    spectrum, n = moments.uncentred, moments.count
    sums = moments.class_counts[:, None] * (moments.class_means + moments.mean)
    squares = (sums @ spectrum.vectors) ** 2 / spectrum.values  # z^2 (C, k)
    total = moments.class_counts.astype(np.float64)
    left = total - squares.sum(axis=1)
    left[left <= PERFECT * total] = 0.0
    low, high = np.log(1e-8 * spectrum.values[0]), np.log(1e12 * spectrum.values[-1])
    grid = np.linspace(low, high, GRID)
    ratios = np.exp(grid)
    unexplained = left + (ratios[:, None] / (ratios[:, None] + spectrum.values)) @ squares.T  # Q (GRID, C)
    complexity = np.log1p(spectrum.values / ratios[:, None]).sum(axis=1)
    best = np.argmax(_evidence(complexity[:, None], unexplained, n), axis=0)

    def evidence(position: np.ndarray) -> np.ndarray:
        ratio = np.exp(position)[:, None]
        explained = (squares * (ratio / (ratio + spectrum.values))).sum(axis=1)
        return _evidence(np.log1p(spectrum.values / ratio).sum(axis=1), left + explained, n)

    found = _maximise(evidence, grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, GRID - 1)])
    perfect = (left == 0) & (len(spectrum.values) < n)
    return float(found.mean() / n), int(perfect.sum())


def _evidence(complexity: np.ndarray, unexplained: np.ndarray, n: int) -> np.ndarray:
    return (-complexity + n * np.log(n / np.maximum(unexplained, np.finfo(float).tiny)) - n - n * np.log(2 * np.pi)) / 2


def _maximise(function, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Largest values of functions with one maximum in each bracket, by golden-section search of all together."""
    for _ in range(STEPS):
        first, second = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        left_is_better = function(first) > function(second)
        low, high = np.where(left_is_better, low, first), np.where(left_is_better, second, high)
    return function((low + high) / 2)
