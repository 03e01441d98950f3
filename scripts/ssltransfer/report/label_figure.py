"""Curves of scores against the number of labelled images."""

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ssltransfer.analysis.label_curves import LINEAR, NEAREST
from ssltransfer.report.drawing import STYLE, FigureContext, label_axes, panel_grid
from ssltransfer.results.metric_info import METRICS

LINES = {LINEAR: "-", NEAREST: ":"}


def with_interval(setting: str) -> bool:
    """Whether the figure has the interval of a setting of label-efficiency scores: of points of linear curves."""
    return setting != "area" and not setting.startswith("knn-")


def label_figure(context: FigureContext, curves: pd.DataFrame) -> Figure:
    """Draw the curves: one panel per dataset, one line per model (linear solid, nearest neighbours dotted).

    Parameters
    ----------
    context : FigureContext
    curves : pd.DataFrame
        See `label_curves.collect_curves`; at least one row.
    """
    shown = context.results.shown_of(curves["model"])
    curves = curves[curves["model"].isin(shown)]
    panels = list(curves.groupby(["protocol", "dataset", "metric"], sort=False))
    several = curves["protocol"].nunique() > 1
    with mpl.rc_context(STYLE):
        figure, axes = panel_grid(len(panels), 2.2, len(shown))
        if len(panels) == 1:
            figure.set_figwidth(4.2)
        for ax, ((protocol, dataset, metric), own) in zip(axes, panels, strict=True):
            for (classifier, model), points in own.groupby(["classifier", "model"], sort=False):
                style = context.styles[model]
                marker = style["marker"] if classifier == LINEAR else ""
                line = {"color": style["color"], "linestyle": LINES[classifier], "linewidth": 0.9}
                ax.plot(points["images"], points["value"], **line, marker=marker, markersize=3.5)
                if classifier == LINEAR:
                    ax.vlines(points["images"], points["low"], points["high"], color=style["color"], linewidth=0.8)
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_locator(LogLocator(2, numticks=6))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.set_title(context.labels.dataset(dataset) + (f" [{protocol}]" if several else ""))
            ax.set_ylabel(f"{METRICS[metric].label} (%)")
        label_axes(figure, x="Labelled images")
        context.legend(figure, shown, shown)
    return figure
