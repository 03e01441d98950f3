"""What a row of the model table says of its network: checked and completed without torch, before the first job."""

from collections.abc import Mapping

from ssltransfer.errors import InputError
from ssltransfer.models.architecture import feature_width, parse_architecture
from ssltransfer.models.readout import parse_pool
from ssltransfer.models.timm_catalog import find_network, find_weights, pooled_width, published_norms


def check_network(row: Mapping[str, str]) -> None:
    """Require a known network (column `arch`) that has the readout `pool` and takes images of `size`.

    Raises
    ------
    InputError
    """
    architecture, pool = parse_architecture(row["arch"]), parse_pool(row["pool"])
    if architecture.kind in ("timm", "torchvision"):
        pooled_width(find_network(row["arch"]), pool)
    elif pool.kind and architecture.kind in ("resnet", "none"):
        raise InputError(f"pool: found {pool.text!r}, but {row['arch']} has one readout only; leave the cell empty")
    if row["size"]:
        check_size(row, int(row["size"]))


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
