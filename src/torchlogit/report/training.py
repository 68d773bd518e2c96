"""The fit, step by step: what the slider shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from torchlogit.report.charts import look, sampled
from torchlogit.report.rows import Seen
from torchlogit.report.svg import Chart, element, thinned, tick_texts, ticks
from torchlogit.report.text import isolated, shown

Array = NDArray[np.float64]
MOST_STEPS = 200
_MOST_BARS = 12
_MOST_POINTS = 500
_FLOOR = 1e-16  # a certificate below this is drawn here


@dataclass(frozen=True)
class Training:
    """What the section shows.

    Parameters
    ----------
    kind : str
        'boundary' for two columns, 'coefficients', or 'numbers' where the trace keeps no coefficients.
    data : dict
        For the script: steps, and the bars or boundaries of each.
    course : Markup, optional
        Certificate over steps.
    picture : Markup, optional
        The plane with its points.
    bars : list of dict
        Names of the coefficients shown.
    steps : int
        Steps of the fit; fewer may be shown.
    """

    kind: str
    data: dict[str, Any]
    course: Markup | None
    picture: Markup | None
    bars: list[dict[str, str]]
    steps: int


def training(seen: Seen, names: list[str], classes: list[str], seed: int) -> Training:
    """From the trace."""
    classifier = seen.source.classifier
    records = list(classifier.trace_)
    kept = [records[j] for j in thinned(len(records), MOST_STEPS)] if records else []
    thetas = [record.get("theta") for record in kept]
    known = bool(kept) and all(theta is not None for theta in thetas)
    if not known:  # the last state at least
        solution = classifier._current_solution()
        whole = np.concatenate([solution.coef, solution.intercept[:, None]], axis=1)
        # the trace keeps no large ones, but then there is one state to show
        thetas = [whole] if not kept else []
    states = [np.asarray(theta, dtype=np.float64) for theta in thetas]
    steps = [
        {
            "step": int(record.get("step", j)),
            **{field: _plain(record.get(field)) for field in ("objective", "kkt", "excess")},
        }
        for j, record in enumerate(kept)
    ] or [{"step": 0, "objective": None, "kkt": None, "excess": None}]
    data: dict[str, Any] = {"steps": steps}
    picture: Markup | None = None
    bars: list[dict[str, str]] = []
    kind = "numbers"
    if states and len(names) == 2 and seen.source.encoder is None and _in_reach(seen):
        kind = "boundary"
        picture, data["boundary"] = _plane(seen, states, names, classes, seed)
    elif states:
        kind = "coefficients"
        bars, data["bars"] = _bars(seen, states, names, classes)
    return Training(kind, data, _course(steps, classifier.tol), picture, bars, len(records))


def _plain(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _in_reach(seen: Seen) -> bool:
    return bool((seen.sums.deviation > 0).any())


def _plane(
    seen: Seen, states: list[Array], names: list[str], classes: list[str], seed: int
) -> tuple[Markup, dict[str, Any]]:
    """Points of the two columns; the script draws probabilities under them and the boundary over them."""
    index = sampled(seen.rows, _MOST_POINTS, seed)
    _, cells = seen.source.cells(index)
    points = np.asarray(cells, dtype=np.float64)
    low, high = points.min(0), points.max(0)
    around = np.where(high > low, 0.06 * (high - low), 1.0)
    low, high = low - around, high + around
    label = f"The rows in the plane of {isolated(names[0])} and {isolated(names[1])}, with the decision boundary"
    chart = Chart((low[0], high[0]), (low[1], high[1]), label, height=410, left=60)
    across, up = ticks(low[0], high[0], 5), ticks(low[1], high[1], 5)
    left, top, right, bottom = chart.box
    data: dict[str, Any] = {"box": [left, top, right, bottom], "classes": len(classes)}
    if len(classes) == 2:
        data["states"] = [_seen_on(chart, state[0]) for state in states]
        chart.marks.append(_gradient(data["states"][-1]))
        chart.add("rect", x=left, y=top, width=right - left, height=bottom - top, fill="url(#training-gradient)")
    else:
        data |= {"low": low.tolist(), "high": high.tolist(), "theta": [state.tolist() for state in states]}
        chart.add("g", "", id="training-surface")
    chart.y_axis(up, isolated(names[1], 30), tick_texts(up))
    for k in range(len(classes)):
        here = seen.codes[index] == k
        if here.any():
            chart.points(points[here, 0], points[here, 1], f"{look(k)} outlined", 3.6)
            chart.points(points[here, 0], points[here, 1], look(k), 2.6)
    if len(classes) == 2:
        chart.add("path", d=data["states"][-1]["line"], class_="line ink thick", id="training-boundary")
    chart.x_axis(across, isolated(names[0], 40), tick_texts(across))
    return chart.markup(id="training-plane"), data


def _seen_on(chart: Chart, theta: Array) -> dict[str, Any]:
    """A binary model in pixels: its boundary, and where the gradient of probabilities runs (z from -6 to 6)."""
    left, top, right, bottom = chart.box
    a = theta[0] * (chart.x[1] - chart.x[0]) / (right - left)
    b = -theta[1] * (chart.y[1] - chart.y[0]) / (bottom - top)
    c = theta[2] + theta[0] * chart.x[0] + theta[1] * chart.y[0] - a * left - b * bottom
    square = a * a + b * b
    if square == 0 or not math.isfinite(square):
        return {"line": "", "gradient": [0, 0, 1, 0], "probability": 1 / (1 + math.exp(-max(min(c, 30), -30)))}
    middle, step = (-c * a / square, -c * b / square), (6 * a / square, 6 * b / square)
    ends = []
    for x in (left, right):
        if b and top <= -(a * x + c) / b <= bottom:
            ends.append((float(x), -(a * x + c) / b))
    for y in (top, bottom):
        if a and left <= -(b * y + c) / a <= right:
            ends.append((-(b * y + c) / a, float(y)))
    line = ""
    if len(ends) > 1:
        other = max(ends[1:], key=lambda end: abs(end[0] - ends[0][0]) + abs(end[1] - ends[0][1]))
        line = f"M{ends[0][0]:.1f},{ends[0][1]:.1f} {other[0]:.1f},{other[1]:.1f}"
    run = [middle[0] - step[0], middle[1] - step[1], middle[0] + step[0], middle[1] + step[1]]
    return {"line": line, "gradient": [round(value, 2) for value in run]}


def _gradient(state: dict[str, Any]) -> Markup:
    """From one class's colour through the paper's to the other's."""
    stops = []
    for z in range(-6, 7):
        p = 1 / (1 + math.exp(-z))
        stops.append(element("stop", offset=f"{(z + 6) / 12:.4f}", class_=f"c{int(z > 0)}",
                             stop_opacity=f"{abs(p - 0.5) * 0.8:.3f}"))  # fmt: skip
    x1, y1, x2, y2 = state["gradient"]
    place = {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "gradientUnits": "userSpaceOnUse"}
    return element("defs", element("linearGradient", Markup("").join(stops), id="training-gradient", **place))


def _bars(
    seen: Seen, states: list[Array], names: list[str], classes: list[str]
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The largest coefficients a standard deviation, at every step."""
    scale = np.append(seen.sums.deviation, 1.0)
    scaled = np.stack([state * scale for state in states])[:, :, :-1]
    steps, outputs, columns = scaled.shape
    size = np.abs(scaled).max(0).ravel()
    chosen = np.argsort(-size, kind="stable")[:_MOST_BARS]
    bars = []
    for place in chosen.tolist():
        k, j = divmod(place, columns)
        bars.append({"name": shown(names[j]), "class": shown(classes[k]) if outputs > 1 else ""})
    values = scaled.reshape(steps, -1)[:, chosen]
    return bars, {"values": np.round(values, 6).tolist(), "reach": float(np.abs(values).max()) or 1.0}


def _course(steps: list[dict[str, Any]], tol: float) -> Markup | None:
    """Both halves of the certificate over the steps, on a logarithmic scale."""
    kkt = [(s["step"], s["kkt"]) for s in steps if s["kkt"] is not None]
    excess = [(s["step"], s["excess"]) for s in steps if s["excess"] is not None]
    if len(kkt) < 2:
        return None
    logs = [math.log10(max(value, _FLOOR)) for _, value in kkt + excess] + [math.log10(max(tol, _FLOOR))]
    low, high = math.floor(min(logs)), math.ceil(max(logs) + 1e-9)
    last = kkt[-1][0]
    chart = Chart((0, last), (low, max(high, low + 1)), "Certificate after each step, logarithmic", height=240)
    powers = list(range(low, max(high, low + 1) + 1, max(1, (high - low) // 5)))
    chart.y_axis(powers, "certificate", [_power(value) for value in powers])
    chart.line([0, last], [math.log10(max(tol, _FLOOR))] * 2, "dashed")
    for values, colour in ((excess, "c4"), (kkt, "c2")):
        if values:
            xs, ys = [s for s, _ in values], [math.log10(max(v, _FLOOR)) for _, v in values]
            chart.line(xs, ys, f"{colour} curve")
            chart.points(xs, ys, colour, 3 if len(values) < 40 else 1)
    marker = float(chart.at(last, low)[0])
    chart.marks.append(element("path", d=f"M{marker:.1f} {chart.box[1]}V{chart.box[3]}", class_="line ink",
                               id="training-marker", data_left=chart.box[0], data_right=chart.box[2]))  # fmt: skip
    whole = [tick for tick in ticks(0, last, 6) if tick == int(tick)]
    chart.x_axis(whole, "step")
    return chart.markup()


def _power(exponent: int) -> str:
    digits = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return "1" if exponent == 0 else f"10{digits}"
