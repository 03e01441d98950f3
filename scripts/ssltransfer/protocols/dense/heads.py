"""Parts of decoders for dense prediction: pyramid pooling, initialisation, loss and parameter groups."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from ssltransfer.datasets.masks import IGNORE

BINS = (1, 2, 3, 6)
"""Bins of pyramid pooling on each side."""

DECAYING = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
"""Layers whose weights decay."""


def convolution(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, ...]:
    """Return a convolution that keeps the size of the map, batch norm and ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def initialise(module: nn.Module, norm_momentum: float) -> None:
    """Initialise a decoder as the paper's software does.

    Kaiming normal (fan in) convolutions, batch norm with scale 1 and shift 1e-4.

    Parameters
    ----------
    module : nn.Module
    norm_momentum : float
        Weight of a step's statistics in the running ones that batch norm uses in testing.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.bias, 1e-4)
    set_norm_momentum(module, norm_momentum)


def set_norm_momentum(module: nn.Module, momentum: float) -> None:
    """Set the momentum of every batch norm below a module."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            layer.momentum = momentum


class PyramidPooling(nn.Module):
    """The head of PSPNet (protocol of v1 and v2: bins 1, 2, 3, 6; no auxiliary loss).

    Each bin's averages go through a 1x1 convolution, batch norm and ReLU, are brought back to the size of the map
    bilinearly and stacked onto it; a 3x3 convolution, batch norm, ReLU, dropout of whole channels and a 1x1
    convolution give the logits.

    Parameters
    ----------
    features : int
        Channels of the feature map.
    codes : int
        Number of classes.
    channels : int
        Channels of each bin and of the 3x3 convolution; 512 in the paper.
    dropout : float
        Probability that a channel is dropped.
    norm_momentum : float
        See `initialise`; 0.001 in the paper's software. The bin of one cell sees one value per image and step, so that
        at 0.1 its running variance is that of few images.
    """

    def __init__(self, features: int, codes: int, channels: int, dropout: float, norm_momentum: float) -> None:
        super().__init__()
        self.bins = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), *convolution(features, channels, 1)) for side in BINS
        )
        self.last = nn.Sequential(
            *convolution(features + len(BINS) * channels, channels, 3),
            nn.Dropout2d(dropout),
            nn.Conv2d(channels, codes, 1),
        )
        initialise(self, norm_momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, features, h, w) to logits (n, codes, h, w)."""
        pooled = [enlarge(pool(x), x) for pool in self.bins]
        return self.last(torch.cat([x, *pooled], dim=1))


def enlarge(x: Tensor, like: Tensor) -> Tensor:
    """Resize a map bilinearly to the height and width of another."""
    return functional.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


def cell_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the cells with a label; 0 if there are none."""
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def parameter_groups(module: nn.Module, learning_rate: float, weight_decay: float) -> list[dict]:
    """Parameter groups in which the weights of convolutions and linear layers decay alone (not biases, not norms)."""
    decaying = [m.weight for m in module.modules() if isinstance(m, DECAYING)]
    inside = {id(weight) for weight in decaying}
    rest = [parameter for parameter in module.parameters() if id(parameter) not in inside]
    common = {"lr": learning_rate, "initial_lr": learning_rate}
    return [
        {"params": decaying, "weight_decay": weight_decay, **common},
        {"params": rest, "weight_decay": 0.0, **common},
    ]
