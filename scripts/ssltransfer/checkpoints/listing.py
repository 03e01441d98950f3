"""Table of the checkpoints of a suite: source, hash, and the results of conversion and verification."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from safetensors import safe_open

from ssltransfer.checkpoints.imagenet_head import near_chance
from ssltransfer.files import atomic_write
from ssltransfer.results.tensor_header import read_provenance

COLUMNS = ["model", "source", "sha256", "tensors", "left out", "forward", "head check"]


def list_checkpoints(paths: Iterable[Path], verified: dict[str, dict], heads: list[str]) -> list[list[str]]:
    """Describe converted checkpoints.

    Parameters
    ----------
    paths : iterable of Path
        Backbone files.
    verified : dict of str to dict
        Results of `imagenet_head.verify` by model.
    heads : list of str
        Models whose authors published a linear classifier.

    Returns
    -------
    list of list of str
        A header and one row per model.
    """
    rows = [COLUMNS]
    for path in paths:
        with safe_open(path, framework="numpy") as file:
            tensors = len(file.keys())
        metadata = read_provenance(path)
        files = json.loads(metadata.get("files", "{}"))
        forward = json.loads(metadata.get("forward", "{}"))
        rows.append(
            [
                path.stem,
                metadata.get("source", "").split(" ")[0],
                ", ".join(digest[:12] for digest in files.values()) or "-",
                str(tensors),
                metadata.get("left_out", "-"),
                f"finite, mean {forward['mean']:.3f}" if forward else "-",
                _head_check(path.stem, verified, heads),
            ]
        )
    return rows


def write_listing(table: list[list[str]], path: Path) -> None:
    """Write the table to a file and, aligned, to stderr."""
    with atomic_write(path) as temporary:
        temporary.write_text("".join("\t".join(row) + "\n" for row in table), encoding="utf-8")
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)), file=sys.stderr)


def _head_check(model: str, verified: dict[str, dict], heads: list[str]) -> str:
    if model in verified:
        result = verified[model]
        hint = ", near chance: order of the classes?" * near_chance(result["top1"], result["published"])
        return f"{result['top1']:.2f} (published {result['published']:.1f}{hint})"
    return "not measured: imagenet_val is not set" if model in heads else "no published classifier"
