"""Small readers shared by the indexers of original layouts; errors are one line (`InputError`)."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ssltransfer.datasets.index import Index, concatenate
from ssltransfer.errors import InputError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def missing(path: Path) -> InputError:
    """Make the error for a part of the layout that is not there."""
    return InputError(f"{path} is missing; it belongs to the original layout of the dataset")


def inner_folder(root: Path, *names: str) -> Path:
    """Return the first sub-folder of these names that exists, else `root`.

    Archives unpack into a folder of their own (``food-101/``); copies often lack it. Both are read.
    """
    return next((root / name for name in names if (root / name).is_dir()), root)


def read_text(path: Path) -> str:
    """Text of a small file in UTF-8; a byte-order mark is taken off."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise missing(path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def read_lines(path: Path) -> list[str]:
    """Non-empty lines of a split file, without Windows line ends."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_pairs(path: Path, expected: str) -> list[tuple[str, str]]:
    """Split each line at its first blank: ``KEY VALUE``; `expected` says so in the error message."""
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        key, *value = line.split(maxsplit=1)
        if not value:
            raise InputError(f"{path}, line {number}: found {line!r}, expected {expected!r}")
        pairs.append((key, value[0]))
    return pairs


def read_csv(path: Path) -> list[tuple[str, list[str]]]:
    """Rows of a csv file, the header first, each with its place (``FILE, line N``) for error messages."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        return [(f"{path}, line {reader.line_num}", [cell.strip() for cell in row]) for row in reader if any(row)]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}") from None


def read_mat(path: Path, key: str) -> np.ndarray:
    """Variable `key` of a MATLAB file (up to version 7.2)."""
    from scipy.io import loadmat

    if not path.is_file():
        raise missing(path)
    try:
        content = loadmat(path)
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"{path} is not a MATLAB file that can be read: {error}") from None
    if key not in content:
        found = ", ".join(name for name in content if not name.startswith("__"))
        raise InputError(f"{path}: variable {key!r} is missing; found {found or 'none'}")
    return content[key]


def class_folders(folder: Path) -> list[str]:
    """Names of the sub-folders in alphabetical (code point) order on every file system; hidden ones left out."""
    if not folder.is_dir():
        raise missing(folder)
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise InputError(f"{folder} has no sub-folders; expected one per class")
    return names


def image_files(folder: Path) -> list[str]:
    """Paths of the image files below a folder, relative to it, in alphabetical order; hidden files left out."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def folder_part(root: Path, folder: Path, classes: Sequence[str]) -> tuple[list[str], list[int]]:
    """Images (relative to `root`) and labels of ``FOLDER/CLASS/*``, class by class; a class may have no folder."""
    images, labels = [], []
    for label, name in enumerate(classes):
        files = image_files(folder / name)
        images += [(folder / name / file).relative_to(root).as_posix() for file in files]
        labels += [label] * len(files)
    return images, labels


def folder_pool(root: Path, folder: Path) -> Index:
    """Index ``FOLDER/CLASS/*`` as one pool, called ``train``: a dataset for few-shot episodes only."""
    classes = class_folders(folder)
    return concatenate({"train": folder_part(root, folder, classes)}, classes)


def renumber(parts: Mapping[str, tuple[Sequence[str], Sequence]], names: Mapping) -> Index:
    """Build an index from {split: (images, class keys)}; keys that occur become labels 0, 1, ... in their order.

    Parameters
    ----------
    parts : mapping
    names : mapping
        Class key to class name, for all keys that occur.
    """
    keys = sorted({key for _, part in parts.values() for key in part})
    labels = {key: label for label, key in enumerate(keys)}
    return concatenate(
        {split: (images, [labels[key] for key in part]) for split, (images, part) in parts.items()},
        classes=[names[key] for key in keys],
    )
