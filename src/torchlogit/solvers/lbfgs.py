"""L-BFGS around a preconditioner: one exact gradient a step, curvature remembered on top of a good first guess."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torchlogit.hessian_factors import PassingHessian
from torchlogit.objective import Evaluation, Objective
from torchlogit.preconditioners import InverseCurvature, Preconditioner
from torchlogit.solvers.base import Remembered, State, downhill, extended, start_state
from torchlogit.solvers.conjugate_gradient import newton_direction
from torchlogit.solvers.line_search import search
from torchlogit.solvers.newton import Newton, hand_over
from torchlogit.tensors import lane_dot, one_number, plus_along

# A step that leaves more than this share of the squared gradient (in P's norm) was slow; two in a row rebuild P.
_SLOW = 0.5
_MEMORY = 10
# A step that had to be cut to less than this was along rows that the preconditioner knows nothing of, as those of a
# column that is rare (adult, 32,560 x 108: 0.8 of the time; ten such columns of Cauchy values 0.75 to 1.3).
_SHORT = 0.1
# The gradient from which on directions are confirmed, and builds in a row without effect after which they are too,
# whatever is asked for: there they are worth their products.
_CLOSE, _FUTILE = 1e-6, 3
# Rounds of `_beyond_newton`: each is a gradient and a product of the sample, and leaves what is left shorter by the
# length of the step. A remainder longer than this share of the step is none that a sample could know.
_ROUNDS, _LARGEST_REMAINDER = 2, 0.5


@dataclass(frozen=True, slots=True)
class LBFGSState(State):
    """A state with its solver's stage, the age of its preconditioner, slow steps in a row, and builds in a row that
    cured none.
    """

    stage: int = 0
    age: int = 0
    slow: int = 0
    futile: int = 0


@dataclass(frozen=True)
class LBFGS:
    """Two-loop recursion (Nocedal, 1980) whose initial inverse Hessian is the preconditioner.

    Parameters
    ----------
    preconditioner : Preconditioner
    tol : float
        Below it (or 1e-6) the estimated excess is confirmed by conjugate gradients on the true curvature: with a
        diagonal preconditioner the recursion alone underestimates what is left along soft directions. A preconditioner
        that bounds the excess needs no confirmation, and the bound is what the state carries.
    patience : int, default=2
        Slow steps in a row, and steps since the last build, after which the preconditioner is rebuilt.
    confirm : int, default=60
        Most products of a confirmation.
    last_resort : Newton or LBFGS, optional
        Takes over for good where the preconditioner would be rebuilt, or a step had to be cut short: it knows too
        little, or rows outside the subsample that it comes from, outliers among them, bend the objective in ways of
        their own.
    least_value : float, default=0
        The objective at the start below which it begins with the last resort: only rows that are undecided have
        curvature, and a subsample has too few of them.
    """

    preconditioner: Preconditioner
    tol: float
    patience: int = 2
    confirm: int = 60
    last_resort: Newton | LBFGS | None = None
    least_value: float = 0.0
    name: str = "lbfgs"

    @property
    def stage(self) -> int:
        """Which of a chain of such solvers this is, counted from the last one."""
        return self.last_resort.stage + 1 if isinstance(self.last_resort, LBFGS) else 0

    def init(self, objective: Objective, u: Tensor, lanes: Tensor, evaluation: Evaluation | None = None) -> State:
        """Evaluate, and build the preconditioner."""
        curvature: InverseCurvature
        passing = self.preconditioner if isinstance(self.preconditioner, PassingHessian) else None
        if evaluation is None and passing is not None:
            evaluation, curvature = passing.evaluate(objective, u, lanes)
        else:
            evaluation = evaluation or objective.value_gradient(u, lanes)
            if self.last_resort is not None and bool((evaluation.value < self.least_value).all()):
                return self.last_resort.init(objective, u, lanes, evaluation)
            curvature = self.preconditioner.build(objective, u, lanes)
        start = start_state(evaluation, u, lanes, torch.zeros_like(u), curvature)
        aimed = self._aim(objective, extended(start, LBFGSState, stage=self.stage))
        return aimed if passing is None else _beyond_newton(objective.on(passing.sample), aimed)

    def step(self, objective: Objective, state: State) -> State:
        """Line search along the state's direction, then remember and aim anew."""
        if not isinstance(state, LBFGSState) or state.stage != self.stage:
            assert self.last_resort is not None
            return self.last_resort.step(objective, state)
        moved = search(objective, state)
        u = objective.project(moved.u)
        misled = moved.stalled | (moved.length < _SHORT)
        if bool(misled.any()) and self.last_resort is not None:
            return hand_over(self.last_resort, objective, u, state.lanes, moved)
        if bool(moved.stalled.any()) and state.age > 0:
            # Old curvature may be to blame: fresh curvature before giving up. Lanes that did move keep their step.
            fresh = self.preconditioner.build(objective, u, state.lanes)
            again = replace(
                state,
                u=u,
                value=moved.evaluation.value,
                gradient=moved.evaluation.gradient,
                margin=moved.evaluation.margin,
                step_length=moved.length,
                trials=moved.trials,
                curvature=fresh,
                memory=(),
                age=0,
                slow=0,
            )
            return self._aim(objective, again)
        gradient = moved.evaluation.gradient
        before = lane_dot(state.gradient, state.curvature.solve(state.gradient))
        after = lane_dot(gradient, state.curvature.solve(gradient))
        slow = state.slow + 1 if bool((after > _SLOW * before).any()) else 0
        memory = (*state.memory[-(_MEMORY - 1) :], remembered(u - state.u, gradient - state.gradient))
        curvature: InverseCurvature = state.curvature
        age = state.age + 1
        futile = state.futile if slow else 0
        if slow >= self.patience and age > self.patience:
            if self.last_resort is not None:
                return hand_over(self.last_resort, objective, u, state.lanes, moved)
            curvature, age, slow = self.preconditioner.build(objective, u, state.lanes), 0, 0
            # Pairs from where P was another one mislead; where a fresh P has not helped, they know what it does not.
            memory = memory if futile else ()
            futile += 1
        return self._aim(
            objective,
            replace(
                state,
                u=u,
                value=moved.evaluation.value,
                gradient=gradient,
                margin=moved.evaluation.margin,
                kkt=moved.evaluation.kkt,
                curvature=curvature,
                step_length=moved.length,
                trials=moved.trials,
                stalled=moved.stalled,
                memory=memory,
                age=age,
                slow=slow,
                futile=futile,
            ),
        )

    def _aim(self, objective: Objective, state: LBFGSState) -> LBFGSState:
        """Fill in direction and excess."""

        def inverse(vector: Tensor) -> Tensor:
            return objective.project(two_loop(state.memory, state.curvature.solve, vector))

        direction = -inverse(state.gradient)
        bound = state.curvature.bound
        if bound is not None and not state.slow:
            solved = state.curvature.solve(state.gradient)
            return replace(state, direction=direction, excess=0.5 * bound * lane_dot(state.gradient, solved))
        if state.futile >= _FUTILE or bool((state.kkt <= max(self.tol, _CLOSE)).all()):
            tolerance = torch.full_like(state.value, 0.1)
            direction = newton_direction(
                objective, state.u, state.lanes, state.gradient, inverse, tolerance, self.confirm
            )
        direction, slope = downhill(direction, state.gradient)
        return replace(state, direction=direction, excess=-0.5 * slope)


def _beyond_newton(sample: Objective, state: LBFGSState) -> LBFGSState:
    """Newton's direction, corrected by what the gradient does beyond its first order, as far as a sample knows it.

    A zero of the gradient is ``d`` with ``g + H d + r(d) = 0``. The remainder ``r(d) = g(u + d) - g(u) - H d`` is
    of the order of ``|d|^2``, so that a sample's is good enough: with ``P`` the inverse of ``H``, the fixed point of
    ``d = -P (g + r(d))`` is found without a read of the rows, and saves the second of Newton's steps.
    """
    newton, u, lanes = state.direction, state.u, state.lanes
    here = sample.value_gradient(u, lanes).gradient
    curved = sample.curvature_at(u, lanes)
    direction = newton
    for _ in range(_ROUNDS):
        remainder = sample.value_gradient(u + direction, lanes).gradient - here - curved(direction)
        correction = sample.project(state.curvature.solve(remainder))
        direction = newton - correction
    size, longest = lane_dot(correction, correction).sqrt(), lane_dot(newton, newton).sqrt() * _LARGEST_REMAINDER
    known = torch.isfinite(size) & (size <= longest) & (lane_dot(state.gradient, direction) < 0)
    return replace(state, direction=torch.where(known[:, None, None], direction, newton))


def remembered(moved: Tensor, changed: Tensor) -> Remembered:
    """How much the gradient ``changed`` where the point ``moved``."""
    product = lane_dot(moved, changed)
    # A lane whose pair carries no curvature (it stood still) leaves it out.
    useful = product > 1e-14 * (lane_dot(moved, moved) * lane_dot(changed, changed)).sqrt()
    return moved, changed, torch.where(useful, 1 / torch.where(useful, product, 1.0), 0.0)


def two_loop(memory: tuple[Remembered, ...], solve: Callable[[Tensor], Tensor], vector: Tensor) -> Tensor:
    """The inverse Hessian that the memory implies around ``solve``, times ``vector (A, K, D)``."""
    used: list[Tensor | float] = []
    for s, y, rho in reversed(memory):
        alpha = one_number(rho * lane_dot(s, vector))
        vector = plus_along(vector, -alpha, y, into=vector if used else None)
        used.append(alpha)
    result, own = solve(vector), False
    for s, y, rho in memory:
        beta = one_number(rho * lane_dot(y, result))
        result, own = plus_along(result, used.pop() - beta, s, into=result if own else None), True
    return result
