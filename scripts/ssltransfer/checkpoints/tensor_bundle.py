"""Reading TensorFlow checkpoints (the "tensor bundle" of ``tf.train.Saver``) without TensorFlow.

A checkpoint is ``PREFIX.index``, a LevelDB table from variable names to small protocol buffers, and
``PREFIX.data-SHARD-of-COUNT`` with the raw values. Both carry CRC-32C checksums, which are verified.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np

from ssltransfer.errors import InputError

_FOOTER_BYTES = 48
_TABLE_MAGIC = 0xDB4775248B80FB57
# Far above any network's; keys repeat by reference, so that a small crafted index could unfold to gigabytes.
_MAX_INDEX_BYTES, _MAX_NAME_BYTES, _MAX_AXES = 4 << 20, 1024, 8
_DTYPES = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 3: np.dtype("<i4"), 9: np.dtype("<i8"), 19: np.dtype("<f2")}
"""TensorFlow's numbers of the types that weights, counters and optimizer slots have."""


def read_bundle(prefix: Path) -> dict[str, np.ndarray]:
    """Read all numeric variables of a checkpoint.

    Parameters
    ----------
    prefix : Path
        Path without ``.index``.

    Returns
    -------
    dict of str to ndarray
        By variable name; variables of other types, such as strings, are left out.

    Raises
    ------
    InputError
        If a file is missing, truncated, or fails its checksum.
    """
    index = prefix.with_name(f"{prefix.name}.index")
    try:
        if index.stat().st_size > _MAX_INDEX_BYTES:
            raise ValueError(f"over {_MAX_INDEX_BYTES} bytes")
        entries = dict(_table_entries(index.read_bytes()))
        shards = _first(entries.pop(b"", b""), 1, default=1)
        room = sum(_data_file(prefix, shard, shards).stat().st_size for shard in range(shards))
        variables = {}
        for key, entry in entries.items():
            name = key.decode()
            if (array := _read_tensor(prefix, shards, name, entry)) is not None:
                variables[name] = array
                room -= array.nbytes
                if room < 0:
                    raise ValueError("its variables overlap")
        return variables
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} is missing; a TensorFlow checkpoint is an index and its data") from None
    except (IndexError, struct.error, OverflowError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{index} is not the index of a TensorFlow checkpoint, or is damaged ({error}); fetch it again"
        ) from None


def _data_file(prefix: Path, shard: int, shards: int) -> Path:
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")


def _read_tensor(prefix: Path, shards: int, name: str, entry: bytes) -> np.ndarray | None:
    dtype = _DTYPES.get(_first(entry, 1, default=0))
    if dtype is None:
        return None
    axes = [value for field, value in _fields(_first(entry, 2, default=b"")) if field == 2]
    if len(axes) > _MAX_AXES:
        raise ValueError(f"a variable of {len(axes)} axes")
    shape = tuple(_first(axis, 1, default=0) for axis in axes)
    shard, offset, size = (_first(entry, field, default=0) for field in (3, 4, 5))
    if size != dtype.itemsize * math.prod(shape):
        raise InputError(
            f"{prefix}: variable {name!r} has {size} bytes, its shape {shape} needs another number; fetch it again"
        )
    data = _data_file(prefix, shard, shards)
    content = b""
    if offset + size <= data.stat().st_size:  # an index could ask for more than there is memory
        with data.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
    if len(content) != size or _masked_crc(content) != _first(entry, 6, default=0):
        raise InputError(f"{data}: variable {name!r} fails its checksum; the file is damaged or cut; fetch it again")
    return np.frombuffer(content, dtype).reshape(shape)


def _masked_crc(content: bytes) -> int:
    """CRC-32C in the masked form in which LevelDB and TensorFlow store it."""
    crc = google_crc32c.value(content)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _table_entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table, in order."""
    if len(table) < _FOOTER_BYTES or struct.unpack("<Q", table[-8:])[0] != _TABLE_MAGIC:
        raise ValueError("no table footer")
    position = len(table) - _FOOTER_BYTES
    for _ in range(2):  # the handle of the meta index, which is not needed
        _, position = _varint(table, position)
    index_offset, position = _varint(table, position)
    index_size, _ = _varint(table, position)
    last = None
    for _, handle in _block_entries(_block(table, index_offset, index_size)):
        offset, position = _varint(handle, 0)
        size, _ = _varint(handle, position)
        for key, value in _block_entries(_block(table, offset, size)):
            if last is not None and key <= last:  # twice the same name, or the same block again and again
                raise ValueError("names are not in order")
            last = key
            yield key, value


def _block(table: bytes, offset: int, size: int) -> bytes:
    """Contents of a block; its type and checksum follow it."""
    content, trailer = table[offset : offset + size], table[offset + size : offset + size + 5]
    kind, crc = struct.unpack("<BI", trailer)
    if _masked_crc(content + trailer[:1]) != crc:
        raise ValueError("a block fails its checksum")
    if kind != 0:
        raise ValueError("blocks are compressed, which TensorFlow's own writer never does")
    return content


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Entries of a block; each key repeats only the tail that differs from the key before it."""
    restarts = struct.unpack("<I", block[-4:])[0]
    end, position, key = len(block) - 4 * (restarts + 1), 0, b""
    while position < end:
        shared, position = _varint(block, position)
        tail, position = _varint(block, position)
        size, position = _varint(block, position)
        key = key[:shared] + block[position : position + tail]
        if len(key) > _MAX_NAME_BYTES:
            raise ValueError(f"a name of over {_MAX_NAME_BYTES} bytes")
        position += tail
        yield key, block[position : position + size]
        position += size


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Decode a variable-length integer; returns it and the position behind it."""
    value = shift = 0
    while shift < 64:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise ValueError("an integer of over 64 bits")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protocol buffer."""
    if not isinstance(message, bytes):
        raise ValueError("a number where a message is expected")
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(message, position)
        elif kind == 2:
            size, position = _varint(message, position)
            value, position = message[position : position + size], position + size
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value = int.from_bytes(message[position : position + size], "little")
            position += size
        else:
            raise ValueError("unknown wire type")
        yield tag >> 3, value


def _first(message: bytes, field: int, default: int | bytes) -> int | bytes:
    """First value of a field, or what protocol buffers leave out: the default, whose type it must have."""
    value = next((value for number, value in _fields(message) if number == field), default)
    if type(value) is not type(default):
        raise ValueError(f"field {field} is of another type")
    return value
