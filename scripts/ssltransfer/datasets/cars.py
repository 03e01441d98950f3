"""Stanford Cars: ``cars_{train,test}/*.jpg`` and MATLAB tables in ``devkit/``; official train and test.

The test labels are in ``cars_test_annos_withlabels.mat``, published apart from the devkit: it is read from
``devkit/`` (as by the official code) or beside it (as by torchvision). Kaggle's copies are read too: folders that are
there twice (``cars_train/cars_train``), images in class folders (``car_data/car_data/{train,test}/CLASS/*.jpg``), and
the file name ``cars_test_annos_withlabels (1).mat``. They need the devkit as well.
"""

from pathlib import Path

import numpy as np

from ssltransfer.datasets.index import Index
from ssltransfer.datasets.layout import find_images, first_existing, inner_folder, read_mat, renumber
from ssltransfer.errors import InputError

TEST_LABELS = "cars_test_annos_withlabels.mat"


def index(root: Path) -> Index:
    """Index both parts; classes are numbered from 1 in the tables and named in ``cars_meta.mat``."""
    devkit = first_existing(root / "devkit", root / "car_devkit" / "devkit", root / "car_devkit")
    copies = [path for folder in (root, devkit) for path in folder.glob("cars_test_annos_withlabels (*).mat")]
    found = [path for path in (root / TEST_LABELS, devkit / TEST_LABELS, *copies) if path.is_file()]
    labels = found[0] if found else devkit / TEST_LABELS
    names = read_mat(devkit / "cars_meta.mat", "class_names").ravel()
    return renumber(
        {
            "train": _part(root, "train", devkit / "cars_train_annos.mat", len(names)),
            "test": _part(root, "test", labels, len(names)),
        },
        {number: str(np.squeeze(name)) for number, name in enumerate(names, start=1)},
    )


def _part(root: Path, part: str, table: Path, classes: int) -> tuple[list[str], list[int]]:
    outer = first_existing(root / f"cars_{part}", root / "car_data" / "car_data" / part, root / "car_data" / part)
    folder = inner_folder(outer, outer.name)
    rows = read_mat(table, "annotations")
    if rows.dtype.names is None or not {"class", "fname"} <= set(rows.dtype.names):
        raise InputError(f"{table}: 'annotations' must be a struct array with the fields class and fname")
    rows = rows.ravel()
    numbers = [int(np.squeeze(value)) for value in rows["class"]]
    if wrong := [number for number in numbers if not 1 <= number <= classes]:
        raise InputError(f"{table}: class {wrong[0]} is outside 1..{classes}, the names in cars_meta.mat")
    names = [str(np.squeeze(value)) for value in rows["fname"]]
    return find_images(root, folder, names, below=outer), numbers
