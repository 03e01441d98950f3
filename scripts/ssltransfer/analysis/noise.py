"""Noise of the test images in the scores of a suite: a covariance of the models for each task."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.special import ndtri

from ssltransfer.analysis.published import sizes_of_test_parts
from ssltransfer.analysis.scale import slope
from ssltransfer.results.scores import Task, is_published

NORMAL = float(ndtri(0.975))
"""Half width of a 95 % interval in standard errors, where these are taken as known."""
#: Metrics that are shares of right images, and kinds whose published scores are measured on the test part.
ACCURACIES, ON_TEST_PART = ("top1", "mean-per-class"), ("linear", "finetune")
#: Datasets with a mean over classes of very unequal size, whose variance is up to four times that of a binomial.
UNEQUAL_CLASSES = ("caltech101", "caltech101-official", "flowers")


def task_noise(
    cells: pd.DataFrame, matrix: pd.DataFrame, covariances: Mapping[Task, pd.DataFrame]
) -> dict[Task, pd.DataFrame]:
    """Covariance of the values of all models for each task, in the squared unit of its metric.

    Models with outcomes have the covariance that their pairs are compared with. Another score with an interval has the
    variance that the interval implies, and a published accuracy that of a binomial on the test images of the paper
    (also for a mean over classes, but not where these are of `UNEQUAL_CLASSES`). Both count as independent of the other
    models; because models err on the same images, that is conservative for their differences.

    Parameters
    ----------
    cells : pd.DataFrame
        Tidy table with one row per cell.
    matrix : pd.DataFrame
        Models x tasks.
    covariances : mapping of Task to pd.DataFrame
        See `pairs.SuitePairs`.

    Returns
    -------
    dict
        `Task` -> models x models, NaN on the diagonal where the noise of a model is unknown. Tasks without any known
        noise are left out.
    """
    sizes, noise = sizes_of_test_parts(), {}
    for task, scores in cells.groupby(list(Task._fields), sort=False):
        task = Task(*task)
        if task not in matrix:
            continue
        own = scores.set_index("model").reindex(matrix.index)
        variance = ((own["high"] - own["low"]) / (2 * NORMAL)) ** 2
        if task.metric in ACCURACIES and task.kind in ON_TEST_PART and task.dataset in sizes.keys() - UNEQUAL_CLASSES:
            share = own["value"] / 100
            binomial = 1e4 * share * (1 - share) / sizes[task.dataset]
            variance = variance.fillna(binomial.where(is_published(own)))
        known = covariances.get(task, pd.DataFrame()).reindex(matrix.index, columns=matrix.index)
        full = known.to_numpy(float, copy=True)
        alone = np.isnan(full.diagonal())
        full[alone] = full[:, alone] = 0
        full[alone, alone] = variance[alone]
        if not np.isnan(full.diagonal()).all():
            noise[task] = pd.DataFrame(full, matrix.index, matrix.index)
    return noise


def on_analysis_scale(noise: Mapping[Task, pd.DataFrame], matrix: pd.DataFrame) -> dict[Task, pd.DataFrame]:
    """Turn the covariances of `task_noise` into those on the analysis scale (delta method)."""
    found = {}
    for task, covariance in noise.items():
        slopes = slope(matrix[task], task.metric)
        found[task] = covariance * np.outer(slopes, slopes)
    return found


def average_error(noise: Mapping[Task, pd.DataFrame], tasks: list[Task]) -> pd.Series | None:
    """Standard error of the mean of each model over tasks of different datasets; None where the noise is unknown."""
    if any(task not in noise for task in tasks):
        return None
    variances = [pd.Series(np.diagonal(noise[task]), noise[task].index) for task in tasks]
    return np.sqrt(sum(variances)) / len(tasks)
