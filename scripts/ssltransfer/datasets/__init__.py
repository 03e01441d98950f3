"""Datasets: sources, one module per original or generated dataset, indexes, and prepared images.

A module of an original dataset has ``index(root) -> Index``, one of a generated dataset ``generate() -> Generated``.
The `source` column of `datasets.tsv` names it (`parse_dataset_source`).
"""

from ssltransfer.datasets.parts import find_parts
from ssltransfer.datasets.sources import (
    DOWNLOAD_FOLDER,
    GENERATED,
    ORIGINAL,
    READ_KINDS,
    TRANSFORM,
    Member,
    Source,
    hub_folder,
    image_root,
    load,
    location,
    parse_dataset_source,
    parse_members,
)

__all__ = [
    "DOWNLOAD_FOLDER",
    "GENERATED",
    "ORIGINAL",
    "READ_KINDS",
    "TRANSFORM",
    "Member",
    "Source",
    "find_parts",
    "hub_folder",
    "image_root",
    "load",
    "location",
    "parse_dataset_source",
    "parse_members",
]
