"""Format ``auto`` for networks of timm, torchvision and user code: find the network in a file of any layout, strictly.

The network is where all its tensors stand behind one beginning of the names (see `auto`). Where they stand nowhere, the
layouts of the authors are tried, by timm's filter of the family (see `timm_layouts`), wherever in the file.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssltransfer.checkpoints.auto import (
    Content,
    Place,
    choose_place,
    describe_networks,
    flatten,
    has_values,
    log_left_out,
    no_tensors,
)
from ssltransfer.checkpoints.read_checkpoint import ReadCheckpoint
from ssltransfer.checkpoints.recognition import recognise
from ssltransfer.checkpoints.torch_file import load_content
from ssltransfer.errors import InputError
from ssltransfer.models.architecture import Architecture, parse_architecture, with_twin
from ssltransfer.models.backbone_file import expected_state
from ssltransfer.safe_pickle import shown

log = logging.getLogger(__name__)

MAX_BASES = 200
"""Beginnings of names that a network is looked for behind; files of several networks have some tens."""

HALF = (torch.float16, torch.bfloat16)
"""Types that every value can be widened from without a change."""

_HEADS = ("head", "fc", "classifier")
"""First parts of names of classifiers, which belong to no network."""
_PARTS = (
    *("cls_token", "dist_token", "reg_token", "register_tokens", "storage_tokens", "pos_embed", "rel_pos_bias"),
    *("patch_embed", "norm_pre", "norm", "fc_norm"),
)
"""First parts of names that no head or decoder has: what a network of this name lacks, another one has."""
_BUFFER = re.compile(
    r"(.*\.)?(relative_position_index|attn_mask|relative_coords_table|periods|bias_mask|mask_token|num_batches_tracked)"
)
"""Names of what is computed anew, or read in pretraining only."""
_COUNTER = "num_batches_tracked"


class Target(NamedTuple):
    """The network that is looked for.

    Attributes
    ----------
    architecture : Architecture
        With timm's twin of networks of torchvision.
    shapes : dict of str to tuple of int
        Of its tensors.
    classifier : set of str
        Names of the tensors that it has with a classifier only.
    network : Module or None
        Without values, of timm.
    """

    architecture: Architecture
    shapes: dict[str, tuple[int, ...]]
    classifier: set[str]
    network: nn.Module | None


@dataclass(frozen=True)
class NetworkPlace(Place):
    """A set of names that may be the network.

    Attributes
    ----------
    base : str
        Beginning of the names that is taken off before timm's filter reads them.
    filtered : bool
        Whether the filter reads them; else they are the network's own.
    resampled : bool
        Whether position embeddings or the like would be interpolated.
    """

    base: str = ""
    filtered: bool = False
    resampled: bool = False


def find_target(arch: str) -> Target:
    """Describe the network of an `arch` that is no residual network of this project."""
    architecture = with_twin(parse_architecture(arch))
    if architecture.kind == "none":
        raise InputError("arch: found none, whose features are given; a file of weights needs the arch of its network")
    if architecture.kind == "python":
        shapes = {name: tuple(tensor.shape) for name, tensor in expected_state(arch).items()}
        return Target(architecture, shapes, set(), None)
    from ssltransfer.checkpoints.timm_layouts import classifier_names, empty_network

    network = empty_network(architecture)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    return Target(architecture, shapes, classifier_names(architecture), network)


def find_network_places(tensors: Mapping[str, Tensor], target: Target) -> list[NetworkPlace]:
    """List the places where a network may stand, the most complete one first.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Of the file by full name.
    target : Target
    """
    bases = _bases(tensors, len(target.shapes) // 2)
    places = [place for base in bases if (place := _own_place(base, tensors, target)).names]
    if target.network is not None and not any(place.fits for place in places):
        from ssltransfer.checkpoints.timm_layouts import family_filter

        if read := family_filter(target.architecture.name):
            traced = [_filtered_place(base, tensors, target, read) for base in bases]
            # Some filters take a beginning off themselves, and so find the same tensors from two bases.
            places += {place.prefix: place for place in traced if place.names}.values()
    return sorted(places, key=lambda place: (len(place.missing), len(place.misshapen), len(place.extra)))


def _bases(names: Iterable[str], least: int) -> list[str]:
    """Beginnings of names, ending in a dot or empty, that at least so many have in common; the shortest `MAX_BASES`."""
    counts = Counter(name[:end] for name in names for end in [0, *(dot.end() for dot in re.finditer(r"\.", name))])
    return sorted((base for base, count in counts.items() if count >= least), key=lambda base: (len(base), base))[
        :MAX_BASES
    ]


def _own_place(base: str, tensors: Mapping[str, Tensor], target: Target) -> NetworkPlace:
    shapes = target.shapes
    names = {name: base + name for name in shapes if base + name in tensors}
    return NetworkPlace(
        base,
        names,
        _missing(names, shapes),
        [name for name, full in names.items() if tuple(tensors[full].shape) != shapes[name]],
        _extra(tensors, set(names.values()), {base + name for name in target.classifier}, base),
        base,
    )


def _filtered_place(base: str, tensors: Mapping[str, Tensor], target: Target, read: Any) -> NetworkPlace:
    from ssltransfer.checkpoints.timm_layouts import trace

    inner = {full.removeprefix(base): tensor for full, tensor in tensors.items() if full.startswith(base)}
    traced = trace(read, target.network, inner)  # type: ignore[arg-type]  # of timm
    own = {name: made for name, made in traced.items() if name in target.shapes and made.sources}
    used = {base + name for made in own.values() for name in made.sources}
    heads = {base + name for made in traced if made in target.classifier for name in traced[made].sources}
    prefix = _common_beginning(used)
    resampled = [name for name, made in own.items() if made.resampled]
    return NetworkPlace(
        prefix,
        {full.removeprefix(prefix): full for full in sorted(used)},
        _missing(own, target.shapes),
        [name for name, made in own.items() if made.resampled or made.shape != target.shapes[name]],
        _extra(tensors, used, heads - used, prefix),
        base,
        filtered=True,
        resampled=bool(resampled),
    )


def _common_beginning(names: set[str]) -> str:
    """Longest beginning of all names that ends in a dot, or nothing."""
    if not names:
        return ""
    first, last = min(names), max(names)
    same = next((end for end in range(len(first)) if first[end] != last[end : end + 1]), len(first))
    return first[: first.rfind(".", 0, same) + 1]


def _missing(names: Iterable[str], shapes: Iterable[str]) -> list[str]:
    """Names of tensors that are not there; step counters of batch norm are needed only if one is there."""
    found = set(names)
    counted = any(name.endswith(_COUNTER) for name in found)
    return [name for name in shapes if name not in found and (counted or not name.endswith(_COUNTER))]


def _extra(tensors: Mapping[str, Tensor], used: set[str], heads: set[str], prefix: str) -> list[str]:
    """Full names of tensors that stand in the parts of the network, such as further blocks, and are not read."""
    parts = {full.removeprefix(prefix).partition(".")[0] for full in used} - set(_HEADS) | set(_PARTS)
    return [
        full
        for full, tensor in tensors.items()
        if full.startswith(prefix)
        and full not in used | heads
        and full.removeprefix(prefix).partition(".")[0] in parts
        and not _is_harmless(full, tensor)
    ]


def _is_harmless(name: str, tensor: Tensor) -> bool:
    """Whether a network computes the same without a tensor: buffers, and biases that are all zero."""
    if not tensor.is_floating_point() or _BUFFER.fullmatch(name):
        return True
    return name.endswith("bias") and has_values(tensor) and not tensor.any()


def read_network(path: Path, choice: str, arch: str) -> ReadCheckpoint:
    """Find and read the tensors of a network in a file.

    Parameters
    ----------
    path : Path
    choice : str
        Beginning of the prefix to read, as `auto.read_auto` takes it.
    arch : str
        Of timm, torchvision or user code (see `architecture.parse_architecture`).

    Returns
    -------
    ReadCheckpoint
        With the tensors under the network's own names; those of half precision are widened to float32.

    Raises
    ------
    InputError
        If the network is nowhere or in several places with different values, if tensors of it would be left out or
        resampled, or if the file is known to belong to a network of the same tensors that computes something else;
        and see `load_content`.
    """
    content, target = flatten(load_content(path), path), find_target(arch)
    places = find_network_places(content.tensors, target)
    place = choose_place(path, [place for place in places if place.fits], choice, arch, content)
    if place is None:
        raise InputError(f"{path}: {explain_network_misfit(content, places, arch, target)}")
    if wrong := [full for full in place.names.values() if not has_values(content.tensors[full])]:
        raise InputError(f"{path}: {shown(wrong[:1])} holds no values in plain memory; save the weights themselves")
    _refuse_lookalike(path, place, arch, target.architecture, content)
    state, precision = _read_state(content.tensors, place, target)
    taken = set(place.names.values())
    dropped = [name for name in content.tensors if name not in taken]
    log_left_out(content, dropped, place.prefix)
    return ReadCheckpoint(state, None, dropped, place.prefix, precision)


def _read_state(tensors: Mapping[str, Tensor], place: NetworkPlace, target: Target) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a place in float32 under the network's names, and the precision that they had."""
    used = {full: tensors[full] for full in place.names.values()}
    halves = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in used.values() if tensor.dtype in HALF})
    if halves:
        log.warning("the file is in half precision (%s), widened to float32", " and ".join(halves))
        used = {full: tensor.float() if tensor.dtype in HALF else tensor for full, tensor in used.items()}
    if place.filtered:
        from ssltransfer.checkpoints.timm_layouts import family_filter

        log.info("read by timm's filter of the family of %s", target.architecture.name)
        inner = {
            full.removeprefix(place.base): used.get(full, tensor)
            for full, tensor in tensors.items()
            if full.startswith(place.base)
        }
        made = family_filter(target.architecture.name)(inner, target.network)  # type: ignore[misc, arg-type]
        state = {name: made[name] for name in target.shapes if name in made}
    else:
        state = {name: used[full] for name, full in place.names.items()}
    # A tensor that is a part of a larger storage takes that along wherever it is written.
    whole = {name: tensor if _owns_storage(tensor) else tensor.clone() for name, tensor in state.items()}
    return whole, " and ".join(halves)


def _owns_storage(tensor: Tensor) -> bool:
    return tensor.untyped_storage().nbytes() == tensor.nbytes


_MOMENTUM_ENCODERS = ("base_encoder.", "momentum_encoder.")


def _refuse_lookalike(path: Path, place: Place, arch: str, own: Architecture, content: Content) -> None:
    """Refuse files known to be of a network whose tensors have the same names and shapes."""
    if (
        own.name.startswith("vit_small_")
        and place.prefix.endswith(_MOMENTUM_ENCODERS)
        and "num_heads" not in own.arguments
    ):
        raise InputError(
            f"{path}: {shown([place.prefix])} is how MoCo-v3 names its networks, and its ViT-S has 12 heads, {arch} 6, "
            f"which the tensors do not tell; write arch timm:{own.name}(num_heads=12), or (num_heads=6) if yours has 6"
        )
    if place.prefix.endswith("visual.") and "_clip_" in own.name and "quickgelu" not in own.name:
        quick = own.name.replace("_clip_", "_clip_quickgelu_")
        if any(name.rpartition(".")[2] == "input_resolution" for name in (*content.tensors, *content.beside)):
            raise InputError(
                f"{path}: the entry input_resolution is that of OpenAI's CLIP, which computes with QuickGELU; write "
                f"arch timm:{quick}"
            )
        log.warning(
            "nothing in the file tells which activation CLIP was trained with: OpenAI's needs arch timm:%s, OpenCLIP's "
            "of LAION %s",
            quick,
            arch,
        )


def explain_network_misfit(content: Content, places: list[NetworkPlace], arch: str, target: Target) -> str:
    """Say why no place of a file fits a network, and what to do."""
    if not content.tensors:
        return no_tensors(content)
    networks = recognise(content.shapes)
    others = [network for network in networks if not network.has_arch(arch)]
    other = f"; {describe_networks(others)}" if others and len(others) == len(networks) else ""
    if not places or 2 * len(places[0].missing) > len(target.shapes):
        return (
            f"no tensors look like {arch}{other}"
            if other
            else (
                f"no tensors look like {arch}; found {shown(content.tensors)}; write the arch that the weights were "
                "trained with, or save the network alone in its own names"
            )
        )
    place = places[0]
    where = f"behind {place.prefix!r} " if place.prefix else ""
    advice = other or "; write the arch that the weights were trained with"
    if place.missing == [name for name in place.missing if name.startswith("head.norm.")] != []:
        return (
            f"{where}the final norm of {arch} (head.norm) is missing: it was added in finetuning, and the pretrained "
            "network alone (as of ConvNeXt V2, FCMAE) has no vector of its own; write the source of the finetuned one"
        )
    if place.missing:
        return f"{where}{len(place.missing)} tensors of {arch} are missing, first {place.missing[0]}{advice}"
    if place.misshapen:
        return where + _explain_shape(content, place, arch, target, advice)
    return (
        f"{where}{len(place.extra)} tensors in the parts of {arch} would be left out, first "
        f"{shown(place.extra[:1])}{advice}"
    )


def _explain_shape(content: Content, place: NetworkPlace, arch: str, target: Target, advice: str) -> str:
    name = place.misshapen[0]
    full = next((full for rest, full in place.names.items() if rest in (name, "positional_embedding", "pos_embed")), "")
    found = content.shapes.get(full, ())
    if "pos" not in name or target.network is None:
        return f"{name} has shape {found}, {arch} needs {target.shapes[name]}{advice}"
    from ssltransfer.checkpoints.timm_layouts import other_size

    side, other = other_size(target.architecture.name, found[-2] if len(found) > 1 else 0, target.network)
    images = f" (images of {side} pixels)" if side else ""
    return (
        f"{name} has shape {found}{images}, {arch} needs {target.shapes[name]}; it is kept as published and resampled "
        f"to the column size later: write arch {f'timm:{other}' if other else 'of a network that is built for it'}"
    )
