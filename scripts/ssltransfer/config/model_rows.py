"""Rows of the table of models."""

import re
from collections.abc import Mapping
from pathlib import Path

from ssltransfer.checkpoints.sources import given_file, parse_alternatives
from ssltransfer.config.norms import read_norms
from ssltransfer.config.suite import side_of
from ssltransfer.config.table_file import Table, read_rows
from ssltransfer.config.task_checks import check_source_accuracy
from ssltransfer.config.validation import read_yaml
from ssltransfer.errors import InputError
from ssltransfer.files import package_data
from ssltransfer.models.model_row import check_network, check_size, own_norm
from ssltransfer.models.user_code import code_file
from ssltransfer.settings import read_schema

WITHOUT_FORMAT = ("pretrain:", "features:", "module:")
"""Beginnings of sources that have no file of weights."""


def read_models(path: Path, schema: dict, suite: str, norms: Mapping[str, str]) -> Table:
    """Read a table of models for a suite; cells whose default is not a fixed text are filled in."""
    table = read_rows(path, schema, "model")
    for row in table.rows.values():
        _fill_model(row, suite)
    table.sort_out(lambda _, row: _fill_norm(row, path, norms))
    return table


def check_model_table(path: Path, model: str) -> None:
    """Check a table of models and one row of it as reading a suite does, but for what the suite's tasks decide.

    Raises
    ------
    InputError
        See `load_suite`.
    """
    norms = Path("config/norms.tsv")
    norms = norms if norms.is_file() else package_data(str(norms))
    table = read_models(path, read_schema("models"), "", read_norms(norms))
    file = Path("config/pretraining.yaml")
    recipes = read_yaml(file if file.is_file() else package_data(str(file))) or {}
    # What recipes are trained on is in another table, which reading a suite checks.
    datasets = Table(path, {recipe.get("dataset", ""): {} for recipe in recipes.values()}, {}, {})
    config = {"suite": "", "tasks": {}, "protocols": {}}
    table.sort_out(lambda _, row: check_model(row, recipes, datasets, str(file), path))
    table.sort_out(lambda _, row: check_source_accuracy(row | {"suites": []}, config, path))
    table.require(model, "")


def _fill_model(row: dict, suite: str) -> None:
    """Fill the cells of a model's row whose default is none of a fixed text; its suites become a list."""
    row["label"] = row["label"] or row["model"]
    row["suites"] = [name.strip() for name in (row["suites"] or suite).split(",")]
    if not row["format"] and not row["source"].startswith(WITHOUT_FORMAT):
        row["format"] = "auto"


def _fill_norm(row: dict, path: Path, norms: Mapping[str, str]) -> None:
    """Fill an empty cell `norm` with the normalisation of the published weights; InputError if it has no row."""
    try:
        row["norm"] = row["norm"] or _norm_name(own_norm(row), norms)
    except InputError as error:
        raise InputError(f"{path}, row {row['model']!r}: {error}") from None
    if row["norm"] not in norms:
        raise InputError(f"{path}, row {row['model']!r}: norm {row['norm']!r} is not one of {', '.join(norms)}")


def _norm_name(norm: str, norms: Mapping[str, str]) -> str:
    """Return the name of a normalisation that is given by its name or its values."""
    named = next((name for name, text in norms.items() if norm == name or text.partition("=")[2] == norm), None)
    if named is None:
        raise InputError(f"norm: no row of the table of normalisations has the values {norm}; add one")
    return named


def check_model(row: dict, recipes: dict[str, dict], datasets: Table, pretraining: str, path: Path) -> None:
    """Check a row of the table of models by itself, and against the recipes it names; InputError otherwise."""
    where = f"{path}, row {row['model']!r}"
    _check_own(row, where)
    kind, _, recipe = row["source"].partition(":")
    if kind == "pretrain" and row["format"]:
        raise InputError(
            f"{where}: format is {row['format']!r}, but source pretrain: has no file to read; leave the cell empty"
        )
    try:
        check_network(row)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if row["epoch"] and not row["run"]:
        raise InputError(
            f"{where}: epoch is {row['epoch']}, but run is empty; write the name of the training that the epoch "
            "belongs to"
        )
    if kind != "pretrain":
        return
    if recipe not in recipes:
        raise InputError(f"{where}: recipe {recipe!r} is not in {pretraining}; known are {', '.join(recipes)}")
    if (dataset := recipes[recipe].get("dataset")) is not None:
        datasets.require(dataset, f"{pretraining}, recipe {recipe!r}: dataset {dataset!r} has no row")
    if (transform := recipes[recipe].get("transform")) is not None:
        try:
            check_size(row, side_of(transform))
        except InputError as error:
            raise InputError(f"{where}: {error} into the transform of a new recipe") from None


def _check_own(row: dict, where: str) -> None:
    """Check a row of a user's module (arch ``python:``) or of given features (arch ``none``); InputError otherwise."""
    arch, source = (row[column].partition(":")[0] for column in ("arch", "source"))
    if (arch == "none") != (source == "features"):
        raise InputError(
            f"{where}: arch is {row['arch']!r} and source {row['source']!r}; given features have arch none and source "
            "features:FOLDER, networks have neither"
        )
    if source == "module" and (arch != "python" or row["source"] != "module:own"):
        raise InputError(
            f"{where}: source is {row['source']!r}, expected module:own, with an arch python:FILE.py:FUNCTION that "
            "returns a module with its weights"
        )
    if arch == "python" and row["format"].partition(":")[0] not in ("auto", ""):
        raise InputError(f"{where}: format is {row['format']!r}, which is one of ResNets; leave the cell empty")
    empty = {
        "features": ("format", "sha256", "pool", "size", "alternatives"),
        "module": ("format", "sha256", "alternatives"),
        "pretrain": ("alternatives",),
    }.get(source, ())
    if filled := [column for column in empty if row[column]]:
        raise InputError(
            f"{where}: {filled[0]} is {row[filled[0]]!r}, but source {row['source']} has no file that it could be of; "
            "leave the cell empty"
        )
    _check_alternatives(row, where)
    if arch == "python" and not (file := code_file(row["arch"].partition(":")[2])).is_file():
        raise InputError(f"{where}: arch is {row['arch']!r}, but {file.resolve()} is not a file")
    if source == "features" and not (folder := given_file(row["source"], "").parent).is_dir():
        raise InputError(f"{where}: source is {row['source']!r}, but {folder.resolve()} is not a folder")


def _check_alternatives(row: dict, where: str) -> None:
    """Require that the column `alternatives` has the form that jobs read, with known formats."""
    try:
        alternatives = parse_alternatives(row["alternatives"])
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    pattern = read_schema("models")["properties"]["format"]["pattern"]
    for format_, _ in alternatives:
        if not format_ or not re.search(pattern, format_):
            raise InputError(
                f"{where}: alternatives: found format {format_!r}, expected one that the column format takes, before ="
            )
