"""Names of architectures (column `arch` of the model table), read without torch."""

import math
import re
from typing import NamedTuple

from ssltransfer.errors import InputError

ARCH_PATTERN = re.compile(r"(?:resnet50|resnet-(\d+)x(\d+)x(\d+)x(\d+)-w(\d+))(?:-(same|samepool))?")
"""Residual networks of this project (`resnet.ResNet`)."""

_LIBRARY_PATTERN = re.compile(r"(timm|torchvision):([a-z0-9_]+)(?:\(([^()]*)\))?")
_PYTHON_PATTERN = re.compile(r"python:([^:]+\.py):([A-Za-z_]\w*)")
_ARGUMENT_PATTERN = re.compile(r"([a-z_]+)=([A-Za-z0-9_.]+)")
_RESERVED = (
    *("num_classes", "global_pool", "in_chans", "img_size", "features_only", "fc_norm"),
    *("dynamic_img_size", "dynamic_img_pad", "strict_img_size"),
    *("checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit", "pruned", "device", "dtype"),
    *("kwargs_filter", "feature_cls", "feature_cfg", "model_cfg", "out_indices"),
)
"""Arguments of timm's constructors, besides those that begin with ``pretrained``, that decide what this project
decides: readout, channels and size, and which weights are loaded and how."""
_COUNTS = ("embed_dim", "patch_size", "depth", "num_heads")
MAX_COUNT = 10_000
"""Largest of the numbers `_COUNTS`."""


class Architecture(NamedTuple):
    """How a network is built.

    Attributes
    ----------
    kind : {'resnet', 'timm', 'torchvision', 'python', 'none'}
    name : str
        Of the network: timm's or torchvision's, ``FILE.py:FUNCTION``, or the whole `arch` of a residual network.
    arguments : dict of str to (bool, int, float or str)
        Of timm's constructor; ``resample`` is this project's (see `timm_backbone`).
    """

    kind: str
    name: str
    arguments: dict[str, bool | int | float | str]


def parse_architecture(arch: str) -> Architecture:
    """Parse a cell of the column `arch`.

    Raises
    ------
    InputError
        If it has none of the forms ``resnet50``, ``resnet-AxBxCxD-wN``, ``timm:NAME``, ``timm:NAME(KEY=VALUE,...)``,
        ``torchvision:NAME``, ``python:FILE.py:FUNCTION`` and ``none``.
    """
    if arch == "none" or ARCH_PATTERN.fullmatch(arch):
        return Architecture("none" if arch == "none" else "resnet", arch, {})
    if match := _PYTHON_PATTERN.fullmatch(arch):
        return Architecture("python", f"{match[1]}:{match[2]}", {})
    match = _LIBRARY_PATTERN.fullmatch(arch)
    if match is None or (match[1] == "torchvision" and match[3] is not None):
        raise InputError(
            f"arch: found {arch!r}, expected resnet50, resnet-AxBxCxD-wN, timm:NAME, torchvision:NAME, "
            "python:FILE.py:FUNCTION or none; a timm name has no tag (write that into source) and may be followed by "
            "arguments, as in timm:vit_small_patch16_224(num_heads=12)"
        )
    return Architecture(match[1], match[2], _arguments(match[3], arch))


def _arguments(text: str | None, arch: str) -> dict[str, bool | int | float | str]:
    arguments: dict[str, bool | int | float | str] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        match = _ARGUMENT_PATTERN.fullmatch(part.strip())
        if match is None:
            raise InputError(f"arch: found {part.strip()!r} in {arch!r}, expected KEY=VALUE")
        if match[1] in _RESERVED or match[1].startswith("pretrained"):
            raise InputError(
                f"arch: found the argument {match[1]!r} in {arch!r}, which the columns pool, size and source decide; "
                "leave it out"
            )
        value = arguments[match[1]] = _value(match[2])
        if match[1] in _COUNTS and not (type(value) is int and 0 < value <= MAX_COUNT):
            raise InputError(f"arch: found {match[0]!r} in {arch!r}, expected a whole number from 1 to {MAX_COUNT}")
    return arguments


def _value(text: str) -> bool | int | float | str:
    if text in ("True", "False"):
        return text == "True"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


TWINS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *("densenet121", "densenet161", "densenet169", "densenet201"),
)
"""Networks of torchvision that timm has under the same name, with the same tensors and the same outputs."""


def with_twin(architecture: Architecture) -> Architecture:
    """Return timm's twin of a torchvision network, and any other architecture as it is.

    Raises
    ------
    InputError
        If timm has no network with the same tensors.
    """
    if architecture.kind != "torchvision":
        return architecture
    if architecture.name not in TWINS:
        raise InputError(
            f"arch: found torchvision:{architecture.name}, whose tensors have other names or shapes than those of any "
            f"timm network; write a timm network with weights of its own, or one of {', '.join(TWINS)}"
        )
    return architecture._replace(kind="timm")


def is_resnet(arch: str) -> bool:
    """Whether an `arch` is a residual network of this project."""
    return ARCH_PATTERN.fullmatch(arch) is not None


def parse_resnet(arch: str) -> tuple[tuple[int, ...], int, str]:
    """Blocks of each stage, width of the stem, and padding ('', 'same' or 'samepool') of an `arch`.

    Raises
    ------
    ValueError
        If `arch` has another form than `build_resnet` describes.
    """
    match = ARCH_PATTERN.fullmatch(arch)
    if match is None:
        raise ValueError(f"unknown arch {arch!r}; write resnet50 or resnet-AxBxCxD-wN, then maybe -same or -samepool")
    *shape, padding = match.groups()
    *blocks, width = (3, 4, 6, 3, 64) if shape[0] is None else map(int, shape)
    return tuple(blocks), width, padding or ""


def feature_width(arch: str) -> int | None:
    """Number of elements of the feature of an image; None for an `arch` of another form."""
    if ARCH_PATTERN.fullmatch(arch) is None:
        return None
    _, width, _ = parse_resnet(arch)
    return 32 * width


def backbone_shapes(arch: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the network that `resnet.build_resnet` builds, in its order.

    Raises
    ------
    ValueError
        If `arch` has another form.
    """
    blocks, width, _ = parse_resnet(arch)
    shapes = {"conv1.weight": (width, 3, 7, 7), **_norm_shapes("bn1", width)}
    inputs = width
    for stage, count in enumerate(blocks):
        inner, outer = width * 2**stage, 4 * width * 2**stage
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            for number, conv in enumerate(((inner, inputs, 1, 1), (inner, inner, 3, 3), (outer, inner, 1, 1)), start=1):
                shapes |= {f"{name}.conv{number}.weight": conv, **_norm_shapes(f"{name}.bn{number}", conv[0])}
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (outer, inputs, 1, 1)
                shapes |= _norm_shapes(f"{name}.downsample.1", outer)
            inputs = outer
    return shapes


def forward_operations(arch: str, side: int) -> float:
    """Operations of the convolutions for one image of side x side pixels; a multiplication with its addition is two.

    Raises
    ------
    ValueError
        If `arch` has another form than `resnet.build_resnet` builds.
    """
    total, image = 0.0, math.ceil(side / 2)
    for name, shape in backbone_shapes(arch).items():
        if len(shape) < 4:
            continue
        if name == "conv1.weight":
            positions = image
        else:
            stage, block, layer = int(name[5]), name.split(".")[1], name.split(".")[2]
            # The first block of a later stage halves the image in its second convolution.
            wide = stage > 1 and block == "0" and layer == "conv1"
            positions = math.ceil(image / 2 ** (stage - wide))
        total += 2 * math.prod(shape) * positions**2
    return total


def _norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    """Tensors of a batch norm."""
    entries = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{entry}": (channels,) for entry in entries} | {f"{name}.num_batches_tracked": ()}
