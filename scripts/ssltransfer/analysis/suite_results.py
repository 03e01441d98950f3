"""What a suite's table folder holds, written by one job and read by the figures and the report."""

from dataclasses import dataclass

import pandas as pd

from ssltransfer.analysis.comparison import combine
from ssltransfer.analysis.correlation import CONVENTIONS, Conventions, correlations, task_matrix
from ssltransfer.results.scores import source_accuracy, source_datasets


@dataclass(frozen=True)
class Names:
    """What to call models and data sets: id -> label."""

    models: dict[str, str]
    datasets: dict[str, str]

    def model(self, model: str) -> str:
        """Label of a model, or its id."""
        return self.models.get(model, model)

    def dataset(self, dataset: str) -> str:
        """Label of a data set, or its id."""
        return self.datasets.get(dataset, dataset)


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
