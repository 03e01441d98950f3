"""File format for the example images of a job: inputs and ground truth (`reference`) and model outputs (`panels`)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ssltransfer.errors import InputError
from ssltransfer.files import atomic_write
from ssltransfer.row_file import load_arrays


@dataclass(frozen=True)
class Pictures:
    """Panels of small images: one row of images per panel, with the same columns for all models of a protocol.

    Attributes
    ----------
    columns : list of str
        Name of each image.
    reference : dict of str to ndarray of uint8, shape (columns, h, w, 3)
        Panels that do not depend on the model, by title: the images, the ground truth.
    panels : dict of str to ndarray of uint8, shape (columns, h, w, 3)
        Outputs of the model, by title.
    caption : str
        Caveats of the pictures, such as settings that differ from the paper's.
    legend : dict of str to (int, int, int)
        Meaning of colours, such as the classes of pixels: red, green and blue by name.
    """

    columns: list[str]
    reference: dict[str, np.ndarray]
    panels: dict[str, np.ndarray]
    caption: str = ""
    legend: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for title, images in (self.reference | self.panels).items():
            fits = images.dtype == np.uint8 and images.ndim == 4 and images.shape[::3] == (len(self.columns), 3)
            if not fits:
                expected = f"uint8 ({len(self.columns)}, height, width, 3)"
                raise ValueError(f"{title}: found {images.dtype} {images.shape}, expected {expected}")


def save_pictures(path: str | Path, pictures: Pictures) -> None:
    """Write pictures as a compressed npz file."""
    arrays: dict[str, Any] = {
        "columns": np.array(pictures.columns),
        "reference_titles": np.array(list(pictures.reference)),
        "panel_titles": np.array(list(pictures.panels)),
        "caption": np.array(pictures.caption),
    }
    arrays |= {f"reference_{i}": images for i, images in enumerate(pictures.reference.values())}
    arrays |= {f"panel_{i}": images for i, images in enumerate(pictures.panels.values())}
    if pictures.legend:
        arrays["legend_names"] = np.array(list(pictures.legend))
        arrays["legend_colours"] = np.array(list(pictures.legend.values()), np.uint8)
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def load_pictures(path: str | Path) -> Pictures:
    """Read what `save_pictures` wrote; InputError if the file is something else."""
    file = load_arrays(path, "pictures")
    try:
        reference = {str(title): file[f"reference_{i}"] for i, title in enumerate(file["reference_titles"])}
        panels = {str(title): file[f"panel_{i}"] for i, title in enumerate(file["panel_titles"])}
        names, colours = file.get("legend_names", ()), file.get("legend_colours", ())
        legend = {
            str(name): (int(red), int(green), int(blue))
            for name, (red, green, blue) in zip(names, colours, strict=True)
        }
        return Pictures([str(name) for name in file["columns"]], reference, panels, str(file["caption"]), legend)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} holds no pictures of this workflow ({error}); delete it") from None
