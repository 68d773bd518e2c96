"""Products around the diagonal: before a matrix, until they turn out to be many, and where there can be none."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from contracts.problems import objective_from
from torchlogit import LogisticRegression, plan
from torchlogit.plan import choose
from torchlogit.problem import FitOptions
from torchlogit.solvers.lbfgs import LBFGSState
from torchlogit.solvers.newton import NewtonState
from truth.newton_reference import optimum

SEVERAL = pytest.mark.parametrize("classes", [2, 3])


def embeddings(rng, rows, columns, classes):
    """Rows of unit length whose spectrum decays, in float32."""
    spread = 1 / np.sqrt(1 + np.arange(columns))
    turned = np.linalg.qr(rng.normal(size=(columns, columns)))[0]
    y = np.arange(rows) % classes
    X = ((rng.normal(size=(classes, columns)) * spread)[y] + rng.normal(size=(rows, columns)) * spread) @ turned
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32), y


def neighbours(rng, rows, columns, classes):
    """Columns that are nearly the one before."""
    X = rng.normal(size=(rows, columns))
    for j in range(1, columns):
        X[:, j] = 0.99 * X[:, j - 1] + 0.14 * X[:, j]
    return X, (X @ rng.normal(size=(columns, classes)) / columns + rng.gumbel(size=(rows, classes))).argmax(1)


def stages(objective):
    """Which link of the solver's chain each step of a fit is from."""
    solver = choose(objective, FitOptions(tol=1e-8), "torch", False).solver
    state = solver.init(objective, objective.zeros(), objective.all_lanes())
    found = [solver.stage - state.stage]
    while float(state.kkt) > 1e-8 and len(found) < 60:
        state = solver.step(objective, state)
        assert isinstance(state, NewtonState)
        found.append(solver.stage - state.stage)
    assert float(state.kkt) <= 1e-8
    return found


@SEVERAL
@pytest.mark.parametrize("C", [1.0, 100.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_embeddings_end_at_the_optimum(rng, classes, C, weighted):
    X, y = embeddings(rng, 300, 210, classes)
    weight = rng.integers(0, 3, len(y)).astype(float) if weighted else None
    model = LogisticRegression(C=C, tol=1e-8).fit(X, y, weight)
    assert model.plan_.preconditioner == "diagonal of the Hessian"
    assert model.converged_
    total = len(y) if weight is None else weight.sum()
    best = optimum(X.astype(float), y, 1 / (C * total), weight=weight)
    assert model.objective_ == pytest.approx(best.objective, rel=1e-12)
    again = LogisticRegression(C=C, tol=1e-8).fit(X, y, weight)
    assert np.array_equal(model.coef_, again.coef_)


def test_easy_rows_need_no_matrix(rng):
    X, y = embeddings(rng, 400, 300, 3)
    assert set(stages(objective_from(X.astype(float), y, 1e-3))) == {0}
    X, y = embeddings(rng, 400, 300, 2)  # whose matrix costs six products, fewer than a certificate may take
    assert stages(objective_from(X.astype(float), y, 1e-3))[:3] == [0, 0, 0]


@SEVERAL
def test_columns_that_correlate_take_the_matrix(rng, classes):
    X, y = neighbours(rng, 450, 210, classes)
    found = stages(objective_from(X, y, 1e-5))
    assert found == sorted(found)
    assert found[-1] > 0
    model = LogisticRegression(C=1 / (450 * 1e-5), tol=1e-8).fit(X, y)
    assert model.converged_
    assert model.objective_ == pytest.approx(optimum(X, y, 1e-5).objective, rel=1e-11)


def test_one_product_cannot_be_worth_a_matrix_of_few_columns(rng):
    X, y = embeddings(rng, 400, 60, 2)
    assert LogisticRegression().fit(X, y).plan_.preconditioner == "Cholesky factor of the Hessian"


def test_without_a_penalty_nothing_is_tried(rng):
    X, y = rng.normal(size=(1500, 220)), rng.integers(0, 2, 1500)
    model = LogisticRegression(C=np.inf).fit(X, y)
    assert model.plan_.preconditioner == "Cholesky factor of the Hessian"


def one_hot(rng, rows, sizes, classes):
    """Fields of so many values each, a column a value, in sparse rows."""
    first, fields = np.cumsum(sizes) - sizes, [rng.zipf(1.5, rows) % size for size in sizes]
    columns = np.stack([start + field for start, field in zip(first, fields, strict=True)], 1)
    ends = np.arange(0, columns.size + 1, len(sizes))
    X = scipy.sparse.csr_array((np.ones(columns.size), columns.ravel(), ends), shape=(rows, sum(sizes)))
    return X, (X @ rng.normal(size=(X.shape[1], classes)) + rng.gumbel(size=(rows, classes))).argmax(1)


@SEVERAL
@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_too_many_columns_for_a_matrix(rng, monkeypatch, classes, few, weighted):
    """Products at once for many classes and for few numbers, else gradients until they are slow."""
    monkeypatch.setattr(plan, "_LARGEST_MATRIX", 60)
    monkeypatch.setattr(plan, "_FEW_STORED", np.inf if few else 0.0)
    X, y = one_hot(rng, 500, [3, 90, 40, 12], classes)
    weight = rng.integers(1, 4, len(y)).astype(float) if weighted else None
    model = LogisticRegression(C=30.0, tol=1e-8).fit(X, y, weight)
    assert model.plan_.solver == ("lbfgs" if classes == 2 and not few else "newton")
    assert model.plan_.preconditioner == "diagonal of the Hessian"
    assert model.converged_
    total = len(y) if weight is None else weight.sum()
    best = optimum(X.toarray(), y, 1 / (30 * total), weight=weight)
    assert model.objective_ == pytest.approx(best.objective, rel=1e-12)


def test_gradients_that_are_slow_give_way_to_products(rng, monkeypatch):
    monkeypatch.setattr(plan, "_LARGEST_MATRIX", 60)
    monkeypatch.setattr(plan, "_FEW_STORED", 0.0)
    X, y = one_hot(rng, 500, [3, 90, 40, 12], 2)
    objective = objective_from(X.toarray(), y, 1e-5)
    solver = choose(objective, FitOptions(tol=1e-8), "torch", False).solver
    state = solver.init(objective, objective.zeros(), objective.all_lanes())
    kinds = [type(state)]
    while float(state.kkt) > 1e-8 and len(kinds) < 80:
        state = solver.step(objective, state)
        kinds.append(type(state))
    assert float(state.kkt) <= 1e-8
    assert kinds[0] is LBFGSState
    assert kinds[-1] is NewtonState
