"""Backbones from a user's own code: a function in a Python file that returns a torch module.

The module may have methods ``pooled`` and ``maps`` (with an attribute ``strides``), as `Backbone` does. Otherwise the
shape of its output decides: (n, d) are vectors, (n, c, h, w) is a map, whose mean is the vector, and (n, t, c) are
tokens, from which `pool` reads a vector; the patch tokens after the first ``prefix_tokens`` (an attribute) are a map.
"""

import logging
import math
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ssltransfer.errors import InputError, first_line
from ssltransfer.models.backbone import Backbone
from ssltransfer.models.readout import parse_pool
from ssltransfer.models.user_code import code_file, code_hash
from ssltransfer.precision import tf32_allowed
from ssltransfer.results.tensor_header import read_provenance

log = logging.getLogger(__name__)

SIDE = 224
"""Side in pixels of the images by which the shape of a module's output is found, unless another one is given."""

CODE = "code"
"""Entry of the header of a converted checkpoint: SHA-256 of the file."""


def build(name: str, pool: str = "", size: int | None = None) -> "ModuleBackbone":
    """Wrap the module that ``FILE.py:FUNCTION`` returns.

    Parameters
    ----------
    name : str
        See `make_network`.
    pool : str
        See `readout.parse_pool`; for modules that return tokens.
    size : int, optional
        Side of the images in pixels; by default 224.

    Raises
    ------
    InputError
        See `make_network` and `ModuleBackbone`.
    """
    return ModuleBackbone(make_network(name), pool, size)


def make_network(name: str) -> nn.Module:
    """Run ``FILE.py:FUNCTION``, a file that the user names in the model table.

    Modules that the file imports from its own folder are found, as if Python were started with it.

    Returns
    -------
    Module
        In evaluation mode.

    Raises
    ------
    InputError
        If the file or function is missing, fails, or returns something else than a module.
    """
    path, function, where = code_file(name), name.rpartition(":")[2], f"arch python:{name}"
    if not path.is_file():
        raise InputError(f"{where}: {path} is not a file; paths start in the folder where snakemake runs")
    code = ModuleType(f"ssltransfer_user_{path.stem}")
    code.__file__ = str(path)
    sys.modules[code.__name__] = code
    if (folder := str(path.parent.resolve())) not in sys.path:
        sys.path.append(folder)
    try:
        # A script may ask torch for less precision, which is the settings' to choose.
        with tf32_allowed(False):
            # Not imported: Python would take a compiled file of the same size and second as the code.
            exec(compile(path.read_bytes(), str(path), "exec"), code.__dict__)
            make = getattr(code, function, None)
            network = make() if callable(make) else None
    except (Exception, SystemExit) as error:  # a script reads its arguments, and ends, where it is not imported
        raise _failed(where, error) from error
    if make is None:
        raise InputError(f"{where}: {path} has no {function}; write the name of a function without arguments")
    if not isinstance(network, nn.Module):
        raise InputError(f"{where}: returned a {type(network).__name__}, expected a torch.nn.Module")
    return network.eval()


def require_same_code(checkpoint: str | Path, name: str) -> None:
    """Require that a file of code is the one that a checkpoint was converted with; InputError otherwise."""
    recorded = read_provenance(checkpoint).get(CODE)
    if recorded not in (None, code_hash(name)):
        raise InputError(
            f"{code_file(name)} has changed since {checkpoint} was made with it; restore it, or start snakemake again "
            "to make the checkpoint and all that follows anew"
        )


def _failed(where: str, error: Exception | SystemExit) -> InputError:
    """Return the one line for an error in a user's code, and log where in the code it is."""
    log.error("%s", textwrap.indent("".join(traceback.format_exception(error)), " "))
    return InputError(f"{where}: {type(error).__name__}: {first_line(error)}")


class ModuleBackbone(Backbone):
    """A module of any kind as a backbone.

    Parameters
    ----------
    network : Module
        In evaluation mode.
    pool : str
        See `readout.parse_pool`: ``cls``, ``mean``, ``cls-mean`` or ``token-K`` for modules that return tokens, else
        empty.
    size : int, optional
        Side in pixels of the images by which the shapes are found; by default 224.

    Raises
    ------
    InputError
        If the network cannot process images of three channels and this side, or its output is not as described above.
    """

    def __init__(self, network: nn.Module, pool: str = "", size: int | None = None) -> None:
        super().__init__()
        self.network: Any = network
        self.pool = parse_pool(pool)
        self.native_size = size
        self.name = type(network).__name__
        self._prefix_tokens = getattr(network, "prefix_tokens", None)
        images = torch.rand(2, 3, size or SIDE, size or SIDE, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            self.width = self._probe(self.pooled, images).shape[1]
            self.strides, self.channels = self._find_maps(images)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors under the module's own names."""
        return self.network.state_dict()

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Set all tensors of the module (see `tensors`)."""
        self.network.load_state_dict(tensors)

    def pooled(self, images: Tensor) -> Tensor:
        """Map normalised images (n, 3, h, w) to one vector each, (n, width)."""
        if self._has("pooled"):
            output = self.network.pooled(images)
            if not isinstance(output, Tensor) or output.ndim != 2 or self.pool.kind:
                raise InputError(
                    f"{self.name}: pooled() gave {_shape(output)} with pool {self.pool.text!r}, expected (images, "
                    "features) and an empty pool"
                )
            return output
        output = self._output(images)
        if output.ndim == 3:
            return self._read_tokens(output)
        if self.pool.kind:
            raise InputError(
                f"pool: found {self.pool.text!r}, but {self.name} gives {_shape(output)}, no tokens; leave the cell "
                "empty"
            )
        return output if output.ndim == 2 else output.mean(dim=(2, 3))

    def maps(self, images: Tensor) -> list[Tensor]:
        """Map normalised images (n, 3, h, w) to maps (n, channels, h / stride, w / stride), finest first.

        Raises
        ------
        InputError
            If the module has none.
        """
        if self._has("maps"):
            return list(self.network.maps(images))
        output = self._output(images)
        if output.ndim == 4:
            return [output]
        if output.ndim == 3:
            patches = output[:, self._prefix(output) :]
            side = math.isqrt(patches.shape[1])
            if side**2 == patches.shape[1]:
                return [patches.transpose(1, 2).unflatten(2, (side, side))]
        raise InputError(
            f"{self.name} has no maps: the output is {_shape(output)}; give it a method maps(images) with an attribute "
            "strides, or leave the model out of this protocol (models_of)"
        )

    def stages(self) -> list[list[nn.Parameter]]:
        """All parameters as one part."""
        return [list(self.network.parameters())]

    def _has(self, method: str) -> bool:
        found = getattr(self.network, method, None)
        return callable(found) and not isinstance(found, nn.Module)

    def _output(self, images: Tensor) -> Tensor:
        output = self.network(images)
        if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4) or len(output) != len(images):
            raise InputError(
                f"{self.name}: the output is {_shape(output)} for {len(images)} images, expected one tensor (images, "
                "features), (images, channels, height, width) or (images, tokens, channels); return it, or give the "
                "module a method pooled(images)"
            )
        return output

    def _prefix(self, output: Tensor) -> int:
        count = self._prefix_tokens
        if not isinstance(count, int) or not 0 <= count < output.shape[1]:
            raise InputError(
                f"{self.name}: the output is {_shape(output)}, which are tokens, and its attribute prefix_tokens is "
                f"{count!r}; set it to the number of tokens before those of the patches (0 without a class token)"
            )
        return count

    def _read_tokens(self, output: Tensor) -> Tensor:
        """Read the vector that `pool` names from tokens (n, t, c)."""
        prefix, kind = self._prefix(output), self.pool.kind
        if not kind or kind == "layers":
            raise InputError(
                f"pool: found {self.pool.text!r}, but {self.name} gives the tokens {_shape(output)}; write cls, mean, "
                "cls-mean or token-K"
            )
        number = self.pool.number if kind == "token" else 0
        if kind != "mean" and number >= prefix:
            raise InputError(
                f"pool: found {self.pool.text!r}, but {self.name} has {prefix} tokens before its patches (attribute "
                "prefix_tokens), counted from 0; write mean"
            )
        vectors = [output[:, number] if part != "mean" else output[:, prefix:].mean(dim=1) for part in kind.split("-")]
        return torch.cat(vectors, dim=1)

    def _find_maps(self, images: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Strides and channels of the maps; none where the module has no maps or they have no whole stride."""
        side, given = images.shape[-1], getattr(self.network, "strides", None)
        try:
            maps = self._probe(self.maps, images)
        except InputError:
            if self._has("maps"):
                raise
            return (), ()
        if given is None and not self._has("maps"):
            if side % maps[0].shape[-1]:
                return (), ()
            given = [side // maps[0].shape[-1]]
        strides = tuple(given) if isinstance(given, list | tuple) else ()
        fits = len(maps) == len(strides) and all(
            isinstance(found, Tensor) and found.ndim == 4 and abs(found.shape[-1] * stride - side) < stride
            for found, stride in zip(maps, strides, strict=True)
        )
        if not fits or list(strides) != sorted(set(strides)):
            raise InputError(
                f"{self.name}: strides is {given!r} for the maps {', '.join(map(_shape, maps))} of images of {side} "
                "pixels, expected the pixels between neighbouring positions of each map (images, channels, height, "
                "width), finest first"
            )
        return strides, tuple(found.shape[1] for found in maps)

    def _probe(self, read: Callable[[Tensor], Any], images: Tensor) -> Any:
        """Pass images through the module for the first time."""
        try:
            return read(images)
        except InputError:
            raise
        except Exception as error:
            where = f"{self.name} cannot process images {tuple(images.shape)}"
            problem = _failed(where, error)
            raise InputError(
                f"{problem}; images have 3 channels, and if the module takes one size only, write its side into the "
                "column size"
            ) from error


def _shape(output: object) -> str:
    return str(tuple(output.shape)) if isinstance(output, Tensor) else f"a {type(output).__name__}"
