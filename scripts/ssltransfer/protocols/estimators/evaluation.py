"""Transferability estimators of a model on a dataset, from the cached features of its training images."""

from collections.abc import Iterator

import numpy as np

from ssltransfer.array_backend import NUMPY, Arrays
from ssltransfer.datasets.coverage import coverage
from ssltransfer.datasets.index import Index
from ssltransfer.errors import InputError
from ssltransfer.models.feature_file import Features
from ssltransfer.protocols.estimators import geometry, spectrum
from ssltransfer.protocols.estimators.class_separation import (
    bhattacharyya_separation,
    class_distance_variance,
    class_mean_scores,
)
from ssltransfer.protocols.estimators.coding_rate import trans_rate
from ssltransfer.protocols.estimators.feature_moments import FeatureMoments, feature_moments, reduced
from ssltransfer.protocols.estimators.h_score import h_score_above_chance, shrunk_h_score
from ssltransfer.protocols.estimators.log_me import log_me
from ssltransfer.protocols.estimators.settings import EstimatorSettings
from ssltransfer.protocols.input_norms import describe_input
from ssltransfer.protocols.knn.neighbours import nearest_neighbours
from ssltransfer.protocols.knn.voting import vote_shares
from ssltransfer.protocols.linear.classification_metrics import evaluate
from ssltransfer.results.metric_info import METRICS
from ssltransfer.results.outcome_file import Outcome
from ssltransfer.results.score_file import Measurement

TEMPERATURE = 0.07
"""Of the weights of neighbours (see `knn.voting`)."""
PARTS = ("train", "val")
NOTE = "no interval: an estimator is a number of the training images, not of test images"

Found = Iterator[tuple[str, float | None, str]]
"""Estimator, value (None where it is not defined), and a warning (may be empty)."""


def measure_estimators(
    features: Features,
    norm: str,
    index: Index,
    dataset: str,
    metric: str,
    settings: EstimatorSettings,
    arrays: Arrays = NUMPY,
) -> Measurement:
    """Compute all estimators from the training and validation images.

    Parameters
    ----------
    features : Features
    norm : str
        Input normalisation of the features.
    index : Index
    dataset : str
        Id of the dataset, for messages.
    metric : str
        Of the leave-one-out classifiers; see `classification_metrics.evaluate`.
    settings : EstimatorSettings
    arrays : Arrays
        Where to compute.

    Raises
    ------
    InputError
        If there are fewer than two training images or two classes, or all features are equal.
    """
    check_training_images(index, dataset)
    rows = _training_rows(index)
    labels = index.label_array()[rows]
    _check_features(features.values, rows, dataset)
    width = features.values.shape[1]
    values = reduced(features.values, rows)
    moments = feature_moments(values, labels, len(index.classes), width, arrays)
    found = list(_label_free(moments))
    draws = _geometry(features.values, rows, settings)
    found += [
        (name, float(np.mean(each)) if each else None, _geometry_note(name, each)) for name, each in draws.items()
    ]
    found += _of_labels(moments)
    if labels.ndim == 1:
        _, positions = np.unique(labels, return_inverse=True)
        found += _single_label(values, positions, moments, metric)
    drawn = rows[geometry.sample_rows(len(rows), settings.neighbour_images, settings.seed)]
    found += _leave_one_out(features.values, drawn, index, metric, settings, arrays)
    values_found = {name: value for name, value, _ in found if value is not None}
    warnings = [warning for _, _, warning in found if warning]
    if len(rows) < settings.geometry_images:
        warnings.append(
            f"{len(rows)} training images are fewer than the {settings.geometry_images} of other datasets, with whose "
            "intrinsic dimensions and uniformity these cannot be compared"
        )
    return Measurement(
        kind="estimators",
        values=[
            {"metric": name, "setting": "", "value": value, "unit": METRICS[name].unit}
            for name, value in values_found.items()
        ],
        checkpoint=features.checkpoint,
        preprocessing=describe_input(settings.transform, "per-model", [norm], norm),
        details={
            "images": len(rows),
            "width": width,
            "classes": moments.classes,
            "rank": len(moments.centred.values),
            "neighbour_images": len(drawn),
            "draws": draws,
        },
        warnings=index.warnings + warnings,
        coverage=coverage(index, PARTS),
        precision=features.precision,
        outcomes=estimator_outcomes(values_found),
    )


def estimator_outcomes(values: dict[str, float]) -> list[Outcome]:
    """Return outcomes that say why the values (by estimator) have no interval."""
    return [Outcome(name, "", value, "", "", note=NOTE) for name, value in values.items()]


def check_training_images(index: Index, dataset: str) -> None:
    """Require two training images and two classes among them; InputError otherwise."""
    rows = _training_rows(index)
    if len(rows) < 2:
        raise InputError(f"{dataset}: {len(rows)} training images found, estimators need at least two")
    labels = index.label_array()[rows]
    present = np.unique(labels) if labels.ndim == 1 else np.flatnonzero(labels.any(axis=0))
    if len(present) < 2:
        names = ", ".join(index.classes[k] for k in present)
        raise InputError(f"{dataset}: all training images are of class {names or 'none'}, estimators need two classes")


def _training_rows(index: Index) -> np.ndarray:
    return np.flatnonzero(np.isin(index.split_array(), PARTS))


def _check_features(features: np.ndarray, rows: np.ndarray, dataset: str) -> None:
    first = features[rows[0]]
    if all((features[rows[start : start + 4096]] == first).all() for start in range(0, len(rows), 4096)):
        raise InputError(
            f"{dataset}: the features of all {len(rows)} training images are equal; is the checkpoint sound?"
        )


def _label_free(moments: FeatureMoments) -> Found:
    yield "rank-me", spectrum.rank_me(moments), ""
    yield "effective-rank", spectrum.effective_rank(moments), ""
    yield "stable-rank", spectrum.stable_rank(moments), ""
    exponent = spectrum.power_law(moments)
    few = f"no alpha-ReQ: {min(moments.count, moments.width)} eigenvalues, or those that are not 0, are too few"
    yield "alpha-req", exponent, "" if exponent is not None else few


def _geometry(features: np.ndarray, rows: np.ndarray, settings: EstimatorSettings) -> dict[str, list[float]]:
    """Estimators of samples of equal size, one value for each draw; none where a sample has too few distinct rows."""
    count = settings.geometry_draws if len(rows) > settings.geometry_images else 1
    found: dict[str, list[float]] = {"two-nn": [], "mle-dimension": [], "uniformity": []}
    for draw in range(count):
        sample = features[rows[geometry.sample_rows(len(rows), settings.geometry_images, settings.seed + draw)]]
        distances = geometry.neighbour_distances(sample)
        if distances is not None:
            found["two-nn"].append(geometry.two_nn_dimension(distances))
            found["mle-dimension"].append(geometry.likelihood_dimension(distances))
        if (value := geometry.uniformity(sample)) is not None:
            found["uniformity"].append(value)
    return found


def _geometry_note(name: str, values: list[float]) -> str:
    return "" if values else f"no {METRICS[name].label}: too few training images have features of their own"


def _of_labels(moments: FeatureMoments) -> Found:
    evidence, perfect = log_me(moments)
    edge = f"LogME: the features fit {perfect} classes without an error, so that their evidence has no maximum"
    yield "log-me", evidence, edge if perfect else ""


def _single_label(values: np.ndarray, positions: np.ndarray, moments: FeatureMoments, metric: str) -> Found:
    """Estimators of sets with one label for each image; `positions` are those of the classes in `moments`."""
    few = moments.count <= len(moments.centred.values) + 1
    saturated = (
        f"no H-score: with {moments.count} images of {moments.width} features it is {moments.classes - 1}, the number "
        "of classes less one, whatever the features are, as is its expected value; the shrunk H-score is not"
    )
    yield "h-score", None if few else h_score_above_chance(moments), saturated if few else ""
    yield "h-score-shrunk", shrunk_h_score(moments), ""
    scores = class_mean_scores(values, positions, moments)
    alone = int((moments.class_counts == 1).sum())
    single = f"{alone} classes have one training image, which counts as wrong for the nearest class mean"
    yield "ncm", evaluate(metric, positions, scores), single if alone else ""
    variability = class_distance_variance(moments)
    close = f"CDNV: {variability.close_pairs} pairs of classes are no farther apart than noise explains"
    without = f"CDNV and GBC: without {variability.single_images} classes of one training image"
    yield "cdnv", _finite(variability.mean), close if variability.close_pairs else ""
    yield "cdnv-median", _finite(variability.median), without if variability.single_images else ""
    if moments.classes - variability.single_images > 1:
        yield "gbc", bhattacharyya_separation(values, positions, moments), ""
    yield "trans-rate", trans_rate(values, positions, moments), ""


def _leave_one_out(
    features: np.ndarray, rows: np.ndarray, index: Index, metric: str, settings: EstimatorSettings, arrays: Arrays
) -> Found:
    """Accuracy of a vote over the nearest neighbours of each of some images among the others."""
    labels = index.label_array()
    found = nearest_neighbours(features, rows, rows, settings.neighbours, arrays=arrays)
    ((_, shares),) = vote_shares(found, labels, len(index.classes), rows, [settings.neighbours], TEMPERATURE)
    yield "knn-loo", evaluate(metric, labels[rows], shares), ""


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
