"""``torchlogit compare``."""

from __future__ import annotations

import re
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchlogit.cli import options as o

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from torchlogit.estimator import LogisticRegression
    from torchlogit.rows import LazyRows

_PAGE_FILE = "/proc/self/statm"
_EVERY = 0.005


def compare(
    data: o.Data,
    target: o.Target = None,
    C: o.C = 1.0,
    weight: o.Weight = None,
    drop: o.Drop = None,
    positive: o.Positive = None,
    separator: o.Separator = None,
    no_header: o.NoHeader = False,
    missing: o.Missing = None,
    tol: o.Tolerance = 1e-6,
    max_iter: o.MaxIter = 1000,
    as_json: o.AsJson = False,
) -> None:
    """Put scikit-learn and torchlogit side by side.

    Both fit the same encoded rows: answers, time and memory. scikit-learn runs twice: as it comes, and with the
    tolerance and budget that its optimum takes.

    \b
    Examples:
      torchlogit compare customers.csv --target churn
      torchlogit compare train.libsvm --C 100 --json
    """
    from torchlogit.cli.show import Waiting, console, print_json
    from torchlogit.cli.workflow import as_input_error
    from torchlogit.estimator import LogisticRegression

    table = o.TableOptions.given(target, weight, None, drop, separator, no_header, missing)
    with Waiting() as waiting:
        rows = _encoded(table, data, positive, waiting)
        try:
            results = _compared(rows, LogisticRegression(C=C, tol=tol, max_iter=max_iter), waiting)
        except ValueError as error:
            raise as_input_error(error, rows.source, table) from error
    if as_json:
        flat: dict[str, Any] = {"n_rows": rows.codes.size, "n_features": rows.X.shape[1]}
        for result in results:
            flat |= {f"{result.key}_{name}": value for name, value in result.record().items()}
        print_json(flat)
        return
    _print(console(), rows, results)


@dataclass(frozen=True)
class Rows:
    """Encoded rows in memory, and where they come from."""

    source: LazyRows
    X: Any
    codes: NDArray[np.int64]
    weight: NDArray[np.float64] | None


@dataclass(frozen=True)
class Result:
    """One fit."""

    key: str
    name: str
    objective: float
    kkt: float
    accuracy: float
    seconds: float
    mebibytes: float
    excess: float  # objective above the best of all, relative
    difference: float  # largest difference of a probability from torchlogit's
    warned: bool
    status: str  # what torchlogit says of its fit where it has not converged

    def record(self) -> dict[str, Any]:
        """For JSON."""
        names = ("objective", "kkt", "accuracy", "seconds", "mebibytes", "excess")
        return {name: getattr(self, name) for name in names}


def _encoded(table_options: o.TableOptions, data: list[str], positive: str | None, waiting: Any) -> Rows:
    import numpy as np
    import scipy.sparse

    from torchlogit.cli.labels import training_labels
    from torchlogit.cli.workflow import check_features, open_table
    from torchlogit.encode import TableEncoder
    from torchlogit.errors import InputError

    table = open_table(table_options, data, waiting)
    if table.target is None:
        names = ", ".join(table.columns[:30])
        raise InputError(f"name the column to predict with --target COL; the columns are {names}")
    labels = training_labels(table, positive)
    rows: LazyRows = table
    if not table.is_sparse:
        encoder = TableEncoder()
        rows = encoder.fit_transform(table)
        check_features(encoder)
    batches = list(rows.numeric_batches())
    pieces = [batch.matrix() for batch in batches]
    X = scipy.sparse.vstack(pieces, format="csr") if scipy.sparse.issparse(pieces[0]) else np.concatenate(pieces)
    weights = [batch.weight for batch in batches if batch.weight is not None]
    return Rows(rows, scipy.sparse.csr_matrix(X) if scipy.sparse.issparse(X) else X, labels.codes.astype(np.int64),
                np.concatenate(weights) if weights else None)  # fmt: skip


def _compared(rows: Rows, mine: LogisticRegression, waiting: Any) -> list[Result]:
    from sklearn.linear_model import LogisticRegression as Peer

    from torchlogit.estimator import LogisticRegression

    C = mine.C
    LogisticRegression().fit([[0.0], [1.0]], [0, 1])  # imports and thread pools are nobody's fit
    Peer().fit([[0.0], [1.0]], [0, 1])
    contenders = [
        ("torchlogit", "torchlogit", mine),
        ("sklearn", "scikit-learn, defaults", Peer(C=C)),
        ("sklearn_exact", "scikit-learn, tol=1e-8, max_iter=10,000", Peer(C=C, tol=1e-8, max_iter=10_000)),
    ]
    measured = []
    for key, name, model in contenders:
        waiting.now(name)
        measured.append((key, name, *_run(model, rows, C)))
    best = min(entry[2]["objective"] for entry in measured)
    reference = measured[0][3]
    results = []
    for key, name, figures, probability in measured:
        results.append(
            Result(
                key,
                name,
                excess=(figures["objective"] - best) / best if best else figures["objective"],
                difference=float(abs(probability - reference).max()),
                **figures,
            )
        )
    return results


def _run(model: Any, rows: Rows, C: float) -> tuple[dict[str, Any], NDArray[np.float64]]:
    import numpy as np

    from torchlogit.cli.show import with_options

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (seconds, mebibytes) = _watched(lambda: model.fit(rows.X, rows.codes, sample_weight=rows.weight))
    objective, kkt = _standing(model, rows, C)
    probability = model.predict_proba(rows.X)
    figures = {
        "objective": objective,
        "kkt": kkt,
        "accuracy": float(np.average(probability.argmax(1) == rows.codes, weights=rows.weight)),
        "seconds": seconds,
        "mebibytes": mebibytes,
        "warned": bool(caught),
        "status": "" if getattr(model, "converged_", True) else with_options(model.status_),
    }
    return figures, probability


def _standing(model: Any, rows: Rows, C: float) -> tuple[float, float]:
    """Objective and certificate of any fitted model's coefficients, by the code that certifies a fit."""
    import torch

    from torchlogit.estimator import LogisticRegression

    judge = LogisticRegression(C=C, max_iter=0, warm_start=True)
    judge.coef_, judge.intercept_, judge.classes_ = np_double(model.coef_), np_double(model.intercept_), model.classes_
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        judge.fit(rows.X, rows.codes, sample_weight=rows.weight)
    return judge.objective_, judge.kkt_


def np_double(values: Any) -> NDArray[np.float64]:
    """float64."""
    import numpy as np

    return np.asarray(values, dtype=np.float64)


def _watched(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds, and MiB of resident memory at the highest above the start (0 where the system does not tell)."""
    stop = threading.Event()
    start = _resident()
    peak = [start]

    def watch() -> None:
        while not stop.wait(_EVERY):
            peak[0] = max(peak[0], _resident())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    began = time.perf_counter()
    try:
        work()
    finally:
        seconds = time.perf_counter() - began
        peak[0] = max(peak[0], _resident())
        stop.set()
        thread.join()
    return seconds, (peak[0] - start) / 2**20


def _resident() -> int:
    import os

    try:
        with open(_PAGE_FILE, encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _print(out: Any, rows: Rows, results: list[Result]) -> None:
    from torchlogit.cli.show import number, table

    out.print(f"{rows.codes.size:,} rows, {rows.X.shape[1]:,} numbers each, all of them fitted\n")
    lines = [
        (
            r.name + (" (warned)" if r.warned else ""),
            f"{r.objective:.10g}",
            number(r.excess, 6),
            number(r.kkt, 6),
            number(r.accuracy),
            number(r.difference, 6),
            f"{r.seconds:.3f} s",
            f"{r.mebibytes:.0f} MiB",
        )
        for r in results
    ]
    columns = ["", "objective", "above the best", "certificate", "accuracy"]
    columns += ["probabilities differ by", "time", "memory"]
    out.print(table(columns, lines, numeric=range(1, 8)))
    mine, other = results[0], results[2]
    if mine.status:
        names = rows.source.feature_names  # the fit was of bare numbers, whose columns are x0, x1, ...
        status = re.sub(r"'x(\d+)'", lambda found: f"'{names[int(found[1])]}'", mine.status)
        out.print(f"\ntorchlogit: {status}")
    out.print(f"\ntorchlogit takes {mine.seconds / other.seconds:.2g} times the time of scikit-learn's exact fit")
