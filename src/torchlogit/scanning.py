"""``scan``: files as a lazy table."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from torchlogit.available import parsed_size
from torchlogit.errors import InputError
from torchlogit.file_table import FileTable, Roles
from torchlogit.rows import Residence
from torchlogit.sources.files import TableFile, detect_format, display_names, expand
from torchlogit.sources.libsvm import LibsvmFile
from torchlogit.sources.numpy_file import NumpyFile
from torchlogit.sources.parquet import ArrowFile, ParquetFile
from torchlogit.sources.text import MISSING, TextFile, TextOptions
from torchlogit.sparse_table import SparseTable
from torchlogit.table import Table

_FORMATS: dict[str, Callable[[Path, str, TextOptions], TableFile]] = {
    "CSV": TextFile,
    "Parquet": lambda path, name, options: ParquetFile(path, name, options.block_bytes),
    "Arrow": lambda path, name, options: ArrowFile(path, name, options.block_bytes),
    "NumPy": lambda path, name, options: NumpyFile(path, name, options.block_bytes),
}


def scan(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    target: str | None = None,
    weight: str | None = None,
    offset: str | None = None,
    drop: str | Sequence[str] = (),
    *,
    separator: str | None = None,
    header: bool | Sequence[str] = True,
    missing: str | Sequence[str] | None = None,
    memory: int | str | None = None,
    cache: int | str | None = None,
    on_bad_row: str = "error",
) -> Table:
    r"""Files as a lazy table: read in blocks when they are needed, as often as they are needed.

    CSV (comma, tab, semicolon; gzipped or not), Parquet, Arrow IPC (Feather), libsvm (gzipped or not) and NumPy's
    ``.npy`` (columns are ``column_0``, ``column_1``, …), told apart by their content and suffix. Columns of text files
    are strings until an encoder or a model makes numbers of them.

    Parameters
    ----------
    paths : str, Path or sequence of them
        Files, folders, or patterns such as ``"train/*.parquet"``; several files are one table, in the order given, the
        files of a folder or pattern sorted. All have one format and the same columns.
    target : str, optional
        Column with the labels. A libsvm file's is ``"label"``, always.
    weight, offset : str, optional
        Columns with a weight and an offset for each row.
    drop : str or sequence of str, default=()
        Columns to leave out.
    separator : str, optional
        One character between the values of a text file; guessed from the first lines if None.
    header : bool or sequence of str, default=True
        Whether the first line of a text file names the columns; if not, they are ``column_0``, ``column_1``, …, or the
        names given here.
    missing : str or sequence of str, optional
        What stands for a missing value in a text file, besides nothing at all; by default NA, N/A, NaN, nan, null, NULL
        and ?. Spaces around values do not count.
    memory : int or str, optional
        What a fit may take of it, in bytes or as ``"2GB"``, beside what the libraries take; by default half of what is
        available. Rows that do not fit stay in their files: the fit reads them several times, with a sample of them in
        memory, and finds the same optimum.
    cache : int or str, optional
        What a fit may take on disk (the system's folder for temporary files) for what text was decoded to, so that it
        is decoded once; by default half of what is free there.
    on_bad_row : {"error", "skip"}, default="error"
        What a fit does about a row that it cannot use: one with the wrong number of fields, without a label, with a
        weight or offset that is no number, or an infinite value (without an encoder: any value that is missing or no
        number). An error names file and row; ``"skip"`` takes one more read to find them all, and leaves them out.

    Returns
    -------
    Table

    Raises
    ------
    InputError
        If the files cannot be used. Contents are looked at when they are read, so a bad row is named then.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from torchlogit import scan
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "pets.csv"
    ...     _ = path.write_text("weight,sound,pet\n4.5,meow,cat\n?,woof,dog\n")
    ...     table = scan(path, target="pet")
    ...     table.columns, table.labels().tolist(), next(table.table_batches()).columns["weight"].to_pylist()
    (['weight', 'sound'], ['cat', 'dog'], ['4.5', None])
    """
    roles = Roles(target, weight, offset, (drop,) if isinstance(drop, str) else tuple(drop))
    names = None if isinstance(header, bool) else tuple(header)
    if on_bad_row not in ("error", "skip"):
        raise InputError(f"on_bad_row is 'error' or 'skip', not {on_bad_row!r}")
    skip = on_bad_row == "skip"
    options = TextOptions(_separator(separator), header is True, _missing(missing), names=names, skip=skip)
    table = open_table(paths, roles, options)
    table.residence = Residence(_size("memory", memory), _size("cache", cache))
    return table


def _size(name: str, given: int | str | None) -> int | None:
    size = parsed_size(given) if isinstance(given, str) else given
    least = 1 << 20 if name == "memory" else 0
    if given is not None and (size is None or size < least):
        raise InputError(f"{name} is a size such as '2GB' or '500MB' ({least:,} bytes or more), not {given!r}")
    return size


def open_table(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], roles: Roles, options: TextOptions
) -> Table:
    """What `scan` does, with its arguments in order."""
    found = expand(paths)
    names = display_names(found)
    formats = [detect_format(path, name) for path, name in zip(found, names, strict=True)]
    for name, kind in zip(names, formats, strict=True):
        if kind != formats[0]:
            raise InputError(f"{name} is {kind}, but {names[0]} is {formats[0]}; scan files of one format together")
    if formats[0] == "libsvm":
        return _sparse(found, names, roles, options)
    files: list[TableFile] = []
    for path, name in zip(found, names, strict=True):
        files.append(_FORMATS[formats[0]](path, name, options))
        first = files[0]
        if options.separator is None and isinstance(first, TextFile):
            options = replace(options, separator=first.separator)
    if all(file.known_rows() == 0 for file in files):
        hint = "; if its first line is data, say --no-header (header=False)" if formats[0] == "CSV" else ""
        raise InputError(
            f"{names[0]} has no rows of data{', only a header' if hint else ''}{hint or '; check the file'}"
        )
    return FileTable(files, formats[0], roles, _common_schema(files, roles), options.header, options.skip)


def _sparse(found: Sequence[Path], names: Sequence[str], roles: Roles, options: TextOptions) -> Table:
    if roles.weight is not None or roles.offset is not None:
        role = "weight" if roles.weight is not None else "offset"
        raise InputError(f"{names[0]} is a libsvm file, which has no column for a {role}; leave out --{role}")
    if roles.target not in (None, "label"):
        raise InputError(
            f"{names[0]} is a libsvm file, whose only target is 'label', not '{roles.target}'; say --target label"
        )
    table = SparseTable(
        [LibsvmFile(path, name, options.block_bytes, options.skip) for path, name in zip(found, names, strict=True)]
    )
    return table.without(roles.drop) if roles.drop else table


def _separator(given: str | None) -> str | None:
    if given is None:
        return None
    separator = {"\\t": "\t", "tab": "\t"}.get(given, given)
    if len(separator) != 1 or not separator.isascii() or separator in '"\r\n\0':
        raise InputError(f"the separator (--sep) is one character such as ',' or ';', or 'tab', not {given!r}")
    return separator


def _missing(given: str | Sequence[str] | None) -> tuple[str, ...]:
    if given is None:
        return MISSING
    tokens = [given] if isinstance(given, str) else given
    return tuple(dict.fromkeys(["", *(str(token).strip() for token in tokens)]))


def _common_schema(files: Sequence[TableFile], roles: Roles) -> pa.Schema:
    """The columns of all files; numbers of different width take the wider type."""
    first = files[0]
    types = {field.name: field.type for field in first.schema}
    for file in files[1:]:
        others = {field.name: field.type for field in file.schema}
        if list(types)[:1] == ["column_0"] and len(types) != len(others):
            raise InputError(
                f"{file.name} has {len(others)} columns, but {first.name} has {len(types)}; give files of one shape"
            )
        for here, there, which in ((file, first, types), (first, file, others)):
            lacking = [
                name for name in which if name not in (others if here is file else types) and name not in roles.drop
            ]
            if lacking:
                raise InputError(
                    f"{here.name} has no column '{lacking[0]}', but {there.name} has; scan files with the same "
                    "columns, or leave the column out with --drop"
                )
        for name, kind in others.items():
            if name in types and not kind.equals(types[name]):
                types[name] = _common_type(name, (first, types[name]), (file, kind))
    return pa.schema(list(types.items()))


def _common_type(name: str, one: tuple[TableFile, pa.DataType], other: tuple[TableFile, pa.DataType]) -> pa.DataType:
    try:
        schemas = [pa.schema([(name, kind)]) for _, kind in (one, other)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        raise InputError(
            f"column '{name}' holds {other[1]} in {other[0].name}, but {one[1]} in {one[0].name}; "
            "write both with one type"
        ) from None
