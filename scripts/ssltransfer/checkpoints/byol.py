"""BYOL (deepmind-research): a dill pickle of haiku parameters, read without running anything from it.

The pickle names classes of jax, haiku and of DeepMind's own training script; see `untrusted` for how it is read.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssltransfer.checkpoints.read_checkpoint import ReadCheckpoint, log_dropped
from ssltransfer.errors import InputError
from ssltransfer.safe_pickle import PickledArray, Record, load_inert, shown

_EXPERIMENTS = ("__main__.BYOLState", "__main__._ByolExperimentState", "byol_experiment._ByolExperimentState")
# Optimizer states carry nothing that is needed; their classes differ between versions of the training code.
_OPTIMIZER_STATE = re.compile(
    r"(google3\.learning\.deepmind\.research\.nbr\.pbl_jax\..*|optax\._src\.\w+|(byol\.)?utils\.optimizers)\.[A-Z]\w*State"
)
_FIELDS = ("online_params", "target_params", "online_state", "target_state", "opt_state")
_PARAMETER = re.compile(
    r"(?:.*/)?res_net50/~/(?:(?P<stem>initial)_|block_group_(?P<group>\d{1,3})/(?:~/)?block_(?P<block>\d{1,3})/~/)"
    r"(?P<kind>shortcut_conv|shortcut_batchnorm|conv|batchnorm)(?:_(?P<number>\d{1,3}))?"
    r"(?P<average>/~/(?:mean|var)_ema)?"
)
_HEADS = re.compile(r"(projector|predictor|classifier)(/.*)?")


def read_byol(path: Path, expected: set[str]) -> ReadCheckpoint:
    """Read the online network of a BYOL checkpoint.

    Parameters
    ----------
    path : Path
        ``pretrain_res50x1.pkl``.
    expected : set of str
        Names of the backbone's tensors.

    Raises
    ------
    InputError
        If the pickle names anything but plain data, or an entry is unexplained or sets a tensor again.
    """
    content = load_inert(path, lambda name: name in _EXPERIMENTS or _OPTIMIZER_STATE.fullmatch(name))
    state = _experiment_state(content, str(path))
    tensors: dict[str, torch.Tensor] = {}
    classifier: dict[str, torch.Tensor] = {}
    dropped = [field for field in state if not field.startswith("online_")]
    for part in ("online_params", "online_state"):
        for module, entry, value in _entries(state.get(part), f"{path}: {part}"):
            name = _torchvision_name(module, entry)
            if part == "online_params" and module == "classifier":
                classifier[entry] = _tensor(value, path)
            elif _HEADS.fullmatch(module) or name == _BOOKKEEPING:
                dropped.append(f"{part}/{module}/{entry}")
            elif name not in expected:
                raise InputError(
                    f"{path}: {part} has {shown([f'{module}/{entry}'])}, which does not belong to this "
                    "network; write its arch"
                )
            elif name in tensors:
                raise InputError(
                    f"{path}: {part} has {shown([f'{module}/{entry}'])}, which sets {name} twice; fetch it again"
                )
            else:
                tensors[name] = _tensor(value, path)
    if not tensors:
        raise InputError(f"{path}: online_params holds no backbone; write another format")
    log_dropped(dropped, group=lambda name: "/".join(name.split("/")[:2]) if _is_head(name) else name.split("/")[0])
    head = (classifier["w"].T.contiguous(), classifier["b"]) if set(classifier) == {"w", "b"} else None
    return ReadCheckpoint(tensors, head, dropped)


def _is_head(name: str) -> bool:
    return _HEADS.fullmatch(name.partition("/")[2]) is not None


def _experiment_state(content: Any, name: str) -> dict[str, Any]:
    """Fields of the experiment's named tuple, however it was rebuilt."""
    if not isinstance(content, Mapping) or "experiment_state" not in content:
        found = shown(content) if isinstance(content, Mapping) else type(content).__name__
        raise InputError(f"{name}: entry 'experiment_state' is missing; found {found}; write another format")
    record = content["experiment_state"]
    if isinstance(record, Record):
        fields = getattr(record, "fields", _FIELDS)
        if len(record.arguments) != len(fields):
            raise InputError(
                f"{name}: experiment_state has {len(record.arguments)} values, expected {len(fields)}; use another "
                "format"
            )
        record = dict(zip(fields, record.arguments, strict=True))
    if not isinstance(record, Mapping) or (foreign := [field for field in record if field not in _FIELDS]):
        found = shown(foreign) if isinstance(record, Mapping) else type(record).__name__
        raise InputError(f"{name}: experiment_state holds {found}, expected {', '.join(_FIELDS)}; write another format")
    return dict(record)


def _entries(modules: Any, where: str) -> Iterator[tuple[str, str, Any]]:
    """Modules, entries and values of haiku's two-level mapping."""
    if not isinstance(modules, Mapping):
        raise InputError(f"{where} is missing; expected the state of a BYOL experiment; write another format")
    for module, entries in modules.items():
        if not isinstance(module, str) or not isinstance(entries, Mapping):
            raise InputError(f"{where} has {shown([module])}, expected modules with entries; write another format")
        for entry, value in entries.items():
            if not isinstance(entry, str):
                raise InputError(
                    f"{where} has {shown([module])} with {shown([entry])}, expected an entry's name; use another format"
                )
            yield module, entry, value


def _tensor(value: Any, path: Path) -> torch.Tensor:
    """Float array in torch's layout: HWIO kernels become OIHW, singleton axes of batch norms go."""
    if not isinstance(value, PickledArray) or value.array is None or value.array.dtype.kind != "f":
        raise InputError(f"{path}: found {type(value).__name__} where floats should be; use another format")
    array = value.array
    if array.ndim == 4:
        batch_norm = array.shape[:3] == (1, 1, 1)
        array = array.reshape(-1) if batch_norm else array.transpose(3, 2, 0, 1)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


_BOOKKEEPING = ""
"""Name of what a moving average holds beside its value."""


def _torchvision_name(module: str, entry: str) -> str | None:
    match = _PARAMETER.fullmatch(module)
    if match is None:
        return None
    kind, average = match["kind"], match["average"]
    if average:
        if entry in ("counter", "hidden"):
            return _BOOKKEEPING
        suffix = {"/~/mean_ema": "running_mean", "/~/var_ema": "running_var"}[average] if entry == "average" else None
    else:
        suffix = {"w": "weight", "scale": "weight", "offset": "bias"}.get(entry)
    if suffix is None:
        return None
    if match["stem"]:
        return f"{'conv1' if kind == 'conv' else 'bn1'}.{suffix}"
    block = f"layer{int(match['group']) + 1}.{match['block']}"
    if kind.startswith("shortcut"):
        return f"{block}.downsample.{0 if kind == 'shortcut_conv' else 1}.{suffix}"
    return f"{block}.{'conv' if kind == 'conv' else 'bn'}{int(match['number'] or 0) + 1}.{suffix}"
