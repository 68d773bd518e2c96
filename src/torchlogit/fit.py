"""The one door: a problem and options in, steps and results out. Estimators, command line and workers use it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchlogit.drive import Outcome, Run, iterate
from torchlogit.kernels import KERNELS
from torchlogit.losses import Loss
from torchlogit.moments import column_moments, find_non_finite
from torchlogit.objective import Effort, Objective
from torchlogit.penalties import ElasticNet
from torchlogit.plan import Choice, Plan, choose, kernel_for
from torchlogit.problem import FitOptions, LaneResult, Status
from torchlogit.quadratic import Quadratic
from torchlogit.separation import Separation
from torchlogit.solvers.base import State
from torchlogit.sources import Source, communicator_of
from torchlogit.threads import sparing_threads
from torchlogit.trace import Record, Trace

# Steps a warm start may take on its subsample, which may be separated where the whole is not.
_WARM_STEPS = 15


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
    """

    def __init__(
        self, problem: Problem, options: FitOptions, column_name: Callable[[int], str] | None = None
    ) -> None:
        self.problem, self.options = problem, options
        self.column_name = column_name or (lambda j: f"x{j}")
        self.trace = Trace()
        source = problem.source
        self.effort = Effort(source.rows)
        try:
            with sparing_threads(source, problem.loss.outputs):
                moments = column_moments(source, len(problem.penalties))
        except FloatingPointError:
            raise _name_non_finite(source) from None
        self.effort.passes += 1.0
        name, reason = problem.kernel, "as asked"
        if name == "auto":
            name, reason = kernel_for(source, problem.loss, len(problem.penalties))
        kernel = KERNELS[name](problem.loss, moments.frame(problem.fit_intercept))
        self.objective = Objective(
            source,
            kernel,
            tuple(problem.penalties),
            moments,
            problem.fit_intercept,
            self.effort,
            problem.has_offset,
            problem.prior,
        )
        may_warm = problem.start is None and options.max_iter > 0
        self._choice: Choice = choose(self.objective, options, name, may_warm, reason)
        null = math.log(problem.loss.classes) if self._choice.warm is not None and not problem.has_offset else None
        self.run = Run(self.objective, self._choice.solver, options, null_value=null)

    @property
    def plan(self) -> Plan:
        """What was chosen, and why."""
        return self._choice.plan

    def steps(self) -> Iterator[tuple[State, Record]]:
        """The driver's own generator; every record also goes to ``trace``."""
        driver: Iterator[tuple[State, Record]] | None = None
        while True:
            # Around each step and not around the loop: whoever steps by hand keeps gradients and threads in between.
            with torch.no_grad(), sparing_threads(self.problem.source, self.problem.loss.outputs):
                driver = driver or iterate(self.run, self._start())
                following = next(driver, None)
            if following is None:
                return
            self.trace.append(following[1])
            yield following

    def _start(self) -> Tensor:
        objective = self.objective
        if self.problem.start is not None:
            start = self.problem.start.to(objective.source.device, torch.float64)
            return objective.coordinates.from_raw(start, objective.all_lanes())
        if self._choice.warm is None or self._choice.warm_solver is None:
            return objective.zeros()
        sample = objective.on(self._choice.warm)
        options = FitOptions(tol=max(self.options.tol, 1e-4), max_iter=_WARM_STEPS, seed=self.options.seed)
        warm = Run(sample, self._choice.warm_solver, options, sampled=True)
        for _ in iterate(warm, objective.zeros()):
            pass
        return torch.stack([warm.outcomes[lane].u for lane in range(objective.lanes)])

    def results(self) -> list[LaneResult]:
        """How every lane ended, in raw units; lanes that were still running are marked as interrupted."""
        outcomes = self.run.interrupted()
        return [self._result(lane, outcomes[lane]) for lane in sorted(outcomes)]

    def _result(self, lane: int, outcome: Outcome) -> LaneResult:
        objective = self.objective
        lanes = torch.tensor([lane], device=outcome.u.device)
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
