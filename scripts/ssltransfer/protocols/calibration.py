"""Calibration of classifiers (paper section 4.5): ECE, temperature scaling, Brier score, reliability diagram."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from ssltransfer.analysis.uncertainty import LEVEL, RESAMPLES, SEED, calibration_interval, resample_counts
from ssltransfer.errors import InputError
from ssltransfer.results.outcome_file import Outcome, identity
from ssltransfer.results.prediction_file import Predictions
from ssltransfer.results.score_file import Measurement, percent

BINS = 15
FOLDS = 5
TEMPERATURES = (1e-3, 1e3)
BLOCK = 100
"""Number of resamples at a time, which bounds memory: 20 MB for 25,000 test images."""


@dataclass(frozen=True)
class CalibrationSettings:
    """A settings block of kind ``calibration``; the keys are described in workflow/schemas/config.schema.yaml."""

    of: str
    seed: int


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Mean difference between confidence and accuracy over equal-width bins of the confidence, in percent.

    Parameters
    ----------
    probabilities : ndarray of float, shape (n, k)
    labels : ndarray of int, shape (n,)
    bins : int

    Notes
    -----
    ECE = sum over bins of (n_b / n) |accuracy_b - mean confidence_b|; the confidence is the largest probability.
    """
    diagram = reliability_diagram(probabilities, labels, bins)
    return 100.0 * float(np.sum(diagram.counts * np.abs(diagram.accuracy - diagram.confidence)) / len(labels))


@dataclass(frozen=True)
class ReliabilityDiagram:
    """Samples, mean confidence and accuracy (fractions; 0 in an empty bin) of each bin."""

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability_diagram(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> ReliabilityDiagram:
    """Group samples by confidence; bin b holds confidences in (b / bins, (b + 1) / bins]."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    number = bin_numbers(confidence, bins)
    counts = np.bincount(number, minlength=bins)
    filled = np.maximum(counts, 1)
    return ReliabilityDiagram(
        counts,
        np.bincount(number, weights=confidence, minlength=bins) / filled,
        np.bincount(number, weights=correct, minlength=bins) / filled,
    )


def bin_numbers(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Number of the bin of each confidence (see `reliability_diagram`)."""
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative logarithm (natural) of the probability of the true class."""
    return -float(np.mean(np.take_along_axis(log_softmax(logits, axis=1), labels[:, None], axis=1)))


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance between the probabilities and the one-hot truth, in [0, 2]."""
    true = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    return float(np.mean(np.sum(probabilities**2, axis=1) - 2 * true + 1))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature T > 0 that minimises the negative log-likelihood of softmax(logits / T).

    The likelihood is log-concave in 1 / T, so its slope has one zero, which is bracketed. Where there is none within
    `TEMPERATURES` (say all samples are right), the nearer end is returned.

    Parameters
    ----------
    logits : ndarray of float, shape (n, k)
        May hold -inf for classes that are never predicted.
    labels : ndarray of int, shape (n,)
    """
    finite = np.isfinite(logits)
    values = np.where(finite, logits, 0.0)
    true = np.take_along_axis(values, labels[:, None], axis=1)[:, 0]

    def slope(log_inverse: float) -> float:
        scaled = np.where(finite, np.exp(log_inverse) * values, -np.inf)
        return float(np.mean(np.sum(softmax(scaled, axis=1) * values, axis=1) - true))

    low, high = (float(np.log(1 / t)) for t in TEMPERATURES[::-1])
    if slope(low) >= 0:
        return TEMPERATURES[1]
    if slope(high) <= 0:
        return TEMPERATURES[0]
    return float(np.exp(-brentq(slope, low, high, xtol=1e-10)))


def ece_official_scaling(logits: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """ECE after temperature scaling as the official code does it, in percent.

    The *test* set is shuffled (NumPy's legacy generator) and cut into five folds of floor(n / 5); for each fold the
    temperature is fitted on that fold alone and the ECE measured on the other four; the mean of five. The usual
    k-fold scheme is the reverse.

    Raises
    ------
    InputError
        If there are fewer samples than folds.
    """
    errors = [
        expected_calibration_error(softmax(logits[rest] / temperature, axis=1), labels[rest])
        for rest, temperature in official_folds(logits, labels, seed)
    ]
    return float(np.mean(errors))


def official_folds(logits: np.ndarray, labels: np.ndarray, seed: int) -> list[tuple[np.ndarray, float]]:
    """Rows of the other four folds, and the temperature fitted on each fold (see `ece_official_scaling`)."""
    if len(labels) < FOLDS:
        raise InputError(f"calibration: {len(labels)} test images are too few for {FOLDS} folds")
    size = len(labels) // FOLDS
    order = np.random.RandomState(seed).permutation(len(labels))
    folds = [order[i * size : (i + 1) * size] for i in range(FOLDS)]
    return [
        (np.concatenate(folds[:i] + folds[i + 1 :]), fit_temperature(logits[fold], labels[fold]))
        for i, fold in enumerate(folds)
    ]


def ece_validation_scaling(
    logits: np.ndarray, labels: np.ndarray, validation_logits: np.ndarray, validation_labels: np.ndarray
) -> tuple[float, float]:
    """ECE on the test set at the temperature fitted on validation predictions: (percent, temperature)."""
    temperature = fit_temperature(validation_logits, validation_labels)
    return expected_calibration_error(softmax(logits / temperature, axis=1), labels), temperature


@dataclass(frozen=True)
class Confidences:
    """Confidences of a classifier on some test images, at one temperature.

    Attributes
    ----------
    rows : ndarray of int, shape (m,)
        The test images.
    confidence : ndarray of float, shape (m,)
        Largest probability of each.
    right : ndarray of bool, shape (m,)
    """

    rows: np.ndarray
    confidence: np.ndarray
    right: np.ndarray


def confidences(
    logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0, rows: np.ndarray | None = None
) -> Confidences:
    """Confidences of the softmax of logits / temperature on these rows, by default on all."""
    rows = np.arange(len(labels)) if rows is None else rows
    probabilities = softmax(logits[rows] / temperature, axis=1)
    return Confidences(rows, probabilities.max(axis=1), probabilities.argmax(axis=1) == labels[rows])


def calibration_outcomes(predictions: Predictions, seed: int, kind: str = "linear") -> list[Outcome]:
    """Return the outcomes of the three calibration errors of a classifier (see `measure_calibration`).

    `kind` is that of its score, ``linear`` or ``knn``, which settings begin with.

    Temperatures are taken as given: resamples draw test images, and fit nothing.
    """
    scores, labels = predictions.test_scores.astype(np.float64), predictions.test_labels
    temperature = fit_temperature(predictions.validation_scores.astype(np.float64), predictions.validation_labels)
    parts = {
        kind: [confidences(scores, labels)],
        f"{kind}-scaled": [confidences(scores, labels, t, rest) for rest, t in official_folds(scores, labels, seed)],
        f"{kind}-scaled-validation": [confidences(scores, labels, temperature)],
    }
    units = identity(labels)
    return [_ece_outcome(setting, part, len(labels), units) for setting, part in parts.items()]


def _ece_outcome(setting: str, parts: list[Confidences], images: int, units: str) -> Outcome:
    value = float(np.mean([_ece(part, part.right - part.confidence) for part in parts]))
    replicates = ece_replicates(parts, resample_counts(images))
    debiased, floor = float(np.mean([debiased_ece(part) for part in parts])), noise_floor(parts, images)
    single = images < 2
    return Outcome(
        metric="ece",
        setting=setting,
        value=value,
        units="test images",
        identity=units,
        replicates=replicates,
        interval=None if single else calibration_interval(value, debiased, replicates, floor),
        note="no interval: a single test image" if single else f"a calibrated model has up to {floor:.2f} %",
    )


def _ece(part: Confidences, gaps: np.ndarray) -> float:
    """Calibration error in percent, from what right answers exceed the confidences by."""
    return 100.0 * float(np.abs(np.bincount(bin_numbers(part.confidence), weights=gaps)).sum()) / len(gaps)


def ece_replicates(parts: list[Confidences], counts: np.ndarray) -> np.ndarray:
    """Calibration error (mean over parts, percent) on resamples of the test images: float32 (resamples,).

    Parameters
    ----------
    parts : list of Confidences
    counts : ndarray of int, shape (resamples, images)
        How often each test image occurs.
    """
    # One product for all bins of all parts: the last column of a part counts its images.
    columns = np.zeros((counts.shape[1], len(parts), BINS + 1))
    for number, part in enumerate(parts):
        columns[part.rows, number, bin_numbers(part.confidence)] = part.right - part.confidence
        columns[part.rows, number, BINS] = 1
    flat, errors = columns.reshape(counts.shape[1], -1), []
    for start in range(0, len(counts), BLOCK):
        sums = (counts[start : start + BLOCK].astype(np.float64) @ flat).reshape(-1, len(parts), BINS + 1)
        gaps = np.abs(sums[:, :, :BINS]).sum(axis=2) / np.maximum(sums[:, :, BINS], 1)
        errors.append(100.0 * gaps.mean(axis=1))
    return np.concatenate(errors).astype(np.float32)


def noise_floor(parts: list[Confidences], images: int, draws: int = RESAMPLES) -> float:
    """Calibration error in percent that a calibrated model exceeds in 5 % of the test sets of this size.

    Consistency resampling (Broecker and Smith, "Increasing the reliability of reliability diagrams", 2007): answers
    are right with the probability that the model states.
    """
    generator, errors = np.random.RandomState(SEED), []
    for _ in range(draws):
        draw = generator.random_sample(images)
        gaps = [(draw[part.rows] < part.confidence) - part.confidence for part in parts]
        errors.append(np.mean([_ece(part, gap) for part, gap in zip(parts, gaps, strict=True)]))
    return float(np.quantile(errors, LEVEL))


def debiased_ece(part: Confidences) -> float:
    """Calibration error in percent after the sampling variance of each bin is taken from its squared gap."""
    number, gaps = bin_numbers(part.confidence), part.right - part.confidence
    counts = np.bincount(number, minlength=BINS)
    mean = np.bincount(number, weights=gaps, minlength=BINS) / np.maximum(counts, 1)
    squares = np.bincount(number, weights=gaps**2, minlength=BINS) / np.maximum(counts, 1)
    variance = (squares - mean**2) / np.maximum(counts - 1, 1)
    return 100.0 * float(np.sum(counts * np.sqrt(np.maximum(mean**2 - variance, 0))) / len(gaps))


def debiased_squared_ece(diagram: ReliabilityDiagram) -> float:
    """Unbiased estimate of the mean squared gap of the bins, a fraction; it may be negative.

    Kumar, Liang and Ma, "Verified uncertainty calibration", 2019. Bins with a single image are left out.
    """
    some = diagram.counts > 1
    counts, accuracy, confidence = diagram.counts[some], diagram.accuracy[some], diagram.confidence[some]
    squares = (accuracy - confidence) ** 2 - accuracy * (1 - accuracy) / (counts - 1)
    return float(np.sum(counts * squares) / diagram.counts.sum())


def measure_calibration(predictions: Predictions, score: dict, settings: CalibrationSettings) -> Measurement:
    """Measure the calibration of the classifiers of a linear or k-nearest-neighbour score.

    Parameters
    ----------
    predictions : Predictions
        Of a dataset with one label per image.
    score : dict
        The score file of the classifiers.
    settings : CalibrationSettings
    """
    scores, labels = predictions.test_scores.astype(np.float64), predictions.test_labels
    probabilities = softmax(scores, axis=1)
    validated, temperature = ece_validation_scaling(
        scores, labels, predictions.validation_scores.astype(np.float64), predictions.validation_labels
    )
    likelihood = negative_log_likelihood(scores, labels)
    diagram = reliability_diagram(probabilities, labels)
    warnings = [f"of the classifiers: {warning}" for warning in score["warnings"]]
    if not np.isfinite(likelihood):
        warnings.append(
            "the negative log-likelihood is infinite: some test images are of a class without training images"
        )
    return Measurement(
        kind="calibration",
        values=[
            percent("ece", expected_calibration_error(probabilities, labels), score["kind"]),
            percent("ece", ece_official_scaling(scores, labels, settings.seed), f"{score['kind']}-scaled"),
            percent("ece", validated, f"{score['kind']}-scaled-validation"),
        ],
        checkpoint=score["checkpoint"],
        preprocessing=score["preprocessing"],
        details={
            "brier": brier_score(probabilities, labels),
            "negative_log_likelihood": likelihood if np.isfinite(likelihood) else None,
            "temperature": temperature,
            "debiased_squared_ece": debiased_squared_ece(diagram),
            "reliability": {
                "counts": diagram.counts.tolist(),
                "confidence": diagram.confidence.tolist(),
                "accuracy": diagram.accuracy.tolist(),
            },
        },
        warnings=warnings,
        coverage=score.get("coverage"),
        precision=score.get("precision") or score.get("settings", {}).get("precision", "float32"),
        outcomes=calibration_outcomes(predictions, settings.seed, score["kind"]),
    )
