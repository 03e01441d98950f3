"""Oxford-IIIT Pets: ``images/BREED_N.jpg`` and ``annotations/{trainval,test}.txt``; trainval is training."""

from pathlib import Path

from ssltransfer.datasets.index import Index
from ssltransfer.datasets.layout import read_lines, renumber
from ssltransfer.errors import InputError


def index(root: Path) -> Index:
    """Index the two lists; a line is ``NAME CLASS SPECIES BREED`` with a 1-based class of 37.

    The class name is the file name without its number.
    """
    names: dict[int, str] = {}

    def part(file: str) -> tuple[list[str], list[int]]:
        images, numbers = [], []
        path = root / "annotations" / file
        for line_number, line in enumerate(read_lines(path), start=1):
            fields = line.split()
            if line.startswith("#"):
                continue
            if len(fields) != 4 or not fields[1].isdigit():
                raise InputError(f"{path}, line {line_number}: found {line!r}, expected 'NAME CLASS SPECIES BREED'")
            names[int(fields[1])] = fields[0].rpartition("_")[0]
            images.append(f"images/{fields[0]}.jpg")
            numbers.append(int(fields[1]))
        return images, numbers

    return renumber({"train": part("trainval.txt"), "test": part("test.txt")}, names)
