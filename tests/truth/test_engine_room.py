"""The training loop does what it says: the hand-written loop to the last bit, and the optimum of the exact fit."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.datasets import make_blobs, make_moons
from torch import nn
from torch.optim import LBFGS, SGD, Adam

from torchlogit import LogisticModule, LogisticRegression, train
from torchlogit.losses import Binomial, Multinomial
from torchlogit.nn import training_steps

EPS32 = float(np.finfo(np.float32).eps)


@pytest.fixture(scope="module")
def blobs():
    """The tutorial's points: float32, with a column of labels."""
    X, y = make_blobs(n_samples=1000, centers=2, n_features=2, random_state=42)
    return torch.tensor(X, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)[:, None]


def by_hand(X, y, *, sigmoid=False, epochs=100):
    """The tutorial's loop."""
    torch.manual_seed(42)
    layer = nn.Linear(2, 1)
    criterion = nn.BCELoss() if sigmoid else nn.BCEWithLogitsLoss()
    optimizer = SGD(layer.parameters(), lr=0.01)
    losses = []
    for _ in range(epochs):
        output = torch.sigmoid(layer(X)) if sigmoid else layer(X)
        loss = criterion(output, y)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    return losses, layer


@pytest.mark.parametrize("shape", ["column", "row"])
def test_a_hundred_losses_to_the_last_bit(blobs, shape):
    X, y = blobs
    losses, layer = by_hand(X, y)
    torch.manual_seed(42)
    model = LogisticModule(2)
    trace = train(model, X, y if shape == "column" else y[:, 0], optimizer=partial(SGD, lr=0.01), epochs=100)
    assert [record["objective"] for record in trace][:100] == losses
    assert torch.equal(model.head.weight, layer.weight)
    assert torch.equal(model.head.bias, layer.bias)
    assert len(trace) == 101
    assert trace[100]["objective"] == nn.functional.binary_cross_entropy_with_logits(layer(X), y).item()


def test_with_a_sigmoid_and_its_loss(blobs):
    X, y = blobs
    losses, _ = by_hand(X, y, sigmoid=True)
    torch.manual_seed(42)
    model = nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())
    trace = train(model, X, y[:, 0], optimizer=partial(SGD, lr=0.01), epochs=100, loss=nn.BCELoss())
    assert [record["objective"] for record in trace][:100] == losses
    logits, _ = by_hand(X, y)
    np.testing.assert_allclose(losses, logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_size", [None, 64])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("l2", [0.0, 0.03])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_every_number_of_a_trace_follows_from_its_coefficients(rng, batch_size, classes, weighted, l2, layout):
    X = torch.tensor(rng.normal(size=(300, 5)) * (rng.random((300, 5)) < 0.7), dtype=torch.float32)
    codes = rng.integers(0, classes, 300)
    weight = rng.uniform(0.1, 3, 300).astype(np.float32) if weighted else None
    y = torch.tensor(codes, dtype=torch.float32 if classes == 2 else torch.int64)
    model = LogisticModule(5, classes)
    rows = X.double().numpy()
    given = X if layout == "dense" else scipy.sparse.csr_array(X.numpy())
    steps = training_steps(
        model, given, y, optimizer=partial(SGD, lr=0.5), epochs=6, batch_size=batch_size, sample_weight=weight, l2=l2
    )
    seen = 0
    for step in steps:
        record = step.record
        theta = np.array(record["theta"])
        here = np.arange(300) if step.batch.rows is None or record["rows"] == 300 else step.batch.rows.numpy()
        w = np.ones(len(here)) if weight is None else weight[here].astype(float)
        total = len(here) * (1.0 if weight is None else float(weight.astype(float).mean()))
        eta = rows[here] @ theta[:, :-1].T + theta[:, -1]
        if classes == 2:
            margin = np.where(codes[here] == 1, eta[:, 0], -eta[:, 0])
            losses = np.logaddexp(0, -margin)
            residual = (1 / (1 + np.exp(-eta[:, 0])) - codes[here])[:, None]
        else:
            p = np.exp(eta - eta.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            losses = -np.log(p[np.arange(len(here)), codes[here]])
            residual = p - np.eye(classes)[codes[here]]
        objective = w @ losses / total + 0.5 * l2 * (theta[:, :-1] ** 2).sum()
        assert record["objective"] == pytest.approx(objective, rel=4 * EPS32, abs=0)
        if record["gradient_norm"] is not None:
            slope = (w[:, None] * residual).T @ np.column_stack([rows[here], np.ones(len(here))]) / total
            slope[:, :-1] += l2 * theta[:, :-1]
            assert record["gradient_norm"] == pytest.approx(np.linalg.norm(slope), rel=4 * EPS32, abs=0)
        seen += 1
    assert seen == 6 * (1 if batch_size is None else 5) + 1
    assert record["gradient_norm"] is None  # the result has no step ahead of it


@pytest.mark.parametrize("classes", [2, 3])
def test_autograd_and_the_row_formulas_agree(rng, classes):
    """The engine room differentiates by autograd, the exact fits by formula."""
    eta = torch.tensor(rng.normal(scale=5, size=(200, 1 if classes == 2 else classes)), dtype=torch.float64)
    target = torch.tensor(rng.integers(0, classes, 200))
    eta.requires_grad_()
    if classes == 2:
        losses = nn.functional.binary_cross_entropy_with_logits(eta[:, 0], target.double(), reduction="none")
        loss = Binomial()
    else:
        losses = nn.functional.cross_entropy(eta, target, reduction="none")
        loss = Multinomial(classes)
    (slope,) = torch.autograd.grad(losses.sum(), eta)
    value, first = loss.value_first(eta.detach()[:, None], target[:, None])
    torch.testing.assert_close(value[:, 0], losses.detach(), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(first[:, 0], slope, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("classes", [2, 3])
def test_full_batches_of_lbfgs_end_at_the_certified_optimum(rng, classes):
    X = rng.normal(size=(400, 4))
    y = rng.integers(0, classes, 400)
    clf = LogisticRegression(C=0.5, tol=1e-10).fit(X, y)
    model = LogisticModule(4, classes).double()
    optimizer = partial(LBFGS, lr=1.0, max_iter=200, tolerance_grad=1e-11, tolerance_change=1e-16,
                        line_search_fn="strong_wolfe")  # fmt: skip
    trace = train(model, X, y, optimizer=optimizer, epochs=3, l2=1 / (0.5 * 400))
    assert trace[-1]["objective"] == pytest.approx(clf.objective_, rel=1e-12)
    np.testing.assert_allclose(model.head.weight.detach().numpy(), clf.coef_, atol=1e-7)


def test_weights_are_repetitions(rng):
    X, y = rng.normal(size=(60, 3)), rng.integers(0, 2, 60)
    counts = rng.integers(0, 4, 60)
    models = []
    for rows, labels, weight in ((X, y, counts), (np.repeat(X, counts, 0), np.repeat(y, counts), None)):
        torch.manual_seed(1)
        model = LogisticModule(3).double()
        train(model, rows, labels, sample_weight=weight, optimizer=partial(SGD, lr=0.5), epochs=50, l2=0.01)
        models.append(model)
    torch.testing.assert_close(models[0].head.weight, models[1].head.weight, rtol=1e-12, atol=1e-14)


def test_hidden_layers_bend_the_boundary():
    X, y = make_moons(n_samples=2000, noise=0.2, random_state=0)
    X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y)
    held = slice(1000, None)

    def accuracy(model):
        with torch.no_grad():
            return float(((model.probability(X[held])[:, 0] > 0.5) == y[held].bool()).double().mean())

    torch.manual_seed(0)
    straight = LogisticModule(2)
    deep = LogisticModule(2, body=nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU()))
    for model in (straight, deep):
        train(model, X[:1000], y[:1000], optimizer=partial(Adam, lr=0.01), epochs=60, batch_size=64)
    assert accuracy(straight) < 0.90
    assert accuracy(deep) >= 0.95


def test_the_head_of_a_frozen_body_is_solved_exactly(rng):
    X = torch.tensor(rng.normal(size=(300, 3)), dtype=torch.float32)
    y = (X[:, 0] * X[:, 1] > 0).long()
    body = nn.Sequential(nn.Linear(3, 20), nn.Tanh(), nn.Dropout(0.5))
    module = LogisticModule(3, body=body)
    before = [value.clone() for value in body.parameters()]
    clf = module.fit_head(LogisticRegression(C=10.0, tol=1e-9), X, y)
    assert clf.converged_
    assert clf.kkt_ <= 1e-9
    assert all(torch.equal(a, b) for a, b in zip(before, body.parameters(), strict=True))
    assert body.training
    features = module.features(X)
    torch.testing.assert_close(module.head(features)[:, 0], clf.decision_function(features), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="3 classes"):
        module.fit_head(LogisticRegression(), X, torch.arange(300) % 3)


def test_multilabel_is_one_question_at_a_time(rng):
    X, Y = rng.normal(size=(200, 3)), rng.integers(0, 2, (200, 4))
    model = LogisticModule(3, n_outputs=4).double()
    trace = train(model, X, Y, optimizer=partial(LBFGS, max_iter=100, tolerance_grad=1e-10, tolerance_change=1e-14,
                                                 line_search_fn="strong_wolfe"), epochs=3)  # fmt: skip
    alone = [LogisticRegression(C=np.inf, tol=1e-9).fit(X, Y[:, k]) for k in range(4)]
    assert trace[-1]["objective"] == pytest.approx(np.mean([clf.objective_ for clf in alone]), rel=1e-9)
    assert model.probability(torch.zeros(5, 3).double()).shape == (5, 4)
    np.testing.assert_allclose(model.head.weight.detach().numpy(), np.vstack([clf.coef_ for clf in alone]), atol=1e-4)
