"""Options that several commands share, each declared once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torchlogit.table import Table


def _number(allowed: Callable[[float], bool], wanted: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isnan(value) or not allowed(value):
            raise typer.BadParameter(f"{text!r} is not {wanted}")
        return value

    return read


def _whole(least: float, wanted: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least:
            raise typer.BadParameter(f"{text!r} is not {wanted}")
        return value

    return read


def _size(least: int, wanted: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        from torchlogit.available import parsed_size

        value = parsed_size(text)
        if value is None or value < least:
            raise typer.BadParameter(f"{text!r} is not {wanted}")
        return value

    return read


def _on_bad_row(text: str) -> str:
    if text not in ("error", "skip"):
        raise typer.BadParameter(f"{text!r} is not error or skip")
    return text


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", text):
        raise typer.BadParameter(f"{text!r} is not auto, cpu or cuda")
    return text


Data = Annotated[
    list[str],
    typer.Argument(metavar="DATA", help="Files: CSV (also .gz), Parquet, Arrow, libsvm; several, or a pattern."),
]
# Not `readable`: what a path cannot be used for is said where it is used, in words that help.
ModelPath = Annotated[
    Path, typer.Argument(metavar="MODEL", readable=False, help="Model file that 'torchlogit fit' wrote.")
]
Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", readable=False, help="Page to write (HTML): is it good, and certain?"),
]
Target = Annotated[str | None, typer.Option("--target", metavar="COL", help="Column to predict (libsvm: label).")]
Weight = Annotated[str | None, typer.Option("--weight", metavar="COL", help="Column of row weights.")]
Offset = Annotated[str | None, typer.Option("--offset", metavar="COL", help="Column added to the logit.")]
Drop = Annotated[list[str] | None, typer.Option("--drop", metavar="COL", help="Column to leave out; may be repeated.")]
Positive = Annotated[
    str | None, typer.Option("--positive", metavar="LABEL", help="Predict this label against the rest.")
]
Separator = Annotated[
    str | None, typer.Option("--sep", metavar="CHAR", help="Separator of a text file (default: guessed); 'tab' works.")
]
NoHeader = Annotated[
    bool, typer.Option("--no-header", help="The first line is data; columns are column_0, column_1, ...")
]
Missing = Annotated[
    list[str] | None,
    typer.Option("--na", metavar="VALUE", help="Value that means missing, in place of the usual ones; repeatable."),
]
C = Annotated[
    float,
    typer.Option(
        "--C",
        metavar="FLOAT",
        parser=_number(lambda value: value > 0, "a number above 0 (inf means no penalty)"),
        help="Inverse strength of the L2 penalty; inf for none.",
    ),
]
Tolerance = Annotated[
    float,
    typer.Option(
        "--tol",
        metavar="FLOAT",
        parser=_number(lambda value: 0 < value < math.inf, "a number above 0"),
        help="When to stop: bound on the certificate's kkt, the largest slope in standard units.",
    ),
]
MaxIter = Annotated[
    int,
    typer.Option(
        "--max-iter",
        metavar="INT",
        parser=_whole(1, "a number of iterations, 1 or more"),
        help="When to give up: bound on the number of iterations.",
    ),
]
TestSize = Annotated[
    float | None,
    typer.Option(
        "--test-size",
        metavar="SHARE",
        parser=_number(lambda value: 0 <= value < 1, "a share of rows from 0 to 0.99"),
        show_default="0.2",
        help="Share of rows held out to measure on, 0 to fit all.",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        metavar="T",
        parser=_number(lambda value: 0 <= value <= 1, "a probability from 0 to 1"),
        show_default="0.5",
        help="Probability from which the positive label is predicted.",
    ),
]
Row = Annotated[
    int,
    typer.Option(
        "--row", metavar="N", parser=_whole(0, "a row's number, 0 or more"), help="Row to explain, counted from 0."
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="INT",
        parser=_whole(-math.inf, "a whole number"),
        help="Seed of the held-out part and of subsamples.",
    ),
]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", parser=_device, help="Where to compute: auto, cpu or cuda.")
]
Memory = Annotated[
    int | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        parser=_size(1 << 20, "a size of memory such as 2GB or 500MB (1MiB or more)"),
        show_default="half of what is available",
        help="What the fit may take beside the libraries; rows that do not fit are read from their files every time.",
    ),
]
Cache = Annotated[
    int | None,
    typer.Option(
        "--cache",
        metavar="SIZE",
        parser=_size(0, "a size on disk such as 20GB, or 0"),
        show_default="half of what is free",
        help="What text that does not fit into memory may take on disk once it is decoded; 0 to decode it every time.",
    ),
]
OnBadRow = Annotated[
    str,
    typer.Option(
        "--on-bad-row",
        metavar="error|skip",
        parser=_on_bad_row,
        help="What to do about a row that cannot be used: stop and name it, or leave it out and list it.",
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint", metavar="DIR", readable=False, help="Folder to keep the fit in: it survives being killed."
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the checkpoint, to the same bits; from the beginning without one.")
]
CheckpointMinutes = Annotated[
    float,
    typer.Option(
        "--checkpoint-minutes",
        metavar="MINUTES",
        parser=_number(lambda value: 0 <= value < math.inf, "a number of minutes, 0 or more"),
        help="Most time between two checkpoints in one long pass over the rows.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


@dataclass(frozen=True)
class TableOptions:
    """How files are to be read. What is recorded in a model file comes back as one of these."""

    target: str | None = None
    weight: str | None = None
    offset: str | None = None
    drop: tuple[str, ...] = ()
    separator: str | None = None
    header: bool | tuple[str, ...] = True
    missing: tuple[str, ...] | None = None
    memory: int | None = None
    cache: int | None = None
    on_bad_row: str = "error"

    @classmethod
    def given(
        cls,
        target: str | None,
        weight: str | None,
        offset: str | None,
        drop: list[str] | None,
        separator: str | None,
        no_header: bool,
        missing: list[str] | None,
    ) -> TableOptions:
        """From the command line's values."""
        na = tuple(missing) if missing else None
        return cls(target, weight, offset, tuple(drop or ()), tab(separator), not no_header, na)

    def scan(self, paths: list[str]) -> Table:
        """The files as a lazy table."""
        from torchlogit.errors import InputError
        from torchlogit.scanning import scan

        if "" in paths:
            raise InputError("the name of a file of data is empty; name a file")
        return scan(
            paths,
            target=self.target,
            weight=self.weight,
            offset=self.offset,
            drop=self.drop,
            separator=self.separator,
            header=self.header,
            missing=None if self.missing is None else list(self.missing),
            memory=self.memory,
            cache=self.cache,
            on_bad_row=self.on_bad_row,
        )

    def record(self) -> dict[str, Any]:
        """For the model file. What belongs to a run is not part of it, nor the separator: each file has its own."""
        return {
            "target": self.target,
            "weight": self.weight,
            "offset": self.offset,
            "drop": list(self.drop),
            "header": self.header,
            "missing": None if self.missing is None else list(self.missing),
        }

    @classmethod
    def recorded(cls, kept: dict[str, Any], separator: str | None) -> TableOptions:
        """From a model file."""
        lists = {name: None if kept[name] is None else tuple(kept[name]) for name in ("drop", "missing")}
        return cls(**{**kept, **lists}, separator=tab(separator))


def tab(separator: str | None) -> str | None:
    """A tab is hard to type in a shell."""
    return "\t" if separator in ("tab", "\\t") else separator
