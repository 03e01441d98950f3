"""k-nearest-neighbour classification: exact neighbours on any device, and votes as DINO and scikit-learn count them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from ssltransfer.array_backend import NUMPY, Arrays
from ssltransfer.datasets.index import Index, write_index
from ssltransfer.errors import InputError
from ssltransfer.protocols.calibration import CalibrationSettings, measure_calibration
from ssltransfer.protocols.knn import neighbours as search
from ssltransfer.protocols.knn.evaluation import measure_knn, top_five
from ssltransfer.protocols.knn.neighbour_file import find_neighbours, load_neighbours, save_neighbours, searches
from ssltransfer.protocols.knn.neighbours import Neighbours, nearest_neighbours
from ssltransfer.protocols.knn.settings import KnnSettings, stored_neighbours
from ssltransfer.protocols.knn.voting import vote_shares, vote_weights
from ssltransfer.protocols.linear.classification_metrics import mean_average_precision_11_point
from ssltransfer.protocols.stored_outcomes import derive_outcomes
from ssltransfer.results import score_file
from ssltransfer.results.outcome_file import load_outcomes
from ssltransfer.results.outcome_header import outcome_path
from ssltransfer.settings import complete, read_settings

TORCH = Arrays(torch, torch.device("cpu"))
ABOUT = {"checkpoint": {"source": "x"}, "norm": "imagenet"}


def random_case(number):
    """Features with duplicates and rows of zeros, a pool and queries."""
    rng = np.random.default_rng(number)
    n, d = int(rng.integers(6, 150)), int(rng.integers(1, 20))
    features = rng.normal(size=(n, d))
    if number % 3 == 0:
        features = np.round(features)
    if number % 5 == 0:
        features[rng.integers(0, n, n // 2)] = features[0]
    order = rng.permutation(n)
    cut = 2 * n // 3
    pool, queries = np.sort(order[:cut]), np.sort(order[cut:])
    if number % 4 == 0:
        pool = queries = np.arange(n)
    return features.astype(np.float32) * (1e20 if number % 7 == 0 else 1), pool, queries, int(rng.integers(1, 60))


def all_similarities(features, pool, query, similarity):
    """Similarities of one query and the pool, in float64, without itself."""
    pool, values = pool[pool != query], features.astype(np.float64)
    if similarity == "euclidean":
        return pool, -((values[pool] - values[query]) ** 2).sum(axis=1)
    norms = np.sqrt((values**2).sum(axis=1))
    return pool, (values[pool] * values[query]).sum(axis=1) / np.maximum(norms[pool] * norms[query], 1e-300)


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_neighbours_are_those_of_a_full_sort_for_all_blocks_and_devices(similarity):
    for number in range(60):
        features, pool, queries, count = random_case(number)
        found = nearest_neighbours(features, pool, queries, count, similarity)
        for arrays, block in ((NUMPY, 1 if number < 3 else 60), (TORCH, 50)):
            again = nearest_neighbours(features, pool, queries, count, similarity, arrays, block)
            assert np.array_equal(found.rows, again.rows)
            assert np.array_equal(found.similarities, again.similarities, equal_nan=True)
        for query, rows, similarities in zip(queries, found.rows, found.similarities, strict=True):
            candidates, values = all_similarities(features, pool, query, similarity)
            order = np.argsort(-values, kind="stable")[:count]
            if similarity == "cosine" and not features[query].any():
                assert np.isnan(similarities).all()
                continue
            assert np.array_equal(rows, candidates[order]), number
            expected = values[order] if similarity == "cosine" else -np.sqrt(-values[order])
            assert np.array_equal(similarities, np.float32(expected)), number


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_a_gpu_finds_the_same_neighbours(similarity, any_gpu):
    for number in range(12):
        features, pool, queries, count = random_case(number)
        here = nearest_neighbours(features, pool, queries, count, similarity)
        there = nearest_neighbours(features, pool, queries, count, similarity, Arrays(torch, any_gpu))
        assert np.array_equal(here.rows, there.rows)
        assert np.array_equal(here.similarities, there.similarities, equal_nan=True)


@pytest.mark.parametrize("error", [1e-12, 1e-4, 0.1])
def test_sums_in_another_order_change_no_bit(monkeypatch, error):
    rng = np.random.default_rng(0)

    def off(space, query, rows):
        return space.exact(query, rows) + rng.uniform(-error, error, len(rows)), error

    cases = [random_case(number) for number in range(40)]
    expected = [nearest_neighbours(*case) for case in cases]
    monkeypatch.setattr(search._Cosine, "near", off)
    for case, each in zip(cases, expected, strict=True):
        found = nearest_neighbours(*case)
        assert np.array_equal(found.rows, each.rows)
        assert np.array_equal(found.similarities, each.similarities, equal_nan=True)


def test_the_bound_of_sums_holds():
    rng = np.random.default_rng(0)
    for width in (1, 7, 300, 2048):
        features = (rng.normal(size=(200, width)) * 10.0 ** rng.integers(-20, 20, (200, 1))).astype(np.float32)
        space = search._Cosine(features, np.arange(200), np.arange(200))
        for query in range(20):
            near, error = space.near(query, np.arange(200))
            assert np.abs(near - space.exact(query, np.arange(200))).max() <= error < 1e-12


def test_candidates_come_from_every_block():
    rng = np.random.default_rng(0)
    features = np.sort(rng.normal(size=(3000, 1)), axis=0) + rng.normal(size=(3000, 4)) / 10  # near ones in one block
    features = features.astype(np.float32)
    pool, queries = np.arange(2900), np.r_[5, 1500, 2899, 2900:3000]
    for similarity in ("cosine", "euclidean"):
        whole = nearest_neighbours(features, pool, queries, 10, similarity, block=4096)
        for arrays in (NUMPY, TORCH):
            parts = nearest_neighbours(features, pool, queries, 10, similarity, arrays, block=64)
            assert np.array_equal(parts.rows, whole.rows)
            assert np.array_equal(parts.similarities, whole.similarities)


def test_scikit_learn_predicts_the_same_classes():
    for number in range(500):
        features, pool, queries, count = random_case(number)
        if pool is queries:
            continue
        labels = np.random.default_rng(number).integers(0, 4, len(features))
        count = min(count, len(pool))
        found = nearest_neighbours(features, pool, queries, count, "euclidean")
        ((_, shares),) = vote_shares(found, labels, 4, pool, [count], None)
        # Its ties are broken in another order: queries with a tie at the last neighbour are left out.
        model = KNeighborsClassifier(count, algorithm="brute").fit(features[pool].astype(float), labels[pool])
        distances = np.sort(all_distances(features, pool, queries), axis=1)
        clear = np.ones(len(queries), bool)
        if count < len(pool):
            clear = distances[:, count] - distances[:, count - 1] > 1e-6 * distances[:, -1]
        expected = model.predict_proba(features[queries].astype(float))
        assert shares[clear][:, model.classes_] == pytest.approx(expected[clear]), number


def all_distances(features, pool, queries):
    values = features.astype(np.float64)
    return np.sqrt(((values[queries][:, None] - values[pool]) ** 2).sum(axis=2))


def dino(train, train_labels, test, count, classes, temperature):
    """DINO's eval_knn.py, on all test images at once: shares of the votes."""
    train, test = (torch.nn.functional.normalize(torch.from_numpy(x).double(), dim=1) for x in (train, test))
    distances, indices = (test @ train.T).topk(count, largest=True, sorted=True)
    retrieved = torch.from_numpy(train_labels)[indices]
    one_hot = torch.nn.functional.one_hot(retrieved, classes).double()
    weights = distances.clone().div_(temperature).exp_()
    probabilities = (one_hot * weights[:, :, None]).sum(1)
    return (probabilities / probabilities.sum(1, keepdim=True)).numpy()


def test_weighted_votes_are_dinos():
    rng = np.random.default_rng(0)
    for classes in (3, 10, 50):
        features, labels = rng.normal(size=(400, 16)).astype(np.float32), rng.integers(0, classes, 400)
        pool, queries = np.arange(250), np.arange(250, 400)
        found = nearest_neighbours(features, pool, queries, 200)
        for count, shares in vote_shares(found, labels, classes, pool, [10, 20, 100, 200], 0.07):
            expected = dino(features[pool], labels[pool], features[queries], count, classes, 0.07)
            assert shares == pytest.approx(expected, rel=1e-5, abs=1e-7)
            assert np.array_equal(shares.argmax(1), expected.argmax(1))


def test_a_temperature_that_would_overflow_leaves_the_nearest_neighbour():
    found = Neighbours(np.array([[3, 1, 2]], np.int32), np.array([[0.9, 0.8, -1.0]], np.float32))
    for temperature in (1e-2, 1e-5, 5e-324):
        weights = vote_weights(found, temperature)
        assert np.isfinite(weights).all() and weights[0, 0] == 1
    assert weights[0].tolist() == [1, 0, 0]


@pytest.mark.parametrize("temperature", [None, 0.07])
def test_several_labels_that_are_one_each_give_the_same_shares(temperature):
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(80, 5)).astype(np.float32), rng.integers(0, 4, 80)
    pool, queries = np.arange(50), np.arange(50, 80)
    found = nearest_neighbours(features, pool, queries, 20)
    several = labels[:, None] == np.arange(4)
    one = dict(vote_shares(found, labels, 4, pool, [3, 20], temperature))
    many = dict(vote_shares(found, several, 4, pool, [3, 20], temperature))
    assert all(many[count] == pytest.approx(one[count]) for count in (3, 20))


def test_difficult_pairs_have_no_vote():
    labels = np.array([[1, 0], [-1, 1], [0, -1], [-1, -1]], np.int8)
    found = Neighbours(np.array([[0, 1, 2], [1, 3, 3]], np.int32), np.zeros((2, 3), np.float32))
    ((_, shares),) = vote_shares(found, labels, 2, np.arange(4), [3], None)
    assert shares[0].tolist() == [0.5, 0.5]
    assert shares[1].tolist() == [0.5, 1.0]  # no neighbour counts for the first class: its share of all images


def test_a_query_in_the_pool_is_left_out_by_its_row_and_not_as_the_first_of_its_duplicates():
    features = np.ones((5, 2), np.float32)
    features[4] = [1, -1]
    every = np.arange(5)
    for similarity in ("cosine", "euclidean"):
        found = nearest_neighbours(features, every, every, 2, similarity)
        assert found.rows[:4].tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]


def test_equal_features_and_many_ties_take_the_first_rows():
    features = np.ones((3000, 3), np.float32)
    pool, queries = np.arange(2, 2900), np.arange(2900, 3000)
    assert (nearest_neighbours(features, pool, queries, 7).rows == np.arange(2, 9)).all()
    features[2::2] = [1, 0, 0]  # ties of half of the pool, far more than the margin of candidates
    queries = queries[queries % 2 == 0]
    assert (nearest_neighbours(features, pool, queries, 7).rows == np.arange(2, 16, 2)).all()
    assert (nearest_neighbours(features, pool, queries, 7, "euclidean").rows == np.arange(2, 16, 2)).all()


def test_features_that_are_nearly_equal_are_told_apart_in_float64():
    rng = np.random.default_rng(0)
    features = (1000 + rng.integers(0, 3, size=(400, 6)) * np.float32(2**-13)).astype(np.float32)
    pool, queries = np.arange(300), np.arange(300, 400)
    found = nearest_neighbours(features, pool, queries, 10)
    for query, rows in zip(queries, found.rows, strict=True):
        candidates, values = all_similarities(features, pool, query, "cosine")
        assert np.array_equal(rows, candidates[np.argsort(-values, kind="stable")[:10]])


def test_values_that_are_not_finite_and_an_empty_pool_are_refused():
    features = np.ones((4, 2), np.float32)
    features[1, 0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        nearest_neighbours(features, np.arange(2), np.arange(2, 4), 1)
    with pytest.raises(InputError, match="1 training images are too few"):
        nearest_neighbours(np.ones((1, 2), np.float32), np.arange(1), np.arange(1), 1)


def test_top_five_takes_the_first_of_equal_classes():
    shares = np.array([[0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2]] * 3)
    assert top_five(shares, np.array([6, 3, 4])).tolist() == [True, True, False]


def dataset(seed=0, n=240, classes=6, parts=("train", "test"), multi=False):
    """An index and features whose class can be told in part."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    split = rng.choice(parts, n, p=[0.7, *[0.3 / (len(parts) - 1)] * (len(parts) - 1)] if len(parts) > 1 else [1])
    features = (rng.normal(size=(n, 8)) + 1.2 * np.eye(classes, 8)[labels]).astype(np.float32)
    label = [sorted({int(k), int(k) // 2}) for k in labels] if multi else labels.tolist()
    index = Index([f"{i}" for i in range(n)], split.tolist(), label, [f"class {k}" for k in range(classes)])
    return replace(
        index, promised={"classes": classes} | {p: int((split == p).sum()) for p in ("train", "val", "test")}
    ), features


def measured(index, features, metric="top1", **settings):
    block = complete({"kind": "knn", "neighbours": [1, 20, 100], **settings})
    chosen = read_settings(KnnSettings, block)
    similarity = "euclidean" if chosen.vote == "euclidean" else "cosine"
    found = find_neighbours(features, index, "x", stored_neighbours(chosen.neighbours), similarity)
    return measure_knn(found, ABOUT, index, "x", metric, chosen)


@pytest.mark.parametrize("vote", ["weighted", "uniform", "euclidean"])
def test_scores_of_each_number_of_neighbours(vote):
    index, features = dataset()
    score, predictions = measured(index, features, vote=vote)
    names = [(value["setting"], value["metric"]) for value in score.values]
    assert names == [(f"{k}-nn", metric) for k in (1, 20, 100) for metric in ("top1", "top5")]
    parts, labels = searches(index, "x"), index.label_array()
    normed = features if vote == "euclidean" else features / np.linalg.norm(features, axis=1, keepdims=True)
    model = KNeighborsClassifier(1).fit(normed[parts["test"].pool], labels[parts["test"].pool])
    right = model.predict(normed[parts["test"].queries]) == labels[parts["test"].queries]
    assert score.values[0]["value"] == pytest.approx(100 * right.mean())
    assert predictions.test_scores.argmax(1).tolist() and score.details["predictions_of"] == 20
    assert score.coverage["images"]["used"] == len(right)
    assert [outcome.interval.low < outcome.value < outcome.interval.high for outcome in score.outcomes]


def test_more_neighbours_than_training_images_take_all_of_them_and_say_so():
    index, features = dataset(n=60)
    score, _ = measured(index, features, neighbours=[10, 200])
    pool = len(searches(index, "x")["test"].pool)
    assert any(f"200 neighbours are more than there are: all {pool}" in text for text in score.warnings)
    again, _ = measured(index, features, neighbours=[pool])
    assert score.values[2]["value"] == again.values[0]["value"]


def test_a_dataset_without_a_test_part_is_measured_one_against_all_others():
    index, features = dataset(parts=("train",))
    score, _ = measured(index, features, vote="uniform", neighbours=[3])
    labels = index.label_array()
    normed, right = features / np.linalg.norm(features, axis=1, keepdims=True), []
    for row in range(len(labels)):
        rest = np.arange(len(labels)) != row
        model = KNeighborsClassifier(3).fit(normed[rest], labels[rest])
        right.append(model.predict(normed[row : row + 1])[0] == labels[row])
    assert score.values[0]["value"] == pytest.approx(100 * np.mean(right))
    assert score.details["images"] == len(labels) and score.coverage["images"] == {
        "used": len(labels),
        "promised": len(labels),
    }


@pytest.mark.parametrize("parts", [("train", "test"), ("train", "val", "test")])
def test_the_number_of_neighbours_is_selected_on_validation_and_never_on_test(parts):
    index, features = dataset(parts=parts)
    score, _ = measured(index, features, selection="validation")
    assert [value["setting"] for value in score.values] == ["", ""]
    selected = score.more["selected"]
    best = max(score.details["validation"].items(), key=lambda entry: (entry[1], -int(entry[0])))
    assert selected == {"neighbours": int(best[0]), "validation": best[1]}
    labels = np.array(index.label)
    labels[np.array(index.split) == "test"] = 0
    other, _ = measured(replace(index, label=labels.tolist()), features, selection="validation")
    assert other.more["selected"] == selected


def test_several_labels_and_mean_average_precision():
    index, features = dataset(multi=True)
    score, _ = measured(index, features, metric="map11", vote="uniform", neighbours=[20])
    labels, test = index.label_array(), searches(index, "x")["test"]
    normed = features / np.linalg.norm(features, axis=1, keepdims=True)
    model = KNeighborsClassifier(20).fit(normed[test.pool], labels[test.pool].astype(int))
    shares = np.stack([each[:, 1] for each in model.predict_proba(normed[test.queries])], axis=1)
    expected = mean_average_precision_11_point(labels[test.queries], shares)
    ((value, outcome),) = zip(score.values, score.outcomes, strict=True)
    assert value == {"metric": "map11", "setting": "20-nn", "value": pytest.approx(expected), "unit": "percent"}
    assert outcome.interval.low < expected < outcome.interval.high


def test_features_of_norm_zero_and_equal_features_say_so():
    index, features = dataset()
    test = np.flatnonzero(np.array(index.split) == "test")
    features[test[:3]] = 0
    score, predictions = measured(index, features)
    assert "3 test images have features of norm 0 and get the most frequent class" in score.warnings
    prior = np.bincount(index.label_array()[searches(index, "x")["test"].pool])
    assert (predictions.test_scores[:3].argmax(1) == prior.argmax()).all()
    score, _ = measured(index, np.ones_like(features))
    assert "all neighbours are equally near: the features of all images may be equal" in score.warnings


def test_calibration_of_votes():
    index, features = dataset(n=600)
    predictions = measured(index, features)[1]
    stored = {"kind": "knn", "warnings": [], "checkpoint": {}, "preprocessing": {}}
    found = measure_calibration(predictions, stored, CalibrationSettings("knn", 0))
    assert [value["setting"] for value in found.values] == ["knn", "knn-scaled", "knn-scaled-validation"]
    assert [outcome.value for outcome in found.outcomes] == pytest.approx([value["value"] for value in found.values])
    assert found.details["negative_log_likelihood"] < np.log(6)


def test_files_of_neighbours_and_outcomes_that_are_derived_from_them(tmp_path):
    index, features = dataset()
    found = find_neighbours(features, index, "x", 200, "cosine")
    path = tmp_path / "neighbours/net/x/resize16.imagenet.cosine200.npz"
    save_neighbours(path, found, ABOUT)
    again, about = load_neighbours(path)
    assert about == ABOUT and all(np.array_equal(again[name].rows, found[name].rows) for name in found)
    block = complete({"kind": "knn"})
    about |= {"file": "net/x/resize16.imagenet.cosine200.npz"}
    score, _ = measure_knn(again, about, index, "x", "mean-per-class", read_settings(KnnSettings, block))
    write_index(tmp_path / "datasets/x/index.parquet", index)
    file = tmp_path / "scores/knn/net/x.json"
    score_file.write(file, {"model": "net", "protocol": "knn", "dataset": "x"}, score, block, {"protocol": "1.1"}, {})
    expected = load_outcomes(outcome_path(file))
    outcome_path(file).unlink()
    derive_outcomes(tmp_path / "list.json", [file])
    derived = load_outcomes(outcome_path(file))
    assert list(derived) == list(expected)
    for name, outcome in derived.items():
        assert outcome.interval == expected[name].interval and np.array_equal(outcome.values, expected[name].values)
    with pytest.raises(InputError, match=r"neighbours of \d+ test images found, the index has"):
        measure_knn(again, ABOUT, dataset(n=50)[0], "x", "top1", read_settings(KnnSettings, block))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="cosine200"):
        load_neighbours(path)


def test_memory_of_large_searches_is_bounded(monkeypatch):
    """The largest product is one of two blocks, whatever the number of queries and rows."""
    shapes, merge = [], search._merge

    def recorded(values, places, products, *more):
        shapes.append(products.shape)
        return merge(values, places, products, *more)

    monkeypatch.setattr(search, "_merge", recorded)
    features = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    nearest_neighbours(features, np.arange(300), np.arange(300, 500), 10, block=64)
    assert max(shapes) == (64, 64)
