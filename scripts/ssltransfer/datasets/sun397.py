"""SUN397: ``a/abbey/sun_X.jpg``, ``ClassName.txt``, ``{Training,Testing}_01.txt``; the first official split.

Images lie in the root or in ``SUN397/`` (once or twice), as the archive unpacks; the lists beside them, above them, or
in ``Partitions/``. Copies with other folders (Kaggle: ``train/library_indoor/sun_X.jpg``) are read by file name. The
lists are needed in any case: the folders ``train`` and ``test`` of copies are another split.
"""

from collections import defaultdict
from pathlib import Path

from ssltransfer.datasets.index import Index, concatenate
from ssltransfer.datasets.layout import image_files, inner_folder, missing, read_lines
from ssltransfer.errors import InputError

LISTS = {"train": "Training_01.txt", "test": "Testing_01.txt"}


def index(root: Path) -> Index:
    """Index split 1; a line is ``/a/abbey/sun_X.jpg``, and the class is the path between its letter and its file.

    Class names such as ``library/indoor`` are not unique in their last part. They are sorted without their letter.
    """
    outer = inner_folder(root, "SUN397")
    images = inner_folder(outer, "SUN397")
    places = (root, root / "Partitions", outer, outer / "Partitions", images)
    folder = next((place for place in places if (place / LISTS["train"]).is_file()), None)
    if folder is None:
        raise missing(root / LISTS["train"])
    classes = sorted(line[3:] for line in read_lines(folder / "ClassName.txt"))
    number = {name: label for label, name in enumerate(classes)}
    prefix = images.relative_to(root).as_posix().removeprefix(".")

    def part(path: Path) -> tuple[list[str], list[int]]:
        lines = read_lines(path)
        for line in lines:
            if _class_of(line) not in number:
                raise InputError(f"{path}: found {line!r}, expected /LETTER/CLASS/FILE with a class of ClassName.txt")
        return [f"{prefix}{line}".removeprefix("/") for line in lines], [number[_class_of(line)] for line in lines]

    parts = {split: part(folder / name) for split, name in LISTS.items()}
    if not (root / parts["train"][0][0]).is_file():
        parts = {split: (_find_by_name(root, paths), labels) for split, (paths, labels) in parts.items()}
    return concatenate(parts, classes)


def _class_of(line: str) -> str:
    return line[3:].rpartition("/")[0]


def _find_by_name(root: Path, paths: list[str]) -> list[str]:
    """Replace paths by those of the files of the same name, and among several by the one that names the class."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in image_files(root):
        found[path.rpartition("/")[2]].append(path)

    def find(path: str) -> str:
        folder, _, name = path.rpartition("/")
        words = folder.partition("/")[2].replace("/", "_").split("_")
        fitting = [other for other in found[name] if len(found[name]) == 1 or all(word in other for word in words)]
        if len(fitting) > 1:
            raise InputError(f"{root}: {fitting[0]} and {fitting[1]} may both be {path}; keep one of them")
        return fitting[0] if fitting else path

    return [find(path) for path in paths]
