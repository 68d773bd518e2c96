"""The tour's pictures, drawn with the report's charts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from torch import Tensor

from torchlogit.report.svg import Chart, ticks
from torchlogit.tour.doors import Answer
from torchlogit.tour.layers import Trained, probabilities
from torchlogit.tour.optimizers import Landscape, level_curve, loss_at
from torchlogit.tour.points import Own
from torchlogit.tour.sliders import Forward, loss_along_w
from torchlogit.tour.step import Step

COLOURS = {"SGD": "c0", "momentum": "c3", "Adam": "c2", "solver": "c1"}
_PLANE = ((-4.0, 4.0), (-3.6, 3.6))
_SHADES = 12


def _dots(chart: Chart, X: Any, y: Any, radius: float = 4.5, wrong: Any = None, own: int = 0) -> None:
    """Points in their colours; the wrong ones in a ring, the reader's own larger."""
    X, y = np.asarray(X), np.asarray(y)
    size = np.where(np.arange(len(y)) >= len(y) - own, radius + 2.5, radius)
    for (x1, x2), label, r in zip(X, y, size, strict=True):
        px, py = chart.at(x1, x2)
        chart.add("circle", cx=f"{px:.1f}", cy=f"{py:.1f}", r=r, class_=f"area edge c{int(label)}")
    for x1, x2 in X if wrong is None else X[np.asarray(wrong)]:
        if wrong is not None:
            px, py = chart.at(x1, x2)
            chart.add("circle", cx=f"{px:.1f}", cy=f"{py:.1f}", r=radius + 4, class_="ring")


def _ghost(chart: Chart, point: Own) -> None:
    """The point that is about to be added."""
    *_, label = point
    px, py = chart.at(*point[:2])
    given = ",".join(f"{value:g}" for value in point)
    chart.add("circle", cx=f"{px:.1f}", cy=f"{py:.1f}", r=8, class_=f"ghost c{int(label)}", data_point=given)


def _side(chart: Chart, w: Sequence[float], b: float, sign: int) -> list[tuple[float, float]]:
    """The part of the plane on one side of a line: its corners."""
    corners = [(chart.x[i], chart.y[j]) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
    kept = []
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        za, zb = (sign * (w[0] * x + w[1] * y + b) for x, y in ((ax, ay), (bx, by)))
        if za >= 0:
            kept.append((ax, ay))
        if za * zb < 0:
            t = za / (za - zb)
            kept.append((ax + t * (bx - ax), ay + t * (by - ay)))
    return kept


def _line(chart: Chart, w: Tensor, b: Tensor, look: str) -> None:
    """Where z is 0."""
    weights, shift = w.tolist(), float(b)
    edge = [(x, y) for x, y in _side(chart, weights, shift, 1) if abs(weights[0] * x + weights[1] * y + shift) < 1e-9]
    if len(edge) == 2:
        x, y = zip(*edge, strict=True)
        chart.line(x, y, look)


def plane(X: Tensor, y: Tensor, judged: Any, own: int, ghost: Own, best: tuple[Tensor, Tensor] | None) -> Markup:
    """Chapter 1: the points, the reader's line, and the point that is about to be added."""
    chart = Chart(*_PLANE, f"Two groups of points and a line, {int(judged.wrong.sum())} on the wrong side", 520, 430)
    for sign, colour in ((1, "c1"), (-1, "c0")):
        corners = _side(chart, judged.w.tolist(), float(judged.b), sign)
        if corners:
            across, up = zip(*corners, strict=True)
            chart.area(across, up, f"tint {colour}")
    chart.y_axis(ticks(*chart.y), "second coordinate")
    _dots(chart, X, y, wrong=judged.wrong, own=own)
    _line(chart, judged.w, judged.b, "ink thick")
    if best is not None:
        _line(chart, best[0], best[1].reshape(()), "c2 curve second")
    _ghost(chart, ghost)
    chart.x_axis(ticks(*chart.x), "first coordinate")
    return chart.markup()


def sigmoid(x: Tensor, y: Tensor, line: tuple[float, float], seen: Forward, own: int, ghost: Own) -> Markup:
    """Chapter 2: the curve, each point at its truth, and how far the curve is from it."""
    chart = Chart((0, 6.5), (0, 1), "The probability of passing over the hours practised, with the points", height=340)
    chart.y_axis([0, 0.25, 0.5, 0.75, 1], "probability p")
    across = torch.linspace(0, 6.5, 131, dtype=x.dtype)
    for at, truth, p in zip(x.tolist(), y.tolist(), seen.p.tolist(), strict=True):
        chart.line([at, at], [truth, p], f"c{int(truth)} whisker")
    chart.line(across, torch.sigmoid(line[0] * across + line[1]), "ink thick")
    _dots(chart, torch.stack([x, y], dim=1), y, own=own)
    _ghost(chart, (ghost[0], ghost[1], ghost[1]))
    chart.x_axis(range(7), "hours x")
    return chart.markup()


def valley(x: Tensor, y: Tensor, w: float, b: float, seen: Forward) -> Markup:
    """Chapter 2: the loss over w, where the reader stands, and the slope there."""
    reach = (-1.0, 5.0)
    weights = torch.linspace(*reach, 121, dtype=x.dtype)
    losses = loss_along_w(x, y, weights, b)
    top = max(1.5, 1.25 * seen.loss)
    chart = Chart(reach, (0, top), "The loss over w, with the chosen w and the slope there", height=340)
    chart.y_axis(ticks(0, top, 5), "loss")
    _inside(chart, weights.numpy(), losses.numpy(), "c4 curve")
    span = torch.linspace(w - 0.9, w + 0.9, 61, dtype=x.dtype)
    _inside(chart, span.numpy(), (seen.loss + seen.slope_w * (span - w)).numpy(), "ink dashed")
    px, py = chart.at(w, seen.loss)
    chart.add("circle", cx=f"{px:.1f}", cy=f"{py:.1f}", r=6, class_="area edge c7")
    chart.x_axis(range(-1, 6), "weight w")
    return chart.markup()


def _inside(chart: Chart, x: NDArray[Any], y: NDArray[Any], look: str) -> None:
    """A curve, broken where it leaves the picture."""
    inside = (x >= chart.x[0]) & (x <= chart.x[1]) & (y >= chart.y[0]) & (y <= chart.y[1])
    runs = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(int)))
    for start, end in zip(runs[::2], runs[1::2], strict=True):
        # One point more at each end, at the edge where the curve crosses it.
        a, z = max(start - 1, 0), min(end + 1, len(x))
        chart.line(np.clip(x[a:z], *chart.x), np.clip(y[a:z], *chart.y), look)


def history(steps: list[Step], now: int) -> Markup:
    """Chapter 3: the loss of each step, and which one is open."""
    losses = [float(step.values["loss"]) for step in steps]
    top = max(0.8, max(losses) * 1.1)
    chart = Chart((0, len(losses) - 1), (0, top), f"Loss of each step; step {now} is open", 520, 210)
    chart.y_axis(ticks(0, top, 4), "loss")
    chart.line(range(len(losses)), losses, "c1 curve")
    chart.points(range(len(losses)), losses, "c1", 3)
    px, py = chart.at(now, losses[now])
    chart.add("circle", cx=f"{px:.1f}", cy=f"{py:.1f}", r=8, class_="ring")
    chart.x_axis(range(0, len(losses), 2), "step")
    return chart.markup()


def approach(answers: list[Answer], optimum: float, now: int) -> Markup:
    """Chapter 4: how far the training loop is above the optimum, on a logarithmic scale."""
    logs = [math.log10(max(answer.objective - optimum, 1e-16)) for answer in answers]
    chart = Chart((0, len(logs) - 1), (-16, 1), "Objective above the optimum, logarithmic", 520, 290)
    powers = [-16, -12, -8, -4, 0]
    chart.y_axis(powers, "objective above the optimum", ["10⁻¹⁶", "10⁻¹²", "10⁻⁸", "10⁻⁴", "1"])
    chart.line(range(len(logs)), np.clip(logs, -16, 1), "c0 curve")
    px, py = chart.at(now, min(logs[now], 1))
    chart.add("circle", cx=f"{px:.1f}", cy=f"{py:.1f}", r=7, class_="area edge c0")
    chart.x_axis(ticks(0, len(logs) - 1, 5), "step")
    return chart.markup()


def contours(seen: Landscape, y: Tensor, steps: int, what: str) -> Markup:
    """Chapter 5: curves of equal loss, and the paths."""
    best = seen.best
    far = torch.maximum(best.abs(), torch.tensor([0.8, 0.8], dtype=best.dtype))
    low, high = torch.minimum(best, best * 0) - 0.45 * far, torch.maximum(best, best * 0) + 0.45 * far
    x_range, y_range = zip(low.tolist(), high.tolist(), strict=True)
    chart = Chart(x_range, y_range, f"Curves of equal loss over w and b, and four paths: {what}", 480, 400)
    chart.y_axis(ticks(*chart.y, 6), "intercept b")
    floor = float(loss_at(best, seen.x, y))
    for above in (0.003, 0.02, 0.07, 0.18, 0.4, 0.8, 1.6, 3.2):
        curve = level_curve(best, floor + above, seen.x, y, (high - low) / 2)
        _inside(chart, curve[:, 0].numpy(), curve[:, 1].numpy(), "level")
    for name, path in seen.paths.items():
        walked = path[: steps + 1].numpy()
        _inside(chart, walked[:, 0], walked[:, 1], f"{COLOURS[name]}")
        inside = walked[(walked >= low.numpy()).all(axis=1) & (walked <= high.numpy()).all(axis=1)]
        chart.points(inside[:, 0], inside[:, 1], COLOURS[name], 2 if name != "solver" else 4.5)
    px, py = chart.at(*best.tolist())
    chart.add("path", d=f"M{px - 7:.1f} {py:.1f}h14M{px:.1f} {py - 7:.1f}v14", class_="line ink thick")
    chart.x_axis(ticks(*chart.x, 6), "weight w")
    return chart.markup()


def surface(X: Tensor, y: Tensor, seen: Trained, what: str) -> Markup:
    """Chapter 6: the probability at every place, and the boundary where it is a half."""
    chart = Chart((-1.8, 2.8), (-1.4, 1.9), f"Probability over the plane: {what}", 480, 380)
    columns, rows = 92, 66
    across, up = (
        torch.linspace(*limits, 2 * count + 1)[1::2] for limits, count in ((chart.x, columns), (chart.y, rows))
    )
    p = probabilities(seen.model, across, up).numpy()
    left, top, right, bottom = chart.box
    wide, tall = (right - left) / columns, (bottom - top) / rows
    shade = np.minimum((p * _SHADES).astype(int), _SHADES - 1)
    for i, row in enumerate(shade):
        cuts = [0, *(np.flatnonzero(np.diff(row)) + 1), columns]
        for a, z in pairwise(cuts):
            strength = (row[a] + 0.5) / _SHADES - 0.5
            chart.add(
                "rect", x=f"{left + a * wide:.2f}", y=f"{bottom - (i + 1) * tall:.2f}", width=f"{(z - a) * wide:.2f}",
                height=f"{tall:.2f}", class_=f"cell c{int(strength > 0)}", opacity=f"{0.06 + abs(strength):.2f}",
            )  # fmt: skip
    chart.y_axis(ticks(*chart.y, 4), "")
    _dots(chart, X, y, 3.2, wrong=seen.wrong)
    chart.x_axis(ticks(*chart.x, 5), "")
    return chart.markup()
