"""What a suite's table folder holds, written by one job and read by the figures and the report."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ssltransfer.comparison import combine
from ssltransfer.correlation import CONVENTIONS, TASK, Conventions, correlations, task_matrix
from ssltransfer.files import read_json, replacing, write_json
from ssltransfer.scores import read_scores, source_accuracy, source_datasets
from ssltransfer.tables import Names, Table, write_table


@dataclass(frozen=True)
class Summary:
    """Everything that tables and figures of a suite are made from.

    Attributes
    ----------
    scores : pd.DataFrame
        The tidy table as collected (see `scores`).
    models : pd.DataFrame
        ``model``, ``label``, ``family``, ``source_accuracy`` (percent, NaN if unknown), ``highlight`` (whether it is
        a model that only the user has), in the order of the model table.
    datasets : dict
        Data set -> label.
    pretrained_on : dict
        Model -> data set of the suite it was pretrained on.
    conventions_name : str
        ``v1`` or ``v2``.
    leave_out : tuple of str
        Source data sets, which are no transfer targets.
    source_label : str
        What the source accuracy is.
    """

    scores: pd.DataFrame
    models: pd.DataFrame
    datasets: dict[str, str]
    pretrained_on: dict[str, str]
    conventions_name: str
    leave_out: tuple[str, ...]
    source_label: str

    @property
    def conventions(self) -> Conventions:
        """Conventions of the paper's version that the suite follows."""
        return CONVENTIONS[self.conventions_name]

    @property
    def names(self) -> Names:
        """Labels of models and data sets; a label that models share gets the id behind it."""
        ids, labels = self.models["model"], self.models["label"]
        told_apart = labels.where(~labels.duplicated(keep=False), labels + " (" + ids + ")")
        return Names(dict(zip(ids, told_apart, strict=True)), self.datasets)

    @property
    def source(self) -> pd.Series:
        """Source accuracy in percent, by model."""
        return self.models.set_index("model")["source_accuracy"].astype(float)

    @property
    def cells(self) -> pd.DataFrame:
        """One row a cell: measured where measured, else published."""
        return combine(self.scores)

    @property
    def matrix(self) -> pd.DataFrame:
        """Models x tasks."""
        return task_matrix(self.cells, list(self.models["model"]))


def summarise(
    scores: pd.DataFrame,
    models: list[dict],
    datasets: dict[str, str],
    pretrained_on: dict[str, str],
    conventions: str,
    relabelled: dict[str, str] | None = None,
) -> Summary:
    """Bring scores and model table together.

    Parameters
    ----------
    scores : pd.DataFrame
        Tidy table.
    models : list of dict
        Rows of the model table: ``model``, ``label``, ``family``, ``source_accuracy``.
    datasets : dict
        Data set -> label.
    pretrained_on : dict
        Model -> data set of the suite it was pretrained on.
    conventions : str
        ``v1`` or ``v2``.
    relabelled : dict, optional
        Data set -> the one whose images it has under other labels. With the images of a source data set it is no
        transfer target either.
    """
    x = source_accuracy(models, scores)
    sources = list(source_datasets(models))
    leave_out = (*sources, *(name for name, origin in (relabelled or {}).items() if origin in sources))
    published = set(scores.loc[scores["source"] != "measured", "model"])
    frame = pd.DataFrame(
        {
            "model": [row["model"] for row in models],
            "label": [row["label"] for row in models],
            "family": [row["family"] for row in models],
            "source_accuracy": x.to_list(),
            "highlight": [bool(published) and row["model"] not in published for row in models],
        }
    )
    if sources:
        label = f"Linear accuracy on {' / '.join(datasets.get(d, d) for d in sources)} (%)"
    else:
        label = "ImageNet top-1 accuracy (%)"
    return Summary(scores, frame, datasets, pretrained_on, conventions, leave_out, label)


def correlate_summary(summary: Summary) -> pd.DataFrame:
    """Correlate every task and panel of a suite with source accuracy (see `correlation.correlations`)."""
    return correlations(summary.matrix, summary.source, summary.conventions, summary.leave_out)


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
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")
