"""Preconditioned conjugate gradients on the true curvature, several lanes at once."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torchlogit.objective import Objective
from torchlogit.tensors import lane_dot, plus_along

# Tolerances that products in float32 can meet.
_FEW_DIGITS = 1e-4
# Products of few digits that may leave the residual as large as it was, before they have more: they have lost what is
# left. (Where they have not, six in a row do so at most.)
_IDLE_PRODUCTS = 16
# The share of its squared norm below which a residual is rounding.
_NOTHING = 1e-20


@dataclass(frozen=True, slots=True)
class Solved:
    """A Newton direction, and how conjugate gradients came there.

    ``path`` holds the iterates after 1, 2, 4, ... products: steps of growing length, each the best of its subspace.
    ``pairs`` are the last conjugate directions and their products, as many as were asked for.
    """

    direction: Tensor
    products: int
    path: tuple[Tensor, ...]
    pairs: tuple[tuple[Tensor, Tensor], ...]


def newton_direction(
    objective: Objective,
    u: Tensor,
    lanes: Tensor,
    gradient: Tensor,
    precondition: Callable[[Tensor], Tensor],
    tolerance: Tensor,
    limit: int,
) -> Tensor:
    """The direction alone of `newton_path`."""
    return newton_path(objective, u, lanes, gradient, precondition, tolerance, limit).direction


def newton_path(
    objective: Objective,
    u: Tensor,
    lanes: Tensor,
    gradient: Tensor,
    precondition: Callable[[Tensor], Tensor],
    tolerance: Tensor,
    limit: int,
    least: int = 0,
    start: Tensor | None = None,
    kept: int = 0,
) -> Solved:
    """Solve ``H d = -gradient`` approximately, where H is the objective's curvature at ``u``.

    Parameters
    ----------
    objective : Objective
    u, gradient : Tensor of shape (A, K, D)
    lanes : Tensor of shape (A,)
    precondition : callable
        Applies ``P`` to ``(A, K, D)``.
    tolerance : Tensor of shape (A,)
        Stop a lane when the residual's ``P`` norm has fallen by this factor.
    limit : int
        Most products, each one read of the rows.
    least : int, default=0
        Fewest products, as long as there is a residual: a preconditioner that misses a flat direction hides it from
        the residual's norm too, and only further products find it, those of all digits.
    start : Tensor of shape (A, K, D), optional
        A direction that may be near the solution: its best multiple is the first iterate.
    kept : int, default=0
        Most pairs of the result.

    Returns
    -------
    Solved
        A descent direction ``(A, K, D)`` whatever the limit: every iterate of conjugate gradients is one.
    """
    direction = torch.zeros_like(gradient)
    residual = -gradient
    solved = precondition(residual)
    search = solved if start is None else start
    # Of the lanes, as numbers: so few are compared and divided in a fraction of the time of calls.
    size = lane_dot(residual, solved).tolist()
    target = [most**2 * one for most, one in zip(tolerance.tolist(), size, strict=True)]
    size = size if start is None else lane_dot(residual, start).tolist()
    running, nothing = [one > 0 for one in size], [_NOTHING * one for one in size]
    path: list[Tensor] = []
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=kept)
    products = 0
    # A direction is wanted to a few digits, and where there is a penalty nothing hangs on curvature that is tiny; but
    # beside rows that outweigh all others (of 400 problems with rows of 1e8, five had false certificates).
    few = not least and bool((tolerance >= _FEW_DIGITS).all()) and not objective.unpenalised
    curvature_product = objective.curvature_at(u, lanes, rounded=few)
    nearest, smallest, idle = direction, [math.inf] * len(size), [0] * len(size)
    while products < limit and any(running):
        if few and max(idle) >= _IDLE_PRODUCTS:
            few, curvature_product, direction = False, objective.curvature_at(u, lanes), nearest
            residual = -gradient - curvature_product(direction)
            products += 1
            search = precondition(residual)
            size = lane_dot(residual, search).tolist()
        bent = curvature_product(search)
        pairs.append((search, bent))
        curvature = lane_dot(search, bent).tolist()
        running = [on and one > 0 for on, one in zip(running, curvature, strict=True)]
        length = _ratios(size, curvature, running, like=tolerance)
        direction = plus_along(direction, length, search)
        products += 1
        if products.bit_length() > len(path):
            path.append(direction)
        before, residual = residual, plus_along(residual, -length, bent)
        solved = precondition(residual)
        shrunk = lane_dot(residual, solved).tolist()
        least_left = target if products >= least else nothing
        running = [on and one > left for on, one, left in zip(running, shrunk, least_left, strict=True)]
        # The residual before is orthogonal to what is solved, except where the direction was given.
        turned = shrunk
        if start is not None and products == 1:
            turned = [one - other for one, other in zip(shrunk, lane_dot(before, solved).tolist(), strict=True)]
        search = plus_along(solved, _ratios(turned, size, running, like=tolerance), search)
        size = [new if on else old for on, new, old in zip(running, shrunk, size, strict=True)]
        if few:
            nearer = [one < best for one, best in zip(shrunk, smallest, strict=True)]
            nearest = _chosen(nearer, direction, nearest)
            smallest = [min(pair) for pair in zip(smallest, shrunk, strict=True)]
            idle = [
                0 if near or not on else count + 1 for near, on, count in zip(nearer, running, idle, strict=True)
            ]
    early = tuple(objective.project(step) for step in path)
    return Solved(objective.project(direction), products, early, tuple(pairs))


def _ratios(above: list[float], below: list[float], where: list[bool], like: Tensor) -> Tensor | float:
    """Lane by lane, zero elsewhere: ``(A,)``, or a number where there is one lane."""
    each = [a / b if on else 0.0 for a, b, on in zip(above, below, where, strict=True)]
    return each[0] if len(each) == 1 else torch.tensor(each, dtype=like.dtype, device=like.device)


def _chosen(first: list[bool], one: Tensor, other: Tensor) -> Tensor:
    """``(A, K, D)``, by lane the one or the other."""
    if all(first):
        return one
    return torch.where(torch.tensor(first, device=one.device)[:, None, None], one, other) if any(first) else other
