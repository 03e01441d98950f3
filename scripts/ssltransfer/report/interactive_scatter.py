"""Data of the report's interactive scatter: every task and panel against source accuracy, one point per model."""

import numpy as np
import pandas as pd
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import MaxNLocator

from ssltransfer.analysis.correlation import task_row
from ssltransfer.analysis.scale import is_logit, to_analysis_scale
from ssltransfer.analysis.tasks import Panel
from ssltransfer.report.drawing import FigureContext
from ssltransfer.report.scatter_figures import panel_axis, panel_scores
from ssltransfer.results.metric_info import METRICS
from ssltransfer.results.scores import Task

RADIUS = 6.0


def scatter_data(context: FigureContext) -> dict:
    """Collect the data of the interactive scatter.

    Returns
    -------
    dict
        ``source`` (label of x), ``models`` (label, colour, svg path of the marker, highlight) and ``views``, panels
        first: ``label``, ``axis``, ``note``, ``better`` (1, -1 or 0), ``line`` (x, y of both ends of the regression
        line, or empty), ``xticks`` and ``yticks`` ([position, text]) and ``points`` ([model number, x, y, low, high,
        lines of text], low and high None without an interval). Positions are on the analysis scale. Empty without
        source accuracies.
    """
    results, tasks = context.results, context.results.tasks
    if tasks.source.notna().sum() == 0:
        return {}
    views = [_panel_view(context, panel) for panel in tasks.panels if len(panel.tasks) > 1]
    views += [_task_view(context, task) for task in tasks.tasks if task.dataset not in tasks.leave_out]
    views = [view for view in views if view["points"]]
    models = [
        {
            "label": context.labels.model(model),
            "color": context.styles[model]["color"],
            "path": marker_path(context.styles[model]["marker"]),
            "highlight": model in context.highlighted,
        }
        for model in context.models
    ]
    return {"source": results.source_label, "models": models, "views": views} if views else {}


def _panel_view(context: FigureContext, panel: Panel) -> dict:
    """Mean over the tasks of a panel."""
    tasks = context.results.tasks
    _, members, y, low, high, row = panel_scores(context.results, panel)
    x = tasks.x()
    kept = y.index[y.notna() & x.notna()]
    part = f" ({len(members)} of {len(panel.tasks)} tasks)" if len(members) < len(panel.tasks) else ""
    better = METRICS[panel.tasks[0].metric].better
    return {
        "label": context.labels.panel(panel) + part,
        "axis": panel_axis(panel),
        "better": better,
        "line": regression_ends(x[kept], y[kept]),
        "note": _note(row),
        "xticks": _score_ticks(tasks.source[kept], "top1"),
        "yticks": _plain_ticks(y[kept]),
        "points": _points(
            context, x[kept], y[kept], (low, high), panel_axis(panel), _with_interval(y, low, high, 2), better
        ),
    }


def _task_view(context: FigureContext, task: Task) -> dict:
    """Scores of one task."""
    tasks, metric = context.results.tasks, METRICS[task.metric]
    raw = tasks.conventions.raw(task.kind)
    x, y, scores = tasks.x(raw), tasks.values[task], tasks.matrix[task]
    kept = y.index[y.notna() & x.notna()]
    low, high = (ends[task] for ends in tasks.ends)
    texts = _with_interval(scores, low, high, metric.decimals)
    return {
        "label": context.labels.task(task),
        "axis": metric.label,
        "better": metric.better,
        "line": regression_ends(x[kept], y[kept]),
        "note": _note(task_row(context.results.correlations, task)),
        "xticks": _plain_ticks(x[kept]) if raw else _score_ticks(tasks.source[kept], "top1"),
        "yticks": _score_ticks(scores[kept], task.metric) if is_logit(task.metric, raw) else _plain_ticks(y[kept]),
        "points": _points(
            context,
            x[kept],
            y[kept],
            tuple(ends[task] for ends in tasks.value_ends),
            metric.label,
            texts,
            metric.better,
        ),
    }


def _with_interval(values: pd.Series, low: pd.Series, high: pd.Series, decimals: int) -> pd.Series:
    """Text of each value, followed by its interval where there is one."""
    ends = [
        f" ({a:.{decimals}f} to {b:.{decimals}f})" if pd.notna(a) and pd.notna(b) else ""
        for a, b in zip(low, high, strict=True)
    ]
    return values.map(f"{{:.{decimals}f}}".format) + ends


def regression_ends(x: pd.Series, y: pd.Series) -> list[float]:
    """Ends x, y, x, y of the least-squares line; empty below three points or where all have one x."""
    if len(x) < 3 or np.ptp(x) == 0:
        return []
    slope, intercept = np.polyfit(x, y, 1)
    return [round(float(value), 4) for end in (x.min(), x.max()) for value in (end, intercept + slope * end)]


def _points(
    context: FigureContext,
    x: pd.Series,
    y: pd.Series,
    ends: tuple[pd.Series, pd.Series],
    axis: str,
    texts: pd.Series,
    better: int,
) -> list:
    """Number, position, interval and lines of text of each model."""
    results = context.results
    ranks = (y * better).rank(ascending=False, method="min")
    points = []
    for model in y.index:
        lines = [f"{results.source_label}: {results.tasks.source[model]:.2f}", f"{axis}: {texts[model]}"]
        lines += [f"rank {ranks[model]:.0f} of {len(y)}"] if better else []
        low, high = (round(float(end[model]), 4) if np.isfinite(end[model]) else None for end in ends)
        position = [round(float(value[model]), 4) for value in (x, y)]
        points.append([context.models.index(model), *position, low, high, lines])
    return points


def _note(row: pd.Series | None) -> str:
    """Text below the menu: the coefficients, or why there are none."""
    if row is None:
        return ""
    if pd.isna(row["pearson"]):
        return row["note"]
    coefficients = [_coefficient(row, name) for name in ("pearson", "spearman")]
    return "; ".join(text for text in (*coefficients, f"{row['n']} models", row["note"]) if text)


def _coefficient(row: pd.Series, name: str) -> str:
    """Name and value of a coefficient, with its interval where there is one."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
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
