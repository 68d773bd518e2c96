"""Compiled sweeps: a range of rows in, sums out, written over what the caller's tables held. Serial; threads are the
caller's.

Rows are read once: a batch of them is multiplied, their losses differentiated, and the slopes summed while they are in
the cache. Every sweep has two forms: ``one`` output of one point, and ``many``. Each compiles in seconds, together they
would take minutes.
"""

from __future__ import annotations

from typing import Any

from torchlogit.kernels.numba_links import (
    Lanes,
    Totals,
    add_loss,
    add_offsets,
    bends,
    binomial,
    multinomial,
    probabilities,
    take_signs,
    take_weights,
    weigh,
)  # fmt: skip
from torchlogit.kernels.numba_math import compiled, smallest, sum_of
from torchlogit.kernels.numba_rows import (
    Rows,
    Space,
    Table,
    backward_many,
    backward_one,
    forward_many,
    forward_one,
)  # fmt: skip

# -- losses and gradients ---------------------------------------------------------------------------------------------


@compiled(kept=True)
def value_gradient_one(
    rows: Rows, lanes: Lanes, start: int, stop: int, step: int, space: Space, theta: Table, sums: Table, totals: Totals,
    kept: Any,
) -> None:  # fmt: skip
    """Losses, slopes and smallest margin of rows start to stop, ``step`` rows at a time; ``eta`` into ``kept (n, 1)``
    unless that is empty.
    """
    eta, weight, margin, loss = space.eta, space.weight, space.margin, space.loss
    _clear_one(sums)
    for first in range(start, stop, step):
        n = min(step, stop - first)
        forward_one(rows, first, n, theta, eta, True)
        add_offsets(lanes, first, n, 1, eta)
        if kept.shape[0]:
            for k in range(n):
                kept[first + k, 0] = eta[k]
        gaps = take_weights(lanes, first, n, 1, weight)
        take_signs(lanes, first, n, 1, margin)
        binomial(eta, margin, weight, n, loss)
        add_loss(totals, 0, sum_of(loss, n))
        totals.weight[0] += sum_of(weight, n) if lanes.weight.shape[1] else float(n)
        totals.margin[0] = min(totals.margin[0], smallest(margin, weight, n))
        backward_one(rows, first, n, eta, gaps, sums, False, space)


@compiled(kept=True)
def value_gradient_many(
    rows: Rows, lanes: Lanes, start: int, stop: int, step: int, space: Space, theta: Table, sums: Table, totals: Totals,
    kept: Any,
) -> None:  # fmt: skip
    """The same for several outputs or points, of which nothing is kept."""
    size, points, binary = theta.columns.shape[1], totals.loss.shape[0], lanes.outputs == 1
    each = size if binary else points
    eta, weight, margin, loss, top, rest = space.eta, space.weight, space.margin, space.loss, space.top, space.rest
    _clear_many(sums)
    for first in range(start, stop, step):
        n = min(step, stop - first)
        forward_many(rows, first, n, stop, theta, sums, eta, space)
        add_offsets(lanes, first, n, size, eta)
        gaps = take_weights(lanes, first, n, each, weight)
        if binary:
            take_signs(lanes, first, n, each, margin)
            binomial(eta, margin, weight, n * each, loss)
        else:
            multinomial(eta, n, size, lanes, first, weight, loss, margin, top, rest)
        _add_totals(totals, n, each, weight, loss, margin)
        backward_many(rows, first, n, eta, gaps, sums, False, space)


@compiled()
def _add_totals(totals: Totals, n: int, each: int, weight: Any, loss: Any, margin: Any) -> None:
    total, least = totals.weight, totals.margin
    for m in range(total.shape[0]):
        value = 0.0
        for at in range(m, n * each, each):
            value += loss[at]
            total[m] += weight[at]
            if weight[at] > 0:
                least[m] = min(least[m], margin[at])
        add_loss(totals, m, value)


@compiled()
def _clear_one(sums: Table) -> None:
    columns = sums.columns
    for j in range(columns.shape[0]):
        columns[j] = 0.0


@compiled()
def _clear_many(sums: Table) -> None:
    columns = sums.columns
    for j in range(columns.shape[0]):
        for s in range(columns.shape[1]):
            columns[j, s] = 0.0


# -- predictors, and what products need of them -----------------------------------------------------------------------


@compiled(kept=True)
def predictor_one(
    rows: Rows, lanes: Lanes, start: int, stop: int, step: int, space: Space, theta: Table, out: Any, best: Any,
    curved: bool,
) -> None:  # fmt: skip
    """``eta`` of the rows into ``out (n, points * K)``; curved, what `losses.row_curvature` makes of it."""
    eta = space.eta
    for first in range(start, stop, step):
        n = min(step, stop - first)
        forward_one(rows, first, n, theta, eta, False)
        add_offsets(lanes, first, n, 1, eta)
        if curved:
            bends(eta, n)
        for k in range(n):
            out[first + k, 0] = eta[k]


@compiled(kept=True)
def predictor_many(
    rows: Rows, lanes: Lanes, start: int, stop: int, step: int, space: Space, theta: Table, out: Any, best: Any,
    curved: bool,
) -> None:  # fmt: skip
    """The same; curved, many classes have probabilities, and the most probable one in ``best (n, points)``."""
    size, outputs, points, eta = theta.columns.shape[1], lanes.outputs, lanes.offset_of.shape[0], space.eta
    for first in range(start, stop, step):
        n = min(step, stop - first)
        forward_many(rows, first, n, stop, theta, theta, eta, space)
        add_offsets(lanes, first, n, size, eta)
        if curved and outputs == 1:
            bends(eta, n * size)
        for k in range(n):
            if curved and outputs > 1:
                for m in range(points):
                    winner, share, _ = probabilities(eta, k * size + m * outputs, outputs)
                    eta[winner] = share
                    best[first + k, m] = winner - (k * size + m * outputs)
            for j in range(points * outputs):
                out[first + k, j] = eta[k * size + j]


# -- products with the curvature --------------------------------------------------------------------------------------


@compiled(kept=True)
def product_one(
    rows: Rows, lanes: Lanes, start: int, stop: int, step: int, space: Space, along: Table, bend: Any, best: Any,
    sums: Table, total: Any,
) -> None:  # fmt: skip
    """The rows' curvatures, as `predictor_one` wrote them, times a direction."""
    eta, weight = space.eta, space.weight
    _clear_one(sums)
    for first in range(start, stop, step):
        n = min(step, stop - first)
        forward_one(rows, first, n, along, eta, True)
        gaps = take_weights(lanes, first, n, 1, weight)
        for k in range(n):
            eta[k] *= bend[first + k, 0]
        weigh(eta, weight, n)
        total[0] += sum_of(weight, n)
        backward_one(rows, first, n, eta, gaps, sums, False, space)


@compiled(kept=True)
def product_many(
    rows: Rows, lanes: Lanes, start: int, stop: int, step: int, space: Space, along: Table, bend: Any, best: Any,
    sums: Table, total: Any,
) -> None:  # fmt: skip
    """The same for several outputs or points."""
    size, outputs, points = along.columns.shape[1], lanes.outputs, total.shape[0]
    eta, weight = space.eta, space.weight
    _clear_many(sums)
    for first in range(start, stop, step):
        n = min(step, stop - first)
        forward_many(rows, first, n, stop, along, sums, eta, space)
        gaps = take_weights(lanes, first, n, points, weight)
        for k in range(n):
            for m in range(points):
                a, b, w = k * size + m * outputs, m * outputs, weight[k * points + m]
                total[m] += w
                if outputs == 1:
                    eta[a] = eta[a] * bend[first + k, m] * w if w > 0 else 0.0
                    continue
                middle, mean = eta[a + best[first + k, m]], 0.0
                for j in range(outputs):
                    eta[a + j] -= middle
                    mean += bend[first + k, b + j] * eta[a + j]
                for j in range(outputs):
                    eta[a + j] = (eta[a + j] - mean) * bend[first + k, b + j] * w if w > 0 else 0.0
        backward_many(rows, first, n, eta, gaps, sums, False, space)


# -- the curvature's diagonal -----------------------------------------------------------------------------------------


@compiled(kept=True)
def diagonal_one(
    rows: Rows, lanes: Lanes, start: int, stop: int, step: int, space: Space, theta: Table, squares: Table,
    sums: Table, total: Any,
) -> None:  # fmt: skip
    """The curvature's diagonal, and its column of the intercept."""
    eta, weight = space.eta, space.weight
    _clear_one(squares)
    _clear_one(sums)
    for first in range(start, stop, step):
        n = min(step, stop - first)
        forward_one(rows, first, n, theta, eta, True)
        add_offsets(lanes, first, n, 1, eta)
        gaps = take_weights(lanes, first, n, 1, weight)
        bends(eta, n)
        weigh(eta, weight, n)
        total[0] += sum_of(weight, n)
        backward_one(rows, first, n, eta, gaps, squares, True, space)
        backward_one(rows, first, n, eta, gaps, sums, False, space)


@compiled(kept=True)
def diagonal_many(
    rows: Rows, lanes: Lanes, start: int, stop: int, step: int, space: Space, theta: Table, squares: Table,
    sums: Table, total: Any,
) -> None:  # fmt: skip
    """The same for several outputs or points."""
    size, outputs, points = theta.columns.shape[1], lanes.outputs, total.shape[0]
    eta, weight = space.eta, space.weight
    _clear_many(squares)
    _clear_many(sums)
    for first in range(start, stop, step):
        n = min(step, stop - first)
        forward_many(rows, first, n, stop, theta, sums, eta, space)
        add_offsets(lanes, first, n, size, eta)
        gaps = take_weights(lanes, first, n, points, weight)
        if outputs == 1:
            bends(eta, n * size)
        for k in range(n):
            for m in range(points):
                a, w = k * size + m * outputs, weight[k * points + m]
                total[m] += w
                if outputs > 1:
                    winner, share, complement = probabilities(eta, a, outputs)
                    for j in range(a, a + outputs):
                        eta[j] *= 1.0 - eta[j]
                    eta[winner] = share * complement
                for j in range(a, a + outputs):
                    eta[j] = eta[j] * w if w > 0 else 0.0
        backward_many(rows, first, n, eta, gaps, squares, True, space)
        backward_many(rows, first, n, eta, gaps, sums, False, space)


# -- coefficients to tables, and sums back ----------------------------------------------------------------------------


@compiled(kept=True)
def write_table(theta: Any, scale: Any, start: int, stop: int, table: Any) -> None:
    """``table[j] = theta[:, j] / scale[j]`` for columns start to stop, and zeros where it is padded."""
    for j in range(start, stop):
        for s in range(theta.shape[0]):
            table[j, s] = theta[s, j] / scale[j]
        for s in range(theta.shape[0], table.shape[1]):
            table[j, s] = 0.0


@compiled(kept=True)
def read_tables(tables: Any, scale: Any, start: int, stop: int, squared: bool, out: Any) -> None:
    """``out[:, j]``: the tables ``(threads, p, S)`` added in their order, over scale or its square."""
    for j in range(start, stop):
        for s in range(out.shape[0]):
            total = 0.0
            for t in range(tables.shape[0]):
                total += tables[t, j, s]
            out[s, j] = total / scale[j] / scale[j] if squared else total / scale[j]
