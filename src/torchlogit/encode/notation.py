"""Numbers that are not written as digits and a decimal point alone: ``1.234,5 €``, ``12 %``, ``7:30``.

A notation is known by an example of it, in model files too. A column has one if it reads all of the column's values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Sequence

_SIGNS = (
    "%", "‰", "$", "€", "£", "¥", "₹", "₽", "₩", "₺", "₪", "฿", "₫", "zł", "Kč",
    "EUR", "USD", "GBP", "CHF", "JPY", "CNY", "INR", "AUD", "CAD", "NZD", "SEK", "NOK", "DKK", "PLN", "CZK", "HUF",
    "BRL", "MXN", "ZAR", "RUB", "TRY", "KRW",
)  # fmt: skip
_SPACES = " \u00a0\u2009\u202f"
# (decimal, between groups of three digits): of those that read all values alike, the first is taken.
_SEPARATORS = ((".", ","), (",", "."), (".", " "), (",", " "), (".", "'"), (",", "'"))
_CLOCKS = {
    "h:mm": r"^(?P<hours>\d{1,3}):(?P<minutes>[0-5]\d)(?P<seconds>)$",
    "h:mm:ss": r"^(?P<hours>\d{1,3}):(?P<minutes>[0-5]\d):(?P<seconds>[0-5]\d(?:\.\d+)?)$",
}
# Two numbers from a list of choices ("1,3") look like a decimal comma, but have one digit on both sides of it.
DECIMAL_COMMA = r"\d\d,|,\d\d|(^|\D)0,\d"


@dataclass(frozen=True, slots=True)
class Notation:
    """How a column's numbers are written.

    Parameters
    ----------
    decimal : {'.', ','}
    group : {',', '.', ' ', "'"}
        What stands between groups of three digits, where anything does.
    sign : str
        A currency or per cent, before or after every number; may be empty.
    """

    decimal: str
    group: str
    sign: str
    pattern: str = field(init=False)

    def __post_init__(self) -> None:
        between, point = _between(self.group), re.escape(self.decimal)
        whole = rf"(?:[1-9]\d{{0,2}}(?:{between}\d{{3}})+|\d+)"
        number = rf"(?:{whole}(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?"
        sign, gap = re.escape(self.sign), f"[{_SPACES}]?"
        signed = rf"[+-]?{sign}{gap}{number}|{sign}{gap}[+-]{number}|[+-]?{number}{gap}{sign}"
        object.__setattr__(self, "pattern", rf"^(?:{signed if sign else '[+-]?' + number})$")

    @property
    def example(self) -> str:
        """Its name."""
        return f"1{self.group}234{self.decimal}5 {self.sign}".strip()

    def plain(self, text: pa.Array) -> pa.Array:
        """The strings with digits and a decimal point alone, null where they are written otherwise."""
        fits = pc.fill_null(pc.match_substring_regex(text, self.pattern), False)
        bare = pc.replace_substring(text, self.sign, "") if self.sign else text
        bare = pc.replace_substring_regex(bare, f"{_between(self.group)}|[{_SPACES}]", "")
        return pc.if_else(fits, pc.replace_substring(bare, self.decimal, "."), pa.scalar(None, pa.string()))


def _between(group: str) -> str:
    return {" ": f"[{_SPACES}]", "'": "['’]"}.get(group, f"[{group}]")


@cache
def _all() -> dict[str, Notation]:
    found = [Notation(decimal, group, sign) for sign in ("", *_SIGNS) for decimal, group in _SEPARATORS]
    return {notation.example: notation for notation in found}


def is_notation(name: str) -> bool:
    """Whether there is a notation of this name."""
    return name in _CLOCKS or name in _all()


def is_clock(name: str) -> bool:
    """Whether its numbers are hours and minutes."""
    return name in _CLOCKS


def candidates(odd: Sequence[str]) -> list[str]:
    """Names of the notations that read all of some strings which are no plain numbers.

    Examples
    --------
    >>> candidates(["€1,234.50", "€7.10"]), candidates(["1,234"]), candidates(["7:30", "12:05"]), candidates(["red"])
    (['1,234.5 €'], ['1,234.5', '1.234,5', '1 234,5', "1'234,5"], ['h:mm'], [])
    """
    if not odd:
        return []
    clocks = [name for name, pattern in _CLOCKS.items() if all(re.match(pattern, value) for value in odd)]
    sign = next((sign for sign in _SIGNS if sign in odd[0]), "")
    notations = [Notation(decimal, group, sign) for decimal, group in _SEPARATORS]
    return clocks + [n.example for n in notations if all(re.match(n.pattern, value) for value in odd)]


def rewritten(text: pa.Array, name: str) -> pa.Array:
    """Strings in a notation as plain numbers (hours and minutes: as seconds); null where they are not in it."""
    if name not in _CLOCKS:
        return _all()[name].plain(text)
    parts = pc.extract_regex(text, _CLOCKS[name])
    hours, minutes, seconds = (pc.struct_field(parts, part) for part in ("hours", "minutes", "seconds"))
    whole = pc.add(pc.multiply(pc.cast(hours, pa.float64()), 3600.0), pc.multiply(pc.cast(minutes, pa.float64()), 60.0))
    return whole if name == "h:mm" else pc.add(whole, pc.cast(seconds, pa.float64()))


def grouped(text: pa.Array, name: str) -> pa.Array:
    """Whether there is something between groups of three digits, string by string."""
    if name in _CLOCKS:
        return pa.array([False] * len(text))
    return pc.fill_null(pc.match_substring_regex(text, rf"\d{_between(_all()[name].group)}\d"), False)


def needs_proof(name: str) -> bool:
    """Whether a decimal comma is all that this notation has."""
    return name in _all() and _all()[name].decimal == "," and not _all()[name].sign
