"""One module a data set: original layouts are indexed, generated sets are made.

An indexer is a module with ``index(root) -> Index``, a generator one with ``generate() -> Generated``. The
`source` column of `datasets.tsv` names it (`parse_dataset_source`).
"""

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from ssltransfer.errors import InputError


class Source(NamedTuple):
    """Where a data set comes from.

    ``original:NAME`` or ``original:NAME/VARIANT``: the folder NAME below the data root, read by the module NAME.
    ``generated:NAME``: made by the module NAME.
    ``column:DATASET/COLUMN``: the images of another data set, labelled by another column of its index.
    ``one-of:NAME,NAME,...``: one image of each of several data sets (`parse_members`, `one_of`).
    ``folder:PATH``, ``csv:PATH``: a user's images; PATH starts from the data root, unless it is absolute.

    Attributes
    ----------
    kind, name : str
        What stands before and behind the colon.
    variant : str
        The VARIANT or the COLUMN; empty if there is none.
    """

    kind: str
    name: str
    variant: str = ""

    @property
    def indexer(self) -> str:
        """The module that makes the index, and the component whose version covers it."""
        return {"folder": "folder", "csv": "table", "one-of": "sample"}.get(self.kind, self.name)


#: Original data sets and the variants of each.
ORIGINAL: dict[str, tuple[str, ...]] = {
    "aircraft": (),
    "caltech101": ("official",),
    "cars": (),
    "chestx": (),
    "cifar10": (),
    "cifar100": (),
    "cropdiseases": (),
    "dtd": (),
    "eurosat": (),
    "flowers": (),
    "food101": (),
    "isic": (),
    "nyuv2": ("labelled",),
    "pets": (),
    "sun397": (),
    "voc2007": (),
    "voc_detection": (),
}
GENERATED = ("digits", "photographs", "shapes", "textures")
READ_KINDS = ("original", "folder", "csv")
"""Kinds of data sets that are read from the data root."""

DOWNLOADS = Path("resources/datasets")
"""Where data sets that are not below the data root are downloaded to, below the working directory."""


def parse_dataset_source(source: str) -> Source:
    """Parse the `source` of a row of `datasets.tsv`; InputError if it has none of the forms above."""
    kind, _, rest = source.partition(":")
    if kind in ("folder", "csv", "one-of") and rest:
        return Source(kind, rest)
    name, slash, variant = rest.partition("/")
    known = {
        "original": name in ORIGINAL and (not slash or variant in ORIGINAL[name]),
        "generated": rest in GENERATED,
        "column": bool(name and variant),
    }
    if not known.get(kind):
        originals = ", ".join("/".join((name, *variants)) for name, variants in ORIGINAL.items())
        raise InputError(
            f"source {source!r} is unknown; write original:NAME ({originals}), generated:NAME "
            f"({', '.join(GENERATED)}), column:DATASET/COLUMN, one-of:NAME,NAME,..., folder:PATH or "
            "csv:PATH"
        )
    return Source(kind, name, variant)


class Member(NamedTuple):
    """A data set of a ``one-of`` source, and the image of it that is wanted (empty: a draw)."""

    dataset: str
    image: str


def parse_members(text: str) -> tuple[list[Member], int]:
    """Read what stands behind ``one-of:``: the members and the seed.

    Raises
    ------
    InputError
        If it has another form than ``NAME,NAME=IMAGE,...`` with ``@SEED`` or nothing behind it, or names a data set
        twice.
    """
    match = re.fullmatch(r"([^@]+?)(?:@(\d+))?", text)
    members = [Member(*part.strip().partition("=")[::2]) for part in match[1].split(",")] if match else []
    names = [member.dataset for member in members]
    if not names or not all(names) or len(set(names)) < len(names):
        raise InputError(f"source 'one-of:{text}': write one-of:NAME,NAME=IMAGE,... with every data set once")
    return members, int(match[2] or 0)


def load(source: Source) -> ModuleType:
    """Import the module of an original or generated data set, and nothing of the others."""
    return import_module(f"ssltransfer.datasets.{source.indexer}")


def location(source: Source, data_root: str | Path) -> Path:
    """Where a data set that is read lies: below the data root, or, if it is not there, among the downloads."""
    place = Path(data_root) / source.name
    downloaded = DOWNLOADS / source.name
    return downloaded if source.kind == "original" and downloaded.is_dir() and not place.exists() else place


def image_root(source: Source, data_root: str | Path, index_file: str | Path) -> Path:
    """Folder that the image references of an index start from."""
    if source.kind not in READ_KINDS:
        return Path(index_file).parent
    place = location(source, data_root)
    return place.parent if source.kind == "csv" else place
