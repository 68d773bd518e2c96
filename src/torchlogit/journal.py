"""What the sweeps of a step have added up so far: a fit that was killed does not read the same rows again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from torchlogit.problem import RowStats

# Bytes of finished sums that are kept; a sweep that is not among them is done again.
_KEPT_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class Sweep:
    """One read of the rows.

    Parameters
    ----------
    key : str
        A hash of what was asked for; sums belong to this question alone.
    blocks : int, default=0
        How many of the first blocks are in the sum.
    total : RowStats, optional
        The sum over them.
    whole : bool, default=False
        Whether these are all blocks.
    """

    key: str
    blocks: int = 0
    total: RowStats | None = None
    whole: bool = False


class NoJournal:
    """Nothing is noted, and nothing is known: every sweep begins at the first block."""

    # Whether a step may be taken again, from the state before it.
    returns = False

    def open(self, *asked: object, partly: bool = True) -> Sweep:
        """The sweep that is about to begin, as far as it was done already.

        Parameters
        ----------
        *asked : str, int, or Tensor
            All that its sums depend on beside the rows.
        partly : bool, default=True
            Whether it may go on in its midst.
        """
        return _NOTHING

    def add(self, total: RowStats) -> None:
        """One more block is in the sum."""

    def close(self) -> None:
        """All blocks are."""


_NOTHING = Sweep("")


class SweepJournal(NoJournal):
    """The sweeps since the last step by their number, the one in progress among them.

    A step repeats the same sweeps in the same order, so a number and the hash of the question name a sum.

    Parameters
    ----------
    noted : callable
        Called after every block, with whether it was the last one of its sweep: a chance to write all this down.
    """

    returns = True

    def __init__(self, noted: Callable[[bool], None]) -> None:
        self.sweeps: dict[int, Sweep] = {}
        self._noted = noted
        self._number = -1
        self._bytes = 0

    def restart(self) -> None:
        """A new step begins."""
        self.sweeps, self._number, self._bytes = {}, -1, 0

    def rewind(self, sweeps: dict[int, Sweep]) -> None:
        """The step that these were noted in begins anew."""
        self.restart()
        self.sweeps = dict(sweeps)
        self._bytes = sum(_nbytes(sweep.total) for sweep in sweeps.values() if sweep.whole)

    def open(self, *asked: object, partly: bool = True) -> Sweep:
        """The sweep that is about to begin, as far as it was done already."""
        self._number += 1
        key = _hash(asked)
        known = self.sweeps.get(self._number)
        if known is not None and known.key != key:
            # Not the step that was noted: what follows in the journal answers other questions too.
            self.sweeps = {number: sweep for number, sweep in self.sweeps.items() if number < self._number}
            known = None
        if known is None or not (known.whole or partly):
            known = Sweep(key)
        self.sweeps[self._number] = known
        return known

    def add(self, total: RowStats) -> None:
        """One more block is in the sum."""
        current = self.sweeps[self._number]
        self.sweeps[self._number] = replace(current, blocks=current.blocks + 1, total=total)
        self._noted(False)

    def close(self) -> None:
        """All blocks are."""
        current = self.sweeps[self._number]
        self._bytes += _nbytes(current.total)
        if self._bytes <= _KEPT_BYTES:
            self.sweeps[self._number] = replace(current, whole=True)
        else:
            del self.sweeps[self._number]
        self._noted(True)


def _nbytes(total: RowStats | None) -> int:
    if total is None:
        return 0
    values = (getattr(total, name) for name in total.__dataclass_fields__)
    return sum(value.nbytes for value in values if isinstance(value, Tensor))


def _hash(asked: tuple[object, ...]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in asked:
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype} {tuple(part.shape)} ".encode())
            digest.update(part.detach().cpu().contiguous().numpy().tobytes())
        else:
            digest.update(f"{part!r} ".encode())
    return digest.hexdigest()
