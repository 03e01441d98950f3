"""Outcomes of the scores of a suite, read one cell after the other."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from ssltransfer.errors import InputError
from ssltransfer.results.outcome_file import Outcome, load_outcomes
from ssltransfer.results.outcome_header import outcome_path
from ssltransfer.results.scores import TASK, Task, is_published

NO_OUTCOMES = "no outcomes"
STALE = "outcomes of another score"


def cell_outcomes(
    cells: pd.DataFrame, score_files: Iterable[str | Path]
) -> Iterator[tuple[Task, dict[str, Outcome | str]]]:
    """Yield the outcomes of all models for each task.

    Only those of one protocol and dataset are held at a time.

    Parameters
    ----------
    cells : pd.DataFrame
        Tidy table with one row per cell; published ones have no outcomes and are left out.
    score_files : iterable of path
        Score files, ``.../scores/{protocol}/{model}/{dataset}.json``; the outcomes are beside them (see
        `outcome_header.outcome_path`).

    Yields
    ------
    task : Task
    outcomes : dict
        Model -> its outcome, or why there is none: no file, a damaged one, or one that belongs to another score.
    """
    files = {(path.parts[-3], path.parts[-2], path.stem): path for path in map(Path, score_files)}
    measured = cells[~is_published(cells)]
    for (protocol, dataset), scores in measured.groupby(["protocol", "dataset"], sort=False):
        loaded = {model: _load(files.get((protocol, model, dataset))) for model in dict.fromkeys(scores["model"])}
        for task, own in scores.groupby(TASK, sort=False):
            task = Task(*task)
            yield task, {row.model: _outcome(loaded[row.model], task, row.value) for row in own.itertuples()}


def _load(score_file: Path | None) -> dict[tuple[str, str], Outcome] | str:
    path = score_file and outcome_path(score_file)
    if not path or not path.exists():
        return NO_OUTCOMES
    try:
        return load_outcomes(path)
    except InputError as error:
        return str(error)


def _outcome(loaded: dict[tuple[str, str], Outcome] | str, task: Task, value: float) -> Outcome | str:
    if isinstance(loaded, str):
        return loaded
    outcome = loaded.get((task.setting, task.metric))
    if outcome is None:
        return NO_OUTCOMES
    return outcome if math.isclose(outcome.value, value, rel_tol=1e-9, abs_tol=1e-12) else STALE
