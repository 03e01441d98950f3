"""Write benchmarks/operations.md, the operations of the paper's suites: `uv run python benchmarks/operations.py`.

torch counts the operations of convolutions and matrix products (a multiplication with its addition is two) in the
networks themselves, on tensors without data ("meta"), one step at each of the true sizes; the rest is multiplication by
the numbers of steps, images and masks. Everything else, such as ROIAlign, batch norm and losses, is left out: it costs
time, but hardly any operations.

Images of NYUv2 have 640 x 480 pixels. Those of VOC are taken to have 500 x 375, and those of ADE20K
683 x 512, as most do.
"""

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

REPOSITORY = Path(__file__).parents[1]
sys.path.append(str(REPOSITORY / "scripts"))

from ssltransfer.config.load import load_suite  # noqa: E402
from ssltransfer.config.validation import read_yaml  # noqa: E402
from ssltransfer.models.fusion import fuse_conv_bn  # noqa: E402
from ssltransfer.models.resnet import build_resnet  # noqa: E402
from ssltransfer.protocols.attention.mask_grid import MaskGrid  # noqa: E402
from ssltransfer.protocols.attention.occlusion import WindowOccluder  # noqa: E402
from ssltransfer.protocols.dense.frames import padded, resized  # noqa: E402
from ssltransfer.protocols.dense.normals.network import STRIDE, NormalsNetwork  # noqa: E402
from ssltransfer.protocols.dense.normals.settings import NormalsSettings  # noqa: E402
from ssltransfer.protocols.dense.normals.training import timetable  # noqa: E402
from ssltransfer.protocols.dense.segmentation.network import SegmentationNetwork  # noqa: E402
from ssltransfer.protocols.dense.segmentation.prediction import windows  # noqa: E402
from ssltransfer.protocols.dense.segmentation.settings import SegmentationSettings  # noqa: E402
from ssltransfer.protocols.detection.settings import DetectionSettings  # noqa: E402
from ssltransfer.protocols.detection.training import build_detector  # noqa: E402
from ssltransfer.protocols.inversion.deep_image_prior import DeepImagePrior  # noqa: E402
from ssltransfer.protocols.inversion.settings import InversionSettings  # noqa: E402
from ssltransfer.settings import complete, read_settings  # noqa: E402

PAGE = REPOSITORY / "benchmarks" / "operations.md"
META = torch.device("meta")
NYU, VOC, ADE = (640, 480), (500, 375), (683, 512)
IMAGES = 15
"""Number of images of feature inversion and attention."""
MASK_GROUP = 16
"""Masks along each side of a group that is computed together, as on a GPU."""
RATE = 10e12
"""Assumed operations per second."""
BLOCKS = (
    "normals", "normals-v1", "normals-official", "segmentation", "segmentation-official",
    "segmentation-linear", "detection-frozen", "detection-finetune", "detection-finetune-v1",
    "inversion", "attention",
)  # fmt: skip


def counted(function) -> int:
    """Operations of a call."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def total(tensors: Iterable[Tensor]) -> Tensor:
    """A number whose gradient reaches all tensors."""
    return torch.stack([tensor.sum() for tensor in tensors]).sum()


def features(side: int = 224) -> int:
    """Operations of a ResNet-50 on one image."""
    backbone = build_resnet("resnet50").to(META).eval()
    with torch.inference_mode():
        return counted(lambda: backbone(torch.empty(1, 3, side, side, device=META)))


def normals(settings: NormalsSettings, images: dict[str, int]) -> tuple[float, float]:
    """Operations of a training and of a test, for the numbers of images per part."""
    network = NormalsNetwork(build_resnet("resnet50"), settings.codes, settings.network, settings.frozen, 0).to(META)

    def batch(shorter: int, count: int) -> Tensor:
        width, height = (padded(side, STRIDE) for side in resized(*NYU, shorter, settings.sides.longest))
        return torch.empty(count, 3, height, width, device=META)

    size, (steps, _, _) = settings.schedule.batch_size, timetable(settings.schedule, images["train"])
    network.train()
    step = [counted(lambda s=s: network(batch(s, size)).sum().backward()) for s in settings.sides.train]
    network.eval()
    with torch.inference_mode():
        test = counted(lambda: network(batch(settings.sides.test, 1)))
    return steps * float(np.mean(step)), images["test"] * test


def segmentation(settings: SegmentationSettings, images: dict[str, int], classes: int) -> tuple[float, float]:
    """Operations of a training and of a test, for the numbers of images per part."""
    network = SegmentationNetwork(build_resnet("resnet50"), classes, settings).to(META)
    sides, size = settings.sides, settings.schedule.batch_size

    def batch(width: int, height: int, count: int) -> Tensor:
        return torch.empty(count, 3, *(padded(side, network.multiple) for side in (height, width)), device=META)

    shown = [(sides.crop, sides.crop) if sides.crop else resized(*ADE, side, sides.longest) for side in sides.train]
    network.train()
    step = [counted(lambda s=s: network(batch(*s, size)).sum().backward()) for s in shown]
    network.eval()
    test = 0
    with torch.inference_mode():
        for side in sides.test:
            width, height = resized(*ADE, side, sides.longest)
            count = len(list(windows(height, width, sides.window, sides.window_step))) if sides.window else 1
            seen = (sides.window, sides.window) if sides.window else (width, height)
            test += counted(lambda s=seen, n=count: network(batch(*s, n)))
    return settings.schedule.steps * float(np.mean(step)), float(images["test"] * test)


def detection(settings: DetectionSettings, images: dict[str, int], classes: int) -> tuple[float, float]:
    """Operations of a training and of a test; both backends have the same layers."""
    plain = replace(settings, backend="torchvision")
    detector = build_detector(build_resnet("resnet50"), "resnet50", classes, "imagenet", plain).to(META)

    def outputs(shorter: int, count: int, boxes: int) -> list[Tensor]:
        width, height = (padded(side, 32) for side in resized(*VOC, shorter, settings.sides.longest))
        maps = detector.pyramid(torch.empty(count, 3, height, width, device=META))
        proposals = detector.rpn.head(list(maps.values()))
        # The values of the boxes' features do not matter, but the gradient goes on to the maps that they come from.
        pooled = torch.empty(count * boxes, settings.network.channels, 7, 7, device=META) + 0 * maps["p2"].sum()
        return [*proposals[0], *proposals[1], *detector.heads.box_predictor(detector.heads.box_head(pooled))]

    count, sides, net = settings.schedule.batch_size, settings.sides, settings.network
    step = [counted(lambda s=s: total(outputs(s, count, net.samples[1])).backward()) for s in sides.train]
    with torch.inference_mode():
        test = counted(lambda: outputs(sides.test, 1, net.proposals[2]))
    return settings.schedule.steps * float(np.mean(step)), images["test"] * test


def inversion(settings: InversionSettings, size: int = 224) -> float:
    """Operations of the inversion of one image."""
    backbone = build_resnet("resnet50").to(META).eval().requires_grad_(False)
    prior = DeepImagePrior(["image"], settings).to(META)
    return settings.steps * counted(lambda: backbone.feature_map(prior()[:, :, :size, :size]).sum().backward())


def attention(settings: dict) -> float:
    """Operations of one image: all masks, from a regular sample of their groups."""
    grid = MaskGrid(settings["size"], settings["mask"], settings["stride"])
    image = np.zeros((grid.bordered_size, grid.bordered_size, 3), np.uint8)
    how = (settings[key] for key in ("fill", "view", "feature"))
    occluder = WindowOccluder(fuse_conv_bn(build_resnet("resnet50"), META), image, "imagenet", grid, *how)
    groups = occluder.groups(MASK_GROUP)
    with torch.inference_mode():
        work = sum(
            counted(lambda r=rows, c=columns: occluder.group_errors(r, c)) for rows in groups for columns in groups
        )
    return float(work)


def number(operations: float) -> str:
    return f"{operations / 1e15:.1f}"


def rows() -> list[tuple[str, float, float]]:
    """Name, and operations in training (or fitting) and in testing, of each stage of one model."""
    suite = load_suite(read_yaml(REPOSITORY / "config/paper-v2.yaml"), REPOSITORY / "workflow/schemas", REPOSITORY)
    blocks = {name: complete(block) for name, block in read_yaml(REPOSITORY / "config/protocols.yaml").items()}
    recognised = {
        dataset
        for protocol, datasets in suite.config["tasks"].items()
        if suite.settings(protocol)["kind"] in ("linear", "fewshot")
        for dataset in datasets
    }
    images = sum(suite.datasets[name][part] for name in recognised for part in ("train", "val", "test"))
    found = [(f"features, {images:,} images", 0.0, float(images * features()))]
    for name in BLOCKS:
        block = blocks[name]
        match block["kind"]:
            case "normals":
                found.append((f"`{name}`", *normals(read_settings(NormalsSettings, block), suite.datasets["nyuv2"])))
            case "segmentation":
                row, read = suite.datasets["ade20k"], read_settings(SegmentationSettings, block)
                found.append((f"`{name}`", *segmentation(read, row, row["classes"])))
            case "detection":
                row = suite.datasets["voc-detection"]
                settings = read_settings(DetectionSettings, block)
                found.append((f"`{name}`", *detection(settings, row, row["classes"])))
            case "inversion":
                found.append((f"`{name}`", IMAGES * inversion(read_settings(InversionSettings, block)), 0.0))
            case "attention":
                found.append((f"`{name}`", 0.0, IMAGES * attention(block)))
    return found


def page() -> str:
    """The page, from the configuration and the code of the networks."""
    table = [
        f"| {name} | {number(training)} | {number(testing)} | {(training + testing) / RATE / 3600:.2f} |"
        for name, training, testing in rows()
    ]
    lines = [
        "# Operations of the paper's suites",
        "",
        "Written by `benchmarks/operations.py`, which says what is counted; one model, a ResNet-50. Hours are those at",
        f"{RATE / 1e12:g} TFLOP/s, which is an assumption.",
        "",
        "| Stage | Training, PFLOP | Testing, PFLOP | Hours |",
        "| --- | --- | --- | --- |",
        *table,
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
