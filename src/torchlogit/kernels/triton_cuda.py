"""The kernel for dense rows and two classes on a CUDA device: loss, slope and gradient in one read of the rows.

Triton itself is imported when the first block is swept (see ``triton_rows``). What matrix products are for (many
points, second derivatives, many classes), sparse rows and categories are left to the torch kernel, in pieces.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from torchlogit.kernels.torch_device import TorchKernel, _lanes, added_up
from torchlogit.losses import Loss
from torchlogit.problem import Block, Frame, RowStats

# Points swept together; more are matrix products.
MOST_POINTS = 8
# Rows of a chunk: no more than that their bytes, times the programs, fit the second-level cache of large devices (32 of
# 40 MiB or more), so that rows come from memory once.
_WARPS, _LONGEST_CHUNK, _SHORTEST_CHUNK, _CHUNK_BYTES = 4, 64, 4, 65_536
# Programs, by the shape alone: the sums are the same however many a device runs at once.
_PROGRAMS = 512
# Elements of a chunk that are read at once, 16 for every thread: more need too many registers in float64.
_TILE = 2048
# Elements of the programs' sums.
_SUMS = 16_777_216
# Row numbers, and strides between programs, must fit an int32.
_MOST_ROWS = 2**30
# Scales that coefficients and sums can be divided by in float32.
_LEAST_SCALE, _LARGEST_SCALE = 1e-12, 1e12
# Elements of a block handed to the torch kernel: `MemorySource`'s own choice.
_PIECE_ELEMENTS, _PIECE_ROWS = 64_000_000, 65_536

_FLOATS = (torch.float32, torch.float64)


def installed() -> bool:
    """Whether there is a Triton to import."""
    return importlib.util.find_spec("triton") is not None


def device_kernel(block: Block, loss: Loss, lanes: int) -> tuple[str, str]:
    """The kernel for rows like these on a device that is no CPU, and why."""
    here = f"the rows are on {block.device}"
    if block.device.type != "cuda" or loss.outputs > 1 or lanes > MOST_POINTS:
        return "torch", here
    if block.dense is None or block.sparse is not None or block.codes is not None or block.dtype not in _FLOATS:
        return "torch", here
    if not installed():
        return "torch", f"{here}, and Triton, whose loops would read them once, is not installed"
    return "triton", f"{here}, dense and of two classes: fused loops read them once a pass"


class TritonKernel(TorchKernel):
    """Sums by fused loops on a CUDA device; the torch kernel where those do not apply.

    Parameters
    ----------
    loss : Loss
    frame : Frame
    dtype : torch.dtype, default=torch.float64
        Of products. What a row has only one of, and all sums beyond a tile of rows, are float64.
    """

    block_rows: int | None = 2**62  # as many as there are: a launch for each block would cost more than its rows

    def __init__(self, loss: Loss, frame: Frame, dtype: torch.dtype = torch.float64) -> None:
        super().__init__(loss, frame, dtype)
        self._moderate = bool(((frame.scale >= _LEAST_SCALE) & (frame.scale <= _LARGEST_SCALE)).all())

    def rounded(self) -> TorchKernel:
        """The same with products in float32."""
        if self._rounded is None and self.dtype != torch.float32:
            self._rounded = TritonKernel(self.loss, self.frame, torch.float32)
        return self._rounded or self

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
        if block.dense is None or block.sparse is not None or block.codes is not None:
            return False
        if block.dense.dtype not in _FLOATS or not 0 < block.rows <= _MOST_ROWS or not block.dense.shape[1]:
            return False
        if self.loss.outputs != 1 or theta.shape[0] > MOST_POINTS or not self._moderate:
            return False
        return installed() and (block.device.type == "cuda" or _interpreted(block.device))


def _interpreted(device: torch.device) -> bool:
    """On a CPU, Triton's interpreter runs the loops, slowly: for tests."""
    return device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"


@dataclass(frozen=True)
class Shape:
    """How a block is cut: by its shape alone."""

    points: int
    columns: int
    programs: int
    chunk: int
    tile_columns: int

    @classmethod
    def of(cls, dense: Tensor, points: int) -> Shape:
        """For products at so many points."""
        rows, columns = dense.shape
        fitting = _CHUNK_BYTES // (columns * dense.itemsize)
        chunk = 1 << (min(_LONGEST_CHUNK, max(_SHORTEST_CHUNK, fitting)).bit_length() - 1)
        programs = max(1, min(_PROGRAMS, _SUMS // (points * columns), -(-rows // chunk)))
        return cls(points, columns, programs, chunk, min(_TILE // chunk, max(16, _power_of_two(columns))))


class _Sweep:
    """One block, laid out for the loops, and what they have added up."""

    def __init__(
        self, kernel: TritonKernel, block: Block, theta: Tensor, lanes: Tensor | None, direction: Tensor | None = None
    ) -> None:
        assert block.dense is not None
        self.kernel, self.block, self.dense, self.curved = kernel, block, block.dense, direction is not None
        self.shape = shape = Shape.of(block.dense, theta.shape[0])
        self.lanes = _lanes(lanes, shape.points, block.device)
        self.sums = self._room(torch.zeros, shape.points, shape.columns)
        self.totals = self._room(torch.empty, 4, shape.points)
        self._run(theta, theta if direction is None else direction)
        self.weight, self.loss, level = self.totals[:, :3].sum(0)
        self.margin = self.totals[:, 3].amin(0)
        columns = self.sums.sum(0) / kernel.frame.scale
        self.columns = torch.cat([columns, level[:, None]], dim=1)[:, None]  # (M, 1, p + 1)

    def _room(self, make: Callable[..., Tensor], *shape: int) -> Tensor:
        """For every program."""
        return make(self.shape.programs, *shape, dtype=torch.float64, device=self.block.device)

    def _run(self, theta: Tensor, direction: Tensor) -> None:
        from torchlogit.kernels.triton_rows import sweep

        shape, block, dense, kernel = self.shape, self.block, self.dense, self.kernel
        absent = (self.totals, 0, 0)
        with self._device():
            sweep[(shape.programs,)](
                dense, *dense.stride(),
                block.target, *_strides(block.target),
                *(absent if block.weight is None else (block.weight, *_strides(block.weight))),
                *(absent if block.offset is None else (block.offset, *_strides(block.offset))),
                self.lanes, *self._vectors(theta), *self._vectors(direction), *self._shift(),
                self._room(torch.empty, 2, shape.chunk), self.sums, self.totals,
                block.rows, shape.columns, shape.points, CHUNK=shape.chunk, COLUMNS=shape.tile_columns,
                POINTS=_power_of_two(shape.points), CURVED=self.curved, WEIGHTED=block.weight is not None,
                OFFSET=block.offset is not None, FRAMED=kernel._is_framed(0, shape.columns), num_warps=_WARPS,
            )  # fmt: skip

    def _device(self) -> AbstractContextManager[object]:
        """Loops are launched on the current device."""
        return torch.cuda.device(self.block.device) if self.block.device.type == "cuda" else nullcontext()

    def _vectors(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients ``(M, p)`` of columns that are only shifted, in the products' dtype, and intercepts."""
        flat = theta[:, 0].to(torch.float64)
        return (flat[:, :-1] / self.kernel.frame.scale).to(self.kernel.dtype).contiguous(), flat[:, -1].contiguous()

    def _shift(self) -> tuple[Tensor, Tensor]:
        """What is taken off the columns, in two parts that stored and wanted numbers have room for."""
        single = self.dense.dtype == self.kernel.dtype == torch.float32
        shift = self.kernel.frame.shift
        first = shift.to(torch.float32 if single else torch.float64)
        return first, (shift - first).to(first.dtype)


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


__all__ = ["MOST_POINTS", "TritonKernel", "device_kernel", "installed"]
