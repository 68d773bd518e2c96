"""Rows in few bits that guide a fit: what rounding does to them, and that the answer is that of the rows themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from contracts.problems import classification, objective_from
from torchlogit import LogisticRegression, guide, plan
from torchlogit.class_curvature import ClassCholesky
from torchlogit.guide import guide_for, short_guide_for
from torchlogit.kernels import NumbaKernel, TorchKernel, bfloat16, integers, shortened, torch_device
from torchlogit.kernels.quantised import quantised
from torchlogit.preconditioners import CentredDiagonal, Recycled
from torchlogit.problem import Frame
from torchlogit.solvers.conjugate_gradient import newton_path
from torchlogit.solvers.guided import Guided, GuidedState
from torchlogit.sources import MemorySource

# -- eight bits -------------------------------------------------------------------------------------------------------


def _standard(X):
    rows = torch.from_numpy(X)
    return Frame(rows.mean(0).double(), rows.double().std(0, correction=0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_the_next_multiple_of_a_step(rng, dtype):
    X = (rng.normal(size=(403, 7)) * np.logspace(-3, 3, 7) + 5 * np.logspace(-3, 3, 7)).astype(dtype)
    frame = _standard(X)
    rows, step = quantised(torch.from_numpy(X), frame)
    assert rows.dtype == torch.int8
    assert torch.equal(step, torch.full((7,), 6 / 127, dtype=torch.float64))
    exact = (torch.from_numpy(X).double() - frame.shift) / frame.scale
    assert (rows * step - exact).abs().max() <= 0.5001 * step[0]


def test_a_column_that_goes_far_has_a_longer_step(rng):
    X = rng.normal(size=(400, 3))
    X[17, 1] = 60.0
    frame = Frame(torch.zeros(3).double(), torch.ones(3).double())
    rows, step = quantised(torch.from_numpy(X), frame)
    assert rows[17, 1] == 127
    torch.testing.assert_close(step * 127, torch.tensor([6.0, 60.0, 6.0]).double(), rtol=1e-6, atol=0)
    assert (rows * step - torch.from_numpy(X)).abs().amax(0).le(0.5001 * step).all()


@pytest.fixture
def wide(rng, monkeypatch):
    """A problem of few rows that the plan takes for one of many."""
    monkeypatch.setattr(plan, "_EXACT_OPERATIONS_ALONE", 1e3)
    monkeypatch.setattr(plan, "_EXACT_OPERATIONS", 1e3)
    monkeypatch.setattr(plan, "_WORTH_LOOPS", 1e3)
    X = rng.normal(size=(600, 60))
    for j in range(1, 60):
        X[:, j] = 0.6 * X[:, j - 1] + 0.8 * X[:, j]
    X = X * np.logspace(-2, 2, 60) + rng.normal(size=60) * np.logspace(-2, 2, 60)
    y = ((X / X.std(0)) @ rng.normal(size=60) / 4 + rng.logistic(size=600) > 0).astype(int)
    return X, y


def _exact(monkeypatch):
    monkeypatch.setattr(plan, "guide_for", lambda objective: None)
    monkeypatch.setattr(plan, "short_guide_for", lambda objective: None)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_a_guided_fit_ends_where_others_do(wide, rng, monkeypatch, dtype, weighted, fit_intercept):
    X, y = wide
    X, weight = X.astype(dtype), rng.exponential(size=len(y)) if weighted else None
    model = LogisticRegression(tol=1e-9, fit_intercept=fit_intercept).fit(X, y, weight)
    assert model.converged_
    assert model.plan_.solver == "guided newton"
    assert model.plan_.warm_rows == len(y)
    assert "600 sampled or rounded rows" in repr(model.plan_)
    again = LogisticRegression(tol=1e-9, fit_intercept=fit_intercept).fit(X, y, weight)
    assert np.array_equal(model.coef_, again.coef_)
    _exact(monkeypatch)
    other = LogisticRegression(tol=1e-11, fit_intercept=fit_intercept).fit(X, y, weight)
    assert other.plan_.solver != "guided newton"
    np.testing.assert_allclose(model.coef_ * X.std(0), other.coef_ * X.std(0), atol=1e-7)
    assert model.objective_ - other.objective_ <= 1e-10 * other.objective_


def test_the_guide_is_the_problem_up_to_rounding(wide, rng):
    X, y = wide
    objective = objective_from(X, y, 1e-3, kernel="numba")
    found = guide_for(objective)
    u, lanes = torch.from_numpy(rng.normal(size=(2, 1, 61))) / 8, objective.all_lanes().repeat(2)
    exact, rounded = objective.value_gradient(u, lanes), found.objective.value_gradient(u, lanes)
    assert (exact.value - rounded.value).abs().max() < 1e-2
    assert 0 < (exact.gradient - rounded.gradient).abs().max() < 2 * found.tol
    here = u[:1], objective.all_lanes()
    product, other = (o.curvature_product(here[0], u[1:], here[1]) for o in (objective, found.objective))
    assert 0 < (product - other).abs().max() < 0.02 * product.abs().max()
    assert found.objective.source.nbytes * 8 == objective.source.nbytes
    before = objective.effort.passes
    found.objective.value_gradient(*here)
    assert objective.effort.passes == before + 1 / 8


@pytest.mark.parametrize(
    "case", ["no penalty", "not contiguous", "several parts", "a row that does not count", "outliers", "torch's kernel"]
)
def test_who_has_no_guide(wide, case, monkeypatch):
    X, y = wide
    weight, kernel, l2 = None, "numba", 1e-3
    if case == "no penalty":
        l2 = 0.0
    elif case == "a row that does not count":
        weight = np.append(np.ones(599), 0.0)
    elif case == "outliers":
        X[3] += 1e3 * X.std(0)  # 24 deviations, as far as one of 600 may be
        monkeypatch.setattr(guide, "_MOST_NOISE", 2e-3)
    elif case == "torch's kernel":
        kernel = "torch"
    objective = objective_from(X, y, l2, weight, kernel=kernel)
    (block,) = objective.source.parts
    if case == "not contiguous":
        objective = objective.on(MemorySource(replace(block, dense=block.dense.T.contiguous().T)))
    elif case == "several parts":
        objective = objective.on(MemorySource([block.slice(0, 100), block.slice(100, 600)]))
    assert isinstance(objective.kernel, NumbaKernel if kernel == "numba" else TorchKernel)
    assert guide_for(objective) is None


def test_a_guide_that_misleads_is_left(wide, monkeypatch):
    """A guide of other rows: two slow steps, and the last resort finds the optimum."""
    X, y = wide
    made = guide.quantised

    def shuffled(dense, frame):
        rows, step = made(dense, frame)
        return rows.flip(1), step

    monkeypatch.setattr(guide, "quantised", shuffled)
    model = LogisticRegression(tol=1e-9).fit(X, y)
    assert model.plan_.solver == "guided newton"
    _exact(monkeypatch)
    other = LogisticRegression(tol=1e-9).fit(X, y)
    assert model.converged_
    assert other.converged_
    assert abs(model.objective_ - other.objective_) <= 1e-10 * other.objective_


def test_a_direction_that_needs_too_many_products_hands_over(wide):
    X, y = wide
    objective = objective_from(X, y, 1e-6, kernel="numba")
    found = guide_for(objective)
    last = plan._solver(objective, 1e-9, None)[0].last_resort
    solver = Guided(CentredDiagonal(), 1e-9, found.objective, last, products=2)
    lanes = objective.all_lanes()
    state, seen = solver.init(objective, objective.zeros(), lanes), 0
    while isinstance(state, GuidedState):
        state, seen = solver.step(objective, state), seen + 1
    assert seen <= 3
    starting = Guided(CentredDiagonal(), 1e-9, products=2, starting=True)
    state = starting.step(found.objective, starting.init(found.objective, objective.zeros(), lanes))
    assert bool(state.stalled.all())


# -- directions that are used again -----------------------------------------------------------------------------------


def test_recycled_directions_are_solved_exactly(rng):
    X = rng.normal(size=(300, 8)) @ (np.eye(8) + 0.6)
    objective = objective_from(X, (X.sum(1) / 9 + rng.logistic(size=300) > 0).astype(int), 1e-3)
    u, lanes = torch.from_numpy(rng.normal(size=(1, 1, 9))) / 4, objective.all_lanes()
    plain = CentredDiagonal().build(objective, u, lanes)
    gradient = objective.value_gradient(u, lanes).gradient
    tolerance = torch.full((1,), 1e-3, dtype=torch.float64)
    solved = newton_path(objective, u, lanes, gradient, plain.solve, tolerance, 20, kept=20)
    recycled = Recycled.of(plain, solved.pairs)
    for direction, product in solved.pairs:
        atol = 1e-4 * float(direction.abs().max())  # products are in float32
        torch.testing.assert_close(recycled.solve(product), direction, rtol=0, atol=atol)
    # Symmetric, positive, and the next solution takes fewer products.
    a, b = (torch.from_numpy(rng.normal(size=(1, 1, 9))) for _ in range(2))
    left, right = float((a * recycled.solve(b)).sum()), float((b * recycled.solve(a)).sum())
    assert left == pytest.approx(right, rel=1e-9)
    assert float((a * recycled.solve(a)).sum()) > 0
    again = newton_path(objective, u, lanes, a, plain.solve, tolerance, 20).products
    assert newton_path(objective, u, lanes, a, recycled.solve, tolerance, 20).products < again
    assert Recycled.of(recycled, ()) is recycled
    assert Recycled.of(recycled, solved.pairs[:1]).around is plain


def test_a_direction_to_start_from(rng):
    """Near the solution it is confirmed by one product; far from it, it does no harm."""
    X, y = classification(rng, 300, 8)
    objective = objective_from(X, y, 1e-3)
    u, lanes = torch.from_numpy(rng.normal(size=(1, 1, 9))) / 4, objective.all_lanes()
    plain = CentredDiagonal().build(objective, u, lanes)
    gradient = objective.value_gradient(u, lanes).gradient
    tight, loose = (torch.full((1,), value, dtype=torch.float64) for value in (1e-10, 0.1))
    exact = newton_path(objective, u, lanes, gradient, plain.solve, tight, 50).direction
    near = exact * 0.9
    assert newton_path(objective, u, lanes, gradient, plain.solve, loose, 50, 0, near).products == 1
    far = -gradient
    found = newton_path(objective, u, lanes, gradient, plain.solve, tight, 50, 0, far).direction
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-6 * float(exact.abs().max()))


# -- bfloat16 ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def native(monkeypatch):
    """Any processor multiplies it, if slowly."""
    for module in (torch_device, shortened):
        monkeypatch.setattr(module, "coarse_dtype", lambda: torch.bfloat16)
    monkeypatch.setattr(plan, "_LARGEST_MATRIX", 40)
    monkeypatch.setattr(plan, "_WORTH_LOOPS", 1e3)


def _many_classes(rng):
    X = rng.normal(size=(2_500, 12)) * np.logspace(-1, 0.5, 12) + 0.3
    return X, (X / X.std(0) @ rng.normal(size=(12, 9)) + rng.gumbel(size=(2_500, 9))).argmax(1)


@pytest.mark.parametrize("weighted", [False, True])
def test_many_classes_end_where_they_did(rng, native, monkeypatch, weighted):
    X, y = _many_classes(rng)
    weight = rng.integers(0, 3, len(y)).astype(float) if weighted else None
    model = LogisticRegression(tol=1e-9).fit(X, y, weight)
    assert "bfloat16" in model.plan_.reason
    assert model.converged_
    _exact(monkeypatch)
    other = LogisticRegression(tol=1e-11).fit(X, y, weight)
    assert "bfloat16" not in other.plan_.reason
    np.testing.assert_allclose(model.coef_ * X.std(0), other.coef_ * X.std(0), atol=1e-6)
    assert model.objective_ - other.objective_ <= 1e-10 * other.objective_


def test_shortened_rows_are_framed_once(rng, native):
    X, y = _many_classes(rng)
    objective = objective_from(X, y, 1e-3, kernel="torch")
    found = short_guide_for(objective).objective
    rows = found.source.parts[0].dense
    assert (rows.dtype, rows.stride()) == (torch.bfloat16, (32, 1))
    exact = objective.kernel.design(objective.source.parts[0])[:, :-1]
    assert (rows.double() - exact).abs().le(2.0**-8 * exact.abs()).all()
    u, lanes = torch.from_numpy(rng.normal(size=(1, 9, 13))) / 4, objective.all_lanes()
    a, b = objective.value_gradient(u, lanes), found.value_gradient(u, lanes)
    assert 0 < (a.gradient - b.gradient).abs().max() < 1e-3
    short = found.few_digits()
    assert short.factor_dtype == torch.bfloat16
    assert short._dense(next(iter(found.source.blocks()))).data_ptr() == rows.data_ptr()  # no copy


def test_what_is_too_large_to_be_kept_twice(rng, native, monkeypatch):
    X, y = _many_classes(rng)
    objective = objective_from(X, y, 1e-3, kernel="torch")
    monkeypatch.setattr(guide, "_MOST_KEPT", 2 * X.size - 1)
    assert short_guide_for(objective) is None


# -- integers ---------------------------------------------------------------------------------------------------------

needs_integers = pytest.mark.skipif(
    not integers.has_integer_products(), reason="this processor has no products of eight-bit integers"
)


@needs_integers
@pytest.mark.parametrize("width", [130, 700])
def test_integer_products_are_those_of_rounded_rows(rng, width):
    rows = torch.from_numpy(rng.normal(size=(300, width))).float()
    into = torch.zeros(width, width)
    assert integers.add_upper_integers(rows, torch.full((width,), 1.0), into)
    torch_device.mirrored(into)
    expected = rows.double().T @ rows.double()
    assert (into - expected).abs().max() < 0.02 * expected.diagonal().max()
    least = torch.linalg.eigvalsh(into.double())[0]
    assert least > -1e-3 * expected.diagonal().max()
    before = into.clone()
    assert not integers.add_upper_integers(rows, torch.full((width,), 1e-6), into)
    assert torch.equal(into, before)


@needs_integers
def test_blocks_from_integers_are_nearly_those_of_floats(rng, monkeypatch):
    X = rng.normal(size=(2_000, 140))
    y = (X[:, :3] + rng.gumbel(size=(2_000, 3))).argmax(1)
    objective = objective_from(X, y, 1e-2)
    u, lanes = torch.from_numpy(rng.normal(size=(1, 3, 141))) / 10, objective.all_lanes()
    v = objective.project(torch.from_numpy(rng.normal(size=(1, 3, 141))))
    whole = ClassCholesky(objective.source).build(objective, u, lanes).solve(v)
    monkeypatch.setattr("torchlogit.class_curvature.has_integer_products", lambda: False)
    floats = ClassCholesky(objective.source).build(objective, u, lanes).solve(v)
    assert 0 < (whole - floats).abs().max() < 0.02 * floats.abs().max()


def test_an_older_processor_has_none(monkeypatch):
    for flags in (frozenset(), frozenset({"avx512_vnni"})):
        integers.has_integer_products.cache_clear()
        monkeypatch.setattr(integers, "processor_flags", lambda flags=flags: flags)
        monkeypatch.delattr(torch, "_int_mm", raising=False)
        assert not integers.has_integer_products()
    integers.has_integer_products.cache_clear()
    assert isinstance(bfloat16.processor_flags(), frozenset)
