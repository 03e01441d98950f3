"""Write networks.tsv and weights.tsv from the installed timm: what a suite checks without importing it.

    uv run resources/timm/list_networks.py

Builds every network without memory for its weights (10 minutes), so nothing is downloaded.
"""

import contextlib
import csv
import io
import sys
import warnings
from pathlib import Path

import timm
import torch
from timm.models import get_pretrained_cfg

from ssltransfer.models.norm_table import BUILT_IN
from ssltransfer.models.timm_backbone import TimmBackbone, takes_size

HERE = Path(__file__).parent
NORMS = BUILT_IN | {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
NETWORK = (
    *("network", "width", "tokens", "prefix", "class_token", "depth", "patch", "strides", "channels"),
    *("native_size", "dynamic", "parameters", "default"),
)
NO_VECTOR = ("deepseek_vit", "qwen3_vit", "gemma4")
"""Beginnings of networks of timm that give no vector for an image: encoders of language models."""
WEIGHTS = ("weights", "repository", "url", "norm", "size", "licence")


def describe_network(name: str) -> dict:
    """Return a row of networks.tsv."""
    backbone = TimmBackbone(_build(name, num_classes=0))
    net = backbone.network
    patch = getattr(getattr(net, "patch_embed", None), "patch_size", None)
    try:
        _build(name, dynamic_img_size=True)
        dynamic = True
    except TypeError:
        dynamic = not takes_size(name)
    cfg = get_pretrained_cfg(name, allow_unregistered=False)
    return {
        "network": name,
        "width": backbone.width,
        "tokens": int(backbone.has_tokens),
        "prefix": backbone.prefix_tokens if backbone.has_tokens else 0,
        "class_token": int(backbone.has_tokens and getattr(net, "cls_token", None) is not None),
        "depth": backbone.depth,
        "patch": (patch[0] if isinstance(patch, tuple) else patch) if backbone.has_tokens and patch else "",
        "strides": ",".join(map(str, backbone.strides)),
        "channels": ",".join(map(str, backbone.channels)),
        "native_size": backbone.native_size or "",
        "dynamic": int(dynamic),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "default": cfg.tag if cfg is not None and cfg.has_weights else "",
    }


def _build(name: str, **arguments: object) -> torch.nn.Module:
    with torch.device("meta"), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return timm.create_model(name, pretrained=False, **arguments)


def describe_weights(name: str) -> dict:
    """Return a row of weights.tsv."""
    cfg = get_pretrained_cfg(name)
    assert cfg is not None
    repository = cfg.hf_hub_id or ""
    return {
        "weights": name,
        "repository": f"timm/{name}" if repository == "timm/" else repository,
        "url": cfg.url if not repository else "",
        "norm": norm_of(cfg),
        "size": cfg.input_size[-1],
        "licence": cfg.license or "",
    }


def norm_of(cfg: object) -> str:
    """Return the name of a normalisation if it is a common one, else its values."""
    values = (tuple(cfg.mean), tuple(cfg.std))
    known = next((name for name, pair in NORMS.items() if pair == values), None)
    return known or f"{'/'.join(map(str, values[0]))}:{'/'.join(map(str, values[1]))}"


def write(path: Path, columns: tuple[str, ...], rows: list[dict]) -> None:
    """Write a table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    write(HERE / "weights.tsv", WEIGHTS, [describe_weights(name) for name in timm.list_pretrained()])
    rows = []
    for number, network in enumerate(timm.list_models(), start=1):
        if not network.startswith(NO_VECTOR):
            rows.append(describe_network(network))
        if number % 100 == 0:
            print(number, file=sys.stderr)
    write(HERE / "networks.tsv", NETWORK, rows)
