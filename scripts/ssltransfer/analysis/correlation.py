"""Correlation of transfer scores with source accuracy, by the rules of the paper (v2 section A.7).

x is the accuracy on the source dataset, y the score of a task or the mean over the tasks of a panel, both on the
analysis scale. Fourteen models are few, so every coefficient has a confidence interval, a permutation p-value, and its
range when one model, or one family of models, is left out.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from itertools import permutations, product

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import ndtri
from scipy.stats import rankdata

from ssltransfer.analysis.scale import higher_is_better, is_clipped, is_logit, to_analysis_scale
from ssltransfer.analysis.tasks import SOURCE, Panel, TaskScores
from ssltransfer.results.scores import TASK, Task

SEED = 0
#: Fewest models for the correlation of a pair of tasks. Three often correlate strongly by chance, and a heat map shows
#: no number of models beside the correlation.
PAIR_MODELS = 4
#: Fewest models with an interval: of four, Pearson's is nearly -1 to 1 and Kendall's is not defined. With fewer, ranges
#: over subsets of the models are near 1 as well, whatever the scores are.
INTERVAL_MODELS = 5
#: Most models whose permutations are all enumerated (362,880); of more models, seeded random ones are drawn.
EXACT_MODELS = 9
#: Random permutations, and the fewest where models are so many that their pairs would fill the memory.
PERMUTATIONS, FEWEST_PERMUTATIONS = 99_999, 999
#: Numbers that the permutations may fill in Kendall's coefficient, which has one for each pair of models (40 MB).
PERMUTED_SIGNS = 10_000_000


def _centred(values):
    """Subtract the mean of the last axis; constant vectors become exactly zero."""
    spread = np.ptp(values, axis=-1, keepdims=True)
    return np.where(spread == 0, 0.0, values - values.mean(axis=-1, keepdims=True))


def _centred_ranks(values):
    """Average ranks along the last axis, centred."""
    return _centred(rankdata(values, axis=-1))


def _signs(values):
    """Signs of all pairwise differences of the last axis, flattened; float32, which holds their sums exactly."""
    i, j = np.triu_indices(values.shape[-1], 1)
    return np.sign(values[..., i] - values[..., j]).astype(np.float32)


#: Coefficient -> the vectors whose cosine it is.
VECTORS = {"pearson": _centred, "spearman": _centred_ranks, "kendall": _signs}


def _coefficient(name: str, x, y):
    """Cosine along the last axis of the vectors of x and y, broadcasting over the others; NaN for a constant one."""
    a, b = (VECTORS[name](np.asarray(values, float)).astype(float) for values in (x, y))
    norm = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(np.where(norm > 0, (a * b).sum(-1) / norm, np.nan), -1, 1)


def pearson(x, y):
    """Pearson's r along the last axis, broadcasting over the others; NaN for a constant vector."""
    return _coefficient("pearson", x, y)


def spearman(x, y):
    """Spearman's rho along the last axis (average ranks for ties); NaN for a constant vector."""
    return _coefficient("spearman", x, y)


def kendall(x, y):
    """Kendall's tau-b along the last axis; NaN for a constant vector."""
    return _coefficient("kendall", x, y)


COEFFICIENTS = {"pearson": pearson, "spearman": spearman, "kendall": kendall}


def correlation_interval(name: str, r, n: int) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of a coefficient over n models, by Fisher's z = atanh(r).

    The standard error of z is 1 / sqrt(n - 3) for Pearson (Fisher), sqrt((1 + rho^2 / 2) / (n - 3)) for Spearman
    (Bonett and Wright, 2000), and sqrt(0.437 / (n - 4)) for Kendall (Fieller, Hartley and Pearson, 1957). The rank
    coefficients take few values, and are often 1 where the population's is not; their ends are therefore computed from
    the values one step below and above. Without that step, the interval of a Spearman coefficient of 5 models
    covers 0.9 in 75 % of samples.

    Parameters
    ----------
    name : str
        A key of `COEFFICIENTS`.
    r : array_like
        Coefficients.
    n : int
        Number of models, at least `INTERVAL_MODELS`.

    Returns
    -------
    tuple of ndarray
        Lower and upper ends, from -1 to 1. That of a Pearson coefficient of -1 or 1 is the point itself.
    """
    step = {"pearson": 0.0, "spearman": 12 / (n * (n * n - 1)), "kendall": 4 / (n * (n - 1))}[name]
    ends = []
    for sign in (-1, 1):
        start = np.clip(np.asarray(r, float) + sign * step, -1, 1)
        error = {
            "pearson": np.sqrt(1 / (n - 3)),
            "spearman": np.sqrt((1 + start**2 / 2) / (n - 3)),
            "kendall": np.sqrt(0.437 / (n - 4)),
        }[name]
        with np.errstate(divide="ignore"):  # atanh(1) is infinite, and its tanh is 1
            ends.append(np.tanh(np.arctanh(start) + sign * ndtri(0.975) * error))
    return ends[0], ends[1]


@cache
def permutation_indices(n: int) -> np.ndarray:
    """Permutations of n models, shape (permutations, n): all for up to `EXACT_MODELS`, else seeded random ones."""
    if n <= EXACT_MODELS:
        return np.array(list(permutations(range(n))), np.int8)
    count = int(np.clip(PERMUTED_SIGNS // math.comb(n, 2), FEWEST_PERMUTATIONS, PERMUTATIONS))
    return np.random.default_rng([SEED, n, 1]).permuted(np.tile(np.arange(n), (count, 1)), axis=1)


@lru_cache(maxsize=2)
def _permuted_vectors(x: tuple[float, ...]) -> dict[str, np.ndarray]:
    """Vectors of every permutation of x, by coefficient; most tasks of a suite share x, the source accuracies."""
    parts = np.array_split(np.array(x)[permutation_indices(len(x))], 16)  # against large intermediate results
    return {name: np.concatenate([vectors(part) for part in parts]) for name, vectors in VECTORS.items()}


def permutation_p_value(name: str, x: np.ndarray, y: np.ndarray) -> float:
    """Two-sided p-value of a coefficient: the part of the permutations of x with one at least as far from 0.

    Of random permutations it is (1 + hits) / (1 + permutations).

    Parameters
    ----------
    name : str
        A key of `COEFFICIENTS`.
    x, y : ndarray, shape (n_models,)
        Finite and not constant.
    """
    own, permuted = VECTORS[name](y), _permuted_vectors(tuple(x.tolist()))[name]
    norm = np.linalg.norm(own.astype(float)) * np.linalg.norm(VECTORS[name](x).astype(float))
    hits = int(np.sum(np.abs(permuted @ own) >= (abs(COEFFICIENTS[name](x, y)) - 1e-9) * norm))
    if len(x) <= EXACT_MODELS:
        return hits / len(permuted)
    return (1 + hits) / (1 + len(permuted))


def correlate(x, y, families: Sequence[str] | None = None) -> dict:
    """Correlate two scores of the same models, with every uncertainty that n models allow.

    Parameters
    ----------
    x, y : array_like, shape (n_models,)
        Transformed scores; models where either is NaN are left out.
    families : sequence of str, optional
        Family of each model; by default each is its own.

    Returns
    -------
    dict
        ``n``, ``note``, ``families`` (their number), and for each of pearson, spearman, kendall: the coefficient;
        ``_low`` and ``_high`` (95 %, see `correlation_interval`); ``_p`` (see `permutation_p_value`); ``_loo_low``,
        ``_loo_high`` (range over leaving one model out) and ``_loo_low_without``, ``_loo_high_without`` (position of
        the model left out); the same with ``_lofo_`` for leaving one family out (its name), over the families without
        which at least 3 models are left.
        With fewer than 3 models or a constant vector the coefficients are missing and ``note`` says why; with fewer
        than `INTERVAL_MODELS` the intervals and ranges are.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    unknown = int(np.sum(np.isnan(x) & ~np.isnan(y)))
    kept = np.flatnonzero(~np.isnan(x) & ~np.isnan(y))
    own = [str(i) if families is None else families[i] for i in kept]
    x, y, n = x[kept], y[kept], len(kept)
    result = {"n": n, "families": len(set(own)), "note": f"{n} models: no interval" if n < INTERVAL_MODELS else ""}
    if n < 3:
        without = f", {unknown} without a source accuracy" if unknown else ""
        return result | {"note": f"fewer than 3 models{without}"}
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return result | {"note": "constant, so no correlation is defined"}
    for name, function in COEFFICIENTS.items():
        result |= {name: float(function(x, y)), f"{name}_p": permutation_p_value(name, x, y)}
    if n < INTERVAL_MODELS:
        return result
    if abs(result["pearson"]) > 1 - 1e-12:
        result["note"] = "on a line, so the interval is a point"
    smaller = {family: x_y for family in dict.fromkeys(own) if (x_y := _without(family, own, x, y)).shape[1] > 2}
    for name, function in COEFFICIENTS.items():
        low, high = correlation_interval(name, result[name], n)
        result |= {f"{name}_low": float(low), f"{name}_high": float(high)}
        result |= _ends(f"{name}_loo", leave_one_out(name, x, y), kept.tolist())
        result |= _ends(f"{name}_lofo", [function(*x_y) for x_y in smaller.values()], list(smaller))
    return result


def leave_one_out(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficient of the other models for each model that is left out, shape (n_models,).

    Kendall's has a term for each pair of models, so that the terms of one model are subtracted from the sums.
    """
    n = len(x)
    if name != "kendall":
        others = np.array([np.delete(np.arange(n), i) for i in range(n)])
        return COEFFICIENTS[name](x[others], y[others])
    a, b = (np.sign(values[:, None] - values) for values in (x, y))
    without = [(terms.sum() / 2 - terms.sum(axis=1)) for terms in (a * b, a * a, b * b)]
    norm = np.sqrt(without[1] * without[2])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(np.where(norm > 0, without[0] / norm, np.nan), -1, 1)


def _without(family: str, families: Sequence[str], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Both scores (2, models) of the models of other families."""
    return np.stack([x, y])[:, [name != family for name in families]]


def _ends(label: str, values, left_out: Sequence) -> dict:
    """Range of a coefficient over subsets of the models, with what each end leaves out."""
    if not len(values) or np.isnan(values).all():
        return {}
    ends = {"low": int(np.nanargmin(values)), "high": int(np.nanargmax(values))}
    found = {f"{label}_{end}": float(values[i]) for end, i in ends.items()}
    return found | {f"{label}_{end}_without": left_out[i] for end, i in ends.items()}


def correlations(scores: TaskScores, families: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Correlate every task and every panel average with source accuracy.

    Parameters
    ----------
    scores : TaskScores
    families : mapping, optional
        Model -> family; a model without one, or with an empty one, is a family of its own.

    Returns
    -------
    pd.DataFrame
        One row per task, then one row (``dataset`` "average") per panel of more than one task: the columns of
        the tidy table that name a task, ``panel`` (its name), ``distant`` (whether that is CD-FSL beside other
        datasets), and everything that `correlate` returns. Models are named by id; nothing is negated.
    """
    family_of = [(families or {}).get(model) or model for model in scores.matrix.index]
    panel_of = {task: panel for panel in scores.panels for task in panel.tasks}
    models, x = scores.matrix.index, {raw: scores.x(raw) for raw in (False, True)}
    rows = []
    for task in scores.tasks:
        if task.dataset in scores.leave_out:
            continue
        raw, own = scores.conventions.raw(task.kind), scores.matrix[task]
        clipped = own.index[is_clipped(own, task.metric)] if is_logit(task.metric, raw) else []
        note = f"logit clipped for {', '.join(clipped)}" if len(clipped) else ""
        rows.append(_row(task, panel_of.get(task), correlate(x[raw], scores.values[task], family_of), models, note))
    for panel in scores.panels:
        if len(panel.tasks) > 1:
            result = correlate(x[False], scores.panel_means[panel.name], family_of)
            rows.append(_row(panel.average, panel, result, models))
    return pd.DataFrame(rows, columns=["panel", "distant", *TASK, *_result_columns()])


def family_correlations(scores: TaskScores, families: Mapping[str, str]) -> pd.DataFrame:
    """Correlate every panel average with source accuracy among the models of one family.

    Parameters
    ----------
    scores : TaskScores
    families : mapping
        Model -> family; models without one are left out.

    Returns
    -------
    pd.DataFrame
        One row for each panel and family of at least `INTERVAL_MODELS` models with that average and a source accuracy:
        ``panel`` (its name), ``family``, ``n``, and the coefficients with intervals and p-values of `correlate`.
    """
    x, found = scores.x(False), {}
    for family in dict.fromkeys(filter(None, families.values())):  # the panels of a family share their permutations
        own = [model for model in scores.panel_means.index if families.get(model) == family]
        for panel in scores.panels:
            found[panel.name, family] = correlate(x[own], scores.panel_means.loc[own, panel.name])
    names = {panel.name: number for number, panel in enumerate(scores.panels)}
    rows = [
        {"panel": panel, "family": family} | result
        for (panel, family), result in sorted(found.items(), key=lambda item: names[item[0][0]])
        if result["n"] >= INTERVAL_MODELS
    ]
    ends = ("", "_low", "_high", "_p")
    columns = ["panel", "family", "n", *(f"{name}{end}" for name in COEFFICIENTS for end in ends), "note"]
    return pd.DataFrame(rows, columns=columns)


def _row(task: Task, panel: Panel | None, result: dict, models: pd.Index, note: str = "") -> dict:
    """One row of `correlations`: positions of models become ids, `note` is appended to that of the result."""
    named = {
        key: models[value] if "_loo_" in key and key.endswith("_without") else value for key, value in result.items()
    }
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
    later = ["_lofo_low", "_lofo_low_without", "_lofo_high", "_lofo_high_without"]
    first, last = ([name + part for name in COEFFICIENTS for part in group] for group in (parts, later))
    return ["n", *first, "note", "families", *last]


def rounding_interval(x, values, metric: str, decimals: int) -> tuple[float, float]:
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

    Returns
    -------
    tuple of float
        Lowest and highest r over all values that round to the printed ones. The end nearer to zero lies at a corner
        of that box (r is quasi-convex there) and is found among all corners; the other end is climbed to.
    """
    x, values = np.asarray(x, float), np.asarray(values, float)
    half = 0.5 * 10.0**-decimals
    low, high = (to_analysis_scale(values + shift, metric) for shift in (-half, half))
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
