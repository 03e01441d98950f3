"""Surface normals on real frames of NYUv2: the workflow from the official files to score and pictures; overfitting."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from ssltransfer.datasets import nyuv2
from ssltransfer.models.resnet import build_resnet
from ssltransfer.protocols.dense.normals.angles import angles
from ssltransfer.protocols.dense.normals.dataset import NormalsDataset
from ssltransfer.protocols.dense.normals.evaluation import Predictor, angular_errors
from ssltransfer.protocols.dense.normals.ground_truth import open_normals, unpack_normals
from ssltransfer.protocols.dense.normals.network import NormalsNetwork
from ssltransfer.protocols.dense.normals.settings import Network, NormalsSettings
from ssltransfer.protocols.dense.normals.training import train_network
from ssltransfer.results.picture_file import load_pictures
from ssltransfer.results.score_reader import read_score
from ssltransfer.settings import read_settings
from ssltransfer.training_state import Run
from workflow import succeed, workspace

pytestmark = pytest.mark.slow

SETTINGS = {
    "kind": "normals",
    "normalisation": "per-model",
    "frozen": "all",
    "targets": "images",
    "schedule": {
        "batch_size": 7,
        "epochs": 5,
        "epoch_steps": 40,
        "learning_rate": 0.2,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "power": 0.9,
        "decay": "step",
    },
    "sides": {"train": [96], "test": 96, "longest": 1000},
    "network": {"channels": 64, "dropout": 0.0},
    "precision": "float32",
    "seed": 0,
}
SUITE = """suite: real
data_root: {root}
allow_subset: true
tasks:
  real-normals: [nyuv2]
protocols:
  real-normals: {settings}
"""
ROW = "nyuv2\tNYUv2\tnormals\t\toriginal:nyuv2\t0\t795\t0\t654\t\tofficial\n"
MODEL = "net\tNet\tnone\tresnet-1x1x1x1-w4\tpretrain:toy-random\t\t\timagenet\t\treal\tMIT\t\n"


@pytest.fixture(scope="module")
def folder(samples, tmp_path_factory):
    if not (samples / "nyuv2").is_dir():
        pytest.skip("no sample of nyuv2")
    folder = workspace(tmp_path_factory.mktemp("normals"))
    config = folder / "config"
    for name, row in (("datasets.tsv", ROW), ("models.tsv", MODEL)):
        head = (config / name).read_text().splitlines()[0]
        (config / name).write_text(f"{head}\n{row}")
    (config / "pretraining.yaml").write_text("toy-random: {method: none, seed: 1}\n")
    quick = SETTINGS | {
        "schedule": SETTINGS["schedule"] | {"batch_size": 4, "epochs": 2, "epoch_steps": 2},
        "sides": {"train": [64, 96], "test": 96},
    }
    (config / "config.yaml").write_text(SUITE.format(root=samples, settings=json.dumps(quick)))
    succeed(folder, "results/scores/real-normals/net/nyuv2.json")
    return folder


def test_the_score_is_that_of_the_official_test_frames(folder):
    score = read_score(folder / "results/scores/real-normals/net/nyuv2.json")
    values = {value["metric"]: value["value"] for value in score["values"]}
    assert list(values) == ["mean-angle", "median-angle", "within-11.25", "within-22.5", "within-30"]
    assert 0 < values["within-11.25"] < values["within-22.5"] < values["within-30"] < 100
    assert score["details"]["images"] == {"train": 4, "test": 3}
    with (folder / "results/per-image/real-normals/net/nyuv2.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"all_images/{n}_rgb.jpg" for n in ("000433", "000464", "900004")]
    pixels = np.array([int(row["pixels"]) for row in rows])
    # The valid fractions that the samples' README states.
    np.testing.assert_allclose(pixels / (480 * 640), [0.6485, 0.6131, 0.6507], atol=1e-4)
    pooled = np.average([float(row["mean-angle"]) for row in rows], weights=pixels)
    assert values["mean-angle"] == pytest.approx(pooled) and score["details"]["pixels"] == pixels.sum()
    losses = json.loads((folder / "results/curves/real-normals/net/nyuv2.json").read_text())
    assert losses["interval"] == 2 and len(losses["losses"]) == 2


def test_known_normals_are_those_of_the_files(folder, samples):
    normals, known = unpack_normals(open_normals(folder / "results/datasets/nyuv2/normals.npy", 7))
    for row, name in enumerate(["000003", "900001", "900002", "900003", "000433", "000464", "900004"]):
        expected, valid = nyuv2.read_normals(samples / "nyuv2", f"surfacenormal_metadata/{name}.mat")
        assert np.array_equal(known[row], valid)
        # float64: near 0 degrees a float32 cosine is 1.
        assert angles(normals[row][valid], expected[valid]).max() < 0.01


def test_pictures_show_images_truth_prediction_and_error(folder):
    pictures = load_pictures(folder / "results/pictures/real-normals/net/nyuv2.npz")
    assert pictures.columns == ["000433_rgb", "000464_rgb", "900004_rgb"]
    assert list(pictures.reference) == ["Image", "Ground truth"]
    assert list(pictures.panels) == ["Prediction", "Error"]


def test_overfitting_real_frames_reaches_less_than_ten_degrees(folder, samples, tmp_path):
    """Every fortieth pixel of each frame, so that the map has a cell for each of them.

    At full size the cells of 8 pixels alone cost 12 degrees on these frames, whose derived normals are noisy.
    """
    torch.set_num_threads(1)
    normals = open_normals(folder / "results/datasets/nyuv2/normals.npy", 7)[:, 20::40, 20::40]
    names = [f"{row}.png" for row in range(7)]
    for name, image in zip(names, nyuv2.index(samples / "nyuv2").image, strict=True):
        Image.open(samples / "nyuv2" / image).resize((16, 12), Image.Resampling.BOX).save(tmp_path / name)
    dataset = NormalsDataset(tmp_path, names, normals, nyuv2.read_code_words(samples / "nyuv2"), 1000)
    network = NormalsNetwork(build_resnet("resnet-1x1x1x1-w8", 0), 40, Network(64, 0.0, 0.1), "all", 0)
    device = torch.device("cpu")
    settings = read_settings(NormalsSettings, SETTINGS)
    run = Run(tmp_path / "part", "random", "here")
    train_network(network, dataset, np.arange(7), settings, "imagenet", run, device)
    errors = angular_errors(Predictor(network, dataset, 96, "imagenet", device), np.arange(7))
    assert errors.pixels == 950 and errors.mean() < 10
