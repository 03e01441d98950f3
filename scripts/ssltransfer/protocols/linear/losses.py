"""Losses of logistic regression with their derivatives: softmax and sigmoid cross-entropy."""

from copy import copy

import numpy as np

from ssltransfer.array_backend import Arrays
from ssltransfer.errors import InputError


class Softmax:
    """Softmax cross-entropy of logits (n, k) against labels (n,), one of `classes` (ascending) each.

    The labels stay numbers: as targets (n, k) of zeros and ones they would take as much memory as the logits.
    """

    def __init__(self, labels: np.ndarray, classes: np.ndarray, arrays: Arrays) -> None:
        columns = np.searchsorted(classes, labels)
        if not np.array_equal(classes[np.minimum(columns, len(classes) - 1)], labels):
            raise ValueError("a label is none of the classes")
        counts = np.bincount(columns, minlength=len(classes))
        self.first_bias = np.log(_inside(counts / len(labels)))
        self.xp, self.columns = arrays.xp, arrays.place(columns, "int64")
        self.samples = arrays.place(np.arange(len(labels)), "int64")

    def part(self, rows: slice) -> "Softmax":
        """Return the loss of some samples."""
        part = copy(self)
        part.columns = self.columns[rows]
        part.samples = self.samples[: len(part.columns)]
        return part

    def loss(self, logits: np.ndarray) -> float:
        """Sum of the losses of all samples."""
        shifted = logits - self.xp.amax(logits, axis=1, keepdims=True)
        true = shifted[self.samples, self.columns]
        return float(self.xp.sum(self.xp.log(self.xp.sum(self.xp.exp(shifted), axis=1)) - true))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (n, k) of the classes."""
        exponentials = self.xp.exp(logits - self.xp.amax(logits, axis=1, keepdims=True))
        return exponentials / self.xp.sum(exponentials, axis=1, keepdims=True)

    def residual(self, probabilities: np.ndarray) -> np.ndarray:
        """Gradient (n, k) of the loss by the logits."""
        residual = probabilities + 0  # a copy, for numpy's arrays and torch's
        residual[self.samples, self.columns] -= 1
        return residual

    def curvature(self, probabilities: np.ndarray) -> np.ndarray:
        """Diagonal (n, k) of each sample's Hessian."""
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
        """Hessian (k, k) of the loss by the bias."""
        hessian = self.xp.diag(probabilities.sum(axis=0)) - probabilities.T @ probabilities
        # Any curvature along the common shift makes the matrix regular.
        return hessian + self.xp.trace(hessian) / len(hessian) ** 2

    @staticmethod
    def canonical(bias: np.ndarray) -> np.ndarray:
        """The one bias (k,) of those that give the same probabilities that is reported."""
        return bias - bias.mean()  # a shift common to all classes changes nothing


class Sigmoid:
    """Independent sigmoid cross-entropies of logits (n, k) against labels (n, k); those below 0 do not count."""

    def __init__(self, labels: np.ndarray, arrays: Arrays) -> None:
        share = _inside((labels > 0).sum(axis=0) / (labels >= 0).sum(axis=0))
        self.first_bias = np.log(share) - np.log1p(-share)
        self.xp, self.labels = arrays.xp, arrays.place(labels, "int8")

    def part(self, rows: slice) -> "Sigmoid":
        """Return the loss of some samples."""
        part = copy(self)
        part.labels = self.labels[rows]
        return part

    def loss(self, logits: np.ndarray) -> float:
        """Sum of the losses of all samples."""
        wrong = self.xp.where(self.labels > 0, -logits, logits)  # the loss is log(1 + exp(wrong))
        small = self.xp.log1p(self.xp.exp(-self.xp.abs(wrong)))
        return float(self.xp.sum((self.labels >= 0) * (self.xp.clip(wrong, 0, None) + small)))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (n, k) of the classes."""
        exponentials = self.xp.exp(-self.xp.abs(logits))
        return self.xp.where(logits > 0, 1.0, exponentials) / (1 + exponentials)

    def residual(self, probabilities: np.ndarray) -> np.ndarray:
        """Gradient (n, k) of the loss by the logits."""
        return (self.labels >= 0) * self.xp.where(self.labels > 0, probabilities - 1, probabilities)

    def curvature(self, probabilities: np.ndarray) -> np.ndarray:
        """Diagonal (n, k) of each sample's Hessian."""
        return (self.labels >= 0) * probabilities * (1 - probabilities)

    weighing = curvature

    @staticmethod
    def weigh(curvature: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Hessian of each sample times its row of `direction`."""
        return curvature * direction

    def bias_hessian(self, probabilities: np.ndarray) -> np.ndarray:
        """Hessian (k, k) of the loss by the bias."""
        return self.xp.diag(self.xp.sum(self.curvature(probabilities), axis=0))

    @staticmethod
    def canonical(bias: np.ndarray) -> np.ndarray:
        """The one bias (k,) of those that give the same probabilities that is reported."""
        return bias


def _inside(share: np.ndarray) -> np.ndarray:
    return np.clip(share, 1e-12, 1 - 1e-12)


def decided_classes(labels: np.ndarray, classes: int) -> np.ndarray:
    """Classes that the training data decides, ascending; InputError if a label is outside 0..classes-1."""
    if labels.ndim == 1:
        if labels.min() < 0 or labels.max() >= classes:
            raise InputError(f"linear: labels must be in 0..{classes - 1}, found {labels.min()}..{labels.max()}")
        return np.unique(labels)
    return np.flatnonzero((labels > 0).any(axis=0) & (labels == 0).any(axis=0))


def make_loss(labels: np.ndarray, decided: np.ndarray, arrays: Arrays) -> Softmax | Sigmoid:
    """Return the loss of labels (n,) or (n, classes) in the decided classes."""
    return Softmax(labels, decided, arrays) if labels.ndim == 1 else Sigmoid(labels[:, decided], arrays)
