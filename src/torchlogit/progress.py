"""A line on the terminal for whoever waits longer than two seconds; nothing where nobody watches."""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from torchlogit.sources.streaming import Pass

_PATIENCE = 2.0  # seconds before it appears
_PAUSE = 0.1  # seconds between two versions of it
_CLEAR = "\r\x1b[2K"


class ProgressLine:
    """One line that is written over and over, and removed at the end.

    It shows itself on a terminal only, and there only for the main thread of the main process: the workers of a grid
    search would write over each other.

    Parameters
    ----------
    wanted : bool, default=True
    stream : text stream, default=None
        None is standard error.

    Examples
    --------
    >>> with ProgressLine() as line:
    ...     line.show("step 3")
    """

    def __init__(self, wanted: bool = True, stream: TextIO | None = None) -> None:
        self.stream: TextIO | None = sys.stderr if stream is None else stream
        seen = wanted and self.stream is not None and self.stream.isatty()
        alone = seen and threading.current_thread() is threading.main_thread()
        self.active = bool(alone and multiprocessing.current_process().name == "MainProcess")
        self._next = time.monotonic() + _PATIENCE
        self._shown = False

    def show(self, text: str) -> None:
        """Show a text, cut to the width of the terminal, unless the last one is too recent."""
        now = time.monotonic()
        if not self.active or now < self._next or self.stream is None:
            return
        self._next, self._shown = now + _PAUSE, True
        self.stream.write(_CLEAR + text[: shutil.get_terminal_size().columns - 1])
        self.stream.flush()

    def __enter__(self) -> ProgressLine:
        """The line."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove it."""
        if self._shown and self.stream is not None:
            self.stream.write(_CLEAR)
            self.stream.flush()


def speed(rows_per_second: float) -> str:
    """Rows a second with three digits: 1.25 M rows/s."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if rows_per_second >= size:
            return f"{rows_per_second / size:.3g}{unit} rows/s"
    return f"{rows_per_second:.3g} rows/s"


def told_read(read: Pass) -> str:
    """A read of the rows that is under way: which it is, how fast, and how much longer it takes."""
    seconds = max(read.seconds, 1e-9)
    left = seconds * (read.total - read.rows) / max(read.rows, 1)
    parts = [f"pass {read.number}", f"{100 * read.rows / read.total:.0f} % of {read.total:,} rows"]
    parts += [speed(read.rows / seconds), f"{read.nbytes / seconds / 1e6:,.0f} MB/s", f"{left:.0f} s left"]
    return "  ".join(parts)


def told(record: Mapping[str, Any]) -> str:
    """A record of a fit or a training in a line."""
    parts = [f"step {record['step']}", f"objective {record['objective']:.8g}"]
    if "epoch" in record:
        parts = [f"epoch {record['epoch']}", *parts, f"learning rate {record['learning_rate']:.3g}"]
        if "validation" in record:
            parts.append(f"validation {record['validation']:.6g}")
    else:
        parts.append(f"certificate kkt {record['kkt']:.1e}, excess {record['excess']:.1e}")
        parts.append(f"{record['passes']:.1f} passes")
    return "  ".join([*parts, speed(record["rows_per_second"])])
