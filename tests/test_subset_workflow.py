"""The toy suite on a part of CIFAR-10: nothing in tables and captions can be taken for a result on all of it."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml
from layouts import cifar_batch, cifar_data

from workflow import succeed, workspace

pytestmark = pytest.mark.slow

MODELS = ("byol", "swav", "toy-random")
TRAIN, TEST = 100, 150
CLASSES = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
TEST_PART = f"{TEST} of 10000 test images, {5 * TRAIN} of 50000 training images"
ALL = f"{5 * TRAIN + TEST} of 60000 images"

PUBLISHED_ALONE = {"properties", *(f"scatter-{kind}" for kind in ("detection", "finetune", "normals", "segmentation"))}
"""Figures of kinds that the suite does not measure, whose scores are the published ones."""


def write_part_of_cifar10(folder):
    """A hundredth of the images, in the original layout; their labels fit their brightness a little."""
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for seed, (name, count) in enumerate(zip(names, [TRAIN] * 5 + [TEST], strict=True)):
        labels = np.arange(count) % 10
        data = (cifar_data(count, seed) // 2 + 12 * labels[:, None]).astype(np.uint8)
        cifar_batch(folder / name, data=data, labels=labels.tolist(), batch_label=b"x")
    cifar_batch(folder / "batches.meta", label_names=CLASSES)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = workspace(tmp_path_factory.mktemp("subset"))
    write_part_of_cifar10(folder / "data/cifar10/cifar-10-batches-py")
    suite = yaml.safe_load((folder / "config/config.yaml").read_text())
    suite |= {"suite": "part", "published": "v2", "allow_subset": True, "data_root": "data", "models_of": {}}
    suite["tasks"] = {"toy-linear": ["cifar10", "textures"], "toy-fewshot": ["cifar10"], "toy-calibration": ["cifar10"]}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(suite))
    head = (folder / "config/models.tsv").read_text().splitlines()[0]
    rows = [f"{m}\t{m}\tnone\tresnet-1x1x1x1-w4\tpretrain:toy-random\t\t\timagenet\t70\tpart\tMIT\t" for m in MODELS]
    (folder / "config/models.tsv").write_text("\n".join([head, *rows]) + "\n")
    succeed(folder)
    return folder / "results/part"


def read(folder, name, **options):
    return pd.read_csv(folder / f"tables/{name}.csv", keep_default_na=False, **options)


def captions(folder):
    return {
        entry["name"]: entry["caption"] for entry in json.loads((folder / "tables/suite.json").read_text())["tables"]
    }


def test_every_score_of_a_part_says_so(finished):
    scores = read(finished, "scores")
    own = scores[(scores["source"] == "measured")].set_index(["protocol", "dataset"])["partial"]
    assert own.groupby(level=[0, 1]).agg(set).to_dict() == {
        ("toy-linear", "cifar10"): {TEST_PART},
        ("toy-linear", "textures"): {""},
        ("toy-fewshot", "cifar10"): {ALL},
        ("toy-calibration", "cifar10"): {f"{TEST} of 10000 test images"},
    }
    assert set(scores.loc[scores["source"] != "measured", "partial"]) == {""}


def test_tables_of_scores_show_them_with_signs_and_in_no_average(finished):
    table = read(finished, "toy-linear", index_col="row")
    assert set(table.loc[list(MODELS), "CIFAR-10 remark"]) == {TEST_PART}
    assert table.loc[list(MODELS), "Avg."].eq("").all()
    for name in ("toy-linear", "toy-fewshot-5-shot"):
        html = (finished / f"tables/{name}.html").read_text()
        assert len(
            re.findall(r'class="[^"]*\bpartial\b[^"]*">[\d.]+(?:<small> ± [\d.]+</small>)?<sup>‡</sup>', html)
        ) == len(MODELS)
        assert not re.search(r'class="(best|second) partial', html)
        assert "‡ measured on part of the data" in captions(finished)[name]
        assert (finished / f"tables/{name}.tex").read_text().count(r"$^\ddagger$") == len(MODELS)


def test_nothing_that_is_derived_from_scores_knows_them(finished):
    correlations = read(finished, "correlations")
    # Of 20 and 50 shots, nothing was measured.
    rows = correlations[(correlations["dataset"] == "cifar10") & correlations["setting"].isin(["", "5-shot"])]
    rows = rows[rows["protocol"].isin(["toy-linear", "toy-fewshot"])]
    assert rows["n"].astype(int).tolist() == [14 - 2] * 2
    claims = read(finished, "claims")
    assert claims["measured"].eq("").all()
    assert f"CIFAR-10: {TEST_PART} ‡" in captions(finished)["comparison-toy-linear"]
    for name in ("correlations", "claims"):
        assert "measured on part of the data" in captions(finished)[name]
    comparison = read(finished, "comparison")
    assert set(comparison["model"]) == {"byol", "swav"}
    assert set(comparison["verdict"]) == {"not judged"} and comparison["partial"].ne("").all()
    for path in (finished / "tables").glob("comparison*.html"):
        assert not re.search(r'class="[^"]*(agrees|differs)', path.read_text())


def test_the_report_and_its_figures_say_so(finished):
    drawn = json.loads((finished / "figures/captions.json").read_text())
    for path in (finished / "figures").glob("*.svg"):
        assert ("measured on part of the data" in drawn[path.stem]) == (path.stem not in PUBLISHED_ALONE), path.stem
    data = json.loads((finished / "figures/explorer.json").read_text())
    labels = [model["label"] for model in data["models"]]
    views = [view for view in data["views"] if view["label"].endswith(("linear · CIFAR-10", "CIFAR-10 · 5-shot"))]
    assert len(views) == 2
    for view in views:
        assert not {labels[point[0]] for point in view["points"]} & set(MODELS)
    report = (finished / "report.html").read_text()
    assert "measured on part of the data" in report.split("<main")[0]
