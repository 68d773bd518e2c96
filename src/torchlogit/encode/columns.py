"""One class a kind of column: what was learned, the names of what it becomes, and a block's values.

To add a kind: a frozen dataclass with the members of `Encoding`, a line in `ENCODINGS`, and a branch in
`torchlogit.encode.profile.ColumnProfile.decide`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse
from numpy.typing import NDArray
from sklearn.utils import murmurhash3_32

from torchlogit.encode.parse import ISO, lowered, numbers, strings, times
from torchlogit.encode.profile import RARE, RARE_FROM, CellError, ColumnProfile
from torchlogit.encode.text import TextCounter, TextWeigher
from torchlogit.errors import InputError

MOST_LEVELS = 1000
_DAY = 86_400.0
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_AFFIRMATIVE = ("true", "yes", "y", "t", "1", "on")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A block of one column as numbers: dense ``(rows, d)``, sparse ``(rows, s)``, codes ``(rows, c)``."""

    dense: NDArray[np.float64] | None = None
    sparse: scipy.sparse.csr_array | None = None
    codes: NDArray[np.int32] | None = None


class Encoding(Protocol):
    """What a fitted column offers. ``dense``, ``sparse`` and ``coded`` are the names of its numeric columns."""

    @property
    def dense(self) -> list[str]:
        """Columns of the dense part."""
        ...

    @property
    def sparse(self) -> list[str]:
        """Columns of the sparse part."""
        ...

    @property
    def coded(self) -> list[list[str]]:
        """For each group of codes, its levels."""
        ...

    def encode(self, column: pa.Array) -> Encoded:
        """Numbers of a block; raises `CellError` for a value that the kind does not allow."""
        ...

    def describe(self) -> str:
        """What the column becomes, in words."""
        ...


@dataclass(frozen=True)
class Numeric:
    """``(x - mean) / scale``; missing values become the mean (0), marked by a column of their own."""

    name: str
    mean: float
    scale: float  # 0: constant where it is present, only the marker remains
    marked: bool
    blanks: tuple[str, ...] = ()  # words that mean a missing value
    notation: str = ""  # how strings are written, if not with digits and a decimal point alone

    @classmethod
    def learn(cls, profile: ColumnProfile) -> Numeric:
        """From a profile."""
        spread, reading = profile.measured, profile.reading
        blanks = profile.marks() if reading is None else ()
        notation = "" if reading is None else reading.notation
        marked = profile.missing > 0 or bool(blanks)
        return cls(profile.name, spread.mean, spread.deviation, marked, blanks, notation)

    @property
    def dense(self) -> list[str]:
        """The value, and the marker of missing ones."""
        return [self.name] * (self.scale > 0) + [f"{self.name} (missing)"] * self.marked

    sparse: list[str] = field(default_factory=list, init=False)
    coded: list[list[str]] = field(default_factory=list, init=False)

    def encode(self, column: pa.Array) -> Encoded:
        """Standardised values."""
        values, bad = numbers(column, self.notation)
        if self.blanks and bad.any():
            bad &= ~np.asarray(pc.is_in(strings(column), value_set=pa.array(self.blanks, pa.string())))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            like = f" written like {self.notation}" if self.notation else ""
            raise CellError(row, column[row].as_py(), f"a finite number{like}")
        gone = np.isnan(values)
        parts = []
        if self.scale > 0:
            with np.errstate(over="ignore"):
                scaled = np.where(gone, 0.0, (values - self.mean) / self.scale)
            if not np.isfinite(scaled).all():
                row = int(np.flatnonzero(~np.isfinite(scaled))[0])
                raise CellError(row, column[row].as_py(), "a number that float64 can hold in the column's units")
            parts.append(scaled)
        if self.marked:
            parts.append(gone.astype(np.float64))
        return Encoded(np.column_stack(parts) if parts else None)

    def describe(self) -> str:
        """In words."""
        told = f"minus {self.mean:.6g}, over {self.scale:.6g}" if self.scale > 0 else "constant"
        told = "numeric: " + (f"written like {self.notation}, " if self.notation else "") + told
        blanks = "".join(f"{word!r} or " for word in self.blanks)
        return told + (f"; {blanks}missing: the mean, and a marker" if self.marked else "")


@dataclass(frozen=True)
class Boolean:
    """Two levels as 0 and 1. Missing and unseen values become the training share of ones, missing ones marked."""

    name: str
    zero: str
    one: str
    share: float
    marked: bool

    @classmethod
    def learn(cls, profile: ColumnProfile) -> Boolean:
        """From a profile; the affirmative of the two levels is the one."""
        counts = profile.truths() or profile.levels
        levels = sorted(counts)
        if len(levels) == 1:  # forced to this kind, or a constant with missing values
            levels = ["", levels[0]]
        if len(levels) > 2:
            raise InputError(f"column '{profile.name}' has {len(levels):,} levels, a boolean column has two")
        if levels[0].casefold() in _AFFIRMATIVE and levels[1].casefold() not in _AFFIRMATIVE:
            levels.reverse()
        share = counts[levels[1]] / profile.present
        return cls(profile.name, levels[0], levels[1], share, profile.missing > 0)

    @property
    def dense(self) -> list[str]:
        """The one's name, and the marker of missing values."""
        return [f"{self.name} = {self.one}"] + [f"{self.name} (missing)"] * self.marked

    sparse: list[str] = field(default_factory=list, init=False)
    coded: list[list[str]] = field(default_factory=list, init=False)

    def encode(self, column: pa.Array) -> Encoded:
        """Zeros and ones."""
        text = strings(column)
        one, zero = self.one, self.zero
        if lowered(one) != lowered(zero):  # true in one file, "True" in the other
            one, zero, text = lowered(one), lowered(zero), pc.utf8_lower(text)
        gone = np.asarray(pc.is_null(text))
        ones = np.asarray(pc.fill_null(pc.equal(text, one), False))
        zeros = np.asarray(pc.fill_null(pc.equal(text, zero), False))
        parts = [np.where(ones, 1.0, np.where(zeros, 0.0, self.share))]
        if self.marked:
            parts.append(gone.astype(np.float64))
        return Encoded(np.column_stack(parts))

    def describe(self) -> str:
        """In words."""
        return f"boolean: {self.one} is 1, {self.zero or 'anything else'} is 0" + (
            "; missing: their share, and a marker" if self.marked else ""
        )


@dataclass(frozen=True)
class Category:
    """One column a level, the frequent ones first; rare and unseen levels share one, missing has its own."""

    name: str
    levels: tuple[str, ...]
    buckets: int  # levels beyond the limit are hashed into so many columns
    other: bool
    marked: bool

    @classmethod
    def learn(cls, profile: ColumnProfile) -> Category:
        """From a profile."""
        ranked = sorted(profile.levels.items(), key=lambda item: (-item[1], item[0]))
        least = RARE if profile.rows >= RARE_FROM else 1
        frequent = [level for level, count in ranked if count >= least]
        levels, beyond = frequent[:MOST_LEVELS], frequent[MOST_LEVELS:]
        buckets = min(MOST_LEVELS, len(beyond) // 2 + 1) if beyond else 0
        other = not buckets and len(frequent) < len(ranked)
        return cls(profile.name, tuple(levels), buckets, other, profile.missing > 0)

    dense: list[str] = field(default_factory=list, init=False)
    sparse: list[str] = field(default_factory=list, init=False)

    @property
    def coded(self) -> list[list[str]]:
        """Levels, then buckets, then other, then missing."""
        names = [f"{self.name} = {level}" for level in self.levels]
        names += [f"{self.name} = (bucket {b})" for b in range(self.buckets)]
        names += [f"{self.name} = (other)"] * self.other + [f"{self.name} (missing)"] * self.marked
        return [names]

    def encode(self, column: pa.Array) -> Encoded:
        """Codes; -1 where no column is one."""
        text = strings(column)
        index = pc.index_in(text, value_set=pa.array(self.levels, pa.string()))
        codes = np.array(pc.fill_null(index, -1).to_numpy(zero_copy_only=False), dtype=np.int32)
        gone = np.asarray(pc.is_null(text))
        unseen = (codes < 0) & ~gone
        after = len(self.levels) + self.buckets
        if self.other:
            codes[unseen] = after
        elif self.buckets and unseen.any():
            hashed = [murmurhash3_32(value, positive=True) % self.buckets for value in text.filter(unseen).to_pylist()]
            codes[unseen] = len(self.levels) + np.asarray(hashed, dtype=np.int32)
        codes[gone] = after + self.other if self.marked else -1
        return Encoded(codes=codes[:, None])

    def describe(self) -> str:
        """In words."""
        parts = [f"category: {len(self.levels):,} levels"]
        if self.buckets:
            parts.append(f"further levels hashed into {self.buckets:,} columns")
        if self.other:
            parts.append("rare and unseen ones share a column")
        if self.marked:
            parts.append("missing is a level")
        return "; ".join(parts)


@dataclass(frozen=True)
class Date:
    """Days (standardised), month, weekday, and the hour where there is one."""

    name: str
    form: str  # "" for columns that are times already
    mean: float  # days since 1970
    scale: float
    hours: bool
    marked: bool

    @classmethod
    def learn(cls, profile: ColumnProfile) -> Date:
        """From a profile."""
        form = profile.time_format
        spread = profile.stamps[form]
        marked = profile.missing > 0
        return cls(profile.name, form, spread.mean / _DAY, spread.deviation / _DAY, profile.hours[form], marked)

    @property
    def dense(self) -> list[str]:
        """Days and the marker of missing values."""
        return [self.name] + [f"{self.name} (missing)"] * self.marked

    sparse: list[str] = field(default_factory=list, init=False)

    @property
    def coded(self) -> list[list[str]]:
        """Months, weekdays, hours."""
        groups = [[f"{self.name}: {month}" for month in _MONTHS], [f"{self.name}: {day}" for day in _WEEKDAYS]]
        if self.hours:
            groups.append([f"{self.name}: hour {hour}" for hour in range(24)])
        return groups

    def encode(self, column: pa.Array) -> Encoded:
        """Days and calendar codes; missing values have no code."""
        seconds, bad = times(column, self.form or ISO)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise CellError(row, column[row].as_py(), f"a date ({self.form or 'a timestamp'})")
        gone = np.isnan(seconds)
        known = np.where(gone, 0.0, seconds)
        day = np.floor(known / _DAY)
        scaled = (known / _DAY - self.mean) / (self.scale or 1.0)
        dense = [np.where(gone, 0.0, scaled)] + [gone.astype(np.float64)] * self.marked
        stamps = day.astype("datetime64[D]")
        month = stamps.astype("datetime64[M]").astype(np.int64) % 12
        weekday = (day.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
        codes = [month, weekday] + [(known - day * _DAY).astype(np.int64) // 3600] * self.hours
        table = np.column_stack(codes).astype(np.int32)
        table[gone] = -1
        return Encoded(np.column_stack(dense), codes=table)

    def describe(self) -> str:
        """In words."""
        middle = np.datetime64(round(self.mean), "D")  # Python's own dates end with the year 9999
        return f"date: days from {middle}, month, weekday" + (", hour" if self.hours else "") + (
            "; missing: the mean, and a marker" if self.marked else ""
        )


@dataclass(frozen=True)
class Text:
    """Hashed words and pairs of words, weighted by ``(1 + log count) * idf``. Missing is an empty text."""

    name: str
    buckets: NDArray[np.int32]
    labels: tuple[str, ...]
    idf: NDArray[np.float64]

    @classmethod
    def learn(cls, name: str, counter: TextCounter) -> Text:
        """From a pass over the texts."""
        least = 2 if counter.texts >= RARE_FROM else 1
        buckets, labels, idf = counter.finish(least)
        return cls(name, buckets, tuple(labels), idf)

    dense: list[str] = field(default_factory=list, init=False)
    coded: list[list[str]] = field(default_factory=list, init=False)

    @property
    def sparse(self) -> list[str]:
        """Words and pairs, in the order of their buckets."""
        return [f"{self.name}: '{label}'" for label in self.labels]

    def encode(self, column: pa.Array) -> Encoded:
        """Sparse rows."""
        weigher: TextWeigher | None = self.__dict__.get("_weigher")
        if weigher is None:
            weigher = TextWeigher(self.buckets, self.idf)
            self.__dict__["_weigher"] = weigher
        return Encoded(sparse=weigher.rows(strings(column).to_pylist()))

    def __getstate__(self) -> dict[str, Any]:
        """Without the lookup tables."""
        return {key: value for key, value in self.__dict__.items() if key != "_weigher"}

    def describe(self) -> str:
        """In words."""
        return f"text: {len(self.labels):,} words and pairs of words, weighted by rarity"


ENCODINGS: dict[str, type[Numeric] | type[Boolean] | type[Category] | type[Date] | type[Text]] = {
    "numeric": Numeric,
    "boolean": Boolean,
    "category": Category,
    "date": Date,
    "text": Text,
}
