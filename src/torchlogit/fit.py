"""The one door: a problem and options in, steps and results out. Estimators, command line and workers use it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchlogit.drive import Outcome, Run, describe, iterate
from torchlogit.errors import InputError
from torchlogit.journal import NoJournal
from torchlogit.keeping import Keeper, Progress
from torchlogit.kernels import kernel_of
from torchlogit.losses import Loss
from torchlogit.moments import Moments, column_moments, find_non_finite
from torchlogit.objective import Effort, Objective
from torchlogit.penalties import ElasticNet
from torchlogit.plan import Choice, Plan, WarmStart, choose, kernel_for
from torchlogit.problem import FitOptions, LaneResult, Status
from torchlogit.quadratic import Quadratic
from torchlogit.separation import Separation
from torchlogit.solvers.base import State
from torchlogit.sources import Source, communicator_of
from torchlogit.threads import is_little, sparing_threads, standing_helpers
from torchlogit.trace import Record, Trace


class NonFiniteError(ValueError):
    """A feature value is NaN or infinite. With a ``rank`` the row is counted among that process's, else among all."""

    def __init__(self, row: int, column: int, value: float, rank: int | None = None) -> None:
        super().__init__(f"row {row}, column {column} holds {value}")
        self.row, self.column, self.value, self.rank = row, column, value, rank


@dataclass(frozen=True)
class Problem:
    """What is to be minimised.

    Parameters
    ----------
    source : Source
    loss : Loss
    penalties : sequence of ElasticNet
        One a lane.
    fit_intercept : bool, default=True
    start : Tensor of shape (L, K, p + 1), optional
        Raw coefficients to start from.
    has_offset : bool, default=False
    kernel : str, default="auto"
        A key of `torchlogit.kernels.KERNELS`, or "auto" for what `plan.kernel_for` says.
    prior : Quadratic, optional
        Stands for rows seen before.
    """

    source: Source
    loss: Loss
    penalties: Sequence[ElasticNet]
    fit_intercept: bool = True
    start: Tensor | None = None
    has_offset: bool = False
    kernel: str = "auto"
    prior: Quadratic | None = None


class Fit:
    """A fit that can be stepped through, exhausted or interrupted.

    Parameters
    ----------
    problem : Problem
    options : FitOptions
    column_name : callable, optional
        Names a column ``0 .. p - 1`` in messages.
    keeper : Keeper, optional
        Keeps the progress, and may know some already.
    """

    def __init__(
        self,
        problem: Problem,
        options: FitOptions,
        column_name: Callable[[int], str] | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self.problem, self.options, self.keeper = problem, options, keeper
        self.column_name = column_name or (lambda j: f"x{j}")
        source = problem.source
        known = None if keeper is None else keeper.recall(source.device)
        self.trace = Trace(() if known is None else known.trace)
        self.effort = Effort(source.rows)
        name, reason = problem.kernel, "as asked"
        if name == "auto":
            name, reason = kernel_for(source, problem.loss, len(problem.penalties))
        self._threads = sparing_threads(source, problem.loss.outputs, compiled=name == "numba")
        loops = name == "numba" or (name == "triton" and source.device.type == "cuda")
        moments = self._moments(compiled=loops) if known is None else known.moments
        frame = moments.kernel_frame(problem.fit_intercept, source)
        kernel = kernel_of(name, problem.loss, frame, source.dtype, source.rows, options.tol)
        self.objective = Objective(
            source,
            kernel,
            tuple(problem.penalties),
            moments,
            problem.fit_intercept,
            self.effort,
            problem.has_offset,
            problem.prior,
            NoJournal() if keeper is None else keeper.journal,
        )
        may_warm = problem.start is None and options.max_iter > 0
        with self._threads:
            self._choice: Choice = choose(self.objective, options, name, may_warm, reason)
        null = _null_value(self._choice.warm, self.objective)
        self.run = Run(self.objective, self._choice.solver, options, null_value=null)
        self._begun = None if known is None else known.start
        if keeper is not None:
            self.run.reached = self._keep
            self._go_on(known)

    def _moments(self, *, compiled: bool) -> Moments:
        source = self.problem.source
        try:
            with self._threads:
                moments = column_moments(source, len(self.problem.penalties), compiled=compiled)
        except FloatingPointError:
            raise _name_non_finite(source) from None
        self.effort.passes += 1.0
        return moments

    def _go_on(self, known: Progress | None) -> None:
        """Stand where the progress was kept, or keep the first of it."""
        if known is None:
            self._keep()
        elif known.plan != repr(self.plan):
            raise InputError(
                "the checkpoint belongs to a fit that was planned otherwise:"
                f" {' '.join(known.plan.split())} then, {' '.join(repr(self.plan).split())} now; start a new one"
            )
        else:
            effort = self.effort
            effort.passes, effort.rows, effort.nbytes, effort.seconds = known.effort
            self._learned.clear()  # the plan may have built what was used up already
            self._learned.update(known.learned or {})
            if known.run is not None:
                self.run.restore(known.run)

    @property
    def _learned(self) -> dict[int, Any]:
        """What the preconditioner keeps from one build to the next; nothing where it keeps nothing."""
        learned: dict[int, Any] = getattr(getattr(self.run.solver, "preconditioner", None), "learned", {})
        return learned

    def _keep(self, *, finished: bool = False) -> None:
        """Hand the progress over to whoever keeps it."""
        if self.keeper is None:
            return
        begun = finished or self.run.state is not None
        effort = self.effort
        self.keeper.keep(
            Progress(
                plan=repr(self.plan),
                moments=self.objective.moments,
                effort=(effort.passes, effort.rows, effort.nbytes, effort.seconds),
                start=None if begun else self._begun,
                run=self.run.snapshot() if begun else None,
                learned=dict(self._learned),
                trace=tuple(dict(record) for record in self.trace),
                finished=finished,
            )
        )

    @property
    def plan(self) -> Plan:
        """What was chosen, and why."""
        return self._choice.plan

    def steps(self) -> Iterator[tuple[State, Record]]:
        """The driver's own generator; every record also goes to ``trace``."""
        driver: Iterator[tuple[State, Record]] | None = None
        if self._is_over():
            return
        while True:
            # Around each step and not around the loop: whoever steps by hand keeps gradients and threads in between.
            with torch.no_grad(), self._threads, standing_helpers():
                driver = driver or self._driver()
                following = next(driver, None)
            if following is None:
                self._keep(finished=True)
                return
            describe(self.objective, [following])
            self.trace.append(following[1])
            yield following

    def finish(self) -> None:
        """Take the steps that are left, while nobody looks: small problems take less time then."""
        if self.keeper is not None or not is_little(self.problem.source, self.objective.outputs):
            for _ in self.steps():
                pass
            return
        if self._is_over():
            return
        steps: list[tuple[State, Record]] = []
        with torch.inference_mode(), self._threads, standing_helpers():
            try:
                steps.extend(self._driver())  # one by one: an interruption leaves those before it
            finally:
                describe(self.objective, steps)
                for _, record in steps:
                    self.trace.append(record)

    def _driver(self) -> Iterator[tuple[State, Record]]:
        return iterate(self.run, self._start() if self.run.state is None else None)

    def _is_over(self) -> bool:
        """Whether it had been finished when it was kept."""
        return len(self.run.outcomes) == self.objective.lanes

    def _start(self) -> Tensor:
        if self._begun is None:
            self._begun = self._first_point()
            self._keep()
        return self._begun

    def _first_point(self) -> Tensor:
        objective = self.objective
        if self.problem.start is not None:
            start = self.problem.start.to(objective.source.device, torch.float64)
            return objective.coordinates.from_raw(start, objective.all_lanes())
        return objective.zeros() if self._choice.warm is None else _warm_up(self._choice.warm)

    def results(self) -> list[LaneResult]:
        """How every lane ended, in raw units; lanes that were still running are marked as interrupted."""
        outcomes = self.run.interrupted()
        return [self._result(lane, outcomes[lane]) for lane in sorted(outcomes)]

    def _result(self, lane: int, outcome: Outcome) -> LaneResult:
        objective = self.objective
        lanes = objective.all_lanes()[lane : lane + 1]
        u = objective.project(outcome.u[None])
        theta = objective.coordinates.to_raw(u, lanes)[0]
        columns = outcome.separation.columns if outcome.separation else ()
        return LaneResult(
            theta=theta,
            centre=objective.coordinates.centre[lane],
            centred_intercept=u[0, :, -1],
            objective=outcome.value,
            kkt=outcome.kkt,
            excess=outcome.excess,
            iterations=outcome.iterations,
            status=outcome.status,
            message=self._message(outcome),
            separated_columns=columns,
        )

    def _message(self, outcome: Outcome) -> str:
        columns, its = self._names(outcome.separation)
        return outcome.status.value.format(
            max_iter=self.options.max_iter,
            kkt=outcome.kkt,
            excess=outcome.excess,
            tol=self.options.tol,
            excess_limit=0.1 * self.options.tol * outcome.value,
            iterations=outcome.iterations,
            columns=columns,
            its=its,
        )

    def _names(self, separation: Separation | None) -> tuple[str, str]:
        """The separating columns in words, and whose coefficient it is."""
        if separation is None:
            return "", ""
        width = self.objective.width - 1
        if separation.columns == (width,):
            return "the intercept alone", "the intercept has"
        names = [f"'{self.column_name(j)}'" for j in separation.columns]
        if len(names) == 1:
            return f"column {names[0]} alone", "its coefficient has"
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        return f"columns {shown}", "their coefficients have"


def _null_value(warm: WarmStart | None, objective: Objective) -> float | None:
    """The objective at zero, where a warm start is to be compared with it and it is known without a read."""
    known = warm is not None and not objective.has_offset and objective.prior is None
    return math.log(objective.kernel.loss.classes) if known else None


def _warm_up(start: WarmStart) -> Tensor:
    """The optimum of a subsample ``(L, K, D)``, which may start from the optimum of a smaller one."""
    objective = start.objective
    run = Run(objective, start.solver, start.options, _null_value(start.below, objective), sampled=True)
    for _ in iterate(run, objective.zeros() if start.below is None else _warm_up(start.below)):
        pass
    if start.hand_on is not None and run.state is not None:
        start.hand_on.give(run.state.curvature)
    found = torch.stack([run.outcomes[lane].u for lane in range(objective.lanes)])
    return found if start.lift is None else start.lift(found)


def _name_non_finite(source: Source) -> ValueError:
    communicator = communicator_of(source)
    everywhere = communicator.gathered(lambda: find_non_finite(source))
    rank = next((rank for rank, found in enumerate(everywhere) if found is not None), None)
    if rank is None:
        return ValueError(
            "Input X holds finite values whose spread is too large for float64; divide the largest columns by a "
            "power of ten."
        )
    row, column, value = everywhere[rank]  # type: ignore[misc]
    return NonFiniteError(row, column, value, rank if communicator.world > 1 else None)


__all__ = ["Fit", "NonFiniteError", "Problem", "Status"]
