"""Share of the processor time of a feature job that checksums take.

    uv run python benchmarks/checksums.py --arch resnet50 --side 224 --images 64

The job loads a network and prepared images, extracts features and reads them back; the seconds within the functions
that compute checksums are counted apart. The rate of each round is printed, because other work on the machine moves it.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--arch", default="resnet50")
parser.add_argument("--side", type=int, default=224, help="pixels")
parser.add_argument("--images", type=int, default=64)
parser.add_argument("--rounds", type=int, default=3)
options = parser.parse_args()

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

import numpy as np  # noqa: E402

from ssltransfer.device import choose_device  # noqa: E402
from ssltransfer.models.backbone_file import load_backbone  # noqa: E402
from ssltransfer.models.feature_file import load_features  # noqa: E402
from ssltransfer.models.features import extract_features  # noqa: E402
from ssltransfer.models.resnet import build_resnet  # noqa: E402
from ssltransfer.results import tensor_file  # noqa: E402
from ssltransfer.row_file import ArrayFile, save_array  # noqa: E402

spent: list[float] = []


def counted(function: Callable) -> Callable:
    """Note the processor seconds that each call takes in its thread."""

    def call(*arguments):
        start = time.thread_time()
        result = function(*arguments)
        spent.append(time.thread_time() - start)
        return result

    return call


device = choose_device()
with tempfile.TemporaryDirectory() as name:
    images, checkpoint, features = (Path(name) / file for file in ("images.npy", "m.safetensors", "features.npy"))
    shape = (options.images, options.side, options.side, 3)
    save_array(images, np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    tensor_file.save_tensors(build_resnet(options.arch, seed=0).state_dict(), checkpoint, {})
    ArrayFile._checksum = counted(ArrayFile._checksum)
    tensor_file._checksum = counted(tensor_file._checksum)
    shares = []
    for _ in range(options.rounds):
        spent.clear()
        start, wall = time.process_time(), time.perf_counter()
        extract_features(load_backbone(checkpoint, options.arch), ArrayFile(images), "imagenet", features, device)
        load_features(features, options.images)
        total, rate = time.process_time() - start, options.images / (time.perf_counter() - wall)
        shares.append(100 * sum(spent) / total)
        print(
            f"checksums {1000 * sum(spent):.1f} ms of {1000 * total:.0f} ms: {shares[-1]:.2f} % ({rate:.0f} images/s)"
        )
print(f"{options.arch}, {options.side} pixels, {options.images} images: {statistics.median(shares):.2f} %")
