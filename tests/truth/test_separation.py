"""Separation: the verdict of linear programmes on hundreds of small problems, and the real sets that show it."""

from __future__ import annotations

import re
import time
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.exceptions import ConvergenceWarning

import torchlogit.plan
from contracts.problems import objective_from
from torchlogit import LogisticRegression
from torchlogit.hessian_factors import HessianCholesky
from torchlogit.sampling import row_uniforms
from torchlogit.separation import SeparationKind, find_separation
from torchlogit.separation_programme import _LP_SECONDS, _LP_WHOLE
from torchlogit.solvers.newton import Newton
from truth.newton_reference import optimum
from truth.separation_reference import exact_kind, explains, verdict


def fitted(X, y, sample_weight=None, **options):
    model = LogisticRegression(C=np.inf, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y, sample_weight=sample_weight)


def said(model):
    """``('none' | 'complete' | 'quasi', named columns)`` from the sentence."""
    status = model.status_
    kind = "complete" if "completely separated" in status else "none"
    kind = "quasi" if "quasi-completely separated" in status else kind
    sentence = status.split(": without a penalty")[0].split(", so without")[0]
    return kind, {int(name) for name in re.findall(r"'x(\d+)'", sentence)}


def small_problem(seed):
    """A few rows of small integers: ties, duplicates, constants and exact separation are common."""
    rng = np.random.default_rng(seed)
    classes = int(rng.choice([2, 2, 2, 3, 4]))
    n, p = int(rng.integers(classes + 1, 15)), int(rng.integers(1, 5))
    X = rng.integers(0, int(rng.integers(2, 6)), (n, p)).astype(float)
    if rng.random() < 0.3:
        X[:, 0] = rng.normal(size=n)
    y = rng.integers(0, classes, n)
    if rng.random() < 0.3:
        y = (X[:, 0] > np.median(X[:, 0])).astype(int)
        y[rng.integers(0, n, int(rng.integers(0, 3)))] ^= 1
    _, y = np.unique(y, return_inverse=True)
    return X * 10.0 ** rng.integers(-3, 4, p) + rng.integers(0, 3, p), y, bool(rng.random() < 0.8)


@pytest.mark.parametrize("batch", range(10))
def test_random_problems(batch):
    kinds = set()
    for seed in range(40 * batch, 40 * batch + 40):
        X, y, fit_intercept = small_problem(seed)
        if y.max() < 1:
            continue
        K = int(y.max()) + 1
        expected, columns = verdict(X, y, K, fit_intercept)
        model = fitted(X, y, fit_intercept=fit_intercept)
        kind, named = said(model)
        where = f"seed {seed}: {model.status_}"
        assert kind == expected, where
        assert model.converged_ == (expected == "none"), where
        kinds.add(kind)
        if kind == "quasi":
            assert named <= columns, where
            assert explains(X, y, named, K, fit_intercept), where
            if np.linalg.matrix_rank(np.column_stack([X, np.ones(len(y))]) if fit_intercept else X) == X.shape[1] + (
                fit_intercept
            ):  # nothing is collinear: there is one answer
                assert named == columns - {-1}, where
            if not named:
                assert "the intercept alone" in model.status_, where
        if kind == "none":
            best = optimum(X, y, 0.0, fit_intercept=fit_intercept, classes=K)
            assert model.objective_ == pytest.approx(best.objective, rel=1e-6, abs=1e-12), where
    assert kinds == {"none", "quasi", "complete"}, "the problems do not cover every verdict"


def test_weights_of_zero_are_rows_that_are_not_there():
    for seed in range(60):
        X, y, fit_intercept = small_problem(1000 + seed)
        rng = np.random.default_rng(seed)
        weight = rng.choice([0.0, 1.0, 2.5], len(y))
        for k in range(int(y.max()) + 1):
            weight[np.flatnonzero(y == k)[0]] = 1.0
        if y.max() < 1:
            continue
        expected, _ = verdict(X, y, int(y.max()) + 1, fit_intercept, weight)
        model = fitted(X, y, fit_intercept=fit_intercept, sample_weight=weight)
        assert said(model)[0] == expected, f"seed {seed}: {model.status_}"


def test_columns_that_separate_alone_are_named_alone():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(50, 4))
    X[:, 2] = np.arange(50)
    y = (np.arange(50) >= 20).astype(int)
    model = fitted(X, y)
    assert said(model) == ("complete", {2})


@pytest.mark.parametrize("seed", range(5))
def test_the_verdict_does_not_depend_on_units(seed):
    X, y, fit_intercept = small_problem(seed)
    rng = np.random.default_rng(seed)
    moved = X * 10.0 ** rng.integers(-8, 8, X.shape[1])
    if fit_intercept:
        moved = moved + np.abs(moved).max(0) * rng.normal(size=X.shape[1])
    assert said(fitted(X, y, fit_intercept=fit_intercept)) == said(fitted(moved, y, fit_intercept=fit_intercept))


def with_outliers(seed):
    """Small integers, a fifth of them multiplied by up to 1e10."""
    rng = np.random.default_rng(seed)
    classes = int(rng.choice([2, 2, 3]))
    n, p = int(rng.integers(classes + 1, 14)), int(rng.integers(1, 4))
    X = rng.integers(-3, 4, (n, p)).astype(float)
    X = np.where(rng.random((n, p)) < 0.2, X * 10.0 ** rng.integers(0, 11, (n, p)), X)
    _, y = np.unique(rng.integers(0, classes, n), return_inverse=True)
    return X, y, bool(rng.random() < 0.75)


@pytest.mark.parametrize("batch", range(4))
def test_outliers_make_no_false_verdict(batch):
    """Against rational arithmetic. Precision may end before the optimum, but a verdict that is given is right."""
    right = total = 0
    for seed in range(50 * batch, 50 * batch + 50):
        X, y, fit_intercept = with_outliers(seed)
        if y.max() < 1:
            continue
        expected = exact_kind(X, y, int(y.max()) + 1, fit_intercept)
        model = fitted(X, y, fit_intercept=fit_intercept)
        kind = said(model)[0]
        if kind != "none" or model.converged_:
            assert kind == expected, f"seed {seed}: {model.status_}"
        total += 1
        right += kind == expected and model.converged_ == (kind == "none")
    assert right >= 0.9 * total


@pytest.mark.parametrize("layout", [np.asarray, scipy.sparse.csr_array], ids=["dense", "sparse"])
def test_one_outlier_hides_no_optimum(layout):
    X, y = np.array([[0.0], [1.0], [2.0], [3.0], [1e10]]), np.array([0, 1, 0, 1, 1])
    model = fitted(layout(X), y)
    assert model.converged_, model.status_
    # The outlier is as good as certain, and adds nothing to the loss of the others.
    four = optimum(X[:4], y[:4], 0.0)
    assert 5 * model.objective_ == pytest.approx(4 * four.objective, rel=1e-6)
    assert said(fitted(layout(X), np.array([0, 0, 1, 1, 1]))) == ("complete", {0})


@pytest.mark.parametrize("seed", range(3))
def test_an_outlier_next_to_nearly_collinear_columns(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 300))
    X = np.vstack([np.column_stack([a, a + 1e-5 * b]), [[1e8, 1e8]]])
    y = np.append((a + b + rng.logistic(size=300) > 0).astype(int), 1)
    model = fitted(X, y)
    assert model.converged_, model.status_


@pytest.mark.parametrize("separated", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_heavy_tails(seed, separated):
    rng = np.random.default_rng(seed)
    X = rng.pareto(0.5 if separated else 0.2, size=(500, 4))
    y = (np.log1p(X) @ [0.3, -0.3, 0.2, 0] + rng.logistic(size=500) > 0).astype(int)
    if not separated:
        model = fitted(X, y)
        # Beside rows of 1e18 float64 does not hold the others: then the fit says so, and is no farther off than that.
        assert model.converged_ or "precision" in model.status_
        assert model.objective_ <= optimum(X, y, 0.0).objective * (1 + 1e-6)
        return
    X[:, 3] = np.where(y == 1, X[:, 3], 0.0) * (rng.random(500) < 0.5)
    assert said(fitted(X, y)) == ("quasi", {3})


def test_where_rounding_hides_the_curvature_newton_proves_nothing():
    """One row beyond a tie: its residual, and with it the curvature, is soon less than the others' rounding."""
    x = np.array([2.2, 2.1, 2.2, 2.1, 2.2, 2.2, 2.1, 2.2, 2.0])[:, None]
    y = np.array([0, 0, 0, 0, 0, 0, 1, 0, 1])
    for tol in (1e-6, 1e-12, 1e-15):
        assert said(fitted(x, y, tol=tol)) == ("quasi", {0})
    objective = objective_from(x, y)
    for slope in (-10.0, -100.0, -300.0, -390.0, -500.0):
        shift = float(np.log(1 / 2) - 2.1 * slope)  # two of the three ties are 0
        raw = torch.tensor([[[slope, shift]]], dtype=torch.float64)
        lanes = objective.all_lanes()
        state = Newton(HessianCholesky(), 1e-6).init(objective, objective.coordinates.from_raw(raw, lanes), lanes)
        assert find_separation(objective, state, 0).kind is SeparationKind.QUASI_COMPLETE


@pytest.fixture
def dummies(rng):
    """Six dummies of one factor, whose fourth level is all of one class, and a number."""
    level = rng.integers(0, 6, 400)
    X = np.column_stack([np.eye(6)[level], rng.normal(size=400)])
    y = (X[:, 6] + rng.logistic(size=400) > 0).astype(int)
    y[level == 3] = 1
    return X, y, level


@pytest.mark.parametrize("layout", [np.asarray, scipy.sparse.csr_array], ids=["dense", "sparse"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_one_level_does_not_accuse_its_group(dummies, layout, fit_intercept):
    X, y, level = dummies
    assert said(fitted(layout(X), y, fit_intercept=fit_intercept)) == ("quasi", {3})
    assert said(fitted(layout(X[:, 1:]), y, fit_intercept=fit_intercept)) == ("quasi", {2})
    # Without its own dummy the level is what all others are not.
    assert said(fitted(layout(np.delete(X, 3, axis=1)), y)) == ("quasi", {0, 1, 2, 3, 4})
    y = np.where(level == 1, 0, y)
    assert said(fitted(layout(X), y, fit_intercept=fit_intercept)) == ("quasi", {1, 3})
    both = np.column_stack([X, 2 * X[:, 3]])  # two columns that say the same
    assert said(fitted(layout(both), np.where(level == 1, 1 - y, y), fit_intercept=fit_intercept))[1] >= {3, 7}


def test_one_level_does_not_accuse_its_group_in_three_classes(dummies, rng):
    X, _, level = dummies
    y = np.where(level == 3, 0, rng.integers(0, 3, 400))
    assert said(fitted(X, y)) == ("quasi", {3})
    y = np.where(level == 3, rng.integers(0, 2, 400), rng.integers(0, 3, 400))
    assert said(fitted(X, y)) == ("quasi", {3})


def test_a_rare_level_among_many_constraints(rng):
    """A part of the constraints is enough for the programme, though none of the rows at fault is among them."""
    X = rng.normal(size=(3000, 41))
    X[:, 40] = rng.random(3000) < 0.003
    y = (X @ rng.normal(size=(41, 5)) + 2 * rng.gumbel(size=(3000, 5))).argmax(1)
    y[X[:, 40] > 0] = 0
    assert _LP_WHOLE < 4 * 3000 * 4 * 42
    started = time.monotonic()
    assert said(fitted(X, y)) == ("quasi", {40})
    assert time.monotonic() - started < _LP_SECONDS / 2


def test_a9a(a9a):
    """Five levels of 123 columns of ones are one-sided, and no other column is to blame."""
    X, y = a9a
    counts = [[np.count_nonzero(X[y == k, j].toarray()) for j in (11, 12, 33, 88, 122)] for k in (0, 1)]
    assert (np.min(counts, axis=0) == 0).all()
    assert (np.max(counts, axis=0) > 0).all()
    assert said(fitted(X, y)) == ("quasi", {11, 12, 33, 88, 122})


def test_endometrial(endometrial):
    X, y = endometrial
    model = fitted(X, y)
    assert not model.converged_
    assert "quasi-completely separated by column 'NV' alone" in model.status_
    with pytest.warns(ConvergenceWarning, match="'NV'"):
        LogisticRegression(C=np.inf).fit(X, y)
    # The other two coefficients have maxima: those published with the data.
    np.testing.assert_allclose(model.coef_[0, 1:], [-0.04218, -2.90261], atol=2e-3)
    assert LogisticRegression().fit(X, y).converged_


@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_agaricus(agaricus, layout):
    X, y = agaricus
    model = fitted(X if layout == "sparse" else X.toarray(), y)
    assert said(model)[0] == "complete"
    assert not model.converged_
    assert np.isfinite(model.coef_).all()
    assert model.score(X, y) == 1.0


@pytest.mark.parametrize("column", range(3))
def test_a_rare_level_among_many_rows(column):
    """Five of 30,000 rows hold a level, all of one class: a large fit that looks converged."""
    rng = np.random.default_rng(column)
    X = rng.normal(size=(30_000, 3))
    y = (X.sum(1) + rng.logistic(size=30_000) > 0).astype(int)
    X[:, column] = 0.0
    X[np.flatnonzero(y == 1)[:5], column] = 1.0
    model = fitted(X, y)
    assert said(model) == ("quasi", {column})
    assert not model.converged_


def test_a_penalty_ends_it(endometrial):
    X, y = endometrial
    for C in (1.0, 1e3, 1e6):
        assert LogisticRegression(C=C).fit(X, y).converged_


def test_never_converged_on_separated_rows_whatever_the_tolerance():
    X, y = np.arange(10.0)[:, None], (np.arange(10) >= 4).astype(int)
    for tol in (1.0, 1e-2, 1e-6, 1e-12):
        for max_iter in (0, 1, 3, 1000):
            assert not fitted(X, y, tol=tol, max_iter=max_iter).converged_


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("exact", [True, False], ids=["whole Hessian", "subsample's Hessian"])
@pytest.mark.parametrize("kind", ["quasi", "complete"])
def test_a_separated_subsample_says_nothing_about_the_whole(monkeypatch, kind, exact, offset):
    """The rows that a large fit warms up on are separated, all rows are not."""
    if not exact:
        monkeypatch.setattr(torchlogit.plan, "_EXACT_OPERATIONS", 0.0)
    rng = np.random.default_rng(0)
    n = 60_000
    X = rng.normal(size=(n, 4))
    chance = row_uniforms(0, 0, 0, n)
    outside = np.flatnonzero(chance > 0.2)  # never among the 5,000 or so rows of the warm start
    if kind == "complete":
        y = (X.sum(1) > 0).astype(int)
        y[outside[::200]] ^= 1
    else:
        y = (X.sum(1) + rng.logistic(size=n) > 0).astype(int)
        X[:, 3] = 0
        X[np.flatnonzero((chance < 0.05) & (y == 1))[:3], 3] = 1
        X[outside[:30], 3] = 1
        y[outside[:30]] = np.arange(30) % 2
    model = LogisticRegression(C=np.inf).fit(X, y, offset=np.zeros(n) if offset else None)
    assert 4_000 < model.plan_.warm_rows < 6_000
    assert model.converged_
    assert model.objective_ == pytest.approx(optimum(X, y, 0.0).objective, rel=1e-6)
    assert model.n_iter_[0] <= 15
