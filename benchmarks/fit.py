"""Time to the optimum: torchlogit beside other packages, on the same problems, to the same accuracy.

    python benchmarks/fit.py                      all problems, the table on the terminal
    python benchmarks/fit.py --problem digits     one of them
    python benchmarks/fit.py --write              also appended to benchmarks/RESULTS.md

Every package minimises ``mean log loss + |w|^2 / (2 C n)`` over the same rows. A judge that shares code with none of
them evaluates that in float64 at the coefficients they return. Time is compared only between fits whose objective is
within ``ACCURACY`` (relative) of the best that any of them found; the others say that they are not at the optimum.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.metadata
import math
import os
import platform
import shlex
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ACCURACY = 1e-6
RESULTS = Path(__file__).with_name("RESULTS.md")
# Steps that no fit should need; where one does, its row says that it is not at the optimum.
MAX_ITER = 20_000
# A matrix of columns x columns, and its factor at every step, are no use beyond this.
WIDEST_HESSIAN = 2_000


@dataclass(frozen=True)
class Problem:
    """Rows, labels and the strength of the penalty (``inf``: none)."""

    name: str
    X: Any
    y: Any
    C: float = 1.0


@dataclass(frozen=True)
class Peer:
    """One way to fit. ``tolerances`` begins with the package's own default; later ones are tried if it is too loose."""

    name: str
    fit: Callable[[Problem, float], tuple[Any, Any]]  # (problem, tol) -> (coefficients, intercepts)
    tolerances: tuple[float, ...]
    takes: Callable[[Problem], bool] = lambda problem: True


@dataclass
class Row:
    """What came out of one peer on one problem."""

    peer: Peer
    tol: float
    objective: float
    seconds: list[float] = field(default_factory=list)


# -- problems ---------------------------------------------------------------------------------------------------------


def dense(rows: int, columns: int, dtype: str) -> tuple[Any, Any]:
    """Correlated columns of spread one."""
    import numpy as np

    random = np.random.default_rng(0)
    X = random.standard_normal((rows, columns))
    X[:, 1:] = 0.6 * X[:, :-1] + 0.8 * X[:, 1:]
    w = random.standard_normal(columns) / columns**0.5
    y = (3 * (X @ w) - 0.5 + random.logistic(size=rows) > 0).astype(np.int64)
    return X.astype(dtype), y


def sparse(rows: int, columns: int, density: float) -> tuple[Any, Any]:
    """Columns from frequent to rare, as words are."""
    import numpy as np
    import scipy.sparse

    random = np.random.default_rng(1)
    frequency = 1 / np.arange(5, columns + 5)
    frequency *= density * columns / frequency.sum()
    counts = random.binomial(rows, np.minimum(frequency, 1))
    i = np.concatenate([random.choice(rows, count, replace=False) for count in counts])
    j = np.repeat(np.arange(columns), counts)
    X = scipy.sparse.csr_array((random.exponential(size=i.size), (i, j)), shape=(rows, columns))
    w = random.standard_normal(columns)
    y = (X @ w + random.logistic(size=rows) > 0).astype(np.int64)
    return X, y


def problems() -> Iterator[tuple[str, Callable[[], Problem]]]:
    """Names, and how to make each."""
    from sklearn.datasets import load_breast_cancer, load_digits
    from sklearn.preprocessing import StandardScaler

    def cancer(scaled: bool) -> Problem:
        X, y = load_breast_cancer(return_X_y=True)
        if scaled:
            return Problem("breast cancer, standardised", StandardScaler().fit_transform(X), y)
        return Problem("breast cancer, raw units", X, y)

    yield "cancer-raw", lambda: cancer(scaled=False)
    yield "cancer", lambda: cancer(scaled=True)
    yield "digits", lambda: Problem("digits, 10 classes, 1,797 x 64", *load_digits(return_X_y=True))
    yield "dense", lambda: Problem("dense, 200,000 x 50", *dense(200_000, 50, "float64"))
    yield "dense-float32", lambda: Problem("dense float32, 200,000 x 50", *dense(200_000, 50, "float32"))
    yield (
        "dense-no-penalty",
        lambda: Problem("dense, 200,000 x 50, no penalty", *dense(200_000, 50, "float64"), C=math.inf),
    )
    yield "sparse", lambda: Problem("sparse, 50,000 x 5,000, 1 % filled", *sparse(50_000, 5_000, 0.01))


# -- peers ------------------------------------------------------------------------------------------------------------


def fit_torchlogit(problem: Problem, tol: float) -> tuple[Any, Any]:
    from torchlogit import LogisticRegression

    model = LogisticRegression(C=problem.C, tol=tol).fit(problem.X, problem.y)
    return model.coef_, model.intercept_


def sklearn_solver(solver: str) -> Callable[[Problem, float], tuple[Any, Any]]:
    def fit(problem: Problem, tol: float) -> tuple[Any, Any]:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=problem.C, solver=solver, tol=tol, max_iter=MAX_ITER).fit(problem.X, problem.y)
        return model.coef_, model.intercept_

    return fit


def fit_statsmodels(problem: Problem, tol: float) -> tuple[Any, Any]:
    import numpy as np
    from statsmodels.discrete.discrete_model import Logit

    design = np.column_stack([problem.X, np.ones(len(problem.y))])
    theta = Logit(problem.y, design).fit(method="newton", tol=tol, disp=False).params
    return theta[None, :-1], theta[-1:]


def is_narrow(problem: Problem) -> bool:
    return bool(problem.X.shape[1] <= WIDEST_HESSIAN)


def peers() -> list[Peer]:
    """Those that are installed."""
    found = [
        Peer("torchlogit", fit_torchlogit, (1e-6, 1e-8, 1e-10)),
        Peer("scikit-learn lbfgs", sklearn_solver("lbfgs"), (1e-4, 1e-6, 1e-8, 1e-10)),
        Peer("scikit-learn newton-cholesky", sklearn_solver("newton-cholesky"), (1e-4, 1e-6, 1e-8, 1e-10), is_narrow),
    ]
    try:
        importlib.metadata.version("statsmodels")
    except importlib.metadata.PackageNotFoundError:
        return found
    # It has no L2 penalty.
    return [*found, Peer("statsmodels Logit", fit_statsmodels, (1e-8, 1e-10), lambda problem: math.isinf(problem.C))]


# -- the judge and the clock ------------------------------------------------------------------------------------------


def objective(problem: Problem, coef: Any, intercept: Any) -> float:
    """Mean log loss plus penalty in float64."""
    import numpy as np
    from scipy.special import logsumexp

    coef, intercept = np.asarray(coef, np.float64), np.asarray(intercept, np.float64)
    eta = problem.X.astype(np.float64) @ coef.T + intercept
    if eta.shape[1] == 1:
        loss = np.logaddexp(0, -eta[:, 0] * (2 * problem.y - 1))
    else:
        loss = logsumexp(eta - eta[np.arange(len(problem.y)), problem.y][:, None], axis=1)
    return float(loss.mean() + (coef**2).sum() / (2 * problem.C * len(problem.y)))


def run(problem: Problem, chosen: list[Peer], repeats: int) -> tuple[float, list[Row]]:
    """The best objective found, and the rows. Accuracy first, then times, the peers taking turns."""
    best = math.inf
    rows = []
    taking = [peer for peer in chosen if peer.takes(problem)]
    # The tightest fit of torchlogit and, where it takes the problem, of the other second-order solver are the mark.
    for peer in (p for p in taking if p.name in {"torchlogit", "scikit-learn newton-cholesky"}):
        best = min(best, objective(problem, *peer.fit(problem, peer.tolerances[-1])))
    for peer in taking:
        for tol in peer.tolerances:
            row = Row(peer, tol, objective(problem, *peer.fit(problem, tol)))
            best = min(best, row.objective)
            if row.objective <= best * (1 + ACCURACY):
                break
        rows.append(row)
    for turn in range(repeats):
        order = rows[turn % len(rows) :] + rows[: turn % len(rows)]
        for row in order:
            gc.collect()
            start = time.perf_counter()
            row.peer.fit(problem, row.tol)
            row.seconds.append(time.perf_counter() - start)
    return best, rows


def table(problem: Problem, best: float, rows: list[Row]) -> list[str]:
    """One line a row."""
    excess = [(row.objective - best) / best for row in rows]
    reference = next((i for i, row in enumerate(rows) if row.peer.name == "torchlogit"), None)
    lines = []
    for row, above in zip(rows, excess, strict=True):
        arrived = above <= ACCURACY
        median = statistics.median(row.seconds)
        comparable = arrived and reference is not None and excess[reference] <= ACCURACY
        ratio = f"{median / statistics.median(rows[reference].seconds):.2f}" if comparable else "–"
        lines.append(
            f"| {problem.name} | {row.peer.name} | {row.tol:.0e} | {above:.1e} | "
            + (f"{median:.4f} | {min(row.seconds):.4f} to {max(row.seconds):.4f} | " if arrived else "– | – | ")
            + (ratio if arrived else "not at the optimum")
            + " |"
        )
    return lines


HEADER = [
    "| problem | package | tol | excess | median s | range s | times torchlogit's |",
    "| --- | --- | --- | --- | --- | --- | --- |",
]


def machine(threads: int) -> list[str]:
    """Where the numbers come from."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        described = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        model = next((value.strip() for key, _, value in described if key.strip() == "model name"), model)
    packages = ["torchlogit", "torch", "numpy", "scipy", "scikit-learn", "statsmodels"]
    versions = []
    for name in packages:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    load = os.getloadavg()[0]
    return [
        f"- machine: {model}, {os.cpu_count()} cores, {threads} threads used; load {load:.1f} at the start",
        f"- Python {platform.python_version()}, {', '.join(versions)}",
        f"- command: `{shlex.join(['python', f'benchmarks/{Path(sys.argv[0]).name}', *sys.argv[1:]])}`",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", action="append", metavar="NAME", help="only this one; may be repeated")
    parser.add_argument("--repeats", type=int, default=5, help="timed fits of each, at least 5")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write", action="store_true", help=f"append to {RESULTS.name}")
    options = parser.parse_args()
    if options.repeats < 5:
        parser.error("a median of fewer than 5 is not a measurement")
    # Before the libraries are loaded: they read these once.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    import torch

    torch.set_num_threads(options.threads)
    known = dict(problems())
    names = options.problem or list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no such problem: {', '.join(unknown)}; there are {', '.join(known)}")
    # What a package thinks of its own convergence is not asked: the judge decides.
    warnings.simplefilter("ignore")
    lines = [f"## {datetime.date.today().isoformat()}", "", *machine(options.threads), "", *HEADER]
    print("\n".join(lines), flush=True)
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results\n\nHow to read them: README.md.\n"
    for name in names:
        problem = known[name]()
        found = table(problem, *run(problem, peers(), options.repeats))
        print("\n".join(found), flush=True)
        lines += found
        if options.write:  # after every problem: an interrupted run keeps what it has measured
            RESULTS.write_text(old.rstrip() + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
