"""Certificate of convergence of a logistic regression: bounds of the distance to the optimum.

With the optimal bias, F is lambda-strongly convex in the weights W, so that |grad_W F|^2 / (2 lambda) bounds F - F*.
"""

import numpy as np
from scipy import linalg

from ssltransfer.array_backend import NUMPY, Arrays
from ssltransfer.protocols.linear.design_matrix import Rows, blocks
from ssltransfer.protocols.linear.losses import Sigmoid, Softmax, make_loss

MAX_NEWTON_STEPS = 200


def tolerance(penalty: float) -> float:
    """Return the certificate's tolerance: a relative gap of about 1e-6, or 1e-4 for a penalty below 1e-2."""
    return 1e-3 if penalty >= 1e-2 else 1e-2


def bias_tolerance(penalty: float, weights: float, mean: float) -> float:
    """Gradient of the bias that does not show in the certificate; of weights and mean feature, the norms."""
    return 1e-2 * tolerance(penalty) * penalty * weights / (1 + mean)


def bias_shift(loss: Softmax | Sigmoid, logits: np.ndarray, allowed: float, arrays: Arrays) -> np.ndarray:
    """Return what to add to the bias (k,) to minimise the loss over it, by Newton's method.

    Only with the optimal bias does the gradient of the weights bound the distance to the optimum.
    """
    value, shift, shifted = loss.loss(logits), np.zeros(logits.shape[1]), logits
    for _ in range(MAX_NEWTON_STEPS):
        probabilities = loss.probabilities(shifted)
        gradient = arrays.numpy(loss.residual(probabilities).sum(axis=0))
        if np.linalg.norm(gradient) <= allowed:
            break
        step = -_solve(arrays.numpy(loss.bias_hessian(probabilities)), gradient)
        while (new_value := loss.loss(logits + arrays.place(shift + step))) > value:
            step /= 2
            if np.abs(step).max() < 1e-12:
                break
        if new_value >= value:  # rounding level
            break
        shift, value = shift + step, new_value
        shifted = logits + arrays.place(shift)
    return shift


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
    logits = np.concatenate([rows.astype(np.float64) @ weights + bias for _, rows in blocks(features)])
    loss, norm = make_loss(labels, kept, NUMPY), float(np.linalg.norm(weights))
    mean = np.linalg.norm(sum(rows.sum(axis=0, dtype=np.float64) for _, rows in blocks(features)) / len(features))
    objective = loss.loss(logits) + 0.5 * penalty * norm**2
    shifted = logits + bias_shift(loss, logits, bias_tolerance(penalty, norm, float(mean)), NUMPY)
    residual = loss.residual(loss.probabilities(shifted))
    gradient = sum(block.T.astype(np.float64) @ residual[rows] for rows, block in blocks(features)) + penalty * weights
    slope = float(np.linalg.norm(gradient))
    excess = (loss.loss(logits) - loss.loss(shifted)) / max(objective, 1e-300)
    converged = slope <= tolerance(penalty) * penalty * norm and excess <= tolerance(penalty) ** 2
    return objective, excess + relative_gap(slope, penalty, objective), converged
