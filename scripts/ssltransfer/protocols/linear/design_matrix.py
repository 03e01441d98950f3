"""Design matrix of centred features in an orthogonal basis, in memory or streamed.

The columns of the design matrix are the features, centred, in an orthogonal basis that diagonalises their covariance,
and a last column of ones. A matrix that fits is kept in memory; a larger one is never copied: each product reads the
features again, a block of rows at a time (from a memory map, say), and applies the basis to the small factor.

Products with the matrix have a column for each class. Where several of them do not fit, they too are computed a block
of rows at a time. One block has all rows where everything fits.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ssltransfer.array_backend import Arrays
from ssltransfer.errors import InputError

BLOCK = 2**23
"""Elements of a block of rows: 64 MiB in float64."""

RESIDENT_SHARE = 0.25
"""Part of the memory that the design matrix (12 bytes per element) may take; one that would take more is streamed. The
products that are held at a time may take as much."""

PRODUCT_BYTES = 56
"""Bytes per element of a product that a fit takes if it holds all it uses: seven arrays of float64."""


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


def row_blocks(n: int, columns: int) -> list[slice]:
    """Split the rows of a matrix (n, columns) into blocks of at most `BLOCK` elements."""
    step = max(1, BLOCK // max(columns, 1))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def blocks(features: np.ndarray | Rows) -> Iterator[tuple[slice, np.ndarray]]:
    """Read a matrix in blocks of rows: (which, rows)."""
    for rows in row_blocks(*features.shape):
        yield rows, features[rows]


def products_fit(n: int, columns: int, arrays: Arrays) -> bool:
    """Whether a fit may hold all the products (n, columns) that it uses."""
    return PRODUCT_BYTES * n * columns <= RESIDENT_SHARE * arrays.memory()


class Blocks:
    """Arrays (m, k) of all blocks of rows, in order: kept, or made anew by each pass over them.

    Parameters
    ----------
    make : callable
        Returns an iterator of the arrays.
    keep : bool
    """

    def __init__(self, make: Callable[[], Iterator[np.ndarray]], keep: bool) -> None:
        self._make = make
        self._kept = list(make()) if keep else None

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._make() if self._kept is None else iter(self._kept)


class Design:
    """The design matrix (n, r + 1) of features (n, d); r is their rank.

    Products take and return arrays of `arrays`; `precision` is ``float64``, or ``float32`` where a few digits do.

    Parameters
    ----------
    features : ndarray or Rows, shape (n, d)
    classes : int
        Columns of the products.
    arrays : Arrays

    Attributes
    ----------
    mean : ndarray of float64, shape (d,)
    basis : ndarray of float64, shape (d, r)
    columns : int
        r + 1.
    streamed : bool
        Whether the features are read anew for each product.
    keeps_products : bool
        Whether several products (n, classes) fit into memory.
    rows : list of slice
        Blocks of rows in which products are computed; a single one if matrix and products fit.
    """

    def __init__(self, features: np.ndarray | Rows, classes: int, arrays: Arrays) -> None:
        self.features, self.arrays = features, arrays
        n, d = features.shape
        self.streamed = 12 * n * d > RESIDENT_SHARE * arrays.memory()
        self.keeps_products = products_fit(n, classes, arrays)
        in_blocks = self.streamed or not self.keeps_products
        self.rows = row_blocks(n, max(d, classes)) if in_blocks else [slice(0, n)]
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

    def _block(self, rows: slice, precision: str) -> np.ndarray:
        """Rows of the matrix without its last column, still to be multiplied with the basis if it is streamed."""
        if self.streamed:
            return self.arrays.place(self.features[rows], precision) - self._mean[precision]
        return self._rotated[precision][rows]

    def _before(self, params: np.ndarray, precision: str) -> np.ndarray:
        return self._basis[precision] @ params[:-1] if self.streamed else params[:-1]

    def _after(self, product: np.ndarray, sums: np.ndarray, precision: str) -> np.ndarray:
        product = self._basis[precision].T @ product if self.streamed else product
        return self.arrays.xp.concatenate([product, sums[None]])

    def products(self, params: np.ndarray, precision: str = "float64") -> Iterator[np.ndarray]:
        """Yield the product (m, k) of each block of `rows` with params (r + 1, k)."""
        inner = self._before(params, precision)
        for rows in self.rows:
            yield self._block(rows, precision) @ inner + params[-1]

    def transposed_times(self, values: Iterable[np.ndarray], precision: str = "float64") -> np.ndarray:
        """Product (r + 1, k) of the transposed matrix with values, which are (m, k) for each block of `rows`."""
        product = sums = 0.0
        for rows, block in zip(self.rows, values, strict=True):
            product, sums = product + self._block(rows, precision).T @ block, sums + block.sum(axis=0)
        return self._after(product, sums, precision)

    def weighted_gram_times(
        self, params: np.ndarray, weigh: Callable[[int, np.ndarray], np.ndarray], precision: str
    ) -> np.ndarray:
        """Transposed matrix times `weigh` of (matrix times params), in one pass.

        Parameters
        ----------
        params : ndarray, shape (r + 1, k)
        weigh : callable
            Called with (number of a block, its products (m, k)); returns what takes the place of the products.
        precision : str
        """
        inner = self._before(params, precision)
        product = sums = 0.0
        for number, rows in enumerate(self.rows):
            block = self._block(rows, precision)
            weighed = weigh(number, block @ inner + params[-1])
            product, sums = product + block.T @ weighed, sums + weighed.sum(axis=0)
        return self._after(product, sums, precision)

    def squared_transposed_times(self, values: Iterable[np.ndarray]) -> np.ndarray:
        """Product (r + 1, k) of the transposed matrix of squares with values as in `transposed_times`, in float32."""
        product = sums = 0.0
        for rows, block in zip(self.rows, values, strict=True):
            for part in row_blocks(len(block), self.columns - 1):  # squares are a copy
                matrix = self._block(slice(rows.start + part.start, rows.start + part.stop), "float32")
                rotated = matrix @ self._basis["float32"] if self.streamed else matrix
                product = product + (rotated**2).T @ block[part]
            sums = sums + block.sum(axis=0)
        return self.arrays.xp.concatenate([product, sums[None]])
