"""Votes of nearest neighbours: uniform, or weighted by exp(similarity / temperature)."""

from collections.abc import Iterator, Sequence

import numpy as np

from ssltransfer.protocols.knn.neighbours import Neighbours


def vote_weights(neighbours: Neighbours, temperature: float | None) -> np.ndarray:
    """Weights of votes: float64 (queries, k).

    Parameters
    ----------
    neighbours : Neighbours
    temperature : float or None
        T > 0 of the weight exp(s / T) of a neighbour of similarity s (Wu et al., "Unsupervised feature learning via
        non-parametric instance discrimination", 2018; 0.07 there and in DINO); None for equal weights.

    Notes
    -----
    Weights are divided by that of the nearest neighbour, exp((s - s_1) / T), which changes no share of the votes and
    cannot overflow at any temperature.
    """
    similarities = neighbours.similarities.astype(np.float64)
    if temperature is None:
        return np.ones_like(similarities)
    with np.errstate(over="ignore"):  # -inf, whose exponential is 0
        return np.exp((similarities - similarities[:, :1]) / temperature)


def vote_shares(
    neighbours: Neighbours,
    labels: np.ndarray,
    classes: int,
    pool: np.ndarray,
    counts: Sequence[int],
    temperature: float | None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Shares of the votes of each class among the nearest neighbours, for several numbers of neighbours.

    Parameters
    ----------
    neighbours : Neighbours
    labels : ndarray
        (n,) of int; (n, classes) of bool, or of int8 with -1 for pairs that do not count.
    classes : int
    pool : ndarray of int
        Rows that neighbours are from. A query of norm 0 gets the shares of the classes among them.
    counts : sequence of int
        Numbers of neighbours; one above the size of the pool takes all of it.
    temperature : float or None
        See `vote_weights`.

    Yields
    ------
    count : int
    shares : ndarray of float64, shape (queries, classes)
        In [0, 1]: of one label per image, they sum to 1; of several, each is the weighted mean of that label over the
        neighbours for which it counts.
    """
    rows, weights = neighbours.rows, vote_weights(neighbours, temperature)
    unknown = np.isnan(neighbours.similarities[:, 0])
    every, single = np.arange(len(rows)), labels.ndim == 1
    prior = _prior(labels[pool], classes)
    votes = np.zeros((len(rows), classes))
    total = np.zeros((len(rows), 1 if single else classes))
    wanted = {min(count, rows.shape[1]) for count in counts}
    shares = {}
    for number in range(rows.shape[1]):
        weight, label = weights[:, number, None], labels[rows[:, number]]
        if single:
            votes[every, label] += weight[:, 0]
            total += weight
        else:
            votes += weight * (label > 0)
            total += weight * (label >= 0)
        if number + 1 in wanted:
            known = (total > 0) & ~unknown[:, None]
            shares[number + 1] = np.where(known, votes / np.where(known, total, 1), prior)
    for count in counts:
        yield count, shares[min(count, rows.shape[1])]


def _prior(labels: np.ndarray, classes: int) -> np.ndarray:
    """Share of each class among some images (classes,)."""
    if labels.ndim == 1:
        return np.bincount(labels, minlength=classes) / len(labels)
    return (labels > 0).sum(axis=0) / np.maximum((labels >= 0).sum(axis=0), 1)
