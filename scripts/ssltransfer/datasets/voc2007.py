"""PASCAL VOC2007 classification (multi-label): ``VOCdevkit/VOC2007``, official train, val and test.

An image is positive for a class if the class list says 1. Both -1 (absent) and 0 (only objects marked "difficult")
count as negative, in training and in testing, as in the official code (trap T9). Column ``difficult`` keeps the
classes that say 0, which PASCAL's own evaluation ignores.
"""

from pathlib import Path

from ssltransfer.datasets.index import SPLITS, Index, concatenate
from ssltransfer.datasets.layout import inner_folder
from ssltransfer.datasets.voc import CLASSES, read_class_lists


def index(root: Path) -> Index:
    """Index the three sets in the order of the lists."""
    folder = inner_folder(root, "VOCdevkit") / "VOC2007"
    images = (folder / "JPEGImages").relative_to(root).as_posix()
    flags = {split: read_class_lists(folder, split) for split in SPLITS}
    index = concatenate(
        {
            split: ([f"{images}/{name}.jpg" for name in rows], [_classes(row, 1) for row in rows.values()])
            for split, rows in flags.items()
        },
        CLASSES,
    )
    index.extra["difficult"] = [_classes(row, 0) for rows in flags.values() for row in rows.values()]
    return index


def _classes(flags: list[int], value: int) -> list[int]:
    return [label for label, flag in enumerate(flags) if flag == value]
