"""A fitted `TableEncoder` as arrays: what both exports compute, once.

A number (or a date, as seconds) becomes a standardised value and a marker. Everything else is a *slot*: a level, a
month, a weekday, an hour, each column's missing value and its unseen ones. A slot sets at most two features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchlogit.encode import TableEncoder
from torchlogit.encode.columns import MOST_LEVELS, Boolean, Category, Date, Numeric, Text
from torchlogit.encode.parse import lowered
from torchlogit.errors import InputError

DAY = 86_400.0
_INSTEAD = "leave it out of the fit (--drop {0}, or kinds={{{0}: 'drop'}}), or predict with torchlogit itself"
Slot = tuple[tuple[int, float], ...]  # (feature, value)


@dataclass(frozen=True)
class NumberColumn:
    """A numeric column or a date: ``(x / unit - mean) / scale``, and a marker where x is missing.

    Parameters
    ----------
    name : str
    kind : {'numeric', 'date'}
    form : str
        How a date, or a number with signs or commas in it, was written in the training table.
    unit, mean, scale : float
    value_at, marker_at : int
        Features; ``len(features)`` where there is none.
    """

    name: str
    kind: str
    form: str
    unit: float
    mean: float
    scale: float
    value_at: int
    marker_at: int

    def record(self) -> dict[str, Any]:
        """For JSON."""
        if self.kind == "numeric":
            record = {"name": self.name, "kind": self.kind, "missing": "NaN"}
            return record | ({"written_like": self.form} if self.form else {})
        return {"name": self.name, "kind": self.kind, "unit": "seconds since 1970-01-01T00:00:00, UTC where the column "
                "has a zone", "format": self.form or "a timestamp", "missing": "NaN"}  # fmt: skip


@dataclass(frozen=True)
class WordColumn:
    """A boolean or a category. Its slots: the levels in order, the missing value, the unseen ones.

    Parameters
    ----------
    name : str
    kind : {'boolean', 'category'}
    levels : tuple of str
        Lower case, where case is ignored.
    fold_case : bool
    first : int
        Slot of the first level.
    """

    name: str
    kind: str
    levels: tuple[str, ...]
    fold_case: bool
    first: int

    def record(self, missing: str | int) -> dict[str, Any]:
        """For JSON."""
        record = {"name": self.name, "kind": self.kind, "levels": list(self.levels), "missing": missing}
        return record | ({"ignore_case": True} if self.fold_case else {})


@dataclass(frozen=True)
class Calendar:
    """Slots of the months, weekdays and hours of the dates, in this order, ``3 * dates`` entries each.

    Parameters
    ----------
    columns : tuple of int
        The dates among the number columns.
    first, missing : tuple of int
        Slot of January (Monday, hour 0), and of a missing date.
    """

    columns: tuple[int, ...]
    first: tuple[int, ...]
    missing: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """How inputs become the features that the classifier was fitted on, in the encoder's order.

    Parameters
    ----------
    features : tuple of str
    columns : tuple of NumberColumn or WordColumn
        Those that are used, in the table's order.
    calendar : Calendar
    slot_at : ndarray of shape (slots, 2), int64
        Features that a slot sets; ``len(features)`` for none.
    slot_value : ndarray of shape (slots, 2), float64
    """

    features: tuple[str, ...]
    columns: tuple[NumberColumn | WordColumn, ...]
    calendar: Calendar
    slot_at: NDArray[np.int64]
    slot_value: NDArray[np.float64]

    @property
    def numbers(self) -> list[NumberColumn]:
        """Numeric columns and dates."""
        return [column for column in self.columns if isinstance(column, NumberColumn)]

    @property
    def words(self) -> list[WordColumn]:
        """Booleans and categories."""
        return [column for column in self.columns if isinstance(column, WordColumn)]

    def number_arrays(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Unit, mean and scale ``(3, numbers)``; places of values and of markers ``(2, numbers)``."""
        scaling = [[getattr(column, name) for column in self.numbers] for name in ("unit", "mean", "scale")]
        places = [[getattr(column, name) for column in self.numbers] for name in ("value_at", "marker_at")]
        return np.array(scaling, dtype=np.float64), np.array(places, dtype=np.int64)


@dataclass
class _Builder:
    """Collects columns and slots; ``nowhere`` is the feature that is none."""

    coef: NDArray[np.float64]  # (K, features)
    columns: list[NumberColumn | WordColumn] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    dates: list[tuple[int, list[tuple[int, int]]]] = field(default_factory=list)

    @property
    def nowhere(self) -> int:
        return int(self.coef.shape[1])

    def number(self, encoding: Numeric, dense: int) -> None:
        varies = encoding.scale > 0
        value = dense if varies else self.nowhere
        marker = dense + varies if encoding.marked else self.nowhere
        scale = encoding.scale if varies else 1.0
        form = encoding.notation
        self.columns.append(NumberColumn(encoding.name, "numeric", form, 1.0, encoding.mean, scale, value, marker))

    def date(self, encoding: Date, dense: int, coded: int) -> None:
        marker = dense + 1 if encoding.marked else self.nowhere
        scale = encoding.scale or 1.0
        column = NumberColumn(encoding.name, "date", encoding.form, DAY, encoding.mean, scale, dense, marker)
        groups = []
        for start, width, there in ((0, 12, True), (12, 7, True), (19, 24, encoding.hours)):
            groups.append((len(self.slots), len(self.slots) + width))
            self.slots += [((coded + start + j, 1.0),) if there else () for j in range(width)] + [()]
        self.dates.append((sum(isinstance(earlier, NumberColumn) for earlier in self.columns), groups))
        self.columns.append(column)

    def boolean(self, encoding: Boolean, dense: int) -> None:
        zero, one = encoding.zero, encoding.one
        fold = lowered(zero) != lowered(one)
        zero, one = (lowered(zero), lowered(one)) if fold else (zero, one)
        levels: list[tuple[str, Slot]] = [(zero, ())] * bool(zero) + [(one, ((dense, 1.0),))]
        share: Slot = ((dense, encoding.share),)
        gone: Slot = (*share, (dense + 1, 1.0)) if encoding.marked else share
        self._word(encoding.name, "boolean", levels, gone, share, fold=fold)

    def category(self, encoding: Category, coded: int) -> None:
        after = coded + len(encoding.levels)
        buckets = self.coef[:, after : after + encoding.buckets]
        if encoding.buckets and np.ptp(buckets, axis=1).any():
            raise InputError(
                f"column '{encoding.name}' has more than {MOST_LEVELS:,} levels, and an exported model cannot hash the "
                f"others: merge the rare ones before the fit, {_INSTEAD.format(repr(encoding.name))}"
            )
        other: Slot = ((after, 1.0),) if encoding.other or encoding.buckets else ()
        gone: Slot = ((after + encoding.buckets + encoding.other, 1.0),) if encoding.marked else ()
        levels: list[tuple[str, Slot]] = [(level, ((coded + j, 1.0),)) for j, level in enumerate(encoding.levels)]
        self._word(encoding.name, "category", levels, gone, other, fold=False)

    def _word(
        self, name: str, kind: str, levels: list[tuple[str, Slot]], gone: Slot, unseen: Slot, *, fold: bool
    ) -> None:
        self.columns.append(WordColumn(name, kind, tuple(level for level, _ in levels), fold, len(self.slots)))
        self.slots += [*(slot for _, slot in levels), gone, unseen]

    def finish(self, features: list[str]) -> Layout:
        at = np.full((len(self.slots), 2), self.nowhere, dtype=np.int64)
        value = np.zeros((len(self.slots), 2))
        for row, slot in enumerate(self.slots):
            for place, (feature, number) in enumerate(slot):
                at[row, place], value[row, place] = feature, number
        order = [(first, gone) for part in range(3) for first, gone in (groups[part] for _, groups in self.dates)]
        calendar = Calendar(
            tuple(column for column, _ in self.dates),
            tuple(first for first, _ in order),
            tuple(gone for _, gone in order),
        )
        return Layout(tuple(features), tuple(self.columns), calendar, at, value)


def table_layout(encoder: TableEncoder, coef: NDArray[np.float64]) -> Layout:
    """The encoder's columns as arrays.

    Parameters
    ----------
    encoder : TableEncoder
        Fitted.
    coef : ndarray of shape (K, features), float64
        What no coefficient depends on may be left out.

    Raises
    ------
    InputError
        If a column's encoding has no form in tensors: texts, and categories of so many levels that some are hashed.
    """
    encodings = [encoding for encoding in encoder._encodings if encoding is not None]
    build = _Builder(coef)
    dense, sparse = 0, sum(len(encoding.dense) for encoding in encodings)
    coded = sparse + sum(len(encoding.sparse) for encoding in encodings)
    for encoding in encodings:
        codes = sum(map(len, encoding.coded))
        if isinstance(encoding, Text):
            _check_idle(encoding, coef[:, sparse : sparse + len(encoding.sparse)])
        elif isinstance(encoding, Numeric) and encoding.dense:
            build.number(encoding, dense)
        elif isinstance(encoding, Date):
            build.date(encoding, dense, coded)
        elif isinstance(encoding, Boolean):
            build.boolean(encoding, dense)
        elif isinstance(encoding, Category) and codes:
            build.category(encoding, coded)
        dense, sparse, coded = dense + len(encoding.dense), sparse + len(encoding.sparse), coded + codes
    if not build.columns:
        raise InputError("the model depends on no column, so there is nothing to export: fit it on other columns")
    return build.finish([str(name) for name in encoder.get_feature_names_out()])


def _check_idle(encoding: Text, coef: NDArray[np.float64]) -> None:
    if coef.any():
        raise InputError(
            f"column '{encoding.name}' is text, and an exported model cannot split texts into words: "
            + _INSTEAD.format(repr(encoding.name))
        )
