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
from scipy import linalg

from ssltransfer.array_backend import NUMPY, Arrays
from ssltransfer.errors import InputError
from ssltransfer.protocols.linear.design_matrix import Design, Rows, blocks

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

    def scores(self, features: np.ndarray | Rows) -> np.ndarray:
        """Decision values (n, k) of features (n, d)."""
        return np.concatenate([rows @ self.weights + self.bias for _, rows in blocks(features)])


def tolerance(penalty: float) -> float:
    """Return the certificate's tolerance: a relative gap of about 1e-6, or 1e-4 for a penalty below 1e-2."""
    return 1e-3 if penalty >= 1e-2 else 1e-2


class _Softmax:
    """Softmax cross-entropy of logits (n, k) against labels (n,), one of `classes` each."""

    def __init__(self, labels: np.ndarray, classes: np.ndarray, arrays: Arrays) -> None:
        targets = (labels[:, None] == classes).astype(np.float64)
        self.first_bias = np.log(_inside(targets.mean(axis=0)))
        self.xp, self.targets = arrays.xp, arrays.place(targets)

    def loss(self, logits: np.ndarray) -> float:
        shifted = logits - self.xp.amax(logits, axis=1, keepdims=True)
        true = self.xp.einsum("nk,nk->n", shifted, self.targets)
        return float(self.xp.sum(self.xp.log(self.xp.sum(self.xp.exp(shifted), axis=1)) - true))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        exponentials = self.xp.exp(logits - self.xp.amax(logits, axis=1, keepdims=True))
        return exponentials / self.xp.sum(exponentials, axis=1, keepdims=True)

    def residual(self, probabilities: np.ndarray) -> np.ndarray:
        return probabilities - self.targets

    def curvature(self, probabilities: np.ndarray) -> np.ndarray:
        """Diagonal of each sample's Hessian."""
        return probabilities * (1 - probabilities)

    def weighing(self, probabilities: np.ndarray) -> np.ndarray:
        """What `weigh` needs of each sample."""
        return probabilities

    def weigh(self, probabilities: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Hessian of each sample times its row of `direction`: p * (u - p.u).

        The mean is taken away twice: where a class is nearly certain, u - p.u is the difference of two numbers that
        are close, and once would leave nothing but rounding errors.
        """
        for _ in range(2):
            direction = direction - self.xp.einsum("nk,nk->n", probabilities, direction)[:, None]
        return probabilities * direction

    def bias_hessian(self, probabilities: np.ndarray) -> np.ndarray:
        hessian = self.xp.diag(probabilities.sum(axis=0)) - probabilities.T @ probabilities
        # Any curvature along the common shift makes the matrix regular.
        return hessian + self.xp.trace(hessian) / len(hessian) ** 2

    @staticmethod
    def canonical(bias: np.ndarray) -> np.ndarray:
        return bias - bias.mean()  # a shift common to all classes changes nothing


class _Sigmoid:
    """Independent sigmoid cross-entropies of logits (n, k) against labels (n, k); those below 0 do not count."""

    def __init__(self, labels: np.ndarray, arrays: Arrays) -> None:
        targets, counted = (labels > 0).astype(np.float64), (labels >= 0).astype(np.float64)
        share = _inside(targets.sum(axis=0) / counted.sum(axis=0))
        self.first_bias = np.log(share) - np.log1p(-share)
        self.xp, self.targets, self.counted = arrays.xp, arrays.place(targets), arrays.place(counted)

    def loss(self, logits: np.ndarray) -> float:
        wrong = self.xp.where(self.targets > 0.5, -logits, logits)  # the loss is log(1 + exp(wrong))
        small = self.xp.log1p(self.xp.exp(-self.xp.abs(wrong)))
        return float(self.xp.sum(self.counted * (self.xp.clip(wrong, 0, None) + small)))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        exponentials = self.xp.exp(-self.xp.abs(logits))
        return self.xp.where(logits > 0, 1.0, exponentials) / (1 + exponentials)

    def residual(self, probabilities: np.ndarray) -> np.ndarray:
        return self.counted * (probabilities - self.targets)

    def curvature(self, probabilities: np.ndarray) -> np.ndarray:
        return self.counted * probabilities * (1 - probabilities)

    weighing = curvature

    @staticmethod
    def weigh(curvature: np.ndarray, direction: np.ndarray) -> np.ndarray:
        return curvature * direction

    def bias_hessian(self, probabilities: np.ndarray) -> np.ndarray:
        return self.xp.diag(self.xp.sum(self.curvature(probabilities), axis=0))

    @staticmethod
    def canonical(bias: np.ndarray) -> np.ndarray:
        return bias


def _inside(share: np.ndarray) -> np.ndarray:
    return np.clip(share, 1e-12, 1 - 1e-12)


def _decided(labels: np.ndarray, classes: int) -> np.ndarray:
    """Classes that the training data decides."""
    if labels.ndim == 1:
        if labels.min() < 0 or labels.max() >= classes:
            raise InputError(f"linear: labels must be in 0..{classes - 1}, found {labels.min()}..{labels.max()}")
        return np.unique(labels)
    return np.flatnonzero((labels > 0).any(axis=0) & (labels == 0).any(axis=0))


def _loss(labels: np.ndarray, decided: np.ndarray, arrays: Arrays) -> _Softmax | _Sigmoid:
    return _Softmax(labels, decided, arrays) if labels.ndim == 1 else _Sigmoid(labels[:, decided], arrays)


@dataclass(frozen=True)
class _Point:
    """Parameters (r + 1, k), the bias last, and the logits (n, k) that they give: a product worth keeping."""

    params: np.ndarray
    logits: np.ndarray

    def moved(self, direction: "_Point", length: float) -> "_Point":
        return _Point(self.params + length * direction.params, self.logits + length * direction.logits)


class _Problem:
    """The regression on a design matrix, the bias as the last, unpenalised row of the parameters."""

    def __init__(self, design: Design, loss: _Softmax | _Sigmoid, arrays: Arrays) -> None:
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
        allowed = _bias_tolerance(penalty, self.norm(point.params[:-1]), self.norm(self.design.mean))
        shift = self.arrays.place(_bias_shift(self.loss, point.logits, allowed, self.arrays))
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
        return point, value, _relative_gap(slope, penalty, value), converged, count

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


def _bias_tolerance(penalty: float, weights: float, mean: float) -> float:
    """Gradient of the bias that does not show in the certificate; of weights and mean feature, the norms."""
    return 1e-2 * tolerance(penalty) * penalty * weights / (1 + mean)


def _bias_shift(loss: _Softmax | _Sigmoid, logits: np.ndarray, allowed: float, arrays: Arrays) -> np.ndarray:
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


def _relative_gap(slope: float, penalty: float, objective: float) -> float:
    return slope**2 / (2 * penalty) / max(objective, 1e-300)


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
    penalties = _descending(lambdas)
    decided = _decided(labels, classes)
    design = Design(features, arrays)
    problem = _Problem(design, _loss(labels, decided, arrays), arrays)
    point, previous = problem.point(problem.first_params()), None
    for penalty in penalties:
        start = problem.better_start(point, previous, penalty)
        previous = point
        point, objective, gap, converged, steps = problem.minimise(start, penalty)
        weights, bias = np.zeros((features.shape[1], classes)), _constant_bias(labels, classes)
        weights[:, decided], bias[decided] = problem.original_parameters(point.params)
        yield Fit(penalty, weights, bias, objective, gap, converged, steps)


def _descending(lambdas: np.ndarray) -> list[float]:
    """Sort penalties from strong to weak; InputError if one is not a positive, finite number."""
    penalties = np.sort(np.asarray(lambdas, dtype=np.float64))[::-1].tolist()
    if wrong := [penalty for penalty in penalties if not 0 < penalty < np.inf]:
        raise InputError(f"linear: penalties must be positive and finite, found {wrong[0]}")
    return penalties


def _constant_bias(labels: np.ndarray, classes: int) -> np.ndarray:
    """Bias (classes,) of classes that are not decided: inf if they are always shown, else -inf."""
    return np.full(classes, -np.inf) if labels.ndim == 1 else np.where((labels > 0).any(axis=0), np.inf, -np.inf)


def official_path(
    features: np.ndarray | Rows, labels: np.ndarray, lambdas: np.ndarray, classes: int, arrays: Arrays = NUMPY
) -> Iterator[Fit]:
    """Fit as the paper's software did, for comparison: scikit-learn's L-BFGS, at most 100 cold iterations a penalty.

    Parameters and results are those of `fit_path`, but `arrays` does nothing; many points of weak penalties are not
    converged. Its version (0.22) computed in float64 and held the gradient of the summed loss against the tolerance,
    where newer ones take that of the mean.

    Binary problems are two-class softmaxes in that software, which equal a sigmoid with half the penalty. The halved
    penalty is what is minimised, so objective and certificate are those of `certify` with it.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    features = features[:].astype(np.float64)
    decided, single_label = _decided(labels, classes), labels.ndim == 1
    for penalty in _descending(lambdas):
        weights, bias = np.zeros((features.shape[1], classes)), np.full(classes, -np.inf)
        for columns in [decided] if single_label else decided[:, None]:
            rows = slice(None) if single_label else labels[:, columns[0]] >= 0
            target = labels if single_label else labels[rows, columns[0]] > 0
            strength = (1 if len(columns) > 2 else 2) / penalty
            model = LogisticRegression(C=strength, tol=1e-4 / len(target), max_iter=100)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the certificate below says it in numbers
                model.fit(features[rows], target)
            coefficients, intercept = model.coef_, model.intercept_
            if len(columns) == 2:  # scikit-learn keeps the difference of the two scores only
                coefficients, intercept = (np.concatenate([-v, v]) / 2 for v in (coefficients, intercept))
            weights[:, columns], bias[columns] = coefficients.T, intercept
        minimised = penalty if single_label else penalty / 2
        yield Fit(penalty, weights, bias, *certify(features, labels, minimised, weights, bias), int(model.n_iter_[0]))


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
    loss, norm = _loss(labels, kept, NUMPY), float(np.linalg.norm(weights))
    mean = np.linalg.norm(sum(rows.sum(axis=0, dtype=np.float64) for _, rows in blocks(features)) / len(features))
    objective = loss.loss(logits) + 0.5 * penalty * norm**2
    shifted = logits + _bias_shift(loss, logits, _bias_tolerance(penalty, norm, float(mean)), NUMPY)
    residual = loss.residual(loss.probabilities(shifted))
    gradient = sum(block.T.astype(np.float64) @ residual[rows] for rows, block in blocks(features)) + penalty * weights
    slope = float(np.linalg.norm(gradient))
    excess = (loss.loss(logits) - loss.loss(shifted)) / max(objective, 1e-300)
    converged = slope <= tolerance(penalty) * penalty * norm and excess <= tolerance(penalty) ** 2
    return objective, excess + _relative_gap(slope, penalty, objective), converged
