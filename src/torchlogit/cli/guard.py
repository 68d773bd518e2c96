"""What every command does when it cannot go on: one sentence and an exit code, never a traceback."""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from torchlogit.cli import leave

BAD_INPUT = 2
INTERRUPTED = 130

# A launcher ends all of its processes when one has ended: the one that says why must not be the last.
_HEAD_START = 2.0

_promised: dict[Path, object] = {}  # what a command is to write, and how it was found

# The class of errors in how a command was called: Typer brings click under its own name in some versions.
_UsageError: Any = typer.BadParameter.__base__


class OneSentence(TyperGroup):
    """Commands whose usage errors are one sentence too, where Typer would print three paragraphs."""

    def main(self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **options: Any) -> Any:  # type: ignore[override]
        """Run the command line."""
        try:
            code = super().main(args, standalone_mode=False, **options)
        except _UsageError as error:
            if not standalone_mode:
                raise
            text = error.format_message().strip().rstrip(".")
            command = error.ctx.command_path if error.ctx is not None else "torchlogit"
            say(f"{text[:1].lower()}{text[1:]}; see '{command} --help'")
            if not speaks():
                time.sleep(_HEAD_START)
            sys.exit(BAD_INPUT)
        except OSError as error:
            say(_sentence(error))
            sys.exit(BAD_INPUT)
        except SystemExit as end:  # Typer's way to say that nobody read the help to its end
            let_go(sys.stdout)
            sys.exit(0 if end.code == 1 else end.code)
        if not standalone_mode:
            return code
        return sys.exit(code if isinstance(code, int) else 0)


def guarded(command: Callable[..., None], *, together: bool = False) -> Callable[..., None]:
    """The command, with errors that the person can mend turned into a sentence.

    With ``together`` the processes of a launcher such as torchrun run it as one; otherwise the first does it alone.
    """

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        if together and os.environ.get("WORLD_SIZE", "1") != "1":
            from torchlogit.cli.processes import joined

            with joined(str(options.get("device", "cpu"))):
                alone(*arguments, **options)
        elif speaks():
            alone(*arguments, **options)

    def alone(*arguments: Any, **options: Any) -> None:
        from torchlogit.errors import InputError, LostProcessError

        _promised.clear()
        try:
            with _interruptible():
                command(*arguments, **options)
                sys.stdout.flush()
        except KeyboardInterrupt:
            say(interruption())
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError as error:  # the reader of a pipe (head, less) has seen enough
            if error.filename:
                say(_sentence(error))
                raise typer.Exit(BAD_INPUT) from None
            let_go(sys.stdout)
            raise typer.Exit(0) from None
        except (InputError, LostProcessError) as error:
            say(str(error))
            raise typer.Exit(BAD_INPUT) from error
        except OSError as error:
            say(_sentence(error))
            if not error.filename:
                let_go(sys.stdout)
            raise typer.Exit(BAD_INPUT) from error
        except MemoryError as error:
            say("the machine has too little memory for these data; fit on fewer rows or columns")
            raise typer.Exit(BAD_INPUT) from error

    return run


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is an exception while a command runs, and nothing once it has ended: it would only be a traceback."""
    ours = signal.getsignal(signal.SIGINT) is leave
    try:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def will_write(path: Path) -> None:
    """Have an interruption say whether this file has been written."""
    _promised[path] = _looks(path)


def interruption() -> str:
    """What to say of an interruption: which files it came too late for."""
    written = [str(path) for path, before in _promised.items() if _looks(path) != before]
    return f"interrupted; written before that: {', '.join(written)}" if written else "interrupted; nothing was written"


def _looks(path: Path) -> object:
    """What changes when a file is written."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size) if path.is_file() else None


def speaks() -> bool:
    """Whether this is the process that says what there is to say: the first of those that a launcher has started."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def say(sentence: str) -> None:
    """One sentence on standard error, if anybody listens."""
    from torchlogit.cli.show import printable

    if not speaks():
        return
    with suppress(OSError):
        sys.stdout.flush()
    try:
        sys.stderr.write(f"torchlogit: {printable(' '.join(sentence.splitlines()))}\n")
        sys.stderr.flush()
    except BrokenPipeError:
        let_go(sys.stderr)


def let_go(stream: Any) -> None:
    """Nothing more goes to a pipe that nobody reads, or a full disk; the interpreter would try again when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _sentence(error: OSError) -> str:
    if not error.filename:  # standard output, where all has been written by then
        return f"the output cannot be printed ({error.strerror or error}); print to another place"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.filename}: no space left on the device; nothing was written, free some space or write elsewhere"
    if error.errno == errno.EFBIG:
        return f"{error.filename}: the file exceeds the size that is allowed; nothing was written, raise the limit"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.filename}: permission denied; name a file in a folder that is yours"
    return f"{error.filename}: {error.strerror or error}; check the name and the folder"
