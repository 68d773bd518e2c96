"""Sources say where rows live. Each yields blocks in a fixed order; nothing above them knows more.

To add one: a class with the methods of `Source` in a new file, and one line in the contract tests' registry
(``tests/contracts/sources.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch

from torchlogit.problem import Block
from torchlogit.sources.memory import MemorySource
from torchlogit.sources.shard import Shard, communicator_of, resident, shared
from torchlogit.sources.streaming import StreamSource


class Source(Protocol):
    """Rows, block after block."""

    rows: int
    features: int
    resident: bool  # whether a read costs no more than the memory's speed; else all that can be is asked of a sample

    @property
    def device(self) -> torch.device:
        """Where the blocks live."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the rows."""
        ...

    @property
    def widths(self) -> tuple[int, int, int]:
        """Number of dense, sparse and coded columns."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes that one read moves."""
        ...

    def blocks(self, rows: int | None = None) -> Iterator[Block]:
        """All rows, in order, in blocks of at most ``rows`` (None: the source's own choice)."""
        ...

    def subsample(self, fraction: float, seed: int, dtype: torch.dtype | None = None) -> Source:
        """The rows whose hash is below ``fraction``, resident in memory; fewer where memory does not hold so many.

        Dense columns are in ``dtype``, or as they are.
        """
        ...


__all__ = ["MemorySource", "Shard", "Source", "StreamSource", "communicator_of", "resident", "shared"]
