"""What every command does when it cannot go on: one sentence and an exit code, never a traceback."""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

BAD_INPUT = 2
INTERRUPTED = 130


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with errors that the person can mend turned into a sentence."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        from torchlogit.errors import InputError

        try:
            command(*arguments, **options)
            sys.stdout.flush()
        except KeyboardInterrupt:
            _say("interrupted; nothing was written")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except InputError as error:
            _say(str(error))
            raise typer.Exit(BAD_INPUT) from None
        except OSError as error:
            _say(_sentence(error))
            raise typer.Exit(BAD_INPUT) from None
        except MemoryError:
            _say("the machine has too little memory for these data; fit on fewer rows or columns")
            raise typer.Exit(BAD_INPUT) from None

    return run


def _say(sentence: str) -> None:
    sys.stdout.flush()
    from torchlogit.cli.show import printable

    sys.stderr.write(f"torchlogit: {printable(' '.join(sentence.splitlines()))}\n")


def _sentence(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"{where}no space left on the device; nothing was written, free some space or write elsewhere"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{where}permission denied; write to a folder that is yours"
    return f"{where}{error.strerror or error}"
