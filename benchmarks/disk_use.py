"""Write docs/disk-use.md, what the paper's suites keep on disk: `uv run python benchmarks/disk_use.py`.

Exact for complete datasets: prepared images are uint8 of 224 x 224 x 3, features float32 of 2048, and both files have
a header of 128 bytes. Trained networks are counted by their tensors.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parents[1]
sys.path.append(str(REPOSITORY / "scripts"))

from ssltransfer.config.load import load_suite  # noqa: E402
from ssltransfer.config.validation import read_yaml  # noqa: E402
from ssltransfer.models.resnet import build_resnet  # noqa: E402
from ssltransfer.protocols.dense.normals.network import NormalsNetwork  # noqa: E402
from ssltransfer.protocols.dense.normals.settings import NormalsSettings  # noqa: E402
from ssltransfer.protocols.dense.segmentation.network import SegmentationNetwork  # noqa: E402
from ssltransfer.protocols.dense.segmentation.settings import SegmentationSettings  # noqa: E402
from ssltransfer.protocols.detection.settings import DetectionSettings  # noqa: E402
from ssltransfer.protocols.detection.training import build_detector  # noqa: E402
from ssltransfer.protocols.finetune.settings import FinetuneSettings, trials  # noqa: E402
from ssltransfer.protocols.knn.neighbour_file import VALIDATION_FRACTION  # noqa: E402
from ssltransfer.protocols.knn.settings import STORED  # noqa: E402
from ssltransfer.settings import read_settings  # noqa: E402

PAGE = REPOSITORY / "docs" / "disk-use.md"
HEADER = 128
IMAGE = 224 * 224 * 3
FEATURE = 2048 * 4
NORMALS = 480 * 640 * 3 * 2
MODELS = 14
SUITES = ("paper-v1", "paper-v2")


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f}"


def kept(suite, name: str) -> tuple[int, int]:
    """Bytes of the prepared images of a dataset, and of the features of one model, in a suite (0 if not in it)."""
    used = {
        (settings["transform"], len(suite.norms(protocol, next(iter(suite.models)))))
        for protocol, datasets in suite.config["tasks"].items()
        if {"transform", "normalisation"} <= set(settings := suite.settings(protocol)) and name in datasets
    }
    row = suite.datasets[name]
    count = row["train"] + row["val"] + row["test"]
    images = len({transform for transform, _ in used}) * (count * IMAGE + HEADER)
    return images, sum(norms * (count * FEATURE + HEADER) for _, norms in used)


def neighbours(row: dict) -> int:
    """Bytes of the neighbours of the test and validation images of a dataset, of one model."""
    train, val, test = row["train"], row["val"], row["test"]
    queries = test + (val or round(VALIDATION_FRACTION * train)) if test else train + val
    return queries * STORED * (4 + 4)  # a row number and a similarity


def trained(suite, protocol: str, dataset: str) -> int:
    """Bytes of the network that a protocol trains on a model's ResNet-50; 0 if it keeps none."""
    settings = suite.settings(protocol)
    if settings["kind"] not in ("detection", "normals", "segmentation"):
        return 0
    backbone, classes = build_resnet("resnet50"), suite.datasets[dataset]["classes"]
    if settings["kind"] == "detection":
        # Both backends have the same tensors.
        chosen = dataclasses.replace(read_settings(DetectionSettings, settings), backend="torchvision")
        state = build_detector(backbone, "resnet50", classes, "imagenet", chosen).state_dict()
    elif settings["kind"] == "segmentation":
        made = SegmentationNetwork(backbone, classes, read_settings(SegmentationSettings, settings))
        state = made.trained.state_dict()
    else:
        normals = read_settings(NormalsSettings, settings)
        made = NormalsNetwork(backbone, normals.codes, normals.network, normals.frozen, normals.seed)
        state = made.trained_tensors(np.zeros((normals.codes, 3), np.float32))
    return tensor_bytes(state)


def tensor_bytes(state: dict) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def finetune_state() -> int:
    """Bytes of the weights and momenta of all members of the paper's grid, which are trained side by side."""
    members = len(trials(read_settings(FinetuneSettings, {"kind": "finetune"}).grid))
    return members * 2 * tensor_bytes(build_resnet("resnet50").state_dict())


def trained_rows(suite) -> list[str]:
    """The table's rows for the networks that a suite trains."""
    sizes = {
        protocol: trained(suite, protocol, dataset)
        for protocol, datasets in suite.config["tasks"].items()
        for dataset in datasets
    }
    return [
        f"| {suite.name} | `{protocol}` | {gigabytes(size)} | {gigabytes(size * MODELS)} |"
        for protocol, size in sizes.items()
        if size
    ]


def page() -> str:
    """Text of the page."""
    suites = [
        load_suite(read_yaml(REPOSITORY / f"config/{name}.yaml"), REPOSITORY / "workflow/schemas", REPOSITORY)
        for name in SUITES
    ]
    rows, totals = [], [[0, 0] for _ in suites]
    for name, row in suites[0].datasets.items():
        sizes = [kept(suite, name) for suite in suites]
        if not any(images for images, _ in sizes):
            continue
        cells = [gigabytes(size) if size else "-" for pair in sizes for size in pair]
        count = row["train"] + row["val"] + row["test"]
        rows.append(f"| {row['label']} | {count:,} | {' | '.join(cells)} |")
        totals = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(totals, sizes, strict=True)]
    whole = [row for row in suites[0].datasets.values() if row["task"] in ("single-label", "multi-label")]
    largest = max(whole, key=neighbours)
    frames = suites[0].datasets["nyuv2"]["train"] + suites[0].datasets["nyuv2"]["test"]
    cells = [gigabytes(size) for pair in totals for size in pair]
    lines = [
        "# Disk use",
        "",
        "Written by `benchmarks/disk_use.py` from the tables and suites in `config/`. Gigabytes (10^9 bytes) below",
        "`results/`, for complete datasets and ResNet-50; the original images are not counted.",
        "",
        "| Dataset | images | v1: images | v1: features of a model | v2: images | v2: features of a model |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
        f"| **all** | | {' | '.join(cells)} |",
        f"| **all, {MODELS} models** | | {' | '.join(_with_models(totals))} |",
        "",
        "Suites share files of the same name: v1 and v2 need the same prepared images, and v1's features (under both",
        "input normalisations) contain v2's. `keep_images: false` sets the columns of images to 0; every feature job",
        "then decodes the original images again, which costs about as much as preparing them once. Another transform,",
        "such as `square257`, costs its datasets' images and features a second time.",
        "",
        f"`knn` keeps {STORED} neighbours of each test and validation image of a model, which serve every",
        "vote over them. For one model on all datasets of `config/datasets.tsv` this takes",
        f"{gigabytes(sum(map(neighbours, whole)))} GB, of which {largest['label']} "
        f"{gigabytes(neighbours(largest))} GB. `label-efficiency` keeps scores only;",
        "`estimators` keeps scores and one line for each pair of models that are compared.",
        "",
        "## Trained networks and surface normals",
        "",
        f"| Suite | protocol | a model | {MODELS} models |",
        "| --- | --- | --- | --- |",
        *(row for suite in suites for row in trained_rows(suite)),
        "",
        f"`results/datasets/nyuv2/normals.npy` takes {gigabytes(frames * NORMALS)} GB. Counts of pixels and pictures",
        "of segmentation take megabytes.",
        "While a network trains, the state of the run takes twice its size or more beside it, and as much again while",
        "it is written. Finetuning keeps no network; the state of its grid takes "
        f"{gigabytes(finetune_state())} GB while all members are",
        "trained together. Scores, detections, pictures and maps are small.",
    ]
    return "\n".join(lines) + "\n"


def _with_models(totals: list) -> list[str]:
    return [gigabytes(size * (MODELS if i else 1)) for pair in totals for i, size in enumerate(pair)]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
