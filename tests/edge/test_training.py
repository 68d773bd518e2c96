"""`train` on whatever is handed to it: data, optimizers, schedulers, callbacks, and what does not go together."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from torchlogit import LogisticModule, LogisticRegression, TableEncoder, scan, train
from torchlogit.batches import epoch_order
from torchlogit.nn import training_steps

OPTIMIZER = partial(SGD, lr=0.1)


@pytest.fixture
def data(rng):
    X = rng.normal(size=(120, 4))
    return X, (X[:, 0] + rng.normal(size=120) > 0).astype(int)


def trained(X, y=None, dtype=torch.float64, outputs=2, **options):
    torch.manual_seed(0)
    model = LogisticModule(4, outputs).to(dtype)
    options = {"optimizer": OPTIMIZER, "epochs": 3} | options
    trace = train(model, X, y, **options)
    return model, trace


def test_the_same_rows_in_every_form(data):
    pd, pl, pa = pytest.importorskip("pandas"), pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    X, y = data
    names = list("abcd")
    forms = [
        (X, y.tolist()),
        (torch.tensor(X), torch.tensor(y, dtype=torch.bool)),
        (X.astype(">f8"), pd.Series(y)),
        (X[::-1][::-1], y[:, None].astype(np.uint8)),
        (pd.DataFrame(X, columns=names), y.astype(float)),
        (pl.DataFrame(X, schema=names), pl.Series(y)),
        (pa.table({name: X[:, j] for j, name in enumerate(names)}).to_pandas(), y),
        (scipy.sparse.csr_array(X), y),
        (scipy.sparse.coo_matrix(X), y),
    ]
    for batch_size in (None, 32):
        reference, _ = trained(X, y, batch_size=batch_size)
        for form, labels in forms:
            model, _ = trained(form, labels, batch_size=batch_size)
            torch.testing.assert_close(model.head.weight, reference.head.weight, rtol=1e-12, atol=1e-14)


def test_batches_are_slices_of_one_permuted_index(data):
    X, y = data
    X = torch.tensor(X)
    seen = []
    for step in training_steps(
        LogisticModule(4).double(), X, y, optimizer=OPTIMIZER, epochs=2, batch_size=50, seed=7
    ):
        seen.append(step.batch.rows)
        if step.number < 6:
            torch.testing.assert_close(step.batch.x, X[step.batch.rows], rtol=0, atol=0)
    for epoch in (0, 1):
        order = torch.cat(seen[3 * epoch : 3 * epoch + 3])
        assert torch.equal(order, epoch_order(120, 7, epoch))
        assert torch.equal(order.sort().values, torch.arange(120))
    assert not torch.equal(epoch_order(120, 7, 0), epoch_order(120, 7, 1))
    assert not torch.equal(epoch_order(120, 7, 0), epoch_order(120, 8, 0))


def test_the_same_seed_gives_the_same_bits_and_leaves_the_callers_numbers_alone(data):
    body = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5))
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(3)
        model = LogisticModule(4, body=nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5)))
        before = torch.get_rng_state()
        trace = train(model, *data, optimizer=OPTIMIZER, epochs=3, batch_size=32, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        states.append((model.head.weight.detach(), [record["objective"] for record in trace]))
    assert torch.equal(states[0][0], states[1][0])
    assert states[0][1] == states[1][1]
    assert not torch.equal(states[0][0], states[2][0])
    assert body.training


class Rows(IterableDataset):
    def __init__(self, X, y):
        self.X, self.y = X, y

    def __iter__(self):
        return iter(zip(self.X, self.y, strict=True))


def test_loaders_and_data_sets(data):
    X, y = torch.tensor(data[0]), torch.tensor(data[1])
    weight = torch.linspace(0.5, 2, 120, dtype=torch.float64)
    listed = [(X[i : i + 40], y[i : i + 40]) for i in range(0, 120, 40)]
    reference, traced = trained(listed)
    for loader in (
        DataLoader(TensorDataset(X, y), batch_size=40),
        DataLoader(Rows(X, y), batch_size=40),
        [(a.numpy(), b.numpy()) for a, b in listed],
    ):
        model, trace = trained(loader)
        torch.testing.assert_close(model.head.weight, reference.head.weight, rtol=1e-12, atol=1e-14)
        assert len(trace) == len(traced) == 10
    model, _ = trained(Rows(X, y), batch_size=40)
    assert torch.equal(model.head.weight, reference.head.weight)
    shuffled, _ = trained(TensorDataset(X, y), batch_size=40)
    assert not torch.equal(shuffled.head.weight, reference.head.weight)
    assert torch.equal(trained(TensorDataset(X, y), batch_size=40)[0].head.weight, shuffled.head.weight)
    weighted, _ = trained([(X, y, weight)])
    whole, _ = trained(X, y, sample_weight=weight)
    torch.testing.assert_close(weighted.head.weight, whole.head.weight, rtol=1e-12, atol=1e-14)
    nothing, _ = trained([(X, y, 0 * weight)])
    torch.manual_seed(0)
    assert torch.equal(nothing.head.weight, LogisticModule(4).double().head.weight)


def test_a_scan(tmp_path, data):
    X, y = data
    path = tmp_path / "rows.csv"
    lines = [",".join([*map(repr, row), "yes" if label else "no"]) for row, label in zip(X.tolist(), y, strict=True)]
    path.write_text("\n".join(["a,b,c,d,label", *lines]) + "\n")
    model = LogisticModule(4).double()
    trace = train(model, scan(path, target="label"), optimizer=partial(SGD, lr=0.5), epochs=200, batch_size=40)
    best = LogisticRegression(C=np.inf).fit(X, y)
    np.testing.assert_allclose(model.head.weight.detach().numpy(), best.coef_, atol=0.2)
    assert trace[0]["passes"] == 0
    encoded = TableEncoder().fit_transform(scan(path, target="label"))
    train(LogisticModule(4), encoded, optimizer=OPTIMIZER, epochs=1)
    with pytest.raises(ValueError, match="no target"):
        train(LogisticModule(4), scan(path), optimizer=OPTIMIZER, epochs=1)
    with pytest.raises(ValueError, match="its own targets"):
        train(LogisticModule(4), scan(path, target="label"), y, optimizer=OPTIMIZER, epochs=1)


@pytest.mark.parametrize(
    ("scheduler", "rates"),
    [
        (partial(StepLR, step_size=2, gamma=0.1), [0.1, 0.1, 0.01, 0.01]),
        (partial(LambdaLR, lr_lambda=lambda epoch: 1 / (epoch + 1)), [0.1, 0.05, 0.1 / 3, 0.025]),
        (partial(CosineAnnealingLR, T_max=4), [0.05 * (1 + np.cos(np.pi * k / 4)) for k in range(4)]),
        (partial(ReduceLROnPlateau, patience=0, threshold=0.9999), [0.1, 0.1, 0.01, 0.001]),
    ],
)
def test_schedulers_step_after_each_epoch(data, scheduler, rates):
    _, trace = trained(*data, scheduler=scheduler, epochs=4, batch_size=60)
    assert [record["learning_rate"] for record in trace][:-1:2] == pytest.approx(rates, rel=1e-9)


def test_one_cycle_steps_after_each_batch(data):
    _, trace = trained(*data, scheduler=partial(OneCycleLR, max_lr=1.0, total_steps=6), epochs=3, batch_size=60)
    rates = [record["learning_rate"] for record in trace][:-1]
    assert len(set(rates)) == 6


def test_built_optimizers_and_strangers(data):
    model = LogisticModule(4)
    train(model, *data, optimizer=AdamW(model.parameters(), lr=0.1), epochs=2)
    with pytest.raises(ValueError, match=r"none of this model's parameters"):
        train(LogisticModule(4), *data, optimizer=SGD(model.parameters(), lr=0.1), epochs=1)
    with pytest.raises(ValueError, match=r"must be a torch\.optim optimizer"):
        train(model, *data, optimizer="sgd", epochs=1)
    with pytest.raises(ValueError, match="made a Linear"):
        train(model, *data, optimizer=lambda parameters: nn.Linear(1, 1), epochs=1)


def test_frozen_parameters_stay(data):
    model = LogisticModule(4, body=nn.Sequential(nn.Linear(4, 6), nn.Tanh()))
    model.body.requires_grad_(False)
    before = model.body[0].weight.clone()
    train(model, *data, optimizer=partial(SGD, lr=0.1, weight_decay=0.1), epochs=3)
    assert torch.equal(model.body[0].weight, before)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameters to train"):
        train(model, *data, optimizer=OPTIMIZER, epochs=1)


def test_rows_to_watch(data):
    X, y = data
    model = LogisticModule(4).double()
    steps = training_steps(
        model, X[:80], y[:80], optimizer=OPTIMIZER, epochs=3, batch_size=20, validation=(X[80:], y[80:])
    )
    for step in steps:
        assert ("validation" in step.record) == (step.number % 4 == 0)
        if "validation" in step.record:
            logits = model(torch.tensor(X[80:])).detach()[:, 0]
            expected = nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(y[80:]).double())
            assert step.record["validation"] == pytest.approx(float(expected), rel=1e-12)
    assert model.training


class Hooks:
    def __init__(self, stop_after):
        self.steps, self.epochs, self.ends, self.stop_after = 0, 0, 0, stop_after

    def on_step(self, step):
        assert step.gradients
        self.steps += 1

    def on_epoch(self, step):
        self.epochs += 1
        return self.epochs == self.stop_after

    def on_end(self, trace):
        self.ends += 1


def test_callbacks(data):
    hooks, numbers = Hooks(stop_after=2), []
    _, trace = trained(*data, epochs=5, batch_size=60, callbacks=[hooks, lambda step: numbers.append(step.number)])
    assert (hooks.steps, hooks.epochs, hooks.ends) == (4, 2, 1)
    assert numbers == [0, 1, 2, 3]
    assert len(trace) == 5
    _, trace = trained(*data, epochs=5, batch_size=60, callbacks=[lambda step: step.number == 3])
    assert [record["step"] for record in trace] == [0, 1, 2, 3, 3]
    assert trace[3]["theta"] == trace[4]["theta"]  # stopped before the update


def test_a_row_opened_up(data):
    X, y = data
    model = LogisticModule(4).double()
    for step in training_steps(model, X, y, optimizer=OPTIMIZER, epochs=2, batch_size=30):
        view = step.forward(17)
        z = model(torch.tensor(X[17:18])).item()
        assert view.z == pytest.approx(z, rel=1e-14)
        assert view.probability == pytest.approx(1 / (1 + np.exp(-z)), rel=1e-13)
        assert view.residual == pytest.approx(view.probability - y[17], rel=1e-12)
        assert view.loss == pytest.approx(np.logaddexp(0, -z if y[17] else z), rel=1e-13)
        assert view.target == y[17]
        with pytest.raises(IndexError, match="no row 120"):
            step.forward(120)
    listed = [(X[:60], y[:60]), (X[60:], y[60:])]
    step = next(training_steps(model, listed, optimizer=OPTIMIZER, epochs=1))
    assert step.forward(59).target == y[59]
    with pytest.raises(IndexError, match="the batch has 60 rows"):
        step.forward(60)
    softmax = LogisticModule(4, 3).double()
    view = next(training_steps(softmax, X, y, optimizer=OPTIMIZER, epochs=1)).forward(0)
    assert view.probability.shape == view.residual.shape == (3,)
    assert view.residual.sum() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"epochs": -1}, "epochs must be"),
        ({"epochs": 1.5}, "epochs must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"l2": -1.0}, "l2 must be"),
        ({"sample_weight": np.ones(7)}, "sample_weight has shape"),
        ({"sample_weight": -np.ones(120)}, "finite, not negative"),
        ({"y": np.full(120, 2)}, "wants 0 and 1"),
        ({"y": np.zeros(7)}, "120 rows"),
        ({"y": np.array(["a", "b"] * 60)}, "not numbers"),
        ({"X": np.zeros((120, 5))}, "5 columns"),
        ({"X": np.zeros((0, 4)), "y": np.zeros(0)}, "rows and columns"),
        ({"y": None}, "y is missing"),
        ({"loss": lambda output, y: (output - y).square().mean(), "sample_weight": np.ones(120)}, "single rows"),
    ],
)
def test_what_does_not_go_together(data, change, match):
    given = {"X": data[0], "y": data[1], "epochs": 1, "optimizer": OPTIMIZER} | change
    with pytest.raises(ValueError, match=match):
        train(LogisticModule(4).double(), given.pop("X"), given.pop("y"), **given)


def test_class_codes_beyond_the_outputs(data):
    with pytest.raises(ValueError, match="class codes from 0 to 2"):
        trained(data[0], data[1] + 2, outputs=3)


def test_a_loss_that_runs_away_is_said_so(data):
    with pytest.raises(FloatingPointError, match="learning rate"):
        trained(1e6 * data[0], data[1], dtype=torch.float32, optimizer=partial(SGD, lr=1e38), epochs=50)


def test_an_iterator_is_used_up(data):
    X, y = data
    with pytest.raises(ValueError, match="used up"):
        trained(iter([(X, y)]), epochs=2)
    with pytest.raises(ValueError, match="must yield"):
        trained([X, X])
    with pytest.raises(ValueError, match="makes its own batches"):
        trained([(X, y)], batch_size=3)
    with pytest.raises(ValueError, match="give batch_size"):
        trained(TensorDataset(torch.tensor(X), torch.tensor(y)))


def test_the_module_says_what_it_is_not():
    for arguments, match in (
        ((0,), "n_features"),
        ((2, 1), "n_classes"),
        ((True,), "n_features"),
    ):
        with pytest.raises(ValueError, match=match):
            LogisticModule(*arguments)
    with pytest.raises(ValueError, match="n_outputs"):
        LogisticModule(2, 3, n_outputs=2)
    with pytest.raises(ValueError, match="does not take rows of 3"):
        LogisticModule(3, body=nn.Linear(2, 4))
    with pytest.raises(ValueError, match="must map"):
        LogisticModule(3, body=nn.Unflatten(1, (3, 1)))
    norm = nn.BatchNorm1d(3)
    LogisticModule(3, body=norm)
    assert norm.training
    assert int(norm.num_batches_tracked) == 0


def test_from_a_module_and_back(rng, tmp_path):
    from torchlogit import load, save

    X, y = rng.normal(size=(200, 3)), rng.choice(["a", "b", "c"], 200)
    clf = LogisticRegression().fit(X, y)
    again = LogisticRegression.from_module(clf.module_, classes=clf.classes_)
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    torch.testing.assert_close(
        clf.module_.probability(torch.tensor(X)), torch.tensor(clf.predict_proba(X)), rtol=1e-13, atol=1e-15
    )
    assert clf.module_ is clf.module_
    assert clf.module_ is not clf.fit(X, y).module_
    assert not again.converged_
    assert "no data were fitted" in again.status_
    save(again, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    plain = nn.Linear(3, 3, dtype=torch.float64)
    plain.load_state_dict(clf.module_.head.state_dict())
    np.testing.assert_allclose(plain(torch.tensor(X)).detach().numpy(), clf.decision_function(X), rtol=1e-12)
    # two outputs are one: the difference of their logits; labels may come in any order
    two = nn.Sequential(nn.Linear(3, 2), nn.Softmax(dim=1))
    binary = LogisticRegression.from_module(two, classes=["yes", "no"])
    assert binary.coef_.dtype == np.float32
    expected = two(torch.tensor(X, dtype=torch.float32)).detach().numpy()
    np.testing.assert_allclose(binary.predict_proba(X.astype(np.float32))[:, ::-1], expected, atol=1e-6)
    named = LogisticRegression.from_module(clf.module_, feature_names=["u", "v", "w"])
    assert named.feature_names_in_.tolist() == ["u", "v", "w"]
    one = LogisticRegression.from_module(nn.Linear(3, 1, bias=False), classes=[1, 0])
    assert one.intercept_[0] == 0
    for module, options, match in (
        (LogisticModule(2, body=nn.Linear(2, 3)), {}, "has a body"),
        (LogisticModule(2, n_outputs=3), {}, "yes-or-no"),
        (nn.ReLU(), {}, "not from ReLU"),
        (nn.Linear(2, 3), {"classes": [0, 1]}, "name 3 different"),
        (nn.Linear(2, 1), {"feature_names": ["a"]}, "1 names"),
    ):
        with pytest.raises(ValueError, match=match):
            LogisticRegression.from_module(module, **options)
