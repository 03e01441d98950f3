"""Confidence intervals of single scores: closed forms for means over test units, the bootstrap for other metrics.

Each interval states the method and the coverage that simulation supports (benchmarks/coverage.py). It covers the
noise of the test units alone: another draw of training images or another training seed moves a score as well.
Needs numpy and scipy.special alone, because every job that measures a score computes its interval.
"""

from functools import lru_cache

import numpy as np
from scipy.special import expit, logit, ndtri, stdtrit

from ssltransfer.results.metric_info import METRICS, UNITS
from ssltransfer.results.outcome_file import Interval

LEVEL = 0.95
"""Nominal coverage."""
RESAMPLES = 1000
"""Number of bootstrap resamples: a standard error from them is within 4.4 % (95 %), and costs 4 KB per metric."""
SEED = 0
FEW_UNITS, FEW_UNITS_LEVEL = 200, 0.93
"""Below this number of units the bootstrap covers less than the nominal level, in simulations at least this much."""
ELEVEN_POINT_LEVEL = 0.92
"""Coverage of the bootstrap of 11-point mean average precision, in simulations at least this much."""
FEW_IMAGES, FEW_IMAGES_LEVEL = 30, 0.91
"""Below this number of values Student's t covers less than the nominal level if they are skewed, at least this much."""
SINGLE_IMAGES_LEVEL = 0.92
"""Coverage of means over classes some of which have a single image, and are much harder than the others."""
RARE_CLASS_IMAGES, RARE_CLASSES_LEVEL = 30, 0.90
"""Coverage of mean IoU where a class has its pixels from fewer images than this, in simulations at least this much."""
CALIBRATED = "not distinguishable from calibrated"
"""Remark in the method of an interval of a calibration error that sampling noise explains."""
EPISODES_QUANTILE = 1.96
"""Normal quantile of few-shot intervals, as the paper rounds it."""


def wilson_interval(right: np.ndarray, scale: float = 100.0) -> Interval:
    """Wilson's score interval of a share of right answers.

    Parameters
    ----------
    right : ndarray of bool, shape (n,)
    scale : float
        100 for a percentage.

    Notes
    -----
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    share = float(np.mean(right))
    low, high = _wilson(share, share * (1 - share) / len(right), len(right))
    return _interval(scale * low, scale * high, scale * share, (0.0, scale), "Wilson, over test images")


def stratified_interval(right: np.ndarray, strata: np.ndarray, scale: float = 100.0) -> Interval:
    """Interval of a mean over classes of shares of right answers: Wilson's form with the stratified variance.

    Parameters
    ----------
    right : ndarray of bool, shape (n,)
    strata : ndarray of int, shape (n,)
        Class of each image; every class that occurs has the same weight, as test sets are drawn class by class.
    scale : float
        100 for a percentage.

    Notes
    -----
    The variance is the sum over the C classes of p (1 - p) / n_c / C^2, where p is the share of right answers with two
    pseudo-images at the mean accuracy, because a class of one image has no variance of its own. The number of images
    in Wilson's form is that of a balanced set with the same variance for equal classes, C^2 / (sum of 1 / n_c).
    """
    _, classes = np.unique(strata, return_inverse=True)
    images = np.bincount(classes)
    hits = np.bincount(classes, weights=right)
    mean = float(np.mean(hits / images))
    effective = len(images) ** 2 / np.sum(1 / images)
    pooled = (mean * effective + 2) / (effective + 4)
    shrunk = (hits + 2 * pooled) / (images + 2)
    variance = float(np.sum(shrunk * (1 - shrunk) / images)) / len(images) ** 2
    low, high = _wilson(mean, variance, effective)
    method = "Wilson with variances within classes, over test images"
    level = LEVEL if images.min() > 1 else SINGLE_IMAGES_LEVEL
    return _interval(scale * low, scale * high, scale * mean, (0.0, scale), method, level)


def _wilson(share: float, variance: float, images: float) -> tuple[float, float]:
    """Ends of Wilson's interval, where `variance` stands for share * (1 - share) / images."""
    z = float(ndtri((1 + LEVEL) / 2))
    shrink = 1 + z**2 / images
    centre = (share + z**2 / (2 * images)) / shrink
    half = z / shrink * np.sqrt(variance + (z / (2 * images)) ** 2)
    return float(centre - half), float(centre + half)


def t_interval(values: np.ndarray, metric: str, units: str) -> Interval | None:
    """Student's t interval of a mean over units; None for a single unit.

    Parameters
    ----------
    values : ndarray of float, shape (n,)
    metric : str
        A key of `METRICS`, whose unit has limits.
    units : str
        What the units are, such as ``images``.
    """
    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    half = _t_quantile(len(values)) * float(np.std(values, ddof=1)) / np.sqrt(len(values))
    level = LEVEL if len(values) >= FEW_IMAGES else FEW_IMAGES_LEVEL
    return _interval(mean - half, mean + half, mean, _limits(metric), f"t, over {units}", level)


def episode_interval(correct: np.ndarray, queries: int) -> Interval:
    """Interval of few-shot accuracy in percent over episodes: 1.96 s / sqrt(episodes), with the population s.

    Parameters
    ----------
    correct : ndarray of int, shape (episodes,)
        Correct queries of each episode.
    queries : int
        Number of queries of an episode.
    """
    mean = 100.0 * float(correct.mean()) / queries
    half = 100.0 * EPISODES_QUANTILE * float(correct.std()) / queries / np.sqrt(len(correct))
    return _interval(mean - half, mean + half, mean, (0.0, 100.0), "normal, over episodes")


@lru_cache(maxsize=1)
def resample_counts(units: int) -> np.ndarray:
    """Draw bootstrap resamples of `units` units: how often each occurs, uint8 (RESAMPLES, units).

    The draws depend on the number of units alone, so that all models meet the same resamples. They come
    from numpy's legacy generator, whose stream is the same in every version.
    """
    generator = np.random.RandomState(SEED)
    draws = (generator.randint(units, size=units) for _ in range(RESAMPLES))
    counts = np.stack([np.bincount(draw, minlength=units).astype(np.uint8) for draw in draws])
    counts.flags.writeable = False
    return counts


def bootstrap_interval(
    value: float, replicates: np.ndarray, metric: str, number: int, units: str, most: float = LEVEL
) -> Interval | None:
    """Interval from the standard deviation of bootstrap replicates, on the logit scale where the metric has two limits.

    Parameters
    ----------
    value : float
    replicates : ndarray of float, shape (resamples,)
        Values of the metric on resamples.
    metric : str
        A key of `METRICS`, whose unit has limits.
    number : int
        Number of units that were resampled.
    units : str
        What they are, such as ``test images``.
    most : float
        Highest level that the interval may claim.

    Returns
    -------
    Interval or None
        None where the replicates tell nothing: a single unit, a replicate that is not defined, or all equal.

    Notes
    -----
    It covers the expected value of the metric on test sets of this size. Metrics that keep the highest of several
    precisions (11-point AP) are biased upwards by some amount that shrinks with the test set; a correction of it by the
    bootstrap is too small, and leaves less coverage. Differences of models, which share the bias, are free of it.
    """
    if number < 2 or not np.isfinite(replicates).all() or np.ptp(replicates) == 0:
        return None
    replicates = np.asarray(replicates, np.float64)
    quantile, (low, high) = _t_quantile(number), _limits(metric)
    level = LEVEL if number >= FEW_UNITS else FEW_UNITS_LEVEL
    if metric == "map11":
        level = ELEVEN_POINT_LEVEL
    level = min(level, most)
    if (low, high) not in ((0.0, 1.0), (0.0, 100.0)):
        half = quantile * float(replicates.std())
        return _interval(value - half, value + half, value, (low, high), f"bootstrap, over {units}", level)
    inside = np.array([1e-6, 1 - 1e-6])
    centre = logit(np.clip(value / high, *inside))
    half = quantile * float(logit(np.clip(replicates / high, *inside)).std())
    ends = high * expit([centre - half, centre + half])
    return _interval(*ends, value, (low, high), f"bootstrap on the logit scale, over {units}", level)


def calibration_interval(value: float, debiased: float, replicates: np.ndarray, floor: float) -> Interval:
    """Interval of a calibration error in percent, from below the debiased error to above the measured one.

    Parameters
    ----------
    value : float
    debiased : float
        The error without the share that sampling noise adds, percent.
    replicates : ndarray of float, shape (resamples,)
        Values on resamples of the test images.
    floor : float
        Largest error that sampling noise explains; up to it the interval begins at 0.

    Notes
    -----
    An error of calibration is biased upwards and its resamples are so twice, so that intervals of their quantiles miss
    the error of a calibrated model every time.
    """
    half = float(ndtri((1 + LEVEL) / 2)) * float(np.std(replicates, dtype=np.float64))
    low = 0.0 if value <= floor else min(debiased, value) - half
    method = "debiased bootstrap, over test images" + (f" ({CALIBRATED})" if value <= floor else "")
    return _interval(low, value + half, value, (0.0, 100.0), method)


def _t_quantile(units: int) -> float:
    return float(stdtrit(units - 1, (1 + LEVEL) / 2))


def _limits(metric: str) -> tuple[float, float]:
    return UNITS[METRICS[metric].unit]


def _interval(
    low: float, high: float, value: float, limits: tuple[float, float], method: str, level: float = LEVEL
) -> Interval:
    """Clip an interval to the range of its unit; it contains its value whatever the rounding."""
    smallest, largest = limits
    return Interval(float(max(smallest, min(low, value))), float(min(largest, max(high, value))), method, level)
