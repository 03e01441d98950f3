"""Signs and captions for scores that are not full measurements."""

from collections.abc import Collection

import pandas as pd

from ssltransfer.analysis.marks import left_out, mark_texts, marked
from ssltransfer.analysis.suite_results import SuiteResults
from ssltransfer.analysis.tasks import tasks_of
from ssltransfer.report.labels import Labels, joined, setting_label
from ssltransfer.report.table import SIGNS, Table
from ssltransfer.results.marks import MARKS
from ssltransfer.results.metric_info import KINDS
from ssltransfer.results.scores import AVERAGE, Task

MEANINGS = {
    "partial": "measured on part of the data, so not in averages, ranks, correlations and claims, nor judged beside "
    "published scores",
    "shortened": "after a shortened training, so not in claims, nor judged or correlated beside published scores",
}


BASIS = "Averages, ranks, correlations and figures"
"""What is derived from scores, where a caption says which scores it includes."""


def sign_scores(tables: list[Table], results: SuiteResults, labels: Labels) -> None:
    """Put signs at the marked scores in tables of models x tasks, and say in the captions what is missing."""
    texts = {mark: mark_texts(results.cells, mark) for mark in MARKS}
    analysed = results.tasks.matrix.notna()
    for table in tables:
        found: dict[str, dict[str, list[str]]] = {mark: {} for mark in MARKS}
        for task in tasks_of(column for column in table.cells.columns if column in results.shown.columns):
            for model in table.cells.index:
                own = {mark: texts[mark][model, *task] for mark in MARKS if (model, *task) in texts[mark]}
                if not own:
                    continue
                elsewhere = ["elsewhere"] if table.flags.get((model, task)) == "elsewhere" else []
                remarks = [table.remarks[model, task]] if elsewhere else []
                table.flags[model, task] = " ".join([*own, *elsewhere])
                table.remarks[model, task] = "; ".join([*own.values(), *remarks])
                if not analysed.loc[model, task]:
                    table.unranked.add((model, task))
                for mark, text in own.items():
                    found[mark].setdefault(text, []).append(_subject(task, labels))
        for mark, by_text in found.items():
            if by_text:
                parts = "; ".join(f"{', '.join(dict.fromkeys(names))}: {text}" for text, names in by_text.items())
                table.caption += f" {SIGNS[mark]} {MEANINGS[mark]} ({parts})."


def unsigned_note(scores: pd.DataFrame, labels: Labels) -> str:
    """Sentences for captions of tables and figures that show scores of some rows without signs; empty without marks."""
    notes = []
    for mark, what in (("partial", "Measured on part of the data"), ("shortened", "After a shortened training")):
        found = scores[scores[mark].ne("")]
        cells = found.drop_duplicates(["dataset", "model", mark]).groupby(["dataset", mark], sort=False)["model"]
        parts = []
        for (dataset, text), models in cells:
            all_models = scores.loc[scores["dataset"].eq(dataset), "model"].nunique() == len(models)
            names = "" if all_models else f"{', '.join(map(labels.model, models))} on "
            parts.append(f"{names}{labels.dataset(dataset)} ({text})")
        notes += [f"{what}: {', '.join(parts)}."] if parts else []
    return " ".join(notes)


def _subject(task: Task, labels: Labels) -> str:
    return (
        KINDS[task.kind].label
        if task.dataset == AVERAGE
        else joined(labels.dataset(task.dataset), setting_label(task.setting))
    )


def analysis_note(results: SuiteResults, kinds: Collection[str] = KINDS) -> str:
    """Sentences about marked scores of some kinds for captions of what is derived from them; empty without any."""
    cells = results.cells[results.cells["kind"].isin(kinds)]
    partial, shortened = marked(cells, ["partial"]), marked(cells, ["shortened"])
    kept = shortened & ~left_out(cells)
    notes = []
    if partial.any():
        notes.append(f"{BASIS} leave out {partial.sum()} of {len(cells)} scores, measured on part of the data.")
    if count := (shortened & ~kept & ~partial).sum():
        notes.append(f"{BASIS} leave out {count} scores of shortened trainings whose tasks have published scores.")
    if kept.any():
        kinds = ", ".join(KINDS[kind].label for kind in dict.fromkeys(cells.loc[kept, "kind"]))
        notes.append(f"{BASIS} include scores of trainings that were shortened alike for all models: {kinds}.")
    return " ".join(notes)
