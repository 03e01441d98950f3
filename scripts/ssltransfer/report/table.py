"""A table as csv, LaTeX and html: best bold, second best underlined, as in the paper."""

import html
import math
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ssltransfer.files import atomic_write

MISSING = "–"


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
    section : str
        Section of the report; empty where the name tells it.
    protocol : str
        The protocol whose scores it shows; empty where it shows those of a kind, or others.
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
    section: str = ""
    protocol: str = ""


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
    kinds = [' class="text"' if decimals is None else "" for decimals in table.decimals]
    heads = "".join(
        f'<th scope="col"{kind}>{html.escape(str(head))}</th>'
        for kind, (_, head) in zip(kinds, table.cells.columns, strict=True)
    )
    lines.append(f"<tr><th></th>{heads}</tr></thead><tbody>")
    for i, (label, texts) in enumerate(zip(table.cells.index, _texts(table), strict=True)):
        long = ' class="long"' if len(str(label)) > 40 else ""
        row = f'<tr><th scope="row"{long}>{html.escape(str(label))}</th>'
        for j, text in enumerate(texts):
            flag = table.flags.get((label, table.cells.columns[j]), "")
            names = [name for name in (marked.iloc[i, j], flag, _layout(table, j, text)) if name]
            text = html.escape(text) + ("<sup>†</sup>" if flag == "own" else "")
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


def _layout(table: Table, column: int, text: str) -> str:
    """Class of a cell that holds text; long ones may break."""
    if table.decimals[column] is not None:
        return ""
    return "text long" if len(text) > 28 else "text"


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "[": "{[}",  # would be an argument of the line end before it
    "*": "{*}",
    "–": "--",
    "±": r"$\pm$",
    "°": r"$^\circ$",
    "<": "$<$",
    ">": "$>$",
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
        with atomic_write(Path(folder) / f"{table.name}.{suffix}") as temporary:
            temporary.write_text(render(table), encoding="utf-8")
