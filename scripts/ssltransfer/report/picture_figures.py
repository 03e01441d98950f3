"""Figures that show the work itself: grids of pictures (as in Figs. 7 and 8 of the paper), and loss curves."""

import math

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from PIL import Image

from ssltransfer.report.figures import STYLE, Canvas
from ssltransfer.results.picture_file import Pictures

PAGE_INCHES = 7.0
PAGE_PIXELS = 1680
"""Width of the page: finer pictures are reduced to it (240 dots an inch)."""
GAP = 0.04
"""Space between pictures, as a share of their width."""


def picture_grid(canvas: Canvas, pictures: dict[str, Pictures]) -> Figure:
    """Draw the pictures of all models: a column an image; what all models share first, then each model's panels.

    Parameters
    ----------
    canvas : Canvas
    pictures : dict of str to Pictures
        By model; all with the same columns.
    """
    first = next(iter(pictures.values()))
    rows = list(first.reference.items())
    for model in (model for model in canvas.models if model in pictures):
        for title, images in pictures[model].panels.items():
            several = len(pictures[model].panels) > 1
            rows.append((f"{canvas.labels[model]}\n{title}" if several else canvas.labels[model], images))
    columns = len(first.columns)
    pixels = min(rows[0][1].shape[2], PAGE_PIXELS // columns)
    mosaic, centres = _mosaic([images for _, images in rows], pixels)
    with mpl.rc_context(STYLE):
        label_inches = max(0.95, 0.075 * max(len(line) for label, _ in rows for line in label.split("\n")))
        inches = min(PAGE_INCHES - label_inches, 1.6 * columns)
        height = inches * mosaic.shape[0] / mosaic.shape[1]
        many = columns > 8
        figure = canvas.figure(inches + label_inches, height + (0.6 if many else 0.3))
        ax = figure.add_subplot()
        ax.imshow(mosaic, interpolation="none")
        ax.set_yticks(centres, [label for label, _ in rows], fontsize=6.5)
        step = mosaic.shape[1] / columns
        # What cannot be printed, such as a line end in a file name, would spoil the svg.
        columns_shown = ("".join(c if c.isprintable() else "?" for c in name) for name in first.columns)
        names = [name if len(name) <= 14 else f"{name[:13]}…" for name in columns_shown]
        slanted = {"fontsize": 6, "rotation": 35, "ha": "left", "rotation_mode": "anchor"}
        places = [step * (i + (0.3 if many else 0.5)) for i in range(columns)]
        ax.set_xticks(places, names, **slanted if many else {"fontsize": 7})
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    return figure


def _mosaic(rows: list[np.ndarray], width: int) -> tuple[np.ndarray, list[float]]:
    """Put rows of images on one white sheet, each image `width` pixels wide; also the middle of every row."""
    gap = max(1, round(GAP * width))
    sheets, centres, top = [], [], 0
    for images in rows:
        height = round(images.shape[1] * width / images.shape[2])
        sheet = np.full((height + gap, (width + gap) * len(images), 3), 255, np.uint8)
        for i, image in enumerate(images):
            left = i * (width + gap) + gap // 2
            sheet[:height, left : left + width] = np.asarray(Image.fromarray(image).resize((width, height)))
        sheets.append(sheet)
        centres.append(top + height / 2)
        top += len(sheet)
    return np.concatenate(sheets), centres


class _Plain(LogFormatter):
    """Labels the ticks that matplotlib would, as plain numbers instead of formulas."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def loss_figure(canvas: Canvas, curves: dict[str, dict[str, dict]]) -> Figure:
    """Draw the training losses: one panel a task, one line a model.

    Parameters
    ----------
    canvas : Canvas
    curves : dict of str to dict of str to dict
        Title of the panel (at least one) -> model -> ``interval`` (steps) and ``losses`` (means of so many steps).
    """
    columns = min(3, len(curves))
    rows = math.ceil(len(curves) / columns)
    with mpl.rc_context(STYLE):
        figure = canvas.figure(2.3 * columns + 1.3, 1.9 * rows)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        shown = set()
        for ax, (title, models) in zip(grid, curves.items(), strict=False):
            for model in (model for model in canvas.models if model in models):
                curve = models[model]
                steps = (np.arange(len(curve["losses"])) + 1) * curve["interval"]
                style = canvas.styles[model]
                few = len(steps) < 5  # a line through one point is nothing, and a fraction of few markers none
                ax.plot(steps, curve["losses"], **style, linewidth=0.9, markersize=3.5, markevery=1 if few else 0.2)
                shown.add(model)
            ax.set_title(title)
            ax.set_xlabel("Step")
            ax.set_ylabel("Training loss")
            values = [loss for curve in models.values() for loss in curve["losses"]]
            if values and 0 < 10 * min(values) < max(values):
                ax.set_yscale("log")
                ax.yaxis.set_major_formatter(_Plain())
                ax.yaxis.set_minor_formatter(_Plain())
        for ax in grid[len(curves) :]:
            ax.set_visible(False)
        canvas.legend(figure, [model for model in canvas.models if model in shown])
    return figure
