"""Rows as NumPy holds them, between the outside world (frames, files) and torch blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

# Codes counted at a time: NumPy widens what it counts to eight bytes a row.
_COUNTED = 1 << 20


def class_counts(codes: NDArray[np.integer[Any]], classes: int = 0) -> NDArray[np.int64]:
    """Rows of each class.

    Parameters
    ----------
    codes : ndarray of shape (n,), integer
        Not negative.
    classes : int, default=0
        Least length of the result.

    Examples
    --------
    >>> class_counts(np.array([0, 2, 2], dtype=np.uint8)).tolist()
    [1, 0, 2]
    """
    counts = np.zeros(max(classes, int(codes.max()) + 1 if codes.size else 0), dtype=np.int64)
    for start in range(0, codes.size, _COUNTED):
        counts += np.bincount(codes[start : start + _COUNTED], minlength=counts.size)
    return counts


def occurring(
    classes: NDArray[Any], codes: NDArray[np.integer[Any]]
) -> tuple[NDArray[Any], NDArray[np.integer[Any]]]:
    """Those of the classes that occur, and each row's index among them.

    Examples
    --------
    >>> classes, codes = occurring(np.array(["a", "b", "c"]), np.array([2, 0, 2], dtype=np.uint8))
    >>> classes.tolist(), codes.tolist()
    (['a', 'c'], [1, 0, 1])
    """
    present = class_counts(codes, classes.size) > 0
    ranks = (np.cumsum(present) - 1).astype(codes.dtype)
    return classes[present], codes if present.all() else ranks[codes]


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some rows with numeric columns in three layouts, in this order: dense, sparse, coded.

    Parameters
    ----------
    rows : int
    dense : ndarray of shape (rows, p_dense), float64 or float32, optional
    sparse : csr_array of shape (rows, p_sparse), optional
    codes : ndarray of shape (rows, C), int32, optional
        Category codes; -1 where none of the category's columns is one.
    first : tuple of int
        First one-hot column of each category, counted from the first coded column.
    coded_columns : int, default=0
        Number of one-hot columns.
    target : ndarray of shape (rows,), optional
        Labels as they were given.
    weight, offset : ndarray of shape (rows,), float64, optional
    file, start : int
        Where the first row comes from.
    """

    rows: int
    dense: NDArray[Any] | None = None
    sparse: scipy.sparse.csr_array | None = None
    codes: NDArray[np.int32] | None = None
    first: tuple[int, ...] = ()
    coded_columns: int = 0
    target: NDArray[Any] | None = None
    weight: NDArray[np.float64] | None = None
    offset: NDArray[np.float64] | None = None
    file: int = 0
    start: int = 0

    def slice(self, start: int, stop: int) -> RowBatch:
        """Some of the rows."""
        here = slice(start, min(stop, self.rows))
        parts = {name: getattr(self, name) for name in ("dense", "sparse", "codes", "target", "weight", "offset")}
        cut: dict[str, Any] = {name: None if part is None else part[here] for name, part in parts.items()}
        return replace(self, rows=here.stop - here.start, start=self.start + start, **cut)

    def one_hot(self) -> scipy.sparse.csr_array | None:
        """The coded columns as a sparse matrix of ones."""
        if self.codes is None:
            return None
        present = self.codes >= 0
        indptr = np.zeros(self.rows + 1, dtype=np.int64)
        np.cumsum(present.sum(1), out=indptr[1:])
        indices = (self.codes + np.asarray(self.first, dtype=np.int64))[present]
        parts = (np.ones(indices.size), indices, indptr)
        return scipy.sparse.csr_array(parts, shape=(self.rows, self.coded_columns))

    def matrix(self) -> NDArray[Any] | scipy.sparse.csr_array:
        """All columns as one array: dense where nothing is sparse or coded, else compressed sparse rows."""
        parts = [part for part in (self.sparse, self.one_hot()) if part is not None]
        if not parts:
            return np.zeros((self.rows, 0)) if self.dense is None else self.dense
        if self.dense is not None:
            parts.insert(0, scipy.sparse.csr_array(self.dense))
        return parts[0] if len(parts) == 1 else scipy.sparse.csr_array(scipy.sparse.hstack(parts, format="csr"))


@dataclass(frozen=True, slots=True)
class Residence:
    """What a fit of lazy rows may take up.

    Parameters
    ----------
    memory : int, optional
        Bytes of memory; None is half of what is available.
    cache : int, optional
        Bytes on disk for what text files were decoded to; None is half of what is free there.
    folder : str, optional
        Where on disk; None is the system's folder for temporary files.
    """

    memory: int | None = None
    cache: int | None = None
    folder: str | None = None


class LazyRows(ABC):
    """Rows that are read when they are needed: what ``scan`` returns, and what an encoder makes of it.

    Attributes
    ----------
    residence : Residence
        What a fit of them may take up.
    """

    residence: Residence = Residence()

    @property
    @abstractmethod
    def feature_names(self) -> list[str]:
        """Names of the numeric columns."""

    @property
    def named(self) -> bool:
        """Whether an array or a frame of the same columns would have these names: a model then keeps them."""
        return True

    @property
    @abstractmethod
    def target(self) -> str | None:
        """Name of the target column, None if the rows have none."""

    @property
    @abstractmethod
    def has_weight(self) -> bool:
        """Whether the rows carry weights."""

    @property
    @abstractmethod
    def has_offset(self) -> bool:
        """Whether the rows carry offsets."""

    @property
    def is_text(self) -> bool:
        """Whether reading them means parsing text, so that what it gives is worth keeping."""
        return False

    def known_rows(self) -> int | None:
        """Number of rows, None if it takes a read to know."""
        return None

    def coded_labels(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The labels that occur, sorted, and each row's index into them, in as few bytes as that needs."""
        classes, codes = np.unique(self.labels(), return_inverse=True)
        return classes, codes.ravel().astype(np.min_scalar_type(max(classes.size - 1, 0)))

    @abstractmethod
    def numeric_batches(self) -> Iterator[RowBatch]:
        """All rows in order; may be called again and yields the same."""

    @abstractmethod
    def labels(self) -> NDArray[Any]:
        """All labels, in row order, reading no other column where the format allows it."""

    @abstractmethod
    def place(self, row: int) -> str:
        """Where the row with this number (counted over all files, from 0) stands, for a person."""

    @abstractmethod
    def portion(self, rank: int, world: int) -> LazyRows:
        """The rows that this one of several processes reads: contiguous, and together all, each once."""

    def own(self, values: NDArray[Any]) -> NDArray[Any]:
        """Of what was given for each row of the whole, what belongs to these rows."""
        return values
