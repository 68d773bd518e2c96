"""A weak-Wolfe line search for convex functions whose trial steps are lanes of one read of the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from torchlogit.objective import Evaluation, Objective
from torchlogit.solvers.base import State
from torchlogit.tensors import lane_dot

# Sufficient decrease and curvature, the usual constants of quasi-Newton methods (Nocedal and Wright, section 3.1).
_DECREASE, _CURVATURE = 1e-4, 0.9
_ROUNDS = 12
# Where the unit step earns less than this share of what the quadratic model promised, shorter models are tried too.
_POOR = 0.25
# Differences of the objective below this share of it are rounding, and slopes decide (Hager and Zhang, 2005).
_NOISE = 1e-14


@dataclass(frozen=True, slots=True)
class Step:
    """Where the search arrived: points, their evaluation, the step lengths and the number of points tried."""

    u: Tensor
    evaluation: Evaluation
    length: Tensor
    trials: int
    stalled: Tensor
    detour: int = -1  # the longest position in the path that a lane stepped to; -1 if none did


@dataclass(slots=True)
class _Bracket:
    """One lane's search: the interval that holds a good step, and the best point so far."""

    value0: float
    slope0: float
    kkt0: float
    flat: float
    low: float = 0.0
    slope_low: float = 0.0
    high: float = float("inf")
    slope_high: float = 0.0
    value_high: float = float("inf")
    best: int = -1  # row among all points evaluated
    best_length: float = 0.0
    best_value: float = float("inf")
    best_kkt: float = float("inf")
    done: bool = False
    detour: int = -1
    shrunk: int = 0

    def first(self) -> float:
        """The unit step, or a shorter one where that promises more than there is: nothing can lower a loss below zero.

        In saturation curvature underflows while gradients do not, and unit steps would be longer by 100 decades.
        """
        return min(1.0, self.value0 / (-0.5 * self.slope0)) if self.value0 > 0 > self.slope0 else 1.0

    def poor(self) -> bool:
        """Whether the unit step, just tried, earned only a small share of what the model promised."""
        return self.best < 0 or self.value0 - self.best_value < _POOR * -0.5 * self.slope0

    def see_detour(self, point: int, place: int, value: float, slope0: float) -> None:
        """Judge a trial that is not along the direction, and has its own ``slope0``."""
        decreased = value <= self.value0 + _DECREASE * slope0
        if decreased and (value < self.best_value or self.best < 0):
            self.best, self.best_length, self.best_value, self.detour = point, 1.0, value, place
            self.done = True

    def see(self, point: int, length: float, value: float, slope: float, kkt: float) -> None:
        """Judge one trial; those of one read come in growing length, and the best of them counts."""
        finite = math.isfinite(value) and math.isfinite(slope)
        decreased = finite and value <= self.value0 + _DECREASE * length * self.slope0
        level = finite and not decreased and self._level(length, value, slope, kkt)
        if decreased or level:
            if self.best < 0 or self._better(value, kkt):
                self.best, self.best_length, self.best_value, self.detour = point, length, value, -1
                self.best_kkt = kkt
            if level or slope >= self.flat * self.slope0:
                self.done = True
            elif length > self.low:
                self.low, self.slope_low = length, slope
        elif length < self.high:
            self.high, self.slope_high, self.value_high = length, slope if finite else 0.0, value

    @property
    def noise(self) -> float:
        """What rounding does to values."""
        return _NOISE * abs(self.value0)

    def _level(self, length: float, value: float, slope: float, kkt: float) -> bool:
        """Whether the gradient shows progress where values are rounding.

        They are where they hardly differ, and where they rise by more than a convex function with this slope can: rows
        of very different size leave more rounding in the values than their own last digits. The slope may be rounding
        as well; the largest entry of the gradient is what has to become small.
        """
        rise = value - self.value0
        if abs(rise) > self.noise and rise <= length * slope:
            return False
        return abs(slope) <= _CURVATURE * abs(self.slope0) or kkt <= _CURVATURE * self.kkt0

    def _better(self, value: float, kkt: float) -> bool:
        """Whether a trial is better than the best one, by the gradient where the values do not tell."""
        return kkt < self.best_kkt if abs(value - self.best_value) <= self.noise else value < self.best_value

    def proposals(self) -> list[float]:
        """Up to four lengths to try next, in one read."""
        if self.high == float("inf"):
            return [self.low * factor for factor in (2.0, 4.0, 16.0, 64.0)]
        if self.high > 1e3 * self.low > 0:
            return [self.low * (self.high / self.low) ** part for part in (0.2, 0.4, 0.6, 0.8)]
        width = self.high - self.low
        split = 0.5
        if self.slope_high > 0 > self.slope_low:
            # Where a straight line through the two slopes is zero, kept away from both ends.
            split = min(max(self.slope_low / (self.slope_low - self.slope_high), 0.05), 0.95)
        least = 0.01
        if self.low == 0:
            # Twice as many decades shorter with every read that found nothing.
            least, self.shrunk = 0.1 ** (2 ** (self.shrunk + 1)), self.shrunk + 1
        return [self.low + width * part for part in sorted({split, 0.5 * split, 0.1 * split, least * split})]


def search(
    objective: Objective,
    state: State,
    path: tuple[Tensor, ...] = (),
    flat: float = _CURVATURE,
    slope: list[float] | None = None,
) -> Step:
    """Step along ``state.direction``: the unit step first, then several lengths a read where it fails.

    Parameters
    ----------
    objective : Objective
    state : State
        ``direction`` must be a descent direction.
    path : tuple of Tensor of shape (A, K, D)
        Descent steps, shortest first, that a lane whose unit step earns little tries as well, whole and halved: where
        the quadratic model holds only nearby, the first iterates of conjugate gradients beat the last one shortened.
    flat : float, default=0.9
        A step is long enough where no more than this share of the slope is left.
    slope : list of float, optional
        Each lane's along the direction, where it is known.

    Returns
    -------
    Step
        ``stalled`` marks lanes in which no length improved the objective; they stay where they were.
    """
    slope0: list[float] = slope or lane_dot(state.gradient, state.direction).tolist()
    starts = zip(state.value.tolist(), slope0, state.kkt.tolist(), strict=True)
    brackets = [_Bracket(value, slope, kkt, flat, slope_low=slope) for value, slope, kkt in starts]
    # Steps are numbered: 0 is the direction, 2 j + 1 and 2 j + 2 the path's j-th step whole and halved.
    steps = [state.direction, *(part * step for step in path for part in (1.0, 0.5))]
    slopes = [slope0, *(lane_dot(state.gradient, step).tolist() for step in steps[1:])]
    tried: list[tuple[Tensor, Evaluation]] = []
    count = 0
    pending = [(lane, bracket.first(), 0) for lane, bracket in enumerate(brackets)]
    for number in range(_ROUNDS):
        u, lanes, direction = _points(state, steps, pending)
        evaluation = objective.value_gradient(u, lanes)
        tried.append((u, evaluation))
        told = zip(
            pending,
            evaluation.value.tolist(),
            lane_dot(evaluation.gradient, direction).tolist(),
            evaluation.kkt.tolist(),
            strict=True,
        )
        for i, ((lane, t, step), value, left, kkt) in enumerate(told):
            if step:
                brackets[lane].see_detour(count + i, (step - 1) // 2, value, slopes[step][lane])
            else:
                brackets[lane].see(count + i, t, value, left, kkt)
        count += len(pending)
        detours = [
            (lane, 1.0, step)
            for lane, b in enumerate(brackets)
            if number == 0 and b.poor()
            for step in range(1, len(steps))
        ]
        pending = [(lane, t, 0) for lane, b in enumerate(brackets) if not b.done for t in b.proposals()] + detours
        if not pending:
            break
    if len(brackets) == 1 and brackets[0].best >= 0:
        return _alone(state, tried, brackets[0])
    stalled = torch.tensor([b.best < 0 for b in brackets], device=state.u.device)
    chosen = torch.tensor([max(b.best, 0) for b in brackets], device=state.u.device)

    def best(kept: Tensor, found: list[Tensor]) -> Tensor:
        return torch.where(stalled.reshape(-1, *[1] * (kept.ndim - 1)), kept, torch.cat(found)[chosen])

    return Step(
        u=best(state.u, [u for u, _ in tried]),
        evaluation=Evaluation(
            best(state.value, [evaluation.value for _, evaluation in tried]),
            best(state.gradient, [evaluation.gradient for _, evaluation in tried]),
            best(state.margin, [evaluation.margin for _, evaluation in tried]),
            best(state.kkt, [evaluation.kkt for _, evaluation in tried]),
        ),
        length=torch.tensor([b.best_length for b in brackets], dtype=torch.float64, device=state.u.device),
        trials=count,
        stalled=stalled,
        detour=max(b.detour for b in brackets),
    )


def _points(
    state: State, steps: list[Tensor], pending: list[tuple[int, float, int]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Points to try, each a lane, a length and the number of a step; the lanes they belong to, and their directions."""
    if state.lanes.shape[0] == 1:  # nothing to gather, which small problems would notice
        if len(pending) == 1:
            _, t, step = pending[0]
            return torch.add(state.u, steps[step], alpha=t), state.lanes, state.direction
        if not any(step for _, _, step in pending):
            lengths = torch.tensor([t for _, t, _ in pending], dtype=torch.float64, device=state.u.device)
            u = state.u + lengths[:, None, None] * state.direction
            return u, state.lanes.expand(len(pending)), state.direction
    index = torch.tensor([lane for lane, _, _ in pending], device=state.u.device)
    u = state.u[index] + torch.stack([t * steps[step][lane] for lane, t, step in pending])
    return u, state.lanes[index], state.direction[index]


def _alone(state: State, tried: list[tuple[Tensor, Evaluation]], found: _Bracket) -> Step:
    """The best point of a single lane, where it is."""
    read, row, trials = 0, found.best, sum(u.shape[0] for u, _ in tried)
    while row >= tried[read][0].shape[0]:
        read, row = read + 1, row - tried[read][0].shape[0]
    u, evaluation = tried[read]
    if u.shape[0] > 1:
        here = slice(row, row + 1)
        u, evaluation = u[here], evaluation.take(here)
    length = torch.full_like(state.value, found.best_length)
    return Step(u, evaluation, length, trials, torch.zeros_like(state.stalled), found.detour)
