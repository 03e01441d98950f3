"""Pairs of models on one cell: differences on the same test units, with intervals and adjusted p-values.

All pairs of a cell are compared at once. Which test is made follows from the form of the outcomes (`outcome_file`),
see `paired_tests`.
"""

import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd

from ssltransfer.analysis.paired_tests import LEVEL, mcnemar, paired_bootstrap, paired_t, stratified_sign_flips
from ssltransfer.errors import InputError
from ssltransfer.results.metric_info import METRICS
from ssltransfer.results.outcome_file import Outcome
from ssltransfer.results.scores import TASK, Task

#: Most models of a cell whose pairs are all listed, and of the user's own whose pairs always are.
MANY_MODELS, MOST_OWN = 60, 5
#: Metrics whose bias does not cancel in the difference of two models. Of two calibrated models, one of them surer of
#: itself, a paired bootstrap of their calibration errors calls one better on 23 to 30 % of test sets.
BIASED = ("ece",)
#: Fewest units that differ from the most frequent outcome where equal outcomes tell that test images are the same: by
#: chance, two test sets of 60 images with five errors each have the same ones in 1 of 5 million cases.
TELLING = 5
COLUMNS = [*TASK, "model", "other", "difference", "low", "high", "p", "p_adjusted", "method", "better"]


@dataclass(frozen=True)
class Comparison:
    """All pairs of the models of one cell.

    Attributes
    ----------
    models : tuple of str
    pairs : pd.DataFrame
        One row per pair, the earlier model first: ``model``, ``other``, ``difference`` (model - other, in the unit of
        the metric), ``low``, ``high`` (95 %), ``p``, ``p_adjusted`` (over the pairs of the cell), ``method`` and
        ``better`` (the better model where `p_adjusted` is below `LEVEL`, else empty; empty for a metric without
        direction). Where nothing can be tested, low and high are NaN and p is 1.
    covariance : ndarray, shape (models, models)
        Covariance of the values of the models over test sets like this one; NaN for a single unit.
    better : ndarray of bool, shape (models, models)
        Whether the model of the row is better than that of the column.
    """

    models: tuple[str, ...]
    pairs: pd.DataFrame
    covariance: np.ndarray
    better: np.ndarray


@dataclass(frozen=True)
class SuitePairs:
    """Pairs of models on all cells of a suite.

    Attributes
    ----------
    pairs : pd.DataFrame
        Columns `COLUMNS`: those of `Comparison.pairs` behind those that name the cell; of cells with more than
        `MANY_MODELS` models only the pairs of `chosen_pairs`.
    better : dict
        `Task` -> whether the model of the row is better than that of the column, as a frame models x models.
    covariances : dict
        `Task` -> covariance of the values of its models, as a frame models x models.
    missing : dict
        `Task` -> why it has no pairs, or which models are not in them.
    twins : list of tuple of str
        Pairs of datasets with the same test images (see `same_images`).
    """

    pairs: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS))
    better: dict[Task, pd.DataFrame] = field(default_factory=dict)
    covariances: dict[Task, pd.DataFrame] = field(default_factory=dict)
    missing: dict[Task, str] = field(default_factory=dict)
    twins: list[tuple[str, str]] = field(default_factory=list)

    @property
    def compared(self) -> int:
        """Number of pairs that were compared on a cell, listed in `pairs` or not."""
        return sum(len(better) * (len(better) - 1) // 2 for better in self.better.values())

    @property
    def decided(self) -> int:
        """Number of these with a better model."""
        return sum(int(better.to_numpy().sum()) for better in self.better.values())


def compare_cells(cells: Iterable[tuple[Task, Mapping[str, Outcome | str]]], own: Collection[str] = ()) -> SuitePairs:
    """Compare the models of every cell.

    Parameters
    ----------
    cells : iterable
        `Task`, and model -> its outcome, or why it has none. A cell whose outcomes cannot be compared has no pairs
        and is named in `missing` instead.
    own : collection of str
        See `chosen_pairs`.
    """
    frames, better, covariances, missing = [], {}, {}, {}
    marks: dict[Task, dict[str, int]] = {}
    for task, outcomes in cells:
        usable, without = {}, {}
        known = {model: outcome for model, outcome in outcomes.items() if isinstance(outcome, Outcome)}
        marks[task] = {model: _checksum(outcome) for model, outcome in known.items() if _is_telling(outcome)}
        for model, outcome in outcomes.items():
            if reason := outcome if isinstance(outcome, str) else _not_comparable(outcome):
                without.setdefault(reason, []).append(model)
            else:
                usable[model] = outcome
        for model in _others_than_most(usable):
            reason = f"other {usable.pop(model).units} than most models; measure it again on the same dataset"
            without.setdefault(reason, []).append(model)
        reasons = [
            reason if len(models) == len(outcomes) else f"{', '.join(models)}: {reason}"
            for reason, models in without.items()
        ]
        if len(usable) > 1:
            found = compare_models(usable, f"{task.protocol} {task.dataset}")
            pairs = found.pairs
            if len(usable) > MANY_MODELS:
                values = {model: outcome.value for model, outcome in usable.items()}
                pairs = pairs[chosen_pairs(pairs, values, METRICS[task.metric].better, own)]
            frames.append(pairs.assign(**task._asdict())[COLUMNS])
            better[task] = pd.DataFrame(found.better, found.models, found.models)
            covariances[task] = pd.DataFrame(found.covariance, found.models, found.models)
        if reasons:
            missing[task] = "; ".join(reasons)
    pairs = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)
    return SuitePairs(pairs, better, covariances, missing, same_images(marks))


def same_images(marks: Mapping[Task, Mapping[str, int]]) -> list[tuple[str, str]]:
    """Find datasets whose test images are the same, such as one that has two names.

    Parameters
    ----------
    marks : mapping
        `Task` -> model -> checksum of the outcomes of all its test units.

    Returns
    -------
    list of tuple of str
        Pairs of datasets on which, by one protocol and metric, all models that both have got the same outcome for
        every unit. The same images in another order are not found.
    """
    groups: dict[tuple, dict[str, Mapping[str, int]]] = {}
    for task, own in marks.items():
        groups.setdefault((task.protocol, task.setting, task.metric), {})[task.dataset] = own
    found: dict[tuple[str, str], None] = {}
    for datasets in groups.values():
        for (first, own), (second, other) in combinations(datasets.items(), 2):
            shared = own.keys() & other.keys()
            if shared and all(own[model] == other[model] for model in shared):
                found[first, second] = None
    return list(found)


def _is_telling(outcome: Outcome) -> bool:
    """Whether it differs so much between units that another test set with the same outcomes can be ruled out."""
    numbers = outcome.replicates if outcome.replicates.size else outcome.values
    if not numbers.size:
        return False
    return len(numbers) - np.unique(numbers, return_counts=True)[1].max() >= TELLING


def _checksum(outcome: Outcome) -> int:
    arrays = (outcome.values, outcome.strata, outcome.replicates)
    return zlib.crc32(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays))


def chosen_pairs(
    pairs: pd.DataFrame, values: Mapping[str, float], direction: int, own: Collection[str] = ()
) -> np.ndarray:
    """Choose the pairs of a cell that are listed where there are too many: their number grows linearly with the models.

    These are all pairs with the best model of the cell, those of neighbours in the order of the scores, and all pairs
    with the first `MOST_OWN` models of the user.

    Parameters
    ----------
    pairs : pd.DataFrame
        See `Comparison.pairs`.
    values : mapping
        Model -> its score.
    direction : int
        1 where higher is better, -1 where lower is better, 0 where neither is (the largest is then taken for the best).
    own : collection of str
        The user's own models.

    Returns
    -------
    ndarray of bool, shape (pairs,)
    """
    order = sorted(values, key=lambda model: -values[model] * (direction or 1))
    place = {model: number for number, model in enumerate(order)}
    first, second = (pairs[name].map(place).to_numpy() for name in ("model", "other"))
    always = {order[0], *[model for model in order if model in own][:MOST_OWN]}
    return (abs(first - second) == 1) | pairs["model"].isin(always) | pairs["other"].isin(always)


def compare_models(outcomes: Mapping[str, Outcome], cell: str = "") -> Comparison:
    """Compare all pairs of models on one metric of one cell.

    Parameters
    ----------
    outcomes : mapping
        Model -> its outcome, all of the same metric, setting and test units.
    cell : str
        Name of the cell in error messages.

    Raises
    ------
    InputError
        Two models have different units, or outcomes of different forms; it names both and the cell.
    """
    models, found = tuple(outcomes), list(outcomes.values())
    for model, outcome in outcomes.items():
        if _form(outcome) == "nothing":
            raise InputError(f"{cell}: the outcomes of {model} are missing or not finite; measure it again")
        _check_same_units(cell, models[0], found[0], model, outcome)
    first = found[0]
    values = np.array([outcome.value for outcome in found])
    arrays = np.stack([outcome.replicates if outcome.replicates.size else outcome.values for outcome in found])
    match _form(first):
        case "replicates":
            columns, covariance = paired_bootstrap(values, arrays.astype(float))
        case "strata":
            columns, covariance = stratified_sign_flips(arrays.astype(np.float32), first.strata, first.scale)
        case "right or wrong":
            columns, covariance = mcnemar(arrays.astype(np.float32), first.scale)
        case _:
            scales = np.array([[outcome.scale] for outcome in found])
            columns, covariance = paired_t(arrays.astype(float) * scales)
    i, j = np.triu_indices(len(models), 1)
    names = np.array(models, dtype=object)
    frame = pd.DataFrame({"model": names[i], "other": names[j], **columns})
    direction = np.sign(frame["difference"].to_numpy()) * METRICS[first.metric].better
    certain = (frame["p_adjusted"] < LEVEL).to_numpy()
    first, second = certain & (direction > 0), certain & (direction < 0)
    frame["better"] = np.select([first, second], [names[i], names[j]], "")
    better = np.zeros((len(models),) * 2, bool)
    better[i, j], better[j, i] = first, second
    return Comparison(models, frame, covariance, better)


def count_wins(cells: Iterable[pd.DataFrame], models: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Count over cells how often one model is better than another.

    Parameters
    ----------
    cells : iterable of pd.DataFrame
        See `SuitePairs.better`.
    models : sequence of str
        Others are left out.

    Returns
    -------
    wins, compared : pd.DataFrame, shape (models, models)
        In how many cells the model of the row is better than that of the column, and in how many they were compared.
    """
    numbers = {model: number for number, model in enumerate(models)}
    wins, compared = (np.zeros((len(numbers),) * 2, int) for _ in range(2))
    for better in cells:
        kept = [model for model in better.index if model in numbers]
        places = np.ix_(*[[numbers[model] for model in kept]] * 2)
        wins[places] += better.loc[kept, kept].to_numpy()
        compared[places] += ~np.eye(len(kept), dtype=bool)
    return tuple(pd.DataFrame(counts, list(numbers), list(numbers)) for counts in (wins, compared))


def read_better(pairs: pd.DataFrame) -> dict[Task, pd.DataFrame]:
    """Return `SuitePairs.better` of pairs that are all listed."""
    found = {}
    for key, own in pairs.groupby(TASK, sort=False):
        models = list(dict.fromkeys([*own["model"], *own["other"]]))
        numbers = {model: number for number, model in enumerate(models)}
        better = np.zeros((len(models),) * 2, bool)
        told = own[own["better"].ne("")]
        loser = told["other"].where(told["better"].eq(told["model"]), told["model"])
        better[told["better"].map(numbers).to_numpy(int), loser.map(numbers).to_numpy(int)] = True
        found[Task(*key)] = pd.DataFrame(better, models, models)
    return found


def _not_comparable(outcome: Outcome) -> str:
    """Say why an outcome cannot be compared with others; empty where it can."""
    if outcome.metric in BIASED:
        return "calibration errors are biased, by amounts that differ between models"
    if outcome.replicates.size and np.ptp(outcome.replicates) == 0:
        return outcome.note or f"all resamples of the {outcome.units} give the same value"
    return (outcome.note or "outcomes that are not finite") if _form(outcome) == "nothing" else ""


def _others_than_most(outcomes: Mapping[str, Outcome]) -> list[str]:
    """Models whose test units, or form of outcomes, differ from those that most models share."""
    keys = {model: (o.identity, o.units, len(o.values), len(o.replicates), _form(o)) for model, o in outcomes.items()}
    most = Counter(keys.values()).most_common(1)
    return [model for model, key in keys.items() if key != most[0][0]]


def _form(outcome: Outcome) -> str:
    """Which form of outcome it is; ``nothing`` where there are no numbers to compare, or some are not finite."""
    numbers = outcome.replicates if outcome.replicates.size else outcome.values
    if not numbers.size or not np.isfinite(numbers).all():
        return "nothing"
    if outcome.replicates.size:
        return "replicates"
    if outcome.strata.size:
        return "strata"
    return "right or wrong" if outcome.values.dtype == bool else "values"


def _check_same_units(cell: str, model: str, own: Outcome, other: str, others: Outcome) -> None:
    cell = " ".join(text for text in (cell, own.setting, own.metric) if text)
    for what, a, b in (
        ("are measured by", own.name, others.name),
        (f"have numbers of {own.units}", len(own.values), len(others.values)),
        ("have numbers of resamples", len(own.replicates), len(others.replicates)),
        ("have outcomes of the form", _form(own), _form(others)),
        (f"have {own.units} with the fingerprint", own.identity, others.identity),
    ):
        if a != b:
            raise InputError(
                f"{cell}: {model} and {other} {what} {a!r} and {b!r}; they can only be compared on the same units: "
                "measure both again on the same dataset"
            )
