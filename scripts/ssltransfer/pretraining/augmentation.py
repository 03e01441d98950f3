"""Random views of a batch of images: crop, flip, colour jitter, grey (SimCLR, arXiv:2002.05709, appendix A).

All images of a batch are transformed together: the geometric part is one bilinear lookup, the colour part
one 3 x 3 matrix and one offset per image. Brightness, saturation, hue (a rotation about the grey axis) and
grey are linear in the colours, and contrast adds a constant, so their composition costs a single product.
Values are clipped once, at the end; torchvision clips after every operation.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

LUMA = (0.299, 0.587, 0.114)
LOG_ASPECT = math.log(4 / 3)


@dataclass(frozen=True)
class Augmentation:
    """Strength of the random transformations: the block `augmentation` of a recipe.

    Attributes
    ----------
    crop : tuple of float
        Smallest and largest area of the crop as fractions of the image, in (0, 1]. Its aspect ratio is
        log-uniform in [3/4, 4/3], as far as the image allows.
    flip : float
        Probability of a horizontal flip.
    jitter : float
        Probability that brightness, contrast, saturation and hue are changed.
    brightness, contrast, saturation : float
        The factor is uniform in [1 - value, 1 + value]; value in [0, 1].
    hue : float
        The rotation is uniform in [-value, value] turns; value in [0, 0.5].
    grey : float
        Probability of dropping the colours.
    """

    crop: tuple[float, float]
    flip: float
    jitter: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    grey: float


def augment(images: Tensor, strength: Augmentation, generator: torch.Generator) -> Tensor:
    """Return one random view of every image.

    Parameters
    ----------
    images : Tensor
        uint8 (n, h, w, 3), on any device.
    strength : Augmentation
    generator : torch.Generator
        On the CPU, so that all devices see the same views.

    Returns
    -------
    Tensor
        float32 (n, h, w, 3) in [0, 255], on the device of `images`.
    """
    # One call draws everything, used or not: eleven numbers per view.
    draws = torch.rand(len(images), 11, generator=generator).to(images.device)
    return recolour(crop(images.float(), strength, draws[:, :5]), strength, draws[:, 5:])


def crop(pixels: Tensor, strength: Augmentation, draws: Tensor) -> Tensor:
    """Resize a random rectangle of every image to full size, flipped or not; `draws` is (n, 5) in [0, 1)."""
    area, aspect, x, y, flip = draws.unbind(1)
    smallest, largest = strength.crop
    area = smallest + (largest - smallest) * area
    aspect = torch.exp((2 * aspect - 1) * LOG_ASPECT * (smallest < 1))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    theta = pixels.new_zeros(len(pixels), 2, 3)
    theta[:, 0, 0] = torch.where(flip < strength.flip, -width, width)
    theta[:, 0, 2] = (2 * x - 1) * (1 - width)
    theta[:, 1, 1] = height
    theta[:, 1, 2] = (2 * y - 1) * (1 - height)
    pixels = pixels.permute(0, 3, 1, 2)
    grid = functional.affine_grid(theta, list(pixels.shape), align_corners=False)
    views = functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    return views.permute(0, 2, 3, 1)


def recolour(pixels: Tensor, strength: Augmentation, draws: Tensor) -> Tensor:
    """Change the colours of float (n, h, w, 3) images in [0, 255]; `draws` is (n, 6) in [0, 1)."""
    jitter, *changes, grey = draws.unbind(1)
    spread = torch.stack([2 * change - 1 for change in changes]) * (jitter < strength.jitter)
    brightness = 1 + strength.brightness * spread[0]
    contrast = 1 + strength.contrast * spread[1]
    saturation = (1 + strength.saturation * spread[2]) * (grey >= strength.grey)
    hue = 2 * math.pi * strength.hue * spread[3]

    luma = pixels.new_tensor(LUMA)
    matrix = saturate(saturation) @ rotate_hue(hue) * brightness.view(-1, 1, 1)
    mean = (pixels.mean((1, 2)).unsqueeze(1) @ matrix.mT) @ luma  # (n, 1): mean luma after the matrix
    offset = ((1 - contrast).unsqueeze(1) * mean).view(-1, 1, 1)
    matrix = matrix * contrast.view(-1, 1, 1)
    coloured = torch.baddbmm(offset, pixels.flatten(1, 2), matrix.mT)
    return coloured.view(pixels.shape).clamp_(0, 255)


def saturate(factor: Tensor) -> Tensor:
    """Matrices (n, 3, 3) that mix every colour with its luma: 0 is grey, 1 the identity."""
    grey = factor.new_tensor(LUMA).expand(3, 3)
    return torch.lerp(grey, torch.eye(3, device=factor.device), factor.view(-1, 1, 1))


def rotate_hue(angle: Tensor) -> Tensor:
    """Rotations (n, 3, 3) of the colours by `angle` (radians) about the grey axis (Rodrigues' formula)."""
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=angle.device) / math.sqrt(3)
    sine, cosine = angle.sin().view(-1, 1, 1), angle.cos().view(-1, 1, 1)
    identity = torch.eye(3, device=angle.device)
    return cosine * identity + sine * cross + (1 - cosine) * torch.full_like(identity, 1 / 3)
