"""Many-shot finetuning (v2 section 4.1): a grid selected on validation, and one test of the refit."""

from collections.abc import Sequence

import numpy as np

from ssltransfer.datasets.coverage import coverage
from ssltransfer.datasets.index import Index
from ssltransfer.datasets.splits import Split, make_split
from ssltransfer.errors import InputError
from ssltransfer.models.norm_table import norm_name
from ssltransfer.protocols.finetune.settings import FinetuneSettings, Trial, trials
from ssltransfer.protocols.finetune.training import Finetuning, Finished, describe_trial, loss_interval
from ssltransfer.protocols.linear import classification_metrics
from ssltransfer.protocols.linear.evaluation import FEW_VALIDATION_IMAGES, class_warnings, images_of_classes
from ssltransfer.protocols.linear.outcomes import classification_outcomes
from ssltransfer.results.prediction_file import Predictions
from ssltransfer.results.score_file import Measurement, percent, training_schedule
from ssltransfer.settings import defaults
from ssltransfer.training_state import rounded


def finetune_labels(index: Index, settings: FinetuneSettings) -> np.ndarray:
    """Labels of an index as a finetune protocol counts them (see `Index.label_array`)."""
    return index.label_array(ignored="difficult" if settings.difficult == "ignore" else None)


def measure_finetune(
    finetuning: Finetuning, index: Index, dataset: str, metric: str, checkpoint: dict
) -> tuple[Measurement, Predictions]:
    """Select a trial of the grid on the validation part, refit it on training and validation, measure on the test part.

    The best validation metric wins, on ties the earliest trial (see `settings.trials`). A trial that diverged is worse
    than all others.

    Parameters
    ----------
    finetuning : Finetuning
    index : Index
    dataset : str
        Id of the dataset, for messages.
    metric : str
        See `classification_metrics.evaluate`.
    checkpoint : dict
        Provenance of the checkpoint.

    Raises
    ------
    InputError
        If a part of the dataset is empty, no gradient reaches the backbone, all trials diverge or the refit does.
    """
    settings, labels = finetuning.settings, finetuning.data.labels
    split = make_split(index.split_array(), settings.validation_fraction, settings.seed, dataset)
    grid = trials(settings.grid)
    finetuning.network.require_gradients(finetuning.side, finetuning.run.config_path)
    results = finetuning.search(grid, split.train, split.val)
    scores = [
        -np.inf if result.logits is None else classification_metrics.evaluate(metric, labels[split.val], result.logits)
        for result in results
    ]
    chosen = int(np.argmax(scores))  # the first of the best
    selected, validation_logits = grid[chosen], results[chosen].logits
    if validation_logits is None:
        raise InputError(
            f"{finetuning.run.config_path}: all {len(grid)} members of the grid diverged; write smaller "
            f"grid.learning_rates, found {', '.join(f'{rate:g}' for rate in settings.grid.learning_rates)}"
        )
    final = finetuning.refit(selected, split.trainval, split.test)
    assert final.logits is not None
    predictions = Predictions(
        test_scores=final.logits,
        test_labels=labels[split.test],
        validation_scores=validation_logits,
        validation_labels=labels[split.val],
    )
    shortened = _shortened(settings)
    measurement = Measurement(
        kind="finetune",
        values=[percent(metric, classification_metrics.evaluate(metric, labels[split.test], final.logits))],
        checkpoint=checkpoint,
        preprocessing={
            "transform": settings.transform,
            "norm": norm_name(finetuning.data.norm),
            "augmentation": selected.augmentation,
        },
        details={
            "images": {"train": len(split.train), "val": len(split.val), "test": len(split.test)},
            "refit": {"interval": loss_interval(settings.schedule.steps), "losses": rounded(final.losses)},
        },
        warnings=list(index.warnings)
        + ([shortened] if shortened else [])
        + class_warnings(index, metric, *(images_of_classes(labels[r], len(index.classes)) for r in _ends(split)))
        + selection_warnings(settings, selected, scores, len(split.val))
        + batch_warnings(settings.schedule.batch_size, len(split.train)),
        more={
            "selected": {**selected._asdict(), "validation": scores[chosen]},
            "curve": [describe_member(*pair) for pair in zip(results, scores, strict=True)],
        },
        coverage=coverage(index),
        schedule=training_schedule(shortened),
        outcomes=classification_outcomes(metric, predictions),
    )
    return measurement, predictions


def _ends(split: Split) -> tuple[np.ndarray, np.ndarray]:
    return split.trainval, split.test


def describe_member(result: Finished, score: float) -> dict:
    """Entry of a trial in a score file: its hyper-parameters, validation metric (None if it diverged) and losses."""
    validation = None if result.logits is None else score
    return {**result.trial._asdict(), "validation": validation, "losses": rounded(result.losses)}


def _shortened(settings: FinetuneSettings) -> str:
    papers, schedule = defaults("finetune")["schedule"], settings.schedule
    if schedule.steps * schedule.batch_size >= papers["steps"] * papers["batch_size"]:
        return ""
    own, full = f"{schedule.steps} steps of {schedule.batch_size}", f"{papers['steps']} of {papers['batch_size']}"
    return f"{own} images, where the paper has {full}"


def selection_warnings(
    settings: FinetuneSettings, selected: Trial, scores: Sequence[float], validation_images: int
) -> list[str]:
    """Name the reasons to doubt the selected trial: diverged members, the edge of the grid, few validation images.

    The smallest weight decay is no edge where it is 0.
    """
    warnings, grid = [], settings.grid
    if diverged := sum(not np.isfinite(score) for score in scores):
        warnings.append(f"{diverged} of {len(scores)} members of the grid diverged")
    for name, value, values in (
        ("learning rate", selected.learning_rate, grid.learning_rates),
        ("weight decay", selected.weight_decay, grid.weight_decays),
        ("layer decay", selected.layer_decay, grid.layer_decays),
    ):
        edges = {"smallest": min(values), "largest": max(values)}
        for edge, limit in edges.items():
            if value == limit != 0 and len(values) > 1:
                warnings.append(f"the selected {name} {value:g} is the {edge} of the grid")
    if validation_images < FEW_VALIDATION_IMAGES:
        best = sum(score == max(scores) for score in scores)
        warnings.append(
            f"{describe_trial(selected)} was selected on {validation_images} validation images, with the same result "
            f"for {best} of {len(scores)} members of the grid"
        )
    return warnings


def batch_warnings(batch_size: int, images: int) -> list[str]:
    """Say that a batch holds all training images, where it does."""
    if images > batch_size:
        return []
    return [f"a batch of {batch_size} holds all {images} training images of the selection"]
