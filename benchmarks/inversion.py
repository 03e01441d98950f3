"""Feature inversion of full-size images on ResNet-50: seconds a step, memory, operations, and what 3000 steps take.

One process, the protocol's settings, float32, in turn: several images at once as `invert` does it, the same with
grouped convolutions, and one image alone, also with the network layer by layer (each convolution and the mean behind it
apart).

    uv run python benchmarks/inversion.py [--images N] [--steps N] [--threads N]
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from ssltransfer.backbones import build_backbone
from ssltransfer.device import choose_device
from ssltransfer.fused import fuse
from ssltransfer.inversion import Convolution, Halving, Inversion, Painter, Pixels


def grouped(module: Convolution, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Stand-in for `Convolution._convolve`: grouped on any device."""
    return functional.conv2d(x, weight, module.bias, module.stride, module.padding, groups=module.groups)


def apart(module: Halving, x: torch.Tensor) -> torch.Tensor:
    """Stand-in for `Halving.forward`: the convolution, then the mean of 2 x 2."""
    return functional.avg_pool2d(functional.conv2d(x, module.weight, module.bias, padding=module.padding), 2)


def stepper(backbone: nn.Module, names: list[str], settings: Inversion, device: torch.device):
    painter = Painter(names, settings).to(device)
    pixels = Pixels("imagenet", settings.output, 224, device)
    optimiser = torch.optim.Adam(painter.parameters(), lr=settings.learning_rate)
    target = torch.randn(len(names), 2048, 7, 7, device=device)

    def step() -> None:
        features = backbone.feature_map(pixels.network_input(painter()))
        optimiser.zero_grad()
        (features - target).square().flatten(1).mean(1).sum().backward()
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="rounds; the median step counts")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    device, settings = choose_device(arguments.threads), Inversion()
    backbone = fuse(build_backbone("resnet50", seed=0), device)
    names = [str(number) for number in range(arguments.images)]

    def memory() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    start = memory()
    single = stepper(backbone, names[:1], settings, device)
    with FlopCounterMode(display=False) as counter:
        single()
    peaks = {1: memory()}
    several = stepper(backbone, names, settings, device)
    several()
    peaks[len(names)] = memory()
    seconds: dict[str, list[float]] = {}

    def timed(name: str, step, count: int) -> None:
        begin = time.perf_counter()
        step()
        seconds.setdefault(name, []).append((time.perf_counter() - begin) / count)

    ours = Convolution._convolve, Halving.forward
    for _ in range(arguments.steps):
        timed(f"{len(names)} images at once", several, len(names))
        timed("1 image", single, 1)
        Convolution._convolve = grouped
        timed(f"{len(names)} images, grouped convolutions", several, len(names))
        Convolution._convolve, Halving.forward = ours[0], apart
        timed("1 image, layer by layer", single, 1)
        Halving.forward = ours[1]
    print(f"{device.type}, {torch.get_num_threads()} threads, {settings.canvas} x {settings.canvas} canvas, ResNet-50")
    print(f"operations: {counter.get_total_flops() / 1e9:.1f} GFLOP an image and step")
    for name, found in seconds.items():
        median = sorted(found)[len(found) // 2]
        hours = median * settings.steps / 3600
        print(f"{name}: {median:.3f} s an image and step; extrapolated to {settings.steps} steps: {hours:.2f} hours")
    print(f"peak memory, MiB: {start:.0f} with the backbone, " + ", ".join(f"{v:.0f} at {k}" for k, v in peaks.items()))


if __name__ == "__main__":
    main()
