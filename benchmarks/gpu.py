"""Speed, memory, precision and repeatability on this machine's GPU: `uv run python benchmarks/gpu.py`, eight minutes.

It prints one page of tables in Markdown, under the name of the device; with `--output FILE` it is written there too.
Everything runs on random images and labels, with the networks, sizes and code of the paper's protocols; nothing is
downloaded. `--small` runs every part at the smallest size, in a minute on a CPU, to show that all of it works.
"""

import argparse
import itertools
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

REPOSITORY = Path(__file__).parents[1]
sys.path.append(str(REPOSITORY / "scripts"))

import linear_path  # noqa: E402
from detector_speed import SMALL as SMALL_DETECTOR  # noqa: E402
from detector_speed import make_batch  # noqa: E402
from inversion import stepper  # noqa: E402

from ssltransfer.array_backend import NUMPY, Arrays  # noqa: E402
from ssltransfer.device import choose_device  # noqa: E402
from ssltransfer.models.backbone_file import build_backbone  # noqa: E402
from ssltransfer.models.features import BATCH, extract_features  # noqa: E402
from ssltransfer.models.fusion import fuse_conv_bn, inference_form  # noqa: E402
from ssltransfer.precision import computing_in  # noqa: E402
from ssltransfer.pretraining.methods import SimCLR  # noqa: E402
from ssltransfer.protocols.attention.mask_grid import MaskGrid  # noqa: E402
from ssltransfer.protocols.attention.occlusion import WindowOccluder  # noqa: E402
from ssltransfer.protocols.dense.heads import cell_loss, parameter_groups  # noqa: E402
from ssltransfer.protocols.dense.normals.network import NormalsNetwork  # noqa: E402
from ssltransfer.protocols.dense.normals.settings import NormalsSettings  # noqa: E402
from ssltransfer.protocols.dense.segmentation.network import SegmentationNetwork  # noqa: E402
from ssltransfer.protocols.dense.segmentation.settings import SegmentationSettings  # noqa: E402
from ssltransfer.protocols.detection.settings import DetectionSettings  # noqa: E402
from ssltransfer.protocols.detection.training import build_detector  # noqa: E402
from ssltransfer.protocols.finetune.network import Classifier  # noqa: E402
from ssltransfer.protocols.inversion.settings import InversionSettings  # noqa: E402
from ssltransfer.row_file import ArrayFile, save_array  # noqa: E402
from ssltransfer.settings import read_settings  # noqa: E402
from ssltransfer.training import train  # noqa: E402
from ssltransfer.training_state import Run  # noqa: E402


@dataclass(frozen=True)
class Sizes:
    """How much of each part is run."""

    networks: tuple[str, ...] = ("resnet50", "timm:vit_small_patch16_224")
    side: int = 224
    images: int = 8192
    batch: int = BATCH
    detector: tuple[int, int] = (800, 1088)
    detector_network: dict = field(default_factory=dict)
    normals: tuple[int, int] = (600, 800)
    segmentation: tuple[int, int] = (448, 608)
    finetune: int = 64
    canvas: int = 256
    groups: int = 4
    steps: int = 10
    linear: tuple[int, int, int] = (3334, 2048, 100)
    cap: float = 20.0


SMALL = Sizes(
    networks=("resnet-1x1x1x1-w8",), side=64, images=32, batch=16, detector=(64, 96), detector_network=SMALL_DETECTOR,
    normals=(64, 64), segmentation=(64, 64), finetune=4, canvas=128, groups=1, steps=2, linear=(200, 32, 5), cap=1.0,
)  # fmt: skip


def seconds_of(function: Callable[[], object]) -> float:
    """Seconds until a call and what it started on the device have ended."""
    start = time.perf_counter()
    function()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def step_cost(step: Callable[[], object], count: int) -> tuple[float, str]:
    """Median seconds of a step after two others, and the largest memory in MiB, which only a GPU tells."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = [seconds_of(step) for _ in range(count + 2)][2:]
    memory = f"{torch.cuda.max_memory_allocated() / 2**20:.0f}" if DEVICE.type == "cuda" else ""
    return statistics.median(times), memory


def table(*heads: str) -> None:
    """Print the head of a table."""
    row(*heads)
    row(*["---"] * len(heads))


def row(*cells: object) -> None:
    """Print a row of a table."""
    say("| " + " | ".join(map(str, cells)) + " |")


def say(line: str) -> None:
    """Print a line, and keep it for the file."""
    print(line, flush=True)
    LINES.append(line)


@torch.inference_mode()
def feature_speeds(name: str, sizes: Sizes, folder: Path) -> None:
    """Print images a second from a file of images, and of the network alone on images that are on the device."""
    backbone = build_backbone(name, size=sizes.side, seed=0).eval()
    images = np.random.default_rng(0).integers(0, 256, (sizes.images, sizes.side, sizes.side, 3), np.uint8)
    save_array(folder / "images.npy", images)
    save_array(folder / "few.npy", images[: len(images) // 8])
    batch = torch.rand(sizes.batch, 3, sizes.side, sizes.side, device=DEVICE)
    batch = batch.to(memory_format=torch.channels_last)
    exact = None
    for precision in PRECISIONS:
        network = inference_form(backbone, DEVICE, precision)
        with computing_in(precision, DEVICE):
            alone = step_cost(lambda network=network: network(batch), sizes.steps)[0] / sizes.batch
        file = folder / "features.npy"
        arguments = backbone, ArrayFile(folder / "images.npy"), "imagenet", file, DEVICE, precision
        few = backbone, ArrayFile(folder / "few.npy"), *arguments[2:]
        extract_features(*few)
        # The difference leaves out what is done once a job: copying, folding and checking the network.
        begun, whole = (seconds_of(lambda given=given: extract_features(*given)) for given in (few, arguments))
        elapsed = (whole - begun) / (sizes.images - len(images) // 8)
        found = np.array(np.load(file), np.float64)
        exact = found if exact is None else exact
        error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
        row(name, precision, f"{1 / elapsed:.0f}", f"{1 / alone:.0f}", f"{alone / elapsed:.0%}", f"{error:.1e}")


def training_steps(sizes: Sizes) -> Iterator[tuple[str, Callable[[str], Callable[[], Tensor]]]]:
    """Name of a protocol's training step at the paper's size, and the function that makes it for a precision."""
    arch = sizes.networks[0]

    def detection(precision: str) -> Callable[[], Tensor]:
        block = {"kind": "detection", "frozen": "none", "backend": "torchvision", "network": sizes.detector_network}
        detector = build_detector(
            build_backbone(arch, seed=0), arch, 20, "imagenet", read_settings(DetectionSettings, block)
        )
        batch = make_batch(2, sizes.detector, np.random.default_rng(0))
        batch = {name: [value.to(DEVICE) for value in values] for name, values in batch.items()}
        return optimise(detector, lambda: sum(detector.losses(batch).values()), precision)

    def normals(precision: str) -> Callable[[], Tensor]:
        settings = read_settings(NormalsSettings, {"kind": "normals"})
        network = NormalsNetwork(build_backbone(arch, seed=0), 40, settings.network, settings.frozen, 0)
        images = torch.rand(2, 3, *sizes.normals, device=DEVICE)
        labels = torch.randint(0, 40, (2, sizes.normals[0] // 8, sizes.normals[1] // 8), device=DEVICE)
        return optimise(network, lambda: cell_loss(network(images), labels), precision)

    def segmentation(precision: str) -> Callable[[], Tensor]:
        settings = read_settings(SegmentationSettings, {"kind": "segmentation"})
        network = SegmentationNetwork(build_backbone(arch, seed=0), 150, settings)
        height, width = sizes.segmentation
        images = torch.rand(2, 3, height, width, device=DEVICE)
        labels = torch.randint(0, 150, (2, height // network.stride, width // network.stride), device=DEVICE)
        return optimise(network, lambda: cell_loss(network(images), labels), precision)

    def finetune(precision: str, members: int = 1) -> Callable[[], Tensor]:
        images = torch.rand(sizes.finetune, 3, sizes.side, sizes.side, device=DEVICE)
        labels = torch.randint(0, 100, (sizes.finetune,), device=DEVICE)

        def member() -> Callable[[], Tensor]:
            network = Classifier(build_backbone(arch, seed=0), 100, 0)
            return optimise(network, lambda: functional.cross_entropy(network(images), labels), precision)

        steps = [member() for _ in range(members)]
        return lambda: sum(step() for step in steps)

    def pretraining(precision: str) -> Callable[[], Tensor]:
        method = SimCLR(build_backbone(arch, seed=0), hidden=2048, output=128, temperature=0.1)
        views = torch.rand(2 * sizes.finetune, 3, sizes.side, sizes.side, device=DEVICE)
        return optimise(method, lambda: method(views, views), precision)

    yield f"finetuning, {sizes.finetune} images of {sizes.side} x {sizes.side}", finetune
    yield "finetuning, the 20 members of a grid on these", partial(finetune, members=20)
    yield f"segmentation, 2 images of {sizes.segmentation[0]} x {sizes.segmentation[1]}", segmentation
    yield f"detection, 2 images of {sizes.detector[0]} x {sizes.detector[1]}", detection
    yield f"pretraining with SimCLR, two views of {sizes.finetune} images", pretraining
    yield f"normals, 2 images of {sizes.normals[0]} x {sizes.normals[1]}", normals


def optimise(module: nn.Module, loss: Callable[[], Tensor], precision: str) -> Callable[[], Tensor]:
    """Return a training step of a module, which returns its loss."""
    module.to(DEVICE).train()
    optimiser = torch.optim.SGD(parameter_groups(module, 1e-4, 1e-4), momentum=0.9)

    def step() -> Tensor:
        with computing_in(precision, DEVICE):
            value = loss()
        with computing_in("float32" if precision == "bfloat16" else precision, DEVICE):
            value.backward()
        optimiser.step()
        optimiser.zero_grad()
        return value.detach()

    return step


def small_parts(sizes: Sizes) -> None:
    """Print seconds of an inversion step and milliseconds of a mask on one image."""
    backbone = fuse_conv_bn(build_backbone(sizes.networks[0], seed=0), DEVICE)
    block = {"kind": "inversion", "transform": f"resize{sizes.side}", "canvas": sizes.canvas}
    settings = read_settings(InversionSettings, block)
    names = ["a"] * (16 if DEVICE.type == "cuda" else 1)
    spot = backbone.feature_map(torch.zeros(1, 3, sizes.side, sizes.side, device=DEVICE)).shape[1:]
    target = torch.randn(len(names), *spot, device=DEVICE)
    seconds, memory = step_cost(stepper(backbone, names, settings, DEVICE, target, sizes.side), sizes.steps)
    row(f"inversion, {len(names)} images at once, a step an image", f"{1e3 * seconds / len(names):.2f}", memory)

    grid = MaskGrid(sizes.side, mask=10, stride=1)
    image = np.random.default_rng(0).integers(0, 256, (grid.bordered_size, grid.bordered_size, 3), np.uint8)
    with torch.inference_mode():
        occluder = WindowOccluder(backbone, image, "imagenet", grid, fill="mean", view="crop", feature="pooled")
        groups = occluder.groups(16 if DEVICE.type == "cuda" else 8)
        chosen = [groups[int((i + 0.5) * len(groups) / sizes.groups)] for i in range(sizes.groups)]
        pairs = list(itertools.product(chosen, chosen))
        masks = sum(len(rows.starts) * len(columns.starts) for rows, columns in pairs)

        def occlude() -> None:
            for rows, columns in pairs:
                occluder.group_errors(rows, columns).cpu()

        seconds, memory = step_cost(occlude, 2)
    row("attention, a mask", f"{1e3 * seconds / masks:.3f}", memory)


def linear_speed(sizes: Sizes) -> None:
    """Print the time of 45 penalties on this device and on the CPU, and that of scikit-learn interpolated from five."""
    n, d, k = sizes.linear
    features, labels = linear_path.sample(n, d, k)
    arrays = Arrays(torch, DEVICE) if DEVICE.type == "cuda" else NUMPY
    linear_path.run_ours(features[: n // 10], labels[: n // 10], k, arrays)
    fits, ours = linear_path.run_ours(features, labels, k, arrays)
    names = sorted(fits)
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, 5).round().astype(int)]
    times, capped = [], False
    for name in chosen:
        target = fits[name].objective * (1 + (1e-6 if fits[name].penalty >= 1e-2 else 1e-4))
        elapsed, reached, *_ = linear_path.scikit_learn(features, labels, fits[name].penalty, target, sizes.cap)
        times.append(elapsed)
        capped |= not reached
    theirs = float(np.interp(names, chosen, times).sum())
    least = "at least " if capped else ""
    row(f"{n} x {d}, {k} classes", f"{ours:.1f}", f"{least}{theirs:.0f}", f"{least}{theirs / ours:.0f}")


def repeatability(sizes: Sizes, folder: Path) -> None:
    """Print the largest difference of weights between two runs, and between a whole and an interrupted one."""
    steps = 3 * sizes.steps

    def weights(name: str, end: int | None = None) -> Tensor:
        network = build_backbone(sizes.networks[0], seed=0).to(DEVICE).train()
        optimiser = torch.optim.SGD(network.parameters(), lr=1e-2, momentum=0.9)

        def batches(first: int) -> Iterator[Tensor]:
            for step in range(first, steps):
                random = torch.Generator().manual_seed(step)
                yield torch.rand(16, 3, sizes.side, sizes.side, generator=random).to(DEVICE)

        def loss(batch: Tensor, step: int) -> Tensor:
            if step == end:
                raise InterruptedError
            return functional.mse_loss(network(batch), torch.ones((), device=DEVICE).expand(16, network.width))

        run = Run(folder / name, "key", "benchmark", save_seconds=0)
        run.resume_dir.mkdir(exist_ok=True)
        train(network, loss, batches, optimiser, lambda step: 1.0, steps, run, interval=steps, precision="float32")
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

    whole, again = weights("one"), weights("two")
    try:
        weights("three", end=steps // 2)
    except InterruptedError:
        resumed = weights("three")
    size = float(whole.abs().max())
    row("two runs", f"{float((whole - again).abs().max()) / size:.1e}")
    row(f"resumed after step {steps // 2}", f"{float((whole - resumed).abs().max()) / size:.1e}")


def main(sizes: Sizes) -> None:
    """Print all tables."""
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{linear_path.processor()}, one thread"
    say(f"# {name}\n\ntorch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        say("## Frozen features\n")
        table("network", "precision", "images/s from the file", "images/s of the network alone", "share", "difference")
        for network in sizes.networks:
            feature_speeds(network, sizes, folder)
        say("\n## Training steps\n")
        table("step", "precision", "ms", "MiB", f"loss after {sizes.steps + 2} steps", "of float32's")
        for name, make in training_steps(sizes):
            exact = None
            for precision in PRECISIONS:
                torch.manual_seed(0)  # the same images and labels
                step = make(precision)
                seconds, memory = step_cost(step, sizes.steps)
                loss = float(step())
                exact = loss if exact is None else exact
                row(name, precision, f"{1e3 * seconds:.1f}", memory, f"{loss:.5g}", f"{loss / exact:.4f}")
        say("\n## Properties\n")
        table("part", "ms", "MiB")
        small_parts(sizes)
        say("\n## Linear classifier, 45 penalties\n")
        table("features", "this device, s", "scikit-learn's L-BFGS on this host, s", "ratio")
        linear_speed(sizes)
        say("\n## Repeatability, relative to the largest weight\n")
        table("runs", "largest difference")
        repeatability(sizes, folder)
    say(f"\n## Tests\n\n{test_device()}")


def test_device() -> str:
    """Run the tests that compare this device with the CPU, and return pytest's last line."""
    words = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "--durations=0"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1]
    return re.sub(r" in [\d.]+s.*| \d+ deselected,?", "", last.strip("= ")).strip(", ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="every part at the smallest size")
    parser.add_argument("--output", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    LINES: list[str] = []
    DEVICE = choose_device(1)
    PRECISIONS = ("float32", "tf32", "bfloat16") if DEVICE.type == "cuda" else ("float32", "bfloat16")
    main(SMALL if arguments.small else Sizes())
    if arguments.output:
        arguments.output.write_text("\n".join(LINES) + "\n")
