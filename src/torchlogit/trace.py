"""The trace of a fit: one record a step, as plain data, written by the driver."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from torchlogit.files import replacing

Record = dict[str, Any]


class Trace(Sequence[Mapping[str, Any]]):
    """A sequence of records, oldest first.

    A record describes the state *before* its update (the last describes the result). `torchlogit.train` says what the
    fields of its records are. Those of an exact fit:

    - ``step``: number of the state, from 0.
    - ``objective``: mean loss plus penalty; exactly what is minimised.
    - ``gradient_norm``: Euclidean norm of its gradient in raw coefficients and intercept.
    - ``kkt``, ``excess``: the two halves of the certificate.
    - ``step_length``, ``trials``: length of the step taken from here, and points evaluated to find it (0 at the end).
    - ``passes``: reads of all rows that led here.
    - ``rows_per_second``, ``bytes_per_second``: of the reads since the last record.
    - ``seconds``: mapping with ``read`` (inside sweeps over rows) and ``total``, both since the last record.
    - ``theta``: raw coefficients, ``(K, p + 1)`` nested lists with the intercept last; None above 1,000 numbers.
    - ``validation``: mean log loss of the rows that `LogisticRegression.steps` was given to watch.

    Parameters
    ----------
    records : iterable of mapping, default=()
        Records to begin with.

    Examples
    --------
    >>> trace = Trace([{"step": 0, "objective": 0.69}, {"step": 1, "objective": 0.41}])
    >>> trace[-1]["objective"], len(trace)
    (0.41, 2)
    """

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self._records: list[Record] = [dict(record) for record in records]

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; nothing is ever changed or removed."""
        self._records.append(dict(record))

    def annotate(self, **fields: Any) -> None:
        """Add fields to the last record, which was made before they were known."""
        known = self._records[-1].keys() & fields.keys()
        if known:
            raise ValueError(f"the last record has {', '.join(sorted(known))} already: records never change")
        self._records[-1].update(fields)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Trace: ...
    def __getitem__(self, index: int | slice) -> Record | Trace:
        """A record, or a shorter trace."""
        return Trace(self._records[index]) if isinstance(index, slice) else dict(self._records[index])

    def __len__(self) -> int:
        """Number of records."""
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        """Records, oldest first."""
        return (dict(record) for record in self._records)

    def __eq__(self, other: object) -> bool:
        """Equal records in the same order."""
        return isinstance(other, Trace) and self._records == other._records

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """The ends of the trace in a line."""
        if not self._records:
            return "Trace(empty)"
        first, last = self._records[0], self._records[-1]
        certificate = f", kkt {last['kkt']:.2g}" if isinstance(last.get("kkt"), float) else ""
        return f"Trace({len(self)} records: objective {_told(first)} -> {_told(last)}{certificate})"

    def to_frame(self) -> Any:
        """The records as a pandas DataFrame, one row each (pandas must be installed)."""
        import pandas as pd

        return pd.DataFrame(self._records)

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Write one JSON object a line; numbers keep every digit."""
        lines = "".join(json.dumps(record) + "\n" for record in self._records)
        with replacing(path) as temporary:
            temporary.write_text(lines, encoding="utf-8")

    def to_tensorboard(self, folder: str | os.PathLike[str]) -> None:
        """Write every number of every record as a scalar for TensorBoard (``pip install "torchlogit[tensorboard]"``).

        Parameters
        ----------
        folder : path-like
            Log directory of this run.

        Raises
        ------
        ImportError
            If TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError(
                'TensorBoard is not installed: pip install "torchlogit[tensorboard]", or keep the trace with to_jsonl'
            ) from None
        writer: Any = SummaryWriter(os.fspath(folder))
        try:
            for number, record in enumerate(self._records):
                for name, value in _scalars(record):
                    writer.add_scalar(name, value, int(record.get("step", number)))
        finally:
            writer.close()

    def plot(self, fields: Sequence[str] | None = None, *, ax: Any = None) -> Any:
        """Draw the objective and the certificate, step by step.

        Parameters
        ----------
        fields : sequence of str, default=None
            What to draw; None chooses by what the records have.
        ax : matplotlib axes, default=None

        Returns
        -------
        torchlogit.plots.TraceDisplay
        """
        from torchlogit.plots import plot_trace

        return plot_trace(self, fields, ax=ax)

    @classmethod
    def from_jsonl(cls, path: str | os.PathLike[str]) -> Trace:
        """Read what `to_jsonl` wrote."""
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        return cls(json.loads(line) for line in lines if line.strip())


def _told(record: Mapping[str, Any]) -> str:
    """The objective, of one lane or of several."""
    value = record.get("objective")
    return f"{value:.6g}" if isinstance(value, (int, float)) else str(value)


def _scalars(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a record by name; coefficients are no scalars, and the step is the axis."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and name != "step":
            yield prefix + name, float(value)
