"""CropDiseases (the Kaggle copy of PlantVillage): ``dataset/train/CLASS/*``.

Like the official few-shot code, only the folder ``train`` is read (protocol D7); its images form one pool.
"""

from pathlib import Path

from ssltransfer.datasets.index import Index
from ssltransfer.datasets.layout import folder_pool


def index(root: Path) -> Index:
    """Index the class folders in alphabetical order."""
    return folder_pool(root, root / "dataset" / "train")
