"""Validation by JSON schemas; apart from `settings`, because most jobs need no jsonschema."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators


def _pattern(validator: Any, expected: str, text: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(text, "string") and not re.search(expected, text + "\n"):
        yield ValidationError(f"{text!r} does not match {expected!r}")


_Validator = validators.extend(Draft202012Validator, {"pattern": _pattern})


def schema_validator(schema: Mapping) -> Any:
    """Compile a JSON schema, in whose patterns ``$`` is the end of a text; Python's is before a last line end, too."""
    return _Validator(schema)
