"""Writing files whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside ``path``; renamed to ``path`` on success, removed on any failure.

    Parameters
    ----------
    path : path-like
        Where it is a link, the file that it points to is replaced. Where it is no file (/dev/null, a pipe), it is
        yielded itself: renaming would put a file in the device's place.

    Yields
    ------
    Path
        Where to write. It has the suffix of ``path``.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(f"{folder}/result.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     print(Path(f"{folder}/result.txt").read_text())
    whole
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if target.exists() and not target.is_file():
        with _named(path):
            yield target
        return
    # not the whole name of the target, which may be as long as names can be
    temporary = target.with_name(f".{secrets.token_hex(4)}.partial{target.suffix}")
    try:
        with _named(path, temporary):
            yield temporary
            # A full disk may show itself only here.
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
            temporary.replace(target)
    finally:
        # where it cannot be removed it could not be made either, and the first error says more
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def _named(path: str | os.PathLike[str], *others: Path) -> Iterator[None]:
    """Errors of the system name this path: writing names none, and the temporary file means nothing to anybody."""
    try:
        yield
    except OSError as error:
        if error.filename not in (None, *map(str, others), *others):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
