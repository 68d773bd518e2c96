"""Loops for CUDA devices, in Triton; the only import of it. Dense rows, two classes, one read of the rows from memory.

A program is one warp, and takes a chunk of rows after the other: products with the coefficients, then what each row
adds, a row to each thread, then products of slopes with the rows. Rows of few columns stay in registers in between
(`sweep_held`); those of many are read again, from a cache of the device (`sweep`). All that a chunk needs is asked for
before any of it is used, since what is under way is what keeps a memory busy.

What programs add up they write to places of their own: no atomics, so the same bits every time. What a row has only
one of (predictor, loss, slope) is float64: beside its columns it costs little, and the device's float32 logarithm is no
good near one.

The compiler is told nothing about alignment but of the rows themselves, and reads ``VECTOR`` of their elements at once
where rows are as long as a multiple of that: the order of additions depends on it.
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl


def compiled(function: Callable[..., Any]) -> Any:
    """Compile for the device, on first use."""
    return triton.jit(function)


def launched(function: Callable[..., Any]) -> Any:
    """The same for what is launched: no code depends on the alignment of its arguments, or on the number of rows."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    arguments = [name for name in names if not name.isupper() and name != "x"]
    return triton.jit(
        function, do_not_specialize=["rows", "points"], do_not_specialize_on_alignment=arguments
    )  # fmt: skip


def language_dtype(dtype: torch.dtype) -> Any:
    """Its name in the loops' language."""
    return tl.float32 if dtype == torch.float32 else tl.float64


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
def _own(target, target_row, target_lane, offset, offset_row, offset_lane, row, lane, share, OFFSET: tl.constexpr):
    """Classes and offsets of these rows in a lane: asked for with their columns, so that nothing waits for them."""
    counted = share > 0
    own = tl.load(target + row * target_row + lane * target_lane, mask=counted, other=0)
    if OFFSET:
        return own, tl.load(offset + row * offset_row + lane * offset_lane, mask=counted, other=0.0).to(tl.float64)
    return own, tl.zeros_like(share)


@compiled
def _row_terms(eta, along, share, own, CURVED: tl.constexpr):
    """Weighted loss, weighted slope (or curvature times ``along``) and margin of rows in a lane."""
    counted = share > 0
    if CURVED:
        zero = tl.zeros_like(share)
        return zero, tl.where(counted, share * _bend(eta) * along, 0.0), zero
    value, slope, margin = _loss(eta, own)
    return (
        tl.where(counted, share * value, 0.0),
        tl.where(counted, share * slope, 0.0),
        tl.where(counted, margin, float("inf")),
    )


# -- columns of rows --------------------------------------------------------------------------------------------------


@compiled
def _tile(rows, x_column, present, column, known, WEIGHTED: tl.constexpr):
    """Columns of rows as they are stored, zero where there are none."""
    inside = known[None, :]
    if WEIGHTED:
        inside = present[:, None] & inside
    return tl.load(rows[:, None] + column[None, :].to(tl.int64) * x_column, mask=inside, other=0.0)


@compiled
def _framed(
    stored, present, column, known, shift, rest,
    DTYPE: tl.constexpr, WEIGHTED: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """A tile in the products' dtype, the frame's shift taken off.

    The shift comes in two parts: of float32 rows minus the first, all digits are left for the second.
    """
    if FRAMED:
        first = tl.load(shift + column, mask=known, other=0.0)
        second = tl.load(rest + column, mask=known, other=0.0)
        stored = (stored.to(first.dtype) - first[None, :]) - second[None, :]
        if WEIGHTED:
            stored = tl.where(present[:, None], stored, 0.0)
    return stored.to(DTYPE)


@compiled
def _plus_times(total, z, column, known, vector, SMALL: tl.constexpr = False):
    """A tile times a float64 vector, or what is left of it after rounding; exact before it is added to ``total``."""
    exact = tl.load(vector + column, mask=known, other=0.0)
    factor = exact.to(z.dtype)
    if SMALL:
        factor = (exact - factor.to(tl.float64)).to(z.dtype)
    return tl.fma(z, tl.broadcast_to(factor[None, :], z.shape), total)


@compiled
def _neighbours(bent, VECTOR: tl.constexpr):
    """Sums ``(CHUNK, COLUMNS / VECTOR)`` of neighbours, which one thread has."""
    if VECTOR == 1:
        return bent
    return tl.sum(tl.reshape(bent, [bent.shape[0], bent.shape[1] // VECTOR, VECTOR]), 2)


@compiled
def _across(bent, local):
    """Row sums ``(CHUNK,)``, float64, a row to each thread: those that share one would all compute its terms."""
    return tl.gather(tl.sum(bent, 1), local, 0).to(tl.float64)


@compiled
def _down(bent, LANES: tl.constexpr):
    """Column sums ``(LANES, COLUMNS)`` of a tile, float64: over those rows that one thread has."""
    rows: tl.constexpr = bent.shape[0] // LANES
    return tl.sum(tl.reshape(bent, [rows, LANES, bent.shape[1]]), 0).to(tl.float64)


# -- rows of many columns, or at many points --------------------------------------------------------------------------


@compiled
def _predict(
    rows, x_column, present, local, shift, rest, coefficients, directions, columns,
    DTYPE: tl.constexpr, COLUMNS: tl.constexpr, VECTOR: tl.constexpr, CURVED: tl.constexpr, WEIGHTED: tl.constexpr,
    FRAMED: tl.constexpr,
):  # fmt: skip
    """Products of rows with a point and, if ``CURVED``, a direction: float64."""
    eta = tl.zeros([rows.shape[0], COLUMNS // VECTOR], DTYPE)
    along = eta
    column = tl.arange(0, COLUMNS)
    known = column < columns
    later = _tile(rows, x_column, present, column, known, WEIGHTED)
    for first in range(COLUMNS, columns + COLUMNS, COLUMNS):
        z = _framed(later, present, column, known, shift, rest, DTYPE, WEIGHTED, FRAMED)
        following = first + tl.arange(0, COLUMNS)
        later = _tile(rows, x_column, present, following, following < columns, WEIGHTED)
        bent = tl.zeros_like(z)
        if DTYPE != tl.float64:  # noqa: SIM300, which takes it for a constant
            bent = _plus_times(bent, z, column, known, coefficients, True)
        eta += _neighbours(_plus_times(bent, z, column, known, coefficients), VECTOR)
        if CURVED:
            along += _neighbours(_plus_times(tl.zeros_like(z), z, column, known, directions), VECTOR)
        column, known = following, following < columns
    return _across(eta, local), _across(along, local)


@compiled
def _pull_back(
    rows, x_column, present, shift, rest, slope, sums, columns,
    DTYPE: tl.constexpr, COLUMNS: tl.constexpr, WEIGHTED: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """Add ``slope' z`` to ``sums (columns,)``."""
    factor = slope.to(DTYPE)[:, None]
    column = tl.arange(0, COLUMNS)
    known = column < columns
    later = _tile(rows, x_column, present, column, known, WEIGHTED)
    for first in range(COLUMNS, columns + COLUMNS, COLUMNS):
        before = tl.load(sums + column, mask=known, other=0.0)
        z = _framed(later, present, column, known, shift, rest, DTYPE, WEIGHTED, FRAMED)
        following = first + tl.arange(0, COLUMNS)
        later = _tile(rows, x_column, present, following, following < columns, WEIGHTED)
        tl.store(sums + column, before + tl.sum(z * factor, 0).to(tl.float64), mask=known)
        column, known = following, following < columns


@launched
def sweep(
    x, x_row, x_column, target, target_row, target_lane, weight, weight_row, weight_lane,
    offset, offset_row, offset_lane, lanes, coefficients, constant, directions, direction_constant, shift, rest,
    sums, totals, rows, columns, points,
    CHUNK: tl.constexpr, COLUMNS: tl.constexpr, VECTOR: tl.constexpr, POINTS: tl.constexpr, CURVED: tl.constexpr,
    WEIGHTED: tl.constexpr, OFFSET: tl.constexpr, FRAMED: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Sums over rows at M points: of losses and their gradients or, if ``CURVED``, of curvatures times directions.

    ``x_row`` and ``columns`` count ``VECTOR`` elements, ``coefficients`` and ``directions`` are ``(M, p)``, float64,
    products in ``DTYPE``. What coefficients are rounded by comes first in every sum, where it still decides how the
    exact products after it are rounded: so this error averages out, as that of a rounded point would not.
    ``sums (programs, M, p)``, zero at first, and ``totals (programs, 4, M)`` (weight, loss, slope, margin) are the
    results, float64.
    """
    x_row, columns = x_row * VECTOR, columns * VECTOR
    program, programs = tl.program_id(0), tl.num_programs(0)
    local, point = tl.arange(0, CHUNK), tl.arange(0, POINTS)
    own_sums = sums + program * points * columns
    weights = tl.zeros([CHUNK, POINTS], tl.float64)
    losses, levels = tl.zeros_like(weights), tl.zeros_like(weights)
    margins = weights + float("inf")
    for start in range(program * CHUNK, rows, programs * CHUNK):
        row = (start + local).to(tl.int64)
        inside = row < rows
        # Rows beyond the last repeat it and add nothing.
        first = x + tl.cast(start, tl.int64) * x_row + tl.minimum(local, rows - 1 - start).to(tl.int64) * x_row
        present = _present(weight, weight_row, weight_lane, row, inside, lanes, points, WEIGHTED)
        for m in range(points):
            lane, here, at = tl.load(lanes + m), (point == m)[None, :], m * columns
            share = _weight(weight, weight_row, weight_lane, row, inside, lane, WEIGHTED)
            own, base = _own(target, target_row, target_lane, offset, offset_row, offset_lane, row, lane, share, OFFSET)
            eta, along = _predict(
                first, x_column, present, local, shift, rest, coefficients + at, directions + at, columns,
                DTYPE, COLUMNS, VECTOR, CURVED, WEIGHTED, FRAMED,
            )  # fmt: skip
            eta, along = eta + (base + tl.load(constant + m)), along + tl.load(direction_constant + m)
            value, slope, margin = _row_terms(eta, along, share, own, CURVED)
            weights += tl.where(here, share[:, None], 0.0)
            losses += tl.where(here, value[:, None], 0.0)
            levels += tl.where(here, slope[:, None], 0.0)
            margins = tl.where(here, tl.minimum(margins, margin[:, None]), margins)
            tl.debug_barrier()  # else the compiler would keep the rows, for which there is no room
            _pull_back(
                first, x_column, present, shift, rest, slope, own_sums + at, columns,
                DTYPE, COLUMNS, WEIGHTED, FRAMED,
            )  # fmt: skip
            tl.debug_barrier()
    to, mask = totals + program * 4 * points + point, point < points
    tl.store(to, tl.sum(weights, 0), mask=mask)
    tl.store(to + points, tl.sum(losses, 0), mask=mask)
    tl.store(to + 2 * points, tl.sum(levels, 0), mask=mask)
    tl.store(to + 3 * points, tl.min(margins, 0), mask=mask)


# -- rows that fit the registers, at one point ------------------------------------------------------------------------


@launched
def sweep_held(
    x, x_row, x_column, target, target_row, target_lane, weight, weight_row, weight_lane,
    offset, offset_row, offset_lane, lanes, coefficients, constant, shift, rest, sums, totals, rows, columns,
    CHUNK: tl.constexpr, COLUMNS: tl.constexpr, VECTOR: tl.constexpr, STRIPS: tl.constexpr, WEIGHTED: tl.constexpr,
    OFFSET: tl.constexpr, FRAMED: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Loss and gradient as `sweep` adds them up, at one point, of rows of at most ``STRIPS`` tiles of columns.

    ``sums`` need not be zero at first.
    """
    x_row, columns = x_row * VECTOR, columns * VECTOR
    program, programs = tl.program_id(0), tl.num_programs(0)
    local = tl.arange(0, CHUNK)
    lane, base = tl.load(lanes), tl.load(constant)
    # Rows of a tile that different threads have.
    LANES: tl.constexpr = CHUNK if CHUNK * COLUMNS < 32 * VECTOR else 32 * VECTOR // COLUMNS
    weights = tl.zeros([CHUNK], tl.float64)
    losses, levels = tl.zeros_like(weights), tl.zeros_like(weights)
    margins = weights + float("inf")
    down = ()
    for _ in tl.static_range(STRIPS):
        down = down + (tl.zeros([LANES, COLUMNS], tl.float64),)
    for start in range(program * CHUNK, rows, programs * CHUNK):
        row = (start + local).to(tl.int64)
        share = _weight(weight, weight_row, weight_lane, row, row < rows, lane, WEIGHTED)
        present = share > 0
        own, more = _own(target, target_row, target_lane, offset, offset_row, offset_lane, row, lane, share, OFFSET)
        first = x + tl.cast(start, tl.int64) * x_row + tl.minimum(local, rows - 1 - start).to(tl.int64) * x_row
        tiles = ()
        for strip in tl.static_range(STRIPS):
            column = strip * COLUMNS + tl.arange(0, COLUMNS)
            tiles = tiles + (_tile(first, x_column, present, column, column < columns, WEIGHTED),)
        eta = tl.zeros([CHUNK, COLUMNS], DTYPE)
        held = ()
        for strip in tl.static_range(STRIPS):
            column = strip * COLUMNS + tl.arange(0, COLUMNS)
            known = column < columns
            z = _framed(tiles[strip], present, column, known, shift, rest, DTYPE, WEIGHTED, FRAMED)
            if DTYPE != tl.float64:  # noqa: SIM300, which takes it for a constant
                eta = _plus_times(eta, z, column, known, coefficients, True)
            held = held + (z,)
        for strip in tl.static_range(STRIPS):
            column = strip * COLUMNS + tl.arange(0, COLUMNS)
            eta = _plus_times(eta, held[strip], column, column < columns, coefficients)
        eta = _across(_neighbours(eta, VECTOR), local) + (base + more)
        value, slope, margin = _row_terms(eta, eta, share, own, False)
        weights += share
        losses += value
        levels += slope
        margins = tl.minimum(margins, margin)
        factor = slope.to(DTYPE)[:, None]
        before, down = down, ()
        for strip in tl.static_range(STRIPS):
            down = down + (before[strip] + _down(held[strip] * factor, LANES),)
    for strip in tl.static_range(STRIPS):
        column = strip * COLUMNS + tl.arange(0, COLUMNS)
        tl.store(sums + program * columns + column, tl.sum(down[strip], 0), mask=column < columns)
    to = totals + program * 4
    tl.store(to, tl.sum(weights, 0))
    tl.store(to + 1, tl.sum(losses, 0))
    tl.store(to + 2, tl.sum(levels, 0))
    tl.store(to + 3, tl.min(margins, 0))


# -- columns, whatever the rows' classes ------------------------------------------------------------------------------


@launched
def column_moments(
    x, x_row, x_column, weight, weight_row, anchor, sums, rows, columns,
    CHUNK: tl.constexpr, COLUMNS: tl.constexpr, VECTOR: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Of ``d = x - anchor``: weighted sum, weighted sum of squares, largest absolute value, in float64.

    A program takes chunks of rows of one tile of columns. ``sums (programs, 3, p)`` are the results. A value that is
    not finite leaves a sum that is not.
    """
    x_row, columns = x_row * VECTOR, columns * VECTOR
    program, programs = tl.program_id(0), tl.num_programs(0)
    LANES: tl.constexpr = CHUNK if CHUNK * COLUMNS < 32 * VECTOR else 32 * VECTOR // COLUMNS
    local, column = tl.arange(0, CHUNK), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    known = column < columns
    middle = tl.load(anchor + column, mask=known, other=0.0)
    first = tl.zeros([LANES, COLUMNS], tl.float64)
    second, largest = first, first
    for start in range(program * CHUNK, rows, programs * CHUNK):
        row = (start + local).to(tl.int64)
        inside = (row < rows)[:, None] & known[None, :]
        at = x + tl.cast(start, tl.int64) * x_row + local.to(tl.int64) * x_row
        stored = tl.load(at[:, None] + column[None, :].to(tl.int64) * x_column, mask=inside, other=0.0)
        distance = tl.where(inside, stored.to(tl.float64) - middle[None, :], 0.0)
        weighted = distance
        if WEIGHTED:
            share = tl.load(weight + row * weight_row, mask=row < rows, other=0.0).to(tl.float64)
            weighted = distance * share[:, None]
        first += _down(weighted, LANES)
        second += _down(weighted * distance, LANES)
        tall = tl.reshape(tl.abs(distance), [CHUNK // LANES, LANES, COLUMNS])
        largest = tl.maximum(largest, tl.max(tall, 0))
    to = sums + program * 3 * columns + column
    tl.store(to, tl.sum(first, 0), mask=known)
    tl.store(to + columns, tl.sum(second, 0), mask=known)
    tl.store(to + 2 * columns, tl.max(largest, 0), mask=known)
