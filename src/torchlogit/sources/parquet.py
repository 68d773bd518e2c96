"""Tables in Parquet and Arrow files, which know the types of their columns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from torchlogit.errors import InputError
from torchlogit.sources.files import BLOCK_BYTES, reading
from torchlogit.sources.numbers import is_text

# pandas writes the index of a frame under this name: rows' numbers, not a feature.
_PANDAS_INDEX = "__index_level_0__"
# Bytes that are read ahead of the decoding, of all columns together and of one at least.
_BUFFER_BYTES, _LEAST_BUFFER = 16 << 20, 1 << 16


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without dictionaries, run lengths, extensions and string views."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    return pa.string() if is_text(kind) else kind


def plain(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """The column in this type, decoded if it is a dictionary."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    if pa.types.is_dictionary(column.type):
        column = plain(column.dictionary, plain_type(column.type)).take(column.indices)
    return column if column.type.equals(kind) else column.cast(kind, safe=False)


def _plain_schema(schema: pa.Schema, name: str) -> tuple[pa.Schema, dict[str, str]]:
    """The columns that are features, and what each is called in the file: one without a name is numbered, as in CSV."""
    stored: dict[str, str] = {}
    for j, column in enumerate(schema.names):
        known = column or f"column_{j}"
        if known in stored:
            raise InputError(f"{name} has two columns named '{known}'; rename one and write the file again")
        stored[known] = column
    stored.pop(_PANDAS_INDEX, None)
    return pa.schema([(known, plain_type(schema.field(column).type)) for known, column in stored.items()]), stored


@contextmanager
def _arrow_errors(name: str, format: str) -> Iterator[None]:  # noqa: A002
    """What Arrow complains about, as a sentence."""
    with reading(name):
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise InputError(
                f"{name} is not a complete {format} file (it is cut short or damaged); copy or write it again"
            ) from None


def _many_threads() -> bool:
    """Whether columns are worth threads of their own: decoding has one, computing the others, and two are soon busy."""
    return int(pa.cpu_count()) > 2


def _rows_of(block_bytes: int, columns: int) -> int:
    """Rows of a block of about this many bytes, taking a value for 8."""
    return int(np.clip(8 * block_bytes // (8 * max(columns, 1)), 256, 1 << 17))


class ParquetFile:
    """One Parquet file.

    Parameters
    ----------
    path : Path
    name : str
        For messages.
    block_bytes : int
        About how much is decoded at a time (an eighth of it).
    """

    def __init__(self, path: Path, name: str, block_bytes: int = BLOCK_BYTES) -> None:
        self.path = path
        self.name = name
        self.size = path.stat().st_size
        self._block_bytes = block_bytes
        with _arrow_errors(name, "Parquet"), self._open() as file:
            self._rows = int(file.metadata.num_rows)
            schema = file.schema_arrow
        self.schema, self._stored = _plain_schema(schema, name)

    def _open(self, columns: int = 1) -> Any:
        # buffer_size: a column chunk is read in pieces, not as a whole, and each column has a buffer
        size = int(np.clip(_BUFFER_BYTES // max(columns, 1), _LEAST_BUFFER, BLOCK_BYTES))
        return pyarrow.parquet.ParquetFile(self.path, buffer_size=size, pre_buffer=False)

    def known_rows(self) -> int:
        """Number of rows, from the footer."""
        return self._rows

    def where(self, row: int) -> str:
        """File and row."""
        return f"{self.name}, row {row + 1:,}"

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, float]]:
        """Blocks of these columns, in their own types."""
        names, types = list(columns), [self.schema.field(name).type for name in columns]
        done = 0
        with _arrow_errors(self.name, "Parquet"), self._open(len(names)) as file:
            stored = [self._stored[name] for name in names]
            rows = _rows_of(self._block_bytes, len(names))
            for block in file.iter_batches(rows, columns=stored, use_threads=_many_threads()):
                decoded = [plain(block.column(name), kind) for name, kind in zip(stored, types, strict=True)]
                done += block.num_rows
                yield pa.RecordBatch.from_arrays(decoded, names=names), done / max(self._rows, 1)
        if done != self._rows:
            raise InputError(f"{self.name} holds {done:,} rows but promises {self._rows:,}; write it again")

    def edges(self) -> list[int]:
        """The row that each row group begins with."""
        with _arrow_errors(self.name, "Parquet"), self._open() as file:
            rows = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        return [0, *itertools.accumulate(rows[:-1])] if rows else []

    def batches_between(self, columns: Sequence[str], first: int, last: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Blocks of the rows ``first <= row < last``, each with its first row; row groups without any are not read."""
        names, types = list(columns), [self.schema.field(name).type for name in columns]
        edges = [*self.edges(), self._rows]
        wanted = [i for i in range(len(edges) - 1) if edges[i] < last and edges[i + 1] > first]
        if not wanted:
            return
        row = edges[wanted[0]]
        with _arrow_errors(self.name, "Parquet"), self._open() as file:
            stored = [self._stored[name] for name in names]
            rows = _rows_of(self._block_bytes, len(names))
            for block in file.iter_batches(rows, row_groups=wanted, columns=stored, use_threads=_many_threads()):
                start, stop = max(first - row, 0), min(last - row, block.num_rows)
                if start < stop:
                    part = block.slice(start, stop - start)
                    decoded = [plain(part.column(name), kind) for name, kind in zip(stored, types, strict=True)]
                    yield row + start, pa.RecordBatch.from_arrays(decoded, names=names)
                row += block.num_rows


class ArrowFile:
    """One Arrow IPC file (Feather) or stream.

    Parameters
    ----------
    path : Path
    name : str
        For messages.
    block_bytes : int
        About how much is decoded at a time (an eighth of it).
    """

    def __init__(self, path: Path, name: str, block_bytes: int = BLOCK_BYTES) -> None:
        self.path = path
        self.name = name
        self.size = path.stat().st_size
        self._block_bytes = block_bytes
        with open(path, "rb") as file:
            self._stream = file.read(6) != b"ARROW1"
        with _arrow_errors(name, "Arrow"), pa.memory_map(str(path)) as mapped:
            reader = pa.ipc.open_stream(mapped) if self._stream else pa.ipc.open_file(mapped)
            self.schema, self._stored = _plain_schema(reader.schema, name)
            self._all = reader.schema.names

    def known_rows(self) -> None:
        """It takes a read to know the number of rows."""

    def where(self, row: int) -> str:
        """File and row."""
        return f"{self.name}, row {row + 1:,}"

    def _raw_batches(self, options: Any) -> Iterator[tuple[pa.RecordBatch, float]]:
        # not a memory map: its pages would count as the process's memory
        with pa.OSFile(str(self.path)) as mapped:
            if self._stream:
                for batch in pa.ipc.open_stream(mapped, options=options):
                    yield batch, mapped.tell() / max(self.size, 1)
            else:
                reader = pa.ipc.open_file(mapped, options=options)
                for i in range(reader.num_record_batches):
                    yield reader.get_batch(i), (i + 1) / reader.num_record_batches

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, float]]:
        """Blocks of these columns, in their own types."""
        names, types = list(columns), [self.schema.field(name).type for name in columns]
        stored = [self._stored[name] for name in names]
        options = pa.ipc.IpcReadOptions(included_fields=[self._all.index(name) for name in stored])
        rows, last = _rows_of(self._block_bytes, len(names)), 0.0
        with _arrow_errors(self.name, "Arrow"):
            for whole, share in self._raw_batches(options):
                for start in range(0, whole.num_rows, rows):
                    block = whole.slice(start, rows)
                    decoded = [plain(block.column(name), kind) for name, kind in zip(stored, types, strict=True)]
                    part = min(start + rows, whole.num_rows) / whole.num_rows
                    yield pa.RecordBatch.from_arrays(decoded, names=names), last + (share - last) * part
                last = share
