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
        Rising.
    shares : ndarray of float64, shape (queries, classes)
        In [0, 1]: of one label per image, they sum to 1; of several, each is the weighted mean of that label over the
        neighbours for which it counts.
    """
    weights, unknown = vote_weights(neighbours, temperature), np.isnan(neighbours.similarities[:, 0])
    every, single = np.arange(len(neighbours.rows)), labels.ndim == 1
    prior = _prior(labels[pool], classes)
    votes = np.zeros((len(every), classes))
    total = np.zeros((len(every), 1 if single else classes))
    voted = 0
    for count in sorted(counts):
        for rows, weight in zip(neighbours.rows.T[voted:count], weights.T[voted:count, :, None], strict=True):
            label = labels[rows]
            if single:
                votes[every, label] += weight[:, 0]
                total += weight
            else:
                votes += weight * (label > 0)
                total += weight * (label >= 0)
        voted = count
        known = (total > 0) & ~unknown[:, None]
        shares = votes / np.where(known, total, 1)
        np.copyto(shares, prior, where=~known)
        yield count, shares


def _prior(labels: np.ndarray, classes: int) -> np.ndarray:
    """Share of each class among some images (classes,)."""
    if labels.ndim == 1:
        return np.bincount(labels, minlength=classes) / len(labels)
    return (labels > 0).sum(axis=0) / np.maximum((labels >= 0).sum(axis=0), 1)
