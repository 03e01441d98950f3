"""How the penalty path grows with its inputs, and its memory: `uv run python benchmarks/linear_scaling.py`.

Processor seconds of one thread (so that other work on the machine does not count) for a growing number of samples,
classes and penalties, the others fixed; the exponent is the slope of log time over log size by least squares, and
besides from the last two sizes alone, where the constant part of the work (the basis) matters least.
`--memory` fits the largest set of the paper instead (75,750 x 2,048 float32 features from a file, 101 classes; three
penalties) and prints the peak memory of the process, with the design matrix in memory and streamed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"OPENBLAS_NUM_THREADS": "1"} if "--memory" not in sys.argv else {}
sys.path.append(str(Path(__file__).parents[1] / "scripts"))

import numpy as np
from linear_path import processor, sample

from ssltransfer.protocols.linear import design_matrix, evaluation, logistic

BASE = {"samples": 3000, "classes": 20, "penalties": 45}
SIZES = {"samples": [1500, 3000, 6000, 12000], "classes": [5, 10, 20, 40, 80], "penalties": [12, 23, 45, 89]}
FEATURES = 1024
LARGE = (75750, 2048, 101)

MEASURE = """
import resource, sys, time
import numpy as np
from ssltransfer.protocols.linear import design_matrix, logistic
features = np.load(sys.argv[1], mmap_mode="r")
labels = np.load(sys.argv[2])
design_matrix.RESIDENT_SHARE = float(sys.argv[3])
began, used = time.perf_counter(), time.process_time()
for fit in logistic.fit_path(features, labels, np.array(eval(sys.argv[4])), int(labels.max()) + 1):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row = fit.penalty, fit.newton_steps, fit.converged, time.perf_counter() - began, time.process_time() - used, peak
    print("| {:.0e} | {} | {} | {:.0f} | {:.0f} | {:.2f} |".format(*row), flush=True)
"""


def seconds(samples, classes, penalties):
    """Processor seconds of the whole path."""
    features, labels = sample(samples, FEATURES, classes)
    start = time.process_time()
    fits = list(logistic.fit_path(features, labels, evaluation.lambda_grid(1e-6, 1e5, penalties), classes))
    assert all(fit.converged for fit in fits)
    return time.process_time() - start


def scaling():
    print(f"One thread ({processor()}), {FEATURES} features; fixed unless varied: {BASE}.\n")
    print("| varied | sizes | processor seconds | exponent | of the last two |\n| --- | --- | --- | --- | --- |")
    for what, sizes in SIZES.items():
        times = [seconds(**(BASE | {what: size})) for size in sizes]
        exponents = [np.polyfit(np.log(sizes[-count:]), np.log(times[-count:]), 1)[0] for count in (len(sizes), 2)]
        cells = [
            what,
            ", ".join(map(str, sizes)),
            ", ".join(f"{t:.1f}" for t in times),
            *map("{:.2f}".format, exponents),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


def write_features(path):
    """Features like `sample`'s, written a block at a time; the labels decide a part of each row."""
    n, d, classes = LARGE
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, n)
    scale = (8 * np.arange(1, d + 1) ** -0.8).astype(np.float32)
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0].astype(np.float32)
    centres = rng.normal(size=(classes, d)).astype(np.float32)
    stored = np.lib.format.open_memmap(path / "features.npy", "w+", np.float32, (n, d))
    for start in range(0, n, 4096):
        part = labels[start : start + 4096]
        noise = rng.normal(size=(len(part), d)).astype(np.float32)
        stored[start : start + 4096] = np.maximum((noise + 0.5 * centres[part]) * scale @ basis + 0.3, 0)
    stored.flush()
    np.save(path / "labels.npy", labels)


def memory(lambdas):
    n, d, classes = LARGE
    print(f"{n} x {d} features, {classes} classes, {os.cpu_count()} cores ({processor()}).")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write_features(path)
        for name, share in (("in memory", design_matrix.RESIDENT_SHARE), ("streamed", 0.0)):
            print(f"\n{name.capitalize()}:\n")
            print("| lambda | Newton steps | certified | seconds so far | processor seconds | peak GiB |")
            print("| --- | --- | --- | --- | --- | --- |", flush=True)
            arguments = [path / "features.npy", path / "labels.npy", share, lambdas]
            environment = os.environ | {"PYTHONPATH": sys.path[-1]}
            subprocess.run([sys.executable, "-c", MEASURE, *map(str, arguments)], check=True, env=environment)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", action="store_true", help="the largest set of the paper and its peak memory")
    parser.add_argument("--lambdas", default="[1e3, 1e1, 1e-1]", help="penalties of --memory")
    options = parser.parse_args()
    memory(options.lambdas) if options.memory else scaling()
