"""EuroSAT (RGB): ``2750/CLASS/CLASS_N.jpg``, no official split.

All images form one pool, called ``train``; few-shot episodes draw from the pool of all splits.
"""

from pathlib import Path

from ssltransfer.datasets.index import Index
from ssltransfer.datasets.layout import folder_pool, inner_folder


def index(root: Path) -> Index:
    """Index the class folders in alphabetical order."""
    return folder_pool(root, inner_folder(root, "EuroSAT", "eurosat") / "2750")
