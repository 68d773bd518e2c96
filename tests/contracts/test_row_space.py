"""Fewer rows than columns: the optimum through the products of the rows is that of the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from contracts.problems import classification, objective_from, sparse_rows
from torchlogit import LogisticRegression, row_space
from torchlogit.fit import _warm_up
from torchlogit.journal import SweepJournal
from torchlogit.plan import choose
from torchlogit.problem import FitOptions
from torchlogit.row_space import RowCholesky
from torchlogit.sources import MemorySource
from truth.newton_reference import optimum

SEVERAL = pytest.mark.parametrize("classes", [2, 3])


def wide(rng, rows=40, columns=170, classes=2):
    """Columns of very different units, far from zero; the first few count."""
    return classification(rng, rows, columns, classes)


def rows_like(rng, X, case):
    """Rows that have few digits, or little, to tell each other apart by."""
    if case == "equal rows":
        X[3], X[7] = X[4], X[4]
    elif case == "equal columns":
        X[:, 100:] = X[:, :70]
    elif case == "constant columns":
        X[:, ::3] = 7.25
    elif case == "a row at the mean":
        X[5] = np.delete(X, 5, 0).mean(0)
    elif case == "an outlier":
        X[9, 2] *= 1e7
    elif case == "far":
        X += 1e5 * np.abs(X).max(0)
    return X


CASES = [
    "plain", "weights", "offset", "no intercept", "equal rows", "equal columns", "constant columns",
    "a row at the mean", "an outlier", "far",
]  # fmt: skip


@SEVERAL
@pytest.mark.parametrize("l2", [1e-6, 1e-2, 10.0])
@pytest.mark.parametrize("case", CASES)
def test_the_start_is_the_optimum(rng, case, l2, classes):
    X, y = wide(rng, classes=classes)
    X = rows_like(rng, X / X.std(0), case)
    asks = {
        "weight": rng.exponential(size=len(y)) if case == "weights" else None,
        "offset": rng.normal(size=(len(y), 1, 1 if classes == 2 else classes)) if case == "offset" else None,
        "fit_intercept": case != "no intercept",
    }
    objective = objective_from(X, y, l2, **asks)
    choice = choose(objective, FitOptions(tol=1e-9), "torch", True)
    assert choice.plan.preconditioner == "Cholesky factor over the rows"
    assert choice.plan.warm_rows == len(y)
    start = _warm_up(choice.warm)
    best = optimum(X, y, l2, **asks)
    value = float(objective.value_gradient(start, objective.all_lanes()).value)
    digits = 1e-5 if case == "an outlier" else 1e-7 if case == "far" else 1e-11
    assert value == pytest.approx(best.objective, rel=digits)


@SEVERAL
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", ["plain", "weights", "no intercept"])
def test_a_fit_ends_there(rng, monkeypatch, dtype, classes, case):
    X, y = wide(rng, classes=classes)
    X, weight = (X / X.std(0)).astype(dtype), rng.exponential(size=len(y)) if case == "weights" else None
    asks = {"C": 0.5, "tol": 1e-9, "fit_intercept": case != "no intercept"}
    model = LogisticRegression(**asks).fit(X, y, weight)
    assert model.converged_
    assert "products of the rows" in model.plan_.reason
    assert len(model.trace_) <= 2
    again = LogisticRegression(**asks).fit(X, y, weight)
    assert np.array_equal(model.coef_, again.coef_)
    monkeypatch.setattr(row_space, "fits", lambda objective: False)
    other = LogisticRegression(**{**asks, "tol": 1e-11}).fit(X, y, weight)
    assert "products of the rows" not in other.plan_.reason
    np.testing.assert_allclose(model.coef_, other.coef_, rtol=0, atol=2e-6 * np.abs(other.coef_).max())
    assert model.objective_ == pytest.approx(other.objective_, rel=1e-11)


def test_a_fit_that_starts_elsewhere_takes_newtons_steps(rng):
    X, y = wide(rng)
    model = LogisticRegression(C=0.5, tol=1e-9, warm_start=True).fit(X / X.std(0), y)
    model.set_params(C=5.0).fit(X / X.std(0), y)
    assert model.converged_
    assert model.plan_.warm_rows == 0
    assert model.plan_.preconditioner == "Cholesky factor over the rows"
    best = optimum(X / X.std(0), y, 1 / (5.0 * len(y)))
    assert model.objective_ == pytest.approx(best.objective, rel=1e-10)
    assert 2 <= len(model.trace_) <= 15


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_of_two_classes_it_inverts_the_whole_second_derivative(rng, fit_intercept, weighted):
    X, y = wide(rng)
    weight = rng.exponential(size=len(y)) if weighted else None
    objective = objective_from(X / X.std(0), y, 1e-2, weight, fit_intercept=fit_intercept)
    lanes = objective.all_lanes()
    u = objective.project(torch.from_numpy(0.1 * rng.normal(size=tuple(objective.zeros().shape))))
    inverse = RowCholesky(row_space.row_space(objective)).build(objective, u, lanes)
    assert inverse.exact
    v = objective.project(torch.from_numpy(rng.normal(size=tuple(u.shape))))
    solved = inverse.solve(objective.curvature_product(u, v, lanes))
    torch.testing.assert_close(solved, v, rtol=0, atol=1e-9 * float(v.abs().max()))
    assert inverse.take(torch.tensor([True])) is inverse


def test_of_many_classes_it_inverts_each_classs_own(rng):
    X, y = wide(rng, classes=3)
    objective = objective_from(X / X.std(0), y, 1e-2)
    lanes, D = objective.all_lanes(), objective.width
    u = objective.project(torch.from_numpy(0.1 * rng.normal(size=tuple(objective.zeros().shape))))
    inverse = RowCholesky(row_space.row_space(objective)).build(objective, u, lanes)
    assert not inverse.exact
    whole = objective.hessian(u, lanes)[0]
    v = objective.project(torch.from_numpy(rng.normal(size=tuple(u.shape))))
    blocks = torch.stack([whole[k * D : (k + 1) * D, k * D : (k + 1) * D] @ v[0, k] for k in range(3)])[None]
    torch.testing.assert_close(inverse.solve(blocks), v, rtol=0, atol=1e-8 * float(v.abs().max()))


@pytest.mark.parametrize(
    "case",
    ["no penalty", "two lanes", "sparse", "a row that does not count", "more rows", "a journal", "too much memory"],
)
def test_who_has_none(rng, monkeypatch, case):
    X, y = wide(rng)
    l2, weight = 1e-2, None
    assert row_space.fits(objective_from(X, y, l2))
    if case == "no penalty":
        l2 = 0.0
    elif case == "two lanes":
        l2 = (1e-2, 1e-1)
    elif case == "a row that does not count":
        weight = np.append(np.ones(len(y) - 1), 0.0)
    elif case == "more rows":
        X = X[:, :79]
    elif case == "too much memory":
        monkeypatch.setattr(row_space, "_FEW_ENTRIES", 0)
    objective = objective_from(X, y, l2, weight)
    if case == "sparse":
        (block,) = objective.source.parts
        objective = objective.on(MemorySource(replace(block, dense=None, sparse=sparse_rows(X))))
    elif case == "a journal":
        objective = replace(objective, journal=SweepJournal(lambda whole: None))
    assert not row_space.fits(objective)


def test_rows_that_are_all_alike_have_no_products():
    X, y = np.full((30, 200), 3.5), np.arange(30) % 2
    assert row_space.row_space(objective_from(X, y, 1e-2)) is None
    model = LogisticRegression().fit(X, y)
    assert model.converged_
    assert model.objective_ == pytest.approx(np.log(2))


def test_few_reads_of_the_rows(rng):
    """Moments, products, the start, its gradient, what the rows bend there, and a solution of two."""
    X, y = wide(rng, 60, 4_000)
    model = LogisticRegression().fit(X / X.std(0), y)
    assert model.converged_
    assert model.trace_[-1]["passes"] <= 8


def test_what_float64_does_not_hold_is_not_called_exact(rng):
    X, y = wide(rng)
    objective = objective_from(X / X.std(0), y, 1e-2)
    space, lanes = row_space.row_space(objective), objective.all_lanes()
    assert RowCholesky(space).build(objective, objective.zeros(), lanes).exact
    for much, positive in ((1e14, True), (1e308, False)):
        inverse = RowCholesky(replace(space, gram=much * space.gram)).build(objective, objective.zeros(), lanes)
        assert not inverse.exact
        assert bool((inverse.factors[0].diagonal() > 1).any()) == positive
