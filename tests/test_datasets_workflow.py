"""A user's own images in the real workflow, as docs/datasets.md shows it; without keeping prepared images."""

import os
from collections import Counter

import numpy as np
import pytest
import torch
from layouts import picture, table
from test_workflow import SUMMARY

from ssltransfer.datasets.images import prepare_images
from ssltransfer.datasets.index import read_index
from ssltransfer.files import read_json
from ssltransfer.models.backbone_file import load_backbone
from ssltransfer.models.features import extract_features
from workflow import REPOSITORY, planned, snakemake, succeed, workspace

pytestmark = pytest.mark.slow

ARCH = "resnet-1x1x1x1-w4"
MODEL = f"{{}}\tNet\tnone\t{ARCH}\tpretrain:toy-random\t\t\timagenet\t\town\tMIT\t\n"


def example_rows():
    """The rows that docs/datasets.md shows."""
    lines = (REPOSITORY / "docs/datasets.md").read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("    ") for line in lines if line.startswith(("    birds\t", "    scenes\t"))]


def suite_text():
    """The suite that docs/datasets.md shows, made quick, with what this test is about."""
    page = (REPOSITORY / "docs/datasets.md").read_text(encoding="utf-8")
    shown = page.split("```yaml\n")[1].split("```")[0]
    penalties = "lambdas: {first: 1.0e-6, last: 1.0e+5, count: 3}"
    for old, new in (
        ("/data", "data"),
        ("kind: linear", f"kind: linear, transform: resize16, {penalties}"),
        ("kind: fewshot", "kind: fewshot, transform: resize16, episodes: 20"),
    ):
        assert old in shown
        shown = shown.replace(old, new)
    return shown + "keep_images: false\non_error: skip\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = workspace(tmp_path_factory.mktemp("own data"))
    for split, count in (("train", 4), ("test", 2)):
        for name in ("blue tit", "Eisvögel", "robin"):
            for i in range(count):
                picture(folder / "data/birds" / split / name / f"{i}.jpg", seed=hash((split, name, i)) % 1000)
    birds = folder / "data/birds"
    (birds / "test/robin/1.jpg").write_bytes((birds / "train/robin/0.jpg").read_bytes())
    labels = ["sea|sky", "sky", "forest|sky", "sea", "", "forest"]
    rows = [(f"img/{i} ü.jpg", labels[i % 6], "train" if i < 24 else "test") for i in range(30)]
    table(folder / "data/scenes/list.csv", rows, newline="\r\n", encoding="utf-8-sig")
    (folder / "data/scenes/img/7 ü.jpg").write_bytes(b"")
    config = folder / "config"
    head = (config / "datasets.tsv").read_text().splitlines()[0]
    (config / "datasets.tsv").write_text("\n".join([head, *example_rows()]) + "\n")
    head = (config / "models.tsv").read_text().splitlines()[0]
    (config / "models.tsv").write_text(f"{head}\n{MODEL.format('net')}")
    (config / "pretraining.yaml").write_text("toy-random: {method: none, seed: 1}\n")
    (config / "config.yaml").write_text(suite_text())
    scores = ["own-linear/net/birds", "own-linear/net/scenes", "own-fewshot/net/birds"]
    succeed(folder, *(f"results/scores/{name}.json" for name in scores))
    return folder


def test_no_images_are_kept_and_features_are_the_same(folder, tmp_path):
    assert not list(folder.glob("results/datasets/*/*.npy"))
    index = read_index(folder / "results/datasets/birds/index.parquet")
    assert index.classes == ["Eisvögel", "blue tit", "robin"]
    prepare_images(folder / "data/birds", index.image, "resize16", tmp_path / "images.npy")
    backbone = load_backbone(folder / "results/checkpoints/net.safetensors", ARCH)
    images = np.load(tmp_path / "images.npy")
    extract_features(backbone, images, "imagenet", tmp_path / "features.npy", torch.device("cpu"))
    features = np.load(folder / "results/features/net/birds/resize16.imagenet.npy")
    assert np.array_equal(features, np.load(tmp_path / "features.npy"))


def test_unreadable_images_are_skipped_in_the_index(folder):
    index = read_index(folder / "results/datasets/scenes/index.parquet")
    assert len(index) == 29 and "img/7 ü.jpg" not in index.image
    assert index.label[:3] == [[1, 2], [2], [0, 2]]
    log = (folder / "logs/index_dataset/scenes.log").read_text(encoding="utf-8")
    assert "on_error: skip: image " in log and "7 ü.jpg cannot be read" in log
    assert len(np.load(folder / "results/features/net/scenes/resize16.imagenet.npy")) == 29


def test_an_image_in_two_parts_is_a_warning_of_the_scores(folder):
    for protocol in ("own-linear", "own-fewshot"):
        [warning] = [
            text
            for text in read_json(folder / f"results/scores/{protocol}/net/birds.json")["warnings"]
            if "byte for byte" in text
        ]
        assert "test/robin/1.jpg = train/robin/0.jpg" in warning or not warning.startswith("1 ")


def test_counts_that_the_row_leaves_empty_are_those_of_the_index(folder):
    coverage = read_json(folder / "results/scores/own-linear/net/birds.json")["coverage"]
    assert coverage["images"] == {"used": 6, "promised": 6} and coverage["classes"]["promised"] == 3


def test_a_new_model_plans_its_jobs_and_the_summary(folder):
    models = folder / "config/models.tsv"
    before = models.read_text()
    models.write_text(before + MODEL.format("new"))
    own = {"pretrain_model": 1, "extract_features": 2, "evaluate_linear": 2, "evaluate_fewshot": 1}
    try:
        assert planned(folder) == Counter({(rule, "new"): n for rule, n in own.items()} | SUMMARY)
    finally:
        models.write_text(before)


def test_an_edited_table_makes_the_index_again(folder):
    path = folder / "data/scenes/list.csv"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"sea|sky", b"sea"))
    try:
        done = snakemake(folder, "results/datasets/scenes/index.parquet", "--dry-run")
        assert "index_dataset" in done.stdout
    finally:
        path.write_bytes(before)


def test_unreadable_images_fail_by_default(folder):
    target = "results/datasets/scenes/resize16.npy"
    done = snakemake(folder, target, "--config", "on_error=fail", "keep_images=true")
    assert done.returncode == 1
    assert "1 of 30 images cannot be used: image data/scenes/img/7 ü.jpg cannot be read" in done.stdout
    assert not (folder / target).exists()


def test_a_table_replaced_by_an_older_one_is_noticed(folder):
    target, listed = "results/datasets/scenes/index.parquet", folder / "data/scenes/list.csv"
    succeed(folder, target)
    assert "Nothing to be done" in succeed(folder, target, "--dry-run")
    status, record = listed.stat(), folder / "results/datasets/scenes/table.json"
    os.utime(listed, (status.st_atime, status.st_mtime - 1000))
    assert "rule index_dataset:" in succeed(folder, target, "--dry-run")
    os.utime(listed, (status.st_atime, status.st_mtime))
    assert "Nothing to be done" in succeed(folder, target, "--dry-run") and record.is_file()
