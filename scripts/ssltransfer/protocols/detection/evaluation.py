"""Evaluation of a detector: score and example images from its detections on the test images."""

from pathlib import Path

import numpy as np

from ssltransfer.datasets.coverage import coverage
from ssltransfer.datasets.images import read_image
from ssltransfer.datasets.index import Index, short_name
from ssltransfer.models.norm_table import norm_name
from ssltransfer.protocols.detection.average_precision import (
    THRESHOLDS,
    accumulate,
    match_detections,
    round_like_detectron2,
)
from ssltransfer.protocols.detection.boxes import Detections
from ssltransfer.protocols.detection.objects import Annotations, voc_objects
from ssltransfer.protocols.detection.outcomes import detection_outcomes
from ssltransfer.protocols.detection.pictures import LOWEST_SCORE, choose_examples, draw
from ssltransfer.protocols.detection.settings import DetectionSettings
from ssltransfer.results.picture_file import Pictures
from ssltransfer.results.score_file import Measurement, percent, training_schedule
from ssltransfer.settings import defaults

EXAMPLES, SIDE = 8, 192
"""Number of example images, and the pixels of their sides."""


def measure_detections(
    index: Index, annotations: Annotations, detections: Detections, trained: dict, settings: DetectionSettings
) -> Measurement:
    """Measure the average precision of detections on the test images of a dataset.

    Parameters
    ----------
    index : Index
    annotations : Annotations
        Objects of all rows of the index.
    detections : Detections
        See `training.detect`.
    trained : dict
        Header of the detector's file.
    settings : DetectionSettings

    Returns
    -------
    Measurement
        AP, AP50 and AP75 in percent, of kind ``detection-frozen`` or ``detection-finetune``.
    """
    rows = np.flatnonzero(index.split_array() == "test")
    objects = voc_objects(annotations, rows)
    matches = match_detections(round_like_detectron2(detections), objects, len(index.classes))
    found = accumulate(matches, settings.rule)
    counts = np.bincount(objects.label[~objects.difficult], minlength=len(index.classes))
    per_class = {
        name: {"objects": int(counts[k]), "ap": float(found.per_class[:, k].mean())}
        | {f"ap{t:.0%}"[:-1]: float(found.per_class[THRESHOLDS.index(t), k]) for t in (0.5, 0.75)}
        for k, name in enumerate(index.classes)
    }
    seen, papers, text = _images_seen(settings)
    metrics = {"ap": found.ap, "ap50": found.ap50, "ap75": found.ap75}
    return Measurement(
        kind="detection-frozen" if settings.frozen == "first-four" else "detection-finetune",
        values=[percent(metric, value) for metric, value in metrics.items()],
        checkpoint=trained["checkpoint"],
        preprocessing={"norm": norm_name(trained["norm"]), "sides": vars(settings.sides)},
        details={
            "images": {"train": index.split.count("train"), "test": len(rows)},
            "objects": int(counts.sum()),
            "detections": len(detections),
            "schedule": trained["schedule"],
            "per_class": per_class,
            "training_cost": trained["cost"],
            "trained_settings": trained.get("settings"),
        },
        warnings=_warnings(index, counts, trained, settings),
        coverage=coverage(index, used=counts > 0),
        schedule=training_schedule(text if seen < papers else ""),
        outcomes=detection_outcomes(matches, objects, rows, settings.rule),
    )


def _images_seen(settings: DetectionSettings) -> tuple[int, int, str]:
    """Number of images that the training sees, here and in the paper, and both in words."""
    used, paper = settings.effective_schedule, defaults("detection")["schedule"]
    text = (
        f"{used.steps} steps of {used.batch_size} images, where the paper has {paper['steps']} of {paper['batch_size']}"
    )
    return used.steps * used.batch_size, paper["steps"] * paper["batch_size"], text


def _warnings(index: Index, counts: np.ndarray, trained: dict, settings: DetectionSettings) -> list[str]:
    """Say how frozen part and schedule differ from the paper's, and which classes have no object in the test images."""
    warnings = index.warnings + [text for text in (trained.get("deviation"), trained["scaling"]) if text]
    seen, papers, text = _images_seen(settings)
    if seen != papers:
        warnings.append(text)
    if absent := [index.classes[k] for k in np.flatnonzero(counts == 0)]:
        warnings.append(f"no test image shows an object of {', '.join(absent)}; counted as 0, as detectron2 does")
    return warnings


def draw_detections(index: Index, annotations: Annotations, detections: Detections, root: Path) -> Pictures:
    """Draw the ground truth and the detections of some test images.

    Parameters
    ----------
    index, annotations, detections
        See `measure_detections`.
    root : Path
        Folder that the references of the index start from.
    """
    rows = np.flatnonzero(index.split_array() == "test")
    shown = choose_examples(rows, np.array([len(annotations.label[row]) for row in rows]), EXAMPLES)
    truth, found = (np.empty((len(shown), SIDE, SIDE, 3), np.uint8) for _ in range(2))
    for number, row in enumerate(shown):
        image = read_image(root, index.image[row])
        truth[number] = draw(image, annotations.box[row], annotations.label[row], index.classes, SIDE)
        sure = (detections.image == row) & (detections.score > LOWEST_SCORE)
        boxes, labels, scores = (column[sure] for column in (detections.box, detections.label, detections.score))
        found[number] = draw(image, boxes, labels, index.classes, SIDE, scores)
    return Pictures(
        [short_name(index.image[row]) for row in shown],
        {"Ground truth": truth},
        {"Detections": found},
        f"Boxes with scores above {LOWEST_SCORE}, in percent.",
    )
