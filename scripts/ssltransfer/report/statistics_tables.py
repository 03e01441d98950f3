"""Tables of statistics: correlations with source accuracy, mean ranks, pairs of tasks, paired differences of models."""

from collections.abc import Callable

import pandas as pd

from ssltransfer.analysis.correlation import COEFFICIENTS, INTERVAL_MODELS, PAIR_MODELS
from ssltransfer.analysis.ranking import shared_tasks, survivors
from ssltransfer.analysis.suite_results import SuiteResults
from ssltransfer.analysis.tasks import tasks_of
from ssltransfer.report.labels import Labels
from ssltransfer.report.table import MISSING, Column, Table, number, records_table
from ssltransfer.results.metric_info import KINDS
from ssltransfer.results.scores import TASK

INTERVALS = (
    "Intervals: 95 % by Fisher's z (Pearson), Bonett and Wright (Spearman) and Fieller (Kendall), for a random sample "
    f"of models whose scores are normal on this scale; from {INTERVAL_MODELS} models on."
)
NOT_INDEPENDENT = (
    "Models of one family share methods and code, so they are no independent sample and the intervals are too short "
    "for them; the range over leaving one family out says how much depends on one."
)


def correlation_table(results: SuiteResults, labels: Labels) -> Table:
    """Make the readable form of correlations.csv: coefficients with intervals and p-values."""
    found = results.correlations
    kinds = set(found["kind"])
    raw = [kind.label for name, kind in KINDS.items() if results.conventions.raw(name) and name in kinds]
    but = f" ({', '.join(raw)}: raw)" if raw else ""
    cells = []
    for row in found.to_dict("records"):
        entry = [row["n"]]
        for name in COEFFICIENTS:
            r, low, high, p = (row[name + end] for end in ("", "_low", "_high", "_p"))
            entry += [number(r, 2), f"{low:.2f} to {high:.2f}" if pd.notna(low) else MISSING]
            entry.append("< 0.001" if p < 0.001 else number(p, 3))
        ranges = [_range_without(row, "loo", labels.model), _range_without(row, "lofo", labels.family)]
        cells.append([*entry, *ranges, row["note"]])
    columns = [("", "n")]
    columns += [(group, head) for group in ("Pearson", "Spearman", "Kendall τ") for head in ("r", "95 % interval", "p")]
    columns += [("Pearson", "leaving one model out"), ("Pearson", "leaving one family out"), ("", "note")]
    caption = (
        f"Correlation of each task with source accuracy. Bounded scores as logits{but}; averages are averages of "
        f"these. {INTERVALS} p: two-sided permutation test, not corrected for the number of tasks. {NOT_INDEPENDENT} "
        "Data sets that are the source of models are no targets."
    )
    tasks = tasks_of(found[TASK].itertuples(index=False))
    return Table(
        "correlations",
        "Correlation with source accuracy",
        caption,
        pd.DataFrame(cells, index=found.index, columns=pd.MultiIndex.from_tuples(columns)),
        [Column(heading, group, decimals=None) for group, heading in columns],
        {i: labels.task(*row) for i, row in enumerate(zip(tasks, found["distant"], strict=True))},
        data=found,
    )


def _range_without(row: dict, part: str, label: Callable[[str], str]) -> str:
    """Range of Pearson's r when one model (`part` loo) or one family (lofo) is left out."""
    ends = []
    for end in ("low", "high"):
        value, without = row[f"pearson_{part}_{end}"], row[f"pearson_{part}_{end}_without"]
        if pd.isna(value):
            return MISSING
        ends.append(f"{value:.2f} (without {label(without)})")
    return " to ".join(ends)


def rank_tables(results: SuiteResults, labels: Labels) -> list[Table]:
    """Mean rank of each model over the counted tasks that all models have; an empty list without such a task."""
    matrix = results.tasks.matrix[results.tasks.counted]
    ranks = results.mean_ranks
    if ranks.empty:
        return []
    interval = [f"{low:.1f} to {high:.1f}" for low, high in zip(ranks["low"], ranks["high"], strict=True)]
    records = pd.DataFrame(
        {
            "Mean rank": ranks["mean_rank"],
            "95 % interval": interval,
            "Best on": ranks["best_on"],
            "Tasks": ranks["tasks"],
        }
    )
    caption = "Rank of each model, averaged over the tasks that the paper counts; 1 is best. Interval: tasks resampled."
    left_out = tasks_of(matrix.columns.difference(shared_tasks(matrix).columns, sort=False))
    if left_out:
        kinds = dict.fromkeys(KINDS[task.kind].label for task in left_out)
        caption += f" Not counted, because only some models have them: {len(left_out)} tasks ({', '.join(kinds)})."
    data = ranks.rename_axis("model").reset_index()
    more = {"row_labels": labels.models, "data": data}
    return [records_table("mean-ranks", "Mean ranks", caption, records, {"Mean rank": 1}, **more)]


def pair_tables(results: SuiteResults, labels: Labels) -> list[Table]:
    """Correlations between all pairs of tasks (v1 section 4.5): Pearson on logits, and Spearman."""
    caption = (
        "Correlation between all pairs of tasks over models; errors are negated, so that higher is always better. "
        f"Pairs that fewer than {PAIR_MODELS} models have in common are left out."
    )
    tables = []
    for name, r in results.pair_correlations.items():
        if len(r):
            names = {task: labels.axis(task) for task in tasks_of(r.columns)}
            title = f"All pairs of tasks, {name.capitalize()}"
            tables.append(records_table(f"pairs-{name}", title, caption, r, headings=names, row_labels=names))
    return tables


def fewshot_pair_table(pairs: pd.DataFrame, labels: Labels) -> Table:
    """Differences between models that survive the paired intervals of the few-shot episodes."""
    counts = survivors(pairs).set_index("model")
    headings = {
        "other": "against",
        "cells": "Cells",
        "model_better": "Better",
        "other_better": "Worse",
        "undecided": "Undecided",
    }
    sure = f"{pairs['survives'].sum()} of {len(pairs)} differences"
    strict = f"{pairs['survives_all'].sum()} if all pairs of a cell are to hold together"
    caption = (
        f"All models saw the same episodes, so differences are paired: {sure} exclude zero at 95 % ({strict}). A cell "
        "is a data set and a number of shots. The csv has every difference with its interval."
    )
    title = "Paired differences over episodes"
    counts = counts.assign(other=counts["other"].map(labels.model))
    more = {"headings": headings, "row_labels": labels.models, "data": pairs}
    return records_table("fewshot-pairs", title, caption, counts, **more)
