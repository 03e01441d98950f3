"""Time of label-efficiency curves beside that of the many-shot linear job, at the shapes of DTD and Food-101.

    uv run python benchmarks/label_efficiency.py [SHAPE...]

Processor seconds of one thread, so that other work on the machine counts little. Both jobs are whole: the linear one
fits its 45 penalties on the training part, selects one and fits again; the curve has all its points and draws, linear
classifiers and nearest neighbours. Features are those of synthetic classes. Classes and features of a shape are divided
by the same number, the images of a class are not: the work of both jobs then shrinks alike, and as many points have
fewer images than features as at full size. Small matrices are slower for their size, so that the ratio, which the many
small fits of the curve dominate, comes out too large rather than too small.
"""

import sys
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from ssltransfer.datasets.index import Index
from ssltransfer.models.feature_file import Features
from ssltransfer.protocols.label_efficiency.evaluation import measure_label_efficiency
from ssltransfer.protocols.label_efficiency.settings import LabelEfficiencySettings
from ssltransfer.protocols.linear.evaluation import measure_linear
from ssltransfer.protocols.linear.settings import LinearSettings
from ssltransfer.results import score_file
from ssltransfer.settings import complete, read_settings

WIDTH = 2048
SHAPES = {"DTD": (47, (40, 40, 40), 2), "Food-101": (101, (750, 0, 250), 5)}
"""Classes, images of a class in train, val and test, and the number by which classes and features are divided."""
NOISE = 8.0
"""How far images of a class differ, with which the classifier of all images is right in half of the cases."""


def make_dataset(classes: int, counts: tuple[int, ...], width: int) -> tuple[Index, np.ndarray]:
    """Return an index and features of classes that overlap."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(classes), sum(counts))
    splits = np.repeat(["train", "val", "test"], [classes * count for count in counts])
    centres = rng.normal(size=(classes, width)) * (rng.random((classes, width)) < 0.05)
    features = np.maximum(centres[labels] + NOISE * rng.normal(size=(len(labels), width)) / 4, 0).astype(np.float32)
    names = [str(number) for number in range(len(labels))]
    return Index(names, splits.tolist(), labels.tolist(), [str(k) for k in range(classes)]), features


def main() -> None:
    """Print a row of benchmarks/label_efficiency.md for each shape."""
    linear = read_settings(LinearSettings, complete({"kind": "linear"}))
    curve = read_settings(LabelEfficiencySettings, complete({"kind": "label-efficiency", "of": "linear"}))
    for name in sys.argv[1:] or SHAPES:
        classes, counts, part = SHAPES[name]
        index, values = make_dataset(round(classes / part), counts, WIDTH // part)
        features = Features(values, {"source": "synthetic"})
        with threadpool_limits(1):
            start = time.process_time()
            many = measure_linear({"none": features}, index, name, "top1", linear)[0]
            between = time.process_time()
            score = {"values": score_file.with_intervals(many)[0], "warnings": [], "preprocessing": many.preprocessing}
            found = measure_label_efficiency(features, index, name, "top1", curve, linear, score)
            seconds = between - start, time.process_time() - between
        heights = ", ".join(f"{v['setting']} {v['value']:.0f}" for v in found.values if "knn" not in v["setting"])
        print(
            f"| {name} | 1/{part} | {seconds[0]:.0f} | {seconds[1]:.0f} | {seconds[1] / seconds[0]:.2f} | {heights} |"
        )


if __name__ == "__main__":
    main()
