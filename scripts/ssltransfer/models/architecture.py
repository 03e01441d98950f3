"""Names of architectures (column `arch` of the model table), read without torch."""

import math
import re

ARCH_PATTERN = re.compile(r"(?:resnet50|resnet-(\d+)x(\d+)x(\d+)x(\d+)-w(\d+))(?:-(same|samepool))?")


def parse_arch(arch: str) -> tuple[tuple[int, ...], int, str]:
    """Blocks of each stage, width of the stem, and padding ('', 'same' or 'samepool') of an `arch`.

    Raises
    ------
    ValueError
        If `arch` has another form than `build_backbone` describes.
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
    _, width, _ = parse_arch(arch)
    return 32 * width


def backbone_shapes(arch: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the network that `resnet.build_backbone` builds, in its order.

    Raises
    ------
    ValueError
        If `arch` has another form.
    """
    blocks, width, _ = parse_arch(arch)
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
        If `arch` has another form than `resnet.build_backbone` builds.
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
