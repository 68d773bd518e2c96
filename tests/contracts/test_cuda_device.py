"""Rows on a CUDA device lead to the CPU's optimum: every kind of problem that a device's own code meets.

    make test-gpu

In a process of its own, since elsewhere the loops for devices run in Triton's interpreter, on CPU tensors.
"""

from __future__ import annotations

import math
import os
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.exceptions import ConvergenceWarning

from torchlogit import LogisticRegression, load, save

if not torch.cuda.is_available():
    pytest.skip("there is no CUDA device on this machine", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton's interpreter is in charge: `make test-gpu` runs these", allow_module_level=True)

TIGHT, DEVICE = 1e-9, "cuda"


def _classes(rng, X, classes, strength):
    scores = X @ rng.normal(size=(X.shape[1], classes)) * strength / math.sqrt(X.shape[1]) / X.std()
    return (scores + rng.gumbel(size=scores.shape)).argmax(1)


def _plain(rng, rows, columns, classes, strength=2.0):
    X = rng.normal(size=(rows, columns))
    return X, _classes(rng, X, classes, strength)


def _pixels(rng, rows, columns, classes):
    """Columns that are hardly ever above zero beside others that often are."""
    X = rng.random((rows, columns)) * (rng.random((rows, columns)) < rng.beta(0.3, 1, columns))
    return X, _classes(rng, X, classes, 3.0)


def _smooth(rng, rows, columns, classes):
    """Neighbours that have much in common."""
    X = rng.normal(size=(rows, columns)).cumsum(1) / math.sqrt(columns)
    return X, _classes(rng, X, classes, 3.0)


def _raw_units(rng, rows, columns, classes):
    X, y = _plain(rng, rows, columns, classes)
    return X * np.logspace(-3, 5, columns) + 1e4 * np.logspace(-3, 5, columns), y


def _outliers(rng, rows, columns, classes):
    X, y = _plain(rng, rows, columns, classes)
    X[:3] *= 1e5
    return X, y


def _equal_columns(rng, rows, columns, classes):
    X, y = _plain(rng, rows, columns, classes)
    X[:, 1], X[:, 2], X[:, 3] = X[:, 0], 7.0, 0.0
    return X, y


def _rare(rng, rows, columns, classes):
    X, y = _plain(rng, rows, columns, classes)
    return X, np.where(rng.random(rows) < 0.97, 0, y)


def _one_hot(rng, rows, columns, classes):
    X = np.zeros((rows, columns))
    for first in range(0, columns, 10):
        X[np.arange(rows), first + rng.integers(0, min(10, columns - first), rows)] = 1
    return X, _classes(rng, X, classes, 3.0)


# Each way of the decision table, and rows that are hard on it.
PROBLEMS = {
    "small": (_plain, 500, 7, 2),
    "two classes": (_plain, 200_000, 40, 2),
    "two classes, wide": (_smooth, 6_000, 1_200, 2),
    "two classes, pixels": (_pixels, 20_000, 600, 2),
    "two classes, fewer rows than columns": (_plain, 300, 4_000, 2),
    "two classes, far too wide": (_plain, 3_000, 5_000, 2),
    "raw units": (_raw_units, 100_000, 30, 2),
    "outliers": (_outliers, 50_000, 20, 2),
    "equal columns": (_equal_columns, 50_000, 20, 2),
    "a rare class": (_rare, 100_000, 60, 2),
    "one-hot columns": (_one_hot, 50_000, 100, 2),
    "three classes": (_plain, 200_000, 30, 3),
    "three classes, small": (_plain, 900, 7, 3),
    "three classes, outliers": (_outliers, 50_000, 20, 3),
    "three classes, raw units": (_raw_units, 50_000, 30, 3),
    "five classes, one-hot columns": (_one_hot, 100_000, 60, 5),
    "ten classes": (_plain, 100_000, 60, 10),
    "ten classes, pixels": (_pixels, 10_000, 500, 10),
    "ten classes, smooth": (_smooth, 10_000, 400, 10),
    "ten classes, rare": (_rare, 40_000, 100, 10),
    "ten classes, fewer rows than columns": (_plain, 300, 3_000, 10),
    "sixty classes": (_plain, 30_000, 80, 60),
}


def _rows(name, dtype=np.float64):
    make, rows, columns, classes = PROBLEMS[name]
    X, y = make(np.random.default_rng(20240607), rows, columns, classes)
    return X.astype(dtype), y


def _on_device(X):
    if scipy.sparse.issparse(X):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse ")  # are in beta, and are checked or not
            parts = (torch.from_numpy(part) for part in (X.indptr, X.indices, X.data))
            return torch.sparse_csr_tensor(*parts, size=X.shape, check_invariants=True).to(DEVICE)
    return torch.as_tensor(X).to(DEVICE)


def _apart(here, there, X):
    """The largest difference of a probability, both asked on the CPU."""
    return np.abs(np.asarray(here.predict_proba(X)) - np.asarray(there.predict_proba(X))).max()


def _both(X, y, weight=None, offset=None, **options):
    """Fitted on the CPU, and on the device with all that it takes there."""
    here = LogisticRegression(tol=TIGHT, **options).fit(X, y, sample_weight=weight, offset=offset)
    moved = [None if values is None else torch.as_tensor(values).to(DEVICE) for values in (weight, offset)]
    there = LogisticRegression(tol=TIGHT, **options).fit(_on_device(X), torch.as_tensor(y).to(DEVICE), *moved)
    assert there.plan_.device.startswith("cuda")
    return here, there


def _agree(X, y, close=1e-6, **given):
    here, there = _both(X, y, **given)
    assert here.converged_
    assert there.converged_, there.status_
    apart = _apart(here, there, X)
    assert apart <= close, f"{apart:.1e}"
    return here, there


@pytest.mark.parametrize("C", [1.0, 100.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_optimum(name, dtype, C):
    X, y = _rows(name, dtype)
    _agree(X, y, C=C)


@pytest.mark.parametrize("name", ["two classes", "three classes", "ten classes"])
@pytest.mark.parametrize(
    "options",
    [{"C": math.inf}, {"fit_intercept": False}, {"class_weight": "balanced"}, {"C": 1e-4}],
    ids=str,
)
def test_options(name, options):
    X, y = _rows(name)
    _agree(X, y, **options)


@pytest.mark.parametrize("name", ["two classes", "two classes, wide", "three classes", "ten classes, pixels"])
def test_weights_and_offsets(rng, name):
    X, y = _rows(name)
    weight = rng.integers(0, 4, len(y)).astype(float)
    outputs = 1 if y.max() == 1 else y.max() + 1
    offset = rng.normal(size=len(y) if outputs == 1 else (len(y), outputs))
    _agree(X, y, weight=weight)
    here, there = _both(X, y, weight=weight, offset=offset)
    assert here.converged_
    assert there.converged_
    np.testing.assert_allclose(there.coef_, here.coef_, rtol=0, atol=1e-6 * np.abs(here.coef_).max())


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("shape", [(40_000, 300), (2_000, 6_000)], ids=str)
def test_sparse_rows(rng, shape, classes):
    X = scipy.sparse.random(*shape, density=0.02, format="csr", random_state=0)
    scores = 3 * X @ rng.normal(size=(shape[1], classes))
    _agree(X, (scores + rng.gumbel(size=scores.shape)).argmax(1))


@pytest.mark.parametrize("name", ["two classes", "ten classes"])
def test_arrays_are_taken_there_and_answers_come_back(tmp_path, name):
    X, y = _rows(name)
    here = LogisticRegression(tol=TIGHT).fit(X, y)
    there = LogisticRegression(tol=TIGHT, device=DEVICE).fit(X, y)
    assert there.plan_.device.startswith("cuda")
    assert _apart(here, there, X) <= 1e-6
    rows = _on_device(X)
    for ask in ("predict_proba", "decision_function", "predict"):
        found, wanted = getattr(there, ask)(rows), getattr(here, ask)(X)
        found = found.cpu().numpy() if torch.is_tensor(found) else np.asarray(found)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    save(there, tmp_path / "model.json")
    again = load(tmp_path / "model.json")
    np.testing.assert_array_equal(again.coef_, there.coef_)
    assert again.plan_ == there.plan_


def test_the_same_bits_again():
    for name in ("two classes", "three classes", "ten classes, pixels"):
        X, y = _rows(name, np.float32)
        rows, labels = _on_device(X), torch.as_tensor(y).to(DEVICE)
        one, other = (LogisticRegression().fit(rows, labels) for _ in range(2))
        np.testing.assert_array_equal(one.coef_, other.coef_)
        assert one.excess_ == other.excess_


def test_a_warm_start():
    X, y = _rows("two classes")
    rows, labels = _on_device(X), torch.as_tensor(y).to(DEVICE)
    model = LogisticRegression(warm_start=True, device=DEVICE).fit(rows, labels)
    steps = int(model.n_iter_[0])
    model.fit(rows, labels)
    assert int(model.n_iter_[0]) < steps
    assert model.converged_


def test_separated_classes_are_told():
    X, _ = _rows("small")
    y = (X[:, 0] > 0).astype(int)
    said = []
    for rows in (X, _on_device(X)):
        with pytest.warns(ConvergenceWarning, match="separated") as caught:
            LogisticRegression(C=math.inf).fit(rows, y)
        said.append(str(caught[0].message))
    assert said[0] == said[1]
