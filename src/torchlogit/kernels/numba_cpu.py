"""The kernel for many rows in the memory of a CPU: compiled loops that read the rows once.

Numba itself is imported when the first block is swept, and never for small problems (see ``plan.kernel_for``). What
BLAS does well (matrices of products, dense rows times many outputs) and other devices are left to the torch kernel.

There is no threading layer of Numba's: with ``parallel=True`` a later ``fork`` kills the child (OpenMP), and joblib's
threads abort (workqueue). Python threads live for a step of a fit at most, run fixed ranges of rows without the GIL,
and their sums are added in order: the same bits for the same number of threads, and nothing that a fork could leave
half-made.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchlogit.kernels.first_use import make_ready
from torchlogit.kernels.torch_device import TorchKernel, added_up
from torchlogit.losses import Loss
from torchlogit.problem import Block, Frame, RowStats
from torchlogit.tensors import joined
from torchlogit.threads import at_once, workers

# Elements of a block times outputs for each thread: a millisecond, beside which starting a thread (0.1 ms) is little.
_ELEMENTS_PER_THREAD = 1_000_000
# Bytes of features and coefficients that a batch of rows may touch, with the next one a quarter of a usual second-level
# cache, and its rows: what a batch costs beside its rows (half a microsecond) is 25 ns a row with 64 of 20 columns, and
# 16 with 512.
_BATCH_BYTES = 131_072
_LONGEST_BATCH = 512
# Bytes of a table from which coefficients are asked for before they are needed.
_CACHED_TABLE = 524_288
# Outputs from which dense rows are multiplied by BLAS (20 million numbers, two threads, three outputs: 0.5 to 0.9 times
# as long for a gradient, 0.4 to 0.5 for a product).
DENSE_OUTPUTS = 3
# Elements of a block handed to the torch kernel: `MemorySource`'s own choice.
_PIECE_ELEMENTS = 800_000
# Row curvatures that are computed for one product only: 64 MiB.
_CURVATURE_ELEMENTS = 8_388_608
# Columns from which a row's linear predictor is little to write beside what is read of the row.
_KEPT_COLUMNS = 256
# Scales whose squares, and products with sums, are numbers.
_LEAST_SCALE, _LARGEST_SCALE = 1e-100, 1e100

# Numbers between what two threads write, lines of the cache: each would wait for the other's with every batch
# (5,000,000 x 20, two threads: a gradient in 58 ms, 52 like this).
_APART = 32

FLOATS, _INTEGERS = (torch.float32, torch.float64), (torch.int32, torch.int64)
_DENSE = (*FLOATS, torch.int8)  # the latter are rows that `quantised` made


def _apart(threads: int, *shape: int) -> list[NDArray[np.float64]]:
    """Zeros for each thread, lines of the cache away from the others'."""
    size = math.prod(shape)
    return [own[:size].reshape(shape) for own in np.zeros((threads, size + _APART))]


class NumbaKernel(TorchKernel):
    """Sums by compiled loops, everything in float64; the torch kernel where that is faster.

    Parameters
    ----------
    loss : Loss
    frame : Frame
    dtype : torch.dtype, default=torch.float64
        Of `linear_predictor`, and of the torch kernel's products.
    """

    block_rows: int | None = 2**62  # as many as there are: the loops keep to the cache by themselves

    def __init__(self, loss: Loss, frame: Frame, dtype: torch.dtype = torch.float64) -> None:
        super().__init__(loss, frame, dtype)
        self._moderate = bool(((frame.scale >= _LEAST_SCALE) & (frame.scale <= _LARGEST_SCALE)).all())
        self._spare: dict[tuple[tuple[int, ...], Any], list[NDArray[Any]]] = {}
        self.last_layout: _Layout | None = None
        self.last_seen: weakref.ref[Tensor] | None = None

    def rounded(self, *, short: bool = False) -> NumbaKernel:
        """Itself: the loops wait for memory, not for arithmetic."""
        return self

    def take_room(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An array to write over: an earlier sweep's, whose pages are there already, or a new one."""
        try:
            return self._spare[shape, dtype].pop()
        except (KeyError, IndexError):
            # Large arrays of NumPy's `empty` ask for huge pages, of which gathers from 20 MB need fewer.
            return np.empty(shape, dtype)

    def give_room(self, array: NDArray[Any]) -> None:
        """Back, for the next sweep."""
        self._spare.setdefault((array.shape, array.dtype), []).append(array)

    def value_gradient(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> RowStats:
        """Sums of loss and gradient, and the smallest margin."""
        if not self._takes(block, theta):
            return _in_pieces(super().value_gradient, block, theta, lanes)
        return added_up(self._value_gradient(part, theta, lanes) for part in _contiguous(block))

    def _value_gradient(self, block: Block, theta: Tensor, lanes: Tensor | None) -> RowStats:
        from torchlogit.kernels.numba_links import Totals

        sweep = _Sweep(self, block, theta, lanes)
        table, sums = sweep.table(theta), sweep.sums()
        points = theta.shape[0]
        totals = [Totals(*own) for own in _apart(sweep.threads, 4, points)]
        for total in totals:
            total.margin[:] = np.inf
        wide = sweep.size == 1 and sweep.columns >= _KEPT_COLUMNS
        eta = np.empty((block.rows if wide else 0, 1))
        sweep.run("value_gradient", lambda t: (table, sums[t], totals[t], eta))
        self._last_eta = (block, theta.clone(), _tensor(eta)[:, :, None]) if wide else None
        weight = np.sum([total.weight for total in totals], 0)
        loss = np.sum([total.loss for total in totals], 0) + np.sum([total.lost for total in totals], 0)
        margin = np.min([total.margin for total in totals], 0)
        return RowStats(
            block.rows, _tensor(weight), _tensor(loss), sweep.read(sums, theta), margin=_tensor(margin)
        )  # fmt: skip

    def linear_predictor(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> Tensor:
        """``eta (rows, M, K)``, offset included, in ``dtype``."""
        if not self._takes(block, theta):
            return super().linear_predictor(block, theta, lanes)
        parts = [self._predictor(part, theta, lanes, curved=False)[0] for part in _contiguous(block)]
        return joined(parts).reshape(block.rows, *theta.shape[:2]).to(self.dtype)

    def row_curvature(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> tuple[Tensor, ...]:
        """What `curvature_product` needs of ``theta``, as `losses` defines it."""
        if not self._takes(block, theta):
            return super().row_curvature(block, theta, lanes)
        if self.loss.outputs == theta.shape[0] == 1 and block.features >= _KEPT_COLUMNS:
            last = self._last_eta  # of the gradient at the same point, most often
            known = last is not None and last[0] is block and torch.equal(last[1], theta)
            eta = last[2] if last is not None and known else self.linear_predictor(block, theta, lanes)
            return self.loss.row_curvature(eta, block.target)
        parts = [self._predictor(part, theta, lanes, curved=True) for part in _contiguous(block)]
        shape = (block.rows, *theta.shape[:2])
        bend = joined([part[0] for part in parts]).reshape(shape)
        if self.loss.outputs == 1:
            return (bend,)
        return bend, joined([part[1] for part in parts])[..., None]

    def _predictor(
        self, block: Block, theta: Tensor, lanes: Tensor | None, *, curved: bool
    ) -> tuple[Tensor, Tensor]:
        sweep = _Sweep(self, block, theta, lanes)
        table = sweep.table(theta)
        points, outputs = theta.shape[:2]
        out = np.empty((block.rows, points * outputs))
        best = np.empty((block.rows, points if curved and outputs > 1 else 0), np.int64)
        sweep.run("predictor", lambda t: (table, out, best, curved))
        return _tensor(out), _tensor(best)

    def curvature_product(
        self,
        block: Block,
        theta: Tensor,
        direction: Tensor,
        lanes: Tensor | None = None,
        curvature: tuple[Tensor, ...] | None = None,
    ) -> RowStats:
        """Sum of the rows' curvature times ``direction``."""
        if curvature is None:
            rows = max(1, _CURVATURE_ELEMENTS // (theta.shape[0] * theta.shape[1]))
            return added_up(
                self.curvature_product(piece, theta, direction, lanes, self.row_curvature(piece, theta, lanes))
                for piece in block.cut(rows)
            )
        if not self._takes(block, theta):
            rows, start, stats = _piece_rows(block), 0, []
            for piece in block.cut(rows):
                own = tuple(part[start : start + piece.rows] for part in curvature)
                stats.append(super().curvature_product(piece, theta, direction, lanes, own))
                start += piece.rows
            return added_up(stats)
        start, stats = 0, []
        for part in _contiguous(block):
            own = tuple(kept[start : start + part.rows] for kept in curvature)
            stats.append(self._product(part, direction, lanes, own))
            start += part.rows
        return added_up(stats)

    def _product(
        self, block: Block, direction: Tensor, lanes: Tensor | None, curvature: tuple[Tensor, ...]
    ) -> RowStats:
        sweep = _Sweep(self, block, direction, lanes)
        table, sums = sweep.table(direction), sweep.sums()
        points, outputs = direction.shape[:2]
        bend = _array(curvature[0].reshape(block.rows, points * outputs).to(torch.float64))
        best = np.empty((block.rows, 0), np.int64)
        if outputs > 1:
            best = _array(curvature[1].reshape(block.rows, points))
        weight = _apart(sweep.threads, points)
        sweep.run("product", lambda t: (table, bend, best, sums[t], weight[t]))
        return RowStats(block.rows, _tensor(np.sum(weight, 0)), product=sweep.read(sums, direction))

    def gram_diagonal(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> RowStats:
        """Diagonal of the curvature, and its column of the intercept (class by class)."""
        if not self._takes(block, theta):
            return _in_pieces(super().gram_diagonal, block, theta, lanes)
        return added_up(self._gram_diagonal(part, theta, lanes) for part in _contiguous(block))

    def _gram_diagonal(self, block: Block, theta: Tensor, lanes: Tensor | None) -> RowStats:
        sweep = _Sweep(self, block, theta, lanes)
        table, squares, sums = sweep.table(theta), sweep.sums(), sweep.sums()
        weight = _apart(sweep.threads, theta.shape[0])
        sweep.run("diagonal", lambda t: (table, squares[t], sums[t], weight[t]))
        return RowStats(
            block.rows,
            _tensor(np.sum(weight, 0)),
            diagonal=sweep.read(squares, theta, squared=True),
            cross=sweep.read(sums, theta),
        )

    def _takes(self, block: Block, theta: Tensor) -> bool:
        """Whether the loops gain anything on these rows."""
        if block.device.type != "cpu" or block.rows == 0:
            return False
        if block.dense is not None and block.dense.dtype not in _DENSE:
            return False
        sparse = block.sparse
        if sparse is not None and (sparse.values.dtype not in FLOATS or sparse.indices.dtype not in _INTEGERS):
            return False
        wide = theta.shape[0] * theta.shape[1] >= DENSE_OUTPUTS
        return self._moderate and not (wide and sparse is None and block.codes is None)


class _Layout:
    """One block as the loops want it, and how it is divided among threads: all that no point changes."""

    def __init__(self, kernel: NumbaKernel, block: Block, points: int, outputs: int) -> None:
        self.block, self.points, self.outputs, self.workers = block, points, outputs, workers()
        wide = points * outputs
        self.size = 1 if wide == 1 else 4 * -(-wide // 4)
        self.scale = _array(kernel.stored.scale)
        self.rows = self._rows(_array(kernel.stored.shift))
        self.target = _array(block.target.to(torch.int64)).reshape(block.rows, -1)
        self.weight, self.offset = np.empty((block.rows, 0)), np.empty((0, 0, 0))
        if block.weight is not None:
            self.weight = _array(block.weight.to(torch.float64)).reshape(block.rows, -1)
        if block.offset is not None:
            self.offset = _array(block.offset.to(torch.float64))
        self.threads, self.batch = self._division()
        self.ends = self._ranges()
        # Of whole numbers of eight bits float32 is more than enough, and twice as fast.
        small = block.dense is not None and block.dense.dtype == torch.int8
        self.kind = np.dtype(np.float32 if small else np.float64)
        self._spaces: list[Any] = []
        self._known_lanes: tuple[Tensor | None, Any] | None = None

    @classmethod
    def of(cls, kernel: NumbaKernel, block: Block, points: int, outputs: int) -> _Layout:
        """The last one, if this is that block again: it takes a tenth of a millisecond, which products notice.

        It is kept from the second time on: who reads blocks from files does not see one twice, and needs the memory.
        """
        last, asked = kernel.last_layout, (points, outputs, workers())
        if last is not None and last.block is block and (last.points, last.outputs, last.workers) == asked:
            return last
        made = cls(kernel, block, points, outputs)
        again = kernel.last_seen is not None and kernel.last_seen() is block.target
        kernel.last_layout, kernel.last_seen = made if again else None, weakref.ref(block.target)
        return made

    def _rows(self, shift: NDArray[np.float64]) -> Any:
        from torchlogit.kernels.numba_rows import Rows

        block = self.block
        second, third, _ = np.cumsum(block.widths).tolist()
        x = x_shift = indptr = indices = values = sparse_shift = codes = columns = None
        if block.dense is not None:
            x, x_shift = _array(block.dense), _unless_zero(shift[:second])
        if block.sparse is not None:
            indptr = _array(block.sparse.indptr).astype(np.int64, copy=False)
            indices, values = _array(block.sparse.indices), _array(block.sparse.values)
            sparse_shift = _unless_zero(shift[second:third])
        if block.codes is not None:
            codes = _array(block.codes.codes.to(torch.int32))
            columns = _array(block.codes.first.to(torch.int64)) + third
        return Rows(x, x_shift, indptr, indices, values, sparse_shift, second, codes, columns)

    def _division(self) -> tuple[int, int]:
        """Threads, and rows of a batch."""
        dense, listed, codes = self._entries()
        stored, width = dense + listed + codes, self.block.features
        # Each thread has sums of its own, which are cleared and added: four entries must be read for each of them.
        most = min(stored * self.size // _ELEMENTS_PER_THREAD, stored // (4 * max(width, 1)))
        threads = max(1, min(self.workers, most))
        touched = sum(part.nbytes for part in self._parts() if part is not None)
        if self.size > 1:
            touched += 16 * self.size * (listed + codes)
        batch = _BATCH_BYTES * self.block.rows // max(touched, 1)
        return threads, max(4, min(_LONGEST_BATCH, batch // 4 * 4))

    def _parts(self) -> tuple[NDArray[Any] | None, ...]:
        """What of the rows is read entry by entry."""
        rows = self.rows
        return rows.x, rows.indices, rows.values, rows.codes

    def _entries(self) -> tuple[int, int, int]:
        """How many of dense, sparse and coded columns."""
        dense, _, listed, codes = (0 if part is None else part.size for part in self._parts())
        return dense, listed, codes

    def types(self) -> tuple[str, ...]:
        """What the loops are compiled for."""
        parts = *self._parts(), self.rows.x_shift, self.rows.shift
        return tuple("" if part is None else part.dtype.char for part in parts)

    def _ranges(self) -> list[int]:
        """Where each thread begins: with equal numbers of rows or, where they are mostly sparse, of stored entries."""
        n, (dense, listed, codes) = self.block.rows, self._entries()
        if listed > dense + codes:
            indptr = self.rows.indptr
            wanted = indptr[-1] * np.arange(1, self.threads) // self.threads
            inner = np.searchsorted(indptr, wanted).tolist()
        else:
            inner = [n * t // self.threads for t in range(1, self.threads)]
        return [0, *inner, n]

    def lanes(self, lanes: Tensor | None, outputs: int) -> Any:
        """What each point takes of what rows have one of in every lane."""
        from torchlogit.kernels.numba_links import Lanes

        known = self._known_lanes
        if known is not None and known[0] is lanes:
            return known[1]
        block, alone = self.block, np.zeros(self.points, np.int64)
        lane = alone if lanes is None else _array(lanes.to(torch.int64))
        made = Lanes(
            self.target,
            self.weight,
            self.offset,
            alone if block.target.ndim == 1 else lane,
            alone if block.weight is None or block.weight.ndim == 1 else lane,
            alone if block.offset is None or block.offset.shape[1] == 1 else lane,
            outputs,
        )
        self._known_lanes = lanes, made
        return made

    def take_space(self) -> Any:
        """Room for a thread's batch: what another sweep gave back, or a new one."""
        from torchlogit.kernels.numba_rows import LINE, Space

        try:
            return self._spaces.pop()
        except IndexError:
            codes = 0 if self.rows.codes is None else self.rows.codes.shape[1]
            each = self.batch * (self.size if self.outputs == 1 else self.points)
            margin, loss, top, rest = np.empty((4, each))
            return Space(
                np.zeros(self.batch * self.size), np.ones(each), margin, loss, top, rest,
                np.empty(LINE), np.empty(codes, np.int64), np.arange(self.block.widths[0]), np.ones(codes),
            )  # fmt: skip

    def give_spaces(self, spaces: list[Any]) -> None:
        """Back, for the next sweep."""
        self._spaces += spaces


class _Sweep:
    """One block and one point, or several."""

    def __init__(self, kernel: NumbaKernel, block: Block, theta: Tensor, lanes: Tensor | None) -> None:
        self.kernel = kernel
        points, outputs, width = theta.shape
        self.layout = _Layout.of(kernel, block, points, outputs)
        self.wide, self.columns, self.size = points * outputs, width - 1, self.layout.size
        self.threads, self.kind = self.layout.threads, self.layout.kind
        self.lanes = self.layout.lanes(lanes, kernel.loss.outputs)
        self._coefficients: NDArray[Any] | None = None
        self.ahead = 8 * self.columns * self.size > _CACHED_TABLE

    def table(self, theta: Tensor) -> Any:
        """Coefficients of raw columns, contiguous over the outputs."""
        from torchlogit.kernels import numba_rows, numba_sweeps

        flat = _array(theta.reshape(-1, self.columns + 1).to(torch.float64))
        columns = self.kernel.take_room((self.columns, self.size), self.kind)
        constant = np.zeros(self.size)
        constant[: flat.shape[0]] = flat[:, -1]
        self._over_columns(numba_sweeps.write_table, flat, self.layout.scale, columns)
        self._coefficients = columns
        return numba_rows.Table(self._shaped(columns), constant, self.ahead)

    def _shaped(self, columns: NDArray[Any]) -> NDArray[Any]:
        """A vector for one output."""
        return columns[:, 0] if self.size == 1 else columns

    def sums(self) -> list[Any]:
        """A table for each thread, which clears it itself."""
        from torchlogit.kernels.numba_rows import Table

        room = self.kernel.take_room((self.threads, self.columns + -(-_APART // self.size), self.size), self.kind)
        columns, constant = room[:, : self.columns], _apart(self.threads, self.size)
        return [Table(self._shaped(columns[t]), constant[t], self.ahead) for t in range(self.threads)]

    def read(self, sums: list[Any], theta: Tensor, *, squared: bool = False) -> Tensor:
        """The threads' sums, added, in frame coordinates: ``(M, K, p + 1)``."""
        from torchlogit.kernels import numba_sweeps

        out = np.empty((self.wide, self.columns + 1))
        out[:, -1] = np.sum([part.constant[: self.wide] for part in sums], 0)
        tables = sums[0].columns.base
        self._over_columns(numba_sweeps.read_tables, tables, self.layout.scale, squared, out, at=2)
        self.kernel.give_room(tables)
        return _tensor(out).reshape(theta.shape)

    def run(self, name: str, rest: Callable[[int], tuple[Any, ...]]) -> None:
        """``sweep(rows, lanes, start, stop, batch, space, *rest(t))`` in every thread t."""
        from torchlogit.kernels import numba_sweeps

        loop = getattr(numba_sweeps, f"{name}_{'one' if self.size == 1 else 'many'}")
        layout, rows = self.layout, self.layout.rows
        spaces = [layout.take_space() for _ in range(self.threads)]
        arguments = [
            (rows, self.lanes, layout.ends[t], layout.ends[t + 1], layout.batch, spaces[t], *rest(t))
            for t in range(self.threads)
        ]
        make_ready(loop, layout.types(), (rows, self.lanes, 0, 0, *arguments[0][4:]))
        at_once([lambda own=own: loop(*own) for own in arguments])  # type: ignore[misc]
        layout.give_spaces(spaces)
        if self._coefficients is not None:
            self.kernel.give_room(self._coefficients)
            self._coefficients = None

    def _over_columns(self, loop: Callable[..., None], first: Any, *rest: Any, at: int = 2) -> None:
        """``loop(first, rest[0], start, stop, ...)`` over ranges of columns."""
        leading, trailing = (first, *rest[: at - 1]), rest[at - 1 :]
        make_ready(loop, (self.kind.char,), (*leading, 0, 0, *trailing))
        threads = self.threads if self.columns * self.size > _ELEMENTS_PER_THREAD // 4 else 1
        ends = [self.columns * t // threads for t in range(threads + 1)]
        at_once(
            [lambda t=t: loop(*leading, ends[t], ends[t + 1], *trailing) for t in range(threads)]  # type: ignore[misc]
        )


# -- columns of a block -----------------------------------------------------------------------------------------------


def dense_moments(block: Block, anchor: Tensor) -> tuple[Tensor, ...] | None:
    """Sums over dense columns, as `moments` wants them, or None where the loops do not apply.

    Returns
    -------
    held, first, second : Tensor of shape (1, p)
    largest : Tensor of shape (p,)
    stored : Tensor of shape (1, p)
    """
    x = block.dense
    if x is None or not _plain_weights(block) or x.dtype not in FLOATS or not x.is_contiguous():
        return None
    from torchlogit.kernels import numba_moments

    rows, weight, width = _array(x), _single_weight(block), x.shape[1]
    ends = _shares(block.rows, rows.size)
    sums = _apart(len(ends) - 1, 3, width)
    shift = _array(anchor)
    make_ready(
        numba_moments.dense_moments, (rows.dtype.char,), (rows, shift, weight, 0, 0, np.zeros((3, width)), sums[0])
    )
    at_once([
        lambda t=t: numba_moments.dense_moments(  # type: ignore[misc]
            rows, shift, weight, ends[t], ends[t + 1], np.zeros((3, width)), sums[t]
        )
        for t in range(len(sums))
    ])  # fmt: skip
    total = np.sum(sums, 0)
    held = float(weight.sum()) if weight.size else float(block.rows)
    return (
        torch.full((1, width), held, dtype=torch.float64), _tensor(total[0:1]), _tensor(total[1:2]),
        _tensor(np.max(sums, 0)[2]), torch.full((1, width), float(block.rows), dtype=torch.float64),
    )  # fmt: skip


def sparse_moments(block: Block, anchor: Tensor) -> tuple[Tensor, ...] | None:
    """The same over the stored values of sparse columns; None where a row is not in rising order, too."""
    rows = block.sparse
    if rows is None or not _plain_weights(block) or bool(anchor.any()):
        return None
    if rows.values.dtype not in FLOATS or rows.indices.dtype not in _INTEGERS:
        return None
    from torchlogit.kernels import numba_moments

    indptr, indices, values = (_array(part) for part in (rows.indptr.to(torch.int64), rows.indices, rows.values))
    weight = _single_weight(block)
    ends = _shares(block.rows, min(values.size, values.size**2 // max(4 * rows.columns, 1)))
    sums = [np.zeros((rows.columns, 5)) for _ in ends[1:]]
    loop = numba_moments.sparse_moments
    make_ready(loop, (indices.dtype.char, values.dtype.char), (indptr, indices, values, weight, 0, 0, sums[0]))
    rising = [False] * len(sums)

    def run(t: int) -> None:
        rising[t] = loop(indptr, indices, values, weight, ends[t], ends[t + 1], sums[t])

    at_once([partial(run, t) for t in range(len(sums))])
    if not all(rising):
        return None
    total = sums[0]
    for part in sums[1:]:  # in place: there may be many columns
        np.maximum(total[:, 3], part[:, 3], out=part[:, 3])
        total[:, 3] = 0
        total += part
    held, first, second, largest, stored = (_tensor(column.copy()) for column in total.T)
    return held[None], first[None], second[None], largest, stored[None]


# -- products of sparse rows ------------------------------------------------------------------------------------------


def sparse_product(
    indptr: NDArray[Any], indices: NDArray[Any], values: NDArray[Any], vector: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Sparse rows times a vector with SciPy's bits in less time, or None where that cannot be promised.

    None as well where an entry is in no column.

    Parameters
    ----------
    indptr : ndarray of shape (n + 1,)
        Rising.
    indices : ndarray of shape (nnz,)
    values : ndarray of shape (nnz,)
    vector : ndarray of shape (p,)
        Contiguous.

    Returns
    -------
    ndarray of shape (n,)
    """
    if not (_loaded() and _rounds_as_scipy()):
        return None
    return _sparse_product(indptr, indices, values, vector)


def _loaded() -> bool:
    """Whether something else has paid for Numba's import, which takes as long as products of 200 million entries."""
    return "torchlogit.kernels.numba_rows" in sys.modules


@cache
def _rounds_as_scipy() -> bool:
    """SciPy rounds a product and the sum that it joins once or twice, as its compiler liked for this processor."""
    random = np.random.default_rng(0)
    rows = scipy.sparse.csr_array(random.standard_normal((16, 64)))
    vector = random.standard_normal(64)
    product = _sparse_product(rows.indptr, rows.indices, rows.data, vector)
    return product is not None and bool((product == rows @ vector).all())


def _sparse_product(
    indptr: NDArray[Any], indices: NDArray[Any], values: NDArray[Any], vector: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    from torchlogit.kernels.numba_rows import checked_dots

    eta = np.zeros(len(indptr) - 1)
    indices = indices.view(f"u{indices.itemsize}")  # negative numbers are large ones without a sign
    types = tuple(part.dtype.char for part in (indptr, indices, values))
    make_ready(checked_dots, types, (indptr, indices, values, 0, 0, vector, eta))
    return eta if checked_dots(indptr, indices, values, 0, eta.size, vector, eta) else None


def _plain_weights(block: Block) -> bool:
    return block.device.type == "cpu" and (block.weight is None or block.weight.reshape(block.rows, -1).shape[1] == 1)


def _single_weight(block: Block) -> NDArray[np.float64]:
    """``(rows,)``, or nothing for ones."""
    return np.empty(0) if block.weight is None else _array(block.weight.to(torch.float64).reshape(-1))


def _shares(rows: int, elements: int) -> list[int]:
    """Where each thread's rows begin and end."""
    threads = max(1, min(workers(), elements // _ELEMENTS_PER_THREAD, rows))
    return [rows * t // threads for t in range(threads + 1)]


# -- small things -----------------------------------------------------------------------------------------------------


def _array(tensor: Tensor) -> NDArray[Any]:
    """The same memory as a contiguous array."""
    return tensor.detach().contiguous().numpy()


def _unless_zero(shift: NDArray[np.float64]) -> NDArray[np.float64] | None:
    return shift if shift.any() else None


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(array)


def _piece_rows(block: Block) -> int:
    """Rows that the torch kernel takes at a time."""
    stored = block.nbytes // (8 * max(block.rows, 1)) + 1
    return max(64, _PIECE_ELEMENTS // stored)


def _contiguous(block: Block) -> Iterator[Block]:
    """The block or, where dense rows do not lie one after the other, pieces of it whose copies stay in the cache."""
    rows = block.rows if block.dense is None or block.dense.is_contiguous() else _piece_rows(block)
    return block.cut(rows)


def _in_pieces(
    function: Callable[[Block, Tensor, Tensor | None], RowStats], block: Block, theta: Tensor, lanes: Tensor | None
) -> RowStats:
    """The torch kernel's sums, over blocks of the size that it wants."""
    if block.device.type != "cpu":
        return function(block, theta, lanes)
    return added_up(function(piece, theta, lanes) for piece in block.cut(_piece_rows(block)))


__all__ = ["DENSE_OUTPUTS", "NumbaKernel"]
