"""Exact nearest neighbours of cached features, found in blocks.

Candidates are found by products in float32, and their similarities are computed again in float64, pair by pair, from
the features themselves. A bound of the rounding errors tells whether a neighbour can be missing among the candidates;
where one can, the products are made in float64, and where even these do not decide (many exact ties), all pairs are
computed. The result therefore depends neither on the size of the blocks nor on the device: the neighbours are sorted by
falling similarity, equal ones by their row.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ssltransfer.array_backend import NUMPY, Array, Arrays
from ssltransfer.errors import InputError

MARGIN = 32
"""Number of candidates beyond the neighbours that are asked for."""
BLOCK = 4096
"""Number of queries, and of rows that they are compared with, at a time: 64 MiB of products in float32."""
CHUNK = 2**17
"""Number of elements at a time whose products are computed in float64: 1 MiB, which fits into a processor's cache."""
TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of some queries.

    Attributes
    ----------
    rows : ndarray of int32, shape (queries, k)
        Row numbers, nearest first; of equally near ones the smallest first.
    similarities : ndarray of float32, shape (queries, k)
        Cosine similarities, or negative Euclidean distances. NaN for a query of norm 0, which has no direction.
    """

    rows: np.ndarray
    similarities: np.ndarray


class _Cosine:
    """Cosine similarity as a product of vectors of norm 1."""

    def __init__(self, features: np.ndarray, pool: np.ndarray) -> None:
        self.features = features
        self.norms = np.concatenate([np.sqrt((block**2).sum(axis=1)) for _, block in _blocks(features, None)])
        self.empty = self.norms == 0

    def queries(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (m, d) of queries, and what their products exceed the similarities by (m,)."""
        return self.keys(rows)

    def keys(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (m, d) that queries are multiplied with, and what is added to the products (m,)."""
        return _take(self.features, rows) / np.maximum(self.norms[rows], TINY)[:, None], np.zeros(len(rows))

    def exact(self, query: int, rows: np.ndarray) -> np.ndarray:
        """Similarities (m,) of one query and some rows, in float64; each depends on its pair alone."""
        products = (self.features[rows] * _take(self.features, query)).sum(axis=1)
        return products / np.maximum(self.norms[rows] * self.norms[query], TINY)

    @staticmethod
    def shown(similarities: np.ndarray) -> np.ndarray:
        """Similarities as they are stored."""
        return similarities


class _Euclidean:
    """Negative squared Euclidean distance, as a product of centred vectors: 2 a.b - |b|^2 = |a|^2 - |a - b|^2.

    Features are divided by a power of two near the largest norm of a centred row: no product overflows, and nothing is
    rounded.
    """

    def __init__(self, features: np.ndarray, pool: np.ndarray) -> None:
        self.features = features
        self.mean = sum(block.sum(axis=0) for _, block in _blocks(features, pool)) / len(pool)
        norms = [((block - self.mean) ** 2).sum(axis=1).max() for _, block in _blocks(features, pool)]
        self.scale = 2.0 ** np.ceil(np.log2(max(float(np.sqrt(max(norms))), TINY)))
        self.empty = np.zeros(len(features), bool)

    def queries(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        vectors = (_take(self.features, rows) - self.mean) / self.scale
        return vectors, (vectors**2).sum(axis=1)

    def keys(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        vectors, squares = self.queries(rows)
        return 2 * vectors, -squares

    def exact(self, query: int, rows: np.ndarray) -> np.ndarray:
        differences = self.features[rows] - _take(self.features, query)
        return -((differences / self.scale) ** 2).sum(axis=1)

    def shown(self, similarities: np.ndarray) -> np.ndarray:
        return -self.scale * np.sqrt(-similarities)


SIMILARITIES = {"cosine": _Cosine, "euclidean": _Euclidean}
_Space = _Cosine | _Euclidean


def nearest_neighbours(
    features: np.ndarray,
    pool: np.ndarray,
    queries: np.ndarray,
    count: int,
    similarity: str = "cosine",
    arrays: Arrays = NUMPY,
    block: int = BLOCK,
) -> Neighbours:
    """Find the nearest rows of a pool for each query; a query that is in the pool is no neighbour of itself.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
        May be a memory map.
    pool, queries : ndarray of int
        Row numbers, each rising and without repeats.
    count : int
        Number of neighbours; at most as many as the pool has beside the query.
    similarity : {'cosine', 'euclidean'}
    arrays : Arrays
        Where products are computed.
    block : int
        Number of rows at a time; does not change the result.

    Raises
    ------
    InputError
        If features are not finite, or the pool has no neighbour for a query.
    """
    features = np.asarray(features)  # a plain view of a memory map, which is indexed in half the time
    places = np.searchsorted(pool, queries)
    own = np.where(pool[np.minimum(places, len(pool) - 1)] == queries, places, -1) if len(pool) else places
    count = min(count, len(pool) - int((own >= 0).any()))
    if count < 1:
        raise InputError(f"knn: {len(pool)} training images are too few to have neighbours among them")
    if not all(np.isfinite(rows).all() for _, rows in _blocks(features, None)):
        raise InputError("knn: features hold values that are not finite")
    space = SIMILARITIES[similarity](features, pool)
    rows, similarities = np.empty((len(queries), count), np.int32), np.full((len(queries), count), np.nan)
    left = np.flatnonzero(~space.empty[queries])
    rows[space.empty[queries]] = pool[:count]  # all are equally near
    if _all_equal(features, pool):
        rounds: list[str] = []
    else:
        rounds = ["float32", "float64"]
    for precision in rounds:
        unsure = []
        for part in (left[start : start + block] for start in range(0, len(left), block)):
            found, limits = _candidates(space, pool, queries[part], own[part], count + MARGIN, precision, arrays, block)
            for number, candidates, limit in zip(part, found, limits, strict=True):
                nearest, values = _sorted(space, queries[number], pool, np.sort(candidates), own[number], count)
                rows[number], similarities[number] = nearest, values
                if values[-1] <= limit:
                    unsure.append(number)
        left = np.array(unsure, dtype=int)
    everything = np.arange(len(pool) if rounds else min(count + 1, len(pool)))
    for number in left:
        rows[number], similarities[number] = _sorted(space, queries[number], pool, everything, own[number], count)
    return Neighbours(rows, space.shown(similarities).astype(np.float32))


def _sorted(
    space: _Space, query: int, pool: np.ndarray, candidates: np.ndarray, own: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and similarities of the nearest of some candidates (rising places in the pool)."""
    candidates = candidates[candidates != own]
    step = max(1, CHUNK // space.features.shape[1])
    parts = [candidates[start : start + step] for start in range(0, len(candidates), step)]
    values = np.concatenate([space.exact(query, pool[part]) for part in parts])
    order = np.argsort(-values, kind="stable")[:count]
    return pool[candidates[order]], values[order]


def _candidates(
    space: _Space,
    pool: np.ndarray,
    queries: np.ndarray,
    own: np.ndarray,
    count: int,
    precision: str,
    arrays: Arrays,
    block: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the places in the pool (m, c) with the largest products, and an upper limit (m,) of all other similarities.

    The rounding error of a product of vectors a and b of d elements is below d u |a| |b|, where u is the unit roundoff;
    a few more roundings are those of the vectors themselves.
    """
    vectors, shift = space.queries(queries)
    placed = arrays.place(vectors, precision)
    values = places = None
    largest = offset_largest = 0.0
    for start in range(0, len(pool), block):
        keys, offset = space.keys(pool[start : start + block])
        largest = max(largest, float(np.sqrt((keys**2).sum(axis=1).max())))
        offset_largest = max(offset_largest, float(np.abs(offset).max()))
        products = placed @ arrays.place(keys, precision).T + arrays.place(offset, precision)
        inside = np.flatnonzero((own >= start) & (own < start + block))
        products[inside, own[inside] - start] = -np.inf
        values, places = _merge(values, places, products, start, count, arrays)
    if len(pool) <= count:
        return arrays.numpy(places), np.full(len(queries), -np.inf)
    size = np.sqrt((vectors**2).sum(axis=1)) * largest + offset_largest + shift
    error = (2 * vectors.shape[1] + 16) * np.finfo(precision).eps / 2 * size
    return arrays.numpy(places), arrays.numpy(arrays.xp.amin(values, 1)).astype(np.float64) - shift + error


def _merge(
    values: Array | None, places: Array | None, products: Array, start: int, count: int, arrays: Arrays
) -> tuple[Array, Array]:
    """Keep the `count` largest of the values kept so far and the products of another block, in no order."""
    xp = arrays.xp
    if values is None:
        values, columns = arrays.largest(products, min(count, products.shape[1]))
        return values, columns + start
    # Once some blocks have passed, few products are larger than the smallest kept value: only these are sorted.
    threshold = xp.amin(values, 1) if values.shape[1] == count else xp.full_like(values[:, 0], -np.inf)
    rows, columns = xp.where(products > threshold[:, None])
    if not len(rows):
        return values, places
    numbers = xp.bincount(rows, minlength=len(products))
    within = xp.cumsum(xp.ones_like(rows), 0) - 1 - (xp.cumsum(numbers, 0) - numbers)[rows]
    width = int(numbers.max())
    more = xp.full_like(products[:, :width], -np.inf)
    more_places = xp.full_like(products[:, :width], 0, dtype=places.dtype)
    more[rows, within] = products[rows, columns]
    more_places[rows, within] = columns + start
    values, places = xp.concatenate([values, more], 1), xp.concatenate([places, more_places], 1)
    if values.shape[1] <= count:
        return values, places
    values, kept = arrays.largest(values, count)
    return values, arrays.take(places, kept)


def _take(features: np.ndarray, rows: np.ndarray | int) -> np.ndarray:
    return np.asarray(features[rows], np.float64)


def _blocks(features: np.ndarray, rows: np.ndarray | None) -> Iterator[tuple[slice, np.ndarray]]:
    """Read all rows, or some, in blocks of float64."""
    for start in range(0, len(features) if rows is None else len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        yield part, _take(features, part if rows is None else rows[part])


def _all_equal(features: np.ndarray, pool: np.ndarray) -> bool:
    return all((block == _take(features, pool[0])).all() for _, block in _blocks(features, pool))
