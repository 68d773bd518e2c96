"""How many threads a problem is worth, and row ranges that threads of Python share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torchlogit.sources import Source

# Below this, waking a second thread costs what it saves on a quiet machine, and on a busy one, where each parallel
# region waits for the slowest thread, it costs tenfold (measured: 5,574 texts, 283 passes, 2.7 s against 15.6 s).
_ELEMENTS = 1_000_000
_GRAM_OPERATIONS = 2e9
_LARGEST_GRAM = 4_000


@contextmanager
def sparing_threads(source: Source, outputs: int) -> Iterator[None]:
    """Run small problems on one thread; the caller's number of threads comes back afterwards.

    Parameters
    ----------
    source : Source
    outputs : int
        K.
    """
    threads = torch.get_num_threads()
    size = outputs * (source.features + 1)
    small = source.nbytes / 8 * outputs <= _ELEMENTS and source.rows * outputs <= _ELEMENTS
    if size <= _LARGEST_GRAM:
        small = small and source.rows * float(size) ** 2 <= _GRAM_OPERATIONS
    if source.device.type != "cpu" or threads == 1 or not small:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_ranges(rows: int, fill: Callable[[int, int], None], work: float) -> None:
    """Call ``fill(start, stop)`` for contiguous ranges of rows, on as many threads as torch may use.

    ``fill`` should write to its own rows only: the result does not depend on the ranges then.

    Parameters
    ----------
    rows : int
    fill : callable
    work : float
        Elements it goes through; little work stays on this thread.
    """
    if work < 2 * _ELEMENTS or (count := min(torch.get_num_threads(), int(work // _ELEMENTS), rows)) <= 1:
        fill(0, rows)
        return
    edges = [rows * i // count for i in range(count + 1)]
    at_once([partial(fill, start, stop) for start, stop in pairwise(edges)])


def at_once(calls: Sequence[Callable[[], None]]) -> None:
    """All calls at the same time, the first of them on this thread; what one of them raises is raised here.

    The threads live for this call alone, so that a fork finds none of them. It pays where the calls spend their time in
    code that releases the interpreter's lock.
    """
    failures: list[BaseException] = []

    def guarded(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as failure:  # noqa: BLE001 -- raised again below, by the thread that waits
            failures.append(failure)

    others = [threading.Thread(target=guarded, args=(call,), daemon=True) for call in calls[1:]]
    for thread in others:
        thread.start()
    guarded(calls[0])
    for thread in others:
        thread.join()
    if failures:
        raise failures[0]
