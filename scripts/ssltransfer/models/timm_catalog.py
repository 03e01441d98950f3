"""Networks and published weights of timm, from tables in this project: known without importing timm or torch.

`resources/timm/list_networks.py` writes the tables from the installed timm. A network that the tables do not know, of
a later release of timm, is an error here.
"""

import csv
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from typing import NamedTuple

from ssltransfer.errors import InputError
from ssltransfer.files import package_data
from ssltransfer.models.architecture import Architecture, parse_architecture, with_twin
from ssltransfer.models.readout import Pool


class TimmNetwork(NamedTuple):
    """What is known of a network without building it.

    Attributes
    ----------
    name : str
    width : int
        Elements of the network's own readout.
    tokens : bool
        Whether it is a plain transformer, whose output is a grid of patch tokens at one stride.
    prefix : int
        Tokens beside the patches: class token and registers.
    class_token : bool
    depth : int
        Blocks of a plain transformer whose tokens `layers-N` can read, else 0.
    patch : int or None
        Side of a patch in pixels, of plain transformers.
    strides, channels : tuple of int
        Of the maps, finest first.
    native_size : int or None
        Side in pixels of the images it is built for; None if it takes any.
    dynamic : bool
        Whether one network takes images of several sizes.
    parameters : int
        Without classifier.
    """

    name: str
    width: int
    tokens: bool
    prefix: int
    class_token: bool
    depth: int
    patch: int | None
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    native_size: int | None
    dynamic: bool
    parameters: int


class TimmWeights(NamedTuple):
    """Published weights.

    Attributes
    ----------
    repository : str
        On the Hugging Face hub, ``OWNER/NAME``; empty where there is only a `url`.
    url : str
    norm : str
        Name of the input normalisation of their training, or its values (see `norm_table.mean_and_std`).
    size : int
        Side of the images of their training in pixels.
    licence : str
    """

    repository: str
    url: str
    norm: str
    size: int
    licence: str


def find_network(arch: str) -> TimmNetwork:
    """Return the network of an `arch` of kind ``timm`` or ``torchvision``.

    Raises
    ------
    InputError
        If timm has no network of this name.
    """
    architecture = with_twin(parse_architecture(arch))
    known = _networks()
    if architecture.name not in known:
        raise InputError(f"arch: timm has no network {architecture.name!r}{_nearest(architecture.name, known)}")
    return _with_arguments(known[architecture.name], architecture)


def is_network(name: str) -> bool:
    """Whether timm has a network of this name."""
    return name in _networks()


def is_published(name: str) -> bool:
    """Whether timm publishes weights ``NAME.TAG``."""
    return name in _weights()


def find_weights(name: str) -> TimmWeights:
    """Return the published weights ``NAME.TAG``.

    Raises
    ------
    InputError
        If the tag is missing (what an untagged name means changes between releases) or unknown.
    """
    known = _weights()
    if name in known:
        return known[name]
    network, _, tag = name.partition(".")
    tags = tags_of(network)
    if tags and not tag:
        raise InputError(f"source timm:{name}: the tag is missing; write {_any(f'timm:{network}.{t}' for t in tags)}")
    if tags:
        raise InputError(f"source timm:{name}: {network} has no weights {tag!r}; write {_any(tags)} behind the dot")
    names = {weights.partition(".")[0] for weights in known}
    raise InputError(f"source timm:{name}: timm has no weights for {network!r}{_nearest(network, names)}")


def networks_of(repository: str) -> list[str]:
    """Return the networks that the weights of a repository of the hub are published for, in alphabetical order."""
    return sorted({name.partition(".")[0] for name, weights in _weights().items() if weights.repository == repository})


def tags_of(network: str) -> list[str]:
    """Return the tags of the published weights of a network."""
    return [name.partition(".")[2] for name in _weights() if name.partition(".")[0] == network]


def published_norms(network: str) -> list[str]:
    """Return the input normalisations of the published weights of a network, each once."""
    return sorted({_weights()[f"{network}.{tag}"].norm for tag in tags_of(network)})


def pooled_width(network: TimmNetwork, pool: Pool) -> int:
    """Return the number of elements of a readout.

    Raises
    ------
    InputError
        If the network has no such readout.
    """
    if not pool.kind:
        return network.width
    found = f"pool: found {pool.text!r}, but timm:{network.name} has"
    if not network.tokens:
        raise InputError(f"{found} no tokens; leave the cell empty for its own readout")
    if pool.kind in ("cls", "cls-mean") and not network.class_token:
        raise InputError(f"{found} no class token; write mean")
    if pool.kind == "token" and pool.number >= network.prefix:
        raise InputError(f"{found} {network.prefix} tokens beside its patches, counted from 0")
    if pool.kind == "layers" and pool.number > network.depth:
        blocks = f"{network.depth} blocks" if network.depth else "no blocks whose class tokens can be read"
        raise InputError(f"{found} {blocks}")
    return network.channels[-1] * {"cls-mean": 2, "layers": pool.number}.get(pool.kind, 1)


def _any(texts: Iterator[str] | list[str]) -> str:
    texts = list(texts)
    return " or ".join(texts[:4]) + (f" (or another of {len(texts)})" if len(texts) > 4 else "")


def _nearest(name: str, known: Iterator[str] | dict | set) -> str:
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; the nearest names are {', '.join(near)}" if near else ""


def _with_arguments(network: TimmNetwork, architecture: Architecture) -> TimmNetwork:
    """Change what the arguments of a plain transformer change; parameters about, as nearly all are in its blocks."""
    arguments = architecture.arguments
    if not network.tokens:
        return network
    if (wide := arguments.get("embed_dim")) is not None:
        parameters = round(network.parameters * (int(wide) / network.width) ** 2)
        network = network._replace(width=int(wide), channels=(int(wide),), parameters=parameters)
    if (patch := arguments.get("patch_size")) is not None:
        network = network._replace(patch=int(patch), strides=(int(patch),))
    if network.depth and "depth" in arguments:
        parameters = round(network.parameters * int(arguments["depth"]) / network.depth)
        network = network._replace(depth=int(arguments["depth"]), parameters=parameters)
    return network


def _rows(table: str) -> Iterator[dict[str, str]]:
    with package_data(f"resources/timm/{table}.tsv").open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


@cache
def _networks() -> dict[str, TimmNetwork]:
    return {
        row["network"]: TimmNetwork(
            row["network"],
            int(row["width"]),
            row["tokens"] == "1",
            int(row["prefix"]),
            row["class_token"] == "1",
            int(row["depth"]),
            int(row["patch"]) if row["patch"] else None,
            _numbers(row["strides"]),
            _numbers(row["channels"]),
            int(row["native_size"]) if row["native_size"] else None,
            row["dynamic"] == "1",
            int(row["parameters"]),
        )
        for row in _rows("networks")
    }


@cache
def _weights() -> dict[str, TimmWeights]:
    return {
        row["weights"]: TimmWeights(row["repository"], row["url"], row["norm"], int(row["size"]), row["licence"])
        for row in _rows("weights")
    }
