"""Tables in memory (pandas, Polars, Arrow, arrays) as Arrow columns."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from torchlogit.encode.parse import is_text, written
from torchlogit.errors import InputError

_BLOCK_ROWS = 65_536
# What Arrow raises for objects that share no type: 2**70 and half of a surrogate pair among them.
_NOT_OF_ONE_TYPE = (
    pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeEncodeError,
)  # fmt: skip
_NO_CELLS = (bytes, bytearray, memoryview, list, tuple, dict, set, np.ndarray)
_NUMBERS = (bool, int, float, np.bool_, np.number)
_EVEN_ROWS, _EVEN_VALUES = 32_768, 1 << 21


def is_frame(X: Any) -> bool:
    """Whether X has named columns."""
    return isinstance(X, (pa.Table, pa.RecordBatch)) or (hasattr(X, "columns") and hasattr(X, "__getitem__"))


def arrow_table(X: Any, names: list[str]) -> pa.Table:
    """An Arrow table with these column names.

    Parameters
    ----------
    X : pandas or Polars DataFrame, pyarrow Table or RecordBatch, or ndarray of shape (n, p)
    names : list of str
        One a column.
    """
    if isinstance(X, pa.RecordBatch):
        X = pa.Table.from_batches([X])
    if isinstance(X, pa.Table):
        columns = list(X.columns)
    elif hasattr(X, "to_arrow"):
        columns = list(X.to_arrow().columns)
    elif hasattr(X, "iloc"):
        columns = [_series(X.iloc[:, j], name) for j, name in enumerate(names)]
    else:
        columns = [_array(X[:, j], name) for j, name in enumerate(names)]
    if not columns:
        return pa.table({})
    return pa.table(columns, names=names)


def _series(series: Any, name: str) -> pa.Array:
    try:
        array = pa.array(series, from_pandas=True)
    except _NOT_OF_ONE_TYPE:
        return _mixed(series.to_numpy(), name)
    objects = getattr(series.dtype, "kind", "") == "O" and isinstance(series.dtype, np.dtype)
    return array if not objects or is_text(array.type) else _mixed(series.to_numpy(), name)


def _array(values: Any, name: str) -> pa.Array:
    values = np.asarray(values)
    if values.dtype.kind == "O":
        return _mixed(values, name)
    if values.dtype.kind in "US":
        return pa.array(values.tolist())
    return pa.array(np.ascontiguousarray(values), from_pandas=True)


def _mixed(values: Any, name: str) -> pa.Array:
    """Python objects: numbers if all are, else strings."""
    listed = [None if _is_missing(value) else value for value in values.tolist()]
    kinds = {type(value) for value in listed if value is not None}
    try:
        # Arrow's own guess goes by the first values: 1.0 and False are numbers to it, False and 1.0 are not.
        if len(kinds) > 1 and all(issubclass(kind, _NUMBERS) for kind in kinds):
            return pa.array([None if value is None else float(value) for value in listed], pa.float64())
        if len(kinds) <= 1 or all(issubclass(kind, datetime.datetime) for kind in kinds):
            return pa.array(listed, from_pandas=True)
    except _NOT_OF_ONE_TYPE:
        pass
    odd = next((kind for kind in kinds if issubclass(kind, _NO_CELLS)), None)
    if odd is not None:
        raise InputError(
            f"column '{name}' holds {odd.__name__} objects among others, which cannot be encoded: make them strings or "
            "numbers, or leave the column out"
        )
    try:
        return pa.array([written(value) for value in listed], pa.string())
    except UnicodeEncodeError:
        raise InputError(
            f"column '{name}' holds text that is not Unicode (half of a surrogate pair): clean it, for example with "
            "str.encode('utf-8', 'replace').decode()"
        ) from None


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return False


def frame_batches(table: pa.Table) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Blocks of rows with the number of their first row."""
    start = 0
    for batch in table.combine_chunks().to_batches(max_chunksize=_BLOCK_ROWS):
        yield start, batch
        start += batch.num_rows


def even_blocks(batches: Iterable[pa.RecordBatch], columns: int | None = None) -> Iterator[pa.RecordBatch]:
    """The same rows in blocks whose length depends on the number of columns (or this number) alone.

    What is learned from a table then depends on its rows, to the bit, and not on how a file or a frame holds them.
    """
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        rows = max(256, min(_EVEN_ROWS, _EVEN_VALUES // max(columns or batch.num_columns, 1)))
        taken = 0
        while taken < batch.num_rows:
            held.append(batch.slice(taken, rows - count))
            taken, count = taken + held[-1].num_rows, count + held[-1].num_rows
            if count == rows:
                yield _together(held)
                held, count = [], 0
    if held:
        yield _together(held)


def _together(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


__all__ = ["arrow_table", "even_blocks", "frame_batches", "is_frame"]
