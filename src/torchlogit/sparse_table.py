"""A lazy table over libsvm files: rows that are sparse numbers already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from torchlogit.errors import InputError
from torchlogit.rows import RowBatch
from torchlogit.sampling import file_uniforms
from torchlogit.selection import Selection
from torchlogit.sources.files import Stamps, changed, listed, nearest
from torchlogit.sources.libsvm import LibsvmFile, SparseLines
from torchlogit.table import LISTED, Skipped, Table, TableBatch

_PREFIX = "feature_"


@dataclass(frozen=True)
class _Facts:
    """What one read of all files tells."""

    labels: NDArray[Any]
    counts: tuple[int, ...]
    lowest: int
    highest: int


class SparseTable(Table):
    """Rows of libsvm files. Their features are ``feature_<index>``, the index being the file's own.

    Parameters
    ----------
    files : sequence of LibsvmFile
    names : sequence of str, optional
        The features to give, in this order; None: from 1 (or 0, if there is one) to the highest index of the files.
    """

    def __init__(self, files: Sequence[LibsvmFile], names: Sequence[str] | None = None) -> None:
        self._files = tuple(files)
        self._names = None if names is None else list(names)
        self._stamps = Stamps(self._files)

    def __repr__(self) -> str:
        files = self._files[0].name if len(self._files) == 1 else f"{len(self._files)} libsvm files"
        return f"scan({files}: sparse, target='label')"

    def _read(self) -> Iterator[tuple[int, int, SparseLines]]:
        total, before = max(sum(file.size for file in self._files), 1), 0
        for number, file in enumerate(self._files):
            start = 0
            self._stamps.check(number)
            for lines, share in file.blocks():
                yield number, start, lines
                start += lines.rows
                if self.listener is not None:
                    self.listener(min((before + share * file.size) / total, 1.0))
            self._stamps.check(number)
            before += file.size
        if self.listener is not None:
            self.listener(1.0)

    @cached_property
    def _facts(self) -> _Facts:
        counts = [0] * len(self._files)
        labels, lowest, highest = [np.empty(0)], 1, 0
        for file, _, lines in self._read():
            counts[file] += lines.rows
            labels.append(lines.labels)
            if lines.indices.size:
                lowest = min(lowest, int(lines.indices.min()))
                highest = max(highest, int(lines.indices.max()))
        if not sum(counts):
            raise InputError(f"{self._files[0].name} has no rows of data; check the file")
        values = np.concatenate(labels)
        whole = bool((values == np.floor(values)).all() and (np.abs(values) < 2.0**53).all())
        return _Facts(values.astype(np.int64) if whole else values, tuple(counts), lowest, highest)

    @property
    def skipped(self) -> Skipped:
        """Rows that are left out."""
        self._facts  # noqa: B018 -- the read that finds them
        listed = [(file.name, row + 1, reason) for file in self._files for row, reason in file.ragged]
        return Skipped(len(listed), tuple(listed[:LISTED]))

    @property
    def columns(self) -> list[str]:
        """Names of the features."""
        return self.feature_names

    @cached_property
    def _feature_names(self) -> list[str]:
        if self._names is not None:
            return self._names
        return [f"{_PREFIX}{index}" for index in range(self._facts.lowest, self._facts.highest + 1)]

    @property
    def feature_names(self) -> list[str]:
        """Names of the features."""
        return list(self._feature_names)

    @property
    def is_sparse(self) -> bool:
        """Always."""
        return True

    @property
    def is_text(self) -> bool:
        """Always."""
        return True

    def known_rows(self) -> int | None:
        """Number of rows, once the files have been read."""
        return self.n_rows() if "_facts" in self.__dict__ else None

    @property
    def target(self) -> str:
        """Name of the target: ``label``."""
        return "label"

    @property
    def has_weight(self) -> bool:
        """Never."""
        return False

    @property
    def has_offset(self) -> bool:
        """Never."""
        return False

    def table_batches(self) -> Iterator[TableBatch]:
        """Not for sparse tables."""
        raise InputError(f"{self._files[0].name} holds sparse numbers already; leave out the TableEncoder")

    @cached_property
    def _position(self) -> NDArray[np.int64] | None:
        """Column of each index of the files, -1 for none; None where it is the index less the lowest."""
        if self._names is None:
            return None
        numbered = [(i, int(name.removeprefix(_PREFIX))) for i, name in enumerate(self._names) if _is_feature(name)]
        position = np.full(max((index for _, index in numbered), default=-1) + 2, -1, dtype=np.int64)
        for column, index in numbered:
            position[index] = column
        return position

    def _matrix(self, lines: SparseLines) -> scipy.sparse.csr_array:
        width = len(self._feature_names)
        position = self._position
        if position is None:
            indices, values, indptr = lines.indices - self._facts.lowest, lines.values, lines.indptr
        else:
            columns = position[np.minimum(lines.indices, position.size - 1)]
            kept = columns >= 0
            indptr = np.concatenate([[0], np.cumsum(kept)])[lines.indptr]
            indices, values = columns[kept], lines.values[kept]
        # SciPy's and torch's sparse products are faster on 32-bit indices; a block never has 2**31 values.
        parts = (values, indices.astype(np.int32), indptr.astype(np.int32))
        matrix = scipy.sparse.csr_array(parts, shape=(lines.rows, width))
        matrix.sort_indices()
        return matrix

    def numeric_batches(self) -> Iterator[RowBatch]:
        """All rows in order, all of one width."""
        facts, row = self._facts, 0
        for file, start, lines in self._read():
            target = facts.labels[row : row + lines.rows]
            row += lines.rows
            if target.size != lines.rows:
                break
            yield RowBatch(lines.rows, sparse=self._matrix(lines), target=target, file=file, start=start)
        if row != facts.labels.size:
            raise changed(self._files[0].name)

    def labels(self) -> NDArray[Any]:
        """All labels, int64 if all are whole numbers, else float64."""
        return self._facts.labels.copy()

    def uniforms(self, seed: int) -> NDArray[np.float64]:
        """A hash of (seed, file, row in file) for each row."""
        return file_uniforms(seed, self._facts.counts)

    def n_rows(self) -> int:
        """Number of rows."""
        return int(self._facts.labels.size)

    def place(self, row: int) -> str:
        """File, row and line of a row that is counted over all files."""
        counts = self._facts.counts
        if not 0 <= row < sum(counts):
            raise IndexError(f"row {row} of {sum(counts)} rows")
        file = int(np.searchsorted(np.cumsum(counts), row, side="right"))
        return self._files[file].where(row - sum(counts[:file]))

    def select(self, mask: NDArray[np.bool_]) -> Table:
        """The rows where ``mask`` is true, lazily."""
        return Selection(self, mask)

    def with_columns(self, names: Sequence[str]) -> SparseTable:
        """The same rows with the features of a model: those it does not know are ignored, absent ones are zero.

        Raises
        ------
        InputError
            If the model's features do not come from a libsvm file.
        """
        if names and not any(_is_feature(name) for name in names):
            raise InputError(
                f"{self._files[0].name} has features feature_1, feature_2, …, but the model was fitted on "
                f"{listed(names, 4)}; give it a table with these columns"
            )
        table = SparseTable(self._files, names)
        table.listener, table.residence, table._stamps = self.listener, self.residence, self._stamps
        if "_facts" in self.__dict__:
            table.__dict__["_facts"] = self._facts
        return table

    def without(self, names: Sequence[str]) -> SparseTable:
        """The same rows without some features."""
        known = self.feature_names
        for name in names:
            if name not in known:
                close = nearest(name, known[:1000])
                meant = f" (did you mean '{close}'?)" if close else ""
                raise InputError(
                    f"{self._files[0].name} has no feature '{name}' to drop{meant}; its features are {listed(known, 4)}"
                )
        dropped = set(names)
        return self.with_columns([name for name in known if name not in dropped])


def _is_feature(name: str) -> bool:
    index = name.removeprefix(_PREFIX)
    return name.startswith(_PREFIX) and index.isascii() and index.isdigit()
