"""Read and check converted checkpoints: safetensors files of one backbone, with provenance in the header."""

from pathlib import Path

import torch

from ssltransfer.errors import InputError
from ssltransfer.models.resnet import ResNet, build_backbone
from ssltransfer.results.tensor_file import load_tensors


def load_backbone(path: str | Path, arch: str) -> ResNet:
    """Build `arch` and fill it strictly from the file, in evaluation mode.

    Raises
    ------
    InputError
        If the file is damaged, a tensor is missing, left over or of another shape, or a value is not finite.
    """
    state = load_tensors(path)
    backbone = build_backbone(arch)
    check_state(state, backbone, str(path), arch)
    backbone.load_state_dict(state)
    return backbone.eval()


_NEXT = "; write the arch that the weights were trained with, or fetch the file again"


def check_state(state: dict[str, torch.Tensor], backbone: ResNet, name: str, arch: str) -> None:
    """Require exactly the tensors of the backbone, of its shapes and types, finite; InputError otherwise."""
    expected = backbone.state_dict()
    if missing := sorted(set(expected) - set(state)):
        hint = "" if any("conv3" in key for key in state) else "; blocks without conv3 are those of ResNet-18 and -34"
        raise InputError(f"{name}: {len(missing)} tensors of {arch} are missing, first {missing[0]}{hint}{_NEXT}")
    if extra := sorted(set(state) - set(expected)):
        raise InputError(f"{name}: {len(extra)} tensors do not belong to {arch}, first {extra[0]}{_NEXT}")
    for key, tensor in state.items():
        if tensor.shape != expected[key].shape:
            raise InputError(
                f"{name}: {key} has shape {tuple(tensor.shape)}, {arch} needs {tuple(expected[key].shape)}{_NEXT}"
            )
        if tensor.dtype != expected[key].dtype:
            raise InputError(
                f"{name}: {key} is {tensor.dtype}, expected {expected[key].dtype}; "
                "rounded weights would change every number, use the checkpoint in full precision"
            )
        if not torch.isfinite(tensor).all():
            raise InputError(
                f"{name}: {key} holds values that are not finite; take a checkpoint from before the training diverged, "
                "or fetch the file again"
            )


@torch.inference_mode()
def forward_check(state: dict[str, torch.Tensor], arch: str, name: str) -> dict[str, float]:
    """Pass two fixed images through the network.

    Returns
    -------
    dict
        ``mean`` and ``std`` of the pooled features.

    Raises
    ------
    InputError
        If features are not finite, or the same for both images, as after a conversion that mixed up layers.
    """
    backbone = build_backbone(arch)
    backbone.load_state_dict(state)
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    images[1] = images[1, :, :1, :1]  # noise, and one flat colour
    features = backbone.eval()(images)
    if not torch.isfinite(features).all() or torch.allclose(features[0], features[1]):
        raise InputError(f"{name}: the converted network gives no usable features; the file or its format is wrong")
    return {"mean": float(features.mean()), "std": float(features.std())}
