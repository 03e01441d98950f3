"""Shared parts of figures: colours and markers of models, axes, legends, and files (svg and png).

Colours are those of Okabe and Ito, which colour-blind readers can distinguish; every model also has its own marker, so
that grey prints stay readable. Equal numbers give equal files.
"""

import math
from collections.abc import Collection
from functools import cache, cached_property
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from ssltransfer.analysis.pairs import MANY_MODELS
from ssltransfer.analysis.predictors import predictor_table, predictors
from ssltransfer.analysis.scale import is_logit, to_analysis_scale
from ssltransfer.analysis.suite_results import SHOWN_MODELS, SuiteResults
from ssltransfer.files import atomic_write
from ssltransfer.report.labels import suite_labels
from ssltransfer.results.metric_info import METRICS

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILLION, BLACK, GREY = "#56B4E9", "#D55E00", "#000000", "#7F7F7F"
#: Two shades per family; families take them in order of appearance.
SHADES = [(BLUE, SKY), (VERMILLION, ORANGE), (GREEN, "#66C7AB"), (PURPLE, "#8C4F78")]
FIXED_SHADES = {"supervised": (BLACK, BLACK), "none": (GREY, GREY)}
#: First marker of the families that differ from others by grey level only.
FIRST_MARKER = {"supervised": 13, "none": 6}
#: Markers that a family skips for each earlier one of the same shades.
NEXT_MARKER = 5
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d", "8", "*"]

MODEL_LEGEND = "model-legend"
"""Id in svg files of the legend of models, which the report shows once instead."""
OTHERS, PALE = 3.5, "#B0B0B0"
"""Size and colour of the points of models without a marker of their own."""
#: Width of the lines of intervals.
WHISKER = 0.7

STYLE = {
    "text.parse_math": False,  # a dollar in a label or a file name does not begin a formula
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "figure.labelsize": 8,
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


POINTS = 72
"""Points of an inch."""
LABEL_MARGIN = 6
"""Points that the lines of a label are shorter than the side of their figure."""
TITLE_WIDTH = 122
"""Points that a line of a title may be wide, so that it does not reach that of the next panel of `panel_grid`."""

LEGEND_WIDTH = 80
"""Points of the text of a legend for which figures have room beside their panels."""


def save_figure(figure: Figure, folder: str | Path, name: str) -> None:
    """Write ``{name}.svg`` and ``{name}.png`` (200 dpi) without dates, so that equal figures are equal files."""
    with mpl.rc_context(STYLE):
        # Each of the two draws once, where savefig would draw five times in all; the first computes the layout.
        with atomic_write(Path(folder) / f"{name}.svg") as temporary:
            FigureCanvasSVG(figure).print_svg(temporary, metadata={"Date": None, "Creator": None})
        figure.set_layout_engine("none")
        figure.dpi = 200
        with atomic_write(Path(folder) / f"{name}.png") as temporary:
            FigureCanvasAgg(figure).print_png(temporary, metadata={"Software": None})


def model_styles(models: pd.DataFrame) -> dict[str, dict]:
    """Assign each model the marker and colour that it has in all figures.

    Parameters
    ----------
    models : pd.DataFrame
        Columns ``model`` and ``family``, in the order of the model table; styles do not depend on later rows.

    Returns
    -------
    dict of dict
        Model -> keyword arguments ``marker`` and ``color``.
    """
    shades, first, counts, styles = dict(FIXED_SHADES), dict(FIRST_MARKER), {}, {}
    for model, family in zip(models["model"], models["family"], strict=True):
        if family not in shades:
            turn, shade = divmod(len(shades) - len(FIXED_SHADES), len(SHADES))
            shades[family], first[family] = SHADES[shade], turn * NEXT_MARKER
        count = counts[family] = counts.get(family, -1) + 1
        styles[model] = {
            "marker": MARKERS[(count + first[family]) % len(MARKERS)],
            "color": shades[family][count % 2],
        }
    return styles


class FigureContext:
    """The results of a suite with the labels and styles that all its figures share.

    Attributes
    ----------
    results : SuiteResults
    labels : Labels
    models : list of str
        In the order of the model table.
    shown : set of str
        Those that have a marker of their own (see `SuiteResults.shown_of`); all others are grey points.
    styles : dict of dict
        See `model_styles`.
    families : dict
        Model -> family.
    highlighted : set of str
        Models that only the user has.
    predictors : function
        Tasks -> name -> `Predictor` of their mean score (see `predictors.predictors`), found once.
    """

    def __init__(self, results: SuiteResults) -> None:
        models = results.models
        self.results = results
        self.labels = suite_labels(results)
        self.models = list(models["model"])
        self.shown = set(results.shown_of(self.models))
        self.styles = model_styles(models)
        self.families = dict(zip(models["model"], models["family"], strict=True))
        self.highlighted = set(models.loc[models["highlight"], "model"])
        self.predictors = cache(lambda *tasks: {found.name: found for found in predictors(results, tasks)})

    def points(self, ax, x: pd.Series, y: pd.Series, size: float = 5.1) -> None:
        """Draw one marker per model; highlighted models get a ring, models that are not shown are grey points."""
        drawn = [model for model in self.models if model in y.index and not np.isnan([x[model], y[model]]).any()]
        if others := [model for model in drawn if model not in self.shown]:
            ax.plot(x[others], y[others], ".", ms=OTHERS, color=PALE, mew=0, zorder=2.8)
        for model in (model for model in drawn if model in self.shown):
            style = self.styles[model]
            wide = 1.4 if style["marker"] == "*" else 1.0
            ax.plot(x[model], y[model], **style, ls="", ms=wide * size, mec="white", mew=0.4, zorder=3)
            if model in self.highlighted:
                ax.plot(x[model], y[model], "o", ms=2 * size, mfc="none", mec=PURPLE, mew=1.2, zorder=4)

    def whiskers(self, ax, x: pd.Series, low: pd.Series, high: pd.Series) -> None:
        """Draw the interval of each model as a thin vertical line in its colour, behind the points."""
        for model in (model for model in self.models if model in self.shown):
            if model in low.index and np.isfinite([x[model], low[model], high[model]]).all():
                color = self.styles[model]["color"]
                ax.plot([x[model]] * 2, [low[model], high[model]], color=color, lw=WHISKER, alpha=0.7, zorder=2.5)

    def ranks(self, x: pd.Series, y: pd.Series, better: int) -> str:
        """Line of a panel's title with the ranks of one or two highlighted models, else an empty string."""
        kept = y[y.notna() & x.reindex(y.index).notna()]
        ranks = (kept * better).rank(ascending=False, method="min")
        own = [model for model in self.models if model in self.highlighted and model in ranks.index]
        if not own or len(own) > 2 or not better:
            return ""
        return "\n" + ", ".join(f"{self.labels.model(model)}: {ranks[model]:.0f} of {len(kept)}" for model in own)

    def emphasise(self, texts: list[Text], models: list[str]) -> None:
        """Print the names of highlighted models in bold; `texts` are the labels of a tick for each of `models`."""
        for text, model in zip(texts, models, strict=True):
            if model in self.highlighted:
                text.set_fontweight("bold")

    def legend(self, figure: Figure, models: list[str], named: Collection[str] | None = None) -> None:
        """Draw the legend that all panels share, to their right; by default `named` are the models that are shown."""
        handles, named = [], self.shown if named is None else named
        for model in (model for model in models if model in named):
            label = self.labels.model(model) + (" (ringed)" if model in self.highlighted else "")
            handles.append(Line2D([], [], linestyle="", markersize=5, label=label, **self.styles[model]))
        if any(model not in named for model in models):
            handles.append(Line2D([], [], ls="", marker=".", ms=OTHERS, mew=0, color=PALE, label="other models"))
        widest = max((_text_width(handle.get_label(), "legend.fontsize") for handle in handles), default=0)
        # Panels keep their width, to which their titles are broken.
        figure.set_figwidth(figure.get_figwidth() + max(0, widest - LEGEND_WIDTH) / 72)
        legend = figure.legend(handles=handles, loc="outside right center", handletextpad=0.2)
        legend.set_gid(MODEL_LEGEND)

    @cached_property
    def drawable(self) -> int:
        """Number of models with a source accuracy and any score, which can be points."""
        tasks = self.results.tasks
        return int((tasks.matrix.notna().any(axis=1) & np.isfinite(tasks.x())).sum())

    @cached_property
    def predictor_table(self) -> pd.DataFrame:
        """How well every predictor ranks the models (see `predictors.predictor_table`)."""
        saved = self.results.saved_predictors
        return predictor_table(self.results) if saved is None else saved

    def score_axis(self, axis, values: pd.Series, metric: str = "top1", raw: bool = False) -> None:
        """Label a logit axis in the unit of the metric; other axes are in that unit already."""
        scale = METRICS[metric].scale
        finite = values[np.isfinite(values)]
        if finite.empty or not is_logit(metric, raw):
            return
        ends = scale / (1 + np.exp(-np.array([finite.min(), finite.max()])))
        ticks = [t for t in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(*ends) if 0 < t < scale]
        axis.set_major_locator(FixedLocator([float(to_analysis_scale(t, metric)) for t in ticks]))
        texts = {round(float(to_analysis_scale(t, metric)), 9): f"{t:.4g}" for t in ticks}
        axis.set_major_formatter(FuncFormatter(lambda value, _: texts.get(round(value, 9), "")))


def panel_title(*lines: str) -> str:
    """Join the lines of the title of a panel of `panel_grid`, without empty ones, and break those that are too wide."""
    return "\n".join(_broken(line, TITLE_WIDTH, "axes.titlesize") for line in "\n".join(lines).split("\n") if line)


def label_axes(figure: Figure, x: str = "", y: str = "") -> None:
    """Label the x or y axes that all panels share, in as many lines as the sides of the figure need."""
    width, height = POINTS * figure.get_size_inches() - LABEL_MARGIN
    if x:
        figure.supxlabel(_broken(x, width, "figure.labelsize"))
    if y:
        figure.supylabel(_broken(y, height, "figure.labelsize"))


def _broken(line: str, width: float, size: str) -> str:
    """Break a line between words so that no part is wider than `width` in points; `size` is a key of `STYLE`."""
    first, *words = line.split(" ")
    kept = [first]
    for word in words:
        longer = f"{kept[-1]} {word}"
        kept[-1:] = [longer] if _text_width(longer, size) <= width else [kept[-1].rstrip(), word]
    return "\n".join(filter(None, kept))


@cache
def _text_width(text: str, size: str) -> float:
    """Width in points of a line of text; `size` is a key of `STYLE`."""
    font = FontProperties(family=STYLE["font.family"])
    with mpl.rc_context(STYLE):
        return float(TextPath((0, 0), text, size=STYLE[size], prop=font).get_extents().width)


def panel_grid(count: int, height: float, models: int) -> tuple[Figure, list]:
    """Open a figure of `count` small panels of one height (inches), with room for a legend of `models`."""
    models = models if models <= MANY_MODELS else SHOWN_MODELS + 1
    columns = count if count <= 5 else min((5, 4, 3), key=lambda width: -count % width)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(1.8 * columns + 1.5, max(height * rows + 0.3, 0.165 * models + 0.2)))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, list(axes[:count])
