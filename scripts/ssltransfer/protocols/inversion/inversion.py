"""Feature inversion (paper section 4.4; v1 Figs 4 and 7, v2 Figs 4 and 8): the image that features still hold.

For every image a small random network of its own is trained to paint, from fixed noise, an image whose last feature map
is that of the original (deep image prior). Nothing else enters: what the painting shows, the features have kept.

The networks of several images are one network with grouped convolutions, which fills a GPU. Groups share nothing: an
image's network, noise and optimiser state depend on its name and the seed alone, not on its company.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssltransfer.files import atomic_write
from ssltransfer.models.resnet import NORMALISATIONS, ResNet
from ssltransfer.training import train

INTERVAL = 10
"""Steps that one recorded loss is the mean of, in runs of 500 steps and more (fewer in shorter ones)."""


@dataclass(frozen=True)
class Inversion:
    """Settings of an inversion, as in the settings block of a protocol.

    Attributes
    ----------
    canvas : int
        Side of what a network paints, of which the top left corner of the image's size is used. A multiple of
        2 ** scales, more than that itself, and no less than the image.
    steps : int
        Iterations of Adam.
    learning_rate : float
    channels, kernels : tuple of int
        Channels and (odd) kernel size of each scale, the finest first.
    skip : int
        Channels of the skip branches.
    inputs : int
        Channels of the noise.
    noise : float
        The noise is uniform between 0 and this.
    output : {'sigmoid', 'linear'}
        Whether a sigmoid bounds the pixels, or they are taken as normalised ones, and clipped at the end.
    seed : int
    """

    canvas: int = 256
    steps: int = 3000
    learning_rate: float = 1e-3
    channels: tuple[int, ...] = (16, 32, 64, 128, 128, 128)
    kernels: tuple[int, ...] = (7, 7, 5, 5, 3, 3)
    skip: int = 4
    inputs: int = 32
    noise: float = 0.1
    output: str = "sigmoid"
    seed: int = 0


def read_settings(block: dict) -> Inversion:
    """Build the settings from a validated block of the suite."""
    network = {key: tuple(value) if isinstance(value, list) else value for key, value in block["network"].items()}
    return Inversion(**network, **{key: block[key] for key in ("canvas", "steps", "learning_rate", "seed")})


def batch_size(settings: Inversion, device: torch.device) -> int:
    """Images at a time: on a GPU all that matter, on a CPU as many as keep a job below 2 GiB or small steps long."""
    return 16 if device.type == "cuda" else max(1, 2**18 // settings.canvas**2)


def side_by_side(x: Tensor, weight: Tensor, bias: Tensor | None, images: int, padding: int, stride: int = 1) -> Tensor:
    """Convolve the channels of each image with kernels of its own: (1, images * inputs, h, w) and so on.

    On a GPU one grouped convolution. On a CPU one after another, which is no slower there (twice as fast where channels
    are no multiple of 16) and rounds alike for any number of images.
    """
    if x.is_cuda:
        return functional.conv2d(x, weight, bias, stride, padding, groups=images)
    biases = [None] * images if bias is None else bias.chunk(images)
    parts = zip(x.chunk(images, 1), weight.chunk(images), biases, strict=True)
    return torch.cat([functional.conv2d(*part, stride, padding) for part in parts], dim=1)


class Convolution(nn.Conv2d):
    """One convolution an image, side by side: (1, images * inputs, h, w) to (1, images * outputs, h, w)."""

    def __init__(self, images: int, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(images * inputs, images * outputs, kernel, groups=images)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve each image's channels with its own kernels."""
        return side_by_side(x, self.weight, self.bias, self.groups, self.kernel_size[0] // 2)


class Halving(Convolution):
    """A convolution and the mean of 2 x 2 pixels of its result, as one convolution of stride 2.

    The mean of four shifted kernels is a kernel one larger; the result is the same at a third of the operations.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, images * inputs, h, w) to (1, images * outputs, h / 2, w / 2)."""
        weight = functional.avg_pool2d(functional.pad(self.weight, [1] * 4), 2, 1)
        return side_by_side(x, weight, self.bias, self.groups, self.kernel_size[0] // 2, stride=2)


class Doubling(Convolution):
    """A convolution of a fine map joined with a coarse one in double size (nearest), which is never made.

    Every other output sees the coarse pixels in the same way: four small kernels on the coarse map, whose results are
    interleaved, do the work of the large one.

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
        own, other = self.weight.split([self.fine, self.weight.shape[1] - self.fine], dim=1)
        phases = torch.einsum("ayn,bxm,ocnm->oabcyx", self.taps, self.taps, other).flatten(0, 2)
        coarse = side_by_side(coarse, phases, None, self.groups, phases.shape[2] // 2)
        fine = side_by_side(fine, own, self.bias, self.groups, self.kernel_size[0] // 2)
        return fine + functional.pixel_shuffle(coarse, 2)


def _normalised(images: int, channels: int, *before: nn.Module) -> nn.Sequential:
    """Layers, then batch normalisation over the pixels of each image, then LeakyReLU."""
    return nn.Sequential(*before, _normalisation(images * channels), nn.LeakyReLU(0.2, inplace=True))


def _normalisation(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation that always uses the pixels at hand; in a batch of one, channels of images do not mix."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


class Scale(nn.Module):
    """One scale of the network with all coarser ones inside: halve, go deeper, double, and join with a skip branch."""

    def __init__(self, images: int, settings: Inversion, number: int) -> None:
        super().__init__()
        channels, kernel = settings.channels[number], settings.kernels[number]
        inputs = settings.channels[number - 1] if number else settings.inputs
        self.skip = _normalised(images, settings.skip, Convolution(images, inputs, settings.skip, 1))
        self.down = nn.Sequential(
            _normalised(images, channels, Halving(images, inputs, channels, kernel)),
            _normalised(images, channels, Convolution(images, channels, channels, kernel)),
        )
        last = number + 1 == len(settings.channels)
        self.deeper = nn.Identity() if last else Scale(images, settings, number + 1)
        coarse = channels if last else settings.channels[number + 1]
        # The values of the coarse map, and so their normalisation, do not change when its size is doubled.
        self.norms = nn.ModuleList(_normalisation(images * width) for width in (settings.skip, coarse))
        self.join = Doubling(images, settings.skip, coarse, channels, kernel)
        self.up = nn.Sequential(
            _normalised(images, channels),
            _normalised(images, channels, Convolution(images, channels, channels, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, images * inputs, h, w) to (1, images * channels, h, w)."""
        coarse = self.deeper(self.down(x))
        return self.up(self.join(self.norms[0](self.skip(x)), self.norms[1](coarse)))


class Painter(nn.Module):
    """The networks of several images, and the noise that they paint from.

    Parameters
    ----------
    names : sequence of str
        Names of the images, from which, with the seed, weights and noise follow.
    settings : Inversion
    """

    def __init__(self, names: list[str], settings: Inversion) -> None:
        super().__init__()
        self.images = len(names)
        self.body = Scale(self.images, settings, 0)
        self.last = Convolution(self.images, settings.channels[0], 3, 1)
        generators = [torch.Generator().manual_seed(_seed(settings.seed, name)) for name in names]
        shape = (1, settings.inputs, settings.canvas, settings.canvas)
        noise = [settings.noise * torch.rand(shape, generator=generator) for generator in generators]
        self.register_buffer("noise", torch.cat(noise, dim=1), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                self._initialise(module, generators)

    def _initialise(self, module: nn.Conv2d, generators: list[torch.Generator]) -> None:
        """PyTorch's default, uniform with bound 1 / sqrt(inputs of a unit), from the generator of each image."""
        bound = module.weight[0].numel() ** -0.5
        for tensor in (module.weight, module.bias):
            for part, generator in zip(tensor.data.chunk(self.images), generators, strict=True):
                part.uniform_(-bound, bound, generator=generator)

    def forward(self) -> Tensor:
        """Paint: (images, 3, canvas, canvas), unbounded."""
        painted = self.last(self.body(self.noise))
        return painted.view(self.images, 3, *painted.shape[2:])


def _seed(seed: int, name: str) -> int:
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])


class Pixels:
    """From what a network paints to the input of a backbone, and to an image.

    Parameters
    ----------
    norm : {'imagenet', 'none'}
    output : {'sigmoid', 'linear'}
    size : int
        Side of the image.
    device : torch.device
    """

    def __init__(self, norm: str, output: str, size: int, device: torch.device) -> None:
        self.mean, self.std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in NORMALISATIONS[norm])
        self.bounded, self.size = output == "sigmoid", size

    def network_input(self, painted: Tensor) -> Tensor:
        """Cut out the image and normalise it, unless it counts as normalised: (n, 3, size, size)."""
        painted = painted[:, :, : self.size, : self.size]
        return (torch.sigmoid(painted) - self.mean) / self.std if self.bounded else painted

    def image(self, painted: Tensor) -> Tensor:
        """Pixels from 0 to 1: (n, size, size, 3)."""
        pixels = self.network_input(painted) * self.std + self.mean
        return pixels.clamp(0, 1).permute(0, 2, 3, 1)


def invert(
    backbone: nn.Module,
    images: np.ndarray,
    names: list[str],
    norm: str,
    settings: Inversion,
    device: torch.device,
    part: Path,
    key: str,
    *,
    where: str,
    batch_size: int,
    progress: Callable[[Iterable, int], Iterable] = lambda steps, total: steps,
) -> tuple[np.ndarray, int, list[float]]:
    """Reconstruct images from their feature maps.

    Parameters
    ----------
    backbone : Module
        Frozen, in evaluation mode, on the device; its `feature_map` maps (n, 3, h, w) to (n, c, h', w').
    images : ndarray of uint8, shape (n, h, h, 3)
    names : list of str
        One for each image, all different.
    norm : {'imagenet', 'none'}
    settings : Inversion
    device : torch.device
    part : Path
        Folder for unfinished work; the caller removes it once the result is safe.
    key : str
        Everything but images and names that the result depends on.
    where : str
        Place of the settings, for error messages.
    batch_size : int
        Images at a time; does not change the result beyond rounding.
    progress : callable
        Wraps (steps, number of steps) of each batch.

    Returns
    -------
    images : ndarray of float32, shape (n, h, h, 3)
        Pixels from 0 to 1.
    interval : int
        Steps that a loss is the mean of.
    losses : list of float
        Mean over the images of the mean squared error of the feature map.
    """
    interval = max(1, min(INTERVAL, settings.steps // 50))

    def fit(module: nn.Module, loss: Callable, batches: Callable, optimiser: torch.optim.Optimizer, work: str) -> list:
        return train(
            module,
            loss,
            batches,
            optimiser,
            lambda step: 1.0,
            settings.steps,
            part,
            work,
            where=where,
            interval=interval,
            progress=progress,
        )

    found, curves = [], []
    for start in range(0, len(images), batch_size):
        chosen = slice(start, start + batch_size)
        work = key.encode() + repr((names[chosen], settings)).encode() + images[chosen].tobytes()
        digest = hashlib.sha256(work).hexdigest()
        finished = part / f"{digest}.npz"
        if not finished.exists():
            painter = Painter(names[chosen], settings).to(device)
            pixels = Pixels(norm, settings.output, images.shape[1], device)
            originals = torch.from_numpy(images[chosen]).to(device)
            painted, losses = _invert_batch(backbone, originals, painter, pixels, settings, partial(fit, work=digest))
            with atomic_write(finished) as temporary:
                np.savez(temporary, painted=painted, losses=losses)
            (part / "state.pt").unlink(missing_ok=True)
        with np.load(finished, allow_pickle=False) as stored:
            found.append(stored["painted"])
            curves.append(stored["losses"])
    return np.concatenate(found), interval, (np.sum(curves, axis=0) / len(images)).tolist()


def _feature_map(backbone: ResNet, x: Tensor) -> Tensor:
    """Feature map of a batch; one image goes in twice, because a batch of one takes kernels that round otherwise."""
    return backbone.feature_map(x) if len(x) > 1 else backbone.feature_map(x.expand(2, -1, -1, -1))[:1]


def _invert_batch(
    backbone: ResNet, originals: Tensor, painter: Painter, pixels: Pixels, settings: Inversion, train: Callable
) -> tuple[np.ndarray, list[float]]:
    """Train the networks of some images; also the sum of their losses over each interval."""
    mean, std = pixels.mean, pixels.std
    with torch.no_grad():
        target = _feature_map(backbone, (originals.permute(0, 3, 1, 2) / 255 - mean) / std)

    def loss(_: None, step: int) -> Tensor:
        features = _feature_map(backbone, pixels.network_input(painter()))
        # The mean within an image and the sum over images: the gradient of a network knows of one image only.
        return functional.mse_loss(features, target, reduction="none").flatten(1).mean(1).sum()

    def batches(first: int) -> Iterator[None]:
        return repeat(None, settings.steps - first)

    optimiser = torch.optim.Adam(painter.parameters(), lr=settings.learning_rate)
    losses = train(painter, loss, batches, optimiser)
    with torch.no_grad():
        return pixels.image(painter()).float().cpu().numpy(), losses
