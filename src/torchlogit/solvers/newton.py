"""Newton's method: the exact step where the second derivative fits, conjugate gradients where it does not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchlogit.objective import Evaluation, Objective
from torchlogit.preconditioners import HessianInverse, InverseCurvature, Preconditioner
from torchlogit.solvers.base import State, lane_dot, start_state
from torchlogit.solvers.line_search import search
from torchlogit.solvers.conjugate_gradient import newton_direction

# Newton's decrement from the last point's curvature is trusted when it is this far below what is asked for.
_STALE_SHARE = 0.01


@dataclass(frozen=True)
class Newton:
    """Step along ``-H^-1 g`` with a line search.

    Parameters
    ----------
    preconditioner : Preconditioner
        If what it builds is exact, a step is one solve; otherwise it preconditions conjugate gradients on products
        with the true curvature.
    tol : float
        What the certificate asks for; close to it, curvature is not rebuilt needlessly.
    products : int, default=200
        Most products of a step.
    """

    preconditioner: Preconditioner
    tol: float
    products: int = 200
    name: str = "newton"

    def init(self, objective: Objective, u: Tensor, lanes: Tensor) -> State:
        """Evaluate, and model the curvature."""
        evaluation = objective.value_gradient(u, lanes)
        direction, curvature = self._model(objective, evaluation, u, lanes, None)
        return start_state(evaluation, u, lanes, direction, curvature)

    def step(self, objective: Objective, state: State) -> State:
        """Line search, then a model at the new point."""
        moved = search(objective, state)
        u = objective.project(moved.u)
        direction, curvature = self._model(objective, moved.evaluation, u, state.lanes, state.curvature)
        return State(
            lanes=state.lanes,
            u=u,
            value=moved.evaluation.value,
            gradient=moved.evaluation.gradient,
            margin=moved.evaluation.margin,
            direction=direction,
            excess=-0.5 * lane_dot(moved.evaluation.gradient, direction),
            curvature=curvature,
            step_length=moved.length,
            trials=moved.trials,
            stalled=moved.stalled,
        )

    def _model(
        self,
        objective: Objective,
        evaluation: Evaluation,
        u: Tensor,
        lanes: Tensor,
        previous: InverseCurvature | None,
    ) -> tuple[Tensor, InverseCurvature]:
        gradient = evaluation.gradient
        if isinstance(previous, HessianInverse) and bool((gradient.abs().amax((1, 2)) <= self.tol).all()):
            direction = -objective.project(previous.solve(gradient))
            excess = -0.5 * lane_dot(gradient, direction)
            if bool((excess <= _STALE_SHARE * 0.1 * self.tol * evaluation.value).all()):
                return direction, previous
        curvature = self.preconditioner.build(objective, u, lanes)
        if curvature.exact:
            direction = -objective.project(curvature.solve(gradient))
        else:
            # Loose far away, tight close by: convergence stays superlinear (Nocedal and Wright, section 7.1).
            closeness = gradient.abs().amax((1, 2))
            tolerance = torch.clamp(closeness.sqrt(), 1e-3, 0.3)
            direction = newton_direction(
                objective, u, lanes, gradient, curvature.solve, tolerance, self.products
            )
        uphill = lane_dot(gradient, direction) >= 0
        return torch.where(uphill[:, None, None], -gradient, direction), curvature
