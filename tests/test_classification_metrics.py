import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, recall_score

from ssltransfer.errors import InputError
from ssltransfer.protocols.linear import classification_metrics


def naive_average_precision(positive, scores):
    """The definition, written as loops: precision and recall at every threshold, best precision at recall >= t."""
    points = []
    for threshold in scores:
        hits = [hit for hit, score in zip(positive, scores, strict=True) if score >= threshold]
        points.append((sum(hits) / sum(positive), sum(hits) / len(hits)))
    levels = [t / 10 for t in range(11)]
    return 100 * np.mean([max((p for r, p in points if r >= t - 1e-9), default=0) for t in levels])


def test_average_precision_by_hand():
    # Ranked: hit, miss, hit, miss. Recall 0.5 with precision 1, recall 1 with precision 2/3.
    positive = np.array([True, False, True, False])
    scores = np.array([0.9, 0.8, 0.7, 0.1])
    assert classification_metrics.average_precision_11_point(positive, scores) == pytest.approx(
        100 * (6 * 1 + 5 * 2 / 3) / 11
    )


def test_average_precision_has_no_artificial_first_point():
    # scikit-learn's curve begins with precision 1 at recall 0; here the best precision anywhere is 1/2.
    assert classification_metrics.average_precision_11_point(
        np.array([False, True]), np.array([2.0, 1.0])
    ) == pytest.approx(50)


def test_average_precision_keeps_every_recall_level():
    # With ten positives each recall is a multiple of 0.1 that binary fractions cannot hold exactly.
    assert classification_metrics.average_precision_11_point(np.ones(10, bool), np.arange(10.0)) == pytest.approx(100)


@given(
    st.lists(
        st.tuples(st.booleans(), st.one_of(st.floats(-1, 1), st.integers(0, 3).map(float))), min_size=1, max_size=60
    )
)
def test_average_precision_equals_its_definition(samples):
    positive, scores = (np.array(column) for column in zip(*samples, strict=True))
    if not positive.any():
        with pytest.raises(ValueError, match="positive"):
            classification_metrics.average_precision_11_point(positive, scores)
        return
    assert classification_metrics.average_precision_11_point(positive, scores) == pytest.approx(
        naive_average_precision(positive, scores)
    )


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=50))
def test_accuracies_equal_scikit_learn(pairs):
    labels, predictions = (np.array(column) for column in zip(*pairs, strict=True))
    assert classification_metrics.top1(labels, predictions) == pytest.approx(100 * accuracy_score(labels, predictions))
    expected = recall_score(labels, predictions, average="macro", labels=np.unique(labels))
    assert classification_metrics.mean_per_class_accuracy(labels, predictions) == pytest.approx(100 * expected)


def test_absent_classes_do_not_count():
    labels, predictions = np.array([0, 0, 5]), np.array([0, 1, 5])
    assert classification_metrics.mean_per_class_accuracy(labels, predictions) == pytest.approx(75)
    positive = np.array([[True, False], [False, False]])
    assert classification_metrics.mean_average_precision_11_point(positive, np.eye(2)) == pytest.approx(100)


def test_pairs_that_do_not_count_are_not_ranked():
    # First class, ranked: hit, (ignored), miss, hit. Recall 1/2 with precision 1, recall 1 with precision 2/3.
    # Second class: nothing but ignored samples and a miss, so it has no average precision.
    labels = np.array([[1, -1], [-1, -1], [0, 0], [1, -1]], np.int8)
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.4]])
    expected = 100 * (6 * 1 + 5 * 2 / 3) / 11
    assert classification_metrics.evaluate("map11", labels, scores) == pytest.approx(expected)
    assert classification_metrics.evaluate("map11", labels > 0, scores) < expected


def test_no_positive_sample_at_all():
    with pytest.raises(InputError, match="needs a positive sample"):
        classification_metrics.evaluate("map11", np.zeros((3, 2), bool), np.zeros((3, 2)))


def test_evaluate_takes_the_largest_score():
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]])
    assert classification_metrics.evaluate("top1", np.array([1, 0, 0]), scores) == pytest.approx(200 / 3)
    with pytest.raises(KeyError):
        classification_metrics.evaluate("top5", np.array([1, 0, 0]), scores)


def in_file_order(positive, scores):
    """Average precision of the samples in their order where scores are equal, as before ties were grouped."""
    ranked = positive[np.argsort(-scores, kind="stable")]
    hits = np.cumsum(ranked)
    precision = hits / np.arange(1, len(ranked) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    levels = classification_metrics.RECALL_LEVELS - 1e-9
    return 100.0 * float(np.mean(best[np.searchsorted(hits / hits[-1], levels)]))


def test_equal_scores_do_not_depend_on_the_order_of_the_samples():
    rng = np.random.default_rng(0)
    positive = rng.random(200) < 0.3
    average_precision = classification_metrics.average_precision_11_point
    for scores in (np.zeros(200), rng.integers(0, 5, 200).astype(float), np.full(200, -np.inf)):
        order = rng.permutation(200)
        assert average_precision(positive[order], scores[order]) == average_precision(positive, scores)
    assert average_precision(positive, np.zeros(200)) == pytest.approx(100 * positive.mean())


def test_different_scores_have_the_average_precision_of_their_order_to_the_bit():
    """Scores measured before ties were grouped stay what they are: decision values in float64 are practically never
    equal."""
    rng = np.random.default_rng(1)
    for n in (5, 50, 5000):
        positive, scores = rng.random(n) < 0.2, rng.normal(size=n)
        positive[0] = True
        assert classification_metrics.average_precision_11_point(positive, scores) == in_file_order(positive, scores)
