"""Source accuracy that a suite measures itself, by nearest neighbours on a folder in the layout of ImageNet."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from layouts import picture

from workflow import succeed, workspace

pytestmark = pytest.mark.slow

SYNSETS = [f"n0144{number}" for number in range(1000, 1006)]
COUNTS = {"train": 12, "val": 5}
"""Part -> images of each class; the validation images are the test part."""
MODELS = {"measured": "measured:imagenet", "other": "measured:imagenet", "quoted": "70.5"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = workspace(tmp_path_factory.mktemp("imagenet"))
    for part, count in COUNTS.items():
        for label, synset in enumerate(SYNSETS):
            for number in range(count):
                picture(folder / f"data/imagenet/{part}/{synset}/{part}_{number}.JPEG", seed=9 * number + label)
    suite = yaml.safe_load((folder / "config/config.yaml").read_text())
    suite |= {"suite": "own", "data_root": "data", "models_of": {}}
    suite["tasks"] = {"toy-linear": ["digits"], "toy-knn": ["imagenet"]}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(suite))
    table = folder / "config/datasets.tsv"
    train, test = (count * len(SYNSETS) for count in COUNTS.values())
    row = f"imagenet\tImageNet\tsingle-label\ttop1\toriginal:imagenet\t{len(SYNSETS)}\t{train}\t0\t{test}\t\t"
    table.write_text(table.read_text() + row + "\n")
    head = (folder / "config/models.tsv").read_text().splitlines()[0]
    base = "none\tresnet-1x1x1x1-w4\tpretrain:toy-random\t\t\timagenet"
    rows = [f"{model}\t{model}\t{base}\t{accuracy}\town\tMIT\t" for model, accuracy in MODELS.items()]
    (folder / "config/models.tsv").write_text("\n".join([head, *rows]) + "\n")
    succeed(folder)
    return folder / "results"


def test_source_accuracy_is_the_vote_of_20_neighbours(finished):
    score = json.loads((finished / "scores/toy-knn/measured/imagenet.json").read_text())
    (value,) = [v["value"] for v in score["values"] if (v["setting"], v["metric"]) == ("20-nn", "top1")]
    models = pd.read_csv(finished / "own/tables/models.csv", keep_default_na=False, index_col="model")
    assert float(models.loc["measured", "source_accuracy"]) == pytest.approx(value)
    measured = {"measured": "20-NN on ImageNet", "other": "20-NN on ImageNet", "quoted": ""}
    assert models["measured"].to_dict() == measured
    assert float(models.loc["quoted", "source_accuracy"]) == 70.5


def test_captions_say_which_source_accuracies_are_measured(finished):
    tables = json.loads((finished / "own/tables/suite.json").read_text())["tables"]
    (caption,) = [table["caption"] for table in tables if table["name"] == "correlations"]
    assert "20-NN on ImageNet" in caption and "score lower than linear classifiers" in caption


def test_the_source_dataset_is_no_transfer_target(finished):
    correlations = pd.read_csv(finished / "own/tables/correlations.csv")
    assert set(correlations["dataset"]) == {"digits"}
    assert np.isfinite(pd.read_csv(finished / "own/tables/scores.csv").query("dataset == 'imagenet'")["value"]).all()
