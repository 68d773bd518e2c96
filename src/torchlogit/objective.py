"""The objective: blocks to sums, sums to value, gradient and curvature of what is minimised.

    f(theta) = (1 / W) sum_i w_i loss(eta_i, y_i)  +  l2 / 2 |w|^2          (the intercept is never penalised)

Rows that are no longer there may be stood for by a quadratic: it joins the sum, and their weight joins W.

Everything above this file (solvers, certificate) works in *standardised units* ``u``: with the weighted mean ``m_j``
and deviation ``s_j`` of a column, ``u_j = s_j w_j`` and ``u_p = b + sum_j m_j w_j``. The gradient in these units is
``(g_j - m_j g_p) / s_j`` and ``g_p``: the certificate of the contract, computed from raw sums, so that sparse rows are
never densified.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from torchlogit.coordinates import Coordinates, between, pull_diagonal
from torchlogit.journal import NoJournal, Sweep
from torchlogit.kernels import Kernel
from torchlogit.kernels.sparse_part import SparsePart
from torchlogit.moments import Moments
from torchlogit.penalties import ElasticNet
from torchlogit.problem import Block, RowStats
from torchlogit.quadratic import Quadratic
from torchlogit.sources import MemorySource, Shard, Source, communicator_of
from torchlogit.tensors import lane_dot, lane_largest
from torchlogit.threads import add_in_order, sweepers

Result = TypeVar("Result")

# Bytes of row curvatures that products at one point may keep; of a device's own memory, this share.
_KEPT_BYTES, _KEPT_SHARE = 2**29, 1 / 8
# Products with the curvature after which a certificate is believed where few rows may outweigh all others: of 60
# problems with rows of 1e8, five had a larger excess than certified (up to 3e-6 of the objective) when one was enough.
_SURE_PRODUCTS = 8
# How much larger than the rounding of the rows the curvature of the penalty is to be where few digits will do.
_ROUNDING_SHARE = 8.0
# Rows whose linear predictors are looked at together, where the kernel takes any number.
_PREDICTED_ROWS = 65_536
# Elements of the blocks that a second derivative is made of: several pieces for every thread.
_GRAM_BLOCK = 64_000_000
# Those of rows that are written out for sums of many matrices, each of which passes through the cache for every block.
_WRITTEN_BLOCK = 2_000_000
# Those of rows that are written out for a number each, while they are in the cache, and on other devices.
_WRITTEN_PIECE, _DEVICE_PIECE = 262_144, 16_777_216


@dataclass(frozen=True, slots=True)
class _Largest:
    """Numbers of which the largest of all processes count."""

    value: Tensor = field(metadata={"reduce": "max"})


@dataclass(slots=True)
class Effort:
    """What a fit has read so far. ``passes`` counts reads of *all* rows; one of a tenth of them, or of a tenth of their
    bytes, is 0.1.
    """

    total_rows: int
    passes: float = 0.0
    rows: int = 0
    nbytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Value ``(M,)``, gradient ``(M, K, D)`` with its largest entry ``kkt (M,)``, and smallest margin ``(M,)``.

    At M points, in standardised units.
    """

    value: Tensor
    gradient: Tensor
    margin: Tensor
    kkt: Tensor

    def take(self, index: Tensor | slice) -> Evaluation:
        """Some of the points."""
        return Evaluation(self.value[index], self.gradient[index], self.margin[index], self.kkt[index])


@dataclass(frozen=True)
class Objective:
    """Mean loss plus penalty over the rows of a source, for L lanes.

    Parameters
    ----------
    source : Source
    kernel : Kernel
        Its frame's coordinates are bridged to each lane's units here.
    penalties : sequence of ElasticNet, one a lane
        Their L1 parts are no business of the smooth objective.
    moments : Moments
    fit_intercept : bool
    effort : Effort
        Shared by all objectives of a fit.
    has_offset : bool, default=False
        Whether the rows carry offsets.
    prior : Quadratic, optional
        Stands for rows seen before, the same for all lanes.
    journal : NoJournal, optional
        Told what sweeps over the rows add up, and asked what is known already.
    share : float, default=1.0
        Bytes that a read of a row moves, over those of a row of the fit.
    """

    source: Source
    kernel: Kernel
    penalties: tuple[ElasticNet, ...]
    moments: Moments
    fit_intercept: bool
    effort: Effort
    has_offset: bool = False
    prior: Quadratic | None = None
    journal: NoJournal = field(default_factory=NoJournal)
    share: float = 1.0
    lanes: int = field(init=False)  # L
    outputs: int = field(init=False)  # K
    width: int = field(init=False)  # D, the number of columns plus one
    coordinates: Coordinates = field(init=False)
    relative: Coordinates = field(init=False)  # the lanes' units as the kernel's frame sees them
    bridge: Coordinates = field(init=False)  # and as the prior's frame does
    ridge: Tensor = field(init=False)  # (L, p) curvature of the penalty in standardised units
    _bend: Tensor = field(init=False, repr=False)  # (L, 1, p + 1), the same with the intercept's zero
    _units: dict[torch.dtype, Coordinates] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        centre, scale = self.moments.centre(self.fit_intercept), self.moments.scale(self.fit_intercept)
        frame = self.kernel.frame
        l2 = torch.tensor([p.l2 for p in self.penalties], dtype=torch.float64, device=scale.device)
        ridge = torch.clamp(l2[:, None] / scale / scale, max=1e300)
        set_ = object.__setattr__  # the dataclass is frozen
        set_(self, "lanes", len(self.penalties))
        set_(self, "outputs", self.kernel.loss.outputs)
        set_(self, "width", self.source.features + 1)
        set_(self, "coordinates", Coordinates(centre, scale))
        set_(self, "relative", between(centre, scale, frame))
        if self.prior is not None:
            set_(self, "bridge", between(centre, scale, self.prior.frame))
        else:
            set_(self, "bridge", self.relative)
        set_(self, "ridge", ridge)
        set_(self, "_bend", torch.cat([ridge, torch.zeros_like(l2[:, None])], 1)[:, None])

    # -- shapes -------------------------------------------------------------------------------------------------

    @cached_property
    def sure_products(self) -> int:
        """Fewest products with the curvature that an excess may rest on."""
        # One of so many rows may have more than a hundredth of a column's variance.
        outlying = bool((self.farthest.square() > 0.01 * self.effort.total_rows).any())
        return _SURE_PRODUCTS if outlying else 0

    @cached_property
    def farthest(self) -> Tensor:
        """What no row is farther than from its column's centre, in the column's unit, ``(L, p)``."""
        return (self.moments.largest + self.coordinates.centre.abs()) / self.coordinates.scale

    @cached_property
    def rarer_share(self) -> float:
        """Share of the rows that are of the rarer of two classes, where all are at hand; a half elsewhere."""
        source = self.source
        if not isinstance(source, MemorySource) or self.lanes > 1 or not source.rows:
            return 0.5
        ones = sum(float(torch.count_nonzero(part.target)) for part in source.parts)
        return max(min(ones, source.rows - ones), 1.0) / source.rows

    @property
    def unpenalised(self) -> bool:
        """Whether nothing but the rows bends the objective in any lane."""
        return self.prior is None and all(penalty.is_none for penalty in self.penalties)

    def zeros(self) -> Tensor:
        """The null model, ``(L, K, D)``."""
        return torch.zeros(self.lanes, self.outputs, self.width, dtype=torch.float64, device=self.source.device)

    def all_lanes(self) -> Tensor:
        """``arange(L)``."""
        return torch.arange(self.lanes, device=self.source.device)

    def on(self, source: Source, kernel: Kernel | None = None) -> Objective:
        """The same problem over other rows (a subsample, or rows in fewer bits), or in another precision."""
        return Objective(
            source,
            kernel or self.kernel,
            self.penalties,
            self.moments,
            self.fit_intercept,
            self.effort,
            self.has_offset,
            self.prior,
            share=self.share * source.dtype.itemsize / self.source.dtype.itemsize,
        )

    # -- the free directions ------------------------------------------------------------------------------------

    def project(self, u: Tensor) -> Tensor:
        """Remove what the objective cannot see: the mean over classes, and the intercept where there is none.

        Adding the same vector to all classes leaves every probability as it is, and a sum of zero has the smallest
        penalty; so the projection never makes the objective larger.
        """
        if self.outputs > 1:
            u = u - u.mean(dim=-2, keepdim=True)
        if not self.fit_intercept:
            u = torch.cat([u[..., :-1], torch.zeros_like(u[..., -1:])], dim=-1)
        return u

    # -- bridges between standardised units and the kernel's frame ----------------------------------------------

    def _push(self, u: Tensor, lanes: Tensor) -> Tensor:
        return self.relative.to_raw(u, lanes)

    def _pull(self, gradient: Tensor, lanes: Tensor, units: Coordinates | None = None) -> Tensor:
        pulled = (units or self.relative).gradient_from_raw(gradient, lanes)
        return pulled if self.fit_intercept else self._without_intercept(pulled)

    @staticmethod
    def _without_intercept(gradient: Tensor) -> Tensor:
        return torch.cat([gradient[..., :-1], torch.zeros_like(gradient[..., -1:])], dim=-1)

    # -- sweeps -------------------------------------------------------------------------------------------------

    def _total(self, stats: RowStats) -> Tensor:
        """What sums are divided by, ``(M,)``."""
        return stats.weight if self.prior is None else stats.weight + self.prior.weight

    def _sweep(
        self, function: Callable[[int, Block], RowStats], *asked: object, rows: int | None = None, partly: bool = True
    ) -> RowStats:
        """The sums of all rows, of this process and of others; ``asked`` is all that ``function`` depends on beside.

        It is given a block's number and the block, by several threads at once where its rows are not its own choice:
        whoever asks for blocks of a size of its own has threads of its own.
        """
        started = time.perf_counter()
        rows, source = rows or self.kernel.block_rows, self.source

        def own() -> RowStats:
            return self._own_sums(function, rows, self.journal.open(*asked, rows, partly=partly))

        if isinstance(source, Shard):
            at = torch.cat([part.reshape(-1).to(torch.float64) for part in asked if isinstance(part, Tensor)])
            total = source.communicator.added(own, lambda: function(-1, source.absent), at)
        else:
            total = own()
        self.effort.seconds += time.perf_counter() - started
        self.count_pass()
        self.effort.rows += self.source.rows
        self.effort.nbytes += self.source.nbytes
        return total

    def count_pass(self) -> None:
        """One more read of these rows."""
        self.effort.passes += self.share * self.source.rows / self.effort.total_rows

    def _own_sums(self, function: Callable[[int, Block], RowStats], rows: int | None, known: Sweep) -> RowStats:
        """The sums of this process's rows, of which the journal may know some."""
        total = known.total

        def add(stats: RowStats) -> None:
            nonlocal total
            total = stats if total is None else total + stats
            self.journal.add(total)

        if not known.whole:
            threads = 1 if rows else sweepers(self.source, self.outputs * self.lanes)
            add_in_order(function, _blocks_from(self.source, rows, known.blocks), add, threads)
            self.journal.close()
        assert total is not None
        return total

    def value_gradient(self, u: Tensor, lanes: Tensor) -> Evaluation:
        """Value and gradient at M points in one read of the rows.

        Parameters
        ----------
        u : Tensor of shape (M, K, D)
            Points in standardised units.
        lanes : Tensor of shape (M,), int64
            The lane that each point belongs to.
        """
        theta = self._push(u, lanes)
        stats = self._sweep(lambda _, block: self.kernel.value_gradient(block, theta, lanes), "gradient", theta, lanes)
        return self._evaluation(stats, u, lanes)

    def value_gradient_hessian(self, u: Tensor, lanes: Tensor, kernel: Kernel) -> tuple[Evaluation, Tensor]:
        """Value and gradient as ever, with the second derivative by another kernel, in one read of the rows."""
        other = self.on(self.source, kernel)
        theta, there = self._push(u, lanes), other._push(u, lanes)

        def both(_: int, block: Block) -> RowStats:
            stats = self.kernel.value_gradient(block, theta, lanes)
            return replace(stats, gram=kernel.gram(block, there, lanes).gram)

        stats = self._sweep(both, "gradient and gram", theta, there, lanes)
        return self._evaluation(stats, u, lanes), other._second(stats, lanes)

    def _bend_of(self, lanes: Tensor) -> Tensor:
        """The penalty's curvature of these lanes, ``(M or 1, 1, D)``."""
        return self._bend if self._bend.shape[0] == 1 else self._bend[lanes]

    def _evaluation(self, stats: RowStats, u: Tensor, lanes: Tensor) -> Evaluation:
        assert stats.loss is not None and stats.gradient is not None and stats.margin is not None
        total = self._total(stats)
        bent = self._bend_of(lanes) * u
        value = torch.add(stats.loss / total, lane_dot(bent, u), alpha=0.5)
        gradient = self._pull(stats.gradient / total.view(-1, 1, 1), lanes).add_(bent)
        if self.prior is not None:
            before, slope = self.prior.value_gradient(self.bridge.to_raw(u, lanes))
            value = value + before / total
            gradient = gradient + self._pull(slope / total[:, None, None], lanes, self.bridge)
        return Evaluation(value, gradient, stats.margin, lane_largest(gradient))

    def curvature_product(self, u: Tensor, direction: Tensor, lanes: Tensor) -> Tensor:
        """Second derivative at ``u`` times ``direction``, both ``(M, K, D)``."""
        return self.curvature_at(u, lanes)(direction)

    def curvature_at(self, u: Tensor, lanes: Tensor, *, rounded: bool = False) -> Callable[[Tensor], Tensor]:
        """The second derivative at ``u`` as a function of directions, each one read of the rows.

        The rows' own curvatures are kept from the first product to the last, where that takes little memory. With
        ``rounded`` a few digits of them will do.
        """
        kernel = self.few_digits() if rounded else self.kernel
        theta = self._push(u, lanes)
        # A shard's absent row stands where it has none, or where a read has failed: no curvature is kept for it.
        absent = self.source.absent if isinstance(self.source, Shard) else None
        kept: dict[int, tuple[Tensor, ...]] | None = None
        if self.source.rows * u.shape[0] * (kernel.dtype.itemsize * self.outputs + 8) <= _most_kept(u.device):
            kept = {}

        def product(direction: Tensor) -> Tensor:
            along = self._push(direction, lanes)

            def block_product(i: int, block: Block) -> RowStats:
                curvature: tuple[Tensor, ...] | None = None
                if kept is not None and block is not absent:
                    if i not in kept:
                        kept[i] = kernel.row_curvature(block, theta, lanes)
                    curvature = kept[i]
                return kernel.curvature_product(block, theta, along, lanes, curvature)

            stats = self._sweep(block_product, "product", theta, along, lanes, partly=kept is None)
            assert stats.product is not None
            total = self._total(stats)[:, None, None]
            bent = torch.addcmul(self._pull(stats.product / total, lanes), self._bend_of(lanes), direction)
            if self.prior is not None:
                before = self.prior.product(self.bridge.to_raw(direction, lanes))
                bent = bent + self._pull(before / total, lanes, self.bridge)
            return bent

        return product

    def few_digits(self) -> Kernel:
        """The kernel with as few digits as leave the curvature what it is."""
        short = self.kernel.rounded(short=True)
        return short if self.bends_more_than(short.rounding()) else self.kernel.rounded()

    def bends_more_than(self, noise: float | Tensor) -> bool:
        """Whether rounding the rows leaves the curvature what it is.

        It adds its variance, in a column's unit, to the curvature of every direction alike; beside the penalty's that
        is to be little.
        """
        return bool((self.ridge >= _ROUNDING_SHARE * noise).all())

    def hessian(self, u: Tensor, lanes: Tensor) -> Tensor:
        """Second derivative, ``(M, K * D, K * D)``."""
        theta = self._push(u, lanes)
        rows = max(2048, 2 * self.width, _GRAM_BLOCK // self.width)
        stats = self._sweep(lambda _, block: self.kernel.gram(block, theta, lanes), "gram", theta, lanes, rows=rows)
        return self._second(stats, lanes)

    def _second(self, stats: RowStats, lanes: Tensor) -> Tensor:
        assert stats.gram is not None
        gram = self._pull_twice(stats.gram, lanes, self.relative)
        if self.prior is not None:
            gram = gram + self._pull_twice(self.prior.matrix().expand_as(gram), lanes, self.bridge)
        # A few such matrices may be all of the memory: this is the last new one.
        gram = (gram + gram.mT).mul_((0.5 / self._total(stats)).view(-1, 1, 1))
        gram.diagonal(dim1=1, dim2=2).view(-1, self.outputs, self.width).add_(self._bend_of(lanes))
        return gram

    def _pull_twice(self, gram: Tensor, lanes: Tensor, units: Coordinates) -> Tensor:
        """``(M, S, S)`` in other units on both sides."""
        if units.identity and self.fit_intercept:
            return gram
        points, size, _ = gram.shape
        for _ in range(2):
            gram = self._pull(gram.reshape(points, -1, self.width), lanes, units).reshape(points, size, size)
            gram = gram.transpose(1, 2)
        return gram

    def hessian_diagonal(self, u: Tensor, lanes: Tensor) -> Tensor:
        """Diagonal of the second derivative, ``(M, K, D)``."""
        theta = self._push(u, lanes)
        stats = self._sweep(lambda _, block: self.kernel.gram_diagonal(block, theta, lanes), "diagonal", theta, lanes)
        assert stats.diagonal is not None and stats.cross is not None
        total = self._total(stats)[:, None, None]
        diagonal = pull_diagonal(stats.diagonal / total, stats.cross / total, lanes, self.relative)
        if self.prior is not None:
            square, cross = self.prior.diagonal() / total, self.prior.cross() / total
            diagonal = diagonal + pull_diagonal(square, cross, lanes, self.bridge)
        diagonal[..., :-1] += self.ridge[lanes][:, None]
        return diagonal if self.fit_intercept else self._without_intercept(diagonal)

    def centred_diagonal(self, u: Tensor, lanes: Tensor) -> tuple[Tensor, Tensor]:
        """The diagonal once each column is centred by curvature, not by weight, in one read.

        Where the rows that carry a column's deviation are saturated, the others hold nearly one value, and the column
        is nearly the intercept in another unit: its own diagonal says nothing about what it could still do.

        Returns
        -------
        diagonal : Tensor of shape (M, K, D)
        centre : Tensor of shape (M, K, p)
            What is to be subtracted from the standardised columns; zero without an intercept.
        """
        if self.prior is None and not self.has_offset and not bool(u.any()):
            return self._diagonal_at_zero(u, lanes)
        theta = self._push(u, lanes)
        stats = self._sweep(lambda _, block: self.kernel.gram_diagonal(block, theta, lanes), "diagonal", theta, lanes)
        assert stats.diagonal is not None and stats.cross is not None
        total = self._total(stats)[:, None, None]
        spread, centre, own = self._spread(stats.diagonal / total, stats.cross / total, lanes, self.relative)
        if self.prior is not None:
            square, cross = self.prior.diagonal() / total, self.prior.cross() / total
            before, other, weight = self._spread(square, cross, lanes, self.bridge)
            both = torch.clamp(own + weight, min=1e-300)
            spread = spread + before + own * (weight / both) * (centre - other).square()
            centre, own = (own / both) * centre + (weight / both) * other, own + weight
        spread = spread + self.ridge[lanes][:, None]
        return torch.cat([spread, own if self.fit_intercept else torch.zeros_like(own)], dim=-1), centre

    def _diagonal_at_zero(self, u: Tensor, lanes: Tensor) -> tuple[Tensor, Tensor]:
        """What `centred_diagonal` finds where all rows bend alike: the columns' variances, without a read."""
        eta = torch.zeros_like(u[:1, :, 0])[None]
        bend = self.kernel.loss.curvature(eta, torch.zeros(1, 1, dtype=torch.int64, device=u.device))[0][0, 0, 0]
        varies = self.moments.deviation > 0
        if not self.fit_intercept:  # about zero, not about the mean
            varies |= self.moments.mean != 0
        spread = (bend * varies + self.ridge)[lanes][:, None].expand(-1, self.outputs, -1)
        own = torch.full_like(u[..., -1:], float(bend) if self.fit_intercept else 0.0)
        return torch.cat([spread, own], dim=-1), torch.zeros_like(u[..., :-1])

    def _spread(
        self, square: Tensor, cross: Tensor, lanes: Tensor, units: Coordinates
    ) -> tuple[Tensor, Tensor, Tensor]:
        """From a diagonal and the intercept's column: spread about the centre, centre, weight of all rows."""
        own, scale = square[..., -1:], units.scale[lanes][:, None]
        square, cross = square[..., :-1], cross[..., :-1]
        shift = units.centre[lanes][:, None].expand_as(square)
        # The difference of two sums is exact to a few of their last digits.
        mean = torch.where(own > 0, cross / torch.where(own > 0, own, 1.0), shift) if self.fit_intercept else shift
        spread = square - mean * cross if self.fit_intercept else square
        spread = torch.maximum(spread, 1e-15 * square) / scale.square()
        return spread, (mean - shift) / scale, own

    def largest(self, work: Callable[[], Tensor], like: Tensor) -> Tensor:
        """Of each number, the largest that the rows of any process give; ``like`` has the shape of ``work``'s."""
        communicator = communicator_of(self.source)
        return communicator.added(lambda: _Largest(work()), lambda: _Largest(like)).value

    def linear_predictors(self, u: Tensor, lanes: Tensor, *, offset: bool) -> Iterator[tuple[Block, Tensor]]:
        """Each block with its ``eta (rows, M, K)``, in one read; without offsets for a direction."""
        theta = self._push(u, lanes)
        for block in self._predicted_blocks():
            seen = block if offset else replace(block, offset=None)
            yield block, self.kernel.linear_predictor(seen, theta, lanes)
        self.count_pass()

    def _predicted_blocks(self) -> Iterator[Block]:
        return self.source.blocks(min(self.kernel.block_rows or 0, _PREDICTED_ROWS) or None)

    def curved_rows(self, u: Tensor, lanes: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """One lane's rows written out in standardised units, for factors that a sum cannot give.

        Parameters
        ----------
        u : Tensor of shape (1, K, D)
        lanes : Tensor of shape (1,), int64

        Yields
        ------
        rows : Tensor of shape (r, D), float64
        eta : Tensor of shape (r, 1, K), as the rows
        target : Tensor of shape (r, 1)
        share : Tensor of shape (r,)
            Row weights over their total, so that sums over all rows are means.
        """
        theta = self._push(u, lanes)
        for block, rows in self.written_rows(lanes):
            eta, target, share = self._curved(block, theta, lanes, rounded=False)
            yield _counting(block, rows, share), eta, target, share

    def bent_rows(self, u: Tensor, lanes: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """All that `curved_rows` yields but the rows, in one read."""
        theta = self._push(u, lanes)
        for block in self._predicted_blocks():
            yield self._curved(block, theta, lanes, rounded=False)
        self.count_pass()

    def over_curved_rows(
        self, u: Tensor, lanes: Tensor, function: Callable[..., Result], add: Callable[[Result], None]
    ) -> None:
        """``add`` what ``function`` makes of what `curved_rows` yields, block after block, made on several threads.

        Rows and ``eta`` have the few digits that a preconditioner needs, float32 where the kernel has it. Rows are
        given as a function, which writes them out a few at a time.
        """
        theta = self._push(u, lanes)
        blocks = self.source.blocks()  # small ones: nothing is added up, and their temporaries stay in a cache

        def curved(_: int, block: Block) -> Result:
            eta, target, share = self._curved(block, theta, lanes, rounded=True)

            def written() -> Iterator[Tensor]:
                start = 0
                elements = _WRITTEN_PIECE if block.device.type == "cpu" else _DEVICE_PIECE
                for piece in block.cut(max(1, elements // self.width)):
                    own = self._write(piece, lanes, rounded=True)
                    yield _counting(piece, own, share[start : start + piece.rows])
                    start += piece.rows

            return function(written, eta, target, share)

        threads = sweepers(self.source, self.outputs)
        add_in_order(curved, blocks, add, threads)
        self.count_pass()

    def _curved(
        self, block: Block, theta: Tensor, lanes: Tensor, *, rounded: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All that `curved_rows` yields but the rows."""
        lane, kernel = int(lanes[0]), self.kernel.rounded() if rounded else self.kernel
        total = float(self.moments.weight[lane]) * self.source.rows / self.effort.total_rows
        target = block.target if block.target.ndim == 1 else block.target[:, lane]
        eta = kernel.linear_predictor(block, theta, lanes)
        eta = eta if rounded else eta.to(torch.float64)
        if block.weight is None:
            return eta, target[:, None], torch.full((block.rows,), 1 / total, dtype=torch.float64, device=theta.device)
        share = (block.weight if block.weight.ndim == 1 else block.weight[:, lane]).to(torch.float64) / total
        return _counting(block, eta, share), target[:, None], share

    def written_rows(self, lanes: Tensor, *, rounded: bool = False) -> Iterator[tuple[Block, Tensor]]:
        """Each block with the rows of `curved_rows`, those that do not count as they are."""
        for block in self.source.blocks(self.written_block_rows):
            yield block, self._write(block, lanes, rounded=rounded)
        self.count_pass()

    def written_at(self, block: Block, index: Tensor, lanes: Tensor) -> Tensor:
        """Some rows of a block as `written_rows` yields them, rounded."""
        return self._write(block.take(index), lanes, rounded=True)

    @property
    def only_block(self) -> Block | None:
        """All rows, if they are in memory, in one piece, dense alone and of a single lane."""
        parts = self.source.parts if isinstance(self.source, MemorySource) else []
        if len(parts) != 1 or self.lanes > 1:
            return None
        (block,) = parts
        return None if block.dense is None or block.sparse is not None or block.codes is not None else block

    @property
    def written_block_rows(self) -> int:
        """Rows of a block that is written out."""
        return max(2048, 2 * self.width, _WRITTEN_BLOCK // self.width)

    def _write(self, block: Block, lanes: Tensor, *, rounded: bool) -> Tensor:
        kernel = self.kernel.rounded() if rounded else self.kernel
        units = self._units_of(kernel.dtype if rounded else torch.float64)
        return self._pull(kernel.design(block).to(units.centre.dtype)[None], lanes, units)[0]

    def _units_of(self, dtype: torch.dtype) -> Coordinates:
        """`relative` in that type; made once, since many pieces of rows may be written out."""
        if dtype not in self._units:
            units = self.relative
            self._units[dtype] = Coordinates(units.centre.to(dtype), units.scale.to(dtype), units.identity)
        return self._units[dtype]

    def at_row(self, u: Tensor, lanes: Tensor, row: int) -> tuple[Tensor, Tensor]:
        """``eta (1, M, K)`` and class code ``(1,)`` or ``(1, L)`` of one row; the others are not computed.

        Raises
        ------
        IndexError
            If there is no such row.
        """
        before = 0
        for block in self.source.blocks() if row >= 0 else ():
            if row < before + block.rows:
                own = _written_out(block.slice(row - before, row - before + 1))
                return self.kernel.linear_predictor(own, self._push(u, lanes), lanes), own.target
            before += block.rows
        raise IndexError(f"there is no row {row}: the data have {self.source.rows:,} rows, counted from 0")


def _counting(block: Block, values: Tensor, share: Tensor) -> Tensor:
    """What rows of a block have, ``(r, ...)``, or zeros: nothing bounds the values of a row that does not count."""
    if block.weight is None:
        return values
    return torch.where((share > 0).view(-1, *[1] * (values.ndim - 1)), values, 0.0)


def _most_kept(device: torch.device) -> float:
    """Bytes of row curvatures that may be kept there."""
    if device.type != "cuda":
        return _KEPT_BYTES
    return max(_KEPT_BYTES, _KEPT_SHARE * torch.cuda.get_device_properties(device).total_memory)


def _blocks_from(source: Source, rows: int | None, first: int) -> Iterator[Block]:
    """Blocks without the first ones, which a source with ``blocks_from(rows, first)`` need not read."""
    if not first:
        return source.blocks(rows)
    if hasattr(source, "blocks_from"):
        chosen: Iterator[Block] = source.blocks_from(rows, first)
        return chosen
    return islice(source.blocks(rows), first, None)


def _written_out(row: Block) -> Block:
    """All columns as dense ones: a row that does not count may lack an entry that the frame shifts."""
    parts = [] if row.dense is None else [row.dense.to(torch.float64)]
    for sparse in (row.sparse, None if row.codes is None else row.codes.as_sparse(torch.float64)):
        if sparse is not None:
            parts.append(SparsePart(sparse, torch.float64).dense())
    return replace(row, dense=torch.cat(parts, 1), sparse=None, codes=None)
