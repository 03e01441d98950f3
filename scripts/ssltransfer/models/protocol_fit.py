"""Compatibility of networks with the dense and analysis protocols, checked when a suite is read, without torch."""

from collections.abc import Mapping

from ssltransfer.models.architecture import parse_architecture
from ssltransfer.models.timm_catalog import TimmNetwork, find_network

PYRAMID_STRIDES = {4, 8, 16, 32}
"""Strides of the maps that a feature pyramid network starts from."""
RESIZED = ("detection", "normals", "segmentation")
"""Kinds of protocols whose images differ in size."""
KINDS = (*RESIZED, "inversion", "attention", "finetune")


def misfit(arch: str, kind: str, settings: Mapping) -> str:
    """Return why a network cannot be evaluated under a settings block; empty if it can, or if only a job finds out.

    Parameters
    ----------
    arch : str
        See `architecture.parse_architecture`.
    kind : str
        Kind of the protocol.
    settings : mapping
        Its complete settings block, with the transform of the model.
    """
    architecture = parse_architecture(arch)
    if kind == "inversion" and (side := _inverted_side(settings)) > settings["canvas"]:
        return f"its images have {side} pixels, expected at most the canvas of {settings['canvas']}"
    if kind not in KINDS or architecture.kind == "resnet":
        return ""
    if architecture.kind == "none":
        return f"{kind} needs a network, found given features (arch none)"
    if kind == "detection" and settings["backend"] == "detectron2":
        return "the backend detectron2 builds ResNets only; write a settings block with backend: torchvision"
    if kind == "normals" and settings["frozen"] != "all":
        return f"frozen: found {settings['frozen']}, which is for ResNets; write a settings block with frozen: all"
    if architecture.kind == "python" or kind == "finetune":
        return ""
    network = find_network(arch)
    if not network.strides and not (kind == "attention" and settings["feature"] == "pooled"):
        return f"{kind} needs feature maps, which the network does not have"
    if kind in RESIZED:
        return _misfit_of_sizes(network, kind, settings, "resample" in architecture.arguments)
    if kind == "attention" and network.patch and (side := _occluded_side(settings)) % network.patch:
        return (
            f"images of {side} pixels are not a multiple of its patch of {network.patch}; write another settings block"
        )
    return ""


def _misfit_of_sizes(network: TimmNetwork, kind: str, settings: Mapping, resampled: bool) -> str:
    if not network.dynamic:
        return f"{kind} needs a network that takes images of several sizes, this one takes {network.native_size} pixels"
    if resampled:
        return f"{kind} resamples position embeddings to each image as timm does; add a row without resample"
    pyramid = kind == "detection" or (kind == "segmentation" and settings["head"] == "upernet")
    if pyramid and len(network.strides) > 1 and not set(network.strides) >= PYRAMID_STRIDES:
        found = ", ".join(map(str, network.strides))
        return f"{kind} needs maps of strides 4, 8, 16 and 32 or a single one, found {found}"
    return ""


def _inverted_side(settings: Mapping) -> int:
    return int(settings["transform"].removeprefix("resize"))


def _occluded_side(settings: Mapping) -> int:
    return settings["size"] + (2 * (settings["mask"] - 1) if settings["view"] == "frame" else 0)
