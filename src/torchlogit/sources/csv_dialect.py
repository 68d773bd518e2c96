"""How a text table is written: its encoding, its separator, and whether its quotes are quotes."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torchlogit.errors import InputError
from torchlogit.sources.files import BLOCK_BYTES, Bytes, text_stream

BOM = codecs.BOM_UTF8
# A separator no file uses: everything in a line is one field.
ONE_COLUMN = "\x1f"
_CANDIDATES = (",", "\t", ";")
_SAMPLE_RECORDS = 200
_WIDEST_RECORD = 1 << 28


@dataclass(frozen=True)
class Head:
    """The first records of a file.

    Parameters
    ----------
    text : str
        Whole lines from the start of the file, without a byte order mark.
    complete : bool
        Whether that is the whole file.
    mark : int
        Bytes of the byte order mark.
    """

    text: str
    complete: bool
    mark: int


def records(lines: Iterable[str], separator: str, quoting: bool) -> Iterator[tuple[int, list[str]]]:
    """Each record with the number of its first line (from 1); empty lines are none."""
    csv.field_size_limit(max(csv.field_size_limit(), _WIDEST_RECORD))
    reader = csv.reader(
        lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE, doublequote=True
    )
    last = 0
    for fields in reader:
        if fields:
            yield last + 1, fields
        last = reader.line_num


def file_records(path: Path, name: str, separator: str, quoting: bool) -> Iterator[tuple[int, list[str]]]:
    """All records of a file: slowly, for finding a place that a fast reader only knows exists."""
    with Bytes(path, name) as stream:
        yield from records(text_stream(stream), separator, quoting)


def read_head(path: Path, name: str, separator: str | None) -> Head:
    """Enough of the start of a file to know its first records."""
    size = 1 << 18
    while True:
        with Bytes(path, name) as stream:
            data = stream.read(size)
            complete = len(data) < size
        encoding = _wide_encoding(data)
        if encoding:
            raise InputError(f"{name} is {encoding}, not UTF-8; save it as UTF-8")
        if b"\0" in data:
            check_bytes(path, name)
        mark = len(BOM) if data.startswith(BOM) else 0
        cut = len(data) if complete else max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        text = data[mark:cut].decode("utf-8", "surrogateescape")
        if complete or size >= _WIDEST_RECORD or _second_record(text, separator):
            return Head(text, complete, mark)
        size *= 4


def _wide_encoding(data: bytes) -> str | None:
    """UTF-32 or UTF-16, by the mark at the start or by the zero bytes that letters have there."""
    if data[:4] in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        return "UTF-32"
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "UTF-16"
    zeros = [not byte for byte in data[:4]]
    if len(zeros) < 4 or sum(zeros) not in (2, 3):
        return None
    if zeros in ([False, True, True, True], [True, True, True, False]):
        return "UTF-32"
    return "UTF-16" if zeros in ([False, True] * 2, [True, False] * 2) else None


def _second_record(text: str, separator: str | None) -> bool:
    found = records(io.StringIO(text, newline=""), separator or ",", True)
    return len([record for record, _ in zip(found, range(2), strict=False)]) == 2


def guess_separator(head: Head, name: str, header: bool) -> str:
    """Comma, tab or semicolon: the one that cuts the first records into equally many fields, and more than one."""
    best, best_score = ONE_COLUMN, (0.0, 0)
    for separator in _CANDIDATES:
        for quoting in (True, False):
            widths = [
                len(fields)
                for (_, fields), _ in zip(
                    records(io.StringIO(head.text, newline=""), separator, quoting), range(_SAMPLE_RECORDS),
                    strict=False,
                )
            ]  # fmt: skip
            if not head.complete and len(widths) > 2 and len(widths) < _SAMPLE_RECORDS:
                widths.pop()
            if not widths or widths[0] < 2:
                continue
            share = sum(width == widths[0] for width in widths) / len(widths)
            # without a header a first line of prose with a comma must not split a column of text
            plausible = header or share >= 0.5
            preferred = separator == "\t" and ".tsv" in name.lower()
            if plausible and (share + preferred, widths[0]) > best_score:
                best, best_score = separator, (share + preferred, widths[0])
    return best


def well_quoted(text: str, separator: str) -> bool:
    """Whether each quote in this text opens, closes or is doubled within a field."""
    try:
        for _ in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True):
            pass
    except csv.Error:
        return False
    return True


def check_bytes(path: Path, name: str) -> bool:
    """Read all bytes once; whether a quote is among them.

    Raises
    ------
    InputError
        If the file holds zero bytes, is not UTF-8, or cannot be unpacked to its end.
    """
    quotes, decoder, position, line, pending = False, codecs.getincrementaldecoder("utf-8")(), 0, 1, 0
    with Bytes(path, name) as stream:
        while chunk := stream.read(BLOCK_BYTES):
            quotes = quotes or b'"' in chunk
            if b"\0" in chunk:
                line += chunk.count(b"\n", 0, chunk.index(b"\0"))
                raise InputError(
                    f"{name}, line {line:,} holds a zero byte, so it is not a text table; save it as CSV in UTF-8"
                )
            if pending or not chunk.isascii():
                try:
                    decoder.decode(chunk)
                except UnicodeDecodeError as error:
                    at = error.start - pending
                    raise _not_utf8(name, line + chunk.count(b"\n", 0, max(at, 0)), position + at) from None
                pending = len(decoder.getstate()[0])
            position += len(chunk)
            line += chunk.count(b"\n")
    if pending:
        raise _not_utf8(name, line, position - pending)
    return quotes


def _not_utf8(name: str, line: int, offset: int) -> InputError:
    return InputError(f"{name}, line {line:,} (byte {offset:,}) is not UTF-8; save it as UTF-8")


def quotes_are_quotes(path: Path, name: str, separator: str) -> bool:
    """Whether quotation marks enclose fields, or are just characters, as in chat messages.

    They are just characters if every line has the same number of fields when they are taken so, while taking them as
    quotes would join lines or change the number of fields, in a file that does not quote as a rule.
    """
    with Bytes(path, name) as stream:
        tally = _Tally(separator)
        rest = stream.read(len(BOM)).removeprefix(BOM)
        while chunk := stream.read(BLOCK_BYTES):
            block = (rest + chunk).replace(b"\r", b"\n")
            cut = block.rfind(b"\n") + 1
            rest = block[cut:]
            if cut and (decided := tally.add(block[:cut])) is not None:
                return decided if tally.fields != 1 else _closes_quotes(path, name)
        if rest and (decided := tally.add(rest.replace(b"\r", b"\n") + b"\n")) is not None:
            return decided
    if tally.fields == 1:
        return _closes_quotes(path, name)
    return not tally.broken or 2 * tally.quoted > tally.lines


def _closes_quotes(path: Path, name: str) -> bool:
    """In a single column lines cannot be counted against each other: quotes are quotes if all are closed well."""
    with Bytes(path, name) as stream:
        try:
            for _ in csv.reader(text_stream(stream), delimiter=ONE_COLUMN, strict=True):
                pass
        except csv.Error:
            return False
    return True


class _Tally:
    """Evidence from physical lines."""

    def __init__(self, separator: str) -> None:
        self.separator = separator
        self.fields = 0  # of a line, quotes being characters
        self.quoted_fields = 0  # of the first line, quotes being quotes
        self.lines = self.quoted = self.broken = 0

    def add(self, block: bytes) -> bool | None:
        """Look at whole lines; the decision if they bring one."""
        text: NDArray[np.uint8] = np.frombuffer(block, dtype=np.uint8)
        ends = np.flatnonzero(text == ord("\n"))
        starts = np.concatenate([[0], ends[:-1] + 1])
        separators = np.flatnonzero(text == ord(self.separator))
        quotes = np.flatnonzero(text == ord('"'))
        line_of_separator = np.searchsorted(ends, separators)
        fields = np.bincount(line_of_separator, minlength=ends.size) + 1
        filled = ends > starts
        if not filled.any():
            return None
        if not self.fields:
            first = int(np.argmax(filled))
            self.fields = int(fields[first])
            self.quoted_fields, _ = _quoted_shape(block[starts[first] : ends[first]], self.separator)
        if (fields[filled] != self.fields).any():
            return True
        before = np.searchsorted(quotes, starts)
        count = np.searchsorted(quotes, ends) - before
        inside = (np.searchsorted(quotes, separators) - before[line_of_separator]) % 2 == 1
        suspicious = count % 2 == 1
        suspicious[line_of_separator[inside]] = True
        opening = quotes[(quotes == 0) | np.isin(text[quotes - 1], (ord(self.separator), ord("\n")))]
        opened = np.zeros(ends.size, dtype=bool)
        opened[np.searchsorted(ends, opening)] = True
        for line in np.flatnonzero(suspicious & opened):
            width, ends_open = _quoted_shape(block[starts[line] : ends[line]], self.separator)
            if ends_open or width != self.quoted_fields:
                self.broken += 1
                opened[line] = False
        self.lines += int(filled.sum())
        self.quoted += int(opened.sum())
        return True if not self.broken and self.lines >= 1000 and 2 * self.quoted > self.lines else None


def _quoted_shape(line: bytes, separator: str) -> tuple[int, bool]:
    """Number of fields of a line alone if quotes are quotes, and whether it ends within them."""
    rows = list(csv.reader([line.decode("utf-8", "replace") + "\n", "end"], delimiter=separator))
    return len(rows[0]), len(rows) == 1
