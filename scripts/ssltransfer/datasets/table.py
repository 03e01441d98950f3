"""A user's own images, listed in a csv file: a header ``image,label,split``, then one row per image.

Source ``csv:PATH``. Paths start from the folder of the file, splits are train, val and test, or other usual names of
these (see `parts.PARTS`). In a multi-label dataset a cell holds all labels of an image, as in ``cat|dog``; it may be
empty.
"""

import unicodedata
from pathlib import Path

from ssltransfer.datasets.index import Index
from ssltransfer.datasets.layout import csv_rows
from ssltransfer.datasets.parts import PARTS
from ssltransfer.errors import InputError

COLUMNS = ("image", "label", "split")
SEPARATOR = "|"


def index(path: Path, multi_label: bool = False) -> Index:
    """Index the rows in their order; classes in alphabetical order, further columns are ignored."""
    rows = csv_rows(path)
    header = [name.lower() for name in next(rows, (0, []))[1]]
    if absent := [name for name in COLUMNS if name not in header]:
        raise InputError(
            f"{path}: column {absent[0]!r} is missing; the first line must be {','.join(COLUMNS)}, found "
            f"{', '.join(header) or 'nothing'}"
        )
    columns = [header.index(name) for name in COLUMNS]
    images, cells, splits = [], [], []
    spelling: dict[str, str] = {}  # a label in composed form (NFC) -> as it is written first
    classes_of: dict[str, list[str]] = {}  # what a cell says -> the classes that it names
    for line, row in rows:
        position = f"{path}, line {line}"
        if len(row) != len(header):
            raise InputError(f"{position}: {len(row)} cells, the header has {len(header)}")
        image, label, split = (row[column] for column in columns)
        split = PARTS.get(split) or PARTS.get(split.lower(), split)
        if not image or split not in PARTS.values() or not (label or multi_label):
            raise InputError(
                f"{position}: found {image!r}, {label!r}, {split!r}; write an image, a label, train|val|test"
            )
        images.append(image)
        if label not in classes_of:
            names = {part.strip() for part in label.split(SEPARATOR) if part.strip()}
            classes_of[label] = sorted(
                {spelling.setdefault(unicodedata.normalize("NFC", name), name) for name in names}
            )
        cells.append(classes_of[label])
        splits.append(split)
        if not multi_label and len(cells[-1]) != 1:
            raise InputError(f"{position}: label {label!r} names several classes; the task of the row is single-label")
    if not images:
        raise InputError(f"{path} has a header and no rows; write one row per image below it")
    images = _with_slashes(path.parent, images)
    classes = sorted({name for names in classes_of.values() for name in names})
    number = {name: label for label, name in enumerate(classes)}
    if multi_label:
        return Index(images, splits, [[number[name] for name in cell] for cell in cells], classes)
    return Index(images, splits, [number[cell[0]] for cell in cells], classes)


def _with_slashes(folder: Path, images: list[str]) -> list[str]:
    """Replace the backslashes of a table that was written on Windows, unless its first such file is called that."""
    first = next((image for image in images if "\\" in image), None)
    if first is None or (folder / first).is_file():
        return images
    return [image.replace("\\", "/") for image in images]
