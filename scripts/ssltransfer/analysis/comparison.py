"""Measured scores beside published ones: which of them a suite shows, and how far they differ."""

import numpy as np
import pandas as pd

from ssltransfer.analysis.published import PROPERTY_DATASETS
from ssltransfer.analysis.tasks import task_matrix
from ssltransfer.results.metric_info import KINDS
from ssltransfer.results.scores import CELL, COLUMNS, TASK


def on_paper_datasets(measured: pd.DataFrame) -> pd.Series:
    """Mark measured scores that are comparable with published ones.

    Properties are published as means over the paper's datasets, so those of a protocol that ran on other datasets are
    not marked. Scores of a single dataset always are.
    """
    datasets = measured.groupby("protocol")["dataset"].agg(frozenset)
    marked = [
        KINDS[kind].performance or datasets[protocol] == PROPERTY_DATASETS[kind]
        for kind, protocol in zip(measured["kind"], measured["protocol"], strict=True)
    ]
    return pd.Series(marked, measured.index, dtype=bool)


def measured_or_published(scores: pd.DataFrame) -> pd.DataFrame:
    """Reduce the tidy table to one row per cell: measured where measured, else published.

    Published scores have no protocol of their own, so each is repeated for every measured protocol of the same kind.
    They are dropped for a kind that was measured only on other datasets than the paper's (see `on_paper_datasets`).
    Rows are sorted by kind in the order of `KINDS`, otherwise they keep their order.
    """
    measured = scores[scores["source"] == "measured"]
    published = scores[scores["source"] != "measured"]
    protocols = measured.loc[on_paper_datasets(measured), ["kind", "protocol"]].drop_duplicates()
    elsewhere = set(measured["kind"]) - set(protocols["kind"])
    repeated = published[~published["kind"].isin(elsewhere)].merge(
        protocols, on="kind", how="left", suffixes=("", "_measured")
    )
    repeated["protocol"] = repeated["protocol_measured"].fillna(repeated["protocol"])
    # A property is published as a mean over datasets but measured on each of them, so a published mean is dropped for
    # a model with any measured one. For other kinds drop_duplicates below decides cell by cell.
    is_property = ~repeated["kind"].map(lambda kind: KINDS[kind].performance).astype(bool)
    by_model = [name for name in CELL if name != "dataset"]
    seen = pd.MultiIndex.from_frame(measured[by_model])
    superseded = is_property & pd.MultiIndex.from_frame(repeated[by_model]).isin(seen)
    both = pd.concat([measured, repeated.loc[~superseded, COLUMNS]]) if len(published) else measured
    both = both.drop_duplicates(CELL, keep="first")
    return both.sort_values("kind", key=lambda kind: kind.map(list(KINDS).index), kind="stable", ignore_index=True)


def compare(scores: pd.DataFrame, spread: float) -> pd.DataFrame:
    """Compare every measured score with the published one of the same model, dataset, setting and metric.

    Parameters
    ----------
    scores : pd.DataFrame
        Tidy table with measured and published rows. Properties are compared as means over the paper's datasets, and
        not at all where others were measured.
    spread : float
        Half width of the interval for linear scores, for which the paper states none, percentage points (see
        `published.rerun_spread`).

    Returns
    -------
    pd.DataFrame
        The columns that name a measured cell, ``published``, ``measured``, ``difference`` (measured - published),
        ``half_width`` of the interval of the difference (published and measured ones combined in quadrature; NaN
        where neither states one) and ``verdict``: agrees, differs or, without an interval, not stated.
    """
    measured = scores[scores["source"] == "measured"]
    published = scores[scores["source"] != "measured"]
    ours, theirs = _long(measured[on_paper_datasets(measured)]), _long(published).drop(columns="protocol")
    compared = ours.merge(theirs, on=["model", *TASK[1:]], suffixes=("", "_published"))
    compared = compared.rename(columns={"value": "measured", "value_published": "published"})
    compared["difference"] = compared["measured"] - compared["published"]
    halves = compared[["half", "half_published"]].to_numpy(float)
    combined = np.sqrt(np.nansum(halves**2, axis=1))
    stated = ~np.isnan(halves).all(axis=1)
    compared["half_width"] = np.where(stated, combined, np.where(compared["kind"] == "linear", spread, np.nan))
    inside = compared["difference"].abs() <= compared["half_width"]
    verdict = np.where(inside, "agrees", "differs")
    compared["verdict"] = np.where(compared["half_width"].isna(), "not stated", verdict)
    return compared[[*CELL, "published", "measured", "difference", "half_width", "verdict"]]


def _long(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per cell with its half width; properties are averaged over datasets."""
    if scores.empty:
        return pd.DataFrame(columns=[*CELL, "value", "half"])
    matrix = task_matrix(scores, list(dict.fromkeys(scores["model"])))
    values = matrix.melt(ignore_index=False).dropna(subset="value").reset_index()
    half = scores[CELL].assign(half=(scores["high"] - scores["low"]) / 2)
    return values.merge(half, on=CELL, how="left")[[*CELL, "value", "half"]]


def agreement(comparison: pd.DataFrame) -> pd.DataFrame:
    """Count agreeing cells: one row per protocol with ``cells``, ``agrees``, ``differs``, ``not stated``."""
    verdicts = ["agrees", "differs", "not stated"]
    counts = pd.crosstab(comparison["protocol"], comparison["verdict"])
    counts = counts.reindex(columns=verdicts, fill_value=0).reindex(list(dict.fromkeys(comparison["protocol"])))
    counts.insert(0, "cells", counts.sum(axis=1))
    return counts.rename_axis("protocol", axis=0).rename_axis(None, axis=1)
