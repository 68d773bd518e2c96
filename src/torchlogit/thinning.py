"""Which rows stand for all in each class's curvature: few of many, weighted so that their sums are right on average.

Rows pass by once, and no array of rows times classes is held: a stretch of them is thinned as soon as it is full, and
what is left of many stretches is thinned again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchlogit.problem import uninitialised
from torchlogit.threads import among_threads

# Entries of rows times classes that are held at a time: 16 MiB; on other devices, where every call takes as long, 512.
_HELD_ENTRIES, _DEVICE_HELD_ENTRIES = 2**21, 2**26
# Rows of a stretch for each that is wanted of it, at least.
_LEAST_STRETCH = 4
# Entries of rows times classes that are chosen from together: a dozen such arrays are to stay in a core's cache.
_TOGETHER, _DEVICE_TOGETHER = 2**15, 2**24


@dataclass(frozen=True)
class ChosenRows:
    """A class's rows: their numbers ``index (m,)``, ascending, and ``weight (m,)``, float64; neither weight is zero.

    ``length (m,)`` is their squared length.
    """

    index: Tensor
    weight: Tensor
    length: Tensor

    def between(self, start: int, stop: int) -> ChosenRows:
        """Those from ``start`` to ``stop``, counted from there."""
        ends = torch.tensor([start, stop], dtype=self.index.dtype, device=self.index.device)
        first, last = torch.searchsorted(self.index, ends).tolist()
        return ChosenRows(self.index[first:last] - start, self.weight[first:last], self.length[first:last])

    def thinned(self, wanted: int) -> ChosenRows:
        """About so many of them, which stand for all."""
        weight = thin(self.weight[None], (self.weight * self.length)[None], wanted)[0]
        left = weight.nonzero()[:, 0]
        return ChosenRows(self.index[left], weight[left], self.length[left])


class Thinning:
    """Chooses rows for each class as they pass by.

    A row is taken with a probability in proportion to its curvature times its squared length (at most one), and its
    weight is its curvature over that.

    Parameters
    ----------
    classes : int
        K.
    rows : int
        That will pass by.
    wanted : int
        Rows of a class.
    like : Tensor
        On the device.
    """

    def __init__(self, classes: int, rows: int, wanted: int, like: Tensor) -> None:
        here = like.device.type == "cpu"
        held, self._together = (_HELD_ENTRIES, _TOGETHER) if here else (_DEVICE_HELD_ENTRIES, _DEVICE_TOGETHER)
        stretch = min(rows, max(held // classes, _LEAST_STRETCH * wanted))
        self._bend = uninitialised((classes, stretch), like.new_empty(0, dtype=torch.float64))
        self._length = self._bend.new_empty(stretch)
        self._wanted, self._held, self._passed = wanted, 0, 0
        self._chosen: list[ChosenRows | None] = [None] * classes

    def add(self, bend: Tensor, length: Tensor) -> None:
        """The next rows: their curvatures ``(K, r)`` and squared lengths ``(r,)``."""
        start, rows, room = 0, bend.shape[1], self._bend.shape[1]
        while start < rows:
            stop = min(rows, start + room - self._held)
            here = slice(self._held, self._held + stop - start)
            self._bend[:, here], self._length[here] = bend[:, start:stop], length[start:stop]
            self._held, start = here.stop, stop
            if self._held == room:
                self._settle()

    def rows(self) -> list[ChosenRows]:
        """By class, once all have passed by."""
        several = self._passed + self._held > self._bend.shape[1]
        self._settle()
        chosen = [own for own in self._chosen if own is not None]
        return [own.thinned(self._wanted) for own in chosen] if several else chosen

    def _settle(self) -> None:
        """Thin the rows that are held, and of those chosen before."""
        if not self._held:
            return
        held, step = slice(0, self._held), max(1, self._together // self._held)

        def choose(first: int, last: int) -> None:
            for start in range(first, last, step):
                stop = min(start + step, last)
                bend = self._bend[start:stop, held]
                for k, weight in enumerate(thin(bend, bend * self._length[held], self._wanted), start):
                    self._take(k, weight)

        among_threads(self._bend, choose)
        self._passed, self._held = self._passed + self._held, 0

    def _take(self, k: int, weight: Tensor) -> None:
        index = weight.nonzero()[:, 0]
        own = ChosenRows(index + self._passed, weight[index], self._length[index])
        before = self._chosen[k]
        if before is not None:
            parts = (before.index, own.index), (before.weight, own.weight), (before.length, own.length)
            own = ChosenRows(*(torch.cat(part) for part in parts))
            own = own.thinned(self._wanted) if len(own.index) > 2 * self._wanted else own
        self._chosen[k] = own


def thin(bend: Tensor, importance: Tensor, wanted: int) -> Tensor:
    """Weights ``(K, n)``, zero for most rows, whose sums estimate those of ``bend``; about ``wanted`` are not zero.

    Systematic sampling: a row is taken where the running sum of the probabilities passes a whole number. No random
    numbers, hence the same rows every time.

    Parameters
    ----------
    bend : Tensor of shape (K, n), float64
        Curvatures.
    importance : Tensor of shape (K, n), float64
        What the probabilities are in proportion to.
    wanted : int
    """
    if importance.shape[1] <= wanted:
        return bend
    top = importance.topk(wanted + 1, 1).values
    few = top[:, -1:] == 0
    top = top[:, :-1]
    # Total of a row and all less important ones; the difference may round to less than the row itself.
    rest = torch.maximum(importance.sum(1, keepdim=True) - top.cumsum(1) + top, top)
    # With the j most important rows taken for certain, the others share what is left in proportion.
    left = wanted - torch.arange(wanted, dtype=top.dtype, device=top.device)
    first = (top * left <= rest).to(torch.int8).argmax(1, keepdim=True)
    chance = torch.clamp(importance * (left[first] / rest.gather(1, first)), max=1.0)
    passed = chance.cumsum(1).add_(0.5).floor_()
    taken = torch.diff(passed, dim=1, prepend=passed.new_zeros(len(passed), 1)) > 0
    taken = (taken | (chance >= 1)) & (chance > 0)
    thinned = torch.where(taken, bend / torch.where(chance > 0, chance, 1.0), 0.0)
    return torch.where(few, bend, thinned)


__all__ = ["ChosenRows", "Thinning", "thin"]
