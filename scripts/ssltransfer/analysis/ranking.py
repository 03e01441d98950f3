"""Model rankings: mean ranks over tasks and paired comparisons over few-shot episodes, with confidence intervals."""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from ssltransfer.analysis.scale import higher_is_better
from ssltransfer.errors import InputError

RESAMPLES, SEED = 2000, 0


def task_ranks(matrix: pd.DataFrame) -> pd.DataFrame:
    """Rank the models within each task, 1 = best; ties share the mean rank, models without a score get NaN."""
    return higher_is_better(matrix).rank(ascending=False)


def shared_tasks(matrix: pd.DataFrame) -> pd.DataFrame:
    """Keep the models with any score and the tasks that all of these have.

    A rank among fewer models is a smaller number, so tasks that some models lack cannot be averaged with the others.
    """
    scored = matrix[matrix.notna().any(axis=1)]
    return scored.loc[:, scored.notna().all()]


def mean_ranks(matrix: pd.DataFrame, resamples: int = RESAMPLES, seed: int = SEED) -> pd.DataFrame:
    """Mean rank of each model over the tasks that all models have, with a bootstrap interval over tasks.

    Parameters
    ----------
    matrix : pd.DataFrame
        Models x tasks.
    resamples, seed : int
        Number and seed of the resamples; tasks are drawn with replacement.

    Returns
    -------
    pd.DataFrame
        Indexed by model, best first: ``tasks`` (their number), ``mean_rank``, ``low``, ``high`` (95 %),
        ``best_on`` (tasks on which no model is better). Models without a score are left out; without a task that
        all others have, nothing is ranked.
    """
    matrix = shared_tasks(matrix)
    columns = ["tasks", "mean_rank", "low", "high", "best_on"]
    if matrix.empty:
        return pd.DataFrame(columns=columns)
    values = task_ranks(matrix).to_numpy()
    tasks = values.shape[1]
    drawn = np.random.default_rng([seed, 2]).integers(0, tasks, (resamples, tasks))
    rows = {}
    for model, own in zip(matrix.index, values, strict=True):
        low, high = np.percentile(own[drawn].mean(1), [2.5, 97.5])
        best = int((own == values.min(axis=0)).sum())
        rows[model] = (tasks, float(own.mean()), low, high, best)
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).sort_values("mean_rank", kind="stable")


def paired_differences(episodes: list[dict]) -> pd.DataFrame:
    """Compare models pair by pair on the same few-shot episodes.

    Parameters
    ----------
    episodes : list of dict
        ``model``, ``protocol``, ``dataset``, ``setting``, ``queries`` and ``correct`` (correct answers per
        episode). Within one protocol, dataset and setting, all models saw the same episodes.

    Returns
    -------
    pd.DataFrame
        One row per pair and cell: ``protocol, dataset, setting, model, other, difference`` (percentage points, mean
        over episodes), ``low, high`` (95 % interval, Student's t on the paired differences), ``p``,
        ``survives`` (the interval excludes 0) and ``survives_all`` (also at 95 % for all pairs of the cell together,
        Bonferroni).

    Raises
    ------
    InputError
        Two models of a cell have different numbers of episodes.
    """
    cells: dict[tuple, dict[str, np.ndarray]] = {}
    for entry in episodes:
        key = (entry["protocol"], entry["dataset"], entry["setting"])
        cells.setdefault(key, {})[entry["model"]] = 100.0 * np.array(entry["correct"]) / entry["queries"]
    rows = []
    for key, models in cells.items():
        lengths = {len(correct) for correct in models.values()}
        if len(lengths) > 1:
            raise InputError(f"{' '.join(key)}: models have {sorted(lengths)} episodes; they must be the same ones")
        pairs = list(combinations(models, 2))
        for model, other in pairs:
            rows.append([*key, model, other, *_paired(models[model] - models[other], len(pairs))])
    names = ["protocol", "dataset", "setting", "model", "other"]
    return pd.DataFrame(rows, columns=[*names, "difference", "low", "high", "p", "survives", "survives_all"])


def _paired(differences: np.ndarray, pairs: int) -> tuple:
    n, mean = len(differences), float(differences.mean())
    error = float(differences.std(ddof=1)) / np.sqrt(n)
    half = float(stats.t.ppf(0.975, n - 1)) * error
    if error == 0:
        p = 0.0 if mean else 1.0
    else:
        p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    return mean, mean - half, mean + half, p, p < 0.05, p * pairs < 0.05


def survivors(pairs: pd.DataFrame) -> pd.DataFrame:
    """Count the cells in which one model of a pair is better and the paired interval excludes 0.

    Returns
    -------
    pd.DataFrame
        ``model``, ``other``, ``cells``, ``model_better``, ``other_better``, ``undecided``.
    """
    rows = []
    for (model, other), found in pairs.groupby(["model", "other"], sort=False):
        sure = found[found["survives"]]
        won = int((sure["difference"] > 0).sum())
        rows.append((model, other, len(found), won, len(sure) - won, len(found) - len(sure)))
    return pd.DataFrame(rows, columns=["model", "other", "cells", "model_better", "other_better", "undecided"])
