"""CIFAR-10: ``cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}``, official train and test."""

from pathlib import Path

from ssltransfer.datasets.containers import read_cifar_batch
from ssltransfer.datasets.index import Index, concatenate


def index(root: Path) -> Index:
    """Index the batches in their published order; labels and class names are the files' own."""
    folder = root / "cifar-10-batches-py"
    names = read_cifar_batch(folder / "batches.meta")["label_names"]

    def part(files: list[str]) -> tuple[list[str], list[int]]:
        images, labels = [], []
        for file in files:
            batch = read_cifar_batch(folder / file)
            images += [f"{folder.name}/{file}#{row}" for row in range(len(batch["labels"]))]
            labels += batch["labels"]
        return images, labels

    return concatenate(
        {"train": part([f"data_batch_{i}" for i in range(1, 6)]), "test": part(["test_batch"])},
        classes=[name.decode() if isinstance(name, bytes) else name for name in names],
    )
