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
from typing import Any, Protocol

import typer
from typer.core import TyperGroup

from torchlogit.cli import leave

BAD_INPUT = 2
INTERRUPTED, TERMINATED = 130, 143

# A launcher ends all of its processes when one has ended: the one that says why must not be the last.
_HEAD_START = 2.0

_promised: dict[Path, object] = {}  # what a command is to write, and how it was found
_kept: list[Resumable] = []  # what a command goes on from another time

# The class of errors in how a command was called: Typer brings click under its own name in some versions.
_UsageError: Any = typer.BadParameter.__base__


class Resumable(Protocol):
    """A folder that may hold a checkpoint."""

    folder: Path
    written: bool


class TerminatedError(KeyboardInterrupt):
    """SIGTERM, with which batch systems end a process: as good a reason to leave as Ctrl-C."""


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
        _kept.clear()
        try:
            with _interruptible():
                command(*arguments, **options)
                sys.stdout.flush()
        except KeyboardInterrupt as interrupt:
            say(interruption(interrupt))
            raise typer.Exit(exit_code(interrupt)) from None
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
            say("; ".join(filter(None, [_sentence(error), _how_to_go_on()])))
            if not error.filename:
                let_go(sys.stdout)
            raise typer.Exit(BAD_INPUT) from error
        except MemoryError as error:
            say("the machine has too little memory for these data; fit on fewer rows or columns")
            raise typer.Exit(BAD_INPUT) from error

    return run


@contextmanager
def _interruptible() -> Iterator[None]:
    """Signals are exceptions while a command runs, and nothing once it has ended: they would only be a traceback."""
    handlers: dict[signal.Signals, Callable[..., Any]]
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _terminated}
    ours = [number for number in handlers if signal.getsignal(number) is leave]
    try:
        for number in ours:
            signal.signal(number, handlers[number])
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_IGN)


def _terminated(*_: object) -> None:
    raise TerminatedError


def will_write(path: Path) -> None:
    """Have an interruption say whether this file has been written."""
    _promised[path] = _looks(path)


def will_resume(checkpoint: Resumable) -> None:
    """Have an interruption say how to go on."""
    _kept.append(checkpoint)


def exit_code(interrupt: BaseException) -> int:
    """The shell's convention: 128 and the signal's number."""
    return TERMINATED if isinstance(interrupt, TerminatedError) else INTERRUPTED


def interruption(interrupt: BaseException | None = None) -> str:
    """What to say of an interruption: which files it came too late for, and how to go on."""
    how = "terminated" if isinstance(interrupt, TerminatedError) else "interrupted"
    written = [str(path) for path, before in _promised.items() if _looks(path) != before]
    if written:
        return f"{how}; written before that: {', '.join(written)}"
    return f"{how}; {_how_to_go_on() or 'nothing was written'}"


def _how_to_go_on() -> str:
    """In a clause, if there is anything to go on from."""
    kept = [str(checkpoint.folder) for checkpoint in _kept if checkpoint.written]
    return f"the fit is kept in {kept[0]}: run the same command with --resume to go on" if kept else ""


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
