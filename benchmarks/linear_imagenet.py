"""The linear path at the size of ImageNet: `uv run python benchmarks/linear_imagenet.py`.

Fits one penalty to a tenth of ImageNet's training images (128,116 synthetic features of 2,048 dimensions, 1,000
classes) in a process that may take a tenth of 24 GiB, and prints peak memory, the passes over the features and what one
takes. Beyond a tenth, rows are repetitions; `--images 1281167` takes 24 GiB and a file of 10.5 GB.

`--memory` stops with the first Newton direction, after one step of conjugate gradients and without optimising the bias,
which takes long but holds nothing: by then all that a fit holds at a time was held. `--width` takes fewer dimensions,
which changes the memory little. `--passes` counts the passes of all 45 penalties on a hundredth.

Features are read from a file of the workflow's format, by one thread. The kernel limits the memory of the process
(RLIMIT_DATA, which counts what is allocated, not the pages of mapped files), and the fit is told the same limit.
"""

import argparse
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.append(str(Path(__file__).parents[1] / "scripts"))

import numpy as np

from ssltransfer.array_backend import Arrays
from ssltransfer.models.feature_file import load_features
from ssltransfer.protocols.linear import design_matrix, evaluation, logistic
from ssltransfer.row_file import ArrayFile

IMAGES, WIDTH, CLASSES = 1_281_167, 2048, 1000
TENTH = IMAGES // 10
MEMORY = 24 * 2**30
PASSES = {
    "_orthogonal_basis": "basis",
    "products": "logits, and the bias",
    "transposed_times": "gradient",
    "squared_transposed_times": "diagonal of the Hessian",
    "weighted_gram_times": "step of conjugate gradients",
}
"""Methods of the design matrix that read all features; what follows one until the next is counted as its own."""
STEP = 4096


class Limited(Arrays):
    """numpy's arrays, and less memory than the machine has."""

    limit = MEMORY

    def memory(self) -> int:
        """Bytes that a fit may use."""
        return self.limit


class HeldError(Exception):
    """All that is held at a time was held."""


class Peak(threading.Thread):
    """Highest value of lines of /proc/self/status, in bytes, read ten times a second."""

    def __init__(self):
        super().__init__(daemon=True)
        self.anonymous = self.resident = 0
        self.start()

    def run(self):
        """Read until the process ends."""
        while True:
            lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            value = {name: int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "VmRSS")}
            self.anonymous = max(self.anonymous, value["RssAnon"])
            self.resident = max(self.resident, value["VmRSS"])
            time.sleep(0.1)


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def write_features(folder: Path, rows: int, width: int, classes: int, distinct: int) -> None:
    """Features of which the labels decide a part, `distinct` rows and repetitions, written a block at a time."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, distinct)
    scale = (8 * np.arange(1, width + 1) ** -0.8).astype(np.float32)
    basis = np.linalg.qr(rng.normal(size=(width, width)))[0].astype(np.float32)
    centres = rng.normal(size=(classes, width)).astype(np.float32)
    file = ArrayFile.create(folder / "features.npy", (rows, width), np.float32)
    for start in range(0, distinct, STEP):
        part = labels[start : start + STEP]
        noise = rng.standard_normal((len(part), width), np.float32)
        values = np.maximum((noise + 0.5 * centres[part]) * scale @ basis + np.float32(0.3), 0)
        for first in range(start, rows, distinct):
            file.write(first, values[: rows - first])
    file.finish()
    np.save(folder / "labels.npy", np.resize(labels, rows))


def record(method, name, passes):
    """A method that notes the processor seconds at which it began."""

    def call(*arguments, **options):
        passes.append((name, time.process_time()))
        print(f"[{passes[-1][1]:.0f} s] {name}", file=sys.stderr, flush=True)
        return method(*arguments, **options)

    return call


def stop(*_):
    raise HeldError


def fit(folder: Path, penalties: list[float], limit: int, only_memory: bool) -> None:
    """Fit a path within `limit` bytes, and print tables."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    Path("/proc/self/oom_score_adj").write_text("1000")  # if memory is short, nothing else shall be ended
    Limited.limit = limit
    labels = np.load(folder / "labels.npy")
    features = load_features(folder / "features.npy", len(labels))
    passes = []
    for method, name in PASSES.items():
        setattr(design_matrix.Design, method, record(getattr(design_matrix.Design, method), name, passes))
    if only_memory:
        logistic.MAX_CG_STEPS = 1
        logistic._Problem.line_search = stop
        logistic.bias_shift = lambda parts, *_: np.zeros(parts[0][1].shape[1])
    peak, began, fits = Peak(), time.perf_counter(), []
    try:
        for found in logistic.fit_path(features, labels, np.array(penalties), int(labels.max()) + 1, Limited()):
            fits.append(found)
    except HeldError:
        pass
    size = f"{len(labels):,} x {features.shape[1]:,} features, {labels.max() + 1:,} classes"
    print(
        f"{size}, {limit / 2**30:.1f} GiB: {time.perf_counter() - began:.0f} s, {time.process_time():.0f} of one core."
    )
    print(f"Allocated at most {peak.anonymous / 2**30:.2f} GiB, {peak.resident / 2**30:.2f} with the mapped file.")
    for found in fits[:1] if len(fits) == 1 else []:
        print(f"Penalty {found.penalty:g}: {found.newton_steps} Newton steps, {found.converged=}, gap {found.gap:.0e}.")
    steps = sum(found.newton_steps for found in fits)
    print(f"{len(fits)} penalties, {sum(found.converged for found in fits)} certified, {steps} Newton steps.\n")
    print_passes([*passes, ("", time.process_time())])


def print_passes(passes: list[tuple[str, float]]) -> None:
    """Print the number of passes of each kind, and the mean of their processor seconds."""
    seconds = {name: [] for name in PASSES.values()}
    for (name, start), (_, end) in itertools.pairwise(passes):
        seconds[name].append(end - start)
    print("| pass | number | processor seconds of one |\n| --- | --- | --- |")
    for name, each in seconds.items():
        print(f"| {name} | {len(each)} | {np.mean(each) if each else 0:.2f} |", flush=True)


def main() -> None:
    """Write features and fit them in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=TENTH)
    parser.add_argument("--memory", action="store_true", help="stop with the first Newton direction")
    parser.add_argument("--passes", action="store_true", help="all penalties, on a hundredth of the images")
    parser.add_argument("--penalty", type=float, default=1000.0)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--folder", help="where to put the features (default: the system's temporary folder)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    rows, classes, penalties = options.images, CLASSES, [options.penalty]
    if options.passes:
        rows, classes, penalties = IMAGES // 100, CLASSES // 20, list(evaluation.lambda_grid(1e-6, 1e5, 45))
    if options.child:
        limit = MEMORY * max(rows, TENTH) // IMAGES
        fit(Path(options.child), penalties, limit, options.memory)
        return
    print(f"{os.cpu_count()} cores ({processor()}), one thread.", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        write_features(Path(temporary), rows, options.width, classes, min(rows, TENTH))
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--child", temporary], check=True)


if __name__ == "__main__":
    main()
