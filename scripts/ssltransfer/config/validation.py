"""Reading YAML files, and checking them against a schema with one line that says what to write instead."""

import re
from pathlib import Path
from typing import Any

import yaml
from jsonschema.exceptions import ValidationError, best_match

from ssltransfer.errors import InputError, known_names
from ssltransfer.json_schema import schema_validator
from ssltransfer.settings import parse_yaml

TYPES = {
    "array": "a list",
    "object": "a block of keys",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
}


FEW = 5000
MAX_SHOWN = 300
"""Characters of a value in a message."""
MAX_DEPTH, MAX_VALUES = 50, 500_000
"""Of a YAML file. Each level of aliases can multiply what is below, and its reader crashes at some 10,000 levels."""


def read_yaml(path: Path) -> Any:
    """Read a YAML file; InputError if it is missing or malformed."""
    try:
        text = path.read_text(encoding="utf-8")
        _check_nesting(text, path)
        return parse_yaml(text)
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def _check_nesting(text: str, path: Path) -> None:
    """Refuse YAML that few bytes make large or deep: aliases of aliases, and brackets without end."""
    if not re.search(r"\*\w", text) and max(map(text.count, ("[", "{", "- -"))) < FEW:
        return  # as nearly all files, which are parsed once then
    sizes: dict[str | None, int] = {}
    open_anchors: list[str | None] = [None]
    totals = [0]  # values in each open collection, with aliases written out
    for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            open_anchors.append(event.anchor)
            totals.append(1)
        elif isinstance(event, yaml.CollectionEndEvent):
            size = sizes[open_anchors.pop()] = totals.pop()
            totals[-1] += size
        elif isinstance(event, yaml.AliasEvent):
            totals[-1] += MAX_VALUES + 1 if event.anchor in open_anchors else sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            sizes[event.anchor] = 1
            totals[-1] += 1
        if len(totals) > MAX_DEPTH or totals[-1] > MAX_VALUES:
            raise InputError(
                f"{path} has over {MAX_DEPTH} levels, or {MAX_VALUES:,} values with all aliases written out; make it "
                "smaller"
            )


def check_schema(instance: object, schema: dict, where: str) -> None:
    """Check an instance against a JSON schema; InputError with the place and what to write instead."""
    errors = list(schema_validator(schema).iter_errors(instance))
    if errors:
        raise InputError(f"{where}: {_explain(best_match(errors))}")


def with_booleans(config: dict, schema: dict) -> dict:
    """Take ``--config key=true`` as a boolean; Snakemake hands on text unless it is written True or False."""
    words = {"true": True, "false": False}
    kinds = {key: spec.get("type") for key, spec in schema["properties"].items()}
    return config | {
        key: words[value] for key, value in config.items() if kinds.get(key) == "boolean" and str(value) in words
    }


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
        what = f"known are {', '.join(known)}" if below else known_names(unknown, known)
        return f"{key}: unknown key {unknown!r}{place}; {what}"
    if rule == "required":
        missing = [name for name in value if name not in found]
        return f"{key}: key {missing[0]!r} is missing"
    hint = schema.get("description", "")
    expected = {
        "enum": lambda: "one of " + ", ".join(map(repr, value)),
        "type": lambda: TYPES.get(value, value) + _reason(found, value),
        "pattern": lambda: schema["form"] + _nearest_form(found, value),
        "minimum": lambda: f"at least {value}",
        "exclusiveMinimum": lambda: f"more than {value}",
        "exclusiveMaximum": lambda: f"less than {value}",
        "minItems": lambda: f"at least {value} item{'s' * (value > 1)}",
        "minLength": lambda: "some text",
        "maxLength": lambda: f"at most {value} characters",
    }.get(rule, lambda: f"{rule} {value}")()
    return f"{key}: found {_short(repr(found))}, expected {expected}" + (f" ({hint})" if hint else "")


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _nearest_form(found: object, pattern: str) -> str:
    """Hint for text that lower case and hyphens bring into the form of a pattern, as for ids."""
    near = re.sub(r"[^a-z0-9]+", "-", str(found).lower()).strip("-")
    return f", such as {_short(near)}" if near and re.fullmatch(pattern, near) else ""


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
