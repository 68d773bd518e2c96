"""Arrow columns as floating numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_numeric(kind: pa.DataType) -> bool:
    """Whether a column of this type is numbers as it stands."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    )


def as_floats(column: pa.Array) -> NDArray[np.float64]:
    """The values as float64, NaN where they are missing.

    Raises
    ------
    pyarrow.ArrowInvalid
        If a string is not a number; `first_not_a_number` finds it.
    """
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    if not pa.types.is_float64(kind):
        column = column.cast(pa.float64(), safe=is_text(kind))
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values.astype(np.float64, copy=False)


def first_not_a_number(column: pa.Array) -> int:
    """The first row whose string is not a number, in a column that has one: by halving."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            as_floats(column.slice(low, middle - low))
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low
