"""Figures that compare models: domains of pretraining, mean ranks, pairs, and a radar chart per model."""

import math
from collections.abc import Iterable

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssltransfer.analysis.scale import higher_is_better
from ssltransfer.report.drawing import STYLE, WHISKER, FigureContext
from ssltransfer.report.labels import joined, setting_label
from ssltransfer.results.metric_info import KINDS

SOURCE_AXIS = ""
"""Axis of the source accuracy in the radar chart; the others are named by their panels."""
SMALL_MATRIX = 20
"""Largest number of models whose pairs are drawn in large print."""


def domain_figure(context: FigureContext) -> Figure | None:
    """Linear scores on each pretraining dataset, filled for models pretrained on it; None without such scores."""
    pretrained_on = context.results.pretrained_on
    values, (low, high) = context.results.domain_scores, context.results.domain_ends
    if values.empty:
        return None
    domains, models = list(values.columns), context.results.shown_of(values.index)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(5.2, 2.6 * len(domains)), 0.22 * len(models) + 1.2))
        axes = figure.subplots(1, len(domains), squeeze=False, sharey=True)[0]
        for ax, domain in zip(axes, domains, strict=True):
            for i, model in enumerate(reversed(models)):
                style, own = context.styles[model], pretrained_on[model] == domain
                face = style["color"] if own else "white"
                ax.axhline(i, color="#E5E5E5", linewidth=0.5, zorder=0)
                ends = [low.loc[model, domain], high.loc[model, domain]]
                ax.plot(ends, [i, i], color=style["color"], linewidth=WHISKER, zorder=2)
                ax.scatter(
                    values.loc[model, domain], i, marker=style["marker"], facecolor=face, edgecolor=style["color"],
                    s=34, linewidth=1.1, zorder=3,
                )  # fmt: skip
            ax.set_title(context.labels.dataset(domain))
            ax.set_xlabel("Linear score (percent)")
            ax.set_yticks(range(len(models)), [context.labels.model(m) for m in reversed(models)])
        fill = Line2D([], [], marker="o", linestyle="", color="#555555", label="pretrained on this dataset")
        hollow = Line2D([], [], marker="o", linestyle="", color="#555555", mfc="white", label="pretrained elsewhere")
        figure.legend(handles=[fill, hollow], loc="outside lower center", ncols=2)
    return figure


def rank_figure(context: FigureContext) -> Figure | None:
    """Mean rank of each model over datasets, with t intervals and bars beside models that are not told apart."""
    ranks = context.results.mean_ranks
    if ranks.empty:
        return None
    shown = set(context.results.shown_of(ranks.index))
    ranks = ranks[[model in shown for model in ranks.index]]
    order = context.results.order_like_these
    cliques = order.cliques(list(ranks.index)) if order else []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.8, 0.2 * len(ranks) + 0.7))
        ax = figure.subplots()
        for i, row in enumerate(ranks.itertuples()):
            style = context.styles[row.Index]
            ax.plot([row.low, row.high], [i, i], color="#777777", linewidth=1, zorder=1)
            ax.scatter(row.mean_rank, i, s=34, **style, edgecolor="white", linewidth=0.4, zorder=2)
        taken: list[int] = []  # last position of the bars in each column
        for first, last in cliques:
            column = next((number for number, end in enumerate(taken) if end < first), len(taken))
            taken[column : column + 1] = [last]
            x, ends = 1.03 + 0.025 * column, [first - 0.25, last + 0.25]
            ax.plot([x, x], ends, color="#333333", lw=2, transform=ax.get_yaxis_transform(), clip_on=False)
        ax.set_yticks(range(len(ranks)), [context.labels.model(m) for m in ranks.index])
        context.emphasise(ax.get_yticklabels(), list(ranks.index))
        ax.invert_yaxis()
        datasets, tasks = ranks[["datasets", "tasks"]].iloc[0].astype(int)
        ax.set_xlabel(f"Mean rank over {datasets} datasets, {tasks} tasks (1 is best)")
        ax.grid(axis="x", linewidth=0.3, color="#DDDDDD", zorder=0)
    return figure


def model_pairs_figure(context: FigureContext) -> Figure | None:
    """Matrix of the cells in which the model of a row is better than that of a column; None without pairs."""
    wins, compared = context.results.wins
    if len(wins) < 2:
        return None
    shown = set(context.results.shown_of(wins.index))
    kept = [model for model in wins.index if model in shown]
    wins, compared = wins.loc[kept, kept], compared.loc[kept, kept]
    names = [context.labels.model(model) for model in wins.index]
    counts = set(compared.to_numpy()[~np.eye(len(wins), dtype=bool)]) - {0}
    share = np.ma.masked_invalid(wins / compared.where(compared > 0))
    small = len(wins) > SMALL_MATRIX
    side = 0.17 if small else 0.26 if len(counts) == 1 else 0.34
    with mpl.rc_context(STYLE):
        size = side * len(wins)
        margin = 0.075 * max(map(len, names)) + 0.3
        figure = Figure(figsize=(size + margin + 0.9, size + margin + 0.4))
        ax = figure.subplots()
        ax.set_facecolor("#DDDDDD")
        image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for i, j in zip(*np.nonzero(compared.to_numpy()), strict=True):
            won, total = wins.iat[i, j], compared.iat[i, j]
            text = f"{won}" if small or len(counts) == 1 else f"{won}/{total}"
            color = "white" if share[i, j] > 0.6 else "#222222" if won else "#999999"
            ax.text(j, i, text, ha="center", va="center", color=color, fontsize=5.5 if small else 7)
        ax.set_xticks(range(len(names)), names, rotation=90)
        ax.set_yticks(range(len(names)), names)
        ax.xaxis.tick_top()
        for texts in (ax.get_xticklabels(), ax.get_yticklabels()):
            context.emphasise(texts, list(wins.index))
        ax.xaxis.set_label_position("top")
        ax.set_xlabel("than this one")
        ax.set_ylabel("This model is better")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=ax, shrink=min(1, 1.6 / size), aspect=16, pad=0.02)
        bar.outline.set_visible(False)
        of = f"of {counts.pop()} counted tasks" if len(counts) == 1 else "of the counted tasks"
        bar.set_label(f"Share {of}")
    return figure


def radar_figure(context: FigureContext) -> Figure | None:
    """v2 Fig. 7: rank of each model in each setting; further out is better.

    Ranks are those of the plain average score (recognition), AP50 (detection), mean error (normals) and mean IoU,
    with source accuracy as the first axis, over the models that have every setting. None below three settings or two
    models.
    """
    ranks = radar_values(context).dropna().rank(ascending=False)
    if ranks.shape[1] < 3 or len(ranks) < 2:
        return None
    count, shown = len(ranks), set(context.results.shown_of(ranks.index))
    ranks = ranks[[model in shown for model in ranks.index]]
    heads = radar_heads(context, ranks.columns)
    angles = np.linspace(0, 2 * np.pi, ranks.shape[1], endpoint=False)
    closed = np.append(angles, angles[0])
    columns = min(5, len(ranks))
    rows = math.ceil(len(ranks) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.8 * columns, 1.55 * rows))
        grid = figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": "polar"}).ravel()
        for ax, (model, own) in zip(grid, ranks.iterrows(), strict=False):
            color = context.styles[model]["color"]
            radius = count + 1 - np.append(own, own.iloc[0])
            ax.plot(closed, radius, color=color, linewidth=1.2)
            ax.fill(closed, radius, color=color, alpha=0.2, linewidth=0)
            style = {"color": color, "marker": context.styles[model]["marker"]}
            ax.scatter(angles, radius[:-1], s=9, **style, zorder=3, clip_on=False)
            ax.set_theta_offset(np.pi / 2)
            ax.set_theta_direction(-1)
            ax.set_ylim(0, count)
            ax.set_yticks([1, (count + 1) / 2, count], [])
            ax.set_xticks(angles, heads, fontsize=5.5)
            ax.tick_params(pad=-4)
            for angle, text in zip(angles, ax.get_xticklabels(), strict=True):
                side = round(np.sin(angle), 3)
                text.set_horizontalalignment("left" if side > 0.2 else "right" if side < -0.2 else "center")
            ax.grid(linewidth=0.4, color="#CCCCCC")
            ax.spines["polar"].set_visible(False)
            ax.set_title(context.labels.model(model), fontweight="bold")
        for ax in grid[len(ranks) :]:
            ax.set_visible(False)
    return figure


def radar_values(context: FigureContext) -> pd.DataFrame:
    """Scores of Fig. 7: models x axes of the chart (`SOURCE_AXIS` and names of panels), higher is better."""
    tasks = context.results.tasks
    columns = {SOURCE_AXIS: tasks.source} if tasks.source.notna().any() else {}
    for panel in tasks.figure_panels:
        members = list(panel.tasks)
        if panel.kind == "normals":
            errors = [t for t in tasks.tasks if t.protocol == panel.protocol and t.metric == "mean-angle"]
            members = errors or members
        columns[panel.name] = higher_is_better(tasks.matrix[members]).mean(axis=1, skipna=False)
    return pd.DataFrame(columns)


def radar_heads(context: FigureContext, axes: Iterable[str]) -> list[str]:
    """Abbreviated kinds at the axes of the chart, with their settings where a protocol has several."""
    suffixes, tasks = context.results.suffixes, context.results.tasks
    settings: dict[str, set[str]] = {}
    for panel in tasks.figure_panels:
        settings.setdefault(panel.protocol, set()).add(panel.setting)
    heads = {}
    for panel in tasks.figure_panels:
        setting = setting_label(panel.setting) if len(settings[panel.protocol]) > 1 else ""
        cd_fsl = "CD" if panel.cd_fsl else ""
        heads[panel.name] = joined(KINDS[panel.kind].short, suffixes[panel.protocol], cd_fsl, setting)
    heads[SOURCE_AXIS] = "Source" if tasks.leave_out else "ImageNet"
    return [heads[axis] for axis in axes]
