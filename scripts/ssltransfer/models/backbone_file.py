"""Read and check converted checkpoints: safetensors files of one backbone, with provenance in the header."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ssltransfer.errors import InputError
from ssltransfer.models.architecture import is_resnet, parse_architecture, with_twin
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.resnet import build_resnet
from ssltransfer.results.tensor_file import load_tensors
from ssltransfer.results.tensor_header import read_provenance


def build_backbone(arch: str, pool: str = "", size: int | None = None, seed: int | None = None) -> Backbone:
    """Build a backbone of any architecture with random weights.

    Parameters
    ----------
    arch : str
        See `architecture.parse_architecture`.
    pool : str
        See `readout.parse_pool`; residual networks have one readout, the mean of their last map.
    size : int, optional
        Side of the images in pixels, for networks that are built for one size; None for that of the published weights,
        `backbone.ANY_SIZE` for images of several sizes.
    seed : int, optional
        Seed of the initialisation; the global generator is left as it was.

    Raises
    ------
    InputError
        If there is no such network, or it has no such readout or size.
    """
    architecture = parse_architecture(arch)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if architecture.kind == "resnet":
            return build_resnet(arch)
        if architecture.kind == "python":
            from ssltransfer.models import module_backbone

            return module_backbone.build(architecture.name, pool, size)
        from ssltransfer.models import timm_backbone  # its import takes a second that other networks do not need

        network = timm_backbone.create_network(with_twin(architecture), size)
        return timm_backbone.TimmBackbone(network, pool)


def load_backbone(path: str | Path, arch: str, pool: str = "", size: int | None = None) -> Backbone:
    """Build a backbone and fill it strictly from a converted checkpoint, in evaluation mode.

    Parameters
    ----------
    path : path
    arch, pool, size
        See `build_backbone`; what depends on the size, such as position embeddings, is resampled.

    Raises
    ------
    InputError
        If the file is damaged, a tensor is missing, left over or of another shape, or a value is not finite; or if a
        user's code is another one than when the file was converted.
    """
    architecture = parse_architecture(arch)
    state = load_tensors(path)
    if architecture.kind in ("timm", "torchvision"):
        from ssltransfer.models import timm_backbone

        trained_at = read_provenance(path).get("size")  # of networks trained here, whose recipe decides the size
        check_state(state, expected_state(arch, int(trained_at) if trained_at else None), str(path), arch)
        network = timm_backbone.load_network(path, with_twin(architecture), size)
        return timm_backbone.TimmBackbone(network, pool).eval()
    if architecture.kind == "python":
        from ssltransfer.models.module_backbone import require_same_code

        require_same_code(path, architecture.name)
    backbone = build_backbone(arch, pool, size)
    check_state(state, backbone.tensors(), str(path), arch)
    backbone.load_tensors(state)
    return backbone.eval()


def expected_state(arch: str, size: int | None = None) -> dict[str, Tensor]:
    """Return the tensors of a converted checkpoint, without values (on torch's device ``meta``).

    A user's own network has values: its code may compute with them.

    Parameters
    ----------
    arch, size
        See `build_backbone`.
    """
    architecture = parse_architecture(arch)
    if architecture.kind == "python":
        from ssltransfer.models import module_backbone

        return module_backbone.make_network(architecture.name).state_dict()
    with torch.device("meta"):
        return build_backbone(arch, size=size).tensors()


_NEXT = "; write the arch that the weights were trained with, or fetch the file again"


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str, arch: str) -> None:
    """Require exactly the expected tensors, of their shapes and types, finite; InputError otherwise."""
    if missing := sorted(set(expected) - set(state)):
        basic = is_resnet(arch) and not any("conv3" in key for key in state)
        hint = (
            "; blocks without conv3 are those of ResNet-18 and -34: arch timm:resnet18 or timm:resnet34"
            if basic
            else ""
        )
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
def forward_check(state: Mapping[str, Tensor], arch: str, name: str) -> dict[str, float]:
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
    backbone.load_tensors(state)
    side = backbone.native_size or 96
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    images[1] = images[1, :, :1, :1]  # noise, and one flat colour
    features = backbone.eval()(images)
    if not torch.isfinite(features).all() or torch.allclose(features[0], features[1]):
        raise InputError(f"{name}: the converted network gives no usable features; the file or its format is wrong")
    return {"mean": float(features.mean()), "std": float(features.std())}
