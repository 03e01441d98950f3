"""Evaluation of a network for semantic segmentation: mean IoU, pixel accuracy, score and pictures."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from ssltransfer.datasets.coverage import coverage
from ssltransfer.datasets.index import Index, short_name
from ssltransfer.datasets.masks import IGNORE
from ssltransfer.models.norm_table import norm_name
from ssltransfer.protocols.dense import image_results
from ssltransfer.protocols.dense.segmentation.dataset import SegmentationDataset
from ssltransfer.protocols.dense.segmentation.metrics import (
    ClassCounts,
    class_iou,
    mean_iou,
    pixel_accuracy,
    require_pixels,
)
from ssltransfer.protocols.dense.segmentation.network import SegmentationNetwork
from ssltransfer.protocols.dense.segmentation.outcomes import segmentation_outcomes
from ssltransfer.protocols.dense.segmentation.pictures import (
    CAPTION,
    MAX_LEGEND,
    class_colours,
    error_colours,
    square,
)
from ssltransfer.protocols.dense.segmentation.prediction import Predictor, alike
from ssltransfer.protocols.dense.segmentation.settings import SegmentationSettings
from ssltransfer.results.picture_file import Pictures
from ssltransfer.results.score_file import Measurement, percent, training_schedule
from ssltransfer.settings import defaults

LINEAR_SCHEDULE = 40_000, 16
"""Steps and batch size of DINOv3's recipe for the linear head."""
MAX_NAMED = 5


def count_classes(
    predictor: Predictor,
    rows: np.ndarray,
    progress: Callable[[Iterable, int], Iterable] = lambda images, total: images,
) -> np.ndarray:
    """Count the pixels of each class in the predictions of test images, int64 (n, 3, classes); see `ClassCounts`.

    Parameters
    ----------
    predictor : Predictor
    rows : ndarray of int
    progress : callable
        Wraps (rows, number of rows).
    """
    counts = ClassCounts(len(predictor.dataset.classes))
    for images, masks in alike(progress(rows, len(rows)), predictor.dataset.read, predictor.at_once):
        for predicted, truth in zip(predictor.predict(images), masks, strict=True):
            counts.add(predicted, truth)
    return counts.table


def measure_segmentation(
    table: np.ndarray,
    dataset: SegmentationDataset,
    index: Index,
    trained: dict,
    norm: str,
    settings: SegmentationSettings,
    network: SegmentationNetwork,
) -> Measurement:
    """Summarise the counts of all test images as a score: mean IoU (a fraction) and pixel accuracy (percent).

    Parameters
    ----------
    table : ndarray of int, shape (n, 3, classes)
        See `count_classes`.
    dataset : SegmentationDataset
    index : Index
    trained : dict
        Header of the file of the trained network.
    norm : str
        Input normalisation.
    settings : SegmentationSettings
    network : SegmentationNetwork

    Raises
    ------
    InputError
        If no test image has a labelled pixel.
    """
    require_pixels(table)
    rows = np.flatnonzero(index.split_array() == "test")
    totals, present = table.sum(axis=0), table[:, 2].sum(axis=0) > 0
    iou = class_iou(totals)
    short = _shortened(settings)
    return Measurement(
        kind="segmentation",
        values=[
            {
                "metric": "mean-iou",
                "setting": "",
                "value": float(mean_iou(totals, settings.absent_classes)),
                "unit": "fraction",
            },
            percent("pixel-accuracy", float(pixel_accuracy(totals))),
        ],
        checkpoint=trained["checkpoint"],
        preprocessing={
            "shorter_sides": list(settings.sides.test),
            "interpolation": "bilinear",
            "norm": norm_name(norm),
            "normalisation": settings.normalisation,
            "stride": network.stride,
        },
        details={
            "images": {"train": index.split.count("train"), "test": len(rows)},
            "pixels": int(totals[2].sum()),
            "empty_images": int((table[:, 2].sum(axis=1) == 0).sum()),
            "classes_present": int(present.sum()),
            "iou": {
                name: None if np.isnan(value) else float(value)
                for name, value in zip(dataset.classes, iou, strict=True)
            },
            "training_cost": trained["cost"],
            "trained_settings": trained.get("settings"),
        },
        warnings=[*index.warnings, *_warnings(table, dataset, settings, network), *([short] if short else [])],
        coverage=_coverage(index, dataset, present),
        schedule=training_schedule(short),
        outcomes=segmentation_outcomes([index.image[row] for row in rows], table, settings.absent_classes),
    )


def _coverage(index: Index, dataset: SegmentationDataset, present: np.ndarray) -> dict:
    """Coverage of the test images; the classes are those of the pixels."""
    found = coverage(index, ("test",), used=np.zeros(len(index.classes), bool))
    left_out = [dataset.classes[k] for k in np.flatnonzero(~present)]
    return found | {
        "classes": {
            "used": int(present.sum()),
            "promised": len(present),
            "left_out": left_out[:MAX_NAMED],
        }
    }


def _shortened(settings: SegmentationSettings) -> str:
    """How a shorter schedule than the published one differs from it; empty if as many images are trained on."""
    steps, batch = settings.schedule.steps, settings.schedule.batch_size
    papers = defaults("segmentation")["schedule"]
    published, images, whose = (
        (*LINEAR_SCHEDULE, "DINOv3's recipe")
        if settings.head == "linear"
        else (papers["steps"], papers["batch_size"], "the paper")
    )
    if steps * batch >= published * images:
        return ""
    return f"{steps} steps of {batch} images, where {whose} has {published} of {images}"


def _warnings(
    table: np.ndarray, dataset: SegmentationDataset, settings: SegmentationSettings, network: SegmentationNetwork
) -> list[str]:
    """Caveats of a score."""
    found = []
    present = table[:, 2].sum(axis=0) > 0
    if empty := int((table[:, 2].sum(axis=1) == 0).sum()):
        found.append(f"{empty} of {len(table)} test images have no labelled pixel")
    if absent := int((~present).sum()):
        how = "count as 0" if settings.absent_classes == "zero" else "are left out of the mean"
        found.append(f"{absent} of {len(present)} classes have no pixel in the test images and {how}")
    momentum, steps = settings.network.norm_momentum, settings.schedule.steps
    if network.norms and (initial := (1 - momentum) ** steps) > 1e-3:
        found.append(
            f"after {steps} steps the running statistics of batch norm still hold {100 * initial:.0f} % of their "
            "initial values (norm_momentum)"
        )
    if settings.padding_label == "first-class":
        found.append(f"padding of the training images is trained as {dataset.classes[0]!r} (padding_label)")
    if settings.head == "upernet" and network.plain:
        found.append("the maps are one map of stride 16, enlarged and reduced, where those of a ResNet are its stages")
    return found


def write_image_table(path: str | Path, images: list[str], table: np.ndarray) -> None:
    """Write a CSV table with one row per test image: its labelled pixels, and accuracy and mean IoU if it has any."""
    pixels = table[:, 2].sum(axis=1).tolist()
    results = (
        (total, [float(pixel_accuracy(counts)), float(mean_iou(counts, "left-out"))] if total else [])
        for total, counts in zip(pixels, table, strict=True)
    )
    image_results.save_table(path, ["pixel-accuracy", "mean-iou"], images, results)


def draw_predictions(predictor: Predictor, rows: np.ndarray, count: int = 8, side: int = 256) -> Pictures:
    """Draw images, known and predicted classes and errors, with the colours of the classes shown.

    Parameters
    ----------
    predictor : Predictor
    rows : ndarray of int
    count : int
        Number of images, spread evenly over `rows`.
    side : int
        Side of the squares in pixels.
    """
    dataset, colours = predictor.dataset, class_colours(len(predictor.dataset.classes))
    some = image_results.spread(rows, count)
    panels: dict[str, list[np.ndarray]] = {"Image": [], "Ground truth": [], "Prediction": [], "Error": []}
    pixels = np.zeros(IGNORE + 1, np.int64)
    for row in some:
        image, truth = dataset.read(row)
        (predicted,) = predictor.predict([image])
        pixels += np.bincount(truth.ravel(), minlength=IGNORE + 1)
        panels["Image"].append(square(image, side, Image.Resampling.BICUBIC))
        for title, drawn in (
            ("Ground truth", colours[truth]),
            ("Prediction", colours[predicted]),
            ("Error", error_colours(predicted, truth)),
        ):
            panels[title].append(square(Image.fromarray(drawn), side, Image.Resampling.NEAREST))
    stacked = {title: np.stack(images) for title, images in panels.items()}
    shown = [k for k in np.argsort(-pixels[:IGNORE], kind="stable") if pixels[k]]
    hidden = f" The legend names the {MAX_LEGEND} most frequent classes." if len(shown) > MAX_LEGEND else ""
    return Pictures(
        [short_name(dataset.images[row]) for row in some],
        {title: stacked[title] for title in ("Image", "Ground truth")},
        {title: stacked[title] for title in ("Prediction", "Error")},
        CAPTION + hidden,
        {dataset.classes[k]: tuple(int(value) for value in colours[k]) for k in shown[:MAX_LEGEND]},
    )
