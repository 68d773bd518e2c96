"""How many threads a problem is worth, and row ranges that threads of Python share."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchlogit.sources import Source

# Below this, waking a second thread costs what it saves on a quiet machine, and on a busy one, where each parallel
# region waits for the slowest thread, it costs tenfold (measured: 5,574 texts, 283 passes, 2.7 s against 15.6 s).
_ELEMENTS = 1_000_000
# Products that a sweep must be worth before a thread is started for it.
SWEEP_PRODUCTS = 8_000_000
# How many more numbers one of sparse rows, with its place, counts for (40,000 rows of 90 among 30,000 columns).
_SCATTERED = 2
_GRAM_OPERATIONS = 2e9
# And those of a fit that all happens on the thread that began it.
_LITTLE_OPERATIONS = 1e7
_LARGEST_GRAM = 4_000
# Ranges of rows for each thread.
_RANGES = 4
# Results for each thread that may wait for being added.
_AHEAD = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class _Held:
    """What `one_thread_each` has put aside: torch's number of threads, for as long as anyone is in there."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    holders: int = 0
    allowed: int = 1

    def forget(self) -> None:
        """A forked child has none of its parent's threads."""
        self.lock = threading.Lock()
        if self.holders:
            self.holders = 0
            torch.set_num_threads(self.allowed)


_held = _Held()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_held.forget)


class _OneThreadEach:
    """What `one_thread_each` gives. It keeps nothing itself, and may be entered any number of times."""

    def __enter__(self) -> None:
        with _held.lock:
            if _held.holders == 0:
                _held.allowed = torch.get_num_threads()
                if _held.allowed > 1:
                    torch.set_num_threads(1)
            _held.holders += 1

    def __exit__(self, *failure: object) -> None:
        with _held.lock:
            _held.holders -= 1
            if _held.holders == 0 and _held.allowed > 1:
                torch.set_num_threads(_held.allowed)


_one_thread_each = _OneThreadEach()


def one_thread_each() -> AbstractContextManager[None]:
    """Torch's own threads are left out: its calls stay on one, and Python's threads share the work.

    A parallel region of OpenMP waits for its slowest thread without sleeping: beside another busy process a matrix
    product of milliseconds takes half a second. Threads of Python wait for each other once. The number that was
    allowed is what `workers` says in the meantime, and torch's again afterwards, whoever else is in here.
    """
    return _one_thread_each


def workers() -> int:
    """How many threads of Python may share work: as many as torch may use."""
    return _held.allowed if _held.holders else torch.get_num_threads()


def sparing_threads(source: Source, outputs: int, *, compiled: bool = False) -> AbstractContextManager[None]:
    """Run on one thread of torch's what gains nothing by several; the caller's number comes back afterwards.

    What is returned may be entered once for each step of a fit.

    Parameters
    ----------
    source : Source
    outputs : int
        K.
    compiled : bool, default=False
        Whether the rows are swept by compiled loops, which have threads of their own.
    """
    size = outputs * (source.features + 1)
    small = source.nbytes / 8 * outputs <= _ELEMENTS and source.rows * outputs <= _ELEMENTS
    if size <= _LARGEST_GRAM:
        small = small and source.rows * float(size) ** 2 <= _GRAM_OPERATIONS
    # Where no whole Hessian fits, Python's threads share the rows of a product, and the classes of a preconditioner.
    shared = compiled or (outputs > 1 and size > _LARGEST_GRAM)
    return one_thread_each() if source.device.type == "cpu" and (small or shared) else nullcontext()


def is_little(source: Source, outputs: int) -> bool:
    """Whether nothing about these rows is shared among threads, of torch's or of Python's.

    Parameters
    ----------
    source : Source
    outputs : int
        K.
    """
    size = outputs * (source.features + 1)
    return source.device.type == "cpu" and source.resident and source.rows * float(size) ** 2 <= _LITTLE_OPERATIONS


def in_ranges(rows: int, fill: Callable[[int, int], None], work: float) -> None:
    """Call ``fill(start, stop)`` for contiguous ranges of rows, on as many threads as torch may use.

    ``fill`` should write to its own rows only: the result does not depend on the ranges then. There are a few for each
    thread, and whoever is free takes the next: threads are not equally fast.

    Parameters
    ----------
    rows : int
    fill : callable
    work : float
        Elements it goes through; little work stays on this thread.
    """
    if work < 2 * _ELEMENTS or (count := min(workers(), int(work // _ELEMENTS), rows)) <= 1:
        fill(0, rows)
        return
    ranges = min(_RANGES * count, rows)
    left = deque(pairwise(rows * i // ranges for i in range(ranges + 1)))

    def fill_some() -> None:
        while left:
            try:
                start, stop = left.popleft()
            except IndexError:  # another thread has just taken the last
                return
            fill(start, stop)

    at_once([fill_some] * count)


def among_threads(numbers: Tensor, fill: Callable[[int, int], None]) -> None:
    """`in_ranges` of the first dimension, with one thread of torch's in each.

    For matrices that are too small for several of its threads.
    """
    if numbers.device.type != "cpu" or numbers.shape[0] == 1:
        fill(0, numbers.shape[0])
        return
    with one_thread_each():
        in_ranges(numbers.shape[0], fill, float(numbers.numel()))


def at_once(calls: Sequence[Callable[[], None]]) -> None:
    """All calls at the same time, the first of them on this thread; what the first that fails raises is raised here.

    Others run on threads that live for this call alone, so that a fork finds none of them, or where `standing_helpers`
    says so on those. It pays where the calls spend their time in code that releases the interpreter's lock.
    """
    if len(calls) == 1:
        calls[0]()
        return
    failures: dict[int, BaseException] = {}
    gradients = torch.is_grad_enabled()  # each thread has its own mind about them

    def guarded(i: int) -> None:
        try:
            if i and _held.holders:
                # OpenMP's number belongs to a thread: in a new one a product would have all that the environment says.
                torch.set_num_threads(1)
            with torch.set_grad_enabled(gradients):
                calls[i]()
        except BaseException as failure:  # noqa: BLE001 -- raised again below, by the thread that waits
            failures[i] = failure

    with _helpers.taken(len(calls) - 1) as others:
        for i, other in enumerate(others, 1):
            other.start(partial(guarded, i))
        guarded(0)
        for other in others:
            other.join()
    if failures:
        raise failures[min(failures)]


class _Helper:
    """A thread that does one thing after another."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._done = threading.Lock()  # taken here and given back there: waking up is all that it is for
        self._done.acquire()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # nothing is held while it waits
            self._done.release()

    def start(self, work: Callable[[], None]) -> None:
        """Have it done."""
        self._work.put(work)

    def join(self) -> None:
        """Wait until it is done."""
        self._done.acquire()

    def end(self, *, wait: bool = True) -> None:
        """End the thread, once it is done; a fork straight afterwards is to find none."""
        self._work.put(None)
        if wait:
            self._thread.join()


class _Helpers:
    """What `standing_helpers` gives: threads that stay, for as long as anyone is in there."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """A forked child has none of its parent's threads."""
        self.lock, self.holders = threading.Lock(), 0
        self.idle: list[_Helper] = []

    def __enter__(self) -> None:
        with self.lock:
            self.holders += 1

    def __exit__(self, *failure: object) -> None:
        with self.lock:
            self.holders = max(self.holders - 1, 0)  # none in a child that was forked in here
            ended, self.idle = ([], self.idle) if self.holders else (self.idle, [])
        for helper in ended:
            helper.end()

    @contextmanager
    def taken(self, count: int) -> Iterator[list[_Helper]]:
        """So many, for one use."""
        with self.lock:
            cut = max(len(self.idle) - count, 0)
            mine, self.idle = self.idle[cut:], self.idle[:cut]
        mine += [_Helper() for _ in range(count - len(mine))]
        rested = False
        try:
            yield mine
            rested = True  # whoever is interrupted leaves them at work
        finally:
            with self.lock:
                stay = rested and self.holders > 0
                self.idle += mine if stay else []
            for helper in [] if stay else mine:
                helper.end(wait=rested)


_helpers = _Helpers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.forget)


def standing_helpers() -> AbstractContextManager[None]:
    """Threads that `at_once` needs stay for the next time: a new one has neither room nor the libraries' notes."""
    return _helpers


def sweep_products(source: Source, outputs: int) -> float:
    """Numbers that a sweep multiplies and adds, roughly: those that are stored, for each output.

    One of sparse rows takes as long as several that lie side by side.
    """
    stored, (dense, sparse, coded) = source.nbytes / source.dtype.itemsize, source.widths
    if sparse or coded:
        stored += _SCATTERED * (stored - source.rows * dense)
    return stored * outputs


def sweepers(source: Source, outputs: int) -> int:
    """How many threads of Python may share the blocks of a sweep.

    Parameters
    ----------
    source : Source
    outputs : int
        That its rows are evaluated for, of all lanes.
    """
    if not source.resident or source.device.type != "cpu" or sweep_products(source, outputs) < SWEEP_PRODUCTS:
        return 1
    return workers()


def add_in_order(
    function: Callable[[int, Item], Result], items: Iterable[Item], add: Callable[[Result], None], threads: int
) -> None:
    """``add(function(i, item))`` for all items, in their order whatever the number of threads that compute them.

    Whoever is free takes the next item; this thread adds what has become due after each of its own. Where it falls
    behind the others wait: what they have made is not to be all there is.
    """
    if threads == 1:
        for i, item in enumerate(items):
            add(function(i, item))
        return
    numbered, turn = enumerate(items), threading.Condition()
    waiting: dict[int, Result] = {}
    due, ended = 0, False

    def compute(*, patient: bool) -> bool:
        with turn:
            while patient and len(waiting) >= _AHEAD * threads and not ended:
                turn.wait()
            following = next(numbered, None)
        if following is None:
            return False
        waiting[following[0]] = function(*following)
        return True

    def compute_all() -> None:
        while compute(patient=True):
            pass

    def add_due() -> None:
        nonlocal due
        while due in waiting:
            add(waiting.pop(due))
            due += 1
        with turn:
            turn.notify_all()

    def compute_and_add() -> None:
        nonlocal ended
        try:
            while compute(patient=False):
                add_due()
        finally:
            with turn:
                ended = True
                turn.notify_all()

    with one_thread_each():
        at_once([compute_and_add, *[compute_all] * (threads - 1)])
    add_due()
