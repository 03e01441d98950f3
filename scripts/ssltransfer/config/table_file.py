"""Tab-separated tables: their text, and their rows by id, with what is wrong with each."""

import codecs
import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from ssltransfer.config.validation import check_schema
from ssltransfer.errors import InputError


def read_table(path: Path, *, short_rows: bool = False, invalid: dict[str, str] | None = None) -> list[dict[str, str]]:
    """Read a tab-separated table: one header line, then one row per line, all cells as text.

    Parameters
    ----------
    path : Path
    short_rows : bool
        Whether a row may end early; the cells that it lacks are empty.
    invalid : dict of str to str, optional
        Gains the first cell of each row of a wrong length -> what is wrong with it, instead of an error.

    Raises
    ------
    InputError
        If the file is missing or in another encoding, or a row has another number of cells than the header.
    """
    text = _read_text(path)
    lines = [(i, line) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise InputError(f"{path} is empty; the first line names the columns")
    for number, line in lines:
        if wrong := re.search(r"[\x00-\x08\x0e-\x1f\x7f]", line):
            raise InputError(f"{path}, line {number}: control character {wrong[0]!r} found; take it out")
    rows = list(csv.reader((line for _, line in lines), delimiter="\t", quoting=csv.QUOTE_NONE))
    header = [_cell(name) for name in rows[0]]
    if twice := [name for name in header if header.count(name) > 1]:
        raise InputError(f"{path}: the header names column {twice[0]!r} twice; take one out")
    for (number, _), row in zip(lines, rows, strict=True):
        if len(row) == 1 < len(header) and re.search(r"[\s,;]", _cell(row[0])):
            raise InputError(f"{path}, line {number}: found one cell, {row[0][:40]!r}; separate cells by one tab each")
        if len(row) > len(header) or (len(row) < len(header) and not short_rows):
            problem = (
                f"{path}, line {number} ({row[0]}): {len(row)} cells, the header has {len(header)} columns; separate "
                "cells by one tab each"
            )
            if invalid is None:
                raise InputError(problem)
            invalid[_cell(row[0])] = problem
    return [dict(zip_longest(header, map(_cell, row[: len(header)]), fillvalue="")) for row in rows[1:]]


def _read_text(path: Path) -> str:
    """Return the text of a table: UTF-8, or UTF-16 with its byte order mark (a spreadsheet's "Unicode text")."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; copy it from the repository's config folder") from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    else:
        encoding = "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}: found the byte {content[error.start]:#x}, which is not of {encoding}; save the "
            "table as text with tabs in the encoding UTF-8"
        ) from None


def _cell(text: str) -> str:
    """Return a cell without blanks around it, and without the quotation marks that spreadsheets put around commas."""
    text = text.strip()
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1].replace('""', '"').strip() if quoted else text


@dataclass
class Table:
    """A table by id: its valid rows, what is wrong with the others, and all rows as they are written."""

    path: Path
    rows: dict[str, dict]
    invalid: dict[str, str]
    written: dict[str, dict]

    def sort_out(self, check: Callable[[str, dict], None]) -> None:
        """Move the rows for which `check` raises an InputError to `invalid`, and then those that name them."""
        found = {name: problem for name, row in self.rows.items() if (problem := _problem(check, name, row))}
        self.invalid |= found
        self.rows = {name: row for name, row in self.rows.items() if name not in found}
        if found:
            self.sort_out(check)

    def require(self, name: str, otherwise: str) -> dict:
        """Return a row that another one names; InputError if it is not valid, or not there (`otherwise`)."""
        if name not in self.rows:
            raise InputError(self.invalid.get(name, otherwise))
        return self.rows[name]


def _problem(check: Callable[[str, dict], None], name: str, row: dict) -> str:
    try:
        check(name, row)
    except InputError as error:
        return str(error)
    return ""


def read_rows(path: Path, schema: dict, key: str) -> Table:
    """Read a table by id; columns with a default in the schema may be missing or empty."""
    defaults = {name: spec["default"] for name, spec in schema["properties"].items() if "default" in spec}
    table = Table(path, {}, {}, {})
    for row in read_table(path, short_rows=bool(defaults), invalid=table.invalid):
        name = row.get(key, "?")
        check_schema({key: name}, {"properties": {key: schema["properties"][key]}}, f"{path}, row {name!r}")
        if name in table.written:
            raise InputError(f"{path}: {key} {name!r} has two rows; ids must be unique")
        table.written[name] = row
        if name not in table.invalid:
            table.rows[name] = {column: cell for column, cell in row.items() if cell or not defaults}
    table.sort_out(lambda name, row: check_schema(row, schema, f"{path}, row {name!r}"))
    table.rows = {name: defaults | row for name, row in table.rows.items()}
    return table
