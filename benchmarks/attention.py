"""Occlusion attention: recomputing what a mask changes against the plain loop, on one full-size image.

Both run in this process on the same fused, channels-last ResNet-50, in float32 and in turn: after every group of
windows the same masks by the plain loop, in batches of the size that suits it best. The groups are a regular sample of
all groups (borders and middle in proportion), so their mean stands for the whole image. Prints the ratio beside the
bound that operation counts set, and the largest difference between the values of both.

    uv run python benchmarks/attention.py [--threads N] [--sample N] [--arch ARCH]
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from ssltransfer.device import choose_device
from ssltransfer.models.fusion import fuse_conv_bn
from ssltransfer.models.resnet import build_resnet
from ssltransfer.protocols.attention.mask_grid import MaskGrid
from ssltransfer.protocols.attention.occlusion import WindowOccluder, relative_error
from ssltransfer.protocols.attention.receptive_field import GroupSpans


def image(side: int) -> np.ndarray:
    """A photograph of scikit-image, stretched to a square."""
    from PIL import Image

    from ssltransfer.datasets.textures import load_photograph

    return np.asarray(load_photograph("cat").resize((side, side), Image.Resampling.BICUBIC))


def operations(occluder: WindowOccluder, groups: list[GroupSpans], last: str) -> tuple[float, float]:
    """Multiplications a mask: of the whole network, and with windows from the stem up to the stage `last`."""
    masks = sum(len(group.starts) for group in groups)

    def window(span) -> float:
        """Mean size of a square window; rows and columns are independent and alike."""
        mean = sum(len(group.starts) * (span(group)[1] - span(group)[0]) for group in groups) / masks
        return mean**2

    def cost(conv: nn.Conv2d) -> int:
        return conv.in_channels * conv.out_channels * conv.kernel_size[0] ** 2

    layers = occluder.layers
    whole = cost(occluder.backbone.conv1) * layers[0].out ** 2
    part = cost(occluder.backbone.conv1) * window(lambda group: group.stem)
    stages = [number for number in "1234" for _ in getattr(occluder.backbone, f"layer{number}")]
    for number, (block, conv) in enumerate(zip(occluder.blocks, layers[2:], strict=True)):
        pieces = [
            (block.conv1, conv.size, lambda group, n=number: group.blocks[n].inside),
            (block.conv2, conv.out, lambda group, n=number: group.blocks[n].out),
            (block.conv3, conv.out, lambda group, n=number: group.blocks[n].out),
        ]
        if block.downsample is not None:
            pieces.append((block.downsample[0], conv.out, lambda group, n=number: group.blocks[n].shortcut))
        for module, size, span in pieces:
            whole += cost(module) * size**2
            part += cost(module) * (window(span) if stages[number] <= last else size**2)
    return whole, part


def sampled(groups: list[GroupSpans], count: int) -> list[GroupSpans]:
    """`count` groups of one axis, each in the middle of a stretch of the same length."""
    return [groups[int((i + 0.5) * len(groups) / count)] for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sample", type=int, default=6, help="groups along each axis")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--run", type=int, help="masks along each side of a group")
    arguments = parser.parse_args()
    device = choose_device(arguments.threads)
    group_side = arguments.run or (16 if device.type == "cuda" else 8)
    grid = MaskGrid(224, mask=10, stride=1)
    occluder = WindowOccluder(
        fuse_conv_bn(build_resnet(arguments.arch, seed=0), device),
        image(grid.bordered_size),
        "imagenet",
        grid,
        fill="mean",
        view="crop",
        feature="pooled",
    )

    def timed(function) -> tuple[np.ndarray, torch.Tensor]:
        """Seconds on the clock and of processor time."""
        start = np.array([time.perf_counter(), time.process_time()])
        result = function().cpu()
        return np.array([time.perf_counter(), time.process_time()]) - start, result

    whole = (0, grid.size)

    def plain(rows: GroupSpans, columns: GroupSpans, size: int) -> torch.Tensor:
        covered = occluder.covered(rows.starts, columns.starts, (whole, whole))
        maps = (occluder.backbone.feature_map(batch) for batch in covered.split(size))
        features = torch.cat([x.mean(dim=(2, 3)) for x in maps]).double()
        return relative_error(features - occluder.clean.double(), occluder.clean)

    clock = 0 if device.type == "cuda" else 1

    def best_size(group: GroupSpans) -> int:
        """Batch size at which the plain loop takes the least processor time (on a GPU: time)."""
        sizes = (64, 256) if device.type == "cuda" else (1, 4, 16, 64)
        plain(group, group, sizes[-1]).cpu()  # waits for a GPU
        costs = {size: timed(lambda: plain(group, group, size))[0][clock] for size in sizes}  # noqa: B023
        print(
            "plain loop, ms a mask by batch size:",
            {k: round(float(1000 * v / group_side**2), 1) for k, v in costs.items()},
        )
        return min(costs, key=costs.get)

    seconds = {"windows": np.zeros(2), "plain loop": np.zeros(2)}
    masks, worst, errors = 0, 0.0, []
    with torch.inference_mode():
        chosen = sampled(occluder.groups(group_side), arguments.sample)
        for group in chosen:
            occluder.group_errors(group, group)
        own = (
            torch.cuda.max_memory_allocated()
            if clock == 0
            else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        )
        size = best_size(chosen[0])
        for rows in chosen:
            for columns in chosen:
                first, ours = timed(lambda r=rows, c=columns: occluder.group_errors(r, c))
                second, theirs = timed(lambda r=rows, c=columns: plain(r, c, size))
                seconds["windows"] += first
                seconds["plain loop"] += second
                masks += len(ours)
                worst = max(worst, float((ours - theirs).abs().max()))
                errors.append(float(theirs.mean()))
    single = occluder.groups(1)
    bounds = {}
    for title, groups in (
        ("single masks", single),
        (f"groups of {group_side} x {group_side}", occluder.groups(group_side)),
    ):
        for last, name in (("2", "up to layer2"), ("4", "all layers")):
            full, part = operations(occluder, groups, last)
            bounds[f"{title}, {name}"] = full / part
    print(
        f"{arguments.arch}, {device.type}, {torch.get_num_threads()} threads, {masks} of {len(grid.starts) ** 2} masks"
    )
    for name, value in seconds.items():
        elapsed, processor = 1000 * value / masks
        minutes = value[clock] / masks * len(grid.starts) ** 2 / 60
        print(
            f"{name}: {elapsed:.2f} ms a mask on the clock, {processor:.2f} of processor time: "
            f"{minutes:.1f} min an image"
        )
    elapsed, processor = seconds["plain loop"] / seconds["windows"]
    print(f"ratio on the clock: {elapsed:.2f}; of processor time, the steadier one on a busy machine: {processor:.2f}")
    for name, value in bounds.items():
        print(f"bound by operation count, {name}: {value:.2f}")
    print(f"peak memory of the windows, before the plain loop: {own / 2**20:.0f} MiB")
    print(f"largest difference of errors: {worst:.1e} (their mean: {np.mean(errors):.3f})")


if __name__ == "__main__":
    main()
