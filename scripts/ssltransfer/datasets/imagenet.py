"""ImageNet (ILSVRC 2012): ``train/SYNSET/*.JPEG`` and ``val/SYNSET/*.JPEG``, which is the test part.

Classes are WordNet's identifiers (``n01440764``) in their order, which is that of the published classifiers. Kaggle's
layout has the validation images in one folder, with their classes in ``LOC_val_solution.csv``.
"""

import re
from pathlib import Path

from ssltransfer.datasets.index import Index, concatenate
from ssltransfer.datasets.layout import class_folders, first_existing, folder_part, image_files, inner_folder, read_csv
from ssltransfer.datasets.parts import visible_folders
from ssltransfer.errors import InputError

SYNSET = re.compile(r"n\d{8}", re.ASCII)


def index(root: Path) -> Index:
    """Index training images as ``train``, validation images as ``test``: those of the official test have no labels."""
    folder = inner_folder(root, "ILSVRC/Data/CLS-LOC", "imagenet")
    train, val = folder / "train", folder / "val"
    classes = class_folders(train)
    _check_synsets(classes, train)
    if val.is_dir() and not visible_folders(val):
        test = _listed(root, val, classes)
    else:
        names = class_folders(val)
        _check_synsets(names, val)
        if unknown := sorted(set(names) - set(classes)):
            raise InputError(f"{val}: class folder {unknown[0]!r} is not in {train}")
        test = folder_part(root, val, classes)
    return concatenate({"train": folder_part(root, train, classes), "test": test}, classes)


def _check_synsets(names: list[str], folder: Path) -> None:
    """Require the identifiers of WordNet, whose order is that of the classes; InputError otherwise."""
    if wrong := [name for name in names if not SYNSET.fullmatch(name)]:
        raise InputError(
            f"{folder}: class folder {wrong[0]!r} found, expected identifiers of WordNet such as n01440764, whose "
            "order is that of the classes; for classes of other names write source folder:PATH"
        )


def _listed(root: Path, folder: Path, classes: list[str]) -> tuple[list[str], list[int]]:
    """Images of one folder with the labels of Kaggle's table: ``ILSVRC2012_val_00000001,n01751748 111 108 370 297``."""
    table = first_existing(root / "LOC_val_solution.csv", folder.parent / "LOC_val_solution.csv")
    number = {name: label for label, name in enumerate(classes)}
    labels = {}
    for place, row in read_csv(table)[1:]:
        synset = row[1].partition(" ")[0] if len(row) == 2 else ""
        if synset not in number:
            raise InputError(f"{place}: found {','.join(row)!r}, expected IMAGE,SYNSET ... with a class of train")
        labels[row[0]] = number[synset]
    images = image_files(folder)
    if unknown := [name for name in images if Path(name).stem not in labels]:
        raise InputError(f"{folder / unknown[0]}: this image is not in {table}")
    paths = [(folder / name).relative_to(root).as_posix() for name in images]
    return paths, [labels[Path(name).stem] for name in images]
