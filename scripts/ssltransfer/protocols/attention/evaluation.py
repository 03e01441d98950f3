"""Evaluation of occlusion attention: maps, score and pictures (paper v1 Figs 5 and 8; v2 Figs 4 and 9, Table 9)."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ssltransfer.files import atomic_write
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.norm_table import norm_name
from ssltransfer.models.resnet import ResNet
from ssltransfer.protocols.attention.mask_grid import MaskGrid, attention_map, diffusion
from ssltransfer.protocols.attention.occlusion import Occluder, WindowOccluder
from ssltransfer.protocols.attention.settings import AttentionSettings
from ssltransfer.protocols.image_means import image_mean_outcomes
from ssltransfer.results.picture_file import Pictures
from ssltransfer.results.score_file import Measurement, percent
from ssltransfer.row_file import read_array, save_array
from ssltransfer.training_state import Run

SCALE = np.array([(0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191)], np.float64)
"""Colours from low to high attention, dark to bright, so that the order is kept in grey."""


def make_grid(settings: AttentionSettings) -> MaskGrid:
    """Return the mask positions of a settings block."""
    return MaskGrid(settings.size, settings.mask, settings.stride)


def attention_maps(
    backbone: Backbone, images: np.ndarray, norm: str, settings: AttentionSettings, device: torch.device, run: Run
) -> np.ndarray:
    """Measure the attention maps of images, float64 (n, size, size).

    Parameters
    ----------
    backbone : Backbone
        From `models.fusion.freeze`, on the device. Of a `ResNet`, only the windows that a mask changes are recomputed.
    images : ndarray of uint8, shape (n, bordered size, bordered size, 3)
        Images with their borders.
    norm : str
        Input normalisation.
    settings : AttentionSettings
    device : torch.device
    run : Run
        Its key describes everything that the maps depend on, apart from the images.
    """
    grid = make_grid(settings)
    kind = WindowOccluder if isinstance(backbone, ResNet) else Occluder

    def occluder(image: np.ndarray) -> Occluder:
        return kind(backbone, image, norm, grid, settings.fill, settings.view, settings.feature)

    errors = occlude_images(occluder, images, 16 if device.type == "cuda" else 8, run)
    return np.stack([attention_map(values, grid) for values in errors])


def occlude_images(
    occluder: Callable[[np.ndarray], Occluder], images: np.ndarray, group_side: int, run: Run
) -> np.ndarray:
    """Measure the errors of images one after another; the finished images of an interrupted run are read back.

    Parameters
    ----------
    occluder : callable
        Image -> its `Occluder`.
    images : ndarray of uint8, shape (n, bordered size, bordered size, 3)
    group_side : int
        See `Occluder.errors`.
    run : Run
        Its resume folder keeps the finished images, and the finished rows of one that `Occluder` works on; its progress
        wraps the groups of masks of each image.

    Returns
    -------
    ndarray of float64, shape (n, masks, masks)
        Errors by image, row and column of the mask.
    """
    run.resume_dir.mkdir(parents=True, exist_ok=True)
    found = []
    for image in images:
        path = run.resume_dir / f"{hashlib.sha256(run.key.encode() + image.tobytes()).hexdigest()}.npy"
        if not path.exists():
            rows = path.with_suffix(".rows.npy")
            errors = occluder(image).errors(group_side, lambda groups: run.progress(groups, len(groups)), rows)
            save_array(path, errors)
            rows.unlink(missing_ok=True)
        found.append(read_array(path))
    return np.stack(found)


def save_maps(path: str | Path, maps: np.ndarray, names: list[str]) -> None:
    """Write attention maps as npz: ``images``, their names, and ``attention``, float32 (n, size, size)."""
    with atomic_write(path) as temporary:
        np.savez(temporary, images=np.array(names), attention=maps.astype(np.float32))


def measure_attention(
    maps: np.ndarray,
    names: list[str],
    checkpoint: dict,
    norm: str,
    settings: AttentionSettings,
    covered: dict | None = None,
) -> Measurement:
    """Summarise attention maps as a score: attentive diffusion in percent, averaged over the images.

    Parameters
    ----------
    maps : ndarray, shape (n, size, size)
        See `attention_maps`.
    names : list of str
        Names of the images.
    checkpoint : dict
        Provenance of the backbone.
    norm : str
        Input normalisation.
    settings : AttentionSettings
    covered : dict, optional
        The entry `coverage` of the score.
    """
    grid = make_grid(settings)
    values = [diffusion(attention) for attention in maps]
    approximation = f"approximation: masks in steps of {grid.stride}, not at every position"
    return Measurement(
        kind="attention",
        values=[percent("attentive-diffusion", float(np.mean(values)))],
        checkpoint=checkpoint,
        preprocessing={"transform": f"stretch{grid.bordered_size}", "norm": norm_name(norm)},
        details={"masks": len(grid.starts) ** 2, "diffusion": dict(zip(names, values, strict=True))},
        warnings=[approximation] if grid.stride > 1 else [],
        coverage=covered,
        outcomes=image_mean_outcomes(names, {"attentive-diffusion": values}),
    )


def draw_attention(images: np.ndarray, maps: np.ndarray, names: list[str], settings: AttentionSettings) -> Pictures:
    """Show images (n, bordered size, bordered size, 3) without their borders, and their attention maps."""
    grid = make_grid(settings)
    inside = slice(grid.margin, grid.margin + grid.size)
    seen = images[:, inside, inside]
    steps = "at every position" if grid.stride == 1 else f"in steps of {grid.stride} pixels, an approximation"
    return Pictures(
        names,
        {"image": seen},
        {"attention": np.stack([overlay(image, attention) for image, attention in zip(seen, maps, strict=True)])},
        f"Mask of {grid.mask} x {grid.mask} pixels {steps}, on images of {grid.size} pixels "
        f"(centres of {grid.bordered_size}).",
    )


def overlay(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Colour an image by its attention, from the lowest to the highest value of its own map.

    Parameters
    ----------
    image : ndarray of uint8, shape (size, size, 3)
    attention : ndarray, shape (size, size)

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
        Two thirds colour, one third the image in grey.
    """
    low, high = attention.min(), attention.max()
    level = (attention - low) / (high - low) if high > low else np.zeros_like(attention)
    places = np.linspace(0, 1, len(SCALE))
    colour = np.stack([np.interp(level, places, SCALE[:, channel]) for channel in range(3)], axis=-1)
    grey = image.mean(axis=2, keepdims=True)
    return np.clip(np.rint(2 / 3 * colour + grey / 3), 0, 255).astype(np.uint8)
