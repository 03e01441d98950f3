"""Names of dataset repositories of the Hugging Face hub, pinned by commit, and how their tables are read."""

import re
from typing import NamedTuple

from ssltransfer.errors import InputError

PREFIX = "hf:"
FORM = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})")


class HubDataset(NamedTuple):
    """A dataset repository of the hub and its commit."""

    repository: str
    revision: str


class HubOptions(NamedTuple):
    """How the tables of a repository are read.

    Attributes
    ----------
    label : str
        Column of the labels; empty to find it.
    unique : str
        Column whose values name images, of which each is read once; empty to read all rows.
    pool : str
        ``train``, to read all parts as one pool of images; else empty.
    """

    label: str = ""
    unique: str = ""
    pool: str = ""


def parse_hub_dataset(text: str) -> HubDataset:
    """Read ``OWNER/NAME@REVISION``; InputError if it has another form or the revision is no full commit."""
    found = FORM.fullmatch(text)
    if found is None:
        raise InputError(
            f"{PREFIX}{text}: found no commit, expected {PREFIX}OWNER/NAME@REVISION with the 40 digits of a commit, "
            "which the page of the repository shows under Files and versions"
        )
    return HubDataset(*found.groups())


def parse_hub_source(text: str) -> tuple[HubDataset, HubOptions]:
    """Read ``OWNER/NAME@REVISION`` with options behind it, such as ``?label=dx&unique=image_id&pool=train``.

    Raises
    ------
    InputError
        See `parse_hub_dataset`; or an option is unknown, given twice or empty.
    """
    name, _, query = text.partition("?")
    pairs = [word.partition("=")[::2] for word in query.split("&")] if query else []
    options = dict(pairs)
    if wrong := [f"{key}={value}" for key, value in pairs if key not in HubOptions._fields or not value]:
        raise InputError(f"{PREFIX}{text}: found option {wrong[0]!r}, expected {'=..., '.join(HubOptions._fields)}=...")
    if len(options) < len(pairs) or options.get("pool", "train") != "train":
        raise InputError(f"{PREFIX}{text}: found {query!r}, expected each option once, and pool=train")
    return parse_hub_dataset(name), HubOptions(**options)
