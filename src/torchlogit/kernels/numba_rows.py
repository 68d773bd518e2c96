"""Compiled products: rows times a table of coefficients, and slopes times rows added to a table of sums.

Outputs of all evaluated points stand side by side: a table is ``(p, S)`` with ``S`` the number of points times K,
padded to a multiple of four. One output of one point has functions of its own: a vector, dense rows by dot products.
Everything is computed in float64, whatever the rows are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torchlogit.kernels.numba_math import REORDER, compiled, sum_of, unsigned
from torchlogit.kernels.numba_vectors import gather_row, prefetch, scatter_row

# Entries of a row whose values are made ready together.
LINE = 256
# How many bytes ahead rows are asked for, and the bytes of a line of the cache.
_AHEAD, _LINE_BYTES = 8_192, 64
# Bytes of a row that are asked for at once: more would crowd out what is needed now.
_PIECE = 4_096
# Lines from which it pays.
_LONG_LINES = 4
# Rows that are read twice, forward and backward, are asked for a batch ahead, so that the memory never rests: half of
# the next batch on the way forward, the rest on the way back. Not rows of more than `_PIECE` bytes, nor batches that
# would not stay in a second-level cache, nor rows in eight bits, which wait for arithmetic.
_ASKED_BYTES = 524_288
# Bytes of a row up to which four are multiplied together: short sums wait for each other. Longer rows are faster one by
# one, as the memory sends them (one core, float64, ns a row: 20 columns 6, not 10; 50: 17, not 21; 100: 43, not 32).
_SHORT_BYTES = 512
# Sparse rows whose columns are looked at together.
_CHECKED = 256


class Rows(NamedTuple):
    """The features: dense ``x (n, p1)``, compressed sparse rows, ``codes (n, C)``, in this order of columns.

    Shifts ``(p1,)`` and ``(p2,)`` are subtracted from stored values. They are None where they are zero: of wide rows
    that would take half as long again (20,000 x 2,000 float64: 17, not 12 ms). So is what a block lacks. Numba drops
    what a function does with an argument that is None before it compiles it: rows compile what they need, which takes
    half as long.
    """

    x: Any
    x_shift: Any
    indptr: Any
    indices: Any
    values: Any
    shift: Any
    sparse_first: int  # columns before the sparse ones
    codes: Any
    code_columns: Any  # (C,) column of code 0, among all


class Table(NamedTuple):
    """Coefficients or sums: columns ``(p,)`` for one output, ``(p, S)`` for several, and the intercepts ``(S,)``.

    ``ahead`` says that they outgrow the cache.
    """

    columns: Any
    constant: Any
    ahead: bool


class Space(NamedTuple):
    """Room for a batch of rows, given by the caller (allocating here takes long to compile).

    Predictors ``eta`` become slopes ``(rows * S,)``; ``weight``, ``sign`` or margin, ``loss``, ``top`` and ``rest`` are
    ``(rows * points,)``, weights all one; ``line`` a row's values, ``columns`` those of its codes, ``every`` 0 1 2 ...
    for the dense ones, and ``ones``.
    """

    eta: Any
    weight: Any
    margin: Any
    loss: Any
    top: Any
    rest: Any
    line: Any
    columns: Any
    every: Any
    ones: Any


@compiled()
def _ask_for(numbers: Any, start: int, stop: int) -> None:
    """Have the memory send what comes `_AHEAD` bytes after these elements: left to itself it falls behind.

    Of few elements it does not, and asking takes time.
    """
    line, ahead = _LINE_BYTES // numbers.itemsize, _AHEAD // numbers.itemsize
    if stop - start >= _LONG_LINES * line:
        for element in range(start + ahead, stop + ahead, line):
            prefetch(numbers, element)


@compiled()
def _asks_for_next(x: Any, n: int) -> bool:
    """Whether the next batch of n rows is asked for while this one is computed with."""
    nbytes = x.shape[1] * x.itemsize
    return x.itemsize > 1 and nbytes <= _PIECE and n * nbytes <= _ASKED_BYTES  # type: ignore[no-any-return]


@compiled()
def _ask_for_next(x: Any, start: int, n: int, a: int, b: int, back: bool) -> None:
    """While elements a to b of n rows are computed with: as large a part of one half of the next n, or of the other."""
    base, line = (start + n) * x.shape[1] + (n * x.shape[1] // 2 if back else 0), _LINE_BYTES // x.itemsize
    for element in range(base + a // 2, base + b // 2, line):
        prefetch(x, element)


@compiled()
def ask_ahead(x: Any, i: int) -> None:
    """The same for row i of dense ones."""
    _ask_for(x, i * x.shape[1], (i + 1) * x.shape[1])


# What is asked for is written out in each of these: as a function of its own it made rows of 100 columns take 1.2 times
# as long (two threads). So are rows with a shift and without: one function that leaves a None out has the same bits,
# and rows of 20 columns took up to 1.12 times as long.


@compiled(*REORDER)
def _dense_dots(x: Any, start: int, n: int, vector: Any, eta: Any, next_too: bool) -> None:
    kind, columns, piece = vector.dtype.type, x.shape[1], _PIECE // x.itemsize
    for k in range(n):
        total, row = kind(0), (start + k) * columns
        for a in range(0, columns, piece):
            b = min(a + piece, columns)
            if next_too:
                _ask_for_next(x, start, n, k * columns + a, k * columns + b, False)
            else:
                _ask_for(x, row + a, row + b)
            # From zero on, so that no index may count from the end.
            part, along = x[start + k, a:b], vector[a:b]
            for j in range(part.shape[0]):
                total += kind(part[j]) * along[j]
        eta[k] += total


@compiled(*REORDER)
def _short_dots(x: Any, start: int, n: int, vector: Any, eta: Any, next_too: bool) -> None:
    """Four rows at a time, the last of them more than once, so that a row is added up alike wherever it is."""
    kind, columns, last = vector.dtype.type, x.shape[1], start + n - 1
    for k in range(0, n, 4):
        i, i1, i2, i3 = start + k, min(start + k + 1, last), min(start + k + 2, last), min(start + k + 3, last)
        if next_too:
            _ask_for_next(x, start, n, k * columns, (k + 4) * columns, False)
        else:
            _ask_for(x, i * columns, (i3 + 1) * columns)
        a, b, c, d = kind(0), kind(0), kind(0), kind(0)
        for j in range(columns):
            v = vector[j]
            a += kind(x[i, j]) * v
            b += kind(x[i1, j]) * v
            c += kind(x[i2, j]) * v
            d += kind(x[i3, j]) * v
        _add_four(eta, k, n, a, b, c, d)


@compiled(*REORDER)
def _short_centred_dots(x: Any, start: int, n: int, shift: Any, vector: Any, eta: Any, next_too: bool) -> None:
    """The same with ``x - shift``."""
    columns, last = x.shape[1], start + n - 1
    for k in range(0, n, 4):
        i, i1, i2, i3 = start + k, min(start + k + 1, last), min(start + k + 2, last), min(start + k + 3, last)
        if next_too:
            _ask_for_next(x, start, n, k * columns, (k + 4) * columns, False)
        else:
            _ask_for(x, i * columns, (i3 + 1) * columns)
        a, b, c, d = 0.0, 0.0, 0.0, 0.0
        for j in range(columns):
            u, v = shift[j], vector[j]
            a += (x[i, j] - u) * v
            b += (x[i1, j] - u) * v
            c += (x[i2, j] - u) * v
            d += (x[i3, j] - u) * v
        _add_four(eta, k, n, a, b, c, d)


@compiled()
def _add_four(eta: Any, k: int, n: int, a: float, b: float, c: float, d: float) -> None:
    """To ``eta[k]`` and those after it, of ``n``."""
    eta[k] += a
    if k + 1 < n:
        eta[k + 1] += b
    if k + 2 < n:
        eta[k + 2] += c
    if k + 3 < n:
        eta[k + 3] += d


@compiled(*REORDER)
def _centred_dots(x: Any, start: int, n: int, shift: Any, vector: Any, eta: Any, next_too: bool) -> None:
    for k in range(n):
        if next_too:
            _ask_for_next(x, start, n, k * x.shape[1], (k + 1) * x.shape[1], False)
        else:
            ask_ahead(x, start + k)
        total = 0.0
        for j in range(x.shape[1]):
            total += (x[start + k, j] - shift[j]) * vector[j]
        eta[k] += total


@compiled()
def _gather(
    table: Any, first: int, indices: Any, a: int, b: int, line: Any, origin: int, out: Any, at: int
) -> None:
    """``out[at:] += line[a - origin : b - origin] @ table[first + indices[a:b]]``."""
    stride = table.shape[1]
    done = 0
    while stride - done >= 32:
        gather_row(table, first * stride + done, indices, a, b, line, origin, out, at + done, stride, 8, 4)
        done += 32
    if stride - done >= 24:
        gather_row(table, first * stride + done, indices, a, b, line, origin, out, at + done, stride, 8, 3)
        done += 24
    if stride - done >= 16:
        gather_row(table, first * stride + done, indices, a, b, line, origin, out, at + done, stride, 8, 2)
        done += 16
    if stride - done >= 8:
        gather_row(table, first * stride + done, indices, a, b, line, origin, out, at + done, stride, 8, 1)
        done += 8
    if stride - done >= 4:
        gather_row(table, first * stride + done, indices, a, b, line, origin, out, at + done, stride, 4, 1)


@compiled()
def _scatter(
    table: Any, first: int, indices: Any, a: int, b: int, line: Any, origin: int, slope: Any, at: int
) -> None:
    """``table[first + indices[a:b]] += line[a - origin : b - origin]' slope[at:]``."""
    stride = table.shape[1]
    done = 0
    while stride - done >= 32:
        scatter_row(table, first * stride + done, indices, a, b, line, origin, slope, at + done, stride, 8, 4)
        done += 32
    if stride - done >= 24:
        scatter_row(table, first * stride + done, indices, a, b, line, origin, slope, at + done, stride, 8, 3)
        done += 24
    if stride - done >= 16:
        scatter_row(table, first * stride + done, indices, a, b, line, origin, slope, at + done, stride, 8, 2)
        done += 16
    if stride - done >= 8:
        scatter_row(table, first * stride + done, indices, a, b, line, origin, slope, at + done, stride, 8, 1)
        done += 8
    if stride - done >= 4:
        scatter_row(table, first * stride + done, indices, a, b, line, origin, slope, at + done, stride, 4, 1)


@compiled()
def _fetch(table: Any, first: int, indices: Any, a: int, b: int) -> None:
    for q in range(a, b):
        for s in range(0, table.shape[1], 8):
            prefetch(table, (first + indices[q]) * table.shape[1] + s)


@compiled()
def _sparse_line(
    indptr: Any, indices: Any, values: Any, shift: Any, i: int, a: int, b: int, squared: bool, line: Any
) -> None:
    """Entries a to b of row i, centred; squared, with duplicate entries of a column added up before."""
    for q in range(a, b):
        line[q - a] = values[q] if shift is None else values[q] - shift[unsigned(indices[q])]
    if not squared:
        return
    start, stop = indptr[i], indptr[i + 1]
    rising = True
    for q in range(start + 1, stop):
        rising = rising and indices[q] > indices[q - 1]
    if rising:
        for q in range(b - a):
            line[q] *= line[q]
        return
    for q in range(a, b):
        total, seen = 0.0, False
        for other in range(start, stop):
            if indices[other] == indices[q]:
                seen = seen or other < q
                total += values[other] if shift is None else values[other] - shift[indices[q]]
        line[q - a] = 0.0 if seen else total * total


@compiled()
def _dense_line(x: Any, shift: Any, i: int, a: int, b: int, squared: bool, line: Any) -> None:
    for j in range(a, b):
        line[j - a] = x[i, j] if shift is None else x[i, j] - shift[j]
    if squared:
        for j in range(b - a):
            line[j] *= line[j]


@compiled()
def _code_line(codes: Any, first: Any, i: int, columns: Any) -> int:
    """The columns that are one in row i; their number."""
    count = 0
    for c in range(codes.shape[1]):
        if codes[i, c] >= 0:
            columns[count] = first[c] + codes[i, c]
            count += 1
    return count


@compiled(contract=False)
def sparse_dots(indptr: Any, indices: Any, values: Any, start: int, stop: int, vector: Any, eta: Any) -> None:
    """Add the products of rows start to stop to ``eta (stop - start,)``, one entry after the other as SciPy does.

    Several sums a row, so that none waits for its last addition, are no faster where coefficients outgrow the first
    cache, and slower in short rows.
    """
    for k in range(stop - start):
        _ask_for(values, indptr[start + k], indptr[start + k + 1])
        _ask_for(indices, indptr[start + k], indptr[start + k + 1])
        total = 0.0
        for q in range(unsigned(indptr[start + k]), unsigned(indptr[start + k + 1])):
            total += values[q] * vector[unsigned(indices[q])]
        eta[k] += total


@compiled(kept=True, contract=False)
def checked_dots(indptr: Any, indices: Any, values: Any, start: int, stop: int, vector: Any, eta: Any) -> bool:
    """The same unless an entry is in no column: entries are looked at while the cache holds them (a tenth more time).

    ``indices`` are unsigned.
    """
    kind, columns = indices.dtype.type, unsigned(vector.shape[0])
    for a in range(start, stop, _CHECKED):
        b = min(a + _CHECKED, stop)
        most = kind(0)
        for q in range(unsigned(indptr[a]), unsigned(indptr[b])):
            most = max(most, indices[q])
        if most >= columns:
            return False
        sparse_dots(indptr, indices, values, a, b, vector, eta[a - start :])
    return True


@compiled()
def _moved_dots(
    indptr: Any, indices: Any, values: Any, shift: Any, start: int, n: int, vector: Any, eta: Any
) -> None:
    for k in range(n):
        for q in range(unsigned(indptr[start + k]), unsigned(indptr[start + k + 1])):
            column = unsigned(indices[q])
            eta[k] += (values[q] - shift[column]) * vector[column]


@compiled()
def _sparse_add(indptr: Any, indices: Any, values: Any, start: int, n: int, slope: Any, total: Any) -> None:
    for k in range(n):
        factor = slope[k]
        if factor != 0:
            for q in range(unsigned(indptr[start + k]), unsigned(indptr[start + k + 1])):
                total[unsigned(indices[q])] += factor * values[q]


# In the functions below, parts of a tuple are taken out before the loops: each access counts a reference, which costs
# more than a short row.


@compiled()
def forward_one(rows: Rows, start: int, n: int, theta: Table, eta: Any, again: bool) -> None:
    """One output: coefficients are a vector; ``again`` says that `backward_one` reads the rows once more."""
    vector, constant = theta.columns, theta.constant[0]
    for k in range(n):
        eta[k] = constant
    _dense_forward(rows.x, rows.x_shift, start, n, vector, eta, again)
    _sparse_forward(rows.indptr, rows.indices, rows.values, rows.shift, rows.sparse_first, start, n, vector, eta)
    _coded_forward(rows.codes, rows.code_columns, start, n, vector, eta)


@compiled()
def _dense_forward(x: Any, shift: Any, start: int, n: int, vector: Any, eta: Any, again: bool) -> None:
    if x is None:
        return
    next_too, short = again and _asks_for_next(x, n), x.shape[1] * x.itemsize <= _SHORT_BYTES
    if shift is None:
        if short:
            _short_dots(x, start, n, vector, eta, next_too)
        else:
            _dense_dots(x, start, n, vector, eta, next_too)
    elif short:
        _short_centred_dots(x, start, n, shift, vector, eta, next_too)
    else:
        _centred_dots(x, start, n, shift, vector, eta, next_too)


@compiled()
def _sparse_forward(
    indptr: Any, indices: Any, values: Any, shift: Any, first: int, start: int, n: int, vector: Any, eta: Any
) -> None:
    if values is None:
        return
    if shift is None:
        sparse_dots(indptr, indices, values, start, start + n, vector[first:], eta)
    else:
        _moved_dots(indptr, indices, values, shift, start, n, vector[first:], eta)


@compiled()
def _coded_forward(codes: Any, first: Any, start: int, n: int, vector: Any, eta: Any) -> None:
    if codes is None:
        return
    for c in range(codes.shape[1]):
        for k in range(n):
            if codes[start + k, c] >= 0:
                eta[k] += vector[unsigned(first[c] + codes[start + k, c])]


@compiled()
def forward_many(
    rows: Rows, start: int, n: int, last: int, theta: Table, sums: Table, eta: Any, space: Space
) -> None:
    """Several outputs, side by side in each row of the table."""
    table, constant, size = theta.columns, theta.constant, theta.columns.shape[1]
    line, columns, every, ones = space.line, space.columns, space.every, space.ones
    for k in range(n):
        for s in range(size):
            eta[k * size + s] = constant[s]
    _dense_forward_many(rows.x, rows.x_shift, start, n, table, eta, line, every)
    _sparse_forward_many(
        rows.indptr, rows.indices, rows.values, rows.shift, rows.sparse_first, start, n, last, table, sums.columns,
        theta.ahead, eta, line,
    )  # fmt: skip
    _coded_forward_many(rows.codes, rows.code_columns, start, n, table, eta, columns, ones)


@compiled()
def _dense_forward_many(
    x: Any, shift: Any, start: int, n: int, table: Any, eta: Any, line: Any, every: Any
) -> None:
    if x is None:
        return
    for k in range(n):
        for a in range(0, x.shape[1], LINE):
            b = min(a + LINE, x.shape[1])
            _dense_line(x, shift, start + k, a, b, False, line)
            _gather(table, 0, every, a, b, line, a, eta, k * table.shape[1])


@compiled()
def _sparse_forward_many(
    indptr: Any, indices: Any, values: Any, shift: Any, first: int, start: int, n: int, last: int, table: Any,
    sum_table: Any, ahead: bool, eta: Any, line: Any,
) -> None:  # fmt: skip
    if values is None:
        return
    for k in range(n):
        i, at = start + k, k * table.shape[1]
        if ahead:  # the sums of this row, and the coefficients of the next
            _fetch(sum_table, first, indices, indptr[i], indptr[i + 1])
            if i + 1 < last:
                _fetch(table, first, indices, indptr[i + 1], indptr[i + 2])
        if shift is None:
            _gather(table, first, indices, indptr[i], indptr[i + 1], values, 0, eta, at)
        else:
            for a in range(indptr[i], indptr[i + 1], LINE):
                b = min(a + LINE, indptr[i + 1])
                _sparse_line(indptr, indices, values, shift, i, a, b, False, line)
                _gather(table, first, indices, a, b, line, a, eta, at)


@compiled()
def _coded_forward_many(
    codes: Any, first: Any, start: int, n: int, table: Any, eta: Any, columns: Any, ones: Any
) -> None:
    if codes is None:
        return
    for k in range(n):
        count = _code_line(codes, first, start + k, columns)
        _gather(table, 0, columns, 0, count, ones, 0, eta, k * table.shape[1])


@compiled(*REORDER)
def _backward_dense(x: Any, start: int, n: int, slope: Any, total: Any) -> None:
    """``total += slope[:n] @ x[start : start + n]``, four rows at a time."""
    kind, columns, next_too = total.dtype.type, x.shape[1], _asks_for_next(x, n)
    whole = n - n % 4
    for k in range(0, whole, 4):
        i = start + k
        if next_too:
            _ask_for_next(x, start, n, k * columns, (k + 4) * columns, True)
        a, b, c, d = kind(slope[k]), kind(slope[k + 1]), kind(slope[k + 2]), kind(slope[k + 3])
        for j in range(x.shape[1]):
            total[j] += a * kind(x[i, j]) + b * kind(x[i + 1, j]) + c * kind(x[i + 2, j]) + d * kind(x[i + 3, j])
    for k in range(whole, n):
        a = kind(slope[k])
        for j in range(x.shape[1]):
            total[j] += a * kind(x[start + k, j])


@compiled(*REORDER)
def _backward_centred(x: Any, start: int, n: int, shift: Any, slope: Any, total: Any) -> None:
    """The same with ``x - shift``."""
    columns, next_too = x.shape[1], _asks_for_next(x, n)
    whole = n - n % 4
    for k in range(0, whole, 4):
        i = start + k
        if next_too:
            _ask_for_next(x, start, n, k * columns, (k + 4) * columns, True)
        a, b, c, d = slope[k], slope[k + 1], slope[k + 2], slope[k + 3]
        for j in range(x.shape[1]):
            u = shift[j]
            total[j] += a * (x[i, j] - u) + b * (x[i + 1, j] - u) + c * (x[i + 2, j] - u) + d * (x[i + 3, j] - u)
    for k in range(whole, n):
        a = slope[k]
        for j in range(x.shape[1]):
            total[j] += a * (x[start + k, j] - shift[j])


@compiled(*REORDER)
def _backward_gaps(x: Any, start: int, n: int, shift: Any, slope: Any, total: Any) -> None:
    """The same without the rows whose slope is zero: where a weight is zero, the values may be anything."""
    for k in range(n):
        a = slope[k]
        if a != 0:
            for j in range(x.shape[1]):
                total[j] += a * (x[start + k, j] if shift is None else x[start + k, j] - shift[j])


@compiled(*REORDER)
def _backward_squares(x: Any, start: int, n: int, shift: Any, slope: Any, total: Any) -> None:
    for k in range(n):
        a = slope[k]
        if a != 0:
            for j in range(x.shape[1]):
                u = x[start + k, j] if shift is None else x[start + k, j] - shift[j]
                total[j] += a * (u * u)


@compiled()
def _any(slope: Any, at: int, size: int) -> bool:
    found = False
    for s in range(at, at + size):
        found = found or slope[s] != 0
    return found


@compiled()
def backward_one(
    rows: Rows, start: int, n: int, slope: Any, gaps: bool, sums: Table, squared: bool, space: Space
) -> None:
    """Add ``slope' z`` (or ``slope' z^2``) of n rows to the sums; ``gaps`` says that some have a weight of zero."""
    vector = sums.columns
    sums.constant[0] += sum_of(slope, n)
    _dense_backward(rows.x, rows.x_shift, start, n, slope, gaps, vector, squared)
    _sparse_backward(
        rows.indptr, rows.indices, rows.values, rows.shift, rows.sparse_first, start, n, slope, vector, squared,
        space.line,
    )  # fmt: skip
    _coded_backward(rows.codes, rows.code_columns, start, n, slope, vector)


@compiled()
def _dense_backward(
    x: Any, shift: Any, start: int, n: int, slope: Any, gaps: bool, vector: Any, squared: bool
) -> None:
    if x is None:
        return
    if squared:
        _backward_squares(x, start, n, shift, slope, vector)
    elif gaps:
        _backward_gaps(x, start, n, shift, slope, vector)
    elif shift is None:
        _backward_dense(x, start, n, slope, vector)
    else:
        _backward_centred(x, start, n, shift, slope, vector)


@compiled()
def _sparse_backward(
    indptr: Any, indices: Any, values: Any, shift: Any, first: int, start: int, n: int, slope: Any, vector: Any,
    squared: bool, line: Any,
) -> None:  # fmt: skip
    if values is None:
        return
    own = vector[first:]
    if shift is None and not squared:
        _sparse_add(indptr, indices, values, start, n, slope, own)
        return
    for k in range(n):
        i, factor = start + k, slope[k]
        for a in range(indptr[i], indptr[i + 1] if factor != 0 else 0, LINE):
            b = min(a + LINE, indptr[i + 1])
            _sparse_line(indptr, indices, values, shift, i, a, b, squared, line)
            for q in range(a, b):
                own[unsigned(indices[q])] += factor * line[q - a]


@compiled()
def _coded_backward(codes: Any, first: Any, start: int, n: int, slope: Any, vector: Any) -> None:
    if codes is None:
        return
    for c in range(codes.shape[1]):
        for k in range(n):
            if codes[start + k, c] >= 0:
                vector[unsigned(first[c] + codes[start + k, c])] += slope[k]


@compiled()
def backward_many(
    rows: Rows, start: int, n: int, slope: Any, gaps: bool, sums: Table, squared: bool, space: Space
) -> None:
    """The same for several outputs."""
    table, constant, size = sums.columns, sums.constant, sums.columns.shape[1]
    line, columns, every, ones = space.line, space.columns, space.every, space.ones
    for k in range(n):
        for s in range(size):
            constant[s] += slope[k * size + s]
    _dense_backward_many(rows.x, rows.x_shift, start, n, slope, gaps, table, squared, line, every)
    _sparse_backward_many(
        rows.indptr, rows.indices, rows.values, rows.shift, rows.sparse_first, start, n, slope, gaps, table, squared,
        line,
    )  # fmt: skip
    _coded_backward_many(rows.codes, rows.code_columns, start, n, slope, table, columns, ones)


@compiled()
def _dense_backward_many(
    x: Any, shift: Any, start: int, n: int, slope: Any, gaps: bool, table: Any, squared: bool, line: Any, every: Any
) -> None:
    if x is None:
        return
    size = table.shape[1]
    for k in range(n):
        for a in range(0, x.shape[1] if not gaps or _any(slope, k * size, size) else 0, LINE):
            b = min(a + LINE, x.shape[1])
            _dense_line(x, shift, start + k, a, b, squared, line)
            _scatter(table, 0, every, a, b, line, a, slope, k * size)


@compiled()
def _sparse_backward_many(
    indptr: Any, indices: Any, values: Any, shift: Any, first: int, start: int, n: int, slope: Any, gaps: bool,
    table: Any, squared: bool, line: Any,
) -> None:  # fmt: skip
    if values is None:
        return
    size = table.shape[1]
    for k in range(n):
        i = start + k
        if gaps and not _any(slope, k * size, size):
            continue
        if shift is None and not squared:
            _scatter(table, first, indices, indptr[i], indptr[i + 1], values, 0, slope, k * size)
            continue
        for a in range(indptr[i], indptr[i + 1], LINE):
            b = min(a + LINE, indptr[i + 1])
            _sparse_line(indptr, indices, values, shift, i, a, b, squared, line)
            _scatter(table, first, indices, a, b, line, a, slope, k * size)


@compiled()
def _coded_backward_many(
    codes: Any, first: Any, start: int, n: int, slope: Any, table: Any, columns: Any, ones: Any
) -> None:
    if codes is None:
        return
    for k in range(n):
        count = _code_line(codes, first, start + k, columns)
        _scatter(table, 0, columns, 0, count, ones, 0, slope, k * table.shape[1])
