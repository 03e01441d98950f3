"""Label-efficiency curves of a model on a dataset: linear and k-NN classifiers of nested subsets, drawn repeatedly."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from ssltransfer.analysis.uncertainty import t_interval
from ssltransfer.array_backend import NUMPY, Arrays
from ssltransfer.datasets.coverage import coverage
from ssltransfer.datasets.index import Index
from ssltransfer.datasets.splits import make_split
from ssltransfer.models.feature_file import Features
from ssltransfer.protocols.input_norms import describe_input
from ssltransfer.protocols.knn.neighbours import nearest_neighbours
from ssltransfer.protocols.knn.voting import vote_shares
from ssltransfer.protocols.label_efficiency.selection import Selection, choose_and_fit
from ssltransfer.protocols.label_efficiency.settings import LabelEfficiencySettings
from ssltransfer.protocols.label_efficiency.subsets import (
    Point,
    curve_points,
    draw_order,
    draw_subset,
    find_listed,
    rank_in_class,
)
from ssltransfer.protocols.linear.classification_metrics import evaluate
from ssltransfer.protocols.linear.design_matrix import Rows
from ssltransfer.protocols.linear.evaluation import lambda_grid
from ssltransfer.protocols.linear.settings import LinearSettings
from ssltransfer.results.outcome_file import Interval, Outcome, identity
from ssltransfer.results.score_file import Measurement, percent

ALL = "all"
"""Setting of the point of all training images, which is the many-shot score."""
AREA = "area"
"""Setting of the mean height of the linear curve over the logarithm of the number of images."""
UNITS = "draws of the labelled images"
NEIGHBOURS, TEMPERATURE = 20, 0.07
FEWEST_DRAWS = 3
"""Below this number of draws there is no interval."""


def measure_label_efficiency(
    features: Features,
    index: Index,
    dataset: str,
    metric: str,
    settings: LabelEfficiencySettings,
    linear: LinearSettings,
    many_shot: Mapping,
    lists: Mapping[str, Sequence[str]] = MappingProxyType({}),
    arrays: Arrays = NUMPY,
) -> Measurement:
    """Measure test accuracy against the number of labelled images.

    Labelled images are drawn from the training and validation images; nothing is selected on any other image.

    Parameters
    ----------
    features : Features
    index : Index
    dataset : str
        Id of the dataset; part of the seed of the draws.
    metric : str
        See `classification_metrics.evaluate`.
    settings : LabelEfficiencySettings
    linear : LinearSettings
        Of the many-shot protocol, whose grid of penalties and labels are used.
    many_shot : mapping
        The score file of the many-shot protocol, the point of all images.
    lists : mapping of str to sequence of str
        Published lists of labelled images: name -> names of the images (see `subset_lists`).
    arrays : Arrays
        Where to compute.

    Raises
    ------
    InputError
        An image of a list is not among the training images.
    """
    labels = index.label_array(ignored="difficult" if linear.difficult == "ignore" else None)
    split = make_split(index.split_array(), linear.validation_fraction, linear.seed, dataset)
    pool, classes = split.trainval, len(index.classes)
    points, notes = curve_points(
        labels[pool], settings.images_per_class, settings.percent, settings.draws, settings.draws_above
    )
    for name, images in lists.items():
        points.append(Point(name, draws=1, listed=find_listed(index, pool, images, name, dataset)))
        notes.append(f"{name}: a published list of images, so one draw and no interval")
    grid = lambda_grid(linear.lambdas.first, linear.lambdas.last, linear.lambdas.count)
    values: dict[str, list[float]] = {}
    subsets: dict[str, list[np.ndarray]] = {}
    selections: dict[str, list[Selection]] = {}
    for draw in range(max((point.draws for point in points), default=0)):
        position = draw_order(labels[pool], dataset, settings.seed + draw)
        drawn = [(point, draw_subset(labels[pool], position, point)) for point in points if draw < point.draws]
        spanned = rotatable([subset for _, subset in drawn], features.values.shape[1])
        basis, test = _rotation(features.values, pool[spanned], split.test)
        for point, subset in drawn:
            rows = pool[subset]
            rotated = np.isin(subset, spanned, assume_unique=True).all()
            own = np.asarray(features.values[rows], np.float64)
            own = own @ basis if rotated else own
            place = position[subset] if point.listed is None else rank_in_class(labels[rows], position[subset])
            chosen = choose_and_fit(own, labels[rows], place, classes, grid, arrays)
            scores = chosen.fit.scores(test if rotated else Rows(features.values, split.test))
            found = nearest_neighbours(features.values, rows, split.test, NEIGHBOURS, arrays=arrays)
            ((_, shares),) = vote_shares(found, labels, classes, rows, [NEIGHBOURS], TEMPERATURE)
            for name, scored in ((point.setting, scores), (f"knn-{point.setting}", shares)):
                values.setdefault(name, []).append(evaluate(metric, labels[split.test], scored))
            subsets.setdefault(point.setting, []).append(rows)
            selections.setdefault(point.setting, []).append(chosen)
    (whole,) = (value for value in many_shot["values"] if value["metric"] == metric)
    curve = {point: np.mean([len(rows) for rows in subsets[point.setting]]) for point in points}
    drawn_points = [point for point in points if point.listed is None]  # a list would change the area by its presence
    areas = draw_areas(drawn_points, curve, values, whole["value"], len(pool))
    drawn_values = {
        f"{prefix}{point.setting}": values[f"{prefix}{point.setting}"] for prefix in ("", "knn-") for point in points
    }
    hashes = {point.setting: [identity(rows) for rows in subsets[point.setting]] for point in points}
    if areas:
        drawn_values[AREA] = areas
        hashes[AREA] = max((hashes[point.setting] for point in drawn_points), key=len)
    outcomes = curve_outcomes(metric, drawn_values, hashes, whole, settings.of)
    edges = [setting for setting, each in selections.items() if any(chosen.edge for chosen in each)]
    missed = [setting for setting, each in selections.items() if not all(chosen.converged for chosen in each)]
    return Measurement(
        kind="label-efficiency",
        values=[percent(outcome.metric, outcome.value, outcome.setting) for outcome in outcomes],
        checkpoint=features.checkpoint,
        preprocessing=describe_input(
            linear.transform,
            linear.normalisation,
            many_shot["preprocessing"]["candidates"],
            many_shot["preprocessing"]["norm"],
        ),
        details={
            "images": {"train": len(split.train), "val": len(split.val), "test": len(split.test)},
            "labelled": {point.setting: float(number) for point, number in curve.items()} | {ALL: len(pool)},
            "draws": drawn_values,
            "subsets": hashes,
            "penalties": {name: [chosen.fit.penalty for chosen in each] for name, each in selections.items()},
            "folds": {name: each[0].folds for name, each in selections.items()},
        },
        warnings=index.warnings
        + notes
        + ([f"the penalty is an end of the grid in some draws: {', '.join(edges)}"] if edges else [])
        + ([f"not converged in some fits: {', '.join(missed)}"] if missed else [])
        + [f"of {settings.of}: {warning}" for warning in many_shot["warnings"] if warning not in index.warnings],
        coverage=coverage(index),
        precision=features.precision,
        outcomes=outcomes,
    )


def rotatable(subsets: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Return the union of the smallest subsets, as many as span no more than `width` dimensions together."""
    union = np.empty(0, int)
    for subset in sorted(subsets, key=len):
        larger = np.union1d(union, subset)
        if len(larger) > width:
            break
        union = larger
    return union


def _rotation(features: np.ndarray, rows: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal basis (d, r) of the span of some rows, and the test features in it (test, r).

    A linear classifier of these rows, and of any part of them, has its weights in their span, where norms are the
    same, so that every fit and every fold of a draw needs r columns instead of d.
    """
    basis = np.linalg.qr(np.asarray(features[rows], np.float64).T)[0]
    step = max(1, 2**22 // features.shape[1])
    parts = [test[start : start + step] for start in range(0, len(test), step)]
    return basis, np.concatenate([np.asarray(features[part], np.float64) @ basis for part in parts])


def curve_outcomes(
    metric: str,
    draws: Mapping[str, Sequence[float]],
    subsets: Mapping[str, Sequence[str]],
    whole: Mapping,
    protocol: str,
) -> list[Outcome]:
    """Return the outcomes of a curve: of each point the score of each draw, and the many-shot score.

    Parameters
    ----------
    metric : str
    draws : mapping of str to sequence of float
        Setting -> scores in percent, one for each draw.
    subsets : mapping of str to sequence of str
        Setting (without ``knn-``) -> fingerprints of the labelled images of each draw.
    whole : mapping
        Entry ``values`` of the many-shot score.
    protocol : str
        The many-shot protocol.
    """
    outcomes = []
    for setting, values in draws.items():
        scores = np.asarray(values, np.float64)
        interval = t_interval(scores, metric, UNITS) if len(scores) >= FEWEST_DRAWS else None
        drawn = "".join(subsets[setting.removeprefix("knn-")]).encode()
        outcome = Outcome(
            metric=metric,
            setting=setting,
            value=float(scores.mean()),
            units=UNITS,
            identity=identity(np.frombuffer(drawn, np.uint8)),
            values=scores,
            interval=interval,
            note="" if interval else f"no interval: {len(scores)} draw{'s' * (len(scores) > 1)}",
        )
        outcomes.append(outcome)
    interval = None
    if whole.get("low") is not None:
        interval = Interval(whole["low"], whole["high"], whole["method"], whole["level"])
    note = f"the score of {protocol}, whose images are compared there"
    return [*outcomes, Outcome(metric, ALL, whole["value"], "", "", interval=interval, note=note)]


def draw_areas(
    points: Sequence[Point],
    images: Mapping[Point, float],
    values: Mapping[str, Sequence[float]],
    whole: float,
    pool: int,
) -> list[float]:
    """Mean height of the linear curve of each draw over the logarithm of the number of images, up to all of them.

    Draws that a larger point lacks take its mean over the draws it has. Empty for a curve without a point below all.
    """
    if not points:
        return []
    order = sorted(points, key=lambda point: images[point])
    x = np.log2([*(images[point] for point in order), pool])
    areas = []
    for draw in range(max(point.draws for point in order)):
        each = (values[point.setting] for point in order)
        y = [own[draw] if draw < len(own) else float(np.mean(own)) for own in each]
        areas.append(float(np.trapezoid([*y, whole], x) / (x[-1] - x[0])))
    return areas
