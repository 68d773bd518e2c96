"""``torchlogit plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchlogit.cli import options as o

if TYPE_CHECKING:
    from torchlogit.rehearsal import Rehearsal


def plan(
    data: o.Data,
    target: o.Target = None,
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", min=1, help="How many are to share the rows, a core each.")
    ] = 1,
    C: o.C = 1.0,
    test_size: o.TestSize = None,
    weight: o.Weight = None,
    offset: o.Offset = None,
    drop: o.Drop = None,
    separator: o.Separator = None,
    no_header: o.NoHeader = False,
    missing: o.Missing = None,
    tol: o.Tolerance = 1e-6,
    memory: o.Memory = None,
    as_json: o.AsJson = False,
) -> None:
    """Say beforehand what a fit will take, in time and memory.

    A sample of the files is read, encoded and fitted as the whole would be. That gives the passes over the rows, and
    what each part of the work takes a row; docs/scaling.md says how they are put together.

    \b
    Examples:
      torchlogit plan "part-*.parquet" --target spam
      torchlogit plan "part-*.parquet" --target spam --processes 16 --json
      torchlogit plan "part-*.parquet" --target spam --memory 2GB
    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from torchlogit.available import memory_budget
    from torchlogit.cli.show import print_json
    from torchlogit.cost import cost
    from torchlogit.errors import InputError
    from torchlogit.rehearsal import rehearse

    table = o.TableOptions.given(target, weight, offset, drop, separator, no_header, missing)
    if table.scan(data).target is None:
        raise InputError("name the column to predict with --target COL")
    share = 0.2 if test_size is None else test_size
    with TemporaryDirectory() as folder:
        try:
            found = rehearse(
                data,
                table.scan,
                Path(folder),
                header=not no_header,
                C=C,
                tol=tol,
                test_size=share,
                memory=memory_budget() if memory is None else memory,
                processes=processes,
            )
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"in a sample of the files: {str(error).rstrip('.')}") from error
    figures = _figures(found, processes)
    if as_json:
        print_json(figures)
        return
    _print(found, figures, cost(found.job, found.speed, processes).seconds)


def _figures(found: Rehearsal, processes: int) -> dict[str, Any]:
    from torchlogit.cost import cost

    job, expected = found.job, cost(found.job, found.speed, processes)
    return {
        "processes": processes,
        "n_rows": job.rows,
        "n_rows_estimated": not found.rows_known,
        "n_features": found.features,
        "n_classes": found.classes,
        "solver": found.plan.solver,
        "preconditioner": found.plan.preconditioner,
        "kernel": found.plan.kernel,
        "passes": job.passes,
        "from_files": job.budget is not None,
        "file_reads": expected.file_reads,
        "bytes_files": job.file_bytes,
        "bytes_read": expected.bytes_read,
        "bytes_of_a_pass": expected.pass_bytes,
        "memory": expected.memory,
        "seconds": expected.seconds,
        "seconds_learning": expected.learning,
        "seconds_reading": expected.reading,
        "seconds_passes": expected.passes,
        "seconds_exchanging": expected.exchanging,
        "seconds_fixed": expected.fixed,
        "seconds_measuring": expected.measuring,
        "n_sample": found.sample_rows,
    }


def _print(found: Rehearsal, figures: dict[str, Any], seconds: float) -> None:
    from torchlogit.cli.show import console

    out, job, many = console(), found.job, figures["processes"]
    about = "" if found.rows_known else "about "
    out.print(
        f"rows      {about}{job.rows:,}, of which {round(job.rows * job.fitted):,} are fitted, as "
        f"{found.features:,} numbers each"
    )
    out.print(f"by        {found.plan.solver}, {found.plan.preconditioner}")
    out.print(f"because   {found.plan.reason}")
    out.print(f"processes {many}")
    where = "read from files by" if figures["from_files"] else "of memory"
    out.print(f"passes    {job.passes:g}, each over {_size(figures['bytes_of_a_pass'])} {where} a process")
    out.print(
        f"reads     {figures['file_reads']:g} of the files ({_size(job.file_bytes)}): "
        f"{_size(figures['bytes_read'])} by all processes"
    )
    out.print(f"memory    {_size(figures['memory'])} a process, beyond the interpreter with torch")
    out.print(
        f"time      {_time(seconds)}: {_time(figures['seconds_learning'])} to learn the encoding, "
        f"{_time(figures['seconds_reading'])} to read, {_time(figures['seconds_passes'])} for the passes, "
        f"{_time(figures['seconds_exchanging'])} to exchange sums, {_time(figures['seconds_measuring'])} to measure on "
        f"held-out rows, {_time(figures['seconds_fixed'])} whatever the rows"
    )
    out.print(f"measured  on {found.sample_rows:,} sampled rows, on this machine as busy as it is")


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
