"""Unfinished runs are resumed by later releases: their keys are the text of 0.1.0, whatever keys the schema gains."""

import copy
import json
from dataclasses import make_dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from ssltransfer import settings
from ssltransfer.pretraining import recipe
from ssltransfer.pretraining.recipe import TrainingData, fingerprint, read_recipe
from ssltransfer.protocols.attention.settings import AttentionSettings
from ssltransfer.protocols.dense.normals import training as normals
from ssltransfer.protocols.dense.normals.settings import NormalsSettings
from ssltransfer.protocols.dense.segmentation import training as segmentation
from ssltransfer.protocols.dense.segmentation.settings import SegmentationSettings
from ssltransfer.protocols.detection import training as detection
from ssltransfer.protocols.detection.settings import DetectionSettings
from ssltransfer.protocols.inversion import inversion
from ssltransfer.protocols.inversion.settings import InversionSettings
from ssltransfer.settings import job_recipe, read_settings, resume_settings
from ssltransfer.training_state import run_key

ROWS = np.array([0, 1])
INDEX = SimpleNamespace(image=["a", "b"])
OBJECTS = SimpleNamespace(label=[np.array([1]), np.array([0])], box=[np.ones((1, 4)), np.zeros((1, 4))])
SCENES = SimpleNamespace(normals=np.ones((2, 16, 16, 3), np.int8), codebook=np.eye(3), label_images=["x"])
PAIRS = SimpleNamespace(images=["a", "b"], masks=["c", "d"], classes=["x"])
JOB = SimpleNamespace(arch="a", norm="n", version=1)

CASES = {
    "detection": (
        DetectionSettings,
        {"backend": "torchvision", "frozen": "none", "seed": 4, "network": {"hidden": 8}},
        lambda chosen: detection._fingerprint(INDEX, OBJECTS, ROWS, chosen, "key"),
        '[{"frozen": "none", "seed": 4, "backend": "torchvision", "schedule": {"batch_size": 2, "steps": 144000, '
        '"learning_rate": 0.0025, "milestones": [96000, 128000], "warmup": 100}, "batch_size": null, "length": 1, '
        '"sides": {"train": [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800], "test": 800, "longest": 1333}, '
        '"network": {"channels": 256, "hidden": 8, "anchors": [32, 64, 128, 256, 512], '
        '"proposals": [2000, 1000, 1000], "samples": [256, 512], "canonical": 224}, '
        '"precision": "float32", "rule": "11-point"}, "key", 4010250491, 1816717857]',
    ),
    "normals": (
        NormalsSettings,
        {"normalisation": "imagenet", "frozen": "all", "targets": "kmeans", "seed": 0, "schedule": {"epochs": 5}},
        lambda chosen: normals.fingerprint(SCENES, ROWS, chosen, "key"),
        '[{"codes": 40, "frozen": "all", "kind": "normals", "network": {"channels": 512, "dropout": 0.1}, '
        '"normalisation": "imagenet", "precision": "float32", "schedule": {"batch_size": 4, "decay": "epoch", '
        '"epoch_steps": 0, "epochs": 5, "learning_rate": 0.02, "momentum": 0.9, "power": 0.9, "weight_decay": 0.0001}, '
        '"seed": 0, "sides": {"longest": 1000, "test": 450, "train": [300, 375, 450, 525, 600]}, "targets": "kmeans"}, '
        '"key", ["x"], [538004427, 4048864500, 1427048403]]',
    ),
    "segmentation": (
        SegmentationSettings,
        {"frozen": "all", "schedule": {"steps": 5}, "sides": {"train": [64]}},
        lambda chosen: segmentation.fingerprint(PAIRS, ROWS, chosen, "key"),
        '[{"absent_classes": "left-out", "augmentation": {"colours": false, "flip": 0.5, "largest_share": '
        '1}, "frozen": "all", "head": "upernet", "kind": "segmentation", "labels": "cells", "network": '
        '{"channels": 512, "dropout": 0, "norm_momentum": 0.1}, "normalisation": "per-model", '
        '"padding_label": "ignore", "precision": "float32", "schedule": {"annealing": '
        '"polynomial", "batch_size": 2, "learning_rate": 0.02, "momentum": 0.9, "optimiser": "sgd", "power": 0.9, '
        '"steps": 5, "warmup": 0, "weight_decay": 0.0001}, "seed": 0, "sides": {"crop": 0, "jitter": [1, 1], '
        '"longest": 1000, "test": [300, 375, 450, 525, 600], "train": [64], "window": 0, "window_step": 1}, '
        '"test_size": "padded"}, "key", 1, 2452024909]',
    ),
    "inversion": (
        InversionSettings,
        {"transform": "resize64", "seed": 0, "steps": 100, "network": {"channels": [16, 32], "kernels": [5, 3]}},
        lambda chosen: inversion._describe(["a", "b"], chosen),
        "(['a', 'b'], Inversion(canvas=256, steps=100, learning_rate=0.001, channels=(16, 32), kernels=(5, 3), skip=4, "
        "inputs=32, noise=0.1, output='sigmoid', seed=0))",
    ),
    "attention": (
        AttentionSettings,
        {"stride": 2},
        lambda chosen: run_key(JOB, {"source": "x"}, resume_settings("attention", chosen)),
        '["a", "n", 1, {"source": "x"}, {"kind": "attention", "size": 224, "mask": 10, "stride": 2, "fill": "mean", '
        '"view": "crop", "feature": "pooled"}]',
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_keys_are_those_of_the_first_release(kind):
    form, block, key, expected = CASES[kind]
    assert key(read_settings(form, {"kind": kind, **block})) == expected


@pytest.mark.parametrize("kind", CASES)
def test_a_later_key_at_its_default_does_not_disown_an_unfinished_run(kind, monkeypatch):
    form, block, key, expected = CASES[kind]
    schema = copy.deepcopy(settings.config_schema())
    schema["$defs"][kind]["properties"]["later"] = {"type": "integer", "default": 3, "since": "9.9"}
    monkeypatch.setattr(settings, "config_schema", lambda: schema)
    extended = make_dataclass("Extended", [("later", int)], bases=(form,), frozen=True)
    chosen = read_settings(extended, {"kind": kind, **block})
    assert chosen.later == 3 and key(chosen) == expected
    changed = key(read_settings(extended, {"kind": kind, **block, "later": 4}))
    assert changed != expected and "later" in changed


RECIPE = {
    "method": "simclr", "seed": 0, "dataset": "shapes", "transform": "resize32", "epochs": 3, "batch_size": 2,
    "learning_rate": 0.005, "warmup": 0.1, "weight_decay": 0.0001, "augmentation": {"grey": 0.3, "crop": [0.4, 1.0]},
    "head": {"hidden": 256, "output": 128, "temperature": 0.2},
}  # fmt: skip
RECIPE_KEY = (
    '[{"name": "x", "method": "simclr", "seed": 0, "dataset": "shapes", "transform": "resize32", "epochs": 3, '
    '"batch_size": 2, "learning_rate": 0.005, "warmup": 0.1, "weight_decay": 0.0001, '
    '"augmentation": {"grey": 0.3, "crop": [0.4, 1.0]}, "head": {"hidden": 256, "output": 128, "temperature": 0.2}}, '
    '"key", [538004427, 538004427, 2190845590]]'
)
IMAGES = TrainingData(np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3), ROWS, ROWS)


def recipe_key(written):
    return fingerprint(IMAGES, read_recipe("x", job_recipe(written)), "key")


def test_the_key_of_a_pretraining_holds_the_recipe_as_it_is_written():
    assert recipe_key(RECIPE) == RECIPE_KEY
    bare = {key: value for key, value in RECIPE.items() if key not in ("augmentation", "head")}
    bare |= {"method": "supervised"}
    assert '"augmentation": {}, "head": {}}, "key"' in recipe_key(bare)


def test_later_keys_of_a_recipe_at_their_defaults_change_neither_params_nor_keys(monkeypatch):
    schema = copy.deepcopy(settings.pretraining_schema())
    later = {"type": "integer", "default": 3, "since": "9.9"}
    block = schema["additionalProperties"]["properties"]
    for properties in (block, block["augmentation"]["properties"], schema["$defs"]["simclr"]["properties"]):
        properties["later"] = later
    monkeypatch.setattr(settings, "pretraining_schema", lambda: schema)
    monkeypatch.setattr(recipe, "pretraining_schema", lambda: schema)

    def written(value):
        augmentation, head = RECIPE["augmentation"] | {"later": value}, RECIPE["head"] | {"later": value}
        return RECIPE | {"later": value, "augmentation": augmentation, "head": head}

    assert job_recipe(written(3)) == job_recipe(RECIPE) == RECIPE and list(job_recipe(written(3))) == list(RECIPE)
    assert recipe_key(written(3)) == recipe_key(RECIPE) == RECIPE_KEY
    assert settings.complete_recipe(RECIPE)["head"]["later"] == 3
    assert job_recipe(written(4)) == written(4) and recipe_key(written(4)).count('"later": 4') == 3


def test_settings_in_keys_are_values_of_json():
    chosen = read_settings(InversionSettings, {"kind": "inversion", "transform": "resize8", "seed": 1})
    described = resume_settings("inversion", chosen)
    assert json.loads(json.dumps(described)) == described and described["network"]["kernels"] == [7, 7, 5, 5, 3, 3]
