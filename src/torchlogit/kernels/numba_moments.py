"""Compiled sums over the columns of a range of rows: what their means and deviations are made of."""

from __future__ import annotations

from typing import Any

from torchlogit.kernels.numba_math import REORDER, compiled, unsigned
from torchlogit.kernels.numba_rows import ask_ahead

# Rows whose sums are added up by themselves before they join the total: fewer roundings than one by one.
_ROWS = 256
# Bytes of a row up to which, and from which, four rows together take a quarter to a half less time than one after the
# other (20 and 2,000 columns of float64, two threads). In between memory likes a single stream better: 50 columns take
# 1.7 times as long by fours.
_SHORT_ROW, _LONG_ROW = 160, 4096


@compiled(*REORDER)
def _add_rows(x: Any, anchor: Any, weight: Any, start: int, stop: int, sums: Any) -> None:
    """A row after the other."""
    first, second, largest = sums[0], sums[1], sums[2]
    for i in range(start, stop):
        ask_ahead(x, i)
        w = weight[i] if weight.shape[0] else 1.0
        for j in range(x.shape[1]):
            d = x[i, j] - anchor[j]
            first[j] += w * d
            second[j] += w * (d * d)
            a = abs(d)
            largest[j] = a if a > largest[j] else largest[j]


@compiled(*REORDER)
def _add_four(x: Any, anchor: Any, weight: Any, start: int, stop: int, sums: Any) -> None:
    """Four rows after the other, whose number is divisible by that: the sums are read and written once for them."""
    first, second, largest = sums[0], sums[1], sums[2]
    weighted = weight.shape[0] > 0
    for i in range(start, stop, 4):
        w0, w1, w2, w3 = 1.0, 1.0, 1.0, 1.0
        if weighted:
            w0, w1, w2, w3 = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
        for j in range(x.shape[1]):
            u = anchor[j]
            d0, d1, d2, d3 = x[i, j] - u, x[i + 1, j] - u, x[i + 2, j] - u, x[i + 3, j] - u
            e0, e1, e2, e3 = w0 * d0, w1 * d1, w2 * d2, w3 * d3
            first[j] += (e0 + e1) + (e2 + e3)
            second[j] += (e0 * d0 + e1 * d1) + (e2 * d2 + e3 * d3)
            a, b, c, d = abs(d0), abs(d1), abs(d2), abs(d3)
            a = a if a > b else b
            c = c if c > d else d
            a = a if a > c else c
            largest[j] = a if a > largest[j] else largest[j]


@compiled(kept=True)
def dense_moments(x: Any, anchor: Any, weight: Any, start: int, stop: int, part: Any, sums: Any) -> None:
    """Of ``d = x - anchor``: weighted sum, weighted sum of squares, largest absolute value.

    ``x (n, p)``; ``weight (n,)`` or ``(0,)`` for ones; ``part`` and ``sums (3, p)``, the latter zeros. A value that
    is not finite leaves a sum that is not.
    """
    columns = x.shape[1]
    nbytes = columns * x.itemsize
    together = nbytes <= _SHORT_ROW or nbytes >= _LONG_ROW
    for a in range(start, stop, _ROWS):
        b = min(a + _ROWS, stop)
        for k in range(2):
            for j in range(columns):
                part[k, j] = 0.0
        middle = b - (b - a) % 4 if together else a
        _add_four(x, anchor, weight, a, middle, part)
        _add_rows(x, anchor, weight, middle, b, part)
        for k in range(2):
            for j in range(columns):
                sums[k, j] += part[k, j]
    for j in range(columns):
        sums[2, j] = part[2, j]


@compiled(kept=True)
def sparse_moments(
    indptr: Any, indices: Any, values: Any, weight: Any, start: int, stop: int, sums: Any
) -> bool:
    """Of the stored values of each column: weight, weighted sum and sum of squares, largest absolute value, count.

    ``sums (p, 5)``, zeros at first: one column's numbers lie together. False where a row stores a column twice or not
    in rising order: then nothing is said.
    """
    rising = True
    for i in range(start, stop):
        w = weight[i] if weight.shape[0] else 1.0
        before = -1
        for q in range(unsigned(indptr[i]), unsigned(indptr[i + 1])):
            v = values[q]
            rising = rising and indices[q] > before
            before = indices[q]
            j = unsigned(before)
            sums[j, 0] += w
            sums[j, 1] += w * v
            sums[j, 2] += w * (v * v)
            a = abs(v)
            sums[j, 3] = a if a > sums[j, 3] else sums[j, 3]
            sums[j, 4] += 1.0
    return rising
