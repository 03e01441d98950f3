"""One module a data set: original layouts are indexed, generated sets are made.

An indexer is a module with ``index(root) -> Index``, a generator one with ``generate(seed) -> Generated``. The
`source` column of `datasets.tsv` names it (`parse_source`).
"""

from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from ssltransfer.errors import InputError


class Source(NamedTuple):
    """Where a data set comes from.

    ``original:NAME``: the folder NAME below the data root, read by the module NAME.
    ``generated:NAME``: made by the module NAME.
    ``column:DATASET/COLUMN``: the images of another data set, labelled by another column of its index.
    """

    kind: str
    name: str
    column: str = ""


ORIGINAL = ("cifar10", "dtd", "eurosat", "pets")
GENERATED = ("digits", "shapes", "textures")


def parse_source(source: str) -> Source:
    """Parse the `source` of a row of `datasets.tsv`; InputError if it has none of the forms above."""
    kind, _, rest = source.partition(":")
    name, _, column = rest.partition("/")
    known = {"original": name in ORIGINAL, "generated": name in GENERATED, "column": bool(name and column)}
    if not known.get(kind):
        raise InputError(
            f"source {source!r} is unknown; write original:NAME ({', '.join(ORIGINAL)}), "
            f"generated:NAME ({', '.join(GENERATED)}) or column:DATASET/COLUMN"
        )
    return Source(kind, name, column)


def load(source: Source) -> ModuleType:
    """Import the module of an original or generated data set, and nothing of the others."""
    return import_module(f"ssltransfer.datasets.{source.name}")
