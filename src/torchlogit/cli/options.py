"""Options that several commands share, each declared once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torchlogit.table import Table

Data = Annotated[
    list[str],
    typer.Argument(metavar="DATA...", help="Files: CSV (also .gz), Parquet, Arrow, libsvm; several, or a pattern."),
]
ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="Model file that 'torchlogit fit' wrote.")]
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
C = Annotated[float, typer.Option("--C", metavar="FLOAT", help="Inverse strength of the L2 penalty; inf for none.")]
Tolerance = Annotated[float, typer.Option("--tol", metavar="FLOAT", help="Bound on the certificate.")]
TestSize = Annotated[float, typer.Option("--test-size", metavar="SHARE", help="Share of rows held out, 0 to use all.")]
Seed = Annotated[int, typer.Option("--seed", metavar="INT", help="Seed of the held-out part and of subsamples.")]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="Where to compute: auto, cpu or cuda.")]
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
        from torchlogit.scanning import scan

        return scan(
            paths,
            target=self.target,
            weight=self.weight,
            offset=self.offset,
            drop=self.drop,
            separator=self.separator,
            header=self.header,
            missing=None if self.missing is None else list(self.missing),
        )

    def record(self) -> dict[str, Any]:
        """For the model file. The separator is not part of it: each file has its own."""
        return {
            "target": self.target,
            "weight": self.weight,
            "offset": self.offset,
            "drop": list(self.drop),
            "header": self.header,
            "missing": None if self.missing is None else list(self.missing),
        }

    @classmethod
    def recorded(cls, notes: dict[str, Any], separator: str | None) -> TableOptions:
        """From a model file, which may have been written from Python without any."""
        kept = notes.get("table", {})
        missing = kept.get("missing")
        return cls(
            target=kept.get("target"),
            weight=kept.get("weight"),
            offset=kept.get("offset"),
            drop=tuple(kept.get("drop", ())),
            separator=tab(separator),
            header=kept.get("header", True),
            missing=None if missing is None else tuple(missing),
        )


def tab(separator: str | None) -> str | None:
    """A tab is hard to type in a shell."""
    return "\t" if separator in ("tab", "\\t") else separator
