"""Figures of correlations: bars for each task, and a heat map of all pairs of tasks."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from ssltransfer.analysis.correlation import INTERVAL_MODELS, task_row
from ssltransfer.analysis.tasks import tasks_of
from ssltransfer.report.drawing import BLUE, ORANGE, STYLE, FigureContext
from ssltransfer.report.labels import Labels, joined, setting_label
from ssltransfer.results.metric_info import KINDS, METRICS
from ssltransfer.results.scores import Task

LINE_BARS = 15
"""Largest number of tasks in one line of bars."""
TITLE_BARS = 0.15
"""Width of a letter of a title, in tasks."""


def correlation_figure(context: FigureContext) -> Figure | None:
    """Fig. 2: bars of Pearson and Spearman for each task, whiskers = 95 % interval (see `correlation_interval`).

    Mean and median angular error are negated, as in the paper, so that higher is always better. Tasks with fewer than
    `INTERVAL_MODELS` models are left out. None when no task has a correlation.
    """
    results, labels = context.results, context.labels
    groups: dict[tuple, list[tuple[Task, pd.Series]]] = {}
    for task in results.tasks.figure_tasks([kind for kind in KINDS if KINDS[kind].performance]):
        row = task_row(results.correlations, task)
        if row is not None and pd.notna(row["pearson"]) and row["n"] >= INTERVAL_MODELS:
            groups.setdefault((task.protocol, task.kind, row["distant"]), []).append((task, row))
    if not groups:
        return None
    titles = {group: _title(*group, rows, labels) for group, rows in groups.items()}
    sizes = [max(len(rows), TITLE_BARS * len(titles[group])) for group, rows in groups.items()]
    lines = _fill_lines(sizes, LINE_BARS)
    longest = max(6, *map(sum, lines))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(0.45 * longest + 0.7, 1.8 * len(lines) + 0.3))
        layouts = figure.subfigures(len(lines), 1, squeeze=False).ravel()
        items = iter(groups.items())
        for layout, line in zip(layouts, lines, strict=True):
            widths = [*line, max(0.01, longest - sum(line))]
            axes = layout.subplots(1, len(widths), gridspec_kw={"width_ratios": widths}, squeeze=False)[0]
            axes[-1].set_axis_off()
            for ax, width in zip(axes, line, strict=False):
                group, rows = next(items)
                ax.set_title(titles[group], loc="left")
                _bars(ax, rows, labels, width)
            axes[0].set_ylabel("Correlation")
        handles = [mpl.patches.Patch(facecolor=BLUE, label="Pearson (of logits)")]
        handles += [mpl.patches.Patch(facecolor=ORANGE, hatch="////", edgecolor="white", label="Spearman")]
        figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return figure


def _title(protocol: str, kind: str, cd_fsl: bool, rows: list[tuple[Task, pd.Series]], labels: Labels) -> str:
    shot = _only_setting(rows)
    return joined(KINDS[kind].label, "CD-FSL" if cd_fsl else "", f"({shot})" if shot else "", labels.suffixes[protocol])


def _only_setting(rows: list[tuple[Task, pd.Series]]) -> str:
    """Return the setting that all tasks of a panel share, which its title names; empty if there are several."""
    settings = {task.setting for task, _ in rows}
    return setting_label(settings.pop()) if len(settings) == 1 else ""


def _fill_lines(sizes: list[float], capacity: int) -> list[list[float]]:
    """Break groups of bars into lines of at most `capacity` bars (a larger group has a line of its own)."""
    lines: list[list[float]] = []
    for size in sizes:
        if lines and sum(lines[-1]) + size <= capacity:
            lines[-1].append(size)
        else:
            lines.append([size])
    return lines


def _bars(ax, rows: list[tuple[Task, pd.Series]], labels: Labels, width: float) -> None:
    """Draw the bars of a panel from the left, in axes as wide as `width` tasks."""
    names, one_shot = [], bool(_only_setting(rows))
    for i, (task, row) in enumerate(rows):
        negate = task.kind == "normals" and METRICS[task.metric].better < 0
        for name, color, hatch, shift in (("pearson", BLUE, None, -0.2), ("spearman", ORANGE, "////", 0.2)):
            r, low, high = (row[name + end] * (-1 if negate else 1) for end in ("", "_low", "_high"))
            ax.bar(i + shift, r, 0.38, color=color, hatch=hatch, edgecolor="white", linewidth=0, zorder=2)
            ax.plot([i + shift] * 2, [low, high], color="#333333", linewidth=0.8, zorder=3)
        shot = "" if one_shot else setting_label(task.setting).removesuffix("-shot")
        names.append(f"{'−' if negate else ''}{labels.subject(task)} {shot}".strip())
    ax.axhline(0, color="#333333", linewidth=0.6)
    ax.set_ylim(-1.02, 1.02)
    ax.set_yticks([-1, -0.5, 0, 0.5, 1])
    ax.set_xlim(-0.6, width - 0.4)
    ax.set_xticks(range(len(rows)), names, rotation=35, ha="right", rotation_mode="anchor")
    ax.grid(axis="y", linewidth=0.3, color="#DDDDDD", zorder=0)


def pairs_figure(context: FigureContext) -> Figure | None:
    """Clustered heat map of the correlations between all pairs of tasks (v1 section 4.5); None below three tasks."""
    r = context.results.pair_correlations["pearson"]
    if len(r) < 3:
        return None
    distance = squareform(1 - np.clip(r.fillna(0).to_numpy(), -1, 1), checks=False)
    tree = hierarchy.linkage(distance, "average", optimal_ordering=True)
    order = hierarchy.leaves_list(tree)
    r = r.iloc[order, order]
    names = [context.labels.axis(task) for task in tasks_of(r.columns)]
    with mpl.rc_context(STYLE):
        size = max(3.2, 0.155 * len(r) + 1.6)
        figure = Figure(figsize=(size + 0.7, size + 0.5))
        top, ax = figure.subplots(2, 1, gridspec_kw={"height_ratios": [1, 9]})
        with mpl.rc_context({"lines.linewidth": 0.8}):
            hierarchy.dendrogram(tree, ax=top, no_labels=True, color_threshold=0, above_threshold_color="#555555")
        top.set_axis_off()
        image = ax.imshow(r, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        ax.set_xticks(range(len(r)), names, rotation=90, fontsize=6)
        ax.set_yticks(range(len(r)), names, fontsize=6)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=[top, ax], shrink=0.5, aspect=30, pad=0.01)
        bar.set_label("Pearson correlation of logits")
        bar.outline.set_visible(False)
    return figure
