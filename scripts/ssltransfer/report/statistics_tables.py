"""Tables of statistics: correlations with source accuracy, mean ranks, pairs of tasks, pairs of models."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import studentized_range

from ssltransfer.analysis.correlation import COEFFICIENTS, INTERVAL_MODELS, PAIR_MODELS, family_correlations
from ssltransfer.analysis.paired_tests import LEVEL
from ssltransfer.analysis.pairs import MANY_MODELS, MOST_OWN, count_wins
from ssltransfer.analysis.ranking import MIN_DATASETS, Order, shared_tasks
from ssltransfer.analysis.suite_results import SuiteResults
from ssltransfer.analysis.tasks import tasks_of
from ssltransfer.report.labels import Labels, doubtful_note, joined, setting_label, source_note
from ssltransfer.report.overview import twins_note
from ssltransfer.report.table import MISSING, Column, Table, number, records_table
from ssltransfer.results.metric_info import KINDS, METRICS
from ssltransfer.results.scores import TASK, is_published

INTERVALS = (
    "Intervals: 95 % by Fisher's z (Pearson), Bonett and Wright (Spearman) and Fieller (Kendall), for a random sample "
    f"of models whose scores are normal on this scale; from {INTERVAL_MODELS} models on."
)
NOT_INDEPENDENT = (
    "Models of one family share methods and code, so they are not an independent sample and the intervals are too "
    "short; the range when one family is left out shows how much a coefficient depends on a single family."
)


COUNTED = "counted tasks (those of the panels of transfer against source accuracy)"
FILE_ONLY = "file"
"""Section of a table that the report does not show, because it is empty."""
WINS = "pairs-won"
"""Name of the file of the wins of all pairs of models, where the pairs themselves are not all listed."""


def correlation_table(results: SuiteResults, labels: Labels) -> Table:
    """Make the readable form of correlations.csv: coefficients with intervals and p-values."""
    found = results.correlations
    families = set(results.models["family"])

    def family(name: str) -> str:
        return f"family “{name}”" if name in families else labels.model(name)

    kinds = set(found["kind"])
    raw = [kind.label for name, kind in KINDS.items() if results.conventions.raw(name) and name in kinds]
    but = f" ({', '.join(raw)}: raw)" if raw else ""
    cells = []
    for row in found.to_dict("records"):
        entry = [row["n"]]
        for name in COEFFICIENTS:
            r, low, high, p = (row[name + end] for end in ("", "_low", "_high", "_p"))
            entry += [number(r, 2), f"{number(low, 2)} to {number(high, 2)}" if pd.notna(low) else MISSING]
            entry.append("< 0.001" if p < 0.001 else number(p, 3))
        ranges = [_range_without(row, "loo", labels.model), _range_without(row, "lofo", family)]
        cells.append([*entry, *ranges, row["note"]])
    defined = found["pearson"].notna().any()
    columns = [("", "n")]
    columns += [(group, head) for group in ("Pearson", "Spearman", "Kendall τ") for head in ("r", "95 % interval", "p")]
    columns += [("Pearson", "leaving one model out"), ("Pearson", "leaving one family out"), ("", "note")]
    caption = (
        f"Correlation of each task with source accuracy. Percentages, fractions and LPIPS enter as logits{but}, other "
        f"scores as they are; averages are averages of these. {INTERVALS} p: two-sided permutation test, not corrected "
        f"for the number of tasks. {NOT_INDEPENDENT} Datasets on which source accuracy is measured are not targets."
    )
    caption = joined(caption, source_note(results), doubtful_note(results))
    tasks = tasks_of(found[TASK].itertuples(index=False))
    return Table(
        "correlations",
        "Correlation with source accuracy",
        caption,
        pd.DataFrame(cells, index=found.index, columns=pd.MultiIndex.from_tuples(columns)),
        [Column(heading, group, decimals=None) for group, heading in columns],
        {i: labels.task(*row) for i, row in enumerate(zip(tasks, found["distant"], strict=True))},
        data=found,
        section="" if defined else FILE_ONLY,
    )


def family_correlation_table(results: SuiteResults, labels: Labels) -> Table | None:
    """Show how source accuracy and transfer go together within families; None unless two of them are large enough."""
    families = dict(zip(results.models["model"], results.models["family"], strict=True))
    found = family_correlations(results.tasks, families)
    if found["family"].nunique() < 2:
        return None
    panels = {panel.name: labels.panel(panel) for panel in results.tasks.panels}
    columns = {"Family": found["family"].map(labels.family), "n": found["n"].astype(int)}
    for name, heading in (("pearson", "Pearson r"), ("spearman", "Spearman ρ")):
        columns[heading] = [number(value, 2) for value in found[name]]
        columns[f"{heading}, 95 % interval"] = _ranges(found[f"{name}_low"], found[f"{name}_high"], 2)
    caption = (
        "Correlation of each average with source accuracy among the models of one family alone (as families and "
        "architectures differ in more than source accuracy, a correlation over all of them need not hold within one). "
        f"Families of at least {INTERVAL_MODELS} models with a source accuracy. {INTERVALS}"
    )
    caption = joined(caption, source_note(results))
    rows = found["panel"].map(panels).to_dict()
    title = "Correlation within families"
    return records_table("family-correlations", title, caption, pd.DataFrame(columns), row_labels=rows, data=found)


def _range_without(row: dict, part: str, label: Callable[[str], str]) -> str:
    """Range of Pearson's r when one model (`part` loo) or one family (lofo) is left out."""
    ends = []
    for end in ("low", "high"):
        value, without = row[f"pearson_{part}_{end}"], row[f"pearson_{part}_{end}_without"]
        if pd.isna(value):
            return MISSING
        ends.append(f"{number(value, 2)} (without {label(without)})")
    return " to ".join(ends)


def rank_tables(results: SuiteResults, labels: Labels) -> list[Table]:
    """Mean rank of each model over the counted tasks that all models have; an empty list without such a task."""
    matrix = results.tasks.matrix[results.tasks.counted]
    ranks = results.mean_ranks
    if ranks.empty:
        return []
    columns = {
        "Mean rank": ranks["mean_rank"],
        "95 % interval": _ranges(ranks["low"], ranks["high"], 1),
        "Rank by log-odds, datasets like these": _ranges(ranks["rank_low"], ranks["rank_high"], 0),
        "Rank by log-odds, these datasets": _ranges(ranks["these_low"], ranks["these_high"], 0),
        "Best on": ranks["best_on"],
        "Tasks": ranks["tasks"],
        "Datasets": ranks["datasets"],
    }
    caption = (
        f"Rank of each model on the {COUNTED}, averaged over datasets (the tasks of one dataset are "
        f"averaged first); 1 is best. {_rank_statements(results, labels)}{_twice(results, labels)}"
    )
    if ranks["datasets_needed"].notna().any():
        columns["Needed to tell from next"] = [number(needed, 0) for needed in ranks["datasets_needed"]]
        caption += (
            " Needed: number of datasets with which a difference of ranks as large as the one found would exclude 0 "
            "in half of all cases."
        )
    left_out = tasks_of(matrix.columns.difference(shared_tasks(matrix).columns, sort=False))
    if left_out:
        kinds = dict.fromkeys(KINDS[task.kind].label for task in left_out)
        tasks = f"{len(left_out)} task{'s' * (len(left_out) > 1)}"
        caption += f" Not ranked, because only some models have them: {tasks} ({', '.join(kinds)})."
    data = ranks.rename_axis("model").reset_index()
    records = pd.DataFrame(columns, index=ranks.index)
    records = records.loc[:, records.ne(MISSING).any()]
    more = {"row_labels": labels.models, "data": data}
    return [records_table("mean-ranks", "Mean ranks", caption, records, {"Mean rank": 1}, **more)]


def _ranges(low: pd.Series, high: pd.Series, decimals: int) -> list[str]:
    ends = zip(low, high, strict=True)
    texts = []
    for a, b in ends:
        low, high = number(a, decimals), number(b, decimals)
        texts.append(low if low == high and not decimals else f"{low} to {high}" if pd.notna(a) else MISSING)
    return texts


def _twice(results: SuiteResults, labels: Labels) -> str:
    note = twins_note(results, labels)
    return f" {note}" if note else ""


def _rank_statements(results: SuiteResults, labels: Labels) -> str:
    """Say what intervals and sets of ranks hold, and which pairs and neighbours are told apart."""
    models, found = list(results.mean_ranks.index), []
    like, these = results.order_like_these, results.order_of_these
    if len(models) < 2:
        return "With a single model there is nothing to compare."
    if unbounded := [task for task in results.ranked_tasks if task not in results.ranked_values]:
        names = ", ".join(dict.fromkeys(KINDS[task.kind].label for task in unbounded))
        found.append(f"Tasks without log-odds ({names}) are in the mean ranks alone, not in the tests of pairs.")
    if like is None:
        found.append(f"With fewer than {MIN_DATASETS} datasets there is no statement on datasets like these.")
    else:
        found.append(
            "Datasets like these: intervals are Student's t over datasets; ranks follow from paired t tests of "
            f"log-odds over datasets, adjusted for all pairs by Holm. {_other_tests(like)} {_separated(like, models)}"
        )
    if these is not None:
        unknown = [task for task in results.ranked_tasks if task not in results.known_noise]
        datasets = dict.fromkeys(task.dataset for task in unknown)
        known = f"{len(these.datasets)} dataset{'s' * (len(these.datasets) != 1)}"
        for text, names in (
            ("without", [labels.dataset(name) for name in datasets if name not in these.datasets]),
            ("without some tasks of", [labels.dataset(name) for name in datasets if name in these.datasets]),
        ):
            known += f", {text} {', '.join(names)}" if names else ""
        found.append(
            f"These datasets ({known}): ranks follow from the noise of their test images (few-shot: of the episodes) "
            f"alone. {_separated(these, models)} Ranks hold for all models together (95 %)."
        )
    if like is not None or these is not None:
        found.append(
            "Ranks by log-odds are those of the mean log-odds, not of the mean ranks: one large difference moves a "
            "mean of log-odds more than a mean of ranks, so the two orders may differ."
        )
        if is_published(results.cells).any():
            found.append(
                "Published accuracies are treated as independent binomial proportions of the test images, which is "
                "conservative; mean accuracies per class are treated so only where classes are of similar size."
            )
    return " ".join(found)


def _other_tests(order: Order) -> str:
    """Say why two tests that are often used for such rankings are not made."""
    models, datasets = len(order.models), len(order.datasets)
    gap = studentized_range.ppf(1 - LEVEL, models, np.inf) * math.sqrt(models * (models + 1) / (12 * datasets))
    text = f"Nemenyi's test is not used, which needs a gap of {gap:.1f} mean ranks"
    if 2.0 ** (1 - datasets) * models * (models - 1) / 2 > LEVEL:
        text += ", nor are signed-rank tests with Holm, which cannot reject anything with so few datasets"
    return f"{text}."


def _separated(order: Order, models: list[str]) -> str:
    pairs = len(models) * (len(models) - 1) // 2
    return (
        f"{order.separated} of {pairs} pairs and {order.neighbours(models)} of {len(models) - 1} neighbouring ranks "
        "are separated."
    )


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


def model_pair_table(results: SuiteResults, labels: Labels) -> Table | None:
    """Who is better than whom: cells in which each model is better or worse than another; None without pairs."""
    pairs = results.pairs
    if pairs.empty:
        return None
    records, compared = _win_records(*results.wins), results.compared
    caption = (
        f"Every model against every other one on the {COUNTED}; a model is better where the paired "
        f"test says so after adjustment for all pairs of the cell ({100 * LEVEL:.0f} %). The csv has the pairs of all "
        f"cells ({compared.decided} of {compared.compared} are decided) with difference, 95 % interval, p-values and "
        f"method. Intervals and tests account for the noise {_units(pairs)}, but not for that of training again."
    )
    if pairs["method"].str.startswith("McNemar").any():
        caption += (
            " McNemar's exact test is conservative where two models differ on few images, and the interval beside it "
            "is not: it may exclude 0 where p is above 5 %. The verdict follows p."
        )
    if len(pairs) < compared.compared:
        caption += (
            f" Of cells with more than {MANY_MODELS} models the csv has the pairs with the best model, those of "
            f"neighbours in the order of the scores, and those with the user's own models ({MOST_OWN} at most); "
            f"{WINS}.csv counts the wins of all pairs."
        )
    texts = [f"{', '.join(names)} ({reason})" for reason, names in _cells_by_reason(results, labels).items()]
    caption += f" Cells without pairs, or without the pairs of some models: {'; '.join(texts)}." if texts else ""
    more = {"row_labels": labels.models, "data": pairs, "section": "models"}
    return records_table("pairs", "Pairs of models", caption, records, **more)


def _cells_by_reason(results: SuiteResults, labels: Labels) -> dict[str, list[str]]:
    """Reason for missing pairs -> names of the cells; with setting and metric, unless all of a cell have the reason."""
    missing, cells = results.compared.missing, {}
    for task in {**missing, **results.compared.better}:
        cells.setdefault((task.protocol, task.dataset), []).append(task)
    reasons: dict[str, dict[str, None]] = {}
    for task, reason in missing.items():
        name = joined(KINDS[task.kind].label, labels.suffixes[task.protocol], "on", labels.dataset(task.dataset))
        if any(missing.get(other) != reason for other in cells[task.protocol, task.dataset]):
            name += f", {joined(setting_label(task.setting), METRICS[task.metric].label, by=', ')}"
        reasons.setdefault(reason, {})[name] = None
    return {reason: list(names) for reason, names in reasons.items()}


def _units(pairs: pd.DataFrame) -> str:
    """Say what pairs were compared on, as genitives: test images, and other units with the kinds that have them."""
    units: dict[str, list[str]] = {}
    for kind in pairs["kind"].unique():
        units.setdefault(KINDS[kind].units.partition(",")[0], []).append(KINDS[kind].label)
    return ", ".join(
        f"of the {name}" + (f" ({', '.join(kinds)})" if name != "test images" else "") for name, kinds in units.items()
    )


def _win_records(wins: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """Sums over the other models of the counts of `pairs.count_wins`; models that were never compared are left out."""
    won, lost, total = wins.sum(axis=1), wins.sum(axis=0), compared.sum(axis=1)
    records = pd.DataFrame({"Comparisons": total, "Better": won, "Worse": lost, "Undecided": total - won - lost})
    return records[total > 0]


def fewshot_pair_table(results: SuiteResults, labels: Labels) -> Table | None:
    """Pairs of the few-shot cells under the columns of earlier releases; a file only, because `pairs` shows them."""
    pairs = results.pairs[results.pairs["kind"].eq("fewshot")]
    if pairs.empty:
        return None
    kept = ["protocol", "dataset", "setting", "model", "other", "difference", "low", "high", "p"]
    data = pairs[kept].assign(
        survives=pairs["low"].gt(0) | pairs["high"].lt(0), survives_all=pairs["p_adjusted"].lt(LEVEL)
    )
    caption = (
        "All models saw the same episodes, so differences are paired. survives: the interval excludes 0; survives_all: "
        "also after adjustment for all pairs of the cell (Holm)."
    )
    cells = [better for task, better in results.compared.better.items() if task.kind == "fewshot"]
    if any(len(better) > MANY_MODELS for better in cells):
        caption += " The csv has the pairs that pairs.csv has; the counts are of all pairs."
    records = _win_records(*count_wins(cells, list(results.models["model"])))
    more = {"row_labels": labels.models, "data": data}
    return records_table("fewshot-pairs", "Paired differences over episodes", caption, records, **more)
