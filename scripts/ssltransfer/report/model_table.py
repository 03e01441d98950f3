"""Table of the models of a suite: architecture, width of the feature, source, checksum and licence."""

import contextlib
import json
from collections.abc import Mapping

import pandas as pd

from ssltransfer.analysis.suite_results import SuiteResults
from ssltransfer.checkpoints.sources import parse_alternatives
from ssltransfer.models.model_row import row_width
from ssltransfer.report.labels import joined, suite_labels
from ssltransfer.report.table import MISSING, Table, number, records_table

PAPER_ARCH = "resnet50"
"""Architecture of all models of the paper."""
DIGITS = 12
"""Digits of a checksum that the report shows; the csv has all."""


def model_table(
    results: SuiteResults, rows: Mapping[str, Mapping[str, str]], checkpoints: Mapping[str, Mapping]
) -> Table:
    """Describe the models of a suite.

    Parameters
    ----------
    results : SuiteResults
    rows : mapping
        Model -> its row of the model table; models without one have published scores only.
    checkpoints : mapping
        Model -> what its score files say about the checkpoint.
    """
    records = {}
    columns = (results.models[name] for name in ("model", "family", "source_accuracy", "measured"))
    for model, family, accuracy, measured in zip(*columns, strict=True):
        row = rows.get(model, {"arch": PAPER_ARCH, "source": "published scores only"})
        given = row["arch"] == "none"
        checkpoint = checkpoints.get(model, {})
        # Only a conversion knows the width of a user's own network.
        width = row_width(row) or checkpoint.get("network", {}).get("width")
        records[model] = {
            "family": family,
            "architecture": "given features" if given else row["arch"],
            "width": MISSING if width is None else str(width),
            "readout": row.get("pool", ""),
            "size": row.get("size", ""),
            "normalisation": "" if given else row.get("norm", ""),
            "source_accuracy": _source_accuracy(accuracy, measured),
            "source": _source(row, checkpoint),
            "checksum": _checksum(row.get("sha256", ""), checkpoint),
            "licence": row.get("licence", ""),
        }
    frame = pd.DataFrame.from_dict(records, orient="index")
    shown = frame.assign(checksum=frame["checksum"].map(_short))
    shown = shown.loc[:, shown.ne("").any()]
    caption = (
        "The model table of the suite. Width: elements of the feature that linear and few-shot classification see; "
        "compare models of other widths or architectures with care. Source accuracy: in percent, from the "
        "model table unless the cell says how it was measured here. Checksum: first digits of the SHA-256, where "
        "known; the csv has all."
    )
    labels = suite_labels(results)
    data = frame.rename_axis("model").reset_index()
    data.insert(1, "label", results.models["label"].to_numpy())
    headings = {name: name.replace("_", " ").capitalize() for name in frame} | {"width": "Feature width"}
    more = {"headings": headings, "row_labels": labels.models, "section": "overview", "data": data}
    return records_table("model-details", "Models", caption, shown, **more)


def _source_accuracy(value: float, measured: str) -> str:
    """Source accuracy in percent, and how it was measured if it was."""
    return joined(number(value, 1), f"({measured})" if measured else "")


def _source(row: Mapping[str, str], checkpoint: Mapping) -> str:
    """Return the source of a model, or the copy in another format that was taken in its place."""
    used = checkpoint.get("source", "")
    copies = parse_alternatives(row.get("alternatives", ""))
    return used if used in {" ".join(file.address for file in copy.files) for copy in copies} else row["source"]


def _short(checksums: str) -> str:
    """First digits of each of several checksums."""
    return " ".join(text[:DIGITS] + "…" * (len(text) > DIGITS) for text in checksums.split())


def _checksum(known: str, checkpoint: Mapping) -> str:
    """SHA-256 of the files of a checkpoint, else what the model table says of it."""
    files = checkpoint.get("files", {})
    with contextlib.suppress(ValueError):  # text of another kind names no files
        files = json.loads(files) if isinstance(files, str) else files
    return " ".join(map(str, files.values())) if isinstance(files, dict) and files else known
