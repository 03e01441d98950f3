"""Which tables a suite has, and what stands in them."""

import math
from pathlib import Path

import pandas as pd

from ssltransfer.analysis.comparison import agreement, compare
from ssltransfer.analysis.correlation import (
    CONVENTIONS,
    TASK,
    Conventions,
    Panel,
    headline_tasks,
    oriented,
    pairwise,
    panels,
    pearson,
    rounding_interval,
    task_matrix,
    transform,
    transformed,
    variants,
)
from ssltransfer.analysis.paper_claims import check_claims
from ssltransfer.analysis.published import printed_averages, printed_correlations, rerun_spread, training_details
from ssltransfer.analysis.ranking import mean_ranks, paired_differences, shared_tasks, survivors
from ssltransfer.analysis.suite_results import Names, Summary
from ssltransfer.report.table import MISSING, Table, number
from ssltransfer.results.metric_info import KINDS, METRICS
from ssltransfer.results.scores import CELL

#: Tables that the paper prints with several kinds side by side: name -> (title, kinds).
SHARED = {
    "detection": ("Object detection", ("detection-frozen", "detection-finetune")),
    "normals": ("Surface normals", ("normals",)),
    "segmentation": ("Semantic segmentation", ("segmentation",)),
    "properties": (
        "Calibration, perceptual distance, colour and attention",
        ("calibration", "inversion", "attention"),
    ),
}

#: How captions speak of numbers without a unit.
UNITS = {"similarity": "at most 1", "distance": "from 0 on"}

#: Three models correlate strongly by chance, and nothing beside a pair's number would say how many there are.
PAIR_MODELS = 4

SETTINGS = {
    "linear": "Linear",
    "linear-scaled": "Linear, scaled",
    "linear-scaled-validation": "Linear, scaled on validation",
    "finetune": "Finetune",
    "finetune-scaled": "Finetune, scaled",
    "finetune-scaled-validation": "Finetune, scaled on validation",
}


def all_tables(
    summary: Summary, correlations: pd.DataFrame, episodes: list[dict], published: str | Path | None
) -> list[Table]:
    """Make every table that the scores of a suite allow.

    Parameters
    ----------
    summary : Summary
        The suite.
    correlations : pd.DataFrame
        Its correlations (see `summary.correlate_summary`).
    episodes : list of dict
        Few-shot episodes of measured models (see `ranking.paired_differences`).
    published : path or None
        resources/published, for suites that are compared with the paper.
    """
    matrix, names = summary.matrix, summary.names
    tables = suite_tables(summary.cells, summary.source, names, summary.leave_out, correlations)
    domain = domain_table(summary.cells, summary.pretrained_on, names)
    if domain is not None:
        tables.append(domain)
    tables.append(correlation_table(correlations, names, summary.conventions))
    counted = headline_tasks(matrix.columns, summary.conventions, summary.leave_out)
    if counted:
        tables += rank_tables(matrix[counted], names)
        tables += pair_tables(pair_values(summary))
    pairs = paired_differences(episodes)
    if len(pairs):
        tables.append(fewshot_pair_table(pairs, names))
    if published is not None:
        tables += _paper_tables(summary, Path(published), tables)
    return tables


def _paper_tables(summary: Summary, published: Path, tables: list[Table]) -> list[Table]:
    """Tables for comparison with the paper; checks of its own numbers where nothing was measured."""
    found = [claims_table(check_claims(published, summary.scores))]
    if (summary.scores["source"] == "measured").any():
        spread = rerun_spread(published)
        return [*comparison_tables(compare(summary.scores, spread), summary.names, spread), *found]
    printed = printed_correlations(published)
    found.append(printed_correlation_table(summary.matrix, summary.source, printed, summary.names))
    averages = printed_averages(published, summary.conventions_name)
    found.append(averages_table(tables, averages, summary.names))
    return [*found, training_table(training_details(published))]


def suite_tables(
    scores: pd.DataFrame,
    source: pd.Series,
    names: Names,
    leave_out: tuple[str, ...] = (),
    correlations: pd.DataFrame | None = None,
) -> list[Table]:
    """Make one table for each protocol of a suite, few-shot one for each number of shots.

    Parameters
    ----------
    scores : pd.DataFrame
        Tidy table with one row a cell (see `comparison.combine`).
    source : pd.Series
        Source accuracy in percent of each model, in the row order wanted; NaN where unknown.
    names : Names
        Labels.
    leave_out : tuple of str
        Source data sets: shown first, kept out of averages.
    correlations : pd.DataFrame, optional
        Correlation of each task with source accuracy; those of the feature properties are printed below their table.
    """
    matrix = task_matrix(scores, list(source.index))
    published = _published_cells(scores)
    found = [
        _accuracy_table(panel, matrix, scores, source, names, leave_out)
        for panel in panels(matrix.columns, CONVENTIONS["v2"])
        if KINDS[panel.kind].headline is None
    ]
    for name, (title, kinds) in SHARED.items():
        tasks = [task for task in matrix.columns if task[1] in kinds]
        if tasks:
            found.append(_metric_table(name, title, tasks, matrix, names))
    for table, tasks in found:
        if table.name == "properties" and correlations is not None:
            table.footer = _correlation_row(table, tasks, correlations)
        table.flags = {
            (table.cells.index[i], table.cells.columns[j]): "published"
            for j, task in tasks.items()
            for i, model in enumerate(matrix.index)
            if (model, *task) in published
        }
        if table.flags:
            table.caption += " Italic: published, not measured here."
    return [_without_empty_rows(table) for table, _ in found]


def _correlation_row(table: Table, tasks: dict, correlations: pd.DataFrame) -> pd.DataFrame:
    """Last row of v2 Table 9: Pearson with source accuracy."""
    by_task = correlations.set_index(TASK)
    row = [by_task["pearson"].get(task, math.nan) for task in tasks.values()]
    counts = sorted({by_task["n"][task] for task in tasks.values() if task in by_task.index})
    models = f" ({' to '.join(str(n) for n in dict.fromkeys([counts[0], counts[-1]]))} models)" if counts else ""
    return pd.DataFrame([row], index=[f"Correlation with source accuracy{models}"], columns=table.cells.columns)


def _published_cells(scores: pd.DataFrame) -> set[tuple]:
    """Cells to flag as published: only where measured ones stand beside them."""
    published = scores[scores["source"] != "measured"]
    if len(published) in (0, len(scores)):
        return set()
    return set(published[CELL].itertuples(index=False, name=None))


def _without_empty_rows(table: Table) -> Table:
    """Drop models that have no score in the table; a source accuracy alone is none."""
    own = [j for j, (group, _) in enumerate(table.cells.columns) if group != "Source"]
    kept = table.cells.iloc[:, own].notna().any(axis=1).to_numpy()
    table.cells = table.cells[kept]
    if table.half_widths is not None:
        table.half_widths = table.half_widths[kept]
    return table


def _accuracy_table(panel: Panel, matrix, scores, source, names: Names, leave_out) -> tuple[Table, dict]:
    tasks = sorted(panel.tasks, key=lambda task: task[2] not in leave_out)
    targets = [task for task in tasks if task[2] not in leave_out]
    cells = matrix[tasks].copy()
    cells.columns = [("Source" if t[2] in leave_out else "", names.dataset(t[2])) for t in tasks]
    position = dict(enumerate(tasks))
    if targets:
        cells["", "Avg."] = matrix[targets].mean(axis=1, skipna=False)
    metrics = sorted({METRICS[task[-1]].label for task in tasks})
    if panel.kind == "linear" and not leave_out and source.notna().any():
        cells.insert(0, ("Source", "ImageNet"), source)
        position = {j + 1: task for j, task in position.items()}
    cells = cells.rename(index=names.model).set_axis(pd.MultiIndex.from_tuples(cells.columns), axis=1)
    halves = _half_widths(scores, matrix, position, cells)
    caption = f"{' / '.join(metrics)}, percent. Best bold, second best underlined."
    if halves is not None:
        caption += " ± 95 % confidence interval over episodes."
    if leave_out:
        caption += " Source data sets are not part of the average."
    size = cells.shape[1]
    # The name is the protocol's, which users choose; the section follows from its kind.
    own = {"section": panel.kind, "protocol": panel.protocol}
    table = Table(panel.name, panel.label, caption, cells, [2] * size, [1] * size, halves, **own)
    return table, position


def _half_widths(scores, matrix, position: dict, cells: pd.DataFrame) -> pd.DataFrame | None:
    """Half widths of the intervals of the cells in `position` (column number -> task)."""
    half = scores.set_index(CELL)[["low", "high"]].diff(axis=1)["high"] / 2
    half = half.dropna()
    if half.empty:
        return None
    found = pd.DataFrame(math.nan, index=cells.index, columns=cells.columns)
    for j, task in position.items():
        found.iloc[:, j] = [half.get((model, *task), math.nan) for model in matrix.index]
    return found if found.notna().any(axis=None) else None


def _metric_table(name: str, title: str, tasks: list, matrix, names: Names) -> tuple[Table, dict]:
    cells = matrix[tasks].copy()
    datasets = {task[2] for task in tasks}
    heads, variant = [], variants(tasks)
    for protocol, kind, dataset, setting, metric in tasks:
        parts = [KINDS[kind].label if name in ("detection", "properties") else "", variant[protocol]]
        parts += [names.dataset(dataset)] if len(datasets) > 1 else []
        label = METRICS[metric].label
        if setting:
            label = f"{label} {SETTINGS.get(setting, setting)}"
        heads.append((" ".join(part for part in parts if part), label))
    cells = cells.rename(index=names.model).set_axis(pd.MultiIndex.from_tuples(heads), axis=1)
    metrics = [METRICS[task[-1]] for task in tasks]
    units = ", ".join(
        dict.fromkeys(f"{m.label} {UNITS.get(m.unit, f'in {m.unit}')}" for m in metrics if m.unit != "percent")
    )
    caption = "Percent" + (f"; {units}" if units else "") + ". Best bold, second best underlined."
    table = Table(name, title, caption, cells, [m.decimals for m in metrics], [m.better for m in metrics])
    return table, dict(enumerate(tasks))


def correlation_table(correlations: pd.DataFrame, names: Names, conventions: Conventions) -> Table:
    """Make the readable form of correlations.csv: coefficients with intervals and p-values."""
    raw = [kind.label for name, kind in KINDS.items() if conventions.raw(name) and name in set(correlations["kind"])]
    but = f" ({', '.join(raw)}: raw)" if raw else ""
    cells, rows = [], []
    variant = variants(correlations[TASK].itertuples(index=False, name=None))
    for row in correlations.to_dict("records"):
        entry = [row["n"]]
        for name in ("pearson", "spearman", "kendall"):
            r, low, high = (row[name + end] for end in ("", "_low", "_high"))
            entry += [number(r, 2), f"{low:.2f} to {high:.2f}" if pd.notna(low) else MISSING]
            p = row[f"{name}_p"]
            entry.append("< 0.001" if p < 0.001 else number(p, 3))
        entry.append(_leave_one_out_range(row, names))
        cells.append([*entry, row["note"]])
        rows.append(task_label(row, names, variant[row["protocol"]]))
    groups = [("", "n")]
    groups += [(g, h) for g in ("Pearson", "Spearman", "Kendall τ") for h in ("r", "95 % interval", "p")]
    groups += [("Pearson", "leaving one model out"), ("", "note")]
    frame = pd.DataFrame(cells, index=rows, columns=pd.MultiIndex.from_tuples(groups))
    caption = (
        f"Correlation of each task with source accuracy. Bounded scores as logits{but}; averages are averages of "
        "these. Intervals: percentile bootstrap over models, from five on. p: two-sided permutation test, not "
        "corrected for the number of tasks. Data sets that are the source of models are no targets."
    )
    size = frame.shape[1]
    title = "Correlation with source accuracy"
    return Table("correlations", title, caption, frame, [None] * size, [0] * size, data=correlations)


def _leave_one_out_range(row: dict, names: Names) -> str:
    ends = []
    for end in ("low", "high"):
        value, without = row[f"pearson_loo_{end}"], row[f"pearson_loo_{end}_without"]
        if pd.isna(value):
            return MISSING
        ends.append(f"{value:.2f} (without {names.model(without)})")
    return " to ".join(ends)


def task_label(task: dict, names: Names, variant: str = "") -> str:
    """Readable name of a task given the columns of the tidy table, or of an average given its row of correlations."""
    kind = KINDS[task["kind"]]
    parts = [f"{kind.label} {variant}".strip()]
    metric = METRICS.get(task["metric"])
    if task["dataset"] == "average" and metric is None:
        parts.append("average")
        if task["distant"]:
            parts.append("CD-FSL")
    elif task["dataset"] != "average":
        parts.append(names.dataset(task["dataset"]))
    if task["setting"]:
        parts.append(SETTINGS.get(task["setting"], task["setting"]))
    if metric and (kind.headline or not kind.performance):
        parts.append(metric.label)
    return " · ".join(parts)


def short_task_label(task: tuple, names: Names, variant: str = "") -> str:
    """Name of a task that fits an axis: abbreviated kind, data set or metric, number of shots."""
    _, kind, dataset, setting, metric = task
    what = METRICS[metric].label if KINDS[kind].headline else names.dataset(dataset)
    parts = (KINDS[kind].short, variant, what, setting.removesuffix("-shot"))
    return " ".join(part for part in parts if part)


def domain_scores(scores: pd.DataFrame, pretrained_on: dict[str, str]) -> pd.DataFrame:
    """Linear scores on the data sets that models were pretrained on: models by their own data set x data sets.

    Parameters
    ----------
    scores : pd.DataFrame
        Tidy table with one row a cell; the first linear protocol is used.
    pretrained_on : dict
        Model -> data set of the suite it was pretrained on; other models are left out.

    Returns
    -------
    pd.DataFrame
        Empty unless two or more such data sets have linear scores.
    """
    linear = scores[scores["kind"] == "linear"]
    linear = linear[linear["protocol"] == linear["protocol"].iloc[0]] if len(linear) else linear
    domains = [d for d in dict.fromkeys(linear["dataset"]) if d in set(pretrained_on.values())]
    if len(domains) < 2:
        return pd.DataFrame()
    models = [m for d in domains for m, own in pretrained_on.items() if own == d]
    wide = linear.pivot(index="model", columns="dataset", values="value")
    return wide.reindex(index=models, columns=domains).dropna(how="all")


def domain_table(scores: pd.DataFrame, pretrained_on: dict[str, str], names: Names) -> Table | None:
    """Compare models on the data set they were pretrained on with models pretrained elsewhere.

    The scores are those of `domain_scores`, own ones flagged; the footer has means over models of the own and of the
    other domains. None where there are no such scores.
    """
    wide = domain_scores(scores, pretrained_on)
    if wide.empty:
        return None
    domains = list(wide.columns)
    own = {(m, d): pretrained_on[m] == d for m in wide.index for d in domains}
    columns = pd.MultiIndex.from_tuples([("Linear accuracy on", names.dataset(d)) for d in domains])
    flags = {(names.model(m), columns[domains.index(d)]): "own" for (m, d), is_own in own.items() if is_own}
    mask = pd.DataFrame([[own[m, d] for d in domains] for m in wide.index], wide.index, domains)
    footer = pd.DataFrame(
        {
            "Pretrained on it": wide.where(mask).mean(),
            "Pretrained elsewhere": wide.where(~mask).mean(),
            "Difference": wide.where(mask).mean() - wide.where(~mask).mean(),
        }
    ).T
    caption = (
        "Does pretraining on the target domain pay? † marks the data set a model was pretrained on; the last "
        "rows average over models. Compare rows of one method for the effect of the domain alone."
    )
    cells = wide.rename(index=names.model).set_axis(columns, axis=1)
    footer = footer.set_axis(columns, axis=1)
    size = len(domains)
    return Table(
        "domain-vs-transfer",
        "Domain or transfer?",
        caption,
        cells,
        [2] * size,
        [1] * size,
        None,
        flags,
        footer,
    )


def records_table(
    name: str, title: str, caption: str, frame: pd.DataFrame, decimals: dict | None = None, **more
) -> Table:
    """Make a table without ranking: text as it is, numbers with `decimals` (2 where not given)."""
    numeric = [pd.api.types.is_numeric_dtype(frame[column]) for column in frame]
    digits = [
        (decimals or {}).get(column, 0 if pd.api.types.is_integer_dtype(frame[column]) else 2) if is_number else None
        for column, is_number in zip(frame, numeric, strict=True)
    ]
    cells = frame.set_axis(pd.MultiIndex.from_tuples([("", str(column)) for column in frame]), axis=1)
    return Table(name, title, caption, cells, digits, [0] * frame.shape[1], **more)


def rank_tables(matrix: pd.DataFrame, names: Names) -> list[Table]:
    """Mean rank of each model over the tasks of `matrix` that all have; no table where there is none."""
    ranks = mean_ranks(matrix)
    if ranks.empty:
        return []
    interval = [f"{low:.1f} to {high:.1f}" for low, high in zip(ranks["low"], ranks["high"], strict=True)]
    frame = pd.DataFrame(
        {
            "Mean rank": ranks["mean_rank"],
            "95 % interval": interval,
            "Best on": ranks["best_on"],
            "Tasks": ranks["tasks"],
        }
    ).rename(index=names.model)
    caption = "Rank of each model, averaged over the tasks that the paper counts; 1 is best. Interval: tasks resampled."
    left_out = matrix.columns.difference(shared_tasks(matrix).columns, sort=False)
    if len(left_out):
        kinds = dict.fromkeys(KINDS[task[1]].label for task in left_out)
        caption += f" Not counted, because only some models have them: {len(left_out)} tasks ({', '.join(kinds)})."
    data = ranks.rename_axis("model").reset_index()
    return [records_table("mean-ranks", "Mean ranks", caption, frame, {"Mean rank": 1}, data=data)]


def pair_values(summary: Summary) -> pd.DataFrame:
    """Transformed scores of the tasks that the paper counts, labelled, higher is better, source accuracy first."""
    tasks = headline_tasks(summary.matrix.columns, summary.conventions, summary.leave_out)
    variant = variants(tasks)
    values = oriented(transformed(summary.matrix, summary.conventions)[tasks])
    values.columns = [short_task_label(task, summary.names, variant[task[0]]) for task in tasks]
    if summary.source.notna().any():
        values.insert(0, "Source accuracy", transform(summary.source, "top1"))
    return values


def pair_tables(values: pd.DataFrame) -> list[Table]:
    """Correlations between all pairs of tasks (v1 section 4.5): Pearson on logits, and Spearman."""
    caption = (
        "Correlation between all pairs of tasks over models; errors are negated, so that higher is always better. "
        f"Pairs that fewer than {PAIR_MODELS} models have in common are left out."
    )
    found = {name: pair_correlations(values, name) for name in ("pearson", "spearman")}
    return [
        records_table(f"pairs-{name}", f"All pairs of tasks, {name.capitalize()}", caption, table)
        for name, table in found.items()
        if len(table)
    ]


def pair_correlations(values: pd.DataFrame, coefficient: str = "pearson") -> pd.DataFrame:
    """Correlations of the tasks that have any with another task, by `PAIR_MODELS` models or more."""
    r = pairwise(values, coefficient, PAIR_MODELS)
    kept = (r.notna().sum() > 1).to_numpy()
    return r.loc[kept, kept]


def fewshot_pair_table(pairs: pd.DataFrame, names: Names) -> Table:
    """Which differences between models survive the paired intervals of the few-shot episodes."""
    counts = survivors(pairs)
    for column in ("model", "other"):
        counts[column] = counts[column].map(names.model)
    counts = counts.rename(
        columns={
            "other": "against", "cells": "Cells", "model_better": "Better", "other_better": "Worse",
            "undecided": "Undecided",
        }
    ).set_index("model")  # fmt: skip
    sure = f"{pairs['survives'].sum()} of {len(pairs)} differences"
    strict = f"{pairs['survives_all'].sum()} if all pairs of a cell are to hold together"
    caption = (
        f"All models saw the same episodes, so differences are paired: {sure} exclude zero at 95 % ({strict}). A cell "
        "is a data set and a number of shots. The csv has every difference with its interval."
    )
    return records_table("fewshot-pairs", "Paired differences over episodes", caption, counts, data=pairs)


def claims_table(claims: pd.DataFrame) -> Table:
    """The statements of the paper and whether they hold."""
    frame = claims.rename(columns=lambda name: name.replace("_", " ").capitalize())
    frame = frame.set_index(frame["Version"] + " · " + frame["Statement"]).drop(columns=["Version", "Statement"])
    if claims["measured"].eq("").all():
        frame = frame.drop(columns=["Measured", "Measured verdict"])
    counts = ", ".join(f"{n} {verdict}" for verdict, n in claims["verdict"].value_counts().items())
    caption = (
        f"Quantitative statements of both versions of the paper, recomputed from their own published tables ({counts}) "
        "and, where every score that a statement needs was measured here, from measured scores."
    )
    flags = {}
    colours = {"holds": "agrees", "fails": "differs"}
    table = records_table("claims", "Claims", caption, frame, data=claims)
    for label, verdict, own in zip(frame.index, claims["verdict"], claims["measured_verdict"], strict=True):
        flags[label, ("", "Verdict")] = colours.get(verdict, "")
        flags[label, ("", "Measured verdict")] = colours.get(own, "")
    table.flags = flags
    return table


def comparison_tables(comparison: pd.DataFrame, names: Names, spread: float) -> list[Table]:
    """Published, measured and difference of every cell that has both, and a count of agreeing cells."""
    counts = agreement(comparison)
    caption = (
        "Cells measured here that the paper publishes too. A cell agrees when the difference lies inside the stated "
        "interval: published and measured 95 % intervals combined in quadrature; for linear scores, for which the "
        f"paper states none, {spread:.2f} points, inside which 95 % of its own cells stayed between v1 and v2."
    )
    tables = [records_table("comparison", "Measured next to published", caption, counts, data=comparison)]
    variant = variants(comparison[TASK].itertuples(index=False, name=None))
    for (protocol, setting), found in comparison.groupby(["protocol", "setting"], sort=False):
        tables.append(_side_by_side(protocol, setting, found, names, variant[protocol]))
    return tables


def _side_by_side(protocol: str, setting: str, found: pd.DataFrame, names: Names, variant: str) -> Table:
    kind = KINDS[found["kind"].iloc[0]]
    own_metric = bool(kind.headline) or not kind.performance
    heads = {
        (row.dataset, row.metric): METRICS[row.metric].label if own_metric else names.dataset(row.dataset)
        for row in found.itertuples()
    }
    labels = [names.model(model) for model in dict.fromkeys(found["model"])]
    columns = [(head, part) for head in heads.values() for part in ("published", "measured", "difference")]
    cells = pd.DataFrame(math.nan, index=labels, columns=pd.MultiIndex.from_tuples(columns))
    flags = {}
    for row in found.itertuples():
        label, head = names.model(row.model), heads[row.dataset, row.metric]
        for part in ("published", "measured", "difference"):
            cells.loc[label, (head, part)] = getattr(row, part)
        flags[label, (head, "difference")] = row.verdict if row.verdict != "not stated" else ""
    decimals = [METRICS[metric].decimals for _, metric in heads for _ in range(3)]
    name = "-".join(part for part in ("comparison", protocol, setting) if part)
    title = " ".join(
        part for part in (kind.label, variant, SETTINGS.get(setting, setting), "next to published") if part
    )
    caption = "Green: the difference lies inside the stated interval; orange: outside; white: no interval is stated."
    return Table(name, title, caption, cells, decimals, [0] * len(columns), flags=flags)


def printed_correlation_table(
    matrix: pd.DataFrame, source: pd.Series, printed: dict[tuple[str, str, str], float], names: Names
) -> Table:
    """Last row of v2 Table 9 recomputed beside the printed one, with the range that rounding of the values allows."""
    x, rows = transform(source, "top1"), {}
    for task in matrix.columns:
        r = printed.get((task[1], task[3], task[4]))
        if r is None:
            continue
        ours = float(pearson(x, transform(matrix[task], task[4])))
        low, high = rounding_interval(x, matrix[task], task[4], METRICS[task[4]].decimals)
        exact = abs(ours - r) <= 0.01
        verdict = "agrees to 0.01" if exact else "within rounding" if low - 0.005 <= r <= high + 0.005 else "differs"
        rows[task_label(dict(zip(TASK, task, strict=True)), names)] = (r, ours, ours - r, low, high, verdict)
    columns = ["Printed", "Recomputed", "Difference", "Lowest", "Highest", "Verdict"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    caption = (
        "Correlation with ImageNet top-1 as printed in v2 Table 9 and as recomputed from its rounded values (logits by "
        "section A.7, colour errors raw). Lowest and highest: over all values that round to the printed ones."
    )
    digits = dict.fromkeys(["Recomputed", "Difference", "Lowest", "Highest"], 3)
    return records_table("table9-correlations", "Table 9, last row", caption, frame, digits)


def averages_table(tables: list[Table], printed: pd.DataFrame, names: Names) -> Table:
    """Printed column averages (Table 1) beside the recomputed ones."""
    by_name = {table.name: table for table in tables}
    rows = []
    for kind, model, value in printed.itertuples(index=False):
        label = names.model(model)
        ours = float(by_name[kind].cells.loc[label, ("", "Avg.")])
        rows.append((f"{KINDS[kind].label} · {label}", value, ours, ours - value))
    frame = pd.DataFrame(rows, columns=["", "Printed", "Recomputed", "Difference"]).set_index("")
    worst = frame["Difference"].abs().max()
    caption = f"The Avg. columns of Table 1; the largest difference is {worst:.4f} (half a printed digit is 0.005)."
    return records_table("averages-check", "Printed averages", caption, frame, {"Recomputed": 4, "Difference": 4})


def training_table(details: pd.DataFrame) -> Table:
    """Training details of the published models (v1 Table 5, v2 Table 10)."""
    caption = "As reported by the original authors; PCA is the colour augmentation of that name, multi is multi-crop."
    return records_table("training-details", "Training details", caption, details)


def add_notes(tables: list[Table], notes: dict[str, dict[str, str]]) -> None:
    """Append to the captions of each protocol's tables what its jobs warned of (see `scores.read_notes`)."""
    for table in tables:
        _, kinds = SHARED.get(table.name, ("", ()))
        for protocol, note in notes.items():
            if table.protocol == protocol or note["kind"] in kinds:
                table.caption += f" {note['text']}"
