"""Compiled losses: predictors to losses, slopes and curvatures by the formulas of ``losses.py``, row after row."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from torchlogit.kernels.numba_math import compiled, exponential, largest, log_one_plus, sum_range


class Lanes(NamedTuple):
    """Targets ``(n, a)``, weights ``(n, b)`` (none: b is 0), offsets ``(n, c, K)``, and which of them a point has."""

    target: Any
    weight: Any
    offset: Any
    target_of: Any
    weight_of: Any
    offset_of: Any
    outputs: int


class Totals(NamedTuple):
    """Per point: weight, loss and its compensation, smallest margin."""

    weight: Any
    loss: Any
    lost: Any
    margin: Any


@compiled()
def add_loss(totals: Totals, m: int, value: float) -> None:
    """Neumaier's sum: millions of losses, and a line search that looks at the fourteenth digit."""
    before = totals.loss[m]
    after = before + value
    if abs(before) >= abs(value):
        totals.lost[m] += (before - after) + value
    else:
        totals.lost[m] += (value - after) + before
    totals.loss[m] = after


@compiled()
def add_offsets(lanes: Lanes, start: int, n: int, size: int, eta: Any) -> None:
    """To the predictors of n rows, where there are any."""
    offset, of, outputs = lanes.offset, lanes.offset_of, lanes.outputs
    if offset.shape[0] == 0:
        return
    for k in range(n):
        for m in range(of.shape[0]):
            for o in range(outputs):
                eta[k * size + m * outputs + o] += offset[start + k, of[m], o]


@compiled()
def take_signs(lanes: Lanes, start: int, n: int, step: int, sign: Any) -> None:
    """``sign[: n * step]``: one for class 1, minus one for class 0."""
    target = lanes.target
    for m in range(lanes.target_of.shape[0]):
        of = lanes.target_of[m]
        for k in range(n):
            sign[k * step + m] = 2.0 * target[start + k, of] - 1.0


@compiled()
def take_weights(lanes: Lanes, start: int, n: int, step: int, weight: Any) -> bool:
    """``weight[: n * step]``, where the caller has set ones in case there are none; whether any of them is zero."""
    given, zeros = lanes.weight, 0
    if given.shape[1] == 0:
        return False
    for m in range(lanes.weight_of.shape[0]):
        of = lanes.weight_of[m]
        for k in range(n):
            w = given[start + k, of]
            weight[k * step + m] = w
            zeros += w <= 0
    return zeros > 0


@compiled()
def binomial(eta: Any, sign: Any, weight: Any, n: int, loss: Any) -> None:
    """Predictors to slopes, signs to margins, and losses: see `losses.Binomial`."""
    for i in range(n):
        margin = eta[i] * sign[i]
        tail = exponential(-abs(margin))
        wrong = (tail if margin > 0 else 1.0) / (1.0 + tail)
        value = max(-margin, 0.0) + log_one_plus(tail)
        slope = -sign[i] * wrong
        loss[i] = value * weight[i] if weight[i] > 0 else 0.0
        eta[i] = slope * weight[i] if weight[i] > 0 else 0.0
        sign[i] = margin


@compiled()
def multinomial(
    eta: Any, n: int, size: int, lanes: Lanes, start: int, weight: Any, loss: Any, margin: Any, top: Any, rest: Any
) -> None:
    """The same for many classes: see `losses.Multinomial`. ``top`` and ``rest`` are room."""
    target, of, outputs = lanes.target, lanes.target_of, lanes.outputs
    points = of.shape[0]
    for k in range(n):
        for m in range(points):
            a, at = k * size + m * outputs, k * points + m
            own = a + target[start + k, of[m]]
            mine = eta[own]
            eta[own] = -np.inf
            rival = largest(eta, a, a + outputs)
            highest = max(rival, mine)
            margin[at] = mine - rival
            top[at] = highest - mine
            for j in range(a, a + outputs):
                eta[j] -= highest
    for j in range(n * size):
        eta[j] = exponential(eta[j])
    for k in range(n):
        for m in range(points):
            a = k * size + m * outputs
            rest[k * points + m] = sum_range(eta, a, a + outputs)
    for at in range(n * points):
        mine = exponential(-top[at])
        # The winner's exponential is one: what is left of it, and the own class, is what the logarithm sees.
        more = (rest[at] - 1.0) + mine if top[at] > 0 else rest[at]
        value = top[at] + log_one_plus(more)
        loss[at] = value * weight[at] if weight[at] > 0 else 0.0
        top[at] = (weight[at] if weight[at] > 0 else 0.0) / (rest[at] + mine)
    for k in range(n):
        for m in range(points):
            a, at = k * size + m * outputs, k * points + m
            share = top[at]
            for j in range(a, a + outputs):
                eta[j] = eta[j] * share if weight[at] > 0 else 0.0
            eta[a + target[start + k, of[m]]] = -rest[at] * share if weight[at] > 0 else 0.0


@compiled()
def bends(eta: Any, n: int) -> None:
    """Predictors to second derivatives, for two classes."""
    for i in range(n):
        tail = exponential(-abs(eta[i]))
        eta[i] = tail / ((1.0 + tail) * (1.0 + tail))


@compiled()
def weigh(eta: Any, weight: Any, n: int) -> None:
    """Nothing of a row of weight zero, whatever it holds."""
    for i in range(n):
        eta[i] = eta[i] * weight[i] if weight[i] > 0 else 0.0


@compiled()
def probabilities(eta: Any, a: int, outputs: int) -> tuple[int, float, float]:
    """In place: all but the most probable class. Which that is, its probability, and the others' sum."""
    best = a
    for j in range(a, a + outputs):
        best = j if eta[j] > eta[best] else best
    highest = eta[best]
    for j in range(a, a + outputs):
        eta[j] = exponential(eta[j] - highest)
    eta[best] = 0.0
    rest = sum_range(eta, a, a + outputs)
    share = 1.0 / (1.0 + rest)
    for j in range(a, a + outputs):
        eta[j] *= share
    return best, share, rest * share
