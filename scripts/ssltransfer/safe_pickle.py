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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import nullcontext
from functools import cache
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

MAX_INSTRUCTIONS = 2_000_000
"""Of one pickle. An instruction of one byte makes an object of up to 216; weights take some twenty per tensor."""

MAX_CALLS, MAX_ARGUMENTS = 100_000, 100
"""Objects of classes in one pickle, each of which takes up to a kilobyte, and what one of them is made of."""

BYTES_PER_INSTRUCTION, BYTES_PER_CALL = 16, 256
"""Of the file: large ones may hold more, such as the losses of all steps or the names of all images."""

MAX_BITS = 512
"""Of an integer; those of random states have up to 256. Products of longer ones take long."""

MAX_TUPLE_KEYS = 1000
"""Unlike those of texts, the hashes of tuples can be chosen: n keys of one hash take n squared steps."""

MAX_UNPACKING = 10
"""Largest ratio of unpacked to packed size of an archive. Weights hardly compress, so that a larger one holds none."""

MAX_GZIP, MAX_GZIP_UNPACKING = 2**28, 50
"""Bytes that a gzipped pickle may unpack to, and the ratio that counts where it allows more."""


def shown(names: Iterable[Any], count: int = 5) -> str:
    """Show the first names of a file in a message: quoted, and each shortened."""
    return ", ".join(map(_REPR.repr, islice(names, count)))


def check_archive(archive: zipfile.ZipFile) -> None:
    """Refuse (ValueError) a zip archive that unpacks to far more than its size, or whose checksums are wrong.

    torch ignores the checksums of its files. Two names that differ by case are one name to some readers.
    """
    names = Counter(info.filename.lower() for info in archive.infolist())
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"it has {shown(twice[:1])} twice")
    unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > MAX_UNPACKING * Path(str(archive.filename)).stat().st_size:
        raise ValueError(f"it would unpack to {unpacked} bytes, over {MAX_UNPACKING} times its size")
    if (wrong := archive.testzip()) is not None:
        raise ValueError(f"the checksum of {_REPR.repr(wrong)} is wrong: the file is damaged")


def check_pickle(file: BinaryIO, size: int) -> None:
    """Read one pickle without building anything; refuse (ValueError) what is not all there, or takes too long.

    `size` is that of the whole file in bytes.
    """
    most = max(MAX_INSTRUCTIONS, size // BYTES_PER_INSTRUCTION)
    for number, (_, argument, _) in enumerate(pickletools.genops(file)):
        if number >= most:
            raise ValueError(f"there are more than {most:,} instructions")
        if isinstance(argument, int) and argument.bit_length() > MAX_BITS:
            raise ValueError(f"an integer has over {MAX_BITS} bits")


class _Limited:
    """A file that is packed, of which no more than a number of bytes is read (ValueError)."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._most, self._left = file, most, most

    def _count(self, content: bytes) -> bytes:
        self._left -= len(content)
        if self._left < 0:
            raise ValueError(f"it unpacks to over {self._most:,} bytes")
        return content

    def read(self, size: int) -> bytes:
        return self._count(self._file.read(min(size, self._left + 1)))

    def readline(self) -> bytes:
        return self._count(self._file.readline(self._left + 1))


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


class PickledMapping(dict):
    """Stand-in for `collections.OrderedDict`, which carries the versions of modules in state dicts of torch.

    Python 2 pickles its items as a list, which is emptied, as it could be named again and again.
    """

    def __init__(self, items: Any = None) -> None:
        super().__init__()
        if items is not None and not isinstance(items, list):
            raise pickle.UnpicklingError("a mapping is made of something other than its items")
        for key, value in items or ():
            check_key(key)
            self[key] = value
        if items:
            items.clear()

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict) and isinstance(versions := state.get("_metadata"), dict):
            self._metadata = versions


class _FrozenDict(Mapping):
    """Stand-in for haiku's immutable mappings, which pickle as a constructor call with a dict; a view of that dict."""

    def __init__(self, *arguments: Any) -> None:
        self._mapping: Mapping = {}
        self._view(arguments)

    def __setstate__(self, state: Any) -> None:
        self._view(state if isinstance(state, tuple) else (state,))

    def _view(self, candidates: Iterable[Any]) -> None:
        for candidate in candidates:
            inner = candidate.get("_mapping", candidate) if isinstance(candidate, dict) else candidate
            inner = inner._mapping if isinstance(inner, _FrozenDict) else inner
            if isinstance(inner, dict):
                self._mapping = inner
                return

    def __getitem__(self, key: Any) -> Any:
        return self._mapping[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._mapping)

    def __len__(self) -> int:
        return len(self._mapping)


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
            # Not of a fixed length, which one long text would give to all; emptied, as the list could be named again.
            self.array = np.array(content, dtype=object)
            content.clear()
            return
        dtype = kind.dtype() if isinstance(kind, _Kind) else None
        if dtype is None or not isinstance(content, (bytes, bytearray)):
            return
        if len(shape) > 8 or not all(isinstance(size, int) and size >= 0 for size in shape):
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
    if not isinstance(fields, (tuple, list)) or len(fields) > MAX_ARGUMENTS:
        raise pickle.UnpicklingError(f"a named tuple has over {MAX_ARGUMENTS} fields")
    if not all(isinstance(field, str) for field in fields):
        raise pickle.UnpicklingError("field names of a named tuple must be text")
    return _named_record(tuple(fields))


@cache
def _named_record(fields: tuple[str, ...]) -> type:
    return type("NamedRecord", (Record,), {"fields": fields})


def _encoder() -> Callable[[str, str], bytes]:
    """Return the stand-in for `codecs.encode`, by which protocol 2 stores bytes; other codecs could decompress."""
    found: dict[str, bytes] = {}

    def encode(text: str, encoding: str) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError(f"codec {encoding!r} is refused")
        if text not in found:  # the same text could be named again and again
            found[text] = text.encode("latin1")
        return found[text]

    return encode


def check_key(key: Any) -> None:
    """Refuse (UnpicklingError) keys whose hash can be chosen or takes long: they make mappings slow without end."""
    if isinstance(key, frozenset) or (isinstance(key, int) and key.bit_length() > 64):
        raise pickle.UnpicklingError(f"a key is {_REPR.repr(key)}; expected text or a number of 64 bits")
    if isinstance(key, tuple) and (
        len(key) > MAX_ARGUMENTS or any(isinstance(part, tuple | frozenset) for part in key)
    ):
        raise pickle.UnpicklingError("a key is a tuple of tuples, or of many parts")


INERT: dict[str, Any] = {
    **{f"numpy.{core}.multiarray._reconstruct": PickledArray for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": Record for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": Call(_from_buffer) for core in ("core", "_core")},
    "numpy.ndarray": Record,  # only ever handed to _reconstruct
    "numpy.dtype": _Kind,
    "collections.OrderedDict": PickledMapping,
    "dill._dill._create_namedtuple": Call(_create_namedtuple),
    "dill._dill._create_array": Call(_rebuild_array),
    "haiku._src.data_structures.frozendict": _FrozenDict,
    "haiku._src.data_structures.FlatMapping": _FrozenDict,
    "haiku._src.data_structures.to_immutable_dict": _FrozenDict,
    "jax._src.device_array.reconstruct_device_array": Call(_rebuild_array),
    "jax._src.array._reconstruct_array": Call(_rebuild_array),
}
"""Stand-ins by the names that pickles of numpy, dill, haiku and jax hold."""


class InertUnpickler(pickle._Unpickler):
    """Unpickler that builds plain values and stand-ins only, in time and memory that grow with the file alone.

    It is the one in Python, because that in C calls what it is told to without a check in between.

    Parameters
    ----------
    file : file
        Checked with `check_pickle` before.
    stand_in : callable
        Full name -> stand-in for a name beside those in `INERT`, or None if it is refused.
    size : int
        Of the whole file in bytes.
    external : callable, optional
        Persistent id -> object; without it, external objects are refused.
    encoding : str
        Of the strings of Python 2; ``bytes`` leaves them as they are.
    """

    dispatch = pickle._Unpickler.dispatch.copy()

    def __init__(
        self,
        file: BinaryIO,
        stand_in: Callable[[str], Any],
        size: int,
        external: Callable[[Any], Any] | None = None,
        encoding: str = "ascii",
    ) -> None:
        super().__init__(file, encoding=encoding)
        self._stand_in = stand_in
        self._external = external
        self._encode = Call(_encoder())
        self._calls = self._tuple_keys = 0
        self._most_calls = max(MAX_CALLS, size // BYTES_PER_CALL)

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a name; UnpicklingError if there is none."""
        path = f"{module}.{name}"
        if (found := self._stand_in(path)) is not None:
            return found
        if path in INERT:
            return INERT[path]
        if path == "_codecs.encode":
            return self._encode
        raise pickle.UnpicklingError(f"{_REPR.repr(path)} is not on the list of harmless names")

    def persistent_load(self, identifier: Any) -> Any:
        """Return an external object; UnpicklingError if none are expected."""
        if self._external is None:
            raise pickle.UnpicklingError("external objects are refused")
        return self._external(identifier)

    def check_call(self, *arguments: Sized) -> None:
        """Refuse too many calls, and those with too many arguments."""
        self._calls += 1
        if self._calls > self._most_calls:
            raise pickle.UnpicklingError(f"there are more than {self._most_calls:,} objects")
        if any(len(each) > MAX_ARGUMENTS for each in arguments):
            raise pickle.UnpicklingError(f"an object is made of over {MAX_ARGUMENTS} values")

    def check_keys(self, keys: Iterable[Any]) -> None:
        """Refuse what `check_key` does, and too many tuples."""
        for key in keys:
            check_key(key)
            self._tuple_keys += isinstance(key, tuple)
        if self._tuple_keys > MAX_TUPLE_KEYS:
            raise pickle.UnpicklingError(f"there are more than {MAX_TUPLE_KEYS} tuples as keys")


def _require(value: Any, *kinds: type) -> None:
    """Refuse (UnpicklingError) to change a value of another kind, such as a tensor, whose methods do something."""
    if not isinstance(value, kinds):
        raise pickle.UnpicklingError(f"a {type(value).__name__} is changed")


def _check_call(reader: Any) -> None:
    reader.check_call(reader.stack[-1])


def _check_call_with_names(reader: Any) -> None:
    reader.check_call(*reader.stack[-2:])


def _check_call_of_marked(reader: Any) -> None:
    reader.check_call(reader.stack)


def _check_state(reader: Any) -> None:
    reader.check_call()
    _require(reader.stack[-2], Record, Foreign, PickledMapping, _FrozenDict, Call)


def _check_item(reader: Any) -> None:
    _require(reader.stack[-3], dict)
    reader.check_keys(reader.stack[-2:-1])


def _check_items(reader: Any) -> None:
    _require(reader.metastack[-1][-1], dict)
    reader.check_keys(reader.stack[::2])


def _check_new_items(reader: Any) -> None:
    reader.check_keys(reader.stack[::2])


def _check_elements(reader: Any) -> None:
    _require(reader.metastack[-1][-1], set)
    reader.check_keys(reader.stack)


def _check_new_elements(reader: Any) -> None:
    reader.check_keys(reader.stack)


def _check_append(reader: Any) -> None:
    _require(reader.stack[-2], list, Foreign)


def _check_appends(reader: Any) -> None:
    _require(reader.metastack[-1][-1], list, Foreign)


def _guard(instruction: bytes, check: Callable[[Any], None]) -> None:
    """Let `check` look at the stack before an instruction is carried out."""
    carry_out = InertUnpickler.dispatch[instruction[0]]

    def load(reader: Any) -> None:
        check(reader)
        carry_out(reader)

    InertUnpickler.dispatch[instruction[0]] = load


for _instruction, _check in {
    pickle.REDUCE: _check_call,
    pickle.NEWOBJ: _check_call,
    pickle.NEWOBJ_EX: _check_call_with_names,
    pickle.OBJ: _check_call_of_marked,
    pickle.INST: _check_call_of_marked,
    pickle.BUILD: _check_state,
    pickle.SETITEM: _check_item,
    pickle.SETITEMS: _check_items,
    pickle.DICT: _check_new_items,
    pickle.ADDITEMS: _check_elements,
    pickle.FROZENSET: _check_new_elements,
    pickle.APPEND: _check_append,
    pickle.APPENDS: _check_appends,
}.items():
    _guard(_instruction, _check)


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
            size = path.stat().st_size
            most = max(MAX_GZIP, MAX_GZIP_UNPACKING * size)
            with gzip.open(file) if zipped else nullcontext(file) as content:
                stream = cast("BinaryIO", content)  # the types of `gzip` do not say so
                check_pickle(cast("BinaryIO", _Limited(stream, most)) if zipped else stream, size)
                stream.seek(0)
                return InertUnpickler(
                    stream, lambda name: Record if is_record(name) else None, size, encoding=encoding
                ).load()
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged or hostile pickle can raise nearly anything
        raise InputError(
            f"{path} cannot be read as a pickle of plain data: {first_line(error)}; fetch it again"
        ) from None
