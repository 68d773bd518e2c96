"""Rows that cannot be used: which they are, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from torchlogit.sources.numbers import as_floats, first_not_a_number, is_numeric, is_text
from torchlogit.table import LISTED, Skipped

Mask = NDArray[np.bool_]


class BadRows:
    """Collects bad rows, block by block, file by file.

    Parameters
    ----------
    names : sequence of str
        Of the files, for the list.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._masks: list[list[Mask]] = [[] for _ in names]
        self._listed: list[tuple[str, int, str]] = []

    def add(self, file: int, start: int, rows: int, found: Iterator[tuple[Mask, str]]) -> None:
        """The bad rows of a block, each with what is wrong in its first bad column."""
        bad = np.zeros(rows, dtype=bool)
        reasons: dict[int, str] = {}
        for mask, reason in found:
            fresh = np.flatnonzero(mask & ~bad)
            bad |= mask
            if len(self._listed) + len(reasons) < LISTED:
                reasons |= dict.fromkeys(fresh[:LISTED].tolist(), reason)
        self._masks[file].append(bad)
        self._listed += [(self._names[file], start + row + 1, reasons[row]) for row in sorted(reasons)]

    def masks(self) -> tuple[Mask, ...]:
        """Which rows of each file are bad."""
        return tuple(np.concatenate([np.zeros(0, dtype=bool), *masks]) for masks in self._masks)

    def skipped(self) -> Skipped:
        """How many, and the first of them."""
        return Skipped(sum(int(mask.sum()) for mask in self.masks()), tuple(self._listed[:LISTED]))


def bad_labels(column: pa.Array, name: str) -> Iterator[tuple[Mask, str]]:
    """Rows without a label that a fit can use."""
    yield _missing(column), f"no label in column '{name}'"
    if pa.types.is_floating(column.type):
        values = as_floats(column)
        yield ~np.isfinite(values) & ~_missing(column), f"a label in column '{name}' that is not finite"


def bad_numbers(column: pa.Array, name: str, role: str) -> Iterator[tuple[Mask, str]]:
    """Rows without a finite number (as a weight: one that is not negative)."""
    missing = _missing(column)
    yield missing, f"no {role} in column '{name}'"
    if not (is_text(column.type) or is_numeric(column.type)):
        return  # no row is to blame for the type of a column
    values, bad = _numbers(column)
    bad |= ~np.isfinite(values) & ~missing
    if role == "weight":
        bad |= values < 0
    yield bad, f"a {role} in column '{name}' that is not a finite number{' from 0' if role == 'weight' else ''}"


def infinite(column: pa.Array, name: str) -> Iterator[tuple[Mask, str]]:
    """Rows with an infinity, the one number that no encoding takes."""
    if pa.types.is_floating(column.type):
        yield np.isinf(as_floats(column)), f"a value in column '{name}' that is not finite"


def _missing(column: pa.Array) -> Mask:
    mask: Mask = column.is_null(nan_is_null=pa.types.is_floating(column.type)).to_numpy(zero_copy_only=False)
    return mask


def _numbers(column: pa.Array) -> tuple[NDArray[np.float64], Mask]:
    """The values (NaN where there is none), and which are text that is no number."""
    bad = np.zeros(len(column), dtype=bool)
    try:
        return as_floats(column), bad
    except pa.ArrowInvalid:
        pass
    values, start = np.full(len(column), np.nan), 0
    while start < len(column):
        rest = column.slice(start)
        try:
            values[start:] = as_floats(rest)
            break
        except pa.ArrowInvalid:
            first = first_not_a_number(rest)
        values[start : start + first] = as_floats(rest.slice(0, first))
        bad[start + first] = True
        start += first + 1
    return values, bad
