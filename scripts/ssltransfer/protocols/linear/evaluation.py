"""Many-shot linear evaluation (paper section 4.1): the penalty chosen on validation, one test of the final fit."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ssltransfer.array_backend import NUMPY, Arrays
from ssltransfer.datasets.coverage import coverage
from ssltransfer.datasets.index import Index
from ssltransfer.datasets.splits import Split, make_split
from ssltransfer.models.feature_file import Features
from ssltransfer.protocols.input_norms import bias_warnings, describe_input
from ssltransfer.protocols.linear import classification_metrics
from ssltransfer.protocols.linear.design_matrix import Rows
from ssltransfer.protocols.linear.logistic import Fit, fit_path
from ssltransfer.protocols.linear.official import official_path
from ssltransfer.protocols.linear.outcomes import classification_outcomes
from ssltransfer.protocols.linear.settings import LinearSettings
from ssltransfer.results.prediction_file import Predictions
from ssltransfer.results.score_file import Measurement, percent


def lambda_grid(first: float, last: float, count: int) -> np.ndarray:
    """Log-spaced penalties, ascending; (1e-6, 1e5, 45) is the paper's grid."""
    return np.logspace(np.log10(first), np.log10(last), count)


@dataclass(frozen=True)
class LinearResult:
    """Outcome of `evaluate_linear`.

    Attributes
    ----------
    penalty : float
        The chosen one.
    test, validation : float
        Metric of the final fit on the test part, and the one that chose the penalty.
    curve : list of dict
        Validation metric and certificate of every penalty, from strong to weak.
    final : Fit
    test_scores : ndarray of float, shape (test, k)
        Decision values of the final fit.
    validation_scores : ndarray of float, shape (validation, k)
        Decision values of the chosen fit, which has not seen the validation part.
    """

    penalty: float
    test: float
    validation: float
    curve: list[dict]
    final: Fit
    test_scores: np.ndarray
    validation_scores: np.ndarray

    @property
    def missed(self) -> list[str]:
        """The fits that missed their certificate of convergence."""
        count = sum(not point["converged"] for point in self.curve)
        path = "all" if count == len(self.curve) else "some"
        return [f"{path} of {len(self.curve)} penalties"] * bool(count) + ["the final fit"] * (not self.final.converged)

    def without_scores(self) -> "LinearResult":
        """The same without decision values, which are large: of further draws only the metrics count."""
        return replace(self, test_scores=np.empty((0, 0)), validation_scores=np.empty((0, 0)))


FEW_VALIDATION_IMAGES = 100
"""Below this number, one validation image moves the metric that selects the penalty by more than a percent point."""

SOLVERS = {"converged": fit_path, "official": official_path}
"""Values of `solver` in a settings block."""


def evaluate_linear(
    features: np.ndarray,
    labels: np.ndarray,
    split: Split,
    classes: int,
    metric: str,
    lambdas: np.ndarray,
    solver: str,
    arrays: Arrays = NUMPY,
    earlier: Collection[LinearResult] = (),
) -> LinearResult:
    """Choose the penalty on the validation part, refit on training and validation, measure on the test part.

    The penalty with the best validation metric wins; on ties the smallest, as in a scan upwards with a strict ">".

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
        All rows of the dataset; a memory map is read in blocks, and only a design matrix that fits is kept.
    labels : ndarray
        As for `fit_path`.
    split : Split
    classes : int
    metric : str
        See `classification_metrics.evaluate`.
    lambdas : ndarray
        Penalties; see `lambda_grid`.
    solver : str
        A name of `SOLVERS`.
    arrays : Arrays
        Where to compute.
    earlier : collection of LinearResult
        Results for the same features, settings and test part with other draws of the validation part. The final fit of
        one with the same penalty is taken over, because its training images are the same.
    """
    path = SOLVERS[solver]
    train, val, trainval, test = (Rows(features, r) for r in (split.train, split.val, split.trainval, split.test))
    curve, chosen, chosen_scores = [], None, None
    for fit in path(train, labels[split.train], lambdas, classes, arrays):
        scores = fit.scores(val)
        point = {
            "lambda": fit.penalty,
            "validation": classification_metrics.evaluate(metric, labels[split.val], scores),
            "objective": fit.objective,
            "gap": fit.gap,
            "converged": fit.converged,
        }
        curve.append(point)
        if chosen is None or point["validation"] >= chosen["validation"]:  # the path descends
            chosen, chosen_scores = point, scores
    penalty = chosen["lambda"]
    if same := next((result for result in earlier if result.penalty == penalty), None):
        return replace(same, validation=chosen["validation"], curve=curve, validation_scores=chosen_scores)
    final = next(path(trainval, labels[split.trainval], np.array([penalty]), classes, arrays))
    test_scores = final.scores(test)
    value = classification_metrics.evaluate(metric, labels[split.test], test_scores)
    return LinearResult(penalty, value, chosen["validation"], curve, final, test_scores, chosen_scores)


def measure_linear(
    features: dict[str, Features],
    index: Index,
    dataset: str,
    metric: str,
    settings: LinearSettings,
    arrays: Arrays = NUMPY,
) -> tuple[Measurement, Predictions]:
    """Evaluate a model on a dataset under every input normalisation, and report the selected one.

    Parameters
    ----------
    features : dict of Features
        By input normalisation.
    index : Index
    dataset : str
        Id of the dataset, for messages.
    metric : str
        See `classification_metrics.evaluate`.
    settings : LinearSettings
        With normalisation ``test-max`` the higher test score decides, otherwise the higher validation score.
    arrays : Arrays
        Where to compute.

    Returns
    -------
    Measurement
    Predictions
        Of the selected input normalisation.
    """
    labels = index.label_array(ignored="difficult" if settings.difficult == "ignore" else None)
    parts = index.split_array()
    official = bool((parts == "val").any())
    seeds = range(settings.seed, settings.seed + (1 if official else settings.validation_draws))
    splits = [make_split(parts, settings.validation_fraction, seed, dataset) for seed in seeds]
    split = splits[0]
    grid = lambda_grid(settings.lambdas.first, settings.lambdas.last, settings.lambdas.count)
    trained, tested = (images_of_classes(labels[rows], len(index.classes)) for rows in (split.trainval, split.test))
    draws: list[dict[str, LinearResult]] = []
    for drawn in splits:
        draws.append({})
        for norm, found in features.items():
            arguments = (found.values, labels, drawn, len(index.classes), metric, grid, settings.solver, arrays)
            earlier = [draw[norm] for draw in draws[:-1]]
            result = evaluate_linear(*arguments, earlier)
            draws[-1][norm] = result if drawn is split else result.without_scores()
    by_test = settings.normalisation == "test-max"
    norms = [max(draw, key=lambda norm: draw[norm].test if by_test else draw[norm].validation) for draw in draws]
    selected = [draw[norm] for draw, norm in zip(draws, norms, strict=True)]
    results, norm, result = draws[0], norms[0], selected[0]
    missed = {name: ", ".join(found.missed) for name, found in results.items() if found.missed}
    predictions = Predictions(
        test_scores=result.test_scores.astype(np.float32),
        test_labels=labels[split.test],
        validation_scores=result.validation_scores.astype(np.float32),
        validation_labels=labels[split.val],
    )
    measurement = Measurement(
        kind="linear",
        values=[percent(metric, result.test)],
        checkpoint=features[norm].checkpoint,
        preprocessing=describe_input(settings.transform, settings.normalisation, features, norm),
        details={
            "images": {"train": len(split.train), "val": len(split.val), "test": len(split.test)},
            "final_fit": {"gap": result.final.gap, "converged": result.final.converged},
        }
        | ({"validation_draws": describe_draws(seeds, norms, selected)} if len(selected) > 1 else {}),
        warnings=index.warnings
        + bias_warnings(settings.normalisation)
        + [f"not converged under input normalisation {name}: {fits}" for name, fits in missed.items()]
        + class_warnings(index, metric, trained, tested)
        + selection_warnings(result, len(split.val))
        + draw_warnings(settings.validation_draws, official),
        more={
            "selected": {"lambda": result.penalty, "validation": result.validation},
            "curve": {name: found.curve for name, found in results.items()},
        },
        coverage=coverage(index),
        precision=features[norm].precision,
        outcomes=classification_outcomes(metric, predictions),
    )
    return measurement, predictions


def describe_draws(seeds: Sequence[int], norms: Sequence[str], results: Sequence[LinearResult]) -> dict:
    """Return what each draw of the validation part selected and tested, and mean and spread of the test values.

    Parameters
    ----------
    seeds : sequence of int
        Seeds of the draws, at least two.
    norms : sequence of str
        Input normalisation that each draw selected.
    results : sequence of LinearResult
        Under that normalisation.
    """
    values = [result.test for result in results]
    return {
        "mean": float(np.mean(values)),
        "standard_deviation": float(np.std(values, ddof=1)),
        "values": values,
        "seeds": list(seeds),
        "norms": list(norms),
        "lambdas": [result.penalty for result in results],
        "validation": [result.validation for result in results],
        "converged": all(not result.missed for result in results),
    }


def draw_warnings(draws: int, official: bool) -> list[str]:
    """Say what the draws of the validation part are, or that there are none; no numbers, which differ by model."""
    if draws == 1:
        return []
    if official:
        return ["validation_draws has no effect: there is an official validation part"]
    return [
        f"the penalty was selected on {draws} draws of the validation part, of which the score is the first; their "
        "standard deviation in the score file is the noise of this selection, while an interval holds that of the test "
        "images alone"
    ]


def images_of_classes(labels: np.ndarray, classes: int) -> np.ndarray:
    """Number of images (classes,) that show each class; `labels` are those of `fit_path`."""
    return np.bincount(labels, minlength=classes) if labels.ndim == 1 else (labels > 0).sum(axis=0)


def class_warnings(index: Index, metric: str, trained: np.ndarray, tested: np.ndarray) -> list[str]:
    """Name the classes that make a score another quantity than it seems.

    Parameters
    ----------
    index : Index
    metric : str
    trained, tested : ndarray of int, shape (classes,)
        Number of images of each class in the final fit and in the test part.
    """
    cases = (
        (tested == 0, f"have no test image, so {metric} is that of the other classes"),
        (trained == 0, "have no training image and are never predicted"),
        (trained == 1, "have a single image in training and validation"),
    )
    warnings = []
    for found, text in cases:
        if names := [index.classes[number] for number in np.flatnonzero(found)]:
            shown = ", ".join(names[:5] + ["..."] * (len(names) > 5))
            warnings.append(f"{len(names)} of {len(found)} classes {text}: {shown}")
    return warnings


def selection_warnings(result: LinearResult, validation_images: int) -> list[str]:
    """Name the reasons to doubt the selected penalty: the edge of the grid, and a small validation part."""
    penalties, warnings = [point["lambda"] for point in result.curve], []
    for edge, name in ((min(penalties), "smallest"), (max(penalties), "largest")):
        if result.penalty == edge and len(penalties) > 1:
            warnings.append(f"the selected penalty {edge:g} is the {name} of the grid (lambdas)")
    if validation_images < FEW_VALIDATION_IMAGES:
        best = sum(point["validation"] == result.validation for point in result.curve)
        warnings.append(
            f"the penalty was selected on {validation_images} validation images, with the same result for {best} of "
            f"{len(penalties)} penalties"
        )
    return warnings
