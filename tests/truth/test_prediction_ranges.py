"""Predictions on several threads: the same bits as on one, and as of each row alone; errors come through."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse
import torch

from torchlogit import LogisticRegression, prediction
from torchlogit.kernels import numba_cpu
from torchlogit.prediction import probabilities
from torchlogit.threads import in_ranges


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("form", [np.asarray, np.asfortranarray, scipy.sparse.csr_array])
def test_the_same_bits(rng, classes, form, two_threads):
    X = rng.normal(size=(90_001, 25)) * (rng.random((90_001, 25)) < 0.9)
    clf = LogisticRegression().fit(X[:2000], np.arange(2000) % classes)
    given = form(X)
    many = clf.predict_proba(given), clf.decision_function(given)
    torch.set_num_threads(1)
    one = clf.predict_proba(given), clf.decision_function(given)
    torch.set_num_threads(2)
    for a, b in zip(many, one, strict=True):
        np.testing.assert_array_equal(a, b)
    rows = [0, 44_999, 45_000, 45_001, 90_000]
    alone = np.vstack([clf.predict_proba(given[row : row + 1]) for row in rows])
    np.testing.assert_array_equal(many[0][rows], alone)


def test_both_probabilities_keep_their_relative_precision():
    mpmath = pytest.importorskip("mpmath")
    z = np.concatenate([[0.0, -0.0, 1e-300, 1e4, -1e4, 744.0, -744.0], np.linspace(-700, 700, 2001)])
    p = probabilities(z[:, None])
    with mpmath.workdps(50):
        truth = np.array([[float(1 / (1 + mpmath.exp(v))), float(1 / (1 + mpmath.exp(-v)))] for v in z.tolist()])
    np.testing.assert_allclose(p, truth, rtol=1e-15, atol=5e-324)
    assert (p.sum(1) == 1).all() or np.abs(p.sum(1) - 1).max() < 3e-16


def test_an_error_on_any_thread_is_the_callers(two_threads):
    def fill(start, stop):
        if start:
            raise ValueError("the second range")

    with pytest.raises(ValueError, match="the second range"):
        in_ranges(10, fill, 1e9)
    seen = []
    in_ranges(7, lambda start, stop: seen.append((start, stop)), 1e9)
    assert sorted(seen) == [(row, row + 1) for row in range(7)]
    seen.clear()
    in_ranges(7, lambda start, stop: seen.append((start, stop)), 10)
    assert seen == [(0, 7)]


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compiled_products_of_sparse_rows_have_the_bits_of_scipy(rng, monkeypatch, index, dtype, two_threads):
    X = scipy.sparse.random_array((40_000, 60), density=0.3, format="csr", rng=rng, dtype=dtype)
    X.indices, X.indptr = X.indices.astype(index), X.indptr.astype(index)
    clf = LogisticRegression().fit(X[:2000], np.arange(2000) % 2)
    monkeypatch.setattr(prediction, "_WORTH_LOOPS", 1)
    monkeypatch.setattr(numba_cpu, "_loaded", lambda: False)
    of_scipy = clf.decision_function(X), clf.predict_proba(X)
    monkeypatch.setattr(numba_cpu, "_loaded", lambda: True)
    if not numba_cpu._rounds_as_scipy():
        pytest.skip("this SciPy rounds products and sums together, so its bits are not promised")
    swept = []
    loop = numba_cpu._sparse_product
    monkeypatch.setattr(numba_cpu, "_sparse_product", lambda *parts: swept.append(0) or loop(*parts))
    np.testing.assert_array_equal(clf.decision_function(X), of_scipy[0])
    np.testing.assert_array_equal(clf.predict_proba(X), of_scipy[1])
    assert swept


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("column", [-1, 60, 2**30])
def test_an_entry_of_no_column_is_an_error(rng, monkeypatch, column, loaded):
    X = scipy.sparse.random_array((3000, 60), density=0.3, format="csr", rng=rng)
    y = np.arange(3000) % 2
    clf = LogisticRegression().fit(X, y)
    monkeypatch.setattr(prediction, "_WORTH_LOOPS", 1)
    monkeypatch.setattr(numba_cpu, "_loaded", lambda: loaded)
    broken = X.copy()
    broken.indices[X.indptr[1234]] = column
    broken.has_sorted_indices = broken.has_canonical_format = True
    said = f"row 1234 of a sparse X stores a value for column {column}, but its columns are 0 to 59"
    for use in (clf.predict_proba, clf.predict, clf.decision_function, lambda rows: LogisticRegression().fit(rows, y)):
        with pytest.raises(ValueError, match=said):
            use(broken)


def test_an_entry_of_no_column_is_an_error_in_tensors_too(rng):
    X = rng.normal(size=(300, 5))
    y = np.arange(300) % 2
    clf = LogisticRegression().fit(X, y)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)")
        sparse = torch.from_numpy(X).to_sparse_csr()
    sparse.col_indices()[15] = 7
    for use in (clf.predict_proba, lambda rows: LogisticRegression().fit(rows, y)):
        with pytest.raises(ValueError, match="row 3 of a sparse X stores a value for column 7"):
            use(sparse)


def test_rows_that_run_backwards_are_an_error(rng):
    X = scipy.sparse.random_array((300, 6), density=0.5, format="csr", rng=rng)
    y = np.arange(300) % 2
    clf = LogisticRegression().fit(X, y)
    for place, value in ((100, 0), (300, X.nnz + 5)):
        broken = X.copy()
        broken.indptr[place] = value
        for use in (clf.predict_proba, lambda rows: LogisticRegression().fit(rows, y)):
            with pytest.raises(ValueError, match="does not say where its rows are"):
                use(broken)


def test_probabilities_of_an_array_are_those_of_its_linear_predictors(rng, two_threads):
    X = rng.normal(size=(70_000, 8))
    for classes in (2, 3):
        clf = LogisticRegression().fit(X[:999], np.arange(999) % classes)
        eta = clf.decision_function(X).reshape(len(X), -1)
        np.testing.assert_array_equal(clf.predict_proba(X), probabilities(eta))
        offset = rng.normal(size=eta.shape)
        np.testing.assert_array_equal(clf.predict_proba(X, offset=offset), probabilities(eta + offset))
    clf = LogisticRegression().fit(X[:999], np.arange(999) % 2)
    clf.coef_ = np.ones_like(clf.coef_)  # a linear predictor that overflows is no error
    np.testing.assert_array_equal(clf.predict_proba(np.full((4, 8), 1e308)), [[0, 1]] * 4)
    broken = X.copy()
    broken[69_999, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        clf.predict_proba(broken)
