"""Occlusion: the error of a network's features for each position of a mask (paper v1 Fig. 5; v2 Fig. 4).

The error at a position is the root relative squared error between the features of the covered and of the clean image.

`Occluder` passes every covered image through the network. In a residual network, a mask changes only part of the early
feature maps: `WindowOccluder` computes the maps of the clean image once, and recomputes the changed part of every layer
for square groups of neighbouring masks that share one window in each layer. The values are those of `Occluder`, up to
rounding. In a transformer every token sees the mask from the first block on, so there is no such part.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ssltransfer.models.backbone import Backbone
from ssltransfer.models.input_norm import pixel_mean_and_std
from ssltransfer.models.norm_table import mean_and_std
from ssltransfer.models.resnet import Bottleneck, ResNet
from ssltransfer.protocols.attention.mask_grid import MaskGrid
from ssltransfer.protocols.attention.receptive_field import BlockSpans, GroupSpans, Layer, Span, layer
from ssltransfer.row_file import read_array, save_array

FILLS = {
    "mean": tuple(255 * value for value in mean_and_std("imagenet")[0]),
    "black": (0.0, 0.0, 0.0),
    "grey": (127.5, 127.5, 127.5),
    "white": (255.0, 255.0, 255.0),
}
"""Colours of the mask on the 0-255 scale: the mean of ImageNet is 0 after its normalisation."""


def input_side(grid: MaskGrid, view: str) -> int:
    """Side in pixels of the images that the network gets, for each value of `view` (see `Occluder`)."""
    return grid.size if view == "crop" else grid.bordered_size


def relative_error(change: Tensor, clean: Tensor) -> Tensor:
    """Root relative squared error of features that differ from `clean`, (d,), by `change`, (n, ...): (n,) float64.

    A common scale of both and an offset of `clean` do not change the error. Unchanged elements may be omitted from
    `change`.
    """
    clean = clean.double()
    spread = (clean - clean.mean()).square().sum()
    return (change.double().flatten(1).square().sum(1) / spread).sqrt()


class CleanMap:
    """A feature map of the clean image with a margin of zeros, the padding of the layers."""

    def __init__(self, values: Tensor, margin: int = 0) -> None:
        self.size = values.shape[2]
        self._margin = margin
        self._values = functional.pad(values, [margin] * 4).contiguous(memory_format=torch.channels_last)

    def at(self, rows: Span, columns: Span) -> Tensor:
        """Cut a window out: (1, c, h, w)."""
        m = self._margin
        return self._values[:, :, rows[0] + m : rows[1] + m, columns[0] + m : columns[1] + m]

    def around(self, window: Tensor, place: tuple[Span, Span], rows: Span, columns: Span) -> Tensor:
        """Put changed windows (n, c, h, w), which lie at `place`, into their clean surroundings."""
        clean = self.at(rows, columns)
        buffer = torch.empty(
            (len(window), *clean.shape[1:]), device=clean.device, memory_format=torch.channels_last
        ).copy_(clean)
        (top, bottom), (left, right) = place
        buffer[:, :, top - rows[0] : bottom - rows[0], left - columns[0] : right - columns[0]] = window
        return buffer


class Occluder:
    """Errors of all mask positions on one image, by passing every covered image through the network.

    Parameters
    ----------
    backbone : Backbone
        Frozen, on its device.
    image : ndarray of uint8, shape (bordered size, bordered size, 3)
        The image with its border.
    norm : str
        Input normalisation of the backbone (see `norm_table.mean_and_std`).
    grid : MaskGrid
    fill : str
        Colour of the mask, a key of `FILLS`.
    view : {'crop', 'frame'}
        Input of the network: the image, cropped after the mask is placed, or the image with its border.
    feature : {'pooled', 'map'}
        Feature whose change is measured: the pooled feature or the whole last map.
    """

    def __init__(
        self,
        backbone: Backbone,
        image: np.ndarray,
        norm: str,
        grid: MaskGrid,
        fill: str,
        view: str,
        feature: str,
    ) -> None:
        if image.shape != (grid.bordered_size, grid.bordered_size, 3):
            raise ValueError(f"image has shape {image.shape}, expected a side of {grid.bordered_size} pixels")
        self.backbone, self.grid, self.pooled = backbone, grid, feature == "pooled"
        device = next(backbone.parameters()).device
        mean, std = (v.view(1, 3, 1, 1) for v in pixel_mean_and_std(norm, device))
        self.offset = grid.margin if view == "crop" else 0
        self.size = input_side(grid, view)
        seen = torch.from_numpy(np.array(image)).to(device)[None].permute(0, 3, 1, 2)
        seen = seen[:, :, self.offset : self.offset + self.size, self.offset : self.offset + self.size]
        self.image = CleanMap((seen - mean) / std, self._margin())
        self.fill = (torch.tensor(FILLS[fill], device=device).view(1, 3, 1, 1) - mean) / std
        with torch.inference_mode():
            self.clean = self._clean_feature()

    def _margin(self) -> int:
        """Width of the margin of zeros around the image."""
        return 0

    def _clean_feature(self) -> Tensor:
        """Feature of the clean image, (d,)."""
        whole = (0, self.size)
        return self.features(self.image.at(whole, whole))[0]

    def features(self, images: Tensor) -> Tensor:
        """Map inputs (n, 3, size, size) to the features whose change is measured, (n, d)."""
        return self.backbone.pooled(images) if self.pooled else self.backbone.feature_map(images).flatten(1)

    def covered(self, rows: tuple[int, ...], columns: tuple[int, ...], window: tuple[Span, Span]) -> Tensor:
        """Inputs covered by the masks that start at `rows` x `columns`, cropped to `window`: (n, 3, h, w)."""

        def hidden(starts: tuple[int, ...], span: Span) -> Tensor:
            at = torch.arange(*span, device=self.fill.device)
            first = torch.tensor(starts, device=self.fill.device)[:, None] - self.offset
            return (first <= at) & (at < first + self.grid.mask) & (at >= 0) & (at < self.size)

        masks = hidden(rows, window[0])[:, None, :, None] & hidden(columns, window[1])[None, :, None, :]
        masks = masks.flatten(0, 1)[:, None]
        return torch.where(masks, self.fill, self.image.at(*window)).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def errors(
        self,
        group_side: int = 8,
        progress: Callable[[Iterable], Iterable] = iter,
        unfinished: Path | None = None,
    ) -> np.ndarray:
        """Error of every mask: float64 (masks, masks) by row and column.

        Parameters
        ----------
        group_side : int
            The square of it is the number of covered images that are passed together.
        progress : callable
            Wraps the list of the rows of masks.
        unfinished : Path, optional
            File that keeps the finished rows, from which an interrupted call goes on.
        """
        starts, whole, together = list(self.grid.starts), (0, self.size), group_side**2
        found = list(read_array(unfinished)) if unfinished and unfinished.exists() else []
        for row in progress(starts[len(found) :]):
            parts = []
            for first in range(0, len(starts), together):
                x = self.covered((row,), tuple(starts[first : first + together]), (whole, whole))
                parts.append(relative_error(self.features(x).double() - self.clean, self.clean))
            found.append(torch.cat(parts).cpu().numpy())
            if unfinished:
                save_array(unfinished, np.stack(found))
        return np.stack(found)


class WindowOccluder(Occluder):
    """Errors of all mask positions on one image, computed on the windows of each layer that a mask changes.

    The parameters are those of `Occluder`, but for the backbone: a `ResNet` from `models.fusion.fuse_conv_bn`.
    """

    backbone: ResNet

    def _margin(self) -> int:
        return self.backbone.conv1.kernel_size[0]

    def _clean_feature(self) -> Tensor:
        self._remember()
        return self._feature(self.last)[0]

    def _remember(self) -> None:
        """Pass the clean image through the network and keep every map whose parts surround changed windows."""
        net = self.backbone
        self.blocks: list[Bottleneck] = [block for number in "1234" for block in getattr(net, f"layer{number}")]
        whole = (0, self.size)
        x = functional.relu(net.conv1(self.image.at(whole, whole)))
        self.layers = [layer(net.conv1, self.size), layer(net.maxpool, x.shape[2])]
        self.stem = CleanMap(x, net.maxpool.kernel_size)
        x = net.maxpool(x)
        self.inner, self.shortcuts = [], []
        for block in self.blocks:
            inner = functional.relu(block.conv1(x))
            self.layers.append(layer(block.conv2, x.shape[2]))
            self.inner.append(CleanMap(inner, block.conv2.kernel_size[0]))
            self.shortcuts.append(CleanMap(x if block.downsample is None else block.downsample(x)))
            x = block(x)
        self.last = x

    def _feature(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)) if self.pooled else x.flatten(1)

    def spans(self, starts: tuple[int, ...]) -> GroupSpans:
        """Spans along one axis that contain every change by these masks."""
        low = max(starts[0] - self.offset, 0)
        high = min(starts[-1] - self.offset + self.grid.mask, self.size)
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

    def groups(self, group_side: int) -> list[GroupSpans]:
        """Split the positions of one axis into groups of nearly equal length, at most `group_side`."""
        starts = np.array(self.grid.starts)
        parts = np.array_split(starts, -(-len(starts) // group_side))
        return [self.spans(tuple(part.tolist())) for part in parts]

    @torch.inference_mode()
    def errors(
        self,
        group_side: int = 8,
        progress: Callable[[Iterable], Iterable] = iter,
        unfinished: Path | None = None,
    ) -> np.ndarray:
        """Error of every mask, computed on the windows that it changes: float64 (masks, masks) by row and column.

        Parameters
        ----------
        group_side : int
            Number of masks along each side of a group. The masks of a group share windows a little larger than those
            of single masks.
        progress : callable
            Wraps the list of groups.
        unfinished : Path, optional
            Not used: an image takes minutes.
        """
        groups = self.groups(group_side)
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
        # The values are not negative, so zeros in the padding do not change a maximum.
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
        # The shortcut is changed inside its window and clean around it.
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
