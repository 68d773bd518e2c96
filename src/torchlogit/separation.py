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

*A linear programme* (HiGHS), solved on a working set of constraints that grows by those which its solution violates,
until none of all rows is violated or no direction is left.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchlogit.objective import Objective
from torchlogit.preconditioners import HessianCholesky, HessianInverse
from torchlogit.solvers.base import State
from torchlogit.solvers.conjugate_gradient import newton_direction

# An effect this close to one no longer counts as a proof; rounding in the step is far smaller.
_PROOF = 0.99
# |a'beta| below this, for beta in [-1, 1] and standardised columns, is zero. HiGHS is asked for 1e-9.
_ZERO = 1e-7
_LP_SECONDS = 60.0
# Constraints times columns up to which all of them enter the linear programme at once.
_LP_WHOLE = 2_000_000
# Operations that an exact second derivative may cost here.
_EXACT_OPERATIONS = 4e11


class SeparationKind(enum.Enum):
    """What was found."""

    NONE = "none"
    QUASI_COMPLETE = "quasi-complete"
    COMPLETE = "complete"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Separation:
    """The verdict, and the columns whose coefficients have no finite best value.

    ``columns`` are positions ``0 .. p - 1`` (``p`` itself stands for the intercept, where nothing else is named). Where
    single columns separate the classes completely by themselves, only those are named.
    """

    kind: SeparationKind
    columns: tuple[int, ...] = ()


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
        return _Programme(objective, state.u[here], state.lanes[here]).solve()
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
    hidden = None if curvature is None else curvature.hidden(0)
    if hidden is not None:
        # Directions without curvature were left out of the step. They must be without effect on every row as well
        # (collinear columns); a separated direction loses its curvature too, but moves its rows.
        hidden = hidden / torch.clamp(hidden.abs().amax(0), min=1e-300)
        directions = torch.cat([direction, hidden.T.reshape(-1, *direction.shape[1:])])
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
    return bool(largest[0] < _PROOF) and bool((largest[1:] < 1e-6).all())


class _Programme:
    """The linear programme on all constraints of one lane, in standardised units."""

    def __init__(self, objective: Objective, u: Tensor, lanes: Tensor) -> None:
        self.objective, self.u, self.lanes = objective, u, lanes
        self.outputs, self.width = u.shape[1:]
        self.size = self.outputs * self.width
        self.others = max(self.outputs - 1, 1)
        # An entry that is not free (no intercept) stays zero; the last class's are fixed: adding one vector to all
        # classes changes nothing.
        free = np.ones((self.outputs, self.width), dtype=bool)
        free[:, -1] = objective.fit_intercept
        if self.outputs > 1:
            free[-1] = False
        self.free = free.ravel()
        self.deadline = time.monotonic() + _LP_SECONDS

    def solve(self) -> Separation:
        """Peel off separated constraints until none is left or no direction is."""
        try:
            active = [self._present(target, share) for _, _, target, share in self._blocks()]
            whole = [mask.copy() for mask in active]
            found = False
            while any(mask.any() for mask in active):
                beta = self._direction(active)
                if beta is None:
                    break
                separated = 0
                for mask, (rows, _, target, _) in zip(active, self._blocks(), strict=True):
                    strict = (self._along(rows, target, beta) > _ZERO) & mask
                    separated += int(strict.sum())
                    mask &= ~strict
                if separated == 0:
                    break
                found = True
        except TimeoutError:
            return Separation(SeparationKind.UNDECIDED)
        if not found:
            return Separation(SeparationKind.NONE)
        if not any(mask.any() for mask in active):
            return Separation(SeparationKind.COMPLETE, self.alone() or self.varying())
        return Separation(SeparationKind.QUASI_COMPLETE, self._columns(active, whole))

    # -- rows and constraints -----------------------------------------------------------------------------------

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Standardised rows, linear predictors, targets and shares, block by block."""
        return self.objective.curved_rows(self.u, self.lanes)

    def _present(self, target: Tensor, share: Tensor) -> NDArray[np.bool_]:
        """Constraints of rows with positive weight, ``(rows, others)``."""
        return np.repeat((share > 0).cpu().numpy()[:, None], self.others, axis=1)

    def _rivals(self, target: Tensor) -> NDArray[np.int64]:
        """For each row the classes that are not its own, ``(rows, others)``."""
        own = target[:, 0].to(torch.int64).cpu().numpy()[:, None]
        ranks = np.arange(self.others)[None, :]
        return ranks + (ranks >= own)

    def _along(self, rows: Tensor, target: Tensor, beta: NDArray[np.float64]) -> NDArray[np.float64]:
        """``a'beta`` for every constraint, ``(rows, others)``."""
        eta: NDArray[np.float64] = rows.cpu().numpy() @ beta.reshape(self.outputs, self.width).T
        if self.outputs == 1:
            sign: NDArray[np.float64] = 2.0 * target.cpu().numpy() - 1.0
            return eta * sign
        own = target[:, 0].to(torch.int64).cpu().numpy()
        mine: NDArray[np.float64] = np.take_along_axis(eta, own[:, None], 1)
        return mine - np.take_along_axis(eta, self._rivals(target), 1)

    def _constraints(self, rows: Tensor, target: Tensor, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The chosen constraints written out, ``(chosen, S)``."""
        row, rank = np.nonzero(mask)
        z = rows.cpu().numpy()[row]
        own = target[:, 0].to(torch.int64).cpu().numpy()[row]
        if self.outputs == 1:
            return z * (2.0 * own - 1.0)[:, None]
        written = np.zeros((row.size, self.outputs, self.width))
        index = np.arange(row.size)
        written[index, own] = z
        written[index, rank + (rank >= own)] = -z
        return written.reshape(row.size, self.size)

    # -- one direction ------------------------------------------------------------------------------------------

    def _direction(self, active: list[NDArray[np.bool_]]) -> NDArray[np.float64] | None:
        """A ``beta`` that no active constraint forbids and that moves some of them, or None."""
        total = np.zeros(self.size)
        count = sum(int(mask.sum()) for mask in active)
        take_all = count * self.size <= _LP_WHOLE
        per_block = max(1, 2 * self.size // max(len(active), 1))
        working: list[NDArray[np.float64]] = []
        for mask, (rows, eta, target, _) in zip(active, self._blocks(), strict=True):
            for start in range(0, mask.shape[0], 4096):
                part = np.zeros_like(mask)
                part[start : start + 4096] = mask[start : start + 4096]
                written = self._constraints(rows, target, part)
                total += written.sum(0)
                if take_all:
                    working.append(written)
            if not take_all:
                # Rows that the fit finds hardest bind first.
                working.append(self._constraints(rows, target, _smallest(self._margins(eta, target), mask, per_block)))
        if np.abs(total).max() <= 1e-12 * max(count, 1):
            return None  # equal positive numbers sum to zero: overlap
        cost = -total / np.abs(total).max()
        while True:
            matrix = np.concatenate(working)
            beta = self._linear_programme(cost, matrix)
            worst = 0.0
            added = []
            moved = False
            for mask, (rows, _, target, _) in zip(active, self._blocks(), strict=True):
                along = self._along(rows, target, beta)
                moved = moved or bool((along[mask] > _ZERO).any())
                violated = mask & (along < -_ZERO)
                if violated.any():
                    worst = min(worst, float(along[violated].min()))
                    added.append(self._constraints(rows, target, _smallest(along, violated, per_block)))
            if not moved:
                return None
            if not added:
                return beta
            if take_all:
                # Every constraint was there already: what is violated is the solver's own tolerance.
                return beta if worst > -1e-5 else None
            working.extend(added)

    def _margins(self, eta: Tensor, target: Tensor) -> NDArray[np.float64]:
        values: NDArray[np.float64] = eta[:, 0].cpu().numpy()
        if self.outputs == 1:
            return values * (2.0 * target.cpu().numpy() - 1.0)
        own = target[:, 0].to(torch.int64).cpu().numpy()
        mine: NDArray[np.float64] = np.take_along_axis(values, own[:, None], 1)
        return mine - np.take_along_axis(values, self._rivals(target), 1)

    def _linear_programme(self, cost: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        solution = scipy.optimize.linprog(
            cost[self.free],
            A_ub=-matrix[:, self.free],
            b_ub=np.zeros(matrix.shape[0]),
            bounds=(-1.0, 1.0),
            method="highs",
            options={
                "time_limit": left,
                "primal_feasibility_tolerance": 1e-9,
                "dual_feasibility_tolerance": 1e-9,
            },
        )
        if solution.x is None or solution.status not in (0, 4):
            raise TimeoutError
        beta = np.zeros(self.size)
        beta[self.free] = solution.x
        return beta

    # -- names --------------------------------------------------------------------------------------------------

    def _columns(self, active: list[NDArray[np.bool_]], whole: list[NDArray[np.bool_]]) -> tuple[int, ...]:
        """Columns that some separating direction moves.

        Those directions span what is orthogonal to the constraints left over, less what is orthogonal to all
        (collinear columns, whose differences move no row).
        """
        left, every = np.zeros((self.size, self.size)), np.zeros((self.size, self.size))
        for mask, all_, (rows, _, target, _) in zip(active, whole, self._blocks(), strict=True):
            for chosen, gram in ((mask, left), (all_, every)):
                for start in range(0, chosen.shape[0], 4096):
                    part = np.zeros_like(chosen)
                    part[start : start + 4096] = chosen[start : start + 4096]
                    written = self._constraints(rows, target, part)
                    gram += written.T @ written
        free = np.ix_(self.free, self.free)
        values, vectors = np.linalg.eigh(left[free])
        top = max(float(np.linalg.eigvalsh(every[free])[-1]), 1e-300)
        null = vectors[:, values <= 1e-10 * top]
        inside, basis = np.linalg.eigh(null.T @ every[free] @ null)
        moving = np.zeros((self.size, int((inside > 1e-10 * top).sum())))
        moving[self.free] = null @ basis[:, inside > 1e-10 * top]
        moved = np.abs(moving).reshape(self.outputs, self.width, -1).max((0, 2), initial=0.0)
        columns = tuple(int(j) for j in np.flatnonzero(moved[:-1] > 1e-6))
        return columns or (self.width - 1,)

    def varying(self) -> tuple[int, ...]:
        """All columns that are not constant."""
        deviation = self.objective.moments.deviation[int(self.lanes[0])]
        return tuple(int(j) for j in torch.nonzero(deviation > 0)[:, 0])

    def alone(self) -> tuple[int, ...]:
        """Columns that separate the classes completely by themselves: the classes' ranges do not meet."""
        classes = self.objective.kernel.loss.classes
        low = np.full((classes, self.width - 1), np.inf)
        high = np.full((classes, self.width - 1), -np.inf)
        for rows, _, target, share in self._blocks():
            present = (share > 0).cpu().numpy()
            z, own = rows.cpu().numpy()[present, :-1], target[:, 0].cpu().numpy()[present]
            for k in range(classes):
                if (own == k).any():
                    low[k] = np.minimum(low[k], z[own == k].min(0))
                    high[k] = np.maximum(high[k], z[own == k].max(0))
        if not self.objective.fit_intercept:
            if classes > 2:
                return ()
            positive, negative = (low[1] > 0) & (high[0] < 0), (high[1] < 0) & (low[0] > 0)
            return tuple(int(j) for j in np.flatnonzero(positive | negative))
        alone = []
        for j in range(self.width - 1):
            order = np.argsort(low[:, j])
            starts, ends = low[order, j][1:], high[order, j][:-1]
            if (starts > ends).all():
                alone.append(j)
        return tuple(alone)


def _smallest(
    values: NDArray[np.float64], mask: NDArray[np.bool_], count: int
) -> NDArray[np.bool_]:
    """The mask cut down to its ``count`` smallest values."""
    chosen = np.flatnonzero(mask.ravel())
    if chosen.size > count:
        chosen = chosen[np.argpartition(values.ravel()[chosen], count)[:count]]
    cut = np.zeros(mask.size, dtype=bool)
    cut[chosen] = True
    return cut.reshape(mask.shape)


def complete_separation(objective: Objective, state: State, lane: int) -> Separation:
    """Names for a lane whose margins are all positive: the columns that do it alone, or all that vary."""
    here = slice(lane, lane + 1)
    programme = _Programme(objective, state.u[here], state.lanes[here])
    return Separation(SeparationKind.COMPLETE, programme.alone() or programme.varying())
