"""Every number of an exact fit's trace, recomputed in float64 from the coefficients that are recorded beside it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch

from torchlogit import LogisticRegression
from truth.newton_reference import objective_of, row_terms, standardise


def gradient_of(theta, X, y, l2, weight, offset):
    eta = X @ theta[:, :-1].T + theta[:, -1]
    eta = eta if offset is None else eta + offset.reshape(len(y), -1)
    slope = row_terms(eta, y)[1] * weight[:, None] / weight.sum()
    gradient = np.column_stack([slope.T @ X, slope.sum(0)])
    gradient[:, :-1] += l2 * theta[:, :-1]
    # What the sum could lose to rounding: the size of its terms.
    size = np.sqrt((np.column_stack([np.abs(slope).T @ np.abs(X), np.abs(slope).sum(0)]) ** 2).sum())
    return gradient, size + np.abs(l2 * theta[:, :-1]).sum()


CASES = {
    "plain": {},
    "float32": {"dtype": np.float32},
    "weights": {"weighted": True},
    "offset": {"offset": True},
    "weak penalty": {"C": 1e3},
    "no penalty": {"C": np.inf},
    "strong penalty": {"C": 1e-3},
    "far and wide": {"far": True},
    "sparse": {"sparse": True},
    "sparse, weights": {"sparse": True, "weighted": True},
}


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", CASES)
def test_a_fit(rng, name, classes):
    case = CASES[name]
    n, p, C = 400, 6, case.get("C", 1.0)
    X = rng.normal(size=(n, p))
    if case.get("far"):
        X = X * 10.0 ** np.arange(-3, 3) + np.array([0, 10, 0, 1e3, 0, 2e4])
    if case.get("sparse"):
        X = X * (rng.random((n, p)) < 0.3)
    X = X.astype(case.get("dtype", float))
    y = np.append(np.arange(classes), rng.integers(0, classes, n - classes))
    weight = rng.uniform(0.2, 3, n) if case.get("weighted") else np.ones(n)
    offset = rng.normal(size=n if classes == 2 else (n, classes)) if case.get("offset") else None
    given = scipy.sparse.csr_array(X) if case.get("sparse") else X
    clf = LogisticRegression(C=C).fit(
        given, y, sample_weight=weight if case.get("weighted") else None, offset=offset
    )
    l2 = 0.0 if np.isinf(C) else 1 / (C * weight.sum())
    rows = X.astype(float)
    _, mean, scale = standardise(rows, weight, True)
    assert len(clf.trace_) > 2
    for record in clf.trace_:
        theta = np.array(record["theta"])
        objective = objective_of(theta, rows, y, l2, weight, offset)
        assert record["objective"] == pytest.approx(objective, rel=1e-12, abs=0)
        gradient, size = gradient_of(theta, rows, y, l2, weight, offset)
        assert record["gradient_norm"] == pytest.approx(np.linalg.norm(gradient), rel=1e-12, abs=1e-13 * size)
        standard = np.abs(gradient[:, :-1] - mean * gradient[:, -1:]) / scale
        kkt = max(standard.max(), np.abs(gradient[:, -1]).max())
        assert record["kkt"] == pytest.approx(kkt, rel=1e-12, abs=1e-13 * max(1.0, size / scale.min()))
        assert record["excess"] >= 0
    passes = [record["passes"] for record in clf.trace_]
    assert passes == sorted(passes)
    assert clf.trace_[-1]["step_length"] == clf.trace_[-1]["trials"] == 0


@pytest.mark.parametrize("classes", [2, 3])
def test_a_step_by_hand(rng, classes):
    """The explicit state: coefficients, gradient, direction, and one row's forward computation."""
    X, y = rng.normal(size=(300, 4)) * [1, 10, 0.1, 1] + [0, 5, 0, 100], rng.integers(0, classes, 300)
    offset = rng.normal(size=300)
    clf = LogisticRegression(C=2.0)
    last = None
    for step in clf.steps(X, y, offset=offset):
        theta = np.column_stack([step.coef, step.intercept])
        np.testing.assert_array_equal(theta, np.array(step.record["theta"]))
        l2 = 1 / (2.0 * 300)
        full = np.repeat(offset[:, None], 1 if classes == 2 else classes, 1)
        gradient, size = gradient_of(theta, X, y, l2, np.ones(300), full)
        np.testing.assert_allclose(step.gradient, gradient, rtol=1e-12, atol=1e-13 * size)
        for row in (0, 299):
            view = step.forward(row)
            z = X[row] @ theta[:, :-1].T + theta[:, -1] + offset[row]
            loss, residual, _ = row_terms(z[None], y[row : row + 1])
            np.testing.assert_allclose(view.z, z[0] if classes == 2 else z, rtol=1e-12, atol=1e-12)
            assert view.loss == pytest.approx(loss[0], rel=1e-11)
            np.testing.assert_allclose(view.residual, residual[0, 0] if classes == 2 else residual[0], rtol=1e-11)
            assert view.target == y[row]
            assert np.sum(view.probability) == pytest.approx(1 / (1 + np.exp(-z[0])) if classes == 2 else 1)
        np.testing.assert_allclose(clf.decision_function(X, offset=offset), (X @ theta[:, :-1].T + theta[:, -1] + full
                                   ).squeeze(), rtol=1e-9, atol=1e-9)  # fmt: skip
        last = step
    assert last.step_length == 0
    assert clf.converged_
    assert np.abs(last.direction).max() < 1e-3 * np.abs(theta).max()
    with pytest.raises(IndexError, match="no row 300"):
        last.forward(300)
    with pytest.raises(IndexError, match="no row -1"):
        last.forward(-1)


def test_leaving_the_loop_leaves_a_valid_model(rng):
    X, y = rng.normal(size=(200, 3)), rng.integers(0, 2, 200)
    whole = LogisticRegression().fit(X, y)
    clf = LogisticRegression()
    for step in clf.steps(X, y):
        if step.number == 1:
            break
    assert not clf.converged_
    assert "interrupted" in clf.status_
    np.testing.assert_array_equal(clf.coef_, step.coef)
    assert len(clf.trace_) == 2
    assert clf.score(X, y) > 0
    assert clf.trace_[0] == {**whole.trace_[0], **{k: clf.trace_[0][k] for k in ("seconds", "rows_per_second",
                                                                                 "bytes_per_second")}}  # fmt: skip
    for _ in clf.steps(X, y):
        pass
    assert clf.converged_
    np.testing.assert_array_equal(clf.coef_, whole.coef_)


def test_between_steps_the_caller_keeps_gradients_and_threads(rng):
    X, y = rng.normal(size=(200, 3)), rng.integers(0, 2, 200)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in LogisticRegression().steps(X, y):
            assert torch.is_grad_enabled()
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_rows_to_watch(rng):
    X, y = rng.normal(size=(300, 3)), rng.choice(["no", "yes"], 300)
    clf = LogisticRegression()
    for step in clf.steps(X[:200], y[:200], validation=(X[200:], y[200:])):
        p = clf.predict_proba(X[200:])[np.arange(100), (y[200:] == "yes").astype(int)]
        assert step.record["validation"] == pytest.approx(-np.log(p).mean(), rel=1e-12)
    assert [record["validation"] for record in clf.trace_][-1] == step.record["validation"]
