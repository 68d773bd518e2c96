"""The page that ``--report`` writes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from torchlogit.cli.labels import Labels
from torchlogit.cli.show import Waiting
from torchlogit.table import Table


def write_page(
    path: Path,
    model: Any,
    table: Table,
    labels: Labels,
    waiting: Waiting,
    *,
    data: list[str],
    training: bool,
    threshold: float = 0.5,
    seed: int = 0,
) -> None:
    """Write the report of a model on a table.

    Parameters
    ----------
    path : Path
    model : LogisticRegression or Pipeline
    table : Table
        Rows to measure on.
    labels : Labels
        Theirs.
    waiting : Waiting
    data : list of str
        What the table was read from.
    training : bool
        Whether the fit has seen some of these rows.
    threshold : float, default=0.5
    seed : int, default=0
    """
    from torchlogit.report import write_report

    waiting.now("writing the report")
    files = ", ".join(Path(name).name for name in data[:3]) + (" ..." if len(data) > 3 else "")
    write_report(
        model,
        path,
        table,
        labels.classes[labels.codes],
        title=f"{table.target} of {files}",
        threshold=threshold,
        seed=seed,
        training_rows=training,
        command=shlex.join(["torchlogit", *sys.argv[1:]]),
    )
