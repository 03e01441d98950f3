"""What bfloat16 brings and costs when features are extracted: `uv run python benchmarks/precision.py`.

It takes the images and networks of the demo suite, which is run before. Speed: a random ResNet-50 and a random
ViT-S/16 at 224 pixels, the fastest float32 form of each against bfloat16, in turn, in processor time of one thread (on
a GPU in seconds). Cost: the features of digits and textures in both precisions, for the networks of the demo suite (32
pixels) and for the random ResNet-50 (64 pixels); a linear classifier is selected and fitted on each, and the share of
test images counts on which the two classifiers differ. A second penalty is that of bfloat16, where it is another one.
`--samples FOLDER` makes a table of photographs instead, with the random ResNet-50 at 160 pixels: the folder has the
datasets, or subsets of them, in their original layouts.
"""

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ssltransfer.config.table_file import read_table
from ssltransfer.datasets import load, parse_dataset_source
from ssltransfer.datasets.images import prepare_images
from ssltransfer.datasets.index import read_index
from ssltransfer.datasets.splits import make_split
from ssltransfer.device import choose_device
from ssltransfer.models.backbone_file import build_backbone, load_backbone
from ssltransfer.models.features import extract_features
from ssltransfer.models.fusion import inference_form
from ssltransfer.precision import computing_in
from ssltransfer.protocols.linear.evaluation import evaluate_linear, lambda_grid
from ssltransfer.row_file import ArrayFile

parser = argparse.ArgumentParser()
parser.add_argument("--results", type=Path, default=Path("results"), help="of a finished demo suite")
parser.add_argument("--images", type=int, default=32, help="images of a round")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--samples", type=Path, help="folder with pets, dtd, food101 and flowers")
options = parser.parse_args()
PRECISIONS = ("float32", "tf32", "bfloat16")


def device_name():
    """Name of the GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    found = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    kinds = {word for line in lines if line.startswith("flags") for word in line.split() if word.endswith("bf16")}
    return ", ".join([*found[:1], *sorted(kinds)])


def clock():
    """Processor time of the process on a CPU, seconds on a GPU."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


@torch.inference_mode()
def speeds(name):
    """Print a row of the first table."""
    backbone = build_backbone(name, size=224, seed=0).eval()
    images = torch.rand(options.images, 3, 224, 224, device=device)
    forms = {precision: inference_form(backbone, device, precision) for precision in used}
    times, found = {precision: [] for precision in used}, {}
    for _ in range(options.rounds + 1):
        for precision, network in forms.items():
            with computing_in(precision, device):
                start = clock()
                found[precision] = network(images).float()
                times[precision].append(clock() - start)
    exact = found["float32"]
    for precision in used:
        ratio = statistics.median(a / b for a, b in zip(times["float32"][1:], times[precision][1:], strict=True))
        rate = options.images / statistics.median(times[precision][1:])
        error = float((found[precision] - exact).norm() / exact.norm())
        print(f"| {name} | {precision} | {rate:.1f} | {ratio:.2f} | {error:.1e} |", flush=True)


def predictions(features, index):
    """Selected penalty, metric in percent and predicted classes of the test images."""
    split = make_split(index.split_array(), 0.2, 0)
    result = evaluate_linear(
        features, index.label_array(), split, len(index.classes), "top1", lambda_grid(1e-6, 1e5, 45), "converged"
    )
    return result.penalty, result.test, result.test_scores.argmax(axis=1)


def costs(name, backbone, dataset, transform, root, index):
    """Print the rows of a table of classifiers for a network and a dataset."""
    images = folder / f"{dataset}.{transform}.npy"
    if not images.exists():
        prepare_images(root, index.image, transform, images)
    found = {}
    for precision in used:
        file = folder / "features.npy"
        extract_features(backbone, ArrayFile(images), "imagenet", file, device, precision)
        found[precision] = np.array(np.load(file))
    chosen, exact, answers = predictions(found["float32"], index)
    for precision in used[1:]:
        error = np.linalg.norm(found[precision] - found["float32"]) / np.linalg.norm(found["float32"])
        penalty, value, others = predictions(found[precision], index)
        differ = np.mean(answers != others)
        penalties = f"{chosen:.2g}" + (f", {penalty:.2g}" if penalty != chosen else "")
        numbers = f"{error:.1e} | {penalties} | {exact:.2f} | {value:.2f} | {differ:.2%} of {len(others)}"
        print(f"| {name} | {dataset} | {precision} | {numbers} |", flush=True)


def table_of_costs():
    """Print the head of a table of classifiers."""
    heads = "relative difference", "penalty", "float32, top-1", "top-1", "test images that differ"
    print(f"\n| network | dataset | precision | {' | '.join(heads)} |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")


def measure_demo():
    """Print the first two tables."""
    print("| network | precision | images a second | against float32 | relative difference of features |")
    print("| --- | --- | --- | --- | --- |")
    for name in ("resnet50", "timm:vit_small_patch16_224"):
        speeds(name)
    table_of_costs()
    rows = read_table(Path("config/models.tsv"), short_rows=True)
    models = {row["model"]: (row["arch"], row.get("pool", "")) for row in rows if row["source"].startswith("pretrain:")}
    for dataset in ("digits", "textures"):
        root = options.results / "datasets" / dataset
        index = read_index(root / "index.parquet")
        for model, (arch, pool) in models.items():
            checkpoint = options.results / "checkpoints" / f"{model}.safetensors"
            if checkpoint.exists():
                costs(model, load_backbone(checkpoint, arch, pool, 32), dataset, "resize32", root, index)
        costs("random ResNet-50", build_backbone("resnet50", seed=0), dataset, "resize64", root, index)


def measure_samples():
    """Print the table of photographs."""
    table_of_costs()
    for dataset in ("pets", "dtd", "food101", "flowers"):
        root = options.samples / dataset
        index = load(parse_dataset_source(f"original:{dataset}")).index(root)
        costs("random ResNet-50", build_backbone("resnet50", seed=0), dataset, "resize160", root, index)


with tempfile.TemporaryDirectory() as temporary:
    folder, device = Path(temporary), choose_device(1)
    used = [precision for precision in PRECISIONS if precision != "tf32" or device.type == "cuda"]
    print(f"{device_name()}, torch {torch.__version__}\n")
    measure_samples() if options.samples else measure_demo()
