"""Settings blocks: defaults, the part that a job depends on, and reading into dataclasses.

Every key of a block, with its meaning and default, stands in `workflow/schemas/config.schema.yaml` and nowhere else. A
protocol describes the keys it reads as a frozen dataclass without defaults, nested like the block (`read_settings`).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_type_hints

import yaml

from ssltransfer.errors import InputError
from ssltransfer.files import package_data

Form = TypeVar("Form")


def parse_yaml(text: str) -> Any:
    """Parse YAML into plain values; ten times as fast as `yaml.safe_load` where PyYAML was built with libyaml."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text).get_single_data()


@cache
def read_schema(name: str) -> dict:
    """Return a schema of `workflow/schemas` by the first part of its file name."""
    return parse_yaml(package_data(f"workflow/schemas/{name}.schema.yaml").read_text(encoding="utf-8"))


def config_schema() -> dict:
    """Return the schema of a suite; `$defs` holds one schema for each kind of settings block."""
    return read_schema("config")


def pretraining_schema() -> dict:
    """Return the schema of the recipes; `$defs` holds one schema for the head of each method."""
    return read_schema("pretraining")


def fill_defaults(block: Mapping, schema: Mapping) -> dict:
    """Return a valid block with the defaults of its schema filled in, its keys in the schema's order.

    Raises
    ------
    InputError
        If a block within it is none.
    """
    if not isinstance(block, Mapping):
        raise InputError(f"settings block: found {block!r}, expected the keys {', '.join(schema['properties'])}")
    filled = {}
    for key, spec in schema["properties"].items():
        if "properties" in spec:
            filled[key] = fill_defaults(block.get(key, {}), spec)
        elif key in block or "default" in spec:
            filled[key] = block[key] if key in block else spec["default"]
    return filled


def config_path(cell: Mapping) -> str:
    """Place of the settings of a job (`cell` holds its ``protocol`` and ``dataset``), for error messages."""
    return f"protocols.{cell['protocol']}, {cell['dataset']}"


def complete(block: Mapping) -> dict:
    """Return a settings block with all defaults filled in.

    Raises
    ------
    InputError
        If the kind is unknown, the kind has no such key, or a number is not finite.
    """
    kinds = config_schema()["$defs"]
    kind = block.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise InputError(f"settings block: kind {kind!r} is unknown")
    schema = kinds[kind]
    if unknown := [key for key in block if key not in schema["properties"]]:
        raise InputError(f"settings block of kind {block['kind']}: unknown key {unknown[0]!r}")
    try:
        json.dumps(block, allow_nan=False)
    except ValueError:  # bounds of a schema let NaN pass, because no comparison with it is true
        raise InputError(f"settings block of kind {block['kind']}: a number is not finite; found {block}") from None
    return fill_defaults(block, schema)


def defaults(kind: str) -> dict:
    """Return the defaults of a kind of settings block: the values of the paper, where the paper has them."""
    return fill_defaults({}, config_schema()["$defs"][kind])


def job_settings(block: Mapping) -> dict:
    """Return the part of a complete block that jobs depend on: without later keys that are at their default.

    A key that the schema marks with `since` was added after results had been computed without it. At its default it
    means what those results were computed with, so it reruns no job and keeps unfinished runs resumable.
    """
    return _without_later_defaults(block, config_schema()["$defs"][block["kind"]])


def resume_settings(kind: str, settings: Any) -> dict:
    """Return settings of a kind that were read into a dataclass, as the key of an unfinished run holds them.

    These are values of JSON, without later keys that are at their default (see `job_settings`): a release that adds a
    key resumes the unfinished runs of the one before.
    """
    return job_settings({"kind": kind, **json.loads(json.dumps(asdict(settings)))})


def job_recipe(recipe: Mapping) -> dict:
    """Return the part of a valid recipe that jobs depend on, as written (see `job_settings`)."""
    schema = pretraining_schema()
    left = _without_later_defaults(recipe, schema["additionalProperties"])
    if head := left.get("head"):
        left["head"] = _without_later_defaults(head, schema["$defs"][recipe["method"]])
    return left


def complete_recipe(recipe: Mapping) -> dict:
    """Return a valid recipe with all defaults filled in; keys that method `none` does not need stay left out."""
    schema = pretraining_schema()
    filled = fill_defaults(recipe, schema["additionalProperties"])
    return filled | {"head": fill_defaults(filled["head"], schema["$defs"].get(recipe["method"], {"properties": {}}))}


def _without_later_defaults(block: Mapping, schema: Mapping) -> dict:
    left = {}
    for key, value in block.items():
        spec = schema["properties"][key]
        if "properties" in spec:
            value = _without_later_defaults(value, spec)
            if "since" in spec and not value:
                continue
        elif "since" in spec and value == spec.get("default"):
            continue
        left[key] = value
    return left


def read_settings(form: type[Form], block: Mapping) -> Form:
    """Read a settings block into a dataclass.

    Parameters
    ----------
    form : type
        A dataclass whose fields are keys of the block; a field whose type is a dataclass takes a nested block. Lists
        become tuples; a key without value or default becomes None.
    block : mapping
        A valid block; keys that it leaves out have their default.
    """
    return read_form(form, complete(block))


def read_form(form: type[Form], values: Mapping) -> Form:
    """Read complete values into a dataclass (see `read_settings`)."""
    hints = get_type_hints(form)
    return form(**{field.name: _convert(hints[field.name], values.get(field.name)) for field in fields(form)})  # type: ignore[arg-type]


def _convert(hint: Any, value: Any) -> Any:
    if is_dataclass(hint):
        return read_form(hint, value)  # type: ignore[arg-type]
    return tuple(value) if isinstance(value, list) else value
