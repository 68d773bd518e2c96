"""Loops for CUDA devices, in Triton; the only import of it. Dense rows, two classes, one read of the rows from memory.

A program takes a chunk of rows after the other: products with the coefficients, then what each row adds, then
products of slopes with the rows, which are still in a cache of the device. The chunks of all programs together fit
it, and each row's loss is computed by a thread of its own: left in the registers of the first product it would be
computed by all threads that share the row, which costs more than the second read of the cache.

What programs add up they write to places of their own: no atomics, so the same bits every time. Products run in the
dtype of the coefficients. What a row has only one of (predictor, loss, slope) is float64: beside its columns it costs
little, and the device's float32 logarithm is no good near one.

No argument tells the compiler how it is aligned: the order of additions may depend on that.
"""

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl


def compiled(function: Callable[..., Any]) -> Any:
    """Compile for the device, on first use."""
    return triton.jit(function)


def launched(function: Callable[..., Any]) -> Any:
    """The same for what is launched: no code depends on the alignment of its arguments, or on the number of rows."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    arguments = [name for name in names if not name.isupper()]
    return triton.jit(
        function, do_not_specialize=["rows", "points"], do_not_specialize_on_alignment=arguments
    )  # fmt: skip


# -- a row ------------------------------------------------------------------------------------------------------------


@compiled
def _loss(eta, own):
    """Loss, slope and margin, as `losses.Binomial` defines them: float64, stable for every ``eta``."""
    sign = tl.where(own > 0, 1.0, -1.0)
    margin = eta * sign
    tail = tl.exp(-tl.abs(margin))
    above = 1.0 + tail
    # log1p: what was lost in `above` is made good by the quotient.
    held = above - 1.0
    small = held == 0.0
    logarithm = tl.where(small, tail, tl.log(above) * (tail / tl.where(small, 1.0, held)))
    wrong = tl.where(margin > 0, tail, 1.0) / above
    return tl.maximum(-margin, 0.0) + logarithm, -sign * wrong, margin


@compiled
def _bend(eta):
    """The second derivative."""
    tail = tl.exp(-tl.abs(eta))
    above = 1.0 + tail
    return tail / (above * above)


@compiled
def _weight(weight, weight_row, weight_lane, row, inside, lane, WEIGHTED: tl.constexpr):
    """Weights of these rows in a lane, float64; zero beyond the last."""
    if WEIGHTED:
        return tl.load(weight + row * weight_row + lane * weight_lane, mask=inside, other=0.0).to(tl.float64)
    return inside.to(tl.float64)


@compiled
def _present(weight, weight_row, weight_lane, row, inside, lanes, points, WEIGHTED: tl.constexpr):
    """Which rows count in any lane; the others are not read, whatever they hold."""
    if not WEIGHTED:
        return inside
    present = row < 0
    for m in range(points):
        present |= _weight(weight, weight_row, weight_lane, row, inside, tl.load(lanes + m), WEIGHTED) > 0
    return present


@compiled
def _row_terms(
    eta, along, share, row, lane, target, target_row, target_lane, offset, offset_row, offset_lane,
    CURVED: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """Weighted loss, weighted slope (or curvature times ``along``) and margin of rows in a lane."""
    counted = share > 0
    if OFFSET:
        eta += tl.load(offset + row * offset_row + lane * offset_lane, mask=counted, other=0.0).to(tl.float64)
    if CURVED:
        zero = tl.zeros_like(share)
        return zero, tl.where(counted, share * _bend(eta) * along, 0.0), zero
    own = tl.load(target + row * target_row + lane * target_lane, mask=counted, other=0)
    value, slope, margin = _loss(eta, own)
    return (
        tl.where(counted, share * value, 0.0),
        tl.where(counted, share * slope, 0.0),
        tl.where(counted, margin, float("inf")),
    )


# -- columns of rows --------------------------------------------------------------------------------------------------


@compiled
def _tile(x, x_row, x_column, row, present, column, known, shift, rest, like, FRAMED: tl.constexpr):
    """Columns of rows in the dtype of ``like``, the frame's shift taken off.

    The shift comes in two parts: of float32 rows minus the first, all digits are left for the second.
    """
    at = row[:, None] * x_row + column[None, :].to(tl.int64) * x_column
    z = tl.load(x + at, mask=present[:, None] & known[None, :], other=0.0)
    if FRAMED:
        first = tl.load(shift + column, mask=known, other=0.0)
        second = tl.load(rest + column, mask=known, other=0.0)
        z = (z.to(first.dtype) - first[None, :]) - second[None, :]
    return z.to(like.dtype)


@compiled
def _predict(
    x, x_row, x_column, row, present, shift, rest, coefficients, constant, directions, direction_constant, m, columns,
    CHUNK: tl.constexpr, COLUMNS: tl.constexpr, CURVED: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """Products of rows with the m-th point and, if ``CURVED``, direction: float64, one sum over lanes each."""
    like = tl.load(coefficients)
    eta, along = tl.zeros([CHUNK, COLUMNS], like.dtype), tl.zeros([CHUNK, COLUMNS], like.dtype)
    for first in range(0, columns, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        known = column < columns
        z = _tile(x, x_row, x_column, row, present, column, known, shift, rest, like, FRAMED)
        eta += z * tl.load(coefficients + m * columns + column, mask=known, other=0.0)[None, :]
        if CURVED:
            along += z * tl.load(directions + m * columns + column, mask=known, other=0.0)[None, :]
    return (
        tl.sum(eta, 1).to(tl.float64) + tl.load(constant + m),
        tl.sum(along, 1).to(tl.float64) + tl.load(direction_constant + m),
    )


@compiled
def _pull_back(
    x, x_row, x_column, row, present, shift, rest, coefficients, slope, sums, m, columns,
    COLUMNS: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """Add ``slope' z`` to ``sums (points, columns)``."""
    like = tl.load(coefficients)
    factor = slope.to(like.dtype)[:, None]
    for first in range(0, columns, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        known = column < columns
        z = _tile(x, x_row, x_column, row, present, column, known, shift, rest, like, FRAMED)
        at = sums + m * columns + column
        tl.store(at, tl.load(at, mask=known, other=0.0) + tl.sum(z * factor, 0).to(tl.float64), mask=known)


# -- what is launched -------------------------------------------------------------------------------------------------


@launched
def sweep(
    x, x_row, x_column, target, target_row, target_lane, weight, weight_row, weight_lane,
    offset, offset_row, offset_lane, lanes, coefficients, constant, directions, direction_constant, shift, rest,
    rooms, sums, totals, rows, columns, points,
    CHUNK: tl.constexpr, COLUMNS: tl.constexpr, POINTS: tl.constexpr, CURVED: tl.constexpr, WEIGHTED: tl.constexpr,
    OFFSET: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """Sums over rows at M points: of losses and their gradients or, if ``CURVED``, of curvatures times directions.

    ``coefficients`` and ``directions`` are ``(M, p)``, ``rooms (programs, 2, CHUNK)`` is for a chunk's predictors.
    ``sums (programs, M, p)``, zero at first, and ``totals (programs, 4, M)`` (weight, loss, slope, margin) are the
    results, float64.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    local, point = tl.arange(0, CHUNK), tl.arange(0, POINTS)
    room, own = rooms + program * 2 * CHUNK + local, sums + program * points * columns
    weights = tl.zeros([CHUNK, POINTS], tl.float64)
    losses, levels = tl.zeros_like(weights), tl.zeros_like(weights)
    margins = weights + float("inf")
    for start in range(program * CHUNK, rows, programs * CHUNK):
        row = (start + local).to(tl.int64)
        inside = row < rows
        present = _present(weight, weight_row, weight_lane, row, inside, lanes, points, WEIGHTED)
        for m in range(points):
            lane, here = tl.load(lanes + m), (point == m)[None, :]
            eta, along = _predict(
                x, x_row, x_column, row, present, shift, rest,
                coefficients, constant, directions, direction_constant, m, columns, CHUNK, COLUMNS, CURVED, FRAMED,
            )  # fmt: skip
            tl.store(room, eta)
            if CURVED:
                tl.store(room + CHUNK, along)
            tl.debug_barrier()  # now the rows go from the threads that share one to threads of their own
            eta, along = tl.load(room), eta
            if CURVED:
                along = tl.load(room + CHUNK)
            share = _weight(weight, weight_row, weight_lane, row, inside, lane, WEIGHTED)
            value, slope, margin = _row_terms(
                eta, along, share, row, lane, target, target_row, target_lane, offset, offset_row, offset_lane,
                CURVED, OFFSET,
            )  # fmt: skip
            weights += tl.where(here, share[:, None], 0.0)
            losses += tl.where(here, value[:, None], 0.0)
            levels += tl.where(here, slope[:, None], 0.0)
            margins = tl.where(here, tl.minimum(margins, margin[:, None]), margins)
            tl.debug_barrier()
            tl.store(room, slope)
            tl.debug_barrier()  # and back
            _pull_back(
                x, x_row, x_column, row, present, shift, rest, coefficients, tl.load(room), own, m, columns,
                COLUMNS, FRAMED,
            )  # fmt: skip
            tl.debug_barrier()
    to, mask = totals + program * 4 * points + point, point < points
    tl.store(to, tl.sum(weights, 0), mask=mask)
    tl.store(to + points, tl.sum(losses, 0), mask=mask)
    tl.store(to + 2 * points, tl.sum(levels, 0), mask=mask)
    tl.store(to + 3 * points, tl.min(margins, 0), mask=mask)
