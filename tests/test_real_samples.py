"""The real workflow with a full ResNet-50 on a few real images of four datasets in their original layouts."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from ssltransfer.config.table_file import read_table
from ssltransfer.datasets.containers import read_cifar_batch
from workflow import REPOSITORY, planned, snakemake, succeed

pytestmark = pytest.mark.slow

PER_CLASS = 2
SUITE = {
    "suite": "samples",
    "models": "config/models.tsv",
    "datasets": "config/datasets.tsv",
    "pretraining": "config/pretraining.yaml",
    "data_root": "data",
    "allow_subset": True,
    "tasks": {"linear-s": ["cifar10", "dtd", "pets"], "fewshot-s": ["eurosat"]},
    "protocols": {
        "linear-s": {
            "kind": "linear",
            "transform": "resize224",
            "normalisation": "per-model",
            "lambdas": {"first": 1e-1, "last": 1e3, "count": 5},
            "validation_fraction": 0.2,
            "seed": 0,
        },
        "fewshot-s": {
            "kind": "fewshot",
            "transform": "resize224",
            "normalisation": "per-model",
            "ways": 5,
            "shots": [1, 2],
            "queries": 2,
            "episodes": 20,
            "seed": 0,
        },
    },
}


def few_of_each(lines, key, count=PER_CLASS):
    """Keep the first lines of each class."""
    seen: dict[str, int] = {}
    for line in lines:
        seen[key(line)] = seen.get(key(line), 0) + 1
        if seen[key(line)] <= count:
            yield line


def copy_few(samples: Path, root: Path) -> None:
    """Copy a few images of each class of the four datasets, original layouts and split files kept."""
    source, target = samples / "cifar10/cifar-10-batches-py", root / "cifar10/cifar-10-batches-py"
    target.mkdir(parents=True)
    for file in source.iterdir():
        batch = read_cifar_batch(file)
        if "data" in batch:
            rows = sorted(batch["labels"].index(label) for label in set(batch["labels"]))
            batch = batch | {"data": batch["data"][rows], "labels": [batch["labels"][row] for row in rows]}
        (target / file.name).write_bytes(pickle.dumps(batch, protocol=2))
    for name, folder, files, key, image in [
        ("dtd", "labels", ["train1.txt", "val1.txt", "test1.txt"], lambda line: line.split("/")[0], "images/{}"),
        ("pets", "annotations", ["trainval.txt", "test.txt"], lambda line: line.split()[1], "images/{}.jpg"),
    ]:
        for file in files:
            lines = list(few_of_each((samples / name / folder / file).read_text().split("\n")[:-1], key))
            path = root / name / folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n")
            for line in lines:
                picture = image.format(line.split()[0])
                (root / name / picture).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(samples / name / picture, root / name / picture)
    for folder in (samples / "eurosat/2750").iterdir():
        (root / "eurosat/2750" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[: 2 * PER_CLASS]:
            shutil.copy(file, root / "eurosat/2750" / folder.name)


@pytest.fixture(scope="module")
def folder(samples, tmp_path_factory):
    from torchvision.models import resnet50

    folder = tmp_path_factory.mktemp("samples")
    copy_few(samples, folder / "data")
    torch.manual_seed(0)
    torch.save(resnet50(weights=None).state_dict(), folder / "weights.pth")
    config = folder / "config"
    config.mkdir()
    row = {"model": "r50", "label": "R50", "family": "none", "arch": "resnet50", "source": "file:weights.pth"}
    row |= {"format": "torchvision", "sha256": "", "norm": "imagenet", "source_accuracy": "76.1", "suites": "samples"}
    row |= {"licence": "", "reference": ""}
    (config / "models.tsv").write_text("\t".join(row) + "\n" + "\t".join(row.values()) + "\n")
    for name in ("datasets.tsv", "pretraining.yaml"):
        shutil.copy(REPOSITORY / "config" / name, config / name)
    (config / "config.yaml").write_text(yaml.safe_dump(SUITE))
    succeed(folder)
    return folder


def test_scores_are_complete(folder):
    datasets = {row["dataset"]: row for row in read_table(folder / "config/datasets.tsv")}
    for dataset in SUITE["tasks"]["linear-s"]:
        score = json.loads((folder / f"results/scores/linear-s/r50/{dataset}.json").read_text())
        assert score["values"][0]["metric"] == datasets[dataset]["metric"]
        assert 0 <= score["values"][0]["value"] <= 100
        assert score["preprocessing"]["transform"] == "resize224"
        assert all(point["converged"] for point in score["curve"]["imagenet"])
        assert score["checkpoint"]["source"] == "file:weights.pth"
        assert [len(digest) for digest in score["checkpoint"]["files"].values()] == [64]
    score = json.loads((folder / "results/scores/fewshot-s/r50/eurosat.json").read_text())
    assert [value["setting"] for value in score["values"]] == ["1-shot", "2-shot"]
    assert (folder / "results/samples/report.html").is_file()
    assert not planned(folder)


def test_full_counts_are_required_by_default(folder):
    done = snakemake(folder, "results/datasets/pets/index.parquet", "--config", "allow_subset=false")
    assert done.returncode == 1
    assert "pets: config/datasets.tsv says classes 37, found 3 (-34); train 3680, found 6 (-3674)" in done.stdout


def test_missing_data_is_one_line(folder):
    (folder / "elsewhere").mkdir()
    done = snakemake(folder, "--force", "results/datasets/dtd/index.parquet", "--config", "data_root=elsewhere")
    assert done.returncode == 1
    assert "the folder dtd must hold images/CLASS/*.jpg, labels/" in done.stdout
    assert "Traceback" not in done.stdout


def test_the_checkpoints_target_lists_what_was_converted(folder):
    output = succeed(folder, "checkpoints")
    assert any(line.startswith("r50 ") and "finite, mean" in line for line in output.splitlines())
    [header, row] = (folder / "results/samples/checkpoints.tsv").read_text().splitlines()
    cells = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    assert cells["tensors"] == "318"
    assert cells["left out"] == "0"
    assert not (folder / "resources/checkpoint-pins").exists()  # the file is on this machine, without a checksum
