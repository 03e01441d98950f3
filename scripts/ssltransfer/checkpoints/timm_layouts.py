"""Layouts that authors publish, read by timm's own filter of each family, with every tensor traced to its sources.

A filter renames, splits, adds and sometimes resamples or leaves out tensors, and does not say which. Here it is first
run on tensors without values, and torch's record of operations tells what became of each.
"""

import contextlib
import inspect
import io
import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import timm
import torch
from timm.models import model_entrypoint
from torch import Tensor, nn

from ssltransfer.models.architecture import Architecture
from ssltransfer.models.timm_backbone import create_network

Filter = Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]]

_FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")
"""What timm's modules call the filter of their family."""
_ANY_CLASSES = 1000


class Traced(NamedTuple):
    """A tensor that a filter makes.

    Attributes
    ----------
    shape : tuple of int
    sources : frozenset of str
        Names of the tensors of the file that it is made of.
    resampled : bool
        Whether it is interpolated, as position embeddings of another grid are.
    """

    shape: tuple[int, ...]
    sources: frozenset[str]
    resampled: bool


def empty_network(architecture: Architecture) -> nn.Module:
    """Build a timm network without values and classifier."""
    with torch.device("meta"):
        return create_network(architecture)


def classifier_names(architecture: Architecture) -> set[str]:
    """Names of the tensors that a timm network has with a classifier only."""
    with torch.device("meta"):
        whole = create_network(architecture, num_classes=_ANY_CLASSES)
    return set(whole.state_dict()) - set(empty_network(architecture).state_dict())


def family_filter(name: str) -> Filter | None:
    """Return timm's filter for the files of a network's family; None if it has none."""
    module = sys.modules[model_entrypoint(name).__module__]
    found = next((getattr(module, entry) for entry in _FILTERS if hasattr(module, entry)), None)
    if found is None:
        return None
    parameters = inspect.signature(found).parameters
    options = {"adapt_layer_scale": True} if "adapt_layer_scale" in parameters else {}

    def read(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        with contextlib.redirect_stdout(io.StringIO()):  # that of DINOv3 prints a line for each block
            return found(state, network, **options) if len(parameters) > 1 else found(state)

    return read


def trace(read: Filter, network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Traced]:
    """Return what a filter makes of tensors, by the names of the network; empty where it fails.

    Parameters
    ----------
    read : Filter
    network : Module
        Without values.
    tensors : mapping of str to Tensor
        Of the file; their values are not read.
    """
    inputs: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        inputs[name] = torch.empty(tensor.shape, dtype=dtype, device="meta", requires_grad=dtype == torch.float32)
    try:
        outputs = read(dict(inputs), network)
    except Exception:  # a filter can raise anything on names of another family
        return {}
    names = {id(tensor): name for name, tensor in inputs.items()}
    return {
        name: Traced(tuple(tensor.shape), *_ancestors(tensor, names))
        for name, tensor in outputs.items()
        if isinstance(tensor, Tensor)
    }


def _ancestors(tensor: Tensor, names: Mapping[int, str]) -> tuple[frozenset[str], bool]:
    """Names of the inputs in torch's record of a tensor, and whether one of the operations interpolates."""
    if id(tensor) in names:
        return frozenset([names[id(tensor)]]), False
    found: set[str] = set()
    resampled = False
    waiting: list[Any] = [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if hasattr(node, "variable"):
            found.add(names.get(id(node.variable), ""))
        resampled |= node.name().startswith("Upsample")
        waiting += [parent for parent, _ in node.next_functions]
    return frozenset(found - {""}), resampled


def other_size(name: str, tokens: int, network: Any) -> tuple[int, str]:
    """Return the side in pixels of the images that position embeddings are for, and the network built for it, if any.

    Parameters
    ----------
    name : str
        Of a network of timm, with another grid.
    tokens : int
        Number of the file's position embeddings.
    network : Module
    """
    embed = getattr(network, "patch_embed", None)
    patch = getattr(embed, "patch_size", 0)
    side = math.isqrt(tokens) * (patch if isinstance(patch, int) else patch[0])
    other = re.sub(r"_\d+$", f"_{side}", name)
    return side, other if other != name and timm.is_model(other) else ""
