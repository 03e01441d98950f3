"""Time image preparation against torch's DataLoader: `uv run python benchmarks/images.py`.

All read the same JPEG files, with the same number of workers, and deliver the same bytes (checked): `prepare_images`
into its file; a DataLoader with torchvision's loader and transforms that returns uint8; one that returns normalised
float32, which is what feature extraction without prepared images would usually be fed by. They take turns, so that
whatever else the machine does meets all three. Printed are the medians of images a second, of milliseconds of
processor time an image (all threads and processes; other work on the machine hardly changes it), and of the rounds'
ratios.
"""

import argparse
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--folder", type=Path, help="a folder of images instead of made ones")
parser.add_argument("--images", type=int, default=1500, help="images of a round; files repeat if there are fewer")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--workers", nargs="*", type=int, default=[1, 2])
options = parser.parse_args()

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

import numpy as np  # noqa: E402
import PIL  # noqa: E402
import torch  # noqa: E402
from photos import Photos, make_photos  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from ssltransfer.datasets.images import prepare_images  # noqa: E402


def load(root, names, workers, as_float):
    """Run through all images once; returns the last batch."""
    for batch in DataLoader(Photos(root, names, as_float), batch_size=64, num_workers=workers):
        last = batch
    return last


def processor_time():
    """Seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(function, *arguments):
    """Return seconds an image, on the clock and of the processor."""
    start, used = time.perf_counter(), processor_time()
    function(*arguments)
    return (time.perf_counter() - start) / options.images, (processor_time() - used) / options.images


def table(workers):
    """Rows of the printed table for a number of workers: clock and processor."""
    rounds = []
    for _ in range(options.rounds):
        ours = measure(prepare_images, root, names, "resize224", output, "", workers)
        rounds.append((ours, *(measure(load, root, names, workers, as_float) for as_float in (False, True))))
    for kind, (what, number) in enumerate([("images a second", lambda x: 1 / x), ("ms an image", lambda x: 1e3 * x)]):
        columns = list(zip(*((row[i][kind] for i in range(3)) for row in rounds), strict=True))
        cells = [f"{number(statistics.median(column)):.3g}" for column in columns]
        cells += [f"{statistics.median(row[i][kind] / row[0][kind] for row in rounds):.2f}" for i in (1, 2)]
        yield f"| {workers} | {what} | {' | '.join(cells)} |"


with tempfile.TemporaryDirectory() as temporary:
    torch.set_num_threads(1)
    folder, output = Path(temporary), Path(temporary) / "images.npy"
    if options.folder is None:
        make_photos(folder)
    root = options.folder or folder
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))
    names = [files[row % len(files)] for row in range(options.images)]
    prepare_images(root, names, "resize224", output)
    last = load(root, names, 1, as_float=False).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(np.load(output)[-len(last) :], last), "the bytes differ"

    print(f"{platform.machine()}, {os.cpu_count()} cores, Pillow {PIL.__version__}, torch {torch.__version__}")
    print(f"{options.images} JPEG images ({len(files)} files), {options.rounds} rounds in turn\n")
    print("| workers | | prepare_images | DataLoader uint8 | DataLoader float32 | against uint8 | against float32 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for count in options.workers:
        print("\n".join(table(count)), flush=True)
