"""The index of a dataset, one row per image: and its file format."""

import json
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
from ssltransfer.files import CHECKSUM, atomic_write

SPLITS = ("train", "val", "test")
ABOUT = ("classes", "promised", "skipped", "warnings")
"""Fields of an index that its file holds as metadata and not as columns; a file without warnings lacks the last, old
files have the first alone."""


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


def count_parts(index: Index) -> dict[str, int]:
    """Count classes, and images of each split: the counts that a row of `datasets.tsv` holds."""
    return {"classes": len(index.classes)} | {part: list(index.split).count(part) for part in SPLITS}


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
