"""Atomic writing of files (a killed job leaves no partial file), JSON files with checksums, and file hashes."""

import hashlib
import json
import os
import re
import secrets
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssltransfer.errors import InputError, damaged

MAX_DEPTH = 50
"""Levels of a JSON file from elsewhere; readers of nested values go down one call per level."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]").search
CHECKSUM = "crc32"
"""Key of the checksum of a JSON file, and of the header of a safetensors or parquet file."""


def package_data(name: str) -> Path:
    """Return the path of a file or folder that the library comes with, by its path in the repository.

    These are ``workflow/schemas``, ``workflow/report``, ``resources/published`` and ``config``. A built package
    carries copies of them; in a checkout they are where they are edited.
    """
    packed = Path(__file__).parent / "_data"
    return (packed if packed.is_dir() else Path(__file__).parents[2]) / name


def expand_path(text: str) -> str:
    """Return a path of the configuration with ``~`` and variables (``$NAME``, ``${NAME}``) replaced.

    A path that is there as it is written stays. Unknown variables stay, too.
    """
    if not (text.startswith("~") or "$" in text) or Path(text).exists():
        return text
    return os.path.expanduser(os.path.expandvars(text))  # noqa: PTH111 - Path raises an error for unknown users


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, delete it on failure.

    The temporary name keeps the suffix of `path`, because writers such as `numpy.save` add a missing one. It is
    random, because jobs of two machines can have the same process number.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def json_checksum(content: Any) -> str:
    """Return the CRC-32 of content that JSON can hold, as hexadecimal digits; layout and order of keys do not count."""
    return _canonical_checksum(json.loads(json.dumps(content)))


def _canonical_checksum(content: Any) -> str:
    """`json_checksum` of content that was read from JSON, so that its keys are text already."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x}"


def write_json(path: str | Path, content: dict) -> None:
    """Write `content` as indented JSON, with its checksum; NaN and infinity are refused (ValueError)."""
    with atomic_write(path) as temporary:
        text = json.dumps(content | {CHECKSUM: json_checksum(content)}, indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def read_json(path: str | Path) -> dict:
    """Read a JSON file, without its checksum.

    Raises
    ------
    InputError
        If the file is not valid JSON, holds text that is not UTF-8 (half of a pair of surrogates), or has a checksum
        that is not that of its content.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = json.loads(text, parse_constant=_refuse_constant)
        if _SURROGATE(text):
            json.dumps(content, ensure_ascii=False).encode()
        checksum = content.pop(CHECKSUM, None) if isinstance(content, dict) else None
        same = checksum is None or checksum == _canonical_checksum(content)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"not valid JSON: {error}") from None
    if not same:
        raise damaged(path, "its content does not match its checksum")
    return content


def check_depth(path: str | Path, content: Any) -> None:
    """Require that the content of a JSON file has at most `MAX_DEPTH` levels; InputError otherwise."""
    level, depth = [content], 0
    while level := [each for value in level if isinstance(value, dict | list) for each in _values(value)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise InputError(f"{path}: found over {MAX_DEPTH} levels of values within values; ask its publisher")


def _values(collection: dict | list) -> Iterable[Any]:
    return collection.values() if isinstance(collection, dict) else collection


def file_state(path: str | Path) -> list[int]:
    """Return the size of a file in bytes and the time of its last change in whole seconds, which copies keep."""
    status = Path(path).stat()
    return [status.st_size, int(status.st_mtime)]


def file_hash(path: str | Path, algorithm: str = "sha256") -> str:
    """Return the hexadecimal digest of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
