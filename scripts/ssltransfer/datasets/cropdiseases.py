"""CropDiseases (the Kaggle copy of PlantVillage): ``dataset/train/CLASS/*``.

Like the official few-shot code, only the folder ``train`` is read (protocol D7); its images form one pool. The whole of
PlantVillage (``color/CLASS/*``, as its authors and others publish it) is read too, with a warning: the copy that the
paper used holds 43,456 of its images.
"""

from pathlib import Path

from ssltransfer.datasets.index import Index
from ssltransfer.datasets.layout import first_existing, folder_pool

WHOLE = ("raw/color", "color", "plantvillage dataset/color", "PlantVillage-Dataset/raw/color")


def index(root: Path) -> Index:
    """Index the class folders in alphabetical order."""
    parts = [root / name for name in ("dataset/train", "plant-disease/dataset/train", "train")]
    whole = [root / name for name in WHOLE]
    folder = first_existing(*parts, *whole)
    index = folder_pool(root, folder)
    if folder in whole:
        index.warnings.append(
            f"cropdiseases: {folder.relative_to(root)} is all of PlantVillage; the paper used a part of 43,456 images"
        )
    return index
