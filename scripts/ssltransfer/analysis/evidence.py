"""Evidence for the claims of the paper: scores of its models, published or measured, and statistics of them."""

import pandas as pd

from ssltransfer.analysis.correlation import pearson, spearman
from ssltransfer.analysis.scale import higher_is_better, to_analysis_scale
from ssltransfer.analysis.tasks import CD_FSL, CONVENTIONS, FIGURE_SHOT, task_matrix, tasks_of
from ssltransfer.results.scores import Task

SUPERVISED = "supervised"


class Evidence:
    """Scores of the paper's models, with the selections and statistics that its claims are checked with.

    A selection of scores that are missing raises KeyError, so that no claim is judged on part of its evidence.

    Parameters
    ----------
    scores : pd.DataFrame
        Tidy table; tasks that some model lacks are dropped.
    models : list of dict
        Rows of the model table.
    version : str
        ``v1`` or ``v2``.
    expected : list of Task, optional
        Tasks that the paper has; by default those of `scores`.

    Raises
    ------
    KeyError
        No task has a score of every model.
    """

    def __init__(
        self, scores: pd.DataFrame, models: list[dict], version: str, expected: list[Task] | None = None
    ) -> None:
        self.labels = {row["model"]: row["label"] for row in models}
        self.matrix = task_matrix(scores, list(self.labels)).dropna(axis=1)
        if not len(self.matrix.columns):
            raise KeyError("no task has a score of every model")
        self.source = pd.Series([float(row["source_accuracy"]) for row in models], self.matrix.index)
        self.version = version
        self.expected = tasks_of(self.matrix.columns) if expected is None else expected

    def task(self, kind: str, dataset: str | None = None, metric: str | None = None, setting: str = "") -> pd.Series:
        """Scores of the one task that fits."""
        tasks = tasks_of(self.scores(kind, setting))
        found = [task for task in tasks if dataset in (None, task.dataset) and metric in (None, task.metric)]
        if len(found) != 1:
            raise KeyError(f"{kind} {dataset} {metric} {setting}: {len(found)} tasks")
        return self.matrix[found[0]]

    def scores(self, kind: str, setting: str | None = None) -> pd.DataFrame:
        """Scores of all tasks of a kind that the paper has."""
        wanted = [task for task in self.expected if task.kind == kind and setting in (None, task.setting)]
        if not wanted or not set(wanted) <= set(self.matrix.columns):
            raise KeyError(kind)
        return self.matrix[wanted]

    def counted(self) -> pd.DataFrame:
        """Scores of the tasks as the paper counts them: v1 25 (detection as one), v2 40."""
        parts = [self.scores("linear")]
        if self.version == "v2":
            few = self.scores("fewshot", FIGURE_SHOT)
            parts += [self.scores("finetune"), few, self.headline("detection-frozen")]
        else:
            few = self.scores("fewshot")
            parts += [few[[task for task in tasks_of(few) if task.dataset in CD_FSL]]]
        kinds = ["detection-finetune", "normals"] + (["segmentation"] if self.version == "v2" else [])
        return pd.concat([*parts, *(self.headline(kind) for kind in kinds)], axis=1)

    def headline(self, kind: str) -> pd.DataFrame:
        """Scores in the metric that stands for a kind (detection, normals, segmentation)."""
        metric = CONVENTIONS[self.version].headline(kind)
        return self.matrix[[task for task in tasks_of(self.scores(kind)) if task.metric == metric]]

    def ranking(self, values: pd.Series, better: int = 1) -> list[str]:
        """Labels of the models, best first."""
        return [self.labels[model] for model in (values * better).sort_values(ascending=False, kind="stable").index]

    def supervised_wins(self, matrix: pd.DataFrame) -> list[Task]:
        """Tasks on which the supervised model is better than every other one."""
        scores = higher_is_better(matrix)
        lead = scores.loc[SUPERVISED] - scores.drop(SUPERVISED).max()
        return tasks_of(lead[lead > 0].index)

    def r(self, values: pd.Series, metric: str, raw_x: bool = False, raw_y: bool = False, without=()) -> float:
        """Pearson correlation with source accuracy."""
        kept = [model for model in values.index if model not in without]
        x = to_analysis_scale(self.source[kept], "top1", raw_x)
        y = to_analysis_scale(values[kept], metric, raw_y)
        return float(pearson(x, y))

    def rho(self, values: pd.Series) -> float:
        """Spearman correlation with source accuracy."""
        return float(spearman(self.source, values))

    def mean_logit(self, kind: str) -> pd.Series:
        """Average log-odds of all tasks of a kind."""
        found = self.scores(kind)
        logits = {task: to_analysis_scale(found[task], task.metric) for task in tasks_of(found)}
        return pd.DataFrame(logits, index=found.index).mean(axis=1)
