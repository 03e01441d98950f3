"""What pretraining gains over random initialisation: `uv run python benchmarks/pretraining_gain.py`.

Every recipe that the model table trains a residual network by is trained with three seeds by the code of the pipeline,
and its features are evaluated by the demo suite's linear protocol. Prints and writes
`benchmarks/pretraining_gain.md` (half an hour).
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # as in the pipeline; has to be set before NumPy starts
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # its table is of CPU seconds

import csv
import platform
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "scripts"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from PIL import Image  # noqa: E402

from ssltransfer.datasets import shapes, textures  # noqa: E402
from ssltransfer.datasets.images import parse_transform  # noqa: E402
from ssltransfer.datasets.splits import make_split  # noqa: E402
from ssltransfer.models.backbone_file import build_backbone  # noqa: E402
from ssltransfer.models.features import extract_features  # noqa: E402
from ssltransfer.pretraining.recipe import TrainingData, pretrain, read_recipe  # noqa: E402
from ssltransfer.protocols.linear.evaluation import evaluate_linear, lambda_grid  # noqa: E402
from ssltransfer.settings import complete  # noqa: E402
from ssltransfer.training_state import Run  # noqa: E402

ARCH, NORM, SEEDS = "resnet-1x1x1x1-w16", "imagenet", (0, 1, 2)
TASKS = {"shapes": "top1", "textures": "mean-per-class", "shapes-multilabel": "map11"}
WHERE = {"shapes": "shapes", "textures": "textures", "shapes-multilabel": "shapes"}
SETTINGS = complete(yaml.safe_load((ROOT / "config/protocols.yaml").read_text())["linear-r32"])
WRITTEN = yaml.safe_load((ROOT / "config/pretraining.yaml").read_text())
TABLE = (ROOT / "config/models.tsv").read_text(encoding="utf-8").splitlines()
MODELS = {row["model"]: row for row in csv.DictReader(TABLE, delimiter="\t", restval="")}
USED = [row["source"].removeprefix("pretrain:") for row in MODELS.values() if row["arch"] == ARCH]
RECIPES = {name: read_recipe(name, WRITTEN[name]) for name in sorted(USED, key=list(WRITTEN).index)}


def prepare():
    """Generate the datasets: {name: (images, train / test, {task: (labels, classes)})}."""
    data = {}
    for name, module in (("shapes", shapes), ("textures", textures)):
        generated = module.generate()
        resize = parse_transform(SETTINGS["transform"])[1]
        images = np.stack([np.asarray(resize(Image.fromarray(image))) for image in generated.images])
        labels = {name: np.array(generated.label)}
        if name == "shapes":
            many = np.zeros((len(images), len(generated.classes)), bool)
            for row, objects in enumerate(generated.extra["objects"]):
                many[row, objects] = True
            labels["shapes-multilabel"] = many
        data[name] = images, np.array(generated.split), labels, len(generated.classes)
    return data


def train(recipe, seed, arch, data):
    """Return the tensors of a backbone and the processor time of its training in seconds."""
    images, split, labels, _ = data[recipe.dataset or "shapes"]
    run_data = TrainingData(images, labels[recipe.dataset or "shapes"], np.flatnonzero(split == "train"))
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), "", recipe.config_path)
        state, _ = pretrain(run_data, replace(recipe, seed=seed), arch, NORM, run)
    return state, time.process_time() - start


def scores(state, data, arch=ARCH, pool=""):
    """Test metric of every task in percent, for one backbone."""
    backbone = build_backbone(arch, pool, parse_transform(SETTINGS["transform"])[0])
    backbone.load_tensors(state)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for task, metric in TASKS.items():
            images, split, labels, classes = data[WHERE[task]]
            path = Path(folder) / "features.npy"
            extract_features(backbone.eval(), images, NORM, path, torch.device("cpu"))
            rows = make_split(split, SETTINGS["validation_fraction"], SETTINGS["seed"])
            grid = lambda_grid(**SETTINGS["lambdas"])
            found[task] = evaluate_linear(np.load(path), labels[task], rows, classes, metric, grid, "converged").test
    return found


def mean_logit(found):
    share = np.array([found[task] for task in TASKS]) / 100
    return float(np.mean(np.log(share / (1 - share))))


def summary(values):
    values = np.asarray(values)
    return values.mean(), values.std(ddof=1) / np.sqrt(len(values))


def table(cells):
    """Markdown rows; `cells` is {recipe: [(scores, seconds, views), one a seed]}."""
    reference, reference_error = summary([mean_logit(found) for found, *_ in cells["random"]])
    lines = [
        f"| Recipe | {' | '.join(f'{task}, {metric}' for task, metric in TASKS.items())} | mean logit "
        "| gain over random | gain / SE | seconds | views/s |",
        "|---" * (len(TASKS) + 6) + "|",
    ]
    for name, runs in cells.items():
        columns = ["{:.1f} ± {:.1f}".format(*summary([found[task] for found, *_ in runs])) for task in TASKS]
        logit, error = summary([mean_logit(found) for found, *_ in runs])
        gain = logit - reference
        columns += [f"{logit:.3f} ± {error:.3f}", f"{gain:+.3f}", f"{gain / np.hypot(error, reference_error):+.1f}"]
        seconds = np.median([seconds for _, seconds, _ in runs])
        columns += [f"{seconds:.1f}", f"{runs[0][2] / seconds:,.0f}"]
        if RECIPES[name].method == "none":
            columns[-4:] = ["", "", "", ""]
        lines.append(f"| {name} | {' | '.join(columns)} |")
    return lines


def processor():
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def main():
    torch.set_num_threads(1)
    data = prepare()
    cells = {name: [] for name in RECIPES}
    for seed in SEEDS:
        for name, recipe in RECIPES.items():
            state, seconds = train(recipe, seed, ARCH, data)
            rows = np.count_nonzero(data[recipe.dataset or "shapes"][1] == "train")
            views = (recipe.epochs or 0) * rows * (1 if recipe.method == "supervised" else 2)
            cells[name].append((scores(state, data), seconds, views))
            print(name, seed, f"{seconds:.1f} s", {k: round(v, 1) for k, v in cells[name][-1][0].items()}, flush=True)
    lines = [
        "# What pretraining gains over random initialisation",
        "",
        f"Test scores in percent, mean and standard error over seeds {SEEDS} of initialisation and training; network",
        f"{ARCH} at {SETTINGS['transform']}, linear protocol of the demo suite. The gain is the difference of mean",
        "logits over the three tasks, and gain / SE divides it by the standard error of that difference.",
        "Seconds are CPU time of one training on one thread, without start-up (median).",
        "Made by `benchmarks/pretraining_gain.py`.",
        "",
        *table(cells),
        "",
        f"Machine: {processor()}, {os.cpu_count()} cores, no GPU used; Python {platform.python_version()},",
        f"torch {torch.__version__}, numpy {np.__version__}.",
    ]
    (ROOT / "benchmarks/pretraining_gain.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
