"""A weak-Wolfe line search for convex functions whose trial steps are lanes of one read of the rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchlogit.objective import Evaluation, Objective
from torchlogit.solvers.base import State, lane_dot

# Sufficient decrease and curvature, the usual constants of quasi-Newton methods (Nocedal and Wright, section 3.1).
_DECREASE, _CURVATURE = 1e-4, 0.9
_ROUNDS = 12
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


@dataclass(slots=True)
class _Bracket:
    """One lane's search: the interval that holds a good step, and the best point so far."""

    value0: float
    slope0: float
    low: float = 0.0
    slope_low: float = 0.0
    high: float = float("inf")
    slope_high: float = 0.0
    value_high: float = float("inf")
    best: int = -1  # row among all points evaluated
    best_length: float = 0.0
    best_value: float = float("inf")
    done: bool = False

    def see(self, point: int, length: float, value: float, slope: float) -> None:
        """Judge one trial."""
        if self.done:
            return
        noise = _NOISE * abs(self.value0)
        finite = value == value and abs(value) != float("inf") and slope == slope
        decreased = finite and value <= self.value0 + _DECREASE * length * self.slope0
        # At the rounding level values cannot decide; a slope that has shrunk can.
        level = finite and abs(value - self.value0) <= noise and abs(slope) <= _CURVATURE * abs(self.slope0)
        if decreased or level:
            if value <= self.best_value or self.best < 0:
                self.best, self.best_length, self.best_value = point, length, value
            if slope >= _CURVATURE * self.slope0:
                self.done = True
            elif length > self.low:
                self.low, self.slope_low = length, slope
        elif length < self.high:
            self.high, self.slope_high, self.value_high = length, slope if finite else 0.0, value

    def proposals(self) -> list[float]:
        """Up to four lengths to try next, in one read."""
        if self.high == float("inf"):
            return [self.low * factor for factor in (2.0, 4.0, 16.0, 64.0)]
        width = self.high - self.low
        split = 0.5
        if self.slope_high > 0 > self.slope_low:
            # Where a straight line through the two slopes is zero, kept away from both ends.
            split = min(max(self.slope_low / (self.slope_low - self.slope_high), 0.05), 0.95)
        return [self.low + width * part for part in sorted({split, 0.5 * split, 0.1 * split, 0.01 * split})]


def search(objective: Objective, state: State) -> Step:
    """Step along ``state.direction``: the unit step first, then several lengths a read where it fails.

    Parameters
    ----------
    objective : Objective
    state : State
        ``direction`` must be a descent direction.

    Returns
    -------
    Step
        ``stalled`` marks lanes in which no length improved the objective; they stay where they were.
    """
    active = state.u.shape[0]
    slope0 = lane_dot(state.gradient, state.direction)
    brackets = [_Bracket(float(v), float(s), slope_low=float(s)) for v, s in zip(state.value, slope0, strict=True)]
    points: list[Tensor] = []
    values: list[Tensor] = []
    gradients: list[Tensor] = []
    margins: list[Tensor] = []
    count = 0
    pending = [(lane, 1.0) for lane in range(active)]
    for _ in range(_ROUNDS):
        index = torch.tensor([lane for lane, _ in pending], device=state.u.device)
        length = torch.tensor([t for _, t in pending], dtype=torch.float64, device=state.u.device)
        u = state.u[index] + length[:, None, None] * state.direction[index]
        evaluation = objective.value_gradient(u, state.lanes[index])
        slope = lane_dot(evaluation.gradient, state.direction[index])
        points.append(u)
        values.append(evaluation.value)
        gradients.append(evaluation.gradient)
        margins.append(evaluation.margin)
        for i, (lane, t) in enumerate(pending):
            brackets[lane].see(count + i, t, float(evaluation.value[i]), float(slope[i]))
        count += len(pending)
        pending = [(lane, t) for lane, b in enumerate(brackets) if not b.done for t in b.proposals()]
        if not pending:
            break
    stalled = torch.tensor([b.best < 0 for b in brackets], device=state.u.device)
    all_points, all_values = torch.cat(points), torch.cat(values)
    all_gradients, all_margins = torch.cat(gradients), torch.cat(margins)
    chosen = torch.tensor([max(b.best, 0) for b in brackets], device=state.u.device)
    return Step(
        u=torch.where(stalled[:, None, None], state.u, all_points[chosen]),
        evaluation=Evaluation(
            torch.where(stalled, state.value, all_values[chosen]),
            torch.where(stalled[:, None, None], state.gradient, all_gradients[chosen]),
            torch.where(stalled, state.margin, all_margins[chosen]),
        ),
        length=torch.tensor([b.best_length for b in brackets], dtype=torch.float64, device=state.u.device),
        trials=count,
        stalled=stalled,
    )
