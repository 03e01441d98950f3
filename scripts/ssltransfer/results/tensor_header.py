"""Header of a safetensors file, read without torch: it says where the tensors come from."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from ssltransfer.errors import InputError


def read_provenance(path: str | Path) -> dict[str, str]:
    """Return the header metadata of a converted checkpoint; InputError if the file is damaged.

    Sorted: safetensors gives it in another order in every process, and unfinished runs are told apart by it.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(sorted((file.metadata() or {}).items()))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from None
