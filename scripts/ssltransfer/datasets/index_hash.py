"""Hash of an index: two datasets with one hash have the same images, parts, labels and classes in the same order."""

import hashlib
from pathlib import Path

from ssltransfer.datasets.index import read_index
from ssltransfer.datasets.index_column import json_blocks, json_object, json_text


def index_hash(path: str | Path) -> str:
    """Return the SHA-256 of the rows and class names of an index file.

    What the file says besides (promised counts, warnings) and how it was compressed do not count.
    """
    index, found = read_index(path), hashlib.sha256()
    columns = map(json_blocks, (index.image, index.split, index.label, index.classes))
    extra = json_object((name, json_blocks(index.extra[name])) for name in sorted(index.extra))
    for text in json_text("[]", [*columns, extra]):
        found.update(text.encode())
    return found.hexdigest()
