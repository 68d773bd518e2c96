"""What each process runs in the tests of several: ``python processes_worker.py WHAT ...``."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from sklearn.datasets import dump_svmlight_file
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline

from torchlogit import LogisticRegression, TableEncoder, distributed, scan
from torchlogit.fit_checkpoint import FitCheckpoint
from torchlogit.kernels import TorchKernel
from torchlogit.objective import Objective
from torchlogit.sources import shard

ROWS = 1200


@dataclass(frozen=True)
class Record:
    """Something to add up."""

    sums: torch.Tensor


# Where the rows of the first process end, and those of the second: the second of three has none.
CUTS = {1: [0, ROWS], 2: [0, 500, ROWS], 3: [0, 500, 500, ROWS]}


def problems() -> dict[str, tuple[Any, Any, Any, Any, dict[str, Any]]]:
    """Name to X, y, weight, offset and parameters."""
    rng = np.random.default_rng(3)
    scale = 10.0 ** np.arange(-2, 3)
    X = rng.normal(size=(ROWS, 5)) * scale + 7
    slope = X @ (rng.normal(size=5) / scale)
    slope -= slope.mean()
    noise = rng.logistic(size=ROWS)
    two, three = (slope + noise > 0).astype(int), np.digitize(slope + noise, [-1, 1])
    weight, offset = rng.integers(0, 3, ROWS).astype(float), rng.normal(size=ROWS)
    sparse = scipy.sparse.random(ROWS, 60, 0.1, format="csr", random_state=0)
    words = np.array(["often", "rarely", "never"])[three]
    collinear = np.column_stack([X, X[:, 0] + X[:, 1]])
    return {
        "dense": (X, two, None, None, {}),
        "unpenalised": (X, two, None, None, {"C": np.inf}),
        "collinear": (collinear, two, weight, None, {"C": np.inf}),
        "weights and offsets": (X, two, weight, offset, {}),
        "multinomial": (X, words, None, None, {"C": np.inf}),
        "multinomial, balanced": (X.astype(np.float32), words, weight, None, {"class_weight": "balanced"}),
        "sparse": (sparse, two, weight, None, {}),
        "sparse multinomial": (sparse, three, None, None, {}),
        "without an intercept": (X, two, None, None, {"fit_intercept": False}),
        "one column separates": (X, (X[:, 3] > 7).astype(int), None, None, {"C": np.inf}),
    }


def fitted(own: slice) -> dict[str, Any]:
    """Everything that the fits say, of these rows and those of the other processes."""
    said = {}
    for name, (X, y, weight, offset, parameters) in problems().items():
        given = [None if part is None else part[own] for part in (weight, offset)]
        model = LogisticRegression(tol=1e-10, **parameters)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X[own], y[own], *given)
        said[name] = told(model)
    return said


def write_files(folder: Path) -> None:
    """A table and a sparse one."""
    X, two, weight, offset, _ = problems()["weights and offsets"]
    frame = pd.DataFrame(X, columns=list("abcde"))
    frame["kind"] = np.array(["one", "two", "many"])[(np.arange(ROWS) * 7919) % 3]
    frame = frame.assign(weight=weight, shift=offset, label=np.where(two, "yes", "no"))
    frame.sort_values("label").to_parquet(folder / "table.parquet", row_group_size=400)
    sparse, three = problems()["sparse multinomial"][:2]
    dump_svmlight_file(sparse, three, str(folder / "rows.libsvm"), zero_based=False)


def scanned(folder: Path) -> dict[str, Any]:
    """The fits of files, which all processes name alike."""
    roles = {"target": "label", "weight": "weight", "offset": "shift"}
    model = make_pipeline(TableEncoder(), LogisticRegression(tol=1e-10, class_weight="balanced"))
    model.fit(scan(folder / "table.parquet", **roles))
    rows = scan(folder / "rows.libsvm")
    weight = np.random.default_rng(8).integers(0, 3, ROWS)
    return {
        "a table": told(model[-1]),
        "a sparse file": told(LogisticRegression(tol=1e-10).fit(rows, rows.labels() > 0, weight)),
    }


def write_long_files(folder: Path) -> None:
    """Files for which there is little memory: numbers of scales 1e-3 to 1e5, sorted by label, and text."""
    rng = np.random.default_rng(4)
    rows, columns = 60_000, 12
    z = rng.normal(size=(rows, columns))
    two = (z @ rng.normal(size=columns) / 2 + rng.logistic(size=rows) > 0.3).astype(int)
    X = ((z + 10 * rng.normal(size=columns)) * np.geomspace(1e-3, 1e5, columns)).astype(np.float32)
    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(columns)]).assign(y=two, w=rng.integers(0, 3, rows) * 1.0)
    frame.sort_values("y").to_parquet(folder / "long.parquet", row_group_size=1_500)
    kind = np.array(["one", "two", "many"])[rng.integers(0, 3, rows)]
    late = z[:, 0] + (kind == "two") + rng.logistic(size=rows) > 1
    label = np.where(late, "late", np.where(z[:, 1] > 0, "on", "off"))
    text = pd.DataFrame({"a": z[:, 0].round(4), "b": z[:, 1].round(4), "kind": kind, "label": label})
    text.loc[rng.random(rows) < 0.1, "b"] = np.nan
    text.to_csv(folder / "long.csv", index=False)


def streamed(folder: Path, memory: str | None) -> dict[str, Any]:
    """The fits of files that stay where they are, unless there is memory enough."""
    parquet, text = folder / "long.parquet", folder / "long.csv"
    named = {
        "parquet": LogisticRegression(tol=1e-10).fit(scan(parquet, target="y", drop=["w"], memory=memory)),
        "weights": LogisticRegression(tol=1e-10, C=1e6).fit(scan(parquet, target="y", weight="w", memory=memory)),
    }
    lines = scan(text, target="label", memory=memory)
    named["text"] = make_pipeline(TableEncoder(), LogisticRegression(tol=1e-10)).fit(lines)[-1]
    return {
        name: {
            **told(model),
            "steps": int(model.n_iter_[0]),
            "from files": "read of the files" in model.plan_.reason,
        }
        for name, model in named.items()
    }


def streams(path: str, memory: str) -> None:
    """Every process writes what it has come to."""
    with distributed() as processes:
        said = streamed(Path(path).parent, memory)
    Path(f"{path}.{processes.rank}").write_text(json.dumps(said))


def told(model: LogisticRegression) -> dict[str, Any]:
    """What is compared."""
    return {
        "coefficients": np.column_stack([model._solution.coef, model._solution.intercept]).tolist(),
        "classes": model.classes_.tolist(),
        "status": model.status_,
        "objective": model.objective_,
        "rows": model.plan_.objective,
    }


def fits(path: str) -> None:
    """All problems; every process writes what it has come to."""
    with distributed() as processes:
        cuts = CUTS[processes.world]
        said = fitted(slice(cuts[processes.rank], cuts[processes.rank + 1])) | scanned(Path(path).parent)
    Path(f"{path}.{processes.rank}").write_text(json.dumps(said))


def failures() -> None:
    """One thing after the other goes wrong in the last process; all must say the same, and go on."""
    X, y = problems()["dense"][:2]
    with distributed() as processes:
        last = processes.rank == processes.world - 1
        own = slice(processes.rank, None, processes.world)
        X, y = X[own], y[own]
        broken = X.copy()
        broken[3, 2] = np.nan
        attempt(lambda: LogisticRegression().fit(broken if last else X, y))
        attempt(lambda: LogisticRegression(C=2.0 if last else 1.0).fit(X, y))
        attempt(lambda: LogisticRegression().fit(X[:, :4] if last else X, y))
        attempt(lambda: LogisticRegression().fit(X, np.zeros(len(y))))
        attempt(lambda: LogisticRegression().fit(X, y, np.full(len(y), -1.0 if last else 1.0)))
        attempt(lambda: LogisticRegression().fit(X, y, np.ones(len(y)) if last else None))
        attempt(lambda: LogisticRegression().partial_fit(X, y, classes=[0, 1]))
        attempt(lambda: in_mid_sweep(last, X, y))
        record = Record(torch.ones(2))
        attempt(lambda: processes.added(lambda: record, lambda: record, torch.tensor([float(last)])))
        total = processes.added(lambda: record, lambda: record)
        assert total.sums.tolist() == [processes.world] * 2
        model = LogisticRegression(tol=1e-10).fit(X, y)
    print(json.dumps(model.coef_[0].tolist()))


def attempt(work: Any) -> None:
    """Print how it fails."""
    try:
        work()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
    else:
        print("nothing")


def in_mid_sweep(fails: bool, X: Any, y: Any) -> None:
    """The third gradient of one process finds the memory full."""
    calls, original = [0], TorchKernel.value_gradient

    def value_gradient(self: Any, *arguments: Any) -> Any:
        calls[0] += 1
        if fails and calls[0] == 3:
            raise MemoryError("no memory left")
        return original(self, *arguments)

    TorchKernel.value_gradient = value_gradient  # type: ignore[method-assign]
    try:
        LogisticRegression().fit(X, y)
    finally:
        TorchKernel.value_gradient = original  # type: ignore[method-assign]


def killed(path: str) -> None:
    """The last process is killed in the middle of a sweep, once; started again, all go on."""
    X, y = problems()["dense"][:2]
    original, calls = TorchKernel.value_gradient, [0]
    once = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"

    def value_gradient(self: Any, *arguments: Any) -> Any:
        calls[0] += 1
        if once and int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1 and calls[0] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *arguments)

    TorchKernel.value_gradient = value_gradient  # type: ignore[method-assign]
    if once:  # torchrun ends the others, perhaps before they have said what happened; after 30 s it insists
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with distributed() as processes:
        own = slice(processes.rank, None, processes.world)
        try:
            model = LogisticRegression(tol=1e-10).fit(X[own], y[own])
        except Exception as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            raise SystemExit(3) from None
    if processes.rank == 0:
        Path(path).write_text(json.dumps(model.coef_[0].tolist()))


def command(*arguments: str) -> None:
    """The command line."""
    sys.argv[1:] = arguments
    from torchlogit.cli import main

    main()


def command_killed(block: str, *arguments: str) -> None:
    """The command line, whose last process is killed while it adds up a block, once."""
    once = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    last = int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1
    FitCheckpoint._affordable = lambda self: True  # type: ignore[method-assign]
    own_sums, left = Objective._own_sums, [int(block)]

    def killing(self: Any, function: Any, *others: Any) -> Any:
        def counted(i: int, block: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(i, block)

        return own_sums(self, counted if once and last else function, *others)

    Objective._own_sums = killing  # type: ignore[method-assign]
    if once:  # as in `killed`
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    command(*arguments)


if __name__ == "__main__":
    shard.GATHERED_BYTES = int(os.environ.get("GATHERED_BYTES", "0"))
    works = (fits, failures, killed, command, command_killed, streams)
    {work.__name__: work for work in works}[sys.argv[1]](*sys.argv[2:])
