"""A quadratic in the coefficients: what is left of rows that are no longer there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torchlogit.problem import Frame


@dataclass(frozen=True)
class Quadratic:
    """``value + slope . d + d' curvature d / 2`` with ``d = v - point``: a *sum* over rows, as a kernel's sums are.

    ``v (K, D)`` are the coefficients of the columns as the frame shows them, the intercept last.

    Parameters
    ----------
    frame : Frame
    point, slope : Tensor of shape (K, D)
    value : float
    curvature : Tensor of shape (K * D, K * D), or (K, D) for a diagonal
    rows : int
        How many rows it stands for.
    weight : float
        Their total weight.
    """

    frame: Frame
    point: Tensor
    value: float
    slope: Tensor
    curvature: Tensor
    rows: int
    weight: float

    @classmethod
    def nothing(cls, frame: Frame, outputs: int, *, whole: bool) -> Quadratic:
        """Zero, with a whole matrix of curvature or its diagonal."""
        width = frame.shift.shape[0] + 1
        zero = frame.shift.new_zeros(outputs, width)
        size = outputs * width
        return cls(frame, zero, 0.0, zero, frame.shift.new_zeros(size, size) if whole else zero, 0, 0.0)

    @property
    def whole(self) -> bool:
        """Whether all of the curvature is kept, not only its diagonal."""
        return self.curvature.shape != self.point.shape

    def product(self, direction: Tensor) -> Tensor:
        """``curvature @ direction``, both ``(M, K, D)``."""
        if not self.whole:
            return self.curvature * direction
        return (direction.flatten(1) @ self.curvature).reshape(direction.shape)

    def value_gradient(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Value ``(M,)`` and gradient ``(M, K, D)`` at M points."""
        distance = v - self.point
        bent = self.product(distance)
        return self.value + (distance * (self.slope + 0.5 * bent)).sum((1, 2)), self.slope + bent

    def matrix(self) -> Tensor:
        """The curvature written out, ``(K * D, K * D)``."""
        return self.curvature if self.whole else torch.diag_embed(self.curvature.reshape(-1))

    def diagonal(self) -> Tensor:
        """Its diagonal, ``(K, D)``."""
        return self.curvature.diagonal().reshape(self.point.shape) if self.whole else self.curvature

    def cross(self) -> Tensor:
        """Its column of the intercept, class by class, ``(K, D)``."""
        outputs, width = self.point.shape
        if self.whole:
            blocks = self.curvature.reshape(outputs, width, outputs, width)
            return torch.stack([blocks[k, :, k, -1] for k in range(outputs)])
        cross = torch.zeros_like(self.point)
        cross[:, -1] = self.curvature[:, -1]
        return cross

    def moved(self, point: Tensor) -> Quadratic:
        """The same function, written around another point ``(K, D)``."""
        value, gradient = self.value_gradient(point[None])
        return replace(self, point=point, value=float(value[0]), slope=gradient[0])

    def plus(self, value: float, slope: Tensor, curvature: Tensor, rows: int, weight: float) -> Quadratic:
        """With the sums of more rows, taken at `point`; ``curvature`` has the shape of this one's."""
        return replace(
            self,
            value=self.value + value,
            slope=self.slope + slope,
            curvature=self.curvature + curvature,
            rows=self.rows + rows,
            weight=self.weight + weight,
        )

    def plus_ridge(self, strength: Tensor) -> Quadratic:
        """With ``sum strength * v^2 / 2``; ``strength`` is ``(K, D)``."""
        ridge = torch.diag_embed(strength.reshape(-1)) if self.whole else strength
        value = self.value + 0.5 * float((strength * self.point.square()).sum())
        return replace(
            self, value=value, slope=self.slope + strength * self.point, curvature=self.curvature + ridge
        )
