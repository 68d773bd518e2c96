"""An inverse curvature is symmetric, positive where the objective sees anything, and close to the inverse it names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts.problems import FOR_MANY_CLASSES, PRECONDITIONERS, ROUNDED, classification, objective_from
from torchlogit import LogisticRegression, preconditioners
from torchlogit.class_curvature import ClassCholesky
from torchlogit.preconditioners import GramEigenbasis, HessianCholesky, HessianDiagonal, PassingHessian


def _at(rng, objective, scale=0.5):
    u = objective.project(torch.from_numpy(scale * rng.normal(size=tuple(objective.zeros().shape))))
    return u, objective.all_lanes()


def _matrix(inverse, shape):
    """P written out, ``(S, S)``."""
    size = shape[1] * shape[2]
    columns = [inverse.solve(e.reshape(shape)).reshape(-1) for e in torch.eye(size, dtype=torch.float64)]
    return torch.stack(columns, 1)


def _projector(objective, shape):
    size = shape[1] * shape[2]
    return torch.stack(
        [objective.project(e.reshape(shape)).reshape(-1) for e in torch.eye(size, dtype=torch.float64)], 1
    )


@pytest.mark.parametrize("name", sorted(PRECONDITIONERS))
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_symmetric_and_positive(rng, name, classes, fit_intercept):
    if name in FOR_MANY_CLASSES and classes == 2:
        pytest.skip("made for many classes")
    X, y = classification(rng, 200, 4, classes)
    objective = objective_from(X, y, 1e-3, fit_intercept=fit_intercept)
    u, lanes = _at(rng, objective)
    P = _matrix(PRECONDITIONERS[name](objective).build(objective, u, lanes), u.shape)
    visible = _projector(objective, u.shape)
    P = visible @ P @ visible
    rounding = 1e-6 if name in ROUNDED else 1e-10
    torch.testing.assert_close(P, P.T, rtol=0, atol=rounding * float(P.abs().max()))
    values = torch.linalg.eigvalsh(P)
    rank = int(torch.linalg.matrix_rank(visible))
    assert int((values > 10 * rounding * values[-1]).sum()) == rank
    assert float(values[0]) > -rounding * float(values[-1])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("l2", [0.0, 1e-2])
def test_cholesky_is_the_inverse(rng, classes, fit_intercept, l2):
    X, y = classification(rng, 200, 4, classes)
    objective = objective_from(X, y, l2, fit_intercept=fit_intercept)
    u, lanes = _at(rng, objective)
    inverse = HessianCholesky().build(objective, u, lanes)
    assert inverse.exact
    v = objective.project(torch.from_numpy(rng.normal(size=tuple(u.shape))))
    bent = objective.curvature_product(u, v, lanes)
    torch.testing.assert_close(objective.project(inverse.solve(bent)), v, rtol=1e-8, atol=1e-9)


def test_hessian_diagonal_is_the_inverse_of_the_diagonal(rng):
    X, y = classification(rng, 200, 4)
    objective = objective_from(X, y, 1e-2)
    u, lanes = _at(rng, objective)
    diagonal = objective.hessian(u, lanes).diagonal(dim1=1, dim2=2).reshape(u.shape)
    solved = HessianDiagonal().build(objective, u, lanes).solve(torch.ones_like(u))
    torch.testing.assert_close(solved, 1 / diagonal, rtol=1e-9, atol=0)


def test_eigenbasis_inverts_a_class_at_the_null_model(rng):
    """There all rows bend alike, and the class's own curvature is diagonal in the basis."""
    X, y = classification(rng, 200, 4, 3)
    objective = objective_from(X, y, 0.0)
    u, lanes = objective.zeros(), objective.all_lanes()
    inverse = GramEigenbasis(objective.source).build(objective, u, lanes)
    whole = objective.hessian(u, lanes)[0]
    D = objective.width
    v = objective.project(torch.from_numpy(rng.normal(size=tuple(u.shape))))
    blocks = torch.stack([whole[k * D : (k + 1) * D, k * D : (k + 1) * D] @ v[0, k] for k in range(3)])[None]
    torch.testing.assert_close(inverse.solve(blocks), v, rtol=1e-7, atol=1e-8)


def test_class_blocks_are_inverted(rng):
    """With all rows in them, up to the jitter that keeps a factor possible."""
    X, y = classification(rng, 200, 4, 3)
    objective = objective_from(X, y, 1e-2)
    u, lanes = _at(rng, objective)
    preconditioner = ClassCholesky(objective.source)
    assert preconditioner.rows(objective) < len(y)
    whole = objective.hessian(u, lanes)[0]
    D = objective.width
    v = objective.project(torch.from_numpy(rng.normal(size=tuple(u.shape))))
    blocks = torch.stack([whole[k * D : (k + 1) * D, k * D : (k + 1) * D] @ v[0, k] for k in range(3)])[None]
    thinned = preconditioner.build(objective, u, lanes).solve(blocks)
    torch.testing.assert_close(thinned, v, rtol=0, atol=0.6 * float(v.abs().max()))
    X, y = X[: preconditioner.rows(objective)], y[: preconditioner.rows(objective)]
    objective = objective_from(X, y, 1e-2)
    whole = objective.hessian(u, lanes)[0]
    blocks = torch.stack([whole[k * D : (k + 1) * D, k * D : (k + 1) * D] @ v[0, k] for k in range(3)])[None]
    exact = ClassCholesky(objective.source).build(objective, u, lanes).solve(blocks)
    torch.testing.assert_close(exact, v, rtol=0, atol=1e-3 * float(v.abs().max()))


@pytest.mark.parametrize("classes", [2, 3])
def test_products_at_one_point_may_keep_what_the_rows_bend(rng, classes, monkeypatch):
    X, y = classification(rng, 200, 4, classes)
    objective = objective_from(X, y, 1e-2)
    u, lanes = _at(rng, objective)
    first, second = (_at(rng, objective)[0] for _ in range(2))
    product = objective.curvature_at(u, lanes)
    kept = [product(first), product(second)]
    monkeypatch.setattr("torchlogit.objective._KEPT_BYTES", 0)
    product = objective.curvature_at(u, lanes)
    assert torch.equal(product(first), kept[0])
    assert torch.equal(product(second), kept[1])


@pytest.mark.parametrize("case", ["duplicated", "collinear", "constant", "more columns than rows"])
def test_directions_without_curvature_are_left_alone(rng, case):
    X, y = classification(rng, 60, 3)
    if case == "duplicated":
        X = np.column_stack([X, X[:, 0]])
    elif case == "collinear":
        X = np.column_stack([X, 3 * X[:, 0] - 0.1 * X[:, 1] + 7])
    elif case == "constant":
        X = np.column_stack([X, np.full(len(X), 4.0)])
    else:
        X, y = rng.normal(size=(12, 30)), np.arange(12) % 2
    objective = objective_from(X, y, 0.0)
    u, lanes = objective.zeros(), objective.all_lanes()
    inverse = HessianCholesky().build(objective, u, lanes)
    gradient = objective.value_gradient(u, lanes).gradient
    step = inverse.solve(gradient)
    assert torch.isfinite(step).all()
    # It solves the system on what the rows can see, and moves nothing else.
    torch.testing.assert_close(objective.curvature_product(u, step, lanes), gradient, rtol=1e-8, atol=1e-10)
    assert float(step.abs().max()) < 100
    hidden = inverse.hidden(0)
    if hidden is not None:
        bent = objective.hessian(u, lanes)[0] @ (hidden / hidden.abs().amax(0))
        assert float(bent.abs().max()) < 1e-8


def test_take_keeps_the_chosen_lanes(rng):
    X, y = classification(rng, 80, 3, 3)
    objective = objective_from(X, y, [1e-3, 1e-2, 1e-1])
    u, lanes = _at(rng, objective)
    gradient = torch.from_numpy(rng.normal(size=tuple(u.shape)))
    keep = torch.tensor([True, False, True])
    for build in PRECONDITIONERS.values():
        inverse = build(objective).build(objective, u, lanes)
        torch.testing.assert_close(inverse.take(keep).solve(gradient[keep]), inverse.solve(gradient)[keep])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_hessian_of_one_read_with_the_gradient(rng, classes, fit_intercept):
    X, y = classification(rng, 300, 5, classes)
    objective = objective_from(3 * X + 1, y, 1e-3, fit_intercept=fit_intercept)
    u, lanes = _at(rng, objective)
    before = objective.effort.passes
    evaluation, inverse = PassingHessian(objective.source).evaluate(objective, u, lanes)
    assert objective.effort.passes - before == 1
    alone = objective.value_gradient(u, lanes)
    torch.testing.assert_close(evaluation.value, alone.value, rtol=0, atol=0)
    torch.testing.assert_close(evaluation.gradient, alone.gradient, rtol=0, atol=0)
    exact = HessianCholesky().build(objective, u, lanes)
    P, wanted = _matrix(inverse, u.shape), _matrix(exact, u.shape)
    visible = _projector(objective, u.shape)
    P, wanted = visible @ P @ visible, visible @ wanted @ visible
    torch.testing.assert_close(P, wanted, rtol=0, atol=1e-3 * float(wanted.abs().max()))


@pytest.mark.parametrize("native", [True, False])
def test_coarse_products_shape_steps_and_prove_nothing(rng, native, monkeypatch):
    """In bfloat16 the inverse is right to a few per cent, without a bound; collinear columns fall back to float32."""
    monkeypatch.setattr(preconditioners, "coarse_dtype", lambda: torch.bfloat16 if native else torch.float32)
    X = rng.normal(size=(3000, 520)) * 10.0 ** rng.uniform(-2, 2, 520)
    X[:, 1:] += 0.3 * X[:, :1] / X[:, :1].std() * X.std(0)[1:]
    y = (rng.random(3000) < 0.3).astype(int)
    objective = objective_from(X, y, 1e-2)
    u, lanes = _at(rng, objective, 0.02)
    hessian = objective.hessian(u, lanes)[0]
    inverse = HessianCholesky(rounded=True, coarse=True).build(objective, u, lanes)
    assert (inverse.bound is None) == native
    assert not inverse.exact
    gradient = torch.from_numpy(rng.normal(size=tuple(u.shape)))
    wanted = torch.linalg.solve(hessian, gradient.reshape(-1))
    error = (inverse.solve(gradient).reshape(-1) - wanted).norm() / wanted.norm()
    assert (1e-5 if native else 0.0) < float(error) < (0.05 if native else 1e-4)

    X[:, 5] = X[:, 4] + 0.05 * X[:, 4].std() * rng.normal(size=3000)
    objective = objective_from(X, y, 1e-4)
    assert HessianCholesky(rounded=True, coarse=True).build(objective, u, lanes).bound is not None


def test_coarse_products_leave_the_optimum_where_it_is(rng, monkeypatch):
    """Same coefficients, whatever the processor: they only shape the steps."""
    X = rng.normal(size=(6000, 600))
    X[:, 1:] = 0.6 * X[:, :-1] + 0.8 * X[:, 1:]
    y = (rng.random(6000) < 1 / (1 + np.exp(-3 * X @ rng.normal(size=600) / 600**0.5))).astype(int)
    found, asked = [], []
    for dtype in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(preconditioners, "coarse_dtype", lambda dtype=dtype: asked.append(dtype) or dtype)
        model = LogisticRegression(tol=1e-10).fit(X, y)
        assert model.converged_
        found.append(model)
    assert set(asked) == {torch.bfloat16, torch.float32}  # the diagonal was not enough
    np.testing.assert_allclose(found[0].coef_, found[1].coef_, rtol=0, atol=1e-8)
