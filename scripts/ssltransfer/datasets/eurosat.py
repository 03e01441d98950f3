"""EuroSAT (RGB): ``2750/CLASS/CLASS_N.jpg``, no official split.

Later editions are read too: ``EuroSAT_RGB/CLASS/...`` (Zenodo), and the class folders at the top (Kaggle). All images
form one pool, called ``train``; few-shot episodes draw from the pool of all splits.
"""

from pathlib import Path

from ssltransfer.datasets.index import Index
from ssltransfer.datasets.layout import folder_pool, missing

EDITIONS = ("2750", "EuroSAT_RGB")
CLASSES = (
    "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture", "PermanentCrop", "Residential",
    "River", "SeaLake",
)  # fmt: skip


def index(root: Path) -> Index:
    """Index the class folders in alphabetical order."""
    return folder_pool(root, _class_root(root))


def _class_root(root: Path) -> Path:
    """Return the folder of the class folders."""
    bases = [root, *(root / name for name in ("EuroSAT", "eurosat", *EDITIONS))]
    candidates = [base / name for base in bases for name in EDITIONS] + bases
    for folder in candidates:
        if any((folder / name).is_dir() for name in CLASSES):
            return folder
    named = next((folder for folder in candidates[: -len(bases)] if folder.is_dir()), None)
    if named is None:
        raise missing(root / EDITIONS[0])
    return named
