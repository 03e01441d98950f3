"""Certificate of convergence of a logistic regression: bounds of the distance to the optimum.

With the optimal bias, F is lambda-strongly convex in the weights W, so that |grad_W F|^2 / (2 lambda) bounds F - F*.
"""

import numpy as np
from scipy import linalg

from ssltransfer.array_backend import NUMPY, Array, Arrays
from ssltransfer.protocols.linear.design_matrix import Blocks, Rows, blocks, products_fit, row_blocks
from ssltransfer.protocols.linear.losses import Sigmoid, Softmax, make_loss

MAX_NEWTON_STEPS = 200

Part = tuple[Softmax | Sigmoid, Array]
"""Loss and logits (m, k) of a block of samples."""


def tolerance(penalty: float) -> float:
    """Return the certificate's tolerance: a relative gap of about 1e-6, or 1e-4 for a penalty below 1e-2."""
    return 1e-3 if penalty >= 1e-2 else 1e-2


def bias_tolerance(penalty: float, weights: float, mean: float) -> float:
    """Gradient of the bias that does not show in the certificate; of weights and mean feature, the norms."""
    return 1e-2 * tolerance(penalty) * penalty * weights / (1 + mean)


def bias_shift(parts: list[Part], keep: bool, allowed: float, arrays: Arrays) -> np.ndarray:
    """Return what to add to the bias (k,) to minimise the loss over it, by Newton's method.

    Only with the optimal bias does the gradient of the weights bound the distance to the optimum.

    Parameters
    ----------
    parts : list of (Softmax or Sigmoid, array)
        Loss and logits (m, k) of each block of samples.
    keep : bool
        Whether the probabilities of all samples fit into memory.
    allowed : float
        Norm of the gradient to stop at.
    arrays : Arrays
    """

    def probabilities_at(shift: np.ndarray) -> Blocks:
        placed = arrays.place(shift)
        return Blocks(lambda: (loss.probabilities(logits + placed) for loss, logits in parts), keep)

    losses = [loss for loss, _ in parts]
    shift = np.zeros(parts[0][1].shape[1])
    value = total_loss(parts, shift, arrays)
    for _ in range(MAX_NEWTON_STEPS):
        found = probabilities_at(shift)
        residuals = (loss.residual(block).sum(axis=0) for loss, block in zip(losses, found, strict=True))
        gradient = arrays.numpy(sum(residuals))
        if np.linalg.norm(gradient) <= allowed:
            break
        hessian = sum(loss.bias_hessian(block) for loss, block in zip(losses, found, strict=True))
        step = -_solve(arrays.numpy(hessian), gradient)
        while (new_value := total_loss(parts, shift + step, arrays)) > value:
            step /= 2
            if np.abs(step).max() < 1e-12:
                break
        if new_value >= value:  # rounding level
            break
        shift, value = shift + step, new_value
    return shift


def total_loss(parts: list[Part], shift: np.ndarray, arrays: Arrays) -> float:
    """Sum of the losses of all blocks of samples with a shifted bias (k,)."""
    placed = arrays.place(shift)
    return sum(loss.loss(logits + placed) for loss, logits in parts)


def _solve(hessian: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Solve a positive semidefinite system, slightly damped, so that a class without curvature does no harm.

    The solution is zero where no class has curvature: features of a huge scale make all probabilities 0 or 1.
    """
    damping = 1e-14 * np.trace(hessian) + np.finfo(np.float64).tiny
    try:
        return linalg.solve(hessian + damping * np.eye(len(hessian)), gradient, assume_a="pos")
    except linalg.LinAlgError:
        return np.zeros_like(gradient)


def relative_gap(slope: float, penalty: float, objective: float) -> float:
    """Upper bound of (F - F*) / F from the norm of the gradient of the weights, the penalty and F."""
    return slope**2 / (2 * penalty) / max(objective, 1e-300)


def certify(
    features: np.ndarray | Rows, labels: np.ndarray, penalty: float, weights: np.ndarray, bias: np.ndarray
) -> tuple[float, float, bool]:
    """Objective, relative gap bound and convergence of any solution, computed from the features themselves.

    The bound is that of the same weights with their optimal bias, plus what the given bias costs more.

    Parameters
    ----------
    features, labels
        As for `fit_path`.
    penalty : float
    weights, bias : ndarray
        (d, k) and (k,); columns with an infinite bias are left out.
    """
    kept = np.flatnonzero(np.isfinite(bias))
    weights, bias = weights[:, kept], bias[kept]
    (n, d), k = features.shape, len(kept)
    keep = products_fit(n, k, NUMPY)
    logits = np.empty((n, k))
    for rows, block in blocks(features):
        logits[rows] = block.astype(np.float64) @ weights + bias
    loss, norm = make_loss(labels, kept, NUMPY), float(np.linalg.norm(weights))
    parts = [(loss.part(rows), logits[rows]) for rows in ([slice(0, n)] if keep else row_blocks(n, max(d, k)))]
    mean = np.linalg.norm(sum(block.sum(axis=0, dtype=np.float64) for _, block in blocks(features)) / n)
    value = total_loss(parts, np.zeros(k), NUMPY)
    objective = value + 0.5 * penalty * norm**2
    shift = bias_shift(parts, keep, bias_tolerance(penalty, norm, float(mean)), NUMPY)
    gradient = np.zeros((d, k))
    for rows, block in blocks(features):
        part = loss.part(rows)
        gradient += block.T.astype(np.float64) @ part.residual(part.probabilities(logits[rows] + shift))
    slope = float(np.linalg.norm(gradient + penalty * weights))
    excess = (value - total_loss(parts, shift, NUMPY)) / max(objective, 1e-300)
    converged = slope <= tolerance(penalty) * penalty * norm and excess <= tolerance(penalty) ** 2
    return objective, excess + relative_gap(slope, penalty, objective), converged
