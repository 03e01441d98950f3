"""Checks that a torch module maps images to features as a frozen backbone does."""

import torch
from torch import Tensor, nn

from ssltransfer.errors import InputError, one_line
from ssltransfer.models.features import check_weights

CHECKED = 4
"""Number of images that are passed through the module before all others."""
HEADS = ("fc", "head", "heads", "classifier", "last_linear")
"""Names of the classifiers of networks of torchvision, timm and transformers."""
TOLERANCE = 1e-3
"""Largest difference of two passes, as a share of the largest feature: above what kernels of a GPU differ by."""


def module_device(module: nn.Module) -> torch.device:
    """Return the device of the module's weights; the CPU if it has none."""
    return next((tensor.device for tensor in module.parameters()), torch.device("cpu"))


def check_state(module: object, name: str = "") -> None:
    """Require a torch module in evaluation mode with finite float32 weights; InputError otherwise, with its `name`."""
    name = name or type(module).__name__
    if not isinstance(module, nn.Module):
        raise InputError(f"module: found {name}, expected a torch.nn.Module that maps images to vectors")
    if training := [key or name for key, part in module.named_modules() if part.training]:
        raise InputError(
            f"{name}: {len(training)} modules are in training mode, first {training[0]!r}; call .eval() before"
        )
    types = {tensor.dtype for tensor in module.parameters() if tensor.is_floating_point()}
    if wrong := types - {torch.float32}:
        raise InputError(f"{name}: found weights of {wrong.pop()}, expected torch.float32; call .float() before")
    check_weights(module, name)


@torch.inference_mode()
def check_features(module: nn.Module, images: Tensor, name: str = "") -> int:
    """Require that a module maps each image to one vector, the same one in every pass; return the length of the vector.

    Parameters
    ----------
    module : torch.nn.Module
    images : Tensor of float32, shape (n, 3, h, w)
        A few normalised images, on the device of the module.
    name : str
        For messages; by default that of the module's class.

    Raises
    ------
    InputError
        If the module does not return finite float32 (n, d), or the vector of an image differs between two passes or
        depends on the other images.
    """
    name = name or type(module).__name__
    try:
        first = module(images)
    except Exception as error:  # whatever the code of a stranger raises
        height, width = images.shape[2:]
        raise InputError(
            f"{name} does not take images of {height} x {width} pixels ({type(error).__name__}: {one_line(error)}); "
            "set the size that it was made for"
        ) from error
    _check_output(first, name, len(images))
    again, alone = module(images), module(images[:1])
    _check_output(alone, name, 1)
    if not torch.isfinite(first).all():
        raise InputError(
            f"{name}: features are not finite; are the weights sound, and is norm the one of its training?"
        )
    if not _close(first, again):
        raise InputError(
            f"{name}: two passes over the same images give different features; switch off what draws random numbers "
            "(dropout, augmentation)"
        )
    if not _close(first[:1], alone):
        raise InputError(
            f"{name}: the features of an image depend on the other images of its batch; let batch normalisation use "
            "its running statistics"
        )
    return first.shape[1]


def head_of_classes(module: nn.Module, width: int) -> str:
    """Return the name of the classifier whose output a module returns, by the usual names; empty if there is none."""
    last = [(name, part) for name, part in module.named_modules() if not list(part.children())][-1:]
    for name, part in last:
        usual = name.rpartition(".")[2] in HEADS or name.split(".")[0] in HEADS
        if isinstance(part, nn.Linear) and part.out_features == width and usual:
            return name
    return ""


def _check_output(features: object, name: str, images: int) -> None:
    expected = f"expected one tensor (images, features) of torch.float32 with {images} rows"
    if not isinstance(features, Tensor):
        kind = type(features).__name__
        raise InputError(f"{name}: the output is a {kind}, {expected}; wrap it in a module that returns the features")
    if features.ndim != 2 or len(features) != images:
        hint = "; average its maps, or add nn.Flatten()" if features.ndim > 2 else ""
        raise InputError(f"{name}: the output has shape {tuple(features.shape)}, {expected}{hint}")
    if features.dtype != torch.float32:
        raise InputError(f"{name}: the output is {features.dtype}, {expected}; switch off autocast")


def _close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= TOLERANCE * one.abs().max())
