"""A backbone with a decoder of semantic segmentation: UPerNet, or one linear layer on its last map."""

from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from ssltransfer.errors import InputError, first_line
from ssltransfer.models.backbone import ANY_SIZE, Backbone
from ssltransfer.models.backbone_file import load_backbone
from ssltransfer.models.grid_map import GRID, grid_map, require_maps, require_shape
from ssltransfer.models.simple_pyramid import scale_layers
from ssltransfer.protocols.dense.heads import BINS, convolution, enlarge, initialise, set_norm_momentum
from ssltransfer.protocols.dense.segmentation.settings import Network, SegmentationSettings
from ssltransfer.results.tensor_file import load_tensors

STRIDES = (4, 8, 16, 32)
"""Strides of the maps that UPerNet starts from."""
LINEAR_DEVIATION = 0.01
"""Standard deviation of the initial weights of the linear head (DINOv3)."""


class UPerNet(nn.Module):
    """The decoder of UPerNet (Xiao et al., 2018) as the paper's software builds it, without its auxiliary losses.

    On the coarsest map, averages of `heads.BINS` are enlarged, go through a 1x1 convolution each and are stacked onto
    it; a 3x3 convolution follows. The other maps go through 1x1 convolutions, to which the coarser map is added from
    top to bottom, and 3x3 convolutions. All four are brought to the size of the finest, stacked and go through a 3x3
    convolution, dropout of whole channels and a 1x1 convolution to logits. Batch norm and ReLU follow every convolution
    but the last.

    Parameters
    ----------
    features : sequence of int
        Channels of the maps, finest first.
    classes : int
    head : Network
        Channels, dropout (the paper has none) and batch-norm momentum.
    """

    def __init__(self, features: tuple[int, ...], classes: int, head: Network) -> None:
        super().__init__()
        *fine, coarse = features
        channels = head.channels
        self.bins = nn.ModuleList(nn.Sequential(*convolution(coarse, channels, 1)) for _ in BINS)
        self.top = nn.Sequential(*convolution(coarse + len(BINS) * channels, channels, 3))
        self.lateral = nn.ModuleList(nn.Sequential(*convolution(wide, channels, 1)) for wide in fine)
        self.smooth = nn.ModuleList(nn.Sequential(*convolution(channels, channels, 3)) for _ in fine)
        self.last = nn.Sequential(
            *convolution(len(features) * channels, channels, 3),
            nn.Dropout2d(head.dropout),
            nn.Conv2d(channels, classes, 1),
        )
        initialise(self, head.norm_momentum)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map the maps of a backbone, finest first, to logits (n, classes, h, w) of the finest."""
        coarse = maps[-1]
        pooled = [
            conv(enlarge(functional.adaptive_avg_pool2d(coarse, side), coarse))
            for side, conv in zip(BINS, self.bins, strict=True)
        ]
        level = top = self.top(torch.cat([coarse, *pooled], dim=1))
        levels = []
        for x, lateral, smooth in zip(reversed(maps[:-1]), reversed(self.lateral), reversed(self.smooth), strict=True):
            level = (side := lateral(x)) + enlarge(level, side)
            levels.append(smooth(level))
        levels = [*reversed(levels), top]
        return self.last(torch.cat([levels[0], *(enlarge(x, levels[0]) for x in levels[1:])], dim=1))


class LinearHead(nn.Sequential):
    """The linear head of DINOv3 and DINOv2: dropout of whole channels, batch norm, 1x1 convolution to logits.

    Parameters
    ----------
    features : int
        Channels of the map.
    classes : int
    head : Network
        Dropout and batch-norm momentum; `channels` has no effect.
    """

    def __init__(self, features: int, classes: int, head: Network) -> None:
        last = nn.Conv2d(features, classes, 1)
        nn.init.normal_(last.weight, std=LINEAR_DEVIATION)
        nn.init.zeros_(last.bias)
        super().__init__(nn.Dropout2d(head.dropout), nn.BatchNorm2d(features, momentum=head.norm_momentum), last)


class SegmentationNetwork(nn.Module):
    """Backbone and decoder.

    UPerNet gets the maps of strides 4, 8, 16 and 32 of a hierarchical network. The last map of a plain transformer,
    with one position for 16 x 16 pixels (`grid_map.grid_map`), is brought to these strides by the first layers of the
    simple feature pyramid (`simple_pyramid.scale_layers`). The linear head gets `grid_map` of any network.

    Parameters
    ----------
    backbone : Backbone
        Changed in place: gradients, and the momentum of its batch norm if it is trained.
    classes : int
    settings : SegmentationSettings

    Attributes
    ----------
    stride : int
        Pixels between neighbouring logits.
    multiple : int
        The sides of the images must be multiples of it.
    trained : nn.ModuleDict
        The trained modules: ``head``, ``scales`` where there are any, and ``backbone`` unless it is frozen. A frozen
        backbone is always in evaluation mode.

    Raises
    ------
    InputError
        If the backbone has no maps, or neither maps of these strides nor a single one.
    """

    def __init__(self, backbone: Backbone, classes: int, settings: SegmentationSettings) -> None:
        super().__init__()
        require_maps(backbone)
        self.head_kind, self.frozen = settings.head, settings.frozen == "all"
        self.plain = len(backbone.strides) == 1
        self.backbone = backbone.requires_grad_(not self.frozen)
        self.trained = nn.ModuleDict()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            if settings.head == "linear":
                self.stride, self.multiple = GRID, GRID
                self.trained["head"] = LinearHead(backbone.channels[-1], classes, settings.network)
            else:
                self.stride, self.multiple = STRIDES[0], STRIDES[-1]
                self.trained["head"] = UPerNet(self._channels(), classes, settings.network)
        if not self.frozen:
            set_norm_momentum(backbone, settings.network.norm_momentum)
            self.trained["backbone"] = backbone
        self.train(False)

    def _channels(self) -> tuple[int, ...]:
        """Channels of the maps of the strides that UPerNet starts from; adds the layers that make them."""
        b = self.backbone
        if self.plain:
            scales = scale_layers(b.channels[-1])
            self.trained["scales"] = nn.ModuleList(nn.Sequential(*layers) for _, layers in scales)
            return tuple(channels for channels, _ in scales)
        if not set(STRIDES) <= set(b.strides):
            raise InputError(
                f"the network has maps of strides {', '.join(map(str, b.strides))}, expected 4, 8, 16 and 32 or a "
                "single one; leave the model out of this protocol (models_of)"
            )
        return tuple(b.channels[b.strides.index(stride)] for stride in STRIDES)

    @property
    def norms(self) -> bool:
        """Whether a trained module has running statistics that the momentum of batch norm moves."""
        return any(isinstance(module, _BatchNorm) for module in self.trained.modules())

    def train(self, mode: bool = True) -> "SegmentationNetwork":
        """Set the trained part to training mode, a frozen backbone to evaluation mode in any case."""
        super().train(False)
        self.trained.train(mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (n, 3, h, w), sides `multiple`s, to logits (n, classes, h / stride, w / stride)."""
        with torch.no_grad() if self.frozen else nullcontext():
            maps = self._maps(images)
        if self.head_kind == "linear":
            return self.trained["head"](maps[-1])
        if self.plain:
            maps = [scale(maps[-1]) for scale in self.trained["scales"]]
        return self.trained["head"](maps)

    def _maps(self, images: Tensor) -> list[Tensor]:
        """Maps of the backbone that the decoder starts from."""
        b = self.backbone
        if self.head_kind == "linear" or self.plain:
            return [grid_map(b, images)]
        maps = dict(zip(b.strides, b.maps(images), strict=True))
        for stride in STRIDES:
            require_shape(maps[stride], tuple(side // stride for side in images.shape[2:]), stride)
        return [maps[stride] for stride in STRIDES]


def build_network(
    checkpoint: str | Path, arch: str, classes: int, settings: SegmentationSettings
) -> SegmentationNetwork:
    """Build the network of a settings block on a backbone."""
    return SegmentationNetwork(load_backbone(checkpoint, arch, size=ANY_SIZE), classes, settings)


def load_network(
    checkpoint: str | Path, arch: str, classes: int, trained: str | Path, settings: SegmentationSettings
) -> SegmentationNetwork:
    """Load a trained network from its backbone and the file of its trained tensors.

    Raises
    ------
    InputError
        If a file is damaged, or its tensors are not those of the settings.
    """
    network = build_network(checkpoint, arch, classes, settings)
    try:
        network.trained.load_state_dict(load_tensors(trained))
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{trained} is not a network of these settings: {first_line(error)}") from None
    return network
