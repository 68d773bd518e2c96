"""The linear programme of a separation test, and what can be proved from its solution."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchlogit.objective import Objective
from torchlogit.separation_rows import Piece, Rows, singular_values, triangle

# An effect this close to one no longer counts as a proof; rounding in the step is far smaller.
_PROOF = 0.99
# Rows this close to the hyperplane (the cosine of the angle) may lie on it: HiGHS is asked for 1e-9.
_TIES = (1e-7, 1e-9, 1e-11)
_EPS = float(np.finfo(np.float64).eps)
_LP_SECONDS = 60.0
# Constraints times columns up to which all of them enter the linear programme at once.
_LP_WHOLE = 2_000_000
# Constraints for each unknown that a programme on a part of them starts with. Twice as many in general position leave
# some direction with even chances, four times as many none (Cover, 1965).
_LP_ROWS = 4
# Unknowns of such a programme: 400 MB.
_LP_UNKNOWNS = 3_500


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


class _UndecidedError(Exception):
    """Neither a direction nor its absence could be proved, or time is up."""


class Programme:
    """The linear programme on all constraints of one lane.

    A direction ``gamma (free classes, S)`` is measured in the basis of `Rows`; the last of many classes is fixed to
    zero, because adding one vector to all classes changes nothing.
    """

    def __init__(self, objective: Objective, u: Tensor, lanes: Tensor) -> None:
        self.objective, self.lane = objective, int(lanes[0])
        self.rows = Rows(objective, lanes)
        self.outputs = u.shape[1]
        self.classes = max(self.outputs - 1, 1)  # free ones; also the number of constraints of a row
        raw = objective.coordinates.to_raw(u, lanes)
        self.fitted = self.rows.units.from_raw(raw, torch.zeros_like(lanes))[0].cpu().numpy()[:, : self.rows.columns]
        self.deadline = time.monotonic() + _LP_SECONDS

    @property
    def size(self) -> int:
        """Number of unknowns."""
        return self.classes * int(self.rows.basis.shape[1])

    def solve(self) -> Separation:
        """Peel off separated constraints until none is left or no direction is."""
        active = [np.repeat(piece.present[:, None], self.classes, axis=1) for piece in self.rows.pieces()]
        found: list[NDArray[np.float64]] = []
        decided = True
        try:
            while any(mask.any() for mask in active):
                gamma = self._direction(active)
                if gamma is None:
                    break
                for mask, piece in zip(active, self.rows.pieces(), strict=True):
                    along, rounding = self._along(piece, gamma)
                    mask &= along <= rounding
                found.append(gamma)
        except _UndecidedError:
            decided = False
        if not found:
            return Separation(SeparationKind.NONE if decided else SeparationKind.UNDECIDED)
        if not any(mask.any() for mask in active):
            return Separation(SeparationKind.COMPLETE, self.alone() or self.varying())
        return Separation(SeparationKind.QUASI_COMPLETE, self._columns(active, found, decided))

    # -- constraints --------------------------------------------------------------------------------------------

    def _rivals(self, own: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each row the classes that are not its own, ``(rows, others)``."""
        ranks = np.arange(self.classes)[None, :]
        return ranks + (ranks >= own[:, None])

    def _all_classes(self, gamma: NDArray[np.float64]) -> NDArray[np.float64]:
        """``(outputs, S)``, the fixed class included."""
        free = gamma.reshape(self.classes, -1)
        return free if self.outputs == 1 else np.vstack([free, np.zeros((1, free.shape[1]))])

    def _along(
        self, piece: Piece, gamma: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``a'gamma`` for every constraint ``(rows, others)``, and the rounding of a row's own products ``(rows, 1)``.

        Of the rows as they are, not of those in the basis. A coefficient is known to the rounding of the column's
        largest among all classes (which of them is fixed to zero is arbitrary), and of the direction's length.
        """
        directions = self._all_classes(gamma)
        beta = directions @ self.rows.basis.T
        products = (np.abs(piece.z) + self.rows.centre) @ np.abs(beta).max(0)
        products += piece.length * np.linalg.norm(directions)
        rounding = (32 + 2 * self.rows.columns) * _EPS * products
        return self._signed(piece.own, piece.z @ beta.T), rounding[:, None]

    def _signed(self, own: NDArray[np.int64], eta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Margins ``(rows, others)`` of linear predictors ``(rows, outputs)``."""
        if self.outputs == 1:
            return eta * (2.0 * own - 1.0)[:, None]
        mine: NDArray[np.float64] = np.take_along_axis(eta, own[:, None], 1)
        return mine - np.take_along_axis(eta, self._rivals(own), 1)

    def _constraints(self, piece: Piece, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The chosen constraints written out in the basis, ``(chosen, size)``."""
        row, rank = np.nonzero(mask)
        q, own = self.rows.in_basis(piece.z[row]), piece.own[row]
        if self.outputs == 1:
            return q * (2.0 * own - 1.0)[:, None]
        written = np.zeros((row.size, self.outputs, q.shape[1]))
        index = np.arange(row.size)
        written[index, own] = q
        written[index, rank + (rank >= own)] = -q
        return written[:, :-1].reshape(row.size, self.size)

    def _hardest(self, piece: Piece, mask: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
        """Constraints that the fit finds hardest: they bind first."""
        return _smallest(self._signed(piece.own, piece.z @ self.fitted.T), mask, count)

    def _total(self, piece: Piece, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Sum of the chosen constraints, ``(size,)``."""
        q = self.rows.in_basis(piece.z)
        if self.outputs == 1:
            signed: NDArray[np.float64] = (mask[:, 0] * (2.0 * piece.own - 1.0)) @ q
            return signed
        share = np.zeros((piece.own.size, self.outputs))
        np.put_along_axis(share, self._rivals(piece.own), -mask.astype(np.float64), 1)
        np.put_along_axis(share, piece.own[:, None], mask.sum(1, keepdims=True).astype(np.float64), 1)
        total: NDArray[np.float64] = (share.T @ q)[:-1].ravel()
        return total

    # -- one direction ------------------------------------------------------------------------------------------

    def _direction(self, active: list[NDArray[np.bool_]]) -> NDArray[np.float64] | None:
        """A proven direction that no active constraint forbids and that moves some, or None if there is provably none.

        Raises
        ------
        _UndecidedError
        """
        count = sum(int(mask.sum()) for mask in active)
        take_all = count * self.size <= _LP_WHOLE
        if not take_all and self.size > _LP_UNKNOWNS:
            raise _UndecidedError
        per_block = count if take_all else max(1, _LP_ROWS * self.size // len(active))
        total, working, held = np.zeros(self.size), [], []
        for mask, piece in zip(active, self.rows.pieces(), strict=True):
            total += self._total(piece, mask)
            held.append(self._hardest(piece, mask, per_block))
            working.append(self._constraints(piece, held[-1]))
        scale = np.abs(total).max()
        while True:
            working = [np.concatenate(working)]
            gamma, dual = self._linear_programme(-total / max(scale, 1.0), working[0])
            if not take_all:
                working += self._judge(gamma, active, held, per_block, _TIES[0])[1]
                if len(working) > 1:
                    continue
            gamma = _polished(gamma, working[0])
            proven, added = self._judge(gamma, active, held, per_block)
            if proven:
                return gamma
            if not added:
                if _overlap(total / max(scale, 1.0), 1 / max(scale, 1.0), working[0], dual, count):
                    return None
                added = self._more(active, held, per_block)
            if not added:
                raise _UndecidedError
            working += added

    def _judge(
        self,
        gamma: NDArray[np.float64],
        active: list[NDArray[np.bool_]],
        held: list[NDArray[np.bool_]],
        per_block: int,
        slack: float = 0.0,
    ) -> tuple[bool, list[NDArray[np.float64]]]:
        """Whether a direction is proven, and violated constraints that were not held yet (they are now).

        With a slack (the cosine of an angle) those alone are violated that no rounding and no tolerance explain.
        """
        moved, allowed = False, True
        added = []
        for mask, holds, piece in zip(active, held, self.rows.pieces(), strict=True):
            along, rounding = self._along(piece, gamma)
            moved = moved or bool((along > rounding)[mask].any())
            violated = mask & (along < -rounding - slack * piece.length[:, None])
            allowed = allowed and not violated.any()
            new = violated & ~holds
            if new.any():
                new = _smallest(along / np.where(piece.length > 0, piece.length, 1.0)[:, None], new, per_block)
                added.append(self._constraints(piece, new))
                holds |= new
        return moved and bool(allowed), added

    def _more(
        self, active: list[NDArray[np.bool_]], held: list[NDArray[np.bool_]], per_block: int
    ) -> list[NDArray[np.float64]]:
        """Further constraints, where those that bind are too few for a proof."""
        added = []
        for mask, holds, piece in zip(active, held, self.rows.pieces(), strict=True):
            new = self._hardest(piece, mask & ~holds, per_block)
            holds |= new
            if new.any():
                added.append(self._constraints(piece, new))
        return added

    def _linear_programme(
        self, cost: NDArray[np.float64], matrix: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The solution, and the weight that it gives each constraint."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise _UndecidedError
        solution = scipy.optimize.linprog(
            cost,
            A_ub=-matrix,
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
            raise _UndecidedError
        dual = solution.ineqlin.marginals
        gamma: NDArray[np.float64] = solution.x
        return gamma, np.zeros(matrix.shape[0]) if dual is None else np.maximum(-dual, 0.0)

    # -- names --------------------------------------------------------------------------------------------------

    def _columns(
        self, active: list[NDArray[np.bool_]], found: list[NDArray[np.float64]], decided: bool
    ) -> tuple[int, ...]:
        """Columns whose coefficients have no finite best value.

        Separating directions span what is orthogonal to the constraints left over. Where single columns (with the
        intercept) span the same, only those are named: a group of dummies adds up to a constant, so that any other
        member could be written as all the rest.
        """
        span = self._orthogonal(active) if decided else np.zeros((self.size, 0))
        if not span.shape[1]:
            span = np.ascontiguousarray(singular_values(np.stack(found))[1].T)
        columns = self._single(span) or self._moved(span)
        return columns or (self.objective.width - 1,)

    def _orthogonal(self, active: list[NDArray[np.bool_]]) -> NDArray[np.float64]:
        """What is orthogonal to all constraints left over, ``(size, d)`` with orthonormal columns."""
        upper = np.zeros((self.size, self.size))
        for mask, piece in zip(active, self.rows.pieces(), strict=True):
            if mask.any():
                upper = triangle(upper, self._constraints(piece, mask))
        singular, vectors = singular_values(upper)
        span: NDArray[np.float64] = vectors[singular <= 1e-10 * max(float(singular[0]), 1.0)].T
        return span

    def _single(self, span: NDArray[np.float64]) -> tuple[int, ...]:
        """The columns that lie in the span by themselves, if they span it; nothing otherwise."""
        shift = self._effects(self.rows.columns - 1) if self.rows.intercept else np.zeros((self.size, 0))
        free = _rank(_intersection(shift, span))
        columns, together = [], [np.zeros((self.size, 0))]
        for j in range(self.objective.width - 1):
            shared = _intersection(np.hstack([self._effects(j), shift]), span)
            if _rank(shared) > free:
                columns.append(j)
                together.append(shared)
        return tuple(columns) if _rank(np.hstack(together)) == span.shape[1] else ()

    def _effects(self, j: int) -> NDArray[np.float64]:
        """What a coefficient of column ``j`` does in each class, ``(size, free classes)``, of length one."""
        effect = self.rows.inverse[:, j]
        length = np.linalg.norm(effect)
        unit = effect / length if length > 0 else effect
        return (np.eye(self.classes)[:, None, :] * unit[None, :, None]).reshape(-1, self.classes)

    def _moved(self, span: NDArray[np.float64]) -> tuple[int, ...]:
        """Columns that the span moves, where collinear ones share their effect."""
        directions = span.T.reshape(-1, self.rows.basis.shape[1])
        size = np.linalg.norm(self.rows.inverse, axis=0)
        moved = np.abs(directions @ self.rows.basis.T).max(0, initial=0.0) * size
        columns = moved[: self.objective.width - 1]
        return tuple(int(j) for j in np.flatnonzero(columns > 1e-6 * moved.max()))

    def varying(self) -> tuple[int, ...]:
        """All columns that are not constant."""
        deviation = self.objective.moments.deviation[self.lane]
        return tuple(int(j) for j in torch.nonzero(deviation > 0)[:, 0])

    def alone(self) -> tuple[int, ...]:
        """Columns that separate the classes completely by themselves: the classes' ranges do not meet."""
        classes, columns = self.objective.kernel.loss.classes, self.objective.width - 1
        low = np.full((classes, columns), np.inf)
        high = np.full((classes, columns), -np.inf)
        for rows, own, present in self.rows.written():
            for k in range(classes):
                mine = rows[present & (own == k), :columns]
                if mine.size:
                    low[k] = np.minimum(low[k], mine.min(0))
                    high[k] = np.maximum(high[k], mine.max(0))
        if not self.objective.fit_intercept:
            if classes > 2:
                return ()
            positive, negative = (low[1] > 0) & (high[0] < 0), (high[1] < 0) & (low[0] > 0)
            return tuple(int(j) for j in np.flatnonzero(positive | negative))
        alone = []
        for j in range(columns):
            order = np.argsort(low[:, j])
            starts, ends = low[order, j][1:], high[order, j][:-1]
            if (starts > ends).all():
                alone.append(j)
        return tuple(alone)


def _polished(gamma: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """A solution of the programme with its ties made exact, as far as it has any; otherwise as it is.

    HiGHS leaves 1e-9 where the vertex that it found has a zero; a proof needs the zero.
    """
    for tie in _TIES:
        tied = matrix @ gamma <= tie
        for _ in range(4):
            exact = _without(gamma, matrix[tied])
            along = matrix @ exact
            wrong = (along < -16 * _EPS * np.linalg.norm(exact)) & ~tied
            if not wrong.any():
                break
            tied |= wrong
        # What it moves need not be among these constraints.
        if not wrong.any() and np.linalg.norm(exact) > tie * np.linalg.norm(gamma):
            return exact
    return gamma


def _without(gamma: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The part of ``gamma`` that is orthogonal to all rows."""
    if not rows.shape[0]:
        return gamma
    singular, vectors = singular_values(rows)
    vectors = vectors[singular > 1e-13 * singular[0]]
    for _ in range(2):  # once more for the rounding of the first time
        gamma = gamma - vectors.T @ (vectors @ gamma)
    return gamma


def _overlap(
    total: NDArray[np.float64],
    share: float,
    matrix: NDArray[np.float64],
    dual: NDArray[np.float64],
    count: int,
) -> bool:
    """Whether the dual solution proves that nothing is separated (Stiemke's lemma).

    Every constraint counts ``share`` in ``total``, and those of the matrix ``dual`` more. One Newton step makes their
    sum exactly zero; if it leaves all of these numbers positive, they are the proof.
    """
    positive = share + dual
    residual = total + matrix.T @ dual
    gram = (matrix * positive[:, None]).T @ matrix
    step = np.linalg.lstsq(gram, residual, rcond=None)[0]
    left = residual - gram @ step
    mass = share * count + float(dual.sum())
    return bool(np.abs(left).max() <= 1e-12 * mass and np.abs(matrix @ step).max() < _PROOF)


def _intersection(vectors: NDArray[np.float64], span: NDArray[np.float64]) -> NDArray[np.float64]:
    """Combinations of vectors of length one that lie in a span, ``(size, any number)``."""
    if not vectors.shape[1]:
        return vectors
    outside = vectors - span @ (span.T @ vectors)
    _, singular, right = np.linalg.svd(outside)
    inside = np.ones(right.shape[0], dtype=bool)
    inside[: singular.size] = singular <= 1e-7
    shared: NDArray[np.float64] = vectors @ right[inside].T
    return shared


def _rank(vectors: NDArray[np.float64]) -> int:
    """Number of independent columns, each of a length of about one."""
    return int((np.linalg.svd(vectors, compute_uv=False) > 1e-6).sum()) if vectors.shape[1] else 0


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
