"""One contender in a process of its own: `streaming.py` starts it, and reads what it writes.

    python benchmarks/streaming_fits.py NAME JOB.json RESULT.json

All read the same batches of the same Parquet file. What `prepare` imports is not timed; everything after it is.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BATCH = 50_000
BITS = 18
CONSTANT = 11650396 % (1 << BITS)  # the slot of Vowpal Wabbit's intercept


@dataclass(frozen=True)
class Job:
    """What is asked of everybody."""

    path: str
    rows: int
    columns: int
    threads: int
    memory: str
    C: float = 1.0
    tol: float = 1e-6
    epochs: int = 5
    scans: int = 1
    answers: tuple[tuple[list[float], float], ...] = ()

    @property
    def alpha(self) -> float:
        """The penalty on half the square, beside a mean of losses."""
        return 1 / (self.C * self.rows)


def write(path: Path, rows: int, columns: int) -> None:
    """Columns of means -3 to 3 and deviations 0.1 to 10, in pyarrow's usual settings."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet

    rng = np.random.default_rng(5)
    truth, mean = rng.normal(size=columns) / 4, rng.uniform(-3, 3, columns).astype(np.float32)
    spread = (10 ** rng.uniform(-1, 1, columns)).astype(np.float32)
    schema = pa.schema([*((f"x{j}", pa.float32()) for j in range(columns)), ("label", pa.int8())])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, BATCH):
            noise = rng.standard_normal((min(BATCH, rows - start), columns), dtype=np.float32)
            label = (rng.random(len(noise)) < 1 / (1 + np.exp(1 - noise @ truth))).astype(np.int8)
            X = np.asfortranarray(noise * spread + mean)
            writer.write_table(pa.table([*(pa.array(X[:, j]) for j in range(columns)), label], schema=schema))


def scan_once(job: Job) -> Iterator[Any]:
    """The file's record batches, decoded and no more."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(job.path) as file:
        yield from file.iter_batches(BATCH, use_threads=job.threads > 1)


def batches(job: Job) -> Iterator[tuple[Any, Any]]:
    """Rows ``(n, p)`` in float32, and labels 0 and 1."""
    import numpy as np

    for batch in scan_once(job):
        X = np.empty((batch.num_rows, job.columns), np.float32)
        for j in range(job.columns):
            X[:, j] = batch.column(j).to_numpy()
        yield X, batch.column(job.columns).to_numpy()


def plain_scan(job: Job) -> dict[str, Any]:
    for _ in range(job.scans):
        for _ in scan_once(job):
            pass
    return {}


def torchlogit_fit(job: Job) -> dict[str, Any]:
    from torchlogit import LogisticRegression, scan

    model = LogisticRegression(C=job.C, tol=job.tol).fit(scan(job.path, target="label", memory=job.memory))
    return told(model)


def in_memory(job: Job) -> dict[str, Any]:
    """The same numbers as one array; in float64, since coefficients are published in the rows' own precision."""
    import numpy as np

    from torchlogit import LogisticRegression

    X, y, start = np.empty((job.rows, job.columns), np.float64), np.empty(job.rows, np.int8), 0
    for rows, labels in batches(job):
        X[start : start + len(rows)], y[start : start + len(rows)] = rows, labels
        start += len(rows)
    return told(LogisticRegression(C=job.C, tol=job.tol).fit(X, y))


def told(model: Any) -> dict[str, Any]:
    certificate = {"kkt": model.kkt_, "excess": model.excess_, "converged": bool(model.converged_)}
    answer = {"coef": model.coef_[0].tolist(), "intercept": float(model.intercept_[0])}
    return {**answer, "certificate": certificate, "passes": float(model.trace_[-1]["passes"])}


def command_line(job: Job) -> dict[str, Any]:
    """`torchlogit fit` on all rows. It standardises columns, and penalises the coefficients of those."""
    import numpy as np
    import pyarrow as pa

    from torchlogit import load
    from torchlogit.cli import main as command

    with tempfile.TemporaryDirectory(prefix="torchlogit-bench-") as folder:
        output, spoken = Path(folder) / "model.safetensors", io.StringIO()
        options = ["--target", "label", "--memory", job.memory, "--C", str(job.C), "--tol", str(job.tol)]
        sys.argv = ["torchlogit", "fit", job.path, *options, "--test-size", "0", "--json", "-o", str(output)]
        with contextlib.redirect_stdout(spoken):
            try:
                command()
            except SystemExit as end:
                if end.code:
                    raise RuntimeError(f"torchlogit fit ended with {end.code}") from None
        found, model = json.loads(spoken.getvalue()), load(output)
    names = [f"x{j}" for j in range(job.columns)]
    ends = pa.table({name: pa.array([0.0, 1.0], pa.float32()) for name in names})
    zero, one = np.asarray(model[0].transform(ends), np.float64)
    coef = model[-1].coef_[0]
    return {
        "coef": (coef * (one - zero)).tolist(),
        "intercept": float(model[-1].intercept_[0] + coef @ zero),
        "certificate": {name: found[name] for name in ("kkt", "excess", "converged")},
        "passes": found["passes"],
    }


def sgd(job: Job, *, average: bool) -> dict[str, Any]:
    """scikit-learn's own advice: standardise (a first read learns how), then an epoch a read."""
    from sklearn.linear_model import SGDClassifier
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    for X, _ in batches(job):
        scaler.partial_fit(X)
    model = SGDClassifier(loss="log_loss", alpha=job.alpha, average=average, random_state=0)
    for _ in range(job.epochs):
        for X, y in batches(job):
            model.partial_fit(scaler.transform(X), y, classes=[0, 1])
    coef = model.coef_[0] / scaler.scale_
    return {
        "coef": coef.tolist(),
        "intercept": float(model.intercept_[0] - coef @ scaler.mean_),
        "passes": 1 + job.epochs,
    }


def vowpal_wabbit(job: Job, options: str) -> dict[str, Any]:
    """Its text comes through a pipe from another process, once; passes are over the cache that it makes of it."""
    from vowpalwabbit import Workspace

    with tempfile.TemporaryDirectory(prefix="torchlogit-bench-") as folder:
        pipe, job_file = Path(folder) / "rows", Path(folder) / "job.json"
        common = f"-d {pipe} --cache_file {folder}/cache --quiet -b {BITS} --holdout_off "
        os.mkfifo(pipe)
        job_file.write_text(json.dumps(asdict(job)), encoding="utf-8")
        start = time.perf_counter()
        with subprocess.Popen([sys.executable, __file__, "text", str(job_file), str(pipe)]) as writer:
            Workspace(common + "--noop").finish()
        if writer.returncode:
            raise RuntimeError(f"writing the text ended with {writer.returncode}")
        seconds = time.perf_counter() - start
        pipe.unlink()
        pipe.write_text("", encoding="utf-8")  # the cache has the rows
        model = Workspace(common + "--loss_function logistic --no_bias_regularization " + options)
        coef = [model.get_weight(j) for j in range(job.columns)]
        intercept = model.get_weight(CONSTANT)
        model.finish()
    return {"coef": coef, "intercept": intercept, "caching": seconds}


def text(job: Job, pipe: str) -> None:
    """Numbers with the nine digits that float32 needs."""
    row = " ".join(f"{j}:%.9g" for j in range(job.columns))
    forms = ("-1 | " + row + "\n", "1 | " + row + "\n")
    with Path(pipe).open("w", encoding="ascii") as file:
        for X, y in batches(job):
            file.writelines(forms[label] % tuple(values.tolist()) for values, label in zip(X, y.tolist(), strict=True))


def judge(job: Job) -> dict[str, Any]:
    """Objectives of the answers in float64, and the least that Newton's method finds from the best of them."""
    import numpy as np

    p, total = job.columns, np.zeros(job.columns)
    for X, _ in batches(job):
        total += X.sum(axis=0, dtype=np.float64)
    mean = total / job.rows
    # Centred, with the intercept last: a column far from zero would otherwise cost digits.
    thetas = np.array([[*coef, intercept + mean @ coef] for coef, intercept in job.answers])
    penalised = np.append(np.ones(p), 0.0)

    def objectives(W: Any, *, derivatives: bool = False) -> tuple[Any, Any, Any]:
        loss, slope, curvature = np.zeros(len(W)), np.zeros(p + 1), np.zeros((p + 1, p + 1))
        for rows, labels in batches(job):
            for start in range(0, len(rows), 10_000):
                Z = np.ones((len(rows[start : start + 10_000]), p + 1))
                Z[:, :p] = rows[start : start + 10_000] - mean
                y = labels[start : start + 10_000].astype(np.float64)
                eta = Z @ W.T
                loss += (np.logaddexp(0, eta) - y[:, None] * eta).sum(axis=0)
                if derivatives:
                    probability = 1 / (1 + np.exp(-eta[:, 0]))
                    slope += Z.T @ (probability - y)
                    curvature += Z.T @ (Z * (probability * (1 - probability))[:, None])
        value = loss / job.rows + job.alpha / 2 * (W**2) @ penalised
        return value, slope / job.rows + job.alpha * penalised * W[0], curvature / job.rows

    values = objectives(thetas)[0]
    finite = np.where(np.isfinite(values), values, math.inf)
    theta, best = thetas[int(finite.argmin())], float(finite.min())
    for _ in range(20):
        value, slope, curvature = objectives(theta[None], derivatives=True)
        best = min(best, float(value[0]))
        step = np.linalg.solve(curvature + job.alpha * np.diag(penalised), slope)
        if value[0] > best * (1 + 1e-12) or slope @ step / 2 <= 1e-15 * best:
            break
        theta = theta - step
    return {"objectives": values.tolist(), "best": best}


CONTENDERS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "torchlogit": torchlogit_fit,
    "torchlogit fit": command_line,
    "in memory": in_memory,
    "SGDClassifier": lambda job: sgd(job, average=False),
    "SGDClassifier, averaged": lambda job: sgd(job, average=True),
    "vowpalwabbit": lambda job: vowpal_wabbit(job, f"--l2 {job.alpha!r} --passes {job.epochs}"),
    "vowpalwabbit bfgs": lambda job: vowpal_wabbit(job, f"--bfgs --l2 {1 / job.C!r} --passes 50 --termination 1e-9"),
    "scan": plain_scan,
    "judge": judge,
}


def prepare(name: str, threads: int) -> None:
    """What the contender imports, and the threads that are not told by a variable."""
    import pyarrow as pa
    import pyarrow.parquet

    pa.set_cpu_count(threads)
    pa.set_io_thread_count(threads)
    if name.startswith(("torchlogit", "in memory")):
        import torch

        import torchlogit.cli.workflow  # noqa: F401

        torch.set_num_threads(threads)
    elif name.startswith("SGD"):
        import sklearn.linear_model
        import sklearn.preprocessing  # noqa: F401
    elif name.startswith("vowpal"):
        import vowpalwabbit  # noqa: F401


def used() -> dict[str, int]:
    """What the kernel counted of this process, in bytes."""
    lines = Path("/proc/self/io").read_text(encoding="ascii") + Path("/proc/self/status").read_text(encoding="utf-8")
    found = dict(line.split(":", 1) for line in lines.splitlines())
    read = {name: int(found[name]) for name in ("rchar", "read_bytes")}
    return {**read, **{name: int(found[name].split()[0]) * 1024 for name in ("VmHWM", "VmRSS")}}


def main() -> None:
    name, given, result = sys.argv[1:]
    job = Job(**json.loads(Path(given).read_text(encoding="utf-8")))
    if name == "text":
        text(job, result)
        return
    warnings.simplefilter("ignore")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.threads])
    prepare(name, job.threads)
    before, start = used(), time.perf_counter()
    found = CONTENDERS[name](job)
    seconds, after = time.perf_counter() - start, used()
    found |= {"seconds": seconds, "peak": after["VmHWM"], "above": after["VmHWM"] - before["VmRSS"]}
    found |= {count: after[count] - before[count] for count in ("rchar", "read_bytes")}
    Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
