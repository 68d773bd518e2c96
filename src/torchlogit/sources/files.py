"""Files as such: which ones are meant, what they hold, their bytes, and what to say when that goes wrong."""

from __future__ import annotations

import difflib
import glob
import gzip
import hashlib
import io
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import pyarrow as pa

from torchlogit.errors import InputError

BLOCK_BYTES = 1 << 20
_LOOK = 1 << 16

_SUFFIXES = {
    "CSV": (".csv", ".tsv", ".txt", ".data"),
    "Parquet": (".parquet", ".pq"),
    "Arrow": (".arrow", ".ipc", ".feather"),
    "libsvm": (".libsvm", ".svm", ".svmlight"),
    "NumPy": (".npy",),
}
_GZIP = b"\x1f\x8b"
_LIBSVM_LINE = re.compile(rb"[+-]?[\d.][\d.eE+-]*(?:\s+(?:qid|\d+):[^\s:,;]+)+\s*")


class TableFile(Protocol):
    """One file of a table. Each format is a class with these methods and one line in ``scanning.py``."""

    path: Path
    name: str
    size: int

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns, dictionaries decoded."""
        ...

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, float]]:
        """Blocks of these columns (at least one) in this order, and the share of the file read so far."""
        ...

    def where(self, row: int) -> str:
        """The row with this number (from 0), for a person."""
        ...

    def known_rows(self) -> int | None:
        """Number of rows, None if it takes a read to know."""
        ...


def listed(names: Sequence[str], most: int = 8) -> str:
    """Some names in quotes, for a sentence."""
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The name that was probably meant."""
    folded = {other.strip().casefold(): other for other in reversed(names)}
    close = difflib.get_close_matches(name.strip().casefold(), list(folded), n=1, cutoff=0.6)
    return folded[close[0]] if close else None


@contextmanager
def reading(name: str) -> Iterator[None]:
    """What the operating system and gzip complain about, as sentences."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"there is no file {name}") from None
    except PermissionError:
        raise InputError(f"{name} may not be read by you (permission denied); change its permissions") from None
    except EOFError:
        raise InputError(f"{name} is cut short: its gzip data end too early; copy or download it again") from None
    except (gzip.BadGzipFile, zlib.error):
        raise InputError(f"{name} is damaged: its gzip data cannot be unpacked; copy or download it again") from None
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror or error}); check the file") from None


def expand(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files that are meant, in order; a pattern's files are sorted."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not given:
        raise InputError("no file is given; name at least one")
    found: list[Path] = []
    for entry in given:
        if not isinstance(entry, (str, os.PathLike)):
            raise TypeError(f"paths are strings or Path objects, not {type(entry).__name__}")
        text = os.path.expanduser(os.fspath(entry))
        if glob.has_magic(text) and not os.path.exists(text):
            matches = sorted(match for match in glob.glob(text, recursive=True) if os.path.isfile(match))
            if not matches:
                raise InputError(f"no file matches '{text}'; check the folder and the pattern")
            found.extend(Path(match) for match in matches)
        elif os.path.isdir(text):
            found.extend(_inside(Path(text)))
        else:
            _check_file(text)
            found.append(Path(text))
    return found


def _inside(folder: Path) -> list[Path]:
    """The files of tables in a folder and the folders in it, sorted; names that begin with . or _ are not data."""
    known = tuple(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.name.lower().removesuffix(".gz").endswith(known):
            found.append(path)
    if not found:
        raise InputError(
            f"{folder} is a directory without a file of a table ({', '.join(known)}); name the files themselves"
        )
    return found


def _check_file(text: str) -> None:
    path = Path(text)
    if path.exists():
        if not path.is_file():  # a pipe can be read once, and models take several reads
            raise InputError(f"{text} is a pipe or a device, which cannot be read again; save it to a file first")
        return
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"there is no file {text}: its folder {folder} does not exist")
    close = nearest(path.name, sorted(os.listdir(folder)))
    meant = f"; did you mean {folder / close}?" if close else "; check the name and the folder"
    raise InputError(f"there is no file {text}{meant}")


@dataclass(frozen=True, slots=True)
class Stamp:
    """By which a change of a file between two reads shows: which file it is, its size, and when it was written."""

    inode: int
    size: int
    written: int

    @classmethod
    def of(cls, path: Path, name: str) -> Stamp:
        """The file's stamp now."""
        with reading(name):
            found = path.stat()
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)


def changed(name: str) -> InputError:
    """Every read is of the same files: what a fit added up of one version means nothing beside another."""
    return InputError(f"{name} changed between two reads; start again when it is complete")


class _NamedFile(Protocol):
    path: Path
    name: str


class Stamps:
    """The files of a table, each as the first read found it."""

    def __init__(self, files: Sequence[_NamedFile]) -> None:
        self._files = files
        self._found: list[Stamp | None] = [None] * len(files)

    def check(self, number: int) -> None:
        """Raise `InputError` where this file is another one than before."""
        file = self._files[number]
        now, then = Stamp.of(file.path, file.name), self._found[number]
        if then is not None and now != then:
            raise changed(file.name)
        self._found[number] = now


def fingerprint(path: Path) -> str:
    """By which a file is known again, under whatever name: its size, its beginning and its end."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        begins = file.read(_LOOK)
        file.seek(max(size - _LOOK, 0))
        return hashlib.sha256(b"%d %b%b" % (size, begins, file.read(_LOOK))).hexdigest()[:32]


def display_names(paths: Sequence[Path]) -> list[str]:
    """A file's own name, with its folder only where two files share it."""
    names = [path.name for path in paths]
    return [name if names.count(name) == 1 or len(set(paths)) == 1 else str(path)
            for name, path in zip(names, paths, strict=True)]  # fmt: skip


class Bytes:
    """The bytes of a file from its start, unpacked if it is gzipped (by content, not by name)."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        with reading(name):
            self._raw: BinaryIO = open(path, "rb")  # noqa: SIM115 -- closed by close()
            self.size = os.fstat(self._raw.fileno()).st_size
            gzipped = self._raw.read(2) == _GZIP
            self._raw.seek(0)
            self._stream = cast(BinaryIO, gzip.GzipFile(fileobj=self._raw)) if gzipped else self._raw

    def read(self, count: int) -> bytes:
        """The next bytes, ``count`` of them unless the file ends."""
        with reading(self.name):
            return self._stream.read(count)

    def share(self) -> float:
        """The share of the file that has been read; it never falls, even where another thread reads meanwhile."""
        # Not ``self._raw.tell()``: it takes no lock, and beside a read of another thread it counts what is in the
        # buffer before or after that read, so that its next answer may be smaller.
        return os.lseek(self._raw.fileno(), 0, os.SEEK_CUR) / max(self.size, 1)

    def close(self) -> None:
        """Let go of the file."""
        self._raw.close()

    def __enter__(self) -> Bytes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def text_stream(stream: Bytes) -> io.TextIOWrapper:
    """Lines of text, ends of lines kept; for finding a place again, so bytes that are not UTF-8 pass through."""
    return io.TextIOWrapper(
        io.BufferedReader(cast(io.RawIOBase, _Raw(stream)), BLOCK_BYTES),
        encoding="utf-8-sig",
        errors="surrogateescape",
        newline="",
    )


class _Raw(io.RawIOBase):
    def __init__(self, stream: Bytes) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def detect_format(path: Path, name: str) -> str:
    """The format, by the content where it says so and else by the suffix.

    Raises
    ------
    InputError
        If the file is empty, is not what its suffix says, or is of a kind that cannot be read.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = bool(suffixes) and suffixes[-1] == ".gz"
    suffix = suffixes[-2] if zipped and len(suffixes) > 1 else "" if zipped or not suffixes else suffixes[-1]
    claimed = next((kind for kind, known in _SUFFIXES.items() if suffix in known), None)
    with Bytes(path, name) as stream:
        if stream.size == 0:
            raise InputError(f"{name} is empty; it needs at least one row of data")
        with reading(name), open(path, "rb") as raw:
            gzipped = raw.read(2) == _GZIP
        if zipped and not gzipped:
            raise InputError(f"{name} is not a gzip file, though its name says so; rename it without .gz")
        head = stream.read(1 << 16)
    if not head:
        raise InputError(f"{name} is empty; it needs at least one row of data")
    binary = _binary_format(head, name)
    if binary is not None:
        if gzipped:
            raise InputError(f"{name} is a gzipped {binary} file, which cannot be read in parts; unpack it with gunzip")
        return binary
    if claimed == "Parquet":
        raise InputError(f"{name} is not a Parquet file, though its name says so (it does not begin with PAR1)")
    if claimed == "NumPy":
        raise InputError(f"{name} is not a NumPy file, though its name says so; write it with numpy.save")
    if claimed in ("Arrow", "libsvm"):
        return claimed
    # .txt and .data are used for libsvm files as well
    return "libsvm" if suffix not in (".csv", ".tsv") and _looks_like_libsvm(head) else "CSV"


def _binary_format(head: bytes, name: str) -> str | None:
    if head[:4] == b"PAR1":
        return "Parquet"
    if head[:6] == b"ARROW1" or head[:4] == b"\xff\xff\xff\xff":
        return "Arrow"
    if head[:6] == b"\x93NUMPY":
        return "NumPy"
    if head[:4] == b"FEA1":
        raise InputError(f"{name} is a Feather file of version 1; write it again with pyarrow.feather.write_feather")
    if head[:4] == b"PK\x03\x04":
        raise InputError(f"{name} is a zip archive or an Excel workbook; unpack it, or save the sheet as CSV")
    return None


def _looks_like_libsvm(head: bytes) -> bool:
    for line in head.removeprefix(b"\xef\xbb\xbf").splitlines()[:50]:
        content = line.split(b"#")[0].strip()
        if b":" in content:
            return _LIBSVM_LINE.fullmatch(content) is not None or (len(line) > 1 << 15 and b"," not in line)
        if content and re.fullmatch(rb"[+-]?[\d.]+", content) is None:
            return False
    return False
