"""Chapter 5: several optimizers on one landscape, before and after the columns are standardised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


def ages() -> tuple[Tensor, Tensor]:
    """A column that is far from zero for its spread, as ages and years are."""
    noise = torch.Generator().manual_seed(3)
    x = 4.0 + torch.randn(80, generator=noise, dtype=torch.float64)
    u = torch.rand(80, generator=noise, dtype=torch.float64)
    return x, (1.4 * (x - 4.3) + (u / (1 - u)).log() > 0).double()


def standardised(x: Tensor) -> Tensor:
    """Mean 0 and deviation 1."""
    return (x - x.mean()) / x.std(correction=0)


def loss_at(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The loss at one (w, b), or at many: the last axis of theta is (w, b)."""
    z = theta[..., :1] * x + theta[..., 1:]
    losses = nn.functional.binary_cross_entropy_with_logits(z, y.expand_as(z), reduction="none")
    return losses.mean(dim=-1)


def optimizer_path(make: Callable[..., torch.optim.Optimizer], x: Tensor, y: Tensor, steps: int) -> Tensor:
    """Where an optimizer goes from (0, 0)."""
    theta = torch.zeros(2, dtype=x.dtype, requires_grad=True)
    optimizer = make([theta])
    path = [theta.detach().clone()]
    for _ in range(steps):
        optimizer.zero_grad()
        loss_at(theta, x, y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        path.append(theta.detach().clone())
    return torch.stack(path)


def solver_path(x: Tensor, y: Tensor) -> Tensor:
    """Where the solver of `LogisticRegression` goes, without a penalty."""
    from torchlogit import LogisticRegression

    clf = LogisticRegression(C=np.inf).fit(x[:, None], y)
    return torch.tensor([record["theta"][0] for record in clf.trace_], dtype=x.dtype)


@dataclass(frozen=True)
class Landscape:
    """The paths by name, where they should end, and how long and narrow the valley is."""

    x: Tensor
    paths: dict[str, Tensor]
    best: Tensor
    condition: float


def landscape(x: Tensor, y: Tensor, rate: float, steps: int) -> Landscape:
    """All four on the same points, with the same learning rate."""
    exact = solver_path(x, y)
    paths = {
        "SGD": optimizer_path(lambda theta: torch.optim.SGD(theta, lr=rate), x, y, steps),
        "momentum": optimizer_path(lambda theta: torch.optim.SGD(theta, lr=rate, momentum=0.9), x, y, steps),
        "Adam": optimizer_path(lambda theta: torch.optim.Adam(theta, lr=rate), x, y, steps),
        "solver": exact[: steps + 1],
    }
    return Landscape(x, paths, exact[-1], condition(exact[-1], x, y))


def condition(theta: Tensor, x: Tensor, y: Tensor) -> float:
    """Largest over smallest curvature at the optimum."""
    curvature = torch.autograd.functional.hessian(lambda at: loss_at(at, x, y), theta)  # type: ignore[no-untyped-call]
    bends = torch.linalg.eigvalsh(curvature)
    return float(bends[-1] / bends[0])


def level_curve(best: Tensor, level: float, x: Tensor, y: Tensor, scale: Tensor, rays: int = 360) -> Tensor:
    """Where the loss has a value: by bisection along rays from the optimum, as the loss is convex."""
    angle = torch.linspace(0, 2 * torch.pi, rays + 1, dtype=x.dtype)
    direction = scale * torch.stack([angle.cos(), angle.sin()], dim=1)
    low, high = torch.zeros_like(angle), torch.full_like(angle, 8.0)
    for _ in range(40):
        middle = (low + high) / 2
        below = loss_at(best + middle[:, None] * direction, x, y) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return best + low[:, None] * direction
