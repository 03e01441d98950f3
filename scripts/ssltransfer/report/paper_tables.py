"""Tables beside the paper: its claims, measured next to published scores, and checks of its own printed numbers."""

import math

import pandas as pd

from ssltransfer.analysis.comparison import agreement, compare
from ssltransfer.analysis.correlation import pearson, rounding_interval
from ssltransfer.analysis.paper_claims import check_claims
from ssltransfer.analysis.published import PAPER_SOURCES, printed_averages, printed_correlations, training_details
from ssltransfer.analysis.scale import to_analysis_scale
from ssltransfer.analysis.suite_results import SuiteResults
from ssltransfer.report.labels import Labels, joined, setting_label
from ssltransfer.report.table import SIGNS, Column, Table, records_table
from ssltransfer.results.marks import MARKS
from ssltransfer.results.metric_info import KINDS, METRICS
from ssltransfer.results.scores import Task, is_published

PARTS = ("published", "measured", "difference")


def paper_tables(results: SuiteResults, labels: Labels) -> list[Table]:
    """Claims, and measured next to published scores; where nothing was measured, checks of the printed numbers.

    Scores that others published than the paper's authors stand next to measured ones only.
    """
    if not results.scores["source"].isin(PAPER_SOURCES).any():
        return comparison_tables(results, labels)
    claims = claims_table(check_claims(results.scores))
    if not is_published(results.scores).all():
        return [*comparison_tables(results, labels), claims]
    return [claims, printed_correlation_table(results, labels), averages_table(results, labels), training_table()]


def claims_table(claims: pd.DataFrame) -> Table:
    """The statements of the paper and whether they hold."""
    records = claims.set_index(claims["version"] + " · " + claims["statement"]).drop(columns=["version", "statement"])
    if claims["measured"].eq("").all():
        records = records.drop(columns=["measured", "measured_verdict"])
    counts = ", ".join(f"{n} {verdict}" for verdict, n in claims["verdict"].value_counts().items())
    caption = (
        f"Quantitative statements of both versions of the paper, recomputed from their own published tables ({counts}) "
        "and, where every score that a statement needs was measured here, from measured scores."
    )
    headings = {column: column.replace("_", " ").capitalize() for column in records}
    colours = {"holds": "agrees", "fails": "differs"}
    flags = {
        (row, column): colours.get(verdict, "")
        for column in ("verdict", "measured_verdict")
        for row, verdict in zip(records.index, claims[column], strict=True)
    }
    return records_table("claims", "Claims", caption, records, headings=headings, flags=flags, data=claims)


def comparison_tables(results: SuiteResults, labels: Labels) -> list[Table]:
    """Published, measured and difference of every cell that has both, and a count of agreeing cells."""
    comparison = compare(results.scores)
    caption = (
        "Cells measured here that have a published score. A cell agrees when the difference lies inside the stated "
        "interval: published and measured 95 % intervals combined in quadrature. Linear scores, for which "
        "none is published, are not judged; neither are scores of part of the data or of a shortened training."
    )
    counts = agreement(comparison)
    tables = [records_table("comparison", "Measured next to published", caption, counts, data=comparison)]
    for (protocol, setting), cells in comparison.groupby(["protocol", "setting"], sort=False):
        tables.append(_side_by_side(protocol, setting, cells, labels))
    return tables


def _side_by_side(protocol: str, setting: str, compared: pd.DataFrame, labels: Labels) -> Table:
    """Published, measured and difference of the cells of one protocol and setting."""
    kind = compared["kind"].iloc[0]
    rows = [(row, Task(protocol, kind, row.dataset, setting, row.metric)) for row in compared.itertuples()]
    tasks = list(dict.fromkeys(task for _, task in rows))
    rerun = kind == "linear" and compared["rerun"].notna().any()
    parts = [*PARTS, "rerun"] if rerun else [*PARTS]
    ids = pd.MultiIndex.from_tuples([(*task, part) for task in tasks for part in parts])
    cells = pd.DataFrame(math.nan, index=list(dict.fromkeys(compared["model"])), columns=ids)
    flags, notes = {}, {}
    for row, task in rows:
        for part in parts:
            cells.loc[row.model, (*task, part)] = getattr(row, part)
        flags[row.model, (*task, "difference")] = row.verdict if row.verdict in ("agrees", "differs") else ""
        if marks := " ".join(mark for mark in MARKS if getattr(row, mark)):
            flags[row.model, (*task, "measured")] = marks
        texts = [f"{getattr(row, mark)} {SIGNS[mark]}" for mark in MARKS if getattr(row, mark)]
        for text in [*texts, row.note] if row.note else texts:
            notes.setdefault(text, {})[labels.subject(task)] = None
    columns = [Column(part, labels.subject(task), METRICS[task.metric].decimals) for task in tasks for part in parts]
    name = joined("comparison", protocol, setting, by="-")
    title = joined(KINDS[kind].label, labels.suffixes[protocol], setting_label(setting), "next to published")
    caption = "Green: the difference lies inside the stated interval; orange: outside; white: no interval is stated."
    if kind == "linear":
        caption = "Not judged, because no interval is published."
    if rerun:
        caption = (
            "Not judged, because the paper states no interval. Rerun: what the authors' own scores changed between v1 "
            "and v2 on the dataset (95th percentile over models); the protocols of the two differ."
        )
    texts = [f"{', '.join(subjects)}: {note}" for note, subjects in notes.items()]
    caption += f" Not judged: {'; '.join(texts)}." if texts else ""
    return Table(name, title, caption, cells, columns, labels.models, flags=flags)


def printed_correlation_table(results: SuiteResults, labels: Labels) -> Table:
    """Last row of v2 Table 9 recomputed beside the printed one, with the range that rounding of the values allows."""
    printed, x, rows = printed_correlations(), results.tasks.x(), {}
    for task in results.tasks.tasks:
        r = printed.get((task.kind, task.setting, task.metric))
        if r is None:
            continue
        values = results.tasks.matrix[task]
        ours = float(pearson(x, to_analysis_scale(values, task.metric)))
        low, high = rounding_interval(x, values, task.metric, METRICS[task.metric].decimals)
        exact = abs(ours - r) <= 0.01
        verdict = "agrees to 0.01" if exact else "within rounding" if low - 0.005 <= r <= high + 0.005 else "differs"
        rows[task] = (r, ours, ours - r, low, high, verdict)
    columns = ["Printed", "Recomputed", "Difference", "Lowest", "Highest", "Verdict"]
    records = pd.DataFrame(list(rows.values()), index=pd.MultiIndex.from_tuples(list(rows)), columns=columns)
    caption = (
        "Correlation with ImageNet top-1 as printed in v2 Table 9 and as recomputed from its rounded values (logits by "
        "section A.7, colour errors raw). Lowest and highest: over all values that round to the printed ones."
    )
    digits = dict.fromkeys(["Recomputed", "Difference", "Lowest", "Highest"], 3)
    names = {task: labels.task(task) for task in rows}
    return records_table("table9-correlations", "Table 9, last row", caption, records, digits, row_labels=names)


def averages_table(results: SuiteResults, labels: Labels) -> Table:
    """Printed column averages (Table 1) beside the recomputed ones."""
    matrix = results.tasks.matrix
    means = {
        panel.kind: matrix[list(panel.tasks)].mean(axis=1, skipna=False)
        for panel in results.tasks.panels
        if panel.kind in ("linear", "finetune")
    }
    rows = {}
    for kind, model, printed in printed_averages(results.conventions_name).itertuples(index=False):
        ours = float(means[kind][model])
        rows[kind, model] = (printed, ours, ours - printed)
    index = pd.MultiIndex.from_tuples(list(rows))
    records = pd.DataFrame(list(rows.values()), index, columns=["Printed", "Recomputed", "Difference"])
    worst = records["Difference"].abs().max()
    caption = f"The Avg. columns of Table 1; the largest difference is {worst:.4f} (half a printed digit is 0.005)."
    names = {(kind, model): f"{KINDS[kind].label} · {labels.model(model)}" for kind, model in rows}
    digits = {"Recomputed": 4, "Difference": 4}
    return records_table("averages-check", "Printed averages", caption, records, digits, row_labels=names)


def training_table() -> Table:
    """Training details of the published models (v1 Table 5, v2 Table 10)."""
    caption = "As reported by the original authors; PCA is the colour augmentation of that name, multi is multi-crop."
    return records_table("training-details", "Training details", caption, training_details())
