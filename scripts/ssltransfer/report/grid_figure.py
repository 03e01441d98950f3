"""The members of grids of finetuning: their training losses, and the validation metric by which one is selected."""

import math

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssltransfer.report.drawing import BLACK, STYLE, FigureContext
from ssltransfer.report.loss_figure import use_log_scale

CHOSEN = ("augmentation", "learning_rate", "weight_decay", "layer_decay")
"""Hyper-parameters of a member."""
COLUMNS = 4
MOST_GRIDS = 8
"""Number of grids in suites of so many models that figures show some of them only."""
THICK, RING = 1.8, 7
"""Width of the line, and size of the ring, of the selected member."""
PALEST = 0.85
"""Place of the palest colour in its map, whose end is hard to see."""
GRID_CAPTION = (
    "training losses and validation metric of every member of the grid (colours: learning rates; dotted lines and open "
    "circles: centre crop; thick line and black ring: the selected member). Diverged members have no circle. The "
    "selected member is the best of the grid, and where a dataset has no validation part, validation images are drawn "
    "from its training images: both can make the validation metric higher than the test score."
)


def grid_figure(context: FigureContext, scores: dict[str, dict]) -> Figure:
    """Draw the grids of all models: losses over steps, and below them the validation metrics (see `GRID_CAPTION`).

    Parameters
    ----------
    context : FigureContext
    scores : dict of str to dict
        Model (at least one) -> its score file of a finetune protocol: ``curve``, ``selected``, ``details``.
    """
    models = context.results.shown_of(scores, MOST_GRIDS)
    members = [member for score in scores.values() for member in score["curve"]]
    rates = sorted({member["learning_rate"] for member in members})
    shades = mpl.colormaps["viridis"](np.linspace(0, PALEST, len(rates)))
    colours = dict(zip(rates, map(to_hex, shades), strict=True))
    columns = min(COLUMNS, len(models))
    rows = math.ceil(len(models) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.7 * columns + 1.2, 3.4 * rows))
        axes = figure.subplots(2 * rows, columns, squeeze=False)
        above, below = axes[::2].ravel(), axes[1::2].ravel()
        for model, losses, metrics in zip(models, above, below, strict=False):
            losses.sharey(above[0])
            metrics.sharey(below[0])
            _draw_grid(losses, metrics, scores[model], colours)
            losses.set_title(context.labels.model(model))
        use_log_scale(above[0], [loss for member in members for loss in member["losses"]])
        for first in (*axes[::2, 0], *axes[1::2, 0]):
            first.set_ylabel("Training loss" if first in above else "Validation (%)")
        for unused in (*above[len(models) :], *below[len(models) :]):
            unused.set_visible(False)
        handles = [Line2D([], [], color=colour, label=f"rate {rate:g}") for rate, colour in colours.items()]
        ring = {"marker": "o", "markersize": RING, "markerfacecolor": "none", "markeredgecolor": BLACK}
        handles.append(Line2D([], [], color=BLACK, linewidth=THICK, label="selected", **ring))
        figure.legend(handles=handles, loc="outside right center")
    return figure


def _draw_grid(losses: Axes, metrics: Axes, score: dict, colours: dict[float, str]) -> None:
    for member in score["curve"]:
        chosen = all(member[name] == score["selected"][name] for name in CHOSEN)
        colour = colours[member["learning_rate"]]
        style = {"color": colour, "zorder": 3 if chosen else 2}
        line, filled = ("-", colour) if member["augmentation"] == "crop-flip" else (":", "none")
        steps = (np.arange(len(member["losses"])) + 1) * score["details"]["refit"]["interval"]
        losses.plot(steps, member["losses"], line, linewidth=THICK if chosen else 0.7, **style)
        if member["validation"] is not None:
            place = list(colours).index(member["learning_rate"])
            metrics.plot([place], [member["validation"]], "o", markersize=4, markerfacecolor=filled, **style)
            if chosen:
                ring = {"markersize": RING, "markerfacecolor": "none", "markeredgecolor": BLACK}
                metrics.plot([place], [member["validation"]], "o", **ring, zorder=4)
    losses.set_xlabel("Step")
    metrics.set_xticks(range(len(colours)), [f"{rate:g}" for rate in colours], rotation=45)
    metrics.set_xlim(-0.5, len(colours) - 0.5)
    metrics.set_xlabel("Learning rate")
