"""The directions in which rows bend the objective noticeably beside the penalty, where those are few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Share of the penalty's curvature up to which the rows' own is left out.
_NOTICED = 0.05
# Share of the columns up to which directions are few.
_FEW = 1 / 3


@dataclass(frozen=True)
class Leading:
    """``basis (D, r)`` of the leading directions, of unit length in the metric ``R`` of the penalty, and the intercept.

    ``rest (D,)`` is the inverse of ``R``, zero for the intercept.
    """

    basis: Tensor
    rest: Tensor

    def solve(self, gradient: Tensor, inner: Callable[[Tensor], Tensor]) -> Tensor:
        """``inner`` along the leading directions, the penalty alone beyond; ``gradient (K, D)``."""
        along = gradient @ self.basis
        inside = inner(along).to(along.dtype)
        along[:, -1] = 0
        return gradient * self.rest + (inside - along) @ self.basis.T


def leading_directions(block: Tensor, ridge: Tensor) -> Leading | None:
    """Those of a second derivative, or None if they are not few, or the penalty does not bend every column.

    Parameters
    ----------
    block : Tensor of shape (D, D)
        Penalty included; the intercept is last, and has no curvature if there is none.
    ridge : Tensor of shape (D - 1,)
        The penalty's curvature, by column.
    """
    root = ridge.sqrt()
    matrix = block[:-1, :-1] / root / root[:, None]
    if not bool((ridge > 0).all() & torch.isfinite(matrix).all()):  # too small or too large for float32
        return None
    most = int(_FEW * len(ridge))
    # Eigenvalues of a submatrix lie between those of the whole one, which has as many large ones.
    some = matrix[::2, ::2]
    if int((torch.linalg.eigvalsh(some) > 1 + _NOTICED).sum()) > most:
        return None
    values, vectors = torch.linalg.eigh(matrix)
    count = int((values > 1 + _NOTICED).sum())
    if count > most:
        return None
    basis = block.new_zeros(len(ridge) + 1, count + 1)
    basis[:-1, :-1] = vectors[:, len(values) - count :] / root[:, None]
    basis[-1, -1] = float(block[-1, -1] > 0)
    return Leading(basis, torch.cat([1 / ridge, ridge.new_zeros(1)]))
