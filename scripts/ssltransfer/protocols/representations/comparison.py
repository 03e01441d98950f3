"""Comparison of all models of a suite on the images of a dataset, pair by pair, with the pairs that are known."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import numpy as np

from ssltransfer.array_backend import NUMPY, Arrays
from ssltransfer.datasets.index import Index
from ssltransfer.errors import InputError
from ssltransfer.files import file_hash, read_json, write_json
from ssltransfer.models.feature_file import load_features
from ssltransfer.protocols.representations.cka import Hsic, Representation, align, dependence, image_order, represent
from ssltransfer.results.outcome_file import identity

FEWEST_IMAGES = 10
NO_FEATURES = "its features are not there, and it was not compared before"
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
) -> None:
    """Write the similarities of all pairs of models; only pairs with new features are computed.

    Parameters
    ----------
    path : path
        Of the file to write.
    store : path
        File of all pairs that were ever computed for this dataset, by hashes of their features; it is read, and
        written with the new pairs. It also tells the features of models whose files are gone.
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
    """
    rows = compared_rows(index, dataset)
    known = read_json(store) if Path(store).is_file() else {}
    if known.get("version") != version:
        known = {"version": version, "features": {}, "pairs": {}}
    hashes = {model: _feature_hash(path, known["features"]) for model, path in features.items()}
    left_out = {model: NO_FEATURES for model, digest in hashes.items() if digest is None}
    models = [model for model in features if model not in left_out]
    images = identity(rows)
    keys = {pair: "-".join([images, *sorted(str(hashes[model]) for model in pair)]) for pair in combinations(models, 2)}
    new = {pair: key for pair, key in keys.items() if key not in known["pairs"]}
    for pair in [pair for pair in new if not all(Path(features[model]).is_file() for model in pair)]:
        for model in pair:
            if not Path(features[model]).is_file():
                left_out[model] = NO_FEATURES
        new.pop(pair)
    held: dict[str, Representation] = {}
    own: dict[str, Hsic] = {}
    for first, second in progress(list(new)):
        for model in [model for model in held if model not in (first, second)]:
            del held[model]
        for model in (first, second):
            if model not in held:
                held[model] = represent(load_features(features[model], len(index)), rows)
            if model not in own:
                own[model] = dependence(held[model], held[model], arrays)
        found = align(held[first], held[second], own[first], own[second], arrays)
        known["pairs"][new[first, second]] = asdict(found) if found else None
        write_json(store, known)  # a job that is killed goes on from here
    shown = [model for model in models if model not in left_out]
    constant = _constant({pair: known["pairs"].get(key) for pair, key in keys.items()}, shown)
    left_out |= dict.fromkeys(constant, CONSTANT)
    shown = [model for model in shown if model not in constant]
    pairs = [
        {"model": pair[0], "other": pair[1], **known["pairs"][key]}
        for pair, key in keys.items()
        if set(pair) <= set(shown)
    ]
    write_json(
        path,
        {
            "dataset": dataset,
            "protocol": protocol,
            "images": len(rows),
            "models": shown,
            "left_out": left_out,
            "computed": len(new),
            "pairs": pairs,
        },
    )


def _feature_hash(path: str, known: dict[str, str]) -> str | None:
    """Hash of a feature file, or the last one of a file that is gone; remembers it."""
    if Path(path).is_file():
        known[path] = file_hash(path)
    return known.get(path)


def _constant(found: Mapping[tuple[str, str], dict | None], models: Iterable[str]) -> list[str]:
    """Models that have no similarity to any other."""
    models = list(models)
    values = {pair: value for pair, value in found.items() if set(pair) <= set(models)}
    return [
        model
        for model in models
        if (own := [value for pair, value in values.items() if model in pair]) and all(value is None for value in own)
    ]
