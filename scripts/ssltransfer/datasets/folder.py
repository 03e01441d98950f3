"""A user's own images: ``train/CLASS/*``, and beside it, where there are such parts, ``val/CLASS/*``, ``test/CLASS/*``.

Source ``folder:PATH``. Classes are the names of the class folders of all parts, in alphabetical order.
"""

from pathlib import Path

from ssltransfer.datasets.index import SPLITS, Index, concatenate
from ssltransfer.datasets.layout import class_folders, folder_part
from ssltransfer.errors import InputError


def index(root: Path) -> Index:
    """Index the parts that exist; images may lie deeper in the folder of their class."""
    folders = {split: root / split for split in SPLITS if (root / split).is_dir()}
    if not folders:
        raise InputError(f"{root}: none of the folders train, val, test is there; write PART/CLASS/IMAGE")
    classes = sorted({name for folder in folders.values() for name in class_folders(folder)})
    return concatenate({split: folder_part(root, folder, classes) for split, folder in folders.items()}, classes)
