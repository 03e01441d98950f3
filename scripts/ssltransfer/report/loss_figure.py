"""Training losses of the protocols that train."""

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from ssltransfer.report.drawing import STYLE, FigureContext


class _Plain(LogFormatter):
    """Labels the same ticks as its base class, as plain numbers instead of formulas."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def use_log_scale(ax: Axes, losses: Sequence[float]) -> None:
    """Draw losses of which the largest is more than ten times the smallest on a logarithmic axis."""
    if losses and 0 < 10 * min(losses) < max(losses):
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(_Plain())
        ax.yaxis.set_minor_formatter(_Plain())


def loss_figure(context: FigureContext, curves: dict[str, dict[str, dict]]) -> Figure:
    """Draw the training losses: one panel per task, one line per model.

    Parameters
    ----------
    context : FigureContext
    curves : dict of str to dict of str to dict
        Title of the panel (at least one) -> model -> ``interval`` (number of steps averaged into one loss) and
        ``losses``.
    """
    columns = min(3, len(curves))
    rows = math.ceil(len(curves) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.3 * columns + 1.3, 1.9 * rows))
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        shown = set()
        for ax, (title, models) in zip(grid, curves.items(), strict=False):
            for model in context.results.shown_of(models):
                curve = models[model]
                steps = (np.arange(len(curve["losses"])) + 1) * curve["interval"]
                style = context.styles[model]
                few = len(steps) < 5  # markevery=0.2 would draw no marker on short curves
                ax.plot(steps, curve["losses"], **style, linewidth=0.9, markersize=3.5, markevery=1 if few else 0.2)
                shown.add(model)
            ax.set_title(title)
            ax.set_xlabel("Step")
            ax.set_ylabel("Training loss")
            use_log_scale(ax, [loss for curve in models.values() for loss in curve["losses"]])
        for ax in grid[len(curves) :]:
            ax.set_visible(False)
        context.legend(figure, [model for model in context.models if model in shown], shown)
    return figure
