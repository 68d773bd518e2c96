"""The rows of a table that one of several processes reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchlogit.rows import RowBatch, occurring
from torchlogit.selection import Selection
from torchlogit.table import Table, TableBatch

# A process begins with a row group of its own if one begins this near, as a share of its rows.
_NEAR = 0.125


@dataclass(frozen=True, eq=False)
class _Range:
    """Rows ``first <= row < last`` of a table, of which a mask (of all its rows) may leave some out."""

    first: int
    last: int
    mask: NDArray[np.bool_] | None


class Portion(Table):
    """A contiguous range of a table's rows, those left out that a mask leaves out.

    Rows keep the numbers that they have in the whole (`Selection` counts the selected ones), so that every number of
    processes draws the same subsamples.

    Parameters
    ----------
    table : Table
    rows : _Range
    """

    def __init__(self, table: Table, rows: _Range) -> None:
        self._table, self._range = table, rows
        self._chosen = None if rows.mask is None else rows.mask[rows.first : rows.last]
        self.listener, self.residence = table.listener, table.residence

    @classmethod
    def of(cls, table: Table, mask: NDArray[np.bool_] | None, rank: int, world: int) -> Portion:
        """The share of one process: as many rows as the others have, from where reading may begin if that is near."""
        total, edges = table.n_rows(), table.edges()

        def edge(number: int) -> int:
            even = total * number // world
            if not edges.size or number in (0, world):
                return even
            near = int(edges[np.abs(edges - even).argmin()])
            return near if abs(near - even) <= _NEAR * total / world else even

        return cls(table, _Range(edge(rank), edge(rank + 1), mask))

    def __repr__(self) -> str:
        return f"{self._table!r}, rows {self._range.first:,} to {self._range.last:,}"

    @property
    def columns(self) -> list[str]:
        """Names of the feature columns."""
        return self._table.columns

    @property
    def feature_names(self) -> list[str]:
        """Names of the numeric columns."""
        return self._table.feature_names

    @property
    def is_sparse(self) -> bool:
        """Whether the rows are sparse numbers."""
        return self._table.is_sparse

    @property
    def is_text(self) -> bool:
        """Whether the files are text."""
        return self._table.is_text

    def known_rows(self) -> int:
        """Number of rows."""
        return self.n_rows()

    @property
    def target(self) -> str | None:
        """Name of the target column."""
        return self._table.target

    @property
    def has_weight(self) -> bool:
        """Whether the rows carry weights."""
        return self._table.has_weight

    @property
    def has_offset(self) -> bool:
        """Whether the rows carry offsets."""
        return self._table.has_offset

    def table_batches(self) -> Iterator[TableBatch]:
        """The rows in order."""
        return (batch.sieved() for batch in self.loose_batches())

    def loose_batches(self) -> Iterator[TableBatch]:
        """The same, with rows that do not belong still among the columns."""
        rows = self._range
        for batch, chosen, start in self._parts(self._table.table_batches_between(rows.first, rows.last)):
            yield replace(_without(batch, chosen), sieve=chosen, start=start)

    def numeric_batches(self) -> Iterator[RowBatch]:
        """The rows in order, as numbers."""
        rows = self._range
        for batch, chosen, start in self._parts(self._table.numeric_batches_between(rows.first, rows.last)):
            kept = _without(batch, chosen, "dense", "sparse", "codes")
            yield replace(kept, rows=batch.rows if chosen is None else int(chosen.sum()), start=start)

    def _parts(self, batches: Iterator[Any]) -> Iterator[tuple[Any, NDArray[np.bool_] | None, int]]:
        """Each batch with its part of the mask, and the number of its first row among the selected of its file."""
        mask, row = self._range.mask, self._range.first
        file, start = -1, 0
        for batch in batches:
            if mask is None:
                yield batch, None, batch.start
                continue
            if batch.file != file:
                file, start = batch.file, int(mask[row - batch.start : row].sum())
            chosen = mask[row : row + batch.rows]
            row += batch.rows
            count = int(chosen.sum())
            if count:
                yield batch, None if count == batch.rows else chosen, start
            start += count

    def own(self, values: NDArray[Any]) -> NDArray[Any]:
        """Of what was given for each row of the whole, what belongs to these rows."""
        rows = self._range
        if rows.mask is None:
            return values[rows.first : rows.last]
        first, last = (int(rows.mask[:row].sum()) for row in (rows.first, rows.last))
        return values[first:last]

    def labels(self) -> NDArray[Any]:
        """The labels of these rows."""
        return self._part(self._table.labels())

    def coded_labels(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The labels that occur among these rows, sorted, and each row's index into them."""
        classes, codes = self._table.coded_labels()
        return occurring(classes, self._part(codes))

    def uniforms(self, seed: int) -> NDArray[np.float64]:
        """The hashes of these rows: those of the whole table."""
        return self._part(self._table.uniforms(seed))

    def _part(self, values: NDArray[Any]) -> NDArray[Any]:
        """Of what every row of the table has, what these rows have."""
        part = values[self._range.first : self._range.last]
        return part if self._chosen is None else part[self._chosen]

    def n_rows(self) -> int:
        """Number of rows."""
        return self._range.last - self._range.first if self._chosen is None else int(self._chosen.sum())

    def place(self, row: int) -> str:
        """Where a row stands in its file."""
        if not 0 <= row < self.n_rows():
            raise IndexError(f"row {row} of {self.n_rows()} rows")
        inside = row if self._chosen is None else int(np.flatnonzero(self._chosen)[row])
        return self._table.place(self._range.first + inside)

    def select(self, mask: NDArray[np.bool_]) -> Table:
        """Some of these rows."""
        return Selection(self, mask)

    def without(self, names: Any) -> Portion:
        """The same rows without some of the feature columns."""
        table: Any = self._table  # of files whose columns have names
        portion = Portion(table.without(names), self._range)
        portion.listener = self.listener
        return portion


def _without(batch: Any, chosen: NDArray[np.bool_] | None, *more: str) -> Any:
    """A batch whose labels, weights and offsets (and more) are those of the chosen rows."""
    if chosen is None:
        return batch
    parts = {name: getattr(batch, name) for name in ("target", "weight", "offset", *more)}
    return replace(batch, **{name: None if part is None else part[chosen] for name, part in parts.items()})
