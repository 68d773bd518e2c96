"""Chapter 2: z, the sigmoid and the loss of points on a line."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


def hours() -> tuple[Tensor, Tensor]:
    """Hours that twelve people practised, and whether they passed."""
    x = [0.5, 1.0, 1.5, 1.8, 2.3, 2.6, 3.0, 3.3, 3.9, 4.4, 4.8, 5.5]
    passed = [0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1]
    return torch.tensor(x, dtype=torch.float64), torch.tensor(passed, dtype=torch.float64)


def placed(x: float, outcome: str) -> tuple[float, float]:
    """The reader's person, as the controls stand."""
    return x, float(outcome == "passed")


@dataclass(frozen=True)
class Forward:
    """Everything between a point and its loss."""

    z: Tensor
    p: Tensor
    losses: Tensor
    loss: float
    slope_w: float
    slope_b: float


def forward(x: Tensor, y: Tensor, w: float, b: float) -> Forward:
    """From x to the loss, and the slope of the loss in w and b."""
    weight = torch.tensor(w, dtype=x.dtype, requires_grad=True)
    bias = torch.tensor(b, dtype=x.dtype, requires_grad=True)
    z = weight * x + bias
    p = torch.sigmoid(z)
    losses = nn.functional.binary_cross_entropy_with_logits(z, y, reduction="none")
    loss = losses.mean()
    slope_w, slope_b = torch.autograd.grad(loss, (weight, bias))
    return Forward(z.detach(), p.detach(), losses.detach(), loss.item(), slope_w.item(), slope_b.item())


def loss_along_w(x: Tensor, y: Tensor, weights: Tensor, b: float) -> Tensor:
    """The loss for many w at once, b held."""
    z = weights[:, None] * x + b
    losses = nn.functional.binary_cross_entropy_with_logits(z, y.expand_as(z), reduction="none")
    return losses.mean(dim=1)
