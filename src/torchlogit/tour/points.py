"""Chapter 1: two groups of points, and a line between them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Own = tuple[float, ...]  # a point of the reader's: its coordinates, then its label
STEEPNESS = 2.0


def two_groups() -> tuple[Tensor, Tensor]:
    """Thirty points around each of two places; a few stand on the wrong side of any line."""
    noise = torch.randn(60, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    y = torch.arange(60).remainder(2).double()
    centres = torch.tensor([[-1.1, -0.6], [1.1, 0.6]], dtype=torch.float64)
    return centres[y.long()] + 0.9 * noise, y


def placed(x1: float, x2: float, group: str) -> Own:
    """The reader's point, as the controls stand."""
    return x1, x2, float(group == "blue")


def with_own(X: Tensor, y: Tensor, own: list[Own]) -> tuple[Tensor, Tensor]:
    """The points, and the reader's after them."""
    if not own:
        return X, y
    mine = torch.tensor(own, dtype=X.dtype)
    return torch.cat([X, mine[:, :-1]]), torch.cat([y, mine[:, -1]])


@dataclass(frozen=True)
class Judged:
    """What a line makes of the points."""

    w: Tensor
    b: Tensor
    wrong: Tensor  # which points stand on the other group's side
    loss: float


def judge(X: Tensor, y: Tensor, angle: float, shift: float) -> Judged:
    """Draw a line at an angle, and ask each point on which side it stands."""
    direction = torch.tensor([math.cos(angle), math.sin(angle)], dtype=X.dtype)
    w = STEEPNESS * direction
    b = torch.tensor(-STEEPNESS * shift, dtype=X.dtype)
    z = X @ w + b  # above 0 on one side, below on the other
    wrong = (z > 0) != (y == 1)
    loss = nn.functional.binary_cross_entropy_with_logits(z, y)
    return Judged(w, b, wrong, loss.item())


def best_line(X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The line of the smallest loss, as `LogisticRegression` finds it."""
    from torchlogit import LogisticRegression

    clf = LogisticRegression().fit(X, y)
    return torch.as_tensor(clf.coef_[0]), torch.as_tensor(clf.intercept_[0])
