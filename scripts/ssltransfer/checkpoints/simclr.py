"""SimCLR v1 and v2 (google-research/simclr): TensorFlow variables numbered in order of creation.

Convolutions are ``base_model/conv2d``, ``conv2d_1``, ..., batch norms likewise. The numbers follow the network: stem
first, then the blocks; in the first block of each stage the shortcut comes before its three convolutions.
"""

import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ssltransfer.checkpoints.read_checkpoint import ReadCheckpoint, log_dropped
from ssltransfer.checkpoints.tensor_bundle import read_bundle
from ssltransfer.errors import InputError, first_line
from ssltransfer.models.resnet import ResNet
from ssltransfer.safe_pickle import check_archive, shown

_VARIABLE = re.compile(r"(conv2d|batch_normalization)(?:_([1-9]\d{0,3}))?/(\w+)")
_ENTRIES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_HEAD = "head_supervised/linear_layer/dense/"
_LEFT_OUT = re.compile(
    r"global_step$|.*/Momentum$|head_supervised/|head_contrastive/|(ema_model/)?base_model/|ema_model/head_"
)
# A TF-Hub module beside the checkpoint has an index of its own, called variables.index.
_MEMBER = re.compile(r"(?:.*/)?(?!variables\.)[^/]+\.(index|data-\d{5}-of-\d{5})", re.DOTALL)


def layer_order(backbone: ResNet) -> Iterator[tuple[str, str]]:
    """Names of each convolution and its batch norm, in SimCLR's order of creation."""
    yield "conv1", "bn1"
    for stage in range(1, 5):
        for number, block in enumerate(getattr(backbone, f"layer{stage}")):
            name = f"layer{stage}.{number}"
            if block.downsample is not None:
                yield f"{name}.downsample.0", f"{name}.downsample.1"
            for i in (1, 2, 3):
                yield f"{name}.conv{i}", f"{name}.bn{i}"


def read_simclr(files: list[Path], backbone: ResNet, scope: str = "base_model/") -> ReadCheckpoint:
    """Read a SimCLR checkpoint: its TensorFlow files, or the zip archive that holds them.

    Parameters
    ----------
    files : list of Path
        One .zip, or the .index file and its data.
    backbone : ResNet
        Of the published architecture.
    scope : {'base_model/', 'ema_model/base_model/'}
        Which copy of the weights: SimCLR v2 files also hold a moving average.

    Raises
    ------
    InputError
        If a variable is missing, left over or unexplained, or the files are damaged.
    """
    if files[0].suffix == ".zip":
        with tempfile.TemporaryDirectory() as folder:
            try:
                variables = read_bundle(_unzip(files[0], Path(folder)))
            except InputError as error:
                raise InputError(str(error).replace(folder, str(files[0]))) from None
            return _convert(variables, backbone, scope, str(files[0]))
    index = [path for path in files if path.suffix == ".index"]
    if len(index) != 1:
        raise InputError(
            f"{files[0].parent}: found {len(index)} index files, expected one TensorFlow checkpoint; name its "
            "files as the source"
        )
    return _convert(read_bundle(index[0].with_suffix("")), backbone, scope, str(index[0]))


def _unzip(archive: Path, folder: Path) -> Path:
    """Unpack the checkpoint's files into `folder` under names of our own; returns the prefix."""
    prefix = folder / "checkpoint"
    try:
        with zipfile.ZipFile(archive) as content:
            check_archive(content)
            members = [(info, match[1]) for info in content.infolist() if (match := _MEMBER.fullmatch(info.filename))]
            for info, suffix in members:
                with content.open(info) as packed, (folder / f"checkpoint.{suffix}").open("xb") as file:
                    shutil.copyfileobj(packed, file)
    except FileExistsError:
        raise InputError(
            f"{archive} holds more than one TensorFlow checkpoint; unpack it and name the files of one"
        ) from None
    except Exception as error:  # a damaged or hostile archive can raise nearly anything
        raise InputError(f"{archive} is not a whole zip archive: {first_line(error)}; fetch it again") from None
    if "index" not in dict(members).values():
        raise InputError(
            f"{archive}: found no index file, expected one TensorFlow checkpoint; name its files as the source"
        )
    return prefix


def _convert(variables: dict[str, np.ndarray], backbone: ResNet, scope: str, name: str) -> ReadCheckpoint:
    layers = list(layer_order(backbone))
    state: dict[str, torch.Tensor] = {}
    dropped = []
    for variable, value in variables.items():
        if variable.startswith(scope) and not variable.endswith("/Momentum"):
            key = _torchvision_name(variable.removeprefix(scope), layers)
            if key is None:
                raise InputError(
                    f"{name}: variable {shown([variable])} does not belong to this network; write its arch"
                )
            array = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
            state[key] = torch.from_numpy(np.array(array, order="C"))
        elif _LEFT_OUT.match(variable):
            dropped.append(variable)
        else:
            raise InputError(
                f"{name}: variable {shown([variable])} is unexplained; is this a SimCLR checkpoint? Write its format"
            )
    if not state:
        raise InputError(f"{name}: no variable begins with {scope!r}; found {shown(variables)}; use another format")
    log_dropped(
        dropped, group=lambda variable: "momentum" if variable.endswith("/Momentum") else variable.split("/")[0]
    )
    head = None
    if scope == "base_model/" and {f"{_HEAD}kernel", f"{_HEAD}bias"} <= set(variables):
        kernel, bias = (np.array(variables[f"{_HEAD}{entry}"]) for entry in ("kernel", "bias"))
        head = torch.from_numpy(kernel.T.copy()), torch.from_numpy(bias)
    return ReadCheckpoint(state, head, dropped)


def _torchvision_name(variable: str, layers: list[tuple[str, str]]) -> str | None:
    match = _VARIABLE.fullmatch(variable)
    if match is None or int(match[2] or 0) >= len(layers):
        return None
    conv, norm = layers[int(match[2] or 0)]
    if match[1] == "conv2d":
        return f"{conv}.weight" if match[3] == "kernel" else None
    return f"{norm}.{_ENTRIES[match[3]]}" if match[3] in _ENTRIES else None
