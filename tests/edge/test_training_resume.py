"""A training that is killed goes on to the same bits; one in a process that forks; one larger than memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, RMSprop
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

from torchlogit import Checkpoint, LogisticModule, train
from torchlogit.errors import InputError

TIMES = {"seconds", "rows_per_second"}


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(5)
    X = torch.randn(200, 4, generator=generator)
    return X, (X[:, 0] > 0).float()


def module():
    torch.manual_seed(0)
    return LogisticModule(4, body=nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3)))


def bits(model, trace):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return state, [{k: v for k, v in record.items() if k not in TIMES} for record in trace]


def same(one, other):
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    for name in one[0]:
        assert torch.equal(one[0][name], other[0][name]), name


class Killed(Exception):
    """Stands for whatever ends a process."""


def killed_at(number):
    def callback(step):
        if step.number == number:
            raise Killed

    return callback


OPTIONS = {
    "sgd, momentum": {"optimizer": partial(SGD, lr=0.1, momentum=0.9)},
    "adam, steps": {"optimizer": partial(Adam, lr=0.01), "scheduler": partial(StepLR, step_size=2)},
    "rmsprop, one cycle": {
        "optimizer": partial(RMSprop, lr=0.01),
        "scheduler": partial(OneCycleLR, max_lr=0.1, total_steps=28),
    },
    "plateau": {"optimizer": partial(Adam, lr=0.05), "scheduler": partial(ReduceLROnPlateau, patience=0)},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("loader", [False, True, "own generator"])
def test_killed_and_resumed_ends_with_the_same_bits(tmp_path, data, name, loader):
    X, y = data

    def given():
        if not loader:
            return {"X": X, "y": y, "batch_size": 30, "validation": (X[:50], y[:50])}
        own = torch.Generator().manual_seed(9) if loader == "own generator" else None
        return {"X": DataLoader(TensorDataset(X, y), batch_size=30, shuffle=True, generator=own)}

    whole = module()
    reference = bits(whole, train(whole, **given(), **OPTIONS[name], epochs=4, seed=3, l2=0.01))
    for number in (0, 5, 6, 7, 13, 27):
        path = tmp_path / f"{number}.checkpoint"
        first = module()
        with pytest.raises(Killed):
            train(
                first, **given(), **OPTIONS[name], epochs=4, seed=3, l2=0.01, checkpoint=Checkpoint(path, steps=1),
                callbacks=[killed_at(number)],
            )  # fmt: skip
        again = module()
        torch.manual_seed(99)
        trace = train(again, **given(), **OPTIONS[name], epochs=4, seed=3, l2=0.01, checkpoint=path)
        same(bits(again, trace), reference)


def test_a_checkpoint_now_and_then_and_more_epochs(tmp_path, data):
    """What was done since the last checkpoint is done again; a finished training is gone on with."""
    X, y = data
    options = {"optimizer": partial(SGD, lr=0.1, momentum=0.9), "batch_size": 30}
    whole = module()
    reference = bits(whole, train(whole, X, y, epochs=5, **options))
    path = tmp_path / "run.checkpoint"
    with pytest.raises(Killed):
        train(module(), X, y, epochs=3, checkpoint=Checkpoint(path, steps=4), callbacks=[killed_at(10)], **options)
    train(module(), X, y, epochs=3, checkpoint=path, **options)
    again = module()
    same(bits(again, train(again, X, y, epochs=5, checkpoint=path, **options)), reference)
    final = module()
    same(bits(final, train(final, X, y, epochs=5, checkpoint=path, **options)), reference)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.checkpoint"]


def test_a_checkpoint_of_something_else_is_refused(tmp_path, data):
    X, y = data
    path = tmp_path / "run.checkpoint"
    options = {"optimizer": partial(SGD, lr=0.1), "epochs": 1}
    train(LogisticModule(4), X, y, checkpoint=path, **options)
    with pytest.raises(InputError, match="other data"):
        train(LogisticModule(4), X + 1, y, checkpoint=path, **options)
    with pytest.raises(InputError, match="batch_size None, not 10"):
        train(LogisticModule(4), X, y, batch_size=10, checkpoint=path, **options)
    with pytest.raises(InputError, match="seed 0, not 1"):
        train(LogisticModule(4), X, y, seed=1, checkpoint=path, **options)
    with pytest.raises(InputError, match="optimizer 'SGD', not 'Adam'"):
        train(LogisticModule(4), X, y, checkpoint=path, epochs=1, optimizer=partial(Adam, lr=0.1))
    with pytest.raises(InputError, match="made with model"):
        train(LogisticModule(4, 3), X, y.long(), checkpoint=path, **options)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match="damaged"):
        train(LogisticModule(4), X, y, checkpoint=path, **options)
    path.write_text("not a checkpoint")
    with pytest.raises(InputError, match="no checkpoint"):
        train(LogisticModule(4), X, y, checkpoint=path, **options)
    with pytest.raises(ValueError, match="at least"):
        Checkpoint(path, steps=0)


PROGRAM = """
    import json, sys
    from functools import partial
    import torch
    from torch import nn
    from torchlogit import Checkpoint, LogisticModule, train

    generator = torch.Generator().manual_seed(5)
    X = torch.randn(400, 6, generator=generator)
    y = (X[:, 0] > 0).float()
    torch.manual_seed(0)
    model = LogisticModule(6, body=nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2)))
    pause = float(sys.argv[2])

    def slow(step):
        import time
        time.sleep(pause)
        print(step.number, flush=True)

    checkpoint = None if sys.argv[1] == "-" else Checkpoint(sys.argv[1], seconds=0.0)
    train(model, X, y, optimizer=partial(torch.optim.Adam, lr=0.01), epochs=8, batch_size=50, checkpoint=checkpoint,
          callbacks=[slow])
    print(json.dumps([value.double().sum().item().hex() for value in model.state_dict().values()]))
"""


@pytest.mark.slow
def test_kill_9_at_random_steps(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))

    def run(path, pause):
        return subprocess.Popen(
            [sys.executable, str(program), str(path), str(pause)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    reference = run("-", 0).communicate(timeout=120)[0].splitlines()[-1]
    assert json.loads(reference)
    random = np.random.default_rng(11)
    path = tmp_path / "run.checkpoint"
    for _ in range(3):
        process = run(path, 0.02)
        assert process.stdout is not None
        process.stdout.readline()  # the loop has begun
        time.sleep(float(random.uniform(0.0, 0.8)))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    assert run(path, 0).communicate(timeout=120)[0].splitlines()[-1] == reference


FORKED = """
    import numpy as np, torch
    from functools import partial
    from torch.utils.data import DataLoader, TensorDataset
    from torchlogit import LogisticModule, LogisticRegression, train

    if __name__ == "__main__":
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(20_000, 30)), rng.integers(0, 2, 20_000)
        LogisticRegression().fit(X, y)  # threads are running now
        loader = DataLoader(TensorDataset(torch.tensor(X).float(), torch.tensor(y)), batch_size=500, num_workers=2)
        total = sum(len(x) for x, _ in loader)
        trace = train(LogisticModule(30), loader, optimizer=partial(torch.optim.SGD, lr=0.1), epochs=2)
        LogisticRegression().fit(X, y)
        print(total, len(trace))
"""


@pytest.mark.slow
def test_workers_fork_after_an_exact_fit(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(FORKED))
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", str(program)], capture_output=True, text=True, timeout=180,
        env=environment, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["20000", "81"], done.stderr


STREAMED = """
    import resource, sys
    from functools import partial
    import torch
    from torch.utils.data import DataLoader, IterableDataset
    from torchlogit import LogisticModule, train

    class Endless(IterableDataset):
        def __init__(self, blocks):
            self.blocks = blocks
        def __iter__(self):
            for block in range(self.blocks):
                X = torch.randn(2000, 500, generator=torch.Generator().manual_seed(block))
                yield X, (X[:, 0] > 0).float()

    def train_on(blocks):
        loader = DataLoader(Endless(blocks), batch_size=None)
        train(LogisticModule(500), loader, optimizer=partial(torch.optim.SGD, lr=0.1), epochs=1)

    def size():
        return int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024

    train_on(20)
    limit = size() + 200_000_000  # the data are 1.2 GB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    train_on(300)
    print("trained")
"""


@pytest.mark.slow
def test_a_loader_over_more_than_memory(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(STREAMED))
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=180,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "trained", done.stderr
