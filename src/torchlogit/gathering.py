"""The first read of lazy rows, which decides where they live: in memory, or in their files with a sample in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchlogit.available import give_back_free_memory, memory_budget
from torchlogit.moments import Moments, PassingMoments
from torchlogit.problem import Block, CodedColumns, joined
from torchlogit.rows import LazyRows, RowBatch
from torchlogit.sampling import sampled_rows
from torchlogit.sources.ahead import ahead
from torchlogit.sources.block_cache import BlockCache
from torchlogit.sources.streaming import Extent, Reading, Sample
from torchlogit.tensors import placeholder, sparse_rows, tensor_view
from torchlogit.threads import one_thread_each

# Shares of the memory that a fit may take: rows that stay there as a whole (a tenth of them are copied besides, for the
# sample of the solver), and the sample of rows that do not.
WHOLE, SAMPLE = 0.5, 0.4
# Beside its features, a row in memory has a class code of eight bytes, one of the sample its hash and number as well.
_CODE_BYTES, _SAMPLED_BYTES = 8, 24
# Pieces of the sample are joined until they are as long as this: every one costs a call a sweep.
_PIECE_BYTES = 8 << 20
# Bytes from which compiled loops are worth their loading.
_WORTH_LOOPS = 64 << 20


@dataclass(frozen=True)
class Stream:
    """Rows that stay in their files.

    Parameters
    ----------
    read : callable
        Begins a read of all rows; the blocks' targets are placeholders.
    extent : Extent
    sample : Sample
    moments : Moments, optional
        With the weights that the rows bring; None where another read must find them.
    """

    read: Reading
    extent: Extent
    sample: Sample
    moments: Moments | None


@dataclass(frozen=True)
class Gathered:
    """What the first read found.

    Parameters
    ----------
    parts : list of Block
        All rows, or those of the stream's sample.
    batches : list of RowBatch
        Labels, weights and offsets of all rows; none where there is a stream.
    rows : int
    stream : Stream, optional
    """

    parts: list[Block]
    batches: list[RowBatch]
    rows: int
    stream: Stream | None = None


@dataclass(slots=True)
class _Piece:
    """Rows of the sample with their hashes and their numbers over all files."""

    block: Block
    hashes: Tensor
    numbers: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes that it will take when its rows have their classes."""
        return self.block.nbytes + _SAMPLED_BYTES * self.block.rows

    def below(self, fraction: float, seed: int) -> _Piece:
        """Those whose hash is below ``fraction``."""
        index, hashes = sampled_rows(seed, 0, 0, self.block.rows, fraction, self.hashes)
        return _Piece(self.block.take(index), hashes, self.numbers[index])


def block_of(batch: RowBatch) -> Block:
    """The batch as tensors over its memory; its target is a placeholder, an offset is the same for each output."""
    return Block(
        placeholder(batch.rows),
        dense=None if batch.dense is None else tensor_view(batch.dense),
        sparse=None if batch.sparse is None else sparse_rows(batch.sparse),
        codes=None if batch.codes is None else CodedColumns(
            tensor_view(batch.codes), torch.tensor(batch.first, dtype=torch.int64), batch.coded_columns
        ),
        weight=None if batch.weight is None else tensor_view(batch.weight),
        offset=None if batch.offset is None else tensor_view(batch.offset)[:, None, None],
        file=batch.file,
        start=batch.start,
    )  # fmt: skip


def gather(rows: LazyRows, seed: int) -> Gathered:
    """Read all rows once.

    They stay in memory as long as they fit. From where they do not, a sample of them stays: the rows whose hash is
    below a fraction, which falls as more rows come, so that nothing need be known of how many there will be. The same
    read adds up the columns' moments and, of text, fills the cache.

    Parameters
    ----------
    rows : LazyRows
    seed : int
        Of the sample.
    """
    gatherer = _Gatherer(rows, seed)
    with one_thread_each():  # threads of torch, which wait in a loop, would take the decoder's time
        for batch in ahead(rows.numeric_batches):
            gatherer.add(batch)
        return gatherer.gathered()


class _Gatherer:
    def __init__(self, rows: LazyRows, seed: int) -> None:
        self._rows, self._seed = rows, seed
        memory = rows.residence.memory
        memory = memory_budget() if memory is None else memory
        self._most_whole, self._most_sampled = WHOLE * memory, SAMPLE * memory
        self._parts: list[Block] = []
        self._batches: list[RowBatch] = []
        self._pieces: list[_Piece] = []
        self._loose: list[_Piece] = []
        self._fraction = 1.0
        self._count = self._nbytes = self._held = self._loose_bytes = 0
        self._passing: PassingMoments | None = None
        self._cache: BlockCache | None = None

    def add(self, batch: RowBatch) -> None:
        """Take the next rows."""
        block, first = block_of(batch), self._count
        self._count += batch.rows
        self._nbytes += block.nbytes
        if self._passing is not None:
            self._pass_by(block, first)
            return
        self._parts.append(block)
        self._batches.append(replace(batch, dense=None, sparse=None, codes=None))
        if self._nbytes + _CODE_BYTES * self._count > self._most_whole:
            self._overflow()

    def _overflow(self) -> None:
        """From here on the rows pass by, those that are there already first."""
        compiled = self._nbytes >= _WORTH_LOOPS
        self._passing = PassingMoments(_anchor(self._parts), compiled=compiled)
        if self._rows.is_text and self._rows.residence.cache != 0:
            self._cache = BlockCache(self._rows.residence.cache, self._rows.residence.folder)
        self._fraction = self._smaller(self._nbytes / self._count + _SAMPLED_BYTES)
        self._batches, first = [], 0
        for i, block in enumerate(self._parts):
            self._pass_by(block, first)
            first += block.rows
            self._parts[i] = block.slice(0, 0)
        self._parts = []
        give_back_free_memory()

    def _pass_by(self, block: Block, first: int) -> None:
        assert self._passing is not None
        self._passing.add(block)
        if self._cache is not None and not self._cache.add(block):
            self._cache = None
        index, hashes = sampled_rows(self._seed, block.file, block.start, block.rows, self._fraction)
        piece = _Piece(block.take(index), hashes, index + first)
        self._loose.append(piece)
        self._held += piece.nbytes
        self._loose_bytes += piece.nbytes
        if self._loose_bytes > _PIECE_BYTES:
            self._join()
        while self._held > self._most_sampled:
            self._thin()

    def _join(self) -> None:
        """One piece of many."""
        if self._loose:
            hashes = torch.cat([piece.hashes for piece in self._loose])
            numbers = torch.cat([piece.numbers for piece in self._loose])
            self._pieces.append(_Piece(joined([piece.block for piece in self._loose]), hashes, numbers))
        self._loose, self._loose_bytes = [], 0

    def _thin(self) -> None:
        """A smaller sample."""
        self._join()
        sampled = sum(piece.block.rows for piece in self._pieces)
        self._fraction = self._smaller(self._held / max(sampled, 1))
        for i, piece in enumerate(self._pieces):
            self._pieces[i] = piece.below(self._fraction, self._seed)
        self._held = sum(piece.nbytes for piece in self._pieces)
        give_back_free_memory()

    def _smaller(self, row_bytes: float) -> float:
        """A fraction at most half of the last one, with which all rows will fit if their number is known."""
        known = self._rows.known_rows()
        fitting = 1.0 if not known else 0.95 * self._most_sampled / (row_bytes * known)
        return min(0.5 * self._fraction, fitting)

    def gathered(self) -> Gathered:
        """All that was found."""
        if self._passing is None:
            return Gathered(self._parts, self._batches, self._count)
        self._join()
        pieces = self._pieces
        parts = [piece.block for piece in pieces]
        sample = Sample(
            parts,
            [piece.hashes.numpy() for piece in pieces],
            [piece.numbers.numpy() for piece in pieces],
            self._fraction,
            self._seed,
        )
        give_back_free_memory()
        extent = Extent(self._count, self._nbytes, parts[0].widths, parts[0].dtype)
        read = _decoded(self._rows) if self._cache is None else self._cache.blocks
        return Gathered(parts, [], self._count, Stream(read, extent, sample, self._passing.moments()))


def _decoded(rows: LazyRows) -> Reading:
    def read() -> Iterator[Block]:
        for batch in rows.numeric_batches():
            yield block_of(batch)

    return read


def _anchor(parts: list[Block]) -> Tensor:
    """The mean of the dense columns, so far; zero elsewhere."""
    dense = parts[0].widths[0]
    anchor = torch.zeros(parts[0].features, dtype=torch.float64)
    rows = sum(part.rows for part in parts)
    for part in parts:
        if part.dense is not None:
            anchor[:dense] += part.dense.sum(0, dtype=torch.float64) / rows
    return torch.where(torch.isfinite(anchor), anchor, 0.0)


def weights_of(rows: LazyRows) -> NDArray[np.float64]:
    """The weights that the rows bring, in a read of its own."""
    pieces: list[Any] = [batch.weight for batch in ahead(rows.numeric_batches) if batch.weight is not None]
    return np.concatenate(pieces)
