"""Checks that every index has to pass: its columns, its images, its counts and its classes."""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path

from ssltransfer.datasets.index import SPLITS, Index, MissingError, count_parts, split_reference
from ssltransfer.errors import InputError
from ssltransfer.files import file_hash

_OTHER_SPELLING = re.compile(r"(?:^|/)\.{0,2}(?:/|$)").search
"""Finds references to a path that can be written otherwise: absolute ones, and ``.``, ``..`` and nothing as parts."""
MAX_NAMED = 5
"""Number of classes that a message names."""


def check_index(index: Index, name: str, root: Path = Path()) -> None:
    """Refuse an index that no protocol could use.

    Parameters
    ----------
    index : Index
    name : str
        Of the dataset, for messages.
    root : Path
        Folder that the references start from; two references are the same image if they lead to one path, however they
        are spelled (``a.jpg``, ``./a.jpg``). Links are not followed.

    Raises
    ------
    InputError
        If columns differ in length, a split name is unknown, a label is outside 0..classes-1, two classes have one
        name, an image is in two parts or has two labels, or a name is not text.
    """
    lengths = {"image": len(index.image), "split": len(index.split), "label": len(index.label)}
    lengths |= {column: len(values) for column, values in index.extra.items()}
    if len(set(lengths.values())) != 1 or not lengths["image"]:
        raise InputError(f"{name}: columns must have the same length, at least 1; found {lengths}")
    if unknown := set(index.split) - set(SPLITS):
        raise InputError(f"{name}: split {min(unknown)!r} is unknown; write one of {', '.join(SPLITS)}")
    multi_label = index.multi_label
    in_range = not multi_label and min(index.label) >= 0 and max(index.label) < len(index.classes)
    for row, label in enumerate(() if in_range else index.label):
        for value in label if multi_label else [label]:
            if not 0 <= value < len(index.classes):
                raise InputError(
                    f"{name}: row {row} ({index.image[row]}) has label {value}; expected 0..{len(index.classes) - 1}"
                )
    if len(set(index.classes)) != len(index.classes):
        twice = next(c for c, count in Counter(index.classes).items() if count > 1)
        raise InputError(f"{name}: class {twice!r} is there twice")
    for text in (*index.classes, *index.image):
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            raise InputError(f"{name}: the name {text!a} is not UTF-8; rename the file or folder")
    if len(set(index.image)) == len(index) and not any(map(_OTHER_SPELLING, index.image)):
        return  # as nearly always
    first_row: dict[str, int] = {}
    for row, image in enumerate(index.image):
        first = first_row.setdefault(os.path.normpath(root / image), row)
        if index.split[first] != index.split[row]:
            raise InputError(f"{name}: image {image} is in {index.split[first]} and in {index.split[row]}")
        if index.label[first] != index.label[row]:
            raise InputError(
                f"{name}: image {image} is there twice, with {_label_text(index, first)} and with "
                f"{_label_text(index, row)}"
            )


def _label_text(index: Index, row: int) -> str:
    labels = index.label[row] if index.multi_label else [index.label[row]]
    return f"label {'|'.join(index.classes[label] for label in labels)!r}"


def check_files(index: Index, name: str, root: Path) -> None:
    """Require that all images are there as files; each folder is listed once, which is quick on network disks too.

    Raises
    ------
    InputError
        If images are missing: the path of the first one and their number.
    """
    listings: dict[str, set[str]] = {}

    def exists(reference: str) -> bool:
        folder, file = os.path.split(os.path.join(root, reference))  # noqa: PTH118 - a million Paths take 10 s
        if folder not in listings:
            listings[folder] = _files(Path(folder))
        return file in listings[folder]

    containers = {}
    absent = []
    for reference in index.image:
        if not exists(reference):
            container, row = split_reference(reference)
            if row is None or not containers.setdefault(container, exists(container)):
                absent.append(reference)
    if absent:
        path = root / absent[0]
        similar = [other for other in _files(path.parent) if _folded(other) == _folded(path.name)]
        hint = f"; {similar[0]!r} is there, with other letters or another Unicode form" if similar else ""
        raise MissingError(f"{name}: {path} is not a file ({len(absent)} of {len(index)} images are missing){hint}")


def _files(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def check_counts(index: Index, name: str, expected: dict[str, int]) -> None:
    """Compare the index with the counts of `datasets.tsv` (classes, train, val, test); those not given are not checked.

    Raises
    ------
    InputError
        If counts differ: the differences, and the classes that they are likely to come from.
    """
    found = count_parts(index)
    wrong = {what: count for what, count in expected.items() if found[what] != count}
    if wrong:
        texts = [f"{what} {count}, found {found[what]} ({found[what] - count:+d})" for what, count in wrong.items()]
        sizes = [_class_sizes(index, part) for part in wrong if part in SPLITS and found[part] and index.classes]
        hints = [untrained_classes(index), *sizes]
        fewer = any(found[what] < count for what, count in wrong.items())
        question = "is the copy complete?" if fewer else "correct the row, or take out what does not belong there."
        raise InputError(
            f"{name}: config/datasets.tsv says {'; '.join(texts)}; {question}"
            + "".join(f" {hint};" for hint in hints if hint).rstrip(";")
        )


def check_classes(index: Index, name: str) -> None:
    """Require a training image of every class, if there is a training part.

    Raises
    ------
    InputError
        If a class has none: the names and parts of such classes, and their number.
    """
    if problem := untrained_classes(index):
        raise InputError(f"{name}: {problem}; add images or leave the class out")


def _class_counts(index: Index, part: str) -> Counter[int]:
    """Number of images of each class in a split."""
    labels = [label for label, split in zip(index.label, index.split, strict=True) if split == part]
    return Counter(label for image in labels for label in image) if index.multi_label else Counter(labels)


def _class_sizes(index: Index, part: str) -> str:
    """Say how many images the smallest and the largest class of a split have."""
    counts = _class_counts(index, part)
    small, large = (choose(range(len(index.classes)), key=counts.__getitem__) for choose in (min, max))
    if counts[small] == counts[large]:
        return f"each class has {counts[small]} images in {part}"
    return (
        f"classes have {counts[small]} ({index.classes[small]!r}) to {counts[large]} ({index.classes[large]!r}) images "
        f"in {part}"
    )


def untrained_classes(index: Index) -> str:
    """Name the classes without a training image, and where they occur instead; empty if there are none."""
    counts = {part: _class_counts(index, part) for part in SPLITS}
    if "train" not in index.split:
        return ""
    missing = [k for k in range(len(index.classes)) if not counts["train"][k]]
    trained = {_folded(c): c for k, c in enumerate(index.classes) if counts["train"][k]}
    names = []
    for k in missing[:MAX_NAMED]:
        notes = [f"{counts[part][k]} in {part}" for part in SPLITS if counts[part][k]]
        if similar := trained.get(_folded(index.classes[k])):
            notes.append(f"train has {similar!r}, is it the same class?")
        names.append(f"{index.classes[k]!r} ({', '.join(notes)})" if notes else f"{index.classes[k]!r}")
    if not names:
        return ""
    first, *others = names
    return (
        f"class {first} has no training image"
        + (f", nor have {', '.join(others)}" if others else "")
        + (f" ({len(missing)} such classes)" if len(missing) > 1 else "")
    )


def _folded(name: str) -> str:
    """Name without what is easily mistaken: case, Unicode form, blanks and punctuation."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold()) or name


def duplicate_images(index: Index, root: Path) -> list[str]:
    """Say which images of a part are, byte for byte, images of a part that is trained or chosen on as well.

    Only files of equal size are read, the first 4 KiB of each, and those that agree so far to their end.

    Returns
    -------
    list of str
        One sentence for test images that are also in train or val, one for val images that are also in train.
    """
    sizes: dict[int, dict[str, list[str]]] = {}
    listings: dict[str, dict[str, int]] = {}
    for image, part in zip(index.image, index.split, strict=True):
        folder, name = os.path.split(root / image)
        if folder not in listings:
            with os.scandir(folder) as entries:
                listings[folder] = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        if name in listings[folder]:  # a row of a file of many is not
            sizes.setdefault(listings[folder][name], {}).setdefault(part, []).append(image)
    groups = [parts for parts in sizes.values() if len(parts) > 1]
    for limit in (4096, None):
        groups = [group for parts in groups for group in _by_content(parts, root, limit)]
    return [
        text
        for part, others in (("test", ("train", "val")), ("val", ("train",)))
        if (text := _duplicates_text(groups, part, others))
    ]


def _by_content(parts: dict[str, list[str]], root: Path, limit: int | None) -> list[dict[str, list[str]]]:
    """Split a group of images by the hash of their first bytes; only groups with several parts are kept."""
    groups: dict[str, dict[str, list[str]]] = {}
    for part, images in parts.items():
        for image in images:
            groups.setdefault(_content_hash(root / image, limit), {}).setdefault(part, []).append(image)
    return [group for group in groups.values() if len(group) > 1]


def _content_hash(path: Path, limit: int | None) -> str:
    if limit is None:
        return file_hash(path)
    with path.open("rb") as file:
        return hashlib.sha256(file.read(limit)).hexdigest()


def _duplicates_text(groups: list[dict[str, list[str]]], part: str, others: tuple[str, ...]) -> str:
    pairs = [
        (image, next(group[other][0] for other in others if other in group))
        for group in groups
        if any(other in group for other in others)
        for image in group.get(part, ())
    ]
    if not pairs:
        return ""
    subject = f"{len(pairs)} {part} images are" if len(pairs) > 1 else f"1 {part} image is"
    return f"{subject}, byte for byte, in {' or '.join(others)} too, such as {pairs[0][0]} = {pairs[0][1]}"
