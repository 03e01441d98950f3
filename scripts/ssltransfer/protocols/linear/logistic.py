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

from collections.abc import Callable, Iterable, Iterator
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
from ssltransfer.protocols.linear.design_matrix import Blocks, Design, Rows, blocks
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
        scores = np.empty((len(features), len(self.bias)))
        for rows, block in blocks(features):
            scores[rows] = block @ self.weights + self.bias
        return scores


@dataclass(frozen=True)
class _Point:
    """Parameters (r + 1, k), the bias last, and the logits (m, k) of each block: products worth keeping.

    Logits that are None are computed again when they are asked for.
    """

    params: np.ndarray
    logits: list[np.ndarray] | None


class _Problem:
    """The regression on a design matrix, the bias as the last, unpenalised row of the parameters.

    All that has a row for each sample is computed in the blocks of the design. Where several such arrays do not fit,
    two are held: the logits of the current point, and in float32 what the Hessian's products need.
    """

    def __init__(self, design: Design, loss: Softmax | Sigmoid, arrays: Arrays) -> None:
        self.design, self.loss, self.arrays, self.xp = design, loss, arrays, arrays.xp
        self.losses = [loss.part(rows) for rows in design.rows]

    def norm(self, array: np.ndarray) -> float:
        return float(self.xp.linalg.norm(array))

    def dot(self, one: np.ndarray, other: np.ndarray) -> float:
        return float(self.xp.sum(one * other))

    def blocks(self, make: Callable[[], Iterator[np.ndarray]]) -> Blocks:
        return Blocks(make, self.design.keeps_products)

    def first_params(self) -> np.ndarray:
        bias = self.loss.first_bias
        return self.arrays.place(np.concatenate([np.zeros((self.design.columns - 1, len(bias))), bias[None]]))

    def point(self, params: np.ndarray) -> _Point:
        return _Point(params, list(self.design.products(params)))

    def without_large(self, point: _Point) -> _Point:
        """Return the point without its logits if they take much memory."""
        return point if self.design.keeps_products else _Point(point.params, None)

    def logits(self, point: _Point) -> Iterator[np.ndarray]:
        """Logits of each block."""
        return self.design.products(point.params) if point.logits is None else iter(point.logits)

    def objective(self, params: np.ndarray, logits: Iterable[np.ndarray], penalty: float) -> float:
        losses = (loss.loss(block) for loss, block in zip(self.losses, logits, strict=True))
        return sum(losses) + 0.5 * penalty * self.dot(params[:-1], params[:-1])

    def probabilities(self, point: _Point) -> Blocks:
        def probabilities() -> Iterator[np.ndarray]:
            for loss, block in zip(self.losses, self.logits(point), strict=True):
                yield loss.probabilities(block)

        return self.blocks(probabilities)

    def gradient(self, params: np.ndarray, probabilities: Blocks, penalty: float) -> np.ndarray:
        residuals = (loss.residual(block) for loss, block in zip(self.losses, probabilities, strict=True))
        gradient = self.design.transposed_times(residuals)
        gradient[:-1] += penalty * params[:-1]
        return gradient

    def hessian_times(
        self, weighing: list[np.ndarray], direction: np.ndarray, penalty: float, precision: str = "float32"
    ) -> np.ndarray:
        product = self.design.weighted_gram_times(
            direction, lambda number, products: self.loss.weigh(weighing[number], products), precision
        )
        product[:-1] += penalty * direction[:-1]
        return product

    def curvature(self, probabilities: Blocks, penalty: float) -> tuple[list[np.ndarray], np.ndarray]:
        """In float32, what `hessian_times` needs and the Hessian's diagonal (r + 1, k), kept away from zero."""
        weighing = []

        def curvatures() -> Iterator[np.ndarray]:
            for loss, block in zip(self.losses, probabilities, strict=True):
                weighing.append(self.arrays.cast(loss.weighing(block), "float32"))
                yield self.arrays.cast(loss.curvature(block), "float32")

        diagonal = self.design.squared_transposed_times(curvatures())
        diagonal[:-1] += penalty
        return weighing, self.xp.clip(diagonal, 1e-12 * float(diagonal.max()), None)

    def newton_direction(
        self, gradient: np.ndarray, probabilities: Blocks, penalty: float, forcing: float
    ) -> np.ndarray:
        """Preconditioned conjugate gradients on H d = -g, until the residual is `forcing` times the start's."""
        scale = max(float(self.xp.abs(gradient).max()), np.finfo(np.float64).tiny)
        weighing, diagonal = self.curvature(probabilities, penalty)
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
        """Minimise over the bias alone; no matrix product with the features is needed, so this costs little.

        The logits are changed in place.
        """
        allowed = bias_tolerance(penalty, self.norm(point.params[:-1]), self.norm(self.design.mean))
        parts = list(zip(self.losses, self.logits(point), strict=True))
        shift = self.arrays.place(bias_shift(parts, self.design.keeps_products, allowed, self.arrays))
        for _, block in parts:
            block += shift
        return _Point(self.xp.concatenate([point.params[:-1], point.params[-1:] + shift]), point.logits)

    def minimise(self, start: np.ndarray, penalty: float) -> tuple[_Point, float, float, bool, int]:
        """Minimise from parameters `start`; returns (point, objective, gap bound, converged, Newton steps)."""
        point = self.point(start)
        for count in range(MAX_NEWTON_STEPS + 1):
            point = self.optimise_bias(point, penalty)
            value = self.objective(point.params, self.logits(point), penalty)
            probabilities = self.probabilities(point)
            gradient = self.gradient(point.params, probabilities, penalty)
            slope, scale = self.norm(gradient[:-1]), penalty * self.norm(point.params[:-1])
            converged = slope <= tolerance(penalty) * scale
            if converged or count == MAX_NEWTON_STEPS:
                break
            forcing = float(np.clip(0.5 * tolerance(penalty) * scale / slope, 0.02, 0.25))
            step = self.newton_direction(gradient, probabilities, penalty, forcing)
            del probabilities
            new_point = self.line_search(point, step, value, self.dot(gradient, step), penalty)
            if new_point is None:  # rounding level: no step improves the objective any more
                break
            point = new_point
        return point, value, relative_gap(slope, penalty, value), converged, count

    def line_search(self, point: _Point, step: np.ndarray, value: float, slope: float, penalty: float) -> _Point | None:
        """Move along `step` as far as the objective falls enough, the logits in place; None if it nowhere does."""
        length, products = 1.0, self.blocks(lambda: self.design.products(step))
        while length > 1e-6:
            params = point.params + length * step
            moved = (block + length * product for block, product in zip(self.logits(point), products, strict=True))
            if self.objective(params, moved, penalty) <= value + 1e-4 * length * slope:
                for block, product in zip(self.logits(point), products, strict=True):
                    block += length * product
                return _Point(params, point.logits)
            length *= 0.5
        return None

    def better_start(self, point: _Point, previous: _Point | None, penalty: float) -> np.ndarray:
        """Return the parameters of `point`, or their continuation along the path if its objective is lower."""
        if previous is None:
            return point.params
        params = 2 * point.params - previous.params
        logits = (2 * now - then for now, then in zip(self.logits(point), self.logits(previous), strict=True))
        continued = self.objective(params, logits, penalty)
        return params if continued < self.objective(point.params, self.logits(point), penalty) else point.params

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
    design = Design(features, len(decided), arrays)
    problem = _Problem(design, make_loss(labels, decided, arrays), arrays)
    point, previous = _Point(problem.first_params(), None), None
    for penalty in penalties:
        start = problem.better_start(point, previous, penalty)
        previous = point = problem.without_large(point)
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
