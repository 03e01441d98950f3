"""Convert the weights of a user's own module (``arch python:FILE.py:FUNCTION``), checked as a frozen backbone."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ssltransfer.checkpoints.auto import Place, choose_place, flatten
from ssltransfer.checkpoints.read_checkpoint import ReadCheckpoint, log_dropped
from ssltransfer.checkpoints.recognition import prefixes
from ssltransfer.checkpoints.sources import OWN_WEIGHTS
from ssltransfer.checkpoints.torch_file import load_content
from ssltransfer.errors import InputError
from ssltransfer.models.architecture import parse_architecture
from ssltransfer.models.backbone_file import check_state as check_tensors
from ssltransfer.models.module_backbone import CODE, SIDE, ModuleBackbone, build
from ssltransfer.models.module_check import CHECKED, check_features, check_state
from ssltransfer.models.user_code import code_hash


def convert_module(files: list[Path], params: Mapping[str, str], model: str) -> tuple[ReadCheckpoint, dict[str, str]]:
    """Read or take the weights of a user's module, and check that it maps images to features as a frozen backbone.

    Parameters
    ----------
    files : list of Path
        The file of weights, or none for the module's own.
    params : mapping
        ``arch``, ``format``, ``pool`` and ``size`` of the model's row, and the SHA-256 of the code as ``code``.
    model : str
        Id of the model, for messages.

    Returns
    -------
    published : ReadCheckpoint
    provenance : dict of str to str
        Of the header: hash of the code, width, strides and channels of the network, statistics of features.

    Raises
    ------
    InputError
        If the code has changed meanwhile, the file does not hold every tensor of the module once, or the module is not
        in evaluation mode, random, dependent on the batch, or gives features that are not finite or always the same.
    """
    arch = params["arch"]
    name = parse_architecture(arch).name
    if params[CODE] != code_hash(name):
        raise InputError(f"arch {arch}: the file has changed while jobs ran; start snakemake again")
    side = int(params["size"] or SIDE)
    backbone = build(name, params["pool"], side)
    expected = _tensors(backbone)
    published = (
        read_weights(files[0], params["format"], expected, arch) if files else ReadCheckpoint(expected, None, [])
    )
    check_tensors(published.state, expected, str(files[0]) if files else model, arch)
    backbone.load_tensors(published.state)
    return published, {
        CODE: params[CODE],
        "network": json.dumps(
            {"width": backbone.width, "strides": list(backbone.strides), "channels": list(backbone.channels)}
        ),
        "forward": json.dumps(check_module(backbone, side)),
    }


def _tensors(backbone: ModuleBackbone) -> dict[str, Tensor]:
    """Copies of the tensors of a module, in which one may have two names."""
    tensors = backbone.tensors()
    if wrong := [key for key, value in tensors.items() if not isinstance(value, Tensor)]:
        raise InputError(
            f"{backbone.name}: {wrong[0]} of its state dict is a {type(tensors[wrong[0]]).__name__}, expected tensors; "
            "leave it out of the state dict"
        )
    return {key: value.detach().clone() for key, value in tensors.items()}


def check_module(backbone: ModuleBackbone, side: int) -> dict[str, float]:
    """Pass images of noise and one of a flat colour through a module; see `convert_module`.

    Returns
    -------
    dict
        ``mean`` and ``std`` of the pooled features.
    """
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
    return {"mean": float(features.mean()), "std": float(features.std())}


def read_weights(path: Path, format: str, expected: Mapping[str, Tensor], arch: str) -> ReadCheckpoint:
    """Find the tensors of a module in a file: all of their names behind one beginning, each with its shape.

    Parameters
    ----------
    path : Path
    format : str
        ``auto``, or ``auto:PREFIX`` to choose one of several places.
    expected : mapping of str to Tensor
        Tensors of the module.
    arch : str
        For messages.

    Raises
    ------
    InputError
        If the file holds no such tensors, or different ones in several places.
    """
    kind, _, choice = format.partition(":")
    if kind != "auto":
        raise InputError(f"{path}: format {format!r} is one of published ResNets; leave the cell empty for {arch}")
    if not expected:
        raise InputError(f"{path}: {arch} has no tensors to read; write source {OWN_WEIGHTS}")
    content = flatten(load_content(path), path)
    shapes = content.shapes
    found = {prefix: [name for name in expected if prefix + name in shapes] for prefix in _prefixes(shapes, expected)}
    complete = [
        Place(prefix, {name: prefix + name for name in names}, [], [], [])
        for prefix, names in found.items()
        if len(names) == len(expected) and all(shapes[prefix + name] == expected[name].shape for name in names)
    ]
    place = choose_place(path, complete, choice, arch, content)
    if place is None:
        raise InputError(f"{path}: {_misfit(shapes, found, expected, arch)}")
    taken = set(place.names.values())
    dropped = [name for name in shapes if name not in taken]
    log_dropped(dropped, group=lambda name: name.partition(".")[0])
    state = {name: content.tensors[full] for name, full in place.names.items()}
    return ReadCheckpoint(state, None, dropped, place.prefix)


def _prefixes(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor]) -> list[str]:
    """Beginnings behind which any tensor of the network stands, the shortest first."""
    return sorted(
        {prefix for name in expected for prefix in prefixes(shapes, name)}, key=lambda text: (len(text), text)
    )


def _misfit(
    shapes: Mapping[str, tuple[int, ...]],
    found: Mapping[str, list[str]],
    expected: Mapping[str, Tensor],
    arch: str,
) -> str:
    """Say what the best place lacks."""
    advice = "save the state dict of the module that the function returns, or write the function for this file"
    if not found:
        return f"no tensor has a name of {arch}, such as {next(iter(expected))}; {advice}"
    prefix, names = max(found.items(), key=lambda item: len(item[1]))
    where = f"behind {prefix!r} " if prefix else ""
    if missing := [name for name in expected if name not in names]:
        return f"{where}{len(missing)} of {len(expected)} tensors of {arch} are missing, first {missing[0]}; {advice}"
    wrong = next(name for name in names if shapes[prefix + name] != expected[name].shape)
    return (
        f"{where}{wrong} has shape {shapes[prefix + wrong]}, {arch} needs {tuple(expected[wrong].shape)}; write the "
        "function for this file"
    )
