"""The line of progress: on a terminal, after two seconds, and gone at the end."""

from __future__ import annotations

import os
import pty
import threading
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from torchlogit import LogisticModule, LogisticRegression, train
from torchlogit.progress import ProgressLine, speed


@pytest.fixture
def terminal(monkeypatch):
    """Standard error is a terminal, and nobody has any patience."""
    ours, theirs = pty.openpty()
    stream = os.fdopen(theirs, "w")
    # Not in sys: pytest puts its own stream back between the fixture and the test.
    monkeypatch.setattr("torchlogit.progress.sys", SimpleNamespace(stderr=stream))
    monkeypatch.setattr("torchlogit.progress._PATIENCE", 0.0)
    monkeypatch.setattr("torchlogit.progress._PAUSE", 0.0)
    monkeypatch.setenv("COLUMNS", "200")

    def read():
        stream.write("\n")
        stream.flush()
        shown = b""
        while not shown.endswith(b"\n"):  # a terminal hands out what it has, not what was written
            shown += os.read(ours, 1_000_000)
        return shown.decode()

    yield read
    stream.close()
    os.close(ours)


@pytest.fixture
def data(rng):
    return rng.normal(size=(200, 3)), rng.integers(0, 2, 200)


def test_a_fit(terminal, data):
    clf = LogisticRegression().fit(*data)
    shown = terminal()
    assert shown.count("step ") == len(clf.trace_)
    for word in ("objective", "certificate", "passes", "rows/s"):
        assert word in shown
    assert shown.rstrip().endswith("\x1b[2K")


def test_a_training(terminal, data):
    train(LogisticModule(3), *data, optimizer=partial(torch.optim.SGD, lr=0.1), epochs=3)
    shown = terminal()
    assert "epoch 2" in shown
    assert "learning rate 0.1" in shown


def test_it_is_removed_when_the_fit_is_interrupted(terminal, data):
    def interrupt(step):
        if step.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(LogisticModule(3), *data, optimizer=partial(torch.optim.SGD, lr=0.1), epochs=3, callbacks=[interrupt])
    assert terminal().rstrip().endswith("\x1b[2K")


def test_where_nobody_watches(terminal, data, monkeypatch):
    thread = threading.Thread(target=lambda: LogisticRegression().fit(*data))
    thread.start()
    thread.join()
    monkeypatch.setattr("torchlogit.progress._PATIENCE", 100.0)
    LogisticRegression().fit(*data)
    assert terminal().strip() == ""
    with open(os.devnull, "w") as nowhere:
        assert not ProgressLine(stream=nowhere).active
    monkeypatch.setattr("torchlogit.progress.sys", SimpleNamespace(stderr=None))
    LogisticRegression().fit(*data)


def test_speed():
    assert [speed(v) for v in (3.0, 1250.0, 3.14159e6, 2e9)] == [
        "3 rows/s", "1.25 k rows/s", "3.14 M rows/s", "2 G rows/s",
    ]  # fmt: skip
