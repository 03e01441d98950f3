"""Feature inversion of full-size images on ResNet-50: seconds a step, memory, operations, and what 3000 steps take.

One process, the protocol's settings, float32, in turn: several images at once as `invert` does it, the same with
grouped convolutions, and one image alone, also with the network layer by layer: means behind convolutions and maps of
double size made for themselves.

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

from ssltransfer.device import choose_device
from ssltransfer.models.fusion import fuse_conv_bn
from ssltransfer.models.resnet import build_resnet
from ssltransfer.protocols.inversion import deep_image_prior
from ssltransfer.protocols.inversion.deep_image_prior import DeepImagePrior, DownConv, UpConv
from ssltransfer.protocols.inversion.inversion import PixelRange
from ssltransfer.protocols.inversion.settings import InversionSettings
from ssltransfer.settings import read_settings


def grouped(x, weight, bias, images, padding, stride=1) -> torch.Tensor:
    """Stand-in for `side_by_side`: grouped on any device."""
    return functional.conv2d(x, weight, bias, stride, padding, groups=images)


def mean_apart(module: DownConv, x: torch.Tensor) -> torch.Tensor:
    """Stand-in for `DownConv.forward`: the convolution, then the mean of 2 x 2."""
    half = module.kernel_size[0] // 2
    return functional.avg_pool2d(deep_image_prior.side_by_side(x, module.weight, module.bias, module.groups, half), 2)


def joined(module: UpConv, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
    """Stand-in for `UpConv.forward` of one image: double the coarse map, join both, convolve."""
    x = torch.cat([fine, functional.interpolate(coarse, scale_factor=2.0, mode="nearest")], dim=1)
    return functional.conv2d(x, module.weight, module.bias, padding=module.kernel_size[0] // 2)


def stepper(
    backbone: nn.Module,
    names: list[str],
    settings: InversionSettings,
    device: torch.device,
    target: torch.Tensor,
    side: int,
):
    prior = DeepImagePrior(names, settings).to(device)
    pixels = PixelRange("imagenet", settings.network.output, side, device)
    optimiser = torch.optim.Adam(prior.parameters(), lr=settings.learning_rate)

    def step() -> None:
        features = backbone.feature_map(pixels.network_input(prior()))
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
    device = choose_device(arguments.threads)
    settings = read_settings(InversionSettings, {"kind": "inversion", "transform": "resize224", "seed": 0})
    backbone = fuse_conv_bn(build_resnet("resnet50", seed=0), device)
    names = [str(number) for number in range(arguments.images)]

    def memory() -> float:
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    start = memory()
    target = torch.randn(len(names), 2048, 7, 7, device=device)
    single = stepper(backbone, names[:1], settings, device, target[:1], 224)
    with FlopCounterMode(display=False) as counter:
        single()
    peaks = {1: memory()}
    several = stepper(backbone, names, settings, device, target, 224)
    several()
    peaks[len(names)] = memory()
    seconds: dict[str, list[tuple[float, float]]] = {}

    def timed(name: str, step, count: int) -> None:
        begin = time.perf_counter(), time.process_time()
        step()
        ends = time.perf_counter(), time.process_time()
        seconds.setdefault(name, []).append(tuple((b - a) / count for a, b in zip(begin, ends, strict=True)))

    ours = deep_image_prior.side_by_side, DownConv.forward, UpConv.forward
    for _ in range(arguments.steps):
        timed(f"{len(names)} images at once", several, len(names))
        timed("1 image", single, 1)
        deep_image_prior.side_by_side = grouped
        timed(f"{len(names)} images, grouped convolutions", several, len(names))
        deep_image_prior.side_by_side, DownConv.forward, UpConv.forward = ours[0], mean_apart, joined
        timed("1 image, layer by layer", single, 1)
        deep_image_prior.side_by_side, DownConv.forward, UpConv.forward = ours
    print(f"{device.type}, {torch.get_num_threads()} threads, {settings.canvas} x {settings.canvas} canvas, ResNet-50")
    print(f"operations: {counter.get_total_flops() / 1e9:.1f} GFLOP an image and step")
    for name, found in seconds.items():
        clock, processor = (sorted(values)[len(found) // 2] for values in zip(*found, strict=True))
        minutes = (clock if device.type == "cuda" else processor) * settings.steps / 60
        print(
            f"{name}: {clock:.3f} s an image and step on the clock, {processor:.3f} of processor time; "
            f"{settings.steps} steps, extrapolated: {minutes:.0f} minutes"
        )
    print(f"peak memory, MiB: {start:.0f} with the backbone, " + ", ".join(f"{v:.0f} at {k}" for k, v in peaks.items()))


if __name__ == "__main__":
    main()
