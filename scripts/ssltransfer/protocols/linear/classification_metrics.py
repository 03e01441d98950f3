"""Accuracy metrics of the many-shot protocols (paper section 4.1; sets and metrics in its appendix).

All values are in percent.
"""

import numpy as np

from ssltransfer.errors import InputError

RECALL_LEVELS = np.arange(11) / 10


def top1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Percentage of samples whose predicted class is the label; both arrays are (n,) of int."""
    return 100.0 * float(np.mean(labels == predictions))


def mean_per_class_accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Accuracy of each class, averaged over the classes present in `labels`; both arrays are (n,) of int.

    A class without samples has no accuracy and is left out; counting it as zero over zero would make the
    metric NaN on small validation sets.
    """
    _, classes = np.unique(labels, return_inverse=True)
    correct = np.bincount(classes, weights=labels == predictions)
    return 100.0 * float(np.mean(correct / np.bincount(classes)))


def average_precision_11_point(positive: np.ndarray, scores: np.ndarray) -> float:
    """11-point interpolated average precision of PASCAL VOC 2007, in percent.

    For each recall level t in {0, 0.1, ..., 1} the largest precision at a recall of at least t, averaged.

    Parameters
    ----------
    positive : ndarray of bool, shape (n,)
        Ground truth of one class. At least one must be true.
    scores : ndarray of float, shape (n,)
        Higher means more likely positive.

    Notes
    -----
    Computed from the ranked samples: a precision-recall curve that starts at an artificial point (recall 0,
    precision 1), as scikit-learn's does, would make the first of the eleven terms always 1. Recall is compared
    with t - 1e-9, so that rounding of multiples of 0.1 loses no level. Samples of equal score enter together, because
    no threshold tells them apart: the order of the samples does not matter, and constant scores have the precision of
    all samples at every recall.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(np.asarray(positive, bool)[order])
    if hits[-1] == 0:
        raise ValueError("average precision needs at least one positive sample")
    ranked = scores[order]
    thresholds = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)  # the last of each group of ties
    recall = hits[thresholds] / hits[-1]
    precision = hits[thresholds] / (thresholds + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    first = np.searchsorted(recall, RECALL_LEVELS - 1e-9)
    return 100.0 * float(np.mean(best_from_here[first]))


def mean_average_precision_11_point(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean of the 11-point average precision over the classes that have a positive sample, in percent.

    Parameters
    ----------
    labels : ndarray of bool or int8, shape (n, k)
        A sample does not appear in the ranking of a class where its label is -1.
    scores : ndarray of float, shape (n, k)
    """
    present = np.flatnonzero((labels > 0).any(axis=0))
    if len(present) == 0:
        raise InputError("mean average precision needs a positive sample of some class; found none")

    def average_precision(label: np.ndarray, score: np.ndarray) -> float:
        return average_precision_11_point(label[label >= 0] > 0, score[label >= 0])

    return float(np.mean([average_precision(labels[:, k], scores[:, k]) for k in present]))


def evaluate(metric: str, labels: np.ndarray, scores: np.ndarray) -> float:
    """Value of a metric in percent.

    Parameters
    ----------
    metric : {'top1', 'mean-per-class', 'map11'}
    labels : ndarray
        (n,) of int; (n, k) of bool, or of int8 with -1 for pairs that do not count, for ``map11``.
    scores : ndarray of float, shape (n, k)
        Decision values; the predicted class is the largest (the first one on ties).
    """
    if metric == "map11":
        return mean_average_precision_11_point(labels, scores)
    return {"top1": top1, "mean-per-class": mean_per_class_accuracy}[metric](labels, scores.argmax(axis=1))
