"""The penalty path against the best of scikit-learn's solvers: `uv run python benchmarks/linear_solvers.py`.

`linear_path.py` lets L-BFGS start cold and stops it at an evaluation. Here every solver is called as users call it,
`LogisticRegression(solver=..., C=1 / lambda)` in float64, and has two advantages: it starts from our solution for the
next stronger penalty of the grid, and it is stopped at the first iteration whose objective is within the gap of our
certificate (1e-6, or 1e-4 below lambda 0.01). newton-cg and newton-cholesky are called iteration by iteration, which
costs them nothing because they carry nothing over. L-BFGS and saga are called with 1, 2, 4, ... times a number of
iterations, and only the last of these calls counts. A solver that needs more than `--cap` seconds for a penalty counts
as that ("at least"). newton-cholesky is left out where its Hessian would take more than 1 GB. Times are processor
seconds of one thread, so that other work on the machine counts little.
"""

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
sys.path.append(str(Path(__file__).parents[1] / "scripts"))

import numpy as np
import sklearn
from linear_path import SHAPES, binary_objectives, processor, sample
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from ssltransfer.protocols.linear import evaluation, logistic

SOLVERS = ("lbfgs", "newton-cg", "newton-cholesky", "saga")
#: Iterations of the shortest call; of the Newton methods, of every call.
FIRST = {"lbfgs": 25, "newton-cg": 1, "newton-cholesky": 1, "saga": 10}
LARGEST_HESSIAN = 1e9


def objective(model, features, labels, penalty):
    """Summed cross-entropy and penalty of a fitted model; of a binary problem, labels are 0 and 1."""
    scores = features @ model.coef_.T + model.intercept_
    if scores.shape[1] == 1:
        wrong = np.where(labels > 0, -scores[:, 0], scores[:, 0])
        loss = np.logaddexp(0, wrong).sum()
    else:
        top = scores.max(axis=1)
        loss = (np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top - scores[np.arange(len(labels)), labels]).sum()
    return loss + penalty / 2 * (model.coef_**2).sum()


def started(solver, penalty, start, classes):
    """A model with the parameters of `start` (weights, bias), from which `fit` goes on."""
    model = LogisticRegression(solver=solver, C=1 / penalty, tol=1e-300, warm_start=True)
    model.coef_, model.intercept_, model.classes_ = start[0].T.copy(), start[1].copy(), np.arange(classes)
    return model


def seconds_to(solver, features, labels, penalty, start, target, cap):
    """Processor seconds until the objective is at most `target`; None if `cap` seconds do not suffice."""
    classes = int(labels.max()) + 1
    memoryless = solver.startswith("newton")
    model, spent, iterations = started(solver, penalty, start, classes), 0.0, FIRST[solver]
    while spent < cap:
        model.max_iter = iterations
        began = time.process_time()
        model.fit(features, labels)
        last = time.process_time() - began
        spent = spent + last if memoryless else last
        if objective(model, features, labels, penalty) <= target:
            return spent
        if not memoryless:
            model, iterations = started(solver, penalty, start, classes), 2 * iterations
            if 2 * last > cap:
                return None
    return None


def fits(solver, features, classes):
    """Whether the solver can be tried."""
    unknowns = (features.shape[1] + 1) * (classes if classes > 2 else 1)
    return solver != "newton-cholesky" or 8 * unknowns**2 <= LARGEST_HESSIAN


def time_point(solver, x, y, penalty, before, fit, cap):
    """Seconds for one penalty (all binary problems of a multi-label set), and whether all were solved."""
    slack = 1 + (1e-6 if penalty >= 1e-2 else 1e-4)
    if y.ndim == 1:
        found = seconds_to(solver, x, y, penalty, (before.weights, before.bias), fit.objective * slack, cap)
        return (cap, False) if found is None else (found, True)
    total, columns = 0.0, y.astype(int)
    for k, target in enumerate(binary_objectives(fit, x.astype(np.float32), y)):
        start = before.weights[:, [k]], before.bias[[k]]
        found = seconds_to(solver, x, columns[:, k], penalty, start, target * slack, cap - total)
        if found is None:
            return cap, False
        total += found
    return total, True


def compare(shape, cap, count, solvers):
    features, labels = sample(*shape)
    n = len(features)
    train = np.random.default_rng(1).permutation(n)[n // 5 :]
    x, y = features[train], labels[train]
    classes = abs(shape[2])
    grid = evaluation.lambda_grid(1e-6, 1e5, 45)[::-1]
    began = time.process_time()
    path = list(logistic.fit_path(x, y, grid, classes))
    ours = time.process_time() - began
    wide = x.astype(np.float64)
    kind = "classes" if y.ndim == 1 else "binary problems"
    tried = [solver for solver in solvers if fits(solver, x, classes if y.ndim == 1 else 2)]
    print(f"\n### {x.shape[0]} x {x.shape[1]} features, {classes} {kind}\n")
    print(f"| lambda | ours, mean of the path | {' | '.join(tried)} |\n| --- | --- |{' --- |' * len(tried)}")
    chosen = np.unique(np.linspace(1, 44, count).round().astype(int))
    times = {solver: [] for solver in tried}
    for position in chosen:
        cells = []
        for solver in tried:
            arguments = wide, y, path[position].penalty, path[position - 1], path[position], cap
            elapsed, solved = time_point(solver, *arguments)
            times[solver].append((elapsed, solved))
            cells.append(f"{'' if solved else '> '}{elapsed:.1f}")
        print(f"| {path[position].penalty:.1e} | {ours / 45:.2f} | {' | '.join(cells)} |", flush=True)
    best = [min((times[s][i] for s in tried), key=lambda pair: (not pair[1], pair[0])) for i in range(len(chosen))]
    total = np.interp(np.arange(45), chosen, [elapsed for elapsed, _ in best]).sum()
    bound = "" if all(solved for _, solved in best) else "at least "
    print(f"\nOurs: {ours:.1f} s for 45 penalties, {sum(fit.converged for fit in path)} certified. The best solver")
    print(f"at each penalty: {bound}{total:.0f} s, interpolated. **Ratio: {bound}{total / ours:.0f} x.**", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cap", type=float, default=40.0, help="seconds a solver may take for a penalty")
    parser.add_argument("--shapes", nargs="*", type=int, default=[0, 1, 2], help="which of the three shapes")
    parser.add_argument("--points", type=int, default=5, help="penalties at which scikit-learn is timed")
    parser.add_argument("--solvers", nargs="*", choices=SOLVERS, default=SOLVERS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    print(f"One thread ({processor()}), numpy {np.__version__}, scikit-learn {sklearn.__version__}")
    for number in options.shapes:
        compare(SHAPES[number], options.cap, options.points, options.solvers)
