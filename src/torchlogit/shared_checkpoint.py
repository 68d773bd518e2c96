"""One checkpoint for a fit of several processes: the first keeps it, and all go on from there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from torchlogit.journal import NoJournal
from torchlogit.keeping import Keeper, Progress
from torchlogit.kept_values import as_tree, from_tree

T = TypeVar("T")


class Processes(Protocol):
    """What the processes of a fit do together; a failure of one is raised in all."""

    def from_first(self, work: Callable[[], T]) -> T:
        """What the first process has; the others do nothing for it."""
        ...

    def together(self, work: Callable[[], T]) -> T:
        """What this process has, if no other has failed."""
        ...


class SharedKeeper:
    """A `Keeper` in every process, of which the first has the folder.

    All processes have the same state, so one of them writes it down for all. Of the sums over a process's own rows,
    which are no business of the others, those of the first are known again; the others read the rows of the
    interrupted step again, and all come to the same sums.

    Parameters
    ----------
    own : Keeper, optional
        In the first process; None in the others.
    processes : Processes
    """

    def __init__(self, own: Keeper | None, processes: Processes) -> None:
        self._own, self._processes = own, processes
        self.journal = NoJournal() if own is None else own.journal

    def recall(self, device: object) -> Progress | None:
        """What the first process kept last."""
        known = self._processes.from_first(lambda: None if self._own is None else self._own.recall("cpu"))
        return None if known is None else from_tree(as_tree(known), device)

    def keep(self, progress: Progress) -> None:
        """Keep it in the first process; where that fails, it fails in all."""
        self._processes.together(lambda: None if self._own is None else self._own.keep(progress))
