"""Neighbouring columns: what a few rows say of them is used as far as it is certain, and only where it helps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts.problems import objective_from
from torchlogit import LogisticRegression, block_diagonal
from torchlogit.block_diagonal import BlockDiagonal, CentredBlocks
from torchlogit.kernels.symmetric import inverted
from torchlogit.preconditioners import CentredDiagonal, CentredInverse, Recycled
from torchlogit.solvers.conjugate_gradient import newton_path

COLUMNS = 32  # of a block


def chained(rng, rows, columns, correlation=0.8):
    """Each column correlated with the one before; two classes."""
    X = rng.normal(size=(rows, columns))
    for j in range(1, columns):
        X[:, j] = correlation * X[:, j - 1] + np.sqrt(1 - correlation**2) * X[:, j]
    return X, (X[:, 0] - X[:, -1] + rng.logistic(size=rows) > 0).astype(int)


def built(objective, u=None, far=False):
    return BlockDiagonal(far).build(objective, objective.zeros() if u is None else u, objective.all_lanes())


def products(objective, inverse, gradient):
    tolerance = torch.full((1,), 1e-3, dtype=torch.float64)
    u, lanes = objective.zeros(), objective.all_lanes()
    return newton_path(objective, u, lanes, gradient, inverse.solve, tolerance, 200).products


def test_blocks_are_those_of_the_hessian(rng):
    """As far as rows leave no doubt: with all of them, and so many that nothing is drawn to zero."""
    X, y = chained(rng, 1_000, 40, 0.9)
    objective = objective_from(X * 3 + 1, y, 1e-2)
    whole = objective.hessian(objective.zeros(), objective.all_lanes())[0]
    inverse = built(objective)
    assert isinstance(inverse, CentredBlocks)
    assert inverse.blocks.shape == (2, COLUMNS, COLUMNS)
    for block, start, stop in ((0, 0, 32), (1, 32, 40)):
        found = torch.linalg.inv(inverse.blocks[block, : stop - start, : stop - start])
        expected = whole[start:stop, start:stop]
        torch.testing.assert_close(found.diagonal(), expected.diagonal(), rtol=1e-6, atol=0)
        torch.testing.assert_close(found, expected, rtol=0, atol=0.04 * float(expected.abs().max()))
    beyond = inverse.blocks[1, 8:, 8:]
    torch.testing.assert_close(beyond, torch.eye(24, dtype=torch.float64))


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_solves_block_by_block(rng, fit_intercept):
    X, y = chained(rng, 500, 40)
    objective = objective_from(X + 2, y, 1e-2, fit_intercept=fit_intercept)
    inverse = built(objective)
    gradient = objective.project(torch.from_numpy(rng.normal(size=(1, 1, 41))))
    solved = inverse.solve(gradient)
    centred = gradient[0, 0, :-1] - inverse.centre[0, 0] * gradient[0, 0, -1]
    expected = [inverse.blocks[0] @ centred[:32], inverse.blocks[1, :8, :8] @ centred[32:]]
    torch.testing.assert_close(solved[0, 0, :-1], torch.cat(expected), rtol=1e-12, atol=1e-14)
    assert inverse.take(torch.tensor([True])) is inverse


def test_fewer_products_where_neighbours_correlate(rng):
    X, y = chained(rng, 2_000, 100)
    objective = objective_from(X, y, 1e-4)
    gradient = objective.value_gradient(objective.zeros(), objective.all_lanes()).gradient
    diagonal = CentredDiagonal().build(objective, objective.zeros(), objective.all_lanes())
    assert 2 * products(objective, built(objective), gradient) <= products(objective, diagonal, gradient)


def test_independent_columns_keep_the_diagonal(rng):
    X = rng.normal(size=(2_000, 100))
    objective = objective_from(X, (X[:, 0] + rng.logistic(size=2_000) > 0).astype(int), 1e-4)
    assert type(built(objective)) is CentredInverse


def test_what_two_rare_columns_share_by_chance_is_not_believed(rng):
    """Each has the same two rows, so that they correlate by one in the sample: two rows prove nothing."""
    X = rng.normal(size=(1_000, 40))
    X[:, 20:22] = 0.0
    X[:2, 20:22] = 1.0
    objective = objective_from(X, (X[:, 0] + rng.logistic(size=1_000) > 0).astype(int), 1e-4)
    assert type(built(objective)) is CentredInverse


def test_rare_columns_that_the_sample_misses_are_not_taken_for_constants(rng):
    """Each is zero in all rows that are looked at, so that they would all be alike."""
    X, _ = chained(rng, 4_000, 64)
    X[:, 32:] = 0.0
    looked_at = np.arange(0, 4_000, 4_000 // 1_024)
    others = np.setdiff1d(np.arange(4_000), looked_at)
    for j in range(32, 64):
        X[rng.choice(others, 5), j] = 1.0
    inverse = built(objective_from(X, (X[:, 0] + rng.logistic(size=4_000) > 0).astype(int), 1e-4))
    rare = inverse.blocks[1]
    assert float((rare - torch.diag(rare.diagonal())).abs().max()) < 0.01 * float(rare.diagonal().min())
    assert float((inverse.blocks[0] - torch.diag(inverse.blocks[0].diagonal())).abs().max()) > 1.0


def test_equal_constant_and_far_columns(rng):
    X, y = chained(rng, 400, 40)
    X[:, 1], X[:, 2], X[:, 3] = X[:, 0], 1.0, -X[:, 0]
    X[:, 4:] *= np.logspace(-30, 30, 36)
    for l2 in (0.0, 1e-2):
        objective = objective_from(X, y, l2)
        inverse = built(objective)
        assert isinstance(inverse, CentredBlocks)
        assert bool(torch.isfinite(inverse.blocks).all())
        root = inverse.blocks.diagonal(dim1=1, dim2=2).sqrt()
        unit = inverse.blocks / root[:, None] / root[:, :, None]
        assert float(torch.linalg.eigvalsh(unit).min()) > 0


def test_rows_that_do_not_count_are_not_looked_at(rng):
    X, y = chained(rng, 600, 40)
    weight = torch.ones(600, dtype=torch.float64)
    weight[::3] = 0.0
    weight[1::3] = 2.0
    kept = weight > 0
    unseen = X.copy()
    unseen[::3] = 1e200
    whole = built(objective_from(unseen, y, 1e-2, weight=weight))
    alone = built(objective_from(X[kept.numpy()], y[kept.numpy()], 1e-2, weight=weight[kept]))
    assert isinstance(whole, CentredBlocks)
    torch.testing.assert_close(whole.blocks, alone.blocks, rtol=1e-5, atol=1e-6 * float(alone.blocks.abs().max()))
    assert type(built(objective_from(X, y, 1e-2, weight=(torch.arange(600) == 5).double()))) is CentredInverse


def test_away_from_zero_the_diagonal_is_that_of_the_point(rng):
    X, y = chained(rng, 500, 40)
    objective = objective_from(X, y, 1e-2)
    u = torch.from_numpy(rng.normal(size=(1, 1, 41))) / 4
    diagonal, _ = objective.centred_diagonal(u, objective.all_lanes())
    found = torch.linalg.inv(built(objective, u).blocks[0]).diagonal()
    torch.testing.assert_close(found, diagonal[0, 0, :32], rtol=1e-9, atol=0)


def test_around_them_directions_are_used_again(rng):
    X, y = chained(rng, 500, 40)
    objective = objective_from(X, y, 1e-3)
    lanes, plain = objective.all_lanes(), built(objective)
    gradient = objective.value_gradient(objective.zeros(), lanes).gradient
    tolerance = torch.full((1,), 1e-3, dtype=torch.float64)
    solved = newton_path(objective, objective.zeros(), lanes, gradient, plain.solve, tolerance, 20, kept=20)
    recycled = Recycled.of(plain, solved.pairs)
    assert isinstance(recycled, Recycled)
    assert recycled.around is plain


def test_the_same_optimum_for_any_number_of_threads(rng):
    X, y = chained(rng, 3_000, 600)
    models = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        models.append(LogisticRegression(tol=1e-9).fit(X, y))
    torch.set_num_threads(1)
    assert all(model.plan_.preconditioner == "block diagonal of the Hessian" for model in models)
    assert all(model.converged_ for model in models)
    np.testing.assert_allclose(models[0].coef_, models[1].coef_, rtol=0, atol=1e-7)


def test_fewer_rows_than_columns_keep_the_diagonal(rng):
    X, y = chained(rng, 900, 1_600)
    model = LogisticRegression(C=0.01).fit(X, y)
    assert model.plan_.preconditioner == "diagonal of the Hessian"
    assert model.converged_


# -- columns that have something in common wherever they are ----------------------------------------------------------


def led(rng, rows, columns, factors=4):
    """All columns follow a few that are not seen; two classes."""
    X = rng.normal(size=(rows, columns)) + 2 * rng.normal(size=(rows, factors)) @ rng.normal(size=(factors, columns))
    return X, (X[:, 0] - X[:, -1] + rng.logistic(size=rows) > 0).astype(int)


def test_columns_that_correlate_far_apart_are_one_block(rng):
    X, y = led(rng, 3_000, 100)
    objective = objective_from(X * 3 + 1, y, 1e-4)
    gradient = objective.value_gradient(objective.zeros(), objective.all_lanes()).gradient
    inverse = built(objective, far=True)
    assert isinstance(inverse, CentredBlocks)
    assert inverse.blocks.shape == (1, 100, 100)
    whole = objective.hessian(objective.zeros(), objective.all_lanes())[0, :-1, :-1]
    root = torch.linalg.cholesky(whole)
    # From a tenth of the rows, three for each column; the four that lead have 70 times the curvature of others.
    found = torch.linalg.eigvalsh(root.T @ inverse.blocks[0].to(torch.float64) @ root)
    assert float(found.max()) < 15 * float(found.min())
    near = built(objective)
    assert near.blocks.shape == (4, COLUMNS, COLUMNS)
    assert 2 * products(objective, inverse, gradient) < products(objective, near, gradient)


def test_one_block_of_all_solves_as_it_says(rng):
    X, y = led(rng, 1_000, 40)
    objective = objective_from(X + 2, y, 1e-2)
    inverse = built(objective, far=True)
    gradient = torch.from_numpy(rng.normal(size=(1, 1, 41)))
    centred = gradient[0, 0, :-1] - inverse.centre[0, 0] * gradient[0, 0, -1]
    solved = inverse.solve(gradient)[0, 0, :-1]
    assert solved.dtype == torch.float64
    torch.testing.assert_close(solved, inverse.blocks[0].to(torch.float64) @ centred, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("columns", [100, 300, 600])
@pytest.mark.parametrize("weighted", [False, True])
def test_correlations_of_all_columns_are_those_of_the_rows(rng, monkeypatch, weighted, columns):
    monkeypatch.setattr(block_diagonal, "_MOST_READS", 1e9)
    X, y = led(rng, 3 * columns, columns)  # three for each column: all are looked at
    weight = torch.from_numpy(rng.exponential(size=3 * columns)) if weighted else None
    objective = objective_from(X, y, 1e-3, weight=weight)
    found, left = block_diagonal._of_all(objective, objective.all_lanes())
    expected = np.cov(X.T, aweights=None if weight is None else weight.numpy(), ddof=0)
    deviation = np.sqrt(np.diag(expected))
    expected = expected / deviation / deviation[:, None] - np.eye(columns)
    np.testing.assert_allclose(found[0] / left[0], expected, rtol=0, atol=1e-5)
    assert 0.9 < float(left[0]) < 1


def test_one_block_of_all_is_left_where_it_costs_too_much_or_nothing_is_far(rng):
    X, y = led(rng, 300, 290)  # of which only a few rows could be afforded
    objective = objective_from(X, y, 1e-3)
    assert not block_diagonal._reach_far(objective, objective.all_lanes(), torch.zeros(1, 32, 32))
    X, y = chained(rng, 3_000, 100, 0.6)
    objective = objective_from(X, y, 1e-3)
    near, _ = block_diagonal._correlations(objective, objective.all_lanes())
    assert not block_diagonal._reach_far(objective, objective.all_lanes(), near)


def test_columns_that_are_equal_far_apart(rng):
    X, y = led(rng, 2_000, 80)
    X[:, 70:] = X[:, :10]
    for l2 in (1e-6, 1e-2):
        inverse = built(objective_from(X, y, l2), far=True)
        assert inverse.blocks.shape == (1, 80, 80)
        assert float(torch.linalg.eigvalsh(inverse.blocks[0].to(torch.float64)).min()) > 0


@pytest.mark.parametrize("size", [1, 5, 256, 300, 700])
def test_inverse_in_its_own_memory(rng, size):
    rows = rng.normal(size=(3 * size, size))
    matrix = torch.from_numpy(rows.T @ rows / len(rows)).to(torch.float32)
    before, address = matrix.clone(), matrix.data_ptr()
    found = inverted(matrix)
    assert found.data_ptr() == address
    torch.testing.assert_close(found @ before, torch.eye(size), rtol=0, atol=1e-3)
    assert torch.equal(found, found.T)
    assert inverted(-torch.eye(size)) is None
