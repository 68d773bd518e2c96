"""Shares of the table's own columns: they add up to the logit, and each is what its column contributes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from torchlogit import LogisticRegression, TableEncoder, explain, scan


def check(told, logits):
    total = told.shares.sum(axis=-1)
    size = np.abs(told.shares).sum(axis=-1)
    assert (np.abs(total - logits) <= 1e-12 * np.maximum(size, 1e-300)).all()


@pytest.fixture
def table(rng):
    pd = pytest.importorskip("pandas")
    n = 400
    frame = pd.DataFrame({
        "age": np.where(rng.random(n) < 0.1, np.nan, rng.normal(40, 12, n)),
        "plan": rng.choice(["basic", "plus", "pro"], n),
        "member": rng.choice(["yes", "no"], n),
        "joined": pd.date_range("2020-01-01", periods=n, freq="36h").astype(str),
        "note": rng.choice(["late parcel again", "thanks a lot", "where is it", "cancel my order please now"], n),
        "constant": "x",
    })  # fmt: skip
    label = np.where(frame["age"].fillna(40) + 10 * (frame["plan"] == "pro") + rng.normal(0, 10, n) > 42, "yes", "no")
    return frame, label


@pytest.mark.parametrize("classes", [2, 3])
def test_an_encoded_table(table, rng, classes):
    frame, label = table
    if classes == 3:
        label = np.where(rng.random(len(label)) < 0.2, "maybe", label)
    model = make_pipeline(TableEncoder(), LogisticRegression()).fit(frame, label)
    told = explain(model, frame)
    assert told.columns == [*frame.columns, "(intercept)"]
    check(told, model.decision_function(frame))
    assert not told.shares[..., told.columns.index("constant")].any()
    # A column's share is what changes when the column does.
    other = frame.copy()
    other["plan"] = "pro"
    changed = explain(model, other)
    same = [j for j, name in enumerate(told.columns) if name != "plan"]
    np.testing.assert_array_equal(changed.shares[..., same], told.shares[..., same])
    moved = model.decision_function(other) - model.decision_function(frame)
    np.testing.assert_allclose((changed.shares - told.shares)[..., told.columns.index("plan")], moved, atol=1e-12)
    frame_told = told.to_frame() if classes == 2 else told.to_frame("yes")
    assert list(frame_told.columns) == told.columns
    if classes == 3:
        with pytest.raises(ValueError, match="label must be one of"):
            told.to_frame()


def test_a_scan_with_an_offset(table, tmp_path, rng):
    frame, label = table
    frame = frame.assign(label=label, base=rng.normal(size=len(label)))
    frame.to_csv(tmp_path / "rows.csv", index=False)
    rows = scan(tmp_path / "rows.csv", target="label", offset="base")
    model = make_pipeline(TableEncoder(), LogisticRegression()).fit(rows)
    told = explain(model, rows)
    check(told, model.decision_function(rows))
    assert "base" not in told.columns
    np.testing.assert_allclose(told.shares[:, -1] - frame["base"], model[-1].intercept_[0], atol=1e-12)
    bare = frame.drop(columns=["label", "base"])
    np.testing.assert_allclose(explain(model, bare, offset=frame["base"]).shares, told.shares, atol=1e-12)
    with pytest.raises(ValueError, match="offset"):
        explain(model, bare)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("form", ["array", "float32", "sparse", "tensor", "sparse tensor", "frame", "far"])
def test_arrays(rng, classes, form):
    X = rng.normal(size=(100, 4)) * (rng.random((100, 4)) < 0.6)
    if form == "far":
        X = X + [0, 1.7e9, 0, 0]
    y = rng.integers(0, classes, 100)
    given = {
        "float32": lambda: X.astype(np.float32),
        "sparse": lambda: scipy.sparse.csr_array(X),
        "tensor": lambda: torch.tensor(X),
        "sparse tensor": lambda: torch.tensor(X).to_sparse(),
        "frame": lambda: pytest.importorskip("pandas").DataFrame(X, columns=list("abcd")),
    }.get(form, lambda: X)()
    clf = LogisticRegression(C=np.inf, tol=1e-9).fit(given, y)
    told = explain(clf, given)
    logits = np.asarray(clf.decision_function(X if form in ("float32", "sparse tensor", "tensor") else given))
    if form == "float32":
        logits = clf.decision_function(X.astype(np.float32).astype(float))
    check(told, logits)
    assert told.columns[0] == ("a" if form == "frame" else "x0")
    shares = clf.explain(given)
    shares = shares.toarray() if scipy.sparse.issparse(shares) else shares
    np.testing.assert_allclose(told.shares, shares, rtol=1e-13, atol=0)


def test_what_it_does_not_take(table):
    frame, label = table
    numbers = frame[["age"]].fillna(0)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(numbers, label)
    with pytest.raises(TypeError, match="not StandardScaler and LogisticRegression"):
        explain(model, numbers)
    clf = LogisticRegression().fit(numbers, label)
    with pytest.raises(ValueError, match="NaN"):
        explain(clf, frame[["age"]])
