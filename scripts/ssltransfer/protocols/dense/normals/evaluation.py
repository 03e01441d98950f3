"""Evaluation of a network for surface normals: angular errors, score and pictures of predictions."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ssltransfer.datasets.coverage import coverage
from ssltransfer.datasets.images import read_image
from ssltransfer.datasets.index import Index, short_name
from ssltransfer.models.norm_table import norm_name
from ssltransfer.protocols.dense import image_results
from ssltransfer.protocols.dense.frames import resized
from ssltransfer.protocols.dense.normals.angles import MEDIAN_TOLERANCE, AngularErrors, angles
from ssltransfer.protocols.dense.normals.dataset import NormalsDataset
from ssltransfer.protocols.dense.normals.ground_truth import unpack_normals
from ssltransfer.protocols.dense.normals.network import STRIDE, NormalsNetwork, logits_to_normals
from ssltransfer.protocols.dense.normals.outcomes import SHARES, normals_outcomes, test_scenes
from ssltransfer.protocols.dense.normals.pictures import CAPTION, error_colours, normal_colours, subsample
from ssltransfer.protocols.dense.normals.settings import NormalsSettings
from ssltransfer.protocols.dense.normals.training import timetable
from ssltransfer.protocols.dense.padded_batches import padded_logits
from ssltransfer.results.picture_file import Pictures
from ssltransfer.results.score_file import Measurement, percent, training_schedule
from ssltransfer.settings import defaults

BATCH_PIXELS = 300_000
"""Number of pixels of a batch; the probabilities of 40 code words take 160 bytes per pixel."""


@dataclass(frozen=True)
class Predictor:
    """A trained network and the images that it is tested on.

    Attributes
    ----------
    network : NormalsNetwork
        Moved to the device, and used in evaluation mode.
    dataset : NormalsDataset
    shorter : int
        Shorter side of the network's input, in pixels.
    norm : str
        Input normalisation.
    device : torch.device
    """

    network: NormalsNetwork
    dataset: NormalsDataset
    shorter: int
    norm: str
    device: torch.device

    def __post_init__(self) -> None:
        self.network.to(self.device, memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def predict(self, rows: Sequence[int]) -> np.ndarray:
        """Predict the normals of images, float32 (n, h, w, 3), at the size of the originals."""
        images = [torch.from_numpy(self.dataset.image(row, self.shorter)) for row in rows]
        stride = self.network.stride
        logits, sizes = padded_logits(self.network, images, stride, self.norm, self.device)
        codebook = torch.from_numpy(self.dataset.codebook).to(self.device)
        normals = logits_to_normals(logits, codebook, sizes[0], self.dataset.normals.shape[1:3], stride)
        return normals.cpu().numpy()


def angular_errors(
    predictor: Predictor,
    rows: np.ndarray,
    progress: Callable[[Iterable, int], Iterable] = lambda batches, total: batches,
) -> AngularErrors:
    """Angular errors of the predicted normals, at all pixels of these images with a known normal.

    Parameters
    ----------
    predictor : Predictor
    rows : ndarray of int
    progress : callable
        Wraps (batches, number of batches).
    """
    dataset = predictor.dataset
    height, width = dataset.normals.shape[1:3]
    new = resized(width, height, predictor.shorter, dataset.longest)
    at_once = max(1, BATCH_PIXELS // max(height * width, new[0] * new[1]))
    starts = range(0, len(rows), at_once)
    errors = AngularErrors()
    for start in progress(starts, len(starts)):
        some = rows[start : start + at_once]
        for row, normals in zip(some, predictor.predict(some), strict=True):
            truth, known = unpack_normals(dataset.normals[row])
            errors.add(angles(normals[known], truth[known]))
    return errors


def measure_normals(
    errors: AngularErrors,
    index: Index,
    trained: dict,
    norm: str,
    settings: NormalsSettings,
    stride: int = STRIDE,
) -> Measurement:
    """Summarise angular errors as a score: mean and median angle in degrees, and shares of pixels in percent.

    Parameters
    ----------
    errors : AngularErrors
        Errors of all test images.
    index : Index
    trained : dict
        Header of the file of the trained network.
    norm : str
        Input normalisation.
    settings : NormalsSettings
    stride : int
        Pixels between neighbouring logits of the network.
    """
    rows = np.flatnonzero(index.split_array() == "test")
    empty, images = sum(image["pixels"] == 0 for image in errors.images), len(errors.images)
    epochs, papers = settings.schedule.epochs, defaults("normals")["schedule"]["epochs"]
    warnings = list(index.warnings)
    if empty:
        warnings.append(f"{empty} of {images} test images have no known normal")
    text = f"{epochs} epochs, where the paper has {papers}"
    if epochs != papers:
        warnings.append(text)
    steps, _, _ = timetable(settings.schedule, index.split.count("train"))
    if (initial := (1 - settings.network.norm_momentum) ** steps) > 1e-3:
        warnings.append(
            f"after {steps} steps the running statistics of the head still hold {100 * initial:.0f} % of their "
            "initial values (norm_momentum)"
        )
    if stride != STRIDE:
        warnings.append(f"labels and logits every {stride} pixels, those of ResNets every {STRIDE}")
    return Measurement(
        kind="normals",
        values=[
            {"metric": "mean-angle", "setting": "", "value": errors.mean(), "unit": "degrees"},
            {"metric": "median-angle", "setting": "", "value": errors.median(), "unit": "degrees"},
            *(percent(name, value) for name, value in zip(SHARES, errors.within(), strict=True)),
        ],
        checkpoint=trained["checkpoint"],
        preprocessing={
            "shorter_side": settings.sides.test,
            "interpolation": "bilinear",
            "norm": norm_name(norm),
            "normalisation": settings.normalisation,
        }
        | ({"stride": stride} if stride != STRIDE else {}),
        details={
            "images": {"train": index.split.count("train"), "test": images},
            "pixels": errors.pixels,
            "empty_images": empty,
            "median_tolerance": MEDIAN_TOLERANCE,
            "training_cost": trained["cost"],
            "trained_settings": trained.get("settings"),
        },
        warnings=warnings,
        coverage=coverage(index),
        schedule=training_schedule(text if epochs < papers else ""),
        outcomes=normals_outcomes(
            [index.image[row] for row in rows],
            test_scenes(index),
            errors.images,
            errors.median(),
            np.array(errors.histograms),
        ),
    )


def write_image_table(path: str | Path, images: list[str], errors: AngularErrors) -> None:
    """Write a CSV table with one row per test image: its pixels with a known normal, and its errors if it has any."""
    results = (
        (image["pixels"], [image["mean"], image["median"], *image["within"]] if image["pixels"] else [])
        for image in errors.images
    )
    image_results.save_table(path, ["mean-angle", "median-angle", *SHARES], images, results)


def draw_predictions(predictor: Predictor, rows: np.ndarray, count: int = 8, side: int = 256) -> Pictures:
    """Draw images, known and predicted normals and angular errors.

    Parameters
    ----------
    predictor : Predictor
    rows : ndarray of int
    count : int
        Number of images, spread evenly over `rows`.
    side : int
        Limit of a panel's longer side in pixels.
    """
    dataset = predictor.dataset
    some = image_results.spread(rows, count)
    predicted = np.concatenate([predictor.predict([row]) for row in some])
    truth, known = unpack_normals(dataset.normals[some])
    errors = np.full(known.shape, np.nan)
    errors[known] = angles(predicted[known], truth[known])
    images = np.stack([np.asarray(read_image(dataset.root, dataset.images[row])) for row in some])
    reference = {"Image": images, "Ground truth": normal_colours(truth, known)}
    panels = {"Prediction": normal_colours(predicted), "Error": error_colours(errors)}
    return Pictures(
        [short_name(dataset.images[row]) for row in some],
        {title: subsample(panel, side) for title, panel in reference.items()},
        {title: subsample(panel, side) for title, panel in panels.items()},
        CAPTION,
    )
