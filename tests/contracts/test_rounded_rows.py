"""Rows in few bits that guide a fit: what rounding does to them, and that the answer is that of the rows themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from contracts.problems import classification, objective_from, sparse_rows
from torchlogit import LogisticRegression, class_curvature, guide, plan
from torchlogit.block_diagonal import BlockDiagonal
from torchlogit.class_curvature import ClassCholesky
from torchlogit.guide import guide_for, short_guide_for
from torchlogit.hessian_factors import HessianCholesky, RoundedHessian
from torchlogit.kernels import NumbaKernel, TorchKernel, bfloat16, integers, shortened, symmetric, torch_device
from torchlogit.kernels.integer_rows import IntegerKernel, integer_frame, integer_rows
from torchlogit.kernels.quantised import quantised
from torchlogit.losses import Multinomial
from torchlogit.objective import Objective
from torchlogit.preconditioners import CentredDiagonal, Recycled
from torchlogit.problem import Block, Frame
from torchlogit.solvers.conjugate_gradient import newton_path
from torchlogit.solvers.guided import Guided, GuidedState
from torchlogit.sources import MemorySource
from truth.newton_reference import optimum

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
    assert "600 sampled, rounded or rotated rows" in repr(model.plan_)
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


# -- rounded rows instead of a subsample ------------------------------------------------------------------------------


@pytest.fixture
def many(monkeypatch):
    """A few thousand rows are many, and a subsample of ten for each column would be enough."""
    monkeypatch.setattr(plan, "_EXACT_OPERATIONS_ALONE", 1e3)
    monkeypatch.setattr(plan, "_EXACT_OPERATIONS", 1e3)
    monkeypatch.setattr(plan, "_WORTH_LOOPS", 1e3)
    monkeypatch.setattr(plan, "_LEAST_ROWS", 100)
    monkeypatch.setattr(plan, "_SHARE", 0.0)


def _two_classes(X, rng):
    score = (X - X.mean(0)) / X.std(0) @ rng.normal(size=X.shape[1])
    return (2 * score / score.std() + rng.logistic(size=len(X)) > 0).astype(int)


def _curves(rng, rows, columns):
    """Smooth, but for a little noise: what tells neighbours apart is less than rounding adds."""
    at = np.linspace(0, 1, columns)
    waves = np.stack([np.cos(np.pi * k * at) for k in range(6)])
    return rng.normal(size=(rows, 6)) @ waves + 0.03 * rng.normal(size=(rows, columns))


@pytest.mark.parametrize(("dtype", "rows", "rounded"), [
    (np.float64, 1_300, True), (np.float64, 4_000, True), (np.float64, 6_000, False),
    (np.float32, 2_000, True), (np.float32, 3_000, False),
])  # fmt: skip
def test_rounded_rows_where_a_subsample_would_be_no_smaller(rng, many, monkeypatch, dtype, rows, rounded):
    """A subsample of ten rows a column: 610 of them, in eight or four bytes an entry, against all in one."""
    X = rng.normal(size=(rows, 60)) * np.logspace(-2, 2, 60) + 1
    X, y = X.astype(dtype), _two_classes(X, rng)
    model = LogisticRegression(tol=1e-9).fit(X, y)
    assert model.converged_
    assert model.plan_.solver == ("guided newton" if rounded else "lbfgs")
    assert (model.plan_.warm_rows == rows) == rounded
    again = LogisticRegression(tol=1e-9).fit(X, y)
    assert np.array_equal(model.coef_, again.coef_)
    monkeypatch.setattr(plan, "takes_guide", lambda objective: False)
    monkeypatch.setattr(plan, "_sample", lambda objective, seed: None)
    other = LogisticRegression(tol=1e-11).fit(X, y)
    assert other.plan_.warm_rows == 0
    np.testing.assert_allclose(model.coef_ * X.std(0), other.coef_ * X.std(0), atol=1e-7)


@pytest.mark.parametrize(("dtype", "solver"), [(np.float64, "guided newton"), (np.float32, "lbfgs")])
def test_rounded_rows_of_many_columns(rng, many, monkeypatch, dtype, solver):
    """Whatever a subsample would take: where they are an eighth of the rows."""
    monkeypatch.setattr(plan, "_GUIDED_COLUMNS", 20)
    X = rng.normal(size=(4_000, 20)).astype(dtype)
    model = LogisticRegression().fit(X, _two_classes(X, rng))
    assert model.converged_
    assert model.plan_.solver == solver


@pytest.mark.parametrize("of_ones", [True, False])
def test_a_subsample_has_enough_rows_of_the_rarer_class(rng, many, of_ones):
    X = rng.normal(size=(3_000, 60)).astype(np.float32)
    score = X @ rng.normal(size=60) / 4 + rng.logistic(size=3_000)
    for share, solver in ((0.4, "lbfgs"), (0.05, "guided newton")):
        rare = score > np.quantile(score, 1 - share)
        model = LogisticRegression().fit(X, rare if of_ones else ~rare)
        assert model.converged_
        assert model.plan_.solver == solver


def test_a_given_start_takes_no_other(rng, many):
    X = rng.normal(size=(1_500, 60))
    y = _two_classes(X, rng)
    model = LogisticRegression(warm_start=True, tol=1e-9).fit(X, y)
    found = model.coef_.copy()
    model.fit(X, y)
    assert model.plan_.solver == "guided newton"
    assert model.plan_.warm_rows == 0
    assert model.converged_
    np.testing.assert_allclose(model.coef_, found, atol=1e-8)


def test_where_rounding_hides_what_tells_columns_apart(rng, many):
    kinds = {"curves": _curves(rng, 1_500, 60), "apart": rng.normal(size=(1_500, 60))}
    twins = rng.normal(size=(1_500, 30))
    kinds["twins"] = np.concatenate([twins, twins], 1)  # whose rounding is the same, too
    for kind, X in kinds.items():
        y = _two_classes(X, rng)
        objective = objective_from(X, y, 1e-4, kernel="numba")
        found = guide_for(objective)
        curvature = BlockDiagonal(far=True).build(found.objective, objective.zeros(), objective.all_lanes())
        assert found.misleads(objective, curvature) == (kind == "curves")
        model = LogisticRegression().fit(X, y)
        assert model.converged_
        assert model.plan_.solver == ("lbfgs" if kind == "curves" else "guided newton")
        # A strong penalty bends more than what is hidden.
        assert not found.misleads(objective_from(X, y, 1.0, kernel="numba"), curvature)


def test_without_a_guide_nothing_is_copied(rng, many):
    X = rng.normal(size=(2_400, 60))
    X[7, 3] = 1e4  # no other value of the column is left in eight bits
    y = _two_classes(X, rng)
    assert guide_for(objective_from(X, y, 1e-3, kernel="numba")) is None
    model = LogisticRegression().fit(X, y)
    assert model.converged_
    assert model.plan_.solver == "lbfgs"
    assert model.plan_.warm_rows == 0


# -- a subsample in float32 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "rounded"), [
    ("near zero", True), ("one lane of weights", True), ("no intercept", True), ("far from zero", False),
    ("no penalty", False), ("hardly any penalty", False), ("small units", False),
])  # fmt: skip
def test_a_subsample_is_rounded_where_nothing_can_tell(rng, many, monkeypatch, case, rounded):
    X = rng.normal(size=(6_000, 60)) + {"near zero": 2.0, "far from zero": 9.0}.get(case, 0.0)
    X *= 1e-7 if case == "small units" else 1.0
    y = _two_classes(X, rng)
    C = {"no penalty": np.inf, "hardly any penalty": 1e12, "small units": 1e15}.get(case, 1.0)
    weight = rng.random(6_000) if case == "one lane of weights" else None
    drawn, draw = [], MemorySource.subsample

    def spied(self, *asked):
        drawn.append(draw(self, *asked))
        return drawn[-1]

    monkeypatch.setattr(MemorySource, "subsample", spied)

    def fitted():
        return LogisticRegression(C=C, tol=1e-9, fit_intercept=case != "no intercept").fit(X, y, weight)

    model = fitted()
    assert model.plan_.solver == "lbfgs"
    assert {sample.dtype for sample in drawn} == {torch.float32 if rounded else torch.float64}
    monkeypatch.setattr(plan, "_sampled_dtype", lambda objective: None)
    other = fitted()
    assert model.converged_
    assert other.converged_
    np.testing.assert_allclose(model.coef_ * X.std(0), other.coef_ * X.std(0), atol=1e-7)
    # A read of rounded rows moves half of the bytes.
    assert (model.trace_[0]["passes"] < other.trace_[0]["passes"]) == rounded


def test_rows_of_fewer_bits_count_as_they_move_bytes(rng):
    objective = objective_from(*classification(rng, 200, 4), 1e-3)
    short = objective.on(objective.source.subsample(1.0, 0, torch.float32))
    assert objective.effort.passes == 0
    short.value_gradient(objective.zeros(), objective.all_lanes())
    assert objective.effort.passes == 0.5
    short.on(short.source.subsample(1.0, 0)).value_gradient(objective.zeros(), objective.all_lanes())
    assert objective.effort.passes == 1.0


# -- what is left where curvature from elsewhere fails ----------------------------------------------------------------


@pytest.mark.parametrize("C", [1.0, 1e3, np.inf])
def test_the_last_resort_is_newtons_method(rng, many, monkeypatch, C):
    """A subsample knows nothing of rare columns."""
    X = rng.normal(size=(6_000, 60))
    X[:, 40:] = 9 * rng.normal(size=(6_000, 20)) * (rng.random((6_000, 20)) < 0.01)
    y = (X[:, :40] @ rng.normal(size=40) / 3 + X[:, 40:].sum(1) / 20 + rng.logistic(size=6_000) > 0).astype(int)
    built = []
    for kind in (HessianCholesky, RoundedHessian):

        def spied(self, *where, kind=kind, build=kind.build):
            made = build(self, *where)
            if getattr(self, "sample", None) is None and where[0].source.rows == 6_000:
                built.append((kind, made.exact))
            return made

        monkeypatch.setattr(kind, "build", spied)
    model = LogisticRegression(C=C, tol=1e-9).fit(X, y)
    assert model.plan_.solver == "lbfgs"
    assert set(built) == {(HessianCholesky, True) if np.isinf(C) else (RoundedHessian, False)}
    assert model.converged_
    best = optimum(X, y, 0.0 if np.isinf(C) else 1 / (C * 6_000))
    assert model.objective_ == pytest.approx(best.objective, rel=1e-12)


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
    """Any processor multiplies it, if slowly; and has no products of integers."""
    monkeypatch.setattr(guide, "has_integer_products", lambda: False)
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
    symmetric.mirrored(into)
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


@needs_integers
def test_equidistant_values_lose_nothing(rng):
    X = np.column_stack([
        rng.integers(0, 256, 500) / 255, rng.integers(-3, 4, 500) * 1e6, np.full(500, 7.25), rng.normal(5, 0.1, 500)
    ])  # fmt: skip
    X[:2, 0], X[:2, 1] = (0, 1), (-3e6, 3e6)
    frame = integer_frame(torch.from_numpy(X))
    rows, noise = integer_rows(torch.from_numpy(X), frame)
    assert rows.dtype == torch.int8
    back = rows * frame.scale + frame.shift
    assert (back - torch.from_numpy(X)).abs().le(0.5001 * frame.scale).all()
    exact = (torch.from_numpy(X) - frame.shift) / frame.scale
    torch.testing.assert_close(noise, (exact - rows).square().mean(0), rtol=1e-4, atol=1e-9)
    assert noise[0] < 1e-9
    assert noise[2] == 0
    assert 0.05 < noise[3] < 0.1  # about a twelfth
    assert (rows.amin(0)[0], rows.amax(0)[0]) == (-128, 127)
    weight = torch.from_numpy(rng.exponential(size=500))
    weighted = integer_rows(torch.from_numpy(X), frame, weight)[1]
    torch.testing.assert_close(weighted, weight @ (exact - rows).square() / weight.sum(), rtol=1e-4, atol=1e-9)


def _integer_kernel(rng, outputs, weighted=True):
    """A kernel over columns far from the middle of what eight bits hold, and one in float64 over the same numbers."""
    X = rng.exponential(size=(700, 150)) * np.logspace(-2, 3, 150) + rng.normal(size=150)
    frame = integer_frame(torch.from_numpy(X))
    rows, _ = integer_rows(torch.from_numpy(X), frame)
    middle = rows.double().mean(0).round()
    plain = Frame(torch.zeros(150).double(), torch.ones(150).double())
    loss = Multinomial(outputs)
    block = Block(torch.from_numpy(rng.integers(0, outputs, 700)), dense=rows)
    if weighted:
        offset = torch.from_numpy(rng.normal(size=(700, 1, outputs)))
        block = replace(block, weight=torch.from_numpy(rng.exponential(size=700)), offset=offset)
    theta = torch.from_numpy(rng.normal(size=(2, outputs, 151))) / 300
    theta[..., -1] -= (theta[..., :-1] * middle).sum(-1)
    return IntegerKernel(loss, frame, middle), TorchKernel(loss, plain), block, theta


def _relative(found, expected):
    return float((found.double() - expected).abs().max() / expected.abs().max())


def _all_but_cut(kernel, block, found, expected, slope):
    """Two parts hold fifteen bits: the rest, at its worst, is lost of the differences to the middle of a column."""
    weight = 1.0 if block.weight is None else block.weight[:, None, None]
    most = float((slope * weight).abs().max()) / (2 * 127 * 254)
    lost = most * (block.dense - kernel.middle).abs().sum(0)
    rounding = 1e-6 * (slope * weight).abs().sum((0, 1)).max() * (1 + kernel.middle.abs())
    assert ((found - expected)[..., :-1].abs() <= lost + rounding).all()
    assert _relative(found[..., -1], expected[..., -1]) < 1e-4


@needs_integers
@pytest.mark.parametrize("outputs", [8, 40, 70])
@pytest.mark.parametrize("weighted", [False, True])
def test_integers_add_up_to_what_floats_do(rng, outputs, weighted):
    kernel, oracle, block, theta = _integer_kernel(rng, outputs, weighted)
    whole = replace(block, dense=block.dense.double())
    assert torch.equal(kernel.design(block).double(), oracle.design(whole))
    lanes = torch.zeros(2, dtype=torch.int64)
    assert _relative(kernel.linear_predictor(block, theta, lanes), oracle.linear_predictor(whole, theta, lanes)) < 2e-6
    found, expected = kernel.value_gradient(block, theta, lanes), oracle.value_gradient(whole, theta, lanes)
    for field, most in (("weight", 0), ("loss", 2e-6), ("margin", 2e-5)):
        assert _relative(getattr(found, field), getattr(expected, field)) <= most
    assert torch.equal(found.gradient, kernel.value_gradient(block, theta, lanes).gradient)
    eta = oracle.linear_predictor(whole, theta, lanes)
    slope = oracle.loss.value_first(eta, block.target[:, None])[1]
    _all_but_cut(kernel, block, found.gradient, expected.gradient, slope)
    direction = theta.flip(0)
    product = oracle.curvature_product(whole, theta, direction, lanes).product
    along = oracle.linear_predictor(replace(whole, offset=None), direction, lanes)
    bent = oracle.loss.curvature_product(oracle.row_curvature(whole, theta, lanes), along)
    _all_but_cut(kernel, block, kernel.curvature_product(block, theta, direction, lanes).product, product, bent)
    short = kernel.rounded(short=True)
    assert kernel.rounded() is kernel
    assert short.rounding() == 0.0
    assert 0 < _relative(short.curvature_product(block, theta, direction, lanes).product, product) < 0.1


@needs_integers
def test_factors_of_many_outputs_have_one_part_where_columns_vary_alike(rng, monkeypatch):
    parts = [_integer_kernel(rng, outputs)[0].rounded(short=True)._parts for outputs in (8, 32, 33)]
    assert parts == [(2, 2), (2, 2), (1, 1)]
    monkeypatch.setattr("torchlogit.kernels.integer_rows._MANY_OUTPUTS", 8)
    X, y = _pixels(rng)
    assert short_guide_for(objective_from(X, y, 1e-2, kernel="torch")).objective.few_digits()._parts == (2, 2)
    X = rng.integers(0, 17, X.shape) / 16
    X[:, 5] = 1.0  # a constant is no rare column
    assert short_guide_for(objective_from(X, y, 1e-2, kernel="torch")).objective.few_digits()._parts == (1, 1)


@pytest.mark.parametrize("lossy", [False, True])
def test_conjugate_gradients_that_get_nowhere_take_more_digits(rng, monkeypatch, lossy):
    """What is left of a direction, beside its largest entry, says nothing of the others: the residual stays."""
    X, y = classification(rng, 500, 30)
    objective = objective_from(X, y, 1e-3, kernel="torch")
    asked, lanes, inner = [], objective.all_lanes(), Objective.curvature_at

    def at(self, u, lanes, *, rounded=False):
        asked.append(rounded)
        exact = inner(self, u, lanes)
        return (lambda v: exact((v / v.abs().amax()).round() * v.abs().amax())) if rounded and lossy else exact

    monkeypatch.setattr(Objective, "curvature_at", at)
    u = torch.from_numpy(rng.normal(size=objective.zeros().shape))
    gradient = objective.value_gradient(u, lanes).gradient * torch.logspace(-2, 1, 31).double()
    tolerance = torch.tensor([2e-4], dtype=torch.float64)
    solved = newton_path(objective, u, lanes, gradient, lambda g: g, tolerance, 200)
    left = inner(objective, u, lanes)(solved.direction) + gradient
    assert left.norm() <= 1.001 * tolerance * gradient.norm()
    assert asked == ([True, False] if lossy else [True])
    assert solved.products < 100
    assert len(solved.path) == solved.products.bit_length()
    for early in solved.path:
        assert (early * gradient).sum() < 0


def _pixels(rng, rows=3_000):
    """Twelve classes of 140 columns with few levels: some hardly ever there, one constant."""
    X = (rng.integers(0, 17, (rows, 140)) * (rng.random((rows, 140)) < rng.random(140) ** 2)) / 16
    X[:, 5] = 0
    return X, (X @ rng.normal(size=(140, 12)) + rng.gumbel(size=(rows, 12))).argmax(1)


@needs_integers
@pytest.mark.parametrize("case", ["plain", "weights", "float32", "no intercept", "by columns"])
def test_many_classes_end_where_they_did_along_integers(rng, monkeypatch, case):
    monkeypatch.setattr(plan, "_LARGEST_MATRIX", 1_000)
    monkeypatch.setattr(plan, "_WORTH_LOOPS", 1e3)
    X, y = _pixels(rng)
    X = X.astype(np.float32) if case == "float32" else np.asfortranarray(X) if case == "by columns" else X
    weight = rng.exponential(size=len(y)) if case == "weights" else None
    asks = {"C": 0.1, "fit_intercept": case != "no intercept"}
    model = LogisticRegression(tol=1e-8, **asks).fit(X, y, weight)
    assert "rounded to eight bits" in model.plan_.reason
    assert model.plan_.warm_rows == len(y)
    assert model.converged_
    again = LogisticRegression(tol=1e-8, **asks).fit(X, y, weight)
    assert np.array_equal(model.coef_, again.coef_)
    _exact(monkeypatch)
    other = LogisticRegression(tol=1e-10, **asks).fit(X, y, weight)
    assert "rounded" not in other.plan_.reason
    spread = np.maximum(X.std(0, dtype=float), 1e-3)
    np.testing.assert_allclose(model.coef_ * spread, other.coef_ * spread, atol=1e-6)
    assert model.objective_ - other.objective_ <= 1e-9 * other.objective_


@needs_integers
def test_columns_that_lose_nothing_are_not_solved_beyond_their_slopes(rng, monkeypatch):
    """Where the rows are the integers themselves, what is cut from slopes still is more than the tolerance."""
    monkeypatch.setattr(plan, "_LARGEST_MATRIX", 1_000)
    monkeypatch.setattr(plan, "_WORTH_LOOPS", 1e3)
    X = (rng.random((1_000, 140)) < rng.random(140)).astype(float)
    y = (X @ rng.normal(size=(140, 12)) + rng.gumbel(size=(1_000, 12))).argmax(1)
    objective = objective_from(X, y, 1e-2, kernel="torch")
    found = short_guide_for(objective)
    assert found.tol == pytest.approx((3e-9 / 1_000) ** 0.5)
    model = LogisticRegression(C=0.1, tol=1e-9).fit(X, y)
    assert model.converged_
    looser = LogisticRegression(C=0.1, tol=1e-6).fit(X, y)
    assert model.trace_[0]["objective"] == looser.trace_[0]["objective"]  # the start is the same


@needs_integers
@pytest.mark.parametrize(
    "case", ["few outputs", "a weak penalty", "a row that does not count", "an outlier", "too large", "sparse"]
)
def test_who_has_no_integers(rng, monkeypatch, case):
    X, y = _pixels(rng, 400)
    l2, weight = 1e-2, None
    assert short_guide_for(objective_from(X, y, l2, kernel="torch")).rounded_to == "eight bits"
    if case == "few outputs":
        y = y % 7
    elif case == "a weak penalty":
        l2, X = 1e-6, rng.normal(size=X.shape)
    elif case == "a row that does not count":
        weight = np.append(np.ones(len(y) - 1), 0.0)
    elif case == "an outlier":
        X = rng.normal(size=X.shape)
        X[3, 3] = 1e4
    elif case == "too large":
        monkeypatch.setattr(guide, "_MOST_KEPT", X.size - 1)
    objective = objective_from(X, y, l2, weight, kernel="torch")
    if case == "sparse":
        (block,) = objective.source.parts
        objective = objective.on(MemorySource(replace(block, dense=None, sparse=sparse_rows(X))))
    found = short_guide_for(objective)
    assert found is None or found.rounded_to == "bfloat16"


@needs_integers
def test_blocks_of_gathered_rows_are_those_of_written_ones(rng, monkeypatch):
    """Every class writes out the rows that it wants, or all are written out once."""
    X, y = _pixels(rng, 900)
    found = short_guide_for(objective_from(X, y, 1e-1, kernel="torch")).objective
    u, lanes = found.project(torch.from_numpy(rng.normal(size=(1, 12, 141)))) / 10, found.all_lanes()
    monkeypatch.setattr(class_curvature, "_INTEGER_COLUMNS", 1_000)
    gathered = ClassCholesky(found.source)._blocks(found, u, lanes)
    monkeypatch.setattr(class_curvature, "_FEW_BYTES", 0)
    monkeypatch.setattr("torchlogit.objective._WRITTEN_BLOCK", 0)
    written = ClassCholesky(found.source)._blocks(found, u, lanes)
    torch.testing.assert_close(gathered, written, rtol=1e-5, atol=1e-5)
    # Lengths of rows that are known already, and outputs that are alike.
    curvature = ClassCholesky(found.source)
    alone = curvature._blocks(found, found.zeros(), lanes, alike=True)
    assert alone.shape == (1, 141, 141)
    monkeypatch.setattr(class_curvature, "_FEW_BYTES", 2)
    assert torch.equal(curvature._blocks(found, u, lanes), gathered)


def test_an_older_processor_has_none(monkeypatch):
    for flags in (frozenset(), frozenset({"avx512_vnni"})):
        integers.has_integer_products.cache_clear()
        monkeypatch.setattr(integers, "processor_flags", lambda flags=flags: flags)
        monkeypatch.delattr(torch, "_int_mm", raising=False)
        assert not integers.has_integer_products()
    integers.has_integer_products.cache_clear()
    assert isinstance(bfloat16.processor_flags(), frozenset)
