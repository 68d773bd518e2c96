"""Are the classes separated? Exactly, where it matters: before an unpenalised fit is called converged.

Write ``a`` for a row's *constraint*: ``z_i`` with the sign of its class, or for many classes ``(e_y - e_k) (x) z_i``
for each other class ``k``. A direction ``beta`` with ``a'beta >= 0`` for all constraints and ``> 0`` for some separates
the classes (completely where ``> 0`` for all), and the likelihood then has no maximum (Albert and Anderson, 1984).

Two exact tests, the cheap one first:

*Newton's certificate.* By Stiemke's lemma there is no such direction if and only if positive numbers ``r`` exist with
``sum_i r_i a_i = 0``. Near an optimum the row residuals almost are such numbers: their sum is the gradient. One Newton
step ``d`` makes it exactly zero, and turns a residual into ``r_i (1 - c_i)`` with ``|c_i|`` at most the step's largest
effect on a row's linear predictor (relative to the row's expectation). Effects below one everywhere therefore *prove*
that nothing is separated.

*A linear programme* (HiGHS), solved on a working set of constraints that grows by those which its solution violates.
Its answer is a suggestion: only what can be proved from it counts. A direction must have no row on its wrong side, up
to the rounding of that row's own products, and one beyond it on its right side; that there is none must follow from
the dual solution, by Stiemke's lemma. What is proved neither way is undecided.

An outlier sets the deviation of its column, and next to it everything else is rounding. The programme therefore sees
columns minus their median over their typical distance from it, rows of length one, and in place of the columns the
principal directions of these rows, so that nearly collinear columns are no harder than others (`separation_rows.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torchlogit.hessian_factors import HessianCholesky, HessianInverse
from torchlogit.locality import reach_bounds
from torchlogit.objective import Objective
from torchlogit.separation_programme import Programme, Separation, SeparationKind
from torchlogit.solvers.base import State
from torchlogit.solvers.conjugate_gradient import newton_direction
from torchlogit.sources import Shard

# An effect this close to one no longer counts as a proof; rounding in the step is far smaller.
_PROOF = 0.99
_EPS = torch.finfo(torch.float64).eps
# Operations that an exact second derivative may cost here.
_EXACT_OPERATIONS = 4e11


def find_separation(objective: Objective, state: State, lane: int) -> Separation:
    """Decide for one active lane of a state near its optimum.

    Parameters
    ----------
    objective : Objective
        Unpenalised.
    state : State
    lane : int
        Position among the state's active lanes.
    """
    here = slice(lane, lane + 1)
    if not _proves_overlap(objective, state.u[here], state.lanes[here], state.gradient[here]):
        return _by_programme(objective, state, here, Programme.solve, Separation(SeparationKind.UNDECIDED))
    return Separation(SeparationKind.NONE)


def _proves_overlap(objective: Objective, u: Tensor, lanes: Tensor, gradient: Tensor) -> bool:
    """Newton's certificate (see above)."""
    size = objective.outputs * objective.width
    curvature: HessianInverse | None = None
    if objective.source.rows * float(size) ** 2 <= _EXACT_OPERATIONS and size <= 4000:
        curvature = HessianCholesky().build(objective, u, lanes)
        direction = -curvature.solve(gradient)
    else:
        diagonal = objective.hessian_diagonal(u, lanes)
        inverse = 1 / torch.where(diagonal > 0, diagonal, 1.0)
        tolerance = torch.full_like(u[:, 0, 0], 1e-6)
        direction = newton_direction(objective, u, lanes, gradient, lambda g: inverse * g, tolerance, 300)
    directions = direction
    if curvature is not None:
        unsure = _uncertain(objective, curvature, lanes).T.reshape(-1, *direction.shape[1:])
        directions = torch.cat([direction, objective.project(unsure)])
    nothing = torch.zeros(directions.shape[0], dtype=torch.float64, device=u.device)
    largest = objective.largest(lambda: _largest_effects(objective, u, lanes, directions), nothing)
    return bool(largest[0] < _PROOF) and bool((largest[1:] < 1 - _PROOF).all())


def _largest_effects(objective: Objective, u: Tensor, lanes: Tensor, directions: Tensor) -> Tensor:
    """Of each direction on a row of this process, relative to the row's expectation."""
    points = lanes.expand(directions.shape[0])
    largest = torch.zeros(directions.shape[0], dtype=torch.float64, device=u.device)
    for (block, eta), (_, effect) in zip(
        objective.linear_predictors(u, lanes, offset=True),
        objective.linear_predictors(directions, points, offset=False),
        strict=True,
    ):
        if objective.outputs > 1:
            effect = effect - (torch.softmax(eta, -1) * effect).sum(-1, keepdim=True)
        effect = effect.abs().amax(-1)
        if block.weight is not None:
            weight = block.weight if block.weight.ndim == 1 else block.weight[:, int(lanes[0])]
            effect = torch.where(weight[:, None] > 0, effect, 0.0)
        largest = torch.maximum(largest, effect.amax(0))
    return largest


def _uncertain(objective: Objective, curvature: HessianInverse, lanes: Tensor) -> Tensor:
    """What may be missing from a Newton step, ``(S, any number)``: a proof needs these to have no effect on any row.

    Directions without curvature were left out of it. They have no effect where columns are collinear; a separated
    direction loses its curvature too, but moves its rows, by far more than 1e-6 for coefficients of one. And in a
    direction of tiny curvature the step is the rounding of the gradient over that curvature.
    """
    factor = curvature.factors[0]
    directions = [factor.scale.new_zeros(factor.scale.shape[0], 0)]
    hidden = curvature.hidden(0)
    if hidden is not None:
        directions.append((1 - _PROOF) / 1e-6 * hidden / torch.clamp(hidden.abs().amax(0), min=1e-300))
    if factor.vectors is not None and factor.inverse is not None:
        rounding = 4 * _EPS * (factor.vectors.abs() / factor.scale[:, None]).sum(0)
        directions.append(factor.vectors * (factor.inverse * rounding) / factor.scale[:, None])
    if factor.cholesky is not None:
        steps = 4 * _EPS * torch.cholesky_inverse(factor.cholesky) / factor.scale / factor.scale[:, None]
        reaches = reach_bounds(objective, steps.T.reshape(-1, objective.outputs, objective.width), lanes)
        directions.append(steps[:, reaches >= 1 - _PROOF])
    return torch.cat(directions, 1)


def complete_separation(objective: Objective, state: State, lane: int) -> Separation:
    """Names for a lane whose margins are all positive: the columns that do it alone, or all that vary."""
    here = slice(lane, lane + 1)

    def named(programme: Programme) -> Separation:
        return Separation(SeparationKind.COMPLETE, programme.alone() or programme.varying())

    varying = objective.moments.deviation[int(state.lanes[lane])] > 0
    columns = tuple(int(j) for j in torch.nonzero(varying)[:, 0])
    return _by_programme(objective, state, here, named, Separation(SeparationKind.COMPLETE, columns))


def _by_programme(
    objective: Objective,
    state: State,
    here: slice,
    work: Callable[[Programme], Separation],
    without: Separation,
) -> Separation:
    """What the programme says; of rows in several processes, if it can have them all, else what is known without.

    Its time is limited, so there the first process speaks for all.
    """
    source = objective.source
    if not isinstance(source, Shard):
        return work(Programme(objective, state.u[here], state.lanes[here]))
    rows = source.held()
    if rows.rows < source.rows:
        return without
    whole = objective.on(rows)
    return source.communicator.from_first(lambda: work(Programme(whole, state.u[here], state.lanes[here])))


__all__ = ["Separation", "SeparationKind", "complete_separation", "find_separation"]
