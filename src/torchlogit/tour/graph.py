"""Chapter 3's picture: the computation graph as boxes that hold the tensors and their gradients."""

from __future__ import annotations

from markupsafe import Markup
from torch import Tensor

from torchlogit.report.svg import element
from torchlogit.tour.page import joined, tensor
from torchlogit.tour.step import STAGES, Step

FORWARD, LOSS, BACKWARD, UPDATE = range(len(STAGES))
_SENTENCES = (
    "<b>Forward.</b> Each point's score is a weighted sum of its coordinates, and the sigmoid makes it a probability.",
    "<b>Loss.</b> How surprised are we by the truth? The mean over the points is one number: the one to make smaller.",
    "<b>Backward.</b> The chain rule walks from the loss to the left. In orange, at each tensor: how much the loss "
    "changes for a small change of that number.",
    "<b>Update.</b> Each weight goes against its slope, by the learning rate {rate:g} times it. In blue the new "
    "values, with which the next step begins.",
)


def sentence(number: int, stage: int, rate: float) -> str:
    """What happens at this moment."""
    return f"Step {number}, moment {stage + 1} of {len(STAGES)}. " + _SENTENCES[stage].format(rate=rate)


def _node(title: str, note: str, parts: list[Markup], look: str = "") -> Markup:
    inner = [element("h4", title), element("small", note), element("div", joined(parts), class_="numbers")]
    return element("div", joined(inner), class_=f"node {look}")


def _numbers(values: Tensor, look: str, *, shown: bool = True) -> Markup:
    """A tensor, its place kept where it is not yet known."""
    return element("span", tensor(values), class_=look if shown else f"{look} unseen")


def drawn(X: Tensor, y: Tensor, step: Step, stage: int) -> Markup:
    """The graph at a moment of a step."""
    backward = stage >= BACKWARD

    def computed(name: str, title: str, note: str, since: int) -> Markup:
        parts = [
            _numbers(step.values[name], "value", shown=stage >= since),
            _numbers(step.gradients[name], "slope", shown=backward),
        ]
        look = "now" if stage == since else "back" if stage == BACKWARD else ""
        return element("div", _node(title, note, parts, look), class_="stage")

    def parameter(name: str, new: Tensor) -> Markup:
        parts = [
            _numbers(step.values[name], "value"),
            _numbers(step.gradients[name], "slope", shown=backward),
            _numbers(new, "made", shown=stage == UPDATE),
        ]
        look = "now" if stage == UPDATE else "back" if stage == BACKWARD else ""
        return _node(name, "now · slope · next", parts, look)

    data = _node("X and y", "the points and their truth", [_numbers(X, "value"), _numbers(y, "value")])
    inputs = element("div", joined([data, parameter("w", step.w), parameter("b", step.b)]), class_="stage inputs")
    nodes = [
        inputs,
        computed("z", "z = X w + b", "score", FORWARD),
        computed("p", "p = sigmoid(z)", "probability", FORWARD),
        computed("losses", "−log p(truth)", "loss of each", LOSS),
        computed("loss", "mean", "the loss", LOSS),
    ]
    direction = "graph backward" if stage == BACKWARD else "graph"
    return element("div", joined(nodes), class_=direction, data_testid="tour-graph-3", data_stage=STAGES[stage])
