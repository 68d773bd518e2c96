"""Units of columns: raw coefficients and standardised ones, gradients and curvatures in either.

With the weighted mean ``m_j`` and deviation ``s_j`` of a column, ``u_j = s_j w_j`` and ``u_p = b + sum_j m_j w_j``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchlogit.problem import Frame


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Per lane, the units of the columns: raw ``centre`` and ``scale`` ``(L, p)``, float64."""

    centre: Tensor
    scale: Tensor
    identity: bool = False  # both do nothing
    # (L, 1, p + 1): the intercept has no unit of its own. None are made where they do nothing.
    _shift: Tensor = field(init=False, repr=False, compare=False)
    _unit: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.identity:
            return
        one = self.scale.new_ones(self.scale.shape[0], 1)
        object.__setattr__(self, "_shift", torch.cat([self.centre, torch.zeros_like(one)], 1)[:, None])
        object.__setattr__(self, "_unit", torch.cat([self.scale, one], 1)[:, None])

    def to_raw(self, u: Tensor, lanes: Tensor) -> Tensor:
        """Standardised ``u (M, K, p + 1)`` to raw coefficients, intercept last."""
        if self.identity:
            return u
        shift, unit = self._of(lanes)
        theta = u / unit
        theta.select(-1, -1).sub_((shift * theta).sum(-1))
        return theta

    def weights_to_raw(self, u: Tensor, lanes: Tensor) -> Tensor:
        """The coefficients ``(M, K, p)`` alone."""
        if self.identity:
            return u[..., :-1]
        return (u / self._of(lanes)[1])[..., :-1]

    def from_raw(self, theta: Tensor, lanes: Tensor) -> Tensor:
        """The inverse of `to_raw`."""
        if self.identity:
            return theta
        shift, unit = self._of(lanes)
        u = theta * unit
        u.select(-1, -1).add_((shift * theta).sum(-1))
        return u

    def gradient_to_raw(self, gradient: Tensor, lanes: Tensor) -> Tensor:
        """A gradient in standardised units to the one in raw coefficients: the inverse transpose of `to_raw`."""
        if self.identity:
            return gradient
        shift, unit = self._of(lanes)
        return torch.addcmul(gradient * unit, shift, gradient[..., -1:])

    def gradient_from_raw(self, gradient: Tensor, lanes: Tensor) -> Tensor:
        """The inverse of `gradient_to_raw`."""
        if self.identity:
            return gradient
        shift, unit = self._of(lanes)
        return torch.addcmul(gradient, shift, gradient[..., -1:], value=-1).div_(unit)

    def _of(self, lanes: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and unit of these lanes, ``(M or 1, 1, p + 1)``."""
        if self._unit.shape[0] == 1:  # a plain fit: no gather, which small problems would notice
            return self._shift, self._unit
        return self._shift[lanes], self._unit[lanes]


def between(centre: Tensor, scale: Tensor, frame: Frame) -> Coordinates:
    """Lanes' units as a frame sees them."""
    if centre.shape[0] == 1 and torch.equal(centre[0], frame.shift) and torch.equal(scale[0], frame.scale):
        return Coordinates(torch.zeros_like(centre), torch.ones_like(scale), True)
    centre, scale = (centre - frame.shift) / frame.scale, scale / frame.scale
    return Coordinates(centre, scale, bool((centre == 0).all() & (scale == 1).all()))


def pull_diagonal(square: Tensor, cross: Tensor, lanes: Tensor, units: Coordinates) -> Tensor:
    """The diagonal in other units, from the diagonal and the intercept's column ``(M, K, D)``."""
    centre, scale = units.centre[lanes][:, None], units.scale[lanes][:, None]
    centred = square[..., :-1] - 2 * centre * cross[..., :-1] + centre.square() * square[..., -1:]
    return torch.cat([torch.clamp(centred, min=0) / scale.square(), square[..., -1:]], dim=-1)
