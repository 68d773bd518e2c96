"""Tables in memory (pandas, Polars, Arrow, arrays) as Arrow columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

_BLOCK_ROWS = 65_536


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
        columns = [_series(X.iloc[:, j]) for j in range(X.shape[1])]
    else:
        columns = [_array(X[:, j]) for j in range(X.shape[1])]
    if not columns:
        return pa.table({})
    return pa.table(columns, names=names)


def _series(series: Any) -> pa.Array:
    try:
        return pa.array(series, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return _mixed(series.to_numpy())


def _array(values: Any) -> pa.Array:
    values = np.asarray(values)
    if values.dtype.kind == "O":
        return _mixed(values)
    if values.dtype.kind in "US":
        return pa.array(values.tolist())
    return pa.array(np.ascontiguousarray(values), from_pandas=True)


def _mixed(values: Any) -> pa.Array:
    """Python objects: numbers if all are, else strings."""
    listed = [None if _is_missing(value) else value for value in values.tolist()]
    kinds = {type(value) for value in listed if value is not None}
    if kinds and kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in listed], pa.float64())
    try:
        array = pa.array(listed, from_pandas=True)
        if not pa.types.is_nested(array.type):
            return array
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        pass
    return pa.array([None if value is None else str(value) for value in listed], pa.string())


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


__all__ = ["arrow_table", "frame_batches", "is_frame"]
