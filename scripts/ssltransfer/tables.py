"""Tables of a suite as csv, LaTeX and html: best bold, second best underlined, as in the paper."""

import html
import math
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ssltransfer.correlation import CONVENTIONS, TASK, Panel, panels, task_matrix, variants
from ssltransfer.files import replacing
from ssltransfer.scores import CELL, KINDS, METRICS

MISSING = "–"

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

SETTINGS = {
    "linear": "Linear",
    "linear-scaled": "Linear, scaled",
    "finetune": "Finetune",
    "finetune-scaled": "Finetune, scaled",
}


@dataclass
class Table:
    """A table ready to be written in any format.

    Attributes
    ----------
    name : str
        File name without suffix.
    title, caption : str
        Heading and explanation, plain text.
    cells : pd.DataFrame
        Row labels as index, (group, heading) as columns; numbers or text, NaN where there is none.
    decimals : list
        Digits a column, None for text.
    better : list of int
        A column each: 1 marks the largest, -1 the smallest, 0 nothing.
    half_widths : pd.DataFrame or None
        Half widths of intervals, printed after a plus-minus sign; same shape as `cells`.
    flags : dict
        (row label, column) -> "own" (dagger), "published" (italic), "agrees" or "differs" (coloured).
    footer : pd.DataFrame or None
        Rows below a line, not ranked.
    data : pd.DataFrame or None
        What the csv holds, where that is more than what is printed.
    """

    name: str
    title: str
    caption: str
    cells: pd.DataFrame
    decimals: list
    better: list
    half_widths: pd.DataFrame | None = None
    flags: dict = field(default_factory=dict)
    footer: pd.DataFrame | None = None
    data: pd.DataFrame | None = None


def number(value, decimals: int | None) -> str:
    """Format one cell; text is kept, NaN becomes a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if decimals is None or isinstance(value, str):
        return str(value)
    return f"{value:.{decimals}f}"


def marks(table: Table) -> pd.DataFrame:
    """Name the best and second best value of each ranked column, ties (after rounding) included."""
    found = pd.DataFrame("", index=table.cells.index, columns=table.cells.columns)
    for j, (better, decimals) in enumerate(zip(table.better, table.decimals, strict=True)):
        if not better:
            continue
        values = pd.to_numeric(table.cells.iloc[:, j]).round(decimals) * better
        ranks = values.rank(method="dense", ascending=False)
        found.iloc[(ranks == 1).to_numpy(), j] = "best"
        found.iloc[(ranks == 2).to_numpy(), j] = "second"
    return found


def _texts(table: Table) -> list[list[str]]:
    """Return the printed text of every cell."""
    rows = []
    for i in range(len(table.cells)):
        row = [number(table.cells.iloc[i, j], d) for j, d in enumerate(table.decimals)]
        if table.half_widths is not None:
            for j, d in enumerate(table.decimals):
                half = table.half_widths.iloc[i, j]
                row[j] += f" ± {half:.{d}f}" if pd.notna(half) else ""
        rows.append(row)
    return rows


def _header_runs(columns: pd.MultiIndex) -> list[tuple[str, int]]:
    """Group the first header row into (text, span); empty when no column has a group."""
    runs: list[tuple[str, int]] = []
    for group, _ in columns:
        if runs and runs[-1][0] == group:
            runs[-1] = (group, runs[-1][1] + 1)
        else:
            runs.append((group, 1))
    return runs if any(group for group, _ in runs) else []


def to_html(table: Table) -> str:
    """Render the table element; everything that comes from outside is escaped."""
    marked, lines = marks(table), ['<div class="scroll"><table>', "<thead>"]
    runs = _header_runs(table.cells.columns)
    if runs:
        groups = "".join(f'<th colspan="{span}" class="group">{html.escape(g)}</th>' for g, span in runs)
        lines.append(f"<tr><th></th>{groups}</tr>")
    heads = "".join(f'<th scope="col">{html.escape(str(h))}</th>' for _, h in table.cells.columns)
    lines.append(f"<tr><th></th>{heads}</tr></thead><tbody>")
    for i, (label, texts) in enumerate(zip(table.cells.index, _texts(table), strict=True)):
        row = f'<tr><th scope="row">{html.escape(str(label))}</th>'
        for j, text in enumerate(texts):
            flag = table.flags.get((label, table.cells.columns[j]), "")
            text = html.escape(text) + ("<sup>†</sup>" if flag == "own" else "")
            names = [name for name in (marked.iloc[i, j], flag, _alignment(table, j)) if name]
            row += f'<td class="{" ".join(names)}">{text}</td>' if names else f"<td>{text}</td>"
        lines.append(f"{row}</tr>")
    lines.append("</tbody>")
    if table.footer is not None:
        lines.append("<tfoot>")
        for label, values in table.footer.iterrows():
            cells = "".join(f"<td>{html.escape(number(v, 2))}</td>" for v in values)
            lines.append(f'<tr><th scope="row">{html.escape(str(label))}</th>{cells}</tr>')
        lines.append("</tfoot>")
    return "\n".join([*lines, "</table></div>"]) + "\n"


def _alignment(table: Table, column: int) -> str:
    return "text" if table.decimals[column] is None else ""


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "±": r"$\pm$",
    "°": r"$^\circ$",
    "−": "$-$",
    "†": r"$\dagger$",
    "×": r"$\times$",
    "ρ": r"$\rho$",
    "τ": r"$\tau$",
} | {c: f"\\{c}" for c in "&%$#_{}"}


def latex_text(text: str) -> str:
    """Escape plain text for LaTeX."""
    return "".join(_LATEX.get(c, c) for c in str(text))


def to_latex(table: Table) -> str:
    """Render a booktabs tabular (packages booktabs and, for wide tables, graphicx are the reader's)."""
    marked, columns = marks(table), table.cells.columns
    style = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}
    spec = "".join("l" if d is None else "r" for d in table.decimals)
    lines = [rf"\begin{{tabular}}{{l{spec}}}", r"\toprule"]
    runs = _header_runs(columns)
    if runs:
        groups = [rf"\multicolumn{{{span}}}{{c}}{{{latex_text(group)}}}" for group, span in runs]
        lines.append(" & ".join(["", *groups]) + r" \\")
    lines += [" & ".join(["", *(latex_text(h) for _, h in columns)]) + r" \\", r"\midrule"]
    for i, (label, texts) in enumerate(zip(table.cells.index, _texts(table), strict=True)):
        cells = [latex_text(label)]
        for j, text in enumerate(texts):
            flag = table.flags.get((label, columns[j]), "")
            cell = style[marked.iloc[i, j]] % latex_text(text)
            cells.append({"own": rf"{cell}$^\dagger$", "published": rf"\textit{{{cell}}}"}.get(flag, cell))
        lines.append(" & ".join(cells) + r" \\")
    if table.footer is not None:
        lines.append(r"\midrule")
        for label, values in table.footer.iterrows():
            cells = [latex_text(label), *(latex_text(number(v, 2)) for v in values)]
            lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def to_csv(table: Table) -> str:
    """Render as csv with full precision, intervals as extra ``ci95`` columns, footer rows included."""
    if table.data is not None:
        return table.data.to_csv(index=False, lineterminator="\n")
    names = [" ".join(part for part in column if part) for column in table.cells.columns]
    frame = table.cells.set_axis(names, axis=1)
    if table.footer is not None:
        frame = pd.concat([frame, table.footer.set_axis(names, axis=1)])
    if table.half_widths is not None:
        halves = table.half_widths.set_axis([f"{name} ci95" for name in names], axis=1)
        frame = frame.join(halves.dropna(axis=1, how="all"))
    return frame.to_csv(index_label="row", lineterminator="\n")


def write_table(folder: str | Path, table: Table) -> None:
    """Write ``{name}.csv``, ``{name}.tex`` and ``{name}.html`` into `folder`."""
    for suffix, render in (("csv", to_csv), ("tex", to_latex), ("html", to_html)):
        with replacing(Path(folder) / f"{table.name}.{suffix}") as temporary:
            temporary.write_text(render(table), encoding="utf-8")


@dataclass(frozen=True)
class Names:
    """What to call things: labels of models and data sets, and which models are highlighted."""

    models: dict[str, str]
    datasets: dict[str, str]

    def dataset(self, dataset: str) -> str:
        """Label of a data set, or its id."""
        return self.datasets.get(dataset, dataset)

    def rows(self, index) -> list[str]:
        """Labels of models; a label that two models share gets the id behind it."""
        labels = [self.models.get(model, model) for model in index]
        return [
            f"{label} ({model})" if labels.count(label) > 1 else label
            for label, model in zip(labels, index, strict=True)
        ]


def suite_tables(scores: pd.DataFrame, source: pd.Series, names: Names, leave_out: tuple[str, ...] = ()) -> list[Table]:
    """Make one table for each protocol of a suite, few-shot one for each number of shots.

    Parameters
    ----------
    scores : pd.DataFrame
        Tidy table with one row a cell (see `scores.combine`).
    source : pd.Series
        Source accuracy in percent of each model, in the row order wanted; NaN where unknown.
    names : Names
        Labels.
    leave_out : tuple of str
        Source data sets: shown first, kept out of averages.
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
        table.flags = {
            (table.cells.index[i], table.cells.columns[j]): "published"
            for j, task in tasks.items()
            for i, model in enumerate(matrix.index)
            if (model, *task) in published
        }
    return [_without_empty_rows(table) for table, _ in found]


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
    cells = cells.set_axis(names.rows(cells.index)).set_axis(pd.MultiIndex.from_tuples(cells.columns), axis=1)
    halves = _half_widths(scores, matrix, position, cells)
    caption = f"{' / '.join(metrics)}, percent. Best bold, second best underlined."
    if halves is not None:
        caption += " ± 95 % confidence interval over episodes."
    if leave_out:
        caption += " Source data sets are not part of the average."
    size = cells.shape[1]
    table = Table(panel.name, panel.label, caption, cells, [2] * size, [1] * size, halves)
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
    cells = cells.set_axis(names.rows(cells.index)).set_axis(pd.MultiIndex.from_tuples(heads), axis=1)
    metrics = [METRICS[task[-1]] for task in tasks]
    units = ", ".join(dict.fromkeys(f"{m.label} in {m.unit}" for m in metrics if m.unit != "percent"))
    caption = "Percent" + (f"; {units}" if units else "") + ". Best bold, second best underlined."
    table = Table(name, title, caption, cells, [m.decimals for m in metrics], [m.better for m in metrics])
    return table, dict(enumerate(tasks))


def correlation_table(correlations: pd.DataFrame, names: Names) -> Table:
    """Make the readable form of correlations.csv: coefficients with intervals and p-values."""
    cells, rows = [], []
    variant = variants(correlations[TASK].itertuples(index=False, name=None))
    for row in correlations.to_dict("records"):
        entry = [row["n"]]
        for name in ("pearson", "spearman", "kendall"):
            r, low, high = (row[name + end] for end in ("", "_low", "_high"))
            entry += [number(r, 2), f"{low:.2f} to {high:.2f}" if pd.notna(low) else MISSING]
            entry.append(number(row[f"{name}_p"], 3))
        loo = (row["pearson_loo_low"], row["pearson_loo_high"])
        entry.append(f"{loo[0]:.2f} to {loo[1]:.2f}" if pd.notna(loo[0]) else MISSING)
        cells.append([*entry, row["note"]])
        rows.append(task_label(row, names, variant[row["protocol"]]))
    groups = [("", "n")]
    groups += [(g, h) for g in ("Pearson", "Spearman", "Kendall τ") for h in ("r", "95 % interval", "p")]
    groups += [("Pearson", "leaving one model out"), ("", "note")]
    frame = pd.DataFrame(cells, index=rows, columns=pd.MultiIndex.from_tuples(groups))
    caption = (
        "Correlation of each task with source accuracy. Bounded scores as logits, averages are averages of "
        "logits. Intervals: percentile bootstrap over models. p: two-sided permutation test, not corrected for "
        "the number of tasks."
    )
    size = frame.shape[1]
    title = "Correlation with source accuracy"
    return Table("correlations", title, caption, frame, [None] * size, [0] * size, data=correlations)


def task_label(task: dict, names: Names, variant: str = "") -> str:
    """Readable name of a task given the columns of the tidy table."""
    kind = KINDS[task["kind"]]
    parts = [f"{kind.label} {variant}".strip()]
    metric = METRICS.get(task["metric"])
    if task["dataset"] == "average" and metric is None:
        parts.append("average")
        if task["kind"] == "fewshot" and "cd-fsl" in task.get("panel", ""):
            parts.append("CD-FSL")
    elif task["dataset"] != "average":
        parts.append(names.dataset(task["dataset"]))
    if task["setting"]:
        parts.append(SETTINGS.get(task["setting"], task["setting"]))
    if metric and (kind.headline or not kind.performance):
        parts.append(metric.label)
    return " · ".join(parts)


def domain_table(scores: pd.DataFrame, pretrained_on: dict[str, str], names: Names) -> Table | None:
    """Compare models on the data set they were pretrained on with models pretrained elsewhere.

    Parameters
    ----------
    scores : pd.DataFrame
        Tidy table with one row a cell; the first linear protocol is used.
    pretrained_on : dict
        Model -> data set of the suite it was pretrained on.
    names : Names
        Labels.

    Returns
    -------
    Table or None
        Rows: models by pretraining data set; columns: those data sets, own ones flagged; footer: means over models
        of the own and of the other domains. None unless two or more such data sets have linear scores.
    """
    linear = scores[scores["kind"] == "linear"]
    linear = linear[linear["protocol"] == linear["protocol"].iloc[0]] if len(linear) else linear
    domains = [d for d in dict.fromkeys(linear["dataset"]) if d in set(pretrained_on.values())]
    if len(domains) < 2:
        return None
    models = [m for d in domains for m, own in pretrained_on.items() if own == d]
    wide = linear[linear["dataset"].isin(domains)].pivot(index="model", columns="dataset", values="value")
    wide = wide.reindex(index=models, columns=domains).dropna(how="all")
    own = {(m, d): pretrained_on[m] == d for m in wide.index for d in domains}
    labels = dict(zip(wide.index, names.rows(wide.index), strict=True))
    columns = pd.MultiIndex.from_tuples([("Linear accuracy on", names.dataset(d)) for d in domains])
    flags = {(labels[m], columns[domains.index(d)]): "own" for (m, d), is_own in own.items() if is_own}
    mask = pd.DataFrame([[own[m, d] for d in domains] for m in wide.index], wide.index, domains)
    footer = pd.DataFrame(
        {
            "Pretrained on it": wide.where(mask).mean(),
            "Pretrained elsewhere": wide.where(~mask).mean(),
            "Difference": wide.where(mask).mean() - wide.where(~mask).mean(),
        }
    ).T
    caption = (
        "Does self-supervision on the target domain pay? † marks the data set a model was pretrained on; the last "
        "rows average over models. Compare rows of one method for the effect of the domain alone."
    )
    cells = wide.set_axis(list(labels.values())).set_axis(columns, axis=1)
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
