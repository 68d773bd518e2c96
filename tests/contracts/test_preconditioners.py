"""An inverse curvature is symmetric, positive where the objective sees anything, and close to the inverse it names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from contracts.problems import (
    FOR_MANY_CLASSES,
    PRECONDITIONERS,
    ROUNDED,
    classification,
    objective_from,
    sparse_rows,
)
from torchlogit import LogisticRegression, class_curvature, hessian_factors
from torchlogit.class_curvature import ClassCholesky
from torchlogit.hessian_factors import HessianCholesky, PassingHessian, RoundedHessian
from torchlogit.journal import SweepJournal
from torchlogit.leading import leading_directions
from torchlogit.preconditioners import GramEigenbasis, HessianDiagonal
from torchlogit.sources import MemorySource


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


@pytest.mark.parametrize("l2", [0.0, 1e-6])
def test_a_hessian_in_float32_is_exact_where_rounding_would_hide_a_direction(rng, l2):
    X, y = classification(rng, 300, 6)
    for close in (False, True):
        if close:
            X = np.column_stack([X, X[:, 0] + 1e-5 * X[:, 0].std() * rng.normal(size=300)])
        objective = objective_from(X, y, l2)
        u, lanes = _at(rng, objective)
        found = RoundedHessian().build(objective, u, lanes)
        whole = HessianCholesky().build(objective, u, lanes)
        assert found.exact == close
        P, exact = (_matrix(inverse, u.shape) for inverse in (found, whole))
        assert torch.equal(P, exact) == close
        assert float((P - exact).abs().max()) < 1e-4 * float(exact.abs().max())


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
    monkeypatch.setattr(hessian_factors, "coarse_dtype", lambda: torch.bfloat16 if native else torch.float32)
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
        monkeypatch.setattr(hessian_factors, "coarse_dtype", lambda dtype=dtype: asked.append(dtype) or dtype)
        model = LogisticRegression(tol=1e-10).fit(X, y)
        assert model.converged_
        found.append(model)
    assert set(asked) == {torch.bfloat16, torch.float32}  # the diagonal was not enough
    np.testing.assert_allclose(found[0].coef_, found[1].coef_, rtol=0, atol=1e-8)


def _decaying(rng, n=600, p=150, classes=6, few=12):
    """Rows of which ``few`` directions hold nearly everything; columns of many scales, far from zero."""
    spectrum = np.where(np.arange(p) < few, 3.0, 0.03)
    X = (rng.normal(size=(n, p)) * spectrum) @ np.linalg.qr(rng.normal(size=(p, p)))[0] + 5.0
    y = ((X - 5.0) @ rng.normal(size=(p, classes)) / 5 + rng.gumbel(size=(n, classes))).argmax(1)
    return X * np.geomspace(0.5, 2, p), y


def _own_blocks(objective, u, lanes, v):
    """``v (1, K, D)`` times each class's own block of the second derivative."""
    whole, D = objective.hessian(u, lanes)[0], objective.width
    parts = [whole[k * D : (k + 1) * D, k * D : (k + 1) * D] @ v[0, k] for k in range(v.shape[1])]
    return torch.stack(parts)[None]


def test_leading_directions_are_those_that_bend(rng):
    basis, D = np.linalg.qr(rng.normal(size=(60, 60)))[0], 61
    values = np.where(np.arange(60) < 9, np.geomspace(100, 0.1, 60), 1e-3)
    ridge = np.geomspace(0.1, 10, 60)
    root = np.sqrt(ridge)
    block = np.zeros((D, D))
    block[:-1, :-1] = (np.eye(60) + (basis * values) @ basis.T) * root * root[:, None]
    block[-1, -1] = 2.0
    block, metric = torch.from_numpy(block), torch.from_numpy(ridge)
    leading = leading_directions(block, metric)
    assert leading.basis.shape == (D, 10)
    columns = leading.basis[:-1, :-1]
    # Orthonormal in the penalty's metric, and the intercept apart.
    torch.testing.assert_close(columns.T @ (metric[:, None] * columns), torch.eye(9, dtype=torch.float64))
    assert leading.basis[-1].tolist() == [0.0] * 9 + [1.0]
    # What is solved along them and left to the penalty beyond is the inverse, but for what was too small to notice.
    inner = torch.linalg.inv(leading.basis.T @ block @ leading.basis)
    gradient = torch.from_numpy(rng.normal(size=(3, D)))
    solved = leading.solve(gradient, lambda along: along @ inner)
    torch.testing.assert_close(solved @ block, gradient, rtol=0, atol=2e-3 * float(gradient.abs().max()))
    # Without an intercept there is none among the directions.
    block[-1, -1] = 0.0
    assert not leading_directions(block, metric).basis[-1].any()


@pytest.mark.parametrize("many", [20, 21, 60])
def test_directions_that_are_not_few_do_not_lead(rng, many):
    basis = np.linalg.qr(rng.normal(size=(60, 60)))[0]
    block = np.eye(61)
    block[:-1, :-1] += (basis * np.where(np.arange(60) < many, 0.06, 0.04)) @ basis.T
    leading = leading_directions(torch.from_numpy(block), torch.ones(60, dtype=torch.float64))
    assert (leading is None) == (many > 20)
    # A block whose columns are apart is told by every other column.
    block = np.diag(np.where(np.arange(61) < many, 1.06, 1.04))
    assert (leading_directions(torch.from_numpy(block), torch.ones(60, dtype=torch.float64)) is None) == (many > 20)


@pytest.mark.parametrize("ridge", [0.0, 1e-50, 1e300])
def test_no_directions_lead_where_float32_has_no_penalty(ridge):
    penalty = torch.ones(60, dtype=torch.float64)
    penalty[7] = ridge
    block = torch.diag(torch.cat([1.01 * penalty, penalty.new_ones(1)])).float()
    assert leading_directions(block, penalty.float()) is None
    assert leading_directions(torch.eye(61), torch.ones(60)) is not None


@pytest.mark.parametrize(
    "case", ["dense", "sparse", "float32", "weights", "no intercept", "offset", "a row that does not count"]
)
def test_few_directions_stand_for_whole_blocks(rng, case, monkeypatch):
    X, y = _decaying(rng)
    weight, offset = None, None
    if case in ("weights", "a row that does not count"):
        weight = rng.uniform(0.5, 2, len(y))
    if case == "a row that does not count":
        X[5], weight[5] = 1e200, 0.0
    if case == "offset":
        offset = rng.normal(size=(len(y), 6))
    objective = objective_from(X, y, 0.1, weight, offset, fit_intercept=case != "no intercept")
    (block,) = objective.source.parts
    if case == "sparse":
        objective = objective.on(MemorySource(replace(block, dense=None, sparse=sparse_rows(X))))
    elif case == "float32":
        objective = objective.on(MemorySource(replace(block, dense=block.dense.float())))
    u, lanes = _at(rng, objective, 0.05)
    monkeypatch.setattr(class_curvature, "_ROWS_PER_COLUMN", 10)  # all of them
    few = ClassCholesky(objective.source).build(objective, u, lanes)
    # Without an intercept, rows far from zero share one direction more.
    assert few.lanes[0].inverse.shape == ((6, 14, 14) if case == "no intercept" else (6, 13, 13))
    v = objective.project(torch.from_numpy(rng.normal(size=tuple(u.shape))))
    solved = few.solve(_own_blocks(objective, u, lanes, v))
    # Rows far from zero bend one direction 1e4 times more, beside which float32 has few digits, as in whole blocks.
    share = 0.2 if case == "no intercept" else 0.05
    torch.testing.assert_close(solved, v, rtol=0, atol=share * float(v.abs().max()))
    # Symmetric and positive, as every other.
    second = objective.project(torch.from_numpy(rng.normal(size=tuple(u.shape))))
    across = float((few.solve(v) * second).sum())
    assert across == pytest.approx(float((few.solve(second) * v).sum()), rel=1e-5)
    assert float((few.solve(v) * v).sum()) > 0
    # The first point, where all classes are alike, has the whole block; what leads is known from then on.
    blocks = ClassCholesky(objective.source)
    assert blocks.build(objective, objective.zeros(), lanes).lanes[0].leading is None or case == "offset"
    again = blocks.build(objective, u, lanes)
    assert torch.equal(again.solve(v), few.solve(v))


def test_each_lane_has_its_own_leading_directions(rng, monkeypatch):
    X, y = _decaying(rng)
    objective = objective_from(X, y, (1.0, 1e-9))
    u, lanes = _at(rng, objective, 0.05)
    inverse = ClassCholesky(objective.source).build(objective, u, lanes)
    assert [lane.leading is None for lane in inverse.lanes] == [False, True]
    for i in range(2):
        alone = ClassCholesky(objective.source).build(objective, u[i : i + 1], lanes[i : i + 1])
        torch.testing.assert_close(alone.solve(u[i : i + 1]), inverse.solve(u)[i : i + 1], rtol=1e-5, atol=1e-6)
    assert [lane.leading is None for lane in inverse.take(torch.tensor([False, True])).lanes] == [True]


@pytest.mark.parametrize("C", [1e-3, 1.0, 30.0])
def test_fits_along_few_directions_end_where_others_do(rng, C, monkeypatch):
    X, y = _decaying(rng, few=8)
    fitted = LogisticRegression(C=C, tol=1e-8).fit(X, y)
    monkeypatch.setattr(class_curvature, "_LEADING_COLUMNS", 10_000)
    whole = LogisticRegression(C=C, tol=1e-8).fit(X, y)
    assert fitted.converged_
    assert whole.converged_
    np.testing.assert_allclose(fitted.coef_, whole.coef_, rtol=0, atol=1e-6 * np.abs(whole.coef_).max())


@pytest.mark.parametrize("returns", [False, True])
def test_blocks_are_built_where_the_last_ones_were_unless_a_fit_may_return_there(rng, returns):
    X, y = classification(rng, 200, 4, 3)
    objective = objective_from(X, y, (1e-2, 1e-1))
    if returns:
        objective = replace(objective, journal=SweepJournal(lambda whole: None))
    blocks, (first, lanes), (second, _) = ClassCholesky(objective.source), _at(rng, objective), _at(rng, objective)
    before = blocks.build(objective, first, lanes)
    known = [lane.inverse.clone() for lane in before.lanes]
    after = blocks.build(objective, second, lanes)
    fresh = ClassCholesky(objective.source).build(objective, second, lanes)
    for i in range(2):
        assert torch.equal(after.lanes[i].inverse, fresh.lanes[i].inverse)
        assert (before.lanes[i].inverse.data_ptr() == after.lanes[i].inverse.data_ptr()) != returns
        assert torch.equal(before.lanes[i].inverse, known[i]) == returns
    assert len({lane.inverse.data_ptr() for lane in after.lanes}) == 2


def test_blocks_are_inverted_where_they_are(rng):
    """Those of columns that are all but equal, which float32 cannot tell apart, are positive all the same."""
    rows = torch.from_numpy(rng.normal(size=(3, 50, 12)))
    rows[1, :, 3] = rows[1, :, 4] + 1e-6 * rows[1, :, 3]
    rows[2, :, 5] = 0
    blocks = (rows.mT @ rows).to(torch.float32)
    before = blocks.to(torch.float64)
    scale, inverse = class_curvature._inverse(blocks)
    assert inverse.data_ptr() == blocks.data_ptr()
    assert torch.equal(inverse, inverse.mT)
    assert float(torch.linalg.eigvalsh(inverse.to(torch.float64)).min()) > 0.1
    for k in (0, 2):
        unit = (before[k] / scale[k] / scale[k][:, None]).fill_diagonal_(1.0)
        torch.testing.assert_close(unit @ inverse[k].to(torch.float64), torch.eye(12).double(), rtol=0, atol=3e-6)
