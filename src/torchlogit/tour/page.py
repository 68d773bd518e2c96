"""Pieces of the page: a chapter, its readings, the code behind it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from markupsafe import Markup
from torch import Tensor

from torchlogit.report.svg import element
from torchlogit.report.text import number, trusted

CHAPTERS = (
    "The problem",
    "z, sigmoid, loss",
    "One training step",
    "Two doors",
    "Optimizers",
    "Deeper",
)
_HERE = Path(__file__).parent
_CHARTS = _HERE.parent / "report" / "templates"


def style() -> Markup:
    """The report's colours and charts, and what only the tour has."""
    palette, charts = ((_CHARTS / f"{name}.css").read_text(encoding="utf-8") for name in ("palette", "charts"))
    own = (_HERE / "tour.css").read_text(encoding="utf-8")
    return Markup("<style>{}</style>").format(trusted(f"{palette}\n.tour {{\n{charts}\n}}\n{own}"))


def joined(parts: Iterable[Any]) -> Markup:
    """Pieces of markup one after the other."""
    return Markup("").join(parts)


def opening(title: str, lede: str) -> str:
    """The style, and the head of the page with its contents. Plain text, as marimo takes nothing else."""
    links = joined(
        element("li", element("a", f"{k}. {name}", href=f"#chapter-{k}")) for k, name in enumerate(CHAPTERS, 1)
    )
    head = element(
        "header",
        joined([
            element("p", joined([element("b", "torchlogit"), " the tour"]), class_="eyebrow"),
            element("h1", title),
            element("p", trusted(lede), class_="lede"),
            element("nav", element("ol", links), aria_label="Chapters"),
        ]),
        class_="tour",
    )  # fmt: skip
    return str(style() + head)


def chapter(k: int, title: str, lede: str, controls: dict[str, Any]) -> str:
    """The head of a chapter. The controls are marimo's, by the name that tests find them under."""
    placed = joined(
        element("div", trusted(control.text), class_="control", data_testid=f"tour-{name}-{k}")
        for name, control in controls.items()
    )
    head = element(
        "section",
        joined([
            element("p", f"Chapter {k} of {len(CHAPTERS)}", class_="eyebrow"),
            element("h2", title, id=f"chapter-{k}"),
            element("p", trusted(lede), class_="lede"),
            element("div", placed, class_="controls"),
        ]),
        class_="tour chapter",
    )  # fmt: skip
    return str(head)


def body(*parts: Any) -> str:
    """What a chapter shows below its controls."""
    return str(element("section", joined(parts), class_="tour body"))


def figures(*pairs: tuple[str, Markup]) -> Markup:
    """Pictures beside each other where there is room, each with what it shows."""
    drawn = joined(
        element("figure", joined([picture, element("figcaption", trusted(caption))])) for caption, picture in pairs
    )
    return element("div", drawn, class_="pictures" if len(pairs) > 1 else "pictures one")


def says(sentence: str) -> Markup:
    """A sentence about what is to be seen now."""
    return element("p", trusted(sentence), class_="says")


def readings(k: int, values: dict[str, tuple[str, float | None]]) -> Markup:
    """Numbers by the name that tests find them under: what they are called, and their value to the last digit."""
    shown = joined(
        element("div", joined([
            element("dt", label),
            element("dd", f"{value:,}" if isinstance(value, int) else number(value, 4),
                    data_testid=f"tour-{name}-{k}", data_value=None if value is None else repr(value)),
        ]))
        for name, (label, value) in values.items()
    )  # fmt: skip
    return element("dl", shown, class_="readings")


def table(columns: list[str], rows: Iterable[Iterable[Any]], testid: str | None = None) -> Markup:
    """Numbers in rows, the first column their name."""
    head = element("tr", joined(element("th", name, scope="col") for name in columns))
    lines = []
    for first, *rest in rows:
        cells = [value if isinstance(value, Markup) else element("td", value) for value in rest]
        lines.append(element("tr", joined([element("th", first, scope="row"), *cells])))
    inner = joined([element("thead", head), element("tbody", joined(lines))])
    return element("div", element("table", inner, data_testid=testid), class_="scroll")


def cell(value: float, testid: str) -> Markup:
    """A number in a table that tests can find."""
    return element("td", number(value, 4), data_testid=testid, data_value=repr(value))


def tensor(values: Tensor) -> Markup:
    """A tensor's numbers, a row a line."""
    rows = values.reshape(-1, 1) if values.ndim < 2 else values
    lines = (element("span", "  ".join(f"{v: .3f}".replace("-", "−") for v in row)) for row in rows.tolist())
    return element("code", joined(lines), class_="tensor")


def more(title: str, content: Any) -> Markup:
    """Something for those who want to look closer."""
    return element("details", joined([element("summary", title), content]))


def _read(function: Callable[..., Any]) -> str:
    return re.sub(r"  # type: ignore\[[a-z-]+\]", "", inspect.getsource(function)).strip()


def source(*functions: Callable[..., Any]) -> Markup:
    """The code that has just run, read from the package itself."""
    return joined(
        [
            element("h3", "The code that computes this"),
            element("pre", "\n\n".join(map(_read, functions))),
        ]
    )


def legend(colour: str, name: str) -> Markup:
    """A name beside its colour."""
    return joined([element("span", element("span", "", class_="key"), class_=colour), name])
