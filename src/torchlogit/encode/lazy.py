"""A scanned table seen through a fitted encoder: rows of numbers, made when they are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from torchlogit.file_table import FileTable
from torchlogit.portion import Portion
from torchlogit.rows import LazyRows, RowBatch
from torchlogit.selection import Selection
from torchlogit.table import Table, TableBatch

if TYPE_CHECKING:
    from torchlogit.encode.encoder import TableEncoder


# A block costs a fixed time for each of its columns here, and in the solver for each coefficient: 23 labels of 100,000
# words take longer to add up than 3,000 rows to read, which is what a text file gives at a time.
_BLOCK_ROWS, _BLOCK_BYTES = 65_536, 16 << 20
# A block that is so long already goes as it is: its columns, one after the other, stay in a core's cache.
_LONG_ROWS = 8_192


def gathered(batches: Iterator[TableBatch]) -> Iterator[TableBatch]:
    """Blocks joined until they are worth their fixed costs."""
    held: list[TableBatch] = []
    rows = size = 0
    for batch in batches:
        full = rows >= _BLOCK_ROWS or size >= _BLOCK_BYTES or max(rows, batch.rows) >= _LONG_ROWS
        if held and (full or batch.file != held[0].file):
            yield _joined(held)
            held, rows, size = [], 0, 0
        held.append(batch)
        rows, size = rows + batch.rows, size + batch.columns.nbytes
    if held:
        yield _joined(held)


def _joined(batches: list[TableBatch]) -> TableBatch:
    if len(batches) == 1:
        return batches[0]
    columns = pa.Table.from_batches([batch.sieved().columns for batch in batches]).combine_chunks().to_batches()[0]

    def together(name: str) -> Any:
        parts = [getattr(batch, name) for batch in batches]
        return None if parts[0] is None else np.concatenate(parts)

    first = batches[0]
    return TableBatch(columns, first.file, first.start, together("target"), together("weight"), together("offset"))


def _with_used_columns(encoder: TableEncoder, table: Table) -> Table:
    """The same rows without columns that the encoder leaves out: they need not be read, and may hold anything."""
    used = set(encoder.feature_columns_)
    return without(table, [name for name in table.columns if name not in used]) if used else table


def without(table: Table, names: list[str]) -> Table:
    """The same rows without these columns, where a table can leave out some."""
    return table.without(names) if names and isinstance(table, FileTable | Selection | Portion) else table


class EncodedTable(LazyRows):
    """What `TableEncoder.transform` makes of a scan. Carries its target, weight and offset.

    Parameters
    ----------
    encoder : TableEncoder
        Fitted.
    table : Table
    fitting : bool, default=False
        Whether the rows belong to a fit that is under way, if only to be held out.
    """

    def __init__(self, encoder: TableEncoder, table: Table, *, fitting: bool = False) -> None:
        encoder.check_columns(table)
        self.encoder, self.fitting = encoder, fitting
        self.table = _with_used_columns(encoder, table)
        self.residence = table.residence

    @property
    def feature_names(self) -> list[str]:
        """Names of the numeric columns."""
        return [str(name) for name in self.encoder.get_feature_names_out()]

    @property
    def named(self) -> bool:
        """No: what the encoder makes of a frame is a bare array."""
        return False

    @property
    def target(self) -> str | None:
        """Name of the target column."""
        return self.table.target

    @property
    def has_weight(self) -> bool:
        """Whether the rows carry weights."""
        return self.table.has_weight

    @property
    def has_offset(self) -> bool:
        """Whether the rows carry offsets."""
        return self.table.has_offset

    def labels(self) -> NDArray[Any]:
        """All labels; nothing is encoded for them."""
        return self.table.labels()

    def coded_labels(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The labels that occur, sorted, and each row's index into them."""
        return self.table.coded_labels()

    @property
    def is_text(self) -> bool:
        """Whether the table's files are text."""
        return self.table.is_text

    def known_rows(self) -> int | None:
        """Number of rows, None if it takes a read to know."""
        return self.table.known_rows()

    def place(self, row: int) -> str:
        """Where a row stands."""
        return self.table.place(row)

    def portion(self, rank: int, world: int) -> EncodedTable:
        """The rows of one of several processes."""
        return EncodedTable(self.encoder, self.table.portion(rank, world), fitting=self.fitting)

    def own(self, values: NDArray[Any]) -> NDArray[Any]:
        """Of what was given for each row of the whole, what belongs to these rows."""
        return self.table.own(values)

    def numeric_batches(self) -> Iterator[RowBatch]:
        """All rows in order, encoded block by block."""
        start = 0
        for batch in gathered(self.table.loose_batches()):
            yield self.encoder.encode_batch(batch, start, self.table.place, fitting=self.fitting)
            start += batch.rows

    def __repr__(self) -> str:
        """What is encoded."""
        return f"EncodedTable({self.table!r}, {len(self.feature_names):,} numeric columns)"
