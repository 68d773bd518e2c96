"""Columns that are floating numbers as they stand, learned and standardised together: most of many tables, and of
their time.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from torchlogit.encode.columns import Encoding, Numeric
from torchlogit.encode.profile import ColumnProfile, sums_about

# Values standardised at a time: they stay in a core's cache.
_PIECE = 1 << 16
# Values whose spread is taken at a time.
_SPREAD = 1 << 18
# Numbers after which compiled loops repay their loading, 0.6 s: they save 2 ns a number.
_WORTH_LOOPS = 3e8


def spread(profiles: Sequence[ColumnProfile], columns: Sequence[pa.Array]) -> list[int]:
    """Show columns to their profiles where that is a matter of sums alone; the numbers of those for which it is not.

    The same sums, to the bit, as the profiles would form one by one, in operations that are long enough for threads.
    """
    settled = [j for j, column in enumerate(columns) if profiles[j].settled(column)]
    left = set(range(len(columns)))
    step = max(1, _SPREAD // max(len(columns[0]), 1))
    for first in range(0, len(settled), step):
        together = settled[first : first + step]
        values = np.empty((len(together), len(columns[0])))
        for own, j in zip(values, together, strict=True):
            own[:] = columns[j].to_numpy()
        origins = np.array([[profiles[j].spread.origin] for j in together])
        figures = [part.tolist() for part in sums_about(values, origins, room=values)]
        for j, shift, squares, low, high in zip(together, *figures, strict=True):
            if math.isfinite(low) and math.isfinite(high):
                profiles[j].join(len(columns[0]), shift, squares, low, high)
                left.discard(j)
    return sorted(left)


def is_plain(encoding: Encoding, column: pa.Array) -> bool:
    """Whether the column becomes its values minus a mean over a scale, and nothing else."""
    return (
        isinstance(encoding, Numeric)
        and encoding.scale > 0
        and not encoding.marked
        and (pa.types.is_float64(column.type) or pa.types.is_float32(column.type))
        and not column.null_count
    )


def standardised(
    encodings: Sequence[Numeric],
    columns: Sequence[pa.Array],
    sieve: NDArray[np.bool_] | None = None,
    before: int = 0,
) -> NDArray[np.float64] | None:
    """What `Numeric.encode` makes of each column, ``(rows, columns)``; None where it would not like a value.

    Parameters
    ----------
    encodings : sequence of Numeric
    columns : sequence of pyarrow.Array
        All of them plain.
    sieve : ndarray of bool, optional
        The rows that are wanted; None for all.
    before : int, default=0
        How many rows came before: the same bits sooner, once there are many.
    """
    width = len(columns)
    mean = np.array([encoding.mean for encoding in encodings])
    scale = np.array([encoding.scale for encoding in encodings])
    values = [column.to_numpy() for column in columns]
    rows = np.arange(len(columns[0])) if sieve is None else np.flatnonzero(sieve)
    whole = np.empty((len(rows), width))
    alike = all(own.dtype == values[0].dtype for own in values)
    if alike and ("numba" in sys.modules or before * width >= _WORTH_LOOPS):
        finite = _compiled(values, rows, mean, scale, whole)
    else:
        finite = _in_pieces(values if sieve is None else [own[sieve] for own in values], mean, scale, whole)
    return whole if finite else None


def _compiled(
    values: Sequence[NDArray[Any]],
    rows: NDArray[np.intp],
    mean: NDArray[np.float64],
    scale: NDArray[np.float64],
    whole: NDArray[np.float64],
) -> bool:
    from torchlogit.kernels.first_use import make_ready
    from torchlogit.kernels.numba_columns import standardise

    values = [np.ascontiguousarray(own) for own in values]
    addresses = np.array([own.ctypes.data for own in values], dtype=np.int64)
    make_ready(standardise, (values[0].dtype.char,), (addresses, values[0], rows[:0], mean, scale, whole))
    return bool(standardise(addresses, values[0], rows, mean, scale, whole))


def _in_pieces(
    values: Sequence[NDArray[Any]],
    mean: NDArray[np.float64],
    scale: NDArray[np.float64],
    whole: NDArray[np.float64],
) -> bool:
    rows, width = whole.shape
    step = max(64, _PIECE // width)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, rows, step):
            piece = whole[start : start + step]
            for j, own in enumerate(values):
                piece[:, j] = own[start : start + step]
            piece -= mean
            piece /= scale
    return bool(np.isfinite(whole).all())


def side_by_side(parts: Sequence[NDArray[np.float64]], rows: int) -> NDArray[np.float64]:
    """The columns of all parts."""
    if len(parts) == 1:
        return parts[0]
    whole = np.empty((rows, sum(part.shape[1] for part in parts)))
    column = 0
    for part in parts:
        for own in part.T:  # one by one: NumPy's concatenate takes twice as long for hundreds of narrow parts
            whole[:, column] = own
            column += 1
    return whole
