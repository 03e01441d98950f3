"""Where the tensors of a safetensors file come from: its header, read without torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ssltransfer.errors import damaged, first_line
from ssltransfer.files import CHECKSUM, json_checksum
from ssltransfer.jobs import JobUsage, network_packages, package_versions


def read_provenance(path: str | Path) -> dict[str, str]:
    """Return the header metadata of a converted checkpoint, without checksums; InputError if the header is damaged.

    Sorted: safetensors gives it in another order in every process, and unfinished runs are told apart by it.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(sorted((file.metadata() or {}).items()))
    except (SafetensorError, OSError) as error:
        raise damaged(path, f"not a readable safetensors file: {first_line(error)}") from None
    if CHECKSUM in metadata and metadata.pop(CHECKSUM).split()[0] != json_checksum(metadata):
        raise damaged(path, "its header does not match its checksum")
    return metadata


def decode_metadata(metadata: dict[str, str]) -> dict:
    """Turn safetensors metadata (strings only) back into values where they are JSON objects."""
    return {key: json.loads(value) if value.startswith("{") else value for key, value in metadata.items()}


def encode_metadata(values: Mapping[str, Any]) -> dict[str, str]:
    """Turn values into safetensors metadata: strings as they are, others as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def describe_training(checkpoint: dict[str, str], params: Any, packages: tuple[str, ...], usage: JobUsage) -> dict:
    """Describe where the result of a training comes from.

    Parameters
    ----------
    checkpoint : dict of str to str
        Header of the backbone's checkpoint (see `read_provenance`).
    params
        The job's params: ``norm`` and ``version``.
    packages : tuple of str
        Packages that the result depends on.
    usage : JobUsage
        Of the job, which is nearly done.

    Returns
    -------
    dict
        ``checkpoint``, ``norm``, ``versions`` and ``cost``.
    """
    return {
        "checkpoint": decode_metadata(checkpoint),
        "norm": params.norm,
        "versions": package_versions(*packages, *network_packages()) | {"protocol": params.version},
        "cost": usage.report(),
    }
