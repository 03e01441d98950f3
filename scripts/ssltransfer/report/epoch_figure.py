"""Scores of checkpoints of one training run against their epochs."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssltransfer.report.drawing import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    STYLE,
    VERMILLION,
    FigureContext,
    label_axes,
    panel_grid,
)
from ssltransfer.report.scatter_figures import limit_y, panel_axis, panel_scores

COLORS = [BLUE, VERMILLION, GREEN, PURPLE, ORANGE]
MARKERS = ["o", "s", "^", "D", "v"]


def epoch_figure(context: FigureContext) -> Figure | None:
    """Mean score of each panel against the epoch, one line per training run.

    Returns
    -------
    Figure or None
        None unless a panel has two models of one run with different epochs.
    """
    tasks = context.results.tasks
    runs = training_runs(context)
    drawn = [panel_scores(context.results, panel) for panel in tasks.figure_panels]
    drawn = [scores for scores in drawn if any(scores.mean.reindex(run).notna().sum() > 1 for run in runs.values())]
    if not drawn:
        return None
    epochs = {model: epoch for model, (_, epoch) in context.results.training_runs.items()}
    members = [model for run in runs.values() for model in run]
    with mpl.rc_context(STYLE):
        figure, axes = panel_grid(len(drawn), 1.9, len(runs))
        for ax, (panel, _, y, low, high, _) in zip(axes, drawn, strict=True):
            for number, run in enumerate(runs.values()):
                style = _style(number)
                kept = [model for model in run if np.isfinite(y[model])]
                x = [epochs[model] for model in kept]
                ax.plot(x, y[kept], **style, linewidth=1, markersize=4)
                for model in kept:
                    ax.plot([epochs[model]] * 2, [low[model], high[model]], color=style["color"], linewidth=0.9)
            shown = [model for model in members if np.isfinite(y[model])]
            limit_y(ax, y[shown], low[shown], high[shown])
            ax.set_title(context.labels.panel(panel))
            ax.set_ylabel(panel_axis(panel))
        label_axes(figure, x="Epoch of the training run")
        handles = [Line2D([], [], label=name, markersize=4, **_style(i)) for i, name in enumerate(runs)]
        figure.legend(handles=handles, loc="outside right center")
    return figure


def training_runs(context: FigureContext) -> dict[str, list[str]]:
    """Training run -> its models in the order of their epochs; runs of a single epoch are left out."""
    found: dict[str, list[str]] = {}
    places = context.results.training_runs
    for model in sorted((model for model in context.models if model in places), key=lambda model: places[model][1]):
        found.setdefault(places[model][0], []).append(model)
    return {run: models for run, models in sorted(found.items()) if len({places[m][1] for m in models}) > 1}


def _style(number: int) -> dict[str, str]:
    return {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}
