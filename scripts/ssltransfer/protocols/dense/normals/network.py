"""A backbone with a pyramid pooling head (PSPNet), and the conversion of its logits to normals."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssltransfer.errors import InputError, first_line
from ssltransfer.models.architecture import is_resnet
from ssltransfer.models.backbone import ANY_SIZE, Backbone
from ssltransfer.models.backbone_file import load_backbone
from ssltransfer.models.grid_map import GRID, grid_map, require_maps
from ssltransfer.models.resnet import ResNet
from ssltransfer.protocols.dense.heads import PyramidPooling
from ssltransfer.protocols.dense.normals.settings import Network, NormalsSettings
from ssltransfer.protocols.dense.padded_batches import upsample
from ssltransfer.results.tensor_file import load_tensors

STRIDE = 8
"""Pixels between the positions of a dilated residual network."""


def output_stride(arch: str) -> int:
    """Pixels of the (resized) image between the labels and logits of a network."""
    return STRIDE if is_resnet(arch) else GRID


def dilate(backbone: ResNet) -> ResNet:
    """Give the last two stages stride 1 and dilation 2 and 4, so that the output stride falls from 32 to 8.

    As in the paper's software and torchvision (``replace_stride_with_dilation``), the first block of a stage keeps the
    dilation of the stage before. The parameters stay what they are. The network is changed in place.
    """
    for stage, dilation in ((backbone.layer3, 2), (backbone.layer4, 4)):
        for number, block in enumerate(stage):
            block.conv2 = _unstrided(block.conv2, dilation if number else dilation // 2)
            if block.downsample is not None:
                block.downsample[0].stride = (1, 1)
    return backbone


def _unstrided(conv: nn.Conv2d, dilation: int) -> nn.Conv2d:
    # A plain convolution also where the strided one was padded as SAME does: with stride 1 that is symmetric.
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        3,
        padding=dilation,
        dilation=dilation,
        bias=False,
        device=conv.weight.device,
    )
    plain.weight = conv.weight
    return plain


class NormalsNetwork(nn.Module):
    """Backbone and pyramid pooling head.

    A `ResNet` is dilated to stride 8 (`dilate`), as in the paper. The head of any other network gets its last map,
    with one position for 16 x 16 pixels (`grid_map.grid_map`).

    Parameters
    ----------
    backbone : Backbone
        A `ResNet` is changed in place.
    codes : int
        Number of classes.
    head : Network
        Settings of the head; see `PyramidPooling`.
    frozen : {'all', 'first-four'}
        The whole backbone (v2), or of a `ResNet` stem and first three stages (v1). Frozen stages keep their weights,
        batch-norm scales, shifts and running statistics.
    seed : int
        Seed of the head's initialisation; the global generator is left as it was.

    Attributes
    ----------
    stride : int
        Pixels between neighbouring logits.
    trained : nn.ModuleDict
        The trained modules: ``head`` and, if the last stage is trained, ``layer4``. The rest is always in evaluation
        mode.

    Raises
    ------
    InputError
        If the backbone has no maps, or ``first-four`` is asked for of one that is not a `ResNet`.
    """

    def __init__(self, backbone: Backbone, codes: int, head: Network, frozen: str, seed: int) -> None:
        super().__init__()
        require_maps(backbone)
        if isinstance(backbone, ResNet):
            self.stride, backbone = STRIDE, dilate(backbone)
        elif frozen == "all":
            self.stride = GRID
        else:
            raise InputError(
                "frozen: found first-four, expected all for a network that is not a ResNet of this project"
            )
        self.backbone = backbone.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.trained = nn.ModuleDict({"head": PyramidPooling(backbone.channels[-1], codes, **asdict(head))})
        if frozen == "first-four":
            self.trained["layer4"] = backbone.layer4.requires_grad_(True)
        self.train(False)

    def train(self, mode: bool = True) -> "NormalsNetwork":
        """Set the trained part to training mode, the frozen one to evaluation mode in any case."""
        super().train(False)
        self.trained.train(mode)
        return self

    def trained_tensors(self, codebook: np.ndarray) -> dict[str, Tensor]:
        """Return what a checkpoint of the backbone does not hold: tensors of the trained modules, and the codebook."""
        return self.trained.state_dict() | {"words": torch.from_numpy(codebook)}

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (n, 3, h, w), sides multiples of `stride`, to logits (n, codes, h / stride, ...)."""
        return self.trained["head"](self._features(images))

    def _features(self, images: Tensor) -> Tensor:
        """Map of the backbone that the head gets."""
        b = self.backbone
        with torch.no_grad():
            if not isinstance(b, ResNet):
                return grid_map(b, images)
            x = b.maxpool(b.relu(b.bn1(b.conv1(images))))
            x = b.layer3(b.layer2(b.layer1(x)))
            if "layer4" not in self.trained:
                x = b.layer4(x)
        return b.layer4(x) if "layer4" in self.trained else x


def load_network(
    checkpoint: str | Path, arch: str, trained: str | Path, settings: NormalsSettings
) -> tuple[NormalsNetwork, np.ndarray]:
    """Load a trained network from its backbone and the file of its `trained_tensors`; also return its codebook.

    Raises
    ------
    InputError
        If a file is damaged, or its tensors are not those of the settings.
    """
    try:
        state = load_tensors(trained)
        codebook = state.pop("words").numpy()
        network = build_network(checkpoint, arch, len(codebook), settings)
        network.trained.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{trained} is not a network of these settings: {first_line(error)}") from None
    return network, codebook


def build_network(checkpoint: str | Path, arch: str, codes: int, settings: NormalsSettings) -> NormalsNetwork:
    """Build the network of a settings block, with `codes` classes, on a backbone."""
    backbone = load_backbone(checkpoint, arch, size=ANY_SIZE)
    return NormalsNetwork(backbone, codes, settings.network, settings.frozen, settings.seed)


def logits_to_normals(
    logits: Tensor, codebook: Tensor, resized: tuple[int, int], original: tuple[int, int], stride: int = STRIDE
) -> Tensor:
    """Convert logits to unit normals at the size of the original images.

    The logits are upsampled bilinearly. At each pixel, the mean of the code words, weighted by the softmax, is scaled
    to length 1.

    Parameters
    ----------
    logits : Tensor, shape (n, k, h, w)
        A cell covers `stride` pixels of the resized image; the last cells may lie in the padding.
    codebook : Tensor, shape (k, 3)
    resized, original : tuple of int
        Height and width of the images as the network saw them (without padding) and as they are.
    stride : int

    Returns
    -------
    Tensor, shape (n, *original, 3), float32
    """
    upsampled = upsample(logits, resized, original, stride)
    mean = torch.einsum("nkhw,kc->nhwc", upsampled.softmax(dim=1), codebook.float())
    return functional.normalize(mean, dim=-1)
