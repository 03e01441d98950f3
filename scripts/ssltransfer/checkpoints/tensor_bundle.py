"""Reading TensorFlow checkpoints (the "tensor bundle" of ``tf.train.Saver``) without TensorFlow.

A checkpoint is ``PREFIX.index``, a LevelDB table from variable names to small protocol buffers, and
``PREFIX.data-SHARD-of-COUNT`` with the raw values. Both carry CRC-32C checksums, which are verified.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np

from ssltransfer.errors import InputError

_FOOTER_BYTES = 48
_TABLE_MAGIC = 0xDB4775248B80FB57
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
        entries = dict(_table_entries(index.read_bytes()))
        shards = _first(entries.pop(b"", b""), 1, default=1)
        return {
            name.decode(): array
            for name, entry in entries.items()
            if (array := _read_tensor(prefix, shards, name.decode(), entry)) is not None
        }
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} is missing; a TensorFlow checkpoint is an index and its data") from None
    except (IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{index} is not the index of a TensorFlow checkpoint, or is damaged ({error})") from None


def _read_tensor(prefix: Path, shards: int, name: str, entry: bytes) -> np.ndarray | None:
    dtype = _DTYPES.get(_first(entry, 1, default=0))
    if dtype is None:
        return None
    dimensions = [value for field, value in _fields(_first(entry, 2, default=b"")) if field == 2]
    shape = tuple(_first(dimension, 1, default=0) for dimension in dimensions)
    shard, offset, size = (_first(entry, field, default=0) for field in (3, 4, 5))
    if size != dtype.itemsize * int(np.prod(shape)):
        raise InputError(f"{prefix}: variable {name} has {size} bytes, its shape {shape} needs another number")
    data = prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")
    with data.open("rb") as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) != size or _masked_crc(content) != _first(entry, 6, default=0):
        raise InputError(f"{data}: variable {name} fails its checksum; the file is damaged or cut")
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
    for _, handle in _block_entries(_block(table, index_offset, index_size)):
        offset, position = _varint(handle, 0)
        size, _ = _varint(handle, position)
        yield from _block_entries(_block(table, offset, size))


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
        position += tail
        yield key, block[position : position + size]
        position += size


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Decode a variable-length integer; returns it and the position behind it."""
    value = shift = 0
    while True:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protocol buffer."""
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
    """First value of a field, or what protocol buffers leave out: the default."""
    return next((value for number, value in _fields(message) if number == field), default)
