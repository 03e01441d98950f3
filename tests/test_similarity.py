"""Similarity of representations: debiased CKA equal to its definition, its bias and interval, and reused pairs."""

import json
from itertools import combinations
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from synthetic_suite import suite

from ssltransfer.analysis.similarity import (
    agreement,
    angles,
    classical_map,
    cluster_tree,
    collect_similarities,
    complete,
    similarity_matrix,
)
from ssltransfer.array_backend import NUMPY, Arrays
from ssltransfer.datasets.index import Index
from ssltransfer.errors import InputError
from ssltransfer.protocols.similarity import cka, comparison
from ssltransfer.protocols.similarity.cka import align, dependence, represent
from ssltransfer.report.drawing import FigureContext
from ssltransfer.report.labels import suite_labels
from ssltransfer.report.similarity_report import similarity_figures, similarity_tables


def compare(x, y, arrays=NUMPY):
    rows = np.arange(len(x))
    a, b = (represent(np.asarray(features, np.float32), rows) for features in (x, y))
    return align(a, b, dependence(a, a, arrays), dependence(b, b, arrays), arrays)


def unbiased_hsic(k, m):
    """HSIC_1 of Song et al. from n x n kernel matrices."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    first = np.trace(k @ m) + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m).sum()
    return first / (n * (n - 3))


def direct(x, y):
    k, m = (f.astype(np.float32).astype(np.float64) for f in (x, y))
    k, m = k @ k.T, m @ m.T
    return unbiased_hsic(k, m) / np.sqrt(unbiased_hsic(k, k) * unbiased_hsic(m, m))


def test_cka_is_that_of_the_kernel_matrices():
    for number in range(100):
        rng = np.random.default_rng(number)
        n, d, e = int(rng.integers(10, 90)), int(rng.integers(1, 120)), int(rng.integers(1, 120))
        x = rng.normal(size=(n, d)) + rng.normal(size=d) * 3
        y = x @ rng.normal(size=(d, e)) * (number % 3) + rng.normal(size=(n, e))
        found = compare(x, y)
        assert found.value == pytest.approx(direct(x, y), rel=1e-6, abs=1e-6), number
        a, b = x - x.mean(axis=0), y - y.mean(axis=0)
        biased = ((a.T @ b) ** 2).sum() / np.sqrt(((a.T @ a) ** 2).sum() * ((b.T @ b) ** 2).sum())
        assert found.biased == pytest.approx(biased, rel=1e-5)


def test_invariances_blocks_and_device(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 30)), rng.normal(size=(200, 12))
    y[:, :5] += x[:, :5]
    rotation = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    assert compare(x, 3 * x @ rotation + 7).value == pytest.approx(1, abs=1e-5)
    found = compare(x, y)
    monkeypatch.setattr(cka, "BLOCK", 7)
    assert compare(x, y).value == pytest.approx(found.value, rel=1e-9)
    other = compare(x, y, Arrays(torch, torch.device("cpu")))
    assert other.value == pytest.approx(found.value, rel=1e-9)
    assert compare(y, x).value == pytest.approx(found.value, rel=1e-9)


def test_unrelated_features_have_no_similarity_but_the_bias_says_otherwise():
    rng = np.random.default_rng(0)
    values = [compare(rng.normal(size=(60, 100)), rng.normal(size=(60, 100))) for _ in range(200)]
    mean, error = np.mean([v.value for v in values]), np.std([v.value for v in values]) / np.sqrt(200)
    assert abs(mean) < 3 * error
    assert np.mean([v.biased for v in values]) == pytest.approx(100 / 160, abs=0.02)  # d / (n + d)
    x = rng.normal(size=(400, 20))
    assert abs(compare(x, x).chance) < 0.2 < compare(x, x).value


def test_the_interval_covers_the_similarity_of_the_distribution():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(8, 8))

    def draw(n):
        x = rng.normal(size=(n, 8)) * np.arange(1, 9)
        return x, x @ mixing + 8 * rng.normal(size=(n, 8))

    truth = compare(*draw(200_000)).value
    found = [compare(*draw(400)) for _ in range(300)]
    covered = np.mean([each.low <= truth <= each.high for each in found])
    assert 0.91 <= covered <= 0.985
    assert compare(*draw(30)).low is None


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    base = rng.normal(size=(80, 6))
    for k, model in enumerate(("a", "b", "c")):
        np.save(tmp_path / f"{model}.npy", (base + k * rng.normal(size=(80, 6))).astype(np.float32))
    return tmp_path


def run(folder, models=("a", "b", "c"), version=1, scores=MappingProxyType({})):
    parts = ["train"] * 30 + ["test"] * 50
    index = Index([f"{i}.png" for i in range(80)], parts, [i % 2 for i in range(80)], ["x", "y"])
    features = {model: str(folder / f"{model}.npy") for model in models}
    path = folder / "out.json"
    comparison.compare_representations(
        path, folder / "pairs.json", features, index, "toy", "estimators", version, scores=scores
    )
    return json.loads(path.read_text())


def test_only_pairs_with_new_features_are_computed(folder):
    first = run(folder, ("a", "b"))
    assert first["computed"] == 1 and first["images"] == 50
    second = run(folder)
    assert second["computed"] == 2 and second["pairs"][0] == first["pairs"][0]
    assert run(folder)["computed"] == 0
    np.save(folder / "b.npy", np.load(folder / "b.npy") * 2 + np.eye(80, 6, dtype=np.float32))
    assert run(folder)["computed"] == 2
    assert run(folder, version=2)["computed"] == 3


def test_features_that_are_gone_are_not_needed_again_and_models_without_any_are_left_out(folder):
    before = run(folder, ("a", "b"))
    (folder / "a.npy").unlink()
    again = run(folder, ("a", "b"))
    assert again["pairs"] == before["pairs"] and not again["left_out"]
    found = run(folder, ("a", "b", "c", "d"))
    assert found["left_out"] == {"d": comparison.NO_FEATURES} and found["models"] == ["a", "b", "c"]
    assert [(pair["model"], pair["other"]) for pair in found["pairs"]] == [("a", "b"), ("b", "c")]
    similarities, _ = collect_similarities([folder / "out.json"])
    matrix = similarity_matrix(similarities, ["a", "b", "c"])
    assert np.isnan(matrix.loc["a", "c"]) and list(complete(matrix)) == ["a", "b"]


def test_a_new_model_that_can_be_compared_with_none_throws_none_out(folder):
    before = run(folder, ("a", "b"))
    for model in ("a", "b"):
        (folder / f"{model}.npy").unlink()
    found = run(folder)
    assert found["pairs"] == before["pairs"] and found["left_out"] == {"c": comparison.ALONE}


def test_pairs_of_features_that_were_replaced_are_not_shown(folder):
    run(folder, ("a", "b"))
    (folder / "b.npy").unlink()
    np.save(folder / "a.npy", np.load(folder / "a.npy")[::-1])
    run(folder, ("a", "b"))
    (folder / "a.npy").unlink()
    assert run(folder, ("a", "b"))["pairs"] == []


def test_features_of_another_checkpoint_than_the_score_do_not_count(folder):
    def write(name, source):
        (folder / name).write_text(json.dumps({"checkpoint": {"source": source, "cost": {"seconds": len(name)}}}))

    write("a.json", "old")
    run(folder, ("a", "b"))
    (folder / "a.npy").unlink()
    write("score.json", "old")
    scores = {"a": str(folder / "score.json"), "b": str(folder / "none.json")}
    assert len(run(folder, ("a", "b"), scores=scores)["pairs"]) == 1
    write("score.json", "new")
    found = run(folder, ("a", "b"), scores=scores)
    assert found["pairs"] == [] and found["left_out"]["a"] == comparison.NO_FEATURES


def test_the_constant_one_of_two_models_is_named(folder):
    np.save(folder / "d.npy", np.ones((80, 6), np.float32))
    for _ in range(2):
        assert run(folder, ("a", "d"))["left_out"] == {"a": comparison.ALONE, "d": comparison.CONSTANT}


def test_wrong_input(folder):
    np.save(folder / "d.npy", np.ones((80, 6), np.float32))
    found = run(folder, ("a", "b", "c", "d"))
    assert found["left_out"] == {"d": comparison.CONSTANT} and len(found["pairs"]) == 3
    index = Index(["1.png", "2.png"], ["test", "test"], [0, 1], ["x", "y"])
    with pytest.raises(InputError, match="toy: 2 images found, representations are compared on 10 or more"):
        comparison.compared_rows(index, "toy")


def test_map_keeps_distances_and_agreement_is_judged_by_permutation(folder):
    run(folder)
    similarities, left_out = collect_similarities([folder / "out.json"])
    assert not left_out and len(similarities) == 3
    two = similarity_matrix(similarities[similarities["other"].eq("b")], ["a", "b"])
    assert cluster_tree(two).shape == (1, 4) and classical_map(two).shown == pytest.approx(1)
    matrix = similarity_matrix(similarities, ["c", "a", "b", "z"])
    assert list(matrix) == ["c", "a", "b"] and np.array_equal(matrix, matrix.T)
    found = classical_map(matrix)
    points = found.points.to_numpy()
    between = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2))
    assert between == pytest.approx(angles(matrix), abs=1e-6) and found.shown == pytest.approx(1)
    rng = np.random.default_rng(0)
    names = list("abcdefgh")
    one = pd.DataFrame(np.corrcoef(rng.normal(size=(8, 5))), names, names)
    same = agreement(one, 2 * one)
    assert same.r == pytest.approx(1) and same.p < 0.01 and (same.models, same.pairs) == (8, 28)
    assert agreement(one.iloc[:3, :3], one) is None
    p = [agreement(one, pd.DataFrame(np.corrcoef(rng.normal(size=(8, 5))), names, names)).p for _ in range(20)]
    assert 0.2 < np.mean(p) < 0.8


def test_a_missing_pair_is_empty_in_the_table_and_the_figure_is_without_its_models():
    results = suite()
    names = list(results.models["model"])[:4]
    where = {"protocol": "estimators", "dataset": "digits", "images": 50, "low": np.nan, "high": np.nan, "biased": 0.7}
    similarities = pd.DataFrame(
        [
            where | {"model": a, "other": b, "value": 0.5 + 0.1 * i, "chance": -0.03}
            for i, (a, b) in enumerate(combinations(names, 2))
            if (a, b) != (names[0], names[3])
        ]
    )
    table = similarity_tables(similarities, {}, results, suite_labels(results))[-1]
    assert np.isnan(table.cells.iloc[0, 3]) and table.cells.iloc[0, 2] == pytest.approx(0.6)
    assert "After one permutation of the first fold" in table.caption and "at most 0.03 away" in table.caption
    assert "Empty: pairs that were not compared" in table.caption
    ((_, figure),) = similarity_figures(FigureContext(results), similarities)
    drawn = [text.get_text() for ax in figure.findobj(Axes) for text in ax.get_xticklabels()]
    assert len([text for text in drawn if text in set(suite_labels(results).models.values())]) == 3
