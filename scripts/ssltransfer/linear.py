"""Many-shot linear evaluation (paper section 4.1): L2-regularised logistic regression on frozen features.

The objective is a *sum* over samples: F(W, b) = sum_i loss(W x_i + b, y_i) + (lambda / 2) |W|^2, bias not
penalised; loss is softmax cross-entropy, or, for multi-label data, independent sigmoid cross-entropies.

It is minimised by a truncated Newton method (Hessian-vector products, conjugate gradients) in an orthogonal basis
of the centred features, where the diagonal of the Hessian is a good preconditioner, along a path of penalties from
strong to weak, each fit starting from the one before. Convergence is certified, not assumed: F is
lambda-strongly convex in W once the bias is optimal, so |grad_W F|^2 / (2 lambda) bounds F - F*.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.special import expit, log_expit, logsumexp, softmax

from ssltransfer import metrics
from ssltransfer.errors import InputError
from ssltransfer.splits import Split

MAX_NEWTON_STEPS = 200
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

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Decision values (n, k) of features (n, d)."""
        return features @ self.weights + self.bias


def lambda_grid(first: float, last: float, count: int) -> np.ndarray:
    """Log-spaced penalties, ascending; (1e-6, 1e5, 45) is the paper's grid."""
    return np.logspace(np.log10(first), np.log10(last), count)


def tolerance(penalty: float) -> float:
    """Return the certificate's tolerance: a relative gap of about 1e-6, or 1e-4 for a penalty below 1e-2."""
    return 1e-3 if penalty >= 1e-2 else 1e-2


class _Softmax:
    """Softmax cross-entropy of logits (n, k) against one-hot targets."""

    @staticmethod
    def loss(logits: np.ndarray, targets: np.ndarray) -> float:
        return float(np.sum(logsumexp(logits, axis=1) - np.sum(logits * targets, axis=1)))

    @staticmethod
    def probabilities(logits: np.ndarray) -> np.ndarray:
        return softmax(logits, axis=1)

    @staticmethod
    def curvature_times(probabilities: np.ndarray, direction: np.ndarray) -> np.ndarray:
        weighted = probabilities * direction
        return weighted - probabilities * weighted.sum(axis=1, keepdims=True)


class _Sigmoid:
    """Independent sigmoid cross-entropies of logits (n, k) against 0/1 targets."""

    @staticmethod
    def loss(logits: np.ndarray, targets: np.ndarray) -> float:
        return -float(np.sum(log_expit(np.where(targets > 0.5, logits, -logits))))

    @staticmethod
    def probabilities(logits: np.ndarray) -> np.ndarray:
        return expit(logits)

    @staticmethod
    def curvature_times(probabilities: np.ndarray, direction: np.ndarray) -> np.ndarray:
        return probabilities * (1 - probabilities) * direction


class _Problem:
    """The regression in an orthogonal basis of the centred features, the bias as a last, unpenalised row."""

    def __init__(self, features: np.ndarray, targets: np.ndarray, link: type) -> None:
        self.link, self.targets = link, targets
        self.mean = features.mean(axis=0, dtype=np.float64)
        centred = features.astype(np.float64) - self.mean
        self.basis = _orthogonal_basis(centred)
        self.design = np.column_stack([centred @ self.basis, np.ones(len(features))])
        self.squared_design = self.design**2

    def objective(self, params: np.ndarray, penalty: float) -> float:
        loss = self.link.loss(self.design @ params, self.targets)
        return loss + 0.5 * penalty * float(np.sum(params[:-1] ** 2))

    def gradient(self, params: np.ndarray, probabilities: np.ndarray, penalty: float) -> np.ndarray:
        gradient = self.design.T @ (probabilities - self.targets)
        gradient[:-1] += penalty * params[:-1]
        return gradient

    def hessian_times(self, probabilities: np.ndarray, direction: np.ndarray, penalty: float) -> np.ndarray:
        product = self.design.T @ self.link.curvature_times(probabilities, self.design @ direction)
        product[:-1] += penalty * direction[:-1]
        return product

    def hessian_diagonal(self, probabilities: np.ndarray, penalty: float) -> np.ndarray:
        diagonal = self.squared_design.T @ (probabilities * (1 - probabilities))
        diagonal[:-1] += penalty
        return np.maximum(diagonal, 1e-12 * diagonal.max())

    def newton_direction(
        self, gradient: np.ndarray, probabilities: np.ndarray, penalty: float, forcing: float
    ) -> np.ndarray:
        """Preconditioned conjugate gradients on H d = -g, until the residual is `forcing` times the start's."""
        diagonal = self.hessian_diagonal(probabilities, penalty)
        step = np.zeros_like(gradient)
        residual = -gradient
        scaled = residual / diagonal
        direction = scaled
        energy = start = float(np.sum(residual * scaled))
        for _ in range(MAX_CG_STEPS):
            product = self.hessian_times(probabilities, direction, penalty)
            length = energy / float(np.sum(direction * product))
            step = step + length * direction
            residual = residual - length * product
            scaled = residual / diagonal
            previous, energy = energy, float(np.sum(residual * scaled))
            if energy <= forcing**2 * start:
                break
            direction = scaled + (energy / previous) * direction
        return step

    def minimise(self, params: np.ndarray, penalty: float) -> tuple[np.ndarray, float, float, bool, int]:
        """Minimise from `params`; returns (params, objective, gap bound, converged, Newton steps)."""
        value = self.objective(params, penalty)
        for count in range(MAX_NEWTON_STEPS + 1):
            probabilities = self.link.probabilities(self.design @ params)
            gradient = self.gradient(params, probabilities, penalty)
            slope = float(np.linalg.norm(gradient[:-1]))
            scale = penalty * float(np.linalg.norm(params[:-1]))
            # The bias has no penalty that would bound its share of the gap; it is solved far tighter instead.
            bias_slope = float(np.abs(gradient[-1]).max())
            gap = slope**2 / (2 * penalty) / max(value, 1e-300)
            converged = bool(slope <= tolerance(penalty) * scale and bias_slope <= 1e-4 * max(slope, scale))
            if converged or count == MAX_NEWTON_STEPS:
                break
            forcing = 0.1 if slope > 10 * scale else 0.01
            step = self.newton_direction(gradient, probabilities, penalty, forcing)
            params, new_value = self._line_search(params, step, value, float(np.sum(gradient * step)), penalty)
            if new_value >= value:  # rounding level: no step improves the objective any more
                break
            value = new_value
        return params, value, gap, converged, count

    def _line_search(
        self, params: np.ndarray, step: np.ndarray, value: float, slope: float, penalty: float
    ) -> tuple[np.ndarray, float]:
        length = 1.0
        while length > 1e-6:
            candidate = params + length * step
            if (new_value := self.objective(candidate, penalty)) <= value + 1e-4 * length * slope:
                return candidate, new_value
            length *= 0.5
        return params, value

    def original_parameters(self, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights = self.basis @ params[:-1]
        return weights, params[-1] - self.mean @ weights


def _orthogonal_basis(centred: np.ndarray) -> np.ndarray:
    """Orthonormal columns (d, r) that span the rows of `centred` (n, d) and diagonalise its covariance."""
    n, d = centred.shape
    if n < d:
        values, vectors = linalg.eigh(centred @ centred.T)
        keep = values > values[-1] * max(n, d) * np.finfo(float).eps
        basis = centred.T @ (vectors[:, keep] / np.sqrt(values[keep]))
        return linalg.qr(basis, mode="economic")[0] if basis.size else basis
    values, vectors = linalg.eigh(centred.T @ centred)
    return vectors[:, values > values[-1] * max(n, d) * np.finfo(float).eps]


def fit_path(features: np.ndarray, labels: np.ndarray, lambdas: np.ndarray, classes: int) -> Iterator[Fit]:
    """Fit logistic regressions for all penalties, from the strongest to the weakest.

    Parameters
    ----------
    features : ndarray, shape (n, d)
    labels : ndarray
        (n,) of int in 0..classes-1, or (n, classes) of bool for independent binary problems.
    lambdas : ndarray
        Penalties on the summed loss, > 0, in any order.
    classes : int
        Number of classes; those without a training sample get a score of -inf.

    Yields
    ------
    Fit
        In descending order of the penalty.

    Raises
    ------
    InputError
        If features are not finite, penalties not positive, or labels outside the range.
    """
    if not np.isfinite(features).all():
        raise InputError("linear: features hold values that are not finite")
    if np.min(lambdas) <= 0:
        raise InputError(f"linear: penalties must be positive, found {np.min(lambdas)}")
    if labels.ndim == 1:
        if labels.min() < 0 or labels.max() >= classes:
            raise InputError(f"linear: labels must be in 0..{classes - 1}, found {labels.min()}..{labels.max()}")
        decided = np.unique(labels)
        undecided_bias = np.full(classes, -np.inf)
        targets, link = (labels[:, None] == decided).astype(np.float64), _Softmax
    else:
        rate = labels.mean(axis=0)
        decided = np.flatnonzero((rate > 0) & (rate < 1))
        undecided_bias = np.where(rate > 0, np.inf, -np.inf)
        targets, link = labels[:, decided].astype(np.float64), _Sigmoid

    problem = _Problem(features, targets, link)
    params = np.zeros((problem.design.shape[1], len(decided)))
    share = np.clip(targets.mean(axis=0), 1e-12, 1 - 1e-12)
    params[-1] = np.log(share) - (np.log1p(-share) if link is _Sigmoid else 0)
    for penalty in np.sort(np.asarray(lambdas, dtype=np.float64))[::-1]:
        params, objective, gap, converged, steps = problem.minimise(params, penalty)
        weights = np.zeros((features.shape[1], classes))
        bias = undecided_bias.copy()
        weights[:, decided], bias[decided] = problem.original_parameters(params)
        yield Fit(float(penalty), weights, bias, objective, gap, converged, steps)


@dataclass(frozen=True)
class LinearResult:
    """Outcome of `evaluate_linear`: the chosen penalty, its test metric, and the curve that chose it."""

    penalty: float
    test: float
    validation: float
    curve: list[dict]
    final: Fit


def select(curve: list[dict]) -> dict:
    """Return the point with the best validation value; on ties the smallest penalty (strict ">" upwards)."""
    best = None
    for point in sorted(curve, key=lambda point: point["lambda"]):
        if best is None or point["validation"] > best["validation"]:
            best = point
    return best


def evaluate_linear(
    features: np.ndarray, labels: np.ndarray, split: Split, classes: int, metric: str, lambdas: np.ndarray
) -> LinearResult:
    """Choose the penalty on the validation part, refit on training and validation, measure on the test part.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
        All rows of the data set.
    labels : ndarray
        (n,) of int or (n, classes) of bool.
    split : Split
    classes : int
    metric : str
        A name of `metrics.METRICS`.
    lambdas : ndarray
        Penalties; see `lambda_grid`.
    """
    train, val, trainval, test = (np.asarray(features[r]) for r in (split.train, split.val, split.trainval, split.test))
    curve = [
        {
            "lambda": fit.penalty,
            "validation": metrics.evaluate(metric, labels[split.val], fit.scores(val)),
            "objective": fit.objective,
            "gap": fit.gap,
            "converged": fit.converged,
        }
        for fit in fit_path(train, labels[split.train], lambdas, classes)
    ]
    chosen = select(curve)
    final = next(fit_path(trainval, labels[split.trainval], np.array([chosen["lambda"]]), classes))
    test_value = metrics.evaluate(metric, labels[split.test], final.scores(test))
    return LinearResult(chosen["lambda"], test_value, chosen["validation"], curve, final)
