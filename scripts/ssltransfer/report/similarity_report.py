"""Similarity of models in the report: tables of all pairs, and a figure for each dataset that they are compared on."""

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.cluster import hierarchy

from ssltransfer.analysis.similarity import (
    agreement,
    classical_map,
    cluster_tree,
    complete,
    score_similarity,
    similarity_matrix,
)
from ssltransfer.analysis.suite_results import SuiteResults
from ssltransfer.report.drawing import STYLE, FigureContext
from ssltransfer.report.labels import Labels, joined, shown_note
from ssltransfer.report.table import Table, records_table

SECTION = "similarity"
AGREEMENT = "similarity-and-transfer"
"""Name of the table of the correlations of similarities with scores."""
ANNOTATED = 15
"""Largest number of models whose similarities are printed in the heat map."""
CELL = ["protocol", "dataset"]


def similarity_tables(
    similarities: pd.DataFrame,
    left_out: dict[tuple[str, str], dict[str, str]],
    results: SuiteResults,
    labels: Labels,
) -> list[Table]:
    """Make one matrix for each dataset, whose csv has all pairs, and a table of the agreement with scores.

    Parameters
    ----------
    similarities, left_out
        See `similarity.collect_similarities`; at least one row.
    results : SuiteResults
    labels : Labels
    """
    scores = score_similarity(results.tasks) if results.tasks.counted else pd.DataFrame()
    tables, rows = [], {}
    for (protocol, dataset), own in similarities.groupby(CELL, sort=False):
        matrix = similarity_matrix(own, results.models["model"])
        name = joined(labels.dataset(dataset), f"[{protocol}]" if similarities["protocol"].nunique() > 1 else "")
        images, chance = int(own["images"].iloc[0]), own["chance"].abs().max()
        caption = (
            f"Debiased linear CKA of the features of {images} images, 1 for features that are equal up to rotation, "
            f"scaling and shift. After one permutation of the first fold of the images of one model (a tenth of the "
            f"images, more if there are fewer than 200) it is at most {chance:.2f} away from 0 for any pair. The csv "
            "has 95 % intervals over images (from disjoint folds), and the usual biased values, which are above 0 for "
            "unrelated features."
        )
        if matrix.isna().any(axis=None):
            caption += (
                " Empty: pairs that were not compared while the features of both models existed; the figure and the "
                "agreement with scores leave out the models that lack pairs."
            )
        reasons = left_out.get((protocol, dataset), {})
        caption += "".join(f" Without {labels.model(model)}: {reason}." for model, reason in reasons.items())
        shown = results.shown_of(matrix.index)
        if len(shown) < len(matrix):
            caption += f" {shown_note(results, 'Rows and columns:')} The csv has all pairs."
        more = {"row_labels": labels.models, "headings": labels.models, "data": own, "section": SECTION}
        title = f"Similarity of representations: {name}"
        tables.append(
            records_table(f"similarity-{protocol}-{dataset}", title, caption, matrix.loc[shown, shown], **more)
        )
        found = agreement(matrix, scores)
        if found:
            rows[name] = {"Models": found.models, "Pairs": found.pairs, "r": found.r, "p": found.p}
    if rows:
        caption = (
            "Do similar representations transfer similarly? Correlation, over pairs of models, of the similarity of "
            "their representations and the correlation of their scores over the counted tasks (standardised over the "
            "models). p: permutation of models (Mantel's test)."
        )
        frame = pd.DataFrame.from_dict(rows, orient="index")
        title = "Similarity and transfer"
        more = {"section": SECTION, "data": frame.rename_axis("dataset").reset_index()}
        tables.insert(0, records_table(AGREEMENT, title, caption, frame, {"p": 4}, **more))
    return tables


def similarity_figures(context: FigureContext, similarities: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Draw the similarities on each dataset, as (file name, figure)."""
    for (protocol, dataset), own in similarities.groupby(CELL, sort=False):
        yield f"similarity-map-{protocol}-{dataset}", _similarity_figure(context, own, context.labels.dataset(dataset))


def _similarity_figure(context: FigureContext, similarities: pd.DataFrame, dataset: str) -> Figure:
    """Clustered heat map, map of the models, and similarity against the correlation of scores for each pair."""
    matrix = complete(similarity_matrix(similarities, context.models))
    results = context.results
    scores = score_similarity(results.tasks) if results.tasks.counted else pd.DataFrame()
    found = agreement(matrix, scores)
    shown = context.results.shown_of(matrix.index)
    size = max(2.6, 0.24 * len(shown) + 0.6)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.1 + size + 3.1 * (2 if found else 1), size + 0.9))
        left, *rest = figure.subfigures(1, 3 if found else 2, width_ratios=[1.6 + size, *[3.1] * (2 if found else 1)])
        _heat_map(left, context, matrix.loc[shown, shown])
        _draw_map(rest[0].subplots(), context, matrix)
        if found:
            ax = rest[1].subplots()
            pairs = [
                (row.value, row.low, row.high, scores.loc[row.model, row.other])
                for row in similarities.itertuples()
                if {row.model, row.other} <= {*shown} and row.model in scores and row.other in scores
            ]
            x, low, high, y = np.array(pairs, float).T
            ax.hlines(y, low, high, color="#BBBBBB", linewidth=0.7, zorder=1)
            ax.plot(x, y, "o", color="#444444", markersize=4, mec="white", mew=0.4, zorder=2)
            ax.set_xlabel("Similarity of representations (CKA)")
            ax.set_ylabel("Correlation of scores over tasks")
            p = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
            ax.set_title(f"Pairs of models: r = {found.r:.2f}, {p}".replace("-", "−"))
        figure.suptitle(dataset, fontsize=9)
        context.legend(figure, list(matrix.index))
    return figure


def _heat_map(figure, context: FigureContext, matrix: pd.DataFrame) -> None:
    tree = cluster_tree(matrix)
    order = hierarchy.leaves_list(tree)
    own = matrix.iloc[order, order]
    names = [context.labels.model(model) for model in own.index]
    top, ax = figure.subplots(2, 1, gridspec_kw={"height_ratios": [1, 6]})
    with mpl.rc_context({"lines.linewidth": 0.8}):
        hierarchy.dendrogram(tree, ax=top, no_labels=True, color_threshold=0, above_threshold_color="#555555")
    top.set_axis_off()
    image = ax.imshow(own, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    if len(own) <= ANNOTATED:
        for i, j in np.ndindex(own.shape):
            value = own.iloc[i, j]
            color = "white" if value < 0.6 else "black"
            ax.text(j, i, f"{value:.2f}".replace("-", "−"), ha="center", va="center", fontsize=5.5, color=color)
    ax.set_xticks(range(len(own)), names, rotation=90, fontsize=6.5)
    ax.set_yticks(range(len(own)), names, fontsize=6.5)
    context.emphasise(ax.get_xticklabels(), list(own.index))
    context.emphasise(ax.get_yticklabels(), list(own.index))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=[top, ax], shrink=0.6, aspect=30, pad=0.02)
    bar.set_label("Debiased linear CKA")
    bar.outline.set_visible(False)


def _draw_map(ax, context: FigureContext, matrix: pd.DataFrame) -> None:
    found = classical_map(matrix)
    context.points(ax, found.points["x"], found.points["y"], 6)
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.2)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(f"Map by arccos CKA ({100 * found.shown:.0f} % of the squared distances)")
