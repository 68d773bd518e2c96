"""The general kernel: matrix products in torch, on any device, many lanes and many classes at once.

Where the frame says so, a block is centred and scaled into an aligned buffer that stays in the cache for both products;
within a block the products run in ``dtype``, between blocks everything is float64.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from torchlogit.kernels.bfloat16 import coarse_dtype
from torchlogit.kernels.sparse_part import SparsePart, coded_ones
from torchlogit.kernels.symmetric import add_pairs, add_upper, is_wide, mirrored, with_diagonal_blocks
from torchlogit.kernels.tf32 import short_product
from torchlogit.losses import Loss
from torchlogit.problem import Block, Frame, RowStats
from torchlogit.tensors import in_type
from torchlogit.threads import at_once, one_thread_each, workers

# Elements of the largest temporary of a curvature block: rows * K * (p + 1). 32 MiB of float64.
_GRAM_ELEMENTS = 4_194_304
# On a CPU, those of the rows of a piece: calls cost more than what is read from the next cache (2,000 x 20 with five
# classes: a fit of 18 ms in three pieces, 15 ms in one; 10,000 x 50 with two: 0.93 of the time of pieces half as long).
_CACHED_ELEMENTS = 400_000
# Elements that are shifted and scaled at once, in a second-level cache.
_FRAMED_ELEMENTS = 65_536
# Bytes to which torch aligns memory. The bits of a matrix product may depend on it, so other blocks are copied.
_ALIGNMENT = 64
# Outputs from which products in bfloat16 are worth the conversion.
_SHORT_OUTPUTS = 8
# Coefficients whose predictors may be wanted again: where a second derivative is made at every step.
_REMEMBERED_ELEMENTS = 4_096
# Multiplications of a second derivative that are worth a second thread.
_SHARED_OPERATIONS = 3e7
# Half of the last bit that a factor keeps.
_TF32_BIT, _BFLOAT16_BIT = 2.0**-11, 2.0**-9


@dataclass(frozen=True, slots=True)
class _Written:
    """Some rows, and if they are known their columns ``(rows, p + 1)`` and predictors ``(rows, M, K)``."""

    block: Block
    design: Tensor | None = None
    eta: Tensor | None = None


class TorchKernel:
    """Products in ``dtype``, sums in float64, on the device of the block.

    Parameters
    ----------
    loss : Loss
    frame : Frame
        Coordinates in which the columns are seen, ``(p,)`` each.
    dtype : torch.dtype, default=torch.float64
        Of the products within a block.
    gram_dtype : torch.dtype, optional
        Of the factors of `gram`, for one output; None for ``dtype``.
    short : bool, default=False
        Whether ten bits of each factor will do, or eight (see `rounded`).
    """

    block_rows: int | None = None

    def __init__(
        self,
        loss: Loss,
        frame: Frame,
        dtype: torch.dtype = torch.float64,
        gram_dtype: torch.dtype | None = None,
        *,
        short: bool = False,
    ) -> None:
        self.loss, self.frame, self.dtype, self.gram_dtype = loss, frame, dtype, gram_dtype or dtype
        self.stored = frame  # which takes what is stored to the frame's coordinates
        self._multiplied = short_product if short else torch.matmul
        many = loss.outputs >= _SHORT_OUTPUTS and frame.shift.device.type == "cpu"
        self.factor_dtype = coarse_dtype() if short and many else dtype
        self._framed: dict[tuple[int, int], bool] = {}
        self._rounded: dict[bool, TorchKernel] = {}
        self._room = threading.local()
        # Of the last block, for problems that have no other.
        self._last_dense: tuple[Block, Tensor] | None = None
        self._last_sparse: tuple[Block, list[SparsePart]] | None = None
        self._last_written: tuple[Block, Tensor] | None = None
        self._last_target: tuple[Tensor, Tensor] | None = None
        self._last_eta: tuple[Block, Tensor, Tensor] | None = None
        self._last_total: tuple[int, Tensor] | None = None

    def rounded(self, *, short: bool = False) -> TorchKernel:
        """The same with products in float32.

        If ``short``, with still fewer bits of their factors, where that is faster: in TF32 on CUDA devices, and in
        bfloat16 for many outputs on processors that multiply it. Sums are float32 even then.
        """
        if self.dtype == torch.float32 and not short:
            return self
        if short not in self._rounded:
            self._rounded[short] = self._in_float32(short=short)
        return self._rounded[short]

    def _in_float32(self, *, short: bool) -> TorchKernel:
        return TorchKernel(self.loss, self.frame, torch.float32, short=short)

    def rounding(self) -> float:
        """Variance of what rounding its factors adds to a column, over the square of its entries."""
        device = self.frame.shift.device.type
        if self._multiplied is torch.matmul or (device == "cpu" and self.factor_dtype == self.dtype):
            return 0.0
        return float((_TF32_BIT if device == "cuda" else _BFLOAT16_BIT) ** 2 / 3)

    # -- a block in frame coordinates ---------------------------------------------------------------------------

    def _dense(self, block: Block) -> Tensor | None:
        """The dense columns; where they are framed and are all there are, the intercept's ones stand beside them."""
        if block.dense is None:
            return None
        last = self._last_dense  # once: another thread may replace it
        if last is not None and last[0] is block:
            return last[1]
        width, missing, dense = block.dense.shape[1], _missing(block), block.dense
        framed, converted = self._is_framed(0, width), dense.dtype != self.factor_dtype
        if framed or missing is not None or converted or dense.data_ptr() % _ALIGNMENT:
            # Only where every block is copied: the bits of a product depend on its width.
            alone = (framed or converted) and block.sparse is None and block.codes is None
            dense = self._taken(block.dense, block.rows, width + alone)
            columns = dense[:, :width]
            if framed:
                self.write_framed(block.dense, columns)
            else:
                columns.copy_(block.dense)
            if missing is not None:
                columns.masked_fill_(missing[:, None], 0.0)
        self._last_dense = block, dense
        return dense

    def write_framed(self, stored: Tensor, columns: Tensor) -> None:
        """Shift and scale in float64: a float32 timestamp minus a float32-rounded mean is off by 6e-8 of the mean."""
        width = stored.shape[1]
        shift, scale = self.stored.shift[:width], self.stored.scale[:width]
        if stored.device.type != "cpu" or columns.dtype == torch.float64:
            torch.sub(stored, shift, out=columns).div_(scale)
            return
        # Operations of several dtypes take up to thirty times as long as those of one.
        step = max(1, _FRAMED_ELEMENTS // width)
        exact = torch.empty(min(step, stored.shape[0]), width, dtype=torch.float64)
        for start in range(0, stored.shape[0], step):
            piece = stored[start : start + step]
            part = exact[: piece.shape[0]]
            part.copy_(piece).sub_(shift).div_(scale)
            columns[start : start + step].copy_(part)

    def _taken(self, like: Tensor, rows: int, width: int) -> Tensor:
        """Room for a block, the same for each: the pages of a fresh one cost more than the block's products.

        Each thread has its own, and writes over it only when it is done with the block before. A column beyond those
        of the block holds ones.
        """
        room: Tensor | None = getattr(self._room, "tensor", None)
        if room is None or room.shape[0] < rows or room.shape[1] != width:
            room = torch.empty(rows, width, dtype=self.factor_dtype, device=like.device)
            room[:, like.shape[1] :] = 1.0
            self._room.tensor = room
        return room[:rows]

    def _sparse(self, block: Block) -> list[SparsePart]:
        if block.sparse is None and block.codes is None:
            return []
        last = self._last_sparse  # once: another thread may replace it
        if last is not None and last[0] is block:
            return last[1]
        parts = []
        column = block.widths[0]
        if block.sparse is not None:
            rows = block.sparse
            if self._is_framed(column, column + rows.columns):
                shift = self.stored.shift[column : column + rows.columns]
                scale = self.stored.scale[column : column + rows.columns]
                values = (rows.values.to(torch.float64) - shift[rows.indices]) / scale[rows.indices]
                rows = replace(rows, values=values)
            missing = _missing(block)
            if missing is not None:
                entries = missing.repeat_interleave(torch.diff(rows.indptr))
                rows = replace(rows, values=rows.values.masked_fill(entries, 0.0))
            parts.append(SparsePart(rows, self.dtype))
        if block.codes is not None:
            parts.append(SparsePart(coded_ones(block.codes, self.dtype), self.dtype))
        self._last_sparse = block, parts
        return parts

    def _is_framed(self, start: int, stop: int) -> bool:
        """Whether the frame moves any of these columns (a gather per non-zero; usually none)."""
        if (start, stop) not in self._framed:
            self._framed[start, stop] = self.stored.moves(start, stop)
        return self._framed[start, stop]

    def design(self, block: Block) -> Tensor:
        """All columns written out in frame coordinates, ``(rows, p + 1)``, the intercept's ones last."""
        block = _every_row(block)
        dense = self._dense(block)
        written = self._written(block, dense, self._sparse(block))
        return written.clone() if written is dense else written  # the next block takes the same room

    def _written(self, block: Block, dense: Tensor | None, sparse: list[SparsePart]) -> Tensor:
        if dense is not None and dense.shape[1] == block.features + 1:
            return dense
        last = self._last_written
        if last is not None and last[0] is block:
            return last[1]
        parts = [] if dense is None else [dense]
        parts += [part.dense() for part in sparse]
        parts.append(torch.ones(block.rows, 1, dtype=self.dtype, device=block.device))
        written = torch.cat(parts, dim=1)
        self._last_written = block, written
        return written

    # -- lanes --------------------------------------------------------------------------------------------------

    def _weight(self, block: Block, lanes: Tensor | None, points: int) -> Tensor | None:
        """Row weights ``(rows, M)``, float64; None where each is one."""
        if block.weight is None:
            return None
        if block.weight.ndim == 1:
            return block.weight.to(torch.float64)[:, None].expand(-1, points)
        return block.weight.to(torch.float64)[:, _lanes(lanes, points, block.device)]

    def _target(self, block: Block, lanes: Tensor | None, points: int) -> Tensor:
        """Class codes ``(rows, 1 or M)``, as the loss works with them."""
        if block.target.ndim == 1:
            last = self._last_target
            if last is None or last[0] is not block.target:
                last = self._last_target = block.target, self.loss.prepared(block.target[:, None], self.dtype)
            return last[1]
        return self.loss.prepared(block.target[:, _lanes(lanes, points, block.device)], self.dtype)

    def _weighted(self, values: Tensor, weight: Tensor | None) -> Tensor:
        """``values (rows, M, K)`` times the rows' weights ``(rows, M)``."""
        if weight is None:
            return values
        # A row of weight zero is a row that is not there, whatever it holds: 0 * inf must stay 0.
        return torch.where(weight[..., None] > 0, values * weight[..., None].to(self.dtype), 0.0)

    def _total_weight(self, block: Block, weight: Tensor | None, points: int) -> Tensor:
        """``(M,)``; without a sum over ones, and without a new one for every read of the same rows."""
        if weight is not None:
            return weight.sum(0)
        last = self._last_total  # once: another thread may replace it
        if last is None or last[0] != block.rows or last[1].shape[0] != points:
            total = torch.full((points,), float(block.rows), dtype=torch.float64, device=block.device)
            last = self._last_total = block.rows, total
        return last[1]

    # -- the functions of a kernel ------------------------------------------------------------------------------

    def _eta(
        self, block: Block, dense: Tensor | None, sparse: list[SparsePart], theta: Tensor, lanes: Tensor | None
    ) -> Tensor:
        points, outputs, width = theta.shape
        flat = in_type(theta.reshape(points * outputs, width), self.dtype)
        column = 0 if dense is None else dense.shape[1]
        # Outputs as rows, not as columns: half the time for ten of them on a CPU.
        if dense is not None and dense.device.type != "cpu":
            eta = self._multiplied(dense, flat[:, :column].T)
            eta = eta if column == width else eta.add_(flat[:, -1])
        elif dense is not None and dense.dtype != self.dtype:
            eta = in_type((in_type(flat[:, :column], dense.dtype) @ dense.T).T, self.dtype)
            eta = eta if column == width else eta.add_(flat[:, -1])
        elif dense is not None and column == width:
            eta = (flat @ dense.T).T
        elif dense is not None:
            eta = torch.addmm(flat[:, -1:], flat[:, :column], dense.T).T
        else:
            eta = flat[:, -1].expand(block.rows, -1)
        for part in sparse:
            eta = eta + part.times(flat[:, column : column + part.shape[1]].T.contiguous())
            column += part.shape[1]
        return self._with_offset(block, eta.reshape(block.rows, points, outputs), lanes)

    def _with_offset(self, block: Block, eta: Tensor, lanes: Tensor | None) -> Tensor:
        if block.offset is None:
            return eta
        every = block.offset.shape[1] == 1
        offset = block.offset if every else block.offset[:, _lanes(lanes, eta.shape[1], eta.device)]
        return eta + offset.to(self.dtype)

    def _pull_back(
        self, dense: Tensor | None, sparse: list[SparsePart], slope: Tensor, width: int
    ) -> Tensor:
        """``sum_i slope_i z_i'``: ``slope (rows, M, K)`` to ``(M, K, p + 1)`` float64."""
        rows, points, outputs = slope.shape
        flat = slope.reshape(rows, points * outputs)
        factor = flat if dense is None else in_type(flat, dense.dtype)
        if dense is not None and dense.shape[1] == width:
            return in_type(self._multiplied(factor.T, dense), torch.float64).reshape(points, outputs, width)
        gradient = torch.empty(points * outputs, width, dtype=torch.float64, device=slope.device)
        column = 0
        if dense is not None:
            column = dense.shape[1]
            gradient[:, :column] = self._multiplied(factor.T, dense)
        for part in sparse:
            gradient[:, column : column + part.shape[1]] = part.transposed_times(flat.contiguous()).T
            column += part.shape[1]
        gradient[:, -1] = flat.sum(0, dtype=torch.float64)
        return gradient.reshape(points, outputs, width)

    def linear_predictor(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> Tensor:
        """``eta (rows, M, K)``, offset included, in ``dtype``."""
        block = _every_row(block)
        return self._eta(block, self._dense(block), self._sparse(block), theta, lanes)

    def value_gradient(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> RowStats:
        """Sums of loss and gradient, and the smallest margin."""
        points, _, width = theta.shape
        dense, sparse = self._dense(block), self._sparse(block)
        eta = self._eta(block, dense, sparse, theta, lanes)
        # A copy tells whether it was changed since.
        self._last_eta = (block, theta.clone(), eta) if theta.numel() <= _REMEMBERED_ELEMENTS else None
        target, weight = self._target(block, lanes, points), self._weight(block, lanes, points)
        value, slope, margin = self.loss.value_first_margin(eta, target)
        margin = in_type(margin, torch.float64)
        if weight is not None:
            margin = torch.where(weight > 0, margin, torch.inf)
            value = self._weighted(value[..., None], weight)[..., 0]
            slope = self._weighted(slope, weight)
        return RowStats(
            rows=block.rows,
            weight=self._total_weight(block, weight, points),
            loss=value.sum(0, dtype=torch.float64),
            gradient=self._pull_back(dense, sparse, slope, width),
            margin=margin.amin(0),
        )

    def row_curvature(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> tuple[Tensor, ...]:
        """What `curvature_product` needs of ``theta``."""
        eta = self._eta(block, self._dense(block), self._sparse(block), theta, lanes)
        return self.loss.row_curvature(eta, self._target(block, lanes, theta.shape[0]))

    def curvature_product(
        self,
        block: Block,
        theta: Tensor,
        direction: Tensor,
        lanes: Tensor | None = None,
        curvature: tuple[Tensor, ...] | None = None,
    ) -> RowStats:
        """Sum of the rows' curvature times ``direction``."""
        points, _, width = theta.shape
        dense, sparse = self._dense(block), self._sparse(block)
        if curvature is None:
            eta = self._eta(block, dense, sparse, theta, lanes)
            curvature = self.loss.row_curvature(eta, self._target(block, lanes, points))
        bare = Block(target=block.target)  # the direction has no offset
        along = self._eta(bare, dense, sparse, direction, lanes)
        weight = self._weight(block, lanes, points)
        bent = self._weighted(self.loss.curvature_product(curvature, along), weight)
        return RowStats(
            block.rows, self._total_weight(block, weight, points), product=self._pull_back(dense, sparse, bent, width)
        )  # fmt: skip

    def gram_diagonal(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> RowStats:
        """Diagonal of the curvature, and its column of the intercept (class by class)."""
        points, outputs, width = theta.shape
        dense, sparse = self._dense(block), self._sparse(block)
        eta = self._eta(block, dense, sparse, theta, lanes)
        target, weight = self._target(block, lanes, points), self._weight(block, lanes, points)
        bend = self._weighted(self.loss.curvature(eta, target)[0], weight)
        flat = bend.reshape(block.rows, points * outputs)
        diagonal = torch.empty(points * outputs, width, dtype=torch.float64, device=block.device)
        column = 0
        if dense is not None:
            column = dense.shape[1]
            diagonal[:, :column] = flat.T @ dense.square()
        for part in sparse:
            diagonal[:, column : column + part.shape[1]] = part.squared_transposed_times(flat.contiguous()).T
            column += part.shape[1]
        if column < width:
            diagonal[:, -1] = flat.sum(0, dtype=torch.float64)
        return RowStats(
            block.rows,
            self._total_weight(block, weight, points),
            diagonal=diagonal.reshape(points, outputs, width),
            cross=self._pull_back(dense, sparse, bend, width),
        )

    def gram(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> RowStats:
        """The curvature, ``(M, K * (p + 1), K * (p + 1))``."""
        total = self._upper_gram(block, theta, lanes)
        assert total.gram is not None
        if self.loss.outputs == 1 and not is_wide(theta.shape[2]):
            return total
        for own in total.gram:
            if self.loss.outputs == 1:
                mirrored(own)
            else:
                with_diagonal_blocks(own, theta.shape[2])
        return total

    def _upper_gram(self, block: Block, theta: Tensor, lanes: Tensor | None) -> RowStats:
        """Of one output only what `add_upper` computes, of many what `add_pairs` does."""
        pieces = self._written_pieces(block, theta, lanes)
        work = float(block.rows) * (theta.shape[1] * theta.shape[2]) ** 2
        if len(pieces) == 1 or block.device.type != "cpu" or work < _SHARED_OPERATIONS:
            return self._gram_of(pieces, theta, lanes)
        threads = min(workers(), len(pieces))
        ends = [len(pieces) * t // threads for t in range(threads + 1)]
        parts: list[RowStats] = [RowStats(0, theta.new_zeros(0))] * threads

        def add(t: int) -> None:
            parts[t] = self._gram_of(pieces[ends[t] : ends[t + 1]], theta, lanes)

        with one_thread_each():
            at_once([partial(add, t) for t in range(threads)])
        return added_up(parts)

    def _written_pieces(self, block: Block, theta: Tensor, lanes: Tensor | None) -> list[_Written]:
        """The pieces of a block; of dense columns that are prepared already, with what they are parts of."""
        pieces, last = self._pieces(block, theta), self._last_dense
        prepared = last is not None and last[0] is block
        if not prepared or any(block.widths[1:]):  # written out, sparse columns are many times as large
            return [_Written(piece) for piece in pieces]
        design, eta = self._design_and_eta(block, theta, lanes)
        if len(pieces) == 1:
            return [_Written(block, design, eta)]
        parts = zip(pieces, torch.split(design, pieces[0].rows), torch.split(eta, pieces[0].rows), strict=True)
        return [_Written(*part) for part in parts]

    def _gram_of(self, pieces: list[_Written], theta: Tensor, lanes: Tensor | None) -> RowStats:
        """Of one piece after the other, in one matrix: few such may fit."""
        total: RowStats | None = None
        for piece in pieces:
            total = self._gram_piece(piece, theta, lanes, total)
        assert total is not None
        return total

    def score_gram(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> RowStats:
        """Outer products of the weighted row scores, ``(M, K * (p + 1), K * (p + 1))``."""
        return added_up(self._score_gram_piece(piece, theta, lanes) for piece in self._pieces(block, theta))

    def _score_gram_piece(self, block: Block, theta: Tensor, lanes: Tensor | None) -> RowStats:
        dense, sparse = self._dense(block), self._sparse(block)
        design = self._written(block, dense, sparse)
        points, outputs, width = theta.shape
        eta = self._eta(block, dense, sparse, theta, lanes)
        weight = self._weight(block, lanes, points)
        slope = self.loss.value_first(eta, self._target(block, lanes, points))[1]
        slope = self._weighted(slope, weight)
        grams = []
        for m in range(points):
            scores = (slope[:, m, :, None] * design[:, None, :]).reshape(block.rows, outputs * width)
            grams.append((scores.T @ scores).to(torch.float64))
        return RowStats(block.rows, self._total_weight(block, weight, points), score_gram=_stacked(grams))

    @staticmethod
    def _pieces(block: Block, theta: Tensor) -> list[Block]:
        """The block cut so that no temporary of ``rows * K * (p + 1)`` grows past its bound."""
        rows = max(1, _GRAM_ELEMENTS // (theta.shape[1] * theta.shape[2]))
        if block.device.type == "cpu":
            # In the cache, but so many that adding a piece's matrix costs less than computing it.
            rows = min(rows, max(512, _CACHED_ELEMENTS // (theta.shape[1] * theta.shape[2]), theta.shape[2]))
        return list(block.cut_evenly(rows))

    def _design_and_eta(self, block: Block, theta: Tensor, lanes: Tensor | None) -> tuple[Tensor, Tensor]:
        """All columns written out, and the linear predictors: of the gradient at the same point, most often."""
        dense, sparse = self._dense(block), self._sparse(block)
        design, last = self._written(block, dense, sparse), self._last_eta
        if last is not None and last[0] is block and torch.equal(last[1], theta):
            return design, last[2]
        return design, self._eta(block, dense, sparse, theta, lanes)

    def _gram_piece(
        self, piece: _Written, theta: Tensor, lanes: Tensor | None, before: RowStats | None = None
    ) -> RowStats:
        """Added to the sums of the pieces before, where there are any, in place."""
        block, design, eta, points = piece.block, piece.design, piece.eta, theta.shape[0]
        if design is None or eta is None:
            design, eta = self._design_and_eta(block, theta, lanes)
        target, weight = self._target(block, lanes, points), self._weight(block, lanes, points)
        into = [None] * points if before is None or before.gram is None else list(before.gram)
        add = self._add_bent if self.loss.outputs == 1 else self._add_pairs
        grams = add(design, eta, target, weight, into)
        weights = self._total_weight(block, weight, points)
        if before is None:
            return RowStats(block.rows, weights, gram=_stacked(grams))
        return _with_gram(before, RowStats(block.rows, weights), before.gram)

    def _add_bent(
        self, design: Tensor, eta: Tensor, target: Tensor, weight: Tensor | None, into: Sequence[Tensor | None]
    ) -> list[Tensor]:
        """One output's, point by point."""
        bend, grams = self._weighted(self.loss.curvature(eta, target)[0], weight), []
        for m, before in enumerate(into):
            left, right = design * bend[:, m], design
            if self.gram_dtype != self.dtype:  # the same factor twice: what is rounded stays symmetric
                left = right = (design * bend[:, m].sqrt()).to(self.gram_dtype)
            grams.append(add_upper(left, right, before))
        return grams

    def _add_pairs(
        self, design: Tensor, eta: Tensor, target: Tensor, weight: Tensor | None, into: Sequence[Tensor | None]
    ) -> list[Tensor]:
        """Those of pairs of classes, point by point: what two bend together is the product of their probabilities."""
        probability, columns = self.loss.row_curvature(eta, target)[0], design.T.contiguous()
        # Along the rows, of which there are more than columns or outputs: whatever is short is not looped over.
        scaled, grams = columns.new_empty(eta.shape[2], *columns.shape), []
        for m, before in enumerate(into):
            share = None if weight is None else weight[:, m, None].sqrt()
            root = self._weighted(probability[:, m, None], share)[:, 0]
            torch.mul(root.T[:, None], columns, out=scaled)
            grams.append(add_pairs(scaled, before))
        return grams


def added_up(stats: Iterable[RowStats]) -> RowStats:
    """The sum of at least one record, in order. Matrices are added in place: three of them may be all of the memory."""
    total: RowStats | None = None
    for part in stats:
        if total is None:
            total = part
        elif total.gram is not None and part.gram is not None:
            total = _with_gram(total, part, total.gram.add_(part.gram))
        else:
            total = total + part
    assert total is not None
    return total


def _with_gram(a: RowStats, b: RowStats, gram: Tensor | None) -> RowStats:
    """The sum of two records whose matrices are added up already."""
    return replace(replace(a, gram=None) + replace(b, gram=None), gram=gram)


def _missing(block: Block) -> Tensor | None:
    """Rows of weight zero in every lane, ``(rows,)``, or None where there are none.

    They set no column's unit, so nothing bounds their values there: an infinity times a weight of zero is no zero.
    """
    if block.weight is None:
        return None
    missing = (block.weight.reshape(block.rows, -1) <= 0).all(1)
    return missing if bool(missing.any()) else None


def _every_row(block: Block) -> Block:
    """The rows whether they count or not; the same block where all do, which is known again."""
    return block if block.weight is None else replace(block, weight=None)


def _stacked(matrices: list[Tensor]) -> Tensor:
    """``(M, S, S)``, without a copy of a matrix that is alone."""
    return matrices[0][None] if len(matrices) == 1 else torch.stack(matrices)


def _lanes(lanes: Tensor | None, points: int, device: torch.device) -> Tensor:
    return torch.zeros(points, dtype=torch.int64, device=device) if lanes is None else lanes.to(device)
