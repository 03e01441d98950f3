"""Read files of ``torch.save``: the saved object with its tensors, and inert stand-ins for all other objects.

`torch.load` reads tensors alone (``weights_only``), and refuses the paths, arrays, dates and configurations that
training scripts store beside them, or else runs whatever the file asks for. This reader takes both serialisations of
torch: the zip archive, and the five pickles with the raw values behind them that it wrote before release 1.6.
"""

import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ssltransfer.safe_pickle import (
    Call,
    Foreign,
    InertUnpickler,
    check_archive,
    check_pickle,
    foreign,
    is_foreign,
    shown,
)

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""What files of the old serialisation begin with."""

_PICKLES_OF_OLD_FILES = 5
_MAX_AXES = 64
_MAX_NAMES = 2000
"""Far more names of classes than any checkpoint has; each takes a kilobyte."""

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
"""Class of a storage in a file -> type of its elements."""


class _StorageType(Foreign):
    """Stand-in for the class of a storage."""

    dtype: torch.dtype


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """Return the view that a pickled tensor is of its storage, a tensor of one dimension; torch checks the bounds.

    A tensor that repeats values of a smaller storage has its shape only, as a small file could stand for terabytes.
    """
    if not isinstance(storage, Tensor):
        raise pickle.UnpicklingError("a tensor has no storage")
    _check_axes(size)
    if math.prod(size) > len(storage):
        return torch.empty(tuple(size), device="meta")
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


def _size(sizes: Any) -> tuple:
    _check_axes(sizes)
    return tuple(sizes)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


def _rebuild_from_type(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    if not isinstance(function, Call):
        raise pickle.UnpicklingError("a tensor is rebuilt by something other than torch")
    return function(*arguments)


def _check_axes(size: Any) -> None:
    if len(size) > _MAX_AXES:
        raise pickle.UnpicklingError(f"a tensor has over {_MAX_AXES} axes")


def _rebuild_meta_tensor(_: Any, size: Any, *__: Any) -> Tensor:
    _check_axes(size)
    return torch.empty(tuple(size), device="meta")


_NAMES: dict[str, Any] = {
    "torch._utils._rebuild_tensor": Call(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": Call(_rebuild_tensor),
    "torch._utils._rebuild_parameter": Call(_rebuild_parameter),
    "torch._utils._rebuild_parameter_with_state": Call(_rebuild_parameter),
    "torch._utils._rebuild_meta_tensor_no_storage": Call(_rebuild_meta_tensor),
    "torch._tensor._rebuild_from_type_v2": Call(_rebuild_from_type),
    "torch.nn.parameter.Parameter": Call(_rebuild_parameter),
    "torch.Size": Call(_size),
    # Kinds of tensors that no weights are read from.
    **{
        f"torch.{name}": foreign(f"torch.{name}")
        for name in (
            "_utils._rebuild_tensor_v3",
            "_utils._rebuild_sparse_tensor",
            "_utils._rebuild_qtensor",
            "_utils._rebuild_wrapper_subclass",
            "serialization._get_layout",
        )
    },
}
"""Names that rebuild tensors."""


def _stand_ins() -> Callable[[str], Any]:
    """Return the stand-in of each full name, as `InertUnpickler` takes it."""
    made: dict[str, type[Foreign]] = {}

    def stand_in(path: str) -> Any:
        if path in _NAMES:
            return _NAMES[path]
        if path in made:
            return made[path]
        if len(made) > _MAX_NAMES:
            raise pickle.UnpicklingError(f"it names over {_MAX_NAMES} classes")
        if path.startswith("torch.") and (dtype := DTYPES.get(path.rpartition(".")[2])):
            made[path] = type("StorageType", (_StorageType,), {"path": path, "dtype": dtype})
        elif is_foreign(path):
            made[path] = foreign(path)
        return made.get(path)

    return stand_in


def read_torch_file(path: Path) -> Any:
    """Read the object in a file of ``torch.save``.

    Parameters
    ----------
    path : Path

    Returns
    -------
    object
        Plain values; tensors of plain values on the CPU, bit for bit; `safe_pickle.Foreign` (and the other stand-ins of
        that module) for everything else.

    Raises
    ------
    ValueError, pickle.UnpicklingError, and nearly any other
        If the file is damaged, built to exhaust its reader, or names what `safe_pickle.is_foreign` refuses.
    """
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":
            with zipfile.ZipFile(path) as archive:
                check_archive(archive)
                return _read_archive(archive, path.stat().st_size)
        file.seek(0)
        return _read_old(file)


def _read_archive(archive: zipfile.ZipFile, size: int) -> Any:
    names = archive.namelist()
    pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"found {shown(names)}, expected one data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise ValueError("its values are in the byte order of another kind of machine")
    storages: dict[tuple[str, torch.dtype], Tensor] = {}

    def storage(identifier: Any) -> Tensor:
        dtype, key, count = _storage_id(identifier)
        if (key, dtype) not in storages:
            info = archive.getinfo(f"{root}data/{key}")
            values = _empty(count, dtype, info.file_size)
            with archive.open(info) as record:
                _fill(values, record)
            storages[key, dtype] = values
        return storages[key, dtype]

    with archive.open(pickles[0]) as stream:
        check_pickle(stream, size)  # type: ignore[arg-type]
    with archive.open(pickles[0]) as stream:
        return InertUnpickler(stream, _stand_ins(), size, storage, encoding="utf-8").load()  # type: ignore[arg-type]


def _read_old(file: BinaryIO) -> Any:
    size = file.seek(0, 2)
    file.seek(0)
    for _ in range(_PICKLES_OF_OLD_FILES):
        check_pickle(file, size)
    file.seek(0)
    storages: dict[str, Tensor] = {}
    views: dict[str, Tensor] = {}

    def storage(identifier: Any) -> Tensor:
        dtype, key, count = _storage_id(identifier)
        if key not in storages:
            storages[key] = _empty(count, dtype, size)
        values = storages[key]
        if values.dtype != dtype:
            raise pickle.UnpicklingError("a storage has two types")
        if identifier[5] is None:
            return values
        name, start, length = identifier[5]
        return views.setdefault(name, values[start : start + length])

    def load(external: Callable[[Any], Any] | None = None) -> Any:
        return InertUnpickler(file, _stand_ins(), size, external, encoding="utf-8").load()

    if (magic := load()) != _MAGIC or (protocol := load()) != _PROTOCOL:
        raise ValueError(f"it begins with {magic if magic != _MAGIC else protocol}, which torch.save does not write")
    load()  # the kind of machine that wrote it; raw values are in little-endian order since then
    content = load(storage)
    keys = load()
    if missing := set(storages) - set(keys):
        raise ValueError(f"the values of {len(missing)} storages are not there")
    for key in keys:
        values = storages[key]
        (count,) = struct.unpack("<q", file.read(8))
        if count != len(values):
            raise ValueError(f"a storage has {count} values, expected {len(values)}")
        _fill(values, file)
    return content


def _storage_id(identifier: Any) -> tuple[torch.dtype, str, int]:
    """Type, key and number of elements of a storage."""
    kind, storage_type, key, _, count = identifier[:5]
    kind, key = (text.decode("ascii") if isinstance(text, bytes) else text for text in (kind, key))
    if kind != "storage" or not isinstance(key, str) or type(count) is not int or count < 0:
        raise pickle.UnpicklingError("external objects other than storages are refused")
    if not (isinstance(storage_type, type) and issubclass(storage_type, _StorageType)):
        raise pickle.UnpicklingError("a storage is of an unknown type")
    return storage_type.dtype, key, count


def _empty(count: int, dtype: torch.dtype, most: int) -> Tensor:
    """Return `count` values to be filled, once the file can hold them (at most `most` bytes)."""
    if count * dtype.itemsize > most:
        raise ValueError(f"a storage of {count * dtype.itemsize} bytes is not there")
    return torch.empty(count, dtype=dtype)


def _fill(values: Tensor, file: Any) -> None:
    """Read the values of a storage."""
    if not len(values):
        return
    left = memoryview(values.view(torch.uint8).numpy())
    while left:
        count = file.readinto(left)
        if not count:
            raise ValueError("it ends within the values of a tensor")
        left = left[count:]


def foreign_names(content: Any) -> Mapping[str, str]:
    """Entry -> class for the stand-ins at the top of a file and one level below, as whole pickled modules are."""
    found = {"": content} | (dict(content) if isinstance(content, Mapping) else {})
    return {str(key): type(value).path for key, value in found.items() if isinstance(value, Foreign) and value.path}
