"""Detection on real images and annotations of VOC, from the original layout to the score."""

import json
import time

import numpy as np
import pytest
import torch
import yaml

from ssltransfer.datasets import voc_detection
from ssltransfer.datasets.index import Index, read_index, select
from ssltransfer.models.resnet import build_resnet
from ssltransfer.protocols.detection.average_precision import evaluate, round_like_detectron2
from ssltransfer.protocols.detection.detection_file import load_detections
from ssltransfer.protocols.detection.objects import read_annotations, voc_objects
from ssltransfer.protocols.detection.settings import DetectionSettings
from ssltransfer.protocols.detection.training import build_detector, detect, train_detector
from ssltransfer.results.picture_file import load_pictures
from ssltransfer.settings import read_settings
from ssltransfer.training_state import Run
from workflow import REPOSITORY, planned, succeed

ARCH = "resnet-1x1x1x1-w16"
BLOCK = {
    "kind": "detection",
    "backend": "torchvision",
    "frozen": "none",
    "seed": 0,
    "sides": {"train": [128], "test": 128, "longest": 213},
    "network": {
        "channels": 32,
        "hidden": 256,
        "anchors": [12, 24, 48, 80, 130],
        "proposals": [200, 200, 60],
        "samples": [64, 32],
        "canonical": 64,
    },
}


@pytest.fixture
def samples(samples):
    if not (samples / "voc_detection").is_dir():
        pytest.skip(f"no sample images in {samples}")
    return samples


def test_ten_real_images_are_learnt_by_heart(samples, tmp_path):
    torch.set_num_threads(1)
    root = samples / "voc_detection"
    ten = select(voc_detection.index(root), range(10))
    twice = {column: values * 2 for column, values in ten.extra.items()}
    index = Index(ten.image * 2, ["train"] * 10 + ["test"] * 10, ten.label * 2, ten.classes, twice)
    annotations = read_annotations(index, "ten images")
    schedule = {"batch_size": 5, "steps": 240, "learning_rate": 0.02, "milestones": [200], "warmup": 20}
    settings = read_settings(DetectionSettings, BLOCK | {"schedule": schedule})
    detector = build_detector(build_resnet(ARCH, 0), ARCH, 20, "imagenet", settings)
    start = time.process_time()
    train_detector(detector, index, annotations, root, settings, Run(tmp_path, "", "ten images"))
    objects = voc_objects(annotations, range(10, 20))
    assert len(objects) == 19 and objects.difficult.sum() == 1
    found = detect(detector, index, root, settings)
    result = evaluate(round_like_detectron2(found), objects, 20, "11-point", absent=np.nan)
    print(f"AP50 {result.ap50:.1f} after {time.process_time() - start:.0f} s")
    assert result.ap50 > 90


@pytest.mark.slow
def test_the_original_layout_runs_from_annotations_to_score(samples, tmp_path):
    suite = {
        "suite": "samples",
        "models": "config/models.tsv",
        "datasets": "config/datasets.tsv",
        "pretraining": "config/pretraining.yaml",
        "data_root": str(samples),
        "allow_subset": True,
        "tasks": {"detection-s": ["voc-detection"]},
        "protocols": {
            "detection-s": BLOCK
            | {
                "frozen": "first-four",
                "schedule": {"batch_size": 4, "steps": 12, "learning_rate": 0.01, "milestones": [10], "warmup": 2},
                "batch_size": 2,
                "length": 0.5,
            }
        },
    }
    config = tmp_path / "config"
    config.mkdir()
    (config / "config.yaml").write_text(yaml.safe_dump(suite))
    (config / "datasets.tsv").write_text((REPOSITORY / "config/datasets.tsv").read_text())
    (config / "pretraining.yaml").write_text("random: {method: none, seed: 0}\n")
    header = (REPOSITORY / "config/models.tsv").read_text().splitlines()[0]
    row = dict.fromkeys(header.split("\t"), "") | {
        **{"model": "tiny", "label": "Tiny", "family": "none", "arch": ARCH, "source": "pretrain:random"},
        **{"norm": "imagenet", "suites": "samples"},
    }
    (config / "models.tsv").write_text(f"{header}\n{chr(9).join(row.values())}\n")
    target = "results/scores/detection-s/tiny/voc-detection.json"
    succeed(tmp_path, target)
    score = json.loads((tmp_path / target).read_text())
    assert score["kind"] == "detection-frozen"
    assert [value["metric"] for value in score["values"]] == ["ap", "ap50", "ap75"]
    assert score["details"]["images"] == {"train": 168, "test": 45}
    assert score["details"]["schedule"] == {
        **{"batch_size": 2, "steps": 12, "learning_rate": 0.005, "milestones": [10], "warmup": 4}
    }
    assert any("schedule scaled from batch 4, 12 steps" in warning for warning in score["warnings"])
    index = read_index(tmp_path / "results/datasets/voc-detection/index.parquet")
    per_class = score["details"]["per_class"]
    objects = voc_objects(read_annotations(index, "samples"), np.flatnonzero(index.split_array() == "test"))
    assert {name: entry["objects"] for name, entry in per_class.items()} == {
        name: int(((objects.label == k) & ~objects.difficult).sum()) for k, name in enumerate(index.classes)
    }
    assert objects.difficult.sum() > 0
    load_detections(tmp_path / "results/predictions/detection-s/tiny/voc-detection.npz")
    pictures = load_pictures(tmp_path / "results/pictures/detection-s/tiny/voc-detection.npz")
    assert pictures.reference["Ground truth"].shape == (8, 192, 192, 3)
    assert json.loads((tmp_path / "results/curves/detection-s/tiny/voc-detection.json").read_text())["losses"]
    assert not list((tmp_path / "results/trained").rglob("*.part"))
    # The evaluation is repeated without training.
    (tmp_path / target).unlink()
    jobs = planned(tmp_path)
    assert jobs["evaluate_detection", "tiny"] == 1 and not jobs["train_detector", "tiny"]
