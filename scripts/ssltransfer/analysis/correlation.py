"""Does source accuracy predict transfer? Correlations by the rules of the paper (v2 section A.7).

x is the accuracy on the source data set, y the score of a task or the mean over the tasks of a panel. Bounded
scores are compared as logits; means over tasks are means of logits. Fourteen models are few, so every
coefficient comes with a bootstrap interval (models resampled), a permutation p-value and its range when one
model is left out.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.stats import rankdata

from ssltransfer.results.metric_info import KINDS, METRICS
from ssltransfer.results.scores import AVERAGE, CELL

TASK = CELL[1:]
CD_FSL = ("cropdiseases", "eurosat", "isic", "chestx")
#: Of several few-shot panels the one drawn in Fig. 1, the radar chart and the summaries (by context).
FIGURE_SHOT = "20-shot"
COEFFICIENTS = ("pearson", "spearman", "kendall")
RESAMPLES = 2000
SEED = 0

#: Scores are printed to 0.01 %; the logit takes 0 and 100 % for half a digit inside.
CLIP = 5e-5


@dataclass(frozen=True)
class Conventions:
    """Where the two versions of the paper analyse differently.

    Attributes
    ----------
    normals : str
        Metric that stands for surface normals in Fig. 1 and in averages.
    merge_shots : bool
        Whether the few-shot panel averages over all shots; otherwise each number of shots is a panel.
    raw_properties : bool
        Whether calibration, colour and attention are correlated raw against raw (the prose of v1), not on logits.
    """

    normals: str
    merge_shots: bool
    raw_properties: bool

    def headline(self, kind: str) -> str | None:
        """Name the metric that stands for `kind`; None where each data set has its own."""
        return self.normals if kind == "normals" else KINDS[kind].headline

    def raw(self, kind: str) -> bool:
        """Whether scores of `kind`, and source accuracy beside them, enter as they are."""
        return self.raw_properties and not KINDS[kind].performance


CONVENTIONS = {
    "v1": Conventions(normals="mean-angle", merge_shots=True, raw_properties=True),
    "v2": Conventions(normals="within-11.25", merge_shots=False, raw_properties=False),
}


@dataclass(frozen=True)
class Panel:
    """A set of tasks that the paper averages: one panel of Fig. 1.

    Attributes
    ----------
    name : str
        Identifier, also used in file names.
    label : str
        Heading.
    kind, protocol : str
        As in the tidy table.
    setting : str
        Empty where the panel covers all settings.
    tasks : tuple of tuple
        Columns of the task matrix: (protocol, kind, dataset, setting, metric).
    distant : bool
        Whether it is the CD-FSL benchmark beside other few-shot data sets.
    """

    name: str
    label: str
    kind: str
    protocol: str
    setting: str
    tasks: tuple
    distant: bool


def logit(fraction):
    """Log-odds ln(p / (1 - p)).

    Parameters
    ----------
    fraction : array_like
        Values from 0 to 1. 0 and 1 count as `CLIP` and 1 - `CLIP`; NaN stays NaN.

    Raises
    ------
    ValueError
        A value lies outside 0 to 1.
    """
    p = np.asarray(fraction, float)
    if np.any((p < 0) | (p > 1)):
        raise ValueError("the logit is defined from 0 to 1")
    p = np.clip(p, CLIP, 1 - CLIP)
    return np.log(p / (1 - p))


def is_logit(metric: str, raw: bool = False) -> bool:
    """Whether `transform` takes the logit."""
    return METRICS[metric].logit and not raw


def transform(values, metric: str, raw: bool = False):
    """Transform scores of one metric as the correlations need them: logit where the metric is bounded.

    LPIPS is a distance, but the paper takes its logit as well; values above 1 are clipped.
    """
    values = np.asarray(values, float)
    if not is_logit(metric, raw):
        return values
    return logit(np.minimum(values / METRICS[metric].scale, 1.0))


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


#: Fewer models, resampled or left out, give coefficients near 1 whatever the scores are.
INTERVAL_MODELS = 5

_FUNCTIONS = {"pearson": pearson, "spearman": spearman, "kendall": kendall}


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
    kept = np.flatnonzero(~np.isnan(x) & ~np.isnan(y))
    x, y, n = x[kept], y[kept], len(kept)
    result = {"n": n, "note": f"{n} models: no interval" if n < INTERVAL_MODELS else ""}
    if n < 3:
        return result | {"note": "fewer than 3 models"}
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return result | {"note": "constant, so no correlation is defined"}
    drawn, shuffled = bootstrap_indices(n, resamples, seed), permutation_indices(n, resamples, seed)
    others = np.array([np.delete(np.arange(n), i) for i in range(n)])
    for name, function in _FUNCTIONS.items():
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


def task_matrix(scores: pd.DataFrame, models: list[str]) -> pd.DataFrame:
    """Lay the scores out as models x tasks, both in the order given; missing cells are NaN.

    Properties of the features (calibration, inversion, attention) are averaged over data sets first, as the
    paper publishes them; every other data set is a task of its own.
    """
    own = scores[[KINDS[kind].performance for kind in scores["kind"]]]
    rest = scores.drop(own.index)
    by_model = [name for name in CELL if name != "dataset"]
    means = rest.groupby(by_model, sort=False)["value"].mean().reset_index().assign(dataset=AVERAGE)
    both = pd.concat([own[[*CELL, "value"]], means[[*CELL, "value"]]]) if len(means) else own
    order = pd.MultiIndex.from_frame(both[TASK].drop_duplicates())
    wide = both.pivot(index="model", columns=TASK, values="value")
    return wide.reindex(index=models, columns=order)


def transformed(matrix: pd.DataFrame, conventions: Conventions) -> pd.DataFrame:
    """Transform every column of a task matrix by its metric and the conventions."""
    columns = {task: transform(matrix[task], task[-1], conventions.raw(task[1])) for task in matrix.columns}
    return pd.DataFrame(columns, index=matrix.index, columns=matrix.columns)


def panels(tasks: pd.MultiIndex, conventions: Conventions, leave_out: tuple[str, ...] = ()) -> list[Panel]:
    """Group tasks into the panels of Fig. 1, in the order of the tasks.

    Few-shot tasks of the CD-FSL benchmark form their own panel beside other data sets, and each number of
    shots does, unless `conventions` merge them. `leave_out` names source data sets, which are no targets.
    """
    groups: dict[tuple, list] = {}
    shots_on = {}
    for task in tasks:
        protocol, kind, dataset, setting, metric = task
        headline = conventions.headline(kind)
        if not KINDS[kind].performance or dataset in leave_out or headline not in (None, metric):
            continue
        few, distant = kind == "fewshot", dataset in CD_FSL
        shots_on.setdefault(protocol, set()).add(distant)
        key = (protocol, kind, "" if few and conventions.merge_shots else setting, few and distant)
        groups.setdefault(key, []).append(task)
    variant = variants(tasks)
    return [
        _panel(*key, both=len(shots_on[key[0]]) == 2, variant=variant[key[0]], tasks=tuple(found))
        for key, found in groups.items()
    ]


def variants(tasks) -> dict[str, str]:
    """Tell protocols of one kind apart: protocol -> its id in brackets, empty where its kind has only one.

    Where the ids of all protocols of a kind begin with the kind, its name is left out.
    """
    kinds = {task[0]: task[1] for task in tasks}
    found = {}
    for protocol, kind in kinds.items():
        others = [other for other, its in kinds.items() if its == kind]
        named = all(other.startswith(kind) for other in others)
        rest = (protocol.removeprefix(kind).strip("-") or "default") if named else protocol
        found[protocol] = f"[{rest}]" if len(others) > 1 else ""
    return found


def _panel(protocol: str, kind: str, setting: str, distant: bool, both: bool, variant: str, tasks: tuple) -> Panel:
    group = ("CD-FSL" if distant else "Kornblith") if kind == "fewshot" and both else ""
    distant = group == "CD-FSL"
    name = "-".join(part for part in (protocol, "cd-fsl" if distant else "", setting) if part)
    extra = ", ".join(part for part in (group, setting) if part)
    label = KINDS[kind].label + (f" ({extra})" if extra else "")
    return Panel(name, f"{label} {variant}".strip(), kind, protocol, setting, tasks, distant)


def in_figure(panel: Panel, others: list[Panel]) -> bool:
    """Whether Fig. 1 draws the panel: of several numbers of shots only the conventional one."""
    shots = [other.setting for other in others if other.protocol == panel.protocol]
    return panel.setting == FIGURE_SHOT or FIGURE_SHOT not in shots


def headline_tasks(tasks: pd.MultiIndex, conventions: Conventions, leave_out: tuple[str, ...] = ()) -> list[tuple]:
    """List the tasks that the paper counts: those of the panels of Fig. 1 (v2: 40)."""
    every = panels(tasks, conventions, leave_out)
    return [task for panel in every if in_figure(panel, every) for task in panel.tasks]


def oriented(values: pd.DataFrame) -> pd.DataFrame:
    """Turn signs so that higher is better in every column (columns end with the metric)."""
    return values * np.array([METRICS[task[-1]].better for task in values.columns])


def panel_means(values: pd.DataFrame, found: list[Panel]) -> pd.DataFrame:
    """Mean over the (transformed) tasks of each panel; NaN for a model that lacks one of them."""
    means = {panel.name: values[list(panel.tasks)].mean(axis=1, skipna=False) for panel in found}
    return pd.DataFrame(means, index=values.index)


def correlations(
    matrix: pd.DataFrame, source: pd.Series, conventions: Conventions, leave_out: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Correlate every task and every panel average with source accuracy.

    Parameters
    ----------
    matrix : pd.DataFrame
        Models x tasks (see `task_matrix`).
    source : pd.Series
        Source accuracy of each model in percent; NaN leaves the model out.
    conventions : Conventions
        Those of v1 or v2.
    leave_out : tuple of str
        Data sets that are no transfer targets because they are the x axis.

    Returns
    -------
    pd.DataFrame
        One row a task, then one row (``dataset`` "average") for each panel of more than one task: the columns of
        the tidy table that name a task, ``panel``, ``distant`` (whether the panel is), and everything that `correlate`
        returns. Nothing is negated.
    """
    source = source.reindex(matrix.index)
    x = {raw: transform(source, "top1", raw) for raw in (False, True)}
    values, found = transformed(matrix, conventions), panels(matrix.columns, conventions, leave_out)
    panel_of = {task: {"panel": panel.name, "distant": panel.distant} for panel in found for task in panel.tasks}
    rows = []
    for task in matrix.columns:
        if task[2] in leave_out:
            continue
        raw = conventions.raw(task[1])
        clipped = _clipped(matrix[task], task[-1], raw)
        rows.append(panel_of.get(task, {"panel": "", "distant": False}) | dict(zip(TASK, task, strict=True)))
        rows[-1] |= _named(correlate(x[raw], values[task]), matrix.index, clipped)
    means = panel_means(values, found)
    for panel in found:
        if len(panel.tasks) > 1:
            names = (panel.protocol, panel.kind, AVERAGE, panel.setting, "mean")
            rows.append(panel_of[panel.tasks[0]] | dict(zip(TASK, names, strict=True)))
            rows[-1] |= _named(correlate(x[False], means[panel.name]), matrix.index, "")
    columns = ["panel", "distant", *TASK, *_result_columns()]
    return pd.DataFrame(rows, columns=columns)


def _clipped(values: pd.Series, metric: str, raw: bool) -> str:
    """Note models whose score has no finite logit."""
    if not is_logit(metric, raw):
        return ""
    p = values / METRICS[metric].scale
    names = list(values.index[(p < CLIP) | (p > 1 - CLIP)])
    return f"logit clipped for {', '.join(names)}" if names else ""


def _named(result: dict, models: pd.Index, clipped: str) -> dict:
    """Replace positions by model ids and append to the note."""
    named = {k: models[v] if k.endswith("_without") else v for k, v in result.items()}
    named["note"] = "; ".join(note for note in (result["note"], clipped) if note)
    return named


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
    low, high = (transform(values + shift, metric, raw) for shift in (-half, half))
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
    function, n = _FUNCTIONS[coefficient], values.shape[1]
    data = values.to_numpy(float)
    result = np.full((n, n), np.nan)
    for i in range(n):
        for j in range(i + 1):
            kept = ~np.isnan(data[:, i]) & ~np.isnan(data[:, j])
            if kept.sum() >= least:
                result[i, j] = result[j, i] = function(data[kept, i], data[kept, j])
    return pd.DataFrame(result, index=values.columns, columns=values.columns)
