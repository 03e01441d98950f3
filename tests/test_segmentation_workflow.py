"""Semantic segmentation by the workflow: a user's images and masks to score, counts and pictures; real scenes."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from ssltransfer.datasets import ade20k
from ssltransfer.models.resnet import build_resnet
from ssltransfer.protocols.dense.segmentation.dataset import SegmentationDataset
from ssltransfer.protocols.dense.segmentation.evaluation import count_classes
from ssltransfer.protocols.dense.segmentation.metrics import load_counts, mean_iou, pixel_accuracy
from ssltransfer.protocols.dense.segmentation.network import SegmentationNetwork
from ssltransfer.protocols.dense.segmentation.prediction import Predictor
from ssltransfer.protocols.dense.segmentation.settings import SegmentationSettings
from ssltransfer.protocols.dense.segmentation.training import train_network
from ssltransfer.results.picture_file import load_pictures
from ssltransfer.results.score_reader import read_score
from ssltransfer.settings import read_settings
from ssltransfer.training_state import Run
from workflow import succeed, workspace

SETTINGS = {
    "kind": "segmentation",
    "schedule": {"batch_size": 2, "steps": 4, "learning_rate": 0.05},
    "sides": {"train": [32], "test": [32, 48]},
    "network": {"channels": 8},
}
SUITE = """suite: own
tasks:
  own-segmentation: [scenes]
protocols:
  own-segmentation: {settings}
"""
MODEL = "net\tNet\tnone\tresnet-1x1x1x1-w4\tpretrain:toy-random\t\t\timagenet\t\town\tMIT\t\n"
SCORE = "results/scores/own-segmentation/net/scenes.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four training and three test images of halves, two classes of three in the test part, the last image empty."""
    folder = workspace(tmp_path_factory.mktemp("segmentation"))
    for part, images in (("train", 4), ("test", 3)):
        for kind in ("images", "masks"):
            (folder / "scenes" / kind / part).mkdir(parents=True)
        for number in range(images):
            mask = np.repeat([[1, 2, 3 if part == "train" else 2, 0]], 40, axis=0).repeat(12, axis=1).astype(np.uint8)
            if part == "test" and number == 2:
                mask[:] = 0
            Image.fromarray(mask).save(folder / "scenes/masks" / part / f"{number}.png")
            colours = np.stack([mask * 60, np.full_like(mask, 20 * number), 255 - mask * 60], axis=-1)
            Image.fromarray(colours).save(folder / "scenes/images" / part / f"{number}.png")
    (folder / "scenes/classes.txt").write_text("unlabelled\nleft\nmiddle\nright\n")
    row = f"scenes\tScenes\tsegmentation\t\tmasks:{folder}/scenes\t\t\t\t\t\town\n"
    for name, line in (("datasets.tsv", row), ("models.tsv", MODEL)):
        path = folder / "config" / name
        path.write_text(f"{path.read_text().splitlines()[0]}\n{line}")
    (folder / "config/pretraining.yaml").write_text("toy-random: {method: none, seed: 1}\n")
    (folder / "config/config.yaml").write_text(SUITE.format(settings=json.dumps(SETTINGS)))
    succeed(folder, SCORE)
    return folder


def test_score_and_tables_of_images_follow_from_the_counts(folder):
    score = read_score(folder / SCORE)
    names, counts = load_counts(folder / "results/predictions/own-segmentation/net/scenes.npz")
    values = {value["metric"]: value["value"] for value in score["values"]}
    totals = counts.sum(axis=0)
    assert counts.shape == (3, 3, 3) and counts[:, 2].sum(axis=1).tolist() == [1440, 1440, 0]
    assert values["mean-iou"] == mean_iou(totals, "left-out") and values["pixel-accuracy"] == pixel_accuracy(totals)
    with (folder / "results/per-image/own-segmentation/net/scenes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == names and rows[2]["mean-iou"] == rows[2]["pixel-accuracy"] == ""
    correct = [float(row["pixel-accuracy"]) / 100 * int(row["pixels"]) for row in rows[:2]]
    assert sum(correct) == pytest.approx(totals[0].sum())


def test_a_score_says_what_it_leaves_out(folder):
    score = read_score(folder / SCORE)
    assert score["coverage"]["classes"] == {"used": 2, "promised": 3, "left_out": ["right"]}
    assert score["details"]["iou"]["right"] is None and score["details"]["empty_images"] == 1
    text = "\n".join(score["warnings"])
    assert "1 of 3 test images have no labelled pixel" in text
    assert "1 of 3 classes have no pixel in the test images and are left out of the mean" in text
    assert "after 4 steps the running statistics of batch norm still hold 66 % of their initial values" in text
    assert "4 steps of 2 images, where the paper has 150000 of 2" in text


def test_pictures_show_image_truth_prediction_and_error_and_name_the_colours(folder):
    pictures = load_pictures(folder / "results/pictures/own-segmentation/net/scenes.npz")
    assert pictures.columns == ["0", "1", "2"]
    assert list(pictures.reference) == ["Image", "Ground truth"] and list(pictures.panels) == ["Prediction", "Error"]
    assert list(pictures.legend) == ["middle", "left"]
    truth = pictures.reference["Ground truth"][0]
    assert {tuple(colour) for colour in truth.reshape(-1, 3)} >= set(pictures.legend.values())


def test_finished_jobs_are_not_planned_again(folder):
    assert "Nothing to be done" in succeed(folder, SCORE, "--dry-run")


@pytest.mark.slow
def test_overfitting_real_scenes_reaches_a_mean_iou_of_four_fifths(samples, tmp_path):
    """Trained and tested on the same four scenes of ADE20K, at their full resolution of 683 x 512."""
    root = samples / "ade20k"
    if not root.is_dir():
        pytest.skip("no sample of ade20k")
    index = ade20k.index(root)
    dataset = SegmentationDataset(
        root, root, index.image, index.extra["mask"], index.classes, 0, 1000, index.extra["size"]
    )
    rows = np.flatnonzero([size == [683, 512] for size in index.extra["size"]])[:4]
    block = {
        "kind": "segmentation",
        "schedule": {"batch_size": 4, "steps": 300, "learning_rate": 0.1},
        "sides": {"train": [320], "test": [320]},
        "augmentation": {"flip": 0},
        "network": {"channels": 32},
    }
    settings = read_settings(SegmentationSettings, block)
    network = SegmentationNetwork(build_resnet("resnet-1x1x1x1-w16", 0), len(index.classes), settings)
    cpu = torch.device("cpu")
    train_network(network, dataset, rows, settings, "imagenet", Run(tmp_path, "key", "p"), cpu)
    counts = count_classes(Predictor(network, dataset, settings, "imagenet", cpu), rows)
    assert mean_iou(counts.sum(axis=0), "left-out") > 0.8
