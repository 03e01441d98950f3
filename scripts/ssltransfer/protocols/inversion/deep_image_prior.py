"""Deep image prior (Ulyanov et al., arXiv:1711.10925): the networks that feature inversion optimises.

The networks of several images are one network with grouped convolutions, which fills a GPU. Groups share nothing: the
network and the noise of an image depend on its name and the seed alone, not on the other images.
"""

import zlib

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssltransfer.protocols.inversion.settings import InversionSettings, Network


def side_by_side(x: Tensor, weight: Tensor, bias: Tensor | None, images: int, padding: int, stride: int = 1) -> Tensor:
    """Convolve the channels of each image with the kernels of its own network: (1, images * inputs, h, w).

    This is one grouped convolution on a GPU. On a CPU the images are convolved one after another, which is as fast
    (twice as fast where channels are not a multiple of 16) and rounds the same for any number of images.
    """
    if x.is_cuda:
        return functional.conv2d(x, weight, bias, stride, padding, groups=images)
    biases = [None] * images if bias is None else bias.chunk(images)
    parts = zip(x.chunk(images, 1), weight.chunk(images), biases, strict=True)
    return torch.cat([functional.conv2d(*part, stride, padding) for part in parts], dim=1)


class Convolution(nn.Conv2d):
    """One convolution per image: (1, images * inputs, h, w) to (1, images * outputs, h, w)."""

    def __init__(self, images: int, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(images * inputs, images * outputs, kernel, groups=images)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve each image's channels with its own kernels."""
        return side_by_side(x, self.weight, self.bias, self.groups, self.kernel_size[0] // 2)


class DownConv(Convolution):
    """A convolution followed by 2 x 2 average pooling, computed as one convolution of stride 2.

    The average of four shifted kernels is a kernel larger by one, so a third of the operations gives the same result.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, images * inputs, h, w) to (1, images * outputs, h / 2, w / 2)."""
        weight = functional.avg_pool2d(functional.pad(self.weight, [1] * 4), 2, 1)
        return side_by_side(x, weight, self.bias, self.groups, self.kernel_size[0] // 2, stride=2)


class UpConv(Convolution):
    """A convolution of a fine map concatenated with a coarse map upsampled by 2 (nearest), without the upsampling.

    Every other output sees the coarse pixels in the same way, so four small kernels on the coarse map, whose results
    are interleaved, replace the large kernel on the upsampled map.

    Parameters
    ----------
    images, fine, coarse, outputs, kernel : int
        `fine` and `coarse` are the channels of the two maps.
    """

    def __init__(self, images: int, fine: int, coarse: int, outputs: int, kernel: int) -> None:
        super().__init__(images, fine + coarse, outputs, kernel)
        half = kernel // 2
        # Output 2 i + phase meets, with entry n of its kernel, the coarse pixel i + (phase + n - half) // 2.
        met = [[(phase + n - half) // 2 for n in range(kernel)] for phase in (0, 1)]
        taps = functional.one_hot(torch.tensor(met) - min(map(min, met)))
        self.register_buffer("taps", taps.transpose(1, 2).float(), persistent=False)
        self.fine = fine

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Map (1, images * fine, 2 h, 2 w) and (1, images * coarse, h, w) to (1, images * outputs, 2 h, 2 w)."""
        fine_weight, coarse_weight = self.weight.split([self.fine, self.weight.shape[1] - self.fine], dim=1)
        phases = torch.einsum("ayn,bxm,ocnm->oabcyx", self.taps, self.taps, coarse_weight).flatten(0, 2)
        coarse = side_by_side(coarse, phases, None, self.groups, phases.shape[2] // 2)
        fine = side_by_side(fine, fine_weight, self.bias, self.groups, self.kernel_size[0] // 2)
        return fine + functional.pixel_shuffle(coarse, 2)


def _normalised(images: int, channels: int, *before: nn.Module) -> nn.Sequential:
    """Layers, then batch normalisation over the pixels of each image, then LeakyReLU."""
    return nn.Sequential(*before, _normalisation(images * channels), nn.LeakyReLU(0.2, inplace=True))


def _normalisation(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with the statistics of the batch. The batch has one item, so images do not mix."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


class Scale(nn.Module):
    """One scale of the network, with the coarser scales inside: down, deeper, up, and joined with a skip branch."""

    def __init__(self, images: int, network: Network, number: int) -> None:
        super().__init__()
        channels, kernel = network.channels[number], network.kernels[number]
        inputs = network.channels[number - 1] if number else network.inputs
        self.skip = _normalised(images, network.skip, Convolution(images, inputs, network.skip, 1))
        self.down = nn.Sequential(
            _normalised(images, channels, DownConv(images, inputs, channels, kernel)),
            _normalised(images, channels, Convolution(images, channels, channels, kernel)),
        )
        last = number + 1 == len(network.channels)
        self.deeper = nn.Identity() if last else Scale(images, network, number + 1)
        coarse = channels if last else network.channels[number + 1]
        # The values of the coarse map, and so their normalisation, do not change when its size is doubled.
        self.norms = nn.ModuleList(_normalisation(images * width) for width in (network.skip, coarse))
        self.join = UpConv(images, network.skip, coarse, channels, kernel)
        self.up = nn.Sequential(
            _normalised(images, channels),
            _normalised(images, channels, Convolution(images, channels, channels, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, images * inputs, h, w) to (1, images * channels, h, w)."""
        coarse = self.deeper(self.down(x))
        return self.up(self.join(self.norms[0](self.skip(x)), self.norms[1](coarse)))


class DeepImagePrior(nn.Module):
    """The networks of several images, with their fixed input noise.

    Parameters
    ----------
    names : sequence of str
        Names of the images. The weights and the noise of an image depend on its name and the seed.
    settings : InversionSettings
    """

    def __init__(self, names: list[str], settings: InversionSettings) -> None:
        super().__init__()
        network, output_size = settings.network, settings.canvas
        self.images = len(names)
        self.body = Scale(self.images, network, 0)
        self.last = Convolution(self.images, network.channels[0], 3, 1)
        generators = [torch.Generator().manual_seed(_seed(settings.seed, name)) for name in names]
        shape = (1, network.inputs, output_size, output_size)
        noise = [network.noise * torch.rand(shape, generator=generator) for generator in generators]
        self.register_buffer("noise", torch.cat(noise, dim=1), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                self._initialise(module, generators)

    def _initialise(self, module: nn.Conv2d, generators: list[torch.Generator]) -> None:
        """Initialise as PyTorch does (uniform with bound 1 / sqrt(fan in)), with the generator of each image."""
        bound = module.weight[0].numel() ** -0.5
        for tensor in (module.weight, module.bias):
            for part, generator in zip(tensor.data.chunk(self.images), generators, strict=True):
                part.uniform_(-bound, bound, generator=generator)

    def forward(self) -> Tensor:
        """Map the noise to the unbounded output, (images, 3, output size, output size)."""
        output = self.last(self.body(self.noise))
        return output.view(self.images, 3, *output.shape[2:])


def _seed(seed: int, name: str) -> int:
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])
