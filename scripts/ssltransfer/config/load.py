"""Reading a suite with its tables, and cross-checking them."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ssltransfer.config.blocks import named_blocks, restricted, with_backend
from ssltransfer.config.config_files import suite_files
from ssltransfer.config.dataset_rows import read_datasets
from ssltransfer.config.model_rows import check_model, read_models
from ssltransfer.config.norms import read_norms
from ssltransfer.config.suite import Suite
from ssltransfer.config.table_file import Table
from ssltransfer.config.task_checks import (
    check_given_features,
    check_models_of,
    check_networks,
    check_sizes,
    check_source_accuracy,
    check_tasks,
)
from ssltransfer.config.validation import check_schema, read_yaml, with_booleans
from ssltransfer.errors import InputError, known_names
from ssltransfer.files import expand_path, package_data
from ssltransfer.settings import fill_defaults

PATHS = ("models", "datasets", "pretraining", "norms", "blocks", "data_root", "imagenet_val")
"""Keys of a suite that are paths."""
PUBLISHED = ("published-v1", "published-v2")
"""Suites of published numbers only, which are not configured."""


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
    config = with_booleans(config, schema)
    check_schema(config, schema, "config")
    config = fill_defaults(config, schema)

    for key in PATHS:
        config[key] = expand_path(config[key])

    def located(key: str) -> Path:
        path = Path(config[key])
        return path if path.exists() or path.is_absolute() else base / path

    config["protocols"] = named_blocks(config, located("blocks"), schema)
    if config["only"]:
        config |= restricted(config)
    if config["detection"]:
        config |= with_backend(config)
    name = config["suite"]
    if name in PUBLISHED:
        raise InputError(f"config: suite: {name!r} is reserved for the published numbers; take another name")
    own_norms = located("norms")
    shipped = package_data("config/norms.tsv")  # a config folder of an earlier release has no such table
    norms = read_norms(own_norms if own_norms.exists() or config["norms"] != "config/norms.tsv" else shipped)
    models = read_models(located("models"), read_yaml(schemas / "models.schema.yaml"), name, norms)
    datasets = read_datasets(located("datasets"), read_yaml(schemas / "datasets.schema.yaml"))
    recipes = read_yaml(located("pretraining")) or {}
    check_schema(recipes, read_yaml(schemas / "pretraining.schema.yaml"), str(located("pretraining")))
    models.sort_out(lambda _, row: check_model(row, recipes, datasets, config["pretraining"], models.path))

    unusable = {d: datasets.invalid[d] for names in config["tasks"].values() for d in names if d in datasets.invalid}
    tasks = _usable(config["tasks"], unusable)
    check_tasks(Suite(config | {"tasks": tasks}, {}, datasets.rows, recipes))
    models.sort_out(lambda _, row: check_source_accuracy(row, config, models.path))
    models.sort_out(lambda _, row: check_sizes(row, config, models.path))
    models.sort_out(lambda _, row: check_given_features(row, config))
    wrong = {model: problem for model, problem in models.invalid.items() if _may_list(models.written[model], name)}
    own = {model: row for model, row in models.rows.items() if name in row["suites"]}
    if not own and not wrong:
        known = sorted({suite for row in models.rows.values() for suite in row["suites"]})
        raise InputError(
            f"{models.path}: no model lists suite {name!r}; suites there are {', '.join(known)}; "
            "add it to the column suites of a row"
        )
    problems = _unknown_suites(models, name) | models.invalid | datasets.invalid
    suite = Suite(config, own | {m: {} for m in wrong}, datasets.rows, recipes, norms, problems)
    check_models_of(suite)
    unusable |= wrong
    if unusable and not (config["available"] and own and tasks):
        raise InputError(next(iter(unusable.values())))
    left_out = {c: unusable[n] for c in suite.cells() for n in (c.dataset, c.model) if n in unusable}
    config = config | {"tasks": tasks, "models_of": _usable(config["models_of"], wrong)}
    suite = replace(suite, config=config, models=own, left_out=left_out)
    check_networks(suite)
    return suite


def _unknown_suites(models: Table, suite: str) -> dict[str, str]:
    """Return what is wrong with rows of models that are in no known suite: that a cell is in the wrong column, maybe.

    Suites are known that have a file in the folder ``config``, here or of this project, or that several rows list.
    """
    listed = Counter(name for row in models.rows.values() for name in row["suites"])
    several = {suite, *(name for name, count in listed.items() if count > 1)}
    rare = {model: row["suites"] for model, row in models.rows.items() if not several.intersection(row["suites"])}
    if not rare:  # the usual case, in which the start of a job reads no further file
        return {}
    known = {*several, *suite_files(), *suite_files(package_data("config"))}
    return {
        model: f"{models.path}, row {model!r}: no file in config/ has suite: {suites[0]}; "
        f"{known_names(suites[0], sorted(known))}"
        for model, suites in rare.items()
        if not known.intersection(suites)
    }


def _usable(names: dict[str, list[str]], unusable: Mapping[str, str]) -> dict[str, list[str]]:
    """Return tasks, or models of tasks, without unusable names and without what is empty then."""
    kept = {protocol: [name for name in each if name not in unusable] for protocol, each in names.items()}
    return {protocol: each for protocol, each in kept.items() if each}


def _may_list(row: dict, suite: str) -> bool:
    """Whether the row of a model, which may be wrong in any way, may list a suite."""
    return not row.get("suites") or any(suite in re.split(r"[\s,]+", cell) for cell in row.values())
