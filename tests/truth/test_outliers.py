"""Sentinels, outliers and saturated starts: never a certificate of the wrong optimum, and the right one wherever it is.

A row of 99999999 in a column of ones moves its own margin by one a step while it hides what all other rows want: the
gradient and Newton's decrement fall below any tolerance, and the objective is up to a quarter too large.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning

from torchlogit import LogisticRegression
from truth.newton_reference import objective_of, optimum

CASES = [
    # value, rows that hold it, C
    (99999999, 2, 1.0),
    (999999999, 2, 1.0),
    (1e8, 3, np.inf),
    (1e10, 1, np.inf),
    (1e10, 1, 1.0),
    (1e5, 5, np.inf),
]


def with_outliers(seed, value, count, n=400):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    y = (X @ [1, -1, 0.5] + rng.logistic(size=n) > 0).astype(int)
    X[:count, 0], y[:count] = value, 1
    return X, y


def strength(C, n):
    return 0.0 if np.isinf(C) else 1 / (C * n)


def quietly(X, y, **arguments):
    """A fit that may end without a certificate, if it says so."""
    parameters = {k: v for k, v in arguments.items() if k != "offset"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = LogisticRegression(**parameters).fit(X, y, offset=arguments.get("offset"))
    assert model.converged_ != any(issubclass(w.category, ConvergenceWarning) for w in caught)
    return model


@pytest.mark.parametrize("tol", [1e-6, 1e-8])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]:g} in {c[1]} rows, C={c[2]}")
def test_outliers_end_at_the_optimum(case, tol):
    value, count, C = case
    for seed in range(10):
        X, y = with_outliers(seed, value, count)
        best = optimum(X, y, strength(C, len(y)))
        model = LogisticRegression(C=C, tol=tol).fit(X, y)
        assert model.converged_, seed
        assert model.objective_ == pytest.approx(best.objective, rel=0.1 * tol + 1e-9), seed
        assert model.n_iter_.max() <= 20, seed


@pytest.mark.parametrize("C", [1.0, np.inf])
def test_one_row_among_many(C):
    X, y = with_outliers(1, 1e10, 1, 20_000)
    model = LogisticRegression(C=C).fit(X, y)
    assert model.objective_ == pytest.approx(optimum(X, y, strength(C, len(y))).objective, rel=1e-7)


@pytest.mark.parametrize("C", [1.0, np.inf])
@pytest.mark.parametrize("value", [1e12, 1e14, 1e15])
def test_beyond_precision_the_answer_is_right_or_not_certified(value, C):
    for seed in range(12):
        X, y = with_outliers(seed, value, 1)
        model = quietly(X, y, C=C)
        if model.converged_:
            best = optimum(X, y, strength(C, len(y)))
            assert model.objective_ <= best.objective * (1 + 1e-6)
        elif "wanted" in model.status_:
            # The message does not claim a tiny excess that nothing supports.
            assert model.kkt_ > model.tol or model.excess_ > 0.1 * model.tol * model.objective_


@pytest.mark.parametrize("tol", [1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("value", [1e4, 1e8, 1e10])
def test_outliers_in_one_of_many_sparse_columns(value, tol):
    """More columns than a matrix of their products is made for."""
    rng = np.random.default_rng(0)
    X = scipy.sparse.random_array((3000, 4200), density=0.004, rng=rng, format="lil")
    X[:, 7] = 0
    X[2:150, 7] = rng.normal(size=148)
    beta = 2 * rng.normal(size=4200)
    beta[7] = 3
    y = (X @ beta + rng.logistic(size=3000) > 0).astype(int)
    X[:2, 7], y[:2] = value, 1
    # Whatever the coefficient, if only it is positive, these two rows have no loss: the others decide alone.
    others = LogisticRegression(tol=1e-11).fit(X.tocsr()[2:], y[2:])
    assert others.coef_[0, 7] > 0.1
    model = LogisticRegression(tol=tol).fit(X.tocsr(), y)
    assert model.converged_
    assert model.objective_ * 3000 == pytest.approx(others.objective_ * 2998, rel=0.1 * tol + 1e-11)


def test_an_outlier_on_the_other_side_costs_no_steps():
    X, y = with_outliers(3, 1e8, 2)
    y[0] = 0  # both classes share the sentinel: nothing to be gained by its margin
    model = LogisticRegression(tol=1e-10).fit(X, y)
    assert model.objective_ == pytest.approx(optimum(X, y, strength(1.0, len(y))).objective, rel=1e-10)


@pytest.mark.parametrize("seed", [1, 7, 13, 82, 157])
def test_heavy_tails_down_to_the_last_digits(seed):
    """Where values and slopes are rounding, the gradient still tells a better point from a worse one."""
    rng = np.random.default_rng(seed)
    n, p = int(rng.integers(200, 3000)), int(rng.integers(3, 25))
    X = rng.standard_t(rng.choice([0.6, 0.8, 1.0]), size=(n, p))
    decades = rng.choice([4, 6, 8, 10, 12]) / 2
    left, right = (np.linalg.qr(rng.normal(size=(p, p)))[0] for _ in range(2))
    X = X @ (left * 10 ** -np.linspace(0, decades, p)) @ right
    if rng.random() < 0.5:
        X = X + 10.0 ** rng.uniform(0, 5) * np.median(abs(X), 0) * rng.normal(size=p)
    Z = (X - np.median(X, 0)) / np.median(abs(X - np.median(X, 0)), 0)
    y = (np.clip(Z @ rng.normal(size=p) / np.sqrt(p), -2, 2) + 2 * rng.logistic(size=n) > 0).astype(int)
    model = LogisticRegression(C=np.inf, tol=1e-10).fit(X, y)
    assert model.converged_
    assert model.kkt_ <= 1e-10


class TestStarts:
    @pytest.fixture
    def rows(self, rng):
        X = rng.normal(size=(400, 3))
        return X, (X @ [1, -1, 0.5] + rng.logistic(size=400) > 0).astype(int)

    @pytest.mark.parametrize("classes", [2, 3])
    @pytest.mark.parametrize("C", [1.0, np.inf])
    @pytest.mark.parametrize("factor", [10.0, 1e4, -1e4, 1e150, 1e300])
    def test_a_start_of_other_units_is_no_worse_than_none(self, rows, factor, C, classes):
        X, y = rows
        y = y + (classes - 2) * (X[:, 2] > 1)
        warm = LogisticRegression(C=C, warm_start=True).fit(X, y).fit(X * factor, y)
        cold = LogisticRegression(C=C).fit(X * factor, y)
        assert warm.converged_
        assert warm.objective_ == pytest.approx(cold.objective_, rel=1e-6)
        assert warm.n_iter_.max() <= cold.n_iter_.max() + 1

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e308])
    def test_a_start_that_is_not_a_number(self, rows, value):
        X, y = rows
        model = LogisticRegression(warm_start=True).fit(X, y)
        cold = model.objective_
        model.coef_ = model.coef_ * 0 + value
        assert model.fit(X, y).objective_ == pytest.approx(cold, rel=1e-12)

    def test_a_good_start_costs_one_read_and_no_step(self, rows):
        X, y = rows
        model = LogisticRegression(warm_start=True).fit(X, y)
        model.fit(X, y)
        assert model.n_iter_.max() == 0
        assert model.trace_[-1]["passes"] <= 3  # moments, both starts, curvature

    @pytest.mark.parametrize("size", [1e2, 1e4, 1e5, 1e6])
    @pytest.mark.parametrize("C", [1.0, np.inf])
    def test_offsets_that_saturate_all_rows(self, rows, size, C):
        X, y = rows
        offset = size * np.random.default_rng(1).normal(size=len(y))
        model = LogisticRegression(C=C).fit(X, y, offset=offset)
        assert model.converged_
        theta = np.column_stack([model.coef_, model.intercept_])
        here = objective_of(theta, X, y, strength(C, len(y)), offset=offset)
        assert here == pytest.approx(model.objective_, rel=1e-9)
        # Convex: no point around is lower.
        rng = np.random.default_rng(2)
        for _ in range(50):
            near = theta + 10.0 ** rng.uniform(-3, 5) * rng.normal(size=theta.shape)
            assert objective_of(near, X, y, strength(C, len(y)), offset=offset) >= here * (1 - 1e-6)
