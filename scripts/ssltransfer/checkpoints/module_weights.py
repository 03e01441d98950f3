"""Weights of a user's own module (``arch python:FILE.py:FUNCTION``), checked as those of a frozen backbone."""

import json
from collections.abc import Mapping

import torch
from torch import Tensor

from ssltransfer.checkpoints.read_checkpoint import ReadCheckpoint
from ssltransfer.errors import InputError
from ssltransfer.models.architecture import parse_architecture
from ssltransfer.models.backbone_file import check_state as check_tensors
from ssltransfer.models.backbone_file import expected_state
from ssltransfer.models.module_backbone import CODE, SIDE, build
from ssltransfer.models.module_check import CHECKED, check_features, check_state
from ssltransfer.models.user_code import code_hash


def read_own_weights(arch: str) -> ReadCheckpoint:
    """Take the weights that a module has when its function returns it (source ``module:own``).

    Raises
    ------
    InputError
        If its state dict holds anything but tensors.
    """
    tensors = expected_state(arch)
    if wrong := [key for key, value in tensors.items() if not isinstance(value, Tensor)]:
        raise InputError(
            f"arch {arch}: {wrong[0]} of the state dict is a {type(tensors[wrong[0]]).__name__}, expected tensors; "
            "leave it out of the state dict"
        )
    # Copies, because one tensor may have two names.
    return ReadCheckpoint({key: value.detach().clone() for key, value in tensors.items()}, None, [])


def check_module(state: Mapping[str, Tensor], params: Mapping[str, str]) -> dict[str, str]:
    """Pass images of noise and one of a flat colour through a user's module with its weights.

    Parameters
    ----------
    state : mapping of str to Tensor
        All tensors of the module.
    params : mapping
        ``arch``, ``pool`` and ``size`` of the model's row, and the SHA-256 of the code as ``code``.

    Returns
    -------
    dict of str to str
        For the header: hash of the code, width, strides and channels of the network, mean and standard deviation of
        features.

    Raises
    ------
    InputError
        If the code has changed meanwhile, or the module is not in evaluation mode, random, dependent on the batch, or
        gives features that are not finite or always the same.
    """
    arch = params["arch"]
    name = parse_architecture(arch).name
    if params[CODE] != code_hash(name):
        raise InputError(f"arch {arch}: the file has changed while jobs ran; start snakemake again")
    side = int(params["size"] or SIDE)
    backbone = build(name, params["pool"], side)
    check_tensors(state, backbone.tensors(), "the weights", arch)
    backbone.load_tensors(state)
    images = torch.rand(CHECKED, 3, side, side, generator=torch.Generator().manual_seed(0))
    images[1] = images[1, :, :1, :1]
    check_state(backbone.eval(), backbone.name)
    check_features(backbone, images, backbone.name)
    with torch.inference_mode():
        features = backbone(images)
    if torch.allclose(features[0], features[1]):
        raise InputError(
            f"{backbone.name}: noise and a flat colour have the same features; write the weights and code that belong "
            "together"
        )
    network = {"width": backbone.width, "strides": list(backbone.strides), "channels": list(backbone.channels)}
    forward = {"mean": float(features.mean()), "std": float(features.std())}
    return {CODE: params[CODE], "network": json.dumps(network), "forward": json.dumps(forward)}
