"""The whole second derivative as an inverse curvature: Cholesky factors, of all rows or some, exact or in few digits.

Where a matrix of products has lost what the rows still tell, the rows themselves are decomposed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torchlogit.kernels.bfloat16 import coarse_dtype
from torchlogit.kernels.small_matrices import cholesky, cholesky_solution
from torchlogit.kernels.torch_device import TorchKernel
from torchlogit.objective import Evaluation, Objective
from torchlogit.problem import RowStats
from torchlogit.sources import Source, communicator_of
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
# Floating-point operations that a QR of the weighted rows may cost before the eigenvalues of the Gram matrix must do.
_QR_OPERATIONS = 2e11


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
