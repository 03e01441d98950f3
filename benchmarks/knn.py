"""Time and memory of exact nearest neighbours at the shapes of Food-101 and ImageNet, beside the bare product.

    uv run python benchmarks/knn.py FOLDER [SHAPE...]

Processor seconds of one thread, so that other work on the machine counts little; search and product take turns, and
the ratio is the median of the pairs. Needs 3 GB in FOLDER and some minutes. The features are of 2,048 numbers, none
negative, in classes that lie one after the other as in the index of a dataset, in a mapped file. One block of queries
is searched, for ImageNet among a quarter of its training images; the rest is extrapolated, because the work is the same
for every block. The bare product multiplies the same blocks in float32 and keeps nothing. Memory is that of the process
beside the mapped file.
"""

import re
import statistics
import sys
import threading
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from ssltransfer.protocols.knn.neighbours import BLOCK, nearest_neighbours

WIDTH, COUNT, CHECKED, REPEATS = 2048, 200, 20, 5
SHAPES = {"Food-101": (75_750, 101, 25_250 / BLOCK), "ImageNet": (320_292, 1000, 4 * 50_000 / BLOCK)}
"""Training images, classes, and the factor from one block of queries to the whole dataset."""


def make_features(path: Path, rows: int, queries: int, classes: int) -> np.ndarray:
    """Write features to a file, classes sorted in each part, and map it into memory."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(classes, WIDTH)).astype(np.float32)
    labels = np.concatenate([np.arange(n) * classes // n for n in (rows, queries)])
    file = np.lib.format.open_memmap(path, "w+", np.float32, (len(labels), WIDTH))
    for start in range(0, len(labels), BLOCK):
        own = centres[labels[start : start + BLOCK]]
        file[start : start + BLOCK] = np.maximum(own / 2 + rng.standard_normal(own.shape, np.float32), 0)
    file.flush()
    del file
    return np.load(path, mmap_mode="r")


def bare_product(features: np.ndarray, rows: int) -> float:
    """Seconds of the products of all blocks."""
    seconds = 0.0
    for first in range(rows, len(features), BLOCK):
        queries = np.array(features[first : first + BLOCK])
        for start in range(0, rows, BLOCK):
            keys = np.array(features[start : min(start + BLOCK, rows)])
            begin = time.process_time()
            queries @ keys.T
            seconds += time.process_time() - begin
    return seconds


def check(features: np.ndarray, rows: int, found: np.ndarray) -> bool:
    """Whether some queries have the neighbours of a full sort in float64."""
    chosen = np.linspace(0, len(found) - 1, CHECKED).astype(int)
    queries = np.array(features[rows + chosen], np.float64)
    similarities = []
    for start in range(0, rows, BLOCK):
        keys = np.array(features[start : min(start + BLOCK, rows)], np.float64)
        norms = np.sqrt((keys**2).sum(axis=1))
        each = [(keys * query).sum(axis=1) / (norms * np.sqrt((query**2).sum())) for query in queries]
        similarities.append(np.array(each))
    order = np.argsort(-np.concatenate(similarities, axis=1), axis=1, kind="stable")[:, : found.shape[1]]
    return bool((order == found[chosen]).all())


class OwnMemory(threading.Thread):
    """Most memory (bytes) that this process held beside mapped files, looked at every 10 ms."""

    peak = 0

    def __enter__(self) -> "OwnMemory":
        self.ended = threading.Event()
        self.start()
        return self

    def run(self) -> None:
        """Look until the block ends."""
        while not self.ended.wait(0.01):
            status = Path("/proc/self/status").read_text()
            self.peak = max(self.peak, 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1]))

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()


def timed(features: np.ndarray, rows: int) -> tuple[float, float, np.ndarray]:
    """Return the seconds of the bare product and of the search, and the rows of the neighbours."""
    with threadpool_limits(1):
        bare = bare_product(features, rows)
        begin = time.process_time()
        found = nearest_neighbours(features, np.arange(rows), np.arange(rows, rows + BLOCK), COUNT)
        return bare, time.process_time() - begin, found.rows


def main(folder: Path, names: list[str]) -> None:
    """Print rows of the table for some shapes."""
    print("| Shape | measured | bare product, s | neighbours, s | ratio | peak memory, MiB | equal to a full sort |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        rows, classes, factor = SHAPES[name]
        features = make_features(folder / f"{name}.npy", rows, BLOCK, classes)
        with OwnMemory() as memory:
            times = [timed(features, rows) for _ in range(REPEATS)]
        bare, seconds = (statistics.median(each[number] for each in times) for number in range(2))
        ratios = sorted(each[1] / each[0] for each in times)
        equal = check(features, rows, times[0][2])
        print(
            f"| {name} | {rows:,} x {BLOCK:,} | {bare:.1f} | {seconds:.1f} | {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}) | {memory.peak / 2**20:.0f} | "
            f"{'yes' if equal else 'no'} ({CHECKED} queries) |"
        )
        print(f"| {name}, whole | extrapolated | {bare * factor:.0f} | {seconds * factor:.0f} | | | |", flush=True)
        (folder / f"{name}.npy").unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(SHAPES))
