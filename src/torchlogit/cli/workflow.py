"""The steps that commands share: read, hold out, fit, measure. No printing here."""

from __future__ import annotations

import os
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline

from torchlogit import model_parts
from torchlogit.available import give_back_free_memory
from torchlogit.cli.checkpoint import learned_encoder
from torchlogit.cli.labels import Labels, held_out, known_labels, label_text, training_labels
from torchlogit.cli.measures import Measures
from torchlogit.cli.options import TableOptions
from torchlogit.cli.show import Waiting, with_options
from torchlogit.comm import current
from torchlogit.encode import TableEncoder
from torchlogit.encode.lazy import EncodedTable
from torchlogit.errors import InputError
from torchlogit.estimator import LogisticRegression
from torchlogit.fit_checkpoint import FitCheckpoint
from torchlogit.keeping import Keeper
from torchlogit.prediction import likeliest, probabilities
from torchlogit.progress import told, told_read
from torchlogit.rows import LazyRows, Residence
from torchlogit.shared_checkpoint import SharedKeeper
from torchlogit.sources.files import expand, fingerprint
from torchlogit.sources.streaming import Pass
from torchlogit.table import Skipped, Table


@dataclass(frozen=True)
class FitRequest:
    """What ``torchlogit fit`` was asked for."""

    data: list[str]
    table: TableOptions
    positive: str | None = None
    test: list[str] = field(default_factory=list)
    test_size: float = 0.2
    C: float = 1.0
    tol: float = 1e-6
    device: str = "auto"
    seed: int = 0
    max_iter: int = 1000


@dataclass(frozen=True)
class FitReport:
    """A fitted model with everything that is told about it."""

    model: LogisticRegression | Pipeline
    figures: dict[str, Any]  # flat: what --json prints
    notes: dict[str, Any]  # what the model file keeps
    remarks: tuple[str, ...]
    # Rows to report on, their labels, and whether the fit has seen some of them; None where no rows were read.
    measured: tuple[Table, Labels, bool] | None
    skipped: list[str] = field(default_factory=list)  # what is said of rows that were left out


def classifier_of(model: LogisticRegression | Pipeline) -> LogisticRegression:
    """The last step."""
    return model.steps[-1][1] if isinstance(model, Pipeline) else model


def encoder_of(model: LogisticRegression | Pipeline) -> TableEncoder | None:
    """The first step, if it encodes."""
    return model.steps[0][1] if isinstance(model, Pipeline) and len(model.steps) == 2 else None


def open_table(options: TableOptions, data: list[str], waiting: Waiting) -> Table:
    """The files, with a bar for whoever waits for them."""
    table = options.scan(data)
    table.listener = lambda share: waiting.now(waiting.reading, share)
    return table


@dataclass(frozen=True)
class Fitted:
    """What all processes have when the fit is done: the rows, which of them were held out, and the model."""

    table: Table
    labels: Labels
    mask: NDArray[np.bool_]
    model: LogisticRegression | Pipeline
    encoding_seconds: float
    fitting: float  # when it began
    fitted: float  # and ended
    began: float

    @property
    def rows(self) -> Table:
        """The rows of the fit."""
        return self.table.select(~self.mask) if self.mask.any() else self.table

    @property
    def kept(self) -> Labels:
        """Their labels."""
        return Labels(self.labels.classes, self.labels.codes[~self.mask])


def fit_rows(request: FitRequest, waiting: Waiting, checkpoint: FitCheckpoint | None = None) -> Fitted:
    """Read, hold out, encode and fit, in as many processes as there are.

    Parameters
    ----------
    request : FitRequest
    waiting : Waiting
    checkpoint : FitCheckpoint, optional
        Of the first process; the others have none of their own.
    """
    began = time.perf_counter()
    room = current().from_first(lambda: None if checkpoint is None else _room(checkpoint))
    table, labels, mask = current().together(lambda: _opened(request, waiting, room))
    rows = table.select(~mask) if mask.any() else table
    fitting = time.perf_counter()
    model, encoding_seconds = _fit(rows, Labels(labels.classes, labels.codes[~mask]), request, waiting, checkpoint)
    return Fitted(table, labels, mask, model, encoding_seconds, fitting, time.perf_counter(), began)


def _room(checkpoint: FitCheckpoint) -> Residence:
    """The memory that a fit began with, for whoever goes on with it; decoded text lies beside the checkpoint."""
    return Residence(checkpoint.purpose.facts["--memory"], folder=str(checkpoint.folder))


def _opened(
    request: FitRequest, waiting: Waiting, room: Residence | None
) -> tuple[Table, Labels, NDArray[np.bool_]]:
    """The table, its labels, and which rows are held out."""
    table = open_table(request.table, request.data, waiting)
    if room is not None:
        folder = room.folder if os.path.isdir(room.folder or "") else None  # other machines need not have it
        table.residence = replace(table.residence, memory=room.memory, folder=folder)
    if table.target is None:
        raise InputError(
            f"name the column to predict with --target COL; the columns are {', '.join(table.columns[:30])}"
            + (", ..." if len(table.columns) > 30 else "")
        )
    table = table.usable(numeric=False)
    labels = training_labels(table, request.positive)
    if request.test:
        mask = np.zeros(labels.codes.size, dtype=bool)
    else:
        mask = held_out(labels.codes, table.uniforms(request.seed), request.test_size)
    return table, labels, mask


def measured(fitted: Fitted, request: FitRequest, waiting: Waiting) -> FitReport:
    """The fitted model with all that is told about it; each process measures on its share of the rows."""
    give_back_free_memory()  # the sample that the fit held
    table, labels, mask, model, rows, kept = (
        getattr(fitted, name) for name in ("table", "labels", "mask", "model", "rows", "kept")
    )
    seconds = fitted.fitted - fitted.fitting
    report = _figures(classifier_of(model), rows, kept, seconds, fitted.encoding_seconds)
    notes = {
        "table": {**request.table.record(), "target": table.target},
        "columns": list(table.columns),
        "width": len(table.columns)
        + sum(name is not None for name in (request.table.target, request.table.weight, request.table.offset))
        + len(request.table.drop),
        "positive": request.positive,
        "against_rest": labels.against_rest,
        "shares": kept.shares.tolist(),
        "threshold": 0.5,
        "data": [str(path) for path in request.data],
        "fingerprints": [fingerprint(path) for path in expand(request.data)],
        "seed": request.seed,
    }
    empty = [f"{name} has no rows" for name in table.empty_files]
    remarks = [*labels.notes, *_repeated_files(request), *empty, *_hints(model)]
    shown = (rows, kept, True)
    if request.test:
        other, truth = current().together(lambda: _other(labels, request, waiting))
        remarks += truth.notes
        report |= _tested(model, other, truth, kept.shares, waiting)
        shared = _shared_files(request)
        if shared:
            remarks.append(f"{', '.join(shared)}: measured on rows that were fitted, not on new ones")
        shown = (other, truth, bool(shared))
        notes["test"] = [str(path) for path in request.test]
    elif mask.any():
        truth = Labels(labels.classes, labels.codes[mask])
        shown = (table.select(mask), truth, False)
        report |= _tested(model, shown[0], truth, kept.shares, waiting)
        notes["test_size"] = request.test_size
    report["skipped_rows"] = table.skipped.count
    notes["skipped"] = [list(entry) for entry in table.skipped.listed]
    report["seconds_total"] = time.perf_counter() - fitted.began
    notes["figures"] = report
    return FitReport(model, report, notes, tuple(remarks), shown, _skipped(table.skipped))


def _other(labels: Labels, request: FitRequest, waiting: Waiting) -> tuple[Table, Labels]:
    """The files to measure on, and their labels."""
    other = open_table(request.table, request.test, waiting)
    return other, known_labels(other, labels.classes, against_rest=labels.against_rest)


def _skipped(skipped: Skipped) -> list[str]:
    """What was left out."""
    if not skipped.count:
        return []
    file, row, reason = skipped.listed[0]
    rows = "1 row" if skipped.count == 1 else f"{skipped.count:,} rows"
    first = "it is" if skipped.count == 1 else "the first is"
    return [f"{rows} could not be used and {'was' if skipped.count == 1 else 'were'} skipped: {first} {file}, row "
            f"{row:,}, which has {reason}"]  # fmt: skip


def _hints(model: LogisticRegression | Pipeline) -> list[str]:
    """What to look at in the columns."""
    encoder = encoder_of(model)
    decisions = [] if encoder is None else encoder.decisions_
    return [f"{decision.column}: {decision.hint}" for decision in decisions if decision.hint]


def _repeated_files(request: FitRequest) -> list[str]:
    """Files whose rows count more than once, some of them perhaps among those held out."""
    counts = Counter(path.resolve() for path in expand(request.data))
    return [f"{path.name} is given {count} times, so its rows count so often" for path, count in counts.items()
            if count > 1]  # fmt: skip


def _shared_files(request: FitRequest) -> list[str]:
    """Files that are both fitted and measured on."""
    fitted = {path.resolve() for path in expand(request.data)}
    return [str(path) for path in expand(request.test) if path.resolve() in fitted]


def _fit(
    rows: Table, labels: Labels, request: FitRequest, waiting: Waiting, checkpoint: FitCheckpoint | None
) -> tuple[LogisticRegression | Pipeline, float]:
    """The model, and how long its encoder took."""
    classifier = LogisticRegression(
        C=request.C, tol=request.tol, max_iter=request.max_iter, random_state=request.seed, device=request.device
    )
    began = time.perf_counter()
    encoder: TableEncoder | None = None
    numbers: LazyRows = rows
    if not rows.is_sparse:
        waiting.now("encoding")
        encoder = learned_encoder(rows, checkpoint)
        numbers = encoder.transform(rows)
        check_features(encoder)
    encoding_seconds = time.perf_counter() - began

    def watch(record: dict[str, Any]) -> None:
        waiting.now(f"fitting: {told(record)}")

    def watch_read(read: Pass) -> None:
        waiting.reading = told_read(read)
        waiting.now(waiting.reading, read.rows / read.total)

    processes = current()
    keeper: Keeper | None = checkpoint
    if processes.world > 1 and processes.from_first(lambda: checkpoint is not None):
        keeper = SharedKeeper(checkpoint, processes)
    classifier._observer, classifier._reads, classifier._keeper = watch, watch_read, keeper
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the report says it
            classifier.fit(numbers, labels.codes)
    except ValueError as error:
        raise as_input_error(error, numbers, request.table) from error
    finally:
        del classifier._observer, classifier._reads, classifier._keeper
        waiting.reading = "reading"
    classifier.classes_ = labels.classes
    if encoder is None:
        return classifier, encoding_seconds
    return Pipeline([("encoder", encoder), ("classifier", classifier)]), encoding_seconds


def as_input_error(error: ValueError, rows: LazyRows, options: TableOptions) -> InputError:
    """What a fit said of rows that came from files, in words of files."""
    if isinstance(error, InputError):
        return error
    if rows.has_weight and not any(np.any(batch.weight) for batch in rows.numeric_batches()):
        return InputError(
            f"all rows to fit have the weight 0 in column '{options.weight}'; name another column with --weight"
        )
    return InputError(str(error).rstrip("."))


def check_features(encoder: TableEncoder) -> None:
    """Raise `InputError` where every column was left out."""
    if not encoder.feature_columns_:
        raise InputError(
            "no column is left to predict from: "
            + "; ".join(f"{d.column} is left out ({d.reason})" for d in encoder.decisions_[:10])
        )


def _figures(
    classifier: LogisticRegression, rows: Table, labels: Labels, seconds: float, encoding_seconds: float
) -> dict[str, Any]:
    return {
        "n_rows": int(labels.codes.size),
        "n_columns": len(rows.columns),
        "n_features": int(classifier.n_features_in_),
        "n_classes": int(labels.classes.size),
        "objective": classifier.objective_,
        "kkt": classifier.kkt_,
        "excess": classifier.excess_,
        "converged": classifier.converged_,
        "status": with_options(classifier.status_),
        "steps": int(classifier.n_iter_[0]),
        "passes": classifier.trace_[-1]["passes"],
        "seconds": seconds,
        "seconds_encoding": encoding_seconds,
        "solver": classifier.plan_.solver,
        "processes": current().world,
    }


def _tested(
    model: LogisticRegression | Pipeline, table: Table, labels: Labels, base: NDArray[np.float64], waiting: Waiting
) -> dict[str, Any]:
    waiting.now("predicting")
    processes = current()

    def own() -> Measures:
        rows = table.portion(processes.rank, processes.world) if processes.world > 1 else table
        return measures_of(model, rows, rows.own(labels.codes), base, fitting=True)

    figures = Measures.of_all(processes.gathered(own)).figures()
    return {"n_test": int(labels.codes.size), **figures}


def measures_of(
    model: LogisticRegression | Pipeline,
    table: Table,
    codes: NDArray[np.integer[Any]],
    base: NDArray[np.float64],
    threshold: float = 0.5,
    *,
    fitting: bool = False,
) -> Measures:
    """Measures of a model on rows of known classes; ``fitting`` where its columns may still be chosen."""
    measures, done = Measures(base), 0
    for eta, weight in predicted_batches(model, table, fitting=fitting):
        here = codes[done : done + eta.shape[0]]
        measures.add(here, chosen_classes(eta, threshold), eta, weight)
        done += eta.shape[0]
    return measures


def chosen_classes(eta: NDArray[np.float64], threshold: float = 0.5) -> NDArray[np.int64]:
    """The class of each row, ``(rows,)``: the likeliest, or the positive one from the threshold on."""
    # At a half as `LogisticRegression.predict` does, also where the probability rounds to it.
    if eta.shape[1] > 1 or threshold == 0.5:
        return likeliest(eta)
    return np.asarray(probabilities(eta)[:, 1] >= threshold, dtype=np.int64)


def predicted_batches(model: LogisticRegression | Pipeline, table: Table, *, fitting: bool = False) -> Any:
    """Linear predictors ``(rows, K)`` and weights, block by block."""
    from torchlogit.lazy_prediction import linear_predictor_batches

    encoder, classifier = encoder_of(model), classifier_of(model)
    rows: LazyRows = table
    if encoder is not None:
        rows = EncodedTable(encoder, table, fitting=fitting)
    return linear_predictor_batches(classifier, rows)


def feature_names(model: LogisticRegression | Pipeline) -> list[str]:
    """Names of the numbers that the classifier sees."""
    return model_parts.feature_names(encoder_of(model), classifier_of(model))


def largest_coefficients(model: LogisticRegression | Pipeline, count: int | None) -> list[tuple[str, str, float]]:
    """``(class or "", feature, coefficient)``, largest first; None for all."""
    classifier, names = classifier_of(model), feature_names(model)
    coef = classifier._current_solution().coef
    flat = np.abs(coef).ravel()
    order = np.argsort(-flat, kind="stable")[: count or flat.size]
    many = coef.shape[0] > 1
    rows = []
    for index in order.tolist():
        k, j = divmod(index, coef.shape[1])
        rows.append((label_text(classifier.classes_[k]) if many else "", names[j], float(coef[k, j])))
    return rows
