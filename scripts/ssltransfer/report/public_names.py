"""Names of a publisher's local files and folders, by which published files call them instead of by their paths."""

import html
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ssltransfer.config.suite import Suite
from ssltransfer.files import CHECKSUM, expand_path, read_json, write_json

LOCAL = ("file", "features", "folder", "csv", "masks", "python")
"""Beginnings of sources and architectures that a path follows."""


def public_name(text: str) -> str:
    """Return a source or architecture with the names of local files and folders in place of their paths.

    ``file:/home/me/net.pth`` becomes ``file:net.pth``, and ``python:/home/me/net.py:build`` ``python:net.py:build``;
    others stay as they are.
    """
    return " ".join(_named(part) for part in text.split(" "))


def _named(part: str) -> str:
    kind, colon, rest = part.partition(":")
    if not colon or kind not in LOCAL:
        return part
    path, *function = rest.rsplit(":", 1) if kind == "python" else [rest]
    return ":".join([kind, Path(path).name or path, *function])


def public_names(suite: Suite) -> dict[str, str]:
    """Return what stands in place of the local sources and paths of a suite.

    Those are the sources and architectures of its tables with the paths in them, the paths of its configuration, and
    its own folders. The longest come first, because others are parts of them.
    """
    names = {}
    rows = [*suite.models.values(), *suite.datasets.values()]
    parts = [part for row in rows for key in ("source", "arch") for part in str(row.get(key, "")).split(" ")]
    for part, named in ((part, _named(part)) for part in parts if _named(part) != part):
        kind, _, rest = part.partition(":")
        path = expand_path(rest.rsplit(":", 1)[0] if kind == "python" else rest)
        names |= {part: named, part.replace(rest, expand_path(rest)): named}
        if Path(path).is_absolute():
            names[path] = Path(path).name
            # Images may be named by their paths below it, and a table by its own without what says how it is read.
            table, query, _ = path.partition("?")
            names |= {table: Path(table).name} if query else {}
            names |= _folder_name(Path(table).parent) if kind == "csv" else {}
    for value in filter(None, _texts(suite.config)):
        kind, colon, rest = value.partition(":")
        path = rest if colon and kind in LOCAL else value
        if Path(expand_path(path)).is_absolute() and Path(path).name:
            names |= {path: Path(path).name, expand_path(path): Path(path).name}
    for folder in (Path(expand_path(suite.config["data_root"])), Path.cwd()):
        names |= _folder_name(folder)
        if folder.is_absolute() and folder.name:
            names[str(folder)] = folder.name
    return dict(sorted(names.items(), key=lambda pair: -len(pair[0])))


def _folder_name(folder: Path) -> dict[str, str]:
    """What stands in place of a folder in paths below it: nothing."""
    return {f"{folder}/": ""} if folder.is_absolute() and folder.name else {}


def _texts(content: Any) -> Iterator[str]:
    """All text values of the configuration."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _texts(value)
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value)


def rename_in_files(folder: Path, names: Mapping[str, str]) -> None:
    """Replace names in all text files below a folder; JSON files with a checksum get that of their new content."""
    escaped = {html.escape(old): html.escape(new) for old, new in names.items()}
    for path in (path for path in folder.rglob("*") if path.suffix in (".json", ".csv", ".html", ".md")):
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            renamed_text = _replace(_replace(text, escaped), names)
            if renamed_text != text:
                path.write_text(renamed_text, encoding="utf-8")
        elif (content := renamed(old := read_json(path), names)) != old:
            if CHECKSUM in json.loads(text):
                write_json(path, content)
            else:
                path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def renamed(content: Any, names: Mapping[str, str]) -> Any:
    """Return content that JSON can hold with names replaced in all its text."""
    if isinstance(content, dict):
        return {renamed(key, names): renamed(value, names) for key, value in content.items()}
    if isinstance(content, list):
        return [renamed(value, names) for value in content]
    return _replace(content, names) if isinstance(content, str) else content


def _replace(text: str, names: Mapping[str, str]) -> str:
    """Replace whole names, and not the parts of others: /data in none of /database, https://host/data and </data>."""
    for old, new in names.items():
        if old in text:
            end = "" if old.endswith("/") else r"(?![\w+=-])"
            text = re.sub(rf"(?<![\w+/=<]){re.escape(old)}{end}", lambda _, new=new: new, text)
    return text
