"""Occlusion attention (paper v1 Figs 5 and 8; v2 Figs 4 and 9, Table 9): where covering an image changes its features.

A square mask slides over the image. The error at a position is the root relative squared error between the features of
the covered and of the clean image; a pixel's attention is the mean error of the masks that cover it.

A mask changes only part of the early feature maps. `Occluder` recomputes that part of every layer against the clean
maps, which are computed once, for square groups of neighbouring masks that share one window in each layer. The values
are those of passing every covered image through the network, up to rounding.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssltransfer.errors import InputError
from ssltransfer.files import atomic_write
from ssltransfer.models.resnet import NORMALISATIONS, Bottleneck, ResNet, SameConv2d, SameMaxPool2d

FILLS = {
    "mean": tuple(255 * value for value in NORMALISATIONS["imagenet"][0]),
    "black": (0.0, 0.0, 0.0),
    "grey": (127.5, 127.5, 127.5),
    "white": (255.0, 255.0, 255.0),
}
"""Colours of the mask on the 0-255 scale: the mean of ImageNet is 0 after its normalisation."""

Span = tuple[int, int]
"""Rows or columns of a map: first, and one behind the last."""


@dataclass(frozen=True)
class Scan:
    """Mask positions along one side of a square image; rows and columns have the same ones.

    Attributes
    ----------
    size : int
        Side of the image whose attention is wanted.
    mask : int
        Side of the mask. The frame around the image is mask - 1 wide, so that as many masks cover a pixel at the
        border as one in the middle.
    stride : int
        Steps between masks; more than 1 is an approximation.
    """

    size: int
    mask: int = 10
    stride: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.mask:
            raise InputError(
                f"stride {self.stride} of the mask: write 1 to {self.mask} (its side), or pixels stay bare"
            )

    @property
    def margin(self) -> int:
        """Width of the frame around the image."""
        return self.mask - 1

    @property
    def frame(self) -> int:
        """Side of image and frame together."""
        return self.size + 2 * self.margin

    @property
    def starts(self) -> range:
        """First row of each mask, in the frame."""
        return range(0, self.frame - self.mask + 1, self.stride)

    def coverage(self) -> np.ndarray:
        """Which masks cover which row of the image: bool (size, masks)."""
        rows, starts = np.arange(self.size)[:, None] + self.margin, np.array(self.starts)[None]
        return (starts <= rows) & (rows < starts + self.mask)


def attention_map(errors: np.ndarray, scan: Scan) -> np.ndarray:
    """Mean error of the masks that cover each pixel.

    Parameters
    ----------
    errors : ndarray, shape (masks, masks)
        Error of each mask by row and column.
    scan : Scan

    Returns
    -------
    ndarray of float64, shape (size, size)
    """
    covers = scan.coverage().astype(np.float64)
    return covers @ errors @ covers.T / np.outer(covers.sum(1), covers.sum(1))


def diffusion(attention: np.ndarray) -> float:
    """Percentage of pixels above the mean of their own map; higher means wider attention."""
    attention = np.asarray(attention, np.float64)
    return float(100 * (attention > attention.mean()).mean())


def relative_error(change: Tensor, clean: Tensor) -> Tensor:
    """Root relative squared error of features that differ from `clean`, (d,), by `change`, (n, ...): (n,) float64.

    Unchanged by a common scale of both, and by an offset of `clean`. What does not change may be missing in `change`.
    """
    clean = clean.double()
    spread = (clean - clean.mean()).square().sum()
    return (change.double().flatten(1).square().sum(1) / spread).sqrt()


class Layer(NamedTuple):
    """Geometry of a convolution or pooling layer along one axis."""

    kernel: int
    stride: int
    near: int
    size: int
    out: int

    def affected(self, span: Span) -> Span:
        """Outputs that see any of these inputs."""
        low = -((self.kernel - 1 - self.near - span[0]) // self.stride)
        return max(low, 0), min((span[1] - 1 + self.near) // self.stride + 1, self.out)

    def needed(self, span: Span) -> Span:
        """Inputs that these outputs see; beyond the map where they see padding."""
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


class Clean:
    """A map of the clean image, with a margin of zeros, which is what the layers pad with."""

    def __init__(self, values: Tensor, margin: int = 0) -> None:
        self.size = values.shape[2]
        self._margin = margin
        self._values = functional.pad(values, [margin] * 4).contiguous(memory_format=torch.channels_last)

    def at(self, rows: Span, columns: Span) -> Tensor:
        """Cut a window out: (1, c, h, w)."""
        m = self._margin
        return self._values[:, :, rows[0] + m : rows[1] + m, columns[0] + m : columns[1] + m]

    def around(self, window: Tensor, place: tuple[Span, Span], rows: Span, columns: Span) -> Tensor:
        """Put changed windows, (n, c, h, w), which lie at `place`, into their clean surroundings."""
        clean = self.at(rows, columns)
        buffer = torch.empty(
            (len(window), *clean.shape[1:]), device=clean.device, memory_format=torch.channels_last
        ).copy_(clean)
        (top, bottom), (left, right) = place
        buffer[:, :, top - rows[0] : bottom - rows[0], left - columns[0] : right - columns[0]] = window
        return buffer


@dataclass(frozen=True)
class BlockSpans:
    """Rows (or columns) of a block that change with a group of masks.

    Attributes
    ----------
    inside, shortcut, out : Span
        Of the input, of the shortcut (which ends before the addition) and of the output.
    """

    inside: Span
    shortcut: Span
    out: Span


@dataclass(frozen=True)
class GroupSpans:
    """What changes along one axis with a group of neighbouring masks, from the image to the last map."""

    starts: tuple[int, ...]
    stem: Span
    pool: Span
    blocks: tuple[BlockSpans, ...]


class Occluder:
    """Errors of all mask positions on one image.

    Parameters
    ----------
    backbone : ResNet
        From `fusion.fuse_conv_bn`, on the device to use.
    image : ndarray of uint8, shape (frame, frame, 3)
        With the frame of `scan`.
    norm : {'imagenet', 'none'}
        Input normalisation of the backbone.
    scan : Scan
    fill : str
        Colour of the mask, a key of `FILLS`.
    view : {'crop', 'frame'}
        Whether the network sees the image, cut out after the mask is placed, or the image with its frame.
    feature : {'pooled', 'map'}
        What is compared: the pooled feature or the whole last map.
    """

    def __init__(
        self,
        backbone: ResNet,
        image: np.ndarray,
        norm: str,
        scan: Scan,
        fill: str = "mean",
        view: str = "crop",
        feature: str = "pooled",
    ) -> None:
        if image.shape != (scan.frame, scan.frame, 3):
            raise ValueError(f"image has shape {image.shape}, the scan needs ({scan.frame}, {scan.frame}, 3)")
        self.backbone, self.scan, self.pooled = backbone, scan, feature == "pooled"
        device = backbone.conv1.weight.device
        mean, std = (255 * torch.tensor(v, device=device).view(1, 3, 1, 1) for v in NORMALISATIONS[norm])
        self.offset = scan.margin if view == "crop" else 0
        self.size = scan.size if view == "crop" else scan.frame
        seen = torch.from_numpy(np.array(image)).to(device)[None].permute(0, 3, 1, 2)
        seen = seen[:, :, self.offset : self.offset + self.size, self.offset : self.offset + self.size]
        self.image = Clean((seen - mean) / std, backbone.conv1.kernel_size[0])
        self.fill = (torch.tensor(FILLS[fill], device=device).view(1, 3, 1, 1) - mean) / std
        self.blocks: list[Bottleneck] = [block for number in "1234" for block in getattr(backbone, f"layer{number}")]
        with torch.inference_mode():
            self._remember()

    def _remember(self) -> None:
        """Pass the clean image and keep every map that a window needs around it."""
        net = self.backbone
        whole = (0, self.size)
        x = functional.relu(net.conv1(self.image.at(whole, whole)))
        self.layers = [layer(net.conv1, self.size), layer(net.maxpool, x.shape[2])]
        self.stem = Clean(x, net.maxpool.kernel_size)
        x = net.maxpool(x)
        self.inner, self.shortcuts = [], []
        for block in self.blocks:
            inner = functional.relu(block.conv1(x))
            self.layers.append(layer(block.conv2, x.shape[2]))
            self.inner.append(Clean(inner, block.conv2.kernel_size[0]))
            self.shortcuts.append(Clean(x if block.downsample is None else block.downsample(x)))
            x = block(x)
        self.last = x
        self.clean = self._feature(x)[0]

    def _feature(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)) if self.pooled else x.flatten(1)

    def covered(self, rows: tuple[int, ...], columns: tuple[int, ...], window: tuple[Span, Span]) -> Tensor:
        """The inputs under all masks that start at `rows` x `columns`, cut to `window`: (n, 3, h, w)."""

        def hidden(starts: tuple[int, ...], span: Span) -> Tensor:
            at = torch.arange(*span, device=self.fill.device)
            first = torch.tensor(starts, device=self.fill.device)[:, None] - self.offset
            return (first <= at) & (at < first + self.scan.mask) & (at >= 0) & (at < self.size)

        masks = hidden(rows, window[0])[:, None, :, None] & hidden(columns, window[1])[None, :, None, :]
        masks = masks.flatten(0, 1)[:, None]
        return torch.where(masks, self.fill, self.image.at(*window)).contiguous(memory_format=torch.channels_last)

    def spans(self, starts: tuple[int, ...]) -> GroupSpans:
        """Windows along one axis that hold everything that any of these masks changes."""
        low = max(starts[0] - self.offset, 0)
        high = min(starts[-1] - self.offset + self.scan.mask, self.size)
        stem = self.layers[0].affected((low, high))
        pool = inside = self.layers[1].affected(stem)
        blocks = []
        for block, conv in zip(self.blocks, self.layers[2:], strict=True):
            shortcut = (
                inside if block.downsample is None else Layer(1, conv.stride, 0, conv.size, conv.out).affected(inside)
            )
            blocks.append(BlockSpans(inside, shortcut, conv.affected(inside)))
            inside = blocks[-1].out
        return GroupSpans(starts, stem, pool, tuple(blocks))

    def groups(self, run: int) -> list[GroupSpans]:
        """Split the positions of one axis into runs of nearly equal length, at most `run`."""
        starts = np.array(self.scan.starts)
        parts = np.array_split(starts, -(-len(starts) // run))
        return [self.spans(tuple(part.tolist())) for part in parts]

    @torch.inference_mode()
    def errors(self, run: int = 8, progress: Callable[[Iterable], Iterable] = iter) -> np.ndarray:
        """Error of every mask by the windows that it changes: float64 (masks, masks) by row and column.

        Parameters
        ----------
        run : int
            Groups are squares of so many masks. Their windows are a little larger than those of single masks.
        progress : callable
            Wraps the list of groups.
        """
        groups = self.groups(run)
        tiles = [(rows, columns) for rows in groups for columns in groups]
        found = [
            self.group_errors(rows, columns).reshape(len(rows.starts), len(columns.starts))
            for rows, columns in progress(tiles)
        ]
        width = len(groups)
        lines = [torch.cat(found[i : i + width], dim=1) for i in range(0, len(found), width)]
        return torch.cat(lines).cpu().numpy()

    def group_errors(self, rows: GroupSpans, columns: GroupSpans) -> Tensor:
        """Errors of a group of masks: float64 (n,)."""
        x = self._pooled_stem(rows, columns)
        for number, block in enumerate(self.blocks):
            x = self._block(number, block, x, rows.blocks[number], columns.blocks[number])
        (top, bottom), (left, right) = rows.blocks[-1].out, columns.blocks[-1].out
        change = (x - self.last[:, :, top:bottom, left:right]).double()
        if self.pooled:
            change = change.sum(dim=(2, 3)) / self.last.shape[2] ** 2
        return relative_error(change, self.clean)

    def _pooled_stem(self, rows: GroupSpans, columns: GroupSpans) -> Tensor:
        conv, pool = self.layers[:2]
        net = self.backbone
        x = self.covered(rows.starts, columns.starts, (conv.needed(rows.stem), conv.needed(columns.stem)))
        x = functional.conv2d(x, net.conv1.weight, net.conv1.bias, conv.stride).relu_()
        # Zeros beside the map do not change the maximum of values that are not negative.
        x = self.stem.around(x, (rows.stem, columns.stem), pool.needed(rows.pool), pool.needed(columns.pool))
        return functional.max_pool2d(x, pool.kernel, pool.stride)

    def _block(self, number: int, block: Bottleneck, x: Tensor, rows: BlockSpans, columns: BlockSpans) -> Tensor:
        conv, shortcuts = self.layers[2 + number], self.shortcuts[number]
        if rows.inside == columns.inside == (0, conv.size):
            return block(x)
        inner = functional.relu_(block.conv1(x))
        place = rows.inside, columns.inside
        inner = self.inner[number].around(inner, place, conv.needed(rows.out), conv.needed(columns.out))
        inner = functional.conv2d(inner, block.conv2.weight, block.conv2.bias, conv.stride).relu_()
        out = block.conv3(inner)
        if block.downsample is not None:
            x = self._downsample(block, x, rows, columns, conv.stride)
        # The addition of the shortcut: inside its window the changed one, around it the clean one.
        shortcut = shortcuts.around(x, (rows.shortcut, columns.shortcut), rows.out, columns.out)
        return out.add_(shortcut).relu_()

    @staticmethod
    def _downsample(block: Bottleneck, x: Tensor, rows: BlockSpans, columns: BlockSpans, stride: int) -> Tensor:
        """Shortcut of a block that changes the size, on every stride-th input of the window."""
        top, left = (span.shortcut[0] * stride - span.inside[0] for span in (rows, columns))
        height, width = (span.shortcut[1] - span.shortcut[0] for span in (rows, columns))
        if not height or not width:
            return x.new_empty((len(x), block.conv3.out_channels, height, width))
        x = x[:, :, top : top + (height - 1) * stride + 1, left : left + (width - 1) * stride + 1]
        return block.downsample(x)

    @torch.inference_mode()
    def plain_errors(self, batch_size: int = 64, progress: Callable[[Iterable], Iterable] = iter) -> np.ndarray:
        """Error of every mask by passing every covered image through the network, as `errors`."""
        starts, whole = tuple(self.scan.starts), (0, self.size)
        found = []
        for row in progress(starts):
            for first in range(0, len(starts), batch_size):
                x = self.covered((row,), starts[first : first + batch_size], (whole, whole))
                change = self._feature(self.backbone.feature_map(x)).double() - self.clean
                found.append(relative_error(change, self.clean))
        return torch.cat(found).reshape(len(starts), len(starts)).cpu().numpy()


def scan_images(
    occluder: Callable[[np.ndarray], Occluder],
    images: np.ndarray,
    part: Path,
    key: str,
    run: int,
    progress: Callable[[Iterable, int], Iterable],
) -> np.ndarray:
    """Measure images one after another; those that an interrupted run has measured are read from `part`.

    Parameters
    ----------
    occluder : callable
        Image, uint8 (frame, frame, 3) -> its `Occluder`.
    images : ndarray of uint8, shape (n, frame, frame, 3)
    part : Path
        Folder for finished images; the caller removes it once the result is safe.
    key : str
        Everything but the image that the errors depend on.
    run : int
        See `Occluder.errors`.
    progress : callable
        Wraps (groups of masks, number of them), for each image.

    Returns
    -------
    ndarray of float64, shape (n, masks, masks)
        Errors by image, row and column of the mask.
    """
    part.mkdir(parents=True, exist_ok=True)
    found = []
    for image in images:
        path = part / f"{hashlib.sha256(key.encode() + image.tobytes()).hexdigest()}.npy"
        if not path.exists():
            errors = occluder(image).errors(run, lambda groups: progress(groups, len(groups)))
            with atomic_write(path) as temporary:
                np.save(temporary, errors)
        found.append(np.load(path, allow_pickle=False))
    return np.stack(found)


#: Colours from low to high attention, dark to bright, so that grey prints keep the order.
SCALE = np.array([(0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191)], np.float64)


def overlay(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Colour an image by its attention, from the lowest to the highest value of its own map.

    Parameters
    ----------
    image : ndarray of uint8, shape (size, size, 3)
    attention : ndarray, shape (size, size)

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
        Two thirds colour, one third the image in grey.
    """
    low, high = attention.min(), attention.max()
    level = (attention - low) / (high - low) if high > low else np.zeros_like(attention)
    places = np.linspace(0, 1, len(SCALE))
    colour = np.stack([np.interp(level, places, SCALE[:, channel]) for channel in range(3)], axis=-1)
    grey = image.mean(axis=2, keepdims=True)
    return np.clip(np.rint(2 / 3 * colour + grey / 3), 0, 255).astype(np.uint8)
