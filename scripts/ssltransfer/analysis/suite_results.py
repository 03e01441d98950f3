"""The results of a suite: its scores and models, and everything that tables and figures derive from them."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from ssltransfer.analysis.comparison import measured_or_published
from ssltransfer.analysis.correlation import correlations, pair_correlations
from ssltransfer.analysis.domain import domain_scores
from ssltransfer.analysis.marks import left_out
from ssltransfer.analysis.noise import on_analysis_scale, task_noise
from ssltransfer.analysis.pairs import MANY_MODELS, SuitePairs, count_wins
from ssltransfer.analysis.ranking import (
    Order,
    by_dataset,
    datasets_like_these,
    datasets_needed,
    mean_ranks,
    shared_tasks,
    task_ranks,
    these_datasets,
)
from ssltransfer.analysis.scale import higher_is_better, is_logit
from ssltransfer.analysis.tasks import (
    CONVENTIONS,
    Conventions,
    TaskScores,
    interval_ends,
    protocol_suffixes,
    task_matrix,
    tasks_of,
)
from ssltransfer.results.metric_info import KINDS, METRICS, measured_cell
from ssltransfer.results.scores import AVERAGE, Task, is_published, source_accuracy, source_datasets

SHOWN_MODELS = 20
"""Number of models that figures show by name in suites of more than `MANY_MODELS`."""


@dataclass(frozen=True)
class SuiteResults:
    """Scores, models and datasets of a suite; derived values are computed once, when first used.

    Attributes
    ----------
    scores : pd.DataFrame
        The tidy table as collected (see `results.scores`).
    models : pd.DataFrame
        ``model``, ``label``, ``family``, ``source_accuracy`` (percent, NaN if unknown), ``measured`` (how that was
        measured here, such as ``linear on Shapes``; else empty), ``highlight`` (whether it is the user's own, see
        `suite_results`), in the order of the model table.
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
    compared : SuitePairs
        Pairs of models on the cells of the suite (see `analysis.pairs`).
    saved_ranks : pd.DataFrame or None
        Mean ranks that were computed before, None to compute them.
    training_runs : dict
        Model -> the training run that its weights were saved in, and the epoch; models without both are left out.
    saved_predictors : pd.DataFrame or None
        Predictors that were judged before (see `predictors.predictor_table`), None to judge them.
    saved_wins : tuple of pd.DataFrame or None
        `wins` that were counted before, None to count them.
    """

    scores: pd.DataFrame
    models: pd.DataFrame
    datasets: dict[str, str]
    pretrained_on: dict[str, str]
    conventions_name: str
    leave_out: tuple[str, ...]
    source_label: str
    saved_correlations: pd.DataFrame | None = None
    compared: SuitePairs = field(default_factory=SuitePairs)
    saved_ranks: pd.DataFrame | None = None
    training_runs: dict[str, tuple[str, float]] = field(default_factory=dict)
    saved_predictors: pd.DataFrame | None = None
    saved_wins: tuple[pd.DataFrame, pd.DataFrame] | None = None

    @property
    def conventions(self) -> Conventions:
        """Conventions of the paper's version that the suite follows."""
        return CONVENTIONS[self.conventions_name]

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Tidy table with one row per cell: measured where measured, else published; without `estimates`."""
        scores = self.scores
        return measured_or_published(scores[~_is_estimate(scores)])

    @cached_property
    def estimates(self) -> pd.DataFrame:
        """Rows of the tidy table that predict transfer and do not measure it."""
        return self.scores[_is_estimate(self.scores)]

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

    @property
    def pairs(self) -> pd.DataFrame:
        """Pairs of models on each cell whose outcomes are known, all or the listed ones (see `pairs.SuitePairs`)."""
        return self.compared.pairs

    @cached_property
    def wins(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Wins of each model over each other one, and comparisons, on the tasks that the paper counts.

        Models that were compared with no other are left out; the others are in the order of their mean ranks, those
        without one behind (see `pairs.count_wins`).
        """
        if self.saved_wins is not None:
            return self.saved_wins
        counted = [better for task, better in self.compared.better.items() if task in set(self.tasks.counted)]
        seen = {model for better in counted for model in better.index}
        models = [model for model in dict.fromkeys([*self.mean_ranks.index, *self.models["model"]]) if model in seen]
        return count_wins(counted, models)

    def shown_of(self, models: Iterable[str], most: int = SHOWN_MODELS) -> list[str]:
        """The models that a figure shows by name, in the order of the model table.

        Up to `MANY_MODELS` models of a suite these are all. Of more, they are `most`: highlighted ones first, then
        those of the best mean ranks, then the first of the model table.
        """
        known, table = set(models), list(self.models["model"])
        if len(table) <= MANY_MODELS:
            return [model for model in table if model in known]
        own = set(self.models.loc[self.models["highlight"], "model"])
        leading = sorted(dict.fromkeys([*self.mean_ranks.index, *table]), key=lambda model: model not in own)
        chosen = set([model for model in leading if model in known][:most])
        return [model for model in table if model in chosen]

    @cached_property
    def _ties(self) -> dict[Task, tuple[frozenset[str], frozenset[str]]]:
        """`Task` -> the models that are not told apart from the best one, and all models that were tested."""
        found = {}
        for task, better in self.compared.better.items():
            shown = task
            if not KINDS[task.kind].performance:
                same = [task.protocol, task.setting, task.metric]
                cells = self.cells[(self.cells[["protocol", "setting", "metric"]] == same).all(axis=1)]
                if cells["dataset"].nunique() > 1:
                    continue
                shown = task._replace(dataset=AVERAGE)
            values = self.tasks.matrix.get(shown, pd.Series(dtype=float)).dropna() * METRICS[task.metric].better
            best = values.idxmax() if len(values) and METRICS[task.metric].better else ""
            tested = frozenset(better.index)
            if best not in tested:
                continue
            found[shown] = frozenset(better.index[~(better.loc[best] | better[best])]), tested
        return found

    @cached_property
    def not_separable(self) -> dict[Task, frozenset[str]]:
        """`Task` -> the models that are not told apart from the best one, and that one.

        Tasks where this is unknown are left out: those without pairs, without a better direction, whose best model has
        no outcomes, or which are means over several datasets.
        """
        return {task: models for task, (models, _) in self._ties.items()}

    @cached_property
    def tested(self) -> dict[Task, frozenset[str]]:
        """`Task` of `not_separable` -> the models that were compared with the best one."""
        return {task: models for task, (_, models) in self._ties.items()}

    @cached_property
    def noise(self) -> dict[Task, pd.DataFrame]:
        """Covariance of the models for each task with known noise of the test images (see `noise.task_noise`)."""
        return task_noise(self.analysed, self.tasks.matrix, self.compared.covariances)

    @cached_property
    def ranked_tasks(self) -> list[Task]:
        """Counted tasks that all models have, which mean ranks are over."""
        return tasks_of(shared_tasks(self.tasks.matrix[self.tasks.counted]).columns)

    @cached_property
    def ranked_values(self) -> pd.DataFrame:
        """Log-odds of `ranked_tasks`, higher is better; tasks without log-odds are left out."""
        matrix = shared_tasks(self.tasks.matrix[self.tasks.counted])
        bounded = [task for task in self.ranked_tasks if is_logit(task.metric)]
        return higher_is_better(self.tasks.values.loc[matrix.index, bounded])

    @cached_property
    def order_like_these(self) -> Order | None:
        """Order of the models on datasets like those of the counted tasks (see `ranking.datasets_like_these`)."""
        values = self.ranked_values
        return datasets_like_these(values) if values.size else None

    @cached_property
    def known_noise(self) -> dict[Task, pd.DataFrame]:
        """`noise` of the ranked tasks for which it is known for all ranked models."""
        values = self.ranked_values
        return {
            task: covariance
            for task, covariance in self.noise.items()
            if task in values and not pd.isna(covariance.loc[values.index, values.index].to_numpy().diagonal()).any()
        }

    @cached_property
    def order_of_these(self) -> Order | None:
        """Order of the models on the very datasets of the tasks of `known_noise`."""
        return these_datasets(self.ranked_values, on_analysis_scale(self.known_noise, self.tasks.matrix))

    @cached_property
    def mean_ranks(self) -> pd.DataFrame:
        """Mean rank of each model over the counted tasks (see `ranking.mean_ranks`); empty without such a task.

        Further columns: ``rank_low``, ``rank_high`` (ranks that it can have on datasets like these), ``these_low``,
        ``these_high`` (the same on these datasets, see `ranking.Order.rank_sets`; NaN where unknown), and
        ``datasets_needed`` to tell it from the next model (see `ranking.datasets_needed`).
        """
        if self.saved_ranks is not None:
            return self.saved_ranks
        if not self.tasks.counted:
            return pd.DataFrame()
        matrix = self.tasks.matrix[self.tasks.counted]
        ranks = mean_ranks(matrix)
        for name, order in (("rank", self.order_like_these), ("these", self.order_of_these)):
            sets = order.rank_sets() if order else pd.DataFrame(columns=["low", "high"])
            ranks = ranks.join(sets.astype(float).add_prefix(f"{name}_"))
        if len(ranks):
            ranks["datasets_needed"] = datasets_needed(by_dataset(task_ranks(shared_tasks(matrix))).loc[ranks.index])
        return ranks

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


def _is_estimate(scores: pd.DataFrame) -> pd.Series:
    return scores["kind"].map({kind: KINDS[kind].estimate for kind in scores["kind"].unique()}).astype(bool)


def suite_results(
    scores: pd.DataFrame,
    models: list[dict],
    datasets: dict[str, str],
    pretrained_on: dict[str, str],
    conventions: str,
    relabelled: dict[str, str] | None = None,
    left_out: Collection[tuple[str, str]] = (),
    own: Collection[str] = (),
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
    left_out : collection of tuple of str
        See `source_accuracy`.
    own : collection of str
        Models to highlight where no published scores are shown. Beside published scores, all models without one are
        highlighted instead.

    Raises
    ------
    InputError
        A source accuracy is wrong (see `source_accuracy`).
    """
    x = source_accuracy(models, scores, left_out)
    sources = source_datasets(models)
    leave_out = (*sources, *(name for name, original in (relabelled or {}).items() if original in sources))
    published = set(scores.loc[is_published(scores), "model"])
    table = pd.DataFrame(
        {
            "model": [row["model"] for row in models],
            "label": [row["label"] for row in models],
            "family": [row["family"] for row in models],
            "source_accuracy": x["source_accuracy"].to_list(),
            "measured": _measured(models, x, datasets),
            "highlight": [row["model"] not in published if published else row["model"] in own for row in models],
        }
    )
    return SuiteResults(scores, table, datasets, pretrained_on, conventions, leave_out, _source_label(table, sources))


def _measured(models: list[dict], x: pd.DataFrame, datasets: dict[str, str]) -> list[str]:
    """How and on what source accuracies were measured, such as ``20-NN on ImageNet``; empty for other numbers.

    Where it could be another protocol, its name is in brackets: ``linear [linear-official] on ImageNet``.
    """
    texts = []
    for row, how, protocol in zip(models, x["measured"], x["protocol"], strict=True):
        _, dataset = measured_cell(str(row.get("source_accuracy")))
        name = f" [{protocol}]" if protocol else ""
        texts.append(f"{how.replace('nn', 'NN')}{name} on {datasets.get(dataset, dataset)}" if how else "")
    return texts


def _source_label(models: pd.DataFrame, sources: list[str]) -> str:
    """Label of the x axis; one that is common to all source accuracies where they are of several kinds."""
    known = models.loc[models["source_accuracy"].notna(), "measured"]
    if not sources or known.empty:
        return "ImageNet top-1 accuracy (%)"
    ways, places = zip(*(text.split(" on ", 1) if text else ("", "") for text in known), strict=True)
    if len(set(ways)) > 1 or "" in ways:
        return "Source accuracy (%)"
    return f"{ways[0].replace('linear', 'Linear', 1)} accuracy on {' / '.join(dict.fromkeys(places))} (%)"
