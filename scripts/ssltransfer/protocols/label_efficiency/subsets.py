"""Nested subsets of labelled images: the same for every model, class by class."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np

from ssltransfer.datasets.index import Index
from ssltransfer.errors import InputError

FEW = 16
"""Largest number of images per class that has as many draws as `draws` says; larger subsets differ less."""


@dataclass(frozen=True)
class Point:
    """One point of the curve.

    Attributes
    ----------
    setting : str
        ``4-per-class`` or ``10-percent``, or the name of a published list.
    draws : int
        Number of draws.
    per_class : int
        Images of each class; 0 where `share` says it.
    share : float
        Share of the images of each class (of all images, where they have several labels).
    listed : ndarray of int, optional
        Positions in the pool of the images of a published list.
    """

    setting: str
    draws: int
    per_class: int = 0
    share: float = 0.0
    listed: np.ndarray | None = field(default=None, compare=False)


def curve_points(
    labels: np.ndarray, images_per_class: Sequence[int], percent: Sequence[float], draws: int, draws_above: int
) -> tuple[list[Point], list[str]]:
    """Choose the points that a pool of labelled images is large enough for.

    Parameters
    ----------
    labels : ndarray
        Of the pool: (n,) of int, or (n, k) of bool, for which images per class are not defined.
    images_per_class : sequence of int
        Those from the median size of the classes on are left out.
    percent : sequence of float
        Those that are less than one image of a class of median size (or of fewer than two images) are left out.
    draws, draws_above : int
        Number of draws up to `FEW` images per class, and above.

    Returns
    -------
    points : list of Point
    notes : list of str
        Points that are left out, and classes that are smaller than a point.
    """
    points, notes = [], []
    if labels.ndim > 1:
        notes.append("images of several labels: subsets are shares of all images, not numbers per class")
        size, few = len(labels), len(labels) * draws  # every share has all draws
    else:
        sizes = np.unique(labels, return_counts=True)[1]
        size, few = float(np.median(sizes)), FEW
        for number in sorted(images_per_class):
            if number >= size:
                notes.append(f"{number} per class is left out: the median class has {size:g} images")
                continue
            points.append(Point(f"{number}-per-class", draws if number <= FEW else draws_above, per_class=number))
            if small := int(np.sum(sizes < number)):
                notes.append(f"{number} per class: {small} of {len(sizes)} classes are smaller and are taken whole")
    for value in sorted(percent):
        if value / 100 * size < 1 + (labels.ndim > 1):
            notes.append(f"{value:g} % is left out: less than one image of a class of {size:g}")
            continue
        count = draws if value / 100 * size <= few else draws_above
        points.append(Point(f"{value:g}-percent".replace(".", "-"), count, share=value / 100))
    return points, notes


def draw_order(labels: np.ndarray, dataset: str, seed: int) -> np.ndarray:
    """Position of each image in the random order of its class (of all images, where they have several labels).

    The generator is seeded by (seed, dataset id) alone, so that every model has the same subsets, and subsets of one
    draw are nested.

    Returns
    -------
    ndarray of int, shape (n,)
    """
    shuffled = np.random.default_rng([seed, zlib.crc32(dataset.encode())]).permutation(len(labels))
    position = np.empty(len(labels), int)
    groups = np.zeros(len(labels), int) if labels.ndim > 1 else labels
    for group in np.unique(groups):
        own = shuffled[groups[shuffled] == group]
        position[own] = np.arange(len(own))
    return position


def draw_subset(labels: np.ndarray, position: np.ndarray, point: Point) -> np.ndarray:
    """Return the rising positions in the pool of the images of a point; at least one of each class.

    Parameters
    ----------
    labels, position : ndarray
        See `draw_order`.
    point : Point
    """
    if point.listed is not None:
        return point.listed
    if point.per_class:
        return np.flatnonzero(position < point.per_class)
    groups = np.zeros(len(labels), int) if labels.ndim > 1 else labels
    wanted = np.maximum(1, np.round(point.share * np.bincount(groups)))
    return np.flatnonzero(position < wanted[groups])


def rank_in_class(labels: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Rank of each image among those of its class, by a position: ints from 0 (n,)."""
    order, sizes = np.lexsort((position, labels)), np.bincount(labels)
    rank = np.empty(len(labels), int)
    rank[order] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rank


def find_listed(index: Index, pool: np.ndarray, names: Sequence[str], subset: str, dataset: str) -> np.ndarray:
    """Return the rising positions in a pool of the images of a list.

    Parameters
    ----------
    index : Index
    pool : ndarray of int
        Rows of the index.
    names : sequence of str
        File names without folders.
    subset, dataset : str
        Names of list and dataset, for messages.

    Raises
    ------
    InputError
        If an image is not in the pool.
    """
    position = {PurePosixPath(index.image[row]).name: number for number, row in enumerate(pool)}
    if missing := [name for name in names if name not in position]:
        raise InputError(
            f"{dataset}: {len(missing)} of the {len(names)} images of {subset} are not among the {len(pool)} training "
            f"images, such as {missing[0]}; complete the dataset, or take {subset} off the lists of the settings block"
        )
    return np.sort([position[name] for name in names])
