"""Predictors of transfer: how well source accuracy, other scores and transferability estimators rank the models.

A predictor is a number of each model, for a target: the same for all targets (source accuracy), or of the dataset of
the target (an estimator). A target is a task or the average over a panel. Both are oriented: higher is better.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit
from scipy.stats import kendalltau, weightedtau

from ssltransfer.analysis.correlation import INTERVAL_MODELS, correlation_interval, kendall, pearson
from ssltransfer.analysis.paired_tests import LEVEL, holm, t_test
from ssltransfer.analysis.scale import to_analysis_scale
from ssltransfer.analysis.suite_results import SuiteResults
from ssltransfer.analysis.tasks import FIGURE_SETTING, TaskScores
from ssltransfer.results.metric_info import METRICS, SOURCE_KINDS
from ssltransfer.results.scores import AVERAGE, TASK, Task

SOURCE, OTHERS = "source-accuracy", "other-tasks"
"""Predictors that every suite has: source accuracy, and the mean standardised score on tasks of other datasets."""
POOLED_KINDS = ("fewshot",)
"""Kinds of protocols whose test images are drawn from all images of a dataset."""
NO_PREDICTORS = ("cdnv",)
"""Estimators that are no predictors: the mean CDNV is not defined for the models that separate classes worst."""
FEWEST_MODELS = 3
FEWEST_DATASETS = 3
"""Fewest datasets for an interval over datasets."""
ROUNDING = 1e-9
"""Part of the largest absolute value below which differences are rounding, and values are constant."""
CONSTANT = "constant, so no correlation is defined"
COEFFICIENTS = ("pearson", "kendall")
ENDS = ("", "_low", "_high")
COLUMNS = [
    "panel",
    *TASK,
    "predictor",
    "n",
    *(name + end for name in COEFFICIENTS for end in ENDS),
    "weighted_kendall",
    "picked",
    "regret",
    "common",
    "common_kendall",
    "source_kendall",
    "kendall_difference",
    "regret_difference",
    *("pearson_difference" + end for end in ENDS),
    "note",
]
PANEL_COLUMNS = [
    "panel",
    "predictor",
    "datasets",
    "fewest_models",
    "most_models",
    *("kendall" + end for end in ENDS),
    "without_low",
    "without_high",
    "regret",
    *("kendall_difference" + end for end in ENDS),
    "p",
    "p_adjusted",
    "regret_difference",
    *("average" + end for end in ENDS),
]


class Predictor(NamedTuple):
    """The values of a predictor for some tasks.

    Attributes
    ----------
    name : str
        `SOURCE`, `OTHERS`, ``PROTOCOL:DATASET`` (a linear or k-NN score on a source dataset) or ``PROTOCOL:METRIC`` (an
        estimator).
    values : pd.Series
        By model, NaN where unknown; not oriented.
    better : int
        1 where higher means better, -1 where lower does, 0 where neither is claimed.
    metric : str
        That the values are on the analysis scale of; empty for means of standardised values.
    """

    name: str
    values: pd.Series
    better: int
    metric: str


class Target(NamedTuple):
    """What is predicted: the scores of a task, or their mean over the tasks of a panel.

    Attributes
    ----------
    panel : str
        Name of the panel.
    task : Task
        The task, or the average of the panel.
    tasks : tuple of Task
        Those that are averaged.
    """

    panel: str
    task: Task
    tasks: tuple[Task, ...]


def targets(scores: TaskScores) -> Iterator[Target]:
    """Every task of the panels of Fig. 1, each panel followed by its average."""
    for panel in scores.figure_panels:
        for task in panel.tasks:
            yield Target(panel.name, task, (task,))
        if len(panel.tasks) > 1:
            yield Target(panel.name, panel.average, panel.tasks)


def predictors(results: SuiteResults, tasks: Sequence[Task]) -> Iterator[Predictor]:
    """All predictors of the mean score on some tasks: the static ones, then the estimators that all datasets have.

    An estimator of several datasets is the mean of its values, standardised over the models. Few-shot episodes are
    drawn from all images of a dataset, whose labels its estimators have seen: these predict no few-shot score.
    """
    scores, datasets = results.tasks, {task.dataset for task in tasks}
    seen = datasets if any(task.kind in POOLED_KINDS for task in tasks) else set()
    source = scores.x()
    yield Predictor(SOURCE, source, 1, "top1")
    for other in scores.tasks:
        if other.kind in SOURCE_KINDS and other.dataset in {*scores.leave_out} - seen:
            chosen, values = other.setting in (FIGURE_SETTING.get(other.kind), ""), scores.values[other]
            if chosen and not METRICS[other.metric].secondary and not np.allclose(values, source, equal_nan=True):
                yield Predictor(f"{other.protocol}:{other.dataset}", values, METRICS[other.metric].better, other.metric)
    others = [other for other in scores.counted if other.dataset not in datasets]
    if others:
        yield Predictor(OTHERS, mean_standardised(scores.values, others), 1, "")
    estimates = results.estimates
    own = estimates[estimates["dataset"].isin(datasets - seen) & ~estimates["metric"].isin(NO_PREDICTORS)]
    own = own.sort_values("metric", key=lambda metrics: metrics.map(list(METRICS).index), kind="stable")
    for (protocol, metric), rows in own.groupby(["protocol", "metric"], sort=False):
        if rows["dataset"].nunique() == len(datasets):
            wide = rows.pivot(index="model", columns="dataset", values="value").reindex(scores.matrix.index)
            scaled = wide.apply(lambda column, metric=metric: to_analysis_scale(column, metric))
            one = len(datasets) == 1
            values = scaled.iloc[:, 0] if one else _standardised_mean(scaled)
            yield Predictor(f"{protocol}:{metric}", values, METRICS[metric].better, metric if one else "")


def mean_standardised(values: pd.DataFrame, tasks: list[Task]) -> pd.Series:
    """Mean over tasks of scores standardised over models, oriented; NaN where a model lacks a task that others have.

    Tasks that only some of the models have would favour these, so that only those count which the largest number of
    models has.
    """
    own = values[tasks] * np.array([METRICS[task.metric].better for task in tasks])
    counts = own.notna().sum()
    return _standardised_mean(own.loc[:, counts == counts.max()])


def _standardised_mean(values: pd.DataFrame) -> pd.Series:
    """Mean of the columns, each standardised over models, without constant ones."""
    own = values.loc[:, [not is_constant(column.dropna()) for _, column in values.items()]]
    return ((own - own.mean()) / own.std(ddof=0)).mean(axis=1, skipna=False)


def is_constant(values: np.ndarray | pd.Series) -> bool:
    """Whether values differ by no more than rounding; those of no model are constant."""
    return len(values) == 0 or bool(np.ptp(values) <= ROUNDING * np.abs(values).max())


def predictor_table(results: SuiteResults) -> pd.DataFrame:
    """Judge every predictor of every counted task, and of the average of every panel.

    Returns
    -------
    pd.DataFrame
        One row per target and predictor, with `COLUMNS`: ``n`` models; Pearson and Kendall with 95 % intervals over
        models (see `correlation_interval`; from `INTERVAL_MODELS` models on); Kendall weighted towards the best models
        (`scipy.stats.weightedtau`); the model that the predictor ranks first and its ``regret``, the distance of its
        score from the best one in the unit of the metric (both empty where the predictor has no direction).

        Beside source accuracy, over the ``common`` models that have both: Kendall's coefficient of either, the
        differences of Kendall, of regret and of Pearson from those of source accuracy, the last with its 95 % interval
        (see `dependent_difference`). Predictors without a direction are taken as they are.
    """
    rows, scores, source = [], results.tasks, results.tasks.x()
    for target in targets(scores):
        tasks = list(target.tasks)
        better = METRICS[tasks[0].metric].better
        y = scores.values[tasks].mean(axis=1, skipna=False) * better
        points = scores.matrix[tasks].mean(axis=1, skipna=False)
        of_source = judge(source, y, points, better, 1)
        for predictor in predictors(results, tasks):
            x = predictor.values * (predictor.better or 1)
            row = {"panel": target.panel} | target.task._asdict() | {"predictor": predictor.name}
            if predictor.name == SOURCE:
                rows.append(row | of_source)
                continue
            kept = y.index[x.notna() & source.notna() & y.notna()]
            found = judge(x, y, points, better, predictor.better)
            own, other = (
                known if known["n"] == len(kept) else judge(values[kept], y[kept], points[kept], better, direction)
                for known, values, direction in ((found, x, predictor.better), (of_source, source, 1))
            )
            compared = _from_source(own, other)
            if "kendall_difference" in compared and len(kept) >= INTERVAL_MODELS:
                ends = dependent_difference(*(values[kept].to_numpy() for values in (x, source, y)))
                if ends:
                    compared |= dict(zip(("pearson_difference" + end for end in ENDS), ends, strict=True))
            rows.append(row | found | compared)
    return pd.DataFrame(rows, columns=COLUMNS)


def judge(x: pd.Series, y: pd.Series, scores: pd.Series, better: int, direction: int) -> dict:
    """Compare the values of a predictor with scores of the same models (see `predictor_table`).

    Parameters
    ----------
    x, y : pd.Series
        Predictor and scores on the analysis scale, higher is better; models that lack either are left out.
    scores : pd.Series
        Scores in the unit of the metric.
    better : int
        Direction of the metric.
    direction : int
        0 where the predictor claims none.
    """
    kept = y.index[x.notna() & y.notna()]
    x, y, scores, n = x[kept].to_numpy(), y[kept].to_numpy(), scores[kept], len(kept)
    if n < FEWEST_MODELS:
        return {"n": n, "note": f"fewer than {FEWEST_MODELS} models"}
    if is_constant(x) or is_constant(y):
        return {"n": n, "note": CONSTANT}
    found = {"n": n, "note": "" if n >= INTERVAL_MODELS else f"{n} models: no interval"}
    for name, function in (("pearson", pearson), ("kendall", kendall)):
        found[name] = float(function(x, y))
        if n >= INTERVAL_MODELS:
            low, high = correlation_interval(name, found[name], n)
            found |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    found["weighted_kendall"] = float(weightedtau(x, y).statistic)
    if direction:
        best = np.flatnonzero(x == x.max())  # tied models are picked equally often
        found["regret"] = float((scores * better).max() - (scores * better).iloc[best].mean()) + 0.0
        found["picked"] = kept[best[0]] if len(best) == 1 else ""
    return found


def _from_source(own: dict, source: dict) -> dict:
    """Compare what `judge` found of a predictor and of source accuracy for the same models."""
    found = {"common": own["n"]}
    if "kendall" in own and "kendall" in source:
        found |= {"common_kendall": own["kendall"], "source_kendall": source["kendall"]}
        found["kendall_difference"] = own["kendall"] - source["kendall"]
        if "regret" in own:
            found["regret_difference"] = own["regret"] - source["regret"]
    return found


def dependent_difference(first: np.ndarray, second: np.ndarray, y: np.ndarray) -> tuple[float, float, float] | None:
    """Difference of the Pearson correlations of two predictors with the same scores, and its 95 % interval.

    None where a coefficient is not defined or is 1 or -1.

    Notes
    -----
    G. Y. Zou, "Toward using confidence intervals to compare correlations", 2007: the distances of the ends of both
    intervals are combined, with the correlation of the two coefficients, which share models and scores.
    """
    if any(is_constant(values) for values in (first, second, y)):
        return None
    r = np.corrcoef([first, second, y])
    a, b, between = r[0, 2], r[1, 2], r[0, 1]
    if max(abs(a), abs(b)) > 1 - 1e-9:
        return None
    (a_low, b_low), (a_high, b_high) = correlation_interval("pearson", [a, b], len(y))
    rest = 1 - a**2 - b**2 - between**2
    c = ((between - a * b / 2) * rest + between**3) / ((1 - a**2) * (1 - b**2))
    c = float(np.clip(c, -1, 1))
    low = np.sqrt(max(0.0, (a - a_low) ** 2 + (b_high - b) ** 2 - 2 * c * (a - a_low) * (b_high - b)))
    high = np.sqrt(max(0.0, (a_high - a) ** 2 + (b - b_low) ** 2 - 2 * c * (a_high - a) * (b - b_low)))
    return float(a - b), float(a - b - low), float(a - b + high)


class BestPredictor(NamedTuple):
    """The predictor that ranks the models best on one target, among all that were judged there.

    Attributes
    ----------
    task : Task
        The target: a task, or the average over a panel.
    name : str
        See `Predictor`.
    models : int
        Number of models.
    kendall, low, high : float
        Kendall's coefficient with its 95 % interval over models, which does not allow for the choice of the best.
    judged : int
        Number of predictors with a direction, of which it is the best.
    separable : int
        Number of these whose coefficient differs from 0 at the 5 % level, adjusted for all by Holm.
    source : tuple of float
        Kendall's coefficient of source accuracy with its interval; empty where that is unknown or the best one.
    """

    task: Task
    name: str
    models: int
    kendall: float
    low: float
    high: float
    judged: int
    separable: int
    source: tuple[float, ...] = ()


def best_predictor(results: SuiteResults, table: pd.DataFrame) -> BestPredictor | None:
    """Choose the best predictor of the target that most predictors were judged on.

    Of several such targets it is that of the first average over a panel, else the first task.

    Parameters
    ----------
    results : SuiteResults
    table : pd.DataFrame
        See `predictor_table`.

    Returns
    -------
    BestPredictor or None
        None where no target has a predictor with a direction and at least `INTERVAL_MODELS` models.
    """
    table = table[table["kendall_low"].notna() & table["regret"].notna()]
    if table.empty:
        return None
    counts = table.groupby(["panel", *TASK], sort=False).size()
    most = [(panel, Task(*cell)) for panel, *cell in counts.index[counts.eq(counts.max())]]
    panel, task = min(most, key=lambda found: found[1].dataset != AVERAGE)
    own = table[(table[["panel", *TASK]] == [panel, *task]).all(axis=1)].set_index("predictor")
    tasks = next(found.tasks for found in targets(results.tasks) if (found.panel, found.task) == (panel, task))
    y = results.tasks.values[list(tasks)].mean(axis=1, skipna=False) * METRICS[tasks[0].metric].better
    p = []
    for predictor in predictors(results, tasks):
        if predictor.name in own.index:
            kept = y.index[predictor.values.notna() & y.notna()]
            p.append(kendalltau(predictor.values[kept], y[kept]).pvalue)
    best = own.loc[own["kendall"].idxmax()]
    source = own.loc[SOURCE, ["kendall" + end for end in ENDS]] if SOURCE in own.index.drop(best.name) else ()
    ends, separable = (float(best["kendall" + end]) for end in ENDS), int((holm(np.array(p)) < LEVEL).sum())
    return BestPredictor(task, str(best.name), int(best["n"]), *ends, len(own), separable, tuple(source))


def panel_predictors(table: pd.DataFrame) -> pd.DataFrame:
    """Average the coefficients of each predictor over the datasets of each panel.

    Parameters
    ----------
    table : pd.DataFrame
        See `predictor_table`.

    Returns
    -------
    pd.DataFrame
        One row per panel and predictor, with `PANEL_COLUMNS`: mean Kendall and mean regret over ``datasets``, on which
        it has ``fewest_models`` to ``most_models``; the 95 % interval of the mean for these models on datasets like
        these (Student's t, from `FEWEST_DATASETS` datasets on); the range of the mean when one dataset is left out; the
        mean difference of Kendall from that of source accuracy for the same models and datasets, with its interval,
        p-value (paired t test) and the p-value adjusted for the predictors of the panel (Holm), and that of regret; and
        Kendall with the ``average`` over the panel, with its interval over models.
    """
    rows = []
    averages = table["dataset"].eq(AVERAGE)
    of_average = table[averages].set_index(["panel", "predictor"])
    for panel, own in table[table["kendall"].notna() & ~averages].groupby("panel", sort=False):
        for predictor, rows_of in own.groupby("predictor", sort=False):
            values = rows_of["kendall"].to_numpy()
            row = {"panel": panel, "predictor": predictor, "datasets": len(values), "regret": rows_of["regret"].mean()}
            row |= {"fewest_models": rows_of["n"].min(), "most_models": rows_of["n"].max()}
            row |= dict(zip(("kendall", "kendall_low", "kendall_high", "_"), _mean_interval(values), strict=True))
            row |= {end: np.clip(row[end], -1, 1) for end in ("kendall_low", "kendall_high")}  # NaN stays
            if len(values) > 1:
                without = (values.sum() - values) / (len(values) - 1)
                row |= {"without_low": without.min(), "without_high": without.max()}
            if (panel, predictor) in of_average.index:
                average = of_average.loc[(panel, predictor)]
                row |= {f"average{end}": average[f"kendall{end}"] for end in ENDS}
            differences = rows_of["kendall_difference"].dropna().to_numpy()
            if len(differences):
                names = (*("kendall_difference" + end for end in ENDS), "p")
                row |= dict(zip(names, _mean_interval(differences), strict=True))
                row["regret_difference"] = rows_of["regret_difference"].mean()
            rows.append(row)
    found = pd.DataFrame(rows, columns=PANEL_COLUMNS).astype(dict.fromkeys(PANEL_COLUMNS[3:], float))
    for _, part in found.groupby("panel"):
        tested = part.index[part["p"].notna()]
        if len(tested):
            found.loc[tested, "p_adjusted"] = holm(found.loc[tested, "p"].to_numpy())
    return found


def _mean_interval(values: np.ndarray) -> tuple[float, float, float, float]:
    """Mean, ends of its t interval, and the p-value of a mean of 0; of too few or equal values NaN but for the mean.

    Coefficients of few models take few values, so that equal ones do not show that there is no error.
    """
    mean, n = float(np.mean(values)), len(values)
    if n < FEWEST_DATASETS or is_constant(values):
        return mean, np.nan, np.nan, np.nan
    error = float(np.std(values, ddof=1)) / np.sqrt(n)
    half = float(stdtrit(n - 1, 0.975)) * error
    return mean, mean - half, mean + half, float(t_test(np.array(mean), np.array(error), n - 1))


def half_width(models: int) -> float:
    """Half width of the 95 % interval of a Kendall coefficient of 0 over some models."""
    low, high = correlation_interval("kendall", 0.0, models)
    return float(high - low) / 2
