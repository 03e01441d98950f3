"""Describable Textures: ``images/CLASS/*.jpg`` and ``labels/{train,val,test}1.txt``, the first official split."""

from pathlib import Path

from ssltransfer.datasets.index import SPLITS, Index
from ssltransfer.datasets.layout import inner_folder, read_lines, renumber


def index(root: Path) -> Index:
    """Index split 1; classes are the folder names in the lists, in alphabetical order."""
    folder = inner_folder(root, "dtd")
    images = (folder / "images").relative_to(root).as_posix()
    lists = {split: read_lines(folder / "labels" / f"{split}1.txt") for split in SPLITS}
    parts = {
        split: ([f"{images}/{line}" for line in lines], [line.partition("/")[0] for line in lines])
        for split, lines in lists.items()
    }
    return renumber(parts, {name: name for _, names in parts.values() for name in names})
