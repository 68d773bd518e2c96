"""A fit rehearsed on a sample of its files: what it would do with all of them, and how long each part takes a row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torchlogit.cost import Job, Speed
from torchlogit.encode import TableEncoder
from torchlogit.fit import Fit, Problem
from torchlogit.gathering import SAMPLE, WHOLE
from torchlogit.inputs import training_features
from torchlogit.losses import loss_for
from torchlogit.moments import column_moments
from torchlogit.penalties import ElasticNet
from torchlogit.plan import Plan
from torchlogit.problem import Block, FitOptions
from torchlogit.row_values import encode_labels, row_weights
from torchlogit.sources import MemorySource
from torchlogit.sources.ahead import ahead
from torchlogit.sources.files import detect_format, expand
from torchlogit.sources.samples import sampled
from torchlogit.table import Table

# A rehearsal that takes longer than this, in seconds, is not repeated; none takes more steps than this.
_LONG, _MOST_STEPS = 30.0, 200
# Of the rows that stand for those in files, the share that may stand for what is kept of them in memory.
_KNOWN = 0.5
# Seconds up to which a measurement is repeated.
_SOON = 3.0


@dataclass(frozen=True)
class Rehearsal:
    """What a sample tells of the whole.

    Parameters
    ----------
    job : Job
    speed : Speed
    plan : Plan
        Of the whole.
    features : int
    classes : int
    sample_rows : int
    rows_known : bool
        Whether the number of rows is known from the files, or estimated from their size.
    """

    job: Job
    speed: Speed
    plan: Plan
    features: int
    classes: int
    sample_rows: int
    rows_known: bool


class _Imagined:
    """Rows of a sample that stand for all: it says that it has as many, and counts how often they are read.

    Parameters
    ----------
    sample : MemorySource
    rows : int
    kept : float, optional
        Rows that stay in memory where the others are in files; None where all are in memory.
    """

    def __init__(self, sample: MemorySource, rows: int, kept: float | None) -> None:
        self.sample, self.rows, self.features, self._kept = sample, rows, sample.features, kept
        self.resident = kept is None
        # Those of files are found by the read that draws the sample.
        self.moments = None if kept is None else column_moments(sample)
        self.reads, self.seconds = 0, 0.0

    @property
    def device(self) -> torch.device:
        return self.sample.device

    @property
    def dtype(self) -> torch.dtype:
        return self.sample.dtype

    @property
    def widths(self) -> tuple[int, int, int]:
        return self.sample.widths

    @property
    def nbytes(self) -> int:
        return self.sample.nbytes * self.rows // max(self.sample.rows, 1)

    def blocks(self, rows: int | None = None) -> Iterator[Block]:
        """The sample's; what is done with them in between is on the clock."""
        began = time.perf_counter()
        yield from self.sample.blocks(rows)
        self.seconds += time.perf_counter() - began
        self.reads += 1

    def subsample(self, fraction: float, seed: int, dtype: torch.dtype | None = None) -> MemorySource:
        """As many rows as of the whole, if the sample has them, and not all of it where some are to be unknown."""
        wanted, most = fraction * self.rows, float(self.sample.rows)
        if self._kept is not None:
            wanted, most = min(wanted, self._kept), _KNOWN * most
        return self.sample.subsample(min(wanted, most) / self.sample.rows, seed, dtype)


def rehearse(
    data: list[str],
    opened: Callable[[list[str]], Table],
    folder: Path,
    *,
    header: bool,
    C: float,
    tol: float,
    test_size: float,
    memory: float,
    processes: int,
) -> Rehearsal:
    """Sample the files into a folder, and fit the sample as the whole would be fitted.

    Parameters
    ----------
    data : list of str
        Files and patterns.
    opened : callable
        From file names to their table.
    folder : Path
        For the sample.
    header : bool
        Whether the first line of a text file names the columns.
    C, tol : float
        As in `LogisticRegression`.
    test_size : float
        Share of the rows that is held out.
    memory : float
        Bytes that a process may take.
    processes : int
    """
    whole = opened(data)
    paths = expand(data)
    size = sum(path.stat().st_size for path in paths)
    sample, share = sampled(paths, folder, header=header)
    table = opened([str(path) for path in sample])
    label_seconds, labels = _timed(table.labels)
    count = labels.size
    known = whole.known_rows()
    rows = round(count / share) if known is None else known
    encoder = None if table.is_sparse else TableEncoder()
    learn_seconds = 0.0 if encoder is None else _timed_warm(lambda: encoder.fit(table))
    # A sparse file is parsed for its labels and its width at once.
    decode_seconds, _ = _timed(lambda: _drain(table.numeric_batches() if encoder is None else table.table_batches()))
    encoded = table if encoder is None else encoder.transform(table)

    def load() -> Any:
        return training_features(_Holder(), encoded, None)

    load_seconds, features = _timed(load)
    classes, codes = encode_labels(labels)
    weight = row_weights(features, None, None, classes, codes)
    loss = loss_for(int(classes.size))
    source = MemorySource(features.blocks(codes, weight, None), loss.outputs)
    fitted = max(2, round(rows * (1 - test_size)))
    penalty = ElasticNet(l2=0.0 if np.isinf(C) else 1.0 / (C * fitted))
    own_bytes = fitted / processes * source.nbytes / count
    kept = processes * SAMPLE * memory * count / source.nbytes if own_bytes > WHOLE * memory else None
    run = _fitted(_Imagined(source, fitted, kept), loss, penalty, tol)
    if load_seconds <= _SOON:  # again, with the compiled loops that the fit has loaded
        passing = kept is not None
        load_seconds, _ = _timed((lambda: _drain(ahead(encoded.numeric_batches))) if passing else load)
    extra = 8.0 + 8.0 * (weight is not None) + 8.0 * table.has_offset
    plan = run.fit.plan
    job = Job(
        rows=rows,
        fitted=1 - test_size,
        bytes_per_row=source.nbytes / count + extra,
        file_bytes=size,
        skipped=detect_format(paths[0], paths[0].name) == "Parquet",
        passes=run.source.reads,
        coefficients=loss.outputs * (source.features + 1),
        whole_hessian=plan.preconditioner == "Cholesky factor of the Hessian",
        budget=None if kept is None else memory,
        compiled=plan.kernel == "numba",
    )
    speed = Speed(
        label=label_seconds / count,
        learn=learn_seconds / count,
        decode=decode_seconds / count,
        encode=max(load_seconds - decode_seconds, 0.0) / count,
        row_pass=run.source.seconds / max(run.source.reads, 1) / count,
        fixed=max(run.seconds - run.source.seconds, 0.0),
    )
    return Rehearsal(job, speed, plan, source.features, int(classes.size), count, known is not None)


class _Holder:
    """Takes the names of the columns, as an estimator would."""

    n_features_in_: int
    random_state = None


@dataclass(frozen=True)
class _Fitted:
    fit: Fit
    source: _Imagined
    seconds: float


def _fitted(source: _Imagined, loss: Any, penalty: ElasticNet, tol: float) -> _Fitted:
    """A fit of the sample as if it were all rows; the second one, where the first had loops to compile."""
    for _ in range(2):
        source.reads, source.seconds = 0, 0.0
        began = time.perf_counter()
        fit = Fit(Problem(source, loss, [penalty]), FitOptions(tol=tol, max_iter=_MOST_STEPS))
        for _ in fit.steps():
            pass
        done = _Fitted(fit, source, time.perf_counter() - began)
        if fit.plan.kernel != "numba" or done.seconds > _LONG:
            break
    return done


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def _timed_warm(work: Callable[[], Any]) -> float:
    """Seconds that it takes when it is done again, where that is soon: the first time libraries are loaded."""
    seconds, _ = _timed(work)
    return _timed(work)[0] if seconds <= _SOON else seconds


def _drain(batches: Iterator[Any]) -> None:
    for _ in batches:
        pass
