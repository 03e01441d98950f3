"""Tensors of a network on disk: a safetensors file whose header says where they come from (`tensor_header`).

The header also holds two checksums, of its other entries and of the tensors.
"""

import hashlib
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ssltransfer.errors import damaged, first_line
from ssltransfer.files import CHECKSUM, atomic_write, json_checksum
from ssltransfer.results.tensor_header import read_provenance


def save_tensors(state: dict[str, torch.Tensor], path: str | Path, provenance: dict[str, str]) -> None:
    """Write the tensors of a network with `provenance` in the header."""
    state = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
    metadata = provenance | {CHECKSUM: f"{json_checksum(provenance)} {_checksum(state)}"}
    with atomic_write(path) as temporary:
        save_file(state, temporary, metadata=metadata)


def load_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Read what `save_tensors` wrote; files without checksums are read unverified.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    read_provenance(path)
    try:
        state = load_file(path)
        with safe_open(path, framework="numpy") as file:
            recorded = (file.metadata() or {}).get(CHECKSUM)
    except (SafetensorError, OSError) as error:
        raise damaged(path, f"not a readable safetensors file: {first_line(error)}") from None
    if recorded is not None and recorded.split()[1:] != [_checksum(state)]:
        raise damaged(path, "its tensors do not match their checksum")
    return state


def tensor_hash(state: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of names, shapes and values of tensors; batch norm's step counters do not count.

    Formats differ in whether they have these counters, which no evaluation reads.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if not name.endswith("num_batches_tracked"):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _checksum(state: dict[str, torch.Tensor]) -> str:
    checksum = 0
    for name, tensor in sorted(state.items()):
        content = tensor.detach().reshape(-1).view(torch.uint8).numpy().data
        checksum = zlib.crc32(content, zlib.crc32(name.encode(), checksum))
    return f"{checksum:08x}"
