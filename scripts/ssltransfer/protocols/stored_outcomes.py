"""Outcomes of scores that were measured without them, from the files that their jobs stored; nothing is measured."""

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssltransfer.datasets.index import read_index
from ssltransfer.errors import InputError, first_line
from ssltransfer.files import write_json
from ssltransfer.jobs import log
from ssltransfer.protocols.calibration import CalibrationSettings, calibration_outcomes
from ssltransfer.protocols.dense.normals.outcomes import SHARES, normals_outcomes, test_scenes
from ssltransfer.protocols.dense.segmentation.metrics import load_counts
from ssltransfer.protocols.dense.segmentation.outcomes import segmentation_outcomes
from ssltransfer.protocols.detection.average_precision import match_detections, round_like_detectron2
from ssltransfer.protocols.detection.detection_file import load_detections
from ssltransfer.protocols.detection.objects import read_annotations, voc_objects
from ssltransfer.protocols.detection.outcomes import detection_outcomes
from ssltransfer.protocols.estimators.evaluation import estimator_outcomes
from ssltransfer.protocols.fewshot import FewShotSettings, episode_outcome
from ssltransfer.protocols.image_means import image_mean_outcomes
from ssltransfer.protocols.knn.evaluation import measure_knn
from ssltransfer.protocols.knn.neighbour_file import load_neighbours
from ssltransfer.protocols.knn.settings import KnnSettings
from ssltransfer.protocols.label_efficiency.evaluation import ALL, curve_outcomes
from ssltransfer.protocols.linear.outcomes import classification_outcomes
from ssltransfer.results.outcome_file import Outcome, assign_values, save_outcomes
from ssltransfer.results.outcome_header import has_outcomes, outcome_path, short_path
from ssltransfer.results.prediction_file import load_predictions
from ssltransfer.results.score_reader import read_score
from ssltransfer.settings import read_settings


class Stored(NamedTuple):
    """A score file, and where its jobs stored what it was computed from.

    Attributes
    ----------
    score : dict
        The content of the score file.
    path : Path
        ``.../scores/{protocol}/{model}/{dataset}.json``.
    """

    score: dict
    path: Path

    def file(self, folder: str, suffix: str, protocol: str | None = None) -> Path:
        """Path of a file of this cell (or of the same model and dataset under another protocol)."""
        own, model, dataset = self.path.parts[-3:]
        return self.path.parents[3] / folder / (protocol or own) / model / f"{Path(dataset).stem}{suffix}"

    @property
    def index_file(self) -> Path:
        """Path of the index of the dataset."""
        return self.path.parents[3] / "datasets" / self.path.stem / "index.parquet"


def derive_outcomes(
    list_file: str | Path,
    score_files: Sequence[str | Path],
    progress: Callable[[Iterable], Iterable] = lambda files: files,
) -> None:
    """Write the outcomes of scores that lack them, and a list of the scores that can have no interval.

    A cell whose stored files are damaged or missing gets outcomes without an interval, which say why.

    Parameters
    ----------
    list_file : path
        Of the list to write.
    score_files : sequence of path
    progress : callable
        Wraps the score files.
    """
    without = {}
    for path in progress(score_files):
        if has_outcomes(path):
            continue
        try:
            stored = Stored(read_score(path), Path(path))
        except InputError as error:
            log.warning("%s", error)  # the summary reports it
            continue
        try:
            outcomes = stored_outcomes(stored)
        except (InputError, OSError, KeyError, TypeError, ValueError, IndexError) as error:
            reason = f"no interval: {first_line(error) if isinstance(error, InputError | OSError) else repr(error)}"
            without[str(path)] = reason
            log.warning("%s: %s", path, reason)
            names = ((value["metric"], value["setting"], value["value"]) for value in stored.score["values"])
            note = f"{reason}; to try again, delete {short_path(path)}"
            outcomes = [Outcome(*name, units="", identity="", note=note) for name in names]
        save_outcomes(outcome_path(path), outcomes)
    write_json(list_file, {"scores": [str(path) for path in score_files], "without": without})


def stored_outcomes(stored: Stored) -> list[Outcome]:
    """Return the outcomes of a score from the files that its jobs stored.

    Raises
    ------
    InputError
        A file is missing or damaged, or does not belong to the score.
    """
    read = READERS[stored.score["kind"]]
    return assign_values(stored.score["values"], read(stored))


def _of_classifier(stored: Stored) -> list[Outcome]:
    (value,) = stored.score["values"]
    return classification_outcomes(value["metric"], load_predictions(stored.file("predictions", ".npz")))


def _of_calibration(stored: Stored) -> list[Outcome]:
    settings = read_settings(CalibrationSettings, stored.score["settings"])
    predictions = load_predictions(stored.file("predictions", ".npz", settings.of))
    kind = stored.score["values"][0]["setting"].partition("-")[0]
    return calibration_outcomes(predictions, settings.seed, kind)


def _of_votes(stored: Stored) -> list[Outcome]:
    score = stored.score
    path = stored.path.parents[3] / "neighbours" / score["details"]["neighbours"]
    neighbours, about = load_neighbours(path)
    index, settings = read_index(stored.index_file), read_settings(KnnSettings, score["settings"])
    return measure_knn(neighbours, about, index, score["dataset"], score["values"][0]["metric"], settings)[0].outcomes


def _of_episodes(stored: Stored) -> list[Outcome]:
    score, settings = stored.score, read_settings(FewShotSettings, stored.score["settings"])
    dataset, images = score["dataset"], score["details"]["images"]
    return [
        episode_outcome(dataset, images, settings, setting, entry["queries"], np.array(entry["correct"]))
        for setting, entry in score["episodes"].items()
    ]


def _of_curve(stored: Stored) -> list[Outcome]:
    score = stored.score
    (whole,) = (value for value in score["values"] if value["setting"] == ALL)
    details = score["details"]
    return curve_outcomes(whole["metric"], details["draws"], details["subsets"], whole, score["settings"]["of"])


def _of_estimators(stored: Stored) -> list[Outcome]:
    return estimator_outcomes({value["metric"]: value["value"] for value in stored.score["values"]})


def _of_detections(stored: Stored) -> list[Outcome]:
    index, dataset = read_index(stored.index_file), stored.score["dataset"]
    rows = np.flatnonzero(index.split_array() == "test")
    objects = voc_objects(read_annotations(index, dataset), rows)
    detections = round_like_detectron2(load_detections(stored.file("predictions", ".npz")))
    matches = match_detections(detections, objects, len(index.classes))
    return detection_outcomes(matches, objects, rows, stored.score["settings"]["rule"])


def _of_normals(stored: Stored) -> list[Outcome]:
    path = stored.file("per-image", ".csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    images = [{"pixels": int(row["pixels"])} for row in rows]
    for image, row in zip(images, rows, strict=True):
        if image["pixels"]:
            image |= {"mean": float(row["mean-angle"]), "within": [float(row[name]) for name in SHARES]}
    scenes = test_scenes(read_index(stored.index_file)) if stored.index_file.is_file() else None
    if scenes is not None and len(scenes) != len(rows):
        raise InputError(f"{path}: {len(rows)} images found, the index has {len(scenes)} test images")
    median = next(value["value"] for value in stored.score["values"] if value["metric"] == "median-angle")
    return normals_outcomes([row["image"] for row in rows], scenes, images, median, np.empty((0, 0)))


def _of_segmentation(stored: Stored) -> list[Outcome]:
    names, table = load_counts(stored.file("predictions", ".npz"))
    return segmentation_outcomes(names, table, stored.score["settings"]["absent_classes"])


def _of_inversion(stored: Stored) -> list[Outcome]:
    images = stored.score["details"]["images"]
    metrics = [value["metric"] for value in stored.score["values"]]
    values = {metric: [found[metric] for found in images.values()] for metric in metrics}
    return image_mean_outcomes(list(images), values)


def _of_attention(stored: Stored) -> list[Outcome]:
    images = stored.score["details"]["diffusion"]
    return image_mean_outcomes(list(images), {"attentive-diffusion": list(images.values())})


READERS = {
    "linear": _of_classifier,
    "finetune": _of_classifier,
    "calibration": _of_calibration,
    "knn": _of_votes,
    "fewshot": _of_episodes,
    "label-efficiency": _of_curve,
    "detection-frozen": _of_detections,
    "detection-finetune": _of_detections,
    "normals": _of_normals,
    "segmentation": _of_segmentation,
    "estimators": _of_estimators,
    "inversion": _of_inversion,
    "attention": _of_attention,
}
"""Kind of a score -> the function that reads what its jobs stored."""
