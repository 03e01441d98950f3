"""Residual networks in torchvision's layout (paper section 3.1, "ResNet-50").

Parameter names, shapes and arithmetic are torchvision's (a test compares both, bit for bit), without the
classifier. The class is our own because this project needs what torchvision's constructor fixes: the number of
blocks, the base width (small networks that train on a CPU), and the feature map before pooling.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssltransfer.models.architecture import parse_resnet
from ssltransfer.models.backbone import Backbone

EXPANSION = 4


def _pad_same(x: Tensor, kernel: int, stride: int, value: float) -> Tensor:
    """Pad height and width as TensorFlow's and haiku's SAME do.

    The output of the layer has ceil(size / stride) positions; an odd total leaves the larger part at the far side.
    """
    padding = []
    for size in (x.shape[3], x.shape[2]):
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        padding += [total // 2, total - total // 2]
    return functional.pad(x, padding, value=value)


class SameConv2d(nn.Conv2d):
    """A strided convolution with SAME padding, which is asymmetric; `padding` of the constructor is ignored."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, c', ceil(h / stride), ceil(w / stride))."""
        x = _pad_same(x, self.kernel_size[0], self.stride[0], value=0.0)
        return functional.conv2d(x, self.weight, self.bias, self.stride)


class SameMaxPool2d(nn.MaxPool2d):
    """A max pool with SAME padding; `padding` of the constructor is ignored."""

    kernel_size: int
    stride: int

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, c, ceil(h / stride), ceil(w / stride))."""
        return functional.max_pool2d(
            _pad_same(x, self.kernel_size, self.stride, -math.inf), self.kernel_size, self.stride
        )


class Bottleneck(nn.Module):
    """1x1, 3x3 (carrying the stride), 1x1 convolutions around a shortcut."""

    def __init__(self, inplanes: int, planes: int, stride: int, strided_conv: type[nn.Conv2d] = nn.Conv2d) -> None:
        super().__init__()
        outplanes = planes * EXPANSION
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        conv = strided_conv if stride != 1 else nn.Conv2d
        self.conv2 = conv(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outplanes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outplanes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inplanes != outplanes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, outplanes, 1, stride=stride, bias=False), nn.BatchNorm2d(outplanes)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inplanes, h, w) to (n, 4 * planes, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + shortcut)


class ResNet(Backbone):
    """A bottleneck residual network without classifier.

    Parameters
    ----------
    blocks : tuple of int
        Number of bottleneck blocks in each of the four stages.
    width : int
        Channels of the stem; 64 in ResNet-50. The feature has 32 * width elements.
    padding : {'', 'same', 'samepool'}
        Which strided layers are padded as SAME does: none (torchvision), all (BYOL's haiku network), or the max pool
        alone (SimCLR's TensorFlow network). Parameters are the same; the sampling grids differ by a pixel.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, blocks: tuple[int, ...], width: int = 64, padding: str = "") -> None:
        super().__init__()
        strided_conv = SameConv2d if padding == "same" else nn.Conv2d
        self.strides = (4, 8, 16, 32)
        self.channels = tuple(width * EXPANSION * 2**stage for stage in range(4))
        self.width = self.channels[-1]
        self.conv1 = strided_conv(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = (SameMaxPool2d if padding else nn.MaxPool2d)(3, stride=2, padding=1)
        inplanes = width
        for stage, count in enumerate(blocks):
            planes = width * 2**stage
            layers = []
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(Bottleneck(inplanes, planes, stride, strided_conv))
                inplanes = planes * EXPANSION
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def maps(self, images: Tensor) -> list[Tensor]:
        """Outputs of the four residual stages, (n, channels, h / stride, w / stride)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        outputs = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            outputs.append(x)
        return outputs

    def feature_map(self, images: Tensor) -> Tensor:
        """Last residual stage: (n, 3, h, w) to (n, width, h / 32, w / 32); holds no other stage in memory."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def pooled(self, images: Tensor) -> Tensor:
        """Global average of the last stage: (n, 3, h, w) to (n, width)."""
        maps = self.feature_map(images)
        return maps.to(torch.promote_types(maps.dtype, torch.float32)).mean(dim=(2, 3))

    def stages(self) -> list[list[nn.Parameter]]:
        """Parameters of the stem and of the four residual stages."""
        stem = [*self.conv1.parameters(), *self.bn1.parameters()]
        return [stem, *(list(stage.parameters()) for stage in (self.layer1, self.layer2, self.layer3, self.layer4))]


def build_resnet(arch: str, seed: int | None = None) -> ResNet:
    """Build the network named by `arch`, randomly initialised.

    Parameters
    ----------
    arch : str
        ``resnet50``, or ``resnet-AxBxCxD-wN`` with the blocks per stage and the width of the stem
        (``resnet50`` is ``resnet-3x4x6x3-w64``); ``-same`` or ``-samepool`` behind it chooses the padding.
    seed : int, optional
        Seed of the initialisation; the global generator is left as it was.

    Raises
    ------
    ValueError
        If `arch` has another form.
    """
    blocks, width, padding = parse_resnet(arch)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return ResNet(blocks, width, padding)
