"""Names of architectures (column `arch` of the model table), read without torch."""

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
