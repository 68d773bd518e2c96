"""The one loop of every exact fit: a generator of (state, record) that owns budget, certificate and trace."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from torchlogit.locality import is_local, rounding_of_rows
from torchlogit.objective import Objective
from torchlogit.problem import FitOptions, Status
from torchlogit.separation import Separation, SeparationKind, complete_separation, find_separation
from torchlogit.solvers.base import Solver, State
from torchlogit.tensors import joined
from torchlogit.trace import Record

# Steps that a lane may take beyond its certificate, to settle coefficients along soft directions.
_POLISH_STEPS = 3
# Steps without any progress (a lower objective, or a gradient a tenth smaller) after which precision is exhausted.
_IDLE_STEPS = 8
# Steps in an exponential's tail after which an unpenalised fit is judged for separation. An outlier leaves the tail.
_TAIL_STEPS = 5
_RECORDED_COEFFICIENTS = 1000
# What may be left of a start's objective, in the share of it that its gradient may be: with many coefficients for each
# row a small gradient alone is none (1,000 classes: a start that left 2 % of its objective cost 40 reads of all rows).
_START_EXCESS = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one lane ended, in standardised units."""

    u: Tensor  # (K, D)
    value: float
    kkt: float
    excess: float
    iterations: int
    status: Status
    separation: Separation | None = None


@dataclass(slots=True)
class LaneProgress:
    """The best a lane has seen, and for how long it has seen nothing better."""

    value: float = math.inf
    kkt: float = math.inf
    idle: int = 0

    def see(self, value: float, kkt: float) -> bool:
        """Whether the lane is still getting anywhere."""
        better = value < self.value - 1e-15 * abs(self.value) or kkt < 0.9 * self.kkt
        self.idle = 0 if better else self.idle + 1
        self.value, self.kkt = min(self.value, value), min(self.kkt, kkt)
        return self.idle < _IDLE_STEPS


@dataclass(slots=True)
class HeldCertificate:
    """A certificate that holds: since which step, and its latest outcome."""

    first: int
    outcome: Outcome

    def kept_by(self, value: float) -> bool:
        """Whether the step after it, to this value, gained no more than the certificate had promised was left."""
        promised = 2 * self.outcome.excess + 1e-12 * abs(self.outcome.value)
        return value >= self.outcome.value - promised


class _Figures:
    """The numbers of a state that are judged and recorded, as lists by active lane."""

    __slots__ = ("excess", "kkt", "margin", "stalled", "value")

    def __init__(self, state: State) -> None:
        self.value: list[float] = state.value.tolist()
        self.kkt: list[float] = state.kkt.tolist()
        self.excess: list[float] = state.excess.tolist()
        self.margin: list[float] = state.margin.tolist()
        self.stalled: list[bool] = state.stalled.tolist()


@dataclass(slots=True)
class Run:
    """A fit in progress: what `iterate` fills in. ``state`` is the last one, whatever interrupts the loop.

    With ``sampled`` it only finds a start: a small gradient, and little left of the objective, are all that is asked
    for, and a lane whose margins are all positive stops, because more steps would only lead further away, but nothing
    is concluded about separation, and no time is spent on it.
    """

    objective: Objective
    solver: Solver
    options: FitOptions
    null_value: float | None = None  # objective at zero: a start that is worse is not used
    sampled: bool = False
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    state: State | None = None
    iterations: int = 0
    progress: dict[int, LaneProgress] = field(default_factory=dict)
    held: dict[int, HeldCertificate] = field(default_factory=dict)
    distant: dict[int, int] = field(default_factory=dict)  # states of a lane whose small numbers meant nothing
    overlapping: set[int] = field(default_factory=set)  # lanes proven not to be separated
    reached: Callable[[], None] | None = None  # called when ``state`` is a new one, before it is judged

    def snapshot(self) -> dict[str, Any]:
        """All that the loop goes on from, as it is now."""
        return {
            "outcomes": dict(self.outcomes),
            "state": self.state,
            "iterations": self.iterations,
            "progress": {lane: replace(progress) for lane, progress in self.progress.items()},
            "held": {lane: replace(held) for lane, held in self.held.items()},
            "distant": dict(self.distant),
            "overlapping": sorted(self.overlapping),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Stand where `snapshot` was taken."""
        for name, value in snapshot.items():
            setattr(self, name, set(value) if name == "overlapping" else value)

    def unpenalised(self, lane: int) -> bool:
        """Whether nothing but the rows bends the lane's objective."""
        return self.objective.prior is None and self.objective.penalties[lane].is_none

    def interrupted(self) -> dict[int, Outcome]:
        """Outcomes of all lanes, those still running ended as they stand."""
        ended = dict(self.outcomes)
        if self.state is not None and len(ended) < self.objective.lanes:
            figures = _Figures(self.state)
            for i, lane in enumerate(self.state.lanes.tolist()):
                ended.setdefault(lane, _outcome(self.state, figures, i, self.iterations, Status.INTERRUPTED))
        return ended


def iterate(run: Run, start: Tensor | None) -> Iterator[tuple[State, Record]]:
    """Step until every lane has ended.

    Parameters
    ----------
    run : Run
        Receives the outcomes.
    start : Tensor of shape (L, K, D), optional
        Standardised units; None goes on from the run's state.

    Yields
    ------
    state : State
        The state before its update; the last one is the result.
    record : dict
        Its trace record (see `Trace`), of which `describe` adds what takes the most time.
    """
    objective, solver = run.objective, run.solver
    clock = _Clock(objective)
    state = run.state if start is None else _begin(run, objective.project(start))
    assert state is not None
    while True:
        new, run.state = state is not run.state, state
        if new and run.reached is not None:
            run.reached()
        figures, keep = _Figures(state), []
        for i, lane in enumerate(state.lanes.tolist()):
            outcome = _judge(run, state, figures, i, lane)
            if outcome is not None:
                run.outcomes[lane] = outcome
            keep.append(outcome is None)
        record = _record(objective, state, figures, run.iterations, clock)
        if not any(keep):
            yield state, record
            return
        ahead = state if all(keep) else state.take(torch.tensor(keep, device=state.u.device))
        following = solver.step(objective, ahead)
        (record["step_length"],) = _plain(objective, following.step_length.tolist())
        record["trials"] = following.trials
        yield state, record
        run.iterations += 1
        state = following


def _begin(run: Run, start: Tensor) -> State:
    """The state at the start, or at zero in lanes where that is better; values that are not finite are never better."""
    objective, lanes = run.objective, run.objective.all_lanes()
    if not bool(start.any()):
        return run.solver.init(objective, start, lanes)
    start = torch.where(torch.isfinite(start).all((1, 2))[:, None, None], start, 0.0)
    if run.null_value is None:
        both = objective.value_gradient(torch.cat([start, torch.zeros_like(start)]), lanes.repeat(2))
        value, null = both.value.chunk(2)
        here = torch.where(value <= null, lanes, lanes + objective.lanes)
        nearer = torch.where((value <= null)[:, None, None], start, 0.0)
        return run.solver.init(objective, nearer, lanes, both.take(here))
    state = run.solver.init(objective, start, lanes)
    better = state.value <= run.null_value
    if bool(better.all()):
        return state
    return run.solver.init(objective, torch.where(better[:, None, None], start, 0.0), lanes)


def _outcome(
    state: State, figures: _Figures, i: int, iterations: int, status: Status, separation: Separation | None = None
) -> Outcome:
    return Outcome(
        state.u[i], figures.value[i], figures.kkt[i], figures.excess[i], iterations, status, separation
    )  # fmt: skip


def _judge(run: Run, state: State, figures: _Figures, i: int, lane: int) -> Outcome | None:
    """End a lane, or let it go on (None)."""
    objective, steps, tol = run.objective, run.iterations, run.options.tol
    value = figures.value[i]
    if not math.isfinite(value):
        raise FloatingPointError("the objective is not finite")
    if run.unpenalised(lane) and not objective.has_offset and figures.margin[i] > 0:
        separation = None if run.sampled else complete_separation(objective, state, i)
        return _outcome(state, figures, i, steps, Status.SEPARATED, separation)
    near = figures.excess[i] <= _START_EXCESS * tol * value
    if run.sampled and figures.kkt[i] <= tol and near:  # a start needs no certificate
        return _outcome(state, figures, i, steps, Status.CONVERGED)
    limit = 0.1 * tol * value
    small = figures.kkt[i] <= tol and figures.excess[i] <= limit  # the two numbers of the certificate
    held = run.held.get(lane)
    if held is not None and not held.kept_by(value):
        del run.held[lane]
        held = None
    if held is not None:
        # Polishing may leave the certificate by a rounding: keep what held.
        return _polished(run, state, figures, i, held) if small else held.outcome
    distant = small and not is_local(objective, state, i)
    if small and not distant:
        figures.excess[i] += rounding_of_rows(objective, state, i, limit)
        small = figures.excess[i] <= limit
    if small and not distant:
        ended = _separated(run, state, figures, i, lane)
        run.held[lane] = HeldCertificate(steps, _outcome(state, figures, i, steps, Status.CONVERGED))
        return ended or _polished(run, state, figures, i, run.held[lane])
    if distant:
        run.distant[lane] = run.distant.get(lane, 0) + 1
        ended = _separated(run, state, figures, i, lane) if run.distant[lane] == _TAIL_STEPS else None
        if ended is not None:
            return ended
    return _unfinished(run, state, figures, i, lane, distant)


def _polished(run: Run, state: State, figures: _Figures, i: int, held: HeldCertificate) -> Outcome | None:
    """End a certified lane when its coefficients have settled too."""
    tol, steps = run.options.tol, run.iterations
    if held.outcome.iterations != steps:
        held.outcome = _outcome(state, figures, i, steps, Status.CONVERGED)
    over = steps - held.first >= _POLISH_STEPS or steps >= run.options.max_iter or figures.stalled[i]
    if over:
        return held.outcome
    # Room is left for the rounding of raw coefficients, from which others will recompute the gradient.
    return held.outcome if figures.kkt[i] <= 0.9 * tol and _settled(run.objective, state, i, tol) else None


def _unfinished(run: Run, state: State, figures: _Figures, i: int, lane: int, distant: bool) -> Outcome | None:
    """End a lane without a certificate when nothing moves any more or the budget is used up."""
    steps = run.iterations
    moving = run.progress.setdefault(lane, LaneProgress()).see(figures.value[i], figures.kkt[i])
    stuck = figures.stalled[i] or not moving
    if steps < run.options.max_iter and not stuck:
        return None
    ended = _separated(run, state, figures, i, lane) if steps > 0 else None
    if ended is not None and ended.status is not Status.UNDECIDED:
        return ended
    outcome = _outcome(state, figures, i, steps, Status.PRECISION if stuck else Status.MAX_ITER)
    # The loss cannot fall below zero: where the model of the curvature holds nowhere, no more than that is known.
    return replace(outcome, excess=outcome.value) if distant else outcome


def _separated(run: Run, state: State, figures: _Figures, i: int, lane: int) -> Outcome | None:
    """The outcome of an unpenalised lane that has no optimum, or None where it has one."""
    if run.sampled or not run.unpenalised(lane) or lane in run.overlapping:
        return None
    separation = find_separation(run.objective, state, i)
    status = {
        SeparationKind.COMPLETE: Status.SEPARATED,
        SeparationKind.QUASI_COMPLETE: Status.QUASI_SEPARATED,
        SeparationKind.UNDECIDED: Status.UNDECIDED,
    }.get(separation.kind)
    if separation.kind is SeparationKind.NONE:
        run.overlapping.add(lane)
    return None if status is None else _outcome(state, figures, i, run.iterations, status, separation)


def _settled(objective: Objective, state: State, i: int, tol: float) -> bool:
    """Whether the step still proposed is small for the coefficients too, not only for the objective.

    With a condition number of 1e6 a gradient of 1e-10 leaves coefficients uncertain in the fourth digit; a step or
    two more settle them. Nothing is promised about them, so this never decides whether a fit has converged.
    """
    both = torch.stack([state.direction[i], state.u[i]]).abs()
    raw = objective.coordinates.weights_to_raw(both, state.lanes[i : i + 1])
    limit = 3e1 * tol
    step, point = both.amax((1, 2)).tolist()
    settled: bool = step <= limit * point
    if settled and raw.numel():
        raw_step, raw_point = raw.amax((1, 2)).tolist()
        settled = raw_step <= limit * raw_point
    return settled


class _Clock:
    """Differences of effort and time between records."""

    def __init__(self, objective: Objective) -> None:
        self.effort = objective.effort
        self.mark()

    def mark(self) -> None:
        self.time = time.perf_counter()
        self.read, self.rows, self.nbytes = self.effort.seconds, self.effort.rows, self.effort.nbytes

    def lap(self) -> tuple[float, float, int, int]:
        effort = self.effort
        lap = (
            effort.seconds - self.read,
            time.perf_counter() - self.time,
            effort.rows - self.rows,
            effort.nbytes - self.nbytes,
        )
        self.mark()
        return lap


def _plain(objective: Objective, *figures: list[Any]) -> tuple[Any, ...]:
    """Of each list what there is of a single problem, the list for lanes."""
    return tuple(values[0] for values in figures) if objective.lanes == 1 else figures


def _record(objective: Objective, state: State, figures: _Figures, step: int, clock: _Clock) -> Record:
    read, total, rows, nbytes = clock.lap()
    value, kkt, excess = _plain(objective, figures.value, figures.kkt, figures.excess)
    return {
        "step": step,
        "objective": value,
        "gradient_norm": None,
        "kkt": kkt,
        "excess": excess,
        "step_length": 0.0,
        "trials": 0,
        "passes": objective.effort.passes,
        "rows_per_second": rows / read if read > 0 else 0.0,
        "bytes_per_second": nbytes / read if read > 0 else 0.0,
        "seconds": {"read": read, "total": total},
        "theta": None,
    }


def describe(objective: Objective, steps: Sequence[tuple[State, Record]]) -> None:
    """Add to the records of steps what is in raw coefficients, of all of them at once."""
    if not steps:
        return
    states = [state for state, _ in steps]
    lanes = joined([state.lanes for state in states])
    gradient = objective.coordinates.gradient_to_raw(joined([state.gradient for state in states]), lanes)
    norms: list[float] = torch.linalg.vector_norm(gradient, 2, (1, 2)).tolist()
    theta: list[Any] | None = None
    if states[0].u[0].numel() <= _RECORDED_COEFFICIENTS:
        theta = objective.coordinates.to_raw(joined([state.u for state in states]), lanes).tolist()
    end = 0
    for state, record in steps:
        here = slice(end, end := end + state.lanes.shape[0])
        (record["gradient_norm"],) = _plain(objective, norms[here])
        if theta is not None:
            (record["theta"],) = _plain(objective, theta[here])


__all__ = ["Outcome", "Run", "describe", "iterate"]
