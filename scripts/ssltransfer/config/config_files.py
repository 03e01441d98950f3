"""Which of the files of a configuration holds a key, so that messages name the file to edit."""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ssltransfer.config.validation import read_yaml
from ssltransfer.errors import InputError
from ssltransfer.files import expand_path, package_data
from ssltransfer.settings import config_schema

PREFIX = "config: "
"""Beginning of a message about the merged configuration; a key follows, its parts joined by dots."""


def suite_files(folder: Path = Path("config")) -> dict[str, str]:
    """Return the suites of a folder: name -> file."""
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        content = read_yaml(path)
        if isinstance(content, dict) and isinstance(content.get("suite"), str):
            found[content["suite"]] = str(path)
    return found


@contextmanager
def naming_config_files(files: Sequence[str | Path], settings: Collection[str] = ()) -> Iterator[None]:
    """Name in messages about the configuration the file that holds the key.

    Parameters
    ----------
    files : sequence of path
        Files of the suite, of which later ones add to earlier ones. Without any, messages stay as they are.
    settings : collection of str
        Keys that the option ``--config`` gives.

    Raises
    ------
    InputError
        As the code inside, with another beginning.
    """
    try:
        yield
    except InputError as error:
        raise InputError(name_config_file(str(error), files, settings)) from None


def name_config_file(message: str, files: Sequence[str | Path], settings: Collection[str] = ()) -> str:
    """Return a message with the place that its key was written at (see `naming_config_files`).

    That is the option ``--config``, the last file that has the longest part of the key, or the file of the shared
    settings blocks, in which blocks are not below ``protocols``. All files are named where none has any of it.
    """
    if not message.startswith(PREFIX) or not files:
        return message
    text = message.removeprefix(PREFIX)
    key = re.match(r"top level: unknown key '(.+?)'", text) or re.match(r"([\w.-]+?)(?=[:,]? |: )", text)
    parts = key[1].split(".") if key else []
    if parts and parts[0] in settings:
        return f"--config {text}"
    contents = {path: _read(path) for path in files}
    if parts[:1] == ["protocols"] and not any(_depth(content, parts[:2]) == 2 for content in contents.values()):
        blocks = _blocks_file(contents)
        if _depth(_read(blocks), parts[1:2]):
            return f"{_shown(blocks)}: {text.removeprefix('protocols.')}"
    depths = {path: _depth(content, parts) for path, content in contents.items()}
    deepest = max(depths.values())
    holders = [path for path, depth in depths.items() if depth == deepest]
    named = holders[-1:] if deepest else list(files)
    return f"{', '.join(map(_shown, named))}: {text}"


def _read(path: str | Path) -> Any:
    with suppress(InputError, OSError, UnicodeDecodeError):
        return read_yaml(Path(path))
    return None


def _depth(content: Any, parts: Sequence[str]) -> int:
    """Number of the parts of a key that nested mappings have."""
    for number, part in enumerate(parts):
        if not isinstance(content, Mapping) or part not in content:
            return number
        content = content[part]
    return len(parts)


def _blocks_file(contents: Mapping[str | Path, Any]) -> Path:
    """File of the shared settings blocks: the one that the suite names last, or that of the repository."""
    named = [content["blocks"] for content in contents.values() if _depth(content, ["blocks"])]
    default = config_schema()["properties"]["blocks"]["default"]
    path = Path(expand_path(str(named[-1] if named else default)))
    return path if path.exists() or path.is_absolute() else package_data(str(path))


def _shown(path: str | Path) -> str:
    """A path relative to the working directory, where it is below it."""
    absolute = Path(path).absolute()
    return os.path.relpath(absolute) if absolute.is_relative_to(Path.cwd()) else str(path)
