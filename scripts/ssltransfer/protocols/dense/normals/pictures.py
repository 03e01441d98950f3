"""Normals and angular errors as colours."""

import numpy as np

UNKNOWN = (128, 128, 128)
MAX_ERROR = 60.0
"""Angular error in degrees at which the colour scale ends, in white."""

CAPTION = (
    "Red grows with the normal's x (right), green with y (up), blue with z (towards the camera). Errors: dark at 0°, "
    f"white from {MAX_ERROR:.0f}° on."
)

# Dark to bright in even steps of lightness, so that it also reads in grey.
_SCALE = np.array([(13, 8, 35), (84, 19, 110), (168, 46, 95), (229, 92, 48), (250, 175, 30), (255, 255, 255)])


def normal_colours(normals: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """Colour unit normals (..., 3): red is right, green up, blue towards the camera; grey where not known; uint8."""
    colours = np.round((np.asarray(normals, np.float64) + 1) * 127.5)
    colours = np.clip(colours, 0, 255).astype(np.uint8)
    return colours if known is None else np.where(known[..., None], colours, np.uint8(UNKNOWN))


def error_colours(errors: np.ndarray) -> np.ndarray:
    """Colour angular errors (...) in degrees, from dark at 0 to white at `MAX_ERROR`; grey where NaN; uint8."""
    place = np.clip(np.nan_to_num(errors) / MAX_ERROR, 0, 1)
    steps = np.linspace(0, 1, len(_SCALE))
    colours = np.stack([np.interp(place, steps, _SCALE[:, channel]) for channel in range(3)], axis=-1)
    return np.where(np.isnan(errors)[..., None], UNKNOWN, np.round(colours)).astype(np.uint8)


def subsample(images: np.ndarray, side: int) -> np.ndarray:
    """Take every k-th row and column of images (n, h, w, ...), so that no side is longer than `side`."""
    step = -(-max(images.shape[1:3]) // side)
    return images[:, step // 2 :: step, step // 2 :: step]
