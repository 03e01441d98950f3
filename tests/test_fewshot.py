import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from ssltransfer.analysis.uncertainty import episode_interval
from ssltransfer.datasets.index import Index
from ssltransfer.errors import InputError
from ssltransfer.models.feature_file import Features
from ssltransfer.protocols import fewshot
from ssltransfer.protocols.input_norms import BIASED
from ssltransfer.settings import read_settings


def labels_of(sizes, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))


def test_episodes_are_distinct_classes_and_distinct_images():
    labels = labels_of([20, 25, 40, 21, 300, 22, 90])
    episodes = fewshot.sample_episodes(labels, "x", shot=5, queries=15, ways=5, episodes=200, seed=0)
    assert episodes.shape == (200, 5, 20)
    for episode in episodes:
        classes = labels[episode]
        assert (classes == classes[:, :1]).all()
        assert len(set(classes[:, 0])) == 5
        assert len(np.unique(episode)) == 100


def test_sampling_is_uniform():
    labels = labels_of([30] * 6)
    episodes = fewshot.sample_episodes(labels, "x", shot=5, queries=10, ways=3, episodes=4000, seed=0)
    for part in (episodes, episodes[:, :, :5]):  # all draws, and the support part alone
        counts = np.bincount(part.ravel(), minlength=180)
        expected = part.size / 180
        # Four standard deviations of a binomial, over 180 images
        assert np.abs(counts - expected).max() < 4.5 * np.sqrt(expected)


def test_a_class_of_exactly_the_needed_size_is_used_whole():
    labels = labels_of([20] * 5)
    episodes = fewshot.sample_episodes(labels, "x", shot=5, queries=15, ways=5, episodes=3, seed=0)
    assert (np.sort(episodes.reshape(3, -1), axis=1) == np.arange(100)).all()


def test_episodes_depend_on_seed_dataset_and_shot_only():
    labels = labels_of([60] * 8)
    draw = lambda name="x", shot=5, seed=0: fewshot.sample_episodes(labels, name, shot, 15, 5, 10, seed)  # noqa: E731
    assert (draw() == draw()).all()
    assert not (draw() == draw(name="y")).all()
    assert not (draw() == draw(seed=1)).all()
    assert not (draw(shot=6)[:, :, :20] == draw()).all()


@pytest.mark.parametrize("shot", [2, 5])
def test_accuracy_equals_scikit_learns_nearest_centroid(shot):
    labels = labels_of([30] * 7)
    features = np.random.default_rng(1).normal(size=(210, 16)).astype(np.float32) + labels[:, None] * 0.2
    features = features.astype(np.float32)
    episodes = fewshot.sample_episodes(labels, "x", shot, 15, 5, 40, 0)
    for episode, correct in zip(episodes, fewshot.episode_accuracy(features, episodes, shot), strict=True):
        support, query = episode[:, :shot].ravel(), episode[:, shot:].ravel()
        model = NearestCentroid().fit(features[support].astype(float), labels[support])
        assert correct == np.sum(model.predict(features[query].astype(float)) == labels[query])


def test_interval_by_hand():
    result = fewshot.FewShotResult(75, np.array([30, 45, 60]))
    assert result.accuracy == pytest.approx(60)
    found, half = episode_interval(result.correct, 75), 1.96 * np.std([40, 60, 80]) / np.sqrt(3)
    assert (found.low, found.high) == pytest.approx((60 - half, 60 + half))


def test_shots_that_are_too_many_are_left_out_with_the_reason():
    possible, notes = fewshot.possible_shots(labels_of([40, 65, 65, 70, 80]), [5, 20, 50], queries=15, ways=5)
    assert possible == [5, 20]
    assert notes == ["50-shot is left out: 1 of 5 classes have fewer than 50 + 15 images (smallest 40)"]
    possible, notes = fewshot.possible_shots(labels_of([90, 90]), [5], queries=15, ways=5)
    assert not possible
    assert notes == ["5-shot is left out: 5 ways need 5 classes; there are 2"]
    possible, notes = fewshot.possible_shots(labels_of([10, *[90] * 4]), [5], queries=15, ways=5)
    assert not possible


@pytest.mark.parametrize(
    ("sizes", "possible"),
    [
        # Caltech-101 without its background: seven classes of 31 to 34 images, others of 35 to 59, few large ones.
        ([31, 33, 33, 33, 34, 34, 34, *[40] * 70, *[90] * 24], [5, 20]),
        # Cars: six classes below 65, the smallest of 48.
        ([48, 59, 61, 62, 63, 64, *[80] * 190], [5, 20]),
        ([64, *[80] * 195], [5, 20, 50]),
    ],
)
def test_shots_of_the_papers_data_sets(sizes, possible):
    assert fewshot.possible_shots(labels_of(sizes), [5, 20, 50], queries=15, ways=5)[0] == possible


def test_a_few_small_classes_are_not_drawn():
    labels = labels_of([35, 34, 36, *[60] * 17])
    possible, notes = fewshot.possible_shots(labels, [5, 20, 50], queries=15, ways=5)
    assert possible == [5, 20]
    assert notes == [
        "20-shot leaves out small classes: 1 of 20 classes have fewer than 20 + 15 images (smallest 34)",
        "50-shot is left out: 20 of 20 classes have fewer than 50 + 15 images (smallest 34)",
    ]
    drawn = labels[fewshot.sample_episodes(labels, "x", 20, 15, 5, 2000, 0)]
    assert set(np.unique(drawn)) == set(range(20)) - {1}
    assert (drawn == drawn[:, :, :1]).all() and np.bincount(drawn[:, :, 0].ravel())[[0, 2]].min() > 400


BLOCK = {
    "kind": "fewshot", "transform": "resize16", "normalisation": "test-max", "ways": 2, "shots": [1, 5, 500],
    "queries": 3, "episodes": 30, "seed": 0,
}  # fmt: skip


def test_every_number_of_shots_reports_its_own_better_input_normalisation(monkeypatch):
    index = Index(["x"] * 40, ["train"] * 40, [0, 1] * 20, ["a", "b"])
    both = {
        norm: Features(np.full((40, 1), number, np.float32), {}) for number, norm in enumerate(("imagenet", "none"))
    }
    better = {(0, 1): 6, (1, 1): 3, (0, 5): 2, (1, 5): 4}
    monkeypatch.setattr(
        fewshot, "episode_accuracy", lambda features, rows, shot: np.full(30, better[int(features[0, 0]), shot])
    )
    measurement = fewshot.measure_fewshot(both, index, "d", read_settings(fewshot.FewShotSettings, BLOCK))
    assert [(v["setting"], v["value"]) for v in measurement.values] == [("1-shot", 100.0), ("5-shot", 400 / 6)]
    assert measurement.preprocessing["norm"] == {"1-shot": "imagenet", "5-shot": "none"}
    assert measurement.more["episodes"]["5-shot"] == {"queries": 6, "correct": [4] * 30}
    assert measurement.warnings[0].startswith("500-shot is left out") and BIASED in measurement.warnings


def test_classes_too_small_for_every_shot_are_one_line():
    index = Index(["x"] * 8, ["train"] * 8, [0, 1] * 4, ["a", "b"])
    one = {"none": Features(np.zeros((8, 1), np.float32), {})}
    with pytest.raises(InputError, match="small: .*500.*no shot is possible"):
        settings = read_settings(fewshot.FewShotSettings, BLOCK | {"shots": [500]})
        fewshot.measure_fewshot(one, index, "small", settings)


def test_images_that_are_listed_twice_are_a_warning():
    images = [f"{row // 2}.png" for row in range(40)]
    one = {"none": Features(np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32), {})}
    settings = read_settings(fewshot.FewShotSettings, BLOCK | {"normalisation": "per-model", "shots": [1]})
    for names, expected in ((images, ["20 of 40 rows"]), (list(map(str, range(40))), [])):
        index = Index(names, ["train"] * 40, [0, 1] * 20, ["a", "b"])
        found = fewshot.measure_fewshot(one, index, "d", settings).warnings
        assert [warning[:13] for warning in found] == expected
