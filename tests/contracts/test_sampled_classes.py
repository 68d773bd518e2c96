"""Many classes around a subsample's Hessian: which problems go that way, where it leads, what becomes of the rest."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse

from torchlogit import LogisticRegression, plan
from torchlogit.class_curvature import ClassCholesky
from torchlogit.hessian_factors import HessianCholesky


def _rows(rng, rows, columns, classes, strength=2.0):
    X = rng.normal(size=(rows, columns))
    scores = X @ rng.normal(size=(columns, classes)) * strength / math.sqrt(columns)
    return X, (scores + rng.gumbel(size=scores.shape)).argmax(1)


@pytest.fixture
def builds(monkeypatch):
    """The preconditioners of fits, each time that one is built."""
    built = []
    for kind in (ClassCholesky, HessianCholesky):
        build = kind.build

        def spy(self, *arguments, build=build):
            built.append(self)
            return build(self, *arguments)

        monkeypatch.setattr(kind, "build", spy)
    return built


def _exactly(monkeypatch, X, y, **options):
    """The same fit with the whole Hessian at every step."""
    with monkeypatch.context() as patch:
        patch.setattr(plan, "_EXACT_OPERATIONS_CLASSES", math.inf)
        patch.setattr(plan, "_EXACT_OPERATIONS", math.inf)
        fitted = LogisticRegression(tol=1e-10, **options).fit(X, y)
    assert fitted.plan_.solver == "newton"
    assert fitted.converged_
    return fitted


def _scattered(X):
    return scipy.sparse.csr_array(np.where(np.abs(X) > 1, X, 0.0))


@pytest.mark.parametrize(
    "options", [{}, {"C": 1e6}, {"fit_intercept": False}, {"class_weight": "balanced"}], ids=str
)
@pytest.mark.parametrize("make", [np.asarray, np.float32, _scattered], ids=["dense", "float32", "sparse"])
def test_leads_to_the_optimum(rng, monkeypatch, make, options):
    X, y = _rows(rng, 12_000, 20, 3)
    X = make(X)
    fitted = LogisticRegression(tol=1e-10, **options).fit(X, y)
    assert fitted.plan_.solver == "lbfgs"
    assert fitted.plan_.preconditioner == HessianCholesky().name
    assert fitted.converged_
    exact = _exactly(monkeypatch, X, y, **options)
    close = 2e-7 if fitted.coef_.dtype == np.float32 else 3e-9  # theirs have the rows' digits
    np.testing.assert_allclose(fitted.coef_, exact.coef_, rtol=0, atol=close * np.abs(exact.coef_).max())
    np.testing.assert_allclose(fitted.intercept_, exact.intercept_, rtol=0, atol=close)


@pytest.mark.parametrize("classes", [3, 5])
def test_what_is_left_is_not_understated(rng, monkeypatch, classes):
    """The subsample's Hessian bounds the excess: near the optimum there is no more to gain than the trace says."""
    X, y = _rows(rng, 20_000, 20, classes)
    fitted, exact = LogisticRegression().fit(X, y), _exactly(monkeypatch, X, y)
    assert fitted.plan_.solver == "lbfgs"
    near = [record for record in fitted.trace_ if record["kkt"] < 1e-3]
    assert len(near) > 3
    for record in near:
        assert record["objective"] - exact.trace_[-1]["objective"] <= record["excess"] + 1e-13


def test_decided_rows_take_products_at_once(rng, builds):
    """Few of them bend the objective, of a subsample next to none: its Hessian is not even built."""
    X, y = _rows(rng, 30_000, 20, 3, 60.0)
    fitted = LogisticRegression().fit(X, y)
    assert fitted.plan_.solver == "lbfgs"
    assert fitted.converged_
    assert any(isinstance(one, ClassCholesky) and one.sample.rows == 30_000 for one in builds)
    assert not any(isinstance(one, HessianCholesky) and one.sample is not None for one in builds)


def test_rows_that_a_subsample_misses_take_products(rng, builds):
    """Outliers bend the objective in ways of their own: slow steps hand over."""
    X, y = _rows(rng, 30_000, 20, 3)
    X[::3000] *= 1e3
    fitted = LogisticRegression().fit(X, y)
    assert fitted.converged_
    assert any(isinstance(one, HessianCholesky) and one.sample is not None for one in builds)
    assert any(isinstance(one, ClassCholesky) and one.sample.rows == 30_000 for one in builds)


def test_costly_hessians_are_none(rng):
    """Beside so many classes the Hessian of ten rows for each coefficient costs more than products do."""
    X, y = _rows(rng, 20_000, 20, 40)
    fitted = LogisticRegression().fit(X, y)
    assert fitted.plan_.solver == "newton"
    assert fitted.converged_


def test_columns_all_but_equal_are_told_apart(rng, monkeypatch):
    """Without a penalty products find what is left along them only if no gradients have led near the optimum before."""
    X, y = _rows(rng, 14_000, 30, 6)
    X[:, -1] = X[:, 0] + 1e-5 * X[:, -1]
    fitted = LogisticRegression(C=math.inf).fit(X, y)
    assert fitted.plan_.solver == "newton"
    least = _exactly(monkeypatch, X, y, C=math.inf).trace_[-1]["objective"]
    assert fitted.trace_[-1]["objective"] - least < 1e-7 * least
