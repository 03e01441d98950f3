"""Food-101: ``images/CLASS/ID.jpg`` and ``meta/{classes,train,test}.txt``, official train and test."""

from pathlib import Path

from ssltransfer.datasets.index import Index, concatenate
from ssltransfer.datasets.layout import inner_folder, read_lines
from ssltransfer.errors import InputError


def index(root: Path) -> Index:
    """Index both lists; a line is ``CLASS/ID``, classes are in the order of ``classes.txt``."""
    folder = inner_folder(root, "food-101")
    images = (folder / "images").relative_to(root).as_posix()
    classes = read_lines(folder / "meta" / "classes.txt")
    number = {name: label for label, name in enumerate(classes)}

    def part(path: Path) -> tuple[list[str], list[int]]:
        lines = read_lines(path)
        for line in lines:
            if line.rpartition("/")[0] not in number:
                raise InputError(f"{path}: found {line!r}, expected CLASS/ID with a class of classes.txt")
        return [f"{images}/{line}.jpg" for line in lines], [number[line.rpartition("/")[0]] for line in lines]

    return concatenate(
        {"train": part(folder / "meta" / "train.txt"), "test": part(folder / "meta" / "test.txt")}, classes
    )
