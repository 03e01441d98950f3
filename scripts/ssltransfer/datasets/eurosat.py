"""EuroSAT (RGB): ``2750/CLASS/CLASS_N.jpg``, no official split.

All images form one pool, called ``train``; few-shot episodes draw from the pool of all splits.
"""

from pathlib import Path

from ssltransfer.datasets.index import Index, concatenate
from ssltransfer.datasets.layout import class_folders, image_files


def index(root: Path) -> Index:
    """Index the class folders in alphabetical order."""
    classes = class_folders(root / "2750")
    images, labels = [], []
    for label, name in enumerate(classes):
        files = image_files(root / "2750" / name)
        images += [f"2750/{name}/{file}" for file in files]
        labels += [label] * len(files)
    return concatenate({"train": (images, labels)}, classes)
