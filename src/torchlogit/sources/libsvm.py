"""Sparse tables in libsvm's text format: a label and ``index:value`` pairs a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from torchlogit.errors import InputError
from torchlogit.sources.files import BLOCK_BYTES, Bytes

_COMMENT = re.compile(rb"#[^\r\n]*")
_QUERY = re.compile(rb"(?<=[ \t])qid:[^ \t\r\n]*")
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_LABEL = re.compile(_NUMBER)
_PAIR = re.compile(rf"(\d+):({_NUMBER})")
_HIGHEST_INDEX = 2**31 - 2


@dataclass(frozen=True)
class SparseLines:
    """Some rows.

    Parameters
    ----------
    labels : ndarray of shape (rows,), float64
    indptr : ndarray of shape (rows + 1,), int64
    indices : ndarray of shape (nnz,), int64
        As they are in the file, increasing in each row.
    values : ndarray of shape (nnz,), float64
    """

    labels: NDArray[np.float64]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.labels.size


class _Malformed(Exception):  # noqa: N818 -- a signal, not an error
    """Something in a block is not as it should be; a slower look says what."""


def _parse(data: bytes) -> SparseLines:
    """Parse whole lines at once.

    The bytes are cut into tokens at spaces and into pieces at spaces and colons; all numbers are then parsed by
    Arrow, which accepts exactly numbers.
    """
    if b"#" in data:
        data = _COMMENT.sub(b"", data)
    if b"qid:" in data:
        data = _QUERY.sub(b"", data)
    text = np.frombuffer(data, dtype=np.uint8)
    space = text <= ord(" ")
    colon = text == ord(":")
    tokens = _starts(space)
    if not tokens.size:
        empty = np.empty(0)
        return SparseLines(empty, np.zeros(1, dtype=np.int64), empty.astype(np.int64), empty)
    ends = np.flatnonzero((text == ord("\n")) | (text == ord("\r")))
    line = np.searchsorted(ends, tokens)
    first = np.ones(tokens.size, dtype=bool)
    first[1:] = line[1:] != line[:-1]
    colons = np.bincount(
        np.maximum(np.searchsorted(tokens, np.flatnonzero(colon), side="right") - 1, 0), minlength=tokens.size
    )
    if (colons != ~first).any():
        raise _Malformed
    cut = space | colon
    starts = _starts(cut)
    kept = ~cut
    if starts.size != tokens.size + int(colons.sum()):
        raise _Malformed
    before = np.concatenate([[0], np.cumsum(kept, dtype=np.int32)])
    offsets = np.append(before[starts], before[-1]).astype(np.int32)
    pieces = pa.Array.from_buffers(
        pa.string(), starts.size, [None, pa.py_buffer(offsets), pa.py_buffer(text[kept].tobytes())]
    )
    piece = np.arange(tokens.size) + np.concatenate([[0], np.cumsum(colons)[:-1]])
    pair = piece[~first]
    try:
        labels = pieces.take(pa.array(piece[first])).cast(pa.float64()).to_numpy()
        indices = pieces.take(pa.array(pair)).cast(pa.int64()).to_numpy()
        values = pieces.take(pa.array(pair + 1)).cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        raise _Malformed from None
    if not (np.isfinite(labels).all() and np.isfinite(values).all()):
        raise _Malformed
    if indices.size and (indices.min() < 0 or indices.max() > _HIGHEST_INDEX):
        raise _Malformed
    heads = np.flatnonzero(first)
    indptr = np.append(heads - np.arange(heads.size), pair.size).astype(np.int64)
    return _increasing(SparseLines(labels, indptr, indices, values))


def _starts(gap: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Where runs without a gap begin."""
    begins = ~gap
    begins[1:] &= gap[:-1]
    return np.flatnonzero(begins)


def _increasing(lines: SparseLines) -> SparseLines:
    row = np.repeat(np.arange(lines.rows), np.diff(lines.indptr))
    same = row[1:] == row[:-1]
    if (np.diff(lines.indices)[same] > 0).all():
        return lines
    order = np.lexsort((lines.indices, row))
    indices = lines.indices[order]
    if (np.diff(indices)[same] == 0).any():
        raise _Malformed
    return SparseLines(lines.labels, lines.indptr, indices, lines.values[order])


def _below(first: SparseLines, second: SparseLines) -> SparseLines:
    return SparseLines(
        np.concatenate([first.labels, second.labels]),
        np.concatenate([first.indptr, second.indptr[1:] + first.indptr[-1]]),
        np.concatenate([first.indices, second.indices]),
        np.concatenate([first.values, second.values]),
    )


class LibsvmFile:
    """One libsvm file, gzipped or not.

    Parameters
    ----------
    path : Path
    name : str
        For messages.
    block_bytes : int
        How much is parsed at a time.
    skip : bool, default=False
        Whether rows that cannot be read are left out.
    """

    def __init__(self, path: Path, name: str, block_bytes: int = BLOCK_BYTES, skip: bool = False) -> None:
        self.path = path
        self.name = name
        self.size = path.stat().st_size
        self._block_bytes = block_bytes
        self._leave_out = skip
        self.ragged: list[tuple[int, str]] = []  # rows that the last read has left out, and why

    def blocks(self) -> Iterator[tuple[SparseLines, float]]:
        """All rows in order, and the share of the file read so far."""
        self.ragged, kept = [], 0
        with Bytes(self.path, self.name) as stream:
            rest = stream.read(3).removeprefix(b"\xef\xbb\xbf")
            while True:
                chunk = stream.read(self._block_bytes)
                if not chunk and not rest:
                    return
                data = rest + chunk
                cut = data.rfind(b"\n") + 1 if chunk else len(data)
                rest = data[cut:]
                try:
                    lines = _parse(data[:cut])
                except _Malformed:
                    if not self._leave_out:
                        raise self._malformed() from None
                    lines = self._salvaged(data[:cut].splitlines(keepends=True), kept)
                kept += lines.rows
                if lines.rows:
                    yield lines, stream.share()
                if not chunk:
                    return

    def _salvaged(self, lines: list[bytes], kept: int) -> SparseLines:
        """What can be read of some lines, by halving; ``kept`` rows were read before them."""
        try:
            return _parse(b"".join(lines))
        except _Malformed:
            if len(lines) == 1:
                self.ragged.append((kept + len(self.ragged), "something else than a label and index:value pairs"))
                return _parse(b"")
        first = self._salvaged(lines[: len(lines) // 2], kept)
        return _below(first, self._salvaged(lines[len(lines) // 2 :], kept + first.rows))

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Number (from 1) and tokens of each line that is a row: slowly, for finding a place again."""
        number, rest = 0, b""
        with Bytes(self.path, self.name) as stream:
            while True:
                chunk = stream.read(BLOCK_BYTES)
                data = (rest + chunk).removeprefix(b"\xef\xbb\xbf" if not number else b"")
                lines = data.splitlines(keepends=True)
                rest = lines.pop() if chunk and lines else b""
                for line in lines:
                    number += 1
                    content = line.split(b"#")[0].decode("utf-8", "replace")
                    if content.strip():
                        yield number, content.split()
                if not chunk:
                    return

    def _malformed(self) -> InputError:
        for number, (label, *pairs) in self._lines():
            place = f"{self.name}, line {number:,}"
            if ":" in label:
                return InputError(f"{place} begins with '{label[:40]}', not with a label; put the label first")
            if not _LABEL.fullmatch(label) or not np.isfinite(float(label)):
                return InputError(
                    f"{place} has the label '{label[:40]}', which is not a finite number; write classes as 0, 1, …"
                )
            seen: set[int] = set()
            for token in pairs:
                if token.startswith("qid:"):
                    continue
                match = _PAIR.fullmatch(token)
                if not match or not np.isfinite(float(match[2])):
                    return InputError(
                        f"{place} has '{token[:40]}' where index:value with finite numbers is expected; correct it"
                    )
                index = int(match[1])
                if index > _HIGHEST_INDEX:
                    return InputError(f"{place} has the index {index}, which is too high; number the features from 1")
                if index in seen:
                    return InputError(f"{place} has the index {index} twice ('{token[:40]}'); keep one of them")
                seen.add(index)
        return InputError(f"{self.name} is not a libsvm file; its lines should read: label index:value index:value …")

    def where(self, row: int) -> str:
        """File, row and line, found by a second read."""
        for other, _ in self.ragged:  # rising
            row += other <= row
        for count, (number, _) in enumerate(self._lines()):
            if count == row:
                return f"{self.name}, row {row + 1:,} (line {number:,})"
        return f"{self.name}, row {row + 1:,}"
