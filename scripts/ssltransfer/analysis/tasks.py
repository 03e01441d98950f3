"""Score matrix (models x tasks) and the paper's derived quantities: panels, counted tasks and averages.

The order of derivation is: score matrix -> panels -> counted tasks -> analysis scale -> panel averages. `TaskScores`
computes each step once, for tables, figures and correlations alike.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from ssltransfer.analysis.marks import as_tasks
from ssltransfer.analysis.published import PAPER_SPLITS
from ssltransfer.analysis.scale import to_analysis_scale
from ssltransfer.results.metric_info import KINDS, METRICS
from ssltransfer.results.scores import AVERAGE, CELL, TASK, Task

#: Datasets of the cross-domain few-shot benchmark CD-FSL; the paper calls the other few-shot datasets Kornblith's.
CD_FSL = ("cropdiseases", "eurosat", "isic", "chestx")
#: The number of shots that stands for few-shot in Fig. 1, the radar chart and the counts of tasks.
FIGURE_SHOT = "20-shot"
#: Kind -> the setting that stands for it where a protocol has it beside others: 20 neighbours are DINO's best number.
FIGURE_SETTING = {"fewshot": FIGURE_SHOT, "knn": "20-nn"}
#: Source accuracy, where it stands beside tasks as a column of its own.
SOURCE = Task("", "", "", "", "source")


@dataclass(frozen=True)
class Conventions:
    """Analysis choices that differ between v1 and v2 of the paper.

    Attributes
    ----------
    normals : str
        Metric that stands for surface normals in Fig. 1 and in averages.
    merge_shots : bool
        Whether the few-shot panel averages over all shots; otherwise each number of shots is a panel.
    raw_properties : bool
        Whether calibration, colour and attention are correlated raw against raw (the prose of v1), not on logits.
    """

    normals: str
    merge_shots: bool
    raw_properties: bool

    def headline(self, kind: str) -> str | None:
        """Metric that stands for `kind`; None where each dataset has its own."""
        return self.normals if kind == "normals" else KINDS[kind].headline

    def raw(self, kind: str) -> bool:
        """Whether scores of `kind`, and source accuracy beside them, are not transformed."""
        return self.raw_properties and not KINDS[kind].performance


CONVENTIONS = {
    "v1": Conventions(normals="mean-angle", merge_shots=True, raw_properties=True),
    "v2": Conventions(normals="within-11.25", merge_shots=False, raw_properties=False),
}


@dataclass(frozen=True)
class Panel:
    """A set of tasks that the paper averages: one panel of Fig. 1.

    Attributes
    ----------
    protocol, kind : str
        As in the tidy table.
    setting : str
        Empty where the panel covers all settings.
    benchmark : str
        ``CD-FSL`` or ``Kornblith`` where few-shot protocols have datasets of both, else empty.
    tasks : tuple of Task
        Columns of the score matrix.
    """

    protocol: str
    kind: str
    setting: str
    benchmark: str
    tasks: tuple[Task, ...]

    @property
    def cd_fsl(self) -> bool:
        """Whether it is the CD-FSL benchmark beside other few-shot datasets."""
        return self.benchmark == "CD-FSL"

    @property
    def name(self) -> str:
        """Identifier, also used in file names."""
        return "-".join(part for part in (self.protocol, "cd-fsl" if self.cd_fsl else "", self.setting) if part)

    @property
    def average(self) -> Task:
        """The task that the average over the panel is."""
        return Task(self.protocol, self.kind, AVERAGE, self.setting, "mean")


def task_matrix(scores: pd.DataFrame, models: list[str]) -> pd.DataFrame:
    """Arrange scores as models x tasks, both in the order given; missing cells are NaN.

    Properties of the features (calibration, inversion, attention) are averaged over datasets first, as the
    paper publishes them; every other dataset is a task of its own.

    Parameters
    ----------
    scores : pd.DataFrame
        Tidy table with one row per cell.
    models : list of str
        Rows of the matrix.

    Returns
    -------
    pd.DataFrame
        Columns are a MultiIndex with the levels of `Task`.
    """
    performance = scores[[KINDS[kind].performance for kind in scores["kind"]]]
    properties = scores.drop(performance.index)
    by_model = [name for name in CELL if name != "dataset"]
    means = properties.groupby(by_model, sort=False)["value"].mean().reset_index().assign(dataset=AVERAGE)
    both = pd.concat([performance[[*CELL, "value"]], means[[*CELL, "value"]]]) if len(means) else performance
    order = pd.MultiIndex.from_frame(both[TASK].drop_duplicates())
    wide = both.pivot(index="model", columns=TASK, values="value")
    return wide.reindex(index=models, columns=order)


def interval_ends(scores: pd.DataFrame, models: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Arrange the ends of intervals as `task_matrix` arranges scores; NaN where there is none.

    The interval of a mean over k datasets joins those of its datasets, whose images are independent: each end is as far
    from the mean as the root of the sum of their squared distances, divided by k.

    Parameters
    ----------
    scores, models
        As for `task_matrix`.

    Returns
    -------
    tuple of pd.DataFrame
        Lower and upper ends, models x tasks, in the unit of each metric.
    """
    values = task_matrix(scores, models)
    datasets = as_tasks(scores).groupby(CELL, sort=False)["value"].transform("size")

    def end(name: str, sign: int) -> pd.DataFrame:
        share = ((scores[name] - scores["value"]) ** 2 / datasets).fillna(math.inf)
        distance = task_matrix(scores.assign(value=share), models) ** 0.5
        return values + sign * distance.where(distance < math.inf)

    return end("low", -1), end("high", 1)


def tasks_of(columns: Iterable[tuple]) -> list[Task]:
    """Tasks of the columns of a score matrix, or of any other rows of task ids."""
    return [Task(*column) for column in columns]


def transfer_targets(tasks: Iterable[Task], leave_out: Collection[str] = ()) -> list[Task]:
    """Tasks that count as transfer targets: all but those on source datasets (`leave_out`) and on other splits.

    A dataset of another split than the paper's does not count beside the one with the paper's (see
    `published.PAPER_SPLITS`), or a protocol would have the same images twice.
    """
    tasks = list(tasks)
    replaced = {(task.protocol, PAPER_SPLITS.get(task.dataset)) for task in tasks}
    return [task for task in tasks if task.dataset not in leave_out and (task.protocol, task.dataset) not in replaced]


def panels(tasks: Iterable[Task], conventions: Conventions) -> list[Panel]:
    """Group tasks into the panels of Fig. 1, in the order of the tasks.

    Few-shot tasks of CD-FSL form their own panel beside other datasets, and so does each number of shots, unless
    `conventions` merge them.
    """
    groups: dict[tuple, list[Task]] = {}
    benchmarks: dict[str, set[bool]] = {}
    for task in tasks:
        headline = conventions.headline(task.kind)
        if not KINDS[task.kind].performance or headline not in (None, task.metric) or METRICS[task.metric].secondary:
            continue
        few, cd_fsl = task.kind == "fewshot", task.dataset in CD_FSL
        benchmarks.setdefault(task.protocol, set()).add(cd_fsl)
        setting = "" if few and conventions.merge_shots else task.setting
        groups.setdefault((task.protocol, task.kind, setting, few and cd_fsl), []).append(task)
    found = []
    for (protocol, kind, setting, cd_fsl), members in groups.items():
        both = kind == "fewshot" and len(benchmarks[protocol]) == 2
        benchmark = ("CD-FSL" if cd_fsl else "Kornblith") if both else ""
        found.append(Panel(protocol, kind, setting, benchmark, tuple(members)))
    return found


def protocol_suffixes(tasks: Iterable[Task]) -> dict[str, str]:
    """Tell protocols of one kind apart: protocol -> its id in brackets, empty where its kind has only one.

    Where the ids of all protocols of a kind begin with the kind, its name is left out.
    """
    kinds = {task.protocol: task.kind for task in tasks}
    suffixes = {}
    for protocol, kind in kinds.items():
        others = [other for other, its in kinds.items() if its == kind]
        named = all(other.startswith(kind) for other in others)
        rest = (protocol.removeprefix(kind).strip("-") or "default") if named else protocol
        suffixes[protocol] = f"[{rest}]" if len(others) > 1 else ""
    return suffixes


@dataclass(frozen=True)
class TaskScores:
    """The scores of a suite as models x tasks, with everything that the paper derives from them.

    Attributes
    ----------
    matrix : pd.DataFrame
        Models x tasks, in the unit of each metric (see `task_matrix`), without scores that are left out (see
        `marks.left_out`).
    source : pd.Series
        Source accuracy of each model in percent; NaN where unknown.
    conventions : Conventions
        Those of v1 or v2.
    leave_out : tuple of str
        Datasets that are not transfer targets because they are the x axis.
    ends : tuple of pd.DataFrame, optional
        Lower and upper ends of the intervals of `matrix` (see `interval_ends`).
    """

    matrix: pd.DataFrame
    source: pd.Series
    conventions: Conventions
    leave_out: tuple[str, ...] = ()
    ends: tuple[pd.DataFrame, pd.DataFrame] | None = None

    @cached_property
    def tasks(self) -> list[Task]:
        """Columns of the matrix."""
        return tasks_of(self.matrix.columns)

    @cached_property
    def targets(self) -> list[Task]:
        """Tasks that count as transfer targets."""
        return transfer_targets(self.tasks, self.leave_out)

    @cached_property
    def panels(self) -> list[Panel]:
        """All panels, in the order of the tasks."""
        return panels(self.targets, self.conventions)

    @cached_property
    def figure_panels(self) -> list[Panel]:
        """Panels of Fig. 1: of several numbers of shots or neighbours only the conventional one."""
        settings: dict[str, set[str]] = {}
        for panel in self.panels:
            settings.setdefault(panel.protocol, set()).add(panel.setting)
        return [
            panel
            for panel in self.panels
            if (chosen := FIGURE_SETTING.get(panel.kind)) == panel.setting or chosen not in settings[panel.protocol]
        ]

    @cached_property
    def counted(self) -> list[Task]:
        """Tasks that the paper counts, those of the panels of Fig. 1 (v2: 40)."""
        return [task for panel in self.figure_panels for task in panel.tasks]

    def figure_tasks(self, kinds: Collection[str]) -> list[Task]:
        """Tasks of some kinds, without source datasets, and of several settings only the conventional one."""
        tasks = [task for task in self.tasks if task.kind in kinds and task.dataset not in self.leave_out]
        tasks = [task for task in tasks if not METRICS[task.metric].secondary]
        found = {(task.kind, task.setting) for task in tasks}
        chosen = {kind: setting for kind, setting in FIGURE_SETTING.items() if (kind, setting) in found}
        if self.conventions.merge_shots:
            chosen.pop("fewshot", None)
        return [task for task in tasks if chosen.get(task.kind, task.setting) == task.setting]

    @cached_property
    def values(self) -> pd.DataFrame:
        """The matrix on the analysis scale."""
        return self._on_analysis_scale(self.matrix)

    def _on_analysis_scale(self, matrix: pd.DataFrame) -> pd.DataFrame:
        raw, columns = self.conventions.raw, self.matrix.columns
        values = {task: to_analysis_scale(matrix[task], task.metric, raw(task.kind)) for task in self.tasks}
        return pd.DataFrame(values, index=matrix.index, columns=columns)

    @cached_property
    def value_ends(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Lower and upper ends of the intervals of `values`, NaN where there is none."""
        if self.ends is None:
            none = pd.DataFrame(math.nan, self.matrix.index, self.matrix.columns)
            return none, none
        low, high = map(self._on_analysis_scale, self.ends)
        return low, high

    @cached_property
    def panel_means(self) -> pd.DataFrame:
        """Mean of `values` over the tasks of each panel (columns: panel names); NaN where a model lacks one of them."""
        means = {panel.name: self.values[list(panel.tasks)].mean(axis=1, skipna=False) for panel in self.panels}
        return pd.DataFrame(means, index=self.matrix.index)

    @cached_property
    def panel_ends(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Lower and upper ends of the intervals of `panel_means` for these datasets, NaN where a task has none.

        As in `interval_ends`, of independent test sets; tasks of one dataset and several metrics are none.
        """
        ends: tuple[dict, dict] = ({}, {})
        for panel in self.panels:
            tasks = list(panel.tasks)
            for sign, values, found in zip((-1, 1), self.value_ends, ends, strict=True):
                squares = ((values[tasks] - self.values[tasks]) ** 2).sum(axis=1, skipna=False)
                found[panel.name] = self.panel_means[panel.name] + sign * squares**0.5 / len(tasks)
        return pd.DataFrame(ends[0], index=self.matrix.index), pd.DataFrame(ends[1], index=self.matrix.index)

    def shared(self, panel: Panel) -> list[Task]:
        """Tasks of a panel that every model has which has a source accuracy and any score in the panel."""
        scored = self.matrix.loc[self.source.notna().reindex(self.matrix.index), list(panel.tasks)].dropna(how="all")
        return [task for task in panel.tasks if scored[task].notna().all()]

    def only(self, tasks: list[Task]) -> "TaskScores":
        """The scores of some tasks."""
        ends = None if self.ends is None else (self.ends[0][tasks], self.ends[1][tasks])
        return replace(self, matrix=self.matrix[tasks], ends=ends)

    def x(self, raw: bool = False) -> pd.Series:
        """Source accuracy on the analysis scale, or in percent where `raw`."""
        source = self.source.reindex(self.matrix.index)
        return pd.Series(to_analysis_scale(source, "top1", raw), source.index)
