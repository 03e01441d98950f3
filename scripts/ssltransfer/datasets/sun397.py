"""SUN397: ``a/abbey/sun_X.jpg``, ``ClassName.txt``, ``{Training,Testing}_01.txt``; the first official split.

Images lie in the root or in ``SUN397/``, as the archive unpacks; the lists beside them, above them, or in
``Partitions/``.
"""

from pathlib import Path

from ssltransfer.datasets.index import Index, concatenate
from ssltransfer.datasets.layout import inner_folder, missing, read_lines
from ssltransfer.errors import InputError


def index(root: Path) -> Index:
    """Index split 1; a line is ``/a/abbey/sun_X.jpg``, and the class is the path between its letter and its file.

    Class names such as ``library/indoor`` are not unique in their last part. They are sorted without their letter.
    """
    images = inner_folder(root, "SUN397")
    folders = [folder for folder in (root, root / "Partitions", images) if (folder / "Training_01.txt").is_file()]
    if not folders:
        raise missing(root / "Training_01.txt")
    classes = sorted(line[3:] for line in read_lines(folders[0] / "ClassName.txt"))
    number = {name: label for label, name in enumerate(classes)}
    prefix = "" if images == root else "SUN397/"

    def part(path: Path) -> tuple[list[str], list[int]]:
        lines = read_lines(path)
        for line in lines:
            if line[3:].rpartition("/")[0] not in number:
                raise InputError(f"{path}: found {line!r}, expected /LETTER/CLASS/FILE with a class of ClassName.txt")
        return [prefix + line[1:] for line in lines], [number[line[3:].rpartition("/")[0]] for line in lines]

    return concatenate(
        {"train": part(folders[0] / "Training_01.txt"), "test": part(folders[0] / "Testing_01.txt")}, classes
    )
