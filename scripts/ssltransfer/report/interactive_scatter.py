"""Data of the report's interactive scatter: every task and panel against every predictor, one point per model."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import MaxNLocator

from ssltransfer.analysis.correlation import INTERVAL_MODELS, task_row
from ssltransfer.analysis.predictors import SOURCE, judge
from ssltransfer.analysis.scale import is_logit, to_analysis_scale
from ssltransfer.analysis.tasks import Panel
from ssltransfer.report.drawing import FigureContext
from ssltransfer.report.predictor_report import predictor_label
from ssltransfer.report.scatter_figures import panel_axis, panel_scores
from ssltransfer.results.metric_info import KINDS, METRICS
from ssltransfer.results.scores import Task

RADIUS = 6.0


def scatter_data(context: FigureContext) -> dict:
    """Collect the data of the interactive scatter.

    Returns
    -------
    dict
        ``models`` (label, colour, svg path of the marker, highlight) and ``views``, panels first: ``label``, ``axis``,
        ``better`` (1, -1 or 0), ``yticks`` ([position, text]), ``points`` ([model number, y, low, high, lines of text],
        low and high None without an interval), and ``predictors``, source accuracy first: ``label``, ``note``, ``line``
        (x, y of both ends of the regression line, or empty), ``xticks`` and ``points`` ([model number, x, text]).
        Positions are on the analysis scale. Empty without source accuracies.
    """
    tasks = context.results.tasks
    if tasks.source.notna().sum() == 0:
        return {}
    views = [_panel_view(context, panel) for panel in tasks.panels if len(panel.tasks) > 1]
    views += [_task_view(context, task) for task in tasks.tasks if task.dataset not in tasks.leave_out]
    views = [view for view in views if view["predictors"]]
    models = [
        {
            "label": context.labels.model(model),
            "color": context.styles[model]["color"],
            "path": marker_path(context.styles[model]["marker"]),
            "highlight": model in context.highlighted,
            **({} if model in context.shown else {"other": True}),
        }
        for model in context.models
    ]
    return {"models": models, "views": views} if views else {}


def _panel_view(context: FigureContext, panel: Panel) -> dict:
    """Mean over the tasks of a panel."""
    tasks = context.results.tasks
    _, members, y, low, high, row = panel_scores(context.results, panel)
    texts, y = _with_interval(y, low, high, 2), y.dropna()
    part = f" ({len(members)} of {len(panel.tasks)} tasks)" if len(members) < len(panel.tasks) else ""
    better, axis = METRICS[panel.tasks[0].metric].better, panel_axis(panel)
    return {
        "label": context.labels.panel(panel) + part,
        "axis": axis,
        "better": better,
        "yticks": _plain_ticks(y),
        "points": _points(context, y, (low, high), axis, texts, better),
        "predictors": [*_source(context, y, tasks.x(), row), *_others(context, y, members, better)],
    }


def _task_view(context: FigureContext, task: Task) -> dict:
    """Scores of one task."""
    tasks, metric = context.results.tasks, METRICS[task.metric]
    raw = tasks.conventions.raw(task.kind)
    y, scores = tasks.values[task].dropna(), tasks.matrix[task]
    texts = _with_interval(scores, *(ends[task] for ends in tasks.ends), metric.decimals)
    ends = tuple(ends[task] for ends in tasks.value_ends)
    row = task_row(context.results.correlations, task)
    others = _others(context, y, [task], metric.better) if KINDS[task.kind].performance else ()
    return {
        "label": context.labels.task(task),
        "axis": metric.label,
        "better": metric.better,
        "yticks": _score_ticks(scores[y.index], task.metric) if is_logit(task.metric, raw) else _plain_ticks(y),
        "points": _points(context, y, ends, metric.label, texts, metric.better),
        "predictors": [*_source(context, y, tasks.x(raw), row, raw), *others],
    }


def _source(
    context: FigureContext, y: pd.Series, x: pd.Series, row: pd.Series | None, raw: bool = False
) -> Iterator[dict]:
    """Source accuracy as x axis, with the coefficients of the correlations; nothing if no model has it."""
    source = context.results.tasks.source
    kept = y.index[x[y.index].notna()]
    if len(kept):
        ticks = _plain_ticks(x[kept]) if raw else _score_ticks(source[kept], "top1")
        texts = source.map("{:.2f}".format)
        yield _x_axis(context, context.results.source_label, x[kept], y[kept], texts, _note(row), ticks)


def _others(context: FigureContext, y: pd.Series, tasks: list[Task], better: int) -> Iterator[dict]:
    """All other predictors of the mean score on some tasks as x axes."""
    for predictor in context.predictors(*tasks).values():
        x = predictor.values.reindex(y.index).dropna()
        if predictor.name == SOURCE or x.empty:
            continue
        name = predictor_label(predictor.name, context.results, context.labels)
        arrow = {1: " (↑ better)", -1: " (↓ better)"}.get(predictor.better, "")
        own = y[x.index] * (better or 1)
        found = judge(x * (predictor.better or 1), own, own, better, 0)
        metric = METRICS.get(predictor.metric)
        scaled = metric is not None and metric.logit
        raw = metric.scale / (1 + np.exp(-x)) if scaled else x
        texts = raw.map(f"{{:.{metric.decimals if metric else 2}f}}".format)
        ticks = _score_ticks(raw, predictor.metric) if scaled else _plain_ticks(x)
        yield _x_axis(context, name + arrow, x, y[x.index], texts, _judged(found), ticks)


def _x_axis(
    context: FigureContext, label: str, x: pd.Series, y: pd.Series, texts: pd.Series, note: str, ticks: list
) -> dict:
    points = [[context.models.index(model), round(float(x[model]), 4), texts[model]] for model in x.index]
    return {"label": label, "note": note, "line": regression_ends(x, y), "xticks": ticks, "points": points}


def _judged(found: dict) -> str:
    """Text of `predictors.judge`: Kendall's coefficient, or why there is none."""
    if "kendall" not in found:
        return found["note"]
    if found["n"] < INTERVAL_MODELS:
        return f"{found['n']} models, too few for a coefficient"
    return "; ".join(text for text in (_coefficient(found, "kendall"), f"{found['n']} models", found["note"]) if text)


def _with_interval(values: pd.Series, low: pd.Series, high: pd.Series, decimals: int) -> pd.Series:
    """Text of each value, followed by its interval where there is one."""
    ends = [
        f" ({a:.{decimals}f} to {b:.{decimals}f})" if pd.notna(a) and pd.notna(b) else ""
        for a, b in zip(low, high, strict=True)
    ]
    return values.map(f"{{:.{decimals}f}}".format) + ends


def regression_ends(x: pd.Series, y: pd.Series) -> list[float]:
    """Ends x, y, x, y of the least-squares line; empty below five points or where all have one x."""
    if len(x) < INTERVAL_MODELS or np.ptp(x) == 0:
        return []
    slope, intercept = np.polyfit(x, y, 1)
    return [round(float(value), 4) for end in (x.min(), x.max()) for value in (end, intercept + slope * end)]


def _points(
    context: FigureContext, y: pd.Series, ends: tuple[pd.Series, pd.Series], axis: str, texts: pd.Series, better: int
) -> list:
    """Number, position, interval and lines of text of each model."""
    ranks = (y * better).rank(ascending=False, method="min")
    points = []
    for model in y.index:
        lines = [f"{axis}: {texts[model]}"] + ([f"rank {ranks[model]:.0f} of {len(y)}"] if better else [])
        low, high = (round(float(end[model]), 4) if np.isfinite(end[model]) else None for end in ends)
        points.append([context.models.index(model), round(float(y[model]), 4), low, high, lines])
    return points


def _note(row: pd.Series | None) -> str:
    """Text below the menu: the coefficients, or why there are none."""
    if row is None:
        return ""
    if pd.isna(row["pearson"]):
        return row["note"]
    if row["n"] < INTERVAL_MODELS:
        return f"{row['n']} models, too few for a coefficient"
    coefficients = [_coefficient(row, name) for name in ("pearson", "spearman")]
    return "; ".join(text for text in (*coefficients, f"{row['n']} models", row["note"]) if text)


def _coefficient(row: Mapping, name: str) -> str:
    """Name and value of a coefficient, with its interval where there is one."""
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    interval = f" ({low:.2f} to {high:.2f})" if pd.notna(low) else ""
    return f"{name.capitalize()} {row[name]:.2f}{interval}"


def _score_ticks(scores: pd.Series, metric: str) -> list:
    """Ticks at round scores on a logit axis."""
    if scores.empty:
        return []
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(scores.min(), scores.max())
    return [[float(to_analysis_scale(t, metric)), f"{t:.4g}"] for t in ticks if 0 < t < METRICS[metric].scale]


def _plain_ticks(values: pd.Series) -> list:
    """Ticks at round values of an axis in the unit of the metric, or in log-odds."""
    if values.empty:
        return []
    return [[float(t), f"{t:.4g}"] for t in MaxNLocator(5).tick_values(values.min(), values.max())]


def marker_path(marker: str) -> str:
    """Svg path of a matplotlib marker, centred on 0, `RADIUS` high."""
    style = MarkerStyle(marker)
    polygons = style.get_path().transformed(style.get_transform()).to_polygons()
    scale = RADIUS / max(np.abs(polygon).max() for polygon in polygons)
    parts = (" L".join(f"{px * scale:.2f} {-py * scale:.2f}" for px, py in polygon) for polygon in polygons)
    return " ".join(f"M{part} Z" for part in parts)
