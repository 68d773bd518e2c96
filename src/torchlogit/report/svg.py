"""Small charts as SVG: drawn here once, so that they need no script, print, and scale.

Colours are the style sheet's (classes ``c0``, ``c1``, ...), so that light and dark are its business alone. All texts of
a chart are either numbers or go through `isolated` and are escaped by markupsafe.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike, NDArray

from torchlogit.report.text import number, trusted

WIDTH, HEIGHT = 480, 320
_CAMEL = ("viewBox", "gradientUnits", "preserveAspectRatio")
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 30, 50


class Chart:
    """Axes with marks.

    Parameters
    ----------
    x, y : tuple of two float
        Limits.
    label : str
        What the picture shows, for those who do not see it.
    width, height : int
    """

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        label: str,
        width: int = WIDTH,
        height: int = HEIGHT,
        left: int = _LEFT,
    ) -> None:
        self.x, self.y, self.label, self.width, self.height = x, y, label, width, height
        self.box = (left, _TOP, width - _RIGHT, height - _BOTTOM)
        self.marks: list[Markup] = []

    def at(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixels of points."""
        left, top, right, bottom = self.box
        across = (np.asarray(x, dtype=np.float64) - self.x[0]) / ((self.x[1] - self.x[0]) or 1.0)
        up = (np.asarray(y, dtype=np.float64) - self.y[0]) / ((self.y[1] - self.y[0]) or 1.0)
        return left + across * (right - left), bottom - up * (bottom - top)

    def add(self, tag: str, content: Any = None, **attributes: Any) -> None:
        """An element; underscores in attribute names become hyphens, values are escaped."""
        self.marks.append(element(tag, content, **attributes))

    def line(self, x: ArrayLike, y: ArrayLike, look: str, **attributes: Any) -> None:
        """A polyline."""
        self.add("path", d=path(*self.at(x, y)), class_=f"line {look}", **attributes)

    def area(self, x: ArrayLike, y: ArrayLike, look: str) -> None:
        """A filled outline."""
        self.add("path", d=path(*self.at(x, y)) + "Z", class_=f"area {look}")

    def points(self, x: ArrayLike, y: ArrayLike, look: str, radius: float = 2.5) -> None:
        """Dots, as one path of zero-length strokes: a hundred thousand bytes fewer than circles."""
        px, py = (np.atleast_1d(values) for values in self.at(x, y))
        d = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(px, py, strict=True))
        self.add("path", d=d, class_=f"dots {look}", stroke_width=2 * radius)

    def text(self, x: float, y: float, content: Any, look: str = "", **attributes: Any) -> None:
        """Words at a place in pixels."""
        self.add("text", content, x=f"{x:.1f}", y=f"{y:.1f}", class_=look, **attributes)

    def x_axis(self, ticks: Iterable[float], title: str, texts: list[str] | None = None) -> None:
        """Ticks and title below."""
        ticks = list(ticks)
        left, _, right, bottom = self.box
        for tick, text in zip(ticks, texts or tick_texts(ticks), strict=True):
            at = float(self.at(tick, self.y[0])[0])
            self.add("path", d=f"M{at:.1f} {bottom}v5", class_="axis")
            self.text(at, bottom + 19, text, text_anchor="middle")
        self.add("path", d=f"M{left} {bottom}H{right}", class_="axis")
        self.text((left + right) / 2, self.height - 8, title, "title", text_anchor="middle")

    def y_axis(self, ticks: Iterable[float], title: str, texts: list[str] | None = None) -> None:
        """Ticks and title at the left, with pale lines across."""
        ticks = list(ticks)
        left, top, right, _ = self.box
        for tick, text in zip(ticks, texts or tick_texts(ticks), strict=True):
            at = float(self.at(self.x[0], tick)[1])
            self.add("path", d=f"M{left} {at:.1f}H{right}", class_="grid")
            self.text(left - 8, at + 4, text, text_anchor="end")
        self.text(0, top - 16, title, "title")  # lying, above: upright it would meet the ticks on a telephone

    def markup(self, **attributes: Any) -> Markup:
        """The whole picture."""
        return element(
            "svg", Markup("").join(self.marks), viewBox=f"0 0 {self.width} {self.height}", role="img",
            aria_label=self.label, **{"class": "chart", **attributes},
        )  # fmt: skip


def element(tag: str, content: Any = None, **attributes: Any) -> Markup:
    """An element with escaped attributes and content."""
    given = Markup("").join(
        Markup(' {}="{}"').format(trusted(name if name in _CAMEL else name.rstrip("_").replace("_", "-")), value)
        for name, value in attributes.items()
        if value is not None
    )
    if content is None:
        return Markup("<{}{}/>").format(trusted(tag), given)
    return Markup("<{}{}>{}</{}>").format(trusted(tag), given, escape(content), trusted(tag))


def path(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Straight lines through pixels."""
    pairs = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(np.atleast_1d(x), np.atleast_1d(y), strict=True))
    return f"M{pairs}"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two."""
    if not high > low:
        return [low]
    raw = (high - low) / max(most, 1)
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = np.ceil(low / step - 1e-9)
    count = int(np.floor((high - first * step) / step + 1e-9)) + 1
    return [float(first + j) * float(step) for j in range(count)]


def tick_texts(values: list[float]) -> list[str]:
    """Short texts for ticks, all with the same decimals."""
    if len(values) < 2:
        return [number(value) for value in values]
    step, largest = abs(values[1] - values[0]), max(abs(value) for value in values)
    if largest >= 1e5 or step < 1e-4:
        return [f"{value:.3g}".replace("-", "−") for value in values]
    decimals = next((d for d in range(6) if all(abs(round(v, d) - v) < 1e-3 * step for v in values)), 6)
    return [f"{value:,.{decimals}f}".replace("-", "−") for value in values]


def thinned(count: int, most: int) -> NDArray[np.intp]:
    """Numbers of so many evenly spread points, both ends among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.intp))


def along(x: NDArray[np.float64], y: NDArray[np.float64], most: int) -> NDArray[np.intp]:
    """Numbers of points that are evenly spread along a curve within the unit square, both ends among them."""
    length = np.append(0.0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    if x.size <= most:
        return np.arange(x.size)
    return np.unique(np.append(np.searchsorted(length, np.linspace(0, length[-1], most)), [0, x.size - 1]))
