"""The kernel for dense rows and two classes on a CUDA device: loss, slope and gradient in one read of the rows.

Triton itself is imported when the first block is swept (see ``triton_rows``). What matrix products are for (many
points, second derivatives, many classes), sparse rows and categories are left to the torch kernel, in pieces.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from torchlogit.kernels.torch_device import TorchKernel, _lanes, added_up
from torchlogit.losses import Loss
from torchlogit.problem import Block, Frame, RowStats

# Points swept together; more are matrix products.
MOST_POINTS = 8
# A program is one warp, so that nothing waits for other warps, and has a row for each of its threads. A row of a tile
# is a line of the cache.
_WARPS, _CHUNK, _LINE_BYTES = 1, 32, 128
# Tiles that the registers of a warp hold, in the dtype of the rows: with 1e7 rows of 100 float32 columns an H200 takes
# 1.05 ms so, 1.33 reading them twice. Held in float64, float32 rows are spilt. Of float64, twice as many of fewer rows
# are still worth it (5e6 rows of 100 columns: 1.49 ms, 2.62 reading them twice); of float32 they are not (4e6 rows of
# 200: 1.51, 1.47).
_HELD_STRIPS, _DOUBLE_STRIPS, _FEWER_ROWS = 4, 8, 8
# Bytes that a thread reads at once, where rows are as long as a multiple of them.
_VECTOR_BYTES = 16
# Programs. Those that hold rows take the registers of a multiprocessor by eight to twenty, so there are about as many
# as run at once (3e7 rows of 20 float32 columns: 1.58 ms by eight, 0.99 by sixteen): the same number, and the same
# bits, on the same device. Of the others there are more than any device runs.
_HELD_AT_ONCE, _PROGRAMS = 16, 16_384
# Those that add up columns' moments, tiles of columns counted apart.
_MOMENTS_AT_ONCE = 16
# Elements of the programs' sums.
_SUMS = 16_777_216
# The first Triton whose language has what the loops are written in.
_OLDEST = (3, 4)
# Row numbers must fit an int32.
MOST_ROWS = 2**30
# Rows from which rounding in float32 products averages out, and the certificate that it leaves alone: each row's
# predictor is off by 1e-7 or so, at random, so the mean gradient is by 1e-7 over the root of their number.
_SINGLE_ROWS, _SINGLE_TOL = 100_000, 1e-7
# Scales that coefficients and sums can be divided by in float32.
_LEAST_SCALE, _LARGEST_SCALE = 1e-12, 1e12
# Elements of a block handed to the torch kernel: `MemorySource`'s own choice.
_PIECE_ELEMENTS, _PIECE_ROWS = 64_000_000, 65_536

_FLOATS = (torch.float32, torch.float64)


@cache
def installed() -> bool:
    """Whether there is a Triton to import, and not too old a one."""
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:  # a build of its own, which nothing else is known of
        return True
    return tuple(int(part) for part in version.split(".")[:2]) >= _OLDEST


def sweep_dtype(dtype: torch.dtype, rows: int, tol: float) -> torch.dtype:
    """Of the products in loops over rows of a dtype: float32 where that is theirs and the certificate cannot see it."""
    single = dtype == torch.float32 and rows >= _SINGLE_ROWS and tol >= _SINGLE_TOL
    return torch.float32 if single else torch.float64


def device_kernel(block: Block, loss: Loss, lanes: int) -> tuple[str, str]:
    """The kernel for rows like these on a device that is no CPU, and why."""
    here = f"the rows are on {block.device}"
    if block.device.type != "cuda" or loss.outputs > 1 or lanes > MOST_POINTS:
        return "torch", here
    if block.dense is None or block.sparse is not None or block.codes is not None or block.dtype not in _FLOATS:
        return "torch", here
    if not installed():
        return "torch", f"{here}, and Triton (3.4 or later), whose loops would read them once, is not installed"
    return "triton", f"{here}, dense and of two classes: fused loops read them once a pass"


class TritonKernel(TorchKernel):
    """Sums by fused loops on a CUDA device; the torch kernel where those do not apply.

    Parameters
    ----------
    loss : Loss
    frame : Frame
    dtype : torch.dtype, default=torch.float64
        Of products. What a row has only one of, and all sums beyond a tile of rows, are float64.
    sweep_dtype : torch.dtype, optional
        Of products in the loops; None for ``dtype``. The point is not rounded to it.
    """

    block_rows: int | None = 2**62  # as many as there are: a launch for each block would cost more than its rows

    def __init__(
        self,
        loss: Loss,
        frame: Frame,
        dtype: torch.dtype = torch.float64,
        sweep_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(loss, frame, dtype)
        self.sweep_dtype = sweep_dtype or dtype
        self._shifts: dict[torch.dtype, tuple[Tensor, Tensor]] = {}
        self._moderate = bool(((frame.scale >= _LEAST_SCALE) & (frame.scale <= _LARGEST_SCALE)).all())

    def rounded(self, *, short: bool = False) -> TorchKernel:
        """The same with products in float32: the loops wait for memory, not for arithmetic."""
        if self.dtype == torch.float32:
            return self
        if not self._rounded:
            self._rounded[False] = TritonKernel(self.loss, self.frame, torch.float32)
        return self._rounded[False]

    def value_gradient(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> RowStats:
        """Sums of loss and gradient, and the smallest margin."""
        if not self._takes(block, theta):
            own = super().value_gradient
            return added_up(own(piece, theta, lanes) for piece in _pieces(block))
        swept = _Sweep(self, block, theta, lanes)
        return RowStats(block.rows, swept.weight, swept.loss, swept.columns, swept.margin)

    def row_curvature(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> tuple[Tensor, ...]:
        """Nothing where rows are swept: their predictors cost no further read."""
        if self._takes(block, theta):
            return ()
        own = super().row_curvature
        parts = [own(piece, theta, lanes) for piece in _pieces(block)]
        return parts[0] if len(parts) == 1 else tuple(torch.cat(kept) for kept in zip(*parts, strict=True))

    def curvature_product(
        self,
        block: Block,
        theta: Tensor,
        direction: Tensor,
        lanes: Tensor | None = None,
        curvature: tuple[Tensor, ...] | None = None,
    ) -> RowStats:
        """Sum of the rows' curvature times ``direction``."""
        if self._takes(block, theta):
            swept = _Sweep(self, block, theta, lanes, direction)
            return RowStats(block.rows, swept.weight, product=swept.columns)
        start, stats = 0, []
        for piece in _pieces(block):
            kept = None if curvature is None else tuple(part[start : start + piece.rows] for part in curvature)
            stats.append(super().curvature_product(piece, theta, direction, lanes, kept))
            start += piece.rows
        return added_up(stats)

    def gram_diagonal(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> RowStats:
        """Diagonal of the curvature, and its column of the intercept (class by class)."""
        own = super().gram_diagonal
        return added_up(own(piece, theta, lanes) for piece in _pieces(block))

    def _takes(self, block: Block, theta: Tensor) -> bool:
        """Whether these rows can be swept."""
        if block.sparse is not None or block.codes is not None:
            return False
        if self.loss.outputs != 1 or theta.shape[0] > MOST_POINTS or not self._moderate:
            return False
        return _within_reach(block.dense)


def _within_reach(dense: Tensor | None) -> bool:
    """Whether loops can read these rows."""
    if dense is None or dense.dtype not in _FLOATS or not 0 < dense.shape[0] <= MOST_ROWS or not dense.shape[1]:
        return False
    return installed() and (dense.device.type == "cuda" or _interpreted(dense.device))


def _interpreted(device: torch.device) -> bool:
    """On a CPU, Triton's interpreter runs the loops, slowly: for tests."""
    return device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"


@dataclass(frozen=True)
class Shape:
    """How a block is cut: by its shape, its products' dtype and its device."""

    points: int
    columns: int
    programs: int
    tile_columns: int
    vector: int
    strips: int = 0  # where the rows are held in registers
    chunk: int = _CHUNK

    @classmethod
    def of(cls, dense: Tensor, points: int, dtype: torch.dtype, *, curved: bool = False) -> Shape:
        """For products at so many points."""
        rows, columns = dense.shape
        tile_columns, chunk = _LINE_BYTES // dense.itemsize, _CHUNK
        strips = -(-columns // tile_columns)
        most = _HELD_STRIPS if dense.dtype == torch.float32 else _DOUBLE_STRIPS
        if points == 1 and not curved and strips <= most and dtype.itemsize <= dense.itemsize:
            chunk = _CHUNK if strips <= _HELD_STRIPS else _FEWER_ROWS
            programs = _HELD_AT_ONCE * _multiprocessors(dense.device)
        else:
            strips = 0
            programs = min(_PROGRAMS, max(1, _SUMS // (points * columns)))
        programs = min(programs, -(-rows // chunk))
        return cls(points, columns, programs, tile_columns, _vector(dense), strips, chunk)


@cache
def _multiprocessors(device: torch.device) -> int:
    """Of a device; one where the interpreter runs the loops."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count) if device.type == "cuda" else 1


class _Sweep:
    """One block, laid out for the loops, and what they have added up."""

    def __init__(
        self, kernel: TritonKernel, block: Block, theta: Tensor, lanes: Tensor | None, direction: Tensor | None = None
    ) -> None:
        assert block.dense is not None
        self.kernel, self.block, self.dense = kernel, block, block.dense
        self.shape = shape = Shape.of(block.dense, theta.shape[0], kernel.sweep_dtype, curved=direction is not None)
        place, number = block.device, torch.float64
        self.sums = torch.empty(shape.programs, shape.points, shape.columns, dtype=number, device=place)
        if not shape.strips:
            self.sums.zero_()
        self.totals = torch.empty(shape.programs, 4, shape.points, dtype=number, device=place)
        self._run(theta, direction, _lanes(lanes, shape.points, block.device))
        self.weight, self.loss, level = self.totals[:, :3].sum(0)
        self.margin = self.totals[:, 3].amin(0)
        columns = self._over_scale(self.sums.sum(0))
        self.columns = torch.cat([columns, level[:, None]], dim=1)[:, None]  # (M, 1, p + 1)

    def _run(self, theta: Tensor, direction: Tensor | None, lanes: Tensor) -> None:
        from torchlogit.kernels.triton_rows import language_dtype, sweep, sweep_held

        shape, block, dense, kernel = self.shape, self.block, self.dense, self.kernel
        absent = (self.totals, 0, 0)
        rows = (
            dense, dense.stride(0) // shape.vector, dense.stride(1),
            block.target, *_strides(block.target),
            *(absent if block.weight is None else (block.weight, *_strides(block.weight))),
            *(absent if block.offset is None else (block.offset, *_strides(block.offset))),
            lanes, *self._vectors(theta),
        )  # fmt: skip
        wanted = (*self._shift(), self.sums, self.totals, block.rows, shape.columns // shape.vector)
        how: dict[str, Any] = {
            "CHUNK": shape.chunk, "COLUMNS": shape.tile_columns, "VECTOR": shape.vector,
            "WEIGHTED": block.weight is not None, "OFFSET": block.offset is not None,
            "FRAMED": kernel._is_framed(0, shape.columns), "DTYPE": language_dtype(kernel.sweep_dtype),
            "num_warps": _WARPS,
        }  # fmt: skip
        with _current(block.device):
            if shape.strips:
                sweep_held[(shape.programs,)](*rows, *wanted, STRIPS=shape.strips, **how)
                return
            sweep[(shape.programs,)](
                *rows, *self._vectors(theta if direction is None else direction), *wanted, shape.points,
                POINTS=_power_of_two(shape.points), CURVED=direction is not None, **how,
            )  # fmt: skip

    def _over_scale(self, values: Tensor) -> Tensor:
        """Coefficients or their sums, of columns that are only shifted."""
        kernel = self.kernel
        return values / kernel.frame.scale if kernel._is_framed(0, self.shape.columns) else values

    def _vectors(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients ``(M, p)`` of columns that are only shifted, and intercepts."""
        flat = theta[:, 0].to(torch.float64)
        return self._over_scale(flat[:, :-1]).contiguous(), flat[:, -1].contiguous()

    def _shift(self) -> tuple[Tensor, Tensor]:
        """What is taken off the columns, in two parts that stored and wanted numbers have room for."""
        kernel = self.kernel
        dtype = torch.float32 if self.dense.dtype == kernel.sweep_dtype == torch.float32 else torch.float64
        if dtype not in kernel._shifts:
            first = kernel.frame.shift.to(dtype)
            kernel._shifts[dtype] = first, (kernel.frame.shift - first).to(dtype)
        return kernel._shifts[dtype]


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Loops are launched on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _vector(dense: Tensor) -> int:
    """Elements of these rows that a thread reads at once."""
    vector = _VECTOR_BYTES // dense.itemsize
    odd = dense.shape[1] % vector or dense.stride(0) % vector or dense.stride(1) != 1
    return 1 if odd else vector


def dense_moments(block: Block, anchor: Tensor) -> tuple[Tensor, ...] | None:
    """Sums over dense columns as `numba_cpu.dense_moments` finds them, or None where the loops do not apply."""
    x, weight = block.dense, block.weight
    if x is None or not _within_reach(x) or (weight is not None and weight.reshape(block.rows, -1).shape[1] > 1):
        return None
    from torchlogit.kernels.triton_rows import column_moments

    columns, tile_columns, vector = x.shape[1], _LINE_BYTES // x.itemsize, _vector(x)
    tiles = -(-columns // tile_columns)
    programs = min(-(-_MOMENTS_AT_ONCE * _multiprocessors(x.device) // tiles), -(-block.rows // _CHUNK))
    sums = torch.empty(programs, 3, columns, dtype=torch.float64, device=x.device)
    weights = (sums, 0) if weight is None else (weight, weight.stride(0))
    with _current(x.device):
        column_moments[(programs, tiles)](
            x, x.stride(0) // vector, x.stride(1), *weights, anchor, sums, block.rows, columns // vector,
            CHUNK=_CHUNK, COLUMNS=tile_columns, VECTOR=vector, WEIGHTED=weight is not None, num_warps=_WARPS,
        )  # fmt: skip
    total = sums[:, :2].sum(0)
    held = total.new_full((1, 1), float(block.rows)) if weight is None else weight.to(total.dtype).sum().reshape(1, 1)
    stored = total.new_full((1, columns), float(block.rows))
    return held.expand(1, columns), total[:1], total[1:], sums[:, 2].amax(0), stored


def _strides(tensor: Tensor) -> tuple[int, int]:
    """From row to row and from lane to lane; none where all lanes share what is there."""
    shared = tensor.ndim == 1 or tensor.shape[1] == 1
    return tensor.stride(0), 0 if shared else tensor.stride(1)


def _pieces(block: Block) -> Iterator[Block]:
    """The block, cut for the torch kernel."""
    stored = block.nbytes // (8 * max(block.rows, 1)) + 1
    return block.cut(max(64, min(_PIECE_ROWS, _PIECE_ELEMENTS // stored)))


def _power_of_two(number: int) -> int:
    """The next one."""
    return 1 << (number - 1).bit_length()


__all__ = ["MOST_POINTS", "MOST_ROWS", "TritonKernel", "dense_moments", "device_kernel", "installed", "sweep_dtype"]
