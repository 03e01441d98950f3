"""Neighbour files: the nearest neighbours of the test and validation images of a dataset, for any vote over them."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssltransfer.array_backend import NUMPY, Arrays
from ssltransfer.datasets.index import Index
from ssltransfer.datasets.splits import make_split
from ssltransfer.errors import InputError, damaged
from ssltransfer.files import atomic_write
from ssltransfer.protocols.knn.neighbours import Neighbours, nearest_neighbours
from ssltransfer.row_file import load_arrays

VALIDATION_FRACTION, VALIDATION_SEED = 0.2, 0
"""Draw of the validation images where a dataset has no official ones: that of the linear protocol (paper, section 4.1).

No key of a settings block, so that every vote over a dataset uses the same neighbours.
"""
HEADER = "header"


@dataclass(frozen=True)
class Search:
    """Rows of an index that are queries, and the rows among which their neighbours are.

    Attributes
    ----------
    pool, queries : ndarray of int
        Rising row numbers.
    """

    pool: np.ndarray
    queries: np.ndarray


def searches(index: Index, dataset: str) -> dict[str, Search]:
    """Return the queries and pools of a dataset.

    Returns
    -------
    dict of Search
        ``test``: test images among training and validation images; ``validation``: validation images among the other
        training images. Of a dataset without a test part only ``test``: every image among all others (leave-one-out).
    """
    parts = index.split_array()
    if not (parts == "test").any():
        every = np.arange(len(parts))
        return {"test": Search(every, every)}
    split = make_split(parts, VALIDATION_FRACTION, VALIDATION_SEED, dataset)
    return {"test": Search(split.trainval, split.test), "validation": Search(split.train, split.val)}


def find_neighbours(
    features: np.ndarray, index: Index, dataset: str, count: int, similarity: str, arrays: Arrays = NUMPY
) -> dict[str, Neighbours]:
    """Find the neighbours of all `searches` of a dataset.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
        Row i belongs to row i of the index; may be a memory map.
    index : Index
    dataset : str
        Id of the dataset, for messages.
    count, similarity, arrays
        See `nearest_neighbours`.
    """
    return {
        name: nearest_neighbours(features, search.pool, search.queries, count, similarity, arrays)
        for name, search in searches(index, dataset).items()
    }


def save_neighbours(path: str | Path, found: dict[str, Neighbours], about: dict) -> None:
    """Write neighbours as an npz file; `about` (values of JSON) says where their features come from."""
    arrays = {f"{name}.{key}": value for name, each in found.items() for key, value in vars(each).items()}
    with atomic_write(path) as temporary:
        np.savez(temporary, **arrays, **{HEADER: np.frombuffer(json.dumps(about).encode(), np.uint8)})


def load_neighbours(path: str | Path) -> tuple[dict[str, Neighbours], dict]:
    """Read what `save_neighbours` wrote; InputError if the file is something else."""
    arrays = load_arrays(path, "neighbours")
    try:
        about = json.loads(arrays.pop(HEADER).tobytes())
        names = dict.fromkeys(name.partition(".")[0] for name in arrays)
        return {name: Neighbours(arrays[f"{name}.rows"], arrays[f"{name}.similarities"]) for name in names}, about
    except (KeyError, ValueError) as error:
        raise damaged(path, f"holds no neighbours: {error}") from None


def check_rows(found: dict[str, Neighbours], expected: dict[str, Search], dataset: str) -> None:
    """Require neighbours of every query of an index; InputError otherwise."""
    for name, search in expected.items():
        count = len(found[name].rows) if name in found else 0
        if count != len(search.queries):
            raise InputError(
                f"{dataset}: neighbours of {count} {name} images found, the index has {len(search.queries)}; delete "
                "results/neighbours of this model and dataset to find them anew"
            )
