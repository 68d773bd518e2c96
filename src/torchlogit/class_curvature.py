"""For many classes times many columns: each class's own curvature, factorised.

The second derivative has ``K x K`` blocks of ``D x D``; where all of it would not fit, its diagonal blocks do. Unlike a
basis that all classes share, they follow the rows that still have curvature: on nearly separated data each class has
its own few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from torchlogit.kernels import Kernel
from torchlogit.kernels.integers import add_upper_integers, has_integer_products
from torchlogit.kernels.symmetric import add_upper, mirrored
from torchlogit.leading import Leading, leading_directions
from torchlogit.objective import Objective
from torchlogit.problem import uninitialised
from torchlogit.sources import Source, resident
from torchlogit.thinning import ChosenRows, Thinning
from torchlogit.threads import among_threads

# Floating-point operations that one build may cost: one to two seconds on two cores.
_BUILD_OPERATIONS = 5e10
# Rows a class's block needs for each column: with ten, no direction's curvature is off by more than a half.
_ROWS_PER_COLUMN = 3
# What a product costs, in operations of a factor: for each entry of rows x coefficients two matrix products, and for
# each of the rows' own numbers what it takes to fetch and round them (10,000 x 784, 10 classes: 11 ms; 20,000 x 512,
# 100 classes: 37 ms).
_PRODUCT_OPERATIONS, _FETCHING_OPERATIONS = 3.0, 100.0
# What choosing rows costs, in products: predictors, probabilities and their running sums. And what an operation of the
# blocks takes of the time of a product's (six shapes from 50,000 x 30 with 8 classes to 3,000 x 700 with 10: a build
# takes 5 to 40 products, within a third of this).
_CHOOSING_PRODUCTS, _BLOCK_TIME = 5.0, 0.65
# Operations that writing out a row costs for each of its entries, twice a build.
_WRITING_OPERATIONS = 40.0
# Entries of all blocks (512 MiB).
_LARGEST_BLOCKS = 64_000_000
# Rows for each column without which a block says too little.
_LEAST_ROWS_PER_COLUMN = 1
# Columns from which products of integers repay rounding the rows to them.
_INTEGER_COLUMNS = 128
# Bytes of an entry up to which rows are written out for each class anew, all that it wants at once.
_FEW_BYTES = 2
# Columns from which it is worth knowing whether few directions lead.
_LEADING_COLUMNS = 128
# Rows that are written out together, and that are multiplied together. Fewer cost as many calls; more take memory whose
# pages are new ones every time (10,000 x 784, ten classes: 12 MB beside the blocks, not 25). On other devices every
# call takes as long.
_WRITTEN_ROWS, _ADDED_ROWS, _DEVICE_WRITTEN_ROWS, _DEVICE_ADDED_ROWS = 256, 1_024, 1_024, 2**62
# Added to the unit diagonal, where the sums have lost everything smaller.
_JITTERS = (1e-5, 1e-3)
# Squared pivots of a unit-diagonal block from which float32 inverts it.
_SAFE_PIVOT = 1e-3


@dataclass(frozen=True)
class _LaneInverse:
    """One lane's inverses: ``inverse (K or 1, d, d)`` of blocks of unit diagonal, whose root is ``scale (K or 1, d)``.

    One block stands for all classes where they are alike. ``d`` is the number of coefficients, or of leading
    directions. In float32: its products move half the memory.
    """

    scale: Tensor
    inverse: Tensor
    leading: Leading | None = None

    def solve(self, gradient: Tensor) -> Tensor:
        """Class by class, ``(K, D)``."""
        if self.leading is not None:
            return self.leading.solve(gradient.to(self.inverse.dtype), self._apply).to(gradient.dtype)
        return self._apply(gradient)

    def _apply(self, gradient: Tensor) -> Tensor:
        scaled = (gradient / self.scale).to(self.inverse.dtype)
        if len(self.inverse) == 1:
            solved = scaled @ self.inverse[0]
        else:
            solved = torch.empty_like(scaled)

            def multiply(first: int, last: int) -> None:
                # Rows times symmetric matrices: a third of the time of matrices times columns.
                torch.bmm(scaled[first:last, None], self.inverse[first:last], out=solved[first:last, None])

            among_threads(self.inverse, multiply)
        return solved.to(gradient.dtype) / self.scale


@dataclass(frozen=True)
class ClassInverse:
    """``P``: class by class the inverse of its block, then the mean over classes removed."""

    lanes: tuple[_LaneInverse, ...]
    exact: bool = False
    bound: float | None = None

    def solve(self, gradient: Tensor) -> Tensor:
        """One product a class; the mean over classes, which the objective cannot see, is removed."""
        solved = torch.stack([lane.solve(own) for lane, own in zip(self.lanes, gradient, strict=True)])
        return solved - solved.mean(-2, keepdim=True)

    def take(self, keep: Tensor) -> ClassInverse:
        """Some of the lanes."""
        return replace(self, lanes=tuple(lane for lane, kept in zip(self.lanes, keep.tolist(), strict=True) if kept))


@dataclass(frozen=True)
class ClassCholesky:
    """Cholesky factors of the ``K`` diagonal blocks, from those rows that have curvature.

    A row enters a class's block with a probability in proportion to its curvature times its squared length (at most
    one), and is weighted by the inverse: the block is right on average whatever share of the rows is affordable, and
    the few long rows that hold a rare column are all there.

    Parameters
    ----------
    sample : Source
        Resident rows.
    kernel : Kernel, optional
        That sees them, if not the objective's.
    """

    sample: Source
    kernel: Kernel | None = None
    name: str = "Cholesky factors of the class curvatures"
    # Of the rows, squared, by lane: they do not depend on the point.
    _lengths: dict[int, Tensor] = field(default_factory=dict, repr=False, compare=False)
    # By lane, the blocks built last, which the next build writes over: twice their memory may be too much.
    _built: dict[int, Tensor] = field(default_factory=dict, repr=False, compare=False)
    # The directions that the rows bend, by lane; None where they are not few.
    _leading: dict[int, Leading | None] = field(default_factory=dict, repr=False, compare=False)

    @property
    def learned(self) -> dict[int, Leading | None]:
        """What is not built anew at every point, for whoever keeps a fit."""
        return self._leading

    def products(self, objective: Objective) -> float:
        """What a build costs, in products with the curvature."""
        outputs, width = objective.outputs, objective.width
        operations = 2.0 * outputs * width**2 * (min(self.rows(objective), self.sample.rows) + width)
        operations += 2.0 * _WRITING_OPERATIONS * self.sample.rows * width
        return _CHOOSING_PRODUCTS + _BLOCK_TIME * operations / product_operations(objective)

    def affords_reading(self, objective: Objective) -> bool:
        """Whether all rows of the sample may be written out at every build."""
        return 2.0 * _WRITING_OPERATIONS * self.sample.rows * objective.width <= _BUILD_OPERATIONS

    def fits(self, objective: Objective) -> bool:
        """Whether the blocks fit into memory, and enough rows into the time of a build."""
        entries = float(objective.lanes) * objective.outputs * objective.width**2
        return entries <= _LARGEST_BLOCKS and self.rows(objective) >= _LEAST_ROWS_PER_COLUMN * objective.width

    @staticmethod
    def rows(objective: Objective) -> int:
        """Rows that a block may be made of."""
        affordable = _BUILD_OPERATIONS / (2.0 * objective.outputs * objective.width**2)
        return int(min(_ROWS_PER_COLUMN * objective.width, affordable))

    def build(self, objective: Objective, u: Tensor, lanes: Tensor) -> ClassInverse:
        """At ``u``. What was built before at this lane is no more, unless the fit may be taken up from there."""
        if objective.journal.returns:
            self._built.clear()
        sample = objective.on(resident(self.sample), self.kernel)
        return ClassInverse(tuple(self._lane(sample, u[i : i + 1], lanes[i : i + 1]) for i in range(u.shape[0])))

    def _lane(self, sample: Objective, u: Tensor, lanes: Tensor) -> _LaneInverse:
        if not sample.has_offset and not bool(u[..., :-1].any()) and bool((u[..., -1] == u[:, :1, -1]).all()):
            common = self._blocks(sample, u, lanes, alike=True)
            self._look(sample, lanes, common)
            return _LaneInverse(*_inverse(common))
        leading = self._look(sample, lanes)
        if leading is None:
            return _LaneInverse(*_inverse(self._blocks(sample, u, lanes)))
        chosen, rows = self._choose(sample, u, lanes), _along(leading, sample, lanes)
        ridge = rows.new_ones(rows.shape[1])
        ridge[-1] = 0
        piece = _Piece(partial(torch.index_select, rows, 0), chosen)
        blocks = self._room(lanes, len(chosen), ridge)
        return _LaneInverse(*_inverse(_summed([piece], ridge, blocks)), leading)

    def _look(self, sample: Objective, lanes: Tensor, common: Tensor | None = None) -> Leading | None:
        """The leading directions, if they are few; ``common`` is the block of classes that are alike."""
        lane = int(lanes[0])
        if lane not in self._leading:
            self._leading[lane] = None
            if sample.width >= _LEADING_COLUMNS and not sample.unpenalised:
                common = self._blocks(sample, sample.zeros()[lanes], lanes, alike=True) if common is None else common
                self._leading[lane] = leading_directions(common[0], sample.ridge[lanes[0]].to(common.dtype))
        return self._leading[lane]

    def _blocks(self, sample: Objective, u: Tensor, lanes: Tensor, *, alike: bool = False) -> Tensor:
        """``(K, D, D)`` in float32, or ``(1, D, D)`` where all classes are alike."""
        chosen = self._choose(sample, u, lanes, alike=alike)
        ridge = torch.cat([sample.ridge[lanes[0]], sample.ridge.new_zeros(1)]).to(torch.float32)
        return _summed(self._pieces(sample, lanes, chosen), ridge, self._room(lanes, len(chosen), ridge))

    def _room(self, lanes: Tensor, classes: int, ridge: Tensor) -> Tensor:
        """For ``classes`` blocks of a lane, where the last ones are if they were as many."""
        lane, shape = int(lanes[0]), (classes, len(ridge), len(ridge))
        if lane not in self._built or self._built[lane].shape != shape:
            self._built.pop(lane, None)
            self._built[lane] = uninitialised(shape, ridge)
        return self._built[lane]

    def _choose(self, sample: Objective, u: Tensor, lanes: Tensor, *, alike: bool = False) -> list[ChosenRows]:
        """Rows of each class's block, or of the one where all are alike."""
        lane, loss, like = int(lanes[0]), sample.kernel.loss, u.new_zeros(1, 1, sample.outputs)
        known, lengths, passed = self._lengths.get(lane), [], 0
        thinning = Thinning(1 if alike else sample.outputs, sample.source.rows, self.rows(sample), u)

        def measured(
            written: Callable[[], Iterator[Tensor]], eta: Tensor, target: Tensor, share: Tensor
        ) -> tuple[Tensor, Tensor | None]:
            bend = loss.curvature(like, target[:1])[0][:, 0, :1] if alike else loss.curvature(eta, target)[0][:, 0]
            length: Tensor | None = None
            if known is None:
                length = torch.cat([rows.square().sum(1, dtype=torch.float64) for rows in written()])
            return (bend.T * share).contiguous(), length  # class by class, as they are wanted

        def add(found: tuple[Tensor, Tensor | None]) -> None:
            nonlocal passed
            bend, length = found
            start, passed = passed, passed + bend.shape[1]
            if length is None:
                assert known is not None
                length = known[start:passed]
            else:
                lengths.append(length)
            thinning.add(bend, length)

        # One output stands for all that are alike.
        sample.over_curved_rows(u[:, :1] if alike else u, lanes, measured, add)
        if known is None:
            self._lengths[lane] = torch.cat(lengths)
        return thinning.rows()

    @staticmethod
    def _pieces(sample: Objective, lanes: Tensor, chosen: list[ChosenRows]) -> Iterator[_Piece]:
        """All rows: at once where writing out those that a class wants costs little, else block by block."""
        block = sample.only_block
        if block is not None and block.dense is not None and block.dense.element_size() <= _FEW_BYTES:
            yield _Piece(partial(sample.written_at, block, lanes=lanes), chosen)
            sample.count_pass()
            return
        start, pieces = 0, -(-sample.source.rows // sample.written_block_rows)
        for number, (_, rows) in enumerate(sample.written_rows(lanes, rounded=True)):
            gather, stop = partial(torch.index_select, rows.to(torch.float32), 0), start + rows.shape[0]
            yield _Piece(gather, [own.between(start, stop) for own in chosen], number, pieces)
            start = stop


@dataclass(frozen=True)
class _Piece:
    """Rows by their number, float32, and those that each class wants; which one it is, of about how many."""

    rows: Callable[[Tensor], Tensor]
    chosen: list[ChosenRows]
    number: int = 0
    pieces: int = 1


def _along(leading: Leading, sample: Objective, lanes: Tensor) -> Tensor:
    """Rows along the leading directions, ``(n, r)`` in float32: linear predictors, as far as arithmetic goes."""
    few = sample.on(sample.source, sample.kernel.rounded())
    directions = leading.basis.T[None].to(torch.float64)
    parts = [eta[:, 0].to(torch.float32) for _, eta in few.linear_predictors(directions, lanes, offset=False)]
    return torch.cat(parts)


def _summed(pieces: Iterable[_Piece], ridge: Tensor, blocks: Tensor) -> Tensor:
    """The classes' blocks, written over ``blocks (K, D, D)``."""
    for piece in pieces:
        among_threads(blocks, partial(_add_classes, piece, ridge, blocks))

    def mirror(first: int, last: int) -> None:
        for k in range(first, last):
            mirrored(blocks[k])

    among_threads(blocks, mirror)
    return blocks


def _add_classes(piece: _Piece, ridge: Tensor, blocks: Tensor, first: int, last: int) -> None:
    """Make some classes' blocks, or add to them; of integers where rounding adds no more than the penalty does."""
    width, here = blocks.shape[1], blocks.device.type == "cpu"
    integers = here and width >= _INTEGER_COLUMNS and has_integer_products()
    written, added = (_WRITTEN_ROWS, _ADDED_ROWS) if here else (_DEVICE_WRITTEN_ROWS, _DEVICE_ADDED_ROWS)
    longest = max(len(own.index) for own in piece.chosen[first:last])
    room = uninitialised((min(longest, added), width), blocks)
    for k, own in enumerate(piece.chosen[first:last], first):
        if piece.number == 0:
            blocks[k].zero_().diagonal().copy_(ridge)
        root = own.weight.sqrt().to(blocks.dtype)[:, None]
        most = ridge / (piece.pieces * max(1, -(-len(root) // added)))
        most[-1] = torch.inf  # the intercept is too large to notice
        for start in range(0, len(root), added):
            part = room[: len(root) - start]
            for offset in range(0, len(part), written):
                into = part[offset : offset + written]
                some = slice(start + offset, start + offset + len(into))
                torch.mul(piece.rows(own.index[some]), root[some], out=into)
            if not (integers and add_upper_integers(part, most, blocks[k])):
                add_upper(part, part, blocks[k])


def product_operations(objective: Objective) -> float:
    """Operations of a product with the curvature of all rows, as many of a factor's as take the same time."""
    entries = float(objective.source.rows) * objective.width
    return entries * (_PRODUCT_OPERATIONS * objective.outputs + _FETCHING_OPERATIONS)


def _inverse(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Root of the diagonals ``(K, D)``, float64, and inverses ``(K, D, D)`` of the unit-diagonal blocks, in float32."""
    diagonal = blocks.diagonal(dim1=1, dim2=2)
    floor = 1e-8 * diagonal.amax()
    scale = torch.where(floor > 0, torch.maximum(diagonal, floor), 1.0).sqrt()

    def invert(first: int, last: int) -> None:
        unit, failed = torch.empty_like(blocks[0]), blocks.new_empty((), dtype=torch.int32)
        for k in range(first, last):
            unit.copy_(blocks[k]).div_(scale[k]).div_(scale[k, :, None])
            unit.fill_diagonal_(1.0)  # a column without curvature has no gradient either
            # In place: they are the largest thing here. LAPACK counts along columns, which is all the same to a
            # symmetric matrix.
            into = blocks[k].copy_(unit).T
            torch.linalg.cholesky_ex(into, out=(into, failed))
            if int(failed) or not bool(into.diagonal().square().amin() > _SAFE_PIVOT):
                into.copy_(torch.cholesky_inverse(_factor(unit)))
            else:
                torch.cholesky_inverse(into, out=into)

    among_threads(blocks, invert)
    return scale.to(torch.float64), blocks


def _factor(unit: Tensor) -> Tensor:
    """Cholesky factor of a matrix of unit diagonal, in float64: float32 would lose the small eigenvalues."""
    factor: Tensor
    unit = unit.to(torch.float64)
    for jitter in _JITTERS:
        factor, failed = torch.linalg.cholesky_ex(unit + torch.diag_embed(unit.new_full(unit.shape[:1], jitter)))
        if not int(failed):
            return factor
    factor = torch.eye(unit.shape[0], dtype=unit.dtype, device=unit.device)
    return factor
