"""Figures of a suite, as svg and png.

Colours are those of Okabe and Ito, told apart by colour-blind readers; every model has its own marker as well, so
that grey prints stay readable. The same files come out of the same numbers.
"""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from scipy import stats
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from ssltransfer.analysis.correlation import (
    FIGURE_SHOT,
    Panel,
    headline_tasks,
    in_figure,
    is_logit,
    oriented,
    panel_means,
    panels,
    transform,
    transformed,
    variants,
)
from ssltransfer.analysis.ranking import mean_ranks
from ssltransfer.analysis.suite_results import Names, Summary
from ssltransfer.files import atomic_write
from ssltransfer.report.tables import SETTINGS, domain_scores, pair_correlations, pair_values
from ssltransfer.results.metric_info import KINDS, METRICS

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILLION, BLACK, GREY = "#56B4E9", "#D55E00", "#000000", "#7F7F7F"
#: Two shades a family; families take them in order of appearance.
SHADES = [(BLUE, SKY), (VERMILLION, ORANGE), (GREEN, "#66C7AB"), (PURPLE, "#8C4F78")]
FIXED_SHADES = {"supervised": (BLACK, BLACK), "none": (GREY, GREY)}
#: First marker of the families that are told apart by grey level alone.
FIRST_MARKER = {"supervised": 13, "none": 6}
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d", "8", "*"]

#: Bars of the colour errors: label, colour, and a hatch that tells them apart in grey.
CHANNELS = {
    "mse-red": ("red", VERMILLION, ""),
    "mse-green": ("green", GREEN, "////"),
    "mse-blue": ("blue", BLUE, ""),
}

#: One figure of small scatters for each of these sets of kinds.
SCATTERS = {
    "calibration": ("calibration",),
    "scatter-linear": ("linear",),
    "scatter-finetune": ("finetune",),
    "scatter-fewshot": ("fewshot",),
    "scatter-detection": ("detection-frozen", "detection-finetune"),
    "scatter-normals": ("normals",),
    "scatter-segmentation": ("segmentation",),
}

STYLE = {
    "text.parse_math": False,  # a dollar in a label or a file name is no formula
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "ssltransfer",
    "svg.fonttype": "path",
}


def save_figure(figure: Figure, folder: str | Path, name: str) -> None:
    """Write ``{name}.svg`` and ``{name}.png`` (200 dpi) without dates, so that equal figures are equal files."""
    with mpl.rc_context(STYLE):
        # Each canvas draws once, where savefig would draw five times in all; the first lays the figure out.
        with atomic_write(Path(folder) / f"{name}.svg") as temporary:
            FigureCanvasSVG(figure).print_svg(temporary, metadata={"Date": None, "Creator": None})
        figure.set_layout_engine("none")
        figure.dpi = 200
        with atomic_write(Path(folder) / f"{name}.png") as temporary:
            FigureCanvasAgg(figure).print_png(temporary, metadata={"Software": None})


def model_styles(models: pd.DataFrame) -> dict[str, dict]:
    """Give each model the marker and colour that it keeps in all figures.

    Parameters
    ----------
    models : pd.DataFrame
        Columns ``model`` and ``family``, in the order of the model table: a row added below changes no other.

    Returns
    -------
    dict of dict
        Model -> keyword arguments ``marker`` and ``color``.
    """
    shades, counts, styles = dict(FIXED_SHADES), {}, {}
    for model, family in zip(models["model"], models["family"], strict=True):
        if family not in shades:
            shades[family] = SHADES[(len(shades) - len(FIXED_SHADES)) % len(SHADES)]
        count = counts[family] = counts.get(family, -1) + 1
        styles[model] = {
            "marker": MARKERS[(count + FIRST_MARKER.get(family, 0)) % len(MARKERS)],
            "color": shades[family][count % 2],
        }
    return styles


class Canvas:
    """What all figures of a suite share: its models with labels and styles, and the x axis."""

    def __init__(self, summary: Summary) -> None:
        models = summary.models
        self.models = list(models["model"])
        self.styles = model_styles(models)
        self.names = summary.names
        self.families = dict(zip(models["model"], models["family"], strict=True))
        self.labels = {model: self.names.model(model) for model in self.models}
        self.conventions = summary.conventions
        self.source_label = summary.source_label
        self.leave_out = summary.leave_out
        self.source = summary.source
        self.highlighted = set(models.loc[models["highlight"], "model"])

    def figure(self, width: float, height: float) -> Figure:
        """Open a figure, in inches."""
        return Figure(figsize=(width, height))

    def points(self, ax, x: pd.Series, y: pd.Series, size: float = 5.1) -> None:
        """Draw one marker a model; highlighted models get a ring."""
        for model in self.models:
            if model not in y.index or np.isnan(x[model]) or np.isnan(y[model]):
                continue
            style = self.styles[model]
            wide = 1.4 if style["marker"] == "*" else 1.0
            ax.plot(x[model], y[model], **style, ls="", ms=wide * size, mec="white", mew=0.4, zorder=3)
            if model in self.highlighted:
                ax.plot(x[model], y[model], "o", ms=2 * size, mfc="none", mec=PURPLE, mew=1.2, zorder=4)

    def ranks(self, x: pd.Series, y: pd.Series, better: int) -> str:
        """Line of a panel's title with the ranks of highlighted models, where it has room for them."""
        kept = y[y.notna() & x.reindex(y.index).notna()]
        ranks = (kept * better).rank(ascending=False, method="min")
        own = [model for model in self.models if model in self.highlighted and model in ranks.index]
        if not own or len(own) > 2 or not better:
            return ""
        return "\n" + ", ".join(f"{self.labels[model]}: {ranks[model]:.0f} of {len(kept)}" for model in own)

    def legend(self, figure: Figure, models: list[str]) -> None:
        """Put the legend that all panels share beside them."""
        handles = []
        for model in models:
            label = self.labels[model] + (" (ringed)" if model in self.highlighted else "")
            handles.append(Line2D([], [], linestyle="", markersize=5, label=label, **self.styles[model]))
        figure.legend(handles=handles, loc="outside right center", handletextpad=0.2)

    def x(self, raw: bool = False) -> pd.Series:
        """Source accuracy as it is correlated: its logit, or percent where the conventions take scores raw."""
        return pd.Series(transform(self.source, "top1", raw), self.source.index)

    def count(self, matrix: pd.DataFrame) -> int:
        """Count the models that can be a point: with a source accuracy and any score."""
        return int((matrix.notna().any(axis=1) & np.isfinite(self.x())).sum())

    def score_axis(self, axis, values: pd.Series, metric: str = "top1", raw: bool = False) -> None:
        """Label a logit axis in the units of the metric; others are in them already."""
        scale = METRICS[metric].scale
        finite = values[np.isfinite(values)]
        if finite.empty or not is_logit(metric, raw):
            return
        ends = scale / (1 + np.exp(-np.array([finite.min(), finite.max()])))
        ticks = [t for t in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(*ends) if 0 < t < scale]
        axis.set_major_locator(FixedLocator([float(transform(t, metric)) for t in ticks]))
        texts = {round(float(transform(t, metric)), 9): f"{t:.4g}" for t in ticks}
        axis.set_major_formatter(FuncFormatter(lambda value, _: texts.get(round(value, 9), "")))


def regression(ax, x, y) -> None:
    """Draw the least-squares line with the 95 % confidence band of the mean; needs 3 points that differ in x."""
    kept = np.isfinite(x) & np.isfinite(y)
    x, y = np.asarray(x[kept]), np.asarray(y[kept])
    if len(x) < 3 or np.ptp(x) == 0:
        return
    fit = stats.linregress(x, y)
    grid = np.linspace(x.min(), x.max(), 60)
    line = fit.intercept + fit.slope * grid
    residual = np.sqrt(((y - fit.intercept - fit.slope * x) ** 2).sum() / (len(x) - 2))
    spread = np.sqrt(1 / len(x) + (grid - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, len(x) - 2) * residual * spread
    ax.plot(grid, line, color="#444444", linewidth=1, zorder=2)
    ax.fill_between(grid, line - half, line + half, color="#BBBBBB", alpha=0.45, linewidth=0, zorder=1)


def frame(ax, y: pd.Series) -> None:
    """Keep the points in view: with few of them, the confidence band is many times as high as they are apart."""
    finite = y[np.isfinite(y)]
    room = 0.6 * np.ptp(finite)
    if room > 0:
        bottom, top = ax.get_ylim()
        ax.set_ylim(max(bottom, finite.min() - room), min(top, finite.max() + room))


def coefficients(row: pd.Series | None, models: int) -> str:
    """Return the line of numbers below a panel's title; with their number where it lacks some of the `models`."""
    if row is None or pd.isna(row["pearson"]):
        return "no correlation" if row is None else row["note"]
    text = f"r = {row['pearson']:.2f}   ρ = {row['spearman']:.2f}".replace("-", "−")
    return text if row["n"] >= models else f"{text}   n = {row['n']}"


def _grid(canvas: Canvas, count: int, height: float, models: int) -> tuple[Figure, list]:
    """Open a figure of small multiples with room for a legend of `models`; unused cells stay empty."""
    columns = count if count <= 5 else min((5, 4, 3), key=lambda width: -count % width)
    rows = math.ceil(count / columns)
    figure = canvas.figure(1.8 * columns + 1.5, max(height * rows + 0.3, 0.165 * models + 0.2))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, list(axes[:count])


def transfer_figure(canvas: Canvas, matrix: pd.DataFrame, correlations: pd.DataFrame) -> Figure | None:
    """Fig. 1: mean log-odds of each panel against source accuracy, regression line and 95 % band.

    Returns
    -------
    Figure or None
        None when no panel has a model with a source accuracy.
    """
    every = panels(matrix.columns, canvas.conventions, canvas.leave_out)
    found = [panel for panel in every if in_figure(panel, every)]
    means, x = panel_means(transformed(matrix, canvas.conventions), found), canvas.x()
    found = [panel for panel in found if (means[panel.name].notna() & x.notna()).any()]
    if not found:
        return None
    shown = [m for m in canvas.models if means.loc[m].notna().any() and np.isfinite(x[m])]
    every_model = canvas.count(matrix)
    with mpl.rc_context(STYLE):
        figure, axes = _grid(canvas, len(found), 1.9, len(shown))
        for ax, panel in zip(axes, found, strict=True):
            y = means[panel.name]
            regression(ax, x, y)
            canvas.points(ax, x, y)
            frame(ax, y[x.notna()])
            canvas.score_axis(ax.xaxis, x[y.notna()])
            ranks = canvas.ranks(x, y, METRICS[panel.tasks[0][-1]].better)
            ax.set_title(f"{panel.label}\n{coefficients(panel_row(correlations, panel), every_model)}{ranks}")
            ax.set_ylabel(panel_axis(panel))
        figure.supxlabel(canvas.source_label, fontsize=8)
        canvas.legend(figure, shown)
    return figure


def panel_axis(panel: Panel) -> str:
    """Label the y axis of a panel."""
    metric = METRICS[panel.tasks[0][-1]]
    headline = KINDS[panel.kind].headline
    if not metric.logit:
        return f"{metric.label} error (degrees)"
    if headline:
        return f"{metric.label} (log-odds)"
    return "Mean log-odds" if len(panel.tasks) > 1 else "Log-odds"


def panel_row(correlations: pd.DataFrame, panel: Panel) -> pd.Series | None:
    """Find a panel's own row: its average, or its single task."""
    rows = correlations[correlations["panel"] == panel.name]
    if len(panel.tasks) > 1:
        rows = rows[rows["metric"] == "mean"]
    return rows.iloc[0] if len(rows) else None


def scatter_figure(
    canvas: Canvas, matrix: pd.DataFrame, correlations: pd.DataFrame, kinds: tuple[str, ...]
) -> Figure | None:
    """Figs 5 and 6: one scatter for each task of some kinds (logit axes with the metric's own labels).

    The kinds are all transfer tasks or all properties, so that their panels share the x axis.
    """
    raw = canvas.conventions.raw(kinds[0])
    x = canvas.x(raw)
    tasks = [task for task in figure_tasks(matrix, canvas, kinds) if (matrix[task].notna() & x.notna()).any()]
    if not tasks:
        return None
    values, variant = transformed(matrix, canvas.conventions), variants(tasks)
    by_task = correlations.set_index(["protocol", "kind", "dataset", "setting", "metric"])
    shown = [m for m in canvas.models if matrix.loc[m, tasks].notna().any() and np.isfinite(x[m])]
    every_model = canvas.count(matrix)
    with mpl.rc_context(STYLE):
        figure, axes = _grid(canvas, len(tasks), 1.65, len(shown))
        for ax, task in zip(axes, tasks, strict=True):
            regression(ax, x, values[task])
            canvas.points(ax, x, values[task], 4.5)
            frame(ax, values[task][x.notna()])
            canvas.score_axis(ax.xaxis, x[values[task].notna()], raw=raw)
            canvas.score_axis(ax.yaxis, values[task], task[-1], raw)
            row = by_task.loc[[task]].iloc[0] if task in by_task.index else None
            title = f"{short_label(task, kinds, canvas.names)} {variant[task[0]]}".strip()
            ranks = canvas.ranks(x, values[task], METRICS[task[-1]].better)
            ax.set_title(f"{title}\n{coefficients(row, every_model)}{ranks}")
        figure.supxlabel(canvas.source_label, fontsize=8)
        figure.supylabel("Score" if raw else "Score (logit scale where bounded)", fontsize=8)
        canvas.legend(figure, shown)
    return figure


def figure_tasks(matrix: pd.DataFrame, canvas: Canvas, kinds: tuple[str, ...]) -> list[tuple]:
    """Tasks of some kinds that figures draw: no source data set, of several shots the conventional one."""
    tasks = [task for task in matrix.columns if task[1] in kinds and task[2] not in canvas.leave_out]
    shots = {task[3] for task in tasks if task[1] == "fewshot"}
    if canvas.conventions.merge_shots or FIGURE_SHOT not in shots:
        return tasks
    return [task for task in tasks if task[1] != "fewshot" or task[3] == FIGURE_SHOT]


def short_label(task: tuple, kinds: tuple[str, ...], names: Names) -> str:
    """Title of one small panel: what varies within the figure."""
    _, kind, dataset, setting, metric = task
    headline = KINDS[kind].headline
    own_metric = headline or not KINDS[kind].performance
    parts = [METRICS[metric].label if own_metric else names.dataset(dataset)]
    parts += [KINDS[kind].label.split("(")[-1].strip(")")] if len(kinds) > 1 else []
    parts += [SETTINGS.get(setting, setting)]
    return " ".join(part for part in parts if part)


def correlation_figure(canvas: Canvas, matrix: pd.DataFrame, correlations: pd.DataFrame) -> Figure | None:
    """Fig. 2: bars of Pearson and Spearman for each task, whiskers = 95 % bootstrap interval.

    Mean and median angular error are negated, as in the paper, so that up is always good.
    """
    kinds = [kind for kind in KINDS if KINDS[kind].performance]
    tasks = figure_tasks(matrix, canvas, tuple(kinds))
    by_task = correlations.set_index(["protocol", "kind", "dataset", "setting", "metric"])
    rows = [by_task.loc[[task]].iloc[0] for task in tasks if task in by_task.index]
    rows = [row for row in rows if pd.notna(row["pearson"])]
    if not rows:
        return None
    groups: dict[tuple, list] = {}
    for row in rows:
        groups.setdefault((row.name[0], row.name[1], row["distant"]), []).append(row)
    lines, variant = _fill_lines([len(found) for found in groups.values()], 15), variants(tasks)
    longest = max(6, *map(sum, lines))
    with mpl.rc_context(STYLE):
        figure = canvas.figure(0.45 * longest + 0.7, 1.8 * len(lines) + 0.3)
        layouts = figure.subfigures(len(lines), 1, squeeze=False).ravel()
        items = iter(groups.items())
        for layout, line in zip(layouts, lines, strict=True):
            widths = [*line, max(0.01, longest - sum(line))]
            axes = layout.subplots(1, len(widths), gridspec_kw={"width_ratios": widths}, squeeze=False)[0]
            axes[-1].set_axis_off()
            for ax in axes[: len(line)]:
                (protocol, kind, distant), found = next(items)
                settings = {row.name[3] for row in found}
                shot = f"({settings.pop()})" if len(settings) == 1 and "" not in settings else ""
                parts = (KINDS[kind].label, "CD-FSL" if distant else "", shot, variant[protocol])
                ax.set_title(" ".join(part for part in parts if part), loc="left")
                _bars(ax, found, canvas.names, bool(shot))
            axes[0].set_ylabel("Correlation")
        handles = [mpl.patches.Patch(facecolor=BLUE, label="Pearson (of logits)")]
        handles += [mpl.patches.Patch(facecolor=ORANGE, hatch="////", edgecolor="white", label="Spearman")]
        figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return figure


def _fill_lines(sizes: list[int], capacity: int) -> list[list[int]]:
    """Break groups of bars into lines of at most `capacity` bars (a larger group has a line of its own)."""
    lines: list[list[int]] = []
    for size in sizes:
        if lines and sum(lines[-1]) + size <= capacity:
            lines[-1].append(size)
        else:
            lines.append([size])
    return lines


def _bars(ax, rows: list[pd.Series], names: Names, one_shot: bool) -> None:
    labels = []
    for i, row in enumerate(rows):
        _, kind, dataset, setting, metric = row.name
        negate = kind == "normals" and METRICS[metric].better < 0
        for name, color, hatch, shift in (("pearson", BLUE, None, -0.2), ("spearman", ORANGE, "////", 0.2)):
            r, low, high = (row[name + end] * (-1 if negate else 1) for end in ("", "_low", "_high"))
            ax.bar(i + shift, r, 0.38, color=color, hatch=hatch, edgecolor="white", linewidth=0, zorder=2)
            ax.plot([i + shift] * 2, [low, high], color="#333333", linewidth=0.8, zorder=3)
        label = METRICS[metric].label if KINDS[kind].headline else names.dataset(dataset)
        shot = "" if one_shot else setting.removesuffix("-shot")
        labels.append(f"{'−' if negate else ''}{label} {shot}".strip())
    ax.axhline(0, color="#333333", linewidth=0.6)
    ax.set_ylim(-1.02, 1.02)
    ax.set_yticks([-1, -0.5, 0, 0.5, 1])
    ax.set_xlim(-0.6, len(rows) - 0.4)
    ax.set_xticks(range(len(rows)), labels, rotation=35, ha="right", rotation_mode="anchor")
    ax.grid(axis="y", linewidth=0.3, color="#DDDDDD", zorder=0)


def domain_figure(canvas: Canvas, scores: pd.DataFrame, pretrained_on: dict[str, str]) -> Figure | None:
    """Domain or transfer: linear scores on each pretraining data set; filled = pretrained on it."""
    values = domain_scores(scores, pretrained_on)
    if values.empty:
        return None
    domains, models = list(values.columns), [m for m in canvas.models if m in values.index]
    with mpl.rc_context(STYLE):
        figure = canvas.figure(max(5.2, 2.6 * len(domains)), 0.22 * len(models) + 1.2)
        axes = figure.subplots(1, len(domains), squeeze=False, sharey=True)[0]
        for ax, domain in zip(axes, domains, strict=True):
            for i, model in enumerate(reversed(models)):
                style, own = canvas.styles[model], pretrained_on[model] == domain
                face = style["color"] if own else "white"
                ax.axhline(i, color="#E5E5E5", linewidth=0.5, zorder=0)
                ax.scatter(
                    values.loc[model, domain], i, marker=style["marker"], facecolor=face, edgecolor=style["color"],
                    s=34, linewidth=1.1, zorder=3,
                )  # fmt: skip
            ax.set_title(canvas.names.dataset(domain))
            ax.set_xlabel("Linear score (percent)")
            ax.set_yticks(range(len(models)), [canvas.labels[m] for m in reversed(models)])
        fill = Line2D([], [], marker="o", linestyle="", color="#555555", label="pretrained on this data set")
        hollow = Line2D([], [], marker="o", linestyle="", color="#555555", mfc="white", label="pretrained elsewhere")
        figure.legend(handles=[fill, hollow], loc="outside lower center", ncols=2)
    return figure


def properties_figure(canvas: Canvas, matrix: pd.DataFrame) -> Figure | None:
    """Figs 4 and 5: perceptual distance and attentive diffusion (boxes: self-supervised models), colour errors."""
    groups = [
        ("Perceptual distance (LPIPS)", ["lpips-alexnet", "lpips-vgg", "lpips-squeezenet"], "LPIPS "),
        ("Colour error (MSE, grey levels²)", list(CHANNELS), "MSE "),
        ("Attentive diffusion (%)", ["attentive-diffusion"], ""),
    ]
    by_metric = {task[-1]: matrix[task] for task in matrix.columns if task[1] in ("inversion", "attention")}
    drawn = [(title, [m for m in metrics if m in by_metric], cut) for title, metrics, cut in groups]
    drawn = [group for group in drawn if group[1]]
    if not drawn:
        return None
    shown = [m for m in canvas.models if any(pd.notna(values[m]) for values in by_metric.values())]
    with mpl.rc_context(STYLE):
        colours = [metrics[0] in CHANNELS for _, metrics, _ in drawn]
        widths = [
            max(2.4, 0.3 * len(shown)) if bars else len(metrics) + 0.6
            for bars, (_, metrics, _) in zip(colours, drawn, strict=True)
        ]
        figure = canvas.figure(1.5 + 0.85 * sum(widths), max(2.6, 0.165 * len(shown) + 0.3))
        axes = figure.subplots(1, len(drawn), squeeze=False, gridspec_kw={"width_ratios": widths})[0]
        for ax, bars, (title, metrics, cut) in zip(axes, colours, drawn, strict=True):
            ax.set_title(title)
            if bars:
                _colour_bars(ax, {metric: by_metric[metric][shown] for metric in metrics}, canvas)
                continue
            for i, metric in enumerate(metrics):
                _box(ax, i, by_metric[metric][shown], canvas)
            ax.set_xticks(range(len(metrics)), [METRICS[m].label.removeprefix(cut) for m in metrics])
            ax.set_xlim(-0.6, len(metrics) - 0.4)
        canvas.legend(figure, shown)
    return figure


def _colour_bars(ax, values: dict[str, pd.Series], canvas: Canvas) -> None:
    """Draw a bar for each channel of each model."""
    models = next(iter(values.values())).index
    for number, (metric, series) in enumerate(values.items()):
        name, colour, hatch = CHANNELS[metric]
        places = np.arange(len(models)) + 0.27 * (number - 1)
        ax.bar(places, series, 0.25, color=colour, hatch=hatch, edgecolor="white", linewidth=0, label=name, zorder=2)
    ax.set_xticks(range(len(models)), [canvas.labels[m] for m in models], rotation=60, ha="right", fontsize=6)
    ax.tick_params(axis="x", length=0, pad=1)
    ax.set_xlim(-0.6, len(models) - 0.4)
    ax.set_ylim(0, 1.12 * max(series.max() for series in values.values()))
    ax.legend(loc="upper center", ncols=3, fontsize=6, handlelength=1, columnspacing=1)
    ax.grid(axis="y", linewidth=0.3, color="#DDDDDD", zorder=0)


def _box(ax, position: int, values: pd.Series, canvas: Canvas) -> None:
    """Box of the models without labels in pretraining, and every model beside it."""
    learnt = [m for m in values.index if pd.notna(values[m]) and canvas.families[m] not in FIXED_SHADES]
    if len(learnt) > 2:
        ax.boxplot(
            [values[learnt]], positions=[position], widths=0.7, showfliers=False, medianprops={"color": "#444444"},
            boxprops={"color": "#999999"}, whiskerprops={"color": "#999999"}, capprops={"color": "#999999"},
        )  # fmt: skip
    spread = np.linspace(-0.27, 0.27, max(len(values), 2))
    x = pd.Series(position + spread[: len(values)], values.index)
    canvas.points(ax, x, values, 4.3)


def rank_figure(canvas: Canvas, matrix: pd.DataFrame) -> Figure | None:
    """Mean rank of each model over the tasks that the paper counts, with bootstrap intervals over tasks."""
    tasks = headline_tasks(matrix.columns, canvas.conventions, canvas.leave_out)
    if not tasks:
        return None
    ranks = mean_ranks(matrix[tasks])
    if ranks.empty:
        return None
    with mpl.rc_context(STYLE):
        figure = canvas.figure(4.6, 0.2 * len(ranks) + 0.7)
        ax = figure.subplots()
        for i, row in enumerate(ranks.itertuples()):
            style = canvas.styles[row.Index]
            ax.plot([row.low, row.high], [i, i], color="#777777", linewidth=1, zorder=1)
            ax.scatter(row.mean_rank, i, s=34, **style, edgecolor="white", linewidth=0.4, zorder=2)
        ax.set_yticks(range(len(ranks)), [canvas.labels[m] for m in ranks.index])
        ax.invert_yaxis()
        ax.set_xlabel(f"Mean rank over {ranks['tasks'].iloc[0]} tasks (1 is best)")
        ax.grid(axis="x", linewidth=0.3, color="#DDDDDD", zorder=0)
    return figure


def pairs_figure(summary: Summary) -> Figure | None:
    """Clustered heat map of the correlations between all pairs of tasks (v1 section 4.5)."""
    r = pair_correlations(pair_values(summary))
    if len(r) < 3:
        return None
    distance = squareform(1 - np.clip(r.fillna(0).to_numpy(), -1, 1), checks=False)
    tree = hierarchy.linkage(distance, "average", optimal_ordering=True)
    order = hierarchy.leaves_list(tree)
    r = r.iloc[order, order]
    with mpl.rc_context(STYLE):
        size = max(3.2, 0.155 * len(r) + 1.6)
        figure = Figure(figsize=(size + 0.7, size + 0.5))
        top, ax = figure.subplots(2, 1, gridspec_kw={"height_ratios": [1, 9]})
        with mpl.rc_context({"lines.linewidth": 0.8}):
            hierarchy.dendrogram(tree, ax=top, no_labels=True, color_threshold=0, above_threshold_color="#555555")
        top.set_axis_off()
        image = ax.imshow(r, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        ax.set_xticks(range(len(r)), r.columns, rotation=90, fontsize=6)
        ax.set_yticks(range(len(r)), r.index, fontsize=6)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=[top, ax], shrink=0.5, aspect=30, pad=0.01)
        bar.set_label("Pearson correlation of logits")
        bar.outline.set_visible(False)
    return figure


def radar_figure(canvas: Canvas, matrix: pd.DataFrame) -> Figure | None:
    """v2 Fig. 7: rank of each model in each setting; further out is better.

    Ranks are those of the plain average score (recognition), AP50 (detection), mean error (normals) and mean IoU,
    with source accuracy as the first axis, over the models that have every setting.
    """
    axes_values = radar_values(canvas, matrix)
    ranks = axes_values.dropna().rank(ascending=False)
    if ranks.shape[1] < 3 or len(ranks) < 2:
        return None
    angles = np.linspace(0, 2 * np.pi, ranks.shape[1], endpoint=False)
    closed = np.append(angles, angles[0])
    columns = min(5, len(ranks))
    rows = math.ceil(len(ranks) / columns)
    with mpl.rc_context(STYLE):
        figure = canvas.figure(1.8 * columns, 1.55 * rows)
        grid = figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": "polar"}).ravel()
        for ax, (model, own) in zip(grid, ranks.iterrows(), strict=False):
            color = canvas.styles[model]["color"]
            radius = len(ranks) + 1 - np.append(own, own.iloc[0])
            ax.plot(closed, radius, color=color, linewidth=1.2)
            ax.fill(closed, radius, color=color, alpha=0.2, linewidth=0)
            ax.scatter(angles, radius[:-1], s=9, color=color, marker=canvas.styles[model]["marker"], zorder=3)
            ax.set_theta_offset(np.pi / 2)
            ax.set_theta_direction(-1)
            ax.set_ylim(0, len(ranks))
            ax.set_yticks([1, (len(ranks) + 1) / 2, len(ranks)], [])
            ax.set_xticks(angles, ranks.columns, fontsize=5.5)
            ax.tick_params(pad=-4)
            for angle, text in zip(angles, ax.get_xticklabels(), strict=True):
                side = round(np.sin(angle), 3)
                text.set_horizontalalignment("left" if side > 0.2 else "right" if side < -0.2 else "center")
            ax.grid(linewidth=0.4, color="#CCCCCC")
            ax.spines["polar"].set_visible(False)
            ax.set_title(canvas.labels[model], fontweight="bold")
        for ax in grid[len(ranks) :]:
            ax.set_visible(False)
    return figure


def radar_values(canvas: Canvas, matrix: pd.DataFrame) -> pd.DataFrame:
    """One column a setting of Fig. 7, higher is better, headed by its abbreviation."""
    every = panels(matrix.columns, canvas.conventions, canvas.leave_out)
    head = "Source" if canvas.leave_out else "ImageNet"
    columns = {head: canvas.source} if canvas.source.notna().any() else {}
    variant = variants(matrix.columns)
    for panel in every:
        if not in_figure(panel, every):
            continue
        tasks = list(panel.tasks)
        if panel.kind == "normals":
            tasks = [t for t in matrix.columns if t[0] == panel.protocol and t[4] == "mean-angle"] or tasks
        group = "CD" if panel.distant else ""
        head = " ".join(part for part in (KINDS[panel.kind].short, variant[panel.protocol], group) if part)
        columns[head] = oriented(matrix[tasks]).mean(axis=1, skipna=False)
    return pd.DataFrame(columns)


def suite_figures(summary: Summary, correlations: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Make every figure that the scores of a suite allow, as (file name, figure), one at a time."""
    canvas, matrix = Canvas(summary), summary.matrix
    candidates = {
        "transfer": lambda: transfer_figure(canvas, matrix, correlations),
        "correlations": lambda: correlation_figure(canvas, matrix, correlations),
        "domain-vs-transfer": lambda: domain_figure(canvas, summary.cells, summary.pretrained_on),
        "radar": lambda: radar_figure(canvas, matrix),
        "mean-ranks": lambda: rank_figure(canvas, matrix),
        "pairs": lambda: pairs_figure(summary),
        "properties": lambda: properties_figure(canvas, matrix),
    }
    for name, kinds in SCATTERS.items():
        candidates[name] = partial(scatter_figure, canvas, matrix, correlations, kinds)
    for name, make in candidates.items():
        figure = make()
        if figure is not None:
            yield name, figure
