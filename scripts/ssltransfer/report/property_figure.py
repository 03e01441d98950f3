"""Figure of the feature properties: perceptual distance, colour error and attentive diffusion."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ssltransfer.report.drawing import BLUE, FIXED_SHADES, GREEN, STYLE, VERMILLION, WHISKER, FigureContext
from ssltransfer.results.metric_info import METRICS

#: Bars of the colour errors: label, colour, and a hatch that tells them apart in grey.
CHANNELS = {
    "mse-red": ("red", VERMILLION, ""),
    "mse-green": ("green", GREEN, "////"),
    "mse-blue": ("blue", BLUE, ""),
}


#: Groups of the figure: title, metrics, and the beginning that their labels share.
GROUPS = [
    ("Perceptual distance (LPIPS)", ["lpips-alexnet", "lpips-vgg", "lpips-squeezenet"], "LPIPS "),
    ("Colour error (MSE, grey levels²)", list(CHANNELS), "MSE "),
    ("Attentive diffusion (%)", ["attentive-diffusion"], ""),
]


def properties_figure(context: FigureContext) -> Figure | None:
    """Figs 4 and 5: perceptual distance and attentive diffusion (boxes: self-supervised models), colour errors.

    None when no model has any of them.
    """
    tasks = context.results.tasks
    tasks_drawn = [task for task in tasks.tasks if task.kind in ("inversion", "attention")]
    low, high = tasks.ends
    ends = {task.metric: (low[task], high[task]) for task in tasks_drawn}
    by_metric = {task.metric: tasks.matrix[task] for task in tasks_drawn if tasks.matrix[task].notna().any()}
    drawn = [(title, [m for m in metrics if m in by_metric], cut) for title, metrics, cut in GROUPS]
    drawn = [group for group in drawn if group[1]]
    if not drawn:
        return None
    scored = [m for m in context.models if any(pd.notna(values[m]) for values in by_metric.values())]
    shown = context.results.shown_of(scored)
    with mpl.rc_context(STYLE):
        colours = [metrics[0] in CHANNELS for _, metrics, _ in drawn]
        widths = [
            max(2.4, 0.3 * len(shown)) if bars else len(metrics) + 0.6
            for bars, (_, metrics, _) in zip(colours, drawn, strict=True)
        ]
        figure = Figure(figsize=(1.5 + 0.85 * sum(widths), max(2.6, 0.165 * len(shown) + 0.3)))
        axes = figure.subplots(1, len(drawn), squeeze=False, gridspec_kw={"width_ratios": widths})[0]
        for ax, bars, (title, metrics, cut) in zip(axes, colours, drawn, strict=True):
            ax.set_title(title)
            if bars:
                _colour_bars(ax, {metric: by_metric[metric][shown] for metric in metrics}, ends, context)
                continue
            for i, metric in enumerate(metrics):
                _box(ax, i, by_metric[metric][scored], ends[metric], context)
            ax.set_xticks(range(len(metrics)), [METRICS[m].label.removeprefix(cut) for m in metrics])
            ax.set_xlim(-0.6, len(metrics) - 0.4)
        context.legend(figure, scored)
    return figure


def _colour_bars(
    ax, values: dict[str, pd.Series], ends: dict[str, tuple[pd.Series, pd.Series]], context: FigureContext
) -> None:
    """Draw one bar per channel of each model, with its interval."""
    models = next(iter(values.values())).index
    for number, (metric, series) in enumerate(values.items()):
        name, colour, hatch = CHANNELS[metric]
        places = np.arange(len(models)) + 0.27 * (number - 1)
        ax.bar(places, series, 0.25, color=colour, hatch=hatch, edgecolor="white", linewidth=0, label=name, zorder=2)
        low, high = (end[models] for end in ends[metric])
        ax.vlines(places, low, high, color="#333333", linewidth=WHISKER, zorder=3)
    ax.set_xticks(range(len(models)), [context.labels.model(m) for m in models], rotation=60, ha="right", fontsize=6)
    ax.tick_params(axis="x", length=0, pad=1)
    ax.set_xlim(-0.6, len(models) - 0.4)
    tops = [np.nanmax([*series, *ends[metric][1][models]]) for metric, series in values.items()]
    ax.set_ylim(0, 1.12 * max(tops))
    ax.legend(loc="upper center", ncols=3, fontsize=6, handlelength=1, columnspacing=1)
    ax.grid(axis="y", linewidth=0.3, color="#DDDDDD", zorder=0)


def _box(ax, position: int, values: pd.Series, ends: tuple[pd.Series, pd.Series], context: FigureContext) -> None:
    """Draw a box of the self-supervised models, from three on, and a marker with its interval for every model."""
    learnt = [m for m in values.index if pd.notna(values[m]) and context.families[m] not in FIXED_SHADES]
    if len(learnt) > 2:
        ax.boxplot(
            [values[learnt]], positions=[position], widths=0.7, showfliers=False, medianprops={"color": "#444444"},
            boxprops={"color": "#999999"}, whiskerprops={"color": "#999999"}, capprops={"color": "#999999"},
        )  # fmt: skip
    spread = np.linspace(-0.27, 0.27, max(len(values), 2))
    x = pd.Series(position + spread[: len(values)], values.index)
    context.whiskers(ax, x, *(end[values.index] for end in ends))
    context.points(ax, x, values, 4.3)
