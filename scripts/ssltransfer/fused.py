"""Frozen backbones for speed: batch normalisation folded into the convolutions, channels-last memory."""

from copy import deepcopy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ssltransfer.backbones import ResNet


def fuse(backbone: ResNet, device: torch.device | str = "cpu") -> ResNet:
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
    fused.conv1, fused.bn1 = fuse_conv_bn_eval(fused.conv1, fused.bn1), nn.Identity()
    for stage in (fused.layer1, fused.layer2, fused.layer3, fused.layer4):
        for block in stage:
            for number in "123":
                conv, bn = getattr(block, f"conv{number}"), getattr(block, f"bn{number}")
                setattr(block, f"conv{number}", fuse_conv_bn_eval(conv, bn))
                setattr(block, f"bn{number}", nn.Identity())
            if block.downsample is not None:
                block.downsample = nn.Sequential(fuse_conv_bn_eval(*block.downsample), nn.Identity())
    return fused.requires_grad_(False).to(device, memory_format=torch.channels_last)
