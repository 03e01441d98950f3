"""Penalty of a linear classifier of few labelled images, chosen by cross-validation among these images alone."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import log_softmax

from ssltransfer.array_backend import NUMPY, Arrays
from ssltransfer.protocols.linear.design_matrix import Rows
from ssltransfer.protocols.linear.logistic import Fit, fit_path

FOLDS = 5
WORSE = 3
"""Penalties in a row that are worse than the best by a standard error, after which weaker ones are not fitted."""
FIXED = 2.5e-4
"""Penalty on the summed loss for features of norm 1 where a class has one image, so that nothing can be held out: that
of MSN's low-shot evaluation (Assran et al., "Masked siamese networks for label-efficient learning", 2022), whose
0.00025 / n is on the mean loss."""


@dataclass(frozen=True)
class Selection:
    """A fit on all images of a subset, and how its penalty was chosen.

    Attributes
    ----------
    fit : Fit
    folds : int
        Number of folds; 0 where the penalty is fixed.
    edge : bool
        Whether the penalty is an end of the grid.
    converged : bool
        Whether all fits met their certificate.
    """

    fit: Fit
    folds: int
    edge: bool
    converged: bool


def choose_and_fit(
    features: np.ndarray,
    labels: np.ndarray,
    position: np.ndarray,
    classes: int,
    lambdas: np.ndarray,
    arrays: Arrays = NUMPY,
) -> Selection:
    """Choose the penalty by stratified cross-validation within a subset, and fit all of it.

    The criterion is the mean log-loss of the images held out, because accuracies of few images tie; of all penalties
    within one standard error of the best, the strongest is taken. The sum form of the objective is held fixed: the
    penalty on the summed loss is that of the folds.

    Parameters
    ----------
    features : ndarray, shape (n, d)
    labels : ndarray
        See `fit_path`.
    position : ndarray of int, shape (n,)
        Position of each image in the random order of its class, which deals the images of a class to the folds in turn.
    classes : int
    lambdas : ndarray
    arrays : Arrays
    """
    counts = np.bincount(labels) if labels.ndim == 1 else np.array([len(labels)])
    folds = min(FOLDS, int(counts[counts > 0].min()))
    if folds < 2:
        penalty = FIXED * float(((features - features.mean(axis=0)) ** 2).sum(axis=1).mean())
        fit = next(fit_path(features, labels, np.array([max(penalty, np.finfo(float).tiny)]), classes, arrays))
        return Selection(fit, 0, False, fit.converged)
    descending = np.sort(lambdas)[::-1]
    chosen, converged = _cross_validate(features, labels, position % folds, classes, descending, arrays)
    fit = next(fit_path(features, labels, descending[chosen : chosen + 1], classes, arrays))
    return Selection(fit, folds, chosen in (0, len(descending) - 1), bool(converged and fit.converged))


def _cross_validate(
    features: np.ndarray,
    labels: np.ndarray,
    fold: np.ndarray,
    classes: int,
    descending: np.ndarray,
    arrays: Arrays,
) -> tuple[int, bool]:
    """Return which of the penalties, from strong to weak, is chosen, and whether all fits met their certificate.

    The paths of all folds advance together and are held at the same time, each with its part of the memory.
    """
    folds = int(fold.max()) + 1
    share = replace(arrays, part=arrays.part / folds)
    others = [np.flatnonzero(fold != k) for k in range(folds)]
    paths = [fit_path(Rows(features, rows), labels[rows], descending, classes, share) for rows in others]
    losses, converged = [], True
    best, best_error, worse = np.inf, 0.0, 0
    for _ in descending:
        found = np.empty(len(features))
        for k, path in enumerate(paths):
            fit = next(path)
            converged &= fit.converged
            found[fold == k] = log_losses(fit.scores(features[fold == k]), labels[fold == k])
        losses.append((found.mean(), found.std(ddof=1) / np.sqrt(len(found))))
        if losses[-1][0] < best:
            best, best_error = losses[-1]
        worse = worse + 1 if losses[-1][0] > best + best_error else 0
        if worse == WORSE:
            break
    return next(number for number, (mean, _) in enumerate(losses) if mean <= best + best_error), converged


def log_losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log-loss of each image (n,): of the softmax, or the sum of those of the sigmoids for several labels.

    Classes without any decision (a score that is not finite) count with the loss of a probability of 1e-6.
    """
    if labels.ndim == 1:
        return -np.maximum(np.take_along_axis(log_softmax(scores, axis=1), labels[:, None], 1)[:, 0], np.log(1e-6))
    signed = np.clip(np.where(labels > 0, -scores, scores), np.log(1e-6), -np.log(1e-6))
    return (np.logaddexp(0, signed) * (labels >= 0)).sum(axis=1)
