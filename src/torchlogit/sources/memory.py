"""Rows that are in memory already: dense arrays, sparse matrices, encoded tables, on any device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from torchlogit.problem import Block
from torchlogit.sampling import sampled_rows
from torchlogit.threads import SWEEP_PRODUCTS, sweep_products

# A block's sums are as long as all columns: a sparse block that stored fewer entries would spend its time adding them.
_ENTRIES_PER_COLUMN = 16
# Numbers of a block, those of its outputs among them: it is read twice, for its two products, and each costs its calls
# (two threads, 400,000 to 800,000: 100,000 x 200 with ten classes in 0.8 of the time, 200,000 x 50 with three in 0.8,
# 100,000 x 100 with two in 0.8; twice as many make no more difference). One that is alone is prepared once, and not
# with every read, if it may be half as long again (10,000 x 100 with two: 0.7) and is no work for two threads.
_BLOCK_ELEMENTS, _ONLY_ELEMENTS = 800_000, 1_200_000
# On a device a call costs more than the sums of few rows: 30,000,000 x 20 are 458 blocks of 65,536.
_DEVICE_BLOCK_ELEMENTS = 32_000_000
_MOST_ROWS, _MOST_DEVICE_ROWS = 65_536, 262_144


class MemorySource:
    """Blocks cut from one or more large blocks, without a copy.

    Parameters
    ----------
    parts : Block or sequence of Block
        The rows, in order. All have the same columns.
    outputs : int, default=1
        Number of outputs times lanes that a block is evaluated for; wide outputs make for shorter blocks.
    hashes : sequence of Tensor, optional
        Those of the rows, where they are themselves a subsample: a smaller one is drawn from the same numbers.
    block_rows : int, optional
        Rows of a block, where they are not to be chosen by width.
    """

    resident = True

    def __init__(
        self,
        parts: Block | Sequence[Block],
        outputs: int = 1,
        hashes: Sequence[Tensor] | None = None,
        block_rows: int | None = None,
    ) -> None:
        self.parts = [parts] if isinstance(parts, Block) else list(parts)
        self.hashes = hashes
        self._present = [part for part in self.parts if part.rows]
        self.rows = sum(part.rows for part in self._present)
        self.features = self.parts[0].features
        self.outputs = outputs
        self.nbytes = sum(part.nbytes for part in self.parts)  # that one read of the features moves
        self.block_rows = block_rows or self._block_rows()

    @property
    def like(self) -> Block:
        """Some rows, of the same columns."""
        return self.parts[0]

    @property
    def most_sampled(self) -> float:
        """The largest fraction of all rows that a subsample may be."""
        return 1.0

    @property
    def device(self) -> torch.device:
        """Where the rows live."""
        return self.parts[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the rows."""
        return self.parts[0].dtype

    @property
    def widths(self) -> tuple[int, int, int]:
        """Number of dense, sparse and coded columns."""
        return self.parts[0].widths

    @property
    def is_one_block(self) -> bool:
        """Whether all rows are one block, wherever they live."""
        return len(self._present) == 1 and self.rows <= self.block_rows

    def _block_rows(self) -> int:
        """Rows of a block at most."""
        dense, sparse, coded = self.parts[0].widths
        stored = dense + (1 + self.nbytes // (12 * max(self.rows, 1)) if sparse or coded else 0)
        elements, width, most = _BLOCK_ELEMENTS, stored + 2 * self.outputs, _MOST_ROWS
        if self.device.type != "cpu":
            elements, width, most = _DEVICE_BLOCK_ELEMENTS, max(stored, 2 * self.outputs), _MOST_DEVICE_ROWS
        elif self.rows <= min(_ONLY_ELEMENTS // width, most) and sweep_products(self, self.outputs) < SWEEP_PRODUCTS:
            return self.rows
        return min(max(elements, _ENTRIES_PER_COLUMN * self.features, 64 * width) // width, most)

    def blocks(self, rows: int | None = None) -> Iterator[Block]:
        """All rows, in order, in equal blocks of at most ``rows``."""
        step = self.block_rows if rows is None else rows
        if self.rows <= step:  # each part is a block as it is
            return iter(self._present)
        return (block for part in self._present for block in part.cut_evenly(step))

    def subsample(self, fraction: float, seed: int, dtype: torch.dtype | None = None) -> MemorySource:
        """The rows whose hash is below ``fraction``, copied, dense columns in another ``dtype`` if asked for.

        Of a subsample the same rows are drawn as of all rows, as long as its own fraction was not smaller.
        """
        chosen, hashes = [], []
        for i, part in enumerate(self.parts):
            known = None if self.hashes is None else self.hashes[i]
            index, below = sampled_rows(seed, part.file, part.start, part.rows, fraction, known, self.device)
            chosen.append(part.take(index, dtype))
            hashes.append(below)
        return MemorySource(chosen, self.outputs, hashes)
