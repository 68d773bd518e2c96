"""The awkward corners: every fit is finite and certified, or says honestly why not; nothing hangs."""

from __future__ import annotations

import faulthandler
import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning

from torchlogit import LogisticRegression
from truth.newton_reference import certificate_of, optimum


@pytest.fixture(autouse=True)
def _no_hang():
    """A fit that takes a minute here has hung: fail with every thread's stack."""
    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def honest(X, y, **arguments):
    """Fit; finite whatever happens, and a warning exactly where the certificate does not hold."""
    parameters = {k: arguments.pop(k) for k in ("C", "tol", "fit_intercept", "max_iter") if k in arguments}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = LogisticRegression(**parameters).fit(X, y, **arguments)
    assert np.isfinite(model.coef_).all()
    assert np.isfinite(model.intercept_).all()
    assert np.isfinite(model.predict_proba(X)).all()
    assert np.isfinite(model.predict_log_proba(X)).all()
    messages = [str(w.message) for w in caught if w.category is ConvergenceWarning]
    assert [str(w.message) for w in caught if w.category is not ConvergenceWarning] == []
    assert bool(messages) != model.converged_
    assert model.converged_ == model.status_.startswith("Converged")
    if model.converged_:
        assert model.kkt_ <= model.tol
        assert model.excess_ <= 0.1 * model.tol * model.objective_
    return model


@pytest.fixture
def rows(rng):
    X = rng.normal(size=(120, 4))
    return X, (X @ [1, -1, 0.5, 0] + rng.logistic(size=120) > 0).astype(int)


def layouts(X):
    return {"dense": np.asarray(X), "sparse": scipy.sparse.csr_array(X)}


@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("C", [1.0, np.inf])
class TestColumns:
    def test_duplicated(self, rows, C, layout):
        X, y = rows
        one = honest(layouts(X)[layout], y, C=C)
        both = honest(layouts(np.column_stack([X, X[:, 0]]))[layout], y, C=C)
        assert both.converged_
        np.testing.assert_allclose(both.coef_[0, 0], both.coef_[0, 4], rtol=1e-9)
        if np.isinf(C):
            assert both.objective_ == pytest.approx(one.objective_, rel=1e-9)
            np.testing.assert_allclose(both.coef_[0, 0] + both.coef_[0, 4], one.coef_[0, 0], rtol=1e-3)

    def test_constant(self, rows, C, layout):
        X, y = rows
        for value in (0.0, 1.0, -3.7, 1e9):
            model = honest(layouts(np.column_stack([X, np.full(120, value)]))[layout], y, C=C)
            assert model.converged_
            assert model.coef_[0, 4] == 0.0
            np.testing.assert_allclose(model.coef_[0, :4], honest(X, y, C=C).coef_[0], rtol=1e-4)

    def test_all_constant(self, rows, C, layout):
        _, y = rows
        model = honest(layouts(np.ones((120, 2)))[layout], y, C=C)
        assert model.converged_
        np.testing.assert_allclose(model.predict_proba(np.ones((1, 2)))[0, 1], y.mean(), rtol=1e-6)

    def test_collinear(self, rows, C, layout):
        X, y = rows
        wide = np.column_stack([X, X @ [1.0, 2.0, -1.0, 0.5], X[:, 0] * 1e-8 + 5])
        assert honest(layouts(wide)[layout], y, C=C).converged_

    def test_more_columns_than_rows(self, rng, C, layout):
        X, y = rng.normal(size=(20, 60)), np.arange(20) % 2
        model = honest(layouts(X)[layout], y, C=C)
        assert model.converged_ == np.isfinite(C)
        if np.isinf(C):
            assert "separated" in model.status_
        assert model.score(X, y) == 1.0

    @pytest.mark.parametrize("size", [1e-310, 1e-200, 1e-30, 1e30, 1e150, 1e200, 1e300])
    def test_huge_and_tiny_values(self, rows, C, layout, size):
        X, y = rows
        scaled = X * [1.0, size, 1.0, 1.0]
        model = honest(layouts(scaled)[layout], y, C=C)
        assert model.converged_
        if size < 1e-300:  # its coefficient would not fit into a float64
            assert abs(model.coef_[0, 1]) < 1e-300
        elif np.isinf(C):
            np.testing.assert_allclose(model.predict_proba(scaled), honest(X, y, C=C).predict_proba(X), atol=1e-4)


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3, np.inf])
class TestRows:
    def test_one_row_a_class(self, C):
        for K in (2, 3, 5):
            model = honest(np.eye(K) + np.arange(K), np.arange(K), C=C)
            assert model.converged_ == np.isfinite(C)

    def test_the_same_row_in_both_classes(self, C):
        model = honest([[1.0, 2.0], [1.0, 2.0]], [0, 1], C=C)
        assert model.converged_
        np.testing.assert_allclose(model.predict_proba([[1.0, 2.0]]), 0.5)

    def test_weights_of_zero(self, rows, C):
        X, y = rows
        weight = (np.arange(120) % 3 > 0).astype(float)
        kept = weight > 0
        wild = X.copy()
        wild[~kept] = 1e300
        model = honest(X, y, C=C, tol=1e-10, sample_weight=weight)
        assert model.converged_
        for other in (
            honest(X[kept], y[kept], C=C, tol=1e-10),
            honest(wild, y, C=C, tol=1e-10, sample_weight=weight),
        ):
            np.testing.assert_allclose(model.coef_, other.coef_, rtol=1e-7)

    def test_weights_of_very_different_sizes(self, rows, C):
        X, y = rows
        for weight in (np.full(120, 1e-12), np.full(120, 1e12), 10.0 ** np.linspace(-12, 3, 120)):
            honest(X, y, C=C, sample_weight=weight)

    def test_one_in_ten_thousand(self, rng, C):
        X = rng.normal(size=(20_000, 2))
        y = np.zeros(20_000, dtype=int)
        y[[5, 700]] = 1
        model = honest(X, y, C=C)
        assert model.converged_
        assert model.predict_proba(X)[:, 1].mean() == pytest.approx(1e-4, rel=1e-2)

    def test_separated(self, C):
        X, y = np.arange(12.0)[:, None], (np.arange(12) > 4).astype(int)
        model = honest(X, y, C=C)
        assert model.converged_ == np.isfinite(C)
        assert model.score(X, y) == 1.0 or C < 1

    def test_a_class_that_has_only_weights_of_zero(self, rows, C):
        X, y = rows
        y = np.where(np.arange(120) < 5, 2, y)
        model = honest(X, y, C=C, sample_weight=(y < 2).astype(float))
        assert model.predict_proba(X)[:, 2].max() < 1e-3


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("K", [2, 3])
def test_single_precision_is_kept_outside_and_exceeded_inside(rng, K, fit_intercept):
    X = (rng.normal(size=(300, 3)) + [0, 1000, 0]).astype(np.float32)
    y = rng.integers(0, K, 300)
    model = honest(X, y, fit_intercept=fit_intercept)
    assert model.converged_
    for value in (model.coef_, model.intercept_, model.decision_function(X), model.predict_proba(X)):
        assert value.dtype == np.float32
    double = honest(X.astype(float), y, fit_intercept=fit_intercept)
    np.testing.assert_allclose(model.coef_, double.coef_, rtol=1e-6)
    expected = double.decision_function(X.astype(float))
    np.testing.assert_allclose(model.decision_function(X), expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_a_value_that_is_not_finite_is_located(rows, bad, layout):
    X, y = rows
    broken = X.copy()
    broken[37, 2] = bad
    with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity).*row 37, column 2"):
        LogisticRegression().fit(layouts(broken)[layout], y)
    model = LogisticRegression().fit(X, y)
    for method in (model.predict, model.predict_proba, model.decision_function, model.explain):
        with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
            method(layouts(broken)[layout])


def test_a_missing_value_in_a_frame_is_named(rows):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(rows[0], columns=["age", "weight", "height", "dose"])
    frame.loc[3, "dose"] = np.nan
    with pytest.raises(ValueError, match=r"row 3, column 'dose'"):
        LogisticRegression().fit(frame, rows[1])


@pytest.mark.parametrize("C", [1e-300, 1e-30, 1e-12, 1e12, 1e30, 1e300])
def test_any_strength(rows, C):
    X, y = rows
    model = honest(X, y, C=C)
    assert model.converged_
    best = optimum(X, y, 1 / (C * 120))
    assert model.objective_ == pytest.approx(best.objective, rel=1e-6)


def test_nearly_separated(rng):
    """Margins of hundreds on almost all rows, and a handful that overlap."""
    x = np.sort(rng.normal(size=400))
    y = (x > 0).astype(int)
    y[[199, 203]] ^= 1
    X = np.column_stack([1e5 * x, rng.normal(size=400)])
    model = honest(X, y, C=np.inf, tol=1e-10)
    assert model.converged_
    theta = np.column_stack([model.coef_, model.intercept_])
    assert certificate_of(theta, X, y, 0.0) <= 1e-10
    assert model.objective_ == pytest.approx(optimum(X, y, 0.0).objective, rel=1e-10)


def test_a_certificate_is_relative_to_a_tiny_objective():
    """Almost no penalty on separated rows: the objective is 1e-7 and its optimum must still be right."""
    X, y = np.array([[-1.0], [1.0], [-2.0], [2.0]]), np.array([0, 1, 0, 1])
    model = honest(X, y, C=1e9)
    best = optimum(X, y, 1 / 4e9)
    assert best.objective < 1e-6
    assert model.objective_ == pytest.approx(best.objective, rel=1e-6)


def test_no_budget_at_all(rows):
    model = honest(*rows, max_iter=0)
    assert not model.converged_
    assert (model.coef_ == 0).all()
    assert "max_iter" in model.status_


def test_tol_zero_ends_and_says_so(rows):
    model = honest(*rows, tol=0.0)
    assert not model.converged_
    assert "precision" in model.status_
    assert model.kkt_ < 1e-12
