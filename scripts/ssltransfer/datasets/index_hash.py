"""Hash of an index: two datasets with one hash have the same images, parts, labels and classes in the same order."""

import hashlib
import json
from pathlib import Path

from ssltransfer.datasets.index import read_index
from ssltransfer.datasets.index_column import json_blocks


def index_hash(path: str | Path) -> str:
    """Return the SHA-256 of the rows and class names of an index file.

    What the file says besides (promised counts, warnings) and how it was compressed do not count.
    """
    index, found = read_index(path), hashlib.sha256(b"[")
    for column in (index.image, index.split, index.label, index.classes):
        for block in json_blocks(column):
            found.update(block.encode())
        found.update(b",")
    found.update(b"{")
    for number, name in enumerate(sorted(index.extra)):
        found.update(f"{',' * (number > 0)}{json.dumps(name)}:".encode())
        for block in json_blocks(index.extra[name]):
            found.update(block.encode())
    found.update(b"}]")
    return found.hexdigest()
