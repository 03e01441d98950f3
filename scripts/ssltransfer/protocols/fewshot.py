"""Few-shot transfer (paper section 4.2): nearest-centroid classification of episodes on cached features."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssltransfer.analysis.uncertainty import episode_interval
from ssltransfer.datasets.coverage import coverage
from ssltransfer.datasets.index import SPLITS, Index
from ssltransfer.errors import InputError
from ssltransfer.models.feature_file import Features
from ssltransfer.protocols.input_norms import bias_warnings, describe_input
from ssltransfer.results.outcome_file import Outcome, identity
from ssltransfer.results.score_file import Measurement, percent


@dataclass(frozen=True)
class FewShotSettings:
    """A settings block of kind ``fewshot``; the keys are described in workflow/schemas/config.schema.yaml."""

    transform: str
    normalisation: str
    ways: int
    shots: tuple[int, ...]
    queries: int
    episodes: int
    seed: int


@dataclass(frozen=True)
class FewShotResult:
    """Result for one number of shots: correct queries of each episode, and their mean.

    Attributes
    ----------
    queries : int
        Of an episode (ways * queries per class).
    correct : ndarray of int, shape (episodes,)
    """

    queries: int
    correct: np.ndarray

    @property
    def accuracy(self) -> float:
        """Mean episode accuracy in percent."""
        return 100.0 * float(self.correct.mean()) / self.queries


def possible_shots(labels: np.ndarray, shots: Sequence[int], queries: int, ways: int) -> tuple[list[int], list[str]]:
    """Choose the shots that nearly all classes are large enough for.

    Where at most one class in ten has fewer images than shot + queries, and none lacks more than a fifth of them, the
    shot is measured without these classes (seven of Caltech-101's at 20 shots); otherwise it is left out (Cars at 50
    shots, as in the paper).

    Returns
    -------
    possible : list of int
    notes : list of str
        What is left out, and why.
    """
    _, sizes = np.unique(labels, return_counts=True)
    possible, notes = [], []
    for shot in shots:
        needed = shot + queries
        small = int(np.sum(sizes < needed))
        reason = f"{small} of {len(sizes)} classes have fewer than {shot} + {queries} images (smallest {sizes.min()})"
        if len(sizes) < ways:
            notes.append(f"{shot}-shot is left out: {ways} ways need {ways} classes; there are {len(sizes)}")
        elif 10 * small > len(sizes) or 5 * sizes.min() < 4 * needed or len(sizes) - small < ways:
            notes.append(f"{shot}-shot is left out: {reason}")
        else:
            possible.append(shot)
            if small:
                notes.append(f"{shot}-shot leaves out small classes: {reason}")
    return possible, notes


def repetition_warnings(index: Index) -> list[str]:
    """Warn of images that the index lists more than once: an episode draws rows, not images."""
    repeated = index.repeated_images
    return [
        f"{repeated} of {len(index)} rows repeat an image, which can be in the support and the query set of an episode"
    ] * bool(repeated)


def sample_episodes(
    labels: np.ndarray, name: str, shot: int, queries: int, ways: int, episodes: int, seed: int
) -> np.ndarray:
    """Draw episodes: distinct classes uniformly, then distinct images of each class uniformly.

    Classes with fewer than shot + queries images are not drawn.
    The generator is seeded by (seed, dataset name, shot) alone, so every model meets the same episodes and models
    can be compared pair by pair.

    Returns
    -------
    ndarray of int64, shape (episodes, ways, shot + queries)
        Row numbers into `labels`; the first `shot` of the last axis are the support set.
    """
    generator = np.random.default_rng([seed, zlib.crc32(name.encode()), shot])
    order = np.argsort(labels, kind="stable")
    _, first, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    large = np.flatnonzero(sizes >= shot + queries)
    chosen = large[np.argsort(generator.random((episodes, len(large))), axis=1)[:, :ways]]
    # Floyd's sampling without replacement, for all (episode, way) pairs at once: its cost does not depend on the
    # size of the classes. Position j draws from 0..last and takes `last` itself if the draw is already taken.
    size = sizes[chosen]
    total = shot + queries
    picks = np.empty((episodes, ways, total), dtype=np.int64)
    for j in range(total):
        last = size - total + j
        draw = (generator.random(size.shape) * (last + 1)).astype(np.int64)
        taken = (picks[:, :, :j] == draw[:, :, None]).any(axis=2)
        picks[:, :, j] = np.where(taken, last, draw)
    # Floyd's set is uniform but its order is not: a random order makes the support part a uniform draw as well.
    picks = generator.permuted(picks, axis=2)
    return order[first[chosen][:, :, None] + picks]


def episode_accuracy(features: np.ndarray, episodes: np.ndarray, shot: int) -> np.ndarray:
    """Classify the queries of all episodes by their nearest class mean (squared Euclidean distance).

    One episode at a time: its features fit into the processor's cache, which makes this several times as fast as
    working on many at once.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
    episodes : ndarray of int, shape (episodes, ways, shot + queries)
    shot : int

    Returns
    -------
    ndarray of int64, shape (episodes,)
        Correct queries of each episode; ties go to the first class.
    """
    _, ways, total = episodes.shape
    truth = np.repeat(np.arange(ways), total - shot)
    correct = np.empty(len(episodes), dtype=np.int64)
    for number, rows in enumerate(episodes):
        support = features.take(rows[:, :shot].ravel(), axis=0).reshape(ways, shot, -1)
        centroids = support.mean(axis=1, dtype=np.float64)
        queries = features.take(rows[:, shot:].ravel(), axis=0).astype(np.float64)
        # |q - c|^2 without |q|^2, which is the same for all classes
        distances = np.sum(centroids**2, axis=1) - 2 * (queries @ centroids.T)
        correct[number] = np.sum(distances.argmin(axis=1) == truth)
    return correct


def measure_fewshot(
    features: dict[str, Features], index: Index, dataset: str, settings: FewShotSettings
) -> Measurement:
    """Evaluate a model on a dataset: for each number of shots the best of the input normalisations.

    Parameters
    ----------
    features : dict of Features
        By input normalisation.
    index : Index
    dataset : str
        Id of the dataset; part of the episodes' seed.
    settings : FewShotSettings

    Raises
    ------
    InputError
        If the classes are too small for every number of shots.
    """
    labels = index.label_array()
    shots, notes = possible_shots(labels, settings.shots, settings.queries, settings.ways)
    if not shots:
        raise InputError(f"{dataset}: {notes[0]}; no shot is possible")
    selected: dict[str, tuple[str, FewShotResult]] = {}
    for shot in shots:
        rows = sample_episodes(labels, dataset, shot, settings.queries, settings.ways, settings.episodes, settings.seed)
        results = {
            norm: FewShotResult(settings.ways * settings.queries, episode_accuracy(found.values, rows, shot))
            for norm, found in features.items()
        }
        best = max(results, key=lambda norm: results[norm].accuracy)
        selected[f"{shot}-shot"] = best, results[best]
    smallest = min(shots) + settings.queries  # images of a class that takes part in any of the shots
    norms = {setting: norm for setting, (norm, _) in selected.items()}
    only = set(norms.values())
    first = next(iter(features.values()))
    return Measurement(
        kind="fewshot",
        values=[percent("accuracy", r.accuracy, setting) for setting, (_, r) in selected.items()],
        checkpoint=first.checkpoint,
        preprocessing=describe_input(
            settings.transform, settings.normalisation, features, norms if len(only) > 1 else only.pop()
        ),
        details={"images": len(index), "classes": len(index.classes)},
        warnings=index.warnings + notes + repetition_warnings(index) + bias_warnings(settings.normalisation),
        more={
            "episodes": {
                setting: {"queries": result.queries, "correct": result.correct.tolist()}
                for setting, (_, result) in selected.items()
            }
        },
        coverage=coverage(index, SPLITS, np.bincount(labels, minlength=len(index.classes)) >= smallest),
        precision=first.precision,
        outcomes=[
            episode_outcome(dataset, len(index), settings, setting, result.queries, result.correct)
            for setting, (_, result) in selected.items()
        ],
    )


def episode_outcome(
    dataset: str, images: int, settings: FewShotSettings, setting: str, queries: int, correct: np.ndarray
) -> Outcome:
    """Return the outcome of one number of shots: correct queries of each episode.

    Parameters
    ----------
    dataset : str
        Id of the dataset.
    images : int
        Its number of images; with the dataset's id and the settings it identifies the episodes.
    settings : FewShotSettings
    setting : str
        Such as ``5-shot``.
    queries : int
        Number of queries of an episode.
    correct : ndarray of int, shape (episodes,)
    """
    drawn = f"{dataset} {images} {setting} {settings.ways} {settings.queries} {settings.episodes} {settings.seed}"
    return Outcome(
        metric="accuracy",
        setting=setting,
        value=100.0 * float(correct.mean()) / queries,
        units="episodes",
        identity=identity(np.frombuffer(drawn.encode(), np.uint8)),
        values=np.asarray(correct, np.int64),
        scale=100.0 / queries,
        interval=episode_interval(correct, queries),
    )
