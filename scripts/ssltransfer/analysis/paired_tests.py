"""Paired tests of all pairs of models on the same test units: differences, intervals and adjusted p-values.

Each form of outcomes has its test:

===========================  =======================================================  ===========================
outcomes                     test and interval of a difference                        p-values adjusted by
===========================  =======================================================  ===========================
right or wrong               exact McNemar test; Tango's score interval               Holm
right or wrong, in strata    sign flips of images; normal interval of the             max-|t| over the flips, as
                             stratified difference                                    if pairs were independent
other values                 paired t test and interval                               Holm
bootstrap replicates         paired bootstrap, basic interval                         max-|t| over the same
                                                                                      resamples
===========================  =======================================================  ===========================

Holm's adjustment holds whatever the dependence between pairs. Resampled p-values cannot be smaller than one by the
number of resamples, which Holm would multiply by the number of pairs; the step-down max-|t| of Romano and Wolf (2005)
needs no such small ones.

Each test returns the columns of `pairs.Comparison.pairs` that it fills, pairs as from ``np.triu_indices(models, 1)``,
and the covariance of the values of the models over test sets like this one.
"""

from itertools import product

import numpy as np
from scipy.special import bdtr, ndtri, stdtr, stdtrit

LEVEL = 0.05
"""Pairs with an adjusted p-value below it are told apart."""
NORMAL = float(ndtri(1 - LEVEL / 2))
"""Half width of an interval in standard errors."""
FLIPS, SEED = 1999, 0
#: Most discordant images of a pair for which all flips are enumerated instead of drawn.
ENUMERATED = 10
#: Numbers of a block of resampled statistics (resamples x pairs), which bounds the memory.
BLOCK = 4_000_000


def holm(p: np.ndarray) -> np.ndarray:
    """Adjust p-values by Holm's step-down procedure, which holds the family-wise error under any dependence."""
    p = np.asarray(p, float)
    order = np.argsort(p, kind="stable")
    steps = (len(p) - np.arange(len(p))) * p[order]
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps)) if len(p) else steps
    return adjusted


def t_test(mean: np.ndarray, error: np.ndarray, freedom: float) -> np.ndarray:
    """Two-sided p-value of means; 1 for a mean of 0 or an unknown error (NaN), 0 for others without an error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean == 0, 0.0, np.abs(mean) / error)
    return np.nan_to_num(2 * stdtr(freedom, -t), nan=1.0)


def mcnemar(right: np.ndarray, scale: float) -> tuple[dict, np.ndarray]:
    """McNemar's exact test and Tango's (1998) score interval; `right` has shape (models, images)."""
    n = right.shape[1]
    counts = right.sum(axis=1, dtype=np.float64)
    both = (right @ right.T).astype(np.float64)
    i, j = np.triu_indices(len(right), 1)
    b, c = counts[i] - both[i, j], counts[j] - both[i, j]
    p = np.minimum(1, 2 * bdtr(np.minimum(b, c), (b + c).astype(int), 0.5))
    columns = {
        "difference": scale * (b - c) / n,
        "low": scale * tango_lower(b, c, n),
        "high": -scale * tango_lower(c, b, n),
        "p": p,
        "p_adjusted": holm(p),
        "method": "McNemar exact; Tango; Holm",
    }
    # Two images that all models get right and two that all get wrong, as Agresti and Coull add, so that no
    # accuracy of 100 % comes without noise.
    moments, means = (both + 2) / (n + 4), (counts + 2) / (n + 4)
    covariance = (moments - np.outer(means, means)) / (n + 4)
    return columns, scale**2 * covariance if n > 1 else np.full_like(both, np.nan)


def tango_lower(b: np.ndarray, c: np.ndarray, n: int) -> np.ndarray:
    """Lower end of Tango's (1998) score interval of a difference of paired proportions, (b - c) / n.

    The upper end is the negative lower end with `b` and `c` swapped.

    Parameters
    ----------
    b, c : ndarray
        Numbers of images that only the first model, and only the second model, gets right.
    n : int
        Number of images.
    """
    low, high = np.full_like(b, -1.0), (b - c) / n
    for _ in range(45):
        middle = (low + high) / 2
        # The probability of `c` at its maximum likelihood where the difference is `middle`.
        linear = -b - c + (2 * n - b + c) * middle
        constant = -c * middle * (1 - middle)
        q = (np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0)) - linear) / (4 * n)
        variance = n * (2 * q + middle * (1 - middle))
        rejected = b - c - n * middle > NORMAL * np.sqrt(np.maximum(variance, 0))
        low, high = np.where(rejected, middle, low), np.where(rejected, high, middle)
    return (low + high) / 2


def stratified_sign_flips(right: np.ndarray, strata: np.ndarray, scale: float) -> tuple[dict, np.ndarray]:
    """Difference of mean accuracies over strata; `right` has shape (models, images).

    The variance within a stratum is shrunk by two pseudo-images at the mean accuracy, because a class with one image
    has none of its own. The interval adds the variance of one discordant image (Agresti and Min 2005), without which
    two models that agree on all images would have an interval of no width.
    """
    classes, inverse, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    right, weights = right[:, order], np.repeat(1 / (len(classes) * sizes), sizes).astype(np.float32)
    ends = np.cumsum(sizes)
    groups = [right[:, end - size : end] for end, size in zip(ends, sizes, strict=True)]
    moments = [(group @ group.T).astype(np.float64) for group in groups]
    n, pooled = len(strata), sum(m / size for m, size in zip(moments, sizes, strict=True)) / len(classes)
    pooled = (n * pooled + 2) / (n + 4)
    covariance, discordant, count = (np.zeros_like(pooled) for _ in range(3))
    for moment, size in zip(moments, sizes, strict=True):
        shrunk = (moment + 2 * pooled) / (size + 2)
        covariance += (shrunk - np.outer(shrunk.diagonal(), shrunk.diagonal())) / (len(classes) ** 2 * size)
        own = moment.diagonal()[:, None] + moment.diagonal() - 2 * moment
        discordant += own / (len(classes) * size) ** 2
        count += own
    i, j = np.triu_indices(len(right), 1)
    mean = right.astype(np.float64) @ weights.astype(np.float64)
    difference = mean[i] - mean[j]
    half = NORMAL * np.sqrt(np.maximum(_pair_variance(covariance), 0) + 1 / n**2)
    p, adjusted = _flip_images(right, weights, difference, np.sqrt(discordant[i, j]))
    for pair in np.flatnonzero((count[i, j] <= ENUMERATED) & (count[i, j] > 0)):
        p[pair] = _all_flips(right[i[pair]] - right[j[pair]], weights)
    columns = {
        "difference": scale * difference,
        "low": scale * np.maximum(difference - half, -1),
        "high": scale * np.minimum(difference + half, 1),
        "p": p,
        "p_adjusted": np.maximum(p, adjusted),
        "method": "sign flips of images by class; normal; Sidak max-t",
    }
    return columns, scale**2 * covariance if n > 1 else np.full_like(covariance, np.nan)


def _flip_images(right: np.ndarray, weights: np.ndarray, difference: np.ndarray, error: np.ndarray) -> tuple:
    """Swap the answers of each pair of models on random images, the same images for all pairs.

    `error` is the standard deviation of each difference under these flips. Two pairs with few discordant images can
    seem to depend on each other by the signs that these happen to have, so they are combined as if independent.
    """
    told = np.ptp(right, axis=0) > 0  # images on which all models agree do not matter
    parts = right[:, told] * weights[told]
    generator = np.random.default_rng(SEED)
    drawn = np.empty((len(right), FLIPS), np.float32)
    columns = max(1, BLOCK // max(parts.shape[1], 1))
    for start in range(0, FLIPS, columns):
        shape = (parts.shape[1], min(columns, FLIPS - start))
        signs = generator.integers(0, 2, shape, dtype=np.int8) * np.float32(2) - np.float32(1)
        drawn[:, start : start + columns] = parts @ signs
    return max_t(difference, error, drawn, joint=False)


def _all_flips(differences: np.ndarray, weights: np.ndarray) -> float:
    """Exact p-value of a pair with few discordant images: the share of all flips that differ as much."""
    own = (differences * weights)[differences != 0].astype(np.float64)
    flips = np.array(list(product((-1, 1), repeat=len(own))))
    return float(np.mean(np.abs(flips @ own) >= np.abs(own.sum()) * (1 - 1e-6)))


def _pair_variance(covariance: np.ndarray) -> np.ndarray:
    """Variance of the difference of each pair of models."""
    i, j = np.triu_indices(len(covariance), 1)
    return covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]


def paired_t(values: np.ndarray) -> tuple[dict, np.ndarray]:
    """Paired t test and interval; `values` has shape (models, units)."""
    n = values.shape[1]
    i, j = np.triu_indices(len(values), 1)
    mean, error = np.empty(len(i)), np.full(len(i), np.nan)
    rows = max(1, BLOCK // n)
    for start in range(0, len(i), rows):
        part = slice(start, start + rows)
        differences = values[i[part]] - values[j[part]]
        mean[part] = differences.mean(axis=1)
        if n > 1:
            error[part] = differences.std(axis=1, ddof=1) / np.sqrt(n)
    error[error < 1e-12 * np.abs(mean)] = np.nan  # differences that are all equal do not tell their scatter
    p, half = t_test(mean, error, n - 1), stdtrit(n - 1, 1 - LEVEL / 2) * error
    columns = {
        "difference": mean,
        "low": mean - half,
        "high": mean + half,
        "p": p,
        "p_adjusted": holm(p),
        "method": "paired t; Holm",
    }
    covariance = np.cov(values) / n if n > 1 else np.full((len(values),) * 2, np.nan)
    return columns, covariance.reshape(len(values), len(values))


def paired_bootstrap(values: np.ndarray, replicates: np.ndarray) -> tuple[dict, np.ndarray]:
    """Paired bootstrap; `replicates` has shape (models, resamples), of the same resamples for all models.

    The p-value is the smallest level whose basic interval excludes 0.
    """
    i, j = np.triu_indices(len(values), 1)
    count = replicates.shape[1]
    difference = values[i] - values[j]
    low, high, p, error = (np.empty(len(i)) for _ in range(4))
    rows = max(1, BLOCK // count)
    for start in range(0, len(i), rows):
        part = slice(start, start + rows)
        drawn, twice = replicates[i[part]] - replicates[j[part]], 2 * difference[part]
        high[part], low[part] = twice - np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2], axis=1)
        tail = np.minimum((drawn <= twice[:, None]).sum(axis=1), (drawn >= twice[:, None]).sum(axis=1))
        p[part] = np.minimum(1, 2 * (1 + tail) / (1 + count))
        error[part] = drawn.std(axis=1, ddof=1) if count > 1 else np.nan

    _, adjusted = max_t(difference, error, replicates.astype(np.float32), difference, joint=True)
    columns = {
        "difference": difference,
        "low": low,
        "high": high,
        "p": p,
        "p_adjusted": np.maximum(p, adjusted),
        "method": "paired bootstrap; basic; max-t",
    }
    return columns, np.cov(replicates).reshape(len(values), len(values))


def max_t(
    difference: np.ndarray,
    error: np.ndarray,
    drawn: np.ndarray,
    centre: np.ndarray | float = 0.0,
    *,
    joint: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """P-values of the differences of all pairs of models, each alone and adjusted by the step-down max-|t|.

    Parameters
    ----------
    difference, error : ndarray, shape (pairs,)
        Observed differences and their standard errors; pairs as from ``np.triu_indices(models, 1)``.
    drawn : ndarray, shape (models, resamples)
        Values of the models on resamples.
    centre : ndarray, shape (pairs,), or float
        Differences that the resamples scatter around.
    joint : bool
        Whether the resamples of different pairs depend on each other as their differences do. Otherwise they are
        combined as if independent, which is conservative (Sidak's inequality).

    Returns
    -------
    p, adjusted : ndarray, shape (pairs,)
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = np.where(difference == 0, 0.0, np.abs(difference) / error)
    least = (observed * (1 - 1e-5)).astype(drawn.dtype)  # equal up to rounding counts as equal
    unit = np.where(error > 0, error, 1).astype(drawn.dtype)
    shift = np.broadcast_to(np.asarray(centre, drawn.dtype), observed.shape)
    count = drawn.shape[1]
    first = np.random.default_rng(SEED).integers(0, 1 if joint else count, len(observed))
    i, j = np.triu_indices(len(drawn), 1)
    alone, most, largest = np.empty(len(observed)), np.empty(len(observed)), np.zeros(count, drawn.dtype)
    # From the least significant pair on, so that each is compared with the largest of those before it and its own.
    order = np.argsort(observed, kind="stable")
    for pair in order:
        statistic = np.abs(drawn[i[pair]] - drawn[j[pair]] - shift[pair]) / unit[pair]
        alone[pair] = np.count_nonzero(statistic >= least[pair])
        start = first[pair]
        np.maximum(largest[: count - start], statistic[start:], out=largest[: count - start])
        np.maximum(largest[count - start :], statistic[:start], out=largest[count - start :])
        most[pair] = np.count_nonzero(largest >= least[pair])
    adjusted = np.empty(len(observed))
    adjusted[order] = np.maximum.accumulate((1 + most[order[::-1]]) / (1 + count))[::-1]
    return (1 + alone) / (1 + count), adjusted
