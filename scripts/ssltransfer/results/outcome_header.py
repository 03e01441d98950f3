"""Headers of outcome files, and which scores lack their outcomes; reads no arrays, because planning has no numpy."""

import json
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ssltransfer.errors import InputError, first_line
from ssltransfer.files import read_json, write_json

SCHEMA_VERSION = 1
HEADER = "header"
"""Name of the array of bytes that holds everything but the arrays, as JSON text."""

MAX_HEADER = 2**24
"""Bytes of the header of a file from elsewhere; those of a cell take some kilobytes."""


TEXTS, NUMBERS = ("metric", "setting", "units", "identity", "note"), ("value", "scale")
INTERVAL_TEXTS, INTERVAL_NUMBERS = ("method",), ("low", "high", "level")
"""Keys of an entry of the header, and of its interval."""


def outcome_path(score_file: str | Path) -> Path:
    """Return the path of the outcomes of a score file ``.../scores/{protocol}/{model}/{dataset}.json``."""
    path = Path(score_file)
    if len(path.parts) < 5:  # else it is slow for nothing
        path = path.absolute()
    return path.parents[3] / "outcomes" / Path(*path.parts[-3:]).with_suffix(".npz")


def short_path(score_file: str | Path) -> str:
    """Return the path of the outcomes of a score file for messages: ``outcomes/{protocol}/{model}/{dataset}.npz``."""
    return "/".join(outcome_path(score_file).parts[-4:])


def read_intervals(path: str | Path) -> dict[tuple[str, str], dict]:
    """Read values, intervals and notes alone, by setting and metric; quick, because the arrays are left unread.

    Raises
    ------
    InputError
        If the file is missing, damaged or something else.
    """
    try:
        with zipfile.ZipFile(path) as file:
            if (size := file.getinfo(f"{HEADER}.npy").file_size) > MAX_HEADER:
                raise ValueError(f"its header has {size} bytes, expected at most {MAX_HEADER}")
            content = file.read(f"{HEADER}.npy")
    except Exception as error:  # a damaged file can raise nearly anything
        raise _not_outcomes(path, first_line(error)) from None
    # An array of bytes of format 1.0: magic and version (8 bytes), length of the description, description, bytes.
    entries = parse_header(path, content[10 + int.from_bytes(content[8:10], "little") :])
    return {(entry["setting"], entry["metric"]): entry for entry in entries}


def parse_header(path: str | Path, content: bytes) -> list[dict]:
    """Return the entries of a header, one per outcome; InputError if it is not one of this version."""
    try:
        header = json.loads(content)
        entries = header["outcomes"] if header["schema"] == SCHEMA_VERSION else None
    except (KeyError, TypeError, ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list):
        raise _not_outcomes(path, "its header is not of this version")
    if wrong := [number for number, entry in enumerate(entries) if not _is_entry(entry)]:
        raise _not_outcomes(path, f"entry {wrong[0]} of its header has other keys, types or numbers than an outcome")
    return entries


def _is_entry(entry: Any) -> bool:
    """Whether an entry of a header has the keys of an outcome, each of its type, and an interval around its value."""
    if not isinstance(entry, dict) or not _has_keys({**entry, "interval": None}, TEXTS, NUMBERS, ("interval",)):
        return False
    interval = entry.get("interval", "missing")
    if not isinstance(interval, dict):
        return interval is None
    return (
        _has_keys(interval, INTERVAL_TEXTS, INTERVAL_NUMBERS)
        and interval["low"] <= entry["value"] <= interval["high"]
        and 0 < interval["level"] < 1
        and ";" not in interval["method"]  # which `scores.describe_interval` puts before the level
    )


def _has_keys(found: dict, texts: Iterable[str], numbers: Iterable[str], more: Iterable[str] = ()) -> bool:
    """Whether a mapping has exactly these keys, with texts and finite numbers."""
    return (
        found.keys() == {*texts, *numbers, *more}
        and all(isinstance(found[key], str) for key in texts)
        and all(type(found[key]) in (int, float) and abs(found[key]) <= sys.float_info.max for key in numbers)
    )


def _not_outcomes(path: str | Path, reason: str) -> InputError:
    return InputError(f"{path} holds no outcomes of this workflow ({reason}); delete it, and they are derived again")


def has_outcomes(score_file: str | Path) -> bool:
    """Whether the outcomes of a score are there and belong to it.

    Outcomes that are not older than the score are its own; of others (of copied files) the values are compared.
    """
    outcomes = outcome_path(score_file)
    try:
        if outcomes.stat().st_mtime >= Path(score_file).stat().st_mtime:
            return True
        return belong(read_intervals(outcomes), read_json(score_file)["values"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def belong(entries: dict[tuple[str, str], dict], values: list[dict]) -> bool:
    """Whether the outcomes with these headers are those of a score with these values."""
    own = {(value["setting"], value["metric"]): value["value"] for value in values}
    return own == {name: entry["value"] for name, entry in entries.items()}


def list_missing(list_file: str | Path, score_files: Iterable[str | Path], derived: str | Path) -> bool:
    """List the scores whose outcomes are missing as JSON, if that is news: a later file derives them again.

    Parameters
    ----------
    list_file : path
        Written if any outcomes are missing, unless it says the same already and is later than `derived`.
    score_files : iterable of path
    derived : path
        What is written when the outcomes of the list have been derived.

    Returns
    -------
    bool
        Whether any outcomes are missing.
    """
    missing = [str(path) for path in score_files if not has_outcomes(path)]
    list_file, derived = Path(list_file), Path(derived)
    known = list_file.is_file() and read_json(list_file) == {"scores": missing}
    done = known and derived.is_file() and derived.stat().st_mtime >= list_file.stat().st_mtime
    if missing and (done or not known):
        write_json(list_file, {"scores": missing})
    return bool(missing)
