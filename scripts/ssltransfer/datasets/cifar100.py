"""CIFAR-100: ``cifar-100-python/{train,test,meta}``, official train and test, the 100 fine classes."""

from pathlib import Path

from ssltransfer.datasets.containers import cifar_index
from ssltransfer.datasets.index import Index


def index(root: Path) -> Index:
    """Index both files in their published order; labels and class names are the files' own."""
    files = {"train": ["train"], "test": ["test"]}
    return cifar_index(root / "cifar-100-python", files, "meta", "fine_labels", "fine_label_names")
