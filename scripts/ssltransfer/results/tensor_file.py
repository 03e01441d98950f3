"""Tensors of a network on disk: a safetensors file whose header says where they come from."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from ssltransfer.files import replacing


def save_state(state: dict[str, torch.Tensor], path: str | Path, provenance: dict[str, str]) -> None:
    """Write the tensors of a network with `provenance` in the header."""
    with replacing(path) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in state.items()}, temporary, metadata=provenance)
