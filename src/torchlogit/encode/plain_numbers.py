"""Columns that are floating numbers as they stand, standardised all at once: most of many tables, and of their time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from torchlogit.encode.columns import Encoding, Numeric

# Values standardised at a time: they stay in a core's cache.
_PIECE = 1 << 16


def is_plain(encoding: Encoding, column: pa.Array) -> bool:
    """Whether the column becomes its values minus a mean over a scale, and nothing else."""
    return (
        isinstance(encoding, Numeric)
        and encoding.scale > 0
        and not encoding.marked
        and (pa.types.is_float64(column.type) or pa.types.is_float32(column.type))
        and not column.null_count
    )


def standardised(encodings: Sequence[Numeric], columns: Sequence[pa.Array]) -> NDArray[np.float64] | None:
    """What `Numeric.encode` makes of each column, ``(rows, columns)``; None where it would not like a value."""
    rows, width = len(columns[0]), len(columns)
    mean = np.array([encoding.mean for encoding in encodings])
    scale = np.array([encoding.scale for encoding in encodings])
    values = [column.to_numpy() for column in columns]
    whole = np.empty((rows, width))
    step = max(64, _PIECE // width)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, rows, step):
            piece = whole[start : start + step]
            for j, own in enumerate(values):
                piece[:, j] = own[start : start + step]
            piece -= mean
            piece /= scale
    return whole if np.isfinite(whole).all() else None


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
