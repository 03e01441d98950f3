"""Model rankings over datasets: mean ranks, and the pairs of models that are separable on these and on other datasets.

*These datasets*: would the order hold on other test images of the same datasets? The noise is that of the test images
within each dataset. *Datasets like these*: would it hold on other datasets? The noise is the scatter between datasets,
which contains the noise of test images already, so that nothing is added to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from ssltransfer.analysis.paired_tests import LEVEL, holm, t_test
from ssltransfer.analysis.scale import higher_is_better
from ssltransfer.results.scores import TASK, Task

MIN_DATASETS = 5
"""Fewest datasets for a statement on datasets like these; with four, an interval is 3 standard deviations wide."""
MOST_DATASETS = 1000
"""Largest number of datasets that `datasets_needed` looks at."""
RANK_COLUMNS = ["tasks", "mean_rank", "low", "high", "best_on", "datasets"]


def task_ranks(matrix: pd.DataFrame) -> pd.DataFrame:
    """Rank the models within each task, 1 = best; ties share the mean rank, models without a score get NaN."""
    return higher_is_better(matrix).rank(ascending=False)


def shared_tasks(matrix: pd.DataFrame) -> pd.DataFrame:
    """Keep the models with any score and the tasks that all of these have.

    A rank among fewer models is a smaller number, so tasks that some models lack cannot be averaged with the others.
    """
    scored = matrix[matrix.notna().any(axis=1)]
    return scored.loc[:, scored.notna().all()]


def by_dataset(values: pd.DataFrame) -> pd.DataFrame:
    """Average models x tasks over the tasks of each dataset, which are no independent sample: models x datasets."""
    return values.T.groupby(level=TASK.index("dataset"), sort=False).mean().T


def mean_ranks(matrix: pd.DataFrame) -> pd.DataFrame:
    """Mean rank of each model over the datasets of the tasks that all models have.

    Parameters
    ----------
    matrix : pd.DataFrame
        Models x tasks, in the unit of each metric.

    Returns
    -------
    pd.DataFrame
        Indexed by model, best first: ``tasks`` (their number), ``mean_rank`` (mean over datasets of the mean rank
        over their tasks), ``low``, ``high`` (95 % for datasets like these: Student's t over datasets, clipped to the
        possible ranks; NaN below `MIN_DATASETS`), ``best_on`` (tasks on which no model is better) and ``datasets``
        (their number). Models without a score are left out; without a task that all others have, nothing is ranked.
    """
    matrix = shared_tasks(matrix)
    if matrix.empty:
        return pd.DataFrame(columns=RANK_COLUMNS)
    ranks = task_ranks(matrix)
    values = by_dataset(ranks)
    models, count = values.shape
    mean = values.mean(axis=1)
    if count < MIN_DATASETS:
        half = pd.Series(np.nan, mean.index)
    else:
        half = values.std(axis=1, ddof=1) * stdtrit(count - 1, 1 - LEVEL / 2) / np.sqrt(count)
    frame = pd.DataFrame(
        {
            "tasks": matrix.shape[1],
            "mean_rank": mean,
            "low": (mean - half).clip(1, models),
            "high": (mean + half).clip(1, models),
            "best_on": ranks.eq(ranks.min()).sum(axis=1),
            "datasets": count,
        }
    )
    return frame.sort_values("mean_rank", kind="stable")


@dataclass(frozen=True)
class Order:
    """Which models are told apart over several datasets, at a family-wise error of 5 % over all pairs (Holm).

    Attributes
    ----------
    models : tuple of str
    datasets : tuple of str
        Those that the statement is about.
    better : ndarray of bool, shape (models, models)
        Whether the model of the row is better than that of the column.
    """

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    better: np.ndarray

    @property
    def separated(self) -> int:
        """Number of pairs that are told apart."""
        return int(self.better.sum())

    def rank_sets(self) -> pd.DataFrame:
        """Ranks that each model can have: ``low``, ``high``, simultaneous for all models (95 %).

        A model stands behind every one that is better and before every one that is worse (Mogstad, Romano, Shaikh and
        Wilhelm 2023), so that these sets hold whenever all pairs that are told apart are in the right order.
        """
        low, high = 1 + self.better.sum(axis=0), len(self.models) - self.better.sum(axis=1)
        return pd.DataFrame({"low": low, "high": high}, index=list(self.models))

    def neighbours(self, models: Sequence[str]) -> int:
        """Number of neighbours in a list of models that are told apart."""
        return sum(self._apart(a, b) for a, b in pairwise(models))

    def cliques(self, models: Sequence[str]) -> list[tuple[int, int]]:
        """Longest stretches (first and last position, at least two models) of a list without a pair told apart."""
        found: list[tuple[int, int]] = []
        for first in range(len(models)):
            last = first
            while last + 1 < len(models) and not any(
                self._apart(other, models[last + 1]) for other in models[first : last + 1]
            ):
                last += 1
            if last > first and (not found or last > found[-1][1]):
                found.append((first, last))
        return found

    def _apart(self, model: str, other: str) -> bool:
        i, j = self.models.index(model), self.models.index(other)
        return bool(self.better[i, j] or self.better[j, i])


def datasets_like_these(values: pd.DataFrame) -> Order | None:
    """Order of the models on datasets like these: paired t tests over datasets.

    Parameters
    ----------
    values : pd.DataFrame
        Models x tasks that all have, on the analysis scale, higher is better. Tasks of one dataset are averaged.

    Returns
    -------
    Order or None
        None below `MIN_DATASETS` datasets.
    """
    means = by_dataset(values)
    if means.shape[1] < MIN_DATASETS:
        return None
    data = means.to_numpy(float)
    i, j = np.triu_indices(len(data), 1)
    differences = data[i] - data[j]
    error = differences.std(axis=1, ddof=1) / np.sqrt(data.shape[1])
    return _order(means, differences.mean(axis=1), t_test(differences.mean(axis=1), error, data.shape[1] - 1))


def these_datasets(values: pd.DataFrame, noise: Mapping[Task, pd.DataFrame]) -> Order | None:
    """Order of the models on these very datasets, with the noise of their test images.

    Parameters
    ----------
    values : pd.DataFrame
        Models x tasks that all have, on the analysis scale, higher is better. Tasks of one dataset are averaged.
    noise : mapping of Task to pd.DataFrame
        Covariance of the values of all models (models x models) on the analysis scale; tasks that it lacks are left
        out. Tasks of one dataset may share their images, so their errors are added up as if fully correlated.

    Returns
    -------
    Order or None
        None without a task whose noise is known.
    """
    known = [column for column in values if Task(*column) in noise]
    if not known:
        return None
    means = by_dataset(values[known])
    i, j = np.triu_indices(len(means), 1)
    errors: dict[str, list[np.ndarray]] = {}
    for task in (Task(*column) for column in known):
        c = noise[task].loc[means.index, means.index].to_numpy(float)
        errors.setdefault(task.dataset, []).append(np.sqrt(np.maximum(c[i, i] + c[j, j] - 2 * c[i, j], 0)))
    variances = [np.mean(own, axis=0) ** 2 for own in errors.values()]
    difference = means.to_numpy(float).mean(axis=1)
    difference = difference[i] - difference[j]
    return _order(means, difference, t_test(difference, np.sqrt(np.sum(variances, axis=0)) / len(errors), np.inf))


def _order(means: pd.DataFrame, difference: np.ndarray, p: np.ndarray) -> Order:
    i, j = np.triu_indices(len(means), 1)
    told = holm(p) < LEVEL
    better = np.zeros((len(means),) * 2, bool)
    better[i, j], better[j, i] = told & (difference > 0), told & (difference < 0)
    return Order(tuple(means.index), tuple(means.columns), better)


def datasets_needed(values: pd.DataFrame) -> pd.Series:
    """Fewest datasets by which each model could be told from the next, were their differences as they are here.

    The observed differences stand for the true ones, so with so many datasets the two are told apart in half of all
    cases.

    Parameters
    ----------
    values : pd.DataFrame
        Models x datasets, best model first: ranks, or scores on the analysis scale.

    Returns
    -------
    pd.Series
        Per model the smallest T at which the half width t(T - 1) s / sqrt(T) is below the mean difference; NaN above
        `MOST_DATASETS`, where the two do not differ, and for the last model. All are NaN below `MIN_DATASETS` datasets.
    """
    if values.shape[1] < MIN_DATASETS:
        return pd.Series(np.nan, values.index)
    count = np.arange(2, MOST_DATASETS + 1)
    half = stdtrit(count - 1, 1 - LEVEL / 2) / np.sqrt(count)
    needed = {}
    for model, other in pairwise(values.index):
        differences = values.loc[model] - values.loc[other]
        enough = half * differences.std(ddof=1) < abs(differences.mean())
        needed[model] = float(count[enough][0]) if enough.any() else np.nan
    return pd.Series(needed, dtype=float).reindex(values.index)
