"""The table folder of a suite: written by one job, read by the figures and the report."""

from pathlib import Path

import pandas as pd

from ssltransfer.analysis.correlation import TASK
from ssltransfer.analysis.suite_results import Summary
from ssltransfer.files import atomic_write, read_json, write_json
from ssltransfer.report.table import Table, write_table
from ssltransfer.results.scores import read_scores


def write_summary(summary: Summary, tables: list[Table], folder: str | Path) -> None:
    """Write the tidy scores, `tables` and what figures and report need to know of the suite into `folder`."""
    folder = Path(folder)
    _write_csv(summary.scores, folder / "scores.csv")
    _write_csv(summary.models, folder / "models.csv")
    for table in tables:
        write_table(folder, table)
    write_json(
        folder / "suite.json",
        {
            "datasets": summary.datasets,
            "pretrained_on": summary.pretrained_on,
            "conventions": summary.conventions_name,
            "leave_out": list(summary.leave_out),
            "source_label": summary.source_label,
            "tables": [{"name": t.name, "title": t.title, "caption": t.caption, "section": t.section} for t in tables],
        },
    )


def read_summary(folder: str | Path) -> Summary:
    """Read what `write_summary` wrote."""
    folder = Path(folder)
    suite = read_json(folder / "suite.json")
    models = pd.read_csv(folder / "models.csv", keep_default_na=False, na_values={"source_accuracy": [""]})
    return Summary(
        read_scores(folder / "scores.csv"),
        models.astype({"label": str, "family": str, "source_accuracy": float, "highlight": bool}),
        suite["datasets"],
        suite["pretrained_on"],
        suite["conventions"],
        tuple(suite["leave_out"]),
        suite["source_label"],
    )


def read_correlations(folder: str | Path) -> pd.DataFrame:
    """Read correlations.csv as it was written; text columns keep empty strings."""
    frame = pd.read_csv(Path(folder) / "correlations.csv", keep_default_na=False, na_values=[""])
    texts = ["panel", *TASK, "note", *(name for name in frame if name.endswith("_without"))]
    frame[texts] = frame[texts].astype(object).fillna("")
    return frame


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    with atomic_write(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")
