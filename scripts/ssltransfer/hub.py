"""Names of dataset repositories of the Hugging Face hub, pinned by commit."""

import re
from typing import NamedTuple

from ssltransfer.errors import InputError

PREFIX = "hf:"
FORM = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})")


class HubDataset(NamedTuple):
    """A dataset repository of the hub and its commit."""

    repository: str
    revision: str


def parse_hub_dataset(text: str) -> HubDataset:
    """Read ``OWNER/NAME@REVISION``; InputError if it has another form or the revision is no full commit."""
    found = FORM.fullmatch(text)
    if found is None:
        raise InputError(
            f"{PREFIX}{text}: found no commit, expected {PREFIX}OWNER/NAME@REVISION with the 40 digits of a commit, "
            "which the page of the repository shows under Files and versions"
        )
    return HubDataset(*found.groups())
