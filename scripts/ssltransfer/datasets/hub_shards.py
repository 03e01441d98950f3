"""Datasets of the Hugging Face hub: parquet files, or tar files in the layout of webdataset, unpacked into images.

Source ``hf:OWNER/NAME@REVISION``. The images keep their bytes and the order of the files and rows; parts are named by
the files or their folders (``data/train-00000-of-00002.parquet``, ``test/0.tar``). Class names and their order are
those that the parquet files carry, or ``classnames.txt`` beside tar files. `hub.HubOptions` say which column of parquet
files holds labels, which names images (each is then read once), and whether the parts are one pool.
"""

import json
import logging
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from ssltransfer.datasets.index import SPLITS, Index, read_index, write_index
from ssltransfer.datasets.parts import PARTS
from ssltransfer.datasets.sources import DOWNLOAD_FOLDER, Source, hub_folder, location
from ssltransfer.datasets.tar_member import TarMember
from ssltransfer.errors import InputError, first_line
from ssltransfer.hub import HubOptions, parse_hub_source
from ssltransfer.hub_download import fetch_hub_dataset

log = logging.getLogger(__name__)

INDEX = "index.parquet"
PATTERNS = ("*.parquet", "*.tar", "*classnames.txt")
IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
LABEL_SUFFIX = "cls"
"""Suffix of the members of a tar file that hold labels."""
MAX_BYTES = 2**28
"""Largest image file; a small compressed file can hold a member that would fill the memory."""
MAX_UNPACKED, MAX_UNPACKING = 2**27, 10
"""Bytes that a file may unpack to, images, labels and names together, and the ratio that counts where it allows more;
images hardly compress."""
MIN_ROW = 2048
"""Bytes that an image takes at least, as a file on the disk and in the index."""
MAX_CLASSES, MAX_NAME = 100_000, 1000
"""Number of classes, and characters of the name of one."""
AS_IT_IS = HubOptions()
LABELS = ("label", "labels", "cls")
"""Names of the column of labels, where the file does not say which holds classes."""
SIGNATURES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp"}
"""First bytes of an image file -> suffix."""


class Row(NamedTuple):
    """An image as it is on the hub: its bytes, its label (a number, a name, or a list of these), and its own name."""

    content: bytes
    label: Any
    name: str = ""

    @property
    def size(self) -> int:
        """Bytes, about: dictionaries of parquet files repeat images and long texts at no cost."""
        labels = self.label if isinstance(self.label, list) else [self.label]
        texts = [self.name, *(each for each in labels if isinstance(each, str))]
        return max(MIN_ROW, len(self.content) + 8 * len(labels) + sum(map(len, texts)))


def obtain_hub_dataset(source: Source, data_root: str | Path) -> dict:
    """Download a dataset of the hub and unpack it, unless it is there.

    Returns
    -------
    dict
        ``repository``, ``revision`` and ``images`` (number in each part).

    Raises
    ------
    InputError
        If it cannot be fetched or read, or a folder of the user has no index.
    """
    dataset, options = parse_hub_source(source.name)
    folder = location(source, data_root)
    if not (folder / INDEX).is_file():
        if folder.exists() and folder != hub_folder(DOWNLOAD_FOLDER, source):
            raise InputError(
                f"{folder} has no {INDEX}; copy the whole folder that was unpacked elsewhere, or remove it to download "
                "the dataset"
            )
        unpack_shards(fetch_hub_dataset(dataset, PATTERNS), folder, options)
    split = index(folder).split
    counts = {part: list(split).count(part) for part in SPLITS}
    return {"repository": dataset.repository, "revision": dataset.revision, "images": counts}


def index(root: Path) -> Index:
    """Return the index that `unpack_shards` has written."""
    return read_index(root / INDEX)


def unpack_shards(shards: Path, folder: Path, options: HubOptions = AS_IT_IS) -> None:
    """Write the images of all parquet and tar files below `shards` into a new folder, with their index.

    Raises
    ------
    InputError
        There are no such files, a file does not tell its part, has no images or labels, or is damaged; or an image that
        is read once has two labels.
    """
    files = sorted([*shards.rglob("*.parquet"), *shards.rglob("*.tar")])
    if not files:
        raise InputError(f"{shards} holds neither .parquet nor .tar files; choose a repository that does")
    temporary = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _unpack(shards, files, temporary, options)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack(shards: Path, files: list[Path], temporary: Path, options: HubOptions) -> None:
    images: list[str] = []
    splits: list[str] = []
    labels: list[Any] = []
    classes: list[str] = []
    known: dict[str, Any] = {}
    repeated = 0
    for part, file in sorted(((_part(shards, file), file) for file in files), key=lambda each: SPLITS.index(each[0])):
        part = options.pool or part
        (temporary / part).mkdir(parents=True, exist_ok=True)
        with _reading(file):
            names = _class_names(shards, file, options)
            _check_names(file, names)
            if classes and names and names != classes:
                raise InputError(f"{file}: found the classes {names[:3]}..., other files have {classes[:3]}...")
            classes = classes or names
            left = most = max(MAX_UNPACKED, MAX_UNPACKING * file.stat().st_size)
            for row in _rows(file, options):
                if (left := left - row.size) < 0:
                    raise InputError(
                        f"{file}: its images and labels have over {most} bytes, {MAX_UNPACKING} times its own"
                    )
                _check_label(file, row.label, len(classes) or MAX_CLASSES)
                if row.name in known:
                    if known[row.name] != row.label:
                        raise InputError(f"{file}: image {row.name} has the labels {known[row.name]} and {row.label}")
                    repeated += 1
                    continue
                if row.name:
                    known[row.name] = row.label
                name = f"{part}/{len(images):07d}{_suffix(row.content, file)}"
                (temporary / name).write_bytes(row.content)
                images.append(name)
                splits.append(part)
                labels.append(row.label)
    if repeated:
        log.info("%d rows are of an image that was read before", repeated)
    classes, numbers = _numbered(labels, classes)
    write_index(temporary / INDEX, Index(images, splits, numbers, classes))


def _part(shards: Path, file: Path) -> str:
    """Return the part that a file belongs to, by the words of its path."""
    words = re.split(r"[/_.\-]", file.relative_to(shards).as_posix().lower())
    found = [PARTS[word] for word in words if word in PARTS]
    if not found:
        raise InputError(f"{file}: its name tells no part; expected one of {', '.join(PARTS)} in it")
    return found[-1]


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turn any error of a damaged file into one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"{file} cannot be read ({first_line(error)}); delete it to fetch it again") from None


def _features(file: Path) -> dict[str, Any]:
    """Return what the metadata of a parquet file says about its columns; empty where it says nothing."""
    metadata = pq.read_schema(file).metadata or {}
    return json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})


def _label_column(file: Path, options: HubOptions) -> str:
    columns, features = pq.read_schema(file).names, _features(file)
    if missing := [name for name in (options.label, options.unique) if name and name not in columns]:
        raise InputError(f"{file}: no column {missing[0]!r}; found {', '.join(columns)}")
    if options.label:
        return options.label
    named = [name for name, entry in features.items() if _class_label(entry) is not None]
    found = next((name for name in LABELS if name in columns), "")
    if len(named) != 1 and not found:
        raise InputError(f"{file}: no column of labels; found {', '.join(columns)}, expected {' or '.join(LABELS)}")
    return found or named[0]


def _class_label(entry: Any) -> list[str] | None:
    """Return the class names of a column, also of one that holds lists; None if it has none."""
    inner = entry[0] if isinstance(entry, list) and entry else entry
    inner = inner.get("feature", inner) if isinstance(inner, dict) else {}
    return inner.get("names") if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" else None


def _class_names(shards: Path, file: Path, options: HubOptions) -> list[str]:
    """Return the class names in the order of their numbers; empty where nothing tells them."""
    if file.suffix == ".parquet":
        return _class_label(_features(file).get(_label_column(file, options))) or []
    found = next((path for path in (shards / "classnames.txt", file.parent / "classnames.txt") if path.is_file()), None)
    return found.read_text(encoding="utf-8").splitlines() if found else []


def _check_names(file: Path, names: Any) -> None:
    """Require a list of names that an index can hold; InputError otherwise."""
    if not isinstance(names, list) or len(names) > MAX_CLASSES:
        raise InputError(f"{file}: its class names are {str(names)[:60]}, expected a list of at most {MAX_CLASSES}")
    for number, name in enumerate(names):
        if not isinstance(name, str) or len(name) > MAX_NAME:
            raise InputError(
                f"{file}: the name of class {number} is {str(name)[:60]!r}, expected text of at most {MAX_NAME} "
                "characters"
            )


def _rows(file: Path, options: HubOptions) -> Iterator[Row]:
    """Yield the images of a file; InputError if the options name columns, which tar files do not have."""
    if file.suffix != ".tar":
        return _parquet_rows(file, options)
    if options.label or options.unique:
        raise InputError(f"{file}: label and unique name columns of parquet files; leave them out for tar files")
    return _tar_rows(file)


def _parquet_rows(file: Path, options: HubOptions) -> Iterator[Row]:
    table = pq.ParquetFile(file)
    column = _label_column(file, options)
    image = next((name for name in ("image", "img") if name in table.schema_arrow.names), "")
    if not image:
        raise InputError(f"{file}: no column of images; found {', '.join(table.schema_arrow.names)}, expected image")
    columns = list(dict.fromkeys([image, column, options.unique or column]))
    _check_unpacked(file, table, columns)
    # One at a time: many rows may be the same image of a dictionary.
    for number, batch in enumerate(table.iter_batches(1, columns=columns)):
        cell, label = batch.column(image)[0].as_py(), batch.column(column)[0].as_py()
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes) or label is None:
            raise InputError(f"{file}: row {number} has no image or label; expected the bytes of a file")
        name = batch.column(options.unique)[0].as_py() if options.unique else ""
        if options.unique and name in (None, ""):
            raise InputError(
                f"{file}: row {number} has nothing in column {options.unique!r}, expected the name of its image; "
                "choose another column for unique"
            )
        yield Row(content, int(label) if isinstance(label, bool) else label, str(name))


def _check_label(file: Path, label: Any, classes: int) -> None:
    """Require labels that name a class, and numbers below the number of classes; InputError otherwise."""
    for value in label if isinstance(label, list) else [label]:
        if not _is_label(value):
            raise InputError(
                f"{file}: found label {str(value)[:60]!r}, a {type(value).__name__}; expected the number of a class or "
                f"its name of at most {MAX_NAME} characters; choose another column for label"
            )
        if isinstance(value, int) and not 0 <= value < classes:
            raise InputError(
                f"{file}: found label {value}, expected 0 to {classes - 1}; choose another column for label"
            )


def _is_label(value: Any) -> bool:
    """Whether a label can name a class: a whole number, or text that an index can hold."""
    if isinstance(value, float):  # as whole numbers are where some are missing
        return value.is_integer()
    return isinstance(value, int) or (isinstance(value, str) and len(value) <= MAX_NAME)


def _check_unpacked(file: Path, table: pq.ParquetFile, columns: list[str]) -> None:
    """Refuse a file whose columns that are read unpack to far more than its size."""
    groups = [table.metadata.row_group(number) for number in range(table.num_row_groups)]
    parts = [group.column(number) for group in groups for number in range(group.num_columns)]
    unpacked = sum(part.total_uncompressed_size for part in parts if _is_of(part.path_in_schema, columns))
    if unpacked > (most := max(MAX_UNPACKED, MAX_UNPACKING * file.stat().st_size)):
        raise InputError(f"{file} would unpack to {unpacked} bytes, expected at most {most}")


def _is_of(path: str, columns: list[str]) -> bool:
    """Whether a path of a parquet file is one of some columns, or a part of one; their names may have dots."""
    return any(path == column or path.startswith(f"{column}.") for column in columns)


def _tar_rows(file: Path) -> Iterator[Row]:
    """Yield the samples of a tar file: neighbouring members that differ in their suffixes alone."""
    most = max(MAX_UNPACKED, MAX_UNPACKING * file.stat().st_size)
    with tarfile.open(file, tarinfo=TarMember) as tar:
        key, sample = "", dict[str, bytes]()
        for member in tar:
            if member.offset_data + member.size > most:  # of a packed one
                raise InputError(f"{file} would unpack to over {most} bytes, {MAX_UNPACKING} times its own")
            if not member.isfile():
                continue
            name = PurePosixPath(member.name)
            stem, _, suffix = name.name.partition(".")
            if sample and str(name.parent / stem) != key:
                yield _sample(file, key, sample)
                sample = {}
            key = str(name.parent / stem)
            sample[suffix.lower()] = (
                _read_member(tar, member, file) if suffix.lower() in (*IMAGE_SUFFIXES, LABEL_SUFFIX) else b""
            )
        if sample:
            yield _sample(file, key, sample)


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo, file: Path) -> bytes:
    if member.size > MAX_BYTES:
        raise InputError(f"{file}: {member.name} has {member.size} bytes, expected at most {MAX_BYTES}")
    content = tar.extractfile(member)
    return content.read() if content else b""


def _sample(file: Path, key: str, sample: dict[str, bytes]) -> Row:
    images = [content for suffix, content in sample.items() if suffix in IMAGE_SUFFIXES]
    if len(images) != 1 or LABEL_SUFFIX not in sample:
        raise InputError(
            f"{file}: sample {key} holds {', '.join(sample)}; expected one image and its label ({LABEL_SUFFIX})"
        )
    text = sample[LABEL_SUFFIX].decode().strip()
    return Row(images[0], int(text) if text.isdecimal() else text)


def _suffix(content: bytes, file: Path) -> str:
    found = next((suffix for start, suffix in SIGNATURES.items() if content.startswith(start)), "")
    if not found:
        raise InputError(
            f"{file}: an image begins with {content[:8]!r}; expected a file of JPEG, PNG, GIF, BMP or WebP"
        )
    return found


def _numbered(labels: list[Any], classes: list[str]) -> tuple[list[str], list[Any]]:
    """Return class names and labels as numbers; without names, numbers name themselves and names are sorted."""
    every = [value for label in labels for value in (label if isinstance(label, list) else [label])]
    if all(isinstance(value, int) for value in every):
        return classes or [str(number) for number in range(max(every, default=-1) + 1)], labels
    classes = classes or sorted(set(map(str, every)))
    number = {name: i for i, name in enumerate(classes)}
    if unknown := sorted(set(map(str, every)) - number.keys()):
        raise InputError(f"label {unknown[0]!r} is none of the class names {', '.join(classes[:5])}, ...")
    return classes, [
        [number[str(value)] for value in label] if isinstance(label, list) else number[str(label)] for label in labels
    ]
