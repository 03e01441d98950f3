"""Similarity of models: matrix, order by clustering, map, and whether similar representations transfer similarly."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from ssltransfer.analysis.scale import higher_is_better
from ssltransfer.analysis.tasks import TaskScores
from ssltransfer.files import read_json

PAIR = ["protocol", "dataset", "images", "model", "other"]
COLUMNS = [*PAIR, "value", "low", "high", "biased", "chance"]
FEWEST_TASKS = 5
"""Fewest tasks for a correlation of the scores of two models."""
FEWEST_MODELS = 4
"""Fewest models for the correlation of two kinds of similarity over their pairs."""
PERMUTATIONS, SEED = 9999, 0


def collect_similarities(files: Iterable[str | Path]) -> tuple[pd.DataFrame, dict[tuple[str, str], dict[str, str]]]:
    """Collect the files of a suite.

    Returns
    -------
    similarities : pd.DataFrame
        One row per pair of models and dataset, with `COLUMNS`: debiased CKA, its interval (NaN without one), the value
        without correction, and that of permuted images.
    left_out : dict
        Protocol and dataset -> models that were not compared -> why.
    """
    rows, left_out = [], {}
    for content in map(read_json, files):
        where = {key: content[key] for key in ("protocol", "dataset", "images")}
        rows += [where | pair for pair in content["pairs"]]
        if content["left_out"]:
            left_out[content["protocol"], content["dataset"]] = content["left_out"]
    numbers = dict.fromkeys(COLUMNS[len(PAIR) :], float)
    return pd.DataFrame(rows, columns=COLUMNS).astype(numbers), left_out


def similarity_matrix(similarities: pd.DataFrame, models: Iterable[str]) -> pd.DataFrame:
    """Arrange the similarities on one dataset as models x models, 1 on the diagonal, NaN for pairs without one.

    Parameters
    ----------
    similarities : pd.DataFrame
        Rows of `collect_similarities` of one protocol and dataset.
    models : iterable of str
        Order of the models; those without a pair are left out.
    """
    seen = {*similarities["model"], *similarities["other"]}
    names = [model for model in models if model in seen]
    matrix, place = np.where(np.eye(len(names), dtype=bool), 1.0, np.nan), {name: i for i, name in enumerate(names)}
    i, j = (similarities[column].map(place).to_numpy() for column in ("model", "other"))
    matrix[i, j] = matrix[j, i] = similarities["value"]
    return pd.DataFrame(matrix, names, names)


def complete(matrix: pd.DataFrame) -> pd.DataFrame:
    """Leave out the models that lack most pairs, of equal ones the last, until no pair is missing."""
    while matrix.isna().any(axis=None):
        missing = matrix.isna().sum()
        matrix = matrix.drop(index=(last := missing[missing == missing.max()].index[-1]), columns=last)
    return matrix


def angles(matrix: pd.DataFrame) -> np.ndarray:
    """Distances of representations, arccos of their similarity, from 0 to pi / 2; negative similarities count as 0."""
    distances = np.arccos(np.clip(matrix.to_numpy(), 0, 1))
    np.fill_diagonal(distances, 0)
    return distances


def cluster_tree(matrix: pd.DataFrame) -> np.ndarray:
    """Average-linkage clustering of two models or more by their `angles`; leaves are ordered by similarity."""
    return hierarchy.linkage(squareform(angles(matrix), checks=False), "average", optimal_ordering=True)


@dataclass(frozen=True)
class Map:
    """Models as points of a plane.

    Attributes
    ----------
    points : pd.DataFrame
        Columns ``x`` and ``y``, one row per model.
    shown : float
        Part of the sum of the positive eigenvalues that the two dimensions of the plane hold, from 0 to 1. These sum to
        the squared distances only where no eigenvalue is negative, as for distances in a Euclidean space.
    """

    points: pd.DataFrame
    shown: float


def classical_map(matrix: pd.DataFrame) -> Map:
    """Classical multidimensional scaling of the `angles` to two dimensions.

    Notes
    -----
    W. S. Torgerson, "Multidimensional scaling: I. Theory and method", 1952. Signs are fixed by the first model.
    """
    squares = angles(matrix) ** 2
    centred = squares - squares.mean(axis=0) - squares.mean(axis=1)[:, None] + squares.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = np.maximum(values[:2], 0)
    points = vectors[:, :2] * np.sqrt(kept)
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    points *= np.where(points[0] < 0, -1, 1)
    positive = values[values > 0].sum()
    return Map(pd.DataFrame(points, matrix.index, ["x", "y"]), float(kept.sum() / positive) if positive else 1.0)


def score_similarity(scores: TaskScores) -> pd.DataFrame:
    """Correlation of the scores of pairs of models over the counted tasks, each task standardised over the models.

    Without standardising, all models would correlate, because tasks differ in difficulty. NaN below `FEWEST_TASKS`
    tasks that a pair has in common. Over models, these correlations average about -1 / (models - 1).
    """
    values = higher_is_better(scores.values[scores.counted])
    spread = values.std(ddof=0)
    values = (values - values.mean()) / spread.where(spread > 1e-12)
    return values.T.corr(min_periods=FEWEST_TASKS)


@dataclass(frozen=True)
class Agreement:
    """Correlation of two similarities of the same models over their pairs.

    Attributes
    ----------
    r : float
        Pearson's correlation over pairs.
    p : float
        Two-sided permutation p-value (Mantel's test): the models of one similarity are permuted, as pairs are not
        independent.
    models, pairs : int
    """

    r: float
    p: float
    models: int
    pairs: int


def agreement(first: pd.DataFrame, second: pd.DataFrame) -> Agreement | None:
    """Compare two similarity matrices over the models that both have for all pairs; None with too few or constant ones.

    Notes
    -----
    N. Mantel, "The detection of disease clustering and a generalized regression approach", 1967.
    """
    first = complete(first)
    names = [model for model in first.index if model in second.index]
    b = second.reindex(index=names, columns=names)
    names = list(b.index[b.notna().all()])
    if len(names) < FEWEST_MODELS:
        return None
    a, b = (matrix.reindex(index=names, columns=names).to_numpy(float) for matrix in (first, second))
    upper = np.triu_indices(len(names), 1)
    x, y = a[upper], b[upper]
    if np.ptp(x) < 1e-12 or np.ptp(y) < 1e-12:
        return None
    r = float(np.corrcoef(x, y)[0, 1])
    generator, hits = np.random.default_rng(SEED), 0
    z = np.zeros_like(b)
    z[upper] = (y - y.mean()) / (y.std() * x.std() * len(y))
    for _ in range(PERMUTATIONS):
        order = generator.permutation(len(names))
        # Whole rows and columns, which are copied ten times as fast as the pairs alone.
        hits += abs(np.vdot(a.take(order, axis=0).take(order, axis=1), z)) >= abs(r) - 1e-9
    return Agreement(r, (1 + hits) / (1 + PERMUTATIONS), len(names), len(x))
