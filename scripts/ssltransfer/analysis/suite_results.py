"""The results of a suite: its scores and models, and everything that tables and figures derive from them."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from ssltransfer.analysis.comparison import measured_or_published
from ssltransfer.analysis.correlation import correlations, pair_correlations
from ssltransfer.analysis.domain import domain_scores
from ssltransfer.analysis.marks import left_out
from ssltransfer.analysis.ranking import mean_ranks
from ssltransfer.analysis.tasks import (
    CONVENTIONS,
    Conventions,
    TaskScores,
    interval_ends,
    protocol_suffixes,
    task_matrix,
)
from ssltransfer.results.scores import source_accuracy, source_datasets


@dataclass(frozen=True)
class SuiteResults:
    """Scores, models and datasets of a suite; derived values are computed once, when first used.

    Attributes
    ----------
    scores : pd.DataFrame
        The tidy table as collected (see `results.scores`).
    models : pd.DataFrame
        ``model``, ``label``, ``family``, ``source_accuracy`` (percent, NaN if unknown), ``highlight`` (whether only
        the user has the model), in the order of the model table.
    datasets : dict
        Dataset -> label.
    pretrained_on : dict
        Model -> dataset of the suite it was pretrained on.
    conventions_name : str
        ``v1`` or ``v2``.
    leave_out : tuple of str
        Source datasets, which are not transfer targets.
    source_label : str
        Label of the source accuracy.
    saved_correlations : pd.DataFrame or None
        Correlations that were computed before, None to compute them.
    """

    scores: pd.DataFrame
    models: pd.DataFrame
    datasets: dict[str, str]
    pretrained_on: dict[str, str]
    conventions_name: str
    leave_out: tuple[str, ...]
    source_label: str
    saved_correlations: pd.DataFrame | None = None

    @property
    def conventions(self) -> Conventions:
        """Conventions of the paper's version that the suite follows."""
        return CONVENTIONS[self.conventions_name]

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Tidy table with one row per cell: measured where measured, else published."""
        return measured_or_published(self.scores)

    @cached_property
    def analysed(self) -> pd.DataFrame:
        """The cells without those that the analysis leaves out (see `marks.left_out`)."""
        return self.cells[~left_out(self.cells)]

    @cached_property
    def shown(self) -> pd.DataFrame:
        """All cells as models x tasks, those that the analysis leaves out among them."""
        return task_matrix(self.cells, list(self.models["model"]))

    @cached_property
    def shown_ends(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Lower and upper ends of the intervals of `shown` (see `tasks.interval_ends`)."""
        return interval_ends(self.cells, list(self.models["model"]))

    @cached_property
    def tasks(self) -> TaskScores:
        """The analysed cells as models x tasks, with panels, averages and values on the analysis scale."""
        source = self.models.set_index("model")["source_accuracy"].astype(float)
        analysed = self.cells.assign(value=self.cells["value"].mask(left_out(self.cells)))
        matrix = task_matrix(analysed, list(source.index))
        ends = interval_ends(analysed, list(source.index))
        return TaskScores(matrix, source, self.conventions, self.leave_out, ends)

    @cached_property
    def suffixes(self) -> dict[str, str]:
        """Protocol -> suffix by which it differs from others of its kind (see `tasks.protocol_suffixes`)."""
        return protocol_suffixes(self.tasks.tasks)

    @cached_property
    def correlations(self) -> pd.DataFrame:
        """Correlation of every task and panel average with source accuracy (see `correlation.correlations`)."""
        if self.saved_correlations is not None:
            return self.saved_correlations
        return correlations(self.tasks, dict(zip(self.models["model"], self.models["family"], strict=True)))

    @cached_property
    def pair_correlations(self) -> dict[str, pd.DataFrame]:
        """Correlations between all pairs of tasks, by coefficient (see `correlation.pair_correlations`)."""
        return {name: pair_correlations(self.tasks, name) for name in ("pearson", "spearman")}

    @cached_property
    def mean_ranks(self) -> pd.DataFrame:
        """Mean rank of each model over the counted tasks (see `ranking.mean_ranks`); empty without such a task."""
        return mean_ranks(self.tasks.matrix[self.tasks.counted]) if self.tasks.counted else pd.DataFrame()

    @cached_property
    def domain_scores(self) -> pd.DataFrame:
        """Linear scores on the datasets that models were pretrained on (see `domain.domain_scores`)."""
        return domain_scores(self.analysed, self.pretrained_on)

    @cached_property
    def domain_ends(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Lower and upper ends of the intervals of `domain_scores`, NaN where there is none."""
        low, high = (
            domain_scores(self.analysed.assign(value=self.analysed[end]), self.pretrained_on) for end in ("low", "high")
        )
        return low.reindex_like(self.domain_scores), high.reindex_like(self.domain_scores)


def suite_results(
    scores: pd.DataFrame,
    models: list[dict],
    datasets: dict[str, str],
    pretrained_on: dict[str, str],
    conventions: str,
    relabelled: dict[str, str] | None = None,
    linear: Collection[str] = (),
) -> SuiteResults:
    """Join scores and model table.

    Parameters
    ----------
    scores : pd.DataFrame
        Tidy table.
    models : list of dict
        Rows of the model table: ``model``, ``label``, ``family``, ``source_accuracy``.
    datasets : dict
        Dataset -> label.
    pretrained_on : dict
        Model -> dataset of the suite it was pretrained on.
    conventions : str
        ``v1`` or ``v2``.
    relabelled : dict, optional
        Dataset -> the one whose images it has under other labels. With the images of a source dataset it is not a
        transfer target either.
    linear : collection of str
        See `source_accuracy`.

    Raises
    ------
    InputError
        A source accuracy is wrong (see `source_accuracy`).
    """
    x = source_accuracy(models, scores, linear)
    sources = source_datasets(models)
    leave_out = (*sources, *(name for name, original in (relabelled or {}).items() if original in sources))
    published = set(scores.loc[scores["source"] != "measured", "model"])
    table = pd.DataFrame(
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
    return SuiteResults(scores, table, datasets, pretrained_on, conventions, leave_out, label)
