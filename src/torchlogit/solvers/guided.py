"""Newton's steps by conjugate gradients whose products are a guide's: the same problem over rounded rows.

A product of the guide is read in a sixth of the time of the rows themselves, of which a step takes one gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torchlogit.objective import Evaluation, Objective
from torchlogit.preconditioners import InverseCurvature, Preconditioner, Recycled
from torchlogit.solvers.base import Remembered, State, downhill, extended, start_state
from torchlogit.solvers.conjugate_gradient import Solved, newton_path
from torchlogit.solvers.lbfgs import LBFGS, remembered, two_loop
from torchlogit.solvers.line_search import search
from torchlogit.solvers.newton import hand_over

# The share of the gradient that conjugate gradients leave at least: a guide's curvature is another one by so much.
_TIGHT = 0.05
# The most that they leave.
_LOOSE = 0.3
# What they leave where the direction is for the certificate, which takes products of all rows from there.
_CLOSE = 0.2
# A step that leaves more than this share of the largest gradient entry was slow.
_SLOW = 0.5
# Directions of the last solution that precondition the next.
_MEMORY = 20


@dataclass(frozen=True, slots=True)
class GuidedState(State):
    """A state with the slow steps in a row, and the products of the guide so far."""

    slow: int = 0
    spent: int = 0


@dataclass(frozen=True, slots=True)
class _Aim:
    """A direction with the slope ``(A,)`` along it, what the next one is preconditioned by, and what it took."""

    direction: Tensor
    slope: Tensor
    curvature: InverseCurvature
    products: int = 0


@dataclass(frozen=True)
class Guided:
    """Step along ``-G^-1 g``: the gradient of all rows, and the guide's curvature.

    Parameters
    ----------
    preconditioner : Preconditioner
        Of the guide's conjugate gradients; built once.
    tol : float
        Below it the estimated excess is confirmed by products with the true curvature.
    guide : Objective, optional
        The same problem over rows in fewer bits; None for the problem itself.
    last_resort : LBFGS, optional
        Takes over for good where the guide misleads, or where its products are too many.
    products : int, default=60
        Products in all after which no more directions are sought: what the second derivative costs itself.
    patience : int, default=2
        Slow steps in a row after which the last resort takes over.
    starting : bool, default=False
        Whether no certificate is asked for: once the gradient is below ``tol``, no products are spent on a direction,
        and they may end before.
    """

    preconditioner: Preconditioner
    tol: float
    guide: Objective | None = None
    last_resort: LBFGS | None = None
    products: int = 60
    patience: int = 2
    starting: bool = False
    name: str = "guided newton"

    def init(self, objective: Objective, u: Tensor, lanes: Tensor, evaluation: Evaluation | None = None) -> State:
        """Evaluate, and ask the guide."""
        evaluation = evaluation or objective.value_gradient(u, lanes)
        curvature = self.preconditioner.build(self.guide or objective, u, lanes)
        aim = self._aim(objective, evaluation, u, lanes, curvature)
        start = start_state(evaluation, u, lanes, aim.direction, aim.curvature, aim.slope)
        return extended(start, GuidedState, spent=aim.products)

    def step(self, objective: Objective, state: State) -> State:
        """Line search, then ask the guide again."""
        if not isinstance(state, GuidedState):
            assert self.last_resort is not None
            return self.last_resort.step(objective, state)
        moved = search(objective, state)
        u, evaluation = objective.project(moved.u), moved.evaluation
        slow = state.slow + 1 if bool((evaluation.kkt > _SLOW * state.kkt).any()) else 0
        over = slow >= self.patience or state.spent >= self.products
        if self.last_resort is not None and (over or bool(moved.stalled.any())):
            return hand_over(self.last_resort, objective, u, state.lanes, moved)
        memory = (*state.memory, remembered(u - state.u, evaluation.gradient - state.gradient))
        aim = self._aim(objective, evaluation, u, state.lanes, state.curvature, memory)
        return replace(
            state,
            u=u,
            value=evaluation.value,
            gradient=evaluation.gradient,
            margin=evaluation.margin,
            kkt=evaluation.kkt,
            direction=aim.direction,
            excess=-0.5 * aim.slope,
            curvature=aim.curvature,
            memory=memory,
            step_length=moved.length,
            trials=moved.trials,
            stalled=moved.stalled | (self.starting and state.spent >= self.products),
            slow=slow,
            spent=state.spent + aim.products,
        )

    def _aim(
        self,
        objective: Objective,
        evaluation: Evaluation,
        u: Tensor,
        lanes: Tensor,
        curvature: InverseCurvature,
        memory: tuple[Remembered, ...] = (),
    ) -> _Aim:
        gradient, rows = evaluation.gradient, self.guide or objective
        close = bool((evaluation.kkt <= self.tol).all())
        if close and self.starting:
            return _Aim(*downhill(-objective.project(curvature.solve(gradient)), gradient), curvature)
        loose = torch.full_like(evaluation.value, _LOOSE)
        tolerance = torch.clamp(evaluation.kkt.sqrt(), _TIGHT, _LOOSE)
        if self.guide is not None:
            tolerance = torch.full_like(loose, _CLOSE if close else _TIGHT)
        solutions: list[Solved] = []

        def inverse(vector: Tensor) -> Tensor:
            solutions.append(
                newton_path(rows, u, lanes, -vector, curvature.solve, tolerance, self.products, kept=_MEMORY)
            )
            return solutions[-1].direction

        direction = -(inverse(gradient) if self.guide is None else two_loop(memory, inverse, gradient))
        curvature = Recycled.of(curvature, solutions[-1].pairs)
        if close:
            # The certificate rests on the rows themselves.
            direction = newton_path(
                objective, u, lanes, gradient, curvature.solve, loose, self.products, objective.sure_products, direction
            ).direction
        return _Aim(*downhill(direction, gradient), curvature, solutions[-1].products)
