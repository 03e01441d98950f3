"""Labels of models, datasets, protocols, panels and tasks: the only place where ids become text."""

from collections import Counter
from dataclasses import dataclass

from ssltransfer.analysis.suite_results import SHOWN_MODELS, SuiteResults
from ssltransfer.analysis.tasks import SOURCE, Panel
from ssltransfer.results.metric_info import KINDS, METRICS
from ssltransfer.results.scores import AVERAGE, Task, is_published

SETTINGS = {
    "linear": "Linear",
    "linear-scaled": "Linear, scaled",
    "linear-scaled-validation": "Linear, scaled on validation",
    "knn": "k-NN",
    "knn-scaled": "k-NN, scaled",
    "knn-scaled-validation": "k-NN, scaled on validation",
    "finetune": "Finetune",
    "finetune-scaled": "Finetune, scaled",
    "finetune-scaled-validation": "Finetune, scaled on validation",
}


def setting_label(setting: str) -> str:
    """Label of a variant within a protocol, or its id."""
    if setting.endswith("-nn"):
        return f"k = {setting.removesuffix('-nn')}"
    return SETTINGS.get(setting, setting)


def joined(*parts: str, by: str = " ") -> str:
    """Join the parts that are not empty."""
    return by.join(part for part in parts if part)


@dataclass(frozen=True)
class Labels:
    """Labels of a suite.

    Attributes
    ----------
    models, datasets : dict
        Id -> label; ids that are missing are their own labels.
    suffixes : dict
        Protocol -> suffix by which it differs from others of its kind, may be empty.
    """

    models: dict[str, str]
    datasets: dict[str, str]
    suffixes: dict[str, str]

    def model(self, model: str) -> str:
        """Label of a model."""
        return self.models.get(model, model)

    def family(self, family: str) -> str:
        """Label of a family, or of the model that is its own."""
        return self.models.get(family, family)

    def dataset(self, dataset: str) -> str:
        """Label of a dataset."""
        return self.datasets.get(dataset, dataset)

    def panel(self, panel: Panel) -> str:
        """Heading of a panel."""
        extra = joined(panel.benchmark, setting_label(panel.setting), by=", ")
        return joined(KINDS[panel.kind].label, f"({extra})" if extra else "", self.suffixes[panel.protocol])

    def task(self, task: Task, cd_fsl: bool = False) -> str:
        """Full name of a task, or of the average over a panel (`cd_fsl`: that of CD-FSL beside other datasets)."""
        kind, parts = KINDS[task.kind], []
        if task.metric not in METRICS:
            parts += ["average", "CD-FSL" if cd_fsl else ""]
        elif task.dataset != AVERAGE:
            parts.append(self.dataset(task.dataset))
        parts.append(setting_label(task.setting))
        if task.metric in METRICS and (kind.own_metric or METRICS[task.metric].secondary):
            parts.append(METRICS[task.metric].label)
        return joined(joined(kind.label, self.suffixes[task.protocol]), *parts, by=" · ")

    def axis(self, task: Task) -> str:
        """Short name of a task for an axis: abbreviated kind, dataset or metric, number of shots."""
        if task == SOURCE:
            return "Source accuracy"
        suffix, shots = self.suffixes[task.protocol], task.setting.removesuffix("-shot").removesuffix("-nn")
        return joined(KINDS[task.kind].short, suffix, self.subject(task), shots)

    def subject(self, task: Task) -> str:
        """Label of the metric or the dataset of a task, by which it differs from others of its kind and setting."""
        if KINDS[task.kind].own_metric:
            return METRICS[task.metric].label
        beside = task.metric in METRICS and METRICS[task.metric].secondary
        return joined(self.dataset(task.dataset), METRICS[task.metric].label if beside else "")


def suite_labels(results: SuiteResults) -> Labels:
    """Labels of a suite; one that several models or several datasets with scores share is followed by the id."""
    scored = set(results.scores["dataset"])
    datasets = {dataset: label for dataset, label in results.datasets.items() if dataset in scored}
    models = dict(zip(results.models["model"], results.models["label"], strict=True))
    return Labels(_told_apart(models), results.datasets | _told_apart(datasets), results.suffixes)


def source_note(results: SuiteResults) -> str:
    """Sentences for captions about how source accuracies were measured; empty where there is one way only."""
    known = results.models[results.models["source_accuracy"].notna()]
    ways = known["measured"].unique()
    if len(ways) < 2:
        return "".join(f"Source accuracy: {way}, one of several protocols on it." for way in ways if " [" in way)
    labels, notes = suite_labels(results), []
    for how, own in known[known["measured"].ne("")].groupby("measured", sort=False):
        notes.append(f"measured here ({how}) for {', '.join(map(labels.model, own['model']))}")
    if "" in ways:
        notes.append("for the others a number of the table of models")
    lower = "Nearest neighbours score lower than linear classifiers."
    votes = known["measured"].str.match(r"\w+-NN ").any()
    return joined(f"Source accuracy: {'; '.join(notes)}.", lower if votes else "")


def without_source_note(results: SuiteResults, most: int = 8) -> str:
    """Sentence for captions of figures against source accuracy about the models that lack one; empty without any."""
    models = results.models
    absent = models.loc[models["source_accuracy"].isna() & models["model"].isin(results.analysed["model"]), "model"]
    labels = suite_labels(results)
    names = [*map(labels.model, absent[:most]), *([f"{len(absent) - most} more"] * (len(absent) > most))]
    return (
        f"Not drawn, because the table of models has no source accuracy of theirs: {', '.join(names)}." if names else ""
    )


def shown_note(results: SuiteResults, subject: str, choice: str = "", most: int = SHOWN_MODELS) -> str:
    """Sentence for captions about the models that are shown by name (see `SuiteResults.shown_of`); empty if all.

    `subject` is what shows them, `choice` what they are chosen from if not from all models.
    """
    models = results.models
    if len(results.shown_of(models["model"], most)) == len(models):
        return ""
    own = "the user's own first, then " if models["highlight"].any() else ""
    order = "the best mean ranks" if len(results.mean_ranks) else "the first of the model table"
    return f"{subject} at most {most} of {len(models)} models ({own}{order}{choice})."


def doubtful_note(results: SuiteResults) -> str:
    """Sentence for captions about published scores that a correct implementation cannot reproduce; empty without any.

    The official code of semantic segmentation builds another backbone than that of the models, and reads their weights
    without strict loading, which sets none of its tensors.
    """
    cells = results.cells
    if not (cells["kind"].eq("segmentation") & is_published(cells)).any():
        return ""
    return (
        "Published scores of semantic segmentation, and what follows from them, are doubtful: the official code reads "
        "no weight of the models (docs/segmentation.md)."
    )


def _told_apart(labels: dict[str, str]) -> dict[str, str]:
    """Add the id in brackets to labels that are not unique."""
    counts = Counter(labels.values())
    return {name: f"{label} ({name})" if counts[label] > 1 else label for name, label in labels.items()}
