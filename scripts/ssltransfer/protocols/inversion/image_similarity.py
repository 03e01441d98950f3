"""Similarity of images and their reconstructions: per-channel MSE, PSNR, SSIM and LPIPS (paper section 4.4).

All functions take float images of shape (n, h, w, 3) with pixels from 0 to 1, and return one value per image.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ssltransfer.checkpoints.fetch import manifest_files, write_pin
from ssltransfer.checkpoints.torch_file import load_tensors
from ssltransfer.errors import InputError, first_line
from ssltransfer.files import read_json
from ssltransfer.protocols.inversion.lpips_networks import LPIPS_NETWORKS


def colour_errors(images: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Mean squared error of each channel on the 0-255 scale: (n, 3), red, green, blue."""
    difference = 255 * (np.asarray(images, np.float64) - originals)
    return np.square(difference).mean(axis=(1, 2))


def signal_to_noise(images: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in decibels, at most 100 (equal images): (n,)."""
    error = colour_errors(images, originals).mean(axis=1) / 255**2
    return -10 * np.log10(np.maximum(error, 1e-10))


def structural_similarity(images: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """SSIM with the settings of its authors (Gaussian window of 11 pixels, sigma 1.5): (n,)."""
    from skimage.metrics import structural_similarity as ssim

    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(np.asarray(images, np.float64), np.asarray(originals, np.float64), strict=True)
    return np.array([ssim(a, b, channel_axis=2, data_range=1.0, **settings) for a, b in pairs])


def load_distances(
    networks: Sequence[str], manifests: Sequence[str | Path], device: torch.device
) -> tuple[dict[str, "LpipsDistance"], dict[str, str]]:
    """Load LPIPS distances, and the reasons why others are missing, by the names of their networks.

    Parameters
    ----------
    networks : sequence of str
        Keys of `lpips_networks.LPIPS_NETWORKS`.
    manifests : sequence of path
        For each network, the manifest of its fetched weights.
    device : torch.device
    """
    distances, missing = {}, {}
    for network, path in zip(networks, manifests, strict=True):
        manifest = read_json(path)
        if reason := manifest.get("absent"):
            missing[network] = reason
        else:
            (weights,) = manifest_files(manifest, Path(f"resources/lpips/{network}"))
            distances[network] = LpipsDistance(network, weights, device)
            write_pin(manifest)
    return distances, missing


class LpipsDistance:
    """LPIPS distance, version 0.1 with its learned linear heads, computed by the package of its authors.

    Parameters
    ----------
    network : str
        A key of `lpips_networks.LPIPS_NETWORKS`.
    weights : path
        torchvision's weights of this network; only the convolutions are used.
    device : torch.device

    Raises
    ------
    InputError
        If the file does not hold these weights.
    """

    def __init__(self, network: str, weights: str | Path, device: torch.device | str = "cpu") -> None:
        from lpips import LPIPS  # imports torchvision, which takes seconds

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its call of torchvision is deprecated
            self.model = LPIPS(net=LPIPS_NETWORKS[network].net, version="0.1", pnet_rand=True, verbose=False)
        try:
            state = load_tensors(Path(weights), ())
            # Its slices keep the numbers of torchvision's layers: slice2.3.weight is features.3.weight.
            own = self.model.net.state_dict()
            self.model.net.load_state_dict({key: state[f"features.{key.partition('.')[2]}"] for key in own})
        except Exception as error:  # a damaged file can raise nearly anything
            raise InputError(f"{weights} holds no weights of {network}: {first_line(error)}; delete it") from None
        self.model.to(device).requires_grad_(False)
        self.device = device

    @torch.inference_mode()
    def __call__(self, images: np.ndarray, originals: np.ndarray) -> np.ndarray:
        """Return distances, 0 for equal images: (n,) float64."""

        def tensor(image: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(2 * np.asarray(image, np.float32) - 1).permute(2, 0, 1)[None].to(self.device)

        pairs = zip(images, originals, strict=True)
        return np.array([self.model(tensor(a), tensor(b)).item() for a, b in pairs])
