"""Rows of which this process has a part, and other processes the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from torchlogit.comm import ALONE, Communicator
from torchlogit.problem import Block, CodedColumns, SparseRows
from torchlogit.sources.memory import MemorySource
from torchlogit.sources.streaming import StreamSource

# Rows that take no more than this in all are given to every process: nothing is exchanged for them afterwards. More
# take longer to send than sums over them (40 MB among processes of one machine: 0.14 s, a sum 0.3 ms).
GATHERED_BYTES = 4 << 20
# What is gathered of more rows, where a part of them will do.
_RESIDENT_BYTES = 256 << 20


class Shard:
    """The rows of one process, among those of all.

    ``rows`` and ``nbytes`` are of all processes, ``blocks`` are this one's.

    Parameters
    ----------
    own : MemorySource or StreamSource
        The rows of all processes follow each other in order of rank, and are numbered so.
    communicator : Communicator
    """

    def __init__(self, own: MemorySource | StreamSource, communicator: Communicator) -> None:
        self.own, self.communicator = own, communicator
        facts = communicator.gathered(lambda: (own.rows, own.nbytes, own.most_sampled))
        self.rows = sum(rows for rows, _, _ in facts)
        self._nbytes = sum(nbytes for _, nbytes, _ in facts)
        # Where some keep a sample only, no more of the others' rows is drawn.
        self.most_sampled = min(sampled for _, _, sampled in facts)
        self.resident = self.most_sampled == 1
        self.features = own.features
        self._absent = _absent_row(own.like)
        self._gathered: MemorySource | None = None

    @property
    def device(self) -> torch.device:
        """Where this process's rows live."""
        return self.own.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the rows."""
        return self.own.dtype

    @property
    def widths(self) -> tuple[int, int, int]:
        """Number of dense, sparse and coded columns."""
        return self.own.widths

    @property
    def nbytes(self) -> int:
        """Bytes that one read moves, in all processes."""
        return self._nbytes

    @property
    def absent(self) -> Block:
        """A row that does not count, of the same columns."""
        return self._absent

    def blocks(self, rows: int | None = None) -> Iterator[Block]:
        """The rows of this process; where it has none, one that does not count."""
        if self.own.rows:
            yield from self.own.blocks(rows)
        else:
            yield self._absent

    def subsample(
        self, fraction: float, seed: int, dtype: torch.dtype | None = None
    ) -> MemorySource | StreamSource | Shard:
        """The rows whose hash is below ``fraction``, shared as all are; where they are few, all in every process."""
        return shared(self.own.subsample(min(fraction, self.most_sampled), seed, dtype), self.communicator)

    def held(self) -> MemorySource:
        """As many rows as may be gathered: all, or a subsample."""
        if self._gathered is None:
            fraction = min(self.most_sampled, _RESIDENT_BYTES / max(self._nbytes, 1))
            self._gathered = gathered(self.own.subsample(fraction, 0), self.communicator)
        return self._gathered


def shared(own: MemorySource | StreamSource, communicator: Communicator) -> MemorySource | StreamSource | Shard:
    """The rows of all processes, as a fit sees them in each: gathered where they are few."""
    if communicator.world == 1:
        return own
    shard = Shard(own, communicator)
    few = shard.resident and shard.nbytes <= GATHERED_BYTES
    return gathered(own, communicator) if few and isinstance(own, MemorySource) else shard


def communicator_of(source: object) -> Communicator:
    """Whom the rows are shared with."""
    return source.communicator if isinstance(source, Shard) else ALONE


def resident(source: Any) -> Any:
    """Rows that this process can read by itself: the source's own, or what may be gathered of a shard's."""
    return source.held() if isinstance(source, Shard) else source


def gathered(own: MemorySource, communicator: Communicator) -> MemorySource:
    """The rows of all processes, in order of rank."""
    pieces = communicator.gathered(lambda: [_packed(part) for part in own.parts if part.rows])
    device = own.device
    parts = [_unpacked(piece, device) for pieces_of_one in pieces for piece in pieces_of_one]
    return MemorySource(parts or own.parts, own.outputs)


def _packed(block: Block) -> dict[str, Any]:
    """A block as host tensors of their own memory."""
    packed: dict[str, Any] = {"file": block.file, "start": block.start}
    for name in ("target", "dense", "weight", "offset"):
        value = getattr(block, name)
        packed[name] = None if value is None else value.detach().cpu().numpy()
    if block.sparse is not None:
        sparse = block.sparse
        packed["sparse"] = (
            [part.detach().cpu().numpy() for part in (sparse.indptr, sparse.indices, sparse.values)],
            sparse.columns,
        )
    if block.codes is not None:
        codes = block.codes
        packed["codes"] = (codes.codes.cpu().numpy(), codes.first.cpu().numpy(), codes.columns)
    return packed


def _unpacked(packed: dict[str, Any], device: torch.device) -> Block:
    def tensor(array: Any) -> Any:
        return None if array is None else torch.from_numpy(array).to(device)

    block = Block(
        target=tensor(packed["target"]),
        dense=tensor(packed["dense"]),
        weight=tensor(packed["weight"]),
        offset=tensor(packed["offset"]),
        file=packed["file"],
        start=packed["start"],
    )
    if "sparse" in packed:
        (indptr, indices, values), columns = packed["sparse"]
        block = replace(block, sparse=SparseRows(tensor(indptr), tensor(indices), tensor(values), columns))
    if "codes" in packed:
        codes, first, columns = packed["codes"]
        block = replace(block, codes=CodedColumns(tensor(codes), tensor(first), columns))
    return block


def _absent_row(like: Block) -> Block:
    """A row of weight zero: one that is not there."""
    device = like.device
    sparse, codes = like.sparse, like.codes
    return Block(
        target=torch.zeros(1, *like.target.shape[1:], dtype=like.target.dtype, device=device),
        dense=None if like.dense is None else like.dense.new_zeros(1, like.dense.shape[1]),
        sparse=None if sparse is None else SparseRows(
            sparse.indptr.new_zeros(2), sparse.indices.new_zeros(0), sparse.values.new_zeros(0), sparse.columns
        ),
        codes=None if codes is None else replace(codes, codes=codes.codes.new_full((1, codes.codes.shape[1]), -1)),
        weight=torch.zeros(1, dtype=torch.float64, device=device),
        offset=None if like.offset is None else like.offset.new_zeros(1, *like.offset.shape[1:]),
    )  # fmt: skip
