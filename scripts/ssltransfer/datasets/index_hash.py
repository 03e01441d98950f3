"""Hash of an index: two datasets with one hash have the same images, parts, labels and classes in the same order."""

import hashlib
import json
from pathlib import Path

from ssltransfer.datasets.index import read_index


def index_hash(path: str | Path) -> str:
    """Return the SHA-256 of the rows and class names of an index file.

    What the file says besides (promised counts, warnings) and how it was compressed do not count.
    """
    index = read_index(path)
    columns = [list(index.image), list(index.split), list(index.label), list(index.classes), index.extra]
    return hashlib.sha256(json.dumps(columns, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
