"""Exact nearest neighbours of cached features, found in blocks.

Candidates are found by products in float32, and their similarities are computed again in float64, pair by pair, from
the features themselves: in whichever order of summation is fast, and again in one fixed order where that could matter.
A bound of the rounding errors tells whether a neighbour can be missing among the candidates; where one can, the
products are made in float64, and where even these do not decide (many exact ties), all pairs are computed. The result
therefore depends neither on the size of the blocks nor on the device: the neighbours are sorted by falling similarity,
equal ones by their row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ssltransfer.array_backend import NUMPY, Array, Arrays
from ssltransfer.errors import InputError

MARGIN = 32
"""Number of candidates beyond the neighbours that are asked for."""
BLOCK = 4096
"""Number of queries, and of rows that they are compared with, at a time: 64 MiB of products in float32."""
CHUNK = 2**16
"""Number of elements at a time whose products are computed in float64: 512 KiB, which fits into a processor's cache."""
GROUP = 256
"""Number of queries at a time whose lists of candidates are merged."""
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


class _Vectors(NamedTuple):
    """Vectors (m, d) of some rows, their norms (m,), and an offset (m,) of their products; None for 0."""

    vectors: np.ndarray
    norms: np.ndarray
    offsets: np.ndarray | None


class _Cosine:
    """Cosine similarity as a product of vectors of norm 1."""

    def __init__(self, features: np.ndarray, pool: np.ndarray, used: np.ndarray) -> None:
        self.features = features
        self.norms = np.full(len(features), np.nan)
        for rows, block in _blocks(features, used):
            self.norms[rows] = np.sqrt((block**2).sum(axis=1))
        self.empty = self.norms == 0

    def queries(self, rows: np.ndarray, precision: str) -> _Vectors:
        """Vectors (m, d) of queries, whose products exceed the similarities by their offsets."""
        return self.keys(rows, precision)

    def keys(self, rows: np.ndarray, precision: str) -> _Vectors:
        """Vectors (m, d) that queries are multiplied with; their offsets are added to the products."""
        features, lengths = self.features[rows], np.maximum(self.norms[rows], TINY)[:, None]
        # Divided in float64 and rounded once, element by element, without a copy of the block in float64.
        vectors = np.empty(features.shape, precision)
        np.divide(features, lengths, out=vectors, dtype=np.float64, casting="same_kind")
        return _Vectors(vectors, np.ones(len(rows)), None)

    def exact(self, query: int, rows: np.ndarray) -> np.ndarray:
        """Similarities (m,) of one query and some rows, in float64; each depends on its pair alone."""
        products = (self.features[rows] * _take(self.features, query)).sum(axis=1)
        return products / np.maximum(self.norms[rows] * self.norms[query], TINY)

    def near(self, query: int, rows: np.ndarray) -> tuple[np.ndarray, float]:
        """Similarities (m,) that may differ from the exact ones by the order in which products are summed; the bound.

        Products of two numbers of float32 are exact in float64. Either sum of d of them is off by less than
        d u |a| |b|, where u is the unit roundoff, and the division by the norms by a few u more.
        """
        products = _take(self.features, rows) @ _take(self.features, query)
        error = (self.features.shape[1] + 8) * np.finfo(np.float64).eps
        return products / np.maximum(self.norms[rows] * self.norms[query], TINY), error

    @staticmethod
    def shown(similarities: np.ndarray) -> np.ndarray:
        """Similarities as they are stored."""
        return similarities


class _Euclidean:
    """Negative squared Euclidean distance, as a product of centred vectors: 2 a.b - |b|^2 = |a|^2 - |a - b|^2.

    Features are divided by a power of two near the largest norm of a centred row: no product overflows, and nothing is
    rounded.
    """

    def __init__(self, features: np.ndarray, pool: np.ndarray, used: np.ndarray) -> None:
        self.features = features
        self.mean = sum(block.sum(axis=0) for _, block in _blocks(features, pool)) / len(pool)
        norms = [((block - self.mean) ** 2).sum(axis=1).max() for _, block in _blocks(features, pool)]
        self.scale = 2.0 ** np.ceil(np.log2(max(float(np.sqrt(max(norms))), TINY)))
        self.empty = np.zeros(len(features), bool)

    def queries(self, rows: np.ndarray, precision: str) -> _Vectors:
        vectors = (_take(self.features, rows) - self.mean) / self.scale
        squares = (vectors**2).sum(axis=1)
        return _Vectors(vectors.astype(precision), np.sqrt(squares), squares)

    def keys(self, rows: np.ndarray, precision: str) -> _Vectors:
        single = self.queries(rows, precision)
        return _Vectors(2 * single.vectors, 2 * single.norms, -single.offsets)

    def exact(self, query: int, rows: np.ndarray) -> np.ndarray:
        differences = self.features[rows] - _take(self.features, query)
        return -((differences / self.scale) ** 2).sum(axis=1)

    def near(self, query: int, rows: np.ndarray) -> tuple[np.ndarray, float]:
        return self.exact(query, rows), 0.0

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
        Number of rows at a time, at least as many as there are candidates; does not change the result.

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
    used = np.union1d(pool, queries)
    if not all(np.isfinite(features[used[start : start + block]]).all() for start in range(0, len(used), block)):
        raise InputError("knn: features hold values that are not finite")
    space = SIMILARITIES[similarity](features, pool, used)
    block = max(block, count + MARGIN)
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
    """Return the rows and similarities of the nearest of some candidates (rising places in the pool).

    Exact similarities take twice the time of near ones, and few are needed: where two near ones are too close to tell
    which pair is nearer, or one is too close to the middle of two numbers of float32 to tell what is stored.
    """
    candidates = candidates[candidates != own]
    rows = pool[candidates]
    step = max(1, CHUNK // space.features.shape[1])
    parts = [space.near(query, rows[start : start + step]) for start in range(0, len(rows), step)]
    values, error = np.concatenate([part for part, _ in parts]), parts[0][1]
    order = np.argsort(-values, kind="stable")
    if error:
        close = values[order[:-1]] - values[order[1:]] <= 2 * error
        unclear = np.float32(values - error) != np.float32(values + error)
        unclear[order[:-1][close]] = unclear[order[1:][close]] = True
        unclear = np.flatnonzero(unclear)
        for part in (unclear[start : start + step] for start in range(0, len(unclear), step)):
            values[part] = space.exact(query, rows[part])
        order = np.argsort(-values, kind="stable")
    return rows[order[:count]], values[order[:count]]


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
    vectors, norms, shift = space.queries(queries, precision)
    placed = arrays.place(vectors, precision)
    values = places = None
    largest = offset_largest = 0.0
    for start in range(0, len(pool), block):
        keys, lengths, offsets = space.keys(pool[start : start + block], precision)
        largest = max(largest, float(lengths.max()))
        products = placed @ arrays.place(keys, precision).T
        if offsets is not None:
            offset_largest = max(offset_largest, float(np.abs(offsets).max()))
            products += arrays.place(offsets, precision)
        inside = np.flatnonzero((own >= start) & (own < start + block))
        products[inside, own[inside] - start] = -np.inf
        values, places = _merge(values, places, products, start, count, arrays)
    if len(pool) <= count:
        return arrays.numpy(places), np.full(len(queries), -np.inf)
    shift = np.zeros(len(queries)) if shift is None else shift
    size = norms * largest + offset_largest + shift
    error = (2 * vectors.shape[1] + 16) * np.finfo(precision).eps / 2 * size
    return arrays.numpy(places), arrays.numpy(arrays.xp.amin(values, 1)).astype(np.float64) - shift + error


def _merge(
    values: Array | None, places: Array | None, products: Array, start: int, count: int, arrays: Arrays
) -> tuple[Array, Array]:
    """Keep the `count` largest of the values kept so far and the products of another block, in no order."""
    xp, width = arrays.xp, products.shape[1]
    if values is None:
        values, columns = arrays.largest(products, min(count, width))
        return values, columns + start
    # Once some blocks have passed, few products are larger than the smallest kept value: only these are merged.
    (hits,) = xp.where((products > xp.amin(values, 1)[:, None]).reshape(-1))
    larger, larger_places = products.reshape(-1)[hits], hits % width + start
    numbers = xp.bincount(hits // width, minlength=len(products))
    first = xp.cumsum(numbers, 0) - numbers
    for rows in _groups(arrays.numpy(numbers)):
        steps = arrays.place(np.arange(int(numbers[rows[-1]])), "int64")
        inside = steps < numbers[rows][:, None]
        each = xp.where(inside, first[rows][:, None] + steps, 0)
        joined = xp.concatenate([values[rows], xp.where(inside, larger[each], -np.inf)], 1)
        values[rows], kept = arrays.largest(joined, count)
        places[rows] = arrays.take(xp.concatenate([places[rows], larger_places[each]], 1), kept)
    return values, places


def _groups(numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Rows with a number above 0, in groups of similar and rising numbers, whose lists are padded to one length."""
    rows = np.argsort(numbers, kind="stable")[np.count_nonzero(numbers == 0) :]
    return (rows[start : start + GROUP] for start in range(0, len(rows), GROUP))


def _take(features: np.ndarray, rows: np.ndarray | int) -> np.ndarray:
    return np.asarray(features[rows], np.float64)


def _blocks(features: np.ndarray, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read some rows in blocks of float64: their numbers and values."""
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        yield part, _take(features, part)


def _all_equal(features: np.ndarray, pool: np.ndarray) -> bool:
    return all((block == _take(features, pool[0])).all() for _, block in _blocks(features, pool))
