"""Outcomes of semantic segmentation: counts of pixels pooled over resamples of the test images."""

from collections.abc import Sequence

import numpy as np

from ssltransfer.analysis.uncertainty import (
    LEVEL,
    RARE_CLASS_IMAGES,
    RARE_CLASSES_LEVEL,
    bootstrap_interval,
    resample_counts,
)
from ssltransfer.protocols.dense.segmentation.metrics import mean_iou, pixel_accuracy
from ssltransfer.results.outcome_file import Outcome, identity

NOTE = "covers the test images alone, with one training seed"
UNITS = "test images"


def segmentation_outcomes(names: Sequence[str], table: np.ndarray, absent_classes: str) -> list[Outcome]:
    """Return the outcomes of mean IoU and pixel accuracy.

    Parameters
    ----------
    names : sequence of str
        References of the test images.
    table : ndarray of int, shape (n, 3, classes)
        See `metrics.ClassCounts`.
    absent_classes : {'left-out', 'zero'}
        See `metrics.mean_iou`; in a resample, the classes that its images show are present.
    """
    n, _, classes = table.shape
    resampled = resample_counts(n).astype(np.float64) @ table.reshape(n, -1).astype(np.float64)
    resampled = resampled.reshape(-1, 3, classes)
    totals = table.sum(axis=0)
    levels = {"mean-iou": RARE_CLASSES_LEVEL} if images_of_rarest_class(table) < RARE_CLASS_IMAGES else {}
    same = {"units": UNITS, "identity": identity(np.array(names), table[:, 2])}
    outcomes = []
    for metric, value, replicates in (
        ("mean-iou", mean_iou(totals, absent_classes), mean_iou(resampled, absent_classes)),
        ("pixel-accuracy", pixel_accuracy(totals), pixel_accuracy(resampled)),
    ):
        interval = bootstrap_interval(float(value), replicates, metric, n, UNITS, levels.get(metric, LEVEL))
        note = NOTE if interval else f"no interval: too few {UNITS}, or the same value on every resample of them"
        replicates = replicates.astype(np.float32)
        outcomes.append(Outcome(metric, "", float(value), **same, replicates=replicates, interval=interval, note=note))
    return outcomes


def images_of_rarest_class(table: np.ndarray) -> float:
    """Effective number of images that show a class, (sum t)^2 / sum t^2 of its pixels t; the lowest of all classes."""
    pixels = table[:, 2].astype(np.float64)
    squares = (pixels**2).sum(axis=0)
    present = squares > 0
    return float((pixels.sum(axis=0)[present] ** 2 / squares[present]).min(initial=np.inf))
