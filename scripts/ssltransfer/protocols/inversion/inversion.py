"""Feature inversion (paper section 4.4; v1 Figs 4 and 7, v2 Figs 4 and 8): images reconstructed from their features.

For each image a small, randomly initialised network is trained to map fixed noise to an image with the same last
feature map (deep image prior). The network sees nothing of the image but this feature map.
"""

import hashlib
from dataclasses import replace
from itertools import repeat

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssltransfer.files import atomic_write
from ssltransfer.models.norm_table import mean_and_std
from ssltransfer.models.resnet import ResNet
from ssltransfer.precision import computing_in
from ssltransfer.protocols.inversion.deep_image_prior import DeepImagePrior
from ssltransfer.protocols.inversion.settings import InversionSettings
from ssltransfer.row_file import load_arrays
from ssltransfer.settings import resume_settings
from ssltransfer.training import train
from ssltransfer.training_state import Curve, Run


def choose_batch_size(settings: InversionSettings, device: torch.device) -> int:
    """Number of images inverted together: 16 on a GPU; on a CPU as many as fit into 2 GiB."""
    return 16 if device.type == "cuda" else max(1, 2**18 // settings.canvas**2)


class PixelRange:
    """Conversion of a network's output to the input of a backbone, and to an image.

    Parameters
    ----------
    norm : {'imagenet', 'none'}
    output : {'sigmoid', 'linear'}
    size : int
        Side of the image.
    device : torch.device
    """

    def __init__(self, norm: str, output: str, size: int, device: torch.device) -> None:
        self.mean, self.std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in mean_and_std(norm))
        self.bounded, self.size = output == "sigmoid", size

    def network_input(self, output: Tensor) -> Tensor:
        """Crop to the image, and normalise it unless the output counts as normalised: (n, 3, size, size)."""
        output = output[:, :, : self.size, : self.size]
        return (torch.sigmoid(output) - self.mean) / self.std if self.bounded else output

    def image(self, output: Tensor) -> Tensor:
        """Pixels from 0 to 1: (n, size, size, 3)."""
        pixels = self.network_input(output) * self.std + self.mean
        return pixels.clamp(0, 1).permute(0, 2, 3, 1)


def invert(
    backbone: nn.Module,
    images: np.ndarray,
    names: list[str],
    norm: str,
    settings: InversionSettings,
    device: torch.device,
    run: Run,
    batch_size: int,
) -> tuple[np.ndarray, Curve]:
    """Reconstruct images from their feature maps.

    Parameters
    ----------
    backbone : Module
        Frozen, in evaluation mode, on the device; its `feature_map` maps (n, 3, h, w) to (n, c, h', w').
    images : ndarray of uint8, shape (n, h, h, 3)
    names : list of str
        One for each image, all different.
    norm : {'imagenet', 'none'}
    settings : InversionSettings
    device : torch.device
    run : Run
        Its key describes everything that the result depends on, apart from images, names and settings. Its resume
        folder also keeps the finished batches.
    batch_size : int
        Number of images inverted together; changes the result by rounding at most.

    Returns
    -------
    images : ndarray of float32, shape (n, h, h, 3)
        Pixels from 0 to 1.
    curve : Curve
        Mean squared error of the feature map, averaged over the images.
    """
    found, curves = [], []
    for start in range(0, len(images), batch_size):
        chosen = slice(start, start + batch_size)
        inputs = run.key.encode() + _describe(names[chosen], settings).encode() + images[chosen].tobytes()
        batch = replace(run, key=hashlib.sha256(inputs).hexdigest())
        finished = run.resume_dir / f"{batch.key}.npz"
        if not finished.exists():
            prior = DeepImagePrior(names[chosen], settings).to(device)
            pixels = PixelRange(norm, settings.network.output, images.shape[1], device)
            originals = torch.from_numpy(images[chosen]).to(device)
            output, losses = _invert_batch(backbone, originals, prior, pixels, settings, batch)
            with atomic_write(finished) as temporary:
                np.savez(temporary, painted=output, losses=losses)
            (run.resume_dir / "state.pt").unlink(missing_ok=True)
        stored = load_arrays(finished, "reconstructions")
        found.append(stored["painted"])
        curves.append(stored["losses"])
    losses = (np.sum(curves, axis=0) / len(images)).tolist()
    return np.concatenate(found), Curve(_interval(settings.steps), losses)


def _describe(names: list[str], settings: InversionSettings) -> str:
    """Describe the images and settings of a batch; the text of release 0.1.0, whose unfinished runs are resumed."""
    described = resume_settings("inversion", settings)
    del described["kind"]
    network = described.pop("network")
    seed = described.pop("seed")
    flat = described | network | {"seed": seed}
    values = (f"{key}={tuple(value) if isinstance(value, list) else value!r}" for key, value in flat.items())
    return f"({names!r}, Inversion({', '.join(values)}))"


def _interval(steps: int) -> int:
    """Number of steps averaged into one recorded loss: 10, or less in runs of under 500 steps."""
    return max(1, min(10, steps // 50))


def _feature_map(backbone: ResNet, x: Tensor) -> Tensor:
    """Feature map of a batch. A single image is passed twice, because a batch of one is rounded in another way."""
    return backbone.feature_map(x) if len(x) > 1 else backbone.feature_map(x.expand(2, -1, -1, -1))[:1]


def _invert_batch(
    backbone: ResNet,
    originals: Tensor,
    prior: DeepImagePrior,
    pixels: PixelRange,
    settings: InversionSettings,
    run: Run,
) -> tuple[np.ndarray, list[float]]:
    """Train the networks of some images; return their images and the sum of their losses over each interval."""
    with torch.no_grad(), computing_in(settings.precision, originals.device):
        target = _feature_map(backbone, (originals.permute(0, 3, 1, 2) / 255 - pixels.mean) / pixels.std)

    def loss(_: None, step: int) -> Tensor:
        features = _feature_map(backbone, pixels.network_input(prior()))
        # The mean within each image and the sum over images: the gradient of a network depends on its image alone.
        return functional.mse_loss(features, target, reduction="none").flatten(1).mean(1).sum()

    curve = train(
        prior,
        loss,
        lambda first: repeat(None, settings.steps - first),
        torch.optim.Adam(prior.parameters(), lr=settings.learning_rate),
        lambda step: 1.0,
        settings.steps,
        run,
        interval=_interval(settings.steps),
        precision=settings.precision,
    )
    with torch.no_grad():
        return pixels.image(prior()).float().cpu().numpy(), curve.losses
