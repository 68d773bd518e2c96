"""Some of the rows of a lazy table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchlogit.rows import RowBatch, occurring
from torchlogit.table import Skipped, Table, TableBatch


class Selection(Table):
    """The rows of a table where a mask is true. Every read is a read of the whole table.

    A batch's ``start`` counts the selected rows of its file, so that it does not depend on how the file is cut into
    blocks.

    Parameters
    ----------
    table : Table
    mask : ndarray of shape (rows,), bool
    """

    def __init__(self, table: Table, mask: NDArray[np.bool_]) -> None:
        self._table = table
        self._mask = np.asarray(mask)
        if self._mask.ndim != 1 or self._mask.dtype != np.bool_:
            raise ValueError(
                f"the mask is a one-dimensional array of bool, one a row, not {self._mask.dtype} of "
                f"shape {self._mask.shape}"
            )
        if self._mask.size != table.n_rows():
            raise ValueError(f"the mask has {self._mask.size:,} entries, but the table has {table.n_rows():,} rows")
        self.listener, self.residence = table.listener, table.residence

    def __repr__(self) -> str:
        return f"{self._table!r}.select({int(self._mask.sum()):,} of {self._mask.size:,} rows)"

    @property
    def empty_files(self) -> list[str]:
        """Files without a row in the whole table."""
        return self._table.empty_files

    @property
    def skipped(self) -> Skipped:
        """Rows that are left out of the whole table."""
        return self._table.skipped

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
        """Number of selected rows."""
        return self.n_rows()

    def coded_labels(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The labels that occur among the selected rows, sorted, and each row's index into them."""
        classes, codes = self._table.coded_labels()
        return occurring(classes, codes[self._mask])

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

    def _parts(self, batches: Iterator[Any]) -> Iterator[tuple[Any, NDArray[np.bool_], int]]:
        """Each batch with its part of the mask and the number of selected rows of its file before it."""
        row, file, start = 0, -1, 0
        for batch in batches:
            if batch.file != file:
                file, start = batch.file, 0
            mask = self._mask[row : row + batch.rows]
            row += batch.rows
            chosen = int(mask.sum())
            if chosen:
                yield batch, mask, start
            start += chosen

    def _heard(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The table's batches, its listener being this view's while they are read."""
        own = self._table.listener
        while True:
            self._table.listener = self.listener if self.listener is not None else own
            try:
                batch = next(batches, None)
            finally:
                self._table.listener = own
            if batch is None:
                return
            yield batch

    def table_batches(self) -> Iterator[TableBatch]:
        """The selected rows in order."""
        return (batch.sieved() for batch in self.loose_batches())

    def loose_batches(self) -> Iterator[TableBatch]:
        """The same, with the others still among the columns."""
        for batch, mask, start in self._parts(self._heard(self._table.table_batches())):
            yield replace(
                batch,
                sieve=None if mask.all() else mask,
                start=start,
                target=_chosen(batch.target, mask),
                weight=_chosen(batch.weight, mask),
                offset=_chosen(batch.offset, mask),
            )

    def numeric_batches(self) -> Iterator[RowBatch]:
        """The selected rows in order, as numbers."""
        for batch, mask, start in self._parts(self._heard(self._table.numeric_batches())):
            yield replace(
                batch,
                rows=int(mask.sum()),
                dense=_chosen(batch.dense, mask),
                sparse=_chosen(batch.sparse, mask),
                codes=_chosen(batch.codes, mask),
                target=_chosen(batch.target, mask),
                weight=_chosen(batch.weight, mask),
                offset=_chosen(batch.offset, mask),
                start=start,
            )

    def labels(self) -> NDArray[Any]:
        """The labels of the selected rows."""
        labels: NDArray[Any] = self._table.labels()[self._mask]
        return labels

    def uniforms(self, seed: int) -> NDArray[np.float64]:
        """The hashes of the selected rows: those of the whole table."""
        return self._table.uniforms(seed)[self._mask]

    def n_rows(self) -> int:
        """Number of selected rows."""
        return int(self._mask.sum())

    def place(self, row: int) -> str:
        """Where a selected row stands in its file."""
        rows = np.flatnonzero(self._mask)
        if not 0 <= row < rows.size:
            raise IndexError(f"row {row} of {rows.size} rows")
        return self._table.place(int(rows[row]))

    def portion(self, rank: int, world: int) -> Table:
        """The rows of one of several processes."""
        from torchlogit.portion import Portion

        return Portion.of(self._table, self._mask, rank, world)

    def select(self, mask: NDArray[np.bool_]) -> Table:
        """Some of the selected rows."""
        given = np.asarray(mask)
        if given.shape != (self.n_rows(),) or given.dtype != np.bool_:
            raise ValueError(f"the mask has {given.size:,} entries, but the table has {self.n_rows():,} rows")
        whole = np.zeros(self._mask.size, dtype=np.bool_)
        whole[np.flatnonzero(self._mask)[given]] = True
        view = Selection(self._table, whole)
        view.listener = self.listener
        return view

    def with_columns(self, names: Sequence[str]) -> Table:
        """The selected rows of a sparse table with the columns of a model."""
        view = Selection(self._table.with_columns(names), self._mask)
        view.listener = self.listener
        return view

    def without(self, names: Sequence[str]) -> Table:
        """The selected rows without some of the feature columns."""
        table: Any = self._table  # of files whose columns have names
        view = Selection(table.without(names), self._mask)
        view.listener = self.listener
        return view


def _chosen(values: Any, mask: NDArray[np.bool_]) -> Any:
    return None if values is None else values[mask]
