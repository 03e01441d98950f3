"""The index of a dataset, one row per image: its file format and the checks that every index has to pass."""

import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssltransfer.datasets.index_column import (
    Column,
    content_checksum,
    json_blocks,
    open_columns,
    stored_blocks,
    to_arrow,
)
from ssltransfer.errors import InputError, damaged, first_line
from ssltransfer.files import CHECKSUM, atomic_write, file_hash

SPLITS = ("train", "val", "test")
ABOUT = ("classes", "promised", "skipped", "warnings")
"""Fields of an index that its file holds as metadata and not as columns; a file without warnings lacks the last, old
files have the first alone."""
_OTHER_SPELLING = re.compile(r"(?:^|/)\.{0,2}(?:/|$)").search
"""Finds references to a path that can be written otherwise: absolute ones, and ``.``, ``..`` and nothing as parts."""
MAX_NAMED = 5
"""Number of classes that a message names."""


class MissingError(InputError):
    """A file or folder of the layout of a dataset is not there."""


@dataclass
class Index:
    """The images of a dataset.

    Attributes
    ----------
    image : list of str
        Path below the dataset's folder; ``file#row`` names a row of a file that holds many images.
    split : list of str
        ``train``, ``val`` or ``test``.
    label : list of int, or list of list of int
        Class of each image, 0-based; the classes it shows (sorted) in a multi-label set.
    classes : list of str
        Class names in label order.
    extra : dict of str to list
        Further columns, such as boxes.
    promised : dict of str to int or None
        Numbers of classes and of images per split that the row of `datasets.tsv` promises; None if the index was
        written without them, as before version 0.2.0.
    skipped : dict of str to int
        Number of unreadable images per split that were left out (``on_error: skip``).
    warnings : list of str
        Caveats of the images or labels, which the scores on this dataset repeat.
    """

    image: Sequence[str]
    split: Sequence[str]
    label: Sequence
    classes: Sequence[str]
    extra: dict[str, Sequence] = field(default_factory=dict)
    promised: dict[str, int] | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def multi_label(self) -> bool:
        """Whether an image may show several classes."""
        return len(self.label) > 0 and not np.isscalar(self.label[0])

    def label_array(self, ignored: str | None = None) -> np.ndarray:
        """Labels as (n,) int64, or as (n, k) bool in a multi-label set.

        Parameters
        ----------
        ignored : str, optional
            An extra column that lists, for each image of a multi-label set, classes that count neither as present nor
            as absent. If the index has it, the array is int8: 1, 0, or -1 for these.
        """
        if not self.multi_label:
            return np.asarray(self.label, dtype=np.int64)
        marked = self.extra.get(ignored)
        array = np.zeros((len(self), len(self.classes)), dtype=bool if marked is None else np.int8)
        for columns, value in ((marked, -1), (self.label, 1)):
            for row, classes in enumerate(columns or ()):
                array[row, classes] = value
        return array

    @property
    def repeated_images(self) -> int:
        """Number of rows whose image is that of another row before them."""
        distinct = self.image.distinct if isinstance(self.image, Column) else len(set(self.image))
        return len(self) - distinct

    def rows_of(self, parts: Collection[str]) -> np.ndarray:
        """Rows of these splits, in their order."""
        split = self.split
        return np.flatnonzero(split.among(parts) if isinstance(split, Column) else np.isin(split, list(parts)))

    def split_array(self) -> np.ndarray:
        """Split of each row as (n,) str."""
        return np.asarray(self.split)


def concatenate(parts: dict[str, tuple[Sequence[str], Sequence]], classes: Sequence[str]) -> Index:
    """Build an index from {split: (images, labels)}."""
    return Index(
        image=[image for images, _ in parts.values() for image in images],
        split=[split for split, (images, _) in parts.items() for _ in images],
        label=[label for _, labels in parts.values() for label in labels],
        classes=classes,
    )


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


def count_parts(index: Index) -> dict[str, int]:
    """Count classes, and images of each split: the counts that a row of `datasets.tsv` holds."""
    return {"classes": len(index.classes)} | {part: list(index.split).count(part) for part in SPLITS}


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


def select(index: Index, rows: Sequence[int]) -> Index:
    """Keep only these rows."""

    def chosen(values: Sequence) -> list:
        return [values[row] for row in rows]

    extra = {column: chosen(values) for column, values in index.extra.items()}
    columns = {name: chosen(getattr(index, name)) for name in ("image", "split", "label")}
    return replace(index, **columns, extra=extra)


def image_names(index: Index) -> list[str]:
    """Name each image of a small dataset: its class if that tells all apart, else its file, else that with its row."""
    names = [index.classes[label] for label in index.label] if not index.multi_label else list(index.image)
    if len(set(names)) < len(names):
        names = [PurePosixPath(image).stem for image in index.image]
    return [f"{name} {row}" if names.count(name) > 1 else name for row, name in enumerate(names)]


def short_name(reference: str) -> str:
    """Name an image by its reference alone: its row in a file of many, or its file name without suffix."""
    name, row = split_reference(reference)
    return PurePosixPath(name).stem if row is None else f"#{row}"


def split_reference(reference: str) -> tuple[str, int | None]:
    """Split ``file#row`` into both; another reference stands for itself and has row None."""
    container, _, row = reference.rpartition("#")
    return (container, int(row)) if container and row.isascii() and row.isdigit() else (reference, None)


def write_index(path: str | Path, index: Index) -> None:
    """Write the index as parquet; class names, promised counts, skipped images and warnings in its metadata."""
    label_type = pa.list_(pa.int32()) if index.multi_label else pa.int32()
    columns = {
        "image": to_arrow(index.image, pa.string()),
        "split": to_arrow(index.split, pa.string()),
        "label": to_arrow(index.label, label_type),
        **{name: to_arrow(values) for name, values in index.extra.items()},
    }
    table = pa.table(columns)
    about = {"classes": list(index.classes), "promised": index.promised, "skipped": index.skipped}
    if index.warnings:  # a file without them is as in earlier versions
        about["warnings"] = index.warnings
    metadata = {name: json.dumps(value) for name, value in about.items()}
    checksum = content_checksum(((name, json_blocks(table[name])) for name in sorted(columns)), metadata)
    table = table.replace_schema_metadata(metadata | {CHECKSUM: checksum})
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)


def read_index(path: str | Path) -> Index:
    """Read what `write_index` wrote; InputError if the file is damaged. One without a checksum is read unverified.

    The whole file is verified, but a column is held only once it is used: labels of a million images take 5 MB, their
    names a hundred.
    """
    try:
        with open_columns(path) as file:
            schema, count = file.schema_arrow, file.metadata.num_rows
            if count != sum(file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)):
                raise ValueError("its numbers of rows do not agree")
            metadata = {key.decode(): value.decode() for key, value in schema.metadata.items()}
            about = {name: metadata[name] for name in ABOUT if name in metadata}
            blocks = ((name, stored_blocks(file, name)) for name in sorted(schema.names))
            if CHECKSUM in metadata and metadata[CHECKSUM] != content_checksum(blocks, about):
                raise ValueError("its content does not match its checksum")
        columns = {name: Column(path, name, count, few=name == "split") for name in schema.names}
        return Index(
            image=columns.pop("image"),
            split=columns.pop("split"),
            label=columns.pop("label"),
            extra=columns,
            **{name: json.loads(text) for name, text in about.items()},
        )
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise damaged(path, first_line(error)) from None
