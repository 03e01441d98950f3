"""Design matrix of centred features in an orthogonal basis, in memory or streamed.

The columns of the design matrix are the features, centred, in an orthogonal basis that diagonalises their covariance,
and a last column of ones. A matrix that fits is kept in memory; a larger one is never copied: each product reads the
features again, a block of rows at a time (from a memory map, say), and applies the basis to the small factor.
"""

from collections.abc import Callable, Iterator

import numpy as np

from ssltransfer.array_backend import Arrays
from ssltransfer.errors import InputError

BLOCK = 2**23
"""Elements of a block of rows: 64 MiB in float64."""

RESIDENT_SHARE = 0.25
"""Part of the memory that the design matrix (12 bytes per element) may take; one that would take more is streamed."""


class Rows:
    """A selection of the rows of a matrix, read when they are asked for.

    Parameters
    ----------
    matrix : ndarray, shape (m, d)
        May be a memory map.
    numbers : ndarray of int, shape (n,)
    """

    def __init__(self, matrix: np.ndarray, numbers: np.ndarray) -> None:
        self.matrix, self.numbers = matrix, numbers
        self.shape = (len(numbers), matrix.shape[1])

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, part: slice) -> np.ndarray:
        return np.asarray(self.matrix[self.numbers[part]])


def blocks(features: np.ndarray | Rows) -> Iterator[tuple[slice, np.ndarray]]:
    """Read a matrix in blocks of rows: (which, rows)."""
    n, d = features.shape
    step = max(1, BLOCK // max(d, 1))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        yield rows, features[rows]


class Design:
    """The design matrix (n, r + 1) of features (n, d); r is their rank.

    Products take and return arrays of `arrays`; `precision` is ``float64``, or ``float32`` where a few digits do.

    Attributes
    ----------
    mean : ndarray of float64, shape (d,)
    basis : ndarray of float64, shape (d, r)
    columns : int
        r + 1.
    streamed : bool
    """

    def __init__(self, features: np.ndarray | Rows, arrays: Arrays) -> None:
        self.features, self.arrays = features, arrays
        n, d = features.shape
        self.streamed = 12 * n * d > RESIDENT_SHARE * arrays.memory()
        self.mean = arrays.place(sum(rows.sum(axis=0, dtype=np.float64) for _, rows in blocks(features)) / n)
        if not np.isfinite(arrays.numpy(self.mean)).all():
            raise InputError("linear: features hold values that are not finite")
        self.basis = self._orthogonal_basis()
        self.columns = self.basis.shape[1] + 1
        if self.streamed:
            self._mean = {"float64": self.mean, "float32": arrays.cast(self.mean, "float32")}
            self._basis = {"float64": self.basis, "float32": arrays.cast(self.basis, "float32")}
        else:
            rotated = arrays.empty((n, self.columns - 1))
            for rows, block in blocks(features):
                rotated[rows] = (arrays.place(block) - self.mean) @ self.basis
            self._rotated = {"float64": rotated, "float32": arrays.cast(rotated, "float32")}

    def _orthogonal_basis(self) -> np.ndarray:
        """Orthonormal columns (d, r) that span the centred rows and diagonalise their covariance."""
        xp = self.arrays.xp
        n, d = self.features.shape
        centred = (self.arrays.place(rows) - self.mean for _, rows in blocks(self.features))
        if n >= d:
            values, vectors = xp.linalg.eigh(sum(rows.T @ rows for rows in centred))
            return vectors[:, self._kept(values)]
        centred = xp.concatenate(list(centred))
        values, vectors = xp.linalg.eigh(centred @ centred.T)
        kept = self._kept(values)
        return xp.linalg.qr(centred.T @ (vectors[:, kept] / xp.sqrt(values[kept])))[0]

    def _kept(self, values: np.ndarray) -> np.ndarray:
        return values > values[-1] * max(self.features.shape) * np.finfo(np.float64).eps

    def _blocks(self, precision: str) -> Iterator[tuple[slice, np.ndarray]]:
        """Blocks of the matrix without its last column, still to be multiplied with the basis if it is streamed."""
        if self.streamed:
            for rows, block in blocks(self.features):
                yield rows, self.arrays.place(block, precision) - self._mean[precision]
        else:
            yield slice(None), self._rotated[precision]

    def _before(self, params: np.ndarray, precision: str) -> np.ndarray:
        return self._basis[precision] @ params[:-1] if self.streamed else params[:-1]

    def _after(self, product: np.ndarray, sums: np.ndarray, precision: str) -> np.ndarray:
        product = self._basis[precision].T @ product if self.streamed else product
        return self.arrays.xp.concatenate([product, sums[None]])

    def times(self, params: np.ndarray, precision: str = "float64") -> np.ndarray:
        """Product (n, k) with params (r + 1, k)."""
        inner = self._before(params, precision)
        parts = [block @ inner + params[-1] for _, block in self._blocks(precision)]
        return parts[0] if len(parts) == 1 else self.arrays.xp.concatenate(parts)

    def transposed_times(self, values: np.ndarray, precision: str = "float64") -> np.ndarray:
        """Product (r + 1, k) of the transposed matrix with values (n, k)."""
        product = sum(block.T @ values[rows] for rows, block in self._blocks(precision))
        return self._after(product, values.sum(axis=0), precision)

    def weighted_gram_times(
        self, params: np.ndarray, weigh: Callable[[slice, np.ndarray], np.ndarray], precision: str
    ) -> np.ndarray:
        """Transposed matrix times `weigh` of (matrix times params), in one pass.

        Parameters
        ----------
        params : ndarray, shape (r + 1, k)
        weigh : callable
            Called with (rows, their products (m, k)); returns what takes the place of the products.
        precision : str
        """
        inner = self._before(params, precision)
        product = sums = 0.0
        for rows, block in self._blocks(precision):
            weighed = weigh(rows, block @ inner + params[-1])
            product, sums = product + block.T @ weighed, sums + weighed.sum(axis=0)
        return self._after(product, sums, precision)

    def squared_transposed_times(self, values: np.ndarray) -> np.ndarray:
        """Product (r + 1, k) of the transposed matrix of squares with values (n, k), in float32."""
        product = sum((block**2).T @ values[rows] for rows, block in self._rotated_blocks())
        return self.arrays.xp.concatenate([product, values.sum(axis=0)[None]])

    def _rotated_blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        if self.streamed:
            for rows, block in self._blocks("float32"):
                yield rows, block @ self._basis["float32"]
        else:
            yield from blocks(self._rotated["float32"])
