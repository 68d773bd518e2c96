"""Inverse curvatures: what turns a gradient into a step. Chosen by the shape of the problem, not by the solver.

A *preconditioner* builds an `InverseCurvature` at a point; that applies an approximation ``P`` of the inverse second
derivative. Every ``P`` is symmetric and positive on the directions the objective can see.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from torchlogit.objective import Objective
from torchlogit.sources import Source, resident

# Where `HandedOn` puts what it was given; lanes have the other numbers.
_GIVEN = -1


class InverseCurvature(Protocol):
    """``P``, for A active lanes."""

    @property
    def exact(self) -> bool:
        """Whether it is the inverse of the whole second derivative at the point where it was built."""
        ...

    @property
    def bound(self) -> float | None:
        """A number ``b`` for which ``b P`` is no smaller than the inverse second derivative nearby, if one is known."""
        ...

    def solve(self, gradient: Tensor) -> Tensor:
        """``P @ gradient``, both ``(A, K, D)``."""
        ...

    def take(self, keep: Tensor) -> InverseCurvature:
        """The lanes that ``keep`` (A,) bool names."""
        ...


class Preconditioner(Protocol):
    """Builds an inverse curvature."""

    @property
    def name(self) -> str:
        """What it is called in a plan."""
        ...

    def build(self, objective: Objective, u: Tensor, lanes: Tensor) -> InverseCurvature:
        """At ``u (A, K, D)``."""
        ...


# -- diagonal and identity ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DiagonalInverse:
    """``P = diag(inverse)``, ``inverse (A, K, D)``."""

    inverse: Tensor
    exact: bool = False
    bound: float | None = None

    def solve(self, gradient: Tensor) -> Tensor:
        """Element by element."""
        return self.inverse * gradient

    def take(self, keep: Tensor) -> DiagonalInverse:
        """Some of the lanes."""
        return replace(self, inverse=self.inverse[keep])


@dataclass(frozen=True)
class Identity:
    """No curvature at all: steepest descent in standardised units."""

    name: str = "identity"

    def build(self, objective: Objective, u: Tensor, lanes: Tensor) -> DiagonalInverse:
        """Ones."""
        return DiagonalInverse(torch.ones_like(u))


@dataclass(frozen=True)
class HessianDiagonal:
    """The inverse diagonal of the second derivative: one read, for many columns."""

    name: str = "diagonal of the Hessian"

    def build(self, objective: Objective, u: Tensor, lanes: Tensor) -> DiagonalInverse:
        """At ``u``; entries are kept above 1e-8 of the lane's largest."""
        diagonal = objective.hessian_diagonal(u, lanes)
        floor = 1e-8 * diagonal.amax((1, 2), keepdim=True)
        return DiagonalInverse(1 / torch.where(floor > 0, torch.maximum(diagonal, floor), 1.0))


@dataclass(frozen=True)
class CentredInverse:
    """A diagonal after each column is centred: ``inverse (A, K, D)``, ``centre (A, K, p)``."""

    inverse: Tensor
    centre: Tensor
    exact: bool = False
    bound: float | None = None

    def solve(self, gradient: Tensor) -> Tensor:
        """Centre, element by element, and back."""
        columns, intercept = gradient[..., :-1], gradient[..., -1:]
        step = self.scaled(torch.addcmul(columns, self.centre, intercept, value=-1))
        rest = self.inverse[..., -1:] * intercept - (self.centre * step).sum(-1, keepdim=True)
        return torch.cat([step, rest], dim=-1)

    def scaled(self, columns: Tensor) -> Tensor:
        """The centred columns' part ``(A, K, p)`` of a solution."""
        return self.inverse[..., :-1] * columns

    def take(self, keep: Tensor) -> CentredInverse:
        """Some of the lanes."""
        return replace(self, inverse=self.inverse[keep], centre=self.centre[keep])


@dataclass(frozen=True)
class CentredDiagonal:
    """The diagonal once columns are centred by curvature: at the same cost, it survives rows that saturate."""

    name: str = "diagonal of the Hessian"

    def build(self, objective: Objective, u: Tensor, lanes: Tensor) -> CentredInverse:
        """At ``u``."""
        diagonal, centre = objective.centred_diagonal(u, lanes)
        # Without any curvature there is no gradient either.
        return CentredInverse(1 / torch.where(diagonal > 0, torch.clamp(diagonal, min=1e-300), 1.0), centre)


@dataclass(frozen=True)
class Recycled:
    """Another inverse curvature, made exact along the directions that conjugate gradients took last.

    With directions ``S`` and their products ``Y = H S`` it is the block update of BFGS, ``S C S' + (I - S C Y') P (I -
    Y C S')`` with ``C = (S'Y)^-1`` (Gratton, Sartenaer and Tshimanga, 2011). ``directions`` and ``products`` are
    ``(m, K * D)``, ``inner`` is ``C``; for one lane.
    """

    around: CentredInverse
    directions: Tensor
    products: Tensor
    inner: Tensor
    exact: bool = False
    bound: float | None = None

    @classmethod
    def of(cls, curvature: InverseCurvature, pairs: tuple[tuple[Tensor, Tensor], ...]) -> InverseCurvature:
        """Around what ``curvature`` is around, with these pairs; as it was where they are none, or are not positive."""
        around = curvature.around if isinstance(curvature, Recycled) else curvature
        if not pairs or pairs[0][0].shape[0] > 1 or not isinstance(around, CentredInverse):
            return curvature
        directions, products = (torch.stack(part).flatten(1) for part in zip(*pairs, strict=True))
        length = (directions * products).sum(1).clamp(min=1e-300).sqrt()[:, None]
        directions, products = directions / length, products / length
        across = directions @ products.T
        factor, failed = torch.linalg.cholesky_ex(0.5 * (across + across.T))
        if int(failed):
            return curvature
        return cls(around, directions, products, torch.cholesky_inverse(factor))

    def solve(self, gradient: Tensor) -> Tensor:
        """Four products with few directions around one solution."""
        flat = gradient.reshape(-1)
        known = self.inner @ (self.directions @ flat)
        rest = self.around.solve((flat - known @ self.products).view_as(gradient)).reshape(-1)
        known = known - self.inner @ (self.products @ rest)
        return (rest + known @ self.directions).view_as(gradient)

    def take(self, keep: Tensor) -> Recycled:
        """There is one lane only."""
        return self


@dataclass(frozen=True)
class HandedOn:
    """What another solver built last, once; from then on what is built anew.

    Parameters
    ----------
    around : Preconditioner
        Builds.
    """

    around: Preconditioner
    _own: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """As what builds."""
        return self.around.name

    @property
    def learned(self) -> dict[int, Any]:
        """What is not built anew, for whoever keeps a fit: beside what ``around`` keeps by lane."""
        learned: dict[int, Any] = getattr(self.around, "learned", self._own)
        return learned

    def give(self, curvature: InverseCurvature) -> None:
        """What the next `build` returns."""
        self.learned[_GIVEN] = curvature

    def build(self, objective: Objective, u: Tensor, lanes: Tensor) -> InverseCurvature:
        """What was given, or built at ``u``."""
        given: InverseCurvature | None = self.learned.pop(_GIVEN, None)
        return given or self.around.build(objective, u, lanes)


# -- many classes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EigenbasisInverse:
    """``P = V diag(inverse) V'`` class by class: ``vectors (D, D)`` shared, ``inverse (A, K, D)``."""

    vectors: Tensor
    inverse: Tensor
    exact: bool = False
    bound: float | None = None

    def solve(self, gradient: Tensor) -> Tensor:
        """Into the basis, divide, back; the mean over classes, which the objective cannot see, is removed."""
        solved = (self.inverse * (gradient @ self.vectors)) @ self.vectors.T
        return solved - solved.mean(-2, keepdim=True)

    def take(self, keep: Tensor) -> EigenbasisInverse:
        """Some of the lanes."""
        return replace(self, inverse=self.inverse[keep])


# Least entry of the penalty's metric, in standardised units, where a column's own curvature is about one.
_METRIC_FLOOR = 1e-6


@dataclass(frozen=True)
class GramEigenbasis:
    """Each class's own curvature, diagonal in a basis that all classes share.

    For many classes times many columns, where the whole second derivative would not fit. The basis diagonalises the
    Gram matrix ``Z'Z`` and the penalty together (generalised eigenvectors): in standardised units the penalty of
    a rare column is thousands of times that of a common one, and a basis of the Gram matrix alone would smear it
    over all. Basis and diagonal come from a resident subsample.
    """

    sample: Source
    name: str = "class curvatures in the eigenbasis of the Gram matrix"
    _basis: dict[int, Tensor] = field(default_factory=dict, repr=False, compare=False)  # by lane

    @property
    def learned(self) -> dict[int, Tensor]:
        """What is not built anew at every point, for whoever keeps a fit."""
        return self._basis

    def build(self, objective: Objective, u: Tensor, lanes: Tensor) -> EigenbasisInverse:
        """At ``u``."""
        sample = objective.on(resident(self.sample))
        lane = int(lanes[0])
        if lane not in self._basis:  # the rows' own geometry: it does not depend on the point
            self._basis[lane] = _shared_basis(sample, u[:1], lanes[:1])
        vectors = self._basis[lane]
        diagonal = torch.stack(
            [_basis_diagonal(sample, u[i : i + 1], lanes[i : i + 1], vectors) for i in range(u.shape[0])]
        )
        floor = 1e-10 * diagonal.amax((1, 2), keepdim=True)
        return EigenbasisInverse(vectors, 1 / torch.where(floor > 0, torch.maximum(diagonal, floor), 1.0))


def _shared_basis(sample: Objective, u: Tensor, lanes: Tensor) -> Tensor:
    """``V (D, D)`` with ``V'Z'ZV`` diagonal and ``V'RV = I``, R the penalty's metric."""
    gram = u.new_zeros(sample.width, sample.width)
    for rows, _, _, share in sample.curved_rows(u, lanes):
        gram += (rows * share[:, None]).T @ rows
    ridge = torch.cat([sample.ridge[lanes[0]], sample.ridge.new_zeros(1)])
    root = torch.clamp(ridge, min=_METRIC_FLOOR).sqrt()
    vectors: Tensor = torch.linalg.eigh(gram / root / root[:, None])[1]
    return vectors / root[:, None]


def _basis_diagonal(sample: Objective, u: Tensor, lanes: Tensor, vectors: Tensor) -> Tensor:
    """Diagonal of each class's curvature in the basis, ``(K, D)``."""
    ridge = torch.cat([sample.ridge[lanes[0]], sample.ridge.new_zeros(1)])
    diagonal = (ridge @ vectors.square()).expand(u.shape[1], -1).clone()
    for rows, eta, target, share in sample.curved_rows(u, lanes):
        bend = sample.kernel.loss.curvature(eta, target)[0][:, 0] * share[:, None]
        diagonal += bend.T @ (rows @ vectors).square()
    return diagonal
