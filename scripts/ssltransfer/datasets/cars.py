"""Stanford Cars: ``cars_{train,test}/*.jpg`` and MATLAB tables in ``devkit/``; official train and test.

The test labels are in ``cars_test_annos_withlabels.mat``, published apart from the devkit: it is read from
``devkit/`` (as by the official code) or beside it (as by torchvision).
"""

from pathlib import Path

import numpy as np

from ssltransfer.datasets.index import Index
from ssltransfer.datasets.layout import inner_folder, read_mat, renumber
from ssltransfer.errors import InputError

TEST_LABELS = "cars_test_annos_withlabels.mat"


def index(root: Path) -> Index:
    """Index both parts; classes are numbered from 1 in the tables and named in ``cars_meta.mat``."""
    devkit = root / "devkit"
    labels = root / TEST_LABELS if (root / TEST_LABELS).is_file() else devkit / TEST_LABELS
    names = read_mat(devkit / "cars_meta.mat", "class_names").ravel()
    return renumber(
        {
            "train": _part(root, "cars_train", devkit / "cars_train_annos.mat", len(names)),
            "test": _part(root, "cars_test", labels, len(names)),
        },
        {number: str(np.squeeze(name)) for number, name in enumerate(names, start=1)},
    )


def _part(root: Path, folder: str, table: Path, classes: int) -> tuple[list[str], list[int]]:
    # Kaggle's copy has the folder twice: cars_train/cars_train.
    images = inner_folder(root / folder, folder).relative_to(root).as_posix()
    rows = read_mat(table, "annotations")
    if rows.dtype.names is None or not {"class", "fname"} <= set(rows.dtype.names):
        raise InputError(f"{table}: 'annotations' must be a struct array with the fields class and fname")
    rows = rows.ravel()
    numbers = [int(np.squeeze(value)) for value in rows["class"]]
    if wrong := [number for number in numbers if not 1 <= number <= classes]:
        raise InputError(f"{table}: class {wrong[0]} is outside 1..{classes}, the names in cars_meta.mat")
    return [f"{images}/{np.squeeze(value)}" for value in rows["fname"]], numbers
