"""ADE20K scene parsing (the SceneParse150 benchmark): 150 classes, 20,210 training and 2,000 validation images.

Layout of ``ADEChallengeData2016.zip``: ``images/{training,validation}/*.jpg``,
``annotations/{training,validation}/*.png`` with 0 for unlabelled and 1 to 150 for the classes, and
``objectInfo150.txt``. The validation images are the test part, as in the paper.
"""

from pathlib import Path

from ssltransfer.datasets.index import Index
from ssltransfer.datasets.layout import image_files, inner_folder, missing, read_lines
from ssltransfer.datasets.masks import index_pairs, pair_by_name
from ssltransfer.errors import InputError

FOLDER, CLASSES = "ADEChallengeData2016", "objectInfo150.txt"
PARTS = {"train": "training", "test": "validation"}


def index(root: Path) -> Index:
    """Index both parts with the masks of the benchmark (see `masks.index_pairs`)."""
    base = inner_folder(root, FOLDER)
    parts = {}
    for split, name in PARTS.items():
        images, masks = base / "images" / name, base / "annotations" / name
        for folder in (images, masks):
            if not folder.is_dir():
                raise missing(folder)
        parts[split] = pair_by_name(root, images, image_files(images), masks, image_files(masks))
    return index_pairs(root, parts, read_classes(base / CLASSES), unlabelled=0)


def read_classes(path: Path) -> list[str]:
    """First names of the classes, from the last column of ``objectInfo150.txt``; InputError if it has no such column.

    A first name that two classes have is written with the others.
    """
    _, *rows = [[cell.strip() for cell in line.split("\t")] for line in read_lines(path)] or [[]]
    if wrong := [row for row in rows if len(row) < 2 or not row[0].isdigit()]:
        raise InputError(f"{path}: found {' '.join(wrong[0])!r}, expected a number and names separated by tabs")
    if [int(row[0]) for row in rows] != list(range(1, len(rows) + 1)):
        raise InputError(f"{path}: the numbers of the classes are not 1 to {len(rows)} in order")
    first = [row[-1].split(",")[0] for row in rows]
    return [name if first.count(name) == 1 else row[-1] for name, row in zip(first, rows, strict=True)]
