"""Speed of a grid whose members share their images: `uv run python benchmarks/finetune.py`, one thread, a minute.

Three cases: small networks on JPEG files of 500 x 375 pixels (loading is the limit), the same with a loader that is
made slow on purpose, and larger networks on small images in memory (computing is the limit). Each is timed with all
members together and with one member after the other.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
sys.path.append(str(REPOSITORY / "scripts"))

from ssltransfer.datasets.images import read_image  # noqa: E402
from ssltransfer.device import keep_freed_memory  # noqa: E402
from ssltransfer.models.resnet import build_resnet  # noqa: E402
from ssltransfer.protocols.finetune.network import Classifier  # noqa: E402
from ssltransfer.protocols.finetune.settings import FinetuneSettings, trials  # noqa: E402
from ssltransfer.protocols.finetune.training import FinetuneData, Finetuning  # noqa: E402
from ssltransfer.settings import read_settings  # noqa: E402
from ssltransfer.training_state import Run  # noqa: E402

IMAGES, VALIDATION, STEPS, BATCH, CLASSES = 64, 16, 4, 32, 4
SLOW = 0.02
"""Seconds that the slow loader adds to each image."""


def photographs(folder: Path) -> list[str]:
    """Write JPEG files of smooth noise, and return their names."""
    names = []
    for number in range(IMAGES + VALIDATION):
        noise = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)
        names.append(f"{number}.jpg")
    return names


class Reader:
    """Reads images, and counts them and the time that they take."""

    def __init__(self, read, pause: float) -> None:
        self.read, self.pause = read, pause
        self.count, self.seconds = 0, 0.0

    def __call__(self, row: int) -> Image.Image:
        """Read the image of a row."""
        start = time.perf_counter()
        time.sleep(self.pause)
        image = self.read(row)
        self.seconds += time.perf_counter() - start
        self.count += 1
        return image


def timed(read, arch: str, side: int, together: bool, pause: float = 0.0) -> tuple[float, float, Reader, int]:
    """Wall and processor seconds of a search, its reader, and the number of member-steps in images."""
    block = {
        "kind": "finetune",
        "transform": f"resize{side}",
        "schedule": {"steps": STEPS, "batch_size": BATCH},
        "grid": {"augmentations": ["crop-flip"]},
    }
    settings, reader = read_settings(FinetuneSettings, block), Reader(read, pause)
    labels = np.arange(IMAGES + VALIDATION) % CLASSES
    data = FinetuneData(reader, [str(row) for row in range(len(labels))], labels, CLASSES, "imagenet")
    network, grid = Classifier(build_resnet(arch, seed=0), CLASSES, 0), trials(settings.grid)
    rows = np.arange(IMAGES), np.arange(IMAGES, IMAGES + VALIDATION)
    folder = Path(tempfile.mkdtemp())
    runs = Finetuning(network, data, settings, Run(folder, "key", "benchmark", save_seconds=1e9), torch.device("cpu"))
    start, processor = time.perf_counter(), time.process_time()
    for some in [grid] if together else [[trial] for trial in grid]:
        runs.search(some, *rows)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    shutil.rmtree(folder)
    return seconds, processor, reader, len(grid) * (STEPS * BATCH + VALIDATION)


def main() -> None:
    """Print one row of the table for each case."""
    torch.set_num_threads(1)
    keep_freed_memory()
    small = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (32, 32, 3), np.uint8)) for n in range(80)]
    with tempfile.TemporaryDirectory() as folder:
        names = photographs(Path(folder))
        cases = {
            "loading is the limit": (lambda row: read_image(Path(folder), names[row]), "resnet-1x1x1x1-w4", 32, 0.0),
            "slow loader": (lambda row: read_image(Path(folder), names[row]), "resnet-1x1x1x1-w4", 32, SLOW),
            "computing is the limit": (small.__getitem__, "resnet-1x1x1x1-w32", 64, 0.0),
        }
        timed(*cases["loading is the limit"][:3], together=True)
        for name, (read, arch, side, pause) in cases.items():
            alone, alone_processor, _, _ = timed(read, arch, side, False, pause)
            shared, shared_processor, reader, used = timed(read, arch, side, True, pause)
            loading = 100 * reader.seconds / shared
            print(
                f"| {name} | {reader.count / used:.3f} | {loading:.0f} % | {alone:.1f} | {shared:.1f} | "
                f"{alone / shared:.1f} | {alone_processor:.1f} | {shared_processor:.1f} |"
            )


if __name__ == "__main__":
    main()
