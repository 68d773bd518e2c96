"""A small part of large files, as files of the same kind: what a plan is measured on."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from torchlogit.errors import InputError
from torchlogit.sources.files import detect_format, reading

# Text: so many bytes. Parquet: so many numbers. Enough to leave a core's cache, and few enough to wait for.
_TEXT_BYTES, _NUMBERS = 24 << 20, 24_000_000
_LEAST_ROWS = 20_000
# From so many places, evenly spread: files are often sorted.
_PLACES = 8


def sampled(paths: Sequence[Path], folder: Path, *, header: bool) -> tuple[list[Path], float]:
    """Files with some of the rows of others.

    Parameters
    ----------
    paths : sequence of Path
    folder : Path
        To write them to.
    header : bool
        Whether the first line of a text file names the columns.

    Returns
    -------
    paths : list of Path
        The files themselves where they are small.
    share : float
        Of the bytes (text) or rows (Parquet) that were taken.
    """
    kind = detect_format(paths[0], paths[0].name)
    if kind == "Parquet":
        return _parquet(paths, folder)
    size = sum(path.stat().st_size for path in paths)
    if size <= _TEXT_BYTES:
        return list(paths), 1.0
    if kind == "Arrow":
        raise InputError("a plan for large Arrow files is not available; write them as Parquet")
    with open(paths[0], "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    name = folder / ("sample.csv" if kind == "CSV" else "sample.libsvm")
    with reading(paths[0].name):
        if packed:
            text, taken = _unpacked(paths[0])
        else:
            text, taken = _pieces(paths, header=header and kind == "CSV")
    name.write_bytes(text)
    return [name], taken / size


def _unpacked(path: Path) -> tuple[bytes, int]:
    """The first lines of a gzipped file, and how much of the file they take."""
    with open(path, "rb") as raw, gzip.GzipFile(fileobj=raw) as file:
        text = file.read(_TEXT_BYTES)
        return text[: text.rfind(b"\n") + 1], raw.tell()


def _pieces(paths: Sequence[Path], *, header: bool) -> tuple[bytes, int]:
    """Lines from several places, behind the header, and how many bytes they take."""
    pieces, first = [], b""
    if header:
        with open(paths[0], "rb") as file:
            first = file.readline()
    sizes = [path.stat().st_size for path in paths]
    ends = np.cumsum(sizes)
    for place in range(_PLACES):
        at = int(ends[-1]) * place // _PLACES
        number = int(np.searchsorted(ends, at, side="right"))
        with open(paths[number], "rb") as file:
            inside = at - (int(ends[number]) - sizes[number])
            file.seek(inside)
            if inside or header:
                file.readline()
            piece = file.read(_TEXT_BYTES // _PLACES)
        piece = piece[: piece.rfind(b"\n") + 1]
        if piece.count(b'"') % 2 == 0:  # else it was cut inside of a value
            pieces.append(piece)
    return first + b"".join(pieces), sum(len(piece) for piece in pieces)


def _parquet(paths: Sequence[Path], folder: Path) -> tuple[list[Path], float]:
    """Row groups from several places, cut short."""
    groups: list[tuple[Path, int, int]] = []
    columns = 1
    for path in paths:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                columns = max(columns, file.metadata.num_columns)
                groups += [(path, i, file.metadata.row_group(i).num_rows) for i in range(file.metadata.num_row_groups)]
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path.name} cannot be read ({error}); check the file") from None
    total = sum(rows for _, _, rows in groups)
    wanted = max(_NUMBERS // columns, _LEAST_ROWS)
    if total <= wanted:
        return list(paths), 1.0
    chosen = sorted({len(groups) * place // _PLACES for place in range(_PLACES)})
    taken, written = 0, []
    for k, number in enumerate(chosen):
        path, group, rows = groups[number]
        # What the groups before had too few of, the others make up for.
        count = min(-(-(wanted - taken) // (len(chosen) - k)), rows)
        with pyarrow.parquet.ParquetFile(path) as file:
            part = next(file.iter_batches(count, row_groups=[group]))
        taken += part.num_rows
        name = folder / f"sample-{k}.parquet"
        pyarrow.parquet.write_table(pa.Table.from_batches([part]), name)
        written.append(name)
    return written, taken / total
