"""Is the quadratic model local? What makes the excess of a certificate mean something."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchlogit.hessian_factors import HessianInverse
from torchlogit.objective import Objective
from torchlogit.solvers.base import State

# The largest effect of a step on a row up to which the excess counts: below one by duality (see `is_local`), and below
# 1 / e, what curvature that is one step old makes of it in an exponential's tail.
_LOCAL = 0.25
# Probabilities below the squared precision of float64: beside those rows any direction that others see has curvature.
_UNSEEN = 1e-32
_EPS = torch.finfo(torch.float64).eps
# The share of the expected rounding that counts. It is random and may be less: fits are refused where even half of it
# is too much (of 320 beside a row of 1e12 to 1e16, 171 were certified without this, and 47 of those wrong by 1e-6 or
# more; with it 92, all right).
_EXPECTED_SHARE = 0.5


def is_local(objective: Objective, state: State, i: int) -> bool:
    """Whether the excess means anything: whether the step that it belongs to leaves every row where it is.

    Half of Newton's squared decrement is what the *quadratic model* would still gain. By duality the truth is near it
    where the step ``d`` moves no row far: the gradient is a sum of residuals ``r_i`` times rows, the Newton step makes
    it zero with the residuals ``r_i + c_i x_i'd``, and as long as these belong to probabilities (effects ``|x_i'd| <
    1``) they are feasible for the dual problem and bound the optimum from below. The gap is ``sum_i w_i KL(p_i + c_i
    x_i'd || p_i) + d'Rd / 2``, R the penalty's curvature; ``KL <= c_i (x_i'd)^2``, so the gap is at most twice the
    excess. In an exponential's tail, where an outlier goes on and on, every step has an effect of one or more.

    A bound from the columns' ranges decides most fits; the rows are read where it does not.
    """
    here = slice(i, i + 1)
    lanes, steps = state.lanes[here], state.direction[here]
    curvature = state.curvature
    hidden = curvature.hidden(i) if isinstance(curvature, HessianInverse) and curvature.exact else None
    if hidden is None and float(reach_bounds(objective, steps, lanes)) < _LOCAL:
        return True
    limits = steps.new_full((1,), _LOCAL)
    if hidden is not None:
        # Directions without curvature are no part of the step. Where they are rounding they move no row by more.
        hidden = (hidden / torch.clamp(hidden.abs().amax(0), min=1e-300)).T.reshape(-1, *steps.shape[1:])
        rounding = objective.moments.rounding(objective.fit_intercept)[lanes[0]]
        limits = torch.cat([limits, 1e-6 + 8 * (hidden[..., :-1].abs() * rounding).sum((1, 2))])
        steps = torch.cat([steps, hidden])
    return bool((_reach(objective, state.u[here], lanes, steps) < limits).all())


def rounding_of_rows(objective: Objective, state: State, i: int, limit: float) -> float:
    """How far the objective may be off because float64 does not hold the rows' distances from the mean; 0 if little.

    A distance is rounded by half of its last digit, at random, so a linear predictor is off by ``eps sqrt(sum_j z_ij^2
    u_j^2 / 12)``, and the mean loss by that times the row's slope, root of the sum of squares over rows. Squared slopes
    are on average the curvature ``c_i``, whose sums ``sum_i c_i z_ij^2`` are the Hessian's diagonal. Beside one row of
    1e14, which is all of a column's deviation, the others have lost what an excess of 1e-7 is about.

    A bound from the coefficients alone decides nearly every fit; the rows are read where it is above ``limit``.
    """
    here = slice(i, i + 1)
    u, lanes = state.u[here], state.lanes[here]
    columns = u[..., :-1] * (objective.kernel.frame.shift != 0)  # the others are seen as they are stored
    if 0.5 * _EPS * float(columns.abs().sum()) <= limit:
        return 0.0
    bend = objective.hessian_diagonal(u, lanes)[..., :-1] - objective.ridge[lanes][:, None]
    squares = float((columns.square() * torch.clamp(bend, min=0)).sum())
    return _EXPECTED_SHARE * _EPS * math.sqrt(squares / (12 * objective.effort.total_rows))


def reach_bounds(objective: Objective, steps: Tensor, lanes: Tensor) -> Tensor:
    """What no row's linear predictors move by more than: from the columns' ranges, without a read, ``(A,)``.

    Parameters
    ----------
    objective : Objective
    steps : Tensor of shape (A, K, D)
    lanes : Tensor of shape (1,), int64
    """
    far = objective.farthest if objective.lanes == 1 else objective.farthest[lanes[0]]
    reach = (steps[..., :-1].abs() * far).sum(-1) + steps[..., -1].abs()
    return reach.amax(-1) * (2.0 if objective.outputs > 1 else 1.0)


def _reach(objective: Objective, u: Tensor, lanes: Tensor, steps: Tensor) -> Tensor:
    """Largest effect of each step ``(A, K, D)`` on a class of a row, in one read, ``(A,)``.

    A class whose probability is beyond the squared precision of the rows has no curvature, and is left out.
    """
    nothing = u.new_zeros(steps.shape[0])
    return objective.largest(lambda: _own_reach(objective, u, lanes, steps), nothing)


def _own_reach(objective: Objective, u: Tensor, lanes: Tensor, steps: Tensor) -> Tensor:
    lane, points = int(lanes[0]), torch.cat([u, steps])
    largest = u.new_zeros(steps.shape[0])
    for block, eta in objective.linear_predictors(points, lanes.expand(points.shape[0]), offset=False):
        here, effect = eta[:, :1].to(torch.float64), eta[:, 1:].to(torch.float64)
        if block.offset is not None:
            here = here + block.offset[:, min(lane, block.offset.shape[1] - 1)][:, None]
        probability = objective.kernel.loss.probability(here)
        if objective.outputs == 1:
            effect = torch.cat([torch.zeros_like(effect), effect], dim=-1)
        effect = (effect - (probability * effect).sum(-1, keepdim=True)).abs()
        counts = probability > _UNSEEN
        if block.weight is not None:
            weight = block.weight if block.weight.ndim == 1 else block.weight[:, lane]
            counts = counts & (weight > 0)[:, None, None]
        largest = torch.maximum(largest, torch.where(counts, effect, 0.0).amax((0, 2)))
    return largest
