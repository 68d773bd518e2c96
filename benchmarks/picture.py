"""Accuracy against time, one panel a workload."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from judge import ACCURACY
from peers import PEERS
from suite import Answer, Outcome

PICTURE = Path(__file__).with_name("results.png")
LEAST = 1e-16  # an excess of zero has no place on a logarithmic axis
MARKERS = "os^vD<>pP*Xhd8H"


def draw(outcomes: list[Outcome], path: Path = PICTURE) -> None:
    """Every setting that was tried is a point; the settings of a package are joined. Filled: timed in turns."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = [outcome for outcome in outcomes if not outcome.predict]
    if not panels:
        return
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    figure, axes = plt.subplots(down, across, figsize=(5.2 * across, 3.8 * down), squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    shown: dict[str, Any] = {}
    for axis, outcome in zip(axes.flat, panels, strict=False):
        panel(axis, outcome, shown)
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=min(6, 2 * across), fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def panel(axis: Any, outcome: Outcome, shown: dict[str, Any]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for number, peer in enumerate(PEERS):
        entry = next((entry for entry in outcome.entries if entry.peer == peer.name), None)
        if entry is None or not entry.answers:
            continue
        points = sorted((seconds(one), excess(one, outcome.best), bool(one.seconds)) for one in entry.answers)
        ours = peer.name == "torchlogit"
        style = {"color": "black" if ours else f"C{number % 10}", "marker": MARKERS[number % len(MARKERS)]}
        (line,) = axis.plot(
            *zip(*(point[:2] for point in points), strict=True),
            **style,
            markerfacecolor="none",
            linewidth=2 if ours else 1,
            zorder=3 if ours else 2,
        )
        timed = [point[:2] for point in points if point[2]]
        if timed:
            axis.plot(*zip(*timed, strict=True), **style, linestyle="none", zorder=4)
        shown.setdefault(peer.name, line)
    axis.axhline(ACCURACY, color="grey", linewidth=0.8, linestyle=":")
    axis.set(xscale="log", yscale="log", xlabel="seconds", ylabel="excess of the objective")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_title(f"{outcome.name}: {outcome.title}", fontsize=8)


def seconds(answer: Answer) -> float:
    return answer.median if answer.seconds else answer.first


def excess(answer: Answer, best: float) -> float:
    assert answer.certificate is not None
    found = answer.certificate.excess(best)
    return max(found, LEAST) if math.isfinite(found) else math.nan
