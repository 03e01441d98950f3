"""Score files, and the tidy table that every table and figure is made from.

The tidy table has one row per number:

========  ==================================================================================
model     id of the model
protocol  id of the protocol (a settings block); published numbers carry the id of the kind
kind      the type of protocol, a key of `KINDS`
dataset   id of the dataset; ``average`` where only a mean over datasets was published
setting   variant within the protocol (``20-shot``, ``linear-scaled``), often empty
metric    a key of `METRICS`, which also fixes unit and direction
value     the number, in the unit of the metric
low       lower end of the 95 % interval, empty when none was stated
high      upper end of the 95 % interval
source    ``measured``, ``published-v1``, ``published-v2``, ``published-dinov2``, or ``elsewhere:`` and the bundle
          that the score was adopted from
partial   the part of the data that the number was measured on, empty for all of it
shortened how the training behind the number was shortened, empty where it was not
interval  how the interval was computed, followed by its level where that is not 0.95, or why there is none
========  ==================================================================================
"""

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ssltransfer.errors import InputError
from ssltransfer.files import read_json
from ssltransfer.results.marks import MARKS, partial, shortened
from ssltransfer.results.metric_info import KINDS, METRICS, SOURCE_KINDS, measured_cell
from ssltransfer.results.outcome_header import belong, outcome_path, read_intervals, short_path
from ssltransfer.results.score_reader import read_score

AVERAGE = "average"
SMALLEST_PERCENTAGE = 1
"""Smallest source accuracy that is taken for a percentage; smaller ones are most likely fractions."""
STANDARD_VOTE = "20-nn"
"""Setting that stands for a k-nearest-neighbour protocol."""
LEVEL = 0.95
"""Level of the intervals whose text names none."""
MAX_WARNINGS = 3
"""Number of warnings per protocol that captions repeat."""


class Task(NamedTuple):
    """A number that can be measured for every model: the columns of the tidy table that name it.

    The average over the tasks of a panel is a task as well: its dataset is `AVERAGE` and its metric ``mean``.
    """

    protocol: str
    kind: str
    dataset: str
    setting: str
    metric: str


TASK = list(Task._fields)
CELL = ["model", *TASK]
FIXED_COLUMNS = [*CELL, "value", "low", "high", "source"]
INTERVAL = "interval"
OPTIONAL_COLUMNS = (*MARKS, INTERVAL)
"""Columns of text that a written table lacks where they are empty for all scores."""
COLUMNS = [*FIXED_COLUMNS, *OPTIONAL_COLUMNS]


def collect_scores(
    paths: Iterable[str | Path],
    promised: Mapping[str, Mapping[str, int | None]] | None = None,
    sources: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Collect score files into the tidy table, in the order given.

    Parameters
    ----------
    paths : iterable of path
    promised : mapping of str to mapping, optional
        Dataset -> its images in ``train``, ``val`` and ``test`` (see `marks.partial`).
    sources : mapping of str to str, optional
        Score file -> its source, where that is not ``measured``.

    Raises
    ------
    InputError
        A file is wrong (see `read_score`), or two files hold the same cell.
    """
    rows: list[dict] = []
    origin: dict[tuple[str, str, str], str | Path] = {}
    for path in paths:
        score = read_score(path)
        key = (score["model"], score["protocol"], score["dataset"])
        if key in origin:
            raise InputError(f"{path}: holds the same model, protocol and dataset as {origin[key]}")
        origin[key] = path
        head = {name: score[name] for name in ("model", "protocol", "kind", "dataset")}
        head |= {"source": (sources or {}).get(str(path), "measured"), "shortened": shortened(score)}
        head["partial"] = partial(score, (promised or {}).get(score["dataset"]))
        outcomes = _outcomes_of(path, score)
        rows += [head | _with_interval(value, outcomes) for value in score["values"]]
    return tidy(rows)


def _outcomes_of(path: str | Path, score: Mapping) -> dict[tuple[str, str], dict]:
    """Headers of the outcomes of a score, empty where there are none.

    Where they belong to another score, values without an interval of their own get the reason.
    """
    try:
        entries = read_intervals(outcome_path(path))
    except (InputError, IndexError):  # the path of a score outside of a results folder is shorter
        return {}
    if belong(entries, score["values"]):
        return entries
    note = f"no interval: the outcomes belong to another score; delete {short_path(path)}"
    without = (value for value in score["values"] if value.get("low") is None)
    return {(value["setting"], value["metric"]): {"interval": None, "note": note} for value in without}


def _with_interval(value: Mapping, outcomes: Mapping[tuple[str, str], Mapping]) -> dict:
    """Return a value with the interval of its outcome, where it has one, or the reason why there is none."""
    outcome = outcomes.get((value["setting"], value["metric"]))
    if outcome is None:
        return {**value, INTERVAL: describe_interval(value)}
    if outcome["interval"] is None:
        return {**value, "low": None, "high": None, INTERVAL: outcome["note"]}
    return {**value, **outcome["interval"], INTERVAL: describe_interval(outcome["interval"])}


def describe_interval(value: Mapping) -> str:
    """Say how the interval of a value was computed (``Wilson``), with a level other than 0.95 (``basic; 0.9``)."""
    method, level = value.get("method", ""), value.get("level", LEVEL)
    return method if level == LEVEL else f"{method}; {level:g}"


def interval_level(text: str) -> float:
    """Return the level of an interval that `describe_interval` describes."""
    _, separator, level = text.rpartition("; ")
    return float(level) if separator else LEVEL


def read_checkpoints(paths: Iterable[str | Path]) -> dict[str, dict]:
    """Read what checked score files, in folders called as their models, say about the checkpoint of each model.

    It is what the last score says that does.
    """
    found: dict[str, dict] = {}
    for path in reversed(list(map(Path, paths))):
        if path.parts[-2] not in found and "checkpoint" in (score := read_json(path)):
            found[path.parts[-2]] = score["checkpoint"]
    return found


def read_notes(paths: Iterable[str | Path], remarks: Mapping[str, str] | None = None) -> dict[str, dict[str, str]]:
    """Join the warnings of checked score files into one text per protocol, for captions of tables and figures.

    Parameters
    ----------
    paths : iterable of path
    remarks : mapping, optional
        Score file -> a remark on it, which stands before all warnings.

    Returns
    -------
    dict of dict
        Protocol -> ``kind`` and ``text``, without protocols that have no warnings. A warning that only some scores of
        a protocol have is followed by their datasets and number; those beyond `MAX_WARNINGS` are counted.
    """
    kinds: dict[str, str] = {}
    cells: dict[str, set[tuple[str, str]]] = {}
    found: dict[str, dict[str, set[tuple[str, str]]]] = {}
    kept = ("protocol", "model", "dataset", "kind", "warnings")
    scores = {}
    for path in paths:
        score = read_json(path)
        scores[str(path)] = {key: score[key] for key in kept if key in score}
    warnings = [(scores[path], [remark]) for path, remark in (remarks or {}).items()]
    warnings += [(score, score.get("warnings", ())) for score in scores.values()]
    for score, texts in warnings:
        protocol, cell = score["protocol"], (score["model"], score["dataset"])
        kinds[protocol] = score["kind"]
        cells.setdefault(protocol, set()).add(cell)
        for warning in texts:
            found.setdefault(protocol, {}).setdefault(warning, set()).add(cell)
    notes = {}
    for protocol, having_of in found.items():
        texts = [text + _extent(having, cells[protocol]) for text, having in having_of.items()]
        more = [f"and {len(texts) - MAX_WARNINGS} more in the score files"] if len(texts) > MAX_WARNINGS else []
        text = f"{protocol}: {'; '.join([*texts[:MAX_WARNINGS], *more])}."
        notes[protocol] = {"kind": kinds[protocol], "text": text}
    return notes


def _extent(having: set[tuple[str, str]], cells: set[tuple[str, str]]) -> str:
    """Datasets and number of the scores that have a warning, empty where all cells of the protocol have it."""
    datasets = {dataset for _, dataset in having}
    there = {cell for cell in cells if cell[1] in datasets}
    parts = [", ".join(sorted(datasets))] if there != cells else []
    if having != there:
        parts.append(f"{len(having)} of {len(there)} scores")
    return f" ({'; '.join(parts)})" if parts else ""


def is_published(scores: pd.DataFrame) -> pd.Series:
    """Mark the scores of the tidy table that are published numbers, without a score file."""
    return scores["source"].str.startswith("published", na=False).astype(bool)


def tidy(rows: list[dict]) -> pd.DataFrame:
    """Make the tidy table of `rows`; missing ``low`` and ``high`` become NaN, missing optional columns empty."""
    frame = pd.DataFrame(rows, columns=COLUMNS)
    texts = list(OPTIONAL_COLUMNS)
    frame[texts] = frame[texts].astype(object).fillna("")
    return frame.astype({"value": float, "low": float, "high": float})


def without_empty_columns(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the tidy table as it is written: without optional columns that are empty for all scores."""
    return scores.drop(columns=[name for name in OPTIONAL_COLUMNS if scores[name].eq("").all()])


def read_scores(path: str | Path) -> pd.DataFrame:
    """Read a tidy table written with ``to_csv(index=False)``; empty settings stay empty strings.

    Optional columns may be missing (see `without_empty_columns`).
    """
    frame = pd.read_csv(path, keep_default_na=False, na_values={"low": [""], "high": [""], "value": [""]})
    if [name for name in frame.columns if name not in OPTIONAL_COLUMNS] != FIXED_COLUMNS:
        raise InputError(f"{path}: columns {', '.join(frame.columns)} found, expected {', '.join(FIXED_COLUMNS)}")
    bad = frame[frame["value"].isna() | ~frame["metric"].isin(list(METRICS)) | ~frame["kind"].isin(list(KINDS))]
    if len(bad):
        raise InputError(f"{path}: row {bad.index[0] + 2}: value missing, or metric or kind unknown")
    return tidy(frame.to_dict("records"))


def source_accuracy(
    models: list[dict], scores: pd.DataFrame, left_out: Collection[tuple[str, str]] = ()
) -> pd.DataFrame:
    """Accuracy of each model on its source dataset, the x axis of every correlation.

    Parameters
    ----------
    models : list of dict
        Rows of the model table with ``model`` and ``source_accuracy``: a number in percent, ``measured:DATASET`` (the
        linear score of that cell; of a dataset without linear scores that of `STANDARD_VOTE`, or the only
        k-nearest-neighbour score; of several protocols the first in the order of the table), or
        ``measured:PROTOCOL/DATASET``, or empty. All models that name the same have it of the same protocol and setting,
        and published scores count where none is measured.
    scores : pd.DataFrame
        Tidy table.
    left_out : collection of tuple of str
        Kind and dataset of scores that were left out of `scores`.

    Returns
    -------
    pd.DataFrame
        Indexed by model. ``source_accuracy``: percent, NaN where the column is empty, or the cell is missing or
        partial. ``measured``: ``linear``, or the setting of the vote (``20-nn``) or ``k-nn``; empty for other numbers.
        ``protocol``: of these scores where several of the kind have the dataset, else empty.

    Raises
    ------
    InputError
        The text is neither a percentage (1 to below 100) nor names such a score, or the models that name the same have
        scores of different protocols or votes.
    """
    found = scores[scores["kind"].isin(SOURCE_KINDS) & scores["metric"].ne("top5")]
    texts = {row["model"]: str(row.get("source_accuracy") or "").strip() for row in models}
    rows: dict[str, dict] = {}
    for text in dict.fromkeys(texts.values()):
        named = [model for model in texts if texts[model] == text]
        if text.startswith("measured:"):
            rows |= _source_scores(named, text, found, left_out)
        elif text not in ("", "nan"):
            rows |= {model: {"source_accuracy": _percent(model, text)} for model in named}
    unknown = {"source_accuracy": math.nan, "measured": "", "protocol": ""}
    complete = {model: unknown | rows.get(model, {}) for model in texts}
    return pd.DataFrame.from_dict(complete, orient="index", columns=list(unknown))


def _source_scores(
    models: list[str], text: str, scores: pd.DataFrame, left_out: Collection[tuple[str, str]]
) -> dict[str, dict]:
    """Scores of one protocol and setting that a source accuracy names, of the models that name it and have it."""
    where = f"models table, row {models[0]}, source_accuracy: {text!r} names"
    protocol, dataset = measured_cell(text)
    on_dataset = scores[scores["dataset"].eq(dataset)]
    found = on_dataset[on_dataset["protocol"].eq(protocol) | (not protocol)]
    scored = {*found["kind"], *(kind for kind, other in left_out if other == dataset)}
    kind = next((kind for kind in SOURCE_KINDS if kind in scored), None)
    if kind is None:
        raise InputError(
            f"{where} a dataset without a linear or k-nearest-neighbour score in this suite; write a dataset of such a "
            "task, a number, or nothing"
        )
    found = found[found["kind"].eq(kind) & found["model"].isin(models)]
    own = found[~is_published(found)]
    found = own if len(own) else found
    protocols = list(found.drop_duplicates("model")["protocol"].unique())
    if len(protocols) > 1:
        raise InputError(
            f"{where} scores of {' and '.join(protocols)}, because not every model has the first; write "
            f"measured:{protocols[0]}/{dataset} or another of them"
        )
    found = found[found["protocol"].isin(protocols)]
    settings = list(found["setting"].unique())
    if len(settings) > 1 and STANDARD_VOTE not in settings:
        raise InputError(
            f"{where} the votes {', '.join(settings)} of {protocols[0]}; measure {STANDARD_VOTE} as well, or write "
            "numbers"
        )
    if STANDARD_VOTE in settings:
        found = found[found["setting"].eq(STANDARD_VOTE)]
    others = on_dataset[on_dataset["kind"].eq(kind) & ~is_published(on_dataset)]["protocol"]
    return {
        row["model"]: {
            "source_accuracy": float(row["value"]),
            "measured": row["setting"] or {"linear": "linear", "knn": "k-nn"}[kind],
            "protocol": row["protocol"] if others.nunique() > 1 else "",
        }
        for row in found.drop_duplicates("model").to_dict("records")
        if not row["partial"]
    }


def _percent(model: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not SMALLEST_PERCENTAGE <= value < 100:
        raise InputError(
            f"models table, row {model}, source_accuracy: {text!r} found, "
            "write a percentage from 1 to below 100, measured:DATASET, or nothing"
        )
    return value


def source_datasets(models: list[dict]) -> list[str]:
    """Datasets whose scores are the x axis; like ImageNet in the paper they are not transfer targets."""
    texts = [str(row.get("source_accuracy") or "") for row in models]
    return sorted({measured_cell(text)[1] for text in texts if text.startswith("measured:")})
