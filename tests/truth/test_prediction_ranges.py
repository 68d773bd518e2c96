"""Predictions on several threads: the same bits as on one, and as of each row alone; errors come through."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch

from torchlogit import LogisticRegression
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
    assert sorted(seen) == [(0, 3), (3, 7)]
    seen.clear()
    in_ranges(7, lambda start, stop: seen.append((start, stop)), 10)
    assert seen == [(0, 7)]
