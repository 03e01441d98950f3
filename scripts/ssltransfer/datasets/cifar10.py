"""CIFAR-10: ``cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}``, official train and test."""

from pathlib import Path

from ssltransfer.datasets.containers import cifar_index
from ssltransfer.datasets.index import Index


def index(root: Path) -> Index:
    """Index the batches in their published order; labels and class names are the files' own."""
    files = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    return cifar_index(root / "cifar-10-batches-py", files, "batches.meta", "labels", "label_names")
