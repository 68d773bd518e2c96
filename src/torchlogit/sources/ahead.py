"""Reading ahead: what comes next is decoded on a thread of its own while the last block is being computed with."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
# Items that wait to be taken, at most: enough to even out the two sides, and little memory.
_DEPTH = 4
# How often a reader that waits for room looks whether anyone still wants what it has, in seconds.
_GLANCE = 0.05


@dataclass(frozen=True, slots=True)
class _Failure:
    """What ended the reading before its time."""

    error: BaseException


class _End:
    """All has been read."""


_END = _End()


def ahead(items: Callable[[], Iterator[Item]], depth: int = _DEPTH) -> Iterator[Item]:
    """The same items in the same order, made on another thread.

    What the iterator raises is raised here, in its turn. Whoever stops early (a ``break``, an exception, a generator
    that is let go) ends the thread and closes the iterator before anything else happens.

    Parameters
    ----------
    items : callable
        Makes the iterator; called on the other thread.
    depth : int
        Most items that wait to be taken.

    Examples
    --------
    >>> list(ahead(lambda: iter("abc")))
    ['a', 'b', 'c']
    """
    reader = _Reader(items, depth)
    try:
        yield from reader
    finally:
        reader.end()


class _Reader(Generic[Item]):
    """The thread, and the queue between it and whoever iterates."""

    def __init__(self, items: Callable[[], Iterator[Item]], depth: int) -> None:
        self._items = items
        self._queue: queue.Queue[Item | _Failure | _End] = queue.Queue(depth)
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="torchlogit-reader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                return
            if isinstance(item, _Failure):
                raise item.error
            yield item

    def end(self) -> None:
        """Wait until the thread is gone."""
        self._unwanted.set()
        self._thread.join()

    def _fill(self) -> None:
        iterator: Iterator[Item] | None = None
        last: _Failure | _End = _END
        try:
            iterator = self._items()
            for item in iterator:
                if not self._offer(item):
                    break
        except BaseException as error:  # noqa: BLE001 -- raised again by whoever iterates
            last = _Failure(error)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
        self._offer(last)

    def _offer(self, item: Item | _Failure | _End) -> bool:
        """Queue an item; False if nobody wants it any more."""
        while not self._unwanted.is_set():
            try:
                self._queue.put(item, timeout=_GLANCE)
                return True
            except queue.Full:
                continue
        return False
