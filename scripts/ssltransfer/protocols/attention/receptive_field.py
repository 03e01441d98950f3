"""Geometry of layers: which outputs depend on which inputs, and which parts of a network a group of masks changes."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from ssltransfer.models.resnet import SameConv2d, SameMaxPool2d

Span = tuple[int, int]
"""Rows or columns of a map: the first, and one past the last."""


class Layer(NamedTuple):
    """Geometry of a convolution or pooling layer along one axis."""

    kernel: int
    stride: int
    near: int
    size: int
    out: int

    def affected(self, span: Span) -> Span:
        """Outputs that depend on any of these inputs."""
        low = -((self.kernel - 1 - self.near - span[0]) // self.stride)
        return max(low, 0), min((span[1] - 1 + self.near) // self.stride + 1, self.out)

    def needed(self, span: Span) -> Span:
        """Inputs that these outputs depend on, counting those in the padding."""
        return span[0] * self.stride - self.near, (span[1] - 1) * self.stride - self.near + self.kernel


def layer(module: nn.Module, size: int) -> Layer:
    """Geometry of a layer whose input has `size` rows and columns."""
    kernel, stride, padding = (
        value if isinstance(value, int) else value[0] for value in (module.kernel_size, module.stride, module.padding)
    )
    if isinstance(module, SameConv2d | SameMaxPool2d):
        out = -(-size // stride)
        return Layer(kernel, stride, max((out - 1) * stride + kernel - size, 0) // 2, size, out)
    return Layer(kernel, stride, padding, size, (size + 2 * padding - kernel) // stride + 1)


@dataclass(frozen=True)
class BlockSpans:
    """Rows (or columns) of a residual block that change with a group of masks.

    Attributes
    ----------
    inside, shortcut, out : Span
        Changed rows of the input, of the shortcut before the addition, and of the output.
    """

    inside: Span
    shortcut: Span
    out: Span


@dataclass(frozen=True)
class GroupSpans:
    """Spans along one axis that change with a group of neighbouring masks, from the stem to the last block."""

    starts: tuple[int, ...]
    stem: Span
    pool: Span
    blocks: tuple[BlockSpans, ...]
