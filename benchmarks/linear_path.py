"""Time the regularisation path against scikit-learn's solver: `uv run python benchmarks/linear_path.py`.

For each shape, our certified path over 45 penalties; then, at nine of them, scikit-learn's objective and L-BFGS
(float64, cold, its tolerances off) until its objective is within 1e-6 of ours (1e-4 below lambda 0.01), at most `--cap`
seconds a point: a capped point counts as "at least". scikit-learn's time for 45 points is interpolated from its nine
(linear in log lambda). Both run on the same cores; ours runs before and after scikit-learn's points, and the mean
counts, so that a change of the machine's load meets both. Where there is a GPU, ours runs there.
`--features FILE.npz` (arrays `features` and `labels`) takes real features instead. At most 20 minutes with the
defaults on two cores.
"""

import argparse
import contextlib
import os
import platform
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

import numpy as np
import scipy
import sklearn
from scipy.optimize import minimize
from sklearn._loss import HalfBinomialLoss, HalfMultinomialLoss
from sklearn.linear_model._linear_loss import LinearModelLoss

from ssltransfer.device import choose_arrays
from ssltransfer.protocols.linear import certificate, classification_metrics, evaluation, logistic

SHAPES = [(3334, 2048, 100), (5000, 2048, 10), (2501, 2048, -20)]


def sample(n, d, k, seed=0):
    """Rectified features with a power-law spectrum and class structure; k < 0 means independent binary labels."""
    rng = np.random.default_rng(seed)
    spectrum = 8 * np.arange(1, d + 1) ** -0.8
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
    centres = rng.normal(size=(abs(k), d))
    if k > 0:
        labels = rng.integers(0, k, n)
        mean = 0.5 * centres[labels]
    else:
        labels = rng.random((n, -k)) < 0.08
        mean = 0.5 * labels @ centres
    features = np.maximum((rng.normal(size=(n, d)) + mean) * spectrum @ basis + 0.3, 0)
    return features.astype(np.float32), labels


def processor():
    """Name of the processor, where the system tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


class ReachedError(Exception):
    """Ends L-BFGS at the target or the time limit."""


def scikit_learn(features, labels, penalty, target, cap):
    """Seconds until scikit-learn's L-BFGS reaches `target`, whether it did, its objective and parameters then."""
    problems = [(labels, True)] if labels.ndim == 1 else [(labels[:, k], False) for k in range(labels.shape[1])]
    x = features.astype(np.float64)
    start, total, reached, parameters = time.perf_counter(), 0.0, True, []
    for number, (y, multi) in enumerate(problems):
        classes = int(y.max()) + 1
        base = HalfMultinomialLoss(n_classes=classes) if multi else HalfBinomialLoss()
        loss = LinearModelLoss(base_loss=base, fit_intercept=True)
        coefficients = np.zeros((classes, x.shape[1] + 1) if multi else x.shape[1] + 1)
        strength, best = penalty / len(x), [np.inf, None]
        part = target[number] if labels.ndim > 1 else target

        def both(w, loss=loss, y=y, strength=strength, best=best, part=part, shape=coefficients.shape, multi=multi):
            w = w.reshape(shape, order="F") if multi else w
            value, gradient = loss.loss_gradient(w, x, y.astype(np.float64), l2_reg_strength=strength, n_threads=1)
            if value * len(x) < best[0]:
                best[:] = value * len(x), np.atleast_2d(w).copy()
            if best[0] <= part or time.perf_counter() > start + cap:
                raise ReachedError
            return value, gradient.ravel(order="F") if multi else gradient

        with contextlib.suppress(ReachedError):
            minimize(
                both,
                coefficients.ravel(order="F"),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": 10**6, "maxfun": 10**7, "gtol": 0, "ftol": 0, "maxls": 50},
            )
        reached &= best[0] <= part
        total += best[0]
        parameters.append(best[1])
        if not reached:
            break
    return time.perf_counter() - start, reached, total, np.concatenate(parameters).T


def binary_objectives(fit, features, labels):
    """Objective of each binary problem of a multi-label fit."""
    return [
        certificate.certify(features, labels[:, [k]], fit.penalty, fit.weights[:, [k]], fit.bias[[k]])[0]
        for k in range(labels.shape[1])
    ]


def run_ours(x, y, classes, arrays):
    """Fits by penalty (three digits of its logarithm), and the seconds of the whole path."""
    start = time.perf_counter()
    path = logistic.fit_path(x, y, evaluation.lambda_grid(1e-6, 1e5, 45), classes, arrays)
    fits = {round(float(np.log10(fit.penalty)), 3): fit for fit in path}
    return fits, time.perf_counter() - start


def compare(features, labels, cap, count, arrays):
    n = len(features)
    rows = np.random.default_rng(1).permutation(n)
    train, val = rows[n // 5 :], rows[: n // 5]
    x, y = features[train], labels[train]
    classes = int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]
    metric = "top1" if labels.ndim == 1 else "map11"
    fits, before = run_ours(x, y, classes, arrays)
    kind = "classes" if labels.ndim == 1 else "binary problems"
    print(f"\n### {x.shape[0]} x {x.shape[1]} features, {classes} {kind}\n")
    print(
        "| lambda | objective | gap bound | validation | scikit-learn, s | its objective / ours - 1 | its validation |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    chosen = np.unique(np.linspace(0, 44, count).round().astype(int))
    seconds, capped = [], False
    for position in chosen:
        fit = fits[round(position / 4 - 6, 3)]
        slack = 1 + (1e-6 if fit.penalty >= 1e-2 else 1e-4)
        parts = fit.objective if labels.ndim == 1 else np.array(binary_objectives(fit, x, y))
        elapsed, reached, value, parameters = scikit_learn(x, y, fit.penalty, parts * slack, cap)
        seconds.append(elapsed)
        capped |= not reached
        quality = classification_metrics.evaluate(metric, labels[val], fit.scores(features[val]))
        gap, its_quality = "-", "-"  # of binary problems, those after the time limit were never begun
        if parameters.shape[1] == classes:
            gap = f"{value / fit.objective - 1:.1e}"
            scores = features[val] @ parameters[:-1] + parameters[-1]
            its_quality = f"{classification_metrics.evaluate(metric, labels[val], scores):.2f}"
        print(
            f"| {fit.penalty:.1e} | {fit.objective:.7g} | {fit.gap:.0e} | {quality:.2f} | "
            f"{'' if reached else '> '}{elapsed:.1f} | {gap} | {its_quality} |",
            flush=True,
        )
    _, after = run_ours(x, y, classes, arrays)
    ours, certified = (before + after) / 2, sum(fit.converged for fit in fits.values())
    print(f"\nOurs: {ours:.1f} s for 45 penalties ({before:.1f} before, {after:.1f} after), {certified} certified.")
    total = float(np.interp(np.arange(45), chosen, seconds).sum())
    how = "" if count == 45 else f", interpolated from {len(chosen)}"
    print(f"scikit-learn: {'at least ' if capped else ''}{total:.0f} s for 45 penalties{how}. ", end="")
    print(f"**Ratio: {'at least ' if capped else ''}{total / ours:.0f} x.**", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cap", type=float, default=60.0, help="seconds a point of scikit-learn may take")
    parser.add_argument("--shapes", nargs="*", type=int, default=[0, 1, 2], help="which of the three shapes")
    parser.add_argument("--points", type=int, default=9, help="penalties at which scikit-learn is timed")
    parser.add_argument("--full", action="store_true", help="no cap, all 45 points")
    parser.add_argument("--features", type=Path, help="an .npz with features and labels instead of the three shapes")
    options = parser.parse_args()
    cap, count = (np.inf, 45) if options.full else (options.cap, options.points)
    arrays = choose_arrays()
    print(
        f"{os.cpu_count()} cores ({processor()}), {arrays.xp.__name__}'s arrays on {arrays.device or 'the CPU'}; "
        f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"scikit-learn {sklearn.__version__}"
    )
    if options.features:
        with np.load(options.features, allow_pickle=False) as stored:
            compare(stored["features"], stored["labels"], cap, count, arrays)
    else:
        for number in options.shapes:
            compare(*sample(*SHAPES[number]), cap, count, arrays)
