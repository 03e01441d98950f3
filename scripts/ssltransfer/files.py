"""Atomic writing of files (a killed job leaves no partial file), JSON files, and file hashes."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def package_data(name: str) -> Path:
    """Return the path of a file or folder that the library comes with, by its path in the repository.

    These are ``workflow/schemas``, ``workflow/report``, ``resources/published`` and ``config``. A built package
    carries copies of them; in a checkout they are where they are edited.
    """
    packed = Path(__file__).parent / "_data"
    return (packed if packed.is_dir() else Path(__file__).parents[2]) / name


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, delete it on failure.

    The temporary name keeps the suffix of `path`, because writers such as `numpy.save` add a missing one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: dict) -> None:
    """Write `content` as indented JSON; NaN and infinity are refused (ValueError)."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> dict:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def file_hash(path: str | Path, algorithm: str = "sha256") -> str:
    """Return the hexadecimal digest of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
