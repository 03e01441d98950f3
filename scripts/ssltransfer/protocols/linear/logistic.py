"""Certified logistic regression along a path of penalties.

The objective is a *sum* over samples: F(W, b) = sum_i loss(W x_i + b, y_i) + (lambda / 2) |W|^2, bias not
penalised; loss is softmax cross-entropy, or, for multi-label data, independent sigmoid cross-entropies.

It is minimised by a truncated Newton method (Hessian-vector products, conjugate gradients) in an orthogonal basis
of the centred features, where the diagonal of the Hessian is a good preconditioner, along a path of penalties from
strong to weak, each fit starting from the one before. Convergence is certified, not assumed: F is
lambda-strongly convex in W once the bias is optimal, so |grad_W F|^2 / (2 lambda) bounds F - F*.

Newton directions need a few digits only and are found in float32; the gradient and the objective, which certify, are
float64. The same code runs on numpy's arrays and on torch's (`ssltransfer.array_backend`), in memory or streamed
(`design_matrix`); all of them meet the certificate, and so agree: objectives within its gap, and weights within
2 * `tolerance` of their norm.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ssltransfer.array_backend import NUMPY, Arrays
from ssltransfer.errors import InputError
from ssltransfer.protocols.linear.certificate import (
    MAX_NEWTON_STEPS,
    bias_shift,
    bias_tolerance,
    relative_gap,
    tolerance,
)
from ssltransfer.protocols.linear.design_matrix import Design, Rows, blocks
from ssltransfer.protocols.linear.losses import Sigmoid, Softmax, decided_classes, make_loss

MAX_CG_STEPS = 400


@dataclass(frozen=True)
class Fit:
    """One point of the path.

    Attributes
    ----------
    penalty : float
        lambda.
    weights : ndarray, shape (d, k)
    bias : ndarray, shape (k,)
        Scores of a class that the training data does not decide are constant (bias -inf if it has no samples).
    objective : float
        F at the solution.
    gap : float
        Upper bound of (F - F*) / F.
    converged : bool
        Whether the certificate |grad_W F| <= tolerance * lambda * |W| was reached.
    newton_steps : int
    """

    penalty: float
    weights: np.ndarray
    bias: np.ndarray
    objective: float
    gap: float
    converged: bool
    newton_steps: int

    def scores(self, features: np.ndarray | Rows) -> np.ndarray:
        """Decision values (n, k) of features (n, d)."""
        return np.concatenate([rows @ self.weights + self.bias for _, rows in blocks(features)])


@dataclass(frozen=True)
class _Point:
    """Parameters (r + 1, k), the bias last, and the logits (n, k) that they give: a product worth keeping."""

    params: np.ndarray
    logits: np.ndarray

    def moved(self, direction: "_Point", length: float) -> "_Point":
        return _Point(self.params + length * direction.params, self.logits + length * direction.logits)


class _Problem:
    """The regression on a design matrix, the bias as the last, unpenalised row of the parameters."""

    def __init__(self, design: Design, loss: Softmax | Sigmoid, arrays: Arrays) -> None:
        self.design, self.loss, self.arrays, self.xp = design, loss, arrays, arrays.xp

    def norm(self, array: np.ndarray) -> float:
        return float(self.xp.linalg.norm(array))

    def dot(self, one: np.ndarray, other: np.ndarray) -> float:
        return float(self.xp.sum(one * other))

    def first_params(self) -> np.ndarray:
        bias = self.loss.first_bias
        return self.arrays.place(np.concatenate([np.zeros((self.design.columns - 1, len(bias))), bias[None]]))

    def point(self, params: np.ndarray) -> _Point:
        return _Point(params, self.design.times(params))

    def objective(self, point: _Point, penalty: float) -> float:
        return self.loss.loss(point.logits) + 0.5 * penalty * self.dot(point.params[:-1], point.params[:-1])

    def gradient(self, params: np.ndarray, probabilities: np.ndarray, penalty: float) -> np.ndarray:
        gradient = self.design.transposed_times(self.loss.residual(probabilities))
        gradient[:-1] += penalty * params[:-1]
        return gradient

    def hessian_times(
        self, weighing: np.ndarray, direction: np.ndarray, penalty: float, precision: str = "float32"
    ) -> np.ndarray:
        product = self.design.weighted_gram_times(
            direction, lambda rows, products: self.loss.weigh(weighing[rows], products), precision
        )
        product[:-1] += penalty * direction[:-1]
        return product

    def hessian_diagonal(self, probabilities: np.ndarray, penalty: float) -> np.ndarray:
        """Diagonal (r + 1, k) in float32, kept away from zero."""
        curvature = self.arrays.cast(self.loss.curvature(probabilities), "float32")
        diagonal = self.design.squared_transposed_times(curvature)
        diagonal[:-1] += penalty
        return self.xp.clip(diagonal, 1e-12 * float(diagonal.max()), None)

    def newton_direction(
        self, gradient: np.ndarray, probabilities: np.ndarray, penalty: float, forcing: float
    ) -> np.ndarray:
        """Preconditioned conjugate gradients on H d = -g, until the residual is `forcing` times the start's."""
        scale = max(float(self.xp.abs(gradient).max()), np.finfo(np.float64).tiny)
        weighing = self.arrays.cast(self.loss.weighing(probabilities), "float32")
        diagonal = self.hessian_diagonal(probabilities, penalty)
        residual = self.arrays.cast(-gradient / scale, "float32")
        step = self.xp.zeros_like(residual)
        scaled = residual / diagonal
        direction = scaled
        energy = start = self.dot(residual, scaled)
        for _ in range(MAX_CG_STEPS):
            product = self.hessian_times(weighing, direction, penalty)
            curvature = self.dot(direction, product)
            if curvature <= 0:  # nothing left to gain: the direction is zero, or lost in rounding
                break
            length = energy / curvature
            step += length * direction
            residual -= length * product
            scaled = residual / diagonal
            previous, energy = energy, self.dot(residual, scaled)
            if energy <= forcing**2 * start:
                break
            direction = scaled + (energy / previous) * direction
        return self.arrays.cast(step, "float64") * scale

    def optimise_bias(self, point: _Point, penalty: float) -> _Point:
        """Minimise over the bias alone; no matrix product with the features is needed, so this costs little."""
        allowed = bias_tolerance(penalty, self.norm(point.params[:-1]), self.norm(self.design.mean))
        shift = self.arrays.place(bias_shift(self.loss, point.logits, allowed, self.arrays))
        return _Point(self.xp.concatenate([point.params[:-1], point.params[-1:] + shift]), point.logits + shift)

    def minimise(self, start: np.ndarray, penalty: float) -> tuple[_Point, float, float, bool, int]:
        """Minimise from parameters `start`; returns (point, objective, gap bound, converged, Newton steps)."""
        point = self.point(start)
        for count in range(MAX_NEWTON_STEPS + 1):
            point = self.optimise_bias(point, penalty)
            value = self.objective(point, penalty)
            probabilities = self.loss.probabilities(point.logits)
            gradient = self.gradient(point.params, probabilities, penalty)
            slope, scale = self.norm(gradient[:-1]), penalty * self.norm(point.params[:-1])
            converged = slope <= tolerance(penalty) * scale
            if converged or count == MAX_NEWTON_STEPS:
                break
            forcing = float(np.clip(0.5 * tolerance(penalty) * scale / slope, 0.02, 0.25))
            step = self.point(self.newton_direction(gradient, probabilities, penalty, forcing))
            new_point = self.line_search(point, step, value, self.dot(gradient, step.params), penalty)
            if new_point is None:  # rounding level: no step improves the objective any more
                break
            point = new_point
        return point, value, relative_gap(slope, penalty, value), converged, count

    def line_search(self, point: _Point, step: _Point, value: float, slope: float, penalty: float) -> _Point | None:
        length = 1.0
        while length > 1e-6:
            candidate = point.moved(step, length)
            if self.objective(candidate, penalty) <= value + 1e-4 * length * slope:
                return candidate
            length *= 0.5
        return None

    def better_start(self, point: _Point, previous: _Point | None, penalty: float) -> np.ndarray:
        """Return the parameters of `point`, or their continuation along the path if its objective is lower."""
        if previous is None:
            return point.params
        continued = _Point(2 * point.params - previous.params, 2 * point.logits - previous.logits)
        return min(point, continued, key=lambda candidate: self.objective(candidate, penalty)).params

    def original_parameters(self, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (d, k) and bias (k,) for the features as they were, as numpy arrays."""
        weights = self.design.basis @ params[:-1]
        bias = params[-1] - self.design.mean @ weights
        return self.arrays.numpy(weights), self.loss.canonical(self.arrays.numpy(bias))


def fit_path(
    features: np.ndarray | Rows, labels: np.ndarray, lambdas: np.ndarray, classes: int, arrays: Arrays = NUMPY
) -> Iterator[Fit]:
    """Fit logistic regressions for all penalties, from the strongest to the weakest.

    Parameters
    ----------
    features : ndarray or Rows, shape (n, d)
    labels : ndarray
        (n,) of int in 0..classes-1, or (n, classes) of bool for independent binary problems; of int8, 1, 0 or -1,
        if some pairs of a sample and a class (-1) do not count.
    lambdas : ndarray
        Penalties on the summed loss, > 0, in any order.
    classes : int
        Number of classes; those without a training sample get a score of -inf.
    arrays : Arrays
        Where to compute.

    Yields
    ------
    Fit
        In descending order of the penalty.

    Raises
    ------
    InputError
        If features are not finite, penalties not positive and finite, or labels outside the range.
    """
    penalties = descending(lambdas)
    decided = decided_classes(labels, classes)
    design = Design(features, arrays)
    problem = _Problem(design, make_loss(labels, decided, arrays), arrays)
    point, previous = problem.point(problem.first_params()), None
    for penalty in penalties:
        start = problem.better_start(point, previous, penalty)
        previous = point
        point, objective, gap, converged, steps = problem.minimise(start, penalty)
        weights, bias = np.zeros((features.shape[1], classes)), _constant_bias(labels, classes)
        weights[:, decided], bias[decided] = problem.original_parameters(point.params)
        yield Fit(penalty, weights, bias, objective, gap, converged, steps)


def descending(lambdas: np.ndarray) -> list[float]:
    """Sort penalties from strong to weak; InputError if one is not a positive, finite number."""
    penalties = np.sort(np.asarray(lambdas, dtype=np.float64))[::-1].tolist()
    if wrong := [penalty for penalty in penalties if not 0 < penalty < np.inf]:
        raise InputError(f"linear: penalties must be positive and finite, found {wrong[0]}")
    return penalties


def _constant_bias(labels: np.ndarray, classes: int) -> np.ndarray:
    """Bias (classes,) of classes that are not decided: inf if they are always shown, else -inf."""
    return np.full(classes, -np.inf) if labels.ndim == 1 else np.where((labels > 0).any(axis=0), np.inf, -np.inf)
