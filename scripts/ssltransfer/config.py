"""Read and validate suites and tables for the workflow.

Only the standard library, PyYAML and jsonschema are imported, because every job of a cluster run imports this module.
"""

import codecs
import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from ssltransfer import datasets as dataset_sources
from ssltransfer.errors import InputError
from ssltransfer.files import expand_path, package_data
from ssltransfer.models.model_row import check_network, check_size, own_norm
from ssltransfer.models.norm_table import mean_and_std
from ssltransfer.models.protocol_fit import misfit
from ssltransfer.settings import complete, config_schema, fill_defaults, job_settings, parse_yaml, read_schema

COUNTS = ("classes", "train", "val", "test")
"""Columns of `datasets.tsv` that the index is checked against."""
PATHS = ("models", "datasets", "pretraining", "norms", "blocks", "data_root", "imagenet_val")
"""Keys of a suite that are paths."""
METRICS_OF_TASK = {
    "single-label": ("top1", "mean-per-class"),
    "multi-label": ("map11",),
    "detection": ("",),
    "normals": ("",),
    "images": ("",),
}
"""Task of `datasets.tsv` -> metrics of the linear protocol that fit it; the last three have none."""
PUBLISHED = ("published-v1", "published-v2")
"""Suites of published numbers only, which are not configured."""
PAPER_NORMS = ("imagenet", "none")
"""Input normalisations of the paper's models."""
BOTH_NORMS = ("test-max", "validation-max")
"""Values of `normalisation` for which a model is evaluated under both of `PAPER_NORMS`."""
REQUIREMENTS = {
    "linear": (("single-label", "multi-label"), ("train", "test")),
    "knn": (("single-label", "multi-label"), ("train",)),
    "fewshot": (("single-label",), ()),
    "calibration": (("single-label",), ("train", "test")),
    "label-efficiency": (("single-label", "multi-label"), ("train", "test")),
    "inversion": (("images",), ()),
    "attention": (("images",), ()),
    "normals": (("normals",), ("train", "test")),
    "detection": (("detection",), ("train", "test")),
}
"""Kind of protocol -> tasks of its datasets, and the parts that they must have."""
EXTRA_PROTOCOLS = {"generated:shapes": ("detection", "normals")}
"""Source -> kinds that its datasets serve besides those of their task."""


FROZEN_KINDS = ("linear", "fewshot", "calibration", "knn", "label-efficiency")
"""Kinds of protocols that need the features of a model alone."""
WITHOUT_FORMAT = ("pretrain:", "features:", "module:")
"""Beginnings of sources that have no file of weights."""
REPEATED_IMAGES = {"original:caltech101/official": "original:caltech101"}
"""Source whose index has one image in several rows -> the source of the same images without repeats."""


@dataclass(frozen=True)
class Cell:
    """One score: a protocol's settings block, a model and a dataset."""

    protocol: str
    model: str
    dataset: str


@dataclass(frozen=True)
class Suite:
    """A validated suite.

    Attributes
    ----------
    config : dict
        The suite's keys and settings blocks with defaults filled in.
    models : dict of str to dict
        Rows of `models.tsv` that list this suite, by id, with defaults filled in; `suites` split into a list.
    datasets : dict of str to dict
        All valid rows of `datasets.tsv` by id; counts as int, or None where the index is to tell them.
    recipes : dict of str to dict
        Pretraining recipes by name.
    input_norms : dict of str to str
        Input normalisations by name, as jobs read them (see `norm_table.mean_and_std`).
    invalid : dict of str to str
        Model or dataset whose row is not valid -> what is wrong with it.
    left_out : dict of Cell to str
        Scores of the suite that need such a row -> what is wrong with it; empty unless `available` is set.
    """

    config: dict
    models: dict[str, dict]
    datasets: dict[str, dict]
    recipes: dict[str, dict]
    input_norms: dict[str, str] = field(default_factory=lambda: {name: name for name in PAPER_NORMS})
    invalid: dict[str, str] = field(default_factory=dict)
    left_out: dict[Cell, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The suite's id."""
        return self.config["suite"]

    def cells(self) -> Iterator[Cell]:
        """All scores of the suite but those that are left out, in the order of its tasks."""
        for protocol, names in self.config["tasks"].items():
            models = self.config["models_of"].get(protocol, self.models)
            for dataset in names:
                for model in models:
                    yield Cell(protocol, model, dataset)

    def shown_instead(self, cell: Cell) -> Cell | None:
        """The cell whose score may be shown in place of this one: detectron2's of a task of the torchvision backend.

        detectron2 is what the paper used, and a detector takes hours; so its score is shown where it is there and the
        other one is not.
        """
        other = other_backend(self.config["protocols"], cell.protocol, "detectron2")
        return replace(cell, protocol=other) if other not in (None, cell.protocol) else None

    def check_data_root(self, indexes: Path = Path("results/datasets")) -> None:
        """Require the folder of the data, if datasets of the tasks are still to be read from it.

        Without this check, a mistyped folder would start downloads.

        Parameters
        ----------
        indexes : Path
            Folder of the datasets that have an index already.

        Raises
        ------
        InputError
            If `data_root` is another folder than the default one, and not there.
        """
        root = Path(self.config["data_root"])
        if root == dataset_sources.DOWNLOAD_FOLDER or root.is_dir():
            return
        for cell in self.cells():
            source = dataset_sources.parse_dataset_source(self.datasets[cell.dataset]["source"])
            absolute = Path(expand_path(source.name)).is_absolute()
            if source.kind not in dataset_sources.READ_KINDS or absolute:
                continue
            if not (indexes / cell.dataset / "index.parquet").exists():
                raise InputError(
                    f"config: data_root: {root} is not a folder, and dataset {cell.dataset!r} is to be read from it; "
                    "correct the path, or leave data_root out to read downloads only"
                )

    def settings(self, protocol: str, model: str = "") -> dict:
        """The settings block of a protocol with all defaults filled in; for a model with a size, with its transform."""
        settings, size = self.config["protocols"][protocol], self.models.get(model, {}).get("size")
        if size and "transform" in settings:
            return settings | {"transform": resized_transform(settings["transform"], size)}
        return settings

    def job_settings(self, protocol: str, model: str = "") -> dict:
        """The part of a settings block that jobs depend on (see `settings.job_settings`)."""
        return job_settings(self.settings(protocol, model))

    def kind(self, protocol: str) -> str:
        """The kind of a protocol: ``linear``, ``fewshot``, ..."""
        return self.settings(protocol)["kind"]

    def image_dataset(self, dataset: str) -> str:
        """The dataset whose images (and features) `dataset` uses: itself, or the one it relabels."""
        source = dataset_sources.parse_dataset_source(self.datasets[dataset]["source"])
        return source.name if source.kind == "column" else dataset

    def norms(self, protocol: str, model: str) -> list[str]:
        """Input normalisations under which a model is evaluated."""
        return evaluated_norms(self.settings(protocol).get("normalisation", ""), self.models[model]["norm"])

    def feature_files(self, cell: Cell) -> list[str]:
        """Feature files that a cell's score is computed from, one for each input normalisation."""
        transform = self.settings(cell.protocol, cell.model)["transform"]
        pool = self.models[cell.model]["pool"]
        readout = f".{pool}" if pool else ""
        folder = f"results/features/{cell.model}/{self.image_dataset(cell.dataset)}"
        return [f"{folder}/{transform}.{norm}{readout}.npy" for norm in self.norms(cell.protocol, cell.model)]

    def recipe(self, model: str) -> dict | None:
        """The pretraining recipe of a model, or None if its weights are published ones."""
        kind, _, name = self.models[model]["source"].partition(":")
        return self.recipes[name] if kind == "pretrain" else None


def evaluated_norms(normalisation: str, own: str) -> list[str]:
    """Input normalisations that a value of `normalisation` in a settings block asks for; `own` is the model's.

    Where both of the paper's are asked for, a model with another one is evaluated under that and plain pixels.
    """
    if normalisation in PAPER_NORMS:
        return [normalisation]
    if normalisation not in BOTH_NORMS:
        return [own]
    return list(PAPER_NORMS) if own in PAPER_NORMS else [own, "none"]


def resized_transform(transform: str, size: str | int) -> str:
    """Return a transform with another side in pixels: ``resize224`` and 518 give ``resize518``.

    ``square257``, the geometry of the official few-shot code, has one size.
    """
    return re.sub(r"^(resize|stretch)\d+$", rf"\g<1>{size}", transform)


def side_of(transform: str) -> int:
    """Return the side in pixels of the images that a transform makes."""
    return 224 if transform == "square257" else int(transform.lstrip("abcdefghijklmnopqrstuvwxyz"))


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


def repeated_option(words: Sequence[str], *options: str) -> str | None:
    """Return the first of some options that a command line gives more than once; None if it gives none so."""
    given = [word.partition("=")[0] for word in words]
    return next((option for option in options if given.count(option) > 1), None)


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
        if len(row) > len(header) or (len(row) < len(header) and not short_rows):
            problem = (
                f"{path}, line {number} ({row[0]}): {len(row)} cells, the header has {len(header)} columns; separate "
                "cells by one tab each"
            )
            if invalid is None:
                raise InputError(problem)
            invalid[_cell(row[0])] = problem
    return [dict(zip_longest(header, map(_cell, row[: len(header)]), fillvalue="")) for row in rows[1:]]


def read_yaml(path: Path) -> Any:
    """Read a YAML file; InputError if it is missing or malformed."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


TYPES = {
    "array": "a list",
    "object": "a block of keys",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
}


def _reason(found: object, kind: str) -> str:
    """Hint for a number that YAML parsed as text (1e-1), and for a path that it parsed as nothing (~)."""
    if found is None and kind == "string":
        return " (YAML reads a bare ~ as nothing; write '~' in quotes)"
    if kind not in ("number", "integer") or not isinstance(found, str):
        return ""
    try:
        return f" (YAML reads it as text; write {float(found)})"
    except ValueError:
        return ""


def _explain(error: ValidationError) -> str:
    """One line: the key, what was found, what to write instead."""
    key = ".".join(map(str, error.absolute_path)) or "top level"
    # What the parts of an error are depends on the rule that was broken.
    rule = str(error.validator)
    value: Any = error.validator_value
    found: Any = error.instance
    schema: Any = error.schema
    if rule == "additionalProperties":
        known = schema.get("properties", {})
        unknown = next(name for name in found if name not in known)
        below = [name for name, spec in known.items() if unknown in spec.get("properties", {})]
        place = f" ({unknown!r} belongs below {below[0]!r})" if below else ""
        return f"{key}: unknown key {unknown!r}{place}; known are {', '.join(known)}"
    if rule == "required":
        missing = [name for name in value if name not in found]
        return f"{key}: key {missing[0]!r} is missing"
    hint = schema.get("description", "")
    expected = {
        "enum": lambda: "one of " + ", ".join(map(repr, value)),
        "type": lambda: TYPES.get(value, value) + _reason(found, value),
        "pattern": lambda: f"text like {value}",
        "minimum": lambda: f"at least {value}",
        "exclusiveMinimum": lambda: f"more than {value}",
        "exclusiveMaximum": lambda: f"less than {value}",
        "minItems": lambda: f"at least {value} item{'s' * (value > 1)}",
        "minLength": lambda: "some text",
    }.get(rule, lambda: f"{rule} {value}")()
    return f"{key}: found {found!r}, expected {expected}" + (f" ({hint})" if hint else "")


def _check(instance: object, schema: dict, where: str) -> None:
    errors = list(Draft202012Validator(schema).iter_errors(instance))
    if errors:
        raise InputError(f"{where}: {_explain(best_match(errors))}")


def _with_booleans(config: dict, schema: dict) -> dict:
    """Take ``--config key=true`` as a boolean; Snakemake hands on text unless it is written True or False."""
    words = {"true": True, "false": False}
    kinds = {key: spec.get("type") for key, spec in schema["properties"].items()}
    return config | {
        key: words[value] for key, value in config.items() if kinds.get(key) == "boolean" and str(value) in words
    }


@dataclass
class _Table:
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


def _read_rows(path: Path, schema: dict, key: str) -> _Table:
    """Read a table by id; columns with a default in the schema may be missing or empty."""
    defaults = {name: spec["default"] for name, spec in schema["properties"].items() if "default" in spec}
    table = _Table(path, {}, {}, {})
    for row in read_table(path, short_rows=bool(defaults), invalid=table.invalid):
        name = row.get(key, "?")
        _check({key: name}, {"properties": {key: schema["properties"][key]}}, f"{path}, row {name!r}")
        if name in table.written:
            raise InputError(f"{path}: {key} {name!r} has two rows; ids must be unique")
        table.written[name] = row
        if name not in table.invalid:
            table.rows[name] = {column: cell for column, cell in row.items() if cell or not defaults}
    table.sort_out(lambda name, row: _check(row, schema, f"{path}, row {name!r}"))
    table.rows = {name: defaults | row for name, row in table.rows.items()}
    return table


def _read_models(path: Path, schema: dict, suite: str, norms: Mapping[str, str]) -> _Table:
    table = _read_rows(path, schema, "model")
    for row in table.rows.values():
        _fill_model(row, suite)
    table.sort_out(lambda _, row: _fill_norm(row, path, norms))
    return table


def _read_datasets(path: Path, schema: dict) -> _Table:
    """Read a table of datasets, with the checks of rows by themselves and of the datasets that they name."""
    table = _read_rows(path, schema, "dataset")
    for row in table.rows.values():
        _fill_dataset(row)
    table.sort_out(lambda name, row: _check_dataset(row, f"{path}, row {name!r}"))
    table.sort_out(lambda name, row: _check_named_datasets(table, row, f"{path}, row {name!r}"))
    return table


def load_suite(config: dict, schemas: Path, base: Path) -> Suite:
    """Validate a suite and its tables and cross-check them.

    Parameters
    ----------
    config : dict
        The merged configuration.
    schemas : Path
        Folder of the schemas.
    base : Path
        The repository; tables that do not exist below the working directory are looked up here.

    Raises
    ------
    InputError
        With one line that names file, key or row, what was found and what to write instead.
    """
    schema = read_yaml(schemas / "config.schema.yaml")
    config = _with_booleans(config, schema)
    _check(config, schema, "config")
    config = fill_defaults(config, schema)

    for key in PATHS:
        config[key] = expand_path(config[key])

    def located(key: str) -> Path:
        path = Path(config[key])
        return path if path.exists() or path.is_absolute() else base / path

    config["protocols"] = _named_blocks(config, located("blocks"), schema)
    if config["detection"]:
        config |= _with_backend(config)
    name = config["suite"]
    if name in PUBLISHED:
        raise InputError(f"config: suite: {name!r} is reserved for the published numbers; take another name")
    own_norms = located("norms")
    shipped = package_data("config/norms.tsv")  # a config folder of an earlier release has no such table
    norms = read_norms(own_norms if own_norms.exists() or config["norms"] != "config/norms.tsv" else shipped)
    models = _read_models(located("models"), read_yaml(schemas / "models.schema.yaml"), name, norms)
    datasets = _read_datasets(located("datasets"), read_yaml(schemas / "datasets.schema.yaml"))
    recipes = read_yaml(located("pretraining")) or {}
    _check(recipes, read_yaml(schemas / "pretraining.schema.yaml"), str(located("pretraining")))
    models.sort_out(lambda _, row: _check_model(row, recipes, datasets, config["pretraining"], models.path))

    unusable = {d: datasets.invalid[d] for names in config["tasks"].values() for d in names if d in datasets.invalid}
    tasks = _usable(config["tasks"], unusable)
    _cross_check_tasks(Suite(config | {"tasks": tasks}, {}, datasets.rows, recipes))
    models.sort_out(lambda _, row: _check_source_accuracy(row, config, models.path))
    models.sort_out(lambda _, row: _check_sizes(row, config, models.path))
    models.sort_out(lambda _, row: _check_given_features(row, config))
    wrong = {model: problem for model, problem in models.invalid.items() if _may_list(models.written[model], name)}
    own = {model: row for model, row in models.rows.items() if name in row["suites"]}
    if not own and not wrong:
        known = sorted({suite for row in models.rows.values() for suite in row["suites"]})
        raise InputError(
            f"{models.path}: no model lists suite {name!r}; suites there are {', '.join(known)}; "
            "add it to the column suites of a row"
        )
    suite = Suite(
        config, own | {m: {} for m in wrong}, datasets.rows, recipes, norms, models.invalid | datasets.invalid
    )
    _cross_check_models_of(suite)
    unusable |= wrong
    if unusable and not (config["available"] and own and tasks):
        raise InputError(next(iter(unusable.values())))
    left_out = {c: unusable[n] for c in suite.cells() for n in (c.dataset, c.model) if n in unusable}
    config = config | {"tasks": tasks, "models_of": _usable(config["models_of"], wrong)}
    suite = replace(suite, config=config, models=own, left_out=left_out)
    _cross_check_networks(suite)
    return suite


def _usable(names: dict[str, list[str]], unusable: Mapping[str, str]) -> dict[str, list[str]]:
    """Return tasks, or models of tasks, without unusable names and without what is empty then."""
    kept = {protocol: [name for name in each if name not in unusable] for protocol, each in names.items()}
    return {protocol: each for protocol, each in kept.items() if each}


def _may_list(row: dict, suite: str) -> bool:
    """Whether the row of a model, which may be wrong in any way, may list a suite."""
    return not row.get("suites") or any(suite in re.split(r"[\s,]+", cell) for cell in row.values())


def read_norms(path: Path) -> dict[str, str]:
    """Read the table of input normalisations: name -> text that `norm_table.mean_and_std` reads.

    Raises
    ------
    InputError
        If a row has no three means and standard deviations, or changes one of the paper's.
    """
    norms = {name: name for name in PAPER_NORMS}
    for row in read_table(path, short_rows=True):
        name = row.get("norm", "")
        text = f"{name}={row.get('mean', '')}:{row.get('std', '')}"
        try:
            values = mean_and_std(text)
        except InputError:
            raise InputError(
                f"{path}, row {name!r}: found the values {text.partition('=')[2]!r}, expected three numbers for mean "
                "and std, as in 0.485/0.456/0.406"
            ) from None
        if 0.0 in values[1]:
            raise InputError(f"{path}, row {name!r}: found a standard deviation of 0; write one above it")
        if name in PAPER_NORMS and values != mean_and_std(name):
            raise InputError(f"{path}, row {name!r}: the paper's normalisations do not change; give yours another name")
        norms[name] = name if name in PAPER_NORMS else text
    return norms


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


def _fill_dataset(row: dict) -> None:
    """Turn the counts of a dataset's row into numbers, empty ones into None."""
    row |= {count: int(row[count]) if row[count] else None for count in COUNTS}


def _named_blocks(config: dict, path: Path, schema: dict) -> dict[str, dict]:
    """Return the shared settings blocks and those of the suite, with defaults; a name has one meaning."""
    shared = read_yaml(path) or {}
    _check(shared, schema["properties"]["protocols"] | {"$defs": schema["$defs"]}, str(path))
    blocks = {name: complete(block) for name, block in shared.items()}
    for name, block in config["protocols"].items():
        own, known = complete(block), blocks.get(name)
        if known is not None and own != known:
            key = next(key for key in (*own, *known) if own.get(key) != known.get(key))
            raise InputError(
                f"config: protocols.{name}.{key}: found {own.get(key)!r}, but the block of this name in {path} has "
                f"{known.get(key)!r}; give your block another name"
            )
        blocks[name] = own
    return blocks


def read_blocks(own: Mapping[str, Mapping]) -> dict[str, dict]:
    """Return the library's shared settings blocks and `own` ones, complete; InputError if one is not valid."""
    schema = config_schema()
    blocks = {name: dict(block) for name, block in own.items()}
    part = {"properties": {"protocols": schema["properties"]["protocols"]}, "$defs": schema["$defs"]}
    _check({"protocols": blocks}, part, "config")
    return _named_blocks({"protocols": blocks}, package_data("config/protocols.yaml"), schema)


def other_backend(blocks: dict[str, dict], protocol: str, backend: str) -> str | None:
    """Return the block of this detection backend that is otherwise equal to a protocol's; None if there is none.

    A protocol whose own block has the backend, or is not one of detection, is returned as it is.
    """
    block = blocks.get(protocol, {})
    if block.get("kind") != "detection" or block["backend"] == backend:
        return protocol
    return next((name for name, other in blocks.items() if other == block | {"backend": backend}), None)


def _with_backend(config: dict) -> dict:
    """Return tasks and models_of with every detection block replaced by its equal of the backend `detection`."""
    backend, blocks = config["detection"], config["protocols"]
    changed: dict[str, dict] = {"tasks": {}, "models_of": {}}
    for key, values in changed.items():
        for protocol, names in config[key].items():
            name = other_backend(blocks, protocol, backend)
            if name is None:
                raise InputError(
                    f"config: detection: found {backend!r}, but no settings block is equal to {protocol!r} of "
                    f"{key} with backend: {backend}; add one to protocols"
                )
            values[name] = list(dict.fromkeys([*values.get(name, []), *names]))
    return changed


def _check_dataset(row: dict, where: str) -> None:
    if row["metric"] not in METRICS_OF_TASK[row["task"]]:
        raise InputError(f"{where}: metric {row['metric']!r} does not fit task {row['task']!r}")
    try:
        source = dataset_sources.parse_dataset_source(row["source"])
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    empty = [count for count in COUNTS if row[count] is None]
    if empty and source.kind not in ("folder", "csv"):
        raise InputError(
            f"{where}: {empty[0]} is empty; write the number (only folder: and csv: take it from the images)"
        )


def _check_named_datasets(table: _Table, row: dict, where: str) -> None:
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


def _check_model(row: dict, recipes: dict[str, dict], datasets: _Table, pretraining: str, path: Path) -> None:
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
    empty = {"features": ("format", "sha256", "pool", "size"), "module": ("format", "sha256")}.get(source, ())
    if filled := [column for column in empty if row[column]]:
        raise InputError(
            f"{where}: {filled[0]} is {row[filled[0]]!r}, but source {row['source']} has no file that it could be of; "
            "leave the cell empty"
        )


def _check_given_features(row: dict, config: dict) -> None:
    """Require that a model without a network is evaluated by protocols of features alone, of which there is one set."""
    if row["arch"] != "none" or config["suite"] not in row["suites"]:
        return
    suite = Suite(config, {row["model"]: row}, {}, {})
    for protocol in config["tasks"]:
        kind, settings = suite.kind(protocol), suite.settings(protocol)
        if row["model"] not in config["models_of"].get(protocol, suite.models):
            continue
        if kind not in FROZEN_KINDS:
            reason = f"and {kind} needs a network"
        elif settings.get("normalisation") in BOTH_NORMS:
            reason = f"and normalisation {settings['normalisation']} needs those of two inputs"
        else:
            continue
        raise InputError(
            f"config: tasks.{protocol}: of model {row['model']!r} only features are given (arch none), {reason}; list "
            f"the other models under models_of.{protocol}"
        )


def _check_source_accuracy(row: dict, config: dict, path: Path) -> None:
    """Check the source accuracy of a model of the suite, which may be the score of one of the suite's tasks."""
    kind, _, dataset = row["source_accuracy"].partition(":")
    if kind not in ("", "measured") and not 1 <= float(kind) < 100:
        raise InputError(
            f"{path}, row {row['model']!r}: source_accuracy is {kind}; write a percentage from 1 to below 100, "
            "measured:DATASET, or nothing"
        )
    blocks = config["protocols"]
    linear = {d for name, ds in config["tasks"].items() for d in ds if blocks.get(name, {}).get("kind") == "linear"}
    if kind == "measured" and config["suite"] in row["suites"] and dataset not in linear:
        raise InputError(
            f"{path}, row {row['model']!r}: source_accuracy is measured:{dataset}, but suite {config['suite']!r} has "
            f"no linear task on {dataset!r}"
        )


def _check_sizes(row: dict, config: dict, path: Path) -> None:
    """Require that a model of the suite takes images of the side of every protocol that resizes them to one."""
    if config["suite"] not in row["suites"]:
        return
    suite = Suite(config, {row["model"]: row}, {}, {})
    for protocol in config["tasks"]:
        transform = suite.settings(protocol, row["model"]).get("transform")
        if transform and row["model"] in config["models_of"].get(protocol, [row["model"]]):
            try:
                check_size(row, side_of(transform))
            except InputError as error:
                where = f"{path}, row {row['model']!r}, protocol {protocol!r}"
                raise InputError(f"{where}: {error} into the cell") from None


def check_model_table(path: Path, model: str) -> None:
    """Check a table of models and one row of it as reading a suite does, but for what the suite's tasks decide.

    Raises
    ------
    InputError
        See `load_suite`.
    """
    norms = Path("config/norms.tsv")
    norms = norms if norms.is_file() else package_data(str(norms))
    table = _read_models(path, read_schema("models"), "", read_norms(norms))
    file = Path("config/pretraining.yaml")
    recipes = read_yaml(file if file.is_file() else package_data(str(file))) or {}
    # What recipes are trained on is in another table, which reading a suite checks.
    datasets = _Table(path, {recipe.get("dataset", ""): {} for recipe in recipes.values()}, {}, {})
    config = {"suite": "", "tasks": {}, "protocols": {}}
    table.sort_out(lambda _, row: _check_model(row, recipes, datasets, str(file), path))
    table.sort_out(lambda _, row: _check_source_accuracy(row | {"suites": []}, config, path))
    table.require(model, "")


def check_dataset_table(path: Path, dataset: str) -> None:
    """Check a table of datasets and one row of it as reading a suite does; InputError as `load_suite`."""
    _read_datasets(path, read_schema("datasets")).require(dataset, "")


def _cross_check_tasks(suite: Suite) -> None:
    for protocol, names in suite.config["tasks"].items():
        if protocol not in suite.config["protocols"]:
            known = ", ".join(suite.config["protocols"])
            raise InputError(f"config: tasks.{protocol} has no settings block in protocols; known are {known}")
        for name in names:
            if name not in suite.datasets:
                known = ", ".join(suite.datasets)
                raise InputError(f"config: tasks.{protocol} names dataset {name!r}; known are {known}")
            row, kind = suite.datasets[name], suite.kind(protocol)
            tasks, parts = REQUIREMENTS[kind]
            if row["task"] not in tasks and kind not in EXTRA_PROTOCOLS.get(row["source"], ()):
                others = [f"source {source}" for source, kinds in EXTRA_PROTOCOLS.items() if kind in kinds]
                raise InputError(
                    f"config: tasks.{protocol}: {name!r} is {row['task']}; {kind} needs a dataset of task "
                    f"{' or '.join([*tasks, *others])}"
                )
            for part in parts:
                if row[part] == 0 or _lacks_part(row, part, suite.config["data_root"]):
                    raise InputError(f"config: tasks.{protocol}: {name!r} has no {part} part; {kind} needs one")
            if kind in PROTOCOL_CHECKS:
                PROTOCOL_CHECKS[kind](suite, protocol, row)


def _lacks_part(row: dict, part: str, data_root: str) -> bool:
    """Whether a folder that the row does not count has no such part; the index tells of folders that are not there."""
    source = dataset_sources.parse_dataset_source(row["source"])
    folder = dataset_sources.location(source, data_root)
    if row[part] is not None or source.kind != "folder" or not folder.is_dir():
        return False
    return part not in dataset_sources.find_parts(folder)


def _cross_check_models_of(suite: Suite) -> None:
    for protocol, models in suite.config["models_of"].items():
        if protocol not in suite.config["tasks"]:
            tasks = ", ".join(suite.config["tasks"])
            raise InputError(f"config: models_of.{protocol} is not among the tasks; these are {tasks}")
        for model in models:
            if model not in suite.models:
                raise InputError(
                    f"config: models_of.{protocol} names model {model!r}; models of suite {suite.name!r} are "
                    f"{', '.join(suite.models)}"
                )


def _cross_check_networks(suite: Suite) -> None:
    """Require networks that fit the protocols they are evaluated with."""
    for protocol in suite.config["tasks"]:
        for model in suite.config["models_of"].get(protocol, suite.models):
            arch = suite.models[model]["arch"]
            if reason := misfit(arch, suite.kind(protocol), suite.settings(protocol, model)):
                raise InputError(
                    f"config: tasks.{protocol}: model {model!r} ({arch}): {reason}, or name the other models in "
                    f"models_of.{protocol}"
                )


def _check_calibration(suite: Suite, protocol: str, row: dict) -> None:
    of = suite.settings(protocol)["of"]
    if suite.config["protocols"].get(of, {}).get("kind") not in ("linear", "knn"):
        raise InputError(f"config: protocols.{protocol}.of: {of!r} is not a linear or knn protocol of this suite")


def _check_label_efficiency(suite: Suite, protocol: str, row: dict) -> None:
    of, where = suite.settings(protocol)["of"], f"config: protocols.{protocol}.of"
    block = suite.config["protocols"].get(of, {})
    if block.get("kind") != "linear" or block["normalisation"] != "per-model" or block["solver"] != "converged":
        raise InputError(
            f"{where}: {of!r} is not a linear protocol of this suite with normalisation: per-model and "
            "solver: converged; name one, such as linear"
        )


def _check_knn(suite: Suite, protocol: str, row: dict) -> None:
    if suite.settings(protocol)["selection"] == "validation" and row["test"] == 0:
        raise InputError(
            f"config: protocols.{protocol}.selection: {row['dataset']!r} has no test part, so that its images would be "
            "both selected and tested on; write none"
        )


def _check_attention(suite: Suite, protocol: str, row: dict) -> None:
    stride, mask = (suite.settings(protocol)[key] for key in ("stride", "mask"))
    if stride > mask:
        raise InputError(f"config: protocols.{protocol}.stride: found {stride}, expected at most the mask {mask}")


def _check_inversion(suite: Suite, protocol: str, row: dict) -> None:
    settings, where = suite.settings(protocol), f"config: protocols.{protocol}"
    channels, kernels = settings["network"]["channels"], settings["network"]["kernels"]
    canvas, factor = settings["canvas"], 2 ** len(channels)
    size = int(settings["transform"].removeprefix("resize"))
    if len(kernels) != len(channels) or any(kernel % 2 == 0 for kernel in kernels):
        raise InputError(
            f"{where}.network.kernels: found {kernels}, expected an odd size for each of the {len(channels)} channels"
        )
    if canvas % factor or canvas == factor or canvas < size:
        raise InputError(
            f"{where}.canvas: found {canvas}, expected a multiple of {factor} (halved at every scale) above {factor}, "
            f"and no less than the image's {size}"
        )


def _check_normals(suite: Suite, protocol: str, row: dict) -> None:
    original, generated = row["source"].startswith("original:nyuv2"), row["source"] == "generated:shapes"
    if not original and not generated:
        raise InputError(
            f"config: tasks.{protocol}: {row['dataset']!r} has no surface normals; write a dataset with source "
            "original:nyuv2, original:nyuv2/labelled or generated:shapes"
        )
    if not row["source"] == "original:nyuv2" and suite.settings(protocol)["targets"] != "kmeans":
        raise InputError(f"config: protocols.{protocol}.targets: {row['dataset']!r} has no code words; write kmeans")


def _check_detection(suite: Suite, protocol: str, row: dict) -> None:
    schedule, where = suite.settings(protocol)["schedule"], f"config: protocols.{protocol}.schedule"
    steps, milestones, warmup = (schedule[key] for key in ("steps", "milestones", "warmup"))
    if milestones != sorted(set(milestones)) or max(milestones, default=0) >= steps:
        raise InputError(
            f"{where}: milestones (as written, or the default) are {milestones}; write rising steps below {steps}"
        )
    if warmup >= steps:
        raise InputError(f"{where}: warmup (as written, or the default) is {warmup}; write less than the {steps} steps")


def _check_fewshot(suite: Suite, protocol: str, row: dict) -> None:
    if row["source"] in REPEATED_IMAGES:
        raise InputError(
            f"config: tasks.{protocol}: {row['dataset']!r} lists images several times ({row['source']} draws with "
            "replacement), so that one image would be both support and query; write a dataset without repeats, such "
            f"as {REPEATED_IMAGES[row['source']]}"
        )
    ways = suite.settings(protocol)["ways"]
    if row["classes"] is not None and row["classes"] < ways:
        raise InputError(
            f"config: tasks.{protocol}: {row['dataset']!r} has {row['classes']} classes, an episode needs {ways}; name "
            f"a settings block with at most as many ways, such as {{kind: fewshot, ways: {row['classes']}}}"
        )


PROTOCOL_CHECKS = {
    "fewshot": _check_fewshot,
    "knn": _check_knn,
    "label-efficiency": _check_label_efficiency,
    "detection": _check_detection,
    "calibration": _check_calibration,
    "inversion": _check_inversion,
    "attention": _check_attention,
    "normals": _check_normals,
}
