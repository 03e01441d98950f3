"""Half widths of confidence intervals in tables, and the sentences of captions that say what the intervals hold."""

import math

import pandas as pd

from ssltransfer.results.scores import CELL

HOLDS = {
    "episodes": "of the draw of episodes",
    "test images": "of the draw of test images alone, with the same training, selection and seed",
    "scenes": "of the draw of test scenes alone, with the same training, selection and seed",
    "images": "of the draw of these few images",
}
"""Units at the end of an interval's method -> the noise that it holds."""


def half_widths(scores: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame | None:
    """Half widths of the intervals of models x tasks, NaN where none was stated; None without any."""
    half = (scores.set_index(CELL)[["low", "high"]].diff(axis=1)["high"] / 2).dropna()
    halves = [[half.get((model, *task), math.nan) for task in cells.columns] for model in cells.index]
    frame = pd.DataFrame(halves, index=cells.index, columns=cells.columns, dtype=float)
    return frame if frame.notna().any(axis=None) else None


def interval_caption(scores: pd.DataFrame, cells: pd.DataFrame) -> str:
    """Say how the intervals of a table's cells were computed and which noise they hold; empty without any.

    Parameters
    ----------
    scores : pd.DataFrame
        Tidy table with one row per cell.
    cells : pd.DataFrame
        Models x tasks.
    """
    shown = {(model, *task) for model in cells.index for task in cells.columns}
    rows = scores[[cell in shown for cell in scores[CELL].itertuples(index=False, name=None)]]
    stated = rows[rows["low"].notna()]
    if stated.empty:
        return ""
    # Published few-shot scores state their interval without its method.
    parts = [text.split("; ") if text else ["normal, over episodes"] for text in stated["interval"]]
    methods = dict.fromkeys(part[0] + (f", {part[1]}" if part[1:] and part[1].endswith(" %") else "") for part in parts)
    units = dict.fromkeys(part[0].rpartition("over ")[2] for part in parts)
    holds = "; ".join(HOLDS[unit] for unit in units if unit in HOLDS)
    text = f"± half the confidence interval, 95 % unless stated ({'; '.join(methods)}). It holds the noise {holds}."
    missing = rows.loc[rows["low"].isna() & rows["interval"].ne(""), "interval"]
    if len(missing):
        reasons = dict.fromkeys(reason.removeprefix("no interval: ") for reason in missing)
        shown_reason = next(iter(reasons)) + (f" and {len(reasons) - 1} other reasons" if len(reasons) > 1 else "")
        text += f" {len(missing)} scores have no interval: {shown_reason}."
    return text


def calibration_caption(scores: pd.DataFrame) -> str:
    """Say how many calibration errors are not distinguishable from a calibrated model's; empty if none is known."""
    texts = scores.loc[scores["metric"].eq("ece"), "interval"]
    known = int(texts.ne("").sum())
    inside = int(texts.str.contains("not distinguishable from calibrated", regex=False).sum())
    if not known:
        return ""
    return (
        f"{inside} of {known} calibration errors are not distinguishable from those of a calibrated model; "
        "scores.csv has the interval of each dataset, the means over datasets have none."
    )
