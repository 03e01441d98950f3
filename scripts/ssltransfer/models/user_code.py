"""Files of a user's own networks (``arch python:FILE.py:FUNCTION``), found and hashed without running them."""

from pathlib import Path

from ssltransfer.files import expand_path, file_hash


def code_file(name: str) -> Path:
    """Return the path of the file of ``FILE.py:FUNCTION``; relative ones start in the working directory."""
    return Path(expand_path(name.rpartition(":")[0]))


def code_hash(name: str) -> str:
    """Return the SHA-256 of the file of ``FILE.py:FUNCTION``; empty if it is not there."""
    path = code_file(name)
    return file_hash(path) if path.is_file() else ""
