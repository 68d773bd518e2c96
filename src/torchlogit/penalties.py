"""Penalties: what is added to the mean loss. The intercept is never penalised; a penalty never sees it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ElasticNet:
    """``l1 * sum |w| + l2 / 2 * sum w^2`` on raw coefficients ``w``. No penalty, L1 and L2 are values of it.

    Parameters
    ----------
    l1, l2 : float, default=0.0
        Strengths relative to the *mean* row loss, at least 0 and finite.

    Examples
    --------
    >>> ElasticNet(l2=0.5).is_none, ElasticNet().is_none
    (False, True)
    """

    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        for name in ("l1", "l2"):
            value = getattr(self, name)
            if not (value >= 0 and value < float("inf")):
                raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")

    @property
    def is_none(self) -> bool:
        """Whether there is no penalty at all."""
        return self.l1 == 0 and self.l2 == 0

    @property
    def is_smooth(self) -> bool:
        """Whether a gradient exists everywhere."""
        return self.l1 == 0

    def value(self, w: Tensor) -> Tensor:
        """The penalty summed over the last axis of ``w (..., p)``."""
        return self.l1 * w.abs().sum(-1) + 0.5 * self.l2 * w.square().sum(-1)

    def smooth_gradient(self, w: Tensor) -> Tensor:
        """Gradient of the L2 part, the shape of ``w``."""
        return self.l2 * w

    def prox(self, w: Tensor, step: Tensor | float) -> Tensor:
        """``argmin_v |v - w|^2 / (2 step) + penalty(v)``, element by element."""
        shrunk = torch.sign(w) * torch.clamp(w.abs() - step * self.l1, min=0)
        return shrunk / (1 + step * self.l2)

    def kkt_residual(self, w: Tensor, loss_gradient: Tensor) -> Tensor:
        """Distance of ``-loss_gradient`` to the subdifferential at ``w``, element by element; 0 at an optimum."""
        smooth = loss_gradient + self.l2 * w
        at_zero = torch.clamp(smooth.abs() - self.l1, min=0)
        return torch.where(w == 0, at_zero, (smooth + self.l1 * torch.sign(w)).abs())
