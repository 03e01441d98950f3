"""Measured scores next to published ones."""

import numpy as np
import pandas as pd

from ssltransfer.correlation import task_matrix
from ssltransfer.scores import CELL


def compare(scores: pd.DataFrame, spread: float) -> pd.DataFrame:
    """Put every measured score beside the published one of the same model, data set, setting and metric.

    Parameters
    ----------
    scores : pd.DataFrame
        Tidy table with measured and published rows. Properties are compared as means over data sets.
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
    ours, theirs = _long(measured), _long(published).drop(columns="protocol")
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
