"""ChestX (NIH ChestX-ray14): ``images/*.png`` and ``Data_Entry_2017.csv``.

Images may also lie in the folders of their twelve archives (``images_001/images/*.png``, Kaggle). The later table
``Data_Entry_2017_v2020.csv`` is read where the first one is missing, with a warning, because labels differ.

As in the CD-FSL benchmark: images whose only finding is one of seven form one pool, called ``train``; Pneumonia, "No
Finding" and images with several findings are left out.
"""

from pathlib import Path

from ssltransfer.datasets.index import Index, concatenate
from ssltransfer.datasets.layout import find_images, first_existing, read_csv
from ssltransfer.errors import InputError

TABLE, LATER_TABLE = "Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv"
CLASSES = ["Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumothorax"]


def index(root: Path) -> Index:
    """Index the rows that are kept, in the order of the table.

    Only the first two cells of a row count: the header has fewer names than the rows have cells.
    """
    path = first_existing(root / TABLE, root / LATER_TABLE)
    header, *rows = read_csv(path) or [("", [])]
    if header[1][:2] != ["Image Index", "Finding Labels"]:
        raise InputError(f"{path}: the header must begin with 'Image Index,Finding Labels'")
    kept = [(cells[0], CLASSES.index(cells[1])) for _, cells in rows if len(cells) > 1 and cells[1] in CLASSES]
    images = find_images(root, root / "images", [name for name, _ in kept])
    index = concatenate({"train": (images, [label for _, label in kept])}, CLASSES)
    if path.name == LATER_TABLE:
        index.warnings.append(
            f"chestx: the labels are those of {LATER_TABLE}; the paper used {TABLE}, where some differ"
        )
    return index
