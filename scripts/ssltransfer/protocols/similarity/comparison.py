"""Comparison of all models of a suite on the images of a dataset, pair by pair, with the pairs that are known."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ssltransfer.array_backend import NUMPY, Arrays
from ssltransfer.datasets.index import Index
from ssltransfer.errors import InputError
from ssltransfer.files import file_hash, read_json, write_json
from ssltransfer.models.feature_file import load_features
from ssltransfer.protocols.similarity.cka import Hsic, Representation, align, dependence, image_order, represent
from ssltransfer.results.outcome_file import identity

FEWEST_IMAGES = 10
NO_FEATURES = "its features are not there, and it was not compared before"
ALONE = "no other model is left that it can be compared with"
CONSTANT = "no similarity to it is defined; are its features constant?"


def compared_rows(index: Index, dataset: str) -> np.ndarray:
    """Rows of the images that models are compared on: the test images, or all of a dataset without a test part.

    Raises
    ------
    InputError
        If these are fewer than `FEWEST_IMAGES`.
    """
    parts = index.split_array()
    rows = np.flatnonzero(parts == "test") if (parts == "test").any() else np.arange(len(parts))
    if len(rows) < FEWEST_IMAGES:
        raise InputError(
            f"{dataset}: {len(rows)} images found, representations are compared on {FEWEST_IMAGES} or more"
        )
    return rows[image_order(len(rows))]


def compare_representations(
    path: str | Path,
    store: str | Path,
    features: Mapping[str, str],
    index: Index,
    dataset: str,
    protocol: str,
    version: int,
    arrays: Arrays = NUMPY,
    progress: Callable[[Iterable], Iterable] = iter,
    scores: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the similarities of all pairs of models; only pairs with new features are computed.

    A pair that was never compared, and one of whose models has no features any more, is not among them.

    Parameters
    ----------
    path : path
        Of the file to write.
    store : path
        File of all pairs that were ever computed for this dataset, by hashes of their features; it is read, and
        written with the new pairs. It also tells the features of models whose files are gone, and their checkpoints.
    features : mapping
        Model -> feature file, which may be missing.
    index, dataset, protocol
        Whose images are compared; the last two are for the file and messages.
    version : int
        Of this code; pairs of others are not used.
    arrays : Arrays
        Where to compute.
    progress : callable
        Wraps the pairs that are computed.
    scores : mapping
        Model -> its score on the dataset, which may be missing. Features that are gone and were of another checkpoint
        than the score do not count.
    """
    rows = compared_rows(index, dataset)
    known = read_json(store) if Path(store).is_file() else {}
    if known.get("version") != version:
        known = {"version": version}
    known = {"features": {}, "checkpoints": {}, "constant": [], "pairs": {}} | known
    hashes = {model: _feature_hash(path, known, scores.get(model)) for model, path in features.items()}
    write_json(store, known)  # so that features that are deleted now are known by these hashes
    images, there = identity(rows), {model for model in features if Path(features[model]).is_file()}
    keys = {
        pair: "-".join([images, *sorted(str(hashes[model]) for model in pair)])
        for pair in combinations([model for model in features if hashes[model]], 2)
    }
    new = [pair for pair, key in keys.items() if key not in known["pairs"] and there.issuperset(pair)]
    held: dict[str, Representation] = {}
    own: dict[str, Hsic] = {}
    for pair in progress(new):
        for model in [model for model in held if model not in pair]:
            del held[model]
        for model in pair:
            if model not in held:
                held[model] = represent(load_features(features[model], len(index)), rows)
            if model not in own:
                own[model] = dependence(held[model], held[model], arrays)
        first, second = pair
        found = align(held[first], held[second], own[first], own[second], arrays)
        known["pairs"][keys[pair]] = asdict(found) if found else None
        known["constant"] = sorted({*known["constant"], *(hashes[model] for model in pair if own[model].whole <= 0)})
        write_json(store, known)  # a job that is killed goes on from here
    pairs = [
        {"model": first, "other": second, **known["pairs"][key]}
        for (first, second), key in keys.items()
        if known["pairs"].get(key)
    ]
    compared = {model for pair in pairs for model in (pair["model"], pair["other"])}
    left_out = {}
    for model in features:
        if model not in compared:
            reason = ALONE if model in there else NO_FEATURES
            left_out[model] = CONSTANT if hashes[model] in known["constant"] else reason
    write_json(
        path,
        {
            "dataset": dataset,
            "protocol": protocol,
            "images": len(rows),
            "models": [model for model in features if model in compared],
            "left_out": left_out,
            "computed": len(new),
            "pairs": pairs,
        },
    )


def _feature_hash(path: str, known: dict, score: str | None) -> str | None:
    """Hash of a feature file, or the last one of a file that is gone unless a score is of another checkpoint.

    Remembers the hash and the checkpoint.
    """
    provenance = Path(path).with_suffix(".json")
    if Path(path).is_file():
        known["features"][path] = file_hash(path)
        known["checkpoints"][path] = _checkpoint(provenance)
    elif (before := known["checkpoints"].get(path)) and (now := _checkpoint(score)) and before != now:
        return None
    return known["features"].get(path)


def _checkpoint(path: str | Path | None) -> dict:
    """What the provenance of features or a score says about the checkpoint, without its cost; empty without a file."""
    content = read_json(path) if path and Path(path).is_file() else {}
    return {key: value for key, value in content.get("checkpoint", {}).items() if key != "cost"}
