"""A row of weight zero is a row that is not there, whatever it holds: every fit is compared with one without it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.exceptions import ConvergenceWarning

from contracts.problems import block_of
from torchlogit import LogisticRegression
from torchlogit.fit import Fit, Problem
from torchlogit.losses import loss_for
from torchlogit.penalties import ElasticNet
from torchlogit.problem import Block, FitOptions
from torchlogit.sources import MemorySource

LAYOUTS = {"dense": np.asarray, "sparse": scipy.sparse.csr_array}


def fitted(X, y, weight=None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(**{"C": np.inf} | options).fit(X, y, sample_weight=weight)


def agree(X, y, row, where=0, label=1, layout="dense", rtol=1e-8, **options):
    """The fit with a row of weight zero put in, after checking it against the one without."""
    build = LAYOUTS[layout]
    alone = fitted(build(X), y, **options)
    weight = np.insert(np.ones(len(y)), where, 0.0)
    model = fitted(build(np.insert(X, where, row, axis=0)), np.insert(y, where, label), weight, **options)
    assert alone.converged_
    assert model.converged_, model.status_
    assert model.objective_ == pytest.approx(alone.objective_, rel=1e-10)
    np.testing.assert_allclose(model.coef_, alone.coef_, rtol=rtol, atol=rtol * np.abs(alone.coef_).max())
    return model


@pytest.fixture
def far(rng):
    """A column that is 1.6e9 give or take 10, as a time stamp is."""
    X = np.column_stack([1.6e9 + 10 * rng.normal(size=400), rng.normal(size=400)])
    return X, ((X[:, 0] - 1.6e9) / 10 + rng.logistic(size=400) > 0).astype(int)


@pytest.fixture
def nearly_collinear(rng):
    a, b = rng.normal(size=(2, 2000))
    X = np.column_stack([a, a + 1e-6 * b, rng.normal(size=2000)])
    return X, (a + b + rng.logistic(size=2000) > 0).astype(int)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("where", [0, 400])
def test_it_need_not_store_a_far_column(far, layout, where):
    X, y = far
    model = agree(X, y, [0.0, 0.0], where, layout=layout)
    assert model.coef_[0, 0] == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("where", [0, 1000])
@pytest.mark.parametrize("size", [1e10, -1e20, 1e160, 1.7e308])
def test_it_sets_no_unit(nearly_collinear, layout, where, size):
    X, y = nearly_collinear
    agree(X, y, [size, size, 0.0], where, layout=layout, rtol=1e-4)


@pytest.mark.parametrize("C", [1.0, np.inf])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("classes", [2, 3])
def test_it_may_overflow_in_every_product(rng, classes, layout, fit_intercept, C):
    """Next to a column of 1e-200 its values are infinite in the units of the fit."""
    X = rng.normal(size=(200, 3)) * [1.0, 1e-200, 1.0]
    y = rng.integers(0, classes, 200)
    agree(X, y, [1e300, 1e300, -1e300], 17, 0, layout, C=C, fit_intercept=fit_intercept)
    if fit_intercept:  # where the second derivative is decomposed
        agree(np.column_stack([X, X[:, 0]]), y, [1e300, 1e300, -1e300, 1e300], 17, 0, layout, C=C)


def test_nor_does_it_hide_or_make_separation(far):
    X, y = far
    separated = (X[:, 0] > 1.6e9).astype(int)
    weight = np.append(np.ones(400), 0.0)
    for row, label in (([1.7e9, 0.0], 0), ([0.0, 0.0], 1), ([1e300, 1e300], 0)):
        model = fitted(np.vstack([X, [row]]), np.append(separated, label), weight)
        assert "completely separated by column 'x0' alone" in model.status_


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_it_must_hold_numbers(far, layout, bad):
    X, y = far
    X[7, 1] = bad
    weight = np.ones(400)
    weight[7] = 0.0
    with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity).*row 7, column 1"):
        fitted(LAYOUTS[layout](X), y, weight)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_but_it_can_be_looked_at(far, layout):
    """What the model makes of a row does not depend on the row's weight, nor on whether it stores the column."""
    X, y = far
    X, y = np.vstack([X, [[0.0, 0.5]]]), np.append(y, 1)
    weight = np.append(np.ones(400), 0.0)
    model = LogisticRegression(C=np.inf, tol=1e-10)
    *_, last = model.steps(LAYOUTS[layout](X), y, sample_weight=weight)
    expected = X[400] @ last.coef[0] + last.intercept[0]
    assert last.forward(400).z == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("layout", ["dense", "sparse", "coded", "composite"])
def test_blocks_of_nothing_else(rng, layout):
    """Whole blocks without weight, at either end and in between."""
    blocks = [block_of(rng, layout, rows=40) for _ in range(5)]
    shape = blocks[0].weight.shape
    given = [
        Block(b.target, b.dense, b.sparse, b.codes, torch.zeros(shape) if i in (0, 2, 4) else torch.ones(shape))
        for i, b in enumerate(blocks)
    ]

    def solved(parts):
        problem = Problem(MemorySource(parts), loss_for(2), [ElasticNet(l2=0.1)])
        fit = Fit(problem, FitOptions(tol=1e-10))
        for _ in fit.steps():
            pass
        return fit.results()[0]

    all_, some = solved(given), solved([given[1], given[3]])
    assert all_.converged
    torch.testing.assert_close(all_.theta, some.theta, rtol=1e-8, atol=1e-10)
