"""``torchlogit fit``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from torchlogit.cli import options as o

if TYPE_CHECKING:
    from rich.console import Console

    from torchlogit.cli.show import Waiting
    from torchlogit.cli.workflow import FitReport, FitRequest

_SHOWN_COLUMNS = 40
_SHOWN_REMARKS = 20
_SHOWN_COEFFICIENTS = 10


def fit(
    data: o.Data,
    target: o.Target = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", readable=False, help="Model file to write.")
    ] = Path("model.safetensors"),
    report: o.Report = None,
    C: o.C = 1.0,
    test: Annotated[
        list[str] | None, typer.Option("--test", metavar="DATA", help="Files to measure on, in place of held-out rows.")
    ] = None,
    test_size: o.TestSize = None,
    weight: o.Weight = None,
    offset: o.Offset = None,
    drop: o.Drop = None,
    positive: o.Positive = None,
    separator: o.Separator = None,
    no_header: o.NoHeader = False,
    missing: o.Missing = None,
    tol: o.Tolerance = 1e-6,
    max_iter: o.MaxIter = 1000,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    memory: o.Memory = None,
    cache: o.Cache = None,
    on_bad_row: o.OnBadRow = "error",
    checkpoint: o.Checkpoint = None,
    resume: o.Resume = False,
    checkpoint_minutes: o.CheckpointMinutes = 5.0,
    as_json: o.AsJson = False,
) -> None:
    """Fit a model to a table and write it to a file.

    Columns may be numbers, categories, dates or texts, with values missing; each is encoded and the decision printed.
    A fifth of the rows is held out to measure the model on.

    \b
    Examples:
      torchlogit fit customers.csv --target churn
      torchlogit fit customers.csv --target churn --report report.html
      torchlogit fit train.csv.gz --target column_14 --no-header --test test.csv.gz
      torchlogit fit "part-*.parquet" --target spam --drop id -o spam.safetensors
      torchlogit fit iris.csv --target species --positive setosa --json
      torchlogit fit "part-*.parquet" --target spam --memory 2GB --on-bad-row skip
      torchlogit fit big.parquet --target spam --checkpoint big.fit --resume
    """
    from torchlogit.cli.checkpoint import Checkpointing, finished, keep_finished, opened
    from torchlogit.cli.guard import say
    from torchlogit.cli.page import write_page
    from torchlogit.cli.show import Waiting
    from torchlogit.cli.workflow import FitRequest, fit_rows, measured
    from torchlogit.comm import current
    from torchlogit.model_file import save

    if resume and checkpoint is None:
        raise typer.BadParameter("name the folder with --checkpoint DIR", param_hint="'--resume'")
    kept = None if checkpoint is None else Checkpointing(checkpoint, resume, checkpoint_minutes)
    if test and test_size:
        raise typer.BadParameter("--test names the rows to measure on", param_hint="'--test-size'")
    check_writable(output, [*data, *(test or [])])
    if report is not None:
        check_writable(report, [*data, *(test or [])], "--report")
        if report.resolve() == output.resolve():
            raise typer.BadParameter(f"{report} is where the model goes", param_hint="'--report'")
    table = o.TableOptions.given(target, weight, offset, drop, separator, no_header, missing)
    table = replace(table, memory=memory, cache=cache, on_bad_row=on_bad_row)
    share = 0.2 if test_size is None else test_size
    request = FitRequest(data, table, positive, list(test or []), share, C, tol, device, seed, max_iter)

    processes = current()
    reports: list[FitReport] = []

    def conclude(done: FitReport, waiting: Waiting) -> None:
        if report is not None and done.measured is not None:
            rows, labels, training = done.measured
            write_page(report, done.model, rows, labels, waiting, data=test or data, training=training, seed=seed)
        save(done.model, output, notes=done.notes)
        if keeper is not None:
            keep_finished(keeper, request, done)
        reports.append(done)

    def known(waiting: Waiting) -> bool:
        done = None if keeper is None or report is not None else finished(keeper, request)
        if done is not None:
            conclude(done, waiting)
        return done is not None

    with Waiting() as waiting, ExitStack() as stack:
        first = kept if processes.rank == 0 else None
        keeper = processes.together(lambda: stack.enter_context(opened(first, request)))
        if not processes.from_first(lambda: known(waiting)):
            fitted = fit_rows(request, waiting, keeper)
            done = measured(fitted, request, waiting)
            processes.from_first(lambda: conclude(done, waiting))
    for done in reports:
        for remark in done.skipped:
            say(remark)
        _print(done, request, output, report, as_json)


def check_writable(output: Path, data: Sequence[str], option: str = "-o") -> None:
    """Before the work, not after it; and never over what is to be read."""
    from torchlogit.cli.guard import will_write
    from torchlogit.errors import InputError
    from torchlogit.sources.files import expand

    will_write(output)
    folder = output.resolve().parent
    if output.is_dir():
        raise InputError(f"{output} is a directory; name a file with {option}")
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder} to write {output.name} to; create it first")
    if output.is_file():
        for path in expand(data):
            if output.samefile(path):
                raise InputError(f"{output} is one of the files to read; name another file with {option}")
    if not os.access(folder if output.is_file() or not output.exists() else output, os.W_OK):
        raise InputError(f"{folder} cannot be written to (permission denied); name a file elsewhere with {option}")


def _print(report: FitReport, request: FitRequest, output: Path, page: Path | None, as_json: bool) -> None:
    from torchlogit.cli.show import console, print_json

    if as_json:
        written = {"model": str(output)} if page is None else {"model": str(output), "report": str(page)}
        print_json({**report.figures, **written, "remarks": list(report.remarks)})
        return
    out = console()
    _print_rows(out, report, request)
    _print_encoding(out, report)
    _print_fit(out, report)
    print_measures(out, report.figures, "held out" if not request.test else "tested on")
    print_coefficients(out, report.model, _SHOWN_COEFFICIENTS)
    out.print(f"\nsaved {output}")
    if page is not None:
        out.print(f"report {page}")


def _print_rows(out: Console, report: FitReport, request: FitRequest) -> None:
    import numpy as np

    from torchlogit.cli.labels import label_text
    from torchlogit.cli.show import percent
    from torchlogit.cli.workflow import classifier_of

    figures = report.figures
    shares, classes = np.asarray(report.notes["shares"]), classifier_of(report.model).classes_
    order = shares.argsort()[::-1] if shares.size > 2 else range(shares.size)
    told = [f"{label_text(classes[k])} {percent(float(shares[k]))}" for k in list(order)[:6]]
    more = f" and {shares.size - 6} more" if shares.size > 6 else ""
    files = ", ".join(request.data[:3]) + (" ..." if len(request.data) > 3 else "")
    out.print(
        f"{files}: fitted on {figures['n_rows']:,} rows, "
        f"{figures['n_columns']:,} columns as {figures['n_features']:,} numbers"
    )
    out.print(f"target    {', '.join(told)}{more}")
    for remark in report.remarks[:_SHOWN_REMARKS]:
        out.print(f"note      {remark}")
    if len(report.remarks) > _SHOWN_REMARKS:
        out.print(f"note      and {len(report.remarks) - _SHOWN_REMARKS:,} more; 'torchlogit fit --json' lists all")


def _print_encoding(out: Console, report: FitReport) -> None:
    from torchlogit.cli.show import table
    from torchlogit.cli.workflow import encoder_of

    encoder = encoder_of(report.model)
    if encoder is None:
        return
    rows = []
    for decision in encoder.decisions_[:_SHOWN_COLUMNS]:
        told = f"left out: {decision.reason}" if decision.kind == "drop" else decision.encoding
        rows.append((decision.column, str(decision.features) if decision.features else "-", told))
    out.print()
    out.print(table(["column", "numbers", "encoded as"], rows, numeric=[1]))
    if len(encoder.decisions_) > _SHOWN_COLUMNS:
        out.print(f"... and {len(encoder.decisions_) - _SHOWN_COLUMNS:,} more; 'torchlogit inspect' lists all")


def _print_fit(out: Console, report: FitReport) -> None:
    from torchlogit.cli.show import number
    from torchlogit.cli.workflow import classifier_of

    figures, classifier = report.figures, classifier_of(report.model)
    plan = classifier.plan_
    out.print(f"\nminimised {plan.objective}")
    out.print(f"by        {plan.solver}, {plan.preconditioner}")
    out.print(
        f"in        {figures['steps']} steps, {figures['passes']:.1f} passes over the rows, "
        f"{figures['seconds']:.2f} s ({figures['seconds_encoding']:.2f} s of it to learn the encoding)"
    )
    out.print(f"objective {figures['objective']:.10g}")
    out.print(
        f"          certificate: kkt {number(figures['kkt'])} (largest slope in standard units, to be at most "
        f"{classifier.tol:g}), excess {number(figures['excess'])} (estimated height above the minimum)"
    )
    out.print(f"status    {figures['status']}")


def print_measures(out: Console, figures: dict[str, object], what: str) -> None:
    """Measures against the base rate, if there are any."""
    from torchlogit.cli.show import number, table

    if "accuracy" not in figures:
        return
    rows = [
        (name, number(figures.get(key)), number(figures.get(f"base_{key}")))  # type: ignore[arg-type]
        for name, key in (("accuracy", "accuracy"), ("log loss", "log_loss"), ("AUC", "auc"), ("Brier score", "brier"))
    ]
    rows = [(name, value, "0.5000" if name == "AUC" else base) for name, value, base in rows]
    out.print(f"\n{what} {figures['n_test']:,} rows")
    out.print(table(["", "model", "base rate"], rows, numeric=[1, 2]))


def print_coefficients(out: Console, model: object, count: int | None) -> None:
    """The largest ones, by name."""
    from torchlogit.cli.labels import label_text
    from torchlogit.cli.show import number, table
    from torchlogit.cli.workflow import classifier_of, encoder_of, largest_coefficients

    classifier = classifier_of(model)
    rows = largest_coefficients(model, count)
    total = int(classifier.coef_.size)
    many = classifier.classes_.size > 2
    units = "" if encoder_of(model) is None else "; numeric columns: per standard deviation"
    title = f"largest of {total:,} coefficients" if count is not None and total > count else "coefficients"
    if many:
        out.print(f"\n{title} (of the logit of each class{units})")
        out.print(table(["class", "feature", "coefficient"], [(c, f, number(v)) for c, f, v in rows], numeric=[2]))
    else:
        out.print(f"\n{title} (positive: towards {label_text(classifier.classes_[1])}{units})")
        out.print(table(["feature", "coefficient"], [(f, number(v)) for _, f, v in rows], numeric=[1]))
    intercepts = classifier._current_solution().intercept
    if not many:
        out.print(f"intercept {number(float(intercepts[0]))}")
