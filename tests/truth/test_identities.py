"""What must be equal: weights and repeated rows, any units, published figures, two ways to one number."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch

from contracts.problems import classification, objective_from
from torchlogit import LogisticRegression
from torchlogit.sources import MemorySource

TIGHT = 1e-10


def _fit(X, y, C=np.inf, **arguments):
    return LogisticRegression(C=C, tol=TIGHT).fit(X, y, **arguments)


# -- weights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("C", [0.1, np.inf])
@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_integer_weights_are_repeated_rows(rng, K, C, layout):
    X, y = classification(rng, 250, 4, K)
    counts = rng.integers(0, 4, len(y))
    form = scipy.sparse.csr_array if layout == "sparse" else np.asarray
    weighted = _fit(form(X), y, C, sample_weight=counts.astype(float))
    repeated = _fit(form(np.repeat(X, counts, axis=0)), np.repeat(y, counts), C)
    scale = np.abs(repeated.coef_ * X.std(0)).max()
    np.testing.assert_allclose(weighted.coef_ * X.std(0), repeated.coef_ * X.std(0), rtol=0, atol=1e-9 * scale)
    np.testing.assert_allclose(weighted.decision_function(X), repeated.decision_function(X), rtol=0, atol=1e-9 * 10)


def test_class_weights_are_row_weights(rng):
    X, y = classification(rng, 300, 4, 3)
    given = {0: 2.0, 1: 0.5, 2: 1.0}
    a = LogisticRegression(class_weight=given, tol=TIGHT).fit(X, y)
    b = _fit(X, y, 1.0, sample_weight=np.array([given[k] for k in y]))
    np.testing.assert_array_equal(a.coef_, b.coef_)
    balanced = LogisticRegression(class_weight="balanced", tol=TIGHT).fit(X, y)
    c = _fit(X, y, 1.0, sample_weight=(len(y) / (3 * np.bincount(y)))[y])
    np.testing.assert_allclose(balanced.coef_, c.coef_, rtol=1e-9)


def test_scaling_all_weights_scales_c(rng):
    X, y = classification(rng, 300, 4)
    a = _fit(X, y, 0.3, sample_weight=np.full(300, 10.0))
    b = _fit(X, y, 3.0)
    np.testing.assert_allclose(a.coef_, b.coef_, rtol=1e-8)


def test_order_of_the_rows(rng):
    X, y = classification(rng, 300, 4, 3)
    order = rng.permutation(300)
    a, b = _fit(X, y), _fit(X[order], y[order])
    np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), atol=1e-9)


# -- units ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("a", [1e-6, 1e-3, 1e6, -1.0])
@pytest.mark.parametrize("b", [0.0, 1.0, 1e6])
def test_units_do_not_change_unpenalised_predictions(rng, K, a, b):
    X, y = classification(rng, 300, 4, K)
    Z = (X - X.mean(0)) / X.std(0)
    offset = b * np.abs(a) * rng.normal(size=4)
    moved = a * Z + offset
    before, after = _fit(Z, y), _fit(moved, y)
    assert np.abs(before.predict_proba(Z) - after.predict_proba(moved)).max() < 1e-7
    assert before.objective_ == pytest.approx(after.objective_, rel=1e-9)


def test_each_column_may_have_units_of_its_own(rng):
    X, y = classification(rng, 300, 6)
    Z = (X - X.mean(0)) / X.std(0)
    moved = Z * [1e-6, 1e6, 1, -1e3, 1e-3, 1] + [0, 1e6, 1e6, 5, 1e-3, -1e5]
    assert np.abs(_fit(Z, y).predict_proba(Z) - _fit(moved, y).predict_proba(moved)).max() < 1e-7


@pytest.mark.parametrize("C", [1e-2, 1.0, np.inf])
def test_an_offset_of_the_columns_is_absorbed_by_the_intercept(rng, C):
    """Under a penalty too: the intercept is free."""
    X, y = classification(rng, 300, 4)
    X = (X - X.mean(0)) / X.std(0)
    a, b = _fit(X, y, C), _fit(X + 1e5, y, C)
    np.testing.assert_allclose(a.coef_, b.coef_, rtol=1e-7)
    np.testing.assert_allclose(a.decision_function(X), b.decision_function(X + 1e5), atol=1e-7)


# -- two ways to one number -----------------------------------------------------------------------------------------


def test_swapping_the_classes_swaps_the_sign(rng):
    X, y = classification(rng, 300, 4)
    a, b = _fit(X, y, 1.0), _fit(X, 1 - y, 1.0)
    np.testing.assert_allclose(a.coef_, -b.coef_, rtol=1e-8)


def test_two_classes_as_softmax(rng):
    """K = 2 written with two outputs is the same fit at half the penalty on the difference."""
    X, y = classification(rng, 300, 3)
    X = (X - X.mean(0)) / X.std(0)
    three = np.vstack([X, X[:1]])
    weight = np.append(np.ones(300), 0.0)
    binary = _fit(X, y, 1.0)
    with_empty = _fit(three, np.append(y, 2), 1.0, sample_weight=weight)
    probability = with_empty.predict_proba(X)
    # The class without weight has an intercept that falls without end; what is left is the pair of the others.
    assert probability[:, 2].max() < 1e-5
    pair = probability[:, 1] / probability[:, :2].sum(1)
    doubled = _fit(X, y, 2.0)
    difference = with_empty.coef_[1] - with_empty.coef_[0]
    np.testing.assert_allclose(difference, doubled.coef_[0], rtol=1e-3)
    assert np.abs(pair - doubled.predict_proba(X)[:, 1]).max() < 1e-3
    assert np.abs(binary.coef_).max() < np.abs(doubled.coef_).max()


def test_offset_equals_a_column_with_coefficient_one(rng):
    X, y = classification(rng, 400, 3)
    X = (X - X.mean(0)) / X.std(0)
    free = _fit(X, y)
    fixed = _fit(X[:, 1:], y, offset=free.coef_[0, 0] * X[:, 0])
    np.testing.assert_allclose(fixed.coef_[0], free.coef_[0, 1:], rtol=1e-7)


def test_row_scores_sum_to_the_score(rng):
    X, y = classification(rng, 50, 3, 3)
    objective = objective_from(X, y, 0.0)
    u = objective.project(torch.from_numpy(rng.normal(size=tuple(objective.zeros().shape))))
    whole = objective.value_gradient(u, objective.all_lanes()).gradient
    block = next(iter(objective.source.blocks()))
    rows = [objective.on(MemorySource(block.slice(i, i + 1))) for i in range(50)]
    total = sum(row.value_gradient(u, row.all_lanes()).gradient for row in rows) / 50
    torch.testing.assert_close(total, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("far", [0.0, 1e9])
def test_explain_adds_up_to_the_decision_function(rng, K, layout, far):
    X, y = classification(rng, 80, 4, K)
    X = (X - X.mean(0)) / X.std(0) + far
    given = scipy.sparse.csr_array(X) if layout == "sparse" else X
    model = LogisticRegression().fit(given, y)
    parts = model.explain(given)
    parts = parts.toarray() if scipy.sparse.issparse(parts) else parts
    np.testing.assert_allclose(parts.sum(-1), model.decision_function(given), rtol=1e-9, atol=1e-6 if far else 1e-12)


def test_mean_probability_is_the_share_of_the_class(rng):
    """The intercept's own equation."""
    X, y = classification(rng, 500, 4, 4)
    for C in (1e-3, 1.0, np.inf):
        model = _fit(X, y, C)
        np.testing.assert_allclose(model.predict_proba(X).mean(0), np.bincount(y) / 500, atol=1e-9)


# -- published figures ----------------------------------------------------------------------------------------------


def log_likelihood(model, X, y):
    return model.predict_log_proba(X)[np.arange(len(y)), y].sum()


def test_wells_in_arsenic_and_distance(wells):
    """Gelman and Hill (2007), section 5.4."""
    y = wells["switch"].to_numpy()
    distance, arsenic = wells["dist100"].to_numpy(), wells["arsenic"].to_numpy()
    one = LogisticRegression(C=np.inf).fit(distance[:, None], y)
    np.testing.assert_allclose([one.intercept_[0], one.coef_[0, 0]], [0.60596, -0.62188], atol=6e-6)
    assert log_likelihood(one, distance[:, None], y) == pytest.approx(-2038.1189, abs=6e-5)
    X = np.column_stack([distance, arsenic])
    two = LogisticRegression(C=np.inf).fit(X, y)
    np.testing.assert_allclose([two.intercept_[0], *two.coef_[0]], [0.00275, -0.89664, 0.46077], atol=6e-6)
    assert -2 * log_likelihood(two, X, y) == pytest.approx(3930.668, abs=6e-4)
    X = np.column_stack([distance, arsenic, distance * arsenic])
    both = LogisticRegression(C=np.inf).fit(X, y)
    expected = [-0.14787, -0.57722, 0.55598, -0.17891]
    np.testing.assert_allclose([both.intercept_[0], *both.coef_[0]], expected, atol=6e-6)


def test_low_birth_weight(birthwt):
    """Hosmer and Lemeshow, and all eight covariates."""
    y = birthwt["low"].to_numpy()
    X = birthwt[["age", "lwt", "race2", "race3", "ftv"]].to_numpy(float)
    model = LogisticRegression(C=np.inf).fit(X, y)
    expected = [1.29537, -0.02382, -0.01424, 1.00390, 0.43311, -0.04931]
    np.testing.assert_allclose([model.intercept_[0], *model.coef_[0]], expected, atol=6e-6)
    assert log_likelihood(model, X, y) == pytest.approx(-111.2865, abs=6e-5)
    X = birthwt[["age", "lwt", "race2", "race3", "smoke", "ptl", "ht", "ui", "ftv"]].to_numpy(float)
    model = LogisticRegression(C=np.inf).fit(X, y)
    expected = [0.48062, -0.02955, -0.01542, 1.27226, 0.88050, 0.93885, 0.54334, 1.86330, 0.76765, 0.06530]
    np.testing.assert_allclose([model.intercept_[0], *model.coef_[0]], expected, atol=6e-6)
    assert -2 * log_likelihood(model, X, y) == pytest.approx(201.285, abs=6e-4)


def test_endometrial_where_nv_is_fixed(endometrial):
    """Among the tumours without NV, the other two coefficients are the published ones."""
    X, y = endometrial
    rest = X["NV"] == 0
    model = LogisticRegression(C=np.inf).fit(X.loc[rest, ["PI", "EH"]], y[rest])
    expected = [4.30452, -0.04218, -2.90261]
    np.testing.assert_allclose([model.intercept_[0], *model.coef_[0]], expected, atol=6e-6)
