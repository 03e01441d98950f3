"""Do the recipes pay? `uv run python benchmarks/pretraining_gain.py` writes pretraining_gain.md beside it.

Every recipe of the demo suite is trained with several seeds (of initialisation, order and views) by the product's own
code; a linear classifier measures shapes, shapes-multilabel and textures on each. The gain of a recipe over random
initialisation is the difference of mean logits, in standard errors of that difference over seeds.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.append(str(REPOSITORY / "scripts"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from PIL import Image  # noqa: E402
from scipy.special import logit  # noqa: E402

from ssltransfer.backbones import build_backbone  # noqa: E402
from ssltransfer.config import read_table  # noqa: E402
from ssltransfer.datasets import shapes, textures  # noqa: E402
from ssltransfer.features import extract_features  # noqa: E402
from ssltransfer.images import parse_transform  # noqa: E402
from ssltransfer.linear import evaluate_linear, lambda_grid  # noqa: E402
from ssltransfer.pretraining.training import Recipe, pretrain  # noqa: E402
from ssltransfer.splits import make_split  # noqa: E402

TASKS = {"shapes": "top1", "shapes-multilabel": "map11", "textures": "mean-per-class"}
GRID = lambda_grid(1e-3, 1e4, 15)


def load_images():
    """Images and index of both data sets, as the workflow prepares them."""
    size, apply = parse_transform("resize32")
    found = {}
    for name, module in (("shapes", shapes), ("textures", textures)):
        generated = module.generate()
        images = np.stack([np.asarray(apply(Image.fromarray(image))) for image in generated.images])
        found[name] = images, generated.index
    return found


def measure(state, arch, norm, data):
    """Linear scores of a backbone on the three tasks, in percent."""
    backbone = build_backbone(arch)
    backbone.load_state_dict(state)
    features = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (images, _) in data.items():
            path = Path(folder) / f"{name}.npy"
            extract_features(backbone.eval(), images, norm, path, torch.device("cpu"))
            features[name] = np.load(path)
    scores = {}
    for task, metric in TASKS.items():
        name = task.removesuffix("-multilabel")
        index = data[name][1]
        if task != name:
            index = type(index)(index.image, index.split, index.extra["objects"], index.classes)
        split = make_split(index.split_array(), 0.2, 0)
        scores[task] = evaluate_linear(
            features[name], index.label_array(), split, len(index.classes), metric, GRID
        ).test
    return scores


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_images()
    recipes = yaml.safe_load((REPOSITORY / "config/pretraining.yaml").read_text())
    rows = [row for row in read_table(REPOSITORY / "config/models.tsv") if "demo" in row["suites"]]
    results, seconds = {}, {}
    for row in rows:
        name = row["source"].removeprefix("pretrain:")
        for seed in range(options.seeds):
            recipe = Recipe(name, **(recipes[name] | {"seed": seed}))
            images, index = data[recipe.dataset or "shapes"]
            train = np.flatnonzero(index.split_array() == "train")
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as part:
                state, _ = pretrain(images, index.label_array(), train, recipe, row["arch"], row["norm"], Path(part))
            seconds.setdefault(row["label"], []).append(time.perf_counter() - start)
            results.setdefault(row["label"], []).append(measure(state, row["arch"], row["norm"], data))
            print(row["label"], seed, json.dumps(results[row["label"]][-1]), file=sys.stderr, flush=True)
    write_table(results, seconds, options.seeds)


def mean_and_error(values):
    return np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))


def write_table(results, seconds, seeds):
    logits = {
        label: [np.mean([logit(scores[task] / 100) for task in TASKS]) for scores in runs]
        for label, runs in results.items()
    }
    base, base_error = mean_and_error(logits["Random"])
    lines = [
        "# Gain of the pretraining recipes over random initialisation",
        "",
        f"`uv run python benchmarks/pretraining_gain.py`, {seeds} seeds, one thread of a machine with {os.cpu_count()} cores "
        f"({platform.machine()}), Python {platform.python_version()}, torch {torch.__version__.split('+')[0]}. "
        "Linear scores in percent with their standard error over seeds; the gain is in units of its standard error.",
        "",
        "| model | "
        + " | ".join(f"{task} ({metric})" for task, metric in TASKS.items())
        + " | mean logit | gain | gain / SE | pretraining, s |",
        "| --- |" + " --- |" * (len(TASKS) + 4),
    ]
    for label, runs in results.items():
        cells = ["{:.1f} ± {:.1f}".format(*mean_and_error([scores[task] for scores in runs])) for task in TASKS]
        mean, error = mean_and_error(logits[label])
        gain, gain_error = mean - base, np.hypot(error, base_error)
        gains = ["", ""] if label == "Random" else [f"{gain:+.2f}", f"{gain / gain_error:.1f}"]
        cells += [f"{mean:.2f} ± {error:.2f}", *gains, f"{np.mean(seconds[label]):.0f}"]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
