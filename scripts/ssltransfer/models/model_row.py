"""The network of a row of the model table: its columns, checked and completed without torch, before the first job."""

from collections.abc import Mapping

from ssltransfer.errors import InputError
from ssltransfer.models.architecture import Architecture, feature_width, parse_architecture
from ssltransfer.models.readout import parse_pool
from ssltransfer.models.timm_catalog import (
    find_network,
    find_weights,
    is_network,
    networks_of,
    pooled_width,
    published_norms,
)

WINDOWED = ("coat", "gcvit", "hiera", "maxvit", "maxxvit")
"""Beginnings of the names of hierarchical networks whose windows have to divide every map (Swin pads its maps)."""


def check_network(row: Mapping[str, str]) -> None:
    """Require a known network (column `arch`) that has the readout `pool` and takes images of `size`.

    Raises
    ------
    InputError
    """
    architecture, pool = _known(row["arch"]), parse_pool(row["pool"])
    if architecture.kind in ("timm", "torchvision"):
        pooled_width(find_network(row["arch"]), pool)
        check_weights(row["source"], row["arch"])
    elif pool.kind == "layers" and architecture.kind == "python":
        raise InputError(
            f"pool: found {pool.text!r}, but blocks of a user's module are not known; return them as tokens"
        )
    elif pool.kind and architecture.kind in ("resnet", "none"):
        raise InputError(f"pool: found {pool.text!r}, but {row['arch']} has one readout only; leave the cell empty")
    if row["size"]:
        check_size(row, int(row["size"]))


def _known(arch: str) -> Architecture:
    """Parse an `arch` and require that timm has a network of its name, which is also suggested for a bare name."""
    try:
        architecture = parse_architecture(arch)
    except InputError as error:
        hint = f"; did you mean timm:{arch}?" if is_network(arch) else ""
        raise InputError(f"{error}{hint}") from None
    if architecture.kind in ("timm", "torchvision"):
        find_network(arch)
    return architecture


def check_weights(source: str, arch: str) -> None:
    """Require that published weights of timm are those of an `arch`: of its shapes and with its activation.

    CLIP's networks with QuickGELU and with GELU have the same tensors; timm's list of weights says which is which.

    Raises
    ------
    InputError
        If a source of timm, or of a repository of the hub that timm lists, is unknown or belongs to the other one.
    """
    architecture = parse_architecture(arch)
    for address in source.split() if architecture.kind == "timm" else ():
        kind, _, rest = address.partition(":")
        if kind not in ("timm", "hf"):
            continue
        repository = find_weights(rest).repository if kind == "timm" else "/".join(rest.split("/")[:2]).split("@")[0]
        networks = networks_of(repository) if repository else []
        named = f"timm:{rest.partition('.')[0]}"
        if kind == "timm" and not _same_shapes(named, arch):
            raise InputError(f"source {address}: found arch {arch}, which has other tensors; write arch {named}")
        quick = [name for name in networks if "quickgelu" in name]
        if networks and bool(quick) != ("quickgelu" in architecture.name):
            raise InputError(
                f"source {address}: found arch {arch}, but these weights were trained with "
                f"{'QuickGELU' if quick else 'GELU'}; write arch timm:{(quick or networks)[0]}"
            )


def _same_shapes(named: str, arch: str) -> bool:
    """Whether two networks may have the same tensors; arguments of the arch can change what is compared."""
    own, other = find_network(arch), find_network(named)
    changed = set(parse_architecture(arch).arguments) - {"num_heads", "resample"}
    same = (own.width, own.channels, own.depth, own.parameters) == (
        *(other.width, other.channels, other.depth, other.parameters),
    )
    return bool(changed) or same


def check_size(row: Mapping[str, str], side: int) -> None:
    """Require that the network of a row takes images of `side` x `side` pixels; InputError otherwise."""
    if parse_architecture(row["arch"]).kind not in ("timm", "torchvision"):
        return
    network = find_network(row["arch"])
    windowed = network.name.startswith(WINDOWED)
    part, name = (network.strides[-1], "coarsest stride") if windowed else (network.patch, "patch")
    if part and side % part:
        near = max(round(side / part), 1) * part
        raise InputError(
            f"size: {row['arch']} would see images of {side} pixels, expected a multiple of its {name} of {part}; "
            f"write {near}"
        )


def own_norm(row: Mapping[str, str]) -> str:
    """Return the input normalisation of a row whose cell `norm` is empty: that of the published weights.

    Returns
    -------
    str
        A name of `config/norms.tsv`, or values as `norm_table.mean_and_std` reads them.

    Raises
    ------
    InputError
        If the weights are not of timm and others of the network were published with another one than ImageNet's, or
        the network or the weights are unknown.
    """
    architecture = _known(row["arch"])
    if architecture.kind == "none":
        return "none"
    if architecture.kind != "timm":
        return "imagenet"
    weights = [address.removeprefix("timm:") for address in row["source"].split() if address.startswith("timm:")]
    known = sorted({find_weights(name).norm for name in weights}) or published_norms(architecture.name)
    if len(known) != 1 or (known != ["imagenet"] and not weights):
        used = f"published weights of {row['arch']} use {' or '.join(known)}" if known else "none is published"
        raise InputError(f"norm: the cell is empty and {used}; write the one that your weights were trained with")
    return known[0]


def row_width(row: Mapping[str, str]) -> int | None:
    """Return the number of elements of the vector that a row's model gives for an image.

    None where only jobs know: of users' own networks, and of adopted models with a network of a later timm.
    """
    architecture = parse_architecture(row["arch"])
    if architecture.kind == "resnet":
        return feature_width(row["arch"])
    if architecture.kind == "torchvision" or (architecture.kind == "timm" and is_network(architecture.name)):
        return pooled_width(find_network(row["arch"]), parse_pool(row.get("pool", "")))
    return None
