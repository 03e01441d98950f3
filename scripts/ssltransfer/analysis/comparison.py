"""Measured scores next to published ones."""

import numpy as np
import pandas as pd

from ssltransfer.analysis.correlation import task_matrix
from ssltransfer.analysis.published import PROPERTY_DATASETS
from ssltransfer.results.metric_info import KINDS
from ssltransfer.results.scores import CELL, COLUMNS


def as_published(measured: pd.DataFrame) -> pd.Series:
    """Mark scores that mean what the published ones do.

    Properties are published as means, which are those of the paper's data sets: a protocol that ran on others is not
    marked. Scores of a single data set always are.
    """
    datasets = measured.groupby("protocol")["dataset"].agg(frozenset)
    marked = [
        KINDS[kind].performance or datasets[protocol] == PROPERTY_DATASETS[kind]
        for kind, protocol in zip(measured["kind"], measured["protocol"], strict=True)
    ]
    return pd.Series(marked, measured.index, dtype=bool)


def combine(scores: pd.DataFrame) -> pd.DataFrame:
    """Reduce to one row a cell: measured where measured, else published.

    Kinds come in the order of `KINDS`, otherwise rows keep theirs. A published number stands in for every protocol of
    its kind, so that a suite which measures one model under ``linear-official`` shows it among the published ones. It
    is left out where its kind is measured, but never on the paper's data sets (see `as_published`).
    """
    measured = scores[scores["source"] == "measured"]
    published = scores[scores["source"] != "measured"]
    protocols = measured.loc[as_published(measured), ["kind", "protocol"]].drop_duplicates()
    elsewhere = set(measured["kind"]) - set(protocols["kind"])
    spread = published[~published["kind"].isin(elsewhere)].merge(
        protocols, on="kind", how="left", suffixes=("", "_measured")
    )
    spread["protocol"] = spread["protocol_measured"].fillna(spread["protocol"])
    # A measured property counts on each data set, a published one on their average: the model, not the cell, decides.
    whole = ~spread["kind"].map(lambda kind: KINDS[kind].performance).astype(bool)
    by_model = [name for name in CELL if name != "dataset"]
    seen = pd.MultiIndex.from_frame(measured[by_model])
    superseded = whole & pd.MultiIndex.from_frame(spread[by_model]).isin(seen)
    both = pd.concat([measured, spread.loc[~superseded, COLUMNS]]) if len(published) else measured
    both = both.drop_duplicates(CELL, keep="first")
    return both.sort_values("kind", key=lambda kind: kind.map(list(KINDS).index), kind="stable", ignore_index=True)


def compare(scores: pd.DataFrame, spread: float) -> pd.DataFrame:
    """Put every measured score beside the published one of the same model, data set, setting and metric.

    Parameters
    ----------
    scores : pd.DataFrame
        Tidy table with measured and published rows. Properties are compared as means over the paper's data sets, and
        not at all where others were measured.
    spread : float
        Interval half width for linear scores, for which the paper states none: what its own second run changed
        (see `published.rerun_spread`), percent points.

    Returns
    -------
    pd.DataFrame
        The columns that name a measured cell, ``published``, ``measured``, ``difference`` (measured - published),
        ``half_width`` of the interval of the difference (published and measured ones combined in quadrature; NaN
        where neither states one) and ``verdict``: agrees, differs or, without an interval, not stated.
    """
    measured = scores[scores["source"] == "measured"]
    published = scores[scores["source"] != "measured"]
    ours, theirs = _long(measured[as_published(measured)]), _long(published).drop(columns="protocol")
    found = ours.merge(theirs, on=[name for name in CELL if name != "protocol"], suffixes=("", "_published"))
    found = found.rename(columns={"value": "measured", "value_published": "published"})
    found["difference"] = found["measured"] - found["published"]
    halves = found[["half", "half_published"]].to_numpy(float)
    combined = np.sqrt(np.nansum(halves**2, axis=1))
    stated = ~np.isnan(halves).all(axis=1)
    found["half_width"] = np.where(stated, combined, np.where(found["kind"] == "linear", spread, np.nan))
    inside = found["difference"].abs() <= found["half_width"]
    verdict = np.where(inside, "agrees", "differs")
    found["verdict"] = np.where(found["half_width"].isna(), "not stated", verdict)
    return found[[*CELL, "published", "measured", "difference", "half_width", "verdict"]]


def _long(scores: pd.DataFrame) -> pd.DataFrame:
    """One row a cell with its half width; properties averaged over data sets."""
    if scores.empty:
        return pd.DataFrame(columns=[*CELL, "value", "half"])
    matrix = task_matrix(scores, list(dict.fromkeys(scores["model"])))
    values = matrix.melt(ignore_index=False).dropna(subset="value").reset_index()
    half = scores[CELL].assign(half=(scores["high"] - scores["low"]) / 2)
    return values.merge(half, on=CELL, how="left")[[*CELL, "value", "half"]]


def agreement(comparison: pd.DataFrame) -> pd.DataFrame:
    """Count agreeing cells: a row for each protocol with ``cells``, ``agrees``, ``differs``, ``not stated``."""
    verdicts = ["agrees", "differs", "not stated"]
    counts = pd.crosstab(comparison["protocol"], comparison["verdict"])
    counts = counts.reindex(columns=verdicts, fill_value=0).reindex(list(dict.fromkeys(comparison["protocol"])))
    counts.insert(0, "cells", counts.sum(axis=1))
    return counts.rename_axis("protocol", axis=0).rename_axis(None, axis=1)
