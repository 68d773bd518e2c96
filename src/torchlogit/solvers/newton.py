"""Newton's method: the exact step where the second derivative fits, conjugate gradients where it does not."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torchlogit.hessian_factors import HessianInverse
from torchlogit.objective import Evaluation, Objective
from torchlogit.preconditioners import InverseCurvature, Preconditioner
from torchlogit.solvers.base import Solver, State, downhill, extended, start_state
from torchlogit.solvers.conjugate_gradient import newton_path
from torchlogit.solvers.line_search import Step, search
from torchlogit.tensors import lane_dot

# Newton's decrement from the last point's curvature is trusted when it is this far below what is asked for, and the
# step from there was no longer than the model's own and promised no more than this share of the objective: a long step
# into the exponential's tail leaves a curvature that is smaller by orders of magnitude.
_STALE_SHARE, _SMALL_STEP = 0.01, 0.01
# A full step leaves next to no slope where the quadratic model holds. Where the loss is an exponential's tail it leaves
# 1 / e of it, step after step (rows that are classified ever more surely), and a longer one is better.
_FLAT = 0.3
# The share of the gradient hidden from the curvature, above which a step is taken there.
_HIDDEN_SHARE = 0.5
# The share of the gradient that conjugate gradients may leave, where no digits are wanted of a direction.
_LOOSE = 0.3
# The same where products are a guide's, and cost a fifth of the gradient that a direction left so loose asks for.
_CLOSE = 0.05
# Products that a direction may always take.
_LEAST_PRODUCTS = 8


@dataclass(frozen=True, slots=True)
class NewtonState(State):
    """A state with what conjugate gradients left behind.

    Parameters
    ----------
    path : tuple of Tensor of shape (A, K, D)
        Their early iterates (see `newton_path`).
    cap : int
        Most products of the next direction: where the quadratic model was good for a few, more would be wasted.
    spent : int
        Products since the curvature was built.
    built : int
        How many times it was.
    stage : int
        Which of a chain of such solvers it is from.
    """

    path: tuple[Tensor, ...] = ()
    cap: int = 0
    spent: int = 0
    built: int = 1
    stage: int = 0

    def take(self, keep: Tensor) -> NewtonState:
        """The lanes that ``keep`` (A,) bool names."""
        kept = State.take(self, keep)
        assert isinstance(kept, NewtonState)
        return replace(kept, path=tuple(step[keep] for step in self.path))


@dataclass(frozen=True, slots=True)
class _Model:
    """The quadratic model at a point: its direction with the slope ``(A,)`` along it, and what it took."""

    direction: Tensor
    slope: Tensor
    curvature: InverseCurvature
    path: tuple[Tensor, ...] = ()
    spent: int = 0
    built: int = 1


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
    patience : float, default=0
        What a build of the preconditioner costs, in products: it is built anew when as much has been spent on
        products since, then when twice as much has, and so on, and so never costs more than they do. 0 builds at every
        step.
    last_resort : Newton, optional
        Takes over for good once more products were spent since the last build than its own build costs.
    last_resort_products : float, default=inf
        What that costs, in products.
    guide : Objective, optional
        The same problem over shorter rows, for products that need few digits.
    starting : bool, default=False
        Whether no certificate is asked for: once the gradient is below ``tol``, no products are spent on a direction.
    """

    preconditioner: Preconditioner
    tol: float
    products: int = 200
    patience: float = 0.0
    last_resort: Newton | None = None
    last_resort_products: float = math.inf
    guide: Objective | None = None
    starting: bool = False
    name: str = "newton"

    @property
    def stage(self) -> int:
        """Which of a chain of such solvers this is, counted from the last one."""
        return 0 if self.last_resort is None else self.last_resort.stage + 1

    def init(self, objective: Objective, u: Tensor, lanes: Tensor, evaluation: Evaluation | None = None) -> State:
        """Evaluate, and model the curvature."""
        evaluation = evaluation or objective.value_gradient(u, lanes)
        model = self._model(objective, evaluation, u, lanes, None, self.products)
        start = start_state(evaluation, u, lanes, model.direction, model.curvature, model.slope)
        return extended(
            start,
            NewtonState,
            path=model.path,
            cap=self.products,
            spent=model.spent,
            built=model.built,
            stage=self.stage,
        )

    def step(self, objective: Objective, state: State) -> State:
        """Line search, then a model at the new point."""
        if not isinstance(state, NewtonState) or state.stage != self.stage:
            assert self.last_resort is not None
            return self.last_resort.step(objective, state)
        excesses = state.excess.tolist()
        moved = search(objective, state, state.path, _FLAT, slope=[-2 * excess for excess in excesses])
        u = objective.project(moved.u)
        over = state.spent >= min(self.last_resort_products, self.products) or bool(moved.stalled.any())
        if self.last_resort is not None and over:
            return hand_over(self.last_resort, objective, u, state.lanes, moved)
        # The path's j-th step took 2 ** j products.
        cap = 2 * 2**moved.detour if moved.detour >= 0 else 2 * state.cap
        cap = min(max(cap, _LEAST_PRODUCTS), self.products)
        figures = zip(moved.length.tolist(), excesses, state.value.tolist(), strict=True)
        small = all(length <= 1 and excess <= _SMALL_STEP * value for length, excess, value in figures)
        model = self._model(objective, moved.evaluation, u, state.lanes, state, cap, small)
        return NewtonState(
            lanes=state.lanes,
            u=u,
            value=moved.evaluation.value,
            gradient=moved.evaluation.gradient,
            margin=moved.evaluation.margin,
            kkt=moved.evaluation.kkt,
            direction=model.direction,
            excess=-0.5 * model.slope,
            curvature=model.curvature,
            step_length=moved.length,
            trials=moved.trials,
            stalled=moved.stalled,
            path=model.path,
            cap=cap,
            spent=model.spent,
            built=model.built,
            stage=self.stage,
        )

    def _due(self, last: NewtonState) -> float:
        """The products after which the curvature is built anew: twice as many each time, as it changes ever less."""
        return math.ldexp(self.patience, last.built - 1)

    def _model(
        self,
        objective: Objective,
        evaluation: Evaluation,
        u: Tensor,
        lanes: Tensor,
        last: NewtonState | None,
        cap: int,
        small: bool = False,
    ) -> _Model:
        gradient = evaluation.gradient
        close = all(largest <= self.tol for largest in evaluation.kkt.tolist())
        fresh = last is not None and (last.curvature.exact or not self.patience)  # the last point's own curvature
        known = last is not None and fresh and isinstance(last.curvature, HessianInverse) and close and small
        # A subsample's curvature may miss what few rows that outweigh all others have to say.
        if last is not None and known and (last.curvature.exact or not objective.sure_products):
            direction = -objective.project(last.curvature.solve(gradient))
            slope = lane_dot(gradient, direction)
            if bool((-0.5 * slope <= _STALE_SHARE * 0.1 * self.tol * evaluation.value).all()):
                return _Model(direction, slope, last.curvature)
        if last is not None and close and self.starting:
            direction, slope = downhill(-objective.project(last.curvature.solve(gradient)), gradient)
            return _Model(direction, slope, last.curvature, spent=last.spent, built=last.built)
        spent, built = 0, 1 if last is None else last.built + 1
        curvature: InverseCurvature
        if last is not None and not fresh and (last.spent < self._due(last) or close):
            curvature, spent, built = last.curvature, last.spent, last.built
        else:
            curvature = self.preconditioner.build(objective, u, lanes)
        if curvature.exact:
            direction = objective.project(_along_hidden(curvature, gradient, -curvature.solve(gradient)))
            return _Model(*downhill(direction, gradient), curvature)
        # Loose far away, tight close by: convergence stays superlinear (Nocedal and Wright, section 7.1).
        tolerance = torch.clamp(evaluation.kkt.sqrt(), 1e-3, _LOOSE)
        if close:  # the direction serves the certificate, and an excess needs no digits
            tolerance = torch.full_like(tolerance, _LOOSE if self.guide is None else _CLOSE)
        # A direction cut short would understate the excess that the certificate needs.
        limit = self.products if close else cap
        least = objective.sure_products if close else 0  # the certificate rests on it
        rows = objective if self.guide is None else self.guide
        solved = newton_path(rows, u, lanes, gradient, curvature.solve, tolerance, limit, least)
        return _Model(*downhill(solved.direction, gradient), curvature, solved.path, spent + solved.products, built)


def hand_over(last_resort: Solver, objective: Objective, u: Tensor, lanes: Tensor, moved: Step) -> State:
    """The last resort's state at ``u``, where another solver's last step led."""
    begun = last_resort.init(objective, u, lanes, moved.evaluation)
    return replace(begun, step_length=moved.length, trials=moved.trials)


def _along_hidden(curvature: InverseCurvature, gradient: Tensor, direction: Tensor) -> Tensor:
    """Newton's direction, or steepest descent without curvature in lanes whose gradient lies mostly there.

    Where all rows but a few are saturated the loss is a polyhedron with rounded edges; Newton's step stays on an edge.
    """
    if not isinstance(curvature, HessianInverse):
        return direction
    chosen = direction
    for i in range(gradient.shape[0]):
        hidden = curvature.hidden(i)
        if hidden is not None:
            whole, basis = gradient[i], torch.linalg.qr(hidden)[0]
            part = (basis @ (basis.T @ whole.reshape(-1))).reshape(whole.shape)
            if bool(part.abs().max() > _HIDDEN_SHARE * whole.abs().max()):
                chosen = chosen.clone() if chosen is direction else chosen
                chosen[i] = -part
    return chosen
