"""A user's own images with masks: ``images/train/*``, ``masks/train/*`` and the same for the other parts.

Source ``masks:PATH``. ``images`` and ``masks`` (or ``annotations``) hold the same parts (see `parts.PARTS`); an image
and its mask have one name up to the suffix. ``classes.txt`` names the classes, one per line, in the order of their
numbers from 0; 255 stands for unlabelled. A first line ``unlabelled`` says instead that 0 stands for unlabelled.
"""

from pathlib import Path

from ssltransfer.datasets.index import Index
from ssltransfer.datasets.layout import image_files, missing, read_lines
from ssltransfer.datasets.masks import IGNORE, index_pairs, pair_by_name
from ssltransfer.datasets.parts import find_parts
from ssltransfer.errors import InputError

CLASSES, UNLABELLED = "classes.txt", "unlabelled"
MASK_FOLDERS = ("masks", "annotations")


def index(root: Path) -> Index:
    """Index the parts that exist; images may lie deeper in the folder of their part.

    Raises
    ------
    InputError
        If a folder or ``classes.txt`` is missing, a part has no masks, or as `masks.index_pairs`.
    """
    folder = next((root / name for name in MASK_FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        raise missing(root / MASK_FOLDERS[0])
    if not (root / "images").is_dir():
        raise missing(root / "images")
    images, masks = find_parts(root / "images"), find_parts(folder)
    parts = {}
    for split, path in images.items():
        if split not in masks:
            raise InputError(f"{folder} has no masks for {path}; expected a folder {path.name}")
        parts[split] = pair_by_name(root, path, image_files(path), masks[split], image_files(masks[split]))
    classes = read_lines(root / CLASSES)
    zero = bool(classes) and classes[0].lower() == UNLABELLED
    return index_pairs(root, parts, classes[1:] if zero else classes, 0 if zero else IGNORE)
