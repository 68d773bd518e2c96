"""Fewer rows than columns: nothing of a row counts but its products with the others.

The optimum of ``mean loss + l2 / 2 |w|^2`` is a sum of the rows, ``w = sum_i a_i (x_i - m)`` (the representer theorem:
Kimeldorf and Wahba, 1971), and depends on ``G = (X - m)(X - m)'`` alone. The rows of a Cholesky factor of ``G`` have
the same products, and only as many columns as there are rows: the problem over them is solved first. What is left are
the certificate and perhaps a step, over the rows themselves, whose curvature is inverted through ``G`` too (Woodbury's
formula).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from torchlogit.kernels import TorchKernel, small_matrices
from torchlogit.kernels.symmetric import add_upper, mirrored
from torchlogit.moments import column_moments
from torchlogit.objective import Objective
from torchlogit.sources import MemorySource

# Rows of which a matrix is factorised in a second.
_MOST_ROWS = 4_000
# Columns for each row from which all this takes less time than other ways, with two classes (100 x 200 the same, 300 x
# 600 a third, 1,000 x 2,500 half) and with many (300 x 600 with three 1.8 times as long, 60 x 300 with five the same,
# 1,000 x 2,500 with three a fifth).
_COLUMNS_PER_ROW, _COLUMNS_PER_ROW_CLASSES = 2, 4
# Share of the rows' memory that square matrices may take, and their entries that are always few (64 MiB).
_MOST_SHARE, _FEW_ENTRIES = 0.15, 2**23
# What a squared length grows by, of itself, until there is a factor, and of the mean one: rows may be equal, and those
# that are centred have one direction less than there are.
_JITTERS, _LEAST_LENGTH = (4e-15, 1e-13, 3e-12, 1e-10), 1e-16
# The pivot, none of which is below one, up to which a solution has six digits.
_LARGEST_PIVOT = 1e5
# Entries of columns that are centred together, in a core's cache.
_CENTRED_ELEMENTS = 131_072


@dataclass(frozen=True)
class RowSpace:
    """Products of the rows, and the problem over rows that have the same.

    Parameters
    ----------
    objective : Objective
        Of a single lane, over dense rows in memory.
    gram : Tensor of shape (n, n), float64
        Products of the centred rows.
    factor : Tensor of shape (n, n), float64
        Its Cholesky factor.
    """

    objective: Objective
    gram: Tensor
    factor: Tensor

    @cached_property
    def reduced(self) -> Objective:
        """The same problem over the rows of ``factor``."""
        objective, block = self.objective, self.objective.only_block
        assert block is not None
        source = MemorySource(replace(block, dense=self.factor), objective.outputs)
        moments = column_moments(source)
        kernel = TorchKernel(objective.kernel.loss, moments.kernel_frame(objective.fit_intercept, source))
        share = len(self.factor) / (objective.width - 1)
        return replace(objective, source=source, kernel=kernel, moments=moments, share=share)

    def lifted(self, u: Tensor) -> Tensor:
        """A point ``(1, K, n + 1)`` of the reduced problem, among all columns ``(1, K, p + 1)``."""
        objective, lanes = self.objective, self.objective.all_lanes()
        theta = self.reduced.coordinates.to_raw(u, lanes)[0]
        shares = torch.linalg.solve_triangular(self.factor.mT, theta[:, :-1].mT, upper=True)
        # The centre of a column is where its unit counts from: nothing is left of the intercept's.
        return torch.cat([self.sums(shares.mT) * objective.coordinates.scale, theta[:, -1:]], 1)[None]

    def sums(self, shares: Tensor) -> Tensor:
        """Sums of the centred rows, ``shares (K, n)`` of each, in raw units: ``(K, p)``."""
        objective = self.objective
        objective.count_pass()
        block = objective.only_block
        assert block is not None and block.dense is not None
        if block.dense.dtype == shares.dtype and not objective.kernel.frame.moves():
            return torch.addr(shares @ block.dense, shares.sum(1), objective.coordinates.centre[0], alpha=-1)
        found = shares.new_empty(shares.shape[0], objective.width - 1)
        for here, part in _centred(objective):
            torch.mm(shares, part, out=found[:, here])
        return found


@dataclass(frozen=True)
class RowInverse:
    """``P``: class by class the inverse of ``ridge + Z' diag(bend) Z``, for the rows' centred columns and ones ``Z``.

    ``root (K, n)`` is the root of what the rows bend, ``factors`` K Cholesky factors of ``1 + root G root / l2``. Of
    one output that is all of the second derivative.
    """

    space: RowSpace
    root: Tensor
    factors: tuple[Tensor, ...]
    exact: bool = False
    bound: float | None = None

    def solve(self, gradient: Tensor) -> Tensor:
        """Two reads of the rows; the mean over classes, which the objective cannot see, is removed."""
        objective, lanes = self.space.objective, self.space.objective.all_lanes()
        alone = torch.zeros_like(gradient)
        torch.div(gradient[..., :-1], objective.ridge, out=alone[..., :-1])
        parts = [eta[:, 0].mT for _, eta in objective.linear_predictors(alone, lanes, offset=False)]
        shares, level = self._shares(torch.cat(parts, 1).to(torch.float64), gradient[0, :, -1])
        sums = self.space.sums(shares) / objective.coordinates.scale
        alone[0, :, :-1] -= sums / objective.ridge
        alone[0, :, -1] = level
        return objective.project(alone)

    def _shares(self, along: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """What the rows bend at the solution, ``(K, n)``, and its intercept ``(K,)``.

        With ``along (K, n)``, the rows' predictors at the ridge's own solution, and the intercept's ``slope (K,)``.
        """
        shares, level = torch.zeros_like(along), torch.zeros_like(slope)
        for k, (root, factor) in enumerate(zip(self.root, self.factors, strict=True)):
            shares[k] = root * small_matrices.cholesky_solution(factor, root * along[k])
            if self.space.objective.fit_intercept:
                ones = root * small_matrices.cholesky_solution(factor, root)
                level[k] = (slope[k] - shares[k].sum()) / torch.clamp(ones.sum(), min=1e-300)
                shares[k] += level[k] * ones
        return shares, level

    def take(self, keep: Tensor) -> RowInverse:
        """There is one lane."""
        return self


@dataclass(frozen=True)
class RowCholesky:
    """Cholesky factors of the rows' products, each row with what it bends.

    Parameters
    ----------
    space : RowSpace
    """

    space: RowSpace
    name: str = "Cholesky factor over the rows"

    def build(self, objective: Objective, u: Tensor, lanes: Tensor) -> RowInverse:
        """At ``u``, in one read."""
        loss, l2 = objective.kernel.loss, objective.penalties[0].l2
        rows = objective.bent_rows(u, lanes)
        bends = [share * loss.curvature(eta, target)[0][:, 0].mT for eta, target, share in rows]
        root = torch.cat(bends, 1).clamp_(min=0).sqrt_()
        found = [_factor(self.space.gram, own, l2) for own in root]
        exact = len(found) == 1 and found[0] is not None and float(found[0].diagonal().amax()) < _LARGEST_PIVOT
        plain = torch.eye(root.shape[1], dtype=root.dtype)
        return RowInverse(self.space, root, tuple(plain if factor is None else factor for factor in found), exact)


def _factor(gram: Tensor, root: Tensor, l2: float) -> Tensor | None:
    """Of ``1 + root G root / l2``; None where that is too large for float64."""
    bent = gram * root
    bent.mul_((root / l2)[:, None]).diagonal().add_(1.0)
    return small_matrices.cholesky(bent) if bool(torch.isfinite(bent).all()) else None


def fits(objective: Objective) -> bool:
    """Whether there are so many more columns than rows, all of them dense and in memory, and a penalty."""
    block = objective.only_block
    if block is None or block.device.type != "cpu" or objective.prior is not None or objective.journal.returns:
        return False
    rows, columns = block.rows, objective.width - 1
    entries = (objective.outputs + 2.0) * rows * rows
    few = entries <= max(_MOST_SHARE * rows * columns, _FEW_ENTRIES)
    least = rows * (_COLUMNS_PER_ROW if objective.outputs == 1 else _COLUMNS_PER_ROW_CLASSES)
    if not few or not 2 <= rows <= _MOST_ROWS or columns < least or not objective.penalties[0].l2 > 0:
        return False
    return block.counts


def row_space(objective: Objective) -> RowSpace | None:
    """The products of a problem that `fits`; None where their digits do not suffice for a factor."""
    block = objective.only_block
    assert block is not None
    gram = torch.zeros(block.rows, block.rows, dtype=torch.float64)
    for _, part in _centred(objective):
        add_upper(part.mT, part.mT, gram)
    objective.count_pass()
    mirrored(gram)
    length = gram.diagonal().clone()
    for jitter in _JITTERS:
        gram.diagonal().copy_(length * (1 + jitter) + _LEAST_LENGTH * length.mean())
        factor = small_matrices.cholesky(gram)
        if factor is not None and bool(torch.isfinite(factor).all()):
            return RowSpace(objective, gram, factor)
    return None


def _centred(objective: Objective) -> Iterator[tuple[slice, Tensor]]:
    """Some columns of all rows at a time, ``(n, c)`` float64, minus their centres."""
    block = objective.only_block
    assert block is not None and block.dense is not None
    centre, step = objective.coordinates.centre[0], max(1, _CENTRED_ELEMENTS // block.rows)
    room = torch.empty(block.rows, step, dtype=torch.float64)
    for start in range(0, block.dense.shape[1], step):
        here = slice(start, min(start + step, block.dense.shape[1]))
        part = room[:, : here.stop - start]
        yield here, part.copy_(block.dense[:, here]).sub_(centre[here])


__all__ = ["RowCholesky", "RowInverse", "RowSpace", "fits", "row_space"]
