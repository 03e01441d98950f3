import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import brier_score_loss, log_loss

from ssltransfer.errors import InputError
from ssltransfer.protocols import calibration
from ssltransfer.results.prediction_file import Predictions, load_predictions, save_predictions


def sample(n=400, k=5, seed=0, sharpness=3.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) * sharpness
    labels = np.array([rng.choice(k, p=p) for p in softmax(logits / 2, axis=1)])
    return logits, labels


def test_ece_by_hand():
    # Confidences 0.9, 0.8, 0.8 fall into bins 14, 12, 12 of 15; right, right, wrong.
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.8, 0.2]])
    assert calibration.expected_calibration_error(probabilities, np.array([0, 0, 1])) == pytest.approx(
        100 * (1 / 3 * 0.1 + 2 / 3 * 0.3)
    )


def test_ece_equals_torchmetrics():
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    for seed in range(5):
        logits, labels = sample(seed=seed)
        probabilities = softmax(logits, axis=1)
        expected = multiclass_calibration_error(
            torch.from_numpy(probabilities), torch.from_numpy(labels), num_classes=5, n_bins=15, norm="l1"
        )
        assert calibration.expected_calibration_error(probabilities, labels) == pytest.approx(
            100 * float(expected), abs=1e-4
        )


def test_reliability_diagram_equals_scikit_learn():
    logits, labels = sample(n=2000)
    probabilities = softmax(logits, axis=1)
    diagram = calibration.reliability_diagram(probabilities, labels)
    right = probabilities.argmax(axis=1) == labels
    accuracy, confidence = calibration_curve(right, probabilities.max(axis=1), n_bins=calibration.BINS)
    filled = diagram.counts > 0
    np.testing.assert_allclose(diagram.accuracy[filled], accuracy, atol=1e-12)
    np.testing.assert_allclose(diagram.confidence[filled], confidence, atol=1e-12)


@given(st.integers(0, 1000), st.integers(1, 30))
def test_ece_is_bounded_and_the_diagram_complete(seed, bins):
    logits, labels = sample(n=50, seed=seed)
    probabilities = softmax(logits, axis=1)
    diagram = calibration.reliability_diagram(probabilities, labels, bins)
    assert diagram.counts.sum() == 50
    assert 0 <= calibration.expected_calibration_error(probabilities, labels, bins) <= 100
    assert np.sum(diagram.counts * diagram.accuracy) == pytest.approx(np.sum(probabilities.argmax(axis=1) == labels))


def test_certain_predictions_belong_into_the_last_bin():
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert calibration.expected_calibration_error(probabilities, np.array([0, 1])) == pytest.approx(50)


def test_temperature_minimises_the_likelihood():
    logits, labels = sample(n=4000)
    temperature = calibration.fit_temperature(logits, labels)
    best = minimize_scalar(
        lambda t: calibration.negative_log_likelihood(logits / np.exp(t), labels),
        bounds=(-5, 5),
        options={"xatol": 1e-10},
    )
    assert np.log(temperature) == pytest.approx(best.x, abs=1e-5)
    assert temperature == pytest.approx(2, rel=0.1)  # how the labels were drawn


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose samples are its decision values."""

    def __init__(self):
        self.classes_ = np.arange(5)

    def fit(self, logits, labels):
        return self

    def decision_function(self, logits):
        return logits

    def predict(self, logits):
        return logits.argmax(axis=1)


def test_scaled_ece_equals_scikit_learn_and_torchmetrics():
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    logits, labels = sample(n=1000)
    folds = np.random.RandomState(0).permutation(1000).reshape(5, 200)
    errors = []
    for fold in folds:
        rest = np.setdiff1d(folds, fold)
        scaling = CalibratedClassifierCV(FrozenEstimator(Given()), method="temperature").fit(logits[fold], labels[fold])
        probabilities = scaling.predict_proba(logits[rest])
        fitted = softmax(logits[rest] / calibration.fit_temperature(logits[fold], labels[fold]), axis=1)
        np.testing.assert_allclose(fitted, probabilities, rtol=0, atol=1e-6)
        tensors = torch.from_numpy(probabilities), torch.from_numpy(labels[rest])
        errors.append(100 * float(multiclass_calibration_error(*tensors, num_classes=5, n_bins=15, norm="l1")))
    assert calibration.ece_official_scaling(logits, labels, seed=0) == pytest.approx(np.mean(errors), abs=1e-4)


def test_temperature_of_separable_and_hopeless_samples():
    logits = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert calibration.fit_temperature(logits, np.array([0, 1])) == calibration.TEMPERATURES[0]
    assert calibration.fit_temperature(logits, np.array([1, 0])) == calibration.TEMPERATURES[1]


def test_never_predicted_classes():
    logits, labels = sample()
    wide = np.column_stack([logits, np.full(len(logits), -np.inf)])
    assert calibration.fit_temperature(wide, labels) == pytest.approx(calibration.fit_temperature(logits, labels))
    expected = calibration.ece_official_scaling(logits, labels, seed=0)
    assert calibration.ece_official_scaling(wide, labels, seed=0) == pytest.approx(expected)


def test_likelihood_and_brier_equal_scikit_learn():
    logits, labels = sample()
    probabilities = softmax(logits, axis=1)
    assert calibration.negative_log_likelihood(logits, labels) == pytest.approx(log_loss(labels, probabilities))
    assert calibration.brier_score(probabilities, labels) == pytest.approx(
        brier_score_loss(labels, probabilities, scale_by_half=False)
    )


def test_folds_are_the_official_codes():
    logits, labels = sample(n=103)
    state = np.random.get_state()
    np.random.seed(0)
    order = np.random.permutation(103)
    np.random.set_state(state)
    errors = []
    for i in range(5):
        fit = order[20 * i : 20 * i + 20]
        rest = np.array([row for row in order[:100] if row not in set(fit)])
        scaled = softmax(logits[rest] / calibration.fit_temperature(logits[fit], labels[fit]), axis=1)
        errors.append(calibration.expected_calibration_error(scaled, labels[rest]))
    assert calibration.ece_official_scaling(logits, labels, seed=0) == pytest.approx(np.mean(errors))


def test_scaling_helps_overconfident_logits():
    logits, labels = sample(n=3000)
    plain = calibration.expected_calibration_error(softmax(logits, axis=1), labels)
    scaled, temperature = calibration.ece_validation_scaling(logits[:2000], labels[:2000], logits[2000:], labels[2000:])
    assert temperature > 1
    assert scaled < plain / 2
    assert calibration.ece_official_scaling(logits, labels, seed=0) < plain / 2


@pytest.mark.parametrize("unseen", [False, True])
def test_a_class_without_training_images_has_no_likelihood(unseen):
    scores, labels = sample(n=60)
    scores[:, 4] = -np.inf if unseen else scores[:, 4]
    predictions = Predictions(scores, labels, scores, labels)
    linear = {
        "kind": "linear",
        "checkpoint": {"source": "here"},
        "preprocessing": {"norm": "none"},
        "warnings": ["biased"],
    }
    score = calibration.measure_calibration(predictions, linear, calibration.CalibrationSettings("linear", seed=0))
    assert (score.checkpoint, score.preprocessing) == (linear["checkpoint"], linear["preprocessing"])
    assert (score.details["negative_log_likelihood"] is None) == unseen
    assert len(score.warnings) == 1 + unseen and score.warnings[0] == "of the classifiers: biased"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"settings": {"precision": "bfloat16"}, "precision": "bfloat16"}, "bfloat16"),
        ({"settings": {"precision": "tf32"}, "precision": "float32"}, "float32"),
        ({"settings": {"precision": "bfloat16"}}, "bfloat16"),  # of release 0.1.0
        ({}, "float32"),
    ],
)
def test_the_precision_is_that_of_the_classifiers(more, expected):
    scores, labels = sample(n=60)
    linear = {"kind": "linear", "checkpoint": {}, "preprocessing": {}, "warnings": []} | more
    predictions = Predictions(scores, labels, scores, labels)
    found = calibration.measure_calibration(predictions, linear, calibration.CalibrationSettings("linear", seed=0))
    assert found.precision == expected


def test_predictions_survive_the_file_and_another_file_is_refused(tmp_path):
    scores, labels = sample(n=6)
    save_predictions(tmp_path / "p.npz", Predictions(scores, labels, scores[:2], labels[:2]))
    read = load_predictions(tmp_path / "p.npz")
    np.testing.assert_array_equal(read.test_scores, scores)
    np.testing.assert_array_equal(read.validation_labels, labels[:2])
    np.savez(tmp_path / "other.npz", scores=scores)
    with pytest.raises(InputError, match=r"other\.npz"):
        load_predictions(tmp_path / "other.npz")


@pytest.mark.parametrize("count", [1, 4])
def test_fewer_test_images_than_folds_are_one_line(count):
    logits, labels = sample(n=count)
    with pytest.raises(InputError, match=f"{count} test images.*5 folds"):
        calibration.ece_official_scaling(logits, labels, seed=0)
    assert np.isfinite(calibration.ece_official_scaling(*sample(n=5), seed=0))
