"""The first call of a compiled loop, which compiles it, or loads what an earlier process has compiled."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

# Seconds of silence.
_PATIENCE = 2.0
_ready: set[tuple[Any, ...]] = set()  # loops, and types of their rows, that this process has compiled or loaded


def make_ready(loop: Callable[..., Any], types: tuple[str, ...], arguments: tuple[Any, ...]) -> None:
    """Compile the loop, or load what an earlier process has compiled, by a call over no rows.

    ``types`` are those of the arguments that are not always the same.
    """
    key = (loop, *types)
    if key in _ready:
        return
    with _announced():
        loop(*arguments)
    _ready.add(key)


@contextmanager
def _announced() -> Iterator[None]:
    """A word on stderr if someone is watching it and this takes more than two seconds."""
    if not sys.stderr.isatty():
        yield
        return
    words = "torchlogit: compiling its loops for this machine; this happens once.\n"
    timer = Timer(_PATIENCE, lambda: sys.stderr.write(words))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


__all__ = ["make_ready"]
