"""Draw docs/images/normals.png, the frame of surface normals: `uv run python docs/images/draw_normals.py`."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

REPOSITORY = Path(__file__).parents[2]
sys.path.append(str(REPOSITORY / "scripts"))

from ssltransfer.datasets import shapes  # noqa: E402
from ssltransfer.protocols.dense.normals.ground_truth import unpack_normals  # noqa: E402
from ssltransfer.protocols.dense.normals.pictures import normal_colours  # noqa: E402

SCENES = (0, 11, 4)


def arrows(ax) -> None:
    """Draw the axes: x to the right, y up, z out of the picture."""
    origin = np.array([9.0, 54.0])
    for (dx, dy), name, colour in (((14, 0), "x", "#ff8080"), ((0, -14), "y", "#80ff80")):
        ax.annotate("", origin + (dx, dy), origin, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.5})
        ax.text(*(origin + (dx * 1.25, dy * 1.25)), name, color=colour, ha="center", va="center", fontsize=8)
    ax.plot(*origin, marker="o", markersize=7, markerfacecolor="none", markeredgecolor="#ccccff")
    ax.plot(*origin, marker=".", markersize=3, color="#ccccff")
    ax.text(*(origin - (5, -5)), "z", color="#ccccff", ha="center", va="center", fontsize=8)


def main() -> None:
    """Draw scenes, the colours of their normals, and the three components."""
    generated = shapes.generate(train=20, test=1)
    normals, known = unpack_normals(generated.arrays["normals"])
    titles = ("image", "normals as colours", "x: to the right", "y: up", "z: to the camera")
    figure, axes = plt.subplots(len(SCENES), 5, figsize=(8, 1.55 * len(SCENES)), layout="constrained")
    for row, scene in zip(axes, SCENES, strict=True):
        row[0].imshow(generated.images[scene])
        row[1].imshow(normal_colours(normals[scene], known[scene]))
        for axis in range(3):
            shown = np.where(known[scene], normals[scene][..., axis], np.nan)
            image = row[2 + axis].imshow(shown, cmap="RdBu_r", vmin=-1, vmax=1)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=9)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_facecolor("#808080")
    arrows(axes[0, 1])
    figure.colorbar(image, ax=axes[:, 2:], ticks=(-1, 0, 1), fraction=0.03)
    figure.savefig(Path(__file__).with_name("normals.png"), dpi=100)


if __name__ == "__main__":
    main()
