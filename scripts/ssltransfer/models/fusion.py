"""Faster frozen backbones: batch normalisation folded into the convolutions, and fast memory layouts."""

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ssltransfer.models.backbone import Backbone
from ssltransfer.models.resnet import Bottleneck, ResNet

FOLDING_TOLERANCE = 1e-5
"""Largest difference that folding may make, as a share of the largest feature."""


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
    """Return a frozen copy in evaluation mode, of the same class, with batch normalisation folded where that is exact.

    Parameters
    ----------
    backbone : Backbone
        Left as it is.
    device : torch.device or str
        Where the copy lives.
    """
    return fuse_conv_bn(backbone, device) if isinstance(backbone, ResNet) else fold_batch_norms(backbone, device)


def optimise_for_inference(backbone: Backbone, device: torch.device | str = "cpu") -> nn.Module:
    """Return the function of `backbone`, images to pooled features, in the fastest form that keeps float32.

    Of a `ResNet` on a CPU with oneDNN, the weights of a fused copy are laid out once as its kernels need them, and
    activations stay in oneDNN's layout between them: 1.3 to 1.5 times as fast as `fuse_conv_bn` alone and within 10 %
    of what `torch.compile` reaches, without its half minute of compilation. Elsewhere, and where layers pad
    asymmetrically, the result is that of `fuse_conv_bn`. In other networks, batch normalisation is folded where it
    follows a convolution (`fold_batch_norms`).

    Parameters
    ----------
    backbone : Backbone
        Left as it is.
    device : torch.device or str
        Where the function computes.
    """
    if not isinstance(backbone, ResNet):
        return fold_batch_norms(backbone, device)
    fused = fuse_conv_bn(backbone, device)
    plain_padding = type(fused.maxpool) is nn.MaxPool2d
    if torch.device(device).type == "cpu" and torch.backends.mkldnn.is_available() and plain_padding:
        return _OneDNNBackbone(fused)
    return fused


def inference_form(backbone: Backbone, device: torch.device | str, precision: str = "float32") -> nn.Module:
    """Return the function of `backbone` in its fastest form for a precision (see `precision.computing_in`)."""
    # oneDNN's own layout is one of float32; autocast casts dense tensors.
    return optimise_for_inference(backbone, device) if precision == "float32" else freeze(backbone, device)


def fold_batch_norms(backbone: Backbone, device: torch.device | str = "cpu") -> Backbone:
    """Return a frozen copy in evaluation mode, whose batch normalisation behind convolutions is part of them.

    One image is passed through to see which normalisation gets the output of which convolution. The copy with all of
    them folded is used if its vector of that image is the same up to rounding, else one with none.

    Parameters
    ----------
    backbone : Backbone
        Left as it is.
    device : torch.device or str
        Where the copy lives.
    """
    plain = deepcopy(backbone).eval().requires_grad_(False).to(device)
    if not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules()):
        return plain
    side = plain.native_size or 64
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    folded = deepcopy(plain)
    for conv, norm in _following_norms(folded, image):
        _replace(folded, conv, fuse_conv_bn_eval(conv, norm))
        _replace(folded, norm, _what_follows(norm))
    with torch.inference_mode():
        expected, found = plain(image), folded(image)
    close = torch.allclose(found, expected, rtol=0, atol=FOLDING_TOLERANCE * float(expected.abs().max()))
    return folded.to(memory_format=torch.channels_last) if close else plain


def _following_norms(network: nn.Module, image: torch.Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Pairs of a convolution and the batch norm that gets its output, each module used once for an image."""
    produced: dict[int, tuple[nn.Conv2d, torch.Tensor]] = {}
    calls: list[nn.Module] = []
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def see(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        calls.append(module)
        if type(module) is nn.Conv2d:
            produced[id(output)] = (module, output)  # the tensor is kept, so that its id is not used again
        elif isinstance(module, nn.BatchNorm2d) and (found := produced.get(id(inputs[0]))) is not None:
            pairs.append((found[0], module))

    watched = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    handles = [module.register_forward_hook(see) for module in watched]
    with torch.inference_mode():
        network(image)
    for handle in handles:
        handle.remove()
    return [(conv, norm) for conv, norm in pairs if calls.count(conv) == calls.count(norm) == 1]


def _what_follows(norm: nn.BatchNorm2d) -> nn.Module:
    """What a layer of batch norm does after normalising: timm's own ones drop blocks and activate."""
    rest = [getattr(norm, name) for name in ("drop", "act") if isinstance(getattr(norm, name, None), nn.Module)]
    return nn.Sequential(*rest) if rest else nn.Identity()


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if child is old:
                setattr(module, name, new)


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
