"""Rows of eight-bit integers for many outputs: an eighth of the memory, and products four times as fast as float32.

The other factor of a product is cut into parts of eight bits, each in a 254th of the unit of the part before. Three
hold what float32 does; one or two will do for a product that only shapes a step. The sums are exact in any order.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from torchlogit.kernels.bfloat16 import processor_flags
from torchlogit.kernels.integers import MOST
from torchlogit.kernels.sparse_part import SparsePart
from torchlogit.kernels.torch_device import TorchKernel
from torchlogit.losses import Loss
from torchlogit.problem import Block, Frame, uninitialised
from torchlogit.tensors import in_type, joined
from torchlogit.threads import in_ranges, one_thread_each

_LOWEST = -128
# How much smaller the unit of a part is than that of the part before.
_FINER = 2.0 * MOST
# Parts of the coefficients and of the slopes for a gradient, and for products of which a few digits are wanted. Those
# of many outputs have one of each where that is enough: a second of the coefficients takes a tenth of the time. It is
# not where columns differ much in how far they vary in their units: what is moved along a rare one is large, and one
# part of all others is lost beside it. (60,000 x 784, ten classes: conjugate gradients get nowhere, 43 s, not 6.) Nor
# is it where most rows are classified, of which few have slopes that it sees beside the largest.
_PARTS, _SHORT_PARTS, _MANY_PARTS, _MANY_OUTPUTS = (3, 2), (2, 2), (1, 1), 33
# Outputs up to which products are faster the other way round.
_TURNED_OUTPUTS = 64
# Elements of a block's rows, and of its outputs, that still are in a cache when they are wanted again.
_BLOCK_ELEMENTS, _OUTPUT_ELEMENTS, _LEAST_ROWS = 4_000_000, 200_000, 500
# Where a processor does not have these, all rows of a block are looked at before each product: it fetches them in
# another order than that of their addresses, and waits for each line that is not in a cache (AMD EPYC, 10,000 x 784
# times 20: 4.4 ms, 2.4 ms like this). An Intel Xeon does not wait, and takes an eighth of a whole product to look.
_PACKING = {"amx_int8"}
# Rows that are rounded together.
_ROUNDED_ELEMENTS = 65_536


class IntegerKernel(TorchKernel):
    """Sums over rows that `integer_rows` made, in float32, for many outputs.

    Parameters
    ----------
    loss : Loss
    frame : Frame
        Coordinates in which the rows are whole numbers.
    middle : Tensor of shape (p,), float64
        The number that a column is near to: what a factor loses by being cut is lost of the differences to it.
    unequal : bool, default=False
        Whether columns differ much in how far they vary in these coordinates.
    short : bool, default=False
        Whether a few digits will do (see `rounded`).
    """

    def __init__(
        self, loss: Loss, frame: Frame, middle: Tensor, *, unequal: bool = False, short: bool = False
    ) -> None:
        super().__init__(loss, frame, torch.float32)
        self.stored = Frame(torch.zeros_like(frame.shift), torch.ones_like(frame.scale))
        self.middle, self.unequal = middle, unequal
        self._sum_dtype = self.dtype if short else torch.float64  # float32 takes a sixth of the time
        few = _MANY_PARTS if loss.outputs >= _MANY_OUTPUTS and not unequal else _SHORT_PARTS
        self._parts = few if short else _PARTS
        # Coefficients of the last points and directions as they are multiplied: all blocks of a sweep have the same.
        self._known: tuple[tuple[Tensor, tuple[Tensor, Tensor, Tensor]], ...] = ()
        self._lock = threading.Lock()

    def _in_float32(self, *, short: bool) -> IntegerKernel:
        return IntegerKernel(self.loss, self.frame, self.middle, unequal=self.unequal, short=short)

    def _dense(self, block: Block) -> Tensor | None:
        return block.dense

    def _eta(
        self, block: Block, dense: Tensor | None, sparse: list[SparsePart], theta: Tensor, lanes: Tensor | None
    ) -> Tensor:
        assert dense is not None
        parts, unit, intercept = self._coefficients(theta)
        count, outputs = self._parts[0], unit.shape[1]
        _look_at(dense)
        if outputs <= _TURNED_OUTPUTS:
            eta = torch.addcmul(intercept.T, _in_unit(torch._int_mm(parts, dense.T), count, 0), unit.T).T
        else:
            eta = torch.addcmul(intercept, _in_unit(torch._int_mm(dense, parts.T), count, 1), unit)
        return self._with_offset(block, eta.view(block.rows, *theta.shape[:2]), lanes)

    def _coefficients(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Parts ``(parts * M * K, p)`` int8, their units and intercepts ``(1, M * K)``, float32."""
        with self._lock:
            for known, made in self._known:
                if known is theta:
                    return made
            flat, count = theta.reshape(-1, theta.shape[-1]), self._parts[0]
            columns, intercept = flat[:, :-1], flat[:, -1]
            whole, unit = _cut(columns, count, 1)
            intercept = intercept + (columns - _added(whole) * unit) @ self.middle
            parts = joined([part.to(torch.int8) for part in whole])
            made = parts, unit.T.to(self.dtype), intercept[None].to(self.dtype)
            self._known = ((theta, made), *self._known[:1])
            return made

    def _pull_back(
        self, dense: Tensor | None, sparse: list[SparsePart], slope: Tensor, width: int
    ) -> Tensor:
        """``sum_i slope_i z_i'``: ``slope (rows, M, K)``, which is written over, to ``(M, K, p + 1)`` float64."""
        assert dense is not None
        rows, points, outputs = slope.shape
        flat, count = slope.reshape(rows, points * outputs), self._parts[1]
        total = flat.sum(0, dtype=self._sum_dtype)
        whole, unit = _cut(flat, count, 0, into=flat)
        counted = _added([part.sum(0) for part in whole])
        # Outputs are one after the other in memory, as `_eta` left them: joined as columns they would be woven.
        parts = joined([part.to(torch.int8).T for part in whole])
        _look_at(dense)
        sums = torch._int_mm(parts, dense)
        gradient = torch.empty(points * outputs, width, dtype=torch.float64)
        columns = torch.mul(_in_unit(sums, count, 0, self._sum_dtype), unit.T, out=gradient[:, :-1])
        columns.addr_(total - counted * unit[0], self.middle)
        gradient[:, -1] = total
        return gradient.view(points, outputs, width)


def _look_at(dense: Tensor) -> None:
    """At all rows, where a product would wait for them (see `_PACKING`)."""
    if not _PACKING & processor_flags():
        dense.amax()


def _cut(values: Tensor, parts: int, over: int, into: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
    """``values`` as whole numbers, in so many parts, and the unit of the first.

    Each line along ``over`` has its own unit. What is left of values on the way is written ``into`` that tensor, if
    there is one.
    """
    if over == 0 and parts > 1:  # one unit for all: fifteen bits have room for small columns
        largest = values.abs().amax().view(1, 1)  # the norm that torch has for it takes ten times as long
    else:
        largest = values.abs().amax(over, keepdim=True)
    unit = torch.clamp(largest, min=1e-30).div_(MOST)
    left = torch.div(values, unit, out=into)
    if parts == 1:
        return [left.round_()], unit
    found = [left.round()]
    for _ in range(parts - 1):
        left = left.sub_(found[-1]).mul_(_FINER)
        found.append(left.round())
    return found, unit


def _added(parts: Sequence[Tensor]) -> Tensor:
    """Parts of a number in the unit of the first."""
    total, *finer = parts
    for power, part in enumerate(finer, 1):
        total = torch.add(total, part, alpha=_FINER**-power)
    return total


def _in_unit(products: Tensor, parts: int, along: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Products of all parts, side by side ``along`` that dimension, added."""
    return _added(in_type(products, dtype).chunk(parts, along))


def integer_frame(dense: Tensor) -> Frame:
    """The unit and the shift that take each column to whole numbers from -128 to 127, from end to end.

    A column of two values loses nothing by being rounded to them, nor does one of 256 equidistant values, as images
    have.

    Parameters
    ----------
    dense : Tensor of shape (n, p), floating, finite
    """
    step = _rounded_rows(dense)
    ends: list[tuple[Tensor, Tensor]] = []

    def find_ends(start: int, stop: int) -> None:
        low = high = dense[start]
        for first in range(start, stop, step):
            piece = dense[first : min(first + step, stop)]
            low, high = torch.minimum(low, piece.amin(0)), torch.maximum(high, piece.amax(0))
        ends.append((low, high))

    with one_thread_each():
        in_ranges(dense.shape[0], find_ends, float(dense.numel()))
    low = torch.stack([end[0] for end in ends]).amin(0).to(torch.float64)
    high = torch.stack([end[1] for end in ends]).amax(0).to(torch.float64)
    unit = (high - low) / (MOST - _LOWEST)
    unit = torch.where(unit > 0, unit, 1.0)
    return Frame(low - _LOWEST * unit, unit)


def integer_rows(dense: Tensor, frame: Frame, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Dense rows as whole numbers.

    Parameters
    ----------
    dense : Tensor of shape (n, p), floating, finite
    frame : Frame
        That `integer_frame` found, in these rows or in more.
    weight : Tensor of shape (n,), optional
        Of the rows, in the mean of what rounding does to them.

    Returns
    -------
    rows : Tensor of shape (n, p), int8
    noise : Tensor of shape (p,), float64
        Mean square of what rounding adds, in squared units.
    """
    step, offset, inverse = _rounded_rows(dense), -frame.shift / frame.scale, 1 / frame.scale
    squares: dict[int, Tensor] = {}
    rows = uninitialised(dense.shape, dense.new_empty(0, dtype=torch.int8))

    def fill(start: int, stop: int) -> None:
        # One piece after the other over the same memory, of which threads would come to hold many times as much.
        exact = dense.new_empty(step, dense.shape[1], dtype=torch.float64)
        left, whole = (torch.empty_like(exact, dtype=torch.float32) for _ in range(2))
        square = torch.zeros_like(offset)
        for first in range(start, stop, step):
            here = slice(first, min(first + step, stop))
            size = here.stop - first
            # Shifted in float64: a float32 timestamp minus its float32-rounded smallest value has lost its digits.
            exact[:size].copy_(dense[here]).mul_(inverse).add_(offset)
            torch.round(left[:size].copy_(exact[:size]), out=whole[:size])
            rows[here].copy_(whole[:size])
            left[:size].sub_(whole[:size]).square_()
            share = None if weight is None else weight[here].to(torch.float32)
            square += left[:size].sum(0) if share is None else share @ left[:size]
        squares[start] = square

    with one_thread_each():
        in_ranges(dense.shape[0], fill, float(dense.numel()))
    total = float(dense.shape[0]) if weight is None else weight.sum()
    # In the order of the rows, whatever thread they were rounded by.
    return rows, torch.stack([squares[start] for start in sorted(squares)]).sum(0) / total


def _rounded_rows(dense: Tensor) -> int:
    """Rows that are rounded together."""
    return max(1, _ROUNDED_ELEMENTS // dense.shape[1])


def most_block_rows(columns: int, outputs: int) -> int:
    """Rows of a block at most."""
    return max(_LEAST_ROWS, min(_BLOCK_ELEMENTS // columns, _OUTPUT_ELEMENTS // outputs))


__all__ = ["IntegerKernel", "integer_frame", "integer_rows", "most_block_rows"]
