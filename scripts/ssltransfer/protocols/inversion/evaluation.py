"""Evaluation of an inversion: reconstructions compared with their originals."""

from collections.abc import Callable

import numpy as np

from ssltransfer.models.norm_table import norm_name
from ssltransfer.protocols.image_means import image_mean_outcomes
from ssltransfer.protocols.inversion import image_similarity
from ssltransfer.protocols.inversion.inverted_file import Inverted
from ssltransfer.protocols.inversion.settings import EvaluationSettings
from ssltransfer.results.picture_file import Pictures
from ssltransfer.results.score_file import Measurement, training_schedule
from ssltransfer.settings import defaults


def measure_inversion(
    inverted: Inverted,
    originals: np.ndarray,
    distances: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]],
    missing: dict[str, str],
    settings: EvaluationSettings,
) -> Measurement:
    """Measure the similarity of reconstructions and originals: means over the images, and the values of each image.

    Parameters
    ----------
    inverted : Inverted
    originals : ndarray of uint8, shape (n, h, w, 3)
    distances : dict
        LPIPS distance by the name of its network (see `image_similarity.load_distances`).
    missing : dict of str to str
        Reason why the distance of a network is missing, by the name of the network.
    settings : EvaluationSettings
    """
    images, trained, targets = inverted.images, inverted.provenance, originals / 255
    found = {f"lpips-{name}": ("distance", distance(images, targets)) for name, distance in distances.items()}
    colours = image_similarity.colour_errors(images, targets)
    for channel, values in zip(("red", "green", "blue"), colours.T, strict=True):
        found[f"mse-{channel}"] = "levels^2", values
    found["psnr"] = "decibels", image_similarity.signal_to_noise(images, targets)
    found["ssim"] = "similarity", image_similarity.structural_similarity(images, targets)
    return Measurement(
        kind="inversion",
        values=[
            {"metric": metric, "setting": "", "value": float(values.mean()), "unit": unit}
            for metric, (unit, values) in found.items()
        ],
        checkpoint=trained["checkpoint"],
        preprocessing={"transform": settings.transform, "norm": norm_name(trained["norm"])},
        details={
            "images": {
                name: {metric: float(values[row]) for metric, (_, values) in found.items()}
                for row, name in enumerate(inverted.names)
            },
            "training_cost": trained["cost"],
            "trained_settings": trained.get("settings"),
        },
        warnings=_warnings(missing, settings),
        coverage=trained.get("coverage"),
        schedule=training_schedule(_shortened(settings)),
        outcomes=image_mean_outcomes(inverted.names, {metric: values for metric, (_, values) in found.items()}),
    )


def _shortened(settings: EvaluationSettings) -> str:
    """Say how the iterations differ from the paper's; empty where there are no fewer."""
    steps = defaults("inversion")["steps"]
    return f"{settings.steps} iterations, where the paper has {steps}" if settings.steps < steps else ""


def _warnings(missing: dict[str, str], settings: EvaluationSettings) -> list[str]:
    """Say how the iterations differ from the paper's, and which distances are missing."""
    shortened = _shortened(settings)
    warnings = [shortened] if shortened else []
    if not settings.lpips:
        warnings.append("LPIPS is not measured: its networks would have to be downloaded")
    for name, reason in missing.items():
        warnings.append(f"lpips-{name} is missing, its network could not be downloaded: {reason}")
    return warnings


def draw_inversion(inverted: Inverted, originals: np.ndarray, settings: EvaluationSettings) -> Pictures:
    """Show originals and reconstructions; the arguments are those of `measure_inversion`."""
    bound = "a sigmoid" if settings.network.output == "sigmoid" else "clipping"
    return Pictures(
        inverted.names,
        {"image": originals},
        {"reconstruction": np.rint(255 * inverted.images).astype(np.uint8)},
        f"{settings.steps} iterations, images of {originals.shape[1]} pixels, bounded by {bound}.",
    )
