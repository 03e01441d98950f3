"""Time of transferability estimators and of similarities at the sizes of the paper's 11 datasets.

    uv run python benchmarks/predictors.py [DATASET...]

Processor seconds of one thread, so that other work on the machine counts little. Features are synthetic: 2,048
numbers, none negative, with the images and classes of the dataset. Of each dataset one model is estimated and one pair
of models is compared, whole; 14 models and their 91 pairs are extrapolated, because the work is the same for each.
Needs 3 GB of memory.
"""

import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from ssltransfer.datasets.index import Index
from ssltransfer.models.feature_file import Features
from ssltransfer.protocols.estimators.evaluation import measure_estimators
from ssltransfer.protocols.estimators.settings import EstimatorSettings
from ssltransfer.protocols.similarity.cka import align, dependence, image_order, represent

WIDTH, MODELS = 2048, 14
SETTINGS = EstimatorSettings("resize224", 20, 10_000, 1000, 5, 0)
DATASETS = [
    *("aircraft", "caltech101", "cars", "cifar10", "cifar100", "dtd"),
    *("flowers", "food101", "pets", "sun397", "voc2007"),
]


def make_features(labels: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Draw non-negative features in classes."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, WIDTH)).astype(np.float32)
    return np.maximum(centres[labels] / 2 + rng.standard_normal((len(labels), WIDTH), np.float32), 0)


def timed(function: Callable, *args) -> float:
    """Processor seconds of a call."""
    begin = time.process_time()
    function(*args)
    return time.process_time() - begin


def estimate(row: dict) -> float:
    """Processor seconds of the estimators of one model."""
    images, classes = row["train"] + row["val"], row["classes"]
    first = np.arange(images) * classes // images
    labels = first.tolist()
    if row["task"] == "multi-label":
        labels = [sorted({label, (label * 7 + i) % classes}) for i, label in enumerate(labels)]
    index = Index([""] * images, ["train"] * images, labels, [str(k) for k in range(classes)])
    features = Features(make_features(first, classes, 0), {})
    return timed(measure_estimators, features, "imagenet", index, row["dataset"], row["metric"], SETTINGS)


def compare(row: dict) -> tuple[float, float]:
    """Processor seconds for each model, and for each pair."""
    labels = np.arange(row["test"]) * row["classes"] // row["test"]
    order = image_order(len(labels))
    one, other = (represent(make_features(labels, row["classes"], seed), order) for seed in (0, 1))
    begin = time.process_time()
    own = [dependence(each, each) for each in (one, other)]
    each = (time.process_time() - begin) / 2
    return each, timed(align, one, other, *own)


if __name__ == "__main__":
    with (Path(__file__).parents[1] / "config/datasets.tsv").open() as file:
        rows = {row["dataset"]: row for row in csv.DictReader(file, delimiter="\t")}
    total = np.zeros(3)
    print("| dataset | training images | estimators, s | test images | a model alone, s | a pair, s |")
    print("| --- | --- | --- | --- | --- | --- |")
    with threadpool_limits(1):
        for name in sys.argv[1:] or DATASETS:
            row = rows[name] | {key: int(rows[name][key]) for key in ("classes", "train", "val", "test")}
            seconds = np.array([estimate(row), *compare(row)])
            total += seconds
            images = row["train"] + row["val"]
            cells = [
                row["label"],
                f"{images:,}",
                f"{seconds[0]:.1f}",
                f"{row['test']:,}",
                *map("{:.1f}".format, seconds[1:]),
            ]
            print(f"| {' | '.join(cells)} |", flush=True)
    pairs = MODELS * (MODELS - 1) // 2
    print(f"\n{MODELS} models: estimators {MODELS * total[0] / 60:.0f} min, ", end="")
    print(f"similarities {(MODELS * total[1] + pairs * total[2]) / 60:.0f} min; ", end="")
    print(f"a further model: {(total[1] + MODELS * total[2]) / 60:.1f} min")
