"""The converted checkpoint: a safetensors file that holds one backbone and where it came from."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ssltransfer.backbones import ResNet, build_backbone
from ssltransfer.errors import InputError
from ssltransfer.files import replacing


def save_backbone(state: dict[str, torch.Tensor], path: str | Path, provenance: dict[str, str]) -> None:
    """Write backbone tensors (floats as float32) with `provenance` in the header."""
    tensors = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in state.items()
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=provenance)


def load_backbone(path: str | Path, arch: str) -> ResNet:
    """Build `arch` and fill it strictly from the file, in evaluation mode.

    Raises
    ------
    InputError
        If the file is damaged, a tensor is missing, left over or of another shape, or a value is not finite.
    """
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from None
    backbone = build_backbone(arch)
    check_state(state, backbone, str(path), arch)
    backbone.load_state_dict(state)
    return backbone.eval()


def check_state(state: dict[str, torch.Tensor], backbone: ResNet, name: str, arch: str) -> None:
    """Require exactly the tensors of the backbone, of its shapes and finite; InputError otherwise."""
    expected = backbone.state_dict()
    if missing := sorted(set(expected) - set(state)):
        raise InputError(f"{name}: {len(missing)} tensors of {arch} are missing, first {missing[0]}")
    if extra := sorted(set(state) - set(expected)):
        raise InputError(f"{name}: {len(extra)} tensors do not belong to {arch}, first {extra[0]}")
    for key, tensor in state.items():
        if tensor.shape != expected[key].shape:
            raise InputError(
                f"{name}: {key} has shape {tuple(tensor.shape)}, {arch} needs {tuple(expected[key].shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise InputError(f"{name}: {key} holds values that are not finite")


def read_provenance(path: str | Path) -> dict[str, str]:
    """Return the header metadata of a converted checkpoint."""
    with safe_open(path, framework="numpy") as file:
        return file.metadata() or {}
