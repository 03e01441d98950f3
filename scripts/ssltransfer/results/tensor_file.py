"""Tensors of a network on disk: a safetensors file whose header says where they come from."""

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from ssltransfer.errors import InputError
from ssltransfer.files import replacing

if TYPE_CHECKING:  # jobs that only read a header do without torch
    import torch


def save_state(state: "dict[str, torch.Tensor]", path: str | Path, provenance: dict[str, str]) -> None:
    """Write the tensors of a network with `provenance` in the header."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in state.items()}, temporary, metadata=provenance)


def read_provenance(path: str | Path) -> dict[str, str]:
    """Return the header metadata of a converted checkpoint; InputError if the file is damaged.

    Sorted: safetensors gives it in another order in every process, and unfinished runs are told apart by it.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(sorted((file.metadata() or {}).items()))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from None
