"""Outcomes of predicted surface normals: angular errors pooled over resamples of the test images."""

from collections.abc import Sequence

import numpy as np

from ssltransfer.analysis.uncertainty import bootstrap_interval, resample_counts
from ssltransfer.datasets.index import Index
from ssltransfer.protocols.dense.normals.angles import COARSE_BINS, THRESHOLDS
from ssltransfer.results.outcome_file import Outcome, identity

SHARES = [f"within-{threshold:g}" for threshold in THRESHOLDS]
"""Names of the metrics that are percentages of pixels."""
NOTE = "covers the test images alone, with one training seed"
NO_MEDIAN = "no interval: the median of pooled pixels does not follow from the medians of images that were kept"


def normals_outcomes(
    names: Sequence[str], scenes: Sequence[str] | None, images: Sequence[dict], median: float, histograms: np.ndarray
) -> list[Outcome]:
    """Return the outcomes of mean, median and shares.

    Parameters
    ----------
    names : sequence of str
        References of the test images.
    scenes : sequence of str or None
        Scene of each image: the frames of a scene are alike, so whole scenes are resampled. None for images.
    images : sequence of dict
        ``pixels``, ``mean`` and ``within`` of each image (see `angles.AngularErrors`).
    median : float
        Median of all pixels in degrees.
    histograms : ndarray of int, shape (n, COARSE_BINS)
        Errors of each image; without rows (old results) the median has no interval.
    """
    pixels = np.array([image["pixels"] for image in images], np.int64)
    mean = np.array([image["mean"] if image["pixels"] else 0.0 for image in images])
    within = np.array([image["within"] if image["pixels"] else [0.0] * len(THRESHOLDS) for image in images])
    sums = np.column_stack([pixels, pixels * mean, pixels[:, None] * within])
    units, unit = _units(names, scenes)
    pooled = _pool(sums, unit)
    counts = resample_counts(len(pooled))
    totals = counts.astype(np.float64) @ pooled
    with np.errstate(invalid="ignore"):
        replicates = totals[:, 1:] / totals[:, :1]  # no pixel at all in a resample: NaN, and no interval
    values = pooled[:, 1:].sum(axis=0) / pooled[:, 0].sum()
    metrics = {name: (value, replicates[:, k]) for k, (name, value) in enumerate(zip(_RATIOS, values, strict=True))}
    parts = {"sums": pooled}
    if len(histograms):
        table = _pool(histograms.astype(np.float64), unit)
        resampled = histogram_medians(counts.astype(np.float64) @ table)
        # The median of the score is finer: resamples are moved by the difference.
        own = histogram_medians(table.sum(axis=0, keepdims=True))[0]
        metrics["median-angle"] = median, resampled - own + median
        parts["histograms"] = table.astype(np.uint32)
    same = {"units": units, "identity": identity(np.array(names), pixels, unit)}
    outcomes = []
    for metric, (value, resampled) in metrics.items():
        interval = bootstrap_interval(float(value), resampled, metric, len(pooled), units)
        note = NOTE if interval else f"no interval: too few {units}, or the same value on every resample of them"
        own_parts = parts if metric == "mean-angle" else {}
        resampled = resampled.astype(np.float32)
        outcomes.append(
            Outcome(
                metric, "", float(value), **same, replicates=resampled, parts=own_parts, interval=interval, note=note
            )
        )
    if not len(histograms):
        outcomes.append(Outcome("median-angle", "", median, **same, note=NO_MEDIAN))
    return outcomes


_RATIOS = ("mean-angle", *SHARES)
"""Metrics that are sums over pixels, divided by the number of pixels."""


def test_scenes(index: Index) -> list[str] | None:
    """Scene of each test image, None where the index does not tell (an old one, or another dataset)."""
    scenes = index.extra.get("scene")
    return None if scenes is None else [scenes[row] for row in np.flatnonzero(index.split_array() == "test")]


def _units(names: Sequence[str], scenes: Sequence[str] | None) -> tuple[str, np.ndarray]:
    """Name of the resampled units, and the number of the unit of each image."""
    if scenes is None:
        return "test images", np.arange(len(names))
    return "scenes", np.unique(np.array(scenes), return_inverse=True)[1]


def _pool(table: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Sums of the rows of each unit."""
    pooled = np.zeros((int(unit.max(initial=-1)) + 1, table.shape[1]))
    np.add.at(pooled, unit, table)
    return pooled


def histogram_medians(histograms: np.ndarray) -> np.ndarray:
    """Medians in degrees of histograms (m, COARSE_BINS), interpolated within their bins; NaN of an empty one."""
    below = np.cumsum(histograms, axis=1)
    half = below[:, -1:] / 2
    place = np.minimum((below < half).sum(axis=1), COARSE_BINS - 1)[:, None]
    inside = np.take_along_axis(histograms, place, axis=1)
    before = np.take_along_axis(below, place, axis=1) - inside
    with np.errstate(invalid="ignore", divide="ignore"):
        return ((place + (half - before) / inside) * 180 / COARSE_BINS)[:, 0]
