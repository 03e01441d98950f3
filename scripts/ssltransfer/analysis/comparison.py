"""Measured scores beside published ones: which of them a suite shows, and how far they differ."""

import numpy as np
import pandas as pd

from ssltransfer.analysis.marks import mark_texts
from ssltransfer.analysis.published import PAPER_SOURCES, PAPER_SPLITS, PROPERTY_DATASETS, rerun_changes
from ssltransfer.analysis.tasks import task_matrix
from ssltransfer.results.marks import MARKS
from ssltransfer.results.metric_info import KINDS
from ssltransfer.results.scores import CELL, COLUMNS, is_published

#: Kinds that train on one part of a dataset and are measured on another, so that its split matters.
SPLIT_KINDS = ("linear", "finetune")
#: What `compare` says about each cell.
COMPARED = ["published", "measured", "difference", "half_width", "verdict", "rerun", *MARKS, "note"]


def on_paper_datasets(measured: pd.DataFrame) -> pd.Series:
    """Mark measured scores that are comparable with published ones.

    Properties are published as means over the paper's datasets, so those of a protocol that ran on other datasets are
    not marked. Scores of a single dataset always are.
    """
    datasets = measured.groupby("protocol")["dataset"].agg(_names_in_paper)
    marked = [
        KINDS[kind].performance or datasets[protocol] == PROPERTY_DATASETS.get(kind)
        for kind, protocol in zip(measured["kind"], measured["protocol"], strict=True)
    ]
    return pd.Series(marked, measured.index, dtype=bool)


def _names_in_paper(datasets: pd.Series) -> frozenset[str] | None:
    """Names of the datasets in the paper; None where two of them are one there."""
    own = set(datasets)
    names = frozenset(PAPER_SPLITS.get(name, name) for name in own)
    return names if len(names) == len(own) else None


def measured_or_published(scores: pd.DataFrame) -> pd.DataFrame:
    """Reduce the tidy table to one row per cell: measured where measured, else published.

    Published scores have no protocol of their own, so each is repeated for every measured protocol of the same kind,
    and under the name of the dataset that has the paper's split, where it was measured.
    They are dropped for a kind that was measured only on other datasets than the paper's (see `on_paper_datasets`).
    Rows are sorted by kind in the order of `KINDS`, otherwise they keep their order.
    """
    measured = scores[~is_published(scores)]
    published = scores[is_published(scores)]
    protocols = measured.loc[on_paper_datasets(measured), ["kind", "protocol"]].drop_duplicates()
    elsewhere = set(measured["kind"]) - set(protocols["kind"])
    repeated = published[~published["kind"].isin(elsewhere)].merge(
        protocols, on="kind", how="left", suffixes=("", "_measured")
    )
    repeated["protocol"] = repeated["protocol_measured"].fillna(repeated["protocol"])
    for own, papers in PAPER_SPLITS.items():
        with_split = repeated["protocol"].isin(measured.loc[measured["dataset"].eq(own), "protocol"])
        repeated.loc[repeated["dataset"].eq(papers) & with_split, "dataset"] = own
    # A property is published as a mean over datasets but measured on each of them, so a published mean is dropped for
    # a model with any measured one. For other kinds drop_duplicates below decides cell by cell.
    is_property = ~repeated["kind"].map(lambda kind: KINDS[kind].performance).astype(bool)
    by_model = [name for name in CELL if name != "dataset"]
    seen = pd.MultiIndex.from_frame(measured[by_model])
    superseded = is_property & pd.MultiIndex.from_frame(repeated[by_model]).isin(seen)
    both = pd.concat([measured, repeated.loc[~superseded, COLUMNS]]) if len(published) else measured
    both = both.drop_duplicates(CELL, keep="first")
    return both.sort_values("kind", key=lambda kind: kind.map(list(KINDS).index), kind="stable", ignore_index=True)


def compare(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare every measured score with the published one of the same model, dataset, setting and metric.

    Parameters
    ----------
    scores : pd.DataFrame
        Tidy table with measured and published rows. Properties are compared as means over the paper's datasets, and
        not at all where others were measured.

    Returns
    -------
    pd.DataFrame
        The columns that name a measured cell, ``published``, ``measured``, ``difference`` (measured - published),
        ``half_width`` of the interval of the difference (published and measured ones combined in quadrature; NaN
        where the paper states none, because then half of the noise is unknown), ``verdict`` (agrees, differs, not
        stated without an interval, or not judged),
        ``rerun`` (of the paper's linear scores, what its authors' own changed on the dataset, see
        `published.rerun_changes`),
        ``partial`` and ``shortened`` (see `results.marks`) and ``note`` (why else a cell is not judged).
    """
    measured = scores[~is_published(scores)]
    measured = measured[on_paper_datasets(measured)]
    published = scores[is_published(scores)]
    ours = _long(measured).assign(paper=lambda cells: cells["dataset"].replace(PAPER_SPLITS))
    theirs = _long(published).drop(columns="protocol").rename(columns={"dataset": "paper"})
    shared = ["model", "kind", "paper", "setting", "metric"]
    compared = ours.merge(theirs, on=shared, suffixes=("", "_published"))
    compared = compared.rename(columns={"value": "measured", "value_published": "published"})
    compared["difference"] = compared["measured"] - compared["published"]
    halves = compared[["half", "half_published"]].to_numpy(float)
    stated = ~np.isnan(halves[:, 1])
    compared["half_width"] = np.where(stated, np.sqrt(np.nansum(halves**2, axis=1)), np.nan)
    reruns = rerun_changes() if published["source"].isin(PAPER_SOURCES).any() else {}
    compared["rerun"] = compared["paper"].map(reruns).where(compared["kind"] == "linear").astype(float)
    cells = [tuple(cell) for cell in compared[CELL].itertuples(index=False)]
    for mark in MARKS:
        texts = mark_texts(measured, mark)
        compared[mark] = [texts.get(cell, "") for cell in cells]
    other_split = compared["kind"].isin(SPLIT_KINDS) & compared["dataset"].isin(list(PAPER_SPLITS.values()))
    compared["note"] = [
        f"the split is not the paper's, which {_with_paper_split(dataset)} has" if other else ""
        for dataset, other in zip(compared["dataset"], other_split, strict=True)
    ]
    reasons = compared[[*MARKS, "note"]].ne("").any(axis=1) | compared["kind"].eq("linear")
    inside = compared["difference"].abs() <= compared["half_width"]
    verdict = np.where(stated, np.where(inside, "agrees", "differs"), "not stated")
    compared["verdict"] = np.where(reasons, "not judged", verdict)
    return compared[[*CELL, *COMPARED]]


def _with_paper_split(dataset: str) -> str:
    """The dataset that has the split of a published one."""
    return next(own for own, papers in PAPER_SPLITS.items() if papers == dataset)


def _long(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per cell with its half width; properties are averaged over datasets."""
    if scores.empty:
        return pd.DataFrame(columns=[*CELL, "value", "half"])
    matrix = task_matrix(scores, list(dict.fromkeys(scores["model"])))
    values = matrix.melt(ignore_index=False).dropna(subset="value").reset_index()
    half = scores[CELL].assign(half=(scores["high"] - scores["low"]) / 2)
    return values.merge(half, on=CELL, how="left")[[*CELL, "value", "half"]]


def agreement(comparison: pd.DataFrame) -> pd.DataFrame:
    """Count the verdicts of cells: one row per protocol with ``cells`` and a column for each verdict."""
    verdicts = ["agrees", "differs", "not stated", "not judged"]
    counts = pd.crosstab(comparison["protocol"], comparison["verdict"])
    counts = counts.reindex(columns=verdicts, fill_value=0).reindex(list(dict.fromkeys(comparison["protocol"])))
    counts.insert(0, "cells", counts.sum(axis=1))
    return counts.rename_axis("protocol", axis=0).rename_axis(None, axis=1)
