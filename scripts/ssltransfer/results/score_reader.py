"""Reading of score files, with the checks that every score has to pass; planning has neither numpy nor pandas."""

import json
import sys
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from ssltransfer.errors import InputError
from ssltransfer.files import read_json
from ssltransfer.results.metric_info import KINDS, METRICS, UNITS
from ssltransfer.results.score_schema import SCHEMA, SCHEMA_VERSION

SHARED = ("model", "protocol", "dataset", "settings", "preprocessing", "checkpoint", "coverage", "versions", "run")
"""Entries that are equal in many score files."""
MAX_BYTES = 2**22
"""Of a score file, which holds values for each setting and none for classes or images: some ten thousand values."""
NUMBERS = ("value", "low", "high")
"""Keys of a value that the schema asks nothing of but a number."""


@cache
def _validator() -> Any:
    """Compile the schema once; jobs that read no score need neither jsonschema nor yaml."""
    from ssltransfer.json_schema import schema_validator
    from ssltransfer.settings import parse_yaml

    return schema_validator(parse_yaml(SCHEMA.read_text(encoding="utf-8")))


def _fits(score: Any) -> bool:
    """Whether a score follows the schema; entries that many scores share, such as settings, are checked once.

    Whatever does not fit, or is no mapping at all, is left to the whole schema, which says what is wrong.
    """
    if not isinstance(score, dict):
        return False
    return _has_entries(frozenset(score)) and all(_entry_fits(key, value) for key, value in score.items())


def _entry_fits(key: str, value: Any) -> bool:
    schema = _validator().schema["properties"][key]
    if schema.keys() <= {"type", "description"} and isinstance(schema["type"], str):
        return _validator().is_type(value, schema["type"])
    if key == "values" and isinstance(value, list):
        value = [_without_numbers(each) for each in value]
    elif key not in SHARED:
        return _entry_validator(key).is_valid(value)
    return _text_fits(key, json.dumps(value, sort_keys=True))


def _without_numbers(value: Any) -> Any:
    """Replace the numbers of a value, of which the schema says no more than that they are numbers."""
    if not isinstance(value, dict):
        return value
    return {key: 0.0 if key in NUMBERS and isinstance(each, float) else each for key, each in value.items()}


@cache
def _has_entries(keys: frozenset[str]) -> bool:
    """Whether a score with these entries has all that it needs and no other, whatever they hold."""
    schema = _validator().schema
    outer = schema | {"properties": dict.fromkeys(schema["properties"], True)}
    return _validator().evolve(schema=outer).is_valid(dict.fromkeys(keys))


@cache
def _entry_validator(key: str) -> Any:
    return _validator().evolve(schema=_validator().schema["properties"][key])


@lru_cache(maxsize=10_000)
def _text_fits(key: str, text: str) -> bool:
    return _entry_validator(key).is_valid(json.loads(text))


def read_score(path: str | Path) -> dict:
    """Read one score file and check it.

    Raises
    ------
    InputError
        Names file and key: missing file, invalid JSON, NaN or infinity, an unknown or missing key, an unknown
        kind or metric, a wrong unit, a value outside its unit's range, an interval that does not contain its value.
    """
    path = Path(path)
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise InputError(f"{path}: has {size} bytes, expected at most {MAX_BYTES}; fetch it again, or delete it")
        score = read_json(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a score file: {error}") from error
    if isinstance(score, dict) and score.get("schema", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema: {score['schema']!r} found, this version of ssltransfer reads {SCHEMA_VERSION} and files "
            "without the key; update ssltransfer, or delete the file to measure again"
        )
    for problem in () if _fits(score) else _validator().iter_errors(score):
        where = problem.json_path.removeprefix("$.")
        raise InputError(f"{path}: {where}: {problem.message.splitlines()[0][:200]}")
    if score["kind"] not in KINDS:
        raise InputError(f"{path}: kind: {score['kind']!r} is unknown, write one of {', '.join(KINDS)}")
    for i, value in enumerate(score["values"]):
        _check_value(f"{path}: values[{i}]", value)
    cells = [(value["setting"], value["metric"]) for value in score["values"]]
    if len(set(cells)) < len(cells):
        raise InputError(f"{path}: values: setting and metric occur twice, each pair may occur once")
    return score


def _check_value(where: str, value: dict) -> None:
    metric = METRICS.get(value["metric"])
    if metric is None:
        raise InputError(f"{where}.metric: {value['metric']!r} is unknown, write one of {', '.join(METRICS)}")
    if value["unit"] != metric.unit:
        raise InputError(f"{where}.unit: {value['unit']!r} found, {value['metric']} is in {metric.unit}")
    smallest, largest = UNITS[metric.unit]
    if not smallest <= value["value"] <= min(largest, sys.float_info.max):
        raise InputError(
            f"{where}.value: {value['value']} found, {metric.unit} lies within {smallest:g} to {largest:g}"
        )
    low, high = value.get("low"), value.get("high")
    if (low is None) != (high is None):
        raise InputError(f"{where}: low and high come together, found low {low} and high {high}")
    if low is None or high is None:
        return
    if not -sys.float_info.max <= low <= value["value"] <= high <= sys.float_info.max:
        raise InputError(f"{where}: {low} to {high} does not contain the value {value['value']}, or is not finite")
