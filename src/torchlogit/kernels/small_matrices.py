"""Matrices so small that a call counts more than its arithmetic: NumPy's and LAPACK's calls take a third of torch's.

31 x 569 x 31, float64, one core: 26 microseconds, not 61; a Cholesky factor of 31 x 31 and its solution 13, not 25, and
58 in the middle of a fit, with cold caches.
"""

from __future__ import annotations

import torch
from scipy.linalg.lapack import dpotrf, dpotrs
from torch import Tensor

# Elements of a matrix, and multiplications of a product, up to which all that is true.
_ELEMENTS, _MULTIPLICATIONS = 4_096, 1_000_000


def transposed_product(left: Tensor, right: Tensor) -> Tensor:
    """``left.T @ right`` of two matrices with as many rows."""
    rows, width = right.shape
    size = left.shape[1] * width
    if size > _ELEMENTS or rows * size > _MULTIPLICATIONS or not _plain(left):
        return left.T @ right
    return torch.from_numpy(left.numpy().T @ right.numpy())


def cholesky(matrix: Tensor) -> Tensor | None:
    """The lower factor of a symmetric matrix, zeros above; None where it has none. What is not finite stays so."""
    if matrix.numel() > _ELEMENTS or not _plain(matrix):
        factor, failed = torch.linalg.cholesky_ex(matrix)
        return None if int(failed) else factor
    found, failed = dpotrf(matrix.numpy(), lower=1)
    return None if failed else torch.from_numpy(found)


def cholesky_solution(factor: Tensor, vector: Tensor) -> Tensor:
    """What its matrix takes to the vector."""
    if factor.numel() > _ELEMENTS or not _plain(factor):
        if factor.device.type != "cpu":
            return torch.cholesky_solve(vector.unsqueeze(1), factor).squeeze(1)
        # On a CPU that copies a factor before it reads it (2,500 columns: 21 ms, not 2.3).
        half: Tensor = torch.linalg.solve_triangular(factor, vector.unsqueeze(1), upper=False)
        solution: Tensor = torch.linalg.solve_triangular(factor.mT, half, upper=True).squeeze(1)
        return solution
    return torch.from_numpy(dpotrs(factor.numpy(), vector.numpy(), lower=1)[0])


def _plain(matrix: Tensor) -> bool:
    return matrix.dtype == torch.float64 and matrix.device.type == "cpu"


__all__ = ["cholesky", "cholesky_solution", "transposed_product"]
