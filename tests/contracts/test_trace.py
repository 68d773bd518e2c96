"""The trace as data: JSON Lines, a frame, TensorBoard, scikit-learn's callbacks, the terminal."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.model_selection import GridSearchCV
from torch.optim import SGD

from torchlogit import LogisticModule, LogisticRegression, Trace, train
from torchlogit.solvers import Newton

FIT_FIELDS = {
    "step", "objective", "gradient_norm", "kkt", "excess", "step_length", "trials", "passes", "rows_per_second",
    "bytes_per_second", "seconds", "theta",
}  # fmt: skip
TRAIN_FIELDS = {
    "step", "epoch", "objective", "gradient_norm", "learning_rate", "rows", "passes", "rows_per_second", "seconds",
    "theta",
}  # fmt: skip


@pytest.fixture
def cancer():
    return load_breast_cancer(return_X_y=True)


@pytest.fixture(params=["fit", "train"])
def trace(request, cancer):
    X, y = cancer
    if request.param == "fit":
        return LogisticRegression().fit(X, y).trace_
    Z = torch.tensor((X - X.mean(0)) / X.std(0), dtype=torch.float32)
    return train(LogisticModule(30), Z, y, optimizer=partial(SGD, lr=0.1), epochs=3, batch_size=100, validation=(Z, y))


def test_fields(trace):
    fields = TRAIN_FIELDS if "epoch" in trace[0] else FIT_FIELDS
    assert all(record.keys() - {"validation"} == fields for record in trace)
    assert isinstance(trace[0]["objective"], float)
    assert isinstance(trace[1:], Trace)
    assert "Trace(" in repr(trace)


def test_json_lines_both_ways(trace, tmp_path):
    trace.to_jsonl(tmp_path / "trace.jsonl")
    assert Trace.from_jsonl(tmp_path / "trace.jsonl") == trace
    assert len((tmp_path / "trace.jsonl").read_text().splitlines()) == len(trace)


def test_a_frame(trace):
    frame = trace.to_frame()
    assert list(frame["objective"]) == [record["objective"] for record in trace]


def test_tensorboard(trace, tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trace.to_tensorboard(tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    objective = events.Scalars("objective")
    assert [event.step for event in objective] == [record["step"] for record in trace]
    np.testing.assert_allclose([event.value for event in objective], trace.to_frame()["objective"], rtol=1e-6)
    tags = events.Tags()["scalars"]
    assert "seconds/total" in tags
    assert "theta" not in tags


def test_a_picture(trace):
    display = trace.plot()
    display.figure_.clf()


def test_records_do_not_change():
    trace = Trace([{"step": 0, "objective": 1.0}])
    trace.annotate(validation=2.0)
    assert trace[-1] == {"step": 0, "objective": 1.0, "validation": 2.0}
    with pytest.raises(ValueError, match="already"):
        trace.annotate(validation=3.0)
    trace[0]["objective"] = 5.0
    assert trace[0]["objective"] == 1.0


# -- scikit-learn's callbacks -----------------------------------------------------------------------------------------

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn has no callbacks before 1.9")


class Recorder:
    """Follows the protocol, and may stop the fit."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at, self.scores = [], stop_at, []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.calls.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        self.calls.append(f"end {context.task_name}")
        if context.task_name == "step":
            self.scores.append(fitted_estimator.score(X, y))
            return len(self.scores) == self.stop_at
        return False


def test_every_step_is_a_task(cancer):
    recorder = Recorder()
    clf = LogisticRegression().set_callbacks(recorder).fit(*cancer)
    steps = len(clf.trace_)
    assert recorder.calls == ["setup", "begin fit"] + ["begin step", "end step"] * steps + ["end fit", "teardown"]
    assert len(recorder.scores) == steps
    assert recorder.scores[0] == pytest.approx(max(np.bincount(cancer[1])) / len(cancer[1]), abs=0.3)
    assert recorder.scores[-1] == clf.score(*cancer)
    np.testing.assert_array_equal(clf.coef_, LogisticRegression().fit(*cancer).coef_)


def test_a_callback_may_stop_the_fit(cancer):
    recorder = Recorder(stop_at=2)
    clf = LogisticRegression().set_callbacks(recorder).fit(*cancer)  # no warning: it was asked for
    assert len(clf.trace_) == 2
    assert not clf.converged_
    assert "interrupted" in clf.status_
    assert recorder.calls[-2:] == ["end fit", "teardown"]


def test_an_error_still_tears_down(cancer):
    recorder = Recorder()
    X = cancer[0].copy()
    X[3, 2] = np.nan
    with pytest.raises(ValueError, match="row 3"):
        LogisticRegression().set_callbacks(recorder).fit(X, cancer[1])
    assert recorder.calls[-1] == "teardown"


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
def test_scoring_monitor(cancer, form):
    X, y = cancer
    monitor = callback.ScoringMonitor(scoring=["neg_log_loss", "accuracy"])
    clf = LogisticRegression().set_callbacks(monitor).fit(form(X), y, sample_weight=np.ones(len(y)))
    log = monitor.get_logs().data_as_pandas
    steps = log[log["task_name"] == "step"]
    assert len(steps) == len(clf.trace_)
    penalty = 0.5 / len(y) * np.array([np.square(np.array(r["theta"])[0, :-1]).sum() for r in clf.trace_])
    objective = np.array([record["objective"] for record in clf.trace_])
    np.testing.assert_allclose(-steps["neg_log_loss"], objective - penalty, rtol=1e-9)


def test_progress_bar(cancer, capsys):
    LogisticRegression().set_callbacks(callback.ProgressBar()).fit(*cancer)
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2)
    if hasattr(search, "set_callbacks"):
        search.set_callbacks(callback.ProgressBar())
    search.fit(*cancer)
    capsys.readouterr()


def test_many_classes_and_clones():
    from sklearn.base import clone

    X, y = load_iris(return_X_y=True)
    recorder = Recorder()
    clf = LogisticRegression().set_callbacks(recorder).fit(X, y)
    assert recorder.scores[-1] == clf.score(X, y)
    clone(clf).fit(X, y)


# -- the terminal -----------------------------------------------------------------------------------------------------


def test_verbose_tells_the_story(cancer, capsys):
    clf = LogisticRegression(verbose=1).fit(*cancer)
    told = capsys.readouterr().err
    assert "minimise" in told
    assert told.count("step ") >= len(clf.trace_)
    assert f"{clf.objective_:.8g}" in told
    assert told.strip().endswith(clf.status_)
    LogisticRegression().fit(*cancer)
    assert capsys.readouterr().err == ""


def test_a_fit_that_nobody_watches_leaves_the_same_records(rng, monkeypatch):
    X = rng.normal(size=(300, 6))
    y = (X[:, 0] + rng.logistic(size=300) > 0).astype(int)
    watched = LogisticRegression()
    for _ in watched.steps(X, y):
        pass
    alone = LogisticRegression().fit(X, y)
    timed = {"seconds", "rows_per_second", "bytes_per_second"}
    assert len(alone.trace_) == len(watched.trace_)
    for a, b in zip(alone.trace_, watched.trace_, strict=True):
        assert list(a) == list(b)
        assert {k: v for k, v in a.items() if k not in timed | {"gradient_norm", "theta"}} == {
            k: v for k, v in b.items() if k not in timed | {"gradient_norm", "theta"}
        }
        np.testing.assert_allclose(a["gradient_norm"], b["gradient_norm"], rtol=1e-14)
        np.testing.assert_allclose(a["theta"], b["theta"], rtol=1e-13, atol=1e-16)


def test_an_interruption_leaves_the_records_before_it(rng, monkeypatch):
    X = rng.normal(size=(300, 6))
    y = (X[:, 0] + rng.logistic(size=300) > 0).astype(int)
    whole = LogisticRegression().fit(X, y)
    taken, step = [], Newton.step

    def interrupted(self, objective, state):
        taken.append(state)
        if len(taken) == 3:
            raise KeyboardInterrupt
        return step(self, objective, state)

    monkeypatch.setattr(Newton, "step", interrupted)
    clf = LogisticRegression()
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    assert [record["step"] for record in clf.trace_] == [0, 1]
    assert clf.trace_[1]["theta"] == whole.trace_[1]["theta"]
    assert clf.trace_[1]["gradient_norm"] == pytest.approx(whole.trace_[1]["gradient_norm"], rel=1e-14)
    assert not clf.converged_
    np.testing.assert_allclose(clf.coef_[0], whole.trace_[2]["theta"][0][:-1], rtol=1e-13)
