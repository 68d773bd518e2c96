"""What a column of a table looks like, learned block after block, and what that makes of it."""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from torchlogit.encode.notation import DECIMAL_COMMA, candidates, grouped, is_clock, needs_proof
from torchlogit.encode.parse import (
    date_formats,
    decoded,
    is_number,
    is_text,
    is_time,
    lowered,
    numbers,
    strings,
    time_formats,
    times,
)

KINDS = ("numeric", "boolean", "category", "date", "text", "drop")

_SAMPLE = 200  # strings that a guess about times is made from
_LEVELS_COUNTED = 250_000  # beyond them a category's levels are hashed in any case
_LEVELS_OF_NUMBERS = 10_000  # in numbers and dates levels are not asked for: counting all would fill the memory
_LIKELY_NUMERIC = 0.99
_LEAST_NUMERIC = 20
_PATIENCE = 1000  # unreadable values, in excess of the readable ones, after which a way to read a column is given up
_PLAIN = r"^[A-Za-z0-9._:@/+-]+$"
RARE = 3  # a level that occurs less often shares a column with the other rare ones,
RARE_FROM = 100  # in tables of at least this many rows
_CODE = r"^0[0-9]+$"
_MARKS = 3  # so many different words among numbers, at most, are taken for signs of missing values,
_NUMBERS_AMONG_MARKS = 50  # if there are more different numbers than this
_ODD_KEPT = 100  # values that are no numbers, from which is guessed how numbers may be written
_SURELY_GROUPED = 50  # so many numbers with a comma and three digits, and none with one or two, are no decimals
_LEVELS_OF_CLOCKS = 24  # times of day that are so few stay levels
_LOOKED_AT = 1 << 20  # whole numbers of which is known whether they are all different
_TRUTHS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"}, {"on", "off"})
_MOST_SPELLINGS = 32  # of two words for true and false
_YEARS = (1, 9999)  # that people write
_NOT_FINITE = re.compile(r"[+-]?(inf|infinity|[\d.]+e\+?\d+)", re.IGNORECASE)
_SIGN = r"[$€£¥₹%]"
_DECORATED = re.compile(
    rf"[(+-]*\s?{_SIGN}?\s?[+-]?(\d+([.,]\d+)?|\d{{1,3}}([,.'’\s]\d{{3}})+([.,]\d+)?)\s?({_SIGN}|[A-Z]{{3}})?\)?"
)
_UNDECORATED = re.compile(r"[+-]?\d+(\.\d+)?")


def shown(value: Any) -> str:
    """A value for a sentence."""
    return repr(value[:57] + "..." if isinstance(value, str) and len(value) > 60 else value)


def _measured(kind: pa.DataType) -> bool:
    """Whether values of this type are numbers, or lengths of time."""
    return is_number(kind) or bool(pa.types.is_time(kind) or pa.types.is_duration(kind))


class CellError(ValueError):
    """A value that a column's kind does not allow; the encoder adds where it stands."""

    def __init__(self, row: int, value: Any, wanted: str) -> None:
        super().__init__(f"row {row}: {value!r} is not {wanted}")
        self.row, self.value, self.wanted = row, value, wanted


def not_missing(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those that are not missing."""
    gone = np.isnan(values)
    return values[~gone] if gone.any() else values


def sums_about(values: NDArray[np.float64], origin: Any, room: NDArray[np.float64] | None = None) -> tuple[Any, ...]:
    """What `Spread.join` wants of finite ``(n,)`` or ``(columns, n)`` values; ``room`` may be the values' own."""
    low, high = values.min(-1), values.max(-1)
    with np.errstate(over="ignore", invalid="ignore"):  # 1e308 and -1e308: `Spread.representable` says it
        shifted = np.subtract(values, origin, out=room)
        shift = shifted.mean(-1)
        shifted -= shift[..., None]
        squares = np.square(shifted, out=shifted).sum(-1)
    return shift, squares, low, high


@dataclass(slots=True)
class Spread:
    """Count, mean and standard deviation in one pass (pairwise update of Chan, Golub and LeVeque, 1979)."""

    count: int = 0
    origin: float = 0.0  # a value in the middle of the first ones: timestamps keep their digits around it
    shift: float = 0.0  # from the origin to the mean
    squares: float = 0.0  # sum of squared distances from the mean
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: NDArray[np.float64]) -> None:
        """Add values, of which none is missing."""
        if not values.size:
            return
        if not self.count:
            self.origin = float(np.partition(values, values.size // 2)[values.size // 2])
        self.join(values.size, *(float(figure) for figure in sums_about(values, self.origin)))

    def join(self, size: int, shift: float, squares: float, low: float, high: float) -> None:
        """Add values of which these sums are known: from the origin to their mean, and about that."""
        total, gap = self.count + size, shift - self.shift
        self.squares += squares + gap * gap * self.count * (size / total)
        self.shift += gap * (size / total)
        self.count = total
        self.low, self.high = min(self.low, low), max(self.high, high)

    @property
    def mean(self) -> float:
        """Mean; 0 if there are no values."""
        return self.origin + self.shift

    @property
    def deviation(self) -> float:
        """Standard deviation; 0 if all values are equal."""
        return math.sqrt(self.squares / self.count) if self.count and self.high > self.low else 0.0

    @property
    def representable(self) -> bool:
        """Whether mean and deviation are numbers: the squares of 1e300 and of 1e-300 are none."""
        finite = math.isfinite(self.mean) and math.isfinite(self.deviation)
        return finite and (self.deviation > 0 or self.low >= self.high)


@dataclass(slots=True)
class _Readable:
    """How many values can be read in one way, and the first that cannot."""

    good: int = 0
    bad: int = 0
    first: tuple[int, Any] | None = None

    def see(self, bad: NDArray[np.bool_], present: int, column: pa.Array, start: int) -> None:
        wrong = int(bad.sum())
        self.good += present - wrong
        self.bad += wrong
        if wrong and self.first is None:
            row = int(np.flatnonzero(bad)[0])
            self.first = (start + row, column[row].as_py())

    def hopeless(self) -> bool:
        """Whether it is not worth trying on."""
        return self.bad > self.good + _PATIENCE

    def meant(self) -> bool:
        """Whether all values, but for a few strays, can be read this way."""
        if not self.good:
            return False
        return not self.bad or (self.good >= _LEAST_NUMERIC and self.bad <= max(1, (1 - _LIKELY_NUMERIC) * self.good))


@dataclass(slots=True)
class Reading:
    """A column's strings read in one notation, which fits if it reads all of them. See `chosen`."""

    notation: str
    spread: Spread = field(default_factory=Spread)
    fits: bool = True
    grouped: int = 0
    bare: int = 0  # numbers but 0 without anything between groups of digits
    proven: bool = False  # whether a decimal comma must be one

    def add(self, text: pa.Array) -> None:
        """Learn from the next block."""
        if not self.fits or text.null_count == len(text):
            return
        values, bad = numbers(text, self.notation)
        self.fits = not bad.any()
        if not self.fits:
            return
        self.spread.add(not_missing(values))
        between = np.asarray(pc.fill_null(grouped(text, self.notation), False))
        self.grouped += int(between.sum())
        self.bare += int((~between & (np.nan_to_num(values) != 0)).sum())
        self.proven = self.proven or bool(pc.any(pc.match_substring_regex(text, DECIMAL_COMMA)).as_py())


def chosen(readings: list[Reading]) -> Reading | None:
    """The reading that is meant, None where none fits or two that fit would give different numbers.

    Where 1,234 may be a thousand or a little more than one, it is a thousand if there are many such numbers and none
    with one or two digits after the comma, or if all are such: then both readings are the same column in other units.
    """
    fitting = [reading for reading in readings if reading.fits and reading.spread.count]
    if not fitting:
        return None
    first = fitting[0]
    if any((r.spread.low, r.spread.high, r.spread.mean) != (first.spread.low, first.spread.high, first.spread.mean)
           for r in fitting):  # fmt: skip
        first = max(fitting, key=lambda reading: reading.grouped)
        return first if not first.bare or first.grouped >= _SURELY_GROUPED else None
    return None if needs_proof(first.notation) and not (first.grouped or first.proven) else first


@dataclass(slots=True)
class _Different:
    """Whether whole numbers are all different, of the first ones."""

    yes: bool = True
    count: int = 0
    known: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # sorted
    fresh: list[NDArray[np.float64]] = field(default_factory=list)
    waiting: int = 0

    def add(self, values: NDArray[np.float64]) -> None:
        """Look at some more."""
        if not self.yes or self.count >= _LOOKED_AT:
            return
        self.fresh.append(values)
        self.count, self.waiting = self.count + values.size, self.waiting + values.size
        if self.waiting > self.known.size:
            self.settle()

    def settle(self) -> bool:
        """Compare what has not been compared."""
        known = np.sort(np.concatenate([self.known, *self.fresh]))
        self.yes = self.yes and bool((known[1:] != known[:-1]).all())
        self.known, self.fresh, self.waiting = known if self.yes else np.empty(0), [], 0
        return self.yes


@dataclass(slots=True)
class ColumnProfile:
    """Facts about one column. Feed it every block with `add`, then ask `decide`.

    Parameters
    ----------
    name : str
    kind : pyarrow.DataType
    wanted : str, optional
        The kind (one of `KINDS`) that the column is to have, whatever its values look like.
    patient : bool, default=False
        Whether to count levels even where all values are numbers or dates so far; see `undecided`.
    """

    name: str
    kind: pa.DataType
    wanted: str | None = None
    patient: bool = False  # counts levels even while all values are numbers or dates
    categorical: bool = False  # the table itself says so
    rows: int = 0
    missing: int = 0
    spread: Spread = field(default_factory=Spread)
    number: _Readable = field(default_factory=_Readable)
    formats: dict[str, _Readable] = field(default_factory=dict)
    stamps: dict[str, Spread] = field(default_factory=dict)
    hours: dict[str, bool] = field(default_factory=dict)
    levels: Counter[str] = field(default_factory=Counter)
    forgotten: bool = False  # whether levels are no longer counted
    counted: int = 0  # values until then
    postponed: bool = False  # whether levels were not counted, since all values were numbers or dates
    codes: int = 0  # values such as 00501
    words: int = 0
    plain: int = 0
    integers: bool = True
    running: bool = True
    different: _Different = field(default_factory=_Different)
    odd: list[str] = field(default_factory=list)  # the first strings that are no plain numbers
    reading: Reading | None = None  # what another look made of them
    _last: float = math.nan
    _early: list[tuple[pa.Array, int]] | None = field(default_factory=list)  # strings until `_SAMPLE` are there
    _early_present: int = 0
    _first: tuple[int, str] | None = None  # first string

    @property
    def present(self) -> int:
        """Values that are not missing."""
        return self.rows - self.missing

    def add(self, column: Any) -> None:
        """Learn from the next block."""
        if pa.types.is_dictionary(column.type):
            self.categorical = True
        column = decoded(column)
        start, self.rows = self.rows, self.rows + len(column)
        kind, plain = column.type, self.wanted is None
        measured = _measured(kind)
        if pa.types.is_null(kind):
            self.missing += len(column)
        elif self.wanted == "drop":
            self.missing += column.null_count
        elif is_time(kind) and (plain or self.wanted == "date"):
            self._add_times(column, "", start)
            self.missing += column.null_count
        elif (self.wanted == "numeric" and not is_time(kind)) or (plain and measured and not self.categorical):
            self._add_numbers(column, start)
        elif self.wanted != "numeric" and (
            measured or is_time(kind) or is_text(kind) or self.categorical or pa.types.is_boolean(kind)
        ):
            self._add_strings(strings(column), start)
        else:
            raise TypeError(f"a column of type {kind}")

    def settled(self, column: pa.Array) -> bool:
        """Whether nothing but their spread is left to learn of numbers such as these, if all are finite."""
        floats = pa.types.is_float64(column.type) or pa.types.is_float32(column.type)
        numeric = self.wanted in (None, "numeric") and not self.categorical
        return floats and numeric and not column.null_count and self.spread.count > 0 and not self.integers

    def join(self, size: int, shift: float, squares: float, low: float, high: float) -> None:
        """Learn from the next block of a settled column, of which these sums are known (`Spread.join`)."""
        self.rows += size
        self.number.good += size
        self.running = False
        self.spread.join(size, shift, squares, low, high)

    def _add_numbers(self, column: pa.Array, start: int) -> None:
        values, bad = numbers(column)
        there, wrong = not_missing(values), int(np.count_nonzero(bad))
        self.missing += len(column) - there.size - wrong
        self.number.see(bad, there.size + wrong, column, start)
        self._keep_odd(column, bad)
        self._watch(values, there)

    def _keep_odd(self, column: pa.Array, bad: NDArray[np.bool_]) -> None:
        wanted = _ODD_KEPT - len(self.odd)
        if wanted and is_text(column.type) and bad.any():
            self.odd += strings(column.take(np.flatnonzero(bad)[:wanted])).to_pylist()

    def _watch(self, values: NDArray[np.float64], there: NDArray[np.float64]) -> None:
        """Spread, whether all are whole numbers, and whether they only count the rows."""
        self.spread.add(there)
        if self.integers:
            self.integers = bool((there % 1 == 0).all())
            self.different.add(there)
        if self.running and values.size:
            before = np.concatenate([[-math.inf if math.isnan(self._last) else self._last], values[:-1]])
            self.running = self.integers and bool((values > before).all())
            self._last = float(values[-1])

    def _add_times(self, column: pa.Array, form: str, start: int) -> None:
        seconds, bad = times(column, form)
        there = not_missing(seconds)
        self.formats.setdefault(form, _Readable()).see(bad, there.size + int(bad.sum()), column, start)
        self.stamps.setdefault(form, Spread()).add(there)
        self.hours[form] = self.hours.get(form, False) or bool((there % 86_400 != 0).any())

    def _add_strings(self, text: pa.Array, start: int) -> None:
        self.missing += text.null_count
        present = text.drop_null()
        if not len(present):
            return
        if self._first is None:
            row = int(np.flatnonzero(np.asarray(pc.is_valid(text)))[0])
            self._first = (start + row, present[0].as_py())
        if self.wanted is None and not self.categorical and not self.number.hopeless():
            values, bad = numbers(text)
            self.number.see(bad, len(present), text, start)
            self._keep_odd(text, bad)
            self._watch(values, not_missing(values))
            self.codes += pc.sum(pc.match_substring_regex(present, _CODE)).as_py()
        if self.wanted in (None, "date"):
            self._try_times(text, len(present), start)
        self.words += len(present) + pc.sum(pc.count_substring(present, " ")).as_py()
        self.plain += pc.sum(pc.match_substring_regex(present, _PLAIN)).as_py()
        if not self.forgotten and not self.postponed:
            self._count_levels(present)

    def _try_times(self, text: pa.Array, present: int, start: int) -> None:
        """Read strings as times. Which formats are tried depends on the first strings, not on where blocks end."""
        if self._early is None:
            for form, readable in self.formats.items():
                if not readable.hopeless():
                    self._add_times(text, form, start)
            return
        self._early.append((text, start))
        self._early_present += present
        if self._early_present >= _SAMPLE:
            self._choose_formats()

    def _choose_formats(self) -> None:
        if not self._early:
            return
        early, self._early = self._early, None
        sample = [value for text, _ in early for value in text.drop_null().to_pylist()][:_SAMPLE]
        strays = max(1, int((1 - _LIKELY_NUMERIC) * len(sample))) if len(sample) >= _LEAST_NUMERIC else 0
        self.formats = {form: _Readable() for form in time_formats(sample, strays)}
        for text, start in early:
            for form in self.formats:
                self._add_times(text, form, start)

    def _count_levels(self, present: pa.Array) -> None:
        counted = pc.value_counts(present)
        self.levels.update(
            dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))
        )
        self.counted += len(present)
        if len(self.levels) > _LEVELS_OF_NUMBERS and not self.patient and self.wanted is None and self._explained():
            self.postponed = True
            self.levels.clear()
        many = len(self.levels) > _LEVELS_COUNTED
        # Texts repeat so rarely that their levels would only fill the memory.
        wordy = self.words > 4 * self.present and len(self.levels) > 0.5 * self.present
        prose = self.wanted is None and self.present >= 1000 and wordy
        if many or prose:
            self.forgotten = True

    def _explained(self) -> bool:
        """Whether all values so far are numbers, or dates in one format."""
        if self.categorical:
            return False
        known = [seen for form, seen in self.formats.items() if not self._constant(self.stamps[form])]
        return any(seen.good and not seen.bad for seen in (self.number, *known)) and not self._coded()

    # -- what follows -------------------------------------------------------------------------------------------

    @property
    def distinct(self) -> int:
        """Number of different strings (a lower bound once they are no longer counted)."""
        return len(self.levels)

    @property
    def undecided(self) -> bool:
        """Whether a second, patient profile must count the levels: what began as numbers or dates is neither."""
        return self.postponed and not self._numeric() and not any(seen.meant() for seen in self.formats.values())

    def notations(self) -> list[str]:
        """Ways to write numbers that may read the whole column; whether they do, a look at all values tells."""
        least = 2 if self.wanted is None else 1  # a stray is no notation
        if self.wanted not in (None, "numeric") or self.categorical or self.number.bad < least:
            return []
        few = self.wanted is None and not self.forgotten and self.distinct <= _LEVELS_OF_CLOCKS
        return [name for name in candidates(self.odd) if not (few and is_clock(name))]

    @property
    def measured(self) -> Spread:
        """Of the numbers, in whichever way they are read."""
        return self.spread if self.reading is None else self.reading.spread

    def truths(self) -> Counter[str] | None:
        """Levels in lower case, where they are words for true and false that differ in case."""
        if self.forgotten or len(self.levels) > _MOST_SPELLINGS:
            return None
        if self.wanted is not None and len(self.levels) == 2:  # it was asked for these two
            return None
        folded: Counter[str] = Counter()
        for level, count in self.levels.items():
            folded[lowered(level)] += count
        known = any(folded.keys() <= words for words in _TRUTHS)
        # "y" and "Y" alone may be two things; True and true are one for everybody who reads tables.
        whole = len(folded) == 2 or folded.keys() <= _TRUTHS[0]
        return folded if known and whole and len(folded) < len(self.levels) else None

    def _numeric(self) -> bool:
        return self.number.meant() and not self.categorical and not self._coded()

    def _coded(self) -> bool:
        """Whether leading zeros show that digits are codes, such as those of post offices."""
        return self.codes > (1 - _LIKELY_NUMERIC) * self.present

    def decide(self) -> tuple[str, str]:
        """The column's kind (one of `KINDS`) and the reason in words.

        Raises
        ------
        CellError
            Where nearly all values are numbers (or times) and a few are not: to guess would be a wrong answer.
        """
        if not self.present:
            return "drop", f"all {self.rows:,} values are missing"
        if "" in self.stamps:
            return ("drop", "constant") if self._constant(self.stamps[""]) else ("date", "a date column")
        if pa.types.is_boolean(self.kind):
            return ("drop", "constant") if self.distinct == 1 and not self.missing else ("boolean", "true or false")
        if self.reading is not None:
            return self._decide_reading(self.reading)
        if self._numeric() or (_measured(self.kind) and not self.categorical):
            return self._decide_number()
        return self._decide_string()

    def _constant(self, spread: Spread) -> bool:
        return spread.low == spread.high and not self.missing

    def _decide_reading(self, reading: Reading) -> tuple[str, str]:
        if self._constant(reading.spread):
            return "drop", f"constant ({shown(self.odd[0])})"
        return "numeric", f"numbers written like {reading.notation}" + self._missing_words()

    def _decide_number(self) -> tuple[str, str]:
        if self.number.bad:
            assert self.number.first is not None
            raise CellError(*self.number.first, "a finite number, as the other values of this column are")
        if self._constant(self.spread):
            return "drop", f"constant ({self.spread.low:g})"
        # Increasing whole numbers with few gaps (a held-out part leaves some): the number of the row.
        if self.running and self.rows >= _LEAST_NUMERIC and self.spread.high - self.spread.low < 2 * self.rows:
            return "drop", "counts the rows, an identifier"
        return "numeric", "numbers" + self._missing_words()

    def _decide_string(self) -> tuple[str, str]:
        self._choose_formats()
        # The format that reads every value goes before a likelier one that does not.
        for form, readable in sorted(self.formats.items(), key=lambda item: item[1].bad):
            if readable.meant():
                if readable.bad:
                    assert readable.first is not None
                    raise CellError(*readable.first, f"a date ({form}), as the other values of this column are")
                if self._constant(self.stamps[form]):
                    return "drop", "constant"
                return "date", f"dates ({form})" + self._missing_words()
        if self.marks():
            return self._decide_marked()
        truths = self.truths()
        if (len(truths or self.levels)) == 1 and not self.missing:
            return "drop", f"constant ({shown(next(iter(truths or self.levels)))})"
        if truths is not None:
            return "boolean", f"two levels in {self.distinct} spellings" + self._missing_words()
        if self.distinct == 2 and not self.forgotten:
            return "boolean", "two levels" + self._missing_words()
        unique = self.distinct >= 0.95 * self.counted
        if unique and self.plain == self.present and self.present >= _LEAST_NUMERIC:
            return "drop", "different in nearly every row, an identifier"
        words = self.words / self.present
        many = self.forgotten or self.distinct > max(50, 0.1 * self.present)
        if many and (words >= 4 or (words >= 2 and (unique or self.distinct > 0.5 * self.present))):
            return "text", f"{words:.0f} words a row" + self._missing_words()
        if self.rows >= RARE_FROM and not self.missing and max(self.levels.values()) < RARE:
            return "drop", f"no value occurs {RARE} times"
        return "category", f"{self.distinct:,} levels" + self._missing_words()

    def marks(self) -> tuple[str, ...]:
        """Words among numbers that must mean a missing value: few different ones, among many different numbers."""
        mostly = self.number.good > 0.5 * self.present and self.number.bad and not self.number.hopeless()
        if not mostly or self.wanted is not None or self.categorical or self._coded():
            return ()
        levels = pa.array(list(self.levels), pa.string())
        words = levels.filter(pa.array(numbers(levels)[1])).to_pylist()
        if len(words) > _MARKS or len(levels) - len(words) <= _NUMBERS_AMONG_MARKS:
            return ()
        plainly = all(_NOT_FINITE.fullmatch(word) or not any(map(str.isdigit, word)) for word in words)
        return tuple(sorted(words)) if plainly else ()

    def _decide_marked(self) -> tuple[str, str]:
        assert self.number.first is not None
        if any(_NOT_FINITE.fullmatch(word) for word in self.marks()):
            raise CellError(*self.number.first, "a finite number, as the other values of this column are")
        told = " and ".join(repr(word) for word in self.marks())
        return "numeric", f"numbers; {told} ({self.number.bad:,} values) taken for missing" + self._missing_words()

    def hint(self, kind: str) -> str:
        """What a person should look at, of a column that became this kind; often nothing."""
        if kind == "numeric":
            return self._hint_of_numbers()
        if kind == "date":
            return self._hint_of_dates()
        if kind in ("category", "text", "drop"):
            return self._hint_of_decorated() or self._hint_of_strays() or self._hint_of_mixed_dates()
        return ""

    def _hint_of_numbers(self) -> str:
        if self.reading is not None:
            value = numbers(pa.array(self.odd[:1], pa.string()), self.reading.notation)[0][0]
            unit = " seconds" if is_clock(self.reading.notation) else ""
            return f"{shown(self.odd[0])} is read as {value:.15g}{unit}"
        if self.integers and self.spread.count >= _LEAST_NUMERIC and self.different.settle():
            return f"all different whole numbers: an identifier? leave it out with --drop {shlex.quote(self.name)}"
        return ""

    def _hint_of_dates(self) -> str:
        known = [self.stamps[form] for form, seen in self.formats.items() if seen.meant()]
        if not known or not known[0].count:
            return ""
        low, high = (np.datetime64(int(second), "s").astype("datetime64[Y]").astype(int) + 1970
                     for second in (known[0].low, known[0].high))  # fmt: skip
        if low >= _YEARS[0] and high <= _YEARS[1]:
            return ""
        return f"dates from the year {low} to {high}: is the unit of the column right (seconds, milliseconds)?"

    def _hint_of_decorated(self) -> str:
        """Numbers that are not written as such: with signs, or commas in them."""
        sample = list(self.levels)[:1000]
        decorated = [level for level in sample if _DECORATED.fullmatch(level) and not _UNDECORATED.fullmatch(level)]
        read = sum(_DECORATED.fullmatch(level) is not None for level in sample)
        if not decorated or read < 0.95 * len(sample):
            return ""
        return f"to use it as a number, write {decorated[0]!r} with digits and a decimal point alone"

    def _hint_of_strays(self) -> str:
        """Numbers with so many other values among them that they are levels."""
        mostly = self.number.good >= 0.95 * self.present and self.number.bad and not self.number.hopeless()
        if not mostly or self.distinct <= _NUMBERS_AMONG_MARKS or self._coded():
            return ""
        odd = self.odd[0]
        token = shlex.quote(odd) if len(odd) <= 60 else "VALUE"
        return (
            f"{self.number.good:,} of {self.present:,} values are numbers and {shown(odd)} is none: to use it as a "
            f"number, correct such values or declare them as missing (--na {token})"
        )

    def _hint_of_mixed_dates(self) -> str:
        sample = list(self.levels)[:_SAMPLE]
        forms = date_formats(sample[0]) if len(sample) > _LEAST_NUMERIC else []
        if not forms:
            return ""
        formats = [set(date_formats(level)) for level in sample]
        other = next((level for level, own in zip(sample, formats, strict=True) if not own & set(forms)), None)
        if other is None or not all(formats):
            return ""
        return f"dates in several formats, such as {sample[0]!r} and {other!r}: to use them, write all in one"

    def _missing_words(self) -> str:
        return f", {self.missing:,} missing" if self.missing else ""

    @property
    def time_format(self) -> str:
        """The format that reads every value."""
        self._choose_formats()
        readable = [form for form, seen in self.formats.items() if not seen.bad and seen.good]
        if not readable:
            first = next((seen.first for seen in self.formats.values() if seen.first), self._first)
            row, value = first or (0, None)
            raise CellError(row, value, "a date in a format that is known (such as 2024-12-31)")
        return readable[0]
