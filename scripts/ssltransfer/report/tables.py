"""The tables of a suite: scores of each protocol and kind, domains, statistics, comparison with the paper."""

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from ssltransfer.analysis.correlation import INTERVAL_MODELS
from ssltransfer.analysis.noise import NORMAL, average_error
from ssltransfer.analysis.suite_results import SuiteResults
from ssltransfer.analysis.tasks import CONVENTIONS, SOURCE, Panel, panels, tasks_of, transfer_targets
from ssltransfer.report.intervals import calibration_note, interval_note
from ssltransfer.report.labels import Labels, doubtful_note, joined, setting_label, suite_labels
from ssltransfer.report.marks import analysis_note, sign_scores
from ssltransfer.report.missing import MissingScore, by_reason
from ssltransfer.report.overview import overview_table
from ssltransfer.report.paper_tables import paper_tables
from ssltransfer.report.predictor_report import estimator_tables, predictor_tables
from ssltransfer.report.statistics_tables import (
    correlation_table,
    family_correlation_table,
    fewshot_pair_table,
    model_pair_table,
    pair_tables,
    rank_tables,
)
from ssltransfer.report.table import SIGNS, TIED, Column, Table, records_table
from ssltransfer.results.marks import ELSEWHERE
from ssltransfer.results.metric_info import KINDS, METRICS
from ssltransfer.results.scores import CELL, TASK, Task, is_published

#: Tables with the metrics of one or several kinds side by side, as in the paper: name -> (title, kinds).
MULTI_KIND_TABLES = {
    "detection": ("Object detection", ("detection-frozen", "detection-finetune")),
    "normals": ("Surface normals", ("normals",)),
    "segmentation": ("Semantic segmentation", ("segmentation",)),
    "properties": (
        "Calibration, perceptual distance, colour and attention",
        ("calibration", "inversion", "attention"),
    ),
}

HALF_WIDTHS = "±: half the width of"
#: Text for the units that have no name.
UNITS = {
    "similarity": "up to 1",
    "distance": "from 0 on",
    "fraction": "as a fraction",
    "levels^2": "in squared grey levels",
}


def all_tables(results: SuiteResults, with_paper: bool) -> list[Table]:
    """Make every table that the scores of a suite allow; `with_paper` says whether it is compared with the paper."""
    labels = suite_labels(results)
    overview = overview_table(results, labels)
    domain = domain_table(results, labels)
    tables = [] if domain is None else [domain]
    tables.append(correlation_table(results, labels))
    if (within := family_correlation_table(results, labels)) is not None:
        tables.append(within)
    if results.tasks.counted:
        tables += rank_tables(results, labels)
        tables += pair_tables(results, labels)
    tables += [table for table in (model_pair_table(results, labels), fewshot_pair_table(results, labels)) if table]
    judged = predictor_tables(results, labels)
    tables += [*judged, *estimator_tables(results, labels, bool(judged))]
    if with_paper:
        tables += paper_tables(results, labels)
    for table in tables:
        if not table.name.startswith("comparison"):  # which shows marked scores too, and says of each
            table.caption = joined(table.caption, analysis_note(results))
    return [overview, *score_tables(results, labels), *tables]


def left_out_table(differences: Sequence[tuple]) -> Table:
    """List the score files that are not shown, as (file, key, found, expected, file to make again)."""
    records = pd.DataFrame(differences, columns=["file", "key", "found", "expected", "forcerun"])
    caption = (
        "These score files were not measured as this suite says, so none of the tables and figures shows them. To "
        "measure again, run Snakemake with --forcerun and the file in the last column; deleting a file is not enough."
    )
    cells = records.set_index("file")
    return records_table("left-out", "Scores that were left out", caption, cells, data=records)


def missing_table(missing: Sequence[MissingScore], labels: dict[str, str]) -> Table:
    """List the scores that the suite lacks, one row for each reason; the csv has one row for each score.

    Parameters
    ----------
    missing : sequence of MissingScore
        At least one.
    labels : dict
        Dataset -> label.
    """
    groups = by_reason(missing)
    rows = {
        "Scores": [len(group) for group in groups],
        "Models": [joined_names(score.model for score in group) for group in groups],
        "Protocols": [joined_names(score.protocol for score in group) for group in groups],
        "Datasets": [joined_names(labels.get(score.dataset, score.dataset) for score in group) for group in groups],
        "Log": [group[0].log for group in groups],
    }
    caption = (
        "This report was made of the scores that exist. These are missing, for the reason in the first column; "
        f"missing.csv has one row for each, with the command that measures it, such as: {missing[0].command}"
    )
    cells = pd.DataFrame(rows, index=pd.Index([group[0].reason for group in groups], name="reason"))
    return records_table("missing", "Scores that are missing", caption, cells, data=pd.DataFrame(missing))


def joined_names(names: Iterable[str]) -> str:
    """Join names without repeats."""
    return ", ".join(dict.fromkeys(names))


def add_notes(tables: list[Table], notes: dict[str, dict[str, str]]) -> None:
    """Append the warnings of a protocol's jobs to the captions of its tables (see `scores.read_notes`)."""
    for table in tables:
        _, kinds = MULTI_KIND_TABLES.get(table.name, ("", ()))
        for protocol, note in notes.items():
            if table.protocol == protocol or note["kind"] in kinds:
                table.caption += f" {note['text']}"


def score_tables(results: SuiteResults, labels: Labels) -> list[Table]:
    """Make one table per protocol, for few-shot per number of shots and benchmark, and those of `MULTI_KIND_TABLES`."""
    tasks = results.tasks.tasks
    tables = [
        _accuracy_table(panel, results, labels)
        # Whatever the conventions, each number of shots has its own table, and source datasets are shown.
        for panel in panels(tasks, CONVENTIONS["v2"])
        if KINDS[panel.kind].headline is None
    ]
    for name, (title, kinds) in MULTI_KIND_TABLES.items():
        members = [task for task in tasks if task.kind in kinds]
        if members:
            tables.append(_metric_table(name, title, members, results, labels))
    published = _published_cells(results.cells)
    for table in tables:
        cells = [(model, task) for model in table.cells.index for task in table.cells.columns]
        table.flags = {(model, task): "published" for model, task in cells if (model, *task) in published}
        if table.flags:
            table.caption += " Italic: published, not measured here."
        _mark_elsewhere(table, results.cells)
    for table in tables:
        _mark_ties(table, results, labels)
    sign_scores(tables, results, labels)
    return tables


def _mark_ties(table: Table, results: SuiteResults, labels: Labels) -> None:
    """Mark the numbers that are not told from the best of their column, and say of which columns this is unknown."""
    tasks = [task for task in tasks_of(table.cells.columns) if task in results.shown and METRICS[task.metric].better]
    known = {task: models for task in tasks if (models := results.not_separable.get(task))}
    if not known:
        return
    untested: set[tuple[str, Task]] = set()
    for task, models in known.items():
        shown = table.cells.index[table.cells[task].notna()]
        untested |= {(model, task) for model in shown if model not in results.tested[task]}
        values = results.tasks.matrix[task] * METRICS[task.metric].better
        best = values[values.index.isin(models)].idxmax()
        table.tied |= {(model, task) for model in models - {best}}
    unknown = dict.fromkeys(labels.subject(task) for task in tasks if task not in known)
    table.caption += (
        f" {TIED} not separable from the best by a paired test, adjusted for all pairs of the column (5 %)."
    )
    table.caption += f" No such test: {', '.join(unknown)}." if unknown else ""
    published = {cell for cell in untested if table.flags.get(cell) == "published"}
    table.caption += " Published numbers are not tested." if published else ""
    own = {model for model, _ in untested - published}
    names = [labels.model(model) for model in table.cells.index if model in own]
    table.caption += f" Not tested in every column: {', '.join(names)}." if names else ""


def _mark_elsewhere(table: Table, cells: pd.DataFrame) -> None:
    """Flag the scores that were measured elsewhere, with their bundle as remark and in the caption."""
    adopted = cells[cells["source"].str.startswith(ELSEWHERE)]
    bundles = dict(zip(adopted[CELL].itertuples(index=False, name=None), adopted["source"], strict=True))
    shown = [(model, task) for model in table.cells.index for task in table.cells.columns if (model, *task) in bundles]
    found = {cell: bundles[cell[0], *cell[1]].removeprefix(ELSEWHERE) for cell in shown}
    if found:
        table.flags |= dict.fromkeys(found, "elsewhere")
        table.remarks |= {cell: f"measured elsewhere: {name}" for cell, name in found.items()}
        table.caption += f" {SIGNS['elsewhere']} measured elsewhere ({joined_names(found.values())})."


def adopted_table(cells: pd.DataFrame, refused: Sequence[tuple]) -> Table:
    """List the bundles that scores were adopted from, and the scores that were not and why.

    Parameters
    ----------
    cells : pd.DataFrame
        Tidy table.
    refused : sequence of (str, str, str, str)
        File, key, what was found there and what was expected.
    """
    adopted = cells[cells["source"].str.startswith(ELSEWHERE)]
    rows = [
        (source.removeprefix(ELSEWHERE), f"{len(own)} scores of {own['model'].nunique()} models", "", "")
        for source, own in adopted.groupby("source", sort=False)
    ]
    records = pd.DataFrame([*rows, *refused], columns=["file", "adopted or differs in", "found", "expected"])
    caption = (
        "Scores that were measured elsewhere: the bundles that some were adopted from, and the scores that were not, "
        "because they were measured in another way than this suite's. A score that is measured here takes their place."
    )
    return records_table("adopted", "Measured elsewhere", caption, records.set_index("file"), data=records)


def _published_cells(cells: pd.DataFrame) -> set[tuple]:
    """Cells to flag as published: none where nothing was measured."""
    published = cells[is_published(cells)]
    if len(published) in (0, len(cells)):
        return set()
    return set(published[CELL].itertuples(index=False, name=None))


def _accuracy_table(panel: Panel, results: SuiteResults, labels: Labels) -> Table:
    """Scores of a panel's tasks, which are the datasets: source datasets first, average of the others last."""
    matrix, source, leave_out = results.shown, results.tasks.source, results.leave_out
    targets = transfer_targets(panel.tasks, leave_out)
    groups = {
        task: "Source" if task.dataset in leave_out else "" if task in targets else "Other split"
        for task in panel.tasks
    }
    beside = [task for task in results.tasks.tasks if METRICS[task.metric].secondary]
    beside = [task for task in beside if (task.protocol, task.setting) == (panel.protocol, panel.setting)]
    tasks = sorted(panel.tasks, key=lambda task: ["Source", "Other split", ""].index(groups[task]))
    cells = matrix.loc[matrix[targets or tasks].notna().any(axis=1), tasks]
    columns = [Column(labels.dataset(task.dataset), groups[task], better=1) for task in tasks]
    if len(targets) > 1:
        cells[panel.average] = results.tasks.matrix.loc[cells.index, targets].mean(axis=1, skipna=False)
        columns.append(Column("Avg.", better=1))
    for task in beside:
        cells[task] = matrix.loc[cells.index, task]
        columns.append(Column(labels.dataset(task.dataset), METRICS[task.metric].label, better=1))
    if panel.kind == "linear" and not leave_out and source.notna().any():
        cells.insert(0, SOURCE, source)
        columns.insert(0, Column("ImageNet", "Source", better=1))
    halves = _half_widths(results, cells)
    error = average_error(results.noise, targets) if len(targets) > 1 else None
    if error is not None and error[cells.index].notna().any():
        halves = pd.DataFrame(math.nan, cells.index, cells.columns) if halves is None else halves
        halves[panel.average] = NORMAL * error[cells.index].where(cells[panel.average].notna())
    metrics = sorted({METRICS[task.metric].label for task in tasks})
    caption = f"{' / '.join(metrics)}, percent. Best bold, second best underlined."
    caption = joined(caption, interval_note(_rows_of(results.cells, cells), HALF_WIDTHS))
    if halves is not None and panel.average in halves and halves[panel.average].notna().any():
        units = KINDS[panel.kind].units
        caption += f" ± of the average: 95 % interval over {units}, for these datasets alone."
    if leave_out and panel.average in cells:
        caption += " Source datasets are not part of the average."
    if panel.average in cells and "Other split" in groups.values():
        caption += " Where the paper's split and another one are measured, only the paper's is part of the average."
    # The name is the protocol's, which users choose; the section follows from its kind.
    where = {"section": panel.kind, "protocol": panel.protocol}
    title = labels.panel(panel)
    return Table(panel.name, title, caption, cells, columns, labels.models, halves, **where)


def _rows_of(scores: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Rows of the tidy table that a table of models x tasks shows, but for means over datasets."""
    shown = pd.MultiIndex.from_frame(scores[TASK]).isin(list(cells.columns))
    return scores[shown & scores["model"].isin(cells.index)]


def _half_widths(results: SuiteResults, cells: pd.DataFrame) -> pd.DataFrame | None:
    """Half widths of the intervals of models x tasks, NaN where none was stated; None without any."""
    low, high = results.shown_ends
    halves = ((high - low) / 2).reindex(index=cells.index, columns=cells.columns)
    return halves if halves.notna().any(axis=None) else None


def _metric_table(name: str, title: str, tasks: list[Task], results: SuiteResults, labels: Labels) -> Table:
    """Scores of tasks that differ in their metrics, and for the feature properties their correlations below."""
    matrix = results.shown[tasks]
    several = len({task.dataset for task in tasks}) > 1
    columns = []
    for task in tasks:
        kind = KINDS[task.kind].label if name in ("detection", "properties") else ""
        group = joined(kind, labels.suffixes[task.protocol], labels.dataset(task.dataset) if several else "")
        metric = METRICS[task.metric]
        heading = joined(metric.label, setting_label(task.setting))
        columns.append(Column(heading, group, metric.decimals, metric.better))
    units: dict[str, dict[str, None]] = {}
    for metric in (METRICS[task.metric] for task in tasks):
        units.setdefault(metric.unit, {})[metric.label] = None
    others = [f"{', '.join(own)} {UNITS.get(unit, f'in {unit}')}" for unit, own in units.items() if unit != "percent"]
    rest = ["All other numbers in percent" if others else "In percent"] * ("percent" in units)
    caption = f"{'. '.join([*others, *rest])}. Best bold, second best underlined."
    cells = matrix[matrix.notna().any(axis=1)]
    footer = _correlation_row(tasks, cells.columns, results) if name == "properties" else None
    kinds = {task.kind for task in tasks}
    own = results.cells[results.cells["kind"].isin(kinds)]
    caption = joined(caption, interval_note(own, HALF_WIDTHS), calibration_note(own))
    caption = joined(caption, doubtful_note(results) if name == "segmentation" else "")
    halves = _half_widths(results, cells)
    return Table(name, title, caption, cells, columns, labels.models, halves, footer=footer)


def _correlation_row(tasks: list[Task], columns: pd.Index, results: SuiteResults) -> pd.DataFrame | None:
    """Last row of v2 Table 9: Pearson correlation with source accuracy; None with too few models."""
    own = results.correlations[pd.MultiIndex.from_frame(results.correlations[TASK]).isin(tasks)]
    by_task = own[own["n"].ge(INTERVAL_MODELS)].set_index(TASK).to_dict("index")
    if not by_task:
        return None
    row = [by_task[task]["pearson"] if task in by_task else math.nan for task in tasks]
    counts = sorted({by_task[task]["n"] for task in tasks if task in by_task})
    models = f" ({' to '.join(str(n) for n in dict.fromkeys([counts[0], counts[-1]]))} models)" if counts else ""
    return pd.DataFrame([row], index=[f"Correlation with source accuracy{models}"], columns=columns)


def domain_table(results: SuiteResults, labels: Labels) -> Table | None:
    """Compare models on the dataset they were pretrained on with models pretrained elsewhere.

    The scores are those of `SuiteResults.domain_scores`, own ones flagged; the footer has means over models of the own
    and of the other domains. None where there are no such scores.
    """
    wide = results.domain_scores
    if wide.empty:
        return None
    own = pd.DataFrame({d: [results.pretrained_on[m] == d for m in wide.index] for d in wide}, wide.index)
    here, elsewhere = wide.where(own).mean(), wide.where(~own).mean()
    footer = {"Pretrained on it": here, "Pretrained elsewhere": elsewhere, "Difference": here - elsewhere}
    caption = (
        "Does pretraining on the target domain pay? † marks the dataset a model was pretrained on; the last "
        "rows average over models. Compare rows of one method for the effect of the domain alone."
    )
    return Table(
        "domain-vs-transfer",
        "Domain or transfer?",
        caption,
        wide,
        [Column(labels.dataset(domain), "Linear accuracy on", better=1) for domain in wide],
        labels.models,
        flags={(model, domain): "own" for domain in wide for model in wide.index[own[domain]]},
        footer=pd.DataFrame(footer).T,
    )
