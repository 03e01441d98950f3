"""BYOL (deepmind-research): a dill pickle of haiku parameters, read without running anything from it.

The pickle names classes of jax, haiku and of DeepMind's own training script. Here each of a fixed list of names is
replaced by an inert stand-in that only keeps what it is given; every other name is refused.
"""

import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssltransfer.checkpoints.published import Published, log_dropped
from ssltransfer.errors import InputError, first_line


class _Record:
    """Stand-in for any named tuple or object: keeps constructor arguments and state, interprets neither."""

    def __new__(cls, *arguments: Any) -> "_Record":
        # In __new__, because that is all that pickle calls for named tuples.
        record = super().__new__(cls)
        record.arguments, record.state = arguments, None
        return record

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _FrozenDict(dict):
    """Stand-in for haiku's immutable mappings, which pickle as a constructor call with a dict."""

    def __init__(self, *arguments: Any) -> None:
        mappings = [argument for argument in arguments if isinstance(argument, Mapping)]
        super().__init__(mappings[0] if mappings else {})

    def __setstate__(self, state: Any) -> None:
        for candidate in state if isinstance(state, tuple) else (state,):
            if isinstance(candidate, Mapping):
                mapping = candidate.get("_mapping", candidate)
                self.update(mapping if isinstance(mapping, Mapping) else {})


def _create_namedtuple(name: str, fields: Any, module: str, *_: Any) -> type:
    """Stand-in for dill's helper of this name: a record that knows its field names."""
    if not all(isinstance(field, str) for field in fields):
        raise pickle.UnpicklingError("field names of a named tuple must be text")
    return type("_NamedRecord", (_Record,), {"fields": tuple(fields)})


def _encode(text: str, encoding: str) -> bytes:
    """Stand-in for `codecs.encode`, by which protocol 2 stores bytes; other codecs could decompress."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding!r} is refused")
    return text.encode("latin1")


def _reconstruct(_: Any, shape: Any, kind: Any) -> np.ndarray:
    """Stand-in for numpy's helper: an empty array, to be filled by its state."""
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _create_array(reconstruct: Any, arguments: Any, state: Any, *_: Any) -> np.ndarray:
    """Stand-in for dill's helper of this name: an array and its state in one call."""
    if reconstruct is not _reconstruct:
        raise pickle.UnpicklingError("an array is rebuilt by something other than numpy")
    array = _reconstruct(*arguments)
    array.__setstate__(state)
    return array


def _jax_array(*arguments: Any) -> Any:
    """Stand-in for the helpers that rebuild jax arrays from numpy ones."""
    return arguments[-1] if arguments else None


_NUMPY = {"_reconstruct": _reconstruct, "scalar": lambda *a: _Record(*a)}
_GLOBALS: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", name): value for core in ("core", "_core") for name, value in _NUMPY.items()},
    ("numpy", "ndarray"): None,  # only ever handed to _reconstruct
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): dict,
    ("dill._dill", "_create_namedtuple"): _create_namedtuple,
    ("dill._dill", "_create_array"): _create_array,
    ("haiku._src.data_structures", "frozendict"): _FrozenDict,
    ("haiku._src.data_structures", "FlatMapping"): _FrozenDict,
    ("haiku._src.data_structures", "to_immutable_dict"): _FrozenDict,
    ("jax._src.device_array", "reconstruct_device_array"): _jax_array,
    ("jax._src.array", "_reconstruct_array"): _Record,
    ("__main__", "BYOLState"): _Record,
    ("__main__", "_ByolExperimentState"): _Record,
    ("byol_experiment", "_ByolExperimentState"): _Record,
}
# Optimizer states carry nothing that is needed; their classes differ between versions of the training code.
_RECORD_MODULES = re.compile(
    r"google3\.learning\.deepmind\.research\.nbr\.pbl_jax\..*|optax\._src\..*|byol\.utils\.optimizers|utils\.optimizers"
)
_RECORD_NAMES = re.compile(r"[A-Z]\w*State")
_BYOL_STATE_FIELDS = ("online_params", "target_params", "online_state", "target_state", "opt_state")


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _GLOBALS:
            return _GLOBALS[module, name]
        if _RECORD_MODULES.fullmatch(module) and _RECORD_NAMES.fullmatch(name):
            return type(name, (_Record,), {})
        raise pickle.UnpicklingError(f"{module}.{name} is not on the list of harmless names")

    def persistent_load(self, identifier: Any) -> Any:
        raise pickle.UnpicklingError("external objects are refused")


def load_inert(content: bytes, name: str) -> Any:
    """Unpickle with inert stand-ins only.

    Raises
    ------
    InputError
        If the pickle is damaged or names anything else.
    """
    try:
        return _InertUnpickler(io.BytesIO(content)).load()
    except Exception as error:  # a damaged or hostile pickle can raise nearly anything
        raise InputError(f"{name} cannot be read as a BYOL checkpoint: {first_line(error)}") from None


_PARAMETER = re.compile(
    r"(?:.*/)?res_net50/~/(?:(?P<stem>initial)_|block_group_(?P<group>\d+)/(?:~/)?block_(?P<block>\d+)/~/)"
    r"(?P<kind>shortcut_conv|shortcut_batchnorm|conv|batchnorm)(?:_(?P<number>\d+))?(?P<average>/~/(?:mean|var)_ema)?"
)
_HEADS = re.compile(r"(projector|predictor|classifier)(/.*)?")


def read_byol(path: Path, expected: set[str]) -> Published:
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
        If the pickle names anything but plain data, or an entry is unexplained.
    """
    state = _experiment_state(load_inert(path.read_bytes(), str(path)), str(path))
    tensors: dict[str, torch.Tensor] = {}
    dropped = ["target_params", "target_state", "opt_state"]
    head = None
    for part in ("online_params", "online_state"):
        if not isinstance(state.get(part), Mapping):
            raise InputError(f"{path}: {part} is missing; expected the state of a BYOL experiment")
        for module, entries in state[part].items():
            if _HEADS.fullmatch(module):
                dropped.append(f"{part}/{module}")
                if module == "classifier" and part == "online_params":
                    head = _tensor(entries["w"], path).T.contiguous(), _tensor(entries["b"], path)
                continue
            for entry, value in entries.items():
                name = _torchvision_name(module, entry)
                if name is None and entry in ("counter", "hidden"):
                    continue  # bookkeeping of the moving averages
                if name not in expected:
                    raise InputError(f"{path}: {part} has {module}/{entry}, which does not belong to this network")
                tensors[name] = _tensor(value, path)
    if not tensors:
        raise InputError(f"{path}: online_params holds no backbone")
    log_dropped(dropped, group=lambda name: name.split("/~/")[0])
    return Published(tensors, head, dropped)


def _experiment_state(content: Any, name: str) -> dict[str, Any]:
    """Fields of the experiment's named tuple, however it was rebuilt."""
    if not isinstance(content, Mapping) or "experiment_state" not in content:
        found = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise InputError(f"{name}: entry 'experiment_state' is missing; found {found}")
    record = content["experiment_state"]
    if isinstance(record, Mapping):
        return dict(record)
    if not isinstance(record, _Record):
        raise InputError(f"{name}: experiment_state is a {type(record).__name__}, expected a named tuple")
    return dict(zip(getattr(record, "fields", _BYOL_STATE_FIELDS), record.arguments, strict=False))


def _tensor(value: Any, path: Path) -> torch.Tensor:
    """Float array in torch's layout: HWIO kernels become OIHW, singleton axes of batch norms go."""
    if isinstance(value, _Record):  # jax arrays of newer versions keep a numpy array among their arguments
        value = next((a for a in value.arguments if isinstance(a, np.ndarray)), value.state)
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        raise InputError(f"{path}: found {type(value).__name__} where an array of floats is expected")
    if value.ndim == 4:
        batch_norm = value.shape[:3] == (1, 1, 1)
        value = value.reshape(-1) if batch_norm else value.transpose(3, 2, 0, 1)
    return torch.from_numpy(np.array(value, dtype=np.float32, order="C"))


def _torchvision_name(module: str, entry: str) -> str | None:
    match = _PARAMETER.fullmatch(module)
    if match is None:
        return None
    kind, average = match["kind"], match["average"]
    if average:
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
