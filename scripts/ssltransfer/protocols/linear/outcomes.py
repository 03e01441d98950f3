"""Outcomes of classifiers on test images: right or wrong, or 11-point average precision on resamples."""

import numpy as np

from ssltransfer.analysis.resampling import precision_at_recalls, required_hits
from ssltransfer.analysis.uncertainty import bootstrap_interval, resample_counts, stratified_interval, wilson_interval
from ssltransfer.protocols.linear import classification_metrics
from ssltransfer.protocols.linear.classification_metrics import RECALL_LEVELS
from ssltransfer.results.outcome_file import Outcome, identity
from ssltransfer.results.prediction_file import Predictions

UNITS = "test images"
BLOCK = 100
"""Number of resamples at a time, which bounds memory: 16 MB for 5,000 images and 20 MB per 25,000."""


def classification_outcomes(metric: str, predictions: Predictions) -> list[Outcome]:
    """Return the outcome of a classifier for its one metric.

    Parameters
    ----------
    metric : {'top1', 'mean-per-class', 'map11'}
    predictions : Predictions
        As they are stored, so that outcomes derived from the file are the same.
    """
    scores, labels = predictions.test_scores, predictions.test_labels
    value = classification_metrics.evaluate(metric, labels, scores)
    common = {"metric": metric, "setting": "", "value": value, "units": UNITS, "identity": identity(labels)}
    if metric == "map11":
        replicates = mean_average_precisions(labels, scores, resample_counts(len(labels)))
        interval = bootstrap_interval(value, replicates, metric, len(labels), UNITS)
        note = "" if interval else "no interval: too few test images, or a resample without objects"
        return [Outcome(**common, replicates=replicates, interval=interval, note=note)]
    right = labels == scores.argmax(axis=1)
    if metric == "top1":
        return [Outcome(**common, values=right, scale=100.0, interval=wilson_interval(right))]
    interval = stratified_interval(right, labels)
    return [Outcome(**common, values=right, strata=labels, scale=100.0, interval=interval)]


def mean_average_precisions(labels: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """11-point mean average precision of test sets in which images occur several times or not at all.

    Parameters
    ----------
    labels, scores : ndarray, shape (n, k)
        See `classification_metrics.mean_average_precision_11_point`.
    counts : ndarray of int, shape (resamples, n)
        How often each image occurs.

    Returns
    -------
    ndarray of float32, shape (resamples,)
        Percent; NaN where no class has a positive image.
    """
    rankings = [_ranking(label, score) for label, score in zip(labels.T, scores.T, strict=True) if (label > 0).any()]
    found = []
    for start in range(0, len(counts), BLOCK):
        block = counts[start : start + BLOCK].astype(np.int32)  # once, because sums of bytes are slow
        sums, classes = np.zeros(len(block)), np.zeros(len(block))
        for order, positive, rank, hit in rankings:
            images = np.cumsum(block[:, order], axis=1, dtype=np.int32)[:, rank]
            hits = np.cumsum(block[:, positive], axis=1, dtype=np.int32)[:, hit]
            needed = required_hits(RECALL_LEVELS - 1e-9, hits[:, -1])
            precision = precision_at_recalls(hits, images, needed).mean(axis=1)
            present = hits[:, -1] > 0
            sums += np.where(present, precision, 0.0)
            classes += present
        with np.errstate(invalid="ignore"):
            found.append(100 * sums / classes)
    return np.concatenate(found).astype(np.float32)


def _ranking(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rank the images of one class.

    The highest precision at or above some recall is always reached behind a positive image, so that the thresholds
    behind groups of ties with a positive image are enough.

    Returns
    -------
    order : ndarray of int
        Images by descending score, without those that do not count.
    positive : ndarray of int
        The positive images in this order.
    rank, hit : ndarray of int
        Of each threshold, the last position in `order` and in `positive`.
    """
    order = np.argsort(-score, kind="stable")
    order = order[label[order] >= 0]
    ranked, is_positive = score[order], label[order] > 0
    last = np.append(ranked[1:] != ranked[:-1], True)
    group = np.cumsum(last) - last  # number of the group of ties of each position
    groups = group[is_positive]
    hit = np.flatnonzero(np.append(groups[1:] != groups[:-1], True))
    return order, order[is_positive], np.flatnonzero(last)[groups[hit]], hit
