"""Correlation of transfer scores with source accuracy, by the rules of the paper (v2 section A.7).

x is the accuracy on the source dataset, y the score of a task or the mean over the tasks of a panel, both on the
analysis scale. Fourteen models are few, so every coefficient has a bootstrap interval (models resampled), a
permutation p-value and its range when one model is left out.
"""

import math
from functools import cache
from itertools import permutations, product

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.stats import rankdata

from ssltransfer.analysis.scale import higher_is_better, is_clipped, is_logit, to_analysis_scale
from ssltransfer.analysis.tasks import SOURCE, Panel, TaskScores
from ssltransfer.results.scores import TASK, Task

RESAMPLES = 2000
SEED = 0
#: Fewest models for the correlation of a pair of tasks. Three often correlate strongly by chance, and a heat map shows
#: no number of models beside the correlation.
PAIR_MODELS = 4


def _centred(values):
    """Subtract the mean of the last axis; constant vectors become exactly zero."""
    spread = np.ptp(values, axis=-1, keepdims=True)
    return np.where(spread == 0, 0.0, values - values.mean(axis=-1, keepdims=True))


def _cosine(a, b):
    """Cosine along the last axis; NaN where a vector is zero."""
    norm = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(np.where(norm > 0, (a * b).sum(-1) / norm, np.nan), -1, 1)


def _signs(values):
    """Signs of all pairwise differences of the last axis, flattened."""
    i, j = np.triu_indices(values.shape[-1], 1)
    return np.sign(values[..., i] - values[..., j])


def pearson(x, y):
    """Pearson's r along the last axis, broadcasting over the others; NaN for a constant vector."""
    return _cosine(_centred(np.asarray(x, float)), _centred(np.asarray(y, float)))


def spearman(x, y):
    """Spearman's rho along the last axis (average ranks for ties); NaN for a constant vector."""
    return pearson(rankdata(x, axis=-1), rankdata(y, axis=-1))


def kendall(x, y):
    """Kendall's tau-b along the last axis; NaN for a constant vector."""
    return _cosine(_signs(np.asarray(x, float)), _signs(np.asarray(y, float)))


#: With fewer models, resamples and leave-one-out subsets give coefficients near 1 whatever the scores are.
INTERVAL_MODELS = 5

COEFFICIENTS = {"pearson": pearson, "spearman": spearman, "kendall": kendall}


@cache
def bootstrap_indices(n: int, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """Seeded resamples with replacement, shape (resamples, n); the same for every task of n models."""
    return np.random.default_rng([seed, n]).integers(0, n, (resamples, n))


@cache
def permutation_indices(n: int, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """Permutations of n models: all of them where there are at most `resamples`, else seeded random ones."""
    if n < 10 and math.factorial(n) <= resamples:
        return np.array(list(permutations(range(n))))
    return np.random.default_rng([seed, n, 1]).permuted(np.tile(np.arange(n), (resamples, 1)), axis=1)


def correlate(x, y, resamples: int = RESAMPLES, seed: int = SEED) -> dict:
    """Correlate two scores of the same models, with every uncertainty that n models allow.

    Parameters
    ----------
    x, y : array_like, shape (n_models,)
        Transformed scores; models where either is NaN are left out.
    resamples : int
        Bootstrap resamples and, beyond exact enumeration, permutations.
    seed : int
        Seed of both.

    Returns
    -------
    dict
        ``n``, ``note``, and for each of pearson, spearman, kendall: the coefficient; ``_low`` and ``_high``
        (95 % percentile bootstrap over models; resamples in which all models are the same one are left out);
        ``_p`` (two-sided permutation p-value); ``_loo_low``, ``_loo_high`` (range over leaving one model out)
        and ``_loo_low_without``, ``_loo_high_without`` (index of the model left out).
        With fewer than 3 models or a constant vector the coefficients are missing and ``note`` says why; with fewer
        than `INTERVAL_MODELS` the intervals and ranges are.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    unknown = int(np.sum(np.isnan(x) & ~np.isnan(y)))
    kept = np.flatnonzero(~np.isnan(x) & ~np.isnan(y))
    x, y, n = x[kept], y[kept], len(kept)
    result = {"n": n, "note": f"{n} models: no interval" if n < INTERVAL_MODELS else ""}
    if n < 3:
        without = f", {unknown} without a source accuracy" if unknown else ""
        return result | {"note": f"fewer than 3 models{without}"}
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return result | {"note": "constant, so no correlation is defined"}
    drawn, shuffled = bootstrap_indices(n, resamples, seed), permutation_indices(n, resamples, seed)
    others = np.array([np.delete(np.arange(n), i) for i in range(n)])
    for name, function in COEFFICIENTS.items():
        r = float(function(x, y))
        by_chance = np.abs(function(x, y[shuffled])) >= abs(r) - 1e-12
        exact = n < 10 and math.factorial(n) <= resamples
        p = by_chance.mean() if exact else (1 + by_chance.sum()) / (1 + len(by_chance))
        result |= {name: r, f"{name}_p": float(p)}
        if n >= INTERVAL_MODELS:
            low, high = np.nanpercentile(function(x[drawn], y[drawn]), [2.5, 97.5])
            result |= {f"{name}_low": low, f"{name}_high": high}
            result |= _leave_one_out(name, function(x[others], y[others]), kept)
    return result


def _leave_one_out(name: str, values: np.ndarray, kept: np.ndarray) -> dict:
    if np.isnan(values).all():
        return {}
    low, high = int(np.nanargmin(values)), int(np.nanargmax(values))
    return {
        f"{name}_loo_low": float(values[low]),
        f"{name}_loo_low_without": int(kept[low]),
        f"{name}_loo_high": float(values[high]),
        f"{name}_loo_high_without": int(kept[high]),
    }


def correlations(scores: TaskScores) -> pd.DataFrame:
    """Correlate every task and every panel average with source accuracy.

    Returns
    -------
    pd.DataFrame
        One row per task, then one row (``dataset`` "average") per panel of more than one task: the columns of
        the tidy table that name a task, ``panel`` (its name), ``distant`` (whether that is CD-FSL beside other
        datasets), and everything that `correlate` returns. Models are named by id; nothing is negated.
    """
    panel_of = {task: panel for panel in scores.panels for task in panel.tasks}
    models, x = scores.matrix.index, {raw: scores.x(raw) for raw in (False, True)}
    rows = []
    for task in scores.tasks:
        if task.dataset in scores.leave_out:
            continue
        raw, own = scores.conventions.raw(task.kind), scores.matrix[task]
        clipped = own.index[is_clipped(own, task.metric)] if is_logit(task.metric, raw) else []
        note = f"logit clipped for {', '.join(clipped)}" if len(clipped) else ""
        rows.append(_row(task, panel_of.get(task), correlate(x[raw], scores.values[task]), models, note))
    for panel in scores.panels:
        if len(panel.tasks) > 1:
            rows.append(_row(panel.average, panel, correlate(x[False], scores.panel_means[panel.name]), models))
    return pd.DataFrame(rows, columns=["panel", "distant", *TASK, *_result_columns()])


def _row(task: Task, panel: Panel | None, result: dict, models: pd.Index, note: str = "") -> dict:
    """One row of `correlations`: positions of models become ids, `note` is appended to that of the result."""
    named = {key: models[value] if key.endswith("_without") else value for key, value in result.items()}
    named["note"] = "; ".join(text for text in (result["note"], note) if text)
    where = {"panel": panel.name, "distant": panel.cd_fsl} if panel else {"panel": "", "distant": False}
    return where | task._asdict() | named


def task_row(correlations: pd.DataFrame, task: Task) -> pd.Series | None:
    """Row of a task in a table of correlations; None without one."""
    rows = correlations[(correlations[TASK] == list(task)).all(axis=1)]
    return rows.iloc[0] if len(rows) else None


def average_row(correlations: pd.DataFrame, panel: Panel) -> pd.Series | None:
    """Row of a panel's average, or of its only task; None without one."""
    rows = correlations[correlations["panel"] == panel.name]
    if len(panel.tasks) > 1:
        rows = rows[rows["metric"] == panel.average.metric]
    return rows.iloc[0] if len(rows) else None


def _result_columns() -> list[str]:
    parts = ["", "_low", "_high", "_p", "_loo_low", "_loo_low_without", "_loo_high", "_loo_high_without"]
    return ["n", *(name + part for name in COEFFICIENTS for part in parts), "note"]


def rounding_interval(x, values, metric: str, decimals: int, raw: bool = False) -> tuple[float, float]:
    """Range of Pearson's r that rounding of the printed values allows.

    Parameters
    ----------
    x : array_like, shape (n,)
        Transformed source accuracy, taken as exact; n up to 16.
    values : array_like, shape (n,)
        Scores as printed.
    metric : str
        Their metric, which fixes the transform.
    decimals : int
        Digits to which they are printed.
    raw : bool
        Whether the metric is correlated without its logit.

    Returns
    -------
    tuple of float
        Lowest and highest r over all values that round to the printed ones. The end nearer to zero lies at a corner
        of that box (r is quasi-convex there) and is found among all corners; the other end is climbed to.
    """
    x, values = np.asarray(x, float), np.asarray(values, float)
    half = 0.5 * 10.0**-decimals
    low, high = (to_analysis_scale(values + shift, metric, raw) for shift in (-half, half))
    corners = np.array(list(product((False, True), repeat=len(x))))
    rs = pearson(x, np.where(corners, high, low))
    ends = [float(rs.min()), float(rs.max())]
    for i, sign in enumerate((1, -1)):
        start = np.where(corners[[rs.argmin(), rs.argmax()][i]], high, low)
        best = minimize(lambda y, s=sign: s * float(pearson(x, y)), start, bounds=list(zip(low, high, strict=True)))
        ends[i] = (min, max)[i](ends[i], sign * float(best.fun))
    return ends[0], ends[1]


def pairwise(values: pd.DataFrame, coefficient: str = "pearson", least: int = 3) -> pd.DataFrame:
    """Correlate every pair of columns over the models that have both (v1 section 4.5).

    Parameters
    ----------
    values : pd.DataFrame
        Models x tasks, transformed; signs turned so that higher is better, where that is wanted.
    coefficient : str
        pearson, spearman or kendall.
    least : int
        Fewest models that two columns must share.

    Returns
    -------
    pd.DataFrame
        Symmetric, 1 on the diagonal, NaN where fewer models are shared or a column is constant.
    """
    function, n = COEFFICIENTS[coefficient], values.shape[1]
    data = values.to_numpy(float)
    result = np.full((n, n), np.nan)
    for i in range(n):
        for j in range(i + 1):
            kept = ~np.isnan(data[:, i]) & ~np.isnan(data[:, j])
            if kept.sum() >= least:
                result[i, j] = result[j, i] = function(data[kept, i], data[kept, j])
    return pd.DataFrame(result, index=values.columns, columns=values.columns)


def pair_correlations(scores: TaskScores, coefficient: str = "pearson") -> pd.DataFrame:
    """Correlate all pairs of the tasks that the paper counts, and source accuracy, over models.

    Errors are negated, so that higher is always better. Pairs need `PAIR_MODELS` models; tasks without any such
    pair are left out.

    Returns
    -------
    pd.DataFrame
        Symmetric; rows and columns are tasks, first `SOURCE` where source accuracies are known.
    """
    values = higher_is_better(scores.values[scores.counted])
    if scores.source.notna().any():
        values.insert(0, SOURCE, scores.x())
    r = pairwise(values, coefficient, PAIR_MODELS)
    kept = (r.notna().sum() > 1).to_numpy()
    return r.loc[kept, kept]
