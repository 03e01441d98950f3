"""Assembling a score file: the values of one cell and all that is needed to explain and repeat them.

Light on imports, because every protocol's job writes one; its values are read and checked in `scores`.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from ssltransfer.files import read_json, write_json
from ssltransfer.jobs import log

BIASED = (
    "the input normalisation was chosen on the test score (normalisation: test-max), which biases that score upwards"
)


def write(
    path: str | Path,
    cell: Mapping[str, str],
    kind: str,
    values: list[dict],
    settings: Mapping,
    *,
    checkpoint: dict,
    preprocessing: dict,
    warnings: list[str],
    details: dict,
    versions: dict[str, str],
    cost: dict,
    **more: dict,
) -> None:
    """Write a score file, and its warnings to the log.

    Parameters
    ----------
    path : str or Path
    cell : mapping
        ``model``, ``protocol`` and ``dataset``: the wildcards of the job.
    kind : str
        A key of `scores.KINDS`.
    values, settings, checkpoint, preprocessing, warnings, details, versions, cost
        As described in the schema of score files, and so are `more`, which some protocols have.
    """
    for warning in warnings:
        log.warning("%s", warning)
    found = {
        **{"kind": kind, "values": values, "settings": dict(settings), "preprocessing": preprocessing},
        **{"checkpoint": checkpoint, "details": details, "warnings": warnings, "versions": versions, "cost": cost},
    }
    write_json(path, dict(cell.items()) | found | more)


def join_versions(trained: dict[str, str], own: dict[str, str]) -> dict[str, str]:
    """Join the versions of a training and of its evaluation; where packages differ, both are named."""
    both = {name: ", ".join(dict.fromkeys(str(v[name]) for v in (trained, own) if name in v)) for name in trained | own}
    return both | {"protocol": f"{trained['protocol']}.{own['protocol']}"}


def percent(metric: str, value: float, setting: str = "", half_width: float | None = None) -> dict:
    """One entry of `values`: a percentage, with its 95 % interval (clipped to 0..100) if it has one."""
    entry = {"metric": metric, "setting": setting, "value": value, "unit": "percent"}
    if half_width is not None:
        entry |= {"low": max(0.0, value - half_width), "high": min(100.0, value + half_width)}
    return entry


def feature_provenance(features: list[str]) -> dict[str, dict]:
    """Read the provenance written beside each feature file, by normalisation."""
    found = [read_json(Path(path).with_suffix(".json")) for path in features]
    return {provenance["norm"]: provenance for provenance in found}


def preprocessing(settings: dict, provenance: dict[str, dict], norm: dict | str) -> dict:
    """Describe the input: transform, normalisation (of each setting, if they differ), and how it was chosen."""
    return {
        "transform": settings["transform"],
        "norm": norm,
        "candidates": list(provenance),
        "normalisation": settings["normalisation"],
    }


def checkpoint(provenance: dict[str, dict]) -> dict:
    """Return the checkpoint behind the features; the same under all normalisations."""
    return next(iter(provenance.values()))["checkpoint"]


def decode(metadata: dict[str, str]) -> dict:
    """Turn safetensors metadata (strings only) back into values where they are JSON objects."""
    return {key: json.loads(value) if value.startswith("{") else value for key, value in metadata.items()}
