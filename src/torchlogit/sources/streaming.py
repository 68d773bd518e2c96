"""Rows that do not fit into memory: read again for every sweep, with a resident subsample beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from torchlogit.problem import Block
from torchlogit.sampling import sampled_rows
from torchlogit.sources.ahead import ahead
from torchlogit.sources.memory import MemorySource

Reading = Callable[[], Iterator[Block]]


@dataclass(frozen=True)
class RowState:
    """What is known of every row besides its features, and joins the blocks when they are read.

    Parameters
    ----------
    codes : ndarray of shape (n,), integer
        Class codes, in as few bytes as they need.
    weight : ndarray of shape (n,), float64, optional
        In place of the weights that the rows bring.
    offset : ndarray of shape (n, K), float64, optional
        In place of the offsets that the rows bring.
    outputs : int, default=1
        K.
    """

    codes: NDArray[np.integer]
    weight: NDArray[np.float64] | None = None
    offset: NDArray[np.float64] | None = None
    outputs: int = 1

    def of(self, block: Block, rows: slice | NDArray[np.int64]) -> Block:
        """The block with the state of these rows (numbers over all files)."""
        weight, offset = block.weight, block.offset
        if self.weight is not None:
            weight = torch.from_numpy(self.weight[rows])
        if self.offset is not None:
            offset = torch.from_numpy(self.offset[rows][:, None])
        elif offset is not None:
            offset = offset.expand(block.rows, 1, self.outputs).contiguous()
        target = torch.from_numpy(self.codes[rows].astype(np.int64))
        return replace(block, target=target, weight=weight, offset=offset)


@dataclass(frozen=True)
class Sample:
    """The rows whose hash is below ``fraction``, in memory.

    Parameters
    ----------
    parts : list of Block
        Their targets are placeholders.
    hashes, numbers : list of ndarray
        Hash, and number over all files, of each row.
    fraction : float
    seed : int
    """

    parts: list[Block]
    hashes: list[NDArray[np.float64]]
    numbers: list[NDArray[np.int64]]
    fraction: float
    seed: int


@dataclass(frozen=True)
class Extent:
    """How much there is to read.

    Parameters
    ----------
    rows : int
    nbytes : int
        Bytes of features that one read moves.
    widths : tuple of int
        Dense, sparse and coded columns.
    dtype : torch.dtype
    """

    rows: int
    nbytes: int
    widths: tuple[int, int, int]
    dtype: torch.dtype


@dataclass(slots=True)
class Pass:
    """A read that is under way, for whoever watches."""

    number: int
    rows: int
    total: int
    nbytes: float
    seconds: float


class StreamSource:
    """Rows that are read whenever they are needed, decoded ahead of the computation.

    Parameters
    ----------
    read : callable
        Begins a read of all rows; blocks may be of any size.
    extent : Extent
    state : RowState
    sample : Sample
    moments : object, optional
        The columns' moments, if a read has found them already; whoever wants them knows what they are.
    """

    resident = False

    def __init__(
        self, read: Reading, extent: Extent, state: RowState, sample: Sample, moments: object | None = None
    ) -> None:
        self._read, self._state, self._extent, self._sample = read, state, extent, sample
        self.moments = moments
        self.rows = extent.rows
        self.features = sum(extent.widths)
        self.watch: Callable[[Pass], None] | None = None
        self._begun = 1  # the read that found out how much there is
        parts = [state.of(part, rows) for part, rows in zip(sample.parts, sample.numbers, strict=True)]
        self._resident = MemorySource(parts, state.outputs, [torch.from_numpy(own) for own in sample.hashes])

    @property
    def like(self) -> Block:
        """Some rows, of the same columns."""
        return self._resident.parts[0]

    @property
    def most_sampled(self) -> float:
        """The largest fraction of all rows that a subsample may be."""
        return self._sample.fraction

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the rows."""
        return self._extent.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that one read of the features moves."""
        return self._extent.nbytes

    @property
    def widths(self) -> tuple[int, int, int]:
        """Number of dense, sparse and coded columns."""
        return self._extent.widths

    def blocks(self, rows: int | None = None) -> Iterator[Block]:
        """All rows, in order, in blocks of at most ``rows``; None: as they were written."""
        self._begun += 1
        began, done, number = time.perf_counter(), 0, self._begun
        for block in ahead(partial(self._numbered, rows)):
            yield block
            done += block.rows
            if self.watch is not None:
                moved = self.nbytes * (done / self.rows)
                self.watch(Pass(number, done, self.rows, moved, time.perf_counter() - began))

    def _numbered(self, rows: int | None) -> Iterator[Block]:
        start = 0
        for block in self._read():
            whole = self._state.of(block, slice(start, start + block.rows))
            start += block.rows
            yield from whole.cut(rows or whole.rows)

    def subsample(self, fraction: float, seed: int, dtype: torch.dtype | None = None) -> MemorySource:
        """The rows whose hash is below ``fraction``: from memory as far as they are there, never more than fit.

        With another seed than that of the resident rows it takes a read, and the caller answers for the memory.
        """
        if seed == self._sample.seed:
            whole = fraction >= self._sample.fraction and dtype in (None, self.dtype)
            return self._resident if whole else self._resident.subsample(fraction, seed, dtype)
        chosen, hashes = [], []
        for block in self.blocks():
            index, below = sampled_rows(seed, block.file, block.start, block.rows, fraction)
            chosen.append(block.take(index, dtype))
            hashes.append(below)
        return MemorySource(chosen, self._state.outputs, hashes)
