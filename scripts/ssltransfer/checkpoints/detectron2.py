"""Backbones in detectron2's names: ``stem.conv1``, ``res2.0.conv1``, ``res2.0.conv1.norm``, ``res2.0.shortcut``."""

import pickle
import re
from pathlib import Path

from torch import Tensor

from ssltransfer.files import atomic_write

_BLOCK = re.compile(r"layer(\d)\.(\d+)\.(conv|bn)(\d)\.(\w+)")
_SHORTCUT = re.compile(r"layer(\d)\.(\d+)\.downsample\.([01])\.(\w+)")
_STEM = re.compile(r"(conv|bn)1\.(\w+)")


def to_detectron2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a torchvision backbone; batch norm's step counters, unknown there, are left out."""
    return {_to_detectron2(name): tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def _to_detectron2(name: str) -> str:
    if match := _STEM.fullmatch(name):
        return f"stem.conv1.{'norm.' if match[1] == 'bn' else ''}{match[2]}"
    if match := _BLOCK.fullmatch(name):
        return f"res{int(match[1]) + 1}.{match[2]}.conv{match[4]}.{'norm.' if match[3] == 'bn' else ''}{match[5]}"
    match = _SHORTCUT.fullmatch(name)
    return f"res{int(match[1]) + 1}.{match[2]}.shortcut.{'norm.' if match[3] == '1' else ''}{match[4]}"


def save_detectron2(state: dict[str, Tensor], path: Path) -> None:
    """Write the pickle of arrays that detectron2 loads as ``MODEL.WEIGHTS``, its heuristics for foreign names on."""
    arrays = {name: tensor.numpy() for name, tensor in to_detectron2(state).items()}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        pickle.dump({"model": arrays, "__author__": "ssltransfer", "matching_heuristics": True}, file)
