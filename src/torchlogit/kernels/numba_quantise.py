"""Compiled: rows to eight bits an entry."""

from __future__ import annotations

from typing import Any

import numpy as np

from torchlogit.kernels.numba_math import compiled

# What eight bits hold on either side of zero.
MOST = 127


@compiled(kept=True)
def quantise(rows: Any, shift: Any, inverse: Any, start: int, stop: int, out: Any, largest: Any) -> None:
    """``out[i, j] = (rows[i, j] - shift[j]) * inverse[j]`` of rows start to stop, to the next integer of eight bits.

    ``largest (p,)`` becomes the largest absolute value of a column before it was cut.
    """
    for i in range(start, stop):
        for j in range(rows.shape[1]):
            value = np.float32(rows[i, j] - shift[j]) * inverse[j]
            largest[j] = max(largest[j], abs(value))
            out[i, j] = np.int8(np.rint(min(max(value, np.float32(-MOST)), np.float32(MOST))))
