"""Last feature maps on one grid: a position for every 16 x 16 pixels, whatever the patch or stride of the network."""

from torch import Tensor
from torch.nn import functional

from ssltransfer.errors import InputError
from ssltransfer.models.backbone import Backbone

GRID = 16
"""Pixels of an image between neighbouring positions."""


def grid_map(backbone: Backbone, images: Tensor) -> Tensor:
    """Map normalised images to the last map of a backbone, resized so that its positions are `GRID` pixels apart.

    A network whose last map has another stride sees the images resized by stride / 16 (bilinearly, antialiased): by
    14/16 with patches of 14 pixels, twice as large at stride 32. So all networks have the same number of positions.

    Parameters
    ----------
    backbone : Backbone
        Takes images of several sizes.
    images : Tensor, shape (n, 3, h, w)
        Sides are multiples of 16.

    Returns
    -------
    Tensor, shape (n, channels, h / 16, w / 16)

    Raises
    ------
    InputError
        If the map has another shape.
    """
    require_maps(backbone)
    shape = tuple(side // GRID for side in images.shape[2:])
    if backbone.strides[-1] != GRID:
        sides = [positions * backbone.strides[-1] for positions in shape]
        images = functional.interpolate(images, sides, mode="bilinear", antialias=True)
    found = backbone.feature_map(images)
    require_shape(found, shape, backbone.strides[-1])
    return found


def require_maps(backbone: Backbone) -> None:
    """Require a backbone with feature maps; InputError otherwise."""
    if not backbone.strides:
        raise InputError(
            "the network gives vectors only, expected feature maps too; leave the model out of this protocol "
            "(models_of)"
        )


def require_shape(found: Tensor, shape: tuple[int, ...], stride: int) -> None:
    """Require a map of this height and width; InputError otherwise."""
    if tuple(found.shape[2:]) != shape:
        raise InputError(
            f"the map of stride {stride} has {'x'.join(map(str, found.shape[2:]))} positions, expected "
            f"{'x'.join(map(str, shape))}: the network does not pad its images, so that positions are not where "
            "labels and anchors are; leave the model out of this protocol (models_of)"
        )
