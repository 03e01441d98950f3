"""The table folder of a suite: written by one job, read by the figures and the report."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ssltransfer.analysis.published import LABELS, merge_models, published_scores
from ssltransfer.analysis.suite_results import SuiteResults, suite_results
from ssltransfer.config import read_table
from ssltransfer.files import atomic_write, read_json, write_json
from ssltransfer.report.model_table import model_table
from ssltransfer.report.provenance import table_path
from ssltransfer.report.table import Table, csv_text, read_text, write_table
from ssltransfer.report.tables import add_notes, all_tables
from ssltransfer.results.scores import (
    TASK,
    collect_scores,
    read_checkpoints,
    read_episodes,
    read_notes,
    read_scores,
    without_empty_marks,
)


def make_tables(
    folder: str | Path,
    score_files: Sequence[str | Path],
    models: list[dict],
    datasets: dict[str, str],
    pretrained_on: dict[str, str],
    conventions: str,
    relabelled: dict[str, str],
    published: str,
    config: dict | None = None,
) -> None:
    """Collect the scores of a suite and write its table folder.

    Parameters
    ----------
    folder : path
        Made if missing.
    score_files : sequence of path
        Score files of the suite; none for the tables of the paper itself.
    models, datasets, pretrained_on, conventions, relabelled
        As for `suite_results`.
    published : str
        Version of the paper (``v1``, ``v2``) whose scores and models are added; empty for none.
    config : dict, optional
        Configuration of the suite. Its table of datasets says how many images there should be, its table of models
        what each model is.

    Raises
    ------
    InputError
        A score file or a source accuracy is wrong.
    """
    own = [row["model"] for row in models]
    scores = collect_scores(score_files, {} if config is None else promised_images(config))
    if published:
        scores = pd.concat([scores, published_scores(published)], ignore_index=True)
        models, datasets = merge_models(models), LABELS | datasets
    results = suite_results(scores, models, datasets, pretrained_on, conventions, relabelled)
    tables = all_tables(results, read_episodes(score_files), with_paper=bool(published))
    if own and config is not None:
        rows = {row["model"]: row for row in read_table(table_path(config, "models")) if row["model"] in own}
        tables.append(model_table(results, rows, read_checkpoints(score_files)))
    notes = read_notes(score_files)
    add_notes(tables, notes)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "notes.json", notes)
    write_results(results, tables, folder)


def promised_images(config: dict) -> dict[str, dict[str, int]]:
    """Images that a suite's table of datasets promises: dataset -> part -> number."""
    rows = read_table(table_path(config, "datasets"))
    return {row["dataset"]: {part: int(row[part]) for part in ("train", "val", "test")} for row in rows}


def write_results(results: SuiteResults, tables: list[Table], folder: str | Path) -> None:
    """Write `tables`, and the scores, models and names that `read_results` needs, into `folder`."""
    folder = Path(folder)
    _write_csv(without_empty_marks(results.scores), folder / "scores.csv")
    _write_csv(results.models, folder / "models.csv")
    for table in tables:
        write_table(folder, table)
    write_json(
        folder / "suite.json",
        {
            "datasets": results.datasets,
            "pretrained_on": results.pretrained_on,
            "conventions": results.conventions_name,
            "leave_out": list(results.leave_out),
            "source_label": results.source_label,
            "tables": [{"name": t.name, "title": t.title, "caption": t.caption, "section": t.section} for t in tables],
        },
    )


def read_results(folder: str | Path) -> SuiteResults:
    """Read the results that `write_results` wrote, with their correlations."""
    folder = Path(folder)
    suite = read_json(folder / "suite.json")
    models = pd.read_csv(folder / "models.csv", keep_default_na=False, na_values={"source_accuracy": [""]})
    models = models.astype({"label": str, "family": str, "source_accuracy": float, "highlight": bool})
    models[["label", "family"]] = models[["label", "family"]].map(read_text)
    return SuiteResults(
        read_scores(folder / "scores.csv"),
        models,
        suite["datasets"],
        suite["pretrained_on"],
        suite["conventions"],
        tuple(suite["leave_out"]),
        suite["source_label"],
        _read_correlations(folder / "correlations.csv"),
    )


def _read_correlations(path: Path) -> pd.DataFrame:
    """Read correlations.csv as it was written; text columns keep empty strings."""
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
    texts = ["panel", *TASK, "note", *(name for name in frame if name.endswith("_without"))]
    frame[texts] = frame[texts].astype(object).fillna("")
    return frame


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(csv_text(frame), encoding="utf-8")
