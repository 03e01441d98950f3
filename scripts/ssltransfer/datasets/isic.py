"""ISIC 2018, task 3: ``ISIC2018_Task3_Training_Input/*.jpg`` and a one-hot table of seven classes.

The labelled training images form one pool, called ``train``. The same images are published as HAM10000 (Harvard
Dataverse, Kaggle: ``HAM10000_metadata.csv``, ``HAM10000_images_part_{1,2}/*.jpg``), which is read in the same order.
"""

from pathlib import Path

from ssltransfer.datasets.index import Index, concatenate
from ssltransfer.datasets.layout import find_images, first_existing, read_csv
from ssltransfer.errors import InputError

NAME = "ISIC2018_Task3_Training"
METADATA = "HAM10000_metadata.csv"
CLASSES = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]


def index(root: Path) -> Index:
    """Index the rows of the table in its order; classes are its columns."""
    official = f"{NAME}_GroundTruth.csv"
    table = first_existing(root / f"{NAME}_GroundTruth" / official, root / official, root / METADATA)
    names, labels, classes = (_read_metadata if table.name == METADATA else _read_ground_truth)(table)
    images = find_images(root, root / f"{NAME}_Input", [f"{name}.jpg" for name in names])
    return concatenate({"train": (images, labels)}, classes)


def _read_ground_truth(table: Path) -> tuple[list[str], list[int], list[str]]:
    """Return names and labels of the images in the order of the table, and the classes."""
    (_, (_, *classes)), *rows = read_csv(table) or [("", [""])]
    names, labels = [], []
    for position, (name, *values) in rows:
        hot = [label for label, value in enumerate(values) if value not in ("0", "0.0")]
        if len(values) != len(classes) or len(hot) != 1:
            raise InputError(f"{position}: found {', '.join(values)}; expected {len(classes)} values, one of them 1.0")
        names.append(name)
        labels.append(hot[0])
    return names, labels, classes


def _read_metadata(table: Path) -> tuple[list[str], list[int], list[str]]:
    """Return the same of the table of HAM10000; images sorted by name, as they are in the official table."""
    (_, header), *rows = read_csv(table) or [("", [])]
    if not {"image_id", "dx"} <= set(header):
        raise InputError(f"{table}: found the columns {', '.join(header) or 'none'}, expected image_id and dx")
    labels = {}
    for position, cells in rows:
        row = dict(zip(header, cells, strict=False))
        if row.get("dx", "").upper() not in CLASSES:
            raise InputError(f"{position}: found dx {row.get('dx')!r}, expected one of {', '.join(CLASSES)}")
        labels[row["image_id"]] = CLASSES.index(row["dx"].upper())
    return sorted(labels), [labels[name] for name in sorted(labels)], CLASSES
