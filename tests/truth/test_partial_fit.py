"""Batches one after the other, without a learning rate: close to the optimum of all rows, whatever the units."""

from __future__ import annotations

import gzip
import pickle

import numpy as np
import pytest
import scipy.sparse
import torch

from torchlogit import LogisticRegression
from truth.newton_reference import objective_of


def by_batches(X, y, batches, seed=0, **parameters):
    order = np.random.default_rng(seed).permutation(len(y))
    clf = LogisticRegression(**parameters)
    for rows in np.array_split(order, batches):
        clf.partial_fit(X[rows], y[rows], classes=np.unique(y))
    return clf


def objective(clf, X, y, C):
    theta = np.column_stack([clf.coef_, clf.intercept_]).astype(float)
    return objective_of(theta, X, y, 0.0 if np.isinf(C) else 1 / (C * len(y)))


@pytest.fixture(scope="module")
def census(shared_data):
    pd = pytest.importorskip("pandas")
    with gzip.open(shared_data / "adult_train.csv.gz", "rt") as file:
        frame = pd.read_csv(file, header=None, skipinitialspace=True)
    return frame.select_dtypes("number").to_numpy(float), (frame.iloc[:, -1] == ">50K").to_numpy().astype(int)


@pytest.fixture(scope="module")
def spambase(shared_data):
    rows = np.loadtxt(shared_data / "spambase.csv", delimiter=",", skiprows=1)
    return rows[:, :-1], rows[:, -1].astype(int)


@pytest.mark.slow
@pytest.mark.parametrize("C", [1.0, np.inf])
@pytest.mark.parametrize("name", ["census", "spambase"])
def test_one_shuffled_epoch_in_a_hundred_batches(request, name, C):
    X, y = request.getfixturevalue(name)
    clf = by_batches(X, y, 100, C=C)
    best = LogisticRegression(C=C).fit(X, y).objective_
    assert clf.converged_
    assert objective(clf, X, y, C) <= 1.01 * best
    assert clf.objective_ == pytest.approx(best, rel=0.01)


@pytest.mark.slow
def test_units_change_nothing(spambase):
    X, y = spambase
    X, y = X[::2], y[::2]
    scale = 10.0 ** np.random.default_rng(1).choice([-6, 6], X.shape[1])
    plain, scaled = by_batches(X, y, 20, C=np.inf), by_batches(X * scale, y, 20, C=np.inf)
    np.testing.assert_allclose(
        scaled.decision_function(X * scale), plain.decision_function(X), rtol=1e-6, atol=1e-6
    )
    assert scaled.objective_ == pytest.approx(plain.objective_, rel=1e-9)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_as_long_as_all_rows_are_at_hand_it_is_the_fit(rng, classes, layout):
    X = rng.normal(size=(600, 5)) * [1, 10, 0.1, 1, 1] + [0, 5, 0, 0, 0]
    y = rng.integers(0, classes, 600)
    weight = rng.uniform(0.5, 2, 600)
    given = X if layout == "dense" else scipy.sparse.csr_array(X)
    clf = LogisticRegression(tol=1e-10)
    for rows in np.array_split(np.arange(600), 4):
        clf.partial_fit(given[rows], y[rows], classes=range(classes), sample_weight=weight[rows])
    whole = LogisticRegression(tol=1e-10).fit(given, y, sample_weight=weight)
    assert clf.objective_ == pytest.approx(whole.objective_, rel=1e-12)
    np.testing.assert_allclose(clf.coef_, whole.coef_, atol=1e-8)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_older_rows_are_remembered(rng, classes, layout, monkeypatch):
    """With a window of 200 of 3,000 rows: close to the fit of all, far from that of the window."""
    monkeypatch.setattr("torchlogit.incremental._MOST_ROWS", 200)
    X = rng.normal(size=(3000, 4)) + [0, 20, 0, 0]
    if layout == "sparse":
        X = X * (rng.random(X.shape) < 0.5)
    truth = rng.normal(size=(4, classes))
    y = (X - X.mean(0)) @ truth + rng.gumbel(size=(3000, classes))
    y = y.argmax(1)
    given = X if layout == "dense" else scipy.sparse.csr_array(X)
    clf = LogisticRegression(C=1.0)
    for rows in np.array_split(np.arange(3000), 30):
        clf.partial_fit(given[rows], y[rows], classes=range(classes))
    whole = LogisticRegression(C=1.0).fit(given, y)
    window = LogisticRegression(C=1.0).fit(given[-200:], y[-200:])
    assert objective(clf, X, y, 1.0) <= whole.objective_ * (1 + 1e-3)
    assert objective(window, X, y, 1.0) > whole.objective_ * (1 + 5e-3)
    assert clf.objective_ == pytest.approx(whole.objective_, rel=0.01)


def test_memory_does_not_grow(rng):
    def size(rows):
        X = rng.normal(size=(rows, 10))
        y = rng.integers(0, 2, rows)
        return len(pickle.dumps(by_batches(X, y, rows // 1000)._memory))

    assert size(60_000) <= 1.01 * size(6_000)


@pytest.mark.parametrize("C", [1.0, np.inf])
def test_a_first_batch_of_one_class_and_separated_ones(rng, C):
    X = np.concatenate([rng.normal(size=(500, 3)), rng.normal(size=(500, 3)) + 1])
    y = np.repeat(["no", "yes"], 500)
    clf = LogisticRegression(C=C)
    for rows in np.array_split(np.arange(1000), 50):  # sorted by label
        clf.partial_fit(X[rows], y[rows], classes=["yes", "no"])
        assert np.isfinite(clf.coef_).all()
        assert np.isfinite(clf.predict_proba(X)).all()
    whole = LogisticRegression(C=C).fit(X, y)
    assert objective(clf, X, (y == "yes").astype(int), C) <= whole.objective_ * (1 + 1e-3)


def test_a_column_that_turns_up_late(rng):
    X = rng.normal(size=(10_000, 3))
    X[:6000, 2] = 0
    y = (X @ [1, -1, 2] + rng.logistic(size=10_000) > 0).astype(int)
    clf = LogisticRegression(C=np.inf)
    for rows in np.array_split(np.arange(10_000), 20):
        clf.partial_fit(X[rows], y[rows], classes=[0, 1])
    whole = LogisticRegression(C=np.inf).fit(X, y)
    assert objective(clf, X, y, np.inf) <= whole.objective_ * (1 + 1e-3)


def test_many_columns_keep_a_diagonal(rng, monkeypatch):
    monkeypatch.setattr("torchlogit.incremental._WHOLE", 100)
    n, p = 8000, 200
    X = scipy.sparse.random(n, p, 0.05, format="csr", random_state=np.random.default_rng(0))
    y = (X @ rng.normal(size=p) * 2 + rng.logistic(size=n) > 0).astype(int)
    clf = LogisticRegression()
    for rows in np.array_split(np.arange(n), 6):
        clf.partial_fit(X[rows], y[rows], classes=[0, 1])
    whole = LogisticRegression().fit(X, y)
    assert clf._memory.older.curvature.shape == (1, p + 1)
    assert objective(clf, X.toarray(), y, 1.0) <= 1.02 * whole.objective_


def test_what_does_not_go_together(rng):
    X, y = rng.normal(size=(50, 3)), rng.integers(0, 2, 50)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        LogisticRegression().partial_fit(X, y)
    clf = LogisticRegression().partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="label 2"):
        clf.partial_fit(X, y + 1)
    with pytest.raises(ValueError, match="is not the same as on last call"):
        clf.partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="features"):
        clf.partial_fit(X[:, :2], y)
    with pytest.raises(ValueError, match="either all calls"):
        clf.partial_fit(X, y, offset=np.zeros(50))
    with pytest.raises(ValueError, match="sparse in some calls"):
        clf.partial_fit(scipy.sparse.csr_array(X), y)
    with pytest.raises(ValueError, match="balanced"):
        LogisticRegression(class_weight="balanced").partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="at least two"):
        LogisticRegression().partial_fit(X, y, classes=[1])
    fitted = LogisticRegression().fit(X, y)
    with pytest.warns(UserWarning, match="begins anew"):
        fitted.partial_fit(X, y)


def test_the_rows_belong_to_the_caller(rng):
    """The caller may use the memory of a batch again, and the model forgets them in `fit`."""
    X, y = rng.normal(size=(100, 3)), rng.integers(0, 2, 100)
    one = LogisticRegression().partial_fit(X, y, classes=[0, 1]).partial_fit(X[::-1], y[::-1])
    buffer = X.copy()
    other = LogisticRegression().partial_fit(buffer, y, classes=[0, 1])
    buffer[:] = X[::-1]
    other.partial_fit(buffer, y[::-1])
    np.testing.assert_array_equal(one.coef_, other.coef_)
    again = pickle.loads(pickle.dumps(one)).partial_fit(X, y)
    np.testing.assert_array_equal(again.coef_, one.partial_fit(X, y).coef_)
    assert not hasattr(one.fit(X, y), "_memory")


def test_tensors_and_float32(rng):
    X, y = torch.randn(200, 3), torch.arange(200) % 2
    clf = LogisticRegression().partial_fit(X[:100], y[:100], classes=[0, 1]).partial_fit(X[100:], y[100:])
    assert clf.coef_.dtype == np.float32
    whole = LogisticRegression().fit(X, y)
    np.testing.assert_allclose(clf.coef_, whole.coef_, atol=1e-5)
