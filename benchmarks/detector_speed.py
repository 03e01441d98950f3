"""Training speed of the detection backends, side by side on the same batches: `python benchmarks/detector_speed.py`.

Needs detectron2 for the second column; without it, only torchvision's speed is printed.
"""

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

from ssltransfer.models.resnet import build_resnet
from ssltransfer.protocols.detection.settings import DetectionSettings
from ssltransfer.protocols.detection.training import build_detector
from ssltransfer.settings import read_settings

SMALL = {
    "channels": 64,
    "hidden": 128,
    "anchors": [12, 20, 32, 44, 60],
    "proposals": [60, 60, 40],
    "samples": [64, 32],
    "canonical": 32,
}
CASES = [
    # arch, images a batch, their size, network, rounds
    ("resnet-1x1x1x1-w16", 16, (64, 64), SMALL, 12),
    ("resnet50", 2, (224, 320), {}, 3),
]
FROZEN = ("first-four", "none")


def make_batch(count: int, size: tuple[int, int], rng: np.random.Generator) -> dict:
    """Random images with three boxes each."""
    low = rng.uniform(0, 0.5, (count, 3, 2)) * size[::-1]
    boxes = np.concatenate([low, low + rng.uniform(0.2, 0.5, (count, 3, 2)) * size[::-1]], axis=2).astype(np.float32)
    images = rng.integers(0, 256, (count, 3, *size), dtype=np.uint8)
    labels = torch.from_numpy(rng.integers(0, 10, (count, 3)))
    return {"image": list(torch.from_numpy(images)), "boxes": list(torch.from_numpy(boxes)), "labels": list(labels)}


def main() -> None:
    """Time training steps of both backends in turn, and print the medians: CPU seconds of one thread."""
    torch.set_num_threads(1)
    backends = ["torchvision", "detectron2"] if importlib.util.find_spec("detectron2") else ["torchvision"]
    print("| network, batch, frozen | " + " | ".join(f"{b}, steps/s" for b in backends) + " | ratio |")
    print("| --- |" + " --- |" * (len(backends) + 1))
    for arch, count, size, network, rounds in CASES:
        for frozen in FROZEN:
            steps = {}
            for backend in backends:
                block = {"kind": "detection", "frozen": frozen, "seed": 0, "backend": backend, "network": network}
                settings = read_settings(DetectionSettings, block)
                detector = build_detector(build_resnet(arch, 0), arch, 10, "imagenet", settings).train()
                optimiser = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=1e-4)
                steps[backend] = detector, optimiser
            seconds = {backend: [] for backend in backends}
            for number in range(rounds + 1):
                for backend, (detector, optimiser) in steps.items():
                    batch = make_batch(count, size, np.random.default_rng(number))
                    start = time.process_time()
                    optimiser.zero_grad()
                    sum(detector.losses(batch).values()).backward()
                    optimiser.step()
                    seconds[backend].append(time.process_time() - start)
            speed = {backend: 1 / np.median(times[1:]) for backend, times in seconds.items()}
            ratio = speed["torchvision"] / speed[backends[-1]]
            name = f"{arch}, {count} x {size[0]} x {size[1]}, {frozen}"
            print(f"| {name} | " + " | ".join(f"{speed[b]:.2f}" for b in backends) + f" | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
