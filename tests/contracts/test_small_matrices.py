"""Products and factors of small matrices are those of torch, in whatever layout they come, to the last digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchlogit.kernels import small_matrices as small

EPS = torch.finfo(torch.float64).eps
# Rows and columns: short, and beyond what is.
SIZES = [(3, 1), (40, 7), (569, 31), (70, 64), (100, 65), (400, 150)]


def _matrix(rng, rows, columns, layout=np.ascontiguousarray):
    return torch.from_numpy(layout(rng.normal(size=(rows, columns))))


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_products(rng, rows, columns, layout):
    left, right = _matrix(rng, rows, columns, layout), _matrix(rng, rows, columns + 2, layout)
    found = small.transposed_product(left, right)
    bound = 2 * rows * EPS * (left.abs().T @ right.abs())
    assert bool(((found - left.T @ right).abs() <= bound).all())
    assert torch.equal(found, small.transposed_product(left, right))
    single = small.transposed_product(left.float(), right.float())
    assert single.dtype == torch.float32


@pytest.mark.parametrize(("rows", "columns"), SIZES[1:])
def test_factors_and_solutions(rng, rows, columns):
    X = _matrix(rng, rows, columns)
    matrix = X.T @ X / rows + 0.1 * torch.eye(columns, dtype=torch.float64)
    before = matrix.clone()
    factor = small.cholesky(matrix)
    assert torch.equal(matrix, before)
    assert torch.equal(factor, factor.tril())
    torch.testing.assert_close(factor, torch.linalg.cholesky(matrix), rtol=1e-12, atol=1e-13)
    vector = torch.from_numpy(rng.normal(size=columns))
    kept = vector.clone()
    solved = small.cholesky_solution(factor, vector)
    assert torch.equal(vector, kept)
    assert float((matrix @ solved - vector).abs().max()) < 1e-12


@pytest.mark.parametrize("columns", [3, 80])
@pytest.mark.parametrize("broken", [-1.0, 0.0, np.nan])
def test_no_factor(rng, columns, broken):
    matrix = torch.eye(columns, dtype=torch.float64)
    matrix[columns - 1, columns - 1] = broken
    factor = small.cholesky(matrix)
    assert factor is None or (np.isnan(broken) and bool(factor.isnan().any()))
