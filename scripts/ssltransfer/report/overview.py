"""Head of the report: findings on the highlighted models, and the table of all that was measured."""

import pandas as pd

from ssltransfer.analysis.marks import left_out
from ssltransfer.analysis.ranking import MIN_DATASETS, Order
from ssltransfer.analysis.suite_results import SuiteResults
from ssltransfer.report.labels import Labels, joined, setting_label
from ssltransfer.report.predictor_report import predictor_finding
from ssltransfer.report.table import Table, records_table
from ssltransfer.results.marks import ELSEWHERE
from ssltransfer.results.metric_info import KINDS, METRICS
from ssltransfer.results.scores import AVERAGE, is_published

NAMED = 20
"""Most models that a finding lists by name."""


def overview_table(results: SuiteResults, labels: Labels) -> Table:
    """Describe what was measured: one row per protocol and kind, with datasets, metrics, models and scores."""
    records = {}
    shown = pd.concat([results.cells, results.estimates], ignore_index=True)
    published = is_published(shown)
    elsewhere = shown["source"].str.startswith(ELSEWHERE)
    for (protocol, kind), cells in shown.groupby(["protocol", "kind"], sort=False):
        settings = [setting for setting in dict.fromkeys(cells["setting"]) if setting]
        records[protocol, kind] = {
            "Settings block": protocol,
            "Datasets": ", ".join(labels.dataset(name) for name in dict.fromkeys(cells["dataset"]) if name != AVERAGE),
            "Settings": ", ".join(map(setting_label, settings)),
            "Metrics": ", ".join(METRICS[metric].label for metric in dict.fromkeys(cells["metric"])),
            "Models": cells["model"].nunique(),
            "Scores": len(cells),
            "Of these published": int(published[cells.index].sum()),
            "Measured elsewhere": int(elsewhere[cells.index].sum()),
        }
    names = {key: joined(KINDS[key[1]].label, labels.suffixes.get(key[0], "")) for key in records}
    frame = pd.DataFrame.from_dict(records, orient="index")
    frame.index = pd.Index(list(records), tupleize_cols=False)
    optional = ("Of these published", "Measured elsewhere", "Settings")
    printed = frame.drop(columns=[name for name in optional if not any(frame[name])])
    if published.all():
        printed = printed.drop(columns="Of these published")
    written = frame if elsewhere.any() else frame.drop(columns="Measured elsewhere")
    data = written.rename(columns=lambda name: name.lower().replace(" ", "_")).reset_index(drop=True)
    data.insert(0, "kind", [kind for _, kind in records])
    caption = "One row per way to measure transfer; all its settings are in the settings block of this name."
    if published.all():
        caption = "Scores that the paper published, one row per way to measure transfer."
    more = {"row_labels": names, "data": data, "section": "overview"}
    return records_table("overview", "Measurements", caption, printed, **more)


def findings(results: SuiteResults, labels: Labels) -> list[dict]:
    """State the rank of each highlighted model, and the models that it is told apart from.

    Without highlighted models, the model with the best mean rank is the subject.

    Parameters
    ----------
    results : SuiteResults
        With pairs and their covariances; from a table folder, ranks on these datasets would be unknown.
    labels : Labels

    Returns
    -------
    list of dict
        ``model`` (its label), ``own`` (whether it is highlighted), ``rank`` (text, such as "rank 2 of 9 ...") and
        ``statements`` (a list of ``about`` and ``text``). Empty where nothing is highlighted and nothing is ranked.
    """
    own = list(results.models.loc[results.models["highlight"], "model"])
    subjects = own or list(results.mean_ranks.index[:1])
    return [
        {
            "model": labels.model(model),
            "own": bool(own),
            "rank": _rank(results, model),
            "statements": _statements(results, labels, model),
        }
        for model in subjects
    ]


def remarks(results: SuiteResults, labels: Labels, predictors: pd.DataFrame | None) -> list[dict[str, str]]:
    """State what concerns all models: datasets that are counted twice, and the best predictor of transfer.

    Parameters
    ----------
    results : SuiteResults
        With pairs (see `findings`).
    labels : Labels
    predictors : pd.DataFrame or None
        See `predictor_finding`.

    Returns
    -------
    list of dict
        ``about`` and ``text``.
    """
    found = [("Counted twice", twins_note(results, labels))]
    if results.tasks.counted:
        found.append(("Could it be predicted?", predictor_finding(results, labels, predictors)))
    return [{"about": about, "text": text} for about, text in found if text]


def twins_note(results: SuiteResults, labels: Labels) -> str:
    """Warn of datasets with the same test images; empty without any."""
    pairs = [f"{labels.dataset(first)} and {labels.dataset(second)}" for first, second in results.compared.twins]
    counted = "each counts as a dataset of its own, so its images count twice in averages, ranks and tests"
    return f"Same test images under two names: {'; '.join(pairs)}; {counted}. Keep one of them." if pairs else ""


def _no_rank(results: SuiteResults, model: str) -> str:
    """Say why a model has no mean rank."""
    cells = results.cells
    own = cells[cells["model"].eq(model)]
    if own.empty:
        return "no rank, because it has no score"
    if left_out(cells)[own.index].all():
        return "no rank, because all its scores were measured on part of the data (‡) and are not ranked"
    if len(results.mean_ranks) or results.tasks.matrix.loc[model, results.tasks.counted].isna().all():
        return "no rank, because it has no score of a counted task on all of the data"
    return "no rank, because no counted task was measured for all models"


def _rank(results: SuiteResults, model: str) -> str:
    """Position of a model by its mean rank, or why it has none."""
    ranks = results.mean_ranks
    if model not in ranks.index:
        return _no_rank(results, model)
    mean = ranks["mean_rank"]
    place = int(mean.lt(mean[model]).sum()) + 1
    shared = int(mean.eq(mean[model]).sum()) - 1
    datasets, tasks = (int(ranks.loc[model, name]) for name in ("datasets", "tasks"))
    return (
        f"rank {place} of {len(ranks)}{', shared' if shared else ''}; mean rank {mean[model]:.1f} over {datasets} "
        f"{'datasets' if datasets > 1 else 'dataset'} ({tasks} {'tasks' if tasks > 1 else 'task'})"
    )


def _statements(results: SuiteResults, labels: Labels, model: str) -> list[dict[str, str]]:
    """State what is known on these datasets, on datasets like these, and from the pairs of single cells."""
    found = []
    these, like = results.order_of_these, results.order_like_these
    if model in results.mean_ranks.index:
        about, reason = _these_datasets(results, labels), "unknown, because no noise of scores is known"
        found.append({"about": about, "text": _told_apart(these, labels, model) or f"{reason}."})
        reason = f"unknown, because fewer than {MIN_DATASETS} were measured for all models"
        about = "On other datasets like these"
        found.append({"about": about, "text": _told_apart(like, labels, model) or f"{reason}."})
    wins, compared = results.wins
    if model in wins.index:
        won, lost, total = int(wins.loc[model].sum()), int(wins[model].sum()), int(compared.loc[model].sum())
        text = f"better in {won} of {total}, worse in {lost}, not separable in {total - won - lost}."
        text = joined(text, _disagreement(results, labels, model))
        found.append({"about": "Paired tests against one model on one task", "text": text})
    return found


def _these_datasets(results: SuiteResults, labels: Labels) -> str:
    """Say what another draw of the order on these datasets would be of: few-shot intervals are over episodes alone."""
    kinds = {task.kind for task in results.known_noise}
    alone = kinds == {"fewshot"}
    notes = ["few-shot: other episodes of the same images"] * ("fewshot" in kinds and not alone)
    if results.order_of_these:
        ranked = dict.fromkeys(task.dataset for task in results.ranked_tasks)
        missing = [labels.dataset(name) for name in ranked if name not in results.order_of_these.datasets]
        notes += [f"without {', '.join(missing)}"] * bool(missing)
    drawn = "episodes of the same images" if alone else "test images"
    return f"On these datasets, with other {drawn}" + (f" ({'; '.join(notes)})" if notes else "")


def _disagreement(results: SuiteResults, labels: Labels, model: str) -> str:
    """Say of which models the order by the mean and the paired tests of single tasks differ in sign, and why."""
    order, (wins, _) = results.order_of_these, results.wins
    if order is None or model not in order.models:
        return ""
    number, names = order.models.index(model), []
    for other in order.models:
        if other in wins.index and other != model:
            at = order.models.index(other)
            by_mean = int(order.better[number, at]) - int(order.better[at, number])
            names += [other] if by_mean * (wins.loc[model, other] - wins.loc[other, model]) < 0 else []
    if not names:
        return ""
    return (
        f"Against {_names(names, labels)} these tests and the order by mean log-odds disagree: the mean adds up the "
        "differences of all tasks, also those that are not separable one by one, and large differences weigh more."
    )


def _told_apart(order: Order | None, labels: Labels, model: str) -> str:
    """Ranks that a model can have, and the models that it is told apart from; empty where the order is unknown."""
    if order is None or model not in order.models:
        return ""
    low, high = order.rank_sets().loc[model]
    number = order.models.index(model)
    better = [name for name, told in zip(order.models, order.better[number], strict=True) if told]
    worse = [name for name, told in zip(order.models, order.better[:, number], strict=True) if told]
    tied = [name for name in order.models if name not in {model, *better, *worse}]
    parts = [f"rank {low}" if low == high else f"rank {low} to {high}"]
    parts[0] += " by mean log-odds"
    for text, names in (("better than", better), ("not separable from", tied), ("worse than", worse)):
        every = len(names) == len(order.models) - 1 > 1
        parts += [f"{text} {'all others' if every else _names(names, labels)}"] if names else []
    return "; ".join(parts) + "."


def _names(models: list[str], labels: Labels) -> str:
    """List the labels of some models, at most `NAMED` of them."""
    shown = models if len(models) <= NAMED + 1 else models[:NAMED]
    text = ", ".join(map(labels.model, shown))
    return text + (f" and {len(models) - len(shown)} more" if len(shown) < len(models) else "")
