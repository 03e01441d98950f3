"""Parts of a folder of images (train, val, test) by the names that people give them, and names that are never data.

Standard library only, because the workflow reads it.
"""

from pathlib import Path

from ssltransfer.errors import InputError

PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Name of a part in lower case -> split, in the order of the splits."""

SYSTEM_NAMES = {
    "__macosx", "@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "lost+found",
    "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini",
}  # fmt: skip
"""Files and folders that systems, network disks and archive programs make, in lower case."""

MAX_LISTED = 8
"""Number of entries of a folder that a message names."""
MAX_LEVELS = 5
"""Number of single folders that are passed through; links can lead in a circle."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or made by a system: neither an image nor a class."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def visible_folders(folder: Path) -> list[Path]:
    """Sub-folders in alphabetical (code point) order on every file system, without hidden ones."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def list_content(folder: Path) -> str:
    """List the visible entries of a folder in a few words, for messages; ``nothing`` if there are none."""
    entries = sorted(entry for entry in folder.iterdir() if not is_hidden(entry.name)) if folder.is_dir() else []
    names = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries[:MAX_LISTED]]
    more = f" and {len(entries) - MAX_LISTED} more" if len(entries) > MAX_LISTED else ""
    return ", ".join(names) + more if names else "nothing"


def find_parts(root: Path) -> dict[str, Path]:
    """Return the folder of each part, in the order train, val, test.

    Folders that hold a single folder, as archives often bring along (``food/food/train``), are passed through.

    Raises
    ------
    InputError
        If there is no part, or two folders name the same one.
    """
    folder = root
    for _ in range(MAX_LEVELS):
        folders = visible_folders(folder)
        if found := _name_parts(folder, folders):
            return {part: found[part] for part in dict.fromkeys(PARTS.values()) if part in found}
        if len(folders) != 1:
            break
        folder = folders[0]
    raise InputError(
        f"{root}: none of the folders train, val, test is there; found {list_content(folder)}; write "
        "PART/CLASS/IMAGE (a single pool of images for few-shot: train/CLASS/IMAGE)"
    )


def _name_parts(folder: Path, folders: list[Path]) -> dict[str, Path]:
    """Return the parts among the sub-folders of a folder."""
    found: dict[str, Path] = {}
    for entry in folders:
        part = PARTS.get(entry.name.lower())
        if part in found:
            raise InputError(
                f"{folder}: the folders {found[part].name} and {entry.name} are both the part {part}; "
                "merge them, or move one away"
            )
        if part is not None:
            found[part] = entry
    return found
