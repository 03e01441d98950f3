"""What the official code's optimiser changes, on real images: `uv run python benchmarks/official_solver.py DATA_ROOT`.

DATA_ROOT holds original datasets (or a few images of each) in their own layouts; those of `--datasets` are used.
Features: gradient histograms and colour statistics of 64-pixel images, standardised (2,076 numbers, no network), or
with `--network` a randomly initialised ResNet-50's (2,048 numbers). Three optimisers choose among the 45 penalties of
the paper by validation and are tested after the final fit:

- converged: `linear`, every penalty certified;
- 100 cold: `linear-official`, at most 100 iterations of L-BFGS from zero for each penalty;
- shortcut: as the official code, one estimator from the weakest penalty to the strongest, each of at most 100
  iterations starting from the result before, the final fit from the last one.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from ssltransfer.config.table_file import read_table
from ssltransfer.datasets import load, parse_dataset_source
from ssltransfer.datasets.images import DecodedImages
from ssltransfer.datasets.splits import make_split
from ssltransfer.protocols.linear import certificate, classification_metrics, evaluation

DATASETS = ["cifar10", "caltech101", "cars", "dtd", "flowers", "food101", "pets", "sun397", "eurosat"]
GRID = evaluation.lambda_grid(1e-6, 1e5, 45)


def handmade(images):
    """Gradient histograms of the grey image, and means, deviations and a histogram of its colours."""
    from skimage.feature import hog

    rows = []
    for image in images:
        cells = image.reshape(4, 16, 4, 16, 3).astype(float)
        colours = [np.bincount((image // 43).reshape(-1, 3) @ [36, 6, 1], minlength=216) / 4096]
        colours += [statistic(cells, axis=(1, 3)).ravel() / 255 for statistic in (np.mean, np.std)]
        rows.append(np.concatenate([hog(image.mean(axis=2)), *colours]))
    return np.asarray(rows)


def network(images):
    """Features of a ResNet-50 as it is initialised."""
    import torch

    from ssltransfer.models.input_norm import normalise
    from ssltransfer.models.resnet import build_resnet

    backbone = build_resnet("resnet50", seed=0).eval()
    batches = np.array_split(images, 1 + len(images) // 32)
    with torch.inference_mode():
        return torch.cat([backbone(normalise(torch.from_numpy(batch), "imagenet")) for batch in batches]).numpy()


def read(name, root, extract):
    """Features, labels and split of a dataset."""
    rows = read_table(Path(__file__).parents[1] / "config/datasets.tsv")
    row = next(row for row in rows if row["dataset"] == name)
    source = parse_dataset_source(row["source"])
    index = load(source).index(root / name)
    features = extract(DecodedImages(root / name, index.image, "resize64")[:])
    parts = index.split_array()
    if not (parts == "test").any():  # EuroSAT has none: half of it, drawn
        parts = np.where(np.random.RandomState(0).permutation(len(parts)) % 2, "train", "test")
    split = make_split(parts, 0.2, 0)
    if extract is handmade:
        seen = features[split.trainval]
        features = (features - seen.mean(axis=0)) / np.maximum(seen.std(axis=0), 1e-6)
    return features.astype(np.float32), index.label_array(), split, len(index.classes), row["metric"]


def shortcut(features, labels, split, classes, metric):
    """The official code's loop; (lambda, validation, test, certified penalties)."""
    x = features.astype(np.float64)
    train, val, both, test = split.train, split.val, split.trainval, split.test
    model = LogisticRegression(max_iter=100, warm_start=True, tol=1e-4 / len(train))
    best, certified = (None, -1.0), 0

    def evaluate(rows):
        scores = np.full((len(rows), classes), -np.inf)
        scores[:, model.classes_] = model.decision_function(x[rows])
        return classification_metrics.evaluate(metric, labels[rows], scores)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for penalty in GRID.tolist():
            model.set_params(C=1 / penalty).fit(x[train], labels[train])
            weights, bias = np.zeros((x.shape[1], classes)), np.full(classes, -np.inf)
            weights[:, model.classes_], bias[model.classes_] = model.coef_.T, model.intercept_
            certified += certificate.certify(x[train], labels[train], penalty, weights, bias)[2]
            if (quality := evaluate(val)) > best[1]:
                best = penalty, quality
        model.set_params(C=1 / best[0], tol=1e-4 / len(both)).fit(x[both], labels[both])
    return *best, evaluate(test), certified


def solve(solver, *problem):
    if solver == "shortcut":
        return shortcut(*problem)
    result = evaluation.evaluate_linear(*problem, GRID, {"100 cold": "official"}.get(solver, solver))
    return result.penalty, result.validation, result.test, sum(point["converged"] for point in result.curve)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--datasets", nargs="*", default=DATASETS)
    parser.add_argument("--network", action="store_true", help="features of a randomly initialised ResNet-50")
    options = parser.parse_args()
    print("| dataset | train, val, test | optimiser | certified | lambda | validation | test | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in options.datasets:
        problem = read(name, options.root, network if options.network else handmade)
        split = problem[2]
        sizes = f"{len(split.train)}, {len(split.val)}, {len(split.test)}"
        for solver in ("converged", "100 cold", "shortcut"):
            start = time.process_time()
            penalty, validation, test, certified = solve(solver, *problem)
            used = time.process_time() - start
            print(
                f"| {name} | {sizes} | {solver} | {certified} of {len(GRID)} | {penalty:.1e} | {validation:.2f} | "
                f"{test:.2f} | {used:.0f} |",
                flush=True,
            )
