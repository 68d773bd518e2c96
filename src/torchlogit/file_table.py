"""A lazy table over files whose columns have names: text, Parquet, Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from torchlogit.errors import InputError
from torchlogit.rows import RowBatch
from torchlogit.sampling import file_uniforms
from torchlogit.selection import Selection
from torchlogit.sources.ahead import ahead
from torchlogit.sources.bad_rows import BadRows, bad_labels, bad_numbers, infinite
from torchlogit.sources.files import Stamps, TableFile, changed, listed, nearest
from torchlogit.sources.labels import LabelReader, Labels
from torchlogit.sources.numbers import as_floats, first_not_a_number, is_numeric, is_text
from torchlogit.sources.parquet import ParquetFile
from torchlogit.table import LISTED, Skipped, Table, TableBatch, between

# Blocks that are decoded before they are asked for, at most.
_AHEAD = 2


@dataclass(frozen=True)
class Roles:
    """Which columns are not features."""

    target: str | None = None
    weight: str | None = None
    offset: str | None = None
    drop: tuple[str, ...] = ()

    def named(self) -> list[tuple[str, str]]:
        """Each role that a column was named for, with the column."""
        single = [("target", self.target), ("weight", self.weight), ("offset", self.offset)]
        return [(role, name) for role, name in single if name is not None] + [("drop", name) for name in self.drop]


class FileTable(Table):
    """A lazy table over files whose columns have names.

    Parameters
    ----------
    files : sequence of TableFile
    format : str
        For messages.
    roles : Roles
    schema : pyarrow.Schema
        Of all columns of the first file, in its order.
    header : bool
        Whether names of columns come from a header.
    skip : bool, default=False
        Whether `usable` leaves bad rows out.
    """

    def __init__(
        self,
        files: Sequence[TableFile],
        format: str,  # noqa: A002 -- the word for it
        roles: Roles,
        schema: pa.Schema,
        header: bool,
        skip: bool = False,
    ) -> None:
        self._files = tuple(files)
        self._format = format
        self._roles = roles
        self._schema = schema
        self._header = header
        self._skip = skip
        self._bad: tuple[NDArray[np.bool_], ...] | None = None  # of each file: rows that are not there
        self._skipped = Skipped()
        self._counts: tuple[int, ...] | None = None
        self._stamps = Stamps(self._files)
        self._check_roles()
        taken = {name for _, name in roles.named()}
        self._columns = [name for name in schema.names if name not in taken]
        if not self._columns and roles.target is not None:
            if roles.drop:
                raise InputError(f"{self._files[0].name} has no columns left to learn from; name fewer with --drop")
            raise InputError(
                f"{self._files[0].name} has no column to learn from besides '{roles.target}'; give it more columns, or "
                "another separator with --sep"
            )

    def _check_roles(self) -> None:
        seen: dict[str, str] = {}
        names = self._schema.names
        # a column that only later files have may be dropped as well
        droppable = {name for file in self._files for name in file.schema.names}
        for role, name in self._roles.named():
            if name not in names and not (role == "drop" and name in droppable):
                raise InputError(self._no_column(role, name))
            if seen.setdefault(name, role) != role:
                raise InputError(f"column '{name}' is named as {seen[name]} and as {role}; choose one")

    def _no_column(self, role: str, name: str) -> str:
        names = self._schema.names
        close = nearest(name, names)
        numbered = name.startswith("column_") and name[7:].isdigit()
        text = f"{self._files[0].name} has no column '{name}' for --{role}"
        text += f" (did you mean '{close}'?)" if close and not (numbered and self._header) else ""
        text += f"; its columns are {listed(names)}"
        if self._format == "CSV" and self._header and numbered:
            return text + "; if its first line is data, say --no-header (header=False)"
        if self._format == "CSV" and not self._header:
            return text + "; if its first line names the columns, leave out --no-header (header=False)"
        if self._format == "CSV" and len(names) == 1:
            return text + "; if that is several columns, give the separator with --sep"
        return text

    def __repr__(self) -> str:
        files = self._files[0].name if len(self._files) == 1 else f"{len(self._files)} {self._format} files"
        roles = [f", {role}='{name}'" for role, name in self._roles.named() if role != "drop"]
        return f"scan({files}: {len(self._columns)} columns{''.join(roles)})"

    @property
    def columns(self) -> list[str]:
        """Names of the feature columns."""
        return list(self._columns)

    @property
    def feature_names(self) -> list[str]:
        """Names of the feature columns: each is one number."""
        return list(self._columns)

    @property
    def is_sparse(self) -> bool:
        """Never."""
        return False

    @property
    def target(self) -> str | None:
        """Name of the target column."""
        return self._roles.target

    @property
    def has_weight(self) -> bool:
        """Whether a column holds weights."""
        return self._roles.weight is not None

    @property
    def has_offset(self) -> bool:
        """Whether a column holds offsets."""
        return self._roles.offset is not None

    def _read(self, names: Sequence[str]) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        """Columns of all files, with the file and the row in it that each block begins with."""
        total, before, counts = max(sum(file.size for file in self._files), 1), 0, []
        # columns must be named to be read, so one is read where only the rows count
        wanted = list(dict.fromkeys(names)) or self._schema.names[:1]
        start = seen = 0
        for number, whole, share in ahead(partial(self._decoded, wanted), _AHEAD):
            file = self._files[number]
            if whole is None:
                before += file.size
                counts.append(start)
                start = seen = 0
                continue
            batch = self._good(whole, number, seen)
            seen += whole.num_rows
            if batch.num_rows:
                yield number, start, self._typed(batch)
            start += batch.num_rows
            if self.listener is not None:
                self.listener(min((before + share * file.size) / total, 1.0))
        if self._counts is not None and tuple(counts) != self._counts:
            other = next(i for i, (now, then) in enumerate(zip(counts, self._counts, strict=True)) if now != then)
            raise changed(self._files[other].name)
        self._counts = tuple(counts)
        if not sum(counts):
            raise InputError(f"{self._files[0].name} has no rows of data; check the file")
        if self.listener is not None:
            self.listener(1.0)

    def _decoded(self, wanted: list[str]) -> Iterator[tuple[int, pa.RecordBatch | None, float]]:
        """The files' blocks with the number of the file and the share of it that is done; None at a file's end."""
        for number, file in enumerate(self._files):
            self._stamps.check(number)
            for whole, share in file.batches(wanted):
                yield number, whole, share
            self._stamps.check(number)
            yield number, None, 1.0

    def _typed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch.schema.equals(self._schema) or self._format == "CSV":
            return batch
        kinds = [self._schema.field(name).type for name in batch.schema.names]
        if all(column.type.equals(kind) for column, kind in zip(batch.columns, kinds, strict=True)):
            return batch
        columns = [column.cast(kind, safe=False) for column, kind in zip(batch.columns, kinds, strict=True)]
        return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)

    def _good(self, batch: pa.RecordBatch, file: int, start: int) -> pa.RecordBatch:
        """The batch without rows that are left out; one that is too long for them shows that the file has changed."""
        if self._bad is None:
            return batch
        bad = self._bad[file][start : start + batch.num_rows]
        return batch.filter(pa.array(~bad)) if bad.any() and bad.size == batch.num_rows else batch

    def _where(self, file: int, row: int) -> str:
        if self._bad is not None:
            row = int(np.flatnonzero(~self._bad[file])[row])
        return self._files[file].where(row)

    @property
    def empty_files(self) -> list[str]:
        """Files without a row among those that were read."""
        return [file.name for file, rows in zip(self._files, self._counts or (), strict=False) if not rows]

    @property
    def skipped(self) -> Skipped:
        """Rows that are left out."""
        return self._skipped

    def usable(self, *, numeric: bool) -> FileTable:
        """The rows that can be fitted."""
        if not self._skip or self._bad is not None:
            return self
        roles, bad = self._roles, BadRows([file.name for file in self._files])
        extra = [name for name in (roles.target, roles.weight, roles.offset) if name is not None]
        for file, start, batch in self._read([*extra, *self._columns]):
            bad.add(file, start, batch.num_rows, self._faults(batch, numeric))
        table = self.without(())
        table.__dict__.pop("_labels", None)
        table._bad = bad.masks()
        table._counts = tuple(int((~mask).sum()) for mask in table._bad)
        table._skipped = _with_ragged(bad.skipped(), self._files)
        if not sum(table._counts):
            name, row, reason = table._skipped.listed[0]
            raise InputError(f"no row can be used: {name}, row {row:,} has {reason}, and the others are no better")
        return table

    def _faults(self, batch: pa.RecordBatch, numeric: bool) -> Iterator[tuple[NDArray[np.bool_], str]]:
        roles = self._roles
        if roles.target is not None:
            yield from bad_labels(batch.column(roles.target), roles.target)
        for name, role in ((roles.weight, "weight"), (roles.offset, "offset")):
            if name is not None:
                yield from bad_numbers(batch.column(name), name, role)
        for name in self._columns:
            column = batch.column(name)
            yield from bad_numbers(column, name, "value") if numeric else infinite(column, name)

    @cached_property
    def _labels(self) -> Labels:
        name = self._roles.target
        if name is None:
            raise InputError("the scan has no target column; name it: scan(..., target='...')")
        reader = LabelReader(name, self._where, typed=self._format != "CSV")
        for file, start, batch in self._read([name]):
            reader.add(batch.column(name), file, start)
        return reader.finish(len(self._files))

    def coded_labels(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The labels that occur, sorted, and each row's index into them; no array of all labels is made."""
        labels = self._labels
        classes, ranks = np.unique(labels.values, return_inverse=True)
        return classes, ranks.ravel().astype(np.min_scalar_type(max(classes.size - 1, 0)))[labels.codes]

    @property
    def is_text(self) -> bool:
        """Whether the files are text."""
        return self._format == "CSV"

    def known_rows(self) -> int | None:
        """Number of rows, None if it takes a read to know."""
        if self._counts is None:
            known = [file.known_rows() for file in self._files]
            return None if any(count is None for count in known) else sum(count or 0 for count in known)
        return sum(self._counts)

    def labels(self) -> NDArray[Any]:
        """All labels, from one read of their column that is done once."""
        labels = self._labels
        return labels.part(0, labels.codes.size)

    def n_rows(self) -> int:
        """Number of rows."""
        if self._counts is None:
            known = [file.known_rows() for file in self._files]
            if any(count is None for count in known):
                for _ in self._read([]):
                    pass
            else:
                self._counts = tuple(count or 0 for count in known)
        return sum(self._counts or ())

    def uniforms(self, seed: int) -> NDArray[np.float64]:
        """A hash of (seed, file, row in file) for each row."""
        self.n_rows()
        return file_uniforms(seed, self._counts or ())

    def table_batches(self) -> Iterator[TableBatch]:
        """All rows in order, with their labels, weights and offsets."""
        return self._with_roles(self._read(self._wanted), 0)

    @property
    def _wanted(self) -> list[str]:
        """Columns that are read: features, weight and offset."""
        extra = (self._roles.weight, self._roles.offset)
        return [*self._columns, *(name for name in extra if name is not None)]

    def _with_roles(self, read: Iterator[tuple[int, int, pa.RecordBatch]], row: int) -> Iterator[TableBatch]:
        roles = self._roles
        labels = self._labels if roles.target is not None else None
        for file, start, batch in read:
            yield TableBatch(
                batch.select(self._columns),
                file=file,
                start=start,
                target=None if labels is None else labels.part(row, row + batch.num_rows),
                weight=self._row_numbers(batch, roles.weight, file, start, "weight"),
                offset=self._row_numbers(batch, roles.offset, file, start, "offset"),
            )
            row += batch.num_rows

    def edges(self) -> NDArray[np.int64]:
        """The row that each row group begins with, where files have such."""
        self.n_rows()
        before = np.cumsum([0, *(self._counts or ())])
        edges = [file.edges() if isinstance(file, ParquetFile) else [] for file in self._files]
        return np.concatenate(
            [np.asarray(own, dtype=np.int64) + start for own, start in zip(edges, before[:-1], strict=True)]
        )

    def table_batches_between(self, first: int, last: int) -> Iterator[TableBatch]:
        """The rows ``first <= row < last``; of Parquet files no row group is read that has none of them."""
        if not all(isinstance(file, ParquetFile) for file in self._files):
            return between(self.table_batches(), first, last)
        return self._with_roles(self._read_between(first, last), first)

    def _read_between(self, first: int, last: int) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        self.n_rows()
        done = first
        for number, start, batch in ahead(partial(self._decoded_between, first, last), _AHEAD):
            yield number, start, self._typed(batch)
            done += batch.num_rows
            if self.listener is not None:
                self.listener((done - first) / max(last - first, 1))
        if done != max(last, first):
            raise changed(self._files[0].name)

    def _decoded_between(self, first: int, last: int) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        before = 0
        for number, (file, count) in enumerate(zip(self._files, self._counts or (), strict=True)):
            assert isinstance(file, ParquetFile)
            for start, batch in file.batches_between(self._wanted, first - before, last - before):
                yield number, start, batch
            before += count

    def numeric_batches_between(self, first: int, last: int) -> Iterator[RowBatch]:
        """The same as numbers."""
        return self._numbers(self.table_batches_between(first, last))

    def _row_numbers(
        self, batch: pa.RecordBatch, name: str | None, file: int, start: int, role: str
    ) -> NDArray[np.float64] | None:
        if name is None:
            return None
        column = batch.column(name)
        values = self._floats(column, name, file, start, f"a finite number, as --{role} needs; correct it")
        bad = ~np.isfinite(values) if role == "offset" else ~(np.isfinite(values) & (values >= 0))
        if bad.any():
            row = int(np.argmax(bad))
            value = column[row].as_py()
            if value is None:
                raise InputError(
                    f"{self._where(file, start + row)} has no {role} in column '{name}' (it is missing); fill it in or "
                    "remove the row"
                )
            least = " that is not negative" if role == "weight" else ""
            raise InputError(
                f"{self._where(file, start + row)} has '{value}' in column '{name}', not a finite number{least}, as "
                f"--{role} needs; correct it"
            )
        return values

    def _floats(self, column: pa.Array, name: str, file: int, start: int, expected: str) -> NDArray[np.float64]:
        if not (is_text(column.type) or is_numeric(column.type)):
            raise InputError(f"column '{name}' of {self._files[file].name} holds {column.type}, not {expected}")
        try:
            return as_floats(column)
        except pa.ArrowInvalid:
            row = first_not_a_number(column)
        value = str(column[row].as_py())
        shown = value if len(value) <= 60 else value[:60] + "…"
        raise InputError(f"{self._where(file, start + row)} has '{shown}' in column '{name}', not {expected}")

    def numeric_batches(self) -> Iterator[RowBatch]:
        """All rows in order as numbers, NaN where they are missing; text is an error."""
        return self._numbers(self.table_batches())

    def _numbers(self, batches: Iterator[TableBatch]) -> Iterator[RowBatch]:
        expected = (
            "a number; put a TableEncoder before the model, name the value as missing with --na, or leave the column "
            "out with --drop"
        )
        # what the files hold in float32 stays so: everything is added up in float64 all the same
        short = all(pa.types.is_float32(self._schema.field(name).type) for name in self._columns)
        for batch in batches:
            dense = np.empty((batch.rows, len(self._columns)), np.float32 if short else np.float64)
            for i, name in enumerate(self._columns):
                column = batch.columns.column(i)
                if short:
                    dense[:, i] = column.to_numpy(zero_copy_only=False)
                else:
                    dense[:, i] = self._floats(column, name, batch.file, batch.start, expected)
            yield RowBatch(
                batch.rows,
                dense=dense,
                target=batch.target,
                weight=batch.weight,
                offset=batch.offset,
                file=batch.file,
                start=batch.start,
            )

    def place(self, row: int) -> str:
        """File, row and line of a row that is counted over all files."""
        total = self.n_rows()
        counts = self._counts or ()
        if not 0 <= row < total:
            raise IndexError(f"row {row} of {total} rows")
        file = int(np.searchsorted(np.cumsum(counts), row, side="right"))
        return self._where(file, row - sum(counts[:file]))

    def select(self, mask: NDArray[np.bool_]) -> Table:
        """The rows where ``mask`` is true, lazily."""
        return Selection(self, mask)

    def without(self, names: Sequence[str]) -> FileTable:
        """The same rows without some of the feature columns."""
        roles = replace(self._roles, drop=(*self._roles.drop, *names))
        table = FileTable(self._files, self._format, roles, self._schema, self._header, self._skip)
        table._bad, table._skipped = self._bad, self._skipped
        table.listener, table._counts, table._stamps = self.listener, self._counts, self._stamps
        table.residence = self.residence
        if "_labels" in self.__dict__:
            table.__dict__["_labels"] = self._labels
        return table


def _with_ragged(skipped: Skipped, files: Sequence[TableFile]) -> Skipped:
    """Together with the rows of text files that have the wrong number of fields, which are never seen."""
    ragged = {file.name: getattr(file, "ragged", ()) for file in files}
    listed = [(name, row + 1, reason) for name, rows in ragged.items() for row, reason in rows]
    for name, row, reason in skipped.listed:
        for other, _ in ragged[name]:  # rising
            row += other < row
        listed.append((name, row, reason))
    order = {file.name: i for i, file in enumerate(files)}
    listed.sort(key=lambda entry: (order[entry[0]], entry[1]))
    return Skipped(skipped.count + sum(map(len, ragged.values())), tuple(listed[:LISTED]))
