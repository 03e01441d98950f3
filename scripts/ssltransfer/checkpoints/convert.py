"""Convert published files to the tensors of a backbone, strictly: every tensor set once, nothing unexplained."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ssltransfer.checkpoints import torch_file
from ssltransfer.checkpoints.auto import advise, read_auto
from ssltransfer.checkpoints.auto_network import read_network
from ssltransfer.checkpoints.byol import read_byol
from ssltransfer.checkpoints.fetch import manifest_files
from ssltransfer.checkpoints.module_weights import check_module, read_own_weights
from ssltransfer.checkpoints.read_checkpoint import ReadCheckpoint
from ssltransfer.checkpoints.recognition import recognise
from ssltransfer.checkpoints.simclr import read_simclr
from ssltransfer.checkpoints.sources import OWN_WEIGHTS
from ssltransfer.errors import InputError
from ssltransfer.jobs import package_versions
from ssltransfer.models.architecture import feature_width, is_resnet, parse_architecture
from ssltransfer.models.backbone_file import check_state, expected_state, forward_check
from ssltransfer.models.model_row import check_weights
from ssltransfer.models.resnet import build_resnet

log = logging.getLogger(__name__)

FORMATS = ("auto", *torch_file.FORMATS, "simclr", "simclr-ema", "byol")
"""Values of the `format` column of `models.tsv`; a prefix may follow ``auto:``."""


def convert(
    manifest: Mapping, folder: Path, params: Mapping[str, str], model: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Convert the published files of a model.

    Parameters
    ----------
    manifest : mapping
        Result of `fetch.fetch`.
    folder : Path
        Folder of the files.
    params : mapping
        ``format`` and ``arch`` (see `read_published`), ``source``, the ``version`` of this code, and for a user's own
        module what `module_weights.check_module` needs. Files in another format have theirs in the manifest.
    model : str
        Id of the model, for messages.

    Returns
    -------
    state : dict of str to Tensor
        The tensors of the backbone, float32, in the names of its network.
    provenance : dict of str to str
        Header of the converted file: source, SHA-256 of the files, converter, where format ``auto`` found the backbone,
        and the result of `forward_check`.

    Raises
    ------
    InputError
        If a file has changed since it was fetched, or see `read_published`, `forward_check` and `check_module`.
    """
    arch, format_ = params["arch"], manifest.get("format", params["format"])
    check_weights(params.get("source", ""), arch)
    files = manifest_files(manifest, folder)
    published = read_published(files, format_, arch) if files else read_own_weights(arch)
    notes = {"prefix": published.prefix} if format_.startswith("auto") else {}
    if published.precision:
        notes["precision"] = published.precision
    if arch.startswith(("timm:", "torchvision:")):
        notes["timm"] = package_versions("timm").get("timm", "")
    if parse_architecture(arch).kind == "python":
        checked = check_module(published.state, params)
    else:
        checked = {"forward": json.dumps(forward_check(published.state, arch, model))}
    log.info("%d tensors set, %d entries left out", len(published.state), len(published.dropped))
    return published.state, {
        "source": " ".join(file["source"] for file in manifest["files"]) or OWN_WEIGHTS,
        "files": json.dumps({file["name"]: file["sha256"] for file in manifest["files"]}),
        "arch": arch,
        "converter": f"{format_} {params['version']}",
        **notes,
        "left_out": str(len(published.dropped)),
        **checked,
    }


def read_published(files: list[Path], format: str, arch: str) -> ReadCheckpoint:
    """Read the published files of a model.

    Parameters
    ----------
    files : list of Path
        All files of the source.
    format : str
        One of `FORMATS`, or ``auto:`` with the prefix to read (see `auto.read_auto`).
    arch : str
        See `backbone_file.build_backbone`.

    Returns
    -------
    ReadCheckpoint
        With exactly the tensors of `arch`, float32, finite; counters that the format lacks are zero.

    Raises
    ------
    InputError
        If the files are damaged, name code, or hold anything that neither the network nor the format explains.
    """
    published = (_read_resnet if is_resnet(arch) else _read_other)(files, format, arch)
    check_state(published.state, expected_state(arch), str(files[0]), arch)
    if published.head is not None and (width := feature_width(arch)) is not None:
        check_head(published.head, width, str(files[0]))
    return published


def _read_other(files: list[Path], format: str, arch: str) -> ReadCheckpoint:
    """Read the file of a network that is no residual network of this project."""
    kind, _, choice = format.partition(":")
    if kind != "auto":
        raise InputError(
            f"format: found {format!r}, which is of ResNets (arch resnet50, resnet-AxBxCxD-wN), not of {arch}; leave "
            "the cell empty, or write auto:PREFIX"
        )
    _require_one(files, format)
    published = read_network(files[0], choice, arch)
    _add_counters(published.state, set(expected_state(arch)))
    return published


def _require_one(files: list[Path], format: str) -> None:
    if len(files) != 1:
        raise InputError(
            f"{files[0].parent}: found {len(files)} files, format {format!r} is one file; name one as the source, "
            "or write format simclr for the files of a TensorFlow checkpoint"
        )


def _read_resnet(files: list[Path], format: str, arch: str) -> ReadCheckpoint:
    backbone = build_resnet(arch)
    expected = set(backbone.state_dict())
    if format.startswith("simclr"):
        scope = "ema_model/base_model/" if format == "simclr-ema" else "base_model/"
        published = read_simclr(files, backbone, scope)
    else:
        _require_one(files, format)
        kind, _, choice = format.partition(":")
        if kind == "auto":
            published = read_auto(files[0], choice, arch)
        elif format == "byol":
            published = read_byol(files[0], expected)
        else:
            published = torch_file.read_torch(files[0], torch_file.FORMATS[format], expected)
    _add_counters(published.state, expected)
    name = str(files[0])
    _refuse_other_network(published.state, name, arch)
    return published


def _refuse_other_network(state: Mapping[str, Tensor], name: str, arch: str) -> None:
    """Name the network whose tensors these are, if it is known and another; InputError with its `arch`."""
    found = next(iter(recognise({key: tuple(tensor.shape) for key, tensor in state.items()})), None)
    if found is not None and not found.has_arch(arch):
        raise InputError(f"{name}: the tensors are those of {found.title}, not those of {arch}; {advise([found])}")


def _add_counters(state: dict[str, Tensor], expected: set[str]) -> None:
    """Add batch norm's step counters, which no evaluation reads, where a format knows none at all."""
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    if not counters & set(state):
        state |= {name: torch.zeros((), dtype=torch.long) for name in counters}


def check_head(head: tuple[Tensor, Tensor], width: int, name: str) -> None:
    """Require a float32 classifier (classes, features) with its bias (classes,); InputError otherwise."""
    weight, bias = head
    if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
        raise InputError(
            f"{name}: classifier has shapes {tuple(weight.shape)} and {tuple(bias.shape)}, "
            f"expected (classes, {width}) and (classes,); write the arch that it was trained with"
        )
    if weight.dtype != torch.float32 or bias.dtype != torch.float32:
        raise InputError(
            f"{name}: classifier is {weight.dtype} and {bias.dtype}, expected {torch.float32}; use full precision"
        )
