"""The command line: one file a command, each a thin layer over the Python interface.

To add a command: a file with one function, and a line in `COMMANDS` of ``application.py``. Nothing is imported here, so
that Ctrl-C is answered from the start.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any


def main() -> None:
    """Run the command line; exits with 0 (fine), 2 (bad input or usage), 130 (interrupted) or 143 (terminated)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, leave)
    from torchlogit.cli.application import run

    run()


def leave(number: int, *_: object) -> None:
    """Ctrl-C before a command has begun: an exception might turn up anywhere, and there is nothing to clean up."""
    with suppress(OSError):
        os.write(2, b"torchlogit: %b; nothing was written\n" % (b"terminated" if number == 15 else b"interrupted"))
    os._exit(128 + number)


def __getattr__(name: str) -> Any:
    """The application, for those who run commands in their own process."""
    if name == "app":
        from torchlogit.cli.application import app

        return app
    raise AttributeError(f"module 'torchlogit.cli' has no attribute {name!r}")
