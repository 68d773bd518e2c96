"""What a fit needs to go on after it was killed, and whoever keeps it: the interface, no files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from torchlogit.journal import NoJournal
from torchlogit.moments import Moments
from torchlogit.trace import Record


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fit has come.

    Parameters
    ----------
    plan : str
        What was chosen; a fit that chooses otherwise cannot go on from here.
    moments : Moments
    effort : tuple of float
        Passes, rows, bytes and seconds so far.
    start : Tensor of shape (L, K, D), optional
        Where the solver begins, once it is known.
    run : dict, optional
        `Run.snapshot`, once there is a state.
    learned : dict of int to Tensor or inverse curvature, optional
        What the solver's preconditioner keeps from one build to the next.
    trace : tuple of dict, default=()
        Records of the states before this one.
    finished : bool, default=False
        Whether every lane has ended.
    """

    plan: str
    moments: Moments
    effort: tuple[float, int, int, float]
    start: Tensor | None = None
    run: dict[str, Any] | None = None
    learned: dict[int, Any] | None = None
    trace: tuple[Record, ...] = ()
    finished: bool = False


class Keeper(Protocol):
    """Keeps the progress of one fit."""

    @property
    def journal(self) -> NoJournal:
        """For the sweeps of the fit's objective: what they have added up since the progress that was kept last."""
        ...

    def recall(self, device: object) -> Progress | None:
        """The progress that was kept last, or None where nothing was; the journal goes with it."""
        ...

    def keep(self, progress: Progress) -> None:
        """Keep it, now or when it is worth its time; a new step of the journal begins."""
        ...
