"""The `source` column of `datasets.tsv`: where the images and labels of a dataset come from."""

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from ssltransfer.errors import InputError
from ssltransfer.files import expand_path
from ssltransfer.hub import parse_hub_source


class Source(NamedTuple):
    """A parsed source.

    ``original:NAME`` or ``original:NAME/VARIANT``: the folder NAME below the data root, read by the module NAME.
    ``generated:NAME``: made by the module NAME.
    ``column:DATASET/COLUMN``: the images of another dataset, labelled by another column of its index.
    ``one-of:NAME,NAME,...``: one image of each of several datasets (`parse_members`, `sample`).
    ``folder:PATH``, ``csv:PATH``: a user's images; ``masks:PATH``: with masks. PATH starts from the data
    root, unless it is absolute (``~`` and variables are replaced where it is used, so that the params of a job are the
    same on all machines).
    ``hf:OWNER/NAME@REVISION``: a dataset of the Hugging Face hub at a commit (see `hub_shards`), maybe with
    ``?label=COLUMN&unique=COLUMN&pool=train`` behind it (see `hub.HubOptions`).

    Attributes
    ----------
    kind, name : str
        The parts before and behind the colon.
    variant : str
        The VARIANT or the COLUMN; empty if there is none.
    """

    kind: str
    name: str
    variant: str = ""

    @property
    def indexer(self) -> str:
        """Name of the module that makes the index, and of the component whose version covers it."""
        return {"folder": "folder", "csv": "table", "one-of": "sample", "masks": "image_masks", "hf": "hub_shards"}.get(
            self.kind, self.name
        )


#: Original datasets and the variants of each.
ORIGINAL: dict[str, tuple[str, ...]] = {
    "ade20k": (),
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
    "imagenet": (),
    "isic": (),
    "nyuv2": ("labelled",),
    "pets": (),
    "sun397": (),
    "voc2007": (),
    "voc_detection": (),
    "voc_segmentation": (),
}
GENERATED = ("digits", "photographs", "shapes", "textures")
READ_KINDS = ("original", "folder", "csv", "masks", "hf")
"""Kinds of sources that are read from the data root or the downloads."""

TRANSFORM = r"(resize|stretch)(\d+)|square257"
"""Names of transforms, as a regular expression (see `images.parse_transform`)."""

DOWNLOAD_FOLDER = Path("resources/datasets")
"""Folder below the working directory for downloads of datasets that are not below the data root."""


def parse_dataset_source(source: str) -> Source:
    """Parse the `source` of a row of `datasets.tsv`; InputError if it has none of the forms of `Source`."""
    kind, _, rest = source.partition(":")
    if kind == "hf":
        parse_hub_source(rest)
        return Source(kind, rest)
    if kind in ("folder", "csv", "masks", "one-of") and rest:
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
            f"({', '.join(GENERATED)}), column:DATASET/COLUMN, one-of:NAME,NAME,..., folder:PATH, "
            "csv:PATH, masks:PATH or hf:OWNER/NAME@REVISION"
        )
    return Source(kind, name, variant)


class Member(NamedTuple):
    """One dataset of a ``one-of`` source and the reference of its image; empty: the image is drawn."""

    dataset: str
    image: str


def parse_members(text: str) -> tuple[list[Member], int]:
    """Parse the part behind ``one-of:`` into members and seed.

    Raises
    ------
    InputError
        If it has another form than ``NAME,NAME=IMAGE,...`` with ``@SEED`` or nothing behind it, or names a dataset
        twice.
    """
    match = re.fullmatch(r"([^@]+?)(?:@(\d+))?", text)
    members = [Member(*part.strip().partition("=")[::2]) for part in match[1].split(",")] if match else []
    names = [member.dataset for member in members]
    if not names or not all(names) or len(set(names)) < len(names):
        raise InputError(f"source 'one-of:{text}': write one-of:NAME,NAME=IMAGE,... with every dataset once")
    return members, int(match[2] or 0)


def load(source: Source) -> ModuleType:
    """Import the module of an original or generated dataset and no other."""
    return import_module(f"ssltransfer.datasets.{source.indexer}")


def location(source: Source, data_root: str | Path) -> Path:
    """Return the path of a dataset below the data root, or, if it does not exist, among the downloads."""
    if source.kind == "hf":
        path = hub_folder(data_root, source)
        return path if path.exists() else hub_folder(DOWNLOAD_FOLDER, source)
    path = Path(data_root) / expand_path(source.name)
    downloaded = DOWNLOAD_FOLDER / source.name
    return downloaded if source.kind == "original" and downloaded.is_dir() and not path.exists() else path


def hub_folder(root: str | Path, source: Source) -> Path:
    """Return the folder below a root that a dataset of the hub is unpacked to."""
    return Path(root) / "hub" / re.sub("[?&]", ",", source.name.replace("/", "--"))


def image_root(source: Source, data_root: str | Path, index_file: str | Path) -> Path:
    """Return the folder that the image references of an index start from."""
    if source.kind not in READ_KINDS:
        return Path(index_file).parent
    path = location(source, data_root)
    return path.parent if source.kind == "csv" else path
