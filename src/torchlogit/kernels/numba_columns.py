"""Compiled conversion of columns, as files hold them, to rows of standardised numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from torchlogit.kernels.numba_math import compiled
from torchlogit.kernels.numba_vectors import number_at

# Rows at a time: the lines of memory that are written stay in the cache until all columns have filled them.
_ROWS = 256


@compiled()
def _standardise_two(
    like: Any, first: Any, second: Any, index: Any, start: int, stop: int, rows: Any, j: int, k: int
) -> float:
    """Columns j and k, each ``(address, mean, scale)``, which share lines of ``rows``; zero where all are finite."""
    check = 0.0
    for i in range(start, stop):
        a = (np.float64(number_at(like, first[0], index[i])) - first[1]) / first[2]
        b = (np.float64(number_at(like, second[0], index[i])) - second[1]) / second[2]
        rows[i, j] = a
        rows[i, k] = b
        check += 0.0 * a + 0.0 * b
    return check


@compiled(kept=True)
def standardise(addresses: Any, like: Any, index: Any, mean: Any, scale: Any, rows: Any) -> bool:
    """``rows[i, j] = (column j[index[i]] - mean[j]) / scale[j]``; whether all of them are finite.

    ``addresses (p,)`` of the columns' first elements, which are of the type of ``like``; ``index (n,)``, in bounds;
    ``rows (n, p)`` float64. The same bits as NumPy's.
    """
    check = 0.0
    for start in range(0, index.shape[0], _ROWS):
        stop = min(start + _ROWS, index.shape[0])
        for j in range(0, addresses.shape[0], 2):
            k = min(j + 1, addresses.shape[0] - 1)
            first, second = (addresses[j], mean[j], scale[j]), (addresses[k], mean[k], scale[k])
            check += _standardise_two(like, first, second, index, start, stop, rows, j, k)
    return check == 0.0
