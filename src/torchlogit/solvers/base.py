"""What a solver is: `init` and `step` on an explicit state. It knows the objective, never where rows live."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from torchlogit.objective import Evaluation, Objective
from torchlogit.preconditioners import InverseCurvature
from torchlogit.tensors import lane_dot

# Changes of the point and of the gradient, ``(A, K, D)``, and one over their product, ``(A,)``.
Remembered = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class State:
    """Where A active lanes stand. All in standardised units, float64.

    Parameters
    ----------
    lanes : Tensor of shape (A,), int64
        Which lanes of the objective these are.
    u : Tensor of shape (A, K, D)
        The point.
    value, margin : Tensor of shape (A,)
        Objective, and the smallest signed margin of a row.
    gradient, direction : Tensor of shape (A, K, D)
        Gradient, and the step that the solver's model of the curvature proposes.
    kkt : Tensor of shape (A,)
        Largest gradient entry in centred, standardised units: the certificate's first half.
    excess : Tensor of shape (A,)
        Estimated objective above the optimum, ``-gradient . direction / 2``.
    curvature : InverseCurvature
        What the direction was made with.
    step_length : Tensor of shape (A,)
        Length of the step that led here (0 at the start).
    trials : int
        Points evaluated by the line search that led here.
    stalled : Tensor of shape (A,), bool
        Whether no step improves the objective any more.
    memory : tuple of Remembered
        Recent changes, oldest first; solvers without memory leave it empty.
    """

    lanes: Tensor
    u: Tensor
    value: Tensor
    gradient: Tensor
    margin: Tensor
    kkt: Tensor
    direction: Tensor
    excess: Tensor
    curvature: InverseCurvature
    step_length: Tensor
    trials: int
    stalled: Tensor
    memory: tuple[Remembered, ...] = ()

    def take(self, keep: Tensor) -> State:
        """The lanes that ``keep`` (A,) bool names."""
        tensors = ("lanes", "u", "value", "gradient", "margin", "kkt", "direction", "excess", "step_length", "stalled")
        return replace(
            self,
            **{name: getattr(self, name)[keep] for name in tensors},
            curvature=self.curvature.take(keep),
            memory=tuple((s[keep], y[keep], rho[keep]) for s, y, rho in self.memory),
        )


_FIELDS = tuple(item.name for item in fields(State))
Own = TypeVar("Own", bound=State)


def extended(state: State, kind: type[Own], **kept: Any) -> Own:
    """The state with what a solver keeps beside."""
    return kind(**{name: getattr(state, name) for name in _FIELDS}, **kept)


class Solver(Protocol):
    """Minimises a smooth objective.

    `init` evaluates the start; `step` moves each lane once. Both return a state whose direction and excess belong to
    its own point, so that the driver can judge it and a person can look at it.
    """

    @property
    def name(self) -> str:
        """Its key in the registry."""
        ...

    def init(self, objective: Objective, u: Tensor, lanes: Tensor, evaluation: Evaluation | None = None) -> State:
        """The state at ``u (A, K, D)``, where the objective may have been evaluated already."""
        ...

    def step(self, objective: Objective, state: State) -> State:
        """The next state."""
        ...


def downhill(direction: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The direction, or steepest descent in lanes where rounding made it point uphill, and the slope along it."""
    slope = lane_dot(gradient, direction)
    if not any(value >= 0 for value in slope.tolist()):
        return direction, slope
    direction = torch.where((slope >= 0)[:, None, None], -gradient, direction)
    return direction, lane_dot(gradient, direction)


def start_state(
    evaluation: Evaluation,
    u: Tensor,
    lanes: Tensor,
    direction: Tensor,
    curvature: InverseCurvature,
    slope: Tensor | None = None,
) -> State:
    """The state before any step; ``slope`` is that along the direction, where it is known."""
    slope = lane_dot(evaluation.gradient, direction) if slope is None else slope
    zero = torch.zeros_like(evaluation.value)
    return State(
        lanes=lanes,
        u=u,
        value=evaluation.value,
        gradient=evaluation.gradient,
        margin=evaluation.margin,
        kkt=evaluation.kkt,
        direction=direction,
        excess=-0.5 * slope,
        curvature=curvature,
        step_length=zero,
        trials=0,
        stalled=zero > 0,
    )
