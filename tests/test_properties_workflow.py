"""Inversion and attention in the real workflow, on a dataset of one image each of two others, without LPIPS."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from ssltransfer.files import read_json
from ssltransfer.results.picture_file import load_pictures
from ssltransfer.versions import version
from workflow import planned, succeed, workspace

pytestmark = pytest.mark.slow

SUITE = {
    "suite": "look",
    "models": "config/models.tsv",
    "datasets": "config/datasets.tsv",
    "pretraining": "config/pretraining.yaml",
    "lpips_trunks": {"alexnet": "file:nowhere.pth"},
    "tasks": {"look-inversion": ["two"], "look-attention": ["two"]},
    "protocols": {
        "look-inversion": {
            "kind": "inversion", "transform": "resize32", "canvas": 32, "steps": 4, "learning_rate": 0.01,
            "network": {"channels": [4, 4], "kernels": [3, 3], "skip": 2, "inputs": 4},
            "lpips": ["alexnet"], "seed": 0,
        },
        "look-attention": {"kind": "attention", "size": 32, "mask": 8, "stride": 8},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = workspace(tmp_path_factory.mktemp("look"))
    (folder / "config/config.yaml").write_text(yaml.safe_dump(SUITE, sort_keys=False))
    models = (folder / "config/models.tsv").read_text().splitlines()
    row = next(line for line in models if line.startswith("toy-random\t")).replace("measured:digits", "50")
    (folder / "config/models.tsv").write_text(
        f"{models[0]}\n{row.replace('toy', 'look', 1).replace(chr(9) + 'toy', chr(9) + 'look')}\n"
    )
    with (folder / "config/datasets.tsv").open("a") as table:
        table.write("two\tTwo\timages\t\tone-of:textures,digits=originals.npy#7\t2\t0\t0\t2\t\t\n")
    succeed(folder)
    return folder


def test_scores_say_what_is_missing(finished):
    score = json.loads((finished / "results/scores/look-inversion/look-random/two.json").read_text())
    assert [value["metric"] for value in score["values"]] == ["mse-red", "mse-green", "mse-blue", "psnr", "ssim"]
    iterations, warning = score["warnings"]
    assert iterations == "4 iterations, where the paper has 3000"
    assert warning.startswith("lpips-alexnet is missing") and "nowhere.pth" in warning
    assert set(score["details"]["images"]) == {"textures", "digits"}
    assert score["versions"]["protocol"] == f"{version('inverted-images')}.{version('inversion')}"
    assert score["details"]["training_cost"]["seconds"] > 0
    score = json.loads((finished / "results/scores/look-attention/look-random/two.json").read_text())
    assert score["warnings"] == ["approximation: masks in steps of 8, not at every position"]
    assert score["details"]["masks"] == 25


def test_images_are_those_that_were_asked_for(finished):
    folder = finished / "results/datasets"
    index = pd.read_parquet(folder / "two/index.parquet")
    assert index["origin"][1] == "originals.npy#7"
    digits = np.load(folder / "digits/originals.npy")
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "two/originals/digits.png"))[..., 0], _grey(digits[7]))
    textures = pd.read_parquet(folder / "textures/index.parquet").set_index("image")
    assert textures.loc[index["origin"][0], "split"] == "test"
    pictures = load_pictures(finished / "results/pictures/look-inversion/look-random/two.npz")
    assert pictures.columns == ["textures", "digits"]
    np.testing.assert_array_equal(pictures.reference["image"], np.load(folder / "two/resize32.npy"))


def _grey(image):
    return image if image.ndim == 2 else image[..., 0]


def test_report_holds_grids_losses_and_notes(finished):
    report = (finished / "results/look/report.html").read_text()
    assert "4 iterations, where the paper has 3000" in report
    assert report.count("look-attention: approximation: masks in steps of 8, not at every position.") == 1
    figures = {path.stem for path in (finished / "results/look/figures").glob("*.svg")}
    assert {"properties", "losses"} <= figures
    assert {f"{kind}-pictures-look-{kind}-two" for kind in ("inversion", "attention")} <= figures
    table = pd.read_csv(finished / "results/look/tables/properties.csv")
    assert any("SSIM" in column for column in table.columns)


def test_published_captions_know_nothing_of_the_suite(finished):
    succeed(finished, "results/published-v2/figures")
    suites = [read_json(finished / f"results/{suite}/tables/suite.json") for suite in ("look", "published-v2")]
    own, published = ({t["name"]: t["caption"] for t in suite["tables"]}["properties"] for suite in suites)
    assert "look-inversion: 4 iterations" in own and "iterations" not in published
    captions = " ".join(read_json(finished / "results/published-v2/figures/captions.json").values())
    assert "look-" not in captions and "iterations" not in captions


def test_second_run_plans_nothing_and_a_step_more_only_the_inversion(finished):
    assert not planned(finished)
    suite = json.loads(json.dumps(SUITE))
    suite["protocols"]["look-inversion"]["steps"] = 5
    (finished / "config/more.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
    summary = {("make_tables", ""), ("plot_figures", ""), ("write_provenance", ""), ("write_report", ""), ("all", "")}
    jobs = {("invert_features", "look-random"), ("evaluate_inversion", "look-random")} | summary
    assert set(planned(finished, suite="more.yaml")) == jobs
