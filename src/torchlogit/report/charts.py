"""The report's pictures of predictions: sigmoid, ROC, precision and recall, reliability, cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special
from markupsafe import Markup
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from torchlogit.report.rows import Seen
from torchlogit.report.svg import Chart, along, ticks
from torchlogit.report.text import isolated, percent

Array = NDArray[np.float64]
MOST_DOTS = 300  # drawn a picture
MOST_CURVES = 10  # one a class
_MOST_VERTICES = 300
_BINS = 40
_FARTHEST = 14.0  # logits beyond stand at the edge: both ends of the curve are flat there
_SHARES = [0.0, 0.25, 0.5, 0.75, 1.0]


def sampled(rows: int, most: int, seed: int) -> NDArray[np.intp]:
    """Numbers of rows to draw, sorted: all, or so many by chance."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def log_odds(seen: Seen, k: int) -> Array:
    """Of a class against all others, ``(n,)``."""
    if seen.eta.shape[1] == 1:
        return seen.eta[:, 0] if k else -seen.eta[:, 0]
    others = np.delete(seen.eta, k, axis=1)
    return np.asarray(seen.eta[:, k] - scipy.special.logsumexp(others, axis=1))


def sigmoid(seen: Seen, k: int, name: str, other: str, seed: int, *, small: bool = False) -> Markup:
    """The curve, a histogram of each truth along its edge (all rows), and a sample of rows on it."""
    z, truth = log_odds(seen, k), seen.codes == k
    reach = float(np.clip(np.quantile(np.abs(z), 0.98) * 1.15, 4.0, _FARTHEST))
    label = (
        f"Sigmoid curve of the probability of {isolated(name)} over the logit z, with the rows on it and histograms "
        "of both truths"
    )
    size = {"width": 300, "height": 200} if small else {"width": 480, "height": 340}
    chart = Chart((-reach, reach), (0.0, 1.0), label, **size)
    texts = ["0", "", "0.5", "", "1"] if small else ["0", "0.25", "0.5", "0.75", "1"]
    chart.y_axis(_SHARES, "" if small else f"probability of {isolated(name, 24)}", texts)
    inside = np.clip(z, -reach, reach)
    edges = np.linspace(-reach, reach, _BINS + 1)
    counts = [np.histogram(inside[truth == side], edges, weights=seen.mass[truth == side])[0] for side in (False, True)]
    for side, heights in enumerate(counts):
        tallest = max(float(heights.max(initial=0.0)), 1e-300)
        tops = 0.3 * heights / tallest
        outline_x = np.repeat(edges, 2)
        outline_y = np.concatenate([[0.0], np.repeat(tops, 2), [0.0]])
        chart.area(outline_x, 1 - outline_y if side else outline_y, f"c{side} pale")
    curve = np.linspace(-reach, reach, 121)
    chart.line(curve, scipy.special.expit(curve), "ink thick")
    chart.line([0, 0], [0, 1], "dashed")
    chosen = sampled(seen.rows, MOST_DOTS // (3 if small else 1), seed)
    for side in (False, True):
        here = chosen[truth[chosen] == side]
        if here.size:
            chart.points(inside[here], scipy.special.expit(inside[here]), f"c{int(side)} faint", 2 if small else 3)
    chart.x_axis(ticks(-reach, reach, 4 if small else 8), "" if small else "logit z")
    left, top, _, bottom = chart.box
    if not small:
        chart.text(left + 8, top + 16, f"truly {isolated(name, 24)}", "c1 name")
        chart.text(chart.box[2] - 8, bottom - 8, f"truly {isolated(other, 24)}", "c0 name", text_anchor="end")
    return chart.markup()


def roc(seen: Seen, names: list[str], classes: list[int]) -> Markup:
    """The ROC curve, or one a class."""
    chart = Chart((0, 1), (0, 1), "ROC curve: share of the class found, over the share of false alarms", height=360)
    chart.y_axis(_SHARES, "found (true positive rate)")
    chart.line([0, 1], [0, 1], "dashed")
    for k in classes:
        truth = seen.codes == k
        if not truth.any() or truth.all():
            continue
        false, true, _ = roc_curve(truth, seen.probability[:, k], sample_weight=seen.weight)
        kept = along(false, true, _MOST_VERTICES)
        chart.line(false[kept], true[kept], f"{look(k)} curve", data_class=isolated(names[k]))
    chart.x_axis(_SHARES, "false alarms (false positive rate)")
    return chart.markup()


def precision_recall(seen: Seen, names: list[str], classes: list[int]) -> Markup:
    """Precision over recall, or one curve a class, with the share of the class as the base line."""
    chart = Chart((0, 1), (0, 1), "Precision over recall", height=360)
    chart.y_axis(_SHARES, "right among alarms (precision)")
    for k in classes:
        truth = seen.codes == k
        if not truth.any() or truth.all():
            continue
        precision, recall, _ = precision_recall_curve(truth, seen.probability[:, k], sample_weight=seen.weight)
        kept = along(recall, precision, _MOST_VERTICES)
        if len(classes) == 1:
            share = float(seen.mass[truth].sum() / seen.mass.sum())
            chart.line([0, 1], [share, share], "dashed")
        chart.line(recall[kept], precision[kept], f"{look(k)} curve", data_class=isolated(names[k]))
    chart.x_axis(_SHARES, "found (recall)")
    return chart.markup()


def look(k: int) -> str:
    """The colour of a class."""
    return f"c{k % 8}" + (" second" if k >= 8 else "")


def reliability_bins(truth: NDArray[np.bool_], probability: Array, mass: Array, bins: int = 10) -> list[dict[str, Any]]:
    """Rows in groups of equal size by their probability: mean prediction, share that came true, and its interval."""
    edges = np.quantile(probability, np.linspace(0, 1, bins + 1))
    place = np.searchsorted(np.unique(edges[1:-1]), probability, side="right")
    groups = []
    for b in range(place.max() + 1):
        here = (place == b) & (mass > 0)
        if not here.any():
            continue
        total = float(mass[here].sum())
        rows = total**2 / float(np.square(mass[here]).sum())
        share = float(mass[here & truth].sum()) / total
        middle = (share + 1.92 / rows) / (1 + 3.84 / rows)
        half = 1.96 / (1 + 3.84 / rows) * float(np.sqrt(share * (1 - share) / rows + 0.96 / rows**2))
        groups.append({
            "predicted": float(np.average(probability[here], weights=mass[here])), "came_true": share,
            "low": max(0.0, middle - half), "high": min(1.0, middle + half), "rows": int(here.sum()),
            "from": float(probability[here].min()), "to": float(probability[here].max()),
        })  # fmt: skip
    return groups


def reliability(groups: list[dict[str, Any]], what: str) -> Markup:
    """The groups against the diagonal, with intervals."""
    described = "; ".join(f"{percent(g['predicted'], 0)} predicted, {percent(g['came_true'], 0)} true" for g in groups)
    chart = Chart((0, 1), (0, 1), f"Reliability of the probability of {what}: {described}", height=360)
    chart.y_axis(_SHARES, "share that came true")
    chart.line([0, 1], [0, 1], "dashed")
    for group in groups:
        chart.line([group["predicted"]] * 2, [group["low"], group["high"]], "c1 whisker")
    chart.line([g["predicted"] for g in groups], [g["came_true"] for g in groups], "c1 thin")
    chart.points([g["predicted"] for g in groups], [g["came_true"] for g in groups], "c1", 4)
    chart.x_axis(_SHARES, "predicted probability")
    return chart.markup()


def probability_histogram(probability: Array, mass: Array) -> Markup:
    """How many rows have which probability."""
    heights, edges = np.histogram(probability, np.linspace(0, 1, 21), weights=mass)
    chart = Chart((0, 1), (0, max(float(heights.max()), 1e-300)), "Histogram of predicted probabilities", height=165)
    for height, low in zip(heights, edges[:-1], strict=True):
        if height:
            chart.area([low + 0.003, low + 0.003, low + 0.047, low + 0.047], [0, height, height, 0], "c1 pale")
    chart.x_axis(_SHARES, "predicted probability")
    top = float(heights.max())
    chart.y_axis([0, top], "rows", ["0", f"{top:,.0f}"])
    return chart.markup()
