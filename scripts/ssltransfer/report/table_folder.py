"""The table folder of a suite: written by one job, read by the figures and the report."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ssltransfer.analysis.cell_outcomes import cell_outcomes
from ssltransfer.analysis.label_curves import KIND, collect_curves
from ssltransfer.analysis.pairs import SuitePairs, compare_cells, read_better
from ssltransfer.analysis.published import LABELS, VERSIONS, merge_models, published_scores
from ssltransfer.analysis.similarity import collect_similarities
from ssltransfer.analysis.suite_results import SuiteResults, suite_results
from ssltransfer.config.suite import Suite
from ssltransfer.errors import InputError
from ssltransfer.files import atomic_write, read_json, write_json
from ssltransfer.report.adoption import LOCAL_SOURCES, Adoption, adopt_scores, adopted_models
from ssltransfer.report.label_tables import label_tables
from ssltransfer.report.labels import suite_labels
from ssltransfer.report.marks import unsigned_note
from ssltransfer.report.missing import read_missing
from ssltransfer.report.model_table import model_table
from ssltransfer.report.overview import findings, remarks
from ssltransfer.report.predictor_report import PREDICTORS
from ssltransfer.report.score_check import ScoreCheck, check_scores
from ssltransfer.report.similarity_report import similarity_tables
from ssltransfer.report.statistics_tables import WINS
from ssltransfer.report.table import Table, csv_text, read_text, write_table
from ssltransfer.report.tables import add_notes, adopted_table, all_tables, left_out_table, missing_table
from ssltransfer.results.marks import ELSEWHERE
from ssltransfer.results.metric_info import SOURCE_KINDS
from ssltransfer.results.scores import (
    TASK,
    collect_scores,
    read_checkpoints,
    read_notes,
    read_scores,
    without_empty_columns,
)

log = logging.getLogger(__name__)


def make_tables(
    folder: str | Path,
    score_files: Sequence[str | Path],
    models: list[dict],
    datasets: dict[str, str],
    pretrained_on: dict[str, str],
    conventions: str,
    relabelled: dict[str, str],
    published: str,
    suite: Suite | None = None,
    missing: str | Path | None = None,
    similarity: Sequence[str | Path] = (),
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
        Version of the paper (``v1``, ``v2``) whose scores and models are added, another table (``dinov2``) whose scores
        of the suite's models are added, or empty for none.
    suite : Suite, optional
        What the scores have to be measured with; those that differ are left out and listed. It also says how many
        images there should be, what each model is, and from where scores of others are adopted (see
        `adoption.adopt_scores`). Without it all scores are shown.
    missing : path, optional
        File of the scores that the suite lacks (see `missing.write_missing`), which a table then lists.
    similarity : sequence of path
        Similarities of the models (see `similarity.collect_similarities`).

    Raises
    ------
    InputError
        No score is there, a score file or a source accuracy is wrong, or nothing is left to show.
    """
    promised = {} if suite is None else suite.datasets
    here = {Path(path).with_suffix("").parts[-3:] for path in score_files}
    adoption = Adoption() if suite is None else adopt_scores(suite, lambda cell: astuple(cell) in here)
    for refusal in adoption.refused:
        log.warning("%s", refusal)
    if not (score_files or published or adoption.scores) and suite is not None:
        raise InputError(f"suite {suite.name!r} has no score yet; measure some first")
    scores = collect_scores(score_files, promised)
    check = ScoreCheck([str(path) for path in score_files]) if suite is None else check_scores(score_files, suite)
    for difference in check.differences:
        log.warning("%s", difference)
    measured = set(scores[["kind", "dataset"]].itertuples(index=False, name=None))
    if suite is not None:
        measured |= {(suite.kind(cell.protocol), cell.dataset) for cell in adoption.refused_cells()}
    if check.differences and not (check.shown or published or adoption.scores):
        raise InputError(f"no score was measured as this suite says, such as {check.differences[0]}")
    if check.differences:
        scores = collect_scores(check.shown, promised)
    if adoption.scores:
        bundles = {str(path): f"{ELSEWHERE}{adoption.sources[cell]}" for cell, path in adoption.scores.items()}
        scores = pd.concat([scores, collect_scores(bundles, promised, bundles)], ignore_index=True)
        measured |= set(scores[["kind", "dataset"]].itertuples(index=False, name=None))
        sources = {dataset for kind, dataset in measured if kind in SOURCE_KINDS}
        models = [*models, *adopted_models(adoption, sources)]
    if published:
        printed = published_scores(published)
        if published in VERSIONS:
            models, datasets = merge_models(models), LABELS | datasets
        else:
            printed = printed[printed["model"].isin([row["model"] for row in models])]
            datasets = {name: LABELS[name] for name in printed["dataset"].unique()} | datasets
        scores = pd.concat([scores, printed], ignore_index=True)
    rows = {} if suite is None else suite.models | adoption.models
    shown = [*check.shown, *map(str, adoption.scores.values())]
    own = {
        model for model, row in rows.items() if model not in adoption.models and row["source"].startswith(LOCAL_SOURCES)
    }
    results = suite_results(scores, models, datasets, pretrained_on, conventions, relabelled, measured, own)
    highlighted = list(results.models.loc[results.models["highlight"], "model"])
    compared = compare_cells(cell_outcomes(results.analysed, shown), highlighted)
    results = replace(results, compared=compared, training_runs=_training_runs(rows))
    tables = all_tables(results, with_paper=bool(published))
    if check.differences:
        tables.append(left_out_table(check.differences))
    if adoption.scores or adoption.refused:
        tables.append(adopted_table(results.cells, adoption.refused))
    if missing is not None:
        tables.append(missing_table(read_missing(missing), results.datasets))
    with_curves = set(scores.loc[scores["kind"].eq(KIND), "protocol"])
    curves = collect_curves(path for path in shown if Path(path).parts[-3] in with_curves)
    if len(curves):
        labels = suite_labels(results)
        tables += label_tables(curves, labels, unsigned_note(scores[scores["kind"].eq(KIND)], labels))
    similarities, not_compared = collect_similarities(similarity)
    if len(similarities):
        tables += similarity_tables(similarities, not_compared, results, suite_labels(results))
    tables.append(model_table(results, rows, read_checkpoints(shown)))
    notes = read_notes([*score_files, *map(str, adoption.scores.values())], check.remarks)
    add_notes(tables, notes)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "notes.json", notes)
    write_results(results, tables, folder)


def write_results(results: SuiteResults, tables: list[Table], folder: str | Path) -> None:
    """Write `tables`, and the scores, models and names that `read_results` needs, into `folder`."""
    folder = Path(folder)
    _write_csv(without_empty_columns(results.scores), folder / "scores.csv")
    _write_csv(results.models, folder / "models.csv")
    if len(results.pairs) < results.compared.compared:
        _write_csv(_wins_table(*results.wins), folder / f"{WINS}.csv")
    highlighted = set(results.models.loc[results.models["highlight"], "model"])
    judged = next((table.data for table in tables if table.name == PREDICTORS), None)
    for table in tables:
        write_table(folder, replace(table, highlighted=highlighted))
    write_json(
        folder / "suite.json",
        {
            "datasets": results.datasets,
            "pretrained_on": results.pretrained_on,
            "conventions": results.conventions_name,
            "leave_out": list(results.leave_out),
            "source_label": results.source_label,
            "training_runs": results.training_runs,
            "findings": findings(results, suite_labels(results)),
            "remarks": remarks(results, suite_labels(results), judged),
            "tables": [{"name": t.name, "title": t.title, "caption": t.caption, "section": t.section} for t in tables],
        },
    )


def read_results(folder: str | Path) -> SuiteResults:
    """Read the results that `write_results` wrote, with their correlations, pairs of models and mean ranks."""
    folder = Path(folder)
    suite = read_json(folder / "suite.json")
    wins = _read_wins(folder / f"{WINS}.csv")
    models = pd.read_csv(folder / "models.csv", keep_default_na=False, na_values={"source_accuracy": [""]})
    models = models.astype({"label": str, "family": str, "source_accuracy": float, "measured": str, "highlight": bool})
    texts = ["label", "family", "measured"]
    models[texts] = models[texts].map(read_text)
    return SuiteResults(
        read_scores(folder / "scores.csv"),
        models,
        suite["datasets"],
        suite["pretrained_on"],
        suite["conventions"],
        tuple(suite["leave_out"]),
        suite["source_label"],
        _read_coefficients(folder / "correlations.csv"),
        SuitePairs() if wins else _listed_pairs(folder / "pairs.csv"),
        _read_ranks(folder / "mean-ranks.csv"),
        {model: (run, epoch) for model, (run, epoch) in suite["training_runs"].items()},
        _read_predictors(folder / f"{PREDICTORS}.csv"),
        wins,
    )


def _training_runs(rows: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, float]]:
    """Training run and epoch of the models whose rows of the model table have both."""
    return {model: (row["run"], float(row["epoch"])) for model, row in rows.items() if row["run"] and row["epoch"]}


def _read_coefficients(path: Path, *texts: str) -> pd.DataFrame:
    """Read correlations.csv, or another table with its columns, as it was written; text columns keep empty strings."""
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
    names = ["panel", *TASK, "note", *texts, *(name for name in frame if name.endswith("_without"))]
    frame[names] = frame[names].astype(object).fillna("")
    return frame


def _read_predictors(path: Path) -> pd.DataFrame | None:
    """Read the table of predictors on each dataset; there is none where no predictor was judged."""
    return _read_coefficients(path, "predictor", "picked") if path.exists() else None


def _listed_pairs(path: Path) -> SuitePairs:
    """Read pairs.csv as it was written, where it lists all pairs; there is none without pairs."""
    numbers = ["difference", "low", "high", "p", "p_adjusted"]
    if not path.exists():
        return SuitePairs()
    frame = pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in numbers})
    for name in frame.columns.difference(numbers):
        texts = frame[name].astype(str)
        frame[name] = texts.map({text: read_text(text) for text in texts.unique()})
    return SuitePairs(frame, read_better(frame))


def _wins_table(wins: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """One row per pair of models, and one per model with itself, so that their order is kept."""
    i, j = np.triu_indices(len(wins))
    names, counts = wins.index.to_numpy(), (wins.to_numpy(), wins.to_numpy().T, compared.to_numpy())
    columns = dict(zip(("better", "worse", "compared"), (each[i, j] for each in counts), strict=True))
    return pd.DataFrame({"model": names[i], "other": names[j]} | columns)


def _read_wins(path: Path) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Read what `_wins_table` made; None where all pairs are listed in pairs.csv."""
    if not path.exists():
        return None
    frame = pd.read_csv(path, dtype={"model": str, "other": str}, keep_default_na=False)
    names = frame["model"].map(read_text).unique()
    i, j = np.triu_indices(len(names))
    wins, compared = (np.zeros((len(names),) * 2, int) for _ in range(2))
    wins[i, j], compared[i, j], compared[j, i] = frame["better"], frame["compared"], frame["compared"]
    wins[j, i] = frame["worse"]
    return pd.DataFrame(wins, names, names), pd.DataFrame(compared, names, names)


def _read_ranks(path: Path) -> pd.DataFrame:
    """Read mean-ranks.csv as `SuiteResults.mean_ranks` has it; there is none without a counted task."""
    if not path.exists():
        return pd.DataFrame()
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"model": str})
    return frame.set_index("model")


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(csv_text(frame), encoding="utf-8")
