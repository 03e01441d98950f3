"""Feature pyramids of a detector: on the maps of a hierarchical network, or on the one map of a plain transformer."""

from collections import OrderedDict
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from ssltransfer.errors import InputError
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.grid_map import grid_map, require_maps, require_shape
from ssltransfer.models.simple_pyramid import layer_norm, scale_layers

STRIDES = (4, 8, 16, 32, 64)
LEVELS = ("p2", "p3", "p4", "p5")
FROZEN_STRIDE = {"first-four": 16, "none": 0, "first-two": 4}
"""Stride of the last map whose parameters are frozen, for each value of the key `frozen`."""
PROBE = 128
"""Side in pixels of the image by which the parameters behind a map are found."""


class ConstantBatchNorm2d(FrozenBatchNorm2d):
    """The constant affine map of a batch norm, in one pass over the data where torchvision's class makes two."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to the same shape."""
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


def freeze_batch_norm(module: nn.Module) -> None:
    """Make every batch norm below a module constant, if the module stays in evaluation mode.

    Plain batch norms become constant affine maps. Those that do more, such as timm's with an activation, keep their
    class; their parameters do not train.
    """
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            frozen = ConstantBatchNorm2d(child.num_features, child.eps)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        else:
            if isinstance(child, _BatchNorm):
                child.requires_grad_(False)
            freeze_batch_norm(child)


class Pyramid(nn.Module):
    """A backbone and the levels of a detector on it: normalised images (n, 3, h, w) to p2 .. p5 and ``pool`` (p6).

    Parameters
    ----------
    backbone : Backbone
        Changed in place: batch norm becomes constant, and the module stays in evaluation mode.
    frozen : {'first-four', 'none', 'first-two'}
        ``first-four`` freezes what the map of stride 16 is computed from, which in a residual network is all but the
        last stage; ``first-two`` what the map of stride 4 is computed from. A plain transformer has no such cut:
        ``first-four`` freezes all of it, ``first-two`` its patch embedding.

    Raises
    ------
    InputError
        If the backbone has neither maps of strides 4, 8, 16 and 32 nor a single map.
    """

    backbone: Backbone
    deviation = ""
    """How the frozen part differs from that of a residual network, in one line; empty if it does not."""

    def __init__(self, backbone: Backbone, frozen: str) -> None:
        super().__init__()
        for parameter in self._frozen_parameters(backbone.eval(), frozen):
            parameter.requires_grad_(False)
        freeze_batch_norm(backbone)
        self.backbone = backbone

    def _frozen_parameters(self, backbone: Backbone, frozen: str) -> list[nn.Parameter]:
        raise NotImplementedError

    def train(self, mode: bool = True) -> "Pyramid":
        """Set the new layers to training mode; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self


class HierarchicalPyramid(Pyramid):
    """A feature pyramid network (Lin et al., 2017) on the maps of strides 4, 8, 16 and 32."""

    def __init__(self, backbone: Backbone, channels: int, frozen: str) -> None:
        super().__init__(backbone, frozen)
        widths = [backbone.channels[backbone.strides.index(stride)] for stride in STRIDES[:4]]
        self.fpn = FeaturePyramidNetwork(widths, channels, LastLevelMaxPool())

    def _frozen_parameters(self, backbone: Backbone, frozen: str) -> list[nn.Parameter]:
        """Parameters that the maps up to a stride depend on, found by their gradients."""
        parameters = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
        with torch.inference_mode(False), torch.enable_grad():
            maps = backbone.maps(next(backbone.parameters()).new_zeros(1, 3, PROBE, PROBE))
            for found, stride in zip(maps, backbone.strides, strict=True):
                require_shape(found, (PROBE // stride, PROBE // stride), stride)
            fixed = [m.sum() for m, s in zip(maps, backbone.strides, strict=True) if s <= FROZEN_STRIDE[frozen]]
            fixed = [total for total in fixed if total.requires_grad]
            if not fixed:
                return []
            gradients = torch.autograd.grad(fixed, parameters, allow_unused=True)
        return [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the levels, from fine to coarse."""
        maps = dict(zip(self.backbone.strides, self.backbone.maps(x), strict=True))
        return self.fpn(OrderedDict((name, maps[stride]) for name, stride in zip(LEVELS, STRIDES, strict=False)))


class SimplePyramid(Pyramid):
    """The simple feature pyramid of ViTDet (Li et al., 2022) on the last map of a plain transformer.

    Four branches without a path between them: the map enlarged 4 and 2 times by transposed convolutions, as it is, and
    halved by a maximum; then a 1x1 and a 3x3 convolution, each followed by a layer norm over the channels. The map is
    that of stride 16 of `grid_map.grid_map`, with the final norm of the network, which ViTDet leaves out because it
    trains the whole network; here the input is the one of all other protocols.
    """

    _deviations: ClassVar = {
        "first-four": "the whole backbone is frozen, where a ResNet trains its last stage",
        "first-two": "the patch embedding is frozen, where a ResNet freezes stem and first stage",
    }

    def __init__(self, backbone: Backbone, channels: int, frozen: str) -> None:
        super().__init__(backbone, frozen)
        self.deviation = self._deviations.get(frozen, "")
        self.branches = nn.ModuleList(
            nn.Sequential(
                *layers,
                *(nn.Conv2d(features, channels, 1, bias=False), layer_norm(channels)),
                *(nn.Conv2d(channels, channels, 3, padding=1, bias=False), layer_norm(channels)),
            )
            for features, layers in scale_layers(backbone.channels[-1])
        )

    def _frozen_parameters(self, backbone: Backbone, frozen: str) -> list[nn.Parameter]:
        if frozen == "first-four":
            return list(backbone.parameters())
        return backbone.stages()[0] if frozen == "first-two" else []

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the levels, from fine to coarse."""
        found = grid_map(self.backbone, x)
        levels = OrderedDict((name, branch(found)) for name, branch in zip(LEVELS, self.branches, strict=True))
        return levels | {"pool": functional.max_pool2d(levels["p5"], 1, stride=2)}


def build_pyramid(backbone: Backbone, channels: int, frozen: str) -> Pyramid:
    """Put the pyramid that fits its maps on a backbone (see `Pyramid`)."""
    require_maps(backbone)
    if set(STRIDES[:4]) <= set(backbone.strides):
        return HierarchicalPyramid(backbone, channels, frozen)
    if len(backbone.strides) == 1:
        return SimplePyramid(backbone, channels, frozen)
    raise InputError(
        f"the network has maps of strides {', '.join(map(str, backbone.strides))}, expected 4, 8, 16 and 32 or a "
        "single one; leave the model out of this protocol (models_of)"
    )
