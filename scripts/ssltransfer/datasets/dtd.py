"""Describable Textures: ``images/CLASS/*.jpg`` and ``labels/{train,val,test}1.txt``, the first official split."""

from pathlib import Path

from ssltransfer.datasets.index import Index, concatenate
from ssltransfer.datasets.layout import read_lines


def index(root: Path) -> Index:
    """Index split 1; classes are the folder names in the lists, in alphabetical order."""
    lists = {split: read_lines(root / "labels" / f"{split}1.txt") for split in ("train", "val", "test")}
    classes = sorted({line.split("/")[0] for lines in lists.values() for line in lines})
    return concatenate(
        {
            split: (
                [f"images/{line}" for line in lines],
                [classes.index(line.split("/")[0]) for line in lines],
            )
            for split, lines in lists.items()
        },
        classes,
    )
