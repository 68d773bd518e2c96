"""Arrow columns as strings, numbers and times; what cannot be read is marked, never dropped."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from torchlogit.encode.notation import rewritten

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_ZONE = r" ?(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?)"
_ISO_TIME = r"^\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(" + _ZONE + r")?)?$"
ISO = "ISO 8601"
# What people write, besides ISO 8601. Day before month where the numbers themselves do not tell is never guessed:
# both formats stay candidates, and the one that reads every value wins, month first if both do.
_DATE_FORMATS = (
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m-%d-%Y",
    "%d-%m-%Y",
    "%m/%d/%y",
    "%d/%m/%y",
    "%d %b %Y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%b %d, %Y",
)
_CLOCK_FORMATS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_MAIL_FORMATS = tuple(f"%a, %d %b %Y %H:%M:%S {zone}" for zone in ("GMT", "UTC", "+0000"))
TIME_FORMATS = (
    *(date + clock for clock in _CLOCK_FORMATS for date in _DATE_FORMATS),
    "%Y%m%dT%H%M%S",
    *_MAIL_FORMATS,
)
_SHAPES = {"%Y": r"\d{4}", "%y": r"\d{2}", "%m": r"\d{1,2}", "%b": r"[A-Za-z]{3,9}", "%d": r"(?P<day>\d{1,2})"}
_SHAPES |= {"%a": "[A-Za-z]{3}"}
_SHAPES |= {"%H": r"\d{1,2}", "%I": r"\d{1,2}", "%M": r"\d{2}", "%S": r"\d{2}", "%p": "[AaPp][Mm]"}
_TIGHT = {"%m": r"\d{2}", "%d": r"(?P<day>\d{2})", "%H": r"\d{2}"}  # where nothing stands between two numbers


def is_text(kind: pa.DataType) -> bool:
    """Whether values of this type are strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether values of this type are numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_time(kind: pa.DataType) -> bool:
    """Whether values of this type are points in time."""
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def decoded(column: Any) -> pa.Array:
    """One plain array: chunks joined, dictionaries decoded."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def strings(column: pa.Array) -> pa.Array:
    """Values as trimmed strings; empty ones are missing. 1.0 is written ``1``, true ``true``."""
    column = decoded(column)
    kind = column.type
    if pa.types.is_null(kind):
        return pa.nulls(len(column), pa.string())
    if pa.types.is_floating(kind):
        values = column.to_numpy(zero_copy_only=False)
        return pa.array([written(value) for value in values.tolist()], pa.string())
    text = column if pa.types.is_string(kind) else pc.cast(column, pa.string(), safe=False)
    trimmed = pc.utf8_trim_whitespace(text)
    empty = pc.equal(trimmed, "")
    return pc.if_else(empty, pa.scalar(None, pa.string()), trimmed) if pc.any(empty).as_py() else trimmed


def written(value: Any) -> str | None:
    """One value as `strings` writes it; None if it is missing."""
    if value is None or value != value:
        return None
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
    return str(value)


def lowered(word: str) -> str:
    """In lower case as Arrow has it, letter by letter: Python ends a Greek word in another sigma."""
    return str(pc.utf8_lower(pa.scalar(word, pa.string())).as_py())


def numbers(column: pa.Array, notation: str = "") -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values as float64 with NaN where missing or unreadable, and which are unreadable (or infinite); for reading only.

    Parameters
    ----------
    column : pyarrow.Array
    notation : str, optional
        How strings are written, if not with digits and a decimal point alone.
    """
    column = decoded(column)
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan), np.zeros(len(column), dtype=bool)
    if is_text(kind):
        return _parsed_numbers(strings(column), notation)
    if pa.types.is_duration(kind) or pa.types.is_time(kind):
        unit = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}[kind.unit]
        whole = pc.cast(column, pa.int32() if kind.bit_width == 32 else pa.int64())
        return _floats(whole) * unit, np.zeros(len(column), dtype=bool)
    values = _floats(column)
    bad = np.isinf(values)
    return np.where(bad, np.nan, values) if bad.any() else values, bad


def _floats(column: pa.Array) -> NDArray[np.float64]:
    """Not to be written to: they may be the column's own."""
    values: NDArray[np.float64] = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def _parsed_numbers(text: pa.Array, notation: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    plain = rewritten(text, notation) if notation else text
    try:
        values = _floats(plain)
    except pa.ArrowInvalid:
        fits = pc.fill_null(pc.match_substring_regex(plain, _NUMBER), False)
        bare = pc.replace_substring_regex(plain, r"^\+", "")
        values = _floats(pc.if_else(fits, bare, pa.scalar(None, pa.string())))
    present = np.asarray(pc.is_valid(text))
    bad = present & ~np.isfinite(values)
    return np.where(bad, np.nan, values) if bad.any() else values, bad


@cache
def _shape(form: str) -> str:
    shapes = _SHAPES | _TIGHT if "%Y%m" in form else _SHAPES
    return "^" + re.sub(r"%\w", lambda part: shapes[part.group()], re.escape(form).replace(r"\%", "%")) + "$"


def time_formats(sample: list[str], strays: int = 0) -> list[str]:
    """Formats that read all of some strings but for a few strays, likeliest first."""
    if not sample:
        return []
    array = pa.array(sample, pa.string())
    fitting = [form for form, shape in _date_shapes().items() if _fits(shape, sample, strays)]
    return [form for form in fitting if times(array, form)[1].sum() <= strays]


def date_formats(value: str) -> list[str]:
    """Formats of dates that a string has the shape of."""
    return [form for form, shape in _date_shapes().items() if shape.match(value)]


@cache
def _date_shapes() -> dict[str, re.Pattern[str]]:
    return {form: re.compile(shape) for form, shape in [(ISO, _ISO_TIME), *((f, _shape(f)) for f in TIME_FORMATS)]}


def _fits(shape: re.Pattern[str], sample: list[str], strays: int) -> bool:
    """Ends early: most columns are no dates, and there are many formats."""
    for value in sample:
        strays -= int(shape.match(value) is None)
        if strays < 0:
            return False
    return True


def times(column: pa.Array, form: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Seconds since 1970 (UTC where a zone is given), NaN where missing or unreadable, and which are unreadable."""
    column = decoded(column)
    if is_time(column.type):
        stamps = pc.cast(column, pa.timestamp("us"), safe=False) if not pa.types.is_timestamp(column.type) else column
    else:
        text = strings(column)
        if form == ISO:
            stamps = _iso(text)
        else:
            stamps = _formatted(text, form)
        bad = np.asarray(pc.and_(pc.is_valid(text), pc.is_null(stamps)))
        return _seconds(stamps), bad
    return _seconds(stamps), np.zeros(len(column), dtype=bool)


def _formatted(text: pa.Array, form: str) -> pa.Array:
    """Strings in a format as timestamps. Arrow itself takes the year 24 for 24, and 31 February for 2 March."""
    stamps = pc.strptime(text, format=form, unit="s", error_is_null=True)
    day = pc.cast(pc.struct_field(pc.extract_regex(text, _shape(form)), "day"), pa.int64())
    return pc.if_else(pc.fill_null(pc.equal(day, pc.day(stamps)), False), stamps, pa.scalar(None, stamps.type))


def _iso(text: pa.Array) -> pa.Array:
    """ISO 8601 strings as timestamps; a zone, where there is one, is turned into UTC."""
    none = pa.scalar(None, pa.string())
    fits = pc.fill_null(pc.match_substring_regex(text, _ISO_TIME), False)
    text = pc.if_else(fits, text, none)
    zoned = pc.fill_null(pc.match_substring_regex(text, ":.*" + _ZONE + "$"), False)
    if pc.any(zoned).as_py():  # as Arrow and Python read it: no space, and Z for UTC
        text = pc.replace_substring_regex(text, r" ?(Z|UTC|GMT)$", "Z")
        text = pc.replace_substring_regex(text, r"(:\d{2}(?:\.\d+)?) ([+-])", r"\1\2")
    try:
        local = pc.cast(pc.if_else(zoned, none, text), pa.timestamp("us"))
        absolute = pc.cast(pc.if_else(zoned, text, none), pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:  # 2024-02-30: shaped like a date, but none; only these pay for a loop
        return pa.array([_one_iso(value) for value in text.to_pylist()], pa.timestamp("us"))
    return pc.coalesce(local, pc.cast(absolute, pa.timestamp("us")))


def _one_iso(value: str | None) -> Any:
    import datetime

    if value is None:
        return None
    try:
        stamp = datetime.datetime.fromisoformat(value)
    except ValueError:
        return None
    return stamp if stamp.tzinfo is None else stamp.astimezone(datetime.UTC).replace(tzinfo=None)


def _seconds(stamps: pa.Array) -> NDArray[np.float64]:
    """Whole seconds and the rest apart: the same time gives the same float64 in every unit, nanoseconds too."""
    unit = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[stamps.type.unit]
    known = np.asarray(pc.is_valid(stamps))
    ticks = np.asarray(pc.fill_null(pc.cast(stamps, pa.int64()), 0))
    whole, rest = np.divmod(ticks, unit)
    return np.where(known, whole + rest / unit, np.nan)
