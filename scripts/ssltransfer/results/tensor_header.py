"""Where the tensors of a safetensors file come from: its header, read without torch."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ssltransfer.errors import damaged, first_line
from ssltransfer.files import CHECKSUM, json_checksum


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
