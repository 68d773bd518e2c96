"""Inverse curvatures: what turns a gradient into a step. Chosen by the shape of the problem, not by the solver.

A *preconditioner* builds an `InverseCurvature` at a point; that applies an approximation ``P`` of the inverse second
derivative. Every ``P`` is symmetric and positive on the directions the objective can see.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from torchlogit.kernels.bfloat16 import coarse_dtype
from torchlogit.kernels.small_matrices import cholesky, cholesky_solution
from torchlogit.kernels.torch_device import TorchKernel
from torchlogit.objective import Evaluation, Objective
from torchlogit.problem import RowStats
from torchlogit.sources import Source, communicator_of, resident
from torchlogit.tensors import in_type

# A pivot of the unit-diagonal curvature below this means that a Cholesky solve has lost most of its digits.
_SAFE_PIVOT = 1e-11
# The same for products that were formed in float32: half of its digits.
_SAFE_PIVOT_FLOAT32 = 1e-4
# And where conjugate gradients mend what that did to the factor: a multiple of the rounding of a sum.
_USEFUL_PIVOT_FLOAT32 = 1e-6
# And in bfloat16, of which a few per cent are noise.
_SAFE_PIVOT_BFLOAT16 = 0.05
# Columns from which a product in bfloat16 is worth its conversion.
_COARSE_COLUMNS = 512
# How much smaller the curvature may be at a point near the one where it was built.
_NEARBY = 2.0
# Where `HandedOn` puts what it was given; lanes have the other numbers.
_GIVEN = -1
# Floating-point operations that a QR of the weighted rows may cost before the eigenvalues of the Gram matrix must do.
_QR_OPERATIONS = 2e11


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
        step = self.scaled(columns - self.centre * intercept)
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


# -- the whole second derivative ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Factor:
    """One lane's factor: either ``scale`` and a Cholesky factor of the unit-diagonal matrix, or a spectrum.

    ``hidden (S, r)`` spans the directions in which the rows have no curvature at all; ``P`` is zero there.
    """

    scale: Tensor  # (S,)
    cholesky: Tensor | None = None  # (S, S)
    vectors: Tensor | None = None  # (S, r)
    inverse: Tensor | None = None  # (r,)
    hidden: Tensor | None = None

    def solve(self, gradient: Tensor) -> Tensor:
        scaled = gradient / self.scale
        if self.cholesky is not None:
            solved = cholesky_solution(self.cholesky, in_type(scaled, self.cholesky.dtype))
        else:
            assert self.vectors is not None and self.inverse is not None
            solved = self.vectors @ (self.inverse * (self.vectors.T @ scaled))
        return solved / self.scale

    def revealed(self) -> _Factor:
        """Unit curvature where there was none: rows outside a subsample may have some, and steps must reach it."""
        if self.hidden is None or self.vectors is None or self.inverse is None:
            return self
        inverse = torch.cat([self.inverse, self.inverse.new_ones(self.hidden.shape[1])])
        return _Factor(self.scale, vectors=torch.cat([self.vectors, self.hidden], 1), inverse=inverse)


@dataclass(frozen=True)
class HessianInverse:
    """One factor per lane."""

    factors: tuple[_Factor, ...]
    exact: bool
    bound: float | None = None

    def solve(self, gradient: Tensor) -> Tensor:
        """Lane by lane."""
        if len(self.factors) == 1:  # nothing to put together, which small problems would notice
            return self.factors[0].solve(gradient.reshape(-1)).view_as(gradient)
        solved = [factor.solve(g.reshape(-1)) for factor, g in zip(self.factors, gradient, strict=True)]
        return torch.stack(solved).reshape(gradient.shape)

    def take(self, keep: Tensor) -> HessianInverse:
        """Some of the lanes."""
        return replace(self, factors=tuple(f for f, kept in zip(self.factors, keep.tolist(), strict=True) if kept))

    def hidden(self, lane: int) -> Tensor | None:
        """Directions ``(S, r)`` without any curvature, in standardised units, or None."""
        factor = self.factors[lane]
        return None if factor.hidden is None else factor.hidden / factor.scale[:, None]


@dataclass(frozen=True)
class HessianCholesky:
    """Cholesky factor of the second derivative, over all rows or over a resident subsample.

    Where the matrix is too ill-conditioned for its Gram form (a pivot below 1e-11 of the unit diagonal), the factor
    comes from a QR decomposition of the weighted rows, which sees twice as many digits; directions without any
    curvature are left alone, so that collinear columns share their effect instead of fighting over it.

    Parameters
    ----------
    sample : Source, optional
        Rows to use; None means the objective's own.
    rounded : bool, default=False
        Whether products in float32 will do, as they always do for a sample.
    coarse : bool, default=False
        Whether those in bfloat16 will do, if columns are far from collinear; there is no bound then.
    """

    sample: Source | None = None
    rounded: bool = False
    coarse: bool = False
    name: str = "Cholesky factor of the Hessian"

    def build(self, objective: Objective, u: Tensor, lanes: Tensor) -> HessianInverse:
        """At ``u``."""
        rows = objective if self.sample is None else objective.on(self.sample)
        if self.sample is None and not self.rounded:
            return HessianInverse(_factors(rows, u, lanes), exact=True)
        if self.coarse and _coarse_pays(rows):
            coarse = _rounded_factors(rows, u, lanes, coarse_dtype(), _SAFE_PIVOT_BFLOAT16)
            if coarse is not None:
                return HessianInverse(coarse, exact=False)
        factors, bound = _rounded_factors(rows, u, lanes) or _factors(rows, u, lanes), None
        if self.sample is not None:
            factors = tuple(factor.revealed() for factor in factors)
        if all(factor.cholesky is not None for factor in factors):
            # All rows bend the objective by no less than the sample's do, and those are this share of their weight.
            bound = _NEARBY if self.sample is None else _NEARBY / _share(objective, self.sample)
        return HessianInverse(factors, exact=False, bound=bound)


@dataclass(frozen=True)
class RoundedHessian:
    """Cholesky factor of the second derivative over all rows, from products in float32: for conjugate gradients, which
    mend what rounding did to it. Where that hides a direction, the factor is that of `HessianCholesky`, and exact.
    """

    name: str = "Cholesky factor of the Hessian"

    def build(self, objective: Objective, u: Tensor, lanes: Tensor) -> HessianInverse:
        """At ``u``."""
        rounded = _rounded_factors(objective, u, lanes, least=_USEFUL_PIVOT_FLOAT32)
        return HessianInverse(rounded or _factors(objective, u, lanes), exact=rounded is None)


@dataclass(frozen=True)
class PassingHessian:
    """The whole second derivative at the start, added up by the read that the first gradient takes anyway.

    For rows whose reading takes longer than their products. Where it is built again, or its products lose too many
    digits, it is a sample's.

    Parameters
    ----------
    sample : Source
        Resident rows.
    """

    sample: Source
    name: str = "Cholesky factor of the Hessian"

    def build(self, objective: Objective, u: Tensor, lanes: Tensor) -> HessianInverse:
        """The sample's, at ``u``."""
        return HessianCholesky(self.sample).build(objective, u, lanes)

    def evaluate(self, objective: Objective, u: Tensor, lanes: Tensor) -> tuple[Evaluation, HessianInverse]:
        """Value, gradient and inverse curvature at ``u``, in one read."""
        evaluation, hessians = objective.value_gradient_hessian(u, lanes, _rounded_kernel(objective))
        factors = _rounded_cholesky(objective, hessians)
        if factors is None:
            return evaluation, self.build(objective, u, lanes)
        return evaluation, HessianInverse(factors, exact=False, bound=_NEARBY)


def _coarse_pays(rows: Objective) -> bool:
    """Whether bfloat16 is faster here; several processes, whose processors may differ, must all do the same."""
    alone = communicator_of(rows.source).world == 1
    return alone and rows.outputs == 1 and rows.width >= _COARSE_COLUMNS and coarse_dtype() != torch.float32


def _factors(rows: Objective, u: Tensor, lanes: Tensor) -> tuple[_Factor, ...]:
    """By lane."""
    hessians = rows.hessian(u, lanes)
    factors = []
    for i in range(u.shape[0]):
        hessian = hessians[i]
        # With one output nothing is locked but columns without curvature, which leave no factor.
        factor = _cholesky(hessian) if rows.outputs == 1 else None
        if factor is None:
            hessian = _unlock(hessian, rows.outputs)
            factor = _cholesky(hessian) or _spectral(rows, u[i : i + 1], lanes[i : i + 1], hessian)
        factors.append(factor)
    return tuple(factors)


def _rounded_factors(
    rows: Objective,
    u: Tensor,
    lanes: Tensor,
    dtype: torch.dtype = torch.float32,
    least: float = _SAFE_PIVOT_FLOAT32,
) -> tuple[_Factor, ...] | None:
    """From products in float32 or less, at half the cost; None where that loses digits that count."""
    return _rounded_cholesky(rows, rows.on(rows.source, _rounded_kernel(rows, dtype)).hessian(u, lanes), dtype, least)


def _rounded_kernel(rows: Objective, dtype: torch.dtype = torch.float32) -> TorchKernel:
    return TorchKernel(rows.kernel.loss, rows.moments.frame(rows.fit_intercept), torch.float32, dtype)


def _rounded_cholesky(
    rows: Objective,
    hessians: Tensor,
    dtype: torch.dtype = torch.float32,
    least: float = _SAFE_PIVOT_FLOAT32,
) -> tuple[_Factor, ...] | None:
    coarse = dtype != torch.float32
    factors = [
        _cholesky(_unlock(hessian, rows.outputs), least, torch.float32 if coarse else torch.float64)
        for hessian in hessians
    ]
    known = tuple(factor for factor in factors if factor is not None)
    return known if len(known) == len(factors) else None


def _share(objective: Objective, sample: Source) -> float:
    """The sample's share of all rows' weight: of several lanes, the smallest."""
    total = objective.moments.weight

    nothing = RowStats(0, torch.zeros_like(total))

    def own() -> RowStats:
        return sum((RowStats(block.rows, block.lane_weights().sum(0)) for block in sample.blocks()), start=nothing)

    held = communicator_of(sample).added(own, lambda: nothing).weight
    return float((held / total).min())


def _unlock(hessian: Tensor, outputs: int) -> Tensor:
    """Give curvature, in place, to the two kinds of directions that the objective cannot see.

    Adding one vector to all classes changes nothing, and steps are orthogonal to it; a column without any curvature
    (constant, or never present) has no gradient either. Both would only make the matrix singular.
    """
    if outputs > 1:
        width = hessian.shape[0] // outputs
        mean = hessian.diagonal().reshape(outputs, width).mean(0)
        blocks = hessian.view(outputs, width, outputs, width)
        blocks.diagonal(dim1=1, dim2=3).add_(mean / outputs)
    diagonal = hessian.diagonal()
    diagonal.copy_(torch.where(diagonal <= 0, 1.0, diagonal))
    return hessian


def _cholesky(
    hessian: Tensor, least: float = _SAFE_PIVOT, dtype: torch.dtype = torch.float64
) -> _Factor | None:
    scale = hessian.diagonal().sqrt()
    factor = cholesky(in_type((hessian / scale).div_(scale[:, None]), dtype))
    if factor is None or not float(factor.diagonal().amin()) ** 2 > least:
        return None
    return _Factor(scale, cholesky=factor)


def _spectral(objective: Objective, u: Tensor, lanes: Tensor, hessian: Tensor) -> _Factor:
    """Inverse on the directions that have curvature, from singular values where that is affordable."""
    scale, size = hessian.diagonal().sqrt(), hessian.shape[0]
    operations = 2.0 * objective.source.rows * objective.outputs * size**2
    if operations <= _QR_OPERATIONS and objective.prior is None:  # a prior has no rows to decompose
        singular, vectors = torch.linalg.svd(_factor_rows(objective, u, lanes, hessian) / scale)[1:]
        vectors = vectors.T
        noise = _rounding(objective, lanes, scale, u.shape[1]) @ vectors.square()
        seen = singular > torch.clamp(2 * noise.sqrt(), min=4e-15 * size**0.5 * float(singular[0]))
        inverse = singular[seen].square().reciprocal()
    else:
        eigenvalues, vectors = torch.linalg.eigh(hessian / scale / scale[:, None])
        noise = _rounding(objective, lanes, scale, u.shape[1]) @ vectors.square()
        seen = eigenvalues > torch.clamp(4 * noise, min=1e-15 * size * float(eigenvalues[-1]))
        inverse = eigenvalues[seen].reciprocal()
    hidden = vectors[:, ~seen] if bool((~seen).any()) else None
    return _Factor(scale, vectors=vectors[:, seen], inverse=inverse, hidden=hidden)


def _rounding(objective: Objective, lanes: Tensor, scale: Tensor, outputs: int) -> Tensor:
    """Squared rounding of each weighted, unit-diagonal column ``(S,)``.

    A direction along which the rows differ by no more than this has no curvature that the data can tell from none.
    """
    rounding = objective.moments.rounding(objective.fit_intercept)[lanes[0]]
    columns = torch.cat([rounding, rounding.new_zeros(1)]).expand(outputs, -1)
    norms = scale.reshape(outputs, -1)
    share = norms[:, -1:] / norms if objective.fit_intercept else torch.ones_like(norms)
    return (columns * share).square().reshape(-1)


def _factor_rows(objective: Objective, u: Tensor, lanes: Tensor, hessian: Tensor) -> Tensor:
    """Upper triangular ``R (S, S)`` with ``R'R`` the unlocked second derivative, block after block of rows."""
    outputs, width = u.shape[1:]
    penalty = torch.cat([objective.ridge[lanes[0]], objective.ridge.new_zeros(1)]).sqrt().repeat(outputs)
    upper = torch.diag_embed(penalty)
    if outputs > 1:
        # The rows whose Gram matrix `_unlock` added; it made the mean diagonal (1 + 1 / K) times the original.
        mean = hessian.diagonal().reshape(outputs, width).mean(0) / (1 + 1 / outputs)
        upper = torch.cat([upper, torch.diag_embed((mean / outputs).sqrt()).repeat(1, outputs)])
    communicator = communicator_of(objective.source)
    upper = upper if communicator.rank == 0 else upper[:0]
    triangles = communicator.gathered(lambda: _with_rows(objective, u, lanes, upper).cpu())
    # Triangles of different rows are rows of the whole one.
    triangle = triangles[0] if len(triangles) == 1 else torch.linalg.qr(torch.cat(triangles), mode="r")[1]
    return triangle.to(u.device)


def _with_rows(objective: Objective, u: Tensor, lanes: Tensor, upper: Tensor) -> Tensor:
    """The triangular factor of ``upper`` and this process's weighted rows."""
    outputs, width = u.shape[1:]
    for rows, eta, target, share in objective.curved_rows(u, lanes):
        root = objective.kernel.loss.curvature_root(eta, target)[:, 0] * share.sqrt()[:, None, None]
        weighted = (root[..., None] * rows[:, None, None, :]).reshape(-1, outputs * width)
        upper = torch.linalg.qr(torch.cat([upper, weighted]), mode="r")[1]
    return upper


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
