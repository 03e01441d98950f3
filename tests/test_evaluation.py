"""Modules and arrays evaluated in memory: the numbers of the jobs, and one clear error for what cannot be evaluated."""

import json
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from layouts import picture
from test_hub_datasets import SOURCE, offline_hub, write_parquet
from threadpoolctl import threadpool_info, threadpool_limits
from torch import nn

import ssltransfer
from ssltransfer.config.blocks import read_blocks
from ssltransfer.datasets.images import DecodedImages
from ssltransfer.datasets.index import Index, read_index
from ssltransfer.datasets.indexing import index_source
from ssltransfer.datasets.sources import Source
from ssltransfer.errors import InputError
from ssltransfer.models.backbone_file import build_backbone, load_backbone
from ssltransfer.models.feature_file import Features, read_features
from ssltransfer.models.features import extract_features
from ssltransfer.models.resnet import build_resnet
from ssltransfer.protocols.estimators.evaluation import measure_estimators
from ssltransfer.protocols.estimators.settings import EstimatorSettings
from ssltransfer.protocols.fewshot import FewShotSettings, measure_fewshot
from ssltransfer.protocols.linear.evaluation import measure_linear
from ssltransfer.protocols.linear.settings import LinearSettings
from ssltransfer.results.score_file import with_intervals
from ssltransfer.settings import complete, read_settings

ARCH = "resnet-1x1x1x1-w4"
BLOCKS = {
    "linear-small": {"kind": "linear", "transform": "resize16", "lambdas": {"first": 0.1, "last": 1e3, "count": 3}},
    "fewshot-small": {
        "kind": "fewshot",
        "transform": "resize16",
        "ways": 3,
        "shots": [1, 2],
        "queries": 2,
        "episodes": 20,
    },
}
LINEAR = {"linear-small": BLOCKS["linear-small"]}


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """A folder of noise in three classes."""
    root = tmp_path_factory.mktemp("data") / "birds"
    for split, count in (("train", 6), ("test", 3)):
        for number, name in enumerate(("robin", "wren", "tit")):
            for i in range(count):
                picture(
                    root / split / name / f"{i}.png", seed=1000 * number + 100 * (split == "test") + i, size=(20, 18)
                )
    return root


@pytest.fixture
def backbone():
    return build_resnet(ARCH, seed=0).eval()


class Pooled(nn.Module):
    """A module of a user's own: means of image tiles."""

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


class Read(nn.Module):
    """The pooled vectors of a backbone."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images):
        return self.backbone.pooled(images)


def rows(result):
    return result.table.drop(columns="method").to_dict("records")


def test_a_module_has_the_scores_of_the_jobs(birds, backbone, tmp_path):
    result = ssltransfer.evaluate(backbone, birds, BLOCKS, norm="none")
    source = Source("folder", str(birds))
    params = {"dataset": "birds", "task": "single-label", "source": source, "counts": {}}
    index = index_source({**params, "allow_subset": False, "on_error": "fail"}, ".", tmp_path / "index.parquet")
    index.promised = None
    images = DecodedImages(birds, index.image, "resize16")
    extract_features(backbone, images, "none", tmp_path / "f.npy", torch.device("cpu"))
    (tmp_path / "f.json").write_text(json.dumps({"norm": "none", "checkpoint": {}}))
    features = read_features([str(tmp_path / "f.npy")], len(index))
    linear, fewshot = (complete(block) for block in BLOCKS.values())
    measured = {
        "linear-small": measure_linear(features, index, "birds", "top1", read_settings(LinearSettings, linear))[0],
        "fewshot-small": measure_fewshot(features, index, "birds", read_settings(FewShotSettings, fewshot)),
    }
    expected = [
        {"protocol": name, "dataset": "birds", **{key: v[key] for key in ("setting", "metric", "value", "low", "high")}}
        for name, measurement in measured.items()
        for v in with_intervals(measurement)[0]
    ]
    assert len(expected) == 3 and rows(result) == expected
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows(result))


def test_arrays_have_the_scores_of_the_workflow(finished):
    for model in ("toy-simclr", "toy-random"):
        paths = [finished / f"results/scores/{name}/{model}/digits.json" for name in ("toy-linear", "toy-fewshot")]
        scores = [json.loads(path.read_text()) for path in paths]
        norm = scores[0]["preprocessing"]["norm"]
        features = np.load(finished / f"results/features/{model}/digits/resize16.{norm}.npy")
        index = read_index(finished / "results/datasets/digits/index.parquet")
        blocks = {score["protocol"]: score["settings"] for score in scores}
        result = ssltransfer.evaluate_features(
            features, index.label_array(), index.split_array(), blocks, metric="top1", dataset="digits"
        )
        backbone = load_backbone(finished / f"results/checkpoints/{model}.safetensors", ARCH)
        again = ssltransfer.evaluate(backbone, "generated:digits", blocks, norm=norm)
        expected = [(s["protocol"], v["setting"], v["value"], v["low"], v["high"]) for s in scores for v in s["values"]]
        for found in (result, again):
            values = [(r["protocol"], r["setting"], r["value"], r["low"], r["high"]) for r in rows(found)]
            assert values == expected


def test_a_backbone_is_evaluated_by_its_vectors(birds, tmp_path):
    (tmp_path / "net.py").write_text("from torch import nn\ndef make(): return nn.Conv2d(3, 4, 4, stride=4)\n")
    backbone = build_backbone(f"python:{tmp_path}/net.py:make", size=16, seed=0).eval()
    result = ssltransfer.evaluate(backbone, birds, LINEAR)
    assert len(rows(result)) == 1
    assert rows(ssltransfer.evaluate(Read(backbone).eval(), birds, LINEAR)) == rows(result)


def test_any_module_and_any_batch_size(birds):
    one, other = (ssltransfer.evaluate(Pooled().eval(), str(birds), BLOCKS, batch_size=size) for size in (5, 64))
    assert rows(one) == rows(other)
    assert one.measurements["linear-small"].checkpoint == {"source": "Pooled"}


def test_the_size_replaces_that_of_the_block(birds):
    sizes = set()

    class Spy(Pooled):
        def forward(self, images):
            sizes.add(tuple(images.shape[2:]))
            return super().forward(images)

    ssltransfer.evaluate(Spy().eval(), birds, LINEAR, size=12)
    assert sizes == {(12, 12)}


def test_the_result_can_be_read(birds):
    result = ssltransfer.evaluate(Pooled().eval(), birds, LINEAR)
    result = replace(result, warnings=(*result.warnings, "class <b>"))
    assert "class <b>" in repr(result) and "top1" in repr(result)
    assert "&lt;b&gt;" in result._repr_html_() and "<b>" not in result._repr_html_()


def test_a_protocol_that_is_not_possible_costs_its_own_rows(birds):
    blocks = {**BLOCKS, "five": {"kind": "fewshot", "transform": "resize16"}}
    result = ssltransfer.evaluate(Pooled().eval(), birds, blocks)
    assert set(result.table["protocol"]) == set(BLOCKS)
    assert any(text.startswith("five was not measured") and "5 classes" in text for text in result.warnings)
    with pytest.raises(InputError, match="^five: birds"):
        ssltransfer.evaluate(Pooled().eval(), birds, {"five": blocks["five"]})


class Output(nn.Module):
    """A module whose output is made by a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.function(images)


def tiles(images):
    return images.flatten(1)[:, :5]


WRONG = {
    "a tuple": (lambda images: (tiles(images), None), "tuple"),
    "maps": (lambda images: images, r"\(4, 3, 16, 16\)"),
    "no rows": (lambda images: tiles(images)[0], r"\(5,\)"),
    "squeezed": (lambda images: tiles(images).squeeze(0), r"\(5,\)"),
    "float64": (lambda images: tiles(images).double(), "float64"),
    "NaN": (lambda images: tiles(images) * float("nan"), "not finite"),
    "random": (lambda images: nn.functional.dropout(tiles(images)), "two passes"),
    "batch": (lambda images: tiles(images) - tiles(images).mean(0), "other images"),
}


@pytest.mark.parametrize("case", WRONG)
def test_outputs_that_are_not_features_are_refused(birds, case):
    function, expected = WRONG[case]
    with pytest.raises(InputError, match=expected):
        ssltransfer.evaluate(Output(function).eval(), birds, BLOCKS)


def test_a_module_that_does_not_take_this_size_is_one_line(birds):
    def only_32(images):
        if images.shape[-1] != 32:  # as networks of timm
            raise AssertionError(f"Input height ({images.shape[2]}) doesn't match model (32).")
        return tiles(images)

    with pytest.raises(InputError) as caught:
        ssltransfer.evaluate(Output(only_32).eval(), birds, BLOCKS, size=24)
    assert str(caught.value) == (
        "Output does not take images of 24 x 24 pixels (AssertionError: Input height (24) doesn't match model (32).); "
        "set the size that it was made for"
    )


def test_a_classifier_that_kept_its_head_is_noticed(birds):
    body = {"maps": nn.Conv2d(3, 4, 4, stride=4), "mean": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
    found = {}
    for name, last in {"fc": nn.Linear(4, 7), "embedding": nn.Linear(4, 7), "drop": nn.Identity()}.items():
        module = nn.Sequential(OrderedDict(body | {name: last})).eval()
        found[name] = [text for text in ssltransfer.evaluate(module, birds, LINEAR).warnings if "outputs of" in text]
    assert len(found.pop("fc")) == 1 and not any(found.values())


def test_states_that_are_not_frozen_features_are_refused(birds, backbone):
    with pytest.raises(InputError, match=r"training mode, first 'bn1'.*\.eval\(\)"):
        backbone.bn1.train()
        ssltransfer.evaluate(backbone, birds, BLOCKS)
    with pytest.raises(InputError, match=r"float16.*\.float\(\)"):
        ssltransfer.evaluate(backbone.eval().half(), birds, BLOCKS)
    with pytest.raises(InputError, match="conv1.weight are not finite"):
        backbone.float().conv1.weight.data[0] = float("inf")
        ssltransfer.evaluate(backbone, birds, BLOCKS)
    with pytest.raises(InputError, match="found function"):
        ssltransfer.evaluate(tiles, birds, BLOCKS)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"data": "nowhere"}, "nowhere"),
        ({"data": "original:nothing"}, "original:nothing"),
        ({"data": "column:shapes/objects"}, "column:shapes/objects"),
        ({"data": {"dataset": "birds"}}, "found a row with dataset, expected source"),
        ({"data": {"source": "generated:digits", "classes": "ten"}}, "found classes 'ten', expected a number"),
        (
            {"data": {"source": "original:nyuv2", "task": "normals"}},
            "found task 'normals', expected one of single-label",
        ),
        ({"protocols": ["linear-2"]}, "'linear-2'"),
        ({"protocols": ["calibration"]}, "'calibration'"),
        ({"protocols": "linear"}, "'linear'"),
        ({"protocols": []}, "none"),
        ({"protocols": {"a": {"kind": "linear", "seed": -1}}}, "protocols.a.seed"),
        ({"protocols": {"a": {"kind": "linear", "sed": 1}}}, "'sed'"),
        ({"norm": "inception"}, "'inception'"),
        ({"metric": "accuracy"}, "'accuracy'"),
        ({"metric": "map11"}, "'map11'"),
        ({"protocols": ["fewshot-official"], "size": 64}, "square257"),
    ],
)
def test_arguments_are_checked(birds, arguments, expected):
    with pytest.raises(InputError, match=expected):
        ssltransfer.evaluate(Pooled().eval(), **({"data": birds, "protocols": BLOCKS} | arguments))


def test_a_dataset_of_the_hub_is_replayed_from_its_cache(birds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def files(folder):
        classes = ["robin", "tit", "wren"]
        for part in ("train", "test"):
            paths = sorted((birds / part).rglob("*.png"))
            write_parquet(
                folder / f"{part}.parquet", [(p.read_bytes(), classes.index(p.parent.name)) for p in paths], classes
            )

    offline_hub(monkeypatch, tmp_path / "cache", files)
    counts = {"classes": "3", "train": "18", "val": "0", "test": "9"}
    row = {"dataset": "birds", "label": "Birds", "source": SOURCE, "task": "single-label", "metric": "top1", **counts}
    result = ssltransfer.evaluate(Pooled().eval(), row, BLOCKS)
    assert rows(result) == rows(ssltransfer.evaluate(Pooled().eval(), birds, BLOCKS))
    named = ssltransfer.evaluate(Pooled().eval(), SOURCE, LINEAR)
    assert rows(named) == [row | {"dataset": "name"} for row in rows(result)[:1]]
    assert [path.name for path in tmp_path.iterdir()] == ["cache"], "nothing is written beside the cache"
    with pytest.raises(InputError, match="test 8, found 9"):
        ssltransfer.evaluate(Pooled().eval(), row | {"test": 8}, BLOCKS)
    with pytest.raises(InputError, match=r"hf:owner/none@.* cannot be fetched"):
        ssltransfer.evaluate(Pooled().eval(), SOURCE.replace("name", "none"), LINEAR)


def arrays(count=40, width=6):
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 4
    features = rng.normal(size=(count, width)) + np.eye(4, width)[labels]
    return features, labels, np.where(np.arange(count) % 3, "train", "test")


def test_labels_may_be_words_and_features_a_tensor():
    features, labels, split = arrays()
    numbers = ssltransfer.evaluate_features(features, labels, split, LINEAR)
    words = ssltransfer.evaluate_features(
        torch.tensor(features), np.array(list("abcd"))[labels], split.tolist(), LINEAR
    )
    assert rows(numbers) == rows(words)


def test_several_labels_per_image_are_measured_by_map11():
    features, labels, split = arrays()
    result = ssltransfer.evaluate_features(features, np.eye(4, dtype=bool)[labels], split, LINEAR)
    assert rows(result)[0]["metric"] == "map11"
    with pytest.raises(InputError, match="map11"):
        ssltransfer.evaluate_features(features, labels, split, LINEAR, metric="map11")


def test_features_without_parts_are_a_pool_for_episodes():
    features, labels, _ = arrays()
    result = ssltransfer.evaluate_features(features, labels, protocols=BLOCKS)
    assert set(result.table["protocol"]) == {"fewshot-small"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f, y, s: (f[:, 0], y, s), r"\(40,\)"),
        (lambda f, y, s: (f[:0], y, s), r"\(0, 6\)"),
        (lambda f, y, s: (y[:, None], y, s), "int64"),
        (lambda f, y, s: (np.where(f == f[7, 0], np.nan, f), y, s), "first 7"),
        (lambda f, y, s: (f * 1e300, y, s), "not finite in float32"),
        (lambda f, y, s: (f, y[:-1], s), "39"),
        (lambda f, y, s: (f, y, s[:-1]), "39"),
        (lambda f, y, s: (f, y, np.where(s == "test", "dev", s)), "'dev'"),
        (lambda f, y, s: (f, np.where(s == "test", 9, y), s), "'9'"),
        (lambda f, y, s: (f, np.stack([y, y], 1), s), "0 or 1"),
    ],
)
def test_arrays_are_checked(change, expected):
    with np.errstate(over="ignore"), pytest.raises(InputError, match=expected):
        ssltransfer.evaluate_features(*change(*arrays()), LINEAR)


def test_linear_fits_have_one_thread_as_jobs_do(monkeypatch):
    found = []

    def spy(*arguments):
        found.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return measure_linear(*arguments)

    monkeypatch.setattr("ssltransfer.evaluation.measuring.measure_linear", spy)
    with threadpool_limits(2):
        ssltransfer.evaluate_features(*arrays(), LINEAR)
    assert set(found) == {1}


def test_two_normalisations_need_two_features():
    with pytest.raises(InputError, match="linear-v1"):
        ssltransfer.evaluate_features(*arrays(), ["linear-v1"])


def test_jobs_do_not_import_what_is_for_notebooks():
    assert set(ssltransfer.__all__) == {"Evaluation", "evaluate", "evaluate_features"}
    with pytest.raises(AttributeError, match="evaluate_all"):
        _ = ssltransfer.evaluate_all


def test_nearest_neighbours_of_arrays_are_scored():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    features, split = np.eye(3, 8)[labels] + 0.1 * rng.random((90, 8)), np.where(np.arange(90) < 60, "train", "test")
    blocks = {"near": {"kind": "knn", "neighbours": [1, 5]}}
    result = ssltransfer.evaluate_features(features, labels, split, blocks)
    assert result.table["setting"].tolist() == ["1-nn", "5-nn"] and (result.table["value"] == 100).all()
    whole = ssltransfer.evaluate_features(features, labels, protocols=blocks)
    assert (whole.table["value"] == 100).all()
    with pytest.raises(InputError, match="no test image; selection: validation"):
        ssltransfer.evaluate_features(
            features, labels, protocols={"near": blocks["near"] | {"selection": "validation"}}
        )


def test_estimators_of_arrays_are_those_of_the_job():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    features = (np.eye(3, 8)[labels] + rng.random((90, 8))).astype(np.float32)
    split = np.where(np.arange(90) < 60, "train", "test")
    result = ssltransfer.evaluate_features(features, labels, split, ["estimators"])
    values = result.table.set_index("metric")["value"]
    index = Index([""] * 90, list(split), labels.tolist(), ["0", "1", "2"])
    settings = read_settings(EstimatorSettings, read_blocks({})["estimators"])
    job = measure_estimators(Features(features, {}), "none", index, "features", "top1", settings)
    assert values.to_dict() == {value["metric"]: value["value"] for value in job.values}
    assert result.table["low"].isna().all() and values["knn-loo"] > 60
    result = ssltransfer.evaluate_features(features, [[1, 0], [0, 1]] * 45, split, ["estimators"])
    assert {"log-me", "knn-loo"} < set(result.table["metric"]) and "h-score" not in set(result.table["metric"])
    with pytest.raises(InputError, match="all training images are of class 1, estimators need two classes"):
        ssltransfer.evaluate_features(features, np.ones(90, int), split, ["estimators"])


FINETUNE = {
    "kind": "finetune",
    "transform": "resize32",
    "schedule": {"steps": 3, "batch_size": 8},
    "validation_fraction": 0.4,
    "grid": {"augmentations": ["crop-flip"], "learning_rates": [0.1, 0.01], "weight_decays": [0]},
}


def test_a_module_is_finetuned_in_a_copy(birds, backbone):
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    protocols = {"finetune-small": FINETUNE, **LINEAR}
    own, wrapped = (ssltransfer.evaluate(m, birds, protocols, workers=1) for m in (backbone, Read(backbone).eval()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    assert not backbone.training and rows(own) == rows(wrapped)
    assert list(own.table["protocol"]) == ["finetune-small", "linear-small"]
    curve = own.measurements["finetune-small"].more["curve"]
    assert [point["learning_rate"] for point in curve] == [0.1, 0.01]
    with pytest.raises(InputError, match="protocols: found 'finetune-small'; possible are "):
        ssltransfer.evaluate_features(np.ones((4, 2)), [0, 1, 0, 1], protocols={"finetune-small": FINETUNE})
