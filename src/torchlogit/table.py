"""Rows of a table before they are numbers: Arrow columns, block after block."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from torchlogit.rows import LazyRows, RowBatch


@dataclass(frozen=True, slots=True)
class TableBatch:
    """Some rows of a table.

    Parameters
    ----------
    columns : pyarrow.RecordBatch
        Feature columns, in the table's order. Those of a text file are strings, missing values null; those of
        Parquet and Arrow files have their own types.
    file, start : int
        Where the first row comes from: the number of the file and the row in it, both from 0.
    target : ndarray of shape (rows,), optional
        Labels: int64, float64, bool or str objects; the same kind in every batch.
    weight, offset : ndarray of shape (rows,), float64, optional
    sieve : ndarray of bool, optional
        Which rows of ``columns``, if not all, belong to the batch: whoever converts them leaves out the others on the
        way. Only `Table.loose_batches` gives it.
    """

    columns: pa.RecordBatch
    file: int = 0
    start: int = 0
    target: NDArray[Any] | None = None
    weight: NDArray[np.float64] | None = None
    offset: NDArray[np.float64] | None = None
    sieve: NDArray[np.bool_] | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.columns.num_rows if self.sieve is None else np.count_nonzero(self.sieve))

    def sieved(self) -> TableBatch:
        """The same rows with columns that hold no others."""
        if self.sieve is None:
            return self
        return replace(self, columns=self.columns.filter(pa.array(self.sieve)), sieve=None)

    def slice(self, start: int, stop: int) -> TableBatch:
        """Some of the rows."""
        here = slice(start, min(stop, self.rows))
        cut: dict[str, Any] = {
            name: None if part is None else part[here]
            for name, part in (("target", self.target), ("weight", self.weight), ("offset", self.offset))
        }
        columns = self.columns.slice(here.start, here.stop - here.start)
        return replace(self, columns=columns, start=self.start + start, **cut)


# Skipped rows that are listed; all are counted.
LISTED = 1000


@dataclass(frozen=True, slots=True)
class Skipped:
    """Rows that were left out because they cannot be used.

    Parameters
    ----------
    count : int
    listed : tuple of (str, int, str)
        File, row in it (from 1) and reason of the first ones.
    """

    count: int = 0
    listed: tuple[tuple[str, int, str], ...] = ()


class Table(LazyRows):
    """A lazy table: what ``scan`` returns.

    Attributes
    ----------
    listener : callable, optional
        Called with the share of the files (0 to 1) that the current read has covered, for progress bars.
    """

    listener: Callable[[float], None] | None = None

    @property
    def empty_files(self) -> list[str]:
        """Files without a row among those that were read."""
        return []

    @property
    def skipped(self) -> Skipped:
        """Rows that are left out of this table (see `usable`)."""
        return Skipped()

    def usable(self, *, numeric: bool) -> Table:
        """The rows that can be fitted, found in a read of their own; all where a bad row is to be an error.

        Parameters
        ----------
        numeric : bool
            Whether every column must be a number, which it need not where an encoder follows.
        """
        return self

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Names of the feature columns (without target, weight, offset and dropped columns)."""

    @property
    @abstractmethod
    def is_sparse(self) -> bool:
        """Whether the rows are sparse numbers already (libsvm): there is nothing to encode."""

    @abstractmethod
    def table_batches(self) -> Iterator[TableBatch]:
        """All rows in order; may be called again and yields the same. Not for sparse tables."""

    def loose_batches(self) -> Iterator[TableBatch]:
        """The same, where some may hold other rows besides and say which are theirs (`TableBatch.sieve`)."""
        return self.table_batches()

    @abstractmethod
    def select(self, mask: NDArray[np.bool_]) -> Table:
        """The rows where ``mask`` (one entry a row, over all files) is true, in order; lazily too."""

    @abstractmethod
    def uniforms(self, seed: int) -> NDArray[np.float64]:
        """A hash of (seed, file, row in file) in [0, 1) for each row: what decides which rows are held out."""

    def n_rows(self) -> int:
        """Number of rows."""
        return sum(batch.rows for batch in (self.numeric_batches() if self.is_sparse else self.table_batches()))

    def known_rows(self) -> int | None:
        """Number of rows, None if it takes a read to know."""
        return None

    def edges(self) -> NDArray[np.int64]:
        """Rows before which a reader may begin at no cost, in order."""
        return np.zeros(0, dtype=np.int64)

    def table_batches_between(self, first: int, last: int) -> Iterator[TableBatch]:
        """The rows ``first <= row < last``, counted over all files. This reads all; formats that need not, do not."""
        return between(self.table_batches(), first, last)

    def numeric_batches_between(self, first: int, last: int) -> Iterator[RowBatch]:
        """The same as numbers."""
        return between(self.numeric_batches(), first, last)

    def portion(self, rank: int, world: int) -> Table:
        """The rows of one of several processes."""
        from torchlogit.portion import Portion

        return Portion.of(self, None, rank, world)

    def with_columns(self, names: Sequence[str]) -> Table:
        """The same rows with the columns of a model: for sparse tables, whose width depends on their rows."""
        raise TypeError(f"only sparse tables take other columns, not {type(self).__name__} with {len(names)} columns")


Batch = TypeVar("Batch", TableBatch, RowBatch)


def between(batches: Iterator[Batch], first: int, last: int) -> Iterator[Batch]:
    """The rows ``first <= row < last`` of batches that begin with row 0."""
    row = 0
    for batch in batches:
        if row >= last:
            return
        start, stop = max(first - row, 0), min(last - row, batch.rows)
        if start < stop:
            yield batch if (start, stop) == (0, batch.rows) else batch.slice(start, stop)
        row += batch.rows
