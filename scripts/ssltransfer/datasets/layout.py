"""Small readers shared by the indexers of original layouts; errors are one line (`InputError`)."""

import codecs
import csv
import io
import logging
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ssltransfer.datasets.index import Index, MissingError, concatenate
from ssltransfer.datasets.parts import is_hidden, list_content, visible_folders
from ssltransfer.errors import InputError

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pnm",
}  # fmt: skip
MAX_MATLAB = 2**27
"""Bytes that the packed variables of a MATLAB file may have; those of the datasets have a tenth of it."""
PACKED = 15
"""Number of packed elements in MATLAB files."""
DELIMITERS = ",;\t"


def missing(path: Path) -> MissingError:
    """Make the error for a part of the layout that is not there, with what is there instead."""
    parent = next((folder for folder in path.parents if folder.is_dir()), path.parent)
    return MissingError(f"{path} is missing; {parent} holds {list_content(parent)}")


def inner_folder(root: Path, *names: str) -> Path:
    """Return the first sub-folder of these names that exists, else `root`.

    Archives unpack into a folder of their own (``food-101/``); copies often lack it. Both are read.
    """
    return next((root / name for name in names if (root / name).is_dir()), root)


def read_text(path: Path) -> str:
    """Text of a small file in UTF-8; a byte-order mark is taken off."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise missing(path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def read_lines(path: Path) -> list[str]:
    """Non-empty lines of a split file, without Windows line ends."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_pairs(path: Path, expected: str) -> list[tuple[str, str]]:
    """Split each line at its first blank: ``KEY VALUE``; `expected` says so in the error message."""
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        key, *value = line.split(maxsplit=1)
        if not value:
            raise InputError(f"{path}, line {number}: found {line!r}, expected {expected!r}")
        pairs.append((key, value[0]))
    return pairs


def read_csv(path: Path) -> list[tuple[str, list[str]]]:
    """Rows of a csv file, the header first, each with its place (``FILE, line N``) for error messages.

    Files that spreadsheets save are read too: UTF-8 or UTF-16 with a byte-order mark, the encoding of Western Windows
    (cp1252), and cells separated by semicolons or tabs.
    """
    return [(f"{path}, line {number}", row) for number, row in csv_rows(path)]


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows of a csv file one by one, each with the number of its line (see `read_csv`)."""
    text = _read_spreadsheet(path)
    first = text.partition("\n")[0]
    named = re.fullmatch(r'"?sep=(.)"?\s*', first)
    delimiter = named[1] if named else max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    del text  # the reader has a copy
    try:
        if named:
            next(reader)
        for row in reader:
            if any(row):
                yield reader.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}") from None


def _read_spreadsheet(path: Path) -> str:
    content = path.read_bytes() if path.is_file() else b""
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "cp1252"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            raise InputError(f"{path} cannot be read: {error}; save it in the encoding UTF-8") from None
        log.warning("%s is not in UTF-8; read as %s", path, encoding)
        return text
    return read_text(path)


def _check_unpacked(path: Path) -> None:
    """Refuse (ValueError) a MATLAB file whose packed variables unpack to over `MAX_MATLAB` bytes."""
    left = MAX_MATLAB
    with path.open("rb") as file:
        order = {b"IM": "<", b"MI": ">"}.get(file.read(128)[126:])
        while order and len(tag := file.read(8)) == 8:
            kind, size = struct.unpack(f"{order}II", tag)
            end = file.tell() + size
            unpacker = zlib.decompressobj()
            while kind == PACKED and file.tell() < end and (block := file.read(min(2**16, end - file.tell()))):
                while block:
                    left -= len(unpacker.decompress(block, 2**20))
                    block = unpacker.unconsumed_tail
                    if left < 0:
                        raise ValueError(f"its variables unpack to over {MAX_MATLAB} bytes")
            file.seek(end)


def read_mat(path: Path, key: str) -> np.ndarray:
    """Variable `key` of a MATLAB file (up to version 7.2)."""
    from scipy.io import loadmat, whosmat

    if not path.is_file():
        raise missing(path)
    try:
        _check_unpacked(path)
        content = loadmat(path, variable_names=[key])
        if key not in content:
            content = dict.fromkeys(name for name, _, _ in whosmat(path))
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"{path} is not a MATLAB file that can be read: {error}") from None
    if content.get(key) is None:
        found = ", ".join(name for name in content if not name.startswith("__"))
        raise InputError(f"{path}: variable {key!r} is missing; found {found or 'none'}")
    return content[key]


def class_folders(folder: Path) -> list[str]:
    """Names of the sub-folders in alphabetical (code point) order on every file system; hidden ones left out."""
    if not folder.is_dir():
        raise missing(folder)
    names = [entry.name for entry in visible_folders(folder)]
    if not names:
        raise InputError(f"{folder} has no sub-folders; expected one per class, found {list_content(folder)}")
    return names


def image_files(folder: Path, left_out: Counter[str] | None = None) -> list[str]:
    """Paths of the image files below a folder, relative to it, in alphabetical order.

    Parameters
    ----------
    folder : Path
        Hidden and system files, and all that lies in hidden and system folders below it, are left out.
    left_out : Counter, optional
        Files that are left out are counted here: ``hidden``, or by their suffix.
    """
    images = []
    for path in folder.rglob("*"):
        inner, suffix = path.relative_to(folder), path.suffix.lower()
        hidden = any(map(is_hidden, inner.parts))
        if suffix in IMAGE_SUFFIXES and not hidden:
            images.append(inner.as_posix())
        elif left_out is not None and path.is_file():
            left_out["hidden" if hidden else suffix or "without suffix"] += 1
    return sorted(images)


def folder_part(root: Path, folder: Path, classes: Sequence[str]) -> tuple[list[str], list[int]]:
    """Images (relative to `root`) and labels of ``FOLDER/CLASS/*``, class by class; a class may have no folder.

    The log tells which files were left out.
    """
    images, labels, left_out = [], [], Counter()
    for label, name in enumerate(classes):
        here: Counter[str] = Counter()
        files = image_files(folder / name, here)
        if not files and here:
            log.warning("%s has no image: left out %s", folder / name, describe_left_out(here))
        left_out += here
        images += [(folder / name / file).relative_to(root).as_posix() for file in files]
        labels += [label] * len(files)
    if left_out:
        log.info("%s: left out %s", folder, describe_left_out(left_out))
    return images, labels


def describe_left_out(left_out: Counter[str]) -> str:
    """Say how many files of each kind were left out, such as ``3 .txt, 1 hidden``; the most frequent kind first."""
    return ", ".join(f"{count} {kind}" for kind, count in left_out.most_common())


def find_images(root: Path, folder: Path, names: Sequence[str], below: Path | None = None) -> list[str]:
    """Find images by their file names, which are unique: in `folder`, or if the first is not there, anywhere `below`.

    Parameters
    ----------
    root : Path
        Folder of the dataset.
    folder : Path
        Folder of the images in the original layout.
    names : sequence of str
    below : Path, optional
        Folder that re-editions nest the images in; `root` if not given.

    Returns
    -------
    list of str
        Paths relative to `root`. An image that is nowhere has its path in `folder`.

    Raises
    ------
    InputError
        If an image that is not in `folder` is in two others.
    """
    found: dict[str, list[Path]] = {}
    if names and not (folder / names[0]).is_file():
        below = root if below is None else below
        for path in map(below.joinpath, image_files(below)):
            found.setdefault(path.name, []).append(path)

    def find(name: str) -> str:
        original = folder / name
        paths = found.get(name, [original])
        if original in paths:
            paths = [original]
        if len(paths) > 1:
            raise InputError(f"{paths[0]} and {paths[1]} may both be the image; keep the folder of one of them")
        return paths[0].relative_to(root).as_posix()

    return [find(name) for name in names]


def first_existing(*paths: Path) -> Path:
    """Return the first path that exists, or the first of all: the one that a message names."""
    return next((path for path in paths if path.exists()), paths[0])


def folder_pool(root: Path, folder: Path) -> Index:
    """Index ``FOLDER/CLASS/*`` as one pool, called ``train``: a dataset for few-shot episodes only."""
    classes = class_folders(folder)
    return concatenate({"train": folder_part(root, folder, classes)}, classes)


def renumber(parts: Mapping[str, tuple[Sequence[str], Sequence]], names: Mapping) -> Index:
    """Build an index from {split: (images, class keys)}; keys that occur become labels 0, 1, ... in their order.

    Parameters
    ----------
    parts : mapping
    names : mapping
        Class key to class name, for all keys that occur.
    """
    keys = sorted({key for _, part in parts.values() for key in part})
    labels = {key: label for label, key in enumerate(keys)}
    return concatenate(
        {split: (images, [labels[key] for key in part]) for split, (images, part) in parts.items()},
        classes=[names[key] for key in keys],
    )
