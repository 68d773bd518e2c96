"""Weighted mean and deviation of every column, in one read: the units in which a fit is solved and certified."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchlogit.kernels.sparse_part import SparsePart, coded_ones
from torchlogit.problem import Block, Frame, SparseRows
from torchlogit.sources import Source

_EPS = torch.finfo(torch.float64).eps
# A smaller spread counts as none: the coefficient that belongs to it would overflow.
_LEAST_SPREAD = 1e-300


@dataclass(frozen=True, slots=True)
class Moments:
    """Per lane and column: ``weight (L,)``, ``mean (L, p)`` and ``deviation (L, p)``, float64.

    ``stored`` is ``(p,)`` bool: whether every row stores the column, so that a shift may be subtracted from what is
    stored. A column that is constant among the rows of positive weight has a deviation of exactly 0. ``largest`` is
    ``(p,)``: a bound on the absolute values of the column.
    """

    weight: Tensor
    mean: Tensor
    deviation: Tensor
    stored: Tensor
    largest: Tensor

    def rounding(self, fit_intercept: bool) -> Tensor:
        """Rounding of a column's own values in its unit, ``(L, p)``: 1e-10 for a spread of 1e-4 around 100.

        Two columns that differ by no more than this are the same column in two units.
        """
        return _EPS * self.largest / self.scale(fit_intercept)

    def centre(self, fit_intercept: bool) -> Tensor:
        """What is subtracted from a column, ``(L, p)``: its mean, or nothing where no intercept can absorb it."""
        return self.mean if fit_intercept else torch.zeros_like(self.mean)

    def scale(self, fit_intercept: bool) -> Tensor:
        """The unit of a column, ``(L, p)``: its deviation, or its root mean square without an intercept.

        A column without any spread uses ``max(|mean|, 1)``, as the contract of numbers says.
        """
        spread = self.deviation if fit_intercept else torch.hypot(self.deviation, self.mean)
        return torch.where(spread > 0, spread, torch.clamp(self.mean.abs(), min=1.0))

    def frame(self, fit_intercept: bool) -> Frame:
        """Kernel coordinates: the units of lane 0 where a column is stored in every row, the raw ones elsewhere."""
        shift = torch.where(self.stored, self.centre(fit_intercept)[0], 0.0)
        scale = torch.where(self.stored, self.scale(fit_intercept)[0], 1.0)
        return Frame(shift, scale)


@dataclass(slots=True)
class _Sums:
    """Sums of ``d = (x - anchor) / unit`` and its square, and the largest ``|d|``."""

    weight: Tensor
    first: Tensor
    second: Tensor
    largest: Tensor
    stored: Tensor  # (p,) rows that store the column


def column_moments(source: Source, lanes: int = 1) -> Moments:
    """Mean and deviation of every column, for every lane.

    One read; a second one only where a column's spread is below a thousandth of its distance from the first row
    (its mean is then a better anchor), or its values leave the range whose squares are representable.

    Parameters
    ----------
    source : Source
    lanes : int, default=1
        Number of lanes; block weights of shape ``(rows, L)`` differ between them.

    Raises
    ------
    FloatingPointError
        When a sum is not finite. The caller locates and names the value.
    """
    first_block = next(iter(source.blocks(1)))
    anchor = torch.zeros(source.features, dtype=torch.float64, device=source.device)
    if first_block.dense is not None:
        anchor[: first_block.dense.shape[1]] = first_block.dense[0].to(torch.float64)
    unit = torch.ones_like(anchor)
    sums = _sweep(source, lanes, anchor, unit)
    mean, variance, stored = _finish(sums, source.rows)
    far = ((variance < 1e-6 * sums.second / sums.weight[:, None]).any(0)) & stored
    extreme = (sums.largest > 1e150) | ((sums.largest > 0) & (sums.largest < 1e-150))
    if bool((far | extreme).any()):
        anchor = torch.where(stored & ~extreme, anchor + mean.mean(0), anchor)
        unit = torch.where(extreme, sums.largest, unit)
        sums = _sweep(source, lanes, anchor, unit)
        mean, variance, stored = _finish(sums, source.rows)
    # What is left of a constant column is the rounding of its own mean.
    variance = torch.where(variance <= 16 * _EPS * sums.second / sums.weight[:, None], 0.0, variance)
    deviation = variance.sqrt() * unit
    deviation = torch.where(deviation < _LEAST_SPREAD, 0.0, deviation)
    largest = anchor.abs() + sums.largest * unit
    return Moments(sums.weight, anchor + mean * unit, deviation, stored, largest)


def _finish(sums: _Sums, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    mean = sums.first / sums.weight[:, None]
    if not bool(torch.isfinite(sums.largest).all() and torch.isfinite(sums.first).all()):
        raise FloatingPointError("a column sum is not finite")
    variance = torch.clamp(sums.second / sums.weight[:, None] - mean.square(), min=0)
    return mean, torch.nan_to_num(variance, posinf=torch.finfo(torch.float64).max), sums.stored == rows


def _sweep(source: Source, lanes: int, anchor: Tensor, unit: Tensor) -> _Sums:
    total: _Sums | None = None
    for block in source.blocks():
        sums = _block_sums(block, lanes, anchor, unit)
        if total is None:
            total = sums
            continue
        total.weight += sums.weight
        total.first += sums.first
        total.second += sums.second
        total.largest = torch.maximum(total.largest, sums.largest)
        total.stored += sums.stored
    assert total is not None
    return total


def _block_sums(block: Block, lanes: int, anchor: Tensor, unit: Tensor) -> _Sums:
    weight = torch.ones(block.rows, 1, dtype=torch.float64, device=block.device) if block.weight is None else (
        block.weight.to(torch.float64).reshape(block.rows, -1)
    )  # fmt: skip
    first, second, largest, stored = [], [], [], []
    column = 0
    if block.dense is not None:
        column = block.dense.shape[1]
        distance = (block.dense.to(torch.float64) - anchor[:column]).div_(unit[:column])
        first.append(weight.T @ distance)
        largest.append(distance.abs().amax(0))
        second.append(weight.T @ distance.square_())
        stored.append(torch.full((column,), block.rows, device=block.device))
    parts = [] if block.sparse is None else [block.sparse]
    if block.codes is not None:
        parts.append(coded_ones(block.codes, torch.float64))
    for rows in parts:
        here = slice(column, column + rows.columns)
        values = (rows.values.to(torch.float64) - anchor[here][rows.indices]) / unit[here][rows.indices]
        part = SparsePart(SparseRows(rows.indptr, rows.indices, values, rows.columns), torch.float64)
        first.append(part.transposed_times(weight).T)
        second.append(part.squared_transposed_times(weight).T)
        index = rows.indices.to(torch.int64)
        zeros = torch.zeros(rows.columns, dtype=torch.float64, device=block.device)
        largest.append(zeros.scatter_reduce(0, index, values.abs(), "amax"))
        stored.append(torch.bincount(index, minlength=rows.columns))
        column += rows.columns
    width = (lanes, -1)
    return _Sums(
        weight.sum(0).expand(lanes).clone(),
        torch.cat(first, 1).expand(width).clone(),
        torch.cat(second, 1).expand(width).clone(),
        torch.cat(largest),
        torch.cat(stored),
    )


def find_non_finite(source: Source) -> tuple[int, int, float] | None:
    """Row, column and value of the first NaN or infinity among the features, or None."""
    row = 0
    for block in source.blocks():
        if block.dense is not None:
            bad = ~torch.isfinite(block.dense)
            if bool(bad.any()):
                where = bad.nonzero()[0].tolist()
                return row + where[0], where[1], float(block.dense[where[0], where[1]])
        if block.sparse is not None:
            bad = ~torch.isfinite(block.sparse.values)
            if bool(bad.any()):
                position = int(bad.nonzero()[0])
                inside = int(torch.searchsorted(block.sparse.indptr, position, right=True)) - 1
                column = block.widths[0] + int(block.sparse.indices[position])
                return row + inside, column, float(block.sparse.values[position])
        row += block.rows
    return None
