"""Maps of four sizes from the one map of a plain transformer: the first layers of ViTDet's simple feature pyramid."""

from torch import nn


def layer_norm(channels: int) -> nn.Module:
    """Return a layer norm over the channels of a map."""
    from torchvision.models.convnext import LayerNorm2d  # seconds of import that other networks do not need

    return LayerNorm2d(channels, eps=1e-6)


def scale_layers(channels: int) -> list[tuple[int, list[nn.Module]]]:
    """Return the layers that enlarge a map 4 and 2 times, keep and halve it (Li et al., 2022), and their channels.

    Transposed convolutions, nothing, and a maximum. On a map of stride 16 they give the strides 4, 8, 16 and 32.
    """
    half, quarter = channels // 2, channels // 4
    return [
        (
            quarter,
            [
                *(nn.ConvTranspose2d(channels, half, 2, stride=2), layer_norm(half), nn.GELU()),
                nn.ConvTranspose2d(half, quarter, 2, stride=2),
            ],
        ),
        (half, [nn.ConvTranspose2d(channels, half, 2, stride=2)]),
        (channels, []),
        (channels, [nn.MaxPool2d(2)]),
    ]
