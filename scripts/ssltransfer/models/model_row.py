"""What a row of the model table says of its network: checked and completed without torch, before the first job."""

from collections.abc import Mapping

from ssltransfer.errors import InputError
from ssltransfer.models.architecture import feature_width, parse_architecture
from ssltransfer.models.readout import parse_pool
from ssltransfer.models.timm_catalog import find_network, find_weights, networks_of, pooled_width, published_norms


def check_network(row: Mapping[str, str]) -> None:
    """Require a known network (column `arch`) that has the readout `pool` and takes images of `size`.

    Raises
    ------
    InputError
    """
    architecture, pool = parse_architecture(row["arch"]), parse_pool(row["pool"])
    if architecture.kind in ("timm", "torchvision"):
        pooled_width(find_network(row["arch"]), pool)
        check_weights(row["source"], row["arch"])
    elif pool.kind and architecture.kind in ("resnet", "none"):
        raise InputError(f"pool: found {pool.text!r}, but {row['arch']} has one readout only; leave the cell empty")
    if row["size"]:
        check_size(row, int(row["size"]))


def check_weights(source: str, arch: str) -> None:
    """Require that an `arch` of timm computes with the activation that published weights were trained with.

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
        quick = [name for name in networks if "quickgelu" in name]
        if networks and bool(quick) != ("quickgelu" in architecture.name):
            raise InputError(
                f"source {address}: found arch {arch}, but these weights were trained with "
                f"{'QuickGELU' if quick else 'GELU'}; write arch timm:{(quick or networks)[0]}"
            )


def check_size(row: Mapping[str, str], side: int) -> None:
    """Require that the network of a row takes images of `side` x `side` pixels; InputError otherwise."""
    if parse_architecture(row["arch"]).kind not in ("timm", "torchvision"):
        return
    network = find_network(row["arch"])
    if network.patch and side % network.patch:
        near = max(round(side / network.patch), 1) * network.patch
        raise InputError(
            f"size: {row['arch']} would see images of {side} pixels, expected a multiple of its patch of "
            f"{network.patch}; write {near}"
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
        If weights of the network were published with several, and the source names none of them.
    """
    architecture = parse_architecture(row["arch"])
    if architecture.kind == "none":
        return "none"
    if architecture.kind != "timm":
        return "imagenet"
    library, _, weights = row["source"].partition(":")
    if library == "timm":
        return find_weights(weights).norm
    known = published_norms(architecture.name)
    if len(known) != 1:
        used = f"published weights of {row['arch']} use {' or '.join(known)}" if known else "none is published"
        raise InputError(f"norm: the cell is empty and {used}; write the one that your weights were trained with")
    return known[0]


def row_width(row: Mapping[str, str]) -> int | None:
    """Return the number of elements of the vector that a row's model gives for an image; None where only jobs know."""
    kind = parse_architecture(row["arch"]).kind
    if kind == "resnet":
        return feature_width(row["arch"])
    if kind in ("timm", "torchvision"):
        return pooled_width(find_network(row["arch"]), parse_pool(row.get("pool", "")))
    return None
