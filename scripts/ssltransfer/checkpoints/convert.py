"""Convert a published file to the backbone file, strictly: every tensor set once, nothing unexplained."""

import hashlib
from pathlib import Path

import torch

from ssltransfer.backbones import build_backbone
from ssltransfer.checkpoints.backbone_file import check_state, save_backbone
from ssltransfer.errors import InputError


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_torchvision(path: Path) -> dict[str, torch.Tensor]:
    """Read a flat state dict with torchvision's names; the classifier ``fc`` is dropped."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file can raise nearly anything
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read as a torch file of plain tensors: {reason}") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path}: found a {type(state).__name__}, expected a flat dict of tensors")
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


READERS = {"torchvision": read_torchvision}
"""The `format` column of `models.tsv`: how the published file is read."""


def convert(files: list[Path], format: str, arch: str, output: Path, provenance: dict[str, str]) -> None:
    """Convert the published file to `output`, a backbone file for `arch`.

    Raises
    ------
    InputError
        If the tensors are not exactly those of `arch`.
    """
    if len(files) != 1:
        raise InputError(f"{output.stem}: format {format!r} is one file; found {len(files)}")
    state = READERS[format](files[0])
    check_state(state, build_backbone(arch), str(files[0]), arch)
    save_backbone(state, output, provenance | {"sha256": sha256_of(files[0])})
