"""k-nearest-neighbour evaluation of a model on a dataset: votes over neighbours that were found before."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from ssltransfer.analysis.uncertainty import wilson_interval
from ssltransfer.datasets.coverage import coverage
from ssltransfer.datasets.index import SPLITS, Index
from ssltransfer.protocols.input_norms import describe_input
from ssltransfer.protocols.knn.neighbour_file import check_rows, searches
from ssltransfer.protocols.knn.neighbours import Neighbours
from ssltransfer.protocols.knn.settings import SIMILARITY, KnnSettings
from ssltransfer.protocols.knn.voting import vote_shares
from ssltransfer.protocols.linear import classification_metrics
from ssltransfer.protocols.linear.outcomes import UNITS, classification_outcomes
from ssltransfer.results.outcome_file import Outcome, identity
from ssltransfer.results.prediction_file import Predictions
from ssltransfer.results.score_file import Measurement, percent

CALIBRATED = 20
"""Number of neighbours whose votes are stored as predictions, where a settings block has several and this one."""
FLOOR = 1e-6
"""Share of votes that stands for none in predictions, so that its logarithm is finite."""
TOP = 5
DUPLICATE = 0.9999
"""Cosine similarity above which an image counts as a near-duplicate."""


def measure_knn(
    found: dict[str, Neighbours], about: dict, index: Index, dataset: str, metric: str, settings: KnnSettings
) -> tuple[Measurement, Predictions]:
    """Classify the test images of a dataset by the votes of their neighbours.

    Parameters
    ----------
    found : dict of Neighbours
        See `neighbour_file.find_neighbours`; at least as many as the settings ask for, or all there are.
    about : dict
        ``checkpoint``, ``norm`` and maybe ``precision`` of the features, and maybe the ``file`` of the neighbours below
        results/neighbours.
    index : Index
    dataset : str
        Id of the dataset, for messages.
    metric : str
        See `classification_metrics.evaluate`; top-5 accuracy stands beside it where images have one of at least
        `TOP` classes.
    settings : KnnSettings
        With selection ``validation`` the number of neighbours with the best validation metric (of equally good ones
        the smallest) is reported alone.

    Returns
    -------
    Measurement
    Predictions
        Logarithms of the shares of votes of one number of neighbours: the selected one, `CALIBRATED`, or the first.
    """
    parts = searches(index, dataset)
    check_rows(found, parts, dataset)
    labels = index.label_array(ignored="difficult" if settings.difficult == "ignore" else None)
    truth = {name: labels[search.queries] for name, search in parts.items()}

    def vote(name: str, counts: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        temperature = settings.temperature if settings.vote == "weighted" else None
        return vote_shares(found[name], labels, len(index.classes), parts[name].pool, counts, temperature)

    # One number of neighbours at a time: the shares of ImageNet's validation images take 2 GB.
    values = {
        count: classification_metrics.evaluate(metric, truth["validation"], shares)
        for count, shares in (vote("validation", settings.neighbours) if "validation" in parts else ())
    }
    validation = {count: values[count] for count in settings.neighbours if values}
    if settings.selection == "validation":
        best = max(sorted(validation), key=lambda count: validation[count])
        reported = {best: ""}
    else:
        best = CALIBRATED if CALIBRATED in settings.neighbours else settings.neighbours[0]
        reported = {count: f"{count}-nn" for count in settings.neighbours}
    each = {
        count: knn_outcomes(metric, reported[count], shares, truth["test"]) for count, shares in vote("test", reported)
    }
    outcomes = [outcome for count in reported for outcome in each[count]]
    decisions = {name: _decision_values(next(vote(name, [best]))[1]) for name in parts}
    none = np.empty((0, len(index.classes)), np.float32)
    predictions = Predictions(
        test_scores=decisions["test"],
        test_labels=truth["test"],
        validation_scores=decisions.get("validation", none),
        validation_labels=truth.get("validation", none[:, 0].astype(np.int64)),
    )
    whole, test = "validation" not in parts, found["test"]
    images = {"train": len(parts["test"].pool), "val": 0, "test": len(parts["test"].queries)}
    if not whole:
        images |= {"train": len(parts["validation"].pool), "val": len(parts["validation"].queries)}
    measurement = Measurement(
        kind="knn",
        values=[percent(outcome.metric, outcome.value, outcome.setting) for outcome in outcomes],
        checkpoint=about["checkpoint"],
        preprocessing=describe_input(settings.transform, "per-model", [about["norm"]], about["norm"]),
        details={
            "images": images["test"] if whole else images,
            "leave_one_out": whole,
            "validation": {str(count): value for count, value in validation.items()},
            "predictions_of": best,
            "neighbours": about.get("file"),
        },
        warnings=index.warnings + knn_warnings(test, settings, len(parts["test"].pool)),
        more={"selected": {"neighbours": best, "validation": validation[best]}} if reported == {best: ""} else {},
        coverage=coverage(index, SPLITS if whole else ("test",)),
        precision=about.get("precision") or about["checkpoint"].get("precision", "float32"),
        outcomes=outcomes,
    )
    return measurement, predictions


def knn_outcomes(metric: str, setting: str, shares: np.ndarray, labels: np.ndarray) -> list[Outcome]:
    """Return the outcomes of a vote: of the metric of the dataset, and of top-5 accuracy where that fits.

    Parameters
    ----------
    metric : {'top1', 'mean-per-class', 'map11'}
    setting : str
        Such as ``20-nn``.
    shares : ndarray of float, shape (test, classes)
    labels : ndarray
        (test,) of int, or (test, classes).
    """
    none = np.empty((0, shares.shape[1]))
    (outcome,) = classification_outcomes(metric, Predictions(shares, labels, none, none[:, 0]))
    found = [replace(outcome, setting=setting)]
    if labels.ndim == 1 and shares.shape[1] >= TOP:
        right = top_five(shares, labels)
        value, interval = 100.0 * float(right.mean()), wilson_interval(right)
        units = identity(labels)
        found.append(Outcome("top5", setting, value, UNITS, units, values=right, scale=100.0, interval=interval))
    return found


def top_five(shares: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each label is among the five largest shares, of equal ones the first classes: bool (n,)."""
    own = np.take_along_axis(shares, labels[:, None], axis=1)
    before = np.arange(shares.shape[1]) < labels[:, None]
    return ((shares > own) | (before & (shares == own))).sum(axis=1) < TOP


def knn_warnings(neighbours: Neighbours, settings: KnnSettings, pool: int) -> list[str]:
    """Return the caveats of a vote: few training images, queries without direction, equal features, near-duplicates.

    Parameters
    ----------
    neighbours : Neighbours
        Of the test images.
    settings : KnnSettings
    pool : int
        Number of training images.
    """
    similarities = neighbours.similarities
    few = [count for count in settings.neighbours if count > neighbours.rows.shape[1]]
    warnings = []
    if few:
        warnings.append(
            f"{', '.join(map(str, few))} neighbours are more than there are: all {neighbours.rows.shape[1]} of the "
            f"{pool} training images vote"
        )
    if empty := int(np.isnan(similarities[:, 0]).sum()):
        warnings.append(f"{empty} test images have features of norm 0 and get the most frequent class")
    if (similarities.size and np.ptp(similarities) == 0) and similarities.shape[1] > 1:
        warnings.append("all neighbours are equally near: the features of all images may be equal")
    if SIMILARITY[settings.vote] == "cosine" and (near := int((similarities[:, 0] > DUPLICATE).sum())):
        warnings.append(f"{near} test images have a training image of cosine similarity above {DUPLICATE}")
    return warnings


def _decision_values(shares: np.ndarray) -> np.ndarray:
    floored = np.maximum(shares, FLOOR)
    return np.log(floored, out=floored).astype(np.float32)
