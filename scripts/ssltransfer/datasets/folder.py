"""A user's own images: ``train/CLASS/*``, and beside it, where there are such parts, ``val/CLASS/*``, ``test/CLASS/*``.

Source ``folder:PATH``. Parts may have other usual names (see `parts.PARTS`). Classes are the names of the class folders
of all parts, in alphabetical order; names that differ only in how Unicode writes them (NFC, NFD) are one class.
"""

import logging
import unicodedata
from pathlib import Path

from ssltransfer.datasets.index import Index, concatenate
from ssltransfer.datasets.layout import class_folders, folder_part
from ssltransfer.datasets.parts import find_parts, visible_folders
from ssltransfer.errors import InputError

log = logging.getLogger(__name__)


def index(root: Path) -> Index:
    """Index the parts that exist; images may lie deeper in the folder of their class."""
    parts = find_parts(root)
    base = next(iter(parts.values())).parent
    if others := [entry.name for entry in visible_folders(base) if entry not in parts.values()]:
        log.warning("%s: no parts, and therefore left out: %s", base, ", ".join(others))
    folders = {part: _by_composed_name(folder) for part, folder in parts.items()}
    names: dict[str, str] = {}
    for own in folders.values():
        names = own | names
    classes = sorted(names, key=names.__getitem__)
    return concatenate(
        {
            part: folder_part(root, parts[part], [own.get(key, names[key]) for key in classes])
            for part, own in folders.items()
        },
        [names[key] for key in classes],
    )


def _by_composed_name(folder: Path) -> dict[str, str]:
    """Names of the class folders of a part, by their composed form (NFC)."""
    names: dict[str, str] = {}
    for name in class_folders(folder):
        key = unicodedata.normalize("NFC", name)
        if key in names:
            raise InputError(
                f"{folder}: two class folders are called {key!r}, in two Unicode forms; merge them into one"
            )
        names[key] = name
    return names
