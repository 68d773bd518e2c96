"""statsmodels' maximum likelihood, where there is no penalty."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.problems import classification
from torchlogit import LogisticRegression

sm = pytest.importorskip("statsmodels.api")


def _scaled(rng, rows, columns, classes=2):
    X, y = classification(rng, rows, columns, classes)
    return (X - X.mean(0)) / X.std(0), y


def test_logit(rng):
    X, y = _scaled(rng, 500, 5)
    theirs = sm.Logit(y, sm.add_constant(X)).fit(disp=0, method="newton", tol=1e-12)
    ours = LogisticRegression(C=np.inf, tol=1e-10).fit(X, y)
    np.testing.assert_allclose([ours.intercept_[0], *ours.coef_[0]], theirs.params, rtol=1e-8)
    np.testing.assert_allclose(ours.predict_proba(X)[:, 1], theirs.predict(), atol=1e-9)
    assert -ours.objective_ * 500 == pytest.approx(theirs.llf, rel=1e-12)


def test_logit_with_frequencies_and_offset(rng):
    X, y = _scaled(rng, 500, 4)
    counts, offset = rng.integers(1, 5, 500), rng.normal(size=500)
    family = sm.families.Binomial()
    theirs = sm.GLM(y, sm.add_constant(X), family=family, freq_weights=counts, offset=offset).fit(tol=1e-14)
    ours = LogisticRegression(C=np.inf, tol=1e-10).fit(X, y, sample_weight=counts, offset=offset)
    np.testing.assert_allclose([ours.intercept_[0], *ours.coef_[0]], theirs.params, rtol=1e-7)


def test_multinomial(rng):
    X, y = _scaled(rng, 800, 3, 3)
    theirs = sm.MNLogit(y, sm.add_constant(X)).fit(disp=0, method="newton", maxiter=100, tol=1e-12)
    ours = LogisticRegression(C=np.inf, tol=1e-10).fit(X, y)
    mine = np.column_stack([ours.intercept_, ours.coef_])
    np.testing.assert_allclose((mine[1:] - mine[0]).T, theirs.params, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict(), atol=1e-8)


def test_wells(wells):
    X = wells[["dist100", "arsenic", "assoc", "educ"]]
    theirs = sm.Logit(wells["switch"], sm.add_constant(X)).fit(disp=0, tol=1e-12)
    ours = LogisticRegression(C=np.inf, tol=1e-10).fit(X, wells["switch"])
    np.testing.assert_allclose([ours.intercept_[0], *ours.coef_[0]], theirs.params, rtol=1e-7)
