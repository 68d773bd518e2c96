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


class Source(Protocol):
    """Rows, block after block."""

    rows: int
    features: int

    @property
    def device(self) -> torch.device:
        """Where the blocks live."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the rows."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes that one read moves."""
        ...

    def blocks(self, rows: int | None = None) -> Iterator[Block]:
        """All rows, in order, in blocks of at most ``rows`` (None: the source's own choice)."""
        ...

    def subsample(self, fraction: float, seed: int) -> MemorySource:
        """The rows whose hash is below ``fraction``, resident in memory."""
        ...


__all__ = ["MemorySource", "Shard", "Source", "communicator_of", "resident", "shared"]
