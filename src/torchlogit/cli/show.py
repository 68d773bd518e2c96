"""Printing for people and for programs: tables, numbers, JSON, progress."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from torchlogit.cli.guard import speaks

_PIPED_WIDTH = 200
_OPTIONS = {"(max_iter)": "(--max-iter)", "a larger tol": "a larger --tol", "(a finite C)": "(a finite --C)"}
_PATIENCE = 2.0  # seconds before a bar appears


class _Plain(Console):
    """Lines as they are, but for what would steer the terminal; a closed pipe is the command's affair."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print."""
        super().print(*(printable(o) if isinstance(o, str) else o for o in objects), **options)

    def on_broken_pipe(self) -> None:
        """Let the command end as it sees fit (Rich would exit with 1)."""
        raise BrokenPipeError


def console() -> Console:
    """Standard output; names from files are never read as markup."""
    return _Plain(
        markup=False, highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else _PIPED_WIDTH
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int] = ()) -> Table:
    """A plain table; the columns named in ``numeric`` are aligned to the right."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for j, column in enumerate(columns):
        shown.add_column(column, justify="right" if j in numeric else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(printable(cell).replace("\n", "\N{REPLACEMENT CHARACTER}")) for cell in row))
    return shown


def printable(text: str) -> str:
    """Without control characters but line ends: a name in a file must not steer the terminal."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def number(value: float | None, digits: int = 4) -> str:
    """For people: 0.8312, 1.2e-09."""
    if value is None:
        return "-"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.{digits}f}"
    return f"{value:.2g}"


def percent(value: float) -> str:
    """26.5 %."""
    return f"{100 * value:.1f} %"


def with_options(status: str) -> str:
    """A fit's status with the names that its parameters have on the command line."""
    for parameter, option in _OPTIONS.items():
        status = status.replace(parameter, option)
    return status


def print_json(record: dict[str, Any]) -> None:
    """One flat object. What is not a finite number is null: JSON has no NaN."""
    sys.stdout.write(json.dumps(_finite(record), ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Waiting:
    """A bar on standard error for what takes longer than two seconds; nothing where that is not a terminal.

    Examples
    --------
    >>> with Waiting() as waiting:
    ...     waiting.now("reading", 0.5)
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, markup=False)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None)
        self._began = time.monotonic()
        self._shown = False
        self.reading = "reading"  # what is said while files are read

    def now(self, what: str, share: float | None = None) -> None:
        """Say what is going on, and how far it is (0 to 1)."""
        if not (self._console.is_terminal and speaks()):
            return
        if not self._shown and time.monotonic() - self._began > _PATIENCE:
            self._progress.start()
            self._shown = True
        total = None if share is None else 1.0
        self._progress.update(self._task, description=what, total=total, completed=share or 0.0)

    def __enter__(self) -> Waiting:
        """Start the clock."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar."""
        if self._shown:
            self._progress.stop()
