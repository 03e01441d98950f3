"""Columns of an index file, which are read when they are first used: most jobs need the labels of images alone."""

import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssltransfer.errors import damaged, first_line

BLOCK = 2**13
"""Number of rows that are Python objects at a time."""


def open_columns(path: str | Path, few: Sequence[str] = ()) -> pq.ParquetFile:
    """Open an index file, to be read in small blocks; of the columns `few` each different value is held once."""
    return pq.ParquetFile(path, read_dictionary=list(few), buffer_size=2**16, pre_buffer=False)


class Column(Sequence):
    """A column of an index file as a sequence of Python objects, which are made when they are asked for.

    Parameters
    ----------
    path : path
        An index file.
    name : str
        Of the column.
    count : int
        Number of rows.
    few : bool
        Whether it holds few different texts, such as the names of splits.
    """

    def __init__(self, path: str | Path, name: str, count: int, few: bool = False) -> None:
        self._path, self._name, self._count, self._few = path, name, count, few
        self._array: pa.Array | None = None

    @property
    def array(self) -> pa.Array:
        """The column as arrow holds it; InputError if it cannot be read."""
        if self._array is None:
            try:
                with open_columns(self._path, [self._name] if self._few else []) as file:
                    self._array = _codes(file, self._name) if self._few else _whole(file, self._name)
            except (pa.ArrowException, OSError) as error:
                raise damaged(self._path, first_line(error)) from None
            if len(self._array) != self._count:
                raise damaged(self._path, f"{self._count} rows were there before, now {len(self._array)}")
        return self._array

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row):
        if isinstance(row, slice):
            return self.array[row].to_pylist()
        return self.array[int(row)].as_py()

    def __iter__(self) -> Iterator:
        for start in range(0, self._count, BLOCK):
            yield from self.array[start : start + BLOCK].to_pylist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_equal, self, other))

    __hash__ = None

    def __repr__(self) -> str:
        return f"Column({str(self._path)!r}, {self._name!r}, {self._count})"

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if pa.types.is_dictionary(self.array.type) and not self.array.null_count:
            values = np.asarray(self.array.dictionary.to_pylist())[_integers(self.array.indices)]
        elif pa.types.is_integer(self.array.type) and not self.array.null_count:
            values = _integers(self.array)
        else:
            values = np.asarray(list(self))
        return values if dtype is None else values.astype(dtype, copy=False)

    def among(self, values: Collection[str]) -> np.ndarray:
        """Whether each row of a column of few texts holds one of these: bool (rows,)."""
        known = np.array([text in values for text in self.array.dictionary.to_pylist()], bool)
        return known[_integers(self.array.indices)]

    @property
    def distinct(self) -> int:
        """Number of different values."""
        import pyarrow.compute as pc  # 8 MiB, which few jobs need

        return pc.count_distinct(self.array, mode="all").as_py()


def _whole(file: pq.ParquetFile, name: str) -> pa.Array:
    column = file.read([name], use_threads=False).column(0)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _codes(file: pq.ParquetFile, name: str) -> pa.Array:
    """A column of few texts as numbers of two bytes, which arrow would read as four, several times over."""
    codes, texts, start = np.empty(file.metadata.num_rows, np.int16), {}, 0
    for batch in file.iter_batches(BLOCK, columns=[name], use_threads=False):
        own = batch.column(0)
        numbers = [texts.setdefault(text, len(texts)) for text in own.dictionary.to_pylist()]
        codes[start : start + len(own)] = np.array(numbers, np.int16)[_integers(own.indices)]
        start += len(own)
    indices = pa.Array.from_buffers(pa.int16(), len(codes), [None, pa.py_buffer(codes)])
    content = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, content)]).astype(np.int32)
    # Not by pa.array, which imports pandas.
    names = pa.StringArray.from_buffers(len(content), pa.py_buffer(ends), pa.py_buffer(b"".join(content)))
    return pa.DictionaryArray.from_arrays(indices, names)


def _integers(array: pa.Array) -> np.ndarray:
    """View an array of integers without nulls; arrow's own method would import pandas, which takes 40 MiB."""
    return np.frombuffer(array.buffers()[1], array.type.to_pandas_dtype())[array.offset :][: len(array)]


def _equal(one: Any, other: Any) -> bool:
    return one == other


def to_arrow(values: Sequence, kind: pa.DataType | None = None) -> pa.Array:
    """Return a column as an arrow array, of a type that is inferred if not given."""
    if not isinstance(values, Column):
        return pa.array(list(values), kind)
    return values.array if kind is None else values.array.cast(kind)


def json_blocks(values: Sequence) -> Iterator[str]:
    """Text of a column as a JSON list, block by block, exactly as ``json.dumps`` without blanks writes it whole."""
    blocks = (values[start : start + BLOCK] for start in range(0, len(values), BLOCK))
    return _rows(rows.to_pylist() if isinstance(rows, pa.Array | pa.ChunkedArray) else rows for rows in blocks)


def stored_blocks(file: pq.ParquetFile, name: str) -> Iterator[str]:
    """`json_blocks` of a column of a file, of which a block is held at a time."""
    batches = file.iter_batches(BLOCK, columns=[name], use_threads=False)
    return _rows(batch.column(0).to_pylist() for batch in batches)


def _rows(blocks: Iterable[Sequence]) -> Iterator[str]:
    return json_text("[]", ([_dumps(list(rows))[1:-1]] for rows in blocks))


def json_object(columns: Iterable[tuple[str, Iterable[str]]]) -> Iterator[str]:
    """Text of columns as a JSON object: name of each column, in alphabetical order, and its `json_blocks`."""
    return json_text("{}", (chain([f"{json.dumps(name)}:"], blocks) for name, blocks in columns))


def json_text(brackets: str, items: Iterable[Iterable[str]]) -> Iterator[str]:
    """Text of a JSON list or object of items, each of which comes in pieces."""
    first, last = brackets
    yield first
    for number, pieces in enumerate(items):
        yield "," * (number > 0)
        yield from pieces
    yield last


def _dumps(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def content_checksum(columns: Iterable[tuple[str, Iterable[str]]], metadata: dict[str, str]) -> str:
    """CRC-32 of the content of an index file, that of the JSON of its columns and metadata (see `json_checksum`).

    Parameters
    ----------
    columns : iterable of (str, iterable of str)
        See `json_object`.
    metadata : dict of str
    """
    checksum = 0
    for text in json_text("[]", [json_object(columns), [_dumps(metadata)]]):
        checksum = zlib.crc32(text.encode(), checksum)
    return f"{checksum:08x}"
