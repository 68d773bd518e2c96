"""Compiled: rows to eight bits an entry."""

from __future__ import annotations

from typing import Any

import numpy as np

from torchlogit.kernels.numba_math import compiled

# What eight bits hold on either side of zero.
MOST = 127


@compiled()
def _cut(value: Any) -> Any:
    value = value if value < np.float32(MOST) else np.float32(MOST)
    value = value if value > np.float32(-MOST) else np.float32(-MOST)
    return np.int8(np.int32(np.rint(value)))


@compiled()
def _larger(a: Any, b: Any) -> Any:
    return a if a > b else b


@compiled(kept=True)
def quantise(rows: Any, shift: Any, inverse: Any, start: int, stop: int, out: Any, largest: Any) -> None:
    """``out[i, j] = (rows[i, j] - shift[j]) * inverse[j]`` of rows start to stop, to the next integer of eight bits.

    ``largest (p,)`` becomes the largest absolute value of a column before it was cut. Four rows together: it is read
    and written once for them.
    """
    whole = stop - (stop - start) % 4
    for i in range(start, whole, 4):
        for j in range(rows.shape[1]):
            u, v = shift[j], inverse[j]
            a, b = np.float32(rows[i, j] - u) * v, np.float32(rows[i + 1, j] - u) * v
            c, d = np.float32(rows[i + 2, j] - u) * v, np.float32(rows[i + 3, j] - u) * v
            out[i, j], out[i + 1, j], out[i + 2, j], out[i + 3, j] = _cut(a), _cut(b), _cut(c), _cut(d)
            largest[j] = _larger(_larger(_larger(abs(a), abs(b)), _larger(abs(c), abs(d))), largest[j])
    for i in range(whole, stop):
        for j in range(rows.shape[1]):
            a = np.float32(rows[i, j] - shift[j]) * inverse[j]
            out[i, j] = _cut(a)
            largest[j] = _larger(abs(a), largest[j])
