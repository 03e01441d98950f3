"""Scatter plots of transfer scores against source accuracy."""

import math
from collections.abc import Collection
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from ssltransfer.analysis.correlation import INTERVAL_MODELS, average_row, correlate, task_row
from ssltransfer.analysis.scale import is_logit
from ssltransfer.analysis.suite_results import SuiteResults
from ssltransfer.analysis.tasks import Panel
from ssltransfer.report.drawing import STYLE, FigureContext, label_axes, panel_grid, panel_title
from ssltransfer.report.labels import joined, setting_label, suite_labels
from ssltransfer.report.table import number
from ssltransfer.results.metric_info import KINDS, METRICS
from ssltransfer.results.scores import Task

CHANGED = 0.2
"""Change of a correlation, when one model is left out, from which on a caption says so."""
CUT = "_cut"
"""Label of the arrowheads of intervals, which no legend shows."""
LONGEST = 1.5
"""Room above and below the points for their intervals, in ranges of the points."""


def transfer_figure(context: FigureContext) -> Figure | None:
    """Fig. 1: mean log-odds of each panel against source accuracy, regression line and 95 % band.

    Returns
    -------
    Figure or None
        None when no panel has a model with a source accuracy.
    """
    results, x = context.results, context.results.tasks.x()
    drawn = [panel_scores(results, panel) for panel in results.tasks.figure_panels]
    drawn = [scores for scores in drawn if (scores.mean.notna() & x.notna()).any()]
    panels = [(scores, x, coefficients(scores.row, context.drawable)) for scores in drawn]
    return draw_panels(context, panels, results.source_label, "top1") if panels else None


def draw_panels(
    context: FigureContext, panels: list[tuple["PanelScores", pd.Series, str]], label: str, metric: str
) -> Figure:
    """Draw the mean score of each panel against a predictor.

    Parameters
    ----------
    context : FigureContext
    panels : list of (PanelScores, pd.Series, str)
        Scores, predictor on the analysis scale, and the line of text below the title.
    label : str
        Label of the predictor.
    metric : str
        Metric of the predictor, whose unit labels a logit axis; empty for any other axis.
    """
    shown = [m for m in context.models if any(np.isfinite([x[m], scores.mean[m]]).all() for scores, x, _ in panels)]
    with mpl.rc_context(STYLE):
        figure, axes = panel_grid(len(panels), 1.9, len(shown))
        for ax, ((panel, tasks, y, low, high, _), x, text) in zip(axes, panels, strict=True):
            regression(ax, x, y)
            context.whiskers(ax, x, low, high)
            context.points(ax, x, y)
            limit_y(ax, y[x.notna()], low[x.notna()], high[x.notna()])
            mark_cut(ax, x, low, high, context.shown)
            if metric:
                context.score_axis(ax.xaxis, x[y.notna()], metric)
            ranks = context.ranks(x, y, METRICS[panel.tasks[0].metric].better)
            part = f"({len(tasks)} of {len(panel.tasks)} tasks)" if len(tasks) < len(panel.tasks) else ""
            ax.set_title(panel_title(context.labels.panel(panel), part, text, ranks))
            ax.set_ylabel(panel_axis(panel))
        label_axes(figure, x=label)
        context.legend(figure, shown)
    return figure


class PanelScores(NamedTuple):
    """What a panel of Fig. 1 shows.

    Attributes
    ----------
    panel : Panel
        The panel.
    tasks : list of Task
        The tasks that are averaged.
    mean, low, high : pd.Series
        Mean of each model, and the ends of its interval, on the analysis scale.
    row : pd.Series or None
        Correlation of `mean` with source accuracy (see `correlation.correlate`).
    """

    panel: Panel
    tasks: list[Task]
    mean: pd.Series
    low: pd.Series
    high: pd.Series
    row: pd.Series | None


def panel_scores(results: SuiteResults, panel: Panel) -> PanelScores:
    """Average the scores of a panel over all its tasks, or where models lack some over those that all models have."""
    scores, row = results.tasks, average_row(results.correlations, panel)
    tasks = scores.shared(panel) or list(panel.tasks)
    found = mean_scores(results, panel, tasks)
    if len(tasks) < len(panel.tasks):
        row = pd.Series(correlate(scores.x(), found.mean))
    return found._replace(row=row)


def mean_scores(results: SuiteResults, panel: Panel, tasks: list[Task]) -> PanelScores:
    """Average the scores of some tasks of a panel, without a correlation."""
    scores = results.tasks if len(tasks) == len(panel.tasks) else results.tasks.only(tasks)
    name = panel.name if panel.name in scores.panel_means else scores.panel_means.columns[0]
    low, high = (ends[name] for ends in scores.panel_ends)
    return PanelScores(panel, tasks, scores.panel_means[name], low, high, None)


def panels_note(results: SuiteResults) -> str:
    """Sentences for the caption of Fig. 1 about models that lack scores of a panel; empty without any."""
    scores, notes = results.tasks, []
    labels = suite_labels(results)
    for panel in scores.figure_panels:
        own = scores.matrix.loc[scores.source.notna().reindex(scores.matrix.index), list(panel.tasks)].dropna(how="all")
        lacking = [labels.model(model) for model in own.index[own.isna().any(axis=1)]]
        shared = scores.shared(panel)
        if lacking and shared:
            tasks = ", ".join(labels.dataset(task.dataset) for task in shared)
            notes.append(f"{labels.panel(panel)}: over the tasks that all models have ({tasks}).")
        elif len(lacking) == len(own) > 0:
            notes.append(f"{labels.panel(panel)}: empty, because no dataset has scores of all models.")
        elif lacking:
            notes.append(f"{labels.panel(panel)}: without {', '.join(lacking)}, which lack some of its tasks.")
    return " ".join(notes)


def leverage_note(results: SuiteResults) -> str:
    """Sentences for the caption of Fig. 1 about correlations that a single model changes much; empty without any."""
    labels, models, found = suite_labels(results), results.tasks.x().index, []
    for panel in results.tasks.figure_panels:
        row = panel_scores(results, panel).row
        ends = [] if row is None else [row.get(f"pearson_loo_{end}", math.nan) for end in ("low", "high")]
        if not ends or not max(abs(end - row["pearson"]) for end in ends) >= CHANGED:
            continue
        without = [row[f"pearson_loo_{end}_without"] for end in ("low", "high")]
        names = [labels.model(name if isinstance(name, str) else models[name]) for name in without]
        ranges = " to ".join(f"{number(end, 2)} (without {name})" for end, name in zip(ends, names, strict=True))
        found.append(f"{labels.panel(panel)}: {ranges}")
    return f"A single model changes r by {CHANGED} or more; leaving one out gives {'; '.join(found)}." if found else ""


def scatter_figure(context: FigureContext, kinds: tuple[str, ...]) -> Figure | None:
    """Figs 5 and 6: one scatter per task of some kinds (logit axes with ticks in the unit of the metric).

    The kinds are all transfer tasks or all properties, so that their panels share the x axis. None when no task has
    a model with a source accuracy.
    """
    results, scores = context.results, context.results.tasks
    raw = results.conventions.raw(kinds[0])
    x, matrix = scores.x(raw), scores.matrix
    lows, highs = scores.value_ends
    tasks = [task for task in scores.figure_tasks(kinds) if (matrix[task].notna() & x.notna()).any()]
    if not tasks:
        return None
    scored = matrix[tasks].notna().any(axis=1)
    shown = [m for m in context.models if scored[m] and np.isfinite(x[m])]
    with mpl.rc_context(STYLE):
        figure, axes = panel_grid(len(tasks), 1.65, len(shown))
        for ax, task in zip(axes, tasks, strict=True):
            y = scores.values[task]
            regression(ax, x, y)
            context.whiskers(ax, x, lows[task], highs[task])
            context.points(ax, x, y, 4.5)
            limit_y(ax, y[x.notna()], lows.loc[x.notna(), task], highs.loc[x.notna(), task])
            mark_cut(ax, x, lows[task], highs[task], context.shown)
            context.score_axis(ax.xaxis, x[y.notna()], raw=raw)
            context.score_axis(ax.yaxis, y, task.metric, raw)
            title = joined(_title(context, task, kinds), results.suffixes[task.protocol])
            ranks = context.ranks(x, y, METRICS[task.metric].better)
            row = task_row(results.correlations, task)
            ax.set_title(panel_title(title, coefficients(row, context.drawable), ranks))
        label_axes(figure, results.source_label, _score_axis_label(tasks, raw))
        context.legend(figure, shown)
    return figure


def _title(context: FigureContext, task: Task, kinds: tuple[str, ...]) -> str:
    """Name of a task by what varies within the figure."""
    trained = KINDS[task.kind].label.split("(")[-1].strip(")") if len(kinds) > 1 else ""
    return joined(context.labels.subject(task), trained, setting_label(task.setting))


def _score_axis_label(tasks: list[Task], raw: bool) -> str:
    """Label the y axes of scatters: the metric and its unit where these are the same for all."""
    metrics = {task.metric for task in tasks}
    if len(metrics) > 1:
        return "Score" if raw else "Score (logit scale where bounded)"
    metric = METRICS[metrics.pop()]
    scale = "logit scale" if is_logit(tasks[0].metric, raw) else ""
    return f"{metric.label} ({joined(metric.unit, scale, by=', ')})"


def panel_axis(panel: Panel) -> str:
    """Label the y axis of a panel."""
    metric = METRICS[panel.tasks[0].metric]
    if not metric.logit:
        return f"{metric.label} error (degrees)"
    if KINDS[panel.kind].headline:
        return f"{metric.label} (log-odds)"
    return "Mean log-odds" if len(panel.tasks) > 1 else "Log-odds"


def coefficients(row: pd.Series | None, models: int) -> str:
    """Coefficients for a panel's title, with their number of models where that is below `models`.

    Parameters
    ----------
    row : pd.Series or None
        Row of the correlations, None without one.
    models : int
        Number of models that can be points.
    """
    if row is None or pd.isna(row["pearson"]):
        return "no correlation" if row is None else row["note"].replace(", ", ",\n")  # as wide as a panel
    if row["n"] < INTERVAL_MODELS:
        return f"n = {row['n']}, too few models for r"
    text = f"r = {number(row['pearson'], 2)}   ρ = {number(row['spearman'], 2)}".replace("-", "−")
    return text if row["n"] >= models else f"{text}   n = {row['n']}"


def regression(ax, x: pd.Series, y: pd.Series) -> None:
    """Draw the least-squares line with the 95 % confidence band of the mean; needs 5 points that differ in x."""
    kept = np.isfinite(x) & np.isfinite(y)
    x, y = np.asarray(x[kept]), np.asarray(y[kept])
    if len(x) < INTERVAL_MODELS or np.ptp(x) == 0:
        return
    fit = stats.linregress(x, y)
    grid = np.linspace(x.min(), x.max(), 60)
    line = fit.intercept + fit.slope * grid
    residual = np.sqrt(((y - fit.intercept - fit.slope * x) ** 2).sum() / (len(x) - 2))
    spread = np.sqrt(1 / len(x) + (grid - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, len(x) - 2) * residual * spread
    ax.plot(grid, line, color="#444444", linewidth=1, zorder=2)
    ax.fill_between(grid, line - half, line + half, color="#BBBBBB", alpha=0.45, linewidth=0, zorder=1)


def limit_y(ax, y: pd.Series, low: pd.Series, high: pd.Series) -> None:
    """Limit the y axis to the points and their intervals.

    With few points, the confidence band is many times as high as their range. An interval of more than `LONGEST` times
    the range of the points, as one that reaches a score of 0, is cut.
    """
    finite = y[np.isfinite(y)]
    spread = np.ptp(finite)
    if spread > 0:
        bottom, top = ax.get_ylim()
        first = max(np.nanmin([*(low - 0.05 * spread), finite.min() - 0.6 * spread]), finite.min() - LONGEST * spread)
        last = min(np.nanmax([*(high + 0.05 * spread), finite.max() + 0.6 * spread]), finite.max() + LONGEST * spread)
        ax.set_ylim(max(bottom, first), min(top, last))


def mark_cut(ax, x: pd.Series, low: pd.Series, high: pd.Series, models: Collection[str]) -> None:
    """Put an arrowhead at the edge where the interval of one of some models leaves the axes."""
    bottom, top = ax.get_ylim()
    drawn = [m for m in low.index if m in models and np.isfinite([x[m], low[m], high[m]]).all()]
    ends = (([m for m in drawn if low[m] < bottom], bottom, "v"), ([m for m in drawn if high[m] > top], top, "^"))
    for cut, edge, marker in ends:
        if cut:
            style = {"color": "#555555", "markersize": 3, "mew": 0, "clip_on": False, "zorder": 5, "label": CUT}
            ax.plot(x[cut], [edge] * len(cut), marker, **style)


def cut_note(figure: Figure) -> str:
    """Sentence for the caption of a figure with arrowheads of `mark_cut`; empty without any."""
    marked = any(line.get_label() == CUT for ax in figure.axes for line in ax.lines)
    return "Arrowheads: the interval goes on beyond the axis." if marked else ""
