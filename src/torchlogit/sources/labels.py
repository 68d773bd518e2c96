"""The labels of all rows of a table, and what kind they are."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from torchlogit.errors import InputError
from torchlogit.sources.numbers import is_text

# A leading zero means a code such as 007, and 19 digits may exceed 64 bits: both are names, not numbers.
_INTEGER = re.compile(r"[+-]?(0|[1-9]\d{0,17})")
_FLOAT = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_NOT_FINITE = re.compile(r"[+-]?(inf|infinity|nan)", re.IGNORECASE)


@dataclass(frozen=True)
class Labels:
    """Labels as codes into their distinct values, so that a file of millions of rows needs a byte each.

    Parameters
    ----------
    codes : ndarray of shape (rows,)
    values : ndarray
        int64, float64, bool or str objects.
    counts : tuple of int
        Rows of each file.
    """

    codes: NDArray[Any]
    values: NDArray[Any]
    counts: tuple[int, ...]

    def part(self, start: int, stop: int) -> NDArray[Any]:
        """The labels of some rows, counted over all files."""
        labels: NDArray[Any] = self.values[self.codes[start:stop]]
        return labels


class LabelReader:
    """Takes the target column block by block, and says what it was.

    Parameters
    ----------
    column : str
    place : callable
        From a file's number and a row in it (both from 0) to words.
    typed : bool
        Whether the column's own type counts; in text files all columns are strings.
    """

    def __init__(self, column: str, place: Callable[[int, int], str], typed: bool) -> None:
        self.column = column
        self._place = place
        self._typed = typed
        self._values: dict[Any, int] = {}
        self._pieces: list[NDArray[Any]] = []
        self._counts: list[int] = []
        self._kind: pa.DataType | None = None

    def add(self, column: pa.Array, file: int, start: int) -> None:
        """The labels of some rows of a file."""
        self._counts.extend([0] * (file + 1 - len(self._counts)))
        self._kind = column.type
        if column.null_count:
            row = int(np.argmax(column.is_null(nan_is_null=False).to_numpy(zero_copy_only=False)))
            raise InputError(
                f"{self._place(file, start + row)} has no label in column '{self.column}' (it is missing); "
                "fill it in or remove the row"
            )
        encoded = _comparable(column, self.column).dictionary_encode()
        fresh = encoded.dictionary.to_pylist()
        codes = np.array([self._values.setdefault(value, len(self._values)) for value in fresh], dtype=np.int64)
        for value in fresh:
            if isinstance(value, float) and not math.isfinite(value):
                row = int(np.argmax(encoded.indices.to_numpy() == fresh.index(value)))
                raise self._not_finite(file, start + row, value)
        piece = codes[encoded.indices.to_numpy(zero_copy_only=False)] if fresh else np.empty(0, dtype=np.int64)
        self._pieces.append(piece.astype(np.min_scalar_type(len(self._values))))
        self._counts[file] += len(column)

    def finish(self, files: int) -> Labels:
        """All labels."""
        self._counts.extend([0] * (files - len(self._counts)))
        codes = np.concatenate([np.empty(0, dtype=np.uint8), *self._pieces])
        return Labels(codes, self._label_values(codes), tuple(self._counts))

    def _label_values(self, codes: NDArray[Any]) -> NDArray[Any]:
        values = list(self._values)
        if self._typed and self._kind is not None and not is_text(self._kind):
            if pa.types.is_boolean(self._kind):
                return np.array(values, dtype=np.bool_)
            if pa.types.is_temporal(self._kind):
                return _objects(values)
            return _numbers(values)
        if self._typed:
            return _objects(values)
        others = [value for value in values if not _is_finite(value)]
        if len(others) == len(values) and not any(_FLOAT.fullmatch(value) for value in others):
            return _objects(values)
        if others:
            if all(_NOT_FINITE.fullmatch(value) or _FLOAT.fullmatch(value) for value in others):
                row = int(np.argmax(codes == self._values[others[0]]))
                file = int(np.searchsorted(np.cumsum(self._counts), row, side="right"))
                raise self._not_finite(file, row - sum(self._counts[:file]), others[0])
            return _objects(values)
        if all(_INTEGER.fullmatch(value) for value in values):
            return np.array([int(value) for value in values], dtype=np.int64)
        if any(re.fullmatch(r"[+-]?\d{19,}", value) for value in values):
            return _objects(values)
        return _numbers([float(value) for value in values])

    def _not_finite(self, file: int, row: int, value: Any) -> InputError:
        return InputError(
            f"{self._place(file, row)} has the label '{value}' in column '{self.column}', which is not finite; "
            "correct it or remove the row"
        )


def _is_finite(value: str) -> bool:
    """Whether this is a number that float64 can hold: 1e999 is none."""
    return _FLOAT.fullmatch(value) is not None and math.isfinite(float(value))


def _comparable(column: pa.Array, name: str) -> pa.Array:
    """A column of one of a few types, whose values can be told apart."""
    kind = column.type
    if is_text(kind):
        return column
    if pa.types.is_boolean(kind):
        return column.cast(pa.int8())
    if pa.types.is_integer(kind):
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            raise InputError(f"the labels in column '{name}' exceed 64 bits; write them as text") from None
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.float64())
    if pa.types.is_temporal(kind):
        return column.cast(pa.string())
    raise InputError(f"column '{name}' holds {kind}, which cannot be labels; name another column with --target")


def _numbers(values: list[Any]) -> NDArray[Any]:
    numbers = np.array(values)
    if not numbers.size:
        return np.empty(0, dtype=np.int64)
    if numbers.dtype.kind == "f" and (numbers == np.floor(numbers)).all() and (np.abs(numbers) < 2.0**53).all():
        return numbers.astype(np.int64)
    return numbers


def _objects(values: list[str]) -> NDArray[Any]:
    labels = np.empty(len(values), dtype=object)
    labels[:] = values
    return labels
