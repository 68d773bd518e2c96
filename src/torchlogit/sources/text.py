"""Tables in text files: values between separators, gzipped or not."""

from __future__ import annotations

import atexit
import gc
import io
import itertools
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from torchlogit.errors import InputError
from torchlogit.sources import csv_dialect
from torchlogit.sources.files import BLOCK_BYTES, Bytes, text_stream

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "?")
_WIDEST_BLOCK = 1 << 30


@dataclass(frozen=True)
class TextOptions:
    """How to read text.

    Parameters
    ----------
    separator : str, optional
        None: guess.
    header : bool, default=True
        Whether the first record names the columns.
    missing : tuple of str, default=MISSING
        What stands for a missing value, after surrounding spaces are gone.
    block_bytes : int
        How much is parsed at a time.
    names : tuple of str, optional
        Names of the columns of a file without a header.
    skip : bool, default=False
        Whether rows with the wrong number of fields are left out.
    """

    separator: str | None = None
    header: bool = True
    missing: tuple[str, ...] = MISSING
    block_bytes: int = BLOCK_BYTES
    names: tuple[str, ...] | None = None
    skip: bool = False


class TextFile:
    """One text file; its columns are strings.

    Parameters
    ----------
    path : Path
    name : str
        For messages.
    options : TextOptions
    """

    def __init__(self, path: Path, name: str, options: TextOptions) -> None:
        self.path = path
        self.name = name
        self.size = path.stat().st_size
        self._missing = pa.array(options.missing, pa.string())
        self._header = options.header
        self._block_bytes = options.block_bytes
        self._leave_out = options.skip
        head = csv_dialect.read_head(path, name, options.separator)
        if not head.text.strip():
            raise InputError(f"{name} is empty; it needs at least one row of data")
        self.separator = options.separator or csv_dialect.guess_separator(head, name, options.header)
        self._mark = head.mark
        lines = io.StringIO(head.text, newline="")
        first = next(csv_dialect.records(lines, self.separator, True), None)
        if first is not None and not csv_dialect.well_quoted(head.text[: lines.tell()], self.separator):
            lines.seek(0)
            first = next(csv_dialect.records(lines, self.separator, self._quoting), None)
        if first is None:
            raise InputError(f"{name} is empty; it needs at least one row of data")
        self.columns = self._given(options.names, len(first[1])) if options.names else self._names(first[1])
        self._skip = head.mark
        if options.header:
            self._skip += len(head.text[: lines.tell()].encode("utf-8", "surrogateescape"))
        self.has_rows = bool(head.text[lines.tell() if options.header else 0 :].strip("\r\n")) or not head.complete

    def _given(self, names: Sequence[str], fields: int) -> list[str]:
        if len(names) != fields:
            raise InputError(f"{self.name} has {fields} columns, but {len(names)} names were given for them")
        return list(names)

    def _names(self, fields: Sequence[str]) -> list[str]:
        if not self._header:
            return [f"column_{i}" for i in range(len(fields))]
        stripped = [_unquoted(field) for field in fields]
        names = [name or f"column_{i}" for i, name in enumerate(stripped)]
        first: dict[str, int] = {}
        for i, name in enumerate(names):
            try:
                name.encode()
            except UnicodeEncodeError:
                csv_dialect.check_bytes(self.path, self.name)
            if first.setdefault(name, i) != i:
                raise InputError(
                    f"{self.name} has two columns named '{name}' (number {first[name] + 1} and {i + 1}); rename "
                    "one, or say --no-header (header=False) if its first line is data"
                )
        return names

    @cached_property
    def _quoting(self) -> bool:
        """Whether quotes are quotes; reads the file to check its bytes, and to find out."""
        if not csv_dialect.check_bytes(self.path, self.name):
            return False
        return csv_dialect.quotes_are_quotes(self.path, self.name, self.separator)

    @property
    def schema(self) -> pa.Schema:
        """The columns: strings."""
        return pa.schema([(name, pa.string()) for name in self.columns])

    def known_rows(self) -> int | None:
        """It takes a read to know the number of rows, unless there is none."""
        return None if self.has_rows else 0

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, float]]:
        """Blocks of these columns; missing values are null and spaces around values are gone."""
        if not self.has_rows:
            return
        delivered, quoting = 0, self._quoting
        while True:
            try:
                seen = 0
                for batch, share in self._parsed(columns, quoting):
                    seen += batch.num_rows
                    if seen > delivered:
                        fresh = batch.slice(max(batch.num_rows - (seen - delivered), 0))
                        delivered = seen
                        yield self._clean(fresh, quoting), share
                return
            except _Straddles:
                # Longer blocks from here on, so that every later read is cut in the same places.
                self._block_bytes *= 4

    def _parsed(self, columns: Sequence[str], quoting: bool) -> Iterator[tuple[pa.RecordBatch, float]]:
        with Bytes(self.path, self.name) as stream:
            body = _Body(stream, self._skip)
            _READING.add(body)
            reader = None
            try:
                reader = pyarrow.csv.open_csv(
                    pa.PythonFile(body, mode="r"),
                    read_options=pyarrow.csv.ReadOptions(block_size=self._block_bytes, column_names=self.columns),
                    parse_options=pyarrow.csv.ParseOptions(
                        delimiter=self.separator,
                        quote_char='"' if quoting else False,
                        newlines_in_values=quoting,
                        invalid_row_handler=(lambda row: "skip") if self._leave_out else None,
                    ),
                    convert_options=pyarrow.csv.ConvertOptions(
                        column_types=dict.fromkeys(self.columns, pa.string()),
                        include_columns=list(columns),
                        null_values=self._missing.to_pylist(),
                        strings_can_be_null=True,
                    ),
                )
                for batch in reader:
                    yield batch, stream.share()
            except (pa.ArrowInvalid, pa.ArrowException, InputError) as error:
                raise self._explained(error, body, quoting) from None
            finally:
                if reader is not None:
                    reader.close()
            if quoting and body.quotes % 2:
                self._check_closed()

    def _explained(self, error: Exception, body: _Body, quoting: bool) -> Exception:
        text = str(error).splitlines()[0]
        if body.error is not None:
            return body.error
        if isinstance(error, InputError):
            return error
        if "straddl" in text:
            if self._block_bytes < min(_WIDEST_BLOCK, 4 * max(body.read_bytes, self.size)):
                return _Straddles()
            self._check_closed()
            return InputError(f"{self.name} has a record longer than 1 GiB; is it a text table?")
        if "columns, got" in text:
            return self._ragged(quoting) or InputError(f"{self.name} is not a regular table ({text}); give --sep")
        if "UTF8" in text:
            csv_dialect.check_bytes(self.path, self.name)
        return InputError(f"{self.name} cannot be read as CSV ({text}); give the separator with --sep")

    def _ragged(self, quoting: bool) -> InputError | None:
        """The first row with the wrong number of fields, found by a second, slower read."""
        expected = len(self.columns)
        row = -1 if self._header else 0
        for line, fields in csv_dialect.file_records(self.path, self.name, self.separator, quoting):
            if len(fields) != expected and row >= 0:
                found = f"{len(fields)} field{'s' if len(fields) > 1 else ''}"
                shown = {"\t": "tab", csv_dialect.ONE_COLUMN: "none"}.get(self.separator, f"'{self.separator}'")
                return InputError(
                    f"{self.name}, {_row_words(row, line)} has {found}, expected {expected} as in the first line "
                    f"(separator: {shown}); correct the line or give another separator with --sep"
                )
            row += 1
        return None

    def _check_closed(self) -> None:
        """A quote that is never closed has swallowed the rest of the file."""
        last, final = 0, ["end"]
        with Bytes(self.path, self.name) as stream:
            lines = itertools.chain(text_stream(stream), ["end"])
            for line, fields in csv_dialect.records(lines, self.separator, True):
                last, final = line, fields
        if final != ["end"]:
            raise InputError(
                f"{self.name}, line {last:,} opens a quote that is never closed, so the rest of the file would be one "
                'value; close it, or double the quotes within it ("")'
            )

    def _clean(self, batch: pa.RecordBatch, quoting: bool) -> pa.RecordBatch:
        """Without spaces around values; what is missing then is null."""
        columns = [_trimmed(column, self._missing, quoting) for column in batch.columns]
        return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)

    def _numbered(self) -> Iterator[tuple[int, int, list[str]]]:
        """Number, line and fields of every row: slowly, for finding a place again."""
        number = -1 if self._header else 0
        for line, fields in csv_dialect.file_records(self.path, self.name, self.separator, self._quoting):
            if number >= 0:
                yield number, line, fields
            number += 1

    @cached_property
    def ragged(self) -> list[tuple[int, str]]:
        """Rows that are left out for their number of fields, with the reason; found by a second read."""
        if not self._leave_out:
            return []
        expected = len(self.columns)
        return [
            (number, f"{len(fields)} field{'s' if len(fields) > 1 else ''}, expected {expected}")
            for number, _, fields in self._numbered()
            if len(fields) != expected
        ]

    def where(self, row: int) -> str:
        """File, row and line, found by a second read."""
        there = -1
        for number, line, fields in self._numbered():
            there += not self._leave_out or len(fields) == len(self.columns)
            if there == row:
                return f"{self.name}, {_row_words(number, line)}"
        return f"{self.name}, row {row + 1:,}"


def _row_words(row: int, line: int) -> str:
    return f"row {row + 1:,} (line {line:,})"


def _unquoted(field: str) -> str:
    text = field.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] == '"' else text


def _trimmed(column: pa.Array, missing: pa.Array, quoting: bool) -> pa.Array:
    offsets, data = column.buffers()[1:]
    if data is None or not len(column):
        return column
    ends = np.frombuffer(offsets, dtype=np.int32)
    text = np.frombuffer(data, dtype=np.uint8)[ends[column.offset] : ends[column.offset + len(column)]]
    # Trimming takes longer than parsing, so only where a byte may be (part of) a space: 0-32 and 128-255.
    if not (text - np.uint8(33) >= 95).any():
        return column
    if quoting and (text == ord('"')).any():  # a quote after a space: the parser takes it for a character
        column = pc.replace_substring_regex(column, r'^\s+"([^"]*)"\s*$', r"\1")
    column = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.is_in(column, value_set=missing), pa.scalar(None, pa.string()), column)


class _Straddles(Exception):  # noqa: N818 -- a signal, not an error
    """A record is longer than a block."""


# Arrow reads ahead in threads of its own, and lets go of what it reads a moment after the last block. If the
# interpreter ends within that moment, the thread asks for a lock that is gone and the process aborts (seen in five of
# six runs that ended just after a read). So the end waits for them.
_READING: weakref.WeakSet[_Body] = weakref.WeakSet()
_LONGEST_WAIT = 2.0  # seconds


@atexit.register
def _let_go() -> None:
    gc.collect()
    began = time.monotonic()
    while len(_READING) and time.monotonic() - began < _LONGEST_WAIT:
        time.sleep(0.002)


class _Body:
    """What Arrow reads: the bytes after the header, with what went wrong kept (Arrow would wrap it)."""

    def __init__(self, stream: Bytes, skip: int) -> None:
        self._stream = stream
        self._skip = skip
        self.error: Exception | None = None
        self.closed = False
        self.quotes = 0
        self.read_bytes = 0

    def read(self, count: int = -1) -> bytes:
        try:
            while self._skip:
                skipped = len(self._stream.read(min(self._skip, BLOCK_BYTES)))
                self._skip = self._skip - skipped if skipped else 0
            data = self._stream.read(count if count >= 0 else 1 << 62)
        except Exception as error:
            self.error = error
            raise
        self.quotes += data.count(b'"')
        self.read_bytes += len(data)
        return data

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True
