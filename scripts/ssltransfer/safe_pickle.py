"""Safe reading of untrusted pickles and archives: no code runs, and none can exhaust memory or crash the reader.

Pickle streams are checked before anything is built, then rebuilt with inert stand-ins for the few names that
published checkpoints hold. numpy's own unpickling is not used: it trusts the attributes of a pickled dtype, and
follows raw pointers out of a crafted one.
"""

import gzip
import math
import pickle
import pickletools
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from reprlib import Repr
from typing import Any, BinaryIO, cast

import numpy as np

from ssltransfer.errors import InputError, first_line

_REPR = Repr()
_REPR.maxstring = _REPR.maxother = 120

_PLAIN = re.compile(r"b1|[iu][1248]|f[248]|[SU][1-9]\d{0,3}")
"""Types of arrays that are read, as numpy pickles them: numbers, and text of a fixed length."""

MAX_TUPLES = 50_000
"""Hashing nested tuples recurses without a check; at about 150,000 levels Python crashes."""

MEMO_GAP = 1000
"""Writers number the objects of a pickle in turn, from 0 or 1, some with gaps."""

MAX_UNPACKING = 10
"""Largest ratio of unpacked to packed size. Weights hardly compress, so that a larger one is not a checkpoint."""


def shown(names: Iterable[Any], count: int = 5) -> str:
    """Show the first names of a file in a message: quoted, and each shortened."""
    return ", ".join(map(_REPR.repr, islice(names, count)))


def check_archive(archive: zipfile.ZipFile) -> None:
    """Refuse (ValueError) a zip archive that unpacks to far more than its size, or whose checksums are wrong.

    torch ignores the checksums of its files.
    """
    unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > MAX_UNPACKING * Path(str(archive.filename)).stat().st_size:
        raise ValueError(f"it would unpack to {unpacked} bytes, over {MAX_UNPACKING} times its size")
    if (wrong := archive.testzip()) is not None:
        raise ValueError(f"the checksum of {_REPR.repr(wrong)} is wrong: the file is damaged")


def check_pickle(file: BinaryIO) -> None:
    """Read one pickle without building anything; refuse (ValueError) what would exhaust memory or crash."""
    stored = tuples = 0
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            # The unpickler's memo is an array: storing at a high index fills gigabytes.
            if argument is not None and argument > stored + MEMO_GAP:
                raise ValueError(f"memo entry {argument} follows {stored} entries")
            stored += 1
        elif opcode.name.startswith("TUPLE") or opcode.name == "FROZENSET":
            tuples += 1
            if tuples > MAX_TUPLES:
                raise ValueError(f"there are more than {MAX_TUPLES} tuples")
        elif opcode.name == "GLOBAL" and str(argument).endswith(" bytearray"):
            raise ValueError("bytearray, which allocates any size asked for, is refused")


class Record:
    """Stand-in for any named tuple or object: keeps constructor arguments, ignores state."""

    arguments: tuple[Any, ...]

    def __new__(cls, *arguments: Any) -> "Record":
        """Keep the arguments here, because `__new__` is all that pickle calls for named tuples."""
        record = super().__new__(cls)
        record.arguments = arguments
        return record

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class Foreign(dict):
    """Stand-in for any class, function or value of a package that is not read: does nothing, whatever is done to it.

    It takes items, as configurations do that derive from `dict`. `path` is the full name in the file.
    """

    path = ""

    def __new__(cls, *_: Any, **__: Any) -> "Foreign":
        """Ignore the arguments of the call that it stands for."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Ignore an element of a class that derives from `list`."""

    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__


def foreign(path: str) -> type[Foreign]:
    """Return the stand-in of a full name."""
    return type("Foreign", (Foreign,), {"path": path})


_STANDARD = re.compile(
    r"(pathlib(\._local)?|datetime|decimal|fractions|uuid|enum|typing|zoneinfo|ipaddress)\.[A-Z]\w*"
    r"|datetime\.\w+|argparse\.Namespace|types\.SimpleNamespace|functools\.partial|zoneinfo\.ZoneInfo\._unpickle"
    r"|collections\.(defaultdict|Counter|deque)|(copyreg|copy_reg)\._reconstructor"
    r"|(builtins|__builtin__)\.(object|set|frozenset|complex|slice|range|list|dict|tuple|int|long|float|str|unicode|bool|bytes|type)"
)
"""Names of the standard library that plain data and configurations hold."""

_LIBRARIES = re.compile(r"(torch|numpy|dill|cloudpickle|joblib|jax|jaxlib|haiku)(\.\w+)*\.(?P<name>\w+)")
_LIBRARY_NAMES = re.compile(r"[A-Z]\w*|device|(u?int|float|complex)\d+\w*|bfloat16|bool_?|str_")
"""Classes of the libraries by which files are written; a function of theirs in a file is not plain data."""


def is_foreign(path: str) -> bool:
    """Whether a full name may stand in a file of weights, and becomes a `Foreign`.

    These are the classes and functions of any project, as no code of theirs runs; of Python itself and of the libraries
    that write files, those that plain data holds. Any other name is that of an attack, or of a file that needs code.
    """
    if _STANDARD.fullmatch(path):
        return True
    if match := _LIBRARIES.fullmatch(path):
        return _LIBRARY_NAMES.fullmatch(match["name"]) is not None
    top = path.partition(".")[0]
    return top not in sys.stdlib_module_names and top not in ("__builtin__", "copy_reg", "posix", "nt")


class Call:
    """A function that a pickle may call and not change, as it could with the attributes of a function."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function is changed")


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


class _Kind(Record):
    """Stand-in for `numpy.dtype`: numbers and text, whose byte order comes as state."""

    order = "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if isinstance(state, tuple) and (">" in state[1:2] or b">" in state[1:2]) else "<"

    def dtype(self) -> np.dtype | None:
        code = self.arguments[0] if self.arguments else None
        code = code.decode("latin1") if isinstance(code, bytes) else code  # of Python 2
        return np.dtype(self.order + code) if isinstance(code, str) and _PLAIN.fullmatch(code) else None


class PickledArray(Record):
    """Stand-in for `numpy.ndarray`; `array` is its value, None unless it holds numbers or text."""

    array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, column_major, content = state
        if isinstance(content, list) and all(isinstance(item, (str, bytes)) for item in content):
            self.array = np.array(content)
            return
        dtype = kind.dtype() if isinstance(kind, _Kind) else None
        if dtype is None or not isinstance(content, (bytes, bytearray)):
            return
        if not all(isinstance(size, int) and size >= 0 for size in shape) or len(shape) > 8:
            raise pickle.UnpicklingError("an array has no usable shape")
        if math.prod(shape) * dtype.itemsize != len(content):
            raise pickle.UnpicklingError(f"an array has {len(content)} bytes, its shape needs another number")
        self.array = np.frombuffer(content, dtype).reshape(shape, order="F" if column_major else "C")


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any) -> PickledArray:
    """Stand-in for the helper of numpy that makes an array in protocol 5."""
    array = PickledArray()
    array.__setstate__((1, shape, kind, order == "F", content))
    return array


def _rebuild_array(reconstruct: Any, arguments: Any, state: Any, *_: Any) -> PickledArray:
    """Stand-in for the helpers of dill and jax that make an array from numpy's function, arguments and state."""
    if reconstruct is not PickledArray:
        raise pickle.UnpicklingError("an array is rebuilt by something other than numpy")
    array = PickledArray()
    array.__setstate__(state)
    return array


def _create_namedtuple(name: str, fields: Any, module: str, *_: Any) -> type:
    """Stand-in for dill's helper of this name: a record that knows its field names."""
    if not isinstance(fields, (tuple, list)) or not all(isinstance(field, str) for field in fields):
        raise pickle.UnpicklingError("field names of a named tuple must be text")
    return type("NamedRecord", (Record,), {"fields": tuple(fields)})


def _encode(text: str, encoding: str) -> bytes:
    """Stand-in for `codecs.encode`, by which protocol 2 stores bytes; other codecs could decompress."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding!r} is refused")
    return text.encode("latin1")


INERT: dict[str, Any] = {
    **{f"numpy.{core}.multiarray._reconstruct": PickledArray for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": Record for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
    "numpy.ndarray": Record,  # only ever handed to _reconstruct
    "numpy.dtype": _Kind,
    "_codecs.encode": _encode,
    "collections.OrderedDict": dict,
    "dill._dill._create_namedtuple": _create_namedtuple,
    "dill._dill._create_array": _rebuild_array,
    "haiku._src.data_structures.frozendict": _FrozenDict,
    "haiku._src.data_structures.FlatMapping": _FrozenDict,
    "haiku._src.data_structures.to_immutable_dict": _FrozenDict,
    "jax._src.device_array.reconstruct_device_array": _rebuild_array,
    "jax._src.array._reconstruct_array": _rebuild_array,
}
"""Stand-ins by the names that pickles of numpy, dill, haiku and jax hold."""


class InertUnpickler(pickle.Unpickler):
    """Unpickler that builds plain values and stand-ins only.

    Parameters
    ----------
    file : file
        Checked with `check_pickle` before.
    stand_in : callable
        Full name -> stand-in for a name beside those in `INERT`, or None if it is refused.
    external : callable, optional
        Persistent id -> object; without it, external objects are refused.
    encoding : str
        Of the strings of Python 2; ``bytes`` leaves them as they are.
    """

    def __init__(
        self,
        file: BinaryIO,
        stand_in: Callable[[str], Any],
        external: Callable[[Any], Any] | None = None,
        encoding: str = "ascii",
    ) -> None:
        super().__init__(file, encoding=encoding)
        self._stand_in = stand_in
        self._external = external

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a name; UnpicklingError if there is none."""
        path = f"{module}.{name}"
        if (found := self._stand_in(path)) is not None:
            return found
        if path in INERT:
            return INERT[path]
        raise pickle.UnpicklingError(f"{_REPR.repr(path)} is not on the list of harmless names")

    def persistent_load(self, identifier: Any) -> Any:
        """Return an external object; UnpicklingError if none are expected."""
        if self._external is None:
            raise pickle.UnpicklingError("external objects are refused")
        return self._external(identifier)


def load_inert(path: Path, is_record: Callable[[str], object], encoding: str = "ascii") -> Any:
    """Unpickle a file, gzipped or not, with inert stand-ins only.

    Parameters
    ----------
    path : Path
    is_record : callable
        Whether a full name, beside those in `INERT`, may stand in the file; it becomes a `Record`.
    encoding : str
        Of the strings of Python 2; ``bytes`` leaves them as they are.

    Raises
    ------
    InputError
        If the pickle is damaged, names anything else, or is built to exhaust or crash its reader.
    FileNotFoundError
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with gzip.open(file) if zipped else nullcontext(file) as content:
                stream = cast("BinaryIO", content)  # the types of `gzip` do not say so
                check_pickle(stream)
                stream.seek(0)
                return InertUnpickler(
                    stream, lambda name: Record if is_record(name) else None, encoding=encoding
                ).load()
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged or hostile pickle can raise nearly anything
        raise InputError(
            f"{path} cannot be read as a pickle of plain data: {first_line(error)}; fetch it again"
        ) from None
