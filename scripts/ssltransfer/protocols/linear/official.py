"""Logistic regression as the paper's software fitted it: scikit-learn's L-BFGS, stopped after 100 iterations."""

from collections.abc import Iterator

import numpy as np

from ssltransfer.array_backend import NUMPY, Arrays
from ssltransfer.protocols.linear.certificate import certify
from ssltransfer.protocols.linear.design_matrix import Rows
from ssltransfer.protocols.linear.logistic import Fit, descending
from ssltransfer.protocols.linear.losses import decided_classes


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
    decided, single_label = decided_classes(labels, classes), labels.ndim == 1
    for penalty in descending(lambdas):
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
