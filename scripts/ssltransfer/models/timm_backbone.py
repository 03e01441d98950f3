"""Networks of the library timm as backbones, read out with the final norm applied exactly once.

Nothing here relies on names of single networks: class tokens, grids and norms are found by timm's common interface
(`forward_features`, `forward_head`, `forward_intermediates`, `feature_info`).
"""

import contextlib
import inspect
import io
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn import functional

from ssltransfer.errors import InputError, first_line
from ssltransfer.models.architecture import Architecture
from ssltransfer.models.backbone import ANY_SIZE, Backbone
from ssltransfer.models.readout import parse_pool
from ssltransfer.results.tensor_file import load_tensors

RESAMPLE = "resample"
"""Argument of an `arch` that is this project's: how position embeddings are resampled."""
NO_LAYERS = ("VisionTransformerRelPos",)
"""Classes whose `forward_intermediates` fails for tokens in timm 1.0.31."""
DINO_OFFSET = 0.1
"""Added to the sides of the grid by the authors of DINO and DINOv2 before they compute the scale of the resampling."""


def create_network(architecture: Architecture, size: int | None = None, **more: Any) -> nn.Module:
    """Build a timm network without classifier, with random weights.

    Parameters
    ----------
    architecture : Architecture
        Of kind ``timm``.
    size : int, optional
        Side of the images in pixels, for networks that are built for one size; None for the size of the published
        weights; `backbone.ANY_SIZE` to resample position embeddings to each image.
    **more
        Further arguments of the constructor.

    Raises
    ------
    InputError
        If timm has no such network, or it does not take an argument or size.
    """
    name = architecture.name
    own = {key: value for key, value in architecture.arguments.items() if key != RESAMPLE}
    where = f"arch timm:{name}"
    if not timm.is_model(name):
        raise InputError(f"{where}: timm {timm.__version__} has no network of this name; see timm.list_models()")
    fixed = _size_arguments(architecture, size)
    if size:
        _require_multiple(name, own, size)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return timm.create_model(name, **({"pretrained": False, "num_classes": 0} | fixed | own | more)).eval()
    except (TypeError, AssertionError, RuntimeError, ValueError, ArithmeticError, AttributeError) as error:
        arguments = ", ".join(f"{key}={value}" for key, value in (fixed | own).items()) or "its own size"
        raise InputError(f"{where}: timm cannot build it with {arguments}: {first_line(error)}") from None


def _size_arguments(architecture: Architecture, size: int | None) -> dict[str, bool | int]:
    """Arguments of a constructor that make a network take images of a size, or of several."""
    if size is None or not takes_size(architecture.name):
        return {}
    if size != ANY_SIZE:
        return {"img_size": size}
    if RESAMPLE in architecture.arguments:
        raise InputError(
            f"arch timm:{architecture.name}: found the argument {RESAMPLE}, but position embeddings are resampled to "
            "images of several sizes as timm does; add a row without it for detection and surface normals"
        )
    return {"dynamic_img_size": True}


def _require_multiple(name: str, arguments: Mapping[str, Any], size: int) -> None:
    """Require a side of whole patches; some networks would silently drop the rest of the image."""
    with torch.device("meta"):
        patch = getattr(timm.create_model(name, **arguments), "patch_embed", None)
    side = getattr(patch, "patch_size", None)
    side = side[0] if isinstance(side, tuple) else side
    if side is not None and size % side:
        near = round(size / side) * side or side
        raise InputError(
            f"arch timm:{name}: found images of {size} pixels, expected a multiple of its patch of {side}; write "
            f"size {near} into the row of the model"
        )


def takes_size(name: str) -> bool:
    """Whether a timm network is built for images of one size, which is an argument of its constructor."""
    cfg = timm.get_pretrained_cfg(name)
    return cfg is not None and bool(cfg.fixed_input_size)


def load_network(path: str | Path, architecture: Architecture, size: int | None = None, **more: Any) -> nn.Module:
    """Build a network and fill it strictly from a converted checkpoint; position embeddings fit `size` afterwards.

    timm's own filter of the family resamples what depends on the size (bicubic, with antialiasing), or with the
    argument ``resample=dino`` position embeddings are resampled as the authors of DINO and DINOv2 do.

    Raises
    ------
    InputError
        See `create_network`; or if a tensor is missing, left over or of another shape.
    """
    # Equal numbers of classes here and in the configuration keep timm strict; a file wins over every address.
    overlay = {"file": str(path), "num_classes": 0, "custom_load": False}
    try:
        network = create_network(architecture, size, pretrained=True, pretrained_cfg_overlay=overlay, **more)
    except KeyError as error:
        raise InputError(f"{path}: the tensors are not those of timm:{architecture.name}: {error}") from None
    if architecture.arguments.get(RESAMPLE) == "dino":
        _resample_as_dino(network, load_tensors(path)["pos_embed"])
    return network


def _resample_as_dino(network: Any, native: Tensor) -> None:
    """Interpolate position embeddings as the code of DINO and DINOv2: bicubic, without antialiasing, with an offset."""
    prefix = native.shape[1] - math.isqrt(native.shape[1] - 1) ** 2
    side, wanted = math.isqrt(native.shape[1] - prefix), network.patch_embed.grid_size
    if (side, side) == tuple(wanted):
        return
    grid = native[:, prefix:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    factors = tuple((length + DINO_OFFSET) / side for length in wanted)
    resampled = functional.interpolate(grid, scale_factor=factors, mode="bicubic")
    with torch.no_grad():
        network.pos_embed[:, prefix:] = resampled.flatten(2).transpose(1, 2)


def _gives_tokens(network: Any) -> bool:
    parameters = inspect.signature(network.forward_intermediates).parameters
    return "return_prefix_tokens" in parameters and type(network).__name__ not in NO_LAYERS


def _image_size(network: Any) -> int | None:
    """Side of the images that a network is built for; None if it takes any."""
    size = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if size is None:
        cfg = network.pretrained_cfg
        size = cfg["input_size"][1:] if cfg.get("fixed_input_size") else None
    return None if size is None else int(size[0])


def _levels(network: Any) -> tuple[tuple[int, ...], tuple[int, ...], list[int]]:
    """Stride, channels and index (of `forward_intermediates`) of the last map at every stride from 4 on."""
    info = getattr(network, "feature_info", None)
    if not info or not hasattr(network, "forward_intermediates"):
        return (), (), []
    last = {entry["reduction"]: (entry["num_chs"], index) for index, entry in enumerate(info) if entry["reduction"] > 2}
    strides = tuple(sorted(last))
    return strides, tuple(last[stride][0] for stride in strides), [last[stride][1] for stride in strides]


class TimmBackbone(Backbone):
    """A timm network as a backbone.

    Parameters
    ----------
    network : Module
        From `create_network`.
    pool : str
        Which vector is read: empty for the network's own readout; see `readout.parse_pool`.
    normed_maps : bool
        Whether the final norm is applied to the last map of networks that have one before pooling.

    Raises
    ------
    InputError
        If the network has no such readout.
    """

    def __init__(self, network: nn.Module, pool: str = "", *, normed_maps: bool = True) -> None:
        super().__init__()
        self.network: Any = network
        self.pool = parse_pool(pool)
        self.normed_maps = normed_maps
        self.strides, self.channels, self._indices = _levels(network)
        # Of plain transformers: one map at one stride, tokens before it.
        self.has_tokens = len(self.strides) == 1 and hasattr(network, "patch_embed") and hasattr(network, "blocks")
        self.has_tokens &= not hasattr(network, "neck")  # that of SAM makes a map of them
        self._has_class_token = getattr(network, "cls_token", None) is not None
        self.prefix_tokens = int(getattr(network, "num_prefix_tokens", self._has_class_token) or 0)
        # Networks with class attention, relative positions or a neck do not give the tokens of their blocks.
        blocks: Any = getattr(network, "blocks", ())
        self.depth = len(blocks) if self.has_tokens and _gives_tokens(network) else 0
        self.width = self._width()
        self.native_size = _image_size(network)

    def _width(self) -> int:
        net, kind = self.network, self.pool.kind
        if not kind:
            return int(net.head_hidden_size)
        if not self.has_tokens:
            raise InputError(f"pool: found {self.pool.text!r}, but the network has no tokens; leave the cell empty")
        if kind in ("cls", "cls-mean") and not self._has_class_token:
            raise InputError(f"pool: found {self.pool.text!r}, but the network has no class token; write mean")
        if kind == "token" and self.pool.number >= self.prefix_tokens:
            raise InputError(
                f"pool: found {self.pool.text!r}, but the network has {self.prefix_tokens} tokens beside its patches, "
                "counted from 0"
            )
        if kind == "layers" and self.pool.number > self.depth:
            blocks = f"{self.depth} blocks" if self.depth else "no blocks whose class tokens can be read"
            raise InputError(f"pool: found {self.pool.text!r}, but the network has {blocks}")
        return int(net.num_features) * {"cls-mean": 2, "layers": self.pool.number}.get(kind, 1)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors under timm's own names."""
        return self.network.state_dict()

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Set all tensors of the network (see `tensors`)."""
        self.network.load_state_dict(tensors)

    def pooled(self, images: Tensor) -> Tensor:
        """Map normalised images (n, 3, h, w) to one vector each, (n, width)."""
        net, kind = self.network, self.pool.kind
        if kind == "layers":
            return self._last_layers(images)
        tokens = net.forward_features(images)
        if not kind:
            return net.forward_head(tokens, pre_logits=True)
        return torch.cat([self._vector(tokens, part) for part in kind.split("-")], dim=1)

    def _vector(self, tokens: Tensor, part: str) -> Tensor:
        """One vector of the output of `forward_features`, with the norm applied exactly once."""
        late_norm = self._late_norm()
        if part == "mean":
            return late_norm(tokens[:, self.prefix_tokens :].mean(dim=1))
        return late_norm(tokens[:, self.pool.number if part == "token" else 0])

    def _late_norm(self) -> nn.Module:
        """The final norm of networks that apply it after pooling; an identity for the others."""
        net = self.network
        early = getattr(net, "norm", None)
        if early is not None and not isinstance(early, nn.Identity):
            return nn.Identity()
        return getattr(net, "fc_norm", None) or nn.Identity()

    def _last_layers(self, images: Tensor) -> Tensor:
        """Class tokens (else mean patches) of the last blocks, each normed, the earliest first (DINO's evaluation)."""
        count = self.pool.number
        outputs = self.network.forward_intermediates(
            images, indices=count, norm=True, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
        vectors = []
        for output in outputs:
            patches, prefix = output if isinstance(output, tuple) else (output, None)
            if prefix is not None and self._has_class_token:
                vectors.append(self._late_norm()(prefix[:, 0]))
            else:
                vectors.append(self._late_norm()(patches.mean(dim=1)))
        return torch.cat(vectors, dim=1)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Map normalised images (n, 3, h, w) to maps (n, channels, h / stride, w / stride), finest first."""
        norm = {"norm": True} if self.normed_maps and self.has_tokens else {}
        return self.network.forward_intermediates(
            images, indices=self._indices, output_fmt="NCHW", intermediates_only=True, **norm
        )

    def stages(self) -> list[list[nn.Parameter]]:
        """Parameters of the parts of the network in the order of the data, those of the stem first."""
        parameters = dict(self.network.named_parameters())
        groups = group_parameters(self.network, self.network.group_matcher(coarse=True))
        return [[parameters[name] for name in names] for _, names in sorted(groups.items())]
