"""Captions of intervals: their level, and the test units that they are computed over."""

import re

import pandas as pd

from ssltransfer.analysis.uncertainty import CALIBRATED
from ssltransfer.report.labels import joined
from ssltransfer.results.metric_info import KINDS, METRICS
from ssltransfer.results.scores import INTERVAL, LEVEL, interval_level

#: Metrics that are biased by an amount which depends on the number of test images.
EXPECTED = ("map11", "ap", "ap50", "ap75")


def interval_note(cells: pd.DataFrame, subject: str) -> str:
    """One sentence about the intervals of some scores, empty where none has one.

    Parameters
    ----------
    cells : pd.DataFrame
        Rows of the tidy table.
    subject : str
        What shows the intervals, such as ``±`` or ``Thin lines:``.

    Returns
    -------
    str
        The units that the intervals are over, by kind where they differ, and the metrics whose intervals have a level
        below 95 %.
    """
    found = cells[cells["low"].notna()]
    kinds: dict[str, list[str]] = {}
    several = found["kind"].map({name: kind.label for name, kind in KINDS.items()}).nunique() > 1
    for kind, text in found[["kind", INTERVAL]].drop_duplicates().itertuples(index=False):
        labels = kinds.setdefault(_units(kind, text), [])
        labels += [KINDS[kind].label] if KINDS[kind].label not in labels else []
    if not kinds:
        return ""
    over = [
        f"over {units}" + (f" ({', '.join(names)})" if several and len(kinds) > 1 else "")
        for units, names in kinds.items()
    ]
    levels: dict[float, list[str]] = {}
    stated = found[INTERVAL].map(interval_level).groupby(found["metric"], sort=False).unique()
    for metric, own in stated.items():
        some = "some of " if len(own) > 1 else ""
        for level in own[own != LEVEL]:
            levels.setdefault(level, []).append(some + METRICS[metric].label)
    lower = "; ".join(f"{100 * level:.0f} % for {', '.join(dict.fromkeys(names))}" for level, names in levels.items())
    note = joined(subject, f"95 % intervals {', '.join(over)}", f"({lower})" if lower else "") + "."
    if found["metric"].isin(EXPECTED).any():
        note += " Those of average precision are for its expected value on test sets of this size."
    if found["kind"].eq("linear").any():
        note += (
            " Those of linear scores do not include the draw of the validation images that select the penalty "
            "(validation_draws)."
        )
    return note


def _units(kind: str, text: str) -> str:
    """Units that an interval is over, as its method says; what they are for (one training run), as its kind says.

    They may be larger than a test image (scenes), or others than those of most values of the kind: the last point of a
    label-efficiency curve is a many-shot score, over test images.
    """
    found = re.search(r", over ([a-z ]+)", text)
    usual, comma, remark = KINDS[kind].units.partition(",")
    own = found[1].strip() if found else usual
    return own + comma + remark


def calibration_note(cells: pd.DataFrame) -> str:
    """Say how many calibration errors sampling noise explains; empty where none has an interval."""
    texts = cells.loc[cells["metric"].eq("ece") & cells["low"].notna(), INTERVAL]
    inside = sum(CALIBRATED in text for text in texts)
    return f"{inside} of {len(texts)} calibration errors are {CALIBRATED} (see scores.csv)." if len(texts) else ""
