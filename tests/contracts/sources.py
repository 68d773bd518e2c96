"""The registry of sources: how to make one that holds the rows of a `Table`. A new source is one more line."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
import torch

from contracts.problems import sparse_rows
from torchlogit.problem import Block, CodedColumns
from torchlogit.sampling import row_uniforms
from torchlogit.sources import MemorySource, StreamSource
from torchlogit.sources.block_cache import BlockCache
from torchlogit.sources.streaming import Extent, RowState, Sample


@dataclass
class Table:
    """Rows in every form a source may want: two numeric columns, two mostly zero ones, a category of three levels."""

    numbers: np.ndarray  # (n, 2)
    rare: np.ndarray  # (n, 2)
    codes: np.ndarray  # (n,) 0 .. 2
    y: np.ndarray
    weight: np.ndarray
    offset: np.ndarray

    @property
    def rows(self):
        return len(self.y)

    @property
    def design(self):
        """What the columns stand for, written out, ``(n, 7)``."""
        return np.column_stack([self.numbers, self.rare, np.eye(3)[self.codes]])

    def common(self, start=0, stop=None):
        here = slice(start, stop)
        return {
            "target": torch.from_numpy(self.y[here]),
            "weight": torch.from_numpy(self.weight[here]),
            "offset": torch.from_numpy(self.offset[here, None, None]),
        }


def make_table(rows=157, seed=5):
    rng = np.random.default_rng(seed)
    return Table(
        rng.normal(size=(rows, 2)),
        rng.normal(size=(rows, 2)) * (rng.random((rows, 2)) < 0.2),
        rng.integers(0, 3, rows),
        rng.integers(0, 2, rows),
        rng.random(rows) + 0.5,
        rng.normal(size=rows),
    )


def _coded(codes):
    return CodedColumns(torch.from_numpy(codes[:, None].astype(np.int32)), torch.tensor([0]), 3)


def _dense(table, folder):
    return MemorySource(Block(dense=torch.from_numpy(table.design), **table.common()))


def _sparse(table, folder):
    return MemorySource(Block(sparse=sparse_rows(scipy.sparse.csr_array(table.design)), **table.common()))


def _composite_block(table, first=0, stop=None):
    here = slice(first, stop)
    return Block(
        dense=torch.from_numpy(table.numbers[here]),
        sparse=sparse_rows(table.rare[here]),
        codes=_coded(table.codes[here]),
        **table.common(first, stop),
        start=first,
    )


def _composite(table, folder):
    return MemorySource(_composite_block(table))


def _parts(table, folder):
    """One file in three pieces."""
    cuts = [0, 40, 41, table.rows]
    return MemorySource(
        [_composite_block(table, a, b) for a, b in itertools.pairwise(cuts)]
    )


def _stream(table, folder):
    """All rows resident, as the sample: what is drawn is then known."""
    cuts = list(itertools.pairwise([0, 40, 41, table.rows]))
    blocks = [replace(_composite_block(table, a, b), target=torch.zeros(b - a).long()) for a, b in cuts]
    blocks = [replace(block, offset=block.offset[:, :, :1]) for block in blocks]
    sample = Sample(blocks, [row_uniforms(0, 0, a, b) for a, b in cuts], [np.arange(a, b) for a, b in cuts], 1.0, 0)
    extent = Extent(table.rows, sum(block.nbytes for block in blocks), blocks[0].widths, torch.float64)
    return blocks, extent, RowState(table.y.astype(np.uint8)), sample


def _streamed(table, folder):
    blocks, *rest = _stream(table, folder)
    return StreamSource(lambda: iter(blocks), *rest)


def _cached(table, folder):
    blocks, *rest = _stream(table, folder)
    cache = BlockCache(1 << 20, str(folder))
    assert all(map(cache.add, blocks))
    return StreamSource(cache.blocks, *rest)


# name: function of (table, a folder for files)
SOURCES = {
    "memory, dense": _dense,
    "memory, sparse": _sparse,
    "memory, composite": _composite,
    "memory, in parts": _parts,
    "streaming": _streamed,
    "streaming from a cache": _cached,
}
