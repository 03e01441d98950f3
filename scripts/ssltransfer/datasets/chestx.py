"""ChestX (NIH ChestX-ray14): ``images/*.png`` and ``Data_Entry_2017.csv``.

As in the CD-FSL benchmark: images whose only finding is one of seven form one pool, called ``train``; Pneumonia, "No
Finding" and images with several findings are left out.
"""

from pathlib import Path

from ssltransfer.datasets.index import Index, concatenate
from ssltransfer.datasets.layout import read_csv
from ssltransfer.errors import InputError

CLASSES = ["Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumothorax"]


def index(root: Path) -> Index:
    """Index the rows that are kept, in the order of the table.

    Only the first two cells of a row count: the header has fewer names than the rows have cells.
    """
    path = root / "Data_Entry_2017.csv"
    header, *rows = read_csv(path) or [("", [])]
    if header[1][:2] != ["Image Index", "Finding Labels"]:
        raise InputError(f"{path}: the header must begin with 'Image Index,Finding Labels'")
    kept = [(cells[0], CLASSES.index(cells[1])) for _, cells in rows if len(cells) > 1 and cells[1] in CLASSES]
    return concatenate({"train": ([f"images/{name}" for name, _ in kept], [label for _, label in kept])}, CLASSES)
