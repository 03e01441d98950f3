"""Figure of the feature properties: perceptual distance, colour error and attentive diffusion."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ssltransfer.report.drawing import BLUE, FIXED_SHADES, GREEN, STYLE, VERMILLION, WHISKER, FigureContext
from ssltransfer.results.metric_info import METRICS
from ssltransfer.results.scores import Task

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
FEWEST_BOXED = 3
"""Self-supervised models from which on a box is drawn."""


def properties_figure(context: FigureContext) -> Figure | None:
    """Figs 4 and 5: perceptual distance and attentive diffusion (boxes: self-supervised models), colour errors.

    None when no model has any of them.
    """
    tasks = context.results.tasks
    low, high = tasks.ends
    ends = {task.metric: (low[task], high[task]) for task in _tasks(context)}
    by_metric = _by_metric(context)
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


def properties_note(context: FigureContext) -> str:
    """Sentences for the caption that say what is drawn; empty without the figure."""
    by_metric = _by_metric(context)
    distances, colours, diffusion = ([by_metric[m] for m in metrics if m in by_metric] for _, metrics, _ in GROUPS)
    errors = " and ".join(["perceptual distance (LPIPS)"] * bool(distances) + ["colour error"] * bool(colours))
    drawn = [f"{errors} of images reconstructed from the features"] * bool(errors)
    drawn += ["attentive diffusion"] * bool(diffusion)
    if not drawn:
        return ""
    sentences = [f"Drawn: {'; '.join(drawn)}."]
    marked = [*distances, *diffusion]
    if marked:
        sentences.append("Markers: models.")
    if any(len(_self_supervised(values, context)) >= FEWEST_BOXED for values in marked):
        sentences.append("Boxes: self-supervised models, quartiles and whiskers to 1.5 times their distance.")
    if colours:
        sentences.append("Bars: each colour channel of each model.")
    if distances or colours:
        sentences.append(
            "Lower is better" + (", except attentive diffusion, which has no better direction." if diffusion else ".")
        )
    elif diffusion:
        sentences.append("Attentive diffusion has no better direction.")
    return " ".join(sentences)


def _tasks(context: FigureContext) -> list[Task]:
    return [task for task in context.results.tasks.tasks if task.kind in ("inversion", "attention")]


def _by_metric(context: FigureContext) -> dict[str, pd.Series]:
    """Values of all models by metric, without metrics that no model has."""
    matrix = context.results.tasks.matrix
    return {task.metric: matrix[task] for task in _tasks(context) if matrix[task].notna().any()}


def _self_supervised(values: pd.Series, context: FigureContext) -> list[str]:
    return [m for m in values.index if pd.notna(values[m]) and context.families[m] not in FIXED_SHADES]


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
    learnt = _self_supervised(values, context)
    if len(learnt) >= FEWEST_BOXED:
        ax.boxplot(
            [values[learnt]], positions=[position], widths=0.7, showfliers=False, medianprops={"color": "#444444"},
            boxprops={"color": "#999999"}, whiskerprops={"color": "#999999"}, capprops={"color": "#999999"},
        )  # fmt: skip
    spread = np.linspace(-0.27, 0.27, max(len(values), 2))
    x = pd.Series(position + spread[: len(values)], values.index)
    context.whiskers(ax, x, *(end[values.index] for end in ends))
    context.points(ax, x, values, 4.3)
