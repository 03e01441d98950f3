"""Format of tables: csv, LaTeX and html; the best value bold, the second best underlined, as in the paper."""

import html
import math
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import pandas as pd

from ssltransfer.files import atomic_write

MISSING = "–"
#: Flag -> sign printed behind the number.
SIGNS = {"own": "†", "elsewhere": "◇", "partial": "‡", "shortened": "§"}
#: Sign of a number that cannot be told from the best one of its column.
TIED = "≈"
#: Half width of an interval at the end of a cell's text, which is printed smaller.
_HALF_WIDTH = re.compile(r"( ± [\d.]+)$")
#: Text that a spreadsheet would compute, maybe behind the apostrophe that keeps it from that.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


@dataclass(frozen=True)
class Column:
    """Heading and format of a column.

    Attributes
    ----------
    heading, group : str
        The heading, and the one that it shares with its neighbours (may be empty).
    decimals : int or None
        Digits printed, None for text.
    better : int
        1 marks the largest value, -1 the smallest, 0 none.
    """

    heading: str
    group: str = ""
    decimals: int | None = 2
    better: int = 0


@dataclass
class Table:
    """A table of ids and numbers, with the labels and formats that they are written with.

    Attributes
    ----------
    name : str
        File name without suffix.
    title, caption : str
        Heading and explanation, plain text.
    cells : pd.DataFrame
        Numbers or text, NaN where there is none; rows and columns are ids (of models, tasks, ...).
    columns : list of Column
        One per column of `cells`.
    row_labels : dict
        Row id -> label; ids that are missing are their own labels.
    half_widths : pd.DataFrame or None
        Half widths of intervals, printed after a plus-minus sign; same rows and columns as `cells`.
    flags : dict
        (row id, column id) -> a flag of `SIGNS`, "published" (italic), "agrees" or "differs" (coloured).
    remarks : dict
        (row id, column id) -> text about one number, written beside it in the csv.
    unranked : set
        (row id, column id) of numbers that are neither best nor second best.
    tied : set
        (row id, column id) of numbers that cannot be told from the best one; they get the sign `TIED`.
    footer : pd.DataFrame or None
        Rows below a line, not ranked; labels x the columns of `cells`.
    data : pd.DataFrame or None
        Content of the csv, where that is more than what is printed.
    section : str
        Section of the report; empty where the name decides.
    protocol : str
        The protocol whose scores it shows; empty where it shows those of a kind, or others.
    highlighted : set
        Ids of rows that stand out, such as the user's own models.
    """

    name: str
    title: str
    caption: str
    cells: pd.DataFrame
    columns: list[Column]
    row_labels: dict[Hashable, str] = field(default_factory=dict)
    half_widths: pd.DataFrame | None = None
    flags: dict = field(default_factory=dict)
    remarks: dict = field(default_factory=dict)
    unranked: set = field(default_factory=set)
    tied: set = field(default_factory=set)
    footer: pd.DataFrame | None = None
    data: pd.DataFrame | None = None
    section: str = ""
    protocol: str = ""
    highlighted: set = field(default_factory=set)

    def labelled(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Label the rows and the columns, as (group, heading), of `cells` or of a frame with the same columns."""
        rows = [self.row_labels.get(row, row) for row in frame.index]
        heads = pd.MultiIndex.from_tuples([(column.group, column.heading) for column in self.columns])
        return frame.set_axis(pd.Index(rows, dtype=object), axis=0).set_axis(heads, axis=1)


def number(value, decimals: int | None) -> str:
    """Format one cell; text is kept, NaN becomes a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if decimals is None or isinstance(value, str):
        return str(value)
    return f"{round(value, decimals) + 0.0:.{decimals}f}"  # without the sign of a number that is rounded to 0


def marks(table: Table) -> pd.DataFrame:
    """Mark the best and second best value of each ranked column, ties (after rounding) included.

    Returns
    -------
    pd.DataFrame
        Rows and columns of the cells: "best", "second" or an empty string.
    """
    marked = pd.DataFrame("", index=table.cells.index, columns=table.cells.columns)
    for j, column in enumerate(table.columns):
        if column.better:
            values = pd.to_numeric(table.cells.iloc[:, j]).round(column.decimals) * column.better
            name = table.cells.columns[j]
            values = values.mask(pd.Series([(row, name) in table.unranked for row in values.index], values.index, bool))
            ranks = values.rank(method="dense", ascending=False)
            marked.iloc[(ranks == 1).to_numpy(), j] = "best"
            marked.iloc[(ranks == 2).to_numpy(), j] = "second"
    return marked


def _texts(table: Table) -> list[list[str]]:
    """Printed text of every cell."""
    rows = []
    for i in range(len(table.cells)):
        row = [number(table.cells.iloc[i, j], column.decimals) for j, column in enumerate(table.columns)]
        if table.half_widths is not None:
            for j, column in enumerate(table.columns):
                half = table.half_widths.iloc[i, j]
                row[j] += f" ± {half:.{column.decimals}f}" if pd.notna(half) else ""
        rows.append(row)
    return rows


def _header_runs(columns: list[Column]) -> list[tuple[str, int]]:
    """Join equal neighbouring groups into (group, number of columns); empty when no column has a group."""
    runs = [(group, len(list(run))) for group, run in groupby(column.group for column in columns)]
    return runs if any(group for group, _ in runs) else []


def _rows(table: Table) -> Iterator[tuple[str, list[tuple[str, str, str, bool]]]]:
    """Label of each row, and of its cells the text, the mark, the flag and whether they are tied with the best."""
    marked = marks(table)
    for i, (row, texts) in enumerate(zip(table.cells.index, _texts(table), strict=True)):
        flags = [table.flags.get((row, column), "") for column in table.cells.columns]
        tied = [(row, column) in table.tied for column in table.cells.columns]
        yield str(table.row_labels.get(row, row)), list(zip(texts, marked.iloc[i], flags, tied, strict=True))


def to_html(table: Table) -> str:
    """Render the table element; everything that comes from outside is escaped."""
    # Focusable, so that a wide table can be scrolled by keyboard.
    name = html.escape(table.title)
    lines = [f'<div class="scroll" role="region" tabindex="0" aria-label="{name}"><table>', "<thead>"]
    runs = _header_runs(table.columns)
    if runs:
        groups = "".join(_group_head(group, span) for group, span in runs)
        lines.append(f"<tr><td></td>{groups}</tr>")
    heads = ""
    for column in table.columns:
        text = ' class="text"' if column.decimals is None else ""
        heads += f'<th scope="col"{text}>{html.escape(column.heading)}</th>'
    lines.append(f"<tr><td></td>{heads}</tr></thead><tbody>")
    for id_, (label, cells) in zip(table.cells.index, _rows(table), strict=True):
        long = ' class="long"' if len(label) > 40 else ""
        own = ' class="own"' if isinstance(id_, str) and id_ in table.highlighted else ""
        row = f'<tr{own}><th scope="row"{long}>{html.escape(label)}</th>'
        for column, (text, mark, flag, tied) in zip(table.columns, cells, strict=True):
            names = [name for name in (mark, *flag.split(), _layout(column, text)) if name]
            signs = "".join(SIGNS.get(name, "") for name in flag.split()) + TIED * tied
            text = _HALF_WIDTH.sub(r"<small>\1</small>", html.escape(text)) + (f"<sup>{signs}</sup>" if signs else "")
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


def _group_head(group: str, span: int) -> str:
    """Head of neighbouring columns with the same group; an empty one is not a head."""
    if not group:
        return f'<td colspan="{span}"></td>'
    return f'<th scope="colgroup" colspan="{span}" class="group">{html.escape(group)}</th>'


def _layout(column: Column, text: str) -> str:
    """Class of a cell that holds text; long ones may break."""
    if column.decimals is not None:
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
    "‡": r"$\ddagger$",
    "◇": r"$\diamond$",
    "§": r"\S{}",
    "×": r"$\times$",
    "≈": r"$\approx$",
    "ρ": r"$\rho$",
    "τ": r"$\tau$",
} | {c: f"\\{c}" for c in "&%$#_{}"}


_LATEX_SIGNS = {
    "own": r"$^\dagger$",
    "elsewhere": r"$^\diamond$",
    "partial": r"$^\ddagger$",
    "shortened": r"\textsuperscript{\S}",
}


def latex_text(text: str) -> str:
    """Escape plain text for LaTeX."""
    return "".join(_LATEX.get(c, c) for c in str(text))


def _latex_cell(text: str) -> str:
    """Escape the text of a cell, its half width smaller."""
    number, *half_width = _HALF_WIDTH.split(text)
    small = rf"{{\scriptsize {latex_text(half_width[0])}}}" if half_width else ""
    return latex_text(number) + small


def to_latex(table: Table) -> str:
    """Render a booktabs tabular (packages booktabs and, for wide tables, graphicx are the reader's)."""
    style = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}
    spec = "".join("l" if column.decimals is None else "r" for column in table.columns)
    lines = [rf"\begin{{tabular}}{{l{spec}}}", r"\toprule"]
    runs = _header_runs(table.columns)
    if runs:
        groups = [rf"\multicolumn{{{span}}}{{c}}{{{latex_text(group)}}}" for group, span in runs]
        lines.append(" & ".join(["", *groups]) + r" \\")
    lines += [" & ".join(["", *(latex_text(column.heading) for column in table.columns)]) + r" \\", r"\midrule"]
    for label, cells in _rows(table):
        line = [latex_text(label)]
        for text, mark, flag, tied in cells:
            cell = style[mark] % _latex_cell(text)
            cell = rf"\textit{{{cell}}}" if flag == "published" else cell
            signs = "".join(_LATEX_SIGNS.get(name, "") for name in flag.split())
            line.append(cell + signs + r"$^\approx$" * tied)
        lines.append(" & ".join(line) + r" \\")
    if table.footer is not None:
        lines.append(r"\midrule")
        for label, values in table.footer.iterrows():
            cells = [latex_text(label), *(latex_text(number(v, 2)) for v in values)]
            lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def to_csv(table: Table) -> str:
    """Render as csv with full precision; intervals and remarks are extra columns, footer rows are included."""
    if table.data is not None:
        return csv_text(table.data)
    names = [" ".join(part for part in (column.group, column.heading) if part) for column in table.columns]
    frame = table.labelled(table.cells).set_axis(names, axis=1)
    if table.half_widths is not None:
        halves = table.labelled(table.half_widths).set_axis([f"{name} ci95" for name in names], axis=1)
        frame = pd.concat([frame, halves.dropna(axis=1, how="all")], axis=1)
    for name, column in zip(names, table.cells.columns, strict=True):
        texts = [table.remarks.get((row, column), "") for row in table.cells.index]
        if any(texts):
            frame[f"{name} remark"] = texts
    if table.footer is not None:
        frame = pd.concat([frame, table.footer.set_axis(names, axis=1)])
    return csv_text(frame.rename_axis("row").reset_index(allow_duplicates=True))


def csv_text(frame: pd.DataFrame) -> str:
    """Render a frame as csv without its index, such that a spreadsheet computes none of its texts.

    Texts that begin as a formula does get an apostrophe in front; `read_text` takes it off. Numbers stay.
    """
    safe = frame.rename(columns=_safe_text)
    texts = [i for i in range(frame.shape[1]) if not pd.api.types.is_numeric_dtype(frame.iloc[:, i])]
    for i in texts:
        safe.isetitem(i, frame.iloc[:, i].map(_safe_text))
    return safe.to_csv(index=False, lineterminator="\n")


def _safe_text(value):
    if not isinstance(value, str) or not _FORMULA.match(value):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value  # a number


def read_text(text: str) -> str:
    """Return a text of a csv file as it was before `csv_text` wrote it."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def write_table(folder: str | Path, table: Table) -> None:
    """Write ``{name}.csv``, ``{name}.tex`` and ``{name}.html`` into `folder`."""
    for suffix, render in (("csv", to_csv), ("tex", to_latex), ("html", to_html)):
        with atomic_write(Path(folder) / f"{table.name}.{suffix}") as temporary:
            temporary.write_text(render(table), encoding="utf-8")


def records_table(
    name: str,
    title: str,
    caption: str,
    records: pd.DataFrame,
    decimals: dict[Hashable, int] | None = None,
    headings: dict[Hashable, str] | None = None,
    **more,
) -> Table:
    """Make a table without ranking: text as it is, integers, and other numbers with `decimals` (2 where not given)."""
    columns = []
    for i, column in enumerate(records):
        values = records.iloc[:, i]
        digits = 0 if pd.api.types.is_integer_dtype(values) else 2
        digits = (decimals or {}).get(column, digits) if pd.api.types.is_numeric_dtype(values) else None
        columns.append(Column((headings or {}).get(column, str(column)), decimals=digits))
    return Table(name, title, caption, records, columns, **more)
