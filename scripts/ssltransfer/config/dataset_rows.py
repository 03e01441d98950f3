"""Rows of the table of datasets."""

from pathlib import Path

from ssltransfer import datasets as dataset_sources
from ssltransfer.config.table_file import Table, read_rows
from ssltransfer.errors import InputError
from ssltransfer.settings import read_schema

COUNTS = ("classes", "train", "val", "test")
"""Columns of `datasets.tsv` that the index is checked against."""
METRICS_OF_TASK = {
    "single-label": ("top1", "mean-per-class"),
    "multi-label": ("map11",),
    "detection": ("",),
    "normals": ("",),
    "segmentation": ("",),
    "images": ("",),
}
"""Task of `datasets.tsv` -> metrics of the linear protocol that fit it; the last four have none."""


def read_datasets(path: Path, schema: dict) -> Table:
    """Read a table of datasets, with the checks of rows by themselves and of the datasets that they name."""
    table = read_rows(path, schema, "dataset")
    for row in table.rows.values():
        _fill_dataset(row)
    table.sort_out(lambda name, row: _check_dataset(row, f"{path}, row {name!r}"))
    table.sort_out(lambda name, row: _check_named_datasets(table, row, f"{path}, row {name!r}"))
    return table


def check_dataset_table(path: Path, dataset: str) -> None:
    """Check a table of datasets and one row of it as reading a suite does; InputError as `load_suite`."""
    read_datasets(path, read_schema("datasets")).require(dataset, "")


def _fill_dataset(row: dict) -> None:
    """Turn the counts of a dataset's row into numbers, empty ones into None."""
    row |= {count: int(row[count]) if row[count] else None for count in COUNTS}


def _check_dataset(row: dict, where: str) -> None:
    if row["metric"] not in METRICS_OF_TASK[row["task"]]:
        raise InputError(f"{where}: metric {row['metric']!r} does not fit task {row['task']!r}")
    try:
        source = dataset_sources.parse_dataset_source(row["source"])
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    empty = [count for count in COUNTS if row[count] is None]
    if empty and source.kind not in ("folder", "csv", "masks"):
        raise InputError(
            f"{where}: {empty[0]} is empty; write the number (only folder:, csv: and masks: take it from the images)"
        )


def _check_named_datasets(table: Table, row: dict, where: str) -> None:
    """Check the datasets that a source names."""
    source = dataset_sources.parse_dataset_source(row["source"])
    if source.kind == "column":
        table.require(source.name, f"{where}: source names dataset {source.name!r}, which has no row")
    if source.kind != "one-of":
        return
    try:
        members, _ = dataset_sources.parse_members(source.name)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    for member in members:
        found = table.require(member.dataset, f"{where}: source names dataset {member.dataset!r}, which has no row")
        kind = dataset_sources.parse_dataset_source(found["source"]).kind
        if kind in ("one-of", "column"):
            raise InputError(f"{where}: source names {member.dataset!r}, which has no images of its own ({kind})")
