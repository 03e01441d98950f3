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
ROWS_AT_ONCE = 4096


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
    """Softmax cross-entropy of logits (n, k) against classes (n,)."""

    def __init__(self, labels: np.ndarray, classes: np.ndarray) -> None:
        self.targets = (labels[:, None] == classes).astype(np.float64)

    def first_bias(self) -> np.ndarray:
        return np.log(_inside(self.targets.mean(axis=0)))

    def loss(self, logits: np.ndarray) -> float:
        return float(np.sum(logsumexp(logits, axis=1) - np.sum(logits * self.targets, axis=1)))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        return softmax(logits, axis=1)

    def residual(self, probabilities: np.ndarray) -> np.ndarray:
        return probabilities - self.targets

    def curvature(self, probabilities: np.ndarray) -> np.ndarray:
        return probabilities * (1 - probabilities)

    def curvature_times(self, probabilities: np.ndarray, direction: np.ndarray) -> np.ndarray:
        # p * (u - p.u), with u measured from the likeliest class: where that class is nearly certain, the difference
        # of two numbers close to u would leave nothing but rounding errors.
        likeliest = probabilities.argmax(axis=1)[:, None]
        direction = direction - np.take_along_axis(direction, likeliest, axis=1)
        mean = np.einsum("nk,nk->n", probabilities, direction)[:, None]
        return probabilities * (direction - mean)

    def bias_hessian(self, probabilities: np.ndarray) -> np.ndarray:
        hessian = np.diag(probabilities.sum(axis=0)) - probabilities.T @ probabilities
        # Any curvature along the common shift makes the matrix regular.
        return hessian + np.trace(hessian) / len(hessian) ** 2

    @staticmethod
    def canonical(bias: np.ndarray) -> np.ndarray:
        return bias - bias.mean()  # a shift common to all classes changes nothing


class _Sigmoid:
    """Independent sigmoid cross-entropies of logits (n, k) against labels (n, k); those below 0 do not count."""

    def __init__(self, labels: np.ndarray) -> None:
        self.targets, self.counted = (labels > 0).astype(np.float64), (labels >= 0).astype(np.float32)

    def first_bias(self) -> np.ndarray:
        share = _inside(self.targets.sum(axis=0) / self.counted.sum(axis=0, dtype=np.float64))
        return np.log(share) - np.log1p(-share)

    def loss(self, logits: np.ndarray) -> float:
        return -float(np.sum(self.counted * log_expit(np.where(self.targets > 0.5, logits, -logits))))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        return expit(logits)

    def residual(self, probabilities: np.ndarray) -> np.ndarray:
        return self.counted * (probabilities - self.targets)

    def curvature(self, probabilities: np.ndarray) -> np.ndarray:
        return self.counted * probabilities * (1 - probabilities)

    def curvature_times(self, probabilities: np.ndarray, direction: np.ndarray) -> np.ndarray:
        return self.curvature(probabilities) * direction

    def bias_hessian(self, probabilities: np.ndarray) -> np.ndarray:
        return np.diag(np.sum(self.curvature(probabilities), axis=0))

    @staticmethod
    def canonical(bias: np.ndarray) -> np.ndarray:
        return bias


def _inside(share: np.ndarray) -> np.ndarray:
    return np.clip(share, 1e-12, 1 - 1e-12)


def _decided(labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray, _Softmax | _Sigmoid]:
    """Classes that the training data decides, the bias of the others in an array of all, and the loss."""
    if labels.ndim == 1:
        if labels.min() < 0 or labels.max() >= classes:
            raise InputError(f"linear: labels must be in 0..{classes - 1}, found {labels.min()}..{labels.max()}")
        decided = np.unique(labels)
        return decided, np.full(classes, -np.inf), _Softmax(labels, decided)
    present, absent = (labels > 0).any(axis=0), (labels == 0).any(axis=0)
    decided = np.flatnonzero(present & absent)
    return decided, np.where(present, np.inf, -np.inf), _Sigmoid(labels[:, decided])


@dataclass(frozen=True)
class _Point:
    """Parameters (r + 1, k), the bias last, and the logits (n, k) that they give: a product worth keeping."""

    params: np.ndarray
    logits: np.ndarray

    def moved(self, direction: "_Point", length: float) -> "_Point":
        return _Point(self.params + length * direction.params, self.logits + length * direction.logits)


class _Problem:
    """The regression in an orthogonal basis of the centred features, the bias as a last, unpenalised row."""

    def __init__(self, features: np.ndarray, link: _Softmax | _Sigmoid) -> None:
        self.link = link
        self.mean = features.mean(axis=0, dtype=np.float64)
        centred = features.astype(np.float64) - self.mean
        self.basis = _orthogonal_basis(centred)
        self.design = np.column_stack([centred @ self.basis, np.ones(len(features))])
        # Newton directions need a few digits only; the gradient and the objective, which certify, get all of them.
        self.design32 = self.design.astype(np.float32)

    def point(self, params: np.ndarray) -> _Point:
        return _Point(params, self.design @ params)

    def objective(self, point: _Point, penalty: float) -> float:
        return self.link.loss(point.logits) + 0.5 * penalty * float(np.sum(point.params[:-1] ** 2))

    def gradient(self, params: np.ndarray, probabilities: np.ndarray, penalty: float) -> np.ndarray:
        gradient = self.design.T @ self.link.residual(probabilities)
        gradient[:-1] += penalty * params[:-1]
        return gradient

    def hessian_times(self, probabilities: np.ndarray, direction: np.ndarray, penalty: float) -> np.ndarray:
        design = self.design32 if direction.dtype == np.float32 else self.design
        product = design.T @ self.link.curvature_times(probabilities, design @ direction)
        product[:-1] += direction.dtype.type(penalty) * direction[:-1]
        return product

    def hessian_diagonal(self, probabilities: np.ndarray, penalty: float) -> np.ndarray:
        curvature = self.link.curvature(probabilities)
        blocks = range(0, len(curvature), ROWS_AT_ONCE)
        diagonal = sum((self.design32[i : i + ROWS_AT_ONCE] ** 2).T @ curvature[i : i + ROWS_AT_ONCE] for i in blocks)
        diagonal[:-1] += penalty
        return np.maximum(diagonal, 1e-12 * diagonal.max())

    def newton_direction(
        self, gradient: np.ndarray, probabilities: np.ndarray, penalty: float, forcing: float
    ) -> np.ndarray:
        """Preconditioned conjugate gradients on H d = -g, until the residual is `forcing` times the start's."""
        scale = max(float(np.abs(gradient).max()), np.finfo(np.float64).tiny)
        probabilities = probabilities.astype(np.float32)
        diagonal = self.hessian_diagonal(probabilities, np.float32(penalty))
        residual = (-gradient / scale).astype(np.float32)
        step = np.zeros_like(residual)
        scaled = residual / diagonal
        direction = scaled
        energy = start = float(np.sum(residual * scaled))
        for _ in range(MAX_CG_STEPS):
            product = self.hessian_times(probabilities, direction, penalty)
            curvature = float(np.sum(direction * product))
            if curvature <= 0:  # nothing left to gain: the direction is zero, or lost in rounding
                break
            length = np.float32(energy / curvature)
            step += length * direction
            residual -= length * product
            scaled = residual / diagonal
            previous, energy = energy, float(np.sum(residual * scaled))
            if energy <= forcing**2 * start:
                break
            direction = scaled + np.float32(energy / previous) * direction
        return step * scale

    def optimise_bias(self, point: _Point, penalty: float) -> _Point:
        """Minimise over the bias alone, by Newton's method.

        Only with the optimal bias does the gradient of the weights bound the distance to the optimum. No matrix product
        with the features is needed, so this costs little.
        """
        norm = np.linalg.norm(point.params[:-1])
        allowed = 1e-2 * tolerance(penalty) * penalty * norm / (1 + np.linalg.norm(self.mean))
        loss = self.link.loss(point.logits)
        shift = np.zeros(point.params.shape[1])
        for _ in range(MAX_NEWTON_STEPS):
            probabilities = self.link.probabilities(point.logits + shift)
            gradient = np.sum(self.link.residual(probabilities), axis=0)
            if np.linalg.norm(gradient) <= allowed:
                break
            step = -linalg.lstsq(self.link.bias_hessian(probabilities), gradient)[0]
            while (new_loss := self.link.loss(point.logits + (shift + step))) > loss:
                step /= 2
                if np.abs(step).max() < 1e-12:
                    break
            if new_loss >= loss:  # rounding level
                break
            shift, loss = shift + step, new_loss
        return _Point(np.vstack([point.params[:-1], point.params[-1] + shift]), point.logits + shift)

    def minimise(self, start: np.ndarray, penalty: float) -> tuple[_Point, float, float, bool, int]:
        """Minimise from parameters `start`; returns (point, objective, gap bound, converged, Newton steps)."""
        point = self.point(start)
        for count in range(MAX_NEWTON_STEPS + 1):
            point = self.optimise_bias(point, penalty)
            value = self.objective(point, penalty)
            probabilities = self.link.probabilities(point.logits)
            gradient = self.gradient(point.params, probabilities, penalty)
            slope = float(np.linalg.norm(gradient[:-1]))
            scale = penalty * float(np.linalg.norm(point.params[:-1]))
            converged = bool(slope <= tolerance(penalty) * scale)
            if converged or count == MAX_NEWTON_STEPS:
                break
            forcing = float(np.clip(0.5 * tolerance(penalty) * scale / slope, 0.02, 0.25))
            step = self.point(self.newton_direction(gradient, probabilities, penalty, forcing))
            new_point = self.line_search(point, step, value, float(np.sum(gradient * step.params)), penalty)
            if new_point is None:  # rounding level: no step improves the objective any more
                break
            point = new_point
        return point, value, slope**2 / (2 * penalty) / max(value, 1e-300), converged, count

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
        weights = self.basis @ params[:-1]
        bias = params[-1] - self.mean @ weights
        return weights, self.link.canonical(bias)


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
        (n,) of int in 0..classes-1, or (n, classes) of bool for independent binary problems; of int8, 1, 0 or -1,
        if some pairs of a sample and a class (-1) do not count.
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
    decided, undecided_bias, link = _decided(labels, classes)
    problem = _Problem(features, link)
    params = np.zeros((problem.design.shape[1], len(decided)))
    params[-1] = link.first_bias()
    point, previous = problem.point(params), None
    for penalty in np.sort(np.asarray(lambdas, dtype=np.float64))[::-1]:
        start = problem.better_start(point, previous, penalty)
        previous = point
        point, objective, gap, converged, steps = problem.minimise(start, penalty)
        weights = np.zeros((features.shape[1], classes))
        bias = undecided_bias.copy()
        weights[:, decided], bias[decided] = problem.original_parameters(point.params)
        yield Fit(float(penalty), weights, bias, objective, gap, converged, steps)


def official_path(features: np.ndarray, labels: np.ndarray, lambdas: np.ndarray, classes: int) -> Iterator[Fit]:
    """Fit as the paper's software did, for comparison: scikit-learn's L-BFGS, at most 100 cold iterations a penalty.

    Parameters and results are those of `fit_path`; many points of weak penalties are not converged. Binary problems
    are two-class softmaxes in that software, which equal a sigmoid with half the penalty.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    for penalty in np.sort(np.asarray(lambdas, dtype=np.float64))[::-1]:
        weights, bias = np.zeros((features.shape[1], classes)), np.full(classes, -np.inf)
        decided, _, _ = _decided(labels, classes)
        multi = labels.ndim == 1
        for columns in [decided] if multi else decided[:, None]:
            rows = slice(None) if multi else labels[:, columns[0]] >= 0
            target = labels if multi else labels[rows, columns[0]] > 0
            model = LogisticRegression(C=(1 if len(columns) > 2 else 2) / penalty, tol=1e-4, max_iter=100)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the certificate below says it in numbers
                model.fit(features[rows], target)
            coefficients, intercept = model.coef_, model.intercept_
            if len(columns) == 2:  # scikit-learn keeps the difference of the two scores only
                coefficients, intercept = (np.concatenate([-v, v]) / 2 for v in (coefficients, intercept))
            weights[:, columns], bias[columns] = coefficients.T, intercept
        yield Fit(
            float(penalty), weights, bias, *certify(features, labels, penalty, weights, bias), int(model.n_iter_[0])
        )


def certify(
    features: np.ndarray, labels: np.ndarray, penalty: float, weights: np.ndarray, bias: np.ndarray
) -> tuple[float, float, bool]:
    """Objective, relative gap bound and convergence of any solution, computed from the features themselves.

    Parameters
    ----------
    features, labels
        As for `fit_path`.
    penalty : float
    weights, bias : ndarray
        (d, k) and (k,); columns with an infinite bias are left out.
    """
    kept = np.isfinite(bias)
    logits = features.astype(np.float64) @ weights[:, kept] + bias[kept]
    link = _Softmax(labels, np.flatnonzero(kept)) if labels.ndim == 1 else _Sigmoid(labels[:, kept])
    objective = link.loss(logits) + 0.5 * penalty * float(np.sum(weights**2))
    gradient = features.T.astype(np.float64) @ link.residual(link.probabilities(logits)) + penalty * weights[:, kept]
    slope, scale = float(np.linalg.norm(gradient)), penalty * float(np.linalg.norm(weights))
    return objective, slope**2 / (2 * penalty) / max(objective, 1e-300), bool(slope <= tolerance(penalty) * scale)


@dataclass(frozen=True)
class LinearResult:
    """Outcome of `evaluate_linear`.

    Attributes
    ----------
    penalty : float
        The chosen one.
    test, validation : float
        Metric of the final fit on the test part, and the one that chose the penalty.
    curve : list of dict
        Validation metric and certificate of every penalty, from strong to weak.
    final : Fit
    test_scores : ndarray of float, shape (test, k)
        Decision values of the final fit.
    validation_scores : ndarray of float, shape (validation, k)
        Decision values of the chosen fit, which has not seen the validation part.
    """

    penalty: float
    test: float
    validation: float
    curve: list[dict]
    final: Fit
    test_scores: np.ndarray
    validation_scores: np.ndarray


SOLVERS = {"converged": fit_path, "official": official_path}
"""Values of `solver` in a settings block."""


def evaluate_linear(
    features: np.ndarray,
    labels: np.ndarray,
    split: Split,
    classes: int,
    metric: str,
    lambdas: np.ndarray,
    solver: str = "converged",
) -> LinearResult:
    """Choose the penalty on the validation part, refit on training and validation, measure on the test part.

    The penalty with the best validation metric wins; on ties the smallest, as in a scan upwards with a strict ">".

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
        All rows of the data set.
    labels : ndarray
        As for `fit_path`.
    split : Split
    classes : int
    metric : str
        A name of `metrics.METRICS`.
    lambdas : ndarray
        Penalties; see `lambda_grid`.
    solver : str
        A name of `SOLVERS`.
    """
    path = SOLVERS[solver]
    train, val, trainval, test = (np.asarray(features[r]) for r in (split.train, split.val, split.trainval, split.test))
    curve, chosen, chosen_scores = [], None, None
    for fit in path(train, labels[split.train], lambdas, classes):
        scores = fit.scores(val)
        point = {
            "lambda": fit.penalty,
            "validation": metrics.evaluate(metric, labels[split.val], scores),
            "objective": fit.objective,
            "gap": fit.gap,
            "converged": fit.converged,
        }
        curve.append(point)
        if chosen is None or point["validation"] >= chosen["validation"]:  # the path descends
            chosen, chosen_scores = point, scores
    final = next(path(trainval, labels[split.trainval], np.array([chosen["lambda"]]), classes))
    test_scores = final.scores(test)
    value = metrics.evaluate(metric, labels[split.test], test_scores)
    return LinearResult(chosen["lambda"], value, chosen["validation"], curve, final, test_scores, chosen_scores)
