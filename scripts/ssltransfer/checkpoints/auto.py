"""Format ``auto``: find a residual network in a torch or safetensors file of unknown layout, strictly.

A file is a tree of mappings with tensors at its ends. Each tensor has one full name: the keys that lead to it, joined
by dots. The backbone is where **all** tensors of the architecture stand behind one beginning of these names (the
prefix), whatever wraps or surrounds it, for example ``state_dict.module.encoder_q.``.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ssltransfer.checkpoints.file_kind import SAVE_STATE_DICT
from ssltransfer.checkpoints.read_checkpoint import ReadCheckpoint, log_dropped
from ssltransfer.checkpoints.recognition import NUMBERED, Network, Shapes, prefixes, recognise
from ssltransfer.checkpoints.torch_file import load_content
from ssltransfer.errors import InputError
from ssltransfer.models.architecture import backbone_shapes
from ssltransfer.safe_pickle import shown
from ssltransfer.torch_reader import foreign_names

log = logging.getLogger(__name__)

MAX_DEPTH = 20
"""Of the tree of a file; the deepest published one has 5 levels."""

MAX_NAME, MAX_PARTS, MAX_BESIDE = 1000, 50, 100_000
"""Letters and parts of a full name, several times those of any network; values beside the tensors that are named."""

_OWN = re.compile(r"(layer|conv|bn)\d+\..*")
"""Names beside the backbone's, which a deeper network of the same kind would have; heads are called otherwise."""

_COUNTER = "num_batches_tracked"
_STATISTICS = ("mean", "std", "pixel_mean", "pixel_std")
"""Buffers of three values by which a network normalises its own input."""


@dataclass(frozen=True)
class Place:
    """A set of names that may be the backbone.

    Attributes
    ----------
    prefix : str
        Beginning of the names, empty or ending in a dot.
    names : dict of str to str
        torchvision's name -> full name, for the tensors that are there.
    missing : list of str
        torchvision's names of those that are not there (step counters of batch norm aside, if none is).
    misshapen : list of str
        torchvision's names of those of another shape.
    extra : list of str
        Full names of tensors that a deeper or otherwise extended network has.
    """

    prefix: str
    names: dict[str, str]
    missing: list[str]
    misshapen: list[str]
    extra: list[str]

    @property
    def fits(self) -> bool:
        """Whether every tensor of the network is there once, with its shape, and no other belongs to it."""
        return not (self.missing or self.misshapen or self.extra)

    @property
    def cell(self) -> str:
        """Value of the column `format` that chooses this place."""
        return f"auto:{self.prefix or '.'}"


Found = TypeVar("Found", bound=Place)


@dataclass
class Content:
    """What a file holds.

    Attributes
    ----------
    tensors : dict of str to Tensor
        By full name.
    beside : list of str
        Full names of everything else, not deeper than the first such value; at most `MAX_BESIDE`.
    modules : dict of str to str
        Entry -> class, for objects (as whole pickled modules) at the top of the file or one level below.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    beside: list[str] = field(default_factory=list)
    modules: Mapping[str, str] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by its full name."""
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    def has_values(self, place: Place) -> bool:
        """Whether all tensors of a place hold plain values."""
        return all(has_values(self.tensors[full]) for full in place.names.values())


def flatten(content: Any, path: Path) -> Content:
    """List all tensors of a file by their full names.

    Raises
    ------
    InputError
        If two tensors have the same full name.
    """
    found = Content(modules=foreign_names(content))
    seen: set[int] = set()

    def walk(value: Any, name: str, depth: int) -> None:
        if len(name) > MAX_NAME or name.count(".") > MAX_PARTS:
            raise InputError(
                f"{path}: {shown([name])} is a name of over {MAX_NAME} letters or {MAX_PARTS} parts; save the state "
                f"dict alone: {SAVE_STATE_DICT}"
            )
        if isinstance(value, Tensor):
            if name in found.tensors:
                raise InputError(f"{path}: two tensors have the full name {shown([name])}; save one state dict alone")
            found.tensors[name] = value.detach()
        elif isinstance(value, Mapping | list | tuple) and value and depth < MAX_DEPTH:
            if id(value) in seen:
                return
            seen.add(id(value))
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            for key, item in items:
                walk(item, f"{name}.{key}" if name else str(key), depth + 1)
        elif len(found.beside) < MAX_BESIDE:
            found.beside.append(name)

    walk(content, "", 0)
    return found


def find_places(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> list[Place]:
    """List the places where a residual network may stand: wherever the name of its first convolution does.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Shape of every tensor of the file by its full name.
    expected : mapping of str to tuple of int
        Shape of every tensor of the network by torchvision's name.

    Returns
    -------
    list of Place
        The most complete one first; of equal ones that with the shortest prefix.
    """
    places = []
    shapes = Shapes(shapes)
    for numbers in ({}, NUMBERED):
        renamed = {name: _rename(name, numbers) for name in expected}
        for prefix in dict.fromkeys(prefixes(shapes, renamed["conv1.weight"])):
            begun = prefix + renamed["layer1.0.conv1.weight"] in shapes
            if not begun and 2 * len(shapes.behind(prefix)) <= len(expected):
                continue
            names = {name: prefix + new for name, new in renamed.items() if prefix + new in shapes}
            if begun or 2 * len(names) > len(expected):
                places.append(_place(prefix, names, numbers, shapes, expected))
    return sorted(places, key=lambda place: (-len(place.names), len(place.prefix), place.prefix))


def _rename(name: str, numbers: Mapping[str, str]) -> str:
    module, _, rest = name.partition(".")
    return f"{numbers.get(module, module)}.{rest}"


def _place(
    prefix: str,
    names: dict[str, str],
    numbers: Mapping[str, str],
    shapes: Shapes,
    expected: Mapping[str, tuple[int, ...]],
) -> Place:
    counters = {name for name in expected if name.endswith(_COUNTER)}
    needed = set(expected) - (set() if counters & set(names) else counters)
    taken = set(names.values())

    def is_own(rest: str) -> bool:
        return rest.partition(".")[0] in numbers.values() if numbers else _OWN.fullmatch(rest) is not None

    return Place(
        prefix,
        names,
        [name for name in expected if name in needed and name not in names],
        [name for name, full in names.items() if shapes[full] != expected[name]],
        [name for name in shapes.behind(prefix) if name not in taken and is_own(name[len(prefix) :])],
    )


def read_auto(path: Path, choice: str, arch: str) -> ReadCheckpoint:
    """Find and read the backbone in a file.

    Parameters
    ----------
    path : Path
    choice : str
        Beginning of the prefix to read (what follows ``auto:``); ``.`` for the empty prefix, empty for any.
    arch : str
        See `resnet.build_resnet`.

    Raises
    ------
    InputError
        If the backbone is nowhere, or in several places with different values; and see `load_content`.
    """
    content = flatten(load_content(path), path)
    places = find_places(content.shapes, backbone_shapes(arch))
    place = choose_place(path, [place for place in places if place.fits], choice, arch, content)
    if place is None:
        raise InputError(f"{path}: {explain_misfit(content, places, arch)}")
    tensors = content.tensors
    state = {name: tensors[full] for name, full in place.names.items()}
    if wrong := [full for full in place.names.values() if not has_values(tensors[full])]:
        raise InputError(f"{path}: {shown(wrong[:1])} holds no values in plain memory; save the weights themselves")
    weight, bias = (tensors.get(f"{place.prefix}fc.{entry}") for entry in ("weight", "bias"))
    head = None
    if (
        weight is not None
        and bias is not None
        and weight.ndim == 2
        and weight.shape[1] == len(state["layer4.0.bn3.bias"])
        and has_values(weight)
        and has_values(bias)
    ):
        head = (weight, bias)
    taken = set(place.names.values())
    dropped = [name for name in tensors if name not in taken]
    log_left_out(content, dropped, place.prefix)
    return ReadCheckpoint(state, head, dropped, place.prefix)


def log_left_out(content: Content, dropped: list[str], prefix: str) -> None:
    """Log what is left out of a file whose backbone stands behind `prefix`; `dropped` are its other tensors."""
    log.info("backbone: the tensors behind %r", prefix)
    if content.beside:
        log.info("left out: %s, which are not tensors", shown(_tops(content.beside), 20))
    log_dropped(dropped, group=lambda name: _group(name, prefix))
    for name in dropped:
        tensor = content.tensors[name]
        if name.rpartition(".")[2] in _STATISTICS and tensor.numel() == 3 and has_values(tensor):
            values = ", ".join(f"{value:.4g}" for value in tensor.flatten().tolist())
            log.warning(
                "left out: %s (%s); the network normalised its own input: compare the column norm", name, values
            )


def choose_place(path: Path, fitting: Sequence[Found], choice: str, arch: str, content: Content) -> Found | None:
    """Return the one place that fits, None if there is none; InputError if several differ."""
    if choice:
        prefix = f"{choice.rstrip('.')}." if choice.rstrip(".") else ""
        exact = [place for place in fitting if place.prefix == prefix]
        chosen = exact or [place for place in fitting if prefix and place.prefix.startswith(prefix)]
        if fitting and not chosen:
            cells = " or ".join(place.cell for place in fitting)
            raise InputError(f"{path}: no tensors that fit {arch} begin with {prefix!r}; write the format {cells}")
        fitting = chosen
    different = [place for place in fitting[1:] if not _same(fitting[0], place, content.tensors)]
    if different:
        places = [fitting[0], *different]
        raise InputError(
            f"{path}: {len(places)} sets of tensors fit {arch} and differ, behind "
            f"{shown([place.prefix for place in places])}; write the one to use as the format of the row: "
            f"{' or '.join(place.cell for place in places[:5])}"
        )
    if len(fitting) > 1:
        log.info("the same tensors stand behind %s", shown([place.prefix for place in fitting[1:]]))
    return fitting[0] if fitting else None


def _same(one: Place, other: Place, tensors: Mapping[str, Tensor]) -> bool:
    return one.names.keys() == other.names.keys() and all(
        _equal(tensors[full], tensors[other.names[name]]) for name, full in one.names.items()
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    return has_values(one) and has_values(other) and one.dtype == other.dtype and torch.equal(one, other)


def has_values(tensor: Tensor) -> bool:
    """Whether a tensor holds plain values in memory."""
    return tensor.layout == torch.strided and tensor.device.type == "cpu"


def _group(name: str, prefix: str) -> str:
    """Beginning of a name up to the first part in which it differs from the backbone's."""
    parts, own = name.split("."), prefix.split(".")
    same = next((i for i, (part, other) in enumerate(zip(parts, own, strict=False)) if part != other), len(own) - 1)
    return ".".join(parts[: same + 1])


def _tops(names: list[str]) -> Iterator[str]:
    return iter(dict.fromkeys(name.partition(".")[0] for name in names))


def explain_misfit(content: Content, places: list[Place], arch: str) -> str:
    """Say why no place of a file fits an architecture, and what to do."""
    if not content.tensors:
        return no_tensors(content)
    networks = recognise(content.shapes)
    others = [network for network in networks if not network.has_arch(arch)]
    if others and len(others) == len(networks):
        return f"{_describe(others)}, not those of {arch}; {advise(others)}"
    if not places:
        return (
            f"no tensors look like {arch}; found {shown(content.tensors)}; write the arch that the weights were "
            "trained with, or save the backbone alone in torchvision's names"
        )
    place = places[0]
    where = f"behind {place.prefix!r} " if place.prefix else ""
    if place.missing:
        return (
            f"{where}{len(place.missing)} tensors of {arch} are missing, first {place.missing[0]}; save the whole "
            f"state dict: {SAVE_STATE_DICT}"
        )
    if place.misshapen:
        full = place.names[place.misshapen[0]]
        return (
            f"{where}{place.misshapen[0]} has shape {tuple(content.tensors[full].shape)}, which {arch} does not; write "
            "the arch that the weights were trained with"
        )
    return (
        f"{where}{len(place.extra)} tensors do not belong to {arch}, first {shown(place.extra[:1])}; write the arch "
        "that the weights were trained with"
    )


def no_tensors(content: Content) -> str:
    """Say that a file holds no tensors, as whole pickled modules, and what to do."""
    if content.modules:
        entry, name = next(iter(content.modules.items()))
        place = f"in {entry!r} " if entry else ""
        return (
            f"found {place}a whole pickled object ({name}), which needs its code; load it where it was trained and "
            f"save its state dict: {SAVE_STATE_DICT}"
        )
    found = shown(_tops(content.beside)) or "nothing"
    return f"found no tensors, but {found}; name a file that holds a state dict: {SAVE_STATE_DICT}"


def describe_networks(networks: list[Network]) -> str:
    """Say which networks a file holds, and what to write for them."""
    return f"{_describe(networks)}; {advise(networks)}"


def _describe(networks: list[Network]) -> str:
    first = networks[0]
    where = f"behind {first.prefix!r} " if first.prefix else ""
    titles = dict.fromkeys(network.title for network in networks)
    return f"the tensors {where}are those of {_article(next(iter(titles)))}" + (
        f" (and of {' and '.join(list(titles)[1:3])})" if len(titles) > 1 else ""
    )


def _article(title: str) -> str:
    return f"{'an' if title[0] in 'AEI' else 'a'} {title}"


def advise(networks: list[Network]) -> str:
    """Say what to write for networks that a file holds."""
    if arches := dict.fromkeys(network.arch for network in networks if network.arch):
        return f"write arch {' or '.join(list(arches)[:5])}"
    return (
        "write the arch of this network, as timm:NAME, or where it cannot be read under these names the same weights "
        "from timm (source timm:NAME.TAG)"
    )
