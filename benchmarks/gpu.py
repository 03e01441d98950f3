"""Speed, memory, precision and repeatability on this machine's GPU: `uv run python benchmarks/gpu.py`.

It prints one page of tables in Markdown, under the name of the device; with `--output FILE` each line is written there
too, as soon as it is known. Everything runs on random images and labels, with the networks, sizes and code of the
paper's protocols; nothing is downloaded. It is meant to end within eight minutes (`--seconds`), which was not timed on
a GPU yet: a part that would take longer than its share of them is cut off with the line "left out: time". The test that
runs every protocol on the GPU takes longer, and is left to `uv run pytest -m gpu`.
`--small` runs every part at the smallest size, to show on a CPU that all of it works.
"""

import argparse
import importlib.util
import itertools
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
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
from ssltransfer.training import seed_step, train  # noqa: E402
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
    dense_network: dict = field(default_factory=dict)
    normals: tuple[int, int] = (600, 800)
    segmentation: tuple[int, int] = (448, 608)
    finetune: int = 64
    canvas: int = 256
    groups: int = 4
    steps: int = 10
    linear: tuple[int, int, int] = (3334, 2048, 100)
    cap: float = 8.0


SMALL = Sizes(
    networks=("resnet-1x1x1x1-w8",), side=64, images=32, batch=16, detector=(64, 96), detector_network=SMALL_DETECTOR,
    dense_network={"channels": 8}, normals=(64, 64), segmentation=(64, 64), finetune=4, canvas=128, groups=1, steps=2,
    linear=(200, 32, 5), cap=1.0,
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
    """Print a line, and write it to the file."""
    print(line, flush=True)
    if arguments.output:
        with arguments.output.open("a") as file:
            print(line, file=file)


@torch.inference_mode()
def feature_speeds(name: str, sizes: Sizes, folder: Path) -> None:
    """Print images a second from a file of images, and of the network alone on images that are on the device."""
    backbone = build_backbone(name, size=sizes.side, seed=0).eval()
    images = np.random.default_rng(0).integers(0, 256, (sizes.images, sizes.side, sizes.side, 3), np.uint8)
    save_array(folder / "images.npy", images)
    save_array(folder / "few.npy", images[: len(images) // 8])
    batch = torch.rand(sizes.batch, 3, sizes.side, sizes.side, device=DEVICE)
    batch = batch.to(memory_format=torch.channels_last)
    exact, slow = None, 0.0
    for precision in PRECISIONS:
        network = inference_form(backbone, DEVICE, precision)

        def passes(network: nn.Module = network) -> None:
            for _ in range(sizes.steps):
                network(batch)

        with computing_in(precision, DEVICE):
            passes()
            alone = seconds_of(passes) / sizes.steps / sizes.batch
        file = folder / "features.npy"
        arguments = backbone, ArrayFile(folder / "images.npy"), "imagenet", file, DEVICE, precision
        few = backbone, ArrayFile(folder / "few.npy"), *arguments[2:]
        extract_features(*few)
        # The difference leaves out what is done once a job: copying, folding and checking the network.
        begun, whole = (seconds_of(lambda given=given: extract_features(*given)) for given in (few, arguments))
        elapsed = max(whole - begun, 1e-6) / (sizes.images - len(images) // 8)
        found = np.array(np.load(file), np.float64)
        exact, slow = (found, elapsed) if exact is None else (exact, slow)
        error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
        times, share = f"{slow / elapsed:.2f}", f"{alone / elapsed:.0%}"
        row(name, precision, f"{1 / elapsed:.0f}", times, f"{1 / alone:.0f}", share, f"{error:.1e}")


class Work(NamedTuple):
    """A training at the paper's size: how its module is made, a batch of a step, and the loss of a batch."""

    name: str
    build: Callable[[], nn.Module]
    draw: Callable[[int], Any]
    loss: Callable[[nn.Module, Any], Tensor]
    members: int = 1
    repeated: bool = True
    layout: torch.memory_format = torch.channels_last


def trainings(sizes: Sizes) -> Iterator[Work]:
    """The trainings of all protocols; detectron2's where it is installed."""
    arch, count = sizes.networks[0], sizes.finetune
    normals_settings = read_settings(NormalsSettings, {"kind": "normals", "network": sizes.dense_network})
    segmentation_settings = read_settings(
        SegmentationSettings, {"kind": "segmentation", "network": sizes.dense_network}
    )
    segmentation_stride = SegmentationNetwork(build_backbone(arch, seed=0), 150, segmentation_settings).stride

    def labelled(classes: int, size: tuple[int, int], stride: int) -> Callable[[int], tuple[Tensor, Tensor]]:
        def draw(step: int) -> tuple[Tensor, Tensor]:
            random = seed_step(0, step)
            cells = (2, size[0] // stride, size[1] // stride)
            return torch.rand(2, 3, *size, generator=random), torch.randint(classes, cells, generator=random)

        return draw

    def labelled_images(step: int) -> tuple[Tensor, Tensor]:
        random = seed_step(0, step)
        images = torch.rand(count, 3, sizes.side, sizes.side, generator=random)
        return images, torch.randint(100, (count,), generator=random)

    def cells_loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return cell_loss(network(batch[0]), batch[1])

    def classifier() -> nn.Module:
        return Classifier(build_backbone(arch, seed=0), 100, 0)

    def classes_loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.cross_entropy(network(batch[0]), batch[1])

    images = f"{count} images of {sizes.side} x {sizes.side}"
    yield Work(f"finetuning, {images}", classifier, labelled_images, classes_loss)
    yield Work(
        f"segmentation, 2 images of {sizes.segmentation[0]} x {sizes.segmentation[1]}",
        lambda: SegmentationNetwork(build_backbone(arch, seed=0), 150, segmentation_settings),
        labelled(150, sizes.segmentation, segmentation_stride),
        cells_loss,
    )
    for backend in ("torchvision", "detectron2"):
        if backend == "torchvision" or importlib.util.find_spec(backend):
            yield detection(backend, sizes)
    yield Work(
        f"normals, 2 images of {sizes.normals[0]} x {sizes.normals[1]}",
        lambda: NormalsNetwork(
            build_backbone(arch, seed=0), 40, normals_settings.network, normals_settings.frozen, seed=0
        ),
        labelled(40, sizes.normals, 8),
        cells_loss,
    )
    yield Work(
        f"pretraining with SimCLR, two views of {images}",
        lambda: SimCLR(build_backbone(arch, seed=0), hidden=2048, output=128, temperature=0.1),
        lambda step: torch.rand(2 * count, 3, sizes.side, sizes.side, generator=seed_step(0, step)),
        lambda method, views: method(views, views),
        repeated=False,
    )
    # Last, because it takes longest.
    yield Work(
        f"finetuning, 40 members of a grid on {images}", classifier, labelled_images, classes_loss, 40, repeated=False
    )


def detection(backend: str, sizes: Sizes) -> Work:
    """Training of a detector."""
    block = {"kind": "detection", "frozen": "none", "backend": backend, "network": sizes.detector_network}
    arch, settings = sizes.networks[0], read_settings(DetectionSettings, block)
    return Work(
        f"detection ({backend}), 2 images of {sizes.detector[0]} x {sizes.detector[1]}",
        lambda: build_detector(build_backbone(arch, seed=0), arch, 20, "imagenet", settings),
        lambda step: make_batch(2, sizes.detector, np.random.default_rng(step)),
        lambda detector, batch: sum(detector.losses(batch).values()),
        layout=torch.contiguous_format,
    )


def moved(batch: Any, layout: torch.memory_format) -> Any:
    """Return a batch on the device, its images in the layout of the training."""
    if isinstance(batch, dict):
        return {name: moved(value, layout) for name, value in batch.items()}
    if not isinstance(batch, Tensor):
        return type(batch)(moved(value, layout) for value in batch)
    return batch.to(DEVICE, memory_format=layout if batch.ndim == 4 else torch.contiguous_format)


def on_device(work: Work) -> nn.Module:
    """Return a module in training mode on the device, in the layout of its training."""
    return work.build().to(DEVICE, memory_format=work.layout).train()


def make_step(work: Work, precision: str) -> Callable[[], Tensor]:
    """Return a training step of all members, which returns the sum of their losses."""
    batch = moved(work.draw(0), work.layout)
    modules = [on_device(work) for _ in range(work.members)]
    optimisers = [torch.optim.SGD(parameter_groups(module, 1e-4, 1e-4), momentum=0.9) for module in modules]

    def step() -> Tensor:
        total = torch.zeros((), device=DEVICE)
        for module, optimiser in zip(modules, optimisers, strict=True):
            with computing_in(precision, DEVICE):
                value = work.loss(module, batch)
            with computing_in("float32" if precision == "bfloat16" else precision, DEVICE):
                value.backward()
            optimiser.step()
            optimiser.zero_grad()  # here, so that only one member holds gradients
            total += value.detach()
        return total

    return step


def training_speeds(sizes: Sizes) -> None:
    """Print time, memory and loss of the training steps."""
    for work in trainings(sizes):
        exact = slow = 0.0
        steps = sizes.steps if work.members == 1 else 1
        for precision in PRECISIONS:
            seed_step(0, 0)
            try:
                step = make_step(work, precision)
                seconds, memory = step_cost(step, steps)
                loss = float(step())
            except torch.OutOfMemoryError:
                row(work.name, precision, "", "", "does not fit into the memory", "", "")
                continue
            finally:
                step = None
            if precision == "float32":
                exact, slow = loss, seconds
            compared = (f"{slow / seconds:.2f}", f"{loss / exact:.4f}") if exact else ("", "")
            row(work.name, precision, f"{1e3 * seconds:.1f}", compared[0], memory, f"{loss:.5g}", compared[1])


def small_parts(sizes: Sizes) -> None:
    """Print seconds of an inversion step and milliseconds of a mask on one image."""
    backbone = fuse_conv_bn(build_backbone(sizes.networks[0], seed=0), DEVICE)
    block = {"kind": "inversion", "transform": f"resize{sizes.side}", "canvas": sizes.canvas}
    settings = read_settings(InversionSettings, block)
    names = ["a"] * (16 if DEVICE.type == "cuda" else 1)
    spot = backbone.feature_map(torch.zeros(1, 3, sizes.side, sizes.side, device=DEVICE)).shape[1:]
    target = torch.randn(len(names), *spot, device=DEVICE)
    for precision in PRECISIONS:
        step = stepper(backbone, names, settings, DEVICE, target, sizes.side)
        with computing_in(precision, DEVICE):
            seconds, memory = step_cost(step, sizes.steps)
        name = f"inversion, {len(names)} images at once, a step an image"
        row(name, precision, f"{1e3 * seconds / len(names):.2f}", memory)

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
    row("attention, a mask", "float32", f"{1e3 * seconds / masks:.3f}", memory)


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
    steps = sizes.steps

    def weights(work: Work, name: str, end: int | None = None) -> Tensor:
        torch.manual_seed(0)
        network = on_device(work)
        optimiser = torch.optim.SGD(parameter_groups(network, 1e-3, 1e-4), momentum=0.9)

        def loss(batch: Any, step: int) -> Tensor:
            if step == end:
                raise InterruptedError
            seed_step(0, step)
            return work.loss(network, batch)

        def batches(first: int) -> Iterator[Any]:
            return (moved(work.draw(step), work.layout) for step in range(first, steps))

        run = Run(folder / name, "key", "benchmark", save_seconds=np.inf if end is None else 0)
        run.resume_dir.mkdir(exist_ok=True, parents=True)
        train(network, loss, batches, optimiser, lambda step: 1.0, steps, run, interval=steps, precision="float32")
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

    for number, work in enumerate(trainings(sizes)):
        if not work.repeated:
            continue
        whole, again = weights(work, f"{number}/one"), weights(work, f"{number}/two")
        try:
            weights(work, f"{number}/three", end=steps // 2)
        except InterruptedError:
            resumed = weights(work, f"{number}/three")
        differences = (float((whole - other).abs().max() / whole.abs().max()) for other in (again, resumed))
        row(work.name, *(f"{difference:.1e}" for difference in differences))


def test_device() -> None:
    """Run the quick tests of this device, which compare it with the CPU, and print pytest's last line."""
    marks = "gpu and not slow"
    files = [
        file for file in (REPOSITORY / "tests").glob("test_*.py") if re.search("any_gpu|mark.gpu", file.read_text())
    ]
    words = [sys.executable, "-m", "pytest", "-q", "-m", marks, "-p", "no:cacheprovider", *map(str, files)]
    pytest = subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        last = pytest.communicate()[0].strip().splitlines()[-1]
    except TimeUpError:
        os.killpg(pytest.pid, signal.SIGKILL)
        raise
    say(f'`pytest -m "{marks}"`: ' + re.sub(r" in [\d.]+s.*| \d+ deselected,?", "", last.strip("= ")).strip(", "))


class TimeUpError(Exception):
    """A part takes longer than its share of the time."""


def part(title: str, heads: tuple[str, ...], end: float, measure: Callable[[], None]) -> None:
    """Print a section, which is cut off at its end in seconds since the start.

    The timer repeats, because an error that is raised while Python deletes an object is lost.
    """
    say(f"\n## {title}\n")
    if heads:
        table(*heads)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(START + end - time.time(), 1e-3), 5.0)
        measure()
    except TimeUpError:
        say("\nleft out: time")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


def main(sizes: Sizes, seconds: float) -> None:
    """Print all tables."""
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{linear_path.processor()}, one thread"
    say(f"# {name}\n\ntorch {torch.__version__}")
    signal.signal(signal.SIGALRM, time_up)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        speed = "against float32 (goal for bfloat16: 2)"
        features = (
            *("network", "precision", "images/s from the file", speed),
            *("images/s of the network alone", "share (goal: 60 %)", "difference"),
        )
        steps = ("step", "precision", "ms", "against float32", "MiB", "last loss", "of float32's")
        linear = ("features", "this device, s", "scikit-learn's L-BFGS on this host, s", "ratio (goal: 100)")
        part("Frozen features", features, 0.2 * seconds, lambda: feature_table(sizes, folder))
        part("Training steps", steps, 0.45 * seconds, lambda: training_speeds(sizes))
        part("Properties", ("part", "precision", "ms", "MiB"), 0.5 * seconds, lambda: small_parts(sizes))
        part("Linear classifier, 45 penalties", linear, 0.6 * seconds, lambda: linear_speed(sizes))
        largest = "largest difference of a weight, relative to the largest weight"
        repeats = ("training", "two runs", f"resumed after step {sizes.steps // 2}")
        part(f"Repeatability: {largest}", repeats, 0.75 * seconds, lambda: repeatability(sizes, folder))
    part("Tests", (), 0.98 * seconds, test_device)


def time_up(*_: object) -> None:
    """End the part at work."""
    raise TimeUpError


def feature_table(sizes: Sizes, folder: Path) -> None:
    """Print the rows of frozen features."""
    for network in sizes.networks:
        feature_speeds(network, sizes, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="every part at the smallest size")
    parser.add_argument("--output", type=Path, help="file for the tables")
    parser.add_argument("--seconds", type=float, default=480, help="time after which it ends")
    arguments = parser.parse_args()
    if arguments.output:
        arguments.output.write_text("")
    # Imports take seconds, too; where the system's clock of processes is off, a minute at most.
    START = max(psutil.Process().create_time(), time.time() - 60)
    DEVICE = choose_device(1)
    PRECISIONS = ("float32", "tf32", "bfloat16") if DEVICE.type == "cuda" else ("float32", "bfloat16")
    main(SMALL if arguments.small else Sizes(), arguments.seconds)
