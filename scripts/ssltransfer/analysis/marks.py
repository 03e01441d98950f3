"""Scores that are not full measurements: which ones these are, and which of them the analysis leaves out."""

from collections.abc import Collection

import pandas as pd

from ssltransfer.results.marks import MARKS
from ssltransfer.results.metric_info import KINDS
from ssltransfer.results.scores import AVERAGE, CELL, TASK, is_published


def as_tasks(scores: pd.DataFrame) -> pd.DataFrame:
    """Name the tasks that scores belong to: properties (see `tasks.task_matrix`) are averaged over datasets."""
    performance = scores["kind"].map({name: kind.performance for name, kind in KINDS.items()}).astype(bool)
    return scores.assign(dataset=scores["dataset"].where(performance, AVERAGE))


def marked(scores: pd.DataFrame, marks: Collection[str] = MARKS) -> pd.Series:
    """Whether each score of the tidy table has one of some marks, or belongs to an average with one that has."""
    own = scores[list(marks)].ne("").any(axis=1)
    if not own.any():
        return own
    tasks = as_tasks(scores)
    return own.groupby([tasks[name] for name in [*CELL, "source"]]).transform("any")


def left_out(cells: pd.DataFrame) -> pd.Series:
    """Whether the analysis leaves out a score: a partial one, or a shortened one of a task with published scores.

    Among scores that were all measured here, those of a shortened training are alike for all models, and stay.

    Parameters
    ----------
    cells : pd.DataFrame
        Tidy table with one row per cell.
    """
    out = marked(cells, ["partial"])
    shortened = marked(cells, ["shortened"])
    if not shortened.any():
        return out
    tasks = pd.MultiIndex.from_frame(as_tasks(cells)[TASK])
    return out | (shortened & tasks.isin(tasks[is_published(cells).to_numpy()]))


def mark_texts(cells: pd.DataFrame, mark: str) -> dict[tuple, str]:
    """Texts of a mark: model and task (`CELL`) -> what is missing; of an average, of each of its datasets."""
    found = cells[cells[mark].ne("")]
    texts: dict[tuple, list[str]] = {}
    for cell, dataset, text in zip(
        as_tasks(found)[CELL].itertuples(index=False, name=None), found["dataset"], found[mark], strict=True
    ):
        average = cell[CELL.index("dataset")] == AVERAGE
        texts.setdefault(cell, []).append(f"{dataset}: {text}" if average else text)
    return {cell: "; ".join(parts) for cell, parts in texts.items()}
