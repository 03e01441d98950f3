"""Imports of source files, followed through the library without running anything."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from workflow import REPOSITORY

SCRIPTS = REPOSITORY / "scripts"
LIBRARY = SCRIPTS / "ssltransfer"


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names that a file imports anywhere in its body: modules, and the names taken from them."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def library_files(name: str) -> Iterator[Path]:
    """Files of the library that importing a dotted name runs: the module's own and those of the packages around it."""
    path = SCRIPTS
    for part in name.split(".") if name.split(".")[0] == LIBRARY.name else ():
        path /= part
        yield from (file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file())


def reached(entries: Iterable[Path]) -> frozenset[Path]:
    """Return the given files and all files of the library that they import, directly or not."""
    found, left = set(), list(entries)
    while left:
        path = left.pop()
        if path not in found:
            found.add(path)
            left += [file for name in imports(path) for file in library_files(name)]
    return frozenset(found)
