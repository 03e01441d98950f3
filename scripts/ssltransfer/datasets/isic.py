"""ISIC 2018, task 3: ``ISIC2018_Task3_Training_Input/*.jpg`` and a one-hot table of seven classes.

The labelled training images form one pool, called ``train``.
"""

from pathlib import Path

from ssltransfer.datasets.index import Index, concatenate
from ssltransfer.datasets.layout import read_csv
from ssltransfer.errors import InputError

NAME = "ISIC2018_Task3_Training"


def index(root: Path) -> Index:
    """Index the rows of the table in its order; classes are its columns."""
    (_, (_, *classes)), *rows = read_csv(root / f"{NAME}_GroundTruth" / f"{NAME}_GroundTruth.csv") or [("", [""])]
    images, labels = [], []
    for position, (name, *values) in rows:
        hot = [label for label, value in enumerate(values) if value not in ("0", "0.0")]
        if len(values) != len(classes) or len(hot) != 1:
            raise InputError(f"{position}: found {', '.join(values)}; expected {len(classes)} values, one of them 1.0")
        images.append(f"{NAME}_Input/{name}.jpg")
        labels.append(hot[0])
    return concatenate({"train": (images, labels)}, classes)
