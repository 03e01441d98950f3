"""Calibration of classifiers (paper section 4.5): ECE, temperature scaling, Brier score, reliability diagram."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from ssltransfer.errors import InputError
from ssltransfer.results.prediction_file import Predictions
from ssltransfer.results.score_file import Measurement, percent

BINS = 15
FOLDS = 5
TEMPERATURES = (1e-3, 1e3)


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
    number = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(number, minlength=bins)
    filled = np.maximum(counts, 1)
    return ReliabilityDiagram(
        counts,
        np.bincount(number, weights=confidence, minlength=bins) / filled,
        np.bincount(number, weights=correct, minlength=bins) / filled,
    )


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
    if len(labels) < FOLDS:
        raise InputError(f"calibration: {len(labels)} test images are too few for {FOLDS} folds")
    size = len(labels) // FOLDS
    order = np.random.RandomState(seed).permutation(len(labels))
    folds = [order[i * size : (i + 1) * size] for i in range(FOLDS)]
    errors = []
    for i, fold in enumerate(folds):
        rest = np.concatenate(folds[:i] + folds[i + 1 :])
        temperature = fit_temperature(logits[fold], labels[fold])
        errors.append(expected_calibration_error(softmax(logits[rest] / temperature, axis=1), labels[rest]))
    return float(np.mean(errors))


def ece_validation_scaling(
    logits: np.ndarray, labels: np.ndarray, validation_logits: np.ndarray, validation_labels: np.ndarray
) -> tuple[float, float]:
    """ECE on the test set at the temperature fitted on validation predictions: (percent, temperature)."""
    temperature = fit_temperature(validation_logits, validation_labels)
    return expected_calibration_error(softmax(logits / temperature, axis=1), labels), temperature


def measure_calibration(predictions: Predictions, linear: dict, settings: CalibrationSettings) -> Measurement:
    """Measure the calibration of the classifiers of a linear score.

    Parameters
    ----------
    predictions : Predictions
        Of a dataset with one label per image.
    linear : dict
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
    warnings = [f"of the classifiers: {warning}" for warning in linear["warnings"]]
    if not np.isfinite(likelihood):
        warnings.append(
            "the negative log-likelihood is infinite: some test images are of a class without training images"
        )
    return Measurement(
        kind="calibration",
        values=[
            percent("ece", expected_calibration_error(probabilities, labels), "linear"),
            percent("ece", ece_official_scaling(scores, labels, settings.seed), "linear-scaled"),
            percent("ece", validated, "linear-scaled-validation"),
        ],
        checkpoint=linear["checkpoint"],
        preprocessing=linear["preprocessing"],
        details={
            "brier": brier_score(probabilities, labels),
            "negative_log_likelihood": likelihood if np.isfinite(likelihood) else None,
            "temperature": temperature,
            "reliability": {
                "counts": diagram.counts.tolist(),
                "confidence": diagram.confidence.tolist(),
                "accuracy": diagram.accuracy.tolist(),
            },
        },
        warnings=warnings,
        coverage=linear.get("coverage"),
    )
