"""Peak memory of the stages that read every image, at growing numbers of images: `uv run python benchmarks/memory.py`.

Each stage runs in a process of its own on made data: JPEG files of 64 pixels, resized to 32, a small network. What the
process holds of other files (Python, torch and their libraries) is the column "start alone". The last two protocols map
the features into memory; pages that they have touched count, though the system may take them back at any time.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"
STAGES = ("index", "prepare images", "extract features", "few-shot", "linear")


def peak() -> float:
    """MiB that this process held at most."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def run_stage(stage: str, folder: Path, count: int) -> None:
    """Run a stage on `count` images and print its peak memory."""
    sys.path.append(str(SCRIPTS))
    import numpy as np

    if stage == "index":
        from ssltransfer.datasets.folder import index
        from ssltransfer.datasets.index import write_index
        from ssltransfer.datasets.index_checks import check_files

        place = folder / f"{count}-images" / "train" / "class"
        place.mkdir(parents=True)
        for row in range(count):
            (place / f"{row:06}.jpg").hardlink_to(folder / f"{row % 100:02}.jpg")
        print(peak())
        found = index(folder / f"{count}-images")
        check_files(found, "made", folder / f"{count}-images")
        write_index(folder / f"{count}.parquet", found)
    elif stage == "prepare images":
        from ssltransfer.datasets.images import prepare_images

        names = [f"{row % 100:02}.jpg" for row in range(count)]
        print(peak())
        prepare_images(folder, names, "resize32", folder / f"{count}.npy", workers=2)
    elif stage == "extract features":
        import torch

        from ssltransfer.models.features import extract_features
        from ssltransfer.models.resnet import build_resnet
        from ssltransfer.row_file import ArrayFile

        network, images = build_resnet("resnet-1x1x1x1-w16", 0).eval(), ArrayFile(folder / f"{count}.npy")
        print(peak())
        extract_features(network, images, "imagenet", folder / f"{count}-features.npy", torch.device("cpu"))
    elif stage == "linear":
        from ssltransfer.datasets.splits import make_split
        from ssltransfer.models.feature_file import load_features
        from ssltransfer.protocols.linear.evaluation import evaluate_linear

        print(peak())
        features = load_features(folder / f"{count}-features.npy", count)
        split = make_split(np.where(np.arange(count) % 2, "train", "test"), 0.2, 0)
        evaluate_linear(features, np.arange(count) // 2 % 10, split, 10, "top1", np.array([1e3]), "converged")
    else:
        from ssltransfer.models.feature_file import load_features
        from ssltransfer.protocols.fewshot import episode_accuracy, sample_episodes

        print(peak())
        features = load_features(folder / f"{count}-features.npy", count)
        episodes = sample_episodes(np.arange(count) % 10, "made", 50, queries=15, ways=5, episodes=600, seed=0)
        episode_accuracy(features, episodes, 50)
    print(peak())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts", nargs="*", type=int, default=[1000, 10_000, 100_000])
    options = parser.parse_args()
    import numpy as np
    from PIL import Image

    with tempfile.TemporaryDirectory() as temporary:
        rng = np.random.default_rng(0)
        for number in range(100):
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
                Path(temporary) / f"{number:02}.jpg"
            )
        print("MiB at most\n")
        print(f"| stage | start alone | {' | '.join(f'{count:,} images' for count in options.counts)} |")
        print(f"| --- | --- |{' --- |' * len(options.counts)}")
        for stage in STAGES:
            cells = []
            for count in options.counts:
                command = [sys.executable, __file__, "--stage", stage, temporary, str(count)]
                printed = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout
                start, most = map(float, printed.split())
                cells = cells or [f"{start:.0f}"]
                cells.append(f"{most:.0f}")
            print(f"| {stage} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stage"]:
        run_stage(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
