"""Data of the report's interactive scatter: every task and panel against source accuracy, one model a point."""

import numpy as np
import pandas as pd
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import MaxNLocator

from ssltransfer.analysis.correlation import TASK, is_logit, panel_means, panels, transform, transformed, variants
from ssltransfer.analysis.suite_results import Summary
from ssltransfer.report.figures import Canvas, panel_axis, panel_row
from ssltransfer.report.tables import task_label
from ssltransfer.results.metric_info import METRICS

RADIUS = 6.0


def explorer_data(summary: Summary, correlations: pd.DataFrame) -> dict:
    """Collect what the interactive scatter shows.

    Returns
    -------
    dict
        ``source`` (label of x), ``models`` (label, colour, svg path of the marker, highlight) and ``views``, panels
        first: ``label``, ``axis``, ``note``, ``xticks`` and ``yticks`` ([position, text]) and ``points``
        ([model number, x, y, lines of text]). Positions are in transformed units. Empty without source accuracies.
    """
    canvas, matrix = Canvas(summary), summary.matrix
    if summary.source.notna().sum() == 0:
        return {}
    values = transformed(matrix, summary.conventions)
    found = panels(matrix.columns, summary.conventions, summary.leave_out)
    means = panel_means(values, found)
    views = [
        _view(canvas, panel.label, panel_axis(panel), means[panel.name], None, panel_row(correlations, panel))
        for panel in found
        if len(panel.tasks) > 1
    ]
    variant = variants(matrix.columns)
    by_task = correlations.set_index(TASK)
    for task in matrix.columns:
        if task in by_task.index:
            label = task_label(dict(zip(TASK, task, strict=True)), summary.names, variant[task[0]])
            row = by_task.loc[[task]].iloc[0]
            views.append(_view(canvas, label, METRICS[task[-1]].label, values[task], (task, matrix[task]), row))
    models = [
        {
            "label": canvas.labels[model],
            "color": canvas.styles[model]["color"],
            "path": marker_path(canvas.styles[model]["marker"]),
            "highlight": model in canvas.highlighted,
        }
        for model in canvas.models
    ]
    views = [view for view in views if view["points"]]
    return {"source": canvas.source_label, "models": models, "views": views} if views else {}


def _view(canvas: Canvas, label: str, axis: str, y: pd.Series, own, row: pd.Series | None) -> dict:
    """One choice of the menu; `own` is (task, scores) for a single task, None for a mean over tasks."""
    raw = own is not None and canvas.conventions.raw(own[0][1])
    x = canvas.x(raw)
    kept = y.index[y.notna() & x.notna()]
    metric = METRICS[own[0][-1]] if own else None
    better = metric.better if metric else 1
    ranks = (y[kept] * better).rank(ascending=False, method="min")
    points = []
    for model in kept:
        score = f"{own[1][model]:.{metric.decimals}f}" if own else f"{y[model]:.2f}"
        lines = [f"{canvas.source_label}: {canvas.source[model]:.2f}", f"{axis}: {score}"]
        lines += [f"rank {ranks[model]:.0f} of {len(kept)}"] if better else []
        points.append([canvas.models.index(model), round(float(x[model]), 4), round(float(y[model]), 4), lines])
    note = ""
    if row is not None:
        note = row["note"] or f"Pearson {row['pearson']:.2f}, Spearman {row['spearman']:.2f}, {row['n']} models"
    return {
        "label": label,
        "axis": axis,
        "note": note,
        "xticks": _plain_ticks(x[kept]) if raw else _ticks(canvas.source[kept], "top1"),
        "yticks": _ticks(own[1][kept], own[0][-1]) if own and is_logit(own[0][-1], raw) else _plain_ticks(y[kept]),
        "points": points,
    }


def _ticks(scores: pd.Series, metric: str) -> list:
    """Ticks at round scores on a logit axis."""
    if scores.empty:
        return []
    scale = METRICS[metric].scale
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(scores.min(), scores.max())
    return [[float(transform(t, metric)), f"{t:.4g}"] for t in ticks if 0 < t < scale]


def _plain_ticks(values: pd.Series) -> list:
    return (
        [[float(t), f"{t:.4g}"] for t in MaxNLocator(5).tick_values(values.min(), values.max())] if len(values) else []
    )


def marker_path(marker: str) -> str:
    """Svg path of a matplotlib marker, centred on 0, `RADIUS` high."""
    style = MarkerStyle(marker)
    polygons = style.get_path().transformed(style.get_transform()).to_polygons()
    scale = RADIUS / max(np.abs(polygon).max() for polygon in polygons)
    parts = (" L".join(f"{px * scale:.2f} {-py * scale:.2f}" for px, py in polygon) for polygon in polygons)
    return " ".join(f"M{part} Z" for part in parts)
