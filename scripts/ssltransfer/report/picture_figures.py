"""Grids of example images, as in Figs. 7 and 8 of the paper (v1)."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from ssltransfer.report.drawing import STYLE, FigureContext
from ssltransfer.results.picture_file import Pictures

PAGE_INCHES = 7.0
PAGE_PIXELS = 1680
"""Width of the page (240 dots per inch); finer pictures are reduced to it."""
GAP = 0.04
"""Space between pictures, as a share of their width."""
LEGEND_COLUMN = 1.4
LEGEND_LINE = 0.16
"""Inches of one entry of the legend."""


def picture_grid(context: FigureContext, pictures: dict[str, Pictures]) -> Figure:
    """Draw the pictures of all models: one column per image, first the shared rows, then those of each model.

    Below them stands the legend of the first model's pictures, if there is one.

    Parameters
    ----------
    context : FigureContext
    pictures : dict of str to Pictures
        By model; all with the same columns.
    """
    first = next(iter(pictures.values()))
    rows = list(first.reference.items())
    for model in context.results.shown_of(pictures):
        for title, images in pictures[model].panels.items():
            several = len(pictures[model].panels) > 1
            rows.append((f"{context.labels.model(model)}\n{title}" if several else context.labels.model(model), images))
    columns = len(first.columns)
    pixels = min(rows[0][1].shape[2], PAGE_PIXELS // columns)
    mosaic, centres = _mosaic([images for _, images in rows], pixels)
    with mpl.rc_context(STYLE):
        label_inches = max(0.95, 0.075 * max(len(line) for label, _ in rows for line in label.split("\n")))
        inches = min(PAGE_INCHES - label_inches, 1.6 * columns)
        height = inches * mosaic.shape[0] / mosaic.shape[1]
        many = columns > 8
        width = inches + label_inches
        entries = max(1, int(width / LEGEND_COLUMN))
        height += LEGEND_LINE * -(-len(first.legend) // entries)
        figure = Figure(figsize=(width, height + (0.6 if many else 0.3)))
        ax = figure.add_subplot()
        ax.imshow(mosaic, interpolation="none")
        ax.set_yticks(centres, [label for label, _ in rows], fontsize=6.5)
        step = mosaic.shape[1] / columns
        # Unprintable characters, such as a line end in a file name, make the svg invalid.
        columns_shown = ("".join(c if c.isprintable() else "?" for c in name) for name in first.columns)
        names = [name if len(name) <= 14 else f"{name[:13]}…" for name in columns_shown]
        slanted = {"fontsize": 6, "rotation": 35, "ha": "left", "rotation_mode": "anchor"}
        places = [step * (i + (0.3 if many else 0.5)) for i in range(columns)]
        ax.set_xticks(places, names, **slanted if many else {"fontsize": 7})
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        if first.legend:
            handles = [
                Patch(color=[value / 255 for value in colour], label=name) for name, colour in first.legend.items()
            ]
            figure.legend(handles=handles, loc="outside lower center", ncols=entries, fontsize=6.5)
    return figure


def _mosaic(rows: list[np.ndarray], width: int) -> tuple[np.ndarray, list[float]]:
    """Arrange rows of images on one white image, each `width` pixels wide; also the vertical centre of each row."""
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
