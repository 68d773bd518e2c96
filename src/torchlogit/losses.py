"""Losses as row formulas in the linear predictor: value, first and second derivative. No X, no device, no files.

``eta`` is ``(rows, M, K)`` and ``target`` ``(rows, 1 or M)`` class codes, or what `Loss.prepared` has made of them once
for many calls. Outputs may lie in memory either way; loops are longest, and formulas fastest, where those of a row lie
apart. All formulas are stable for every ``|eta| <= 1e4`` in float32 and float64, and keep their *relative* precision
where the loss is tiny: a loss of 1e-30 is computed as 1e-30, not as the rounding error of ``1 - 1``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


class Loss(Protocol):
    """What a kernel needs to know about a loss."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        ...

    @property
    def outputs(self) -> int:
        """Number of linear predictors a row has, K."""
        ...

    def prepared(self, target: Tensor, dtype: torch.dtype) -> Tensor:
        """Class codes as the formulas work with them, for predictors of this type."""
        ...

    def value_first(self, eta: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Loss ``(rows, M)`` and its first derivative ``(rows, M, K)``."""
        ...

    def value_first_margin(self, eta: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`value_first` and `margin`."""
        ...

    def curvature(self, eta: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """Second derivative of a row: a ``(rows, M, K)`` diagonal and, for K > 1, ``b`` with ``-b b'`` off it."""
        ...

    def row_curvature(self, eta: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """All that the second derivative needs of ``eta``; its exponentials are the costly half of a product."""
        ...

    def curvature_product(self, curvature: tuple[Tensor, ...], direction: Tensor) -> Tensor:
        """Second derivative, given by its `row_curvature`, times ``direction (rows, M, K)``."""
        ...

    def curvature_root(self, eta: Tensor, target: Tensor) -> Tensor:
        """``B (rows, M, K, K)`` with ``B' B`` the second derivative."""
        ...

    def margin(self, eta: Tensor, target: Tensor) -> Tensor:
        """Signed margin ``(rows, M)``: positive where the row's own class wins."""
        ...

    def probability(self, eta: Tensor) -> Tensor:
        """Class probabilities ``(rows, M, classes)``."""
        ...


@dataclass(frozen=True)
class Binomial:
    """Two classes, one output: ``log(1 + exp(-m))`` with the margin ``m = eta`` for class 1, ``-eta`` for class 0."""

    classes: int = 2
    outputs: int = 1

    def prepared(self, target: Tensor, dtype: torch.dtype) -> Tensor:
        """The signs of the margins, turned round."""
        return target if target.is_floating_point() else target.to(dtype).mul_(-2).add_(1)

    def margin(self, eta: Tensor, target: Tensor) -> Tensor:
        """Signed margin ``(rows, M)``."""
        return -(eta.squeeze(-1) * self.prepared(target, eta.dtype))

    def value_first(self, eta: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """``max(-m, 0) + log1p(exp(-|m|))``, as torch computes a log sigmoid, and ``-sign * sigmoid(-m)``.

        ``torch.nn.functional.softplus`` is not used: it turns linear above 20, an error of 1e-9 there.
        """
        return self.value_first_margin(eta, target)[:2]

    def value_first_margin(self, eta: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`value_first` and `margin`, which have most of their work in common."""
        turned = self.prepared(target, eta.dtype)
        away = eta.squeeze(-1) * turned
        margin = -away
        return -logsigmoid(margin), (torch.sigmoid(away) * turned).unsqueeze(-1), margin

    def curvature(self, eta: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """``sigmoid(eta) * sigmoid(-eta)``, each to its own relative precision."""
        return torch.sigmoid(eta) * torch.sigmoid(-eta), None

    def row_curvature(self, eta: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """The second derivative itself."""
        return (self.curvature(eta, target)[0],)

    def curvature_product(self, curvature: tuple[Tensor, ...], direction: Tensor) -> Tensor:
        """Second derivative times ``direction``."""
        return curvature[0] * direction

    def curvature_root(self, eta: Tensor, target: Tensor) -> Tensor:
        """``sqrt(t) / (1 + t)``."""
        tail = torch.exp(-0.5 * eta.abs())
        return (tail / (1 + tail.square()))[..., None]

    def probability(self, eta: Tensor) -> Tensor:
        """``[sigmoid(-eta), sigmoid(eta)]``, each to its own relative precision."""
        return torch.cat([torch.sigmoid(-eta), torch.sigmoid(eta)], dim=-1)


@dataclass(frozen=True)
class Multinomial:
    """K classes, K outputs, symmetric: ``log sum_k exp(eta_k - eta_y)``.

    Everything is written in differences to the row's own class ``y``: with ``d_k = eta_k - eta_y``, ``M = max(0,
    max d)`` and ``S = sum over k != y of exp(d_k - M)``, the loss is ``M + log(S + exp(-M))``, and ``1 - p_y = S / (S +
    exp(-M))`` never suffers from the cancellation in ``1 - p_y``.
    """

    classes: int

    @property
    def outputs(self) -> int:
        """K, one output a class."""
        return self.classes

    def prepared(self, target: Tensor, dtype: torch.dtype) -> Tensor:
        """An index."""
        return target.to(torch.int64)

    @staticmethod
    def _own(eta: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """``index (rows, M, 1)`` of the own class, and ``eta_y`` there."""
        index = target.to(torch.int64).expand(eta.shape[:2]).unsqueeze(-1)
        return index, eta.gather(-1, index)

    def margin(self, eta: Tensor, target: Tensor) -> Tensor:
        """``eta_y`` minus the largest other output."""
        return self._margin(eta, *self._own(eta, target))

    @staticmethod
    def _margin(eta: Tensor, index: Tensor, own: Tensor) -> Tensor:
        return own.squeeze(-1) - eta.clone().scatter_(-1, index, -torch.inf).amax(-1)

    def value_first(self, eta: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and ``p - e_y`` with ``p_y - 1`` written as minus the sum of the others."""
        return self._value_first(eta, *self._own(eta, target))

    @staticmethod
    def _value_first(eta: Tensor, index: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        highest = eta.amax(-1, keepdim=True)
        top = highest - own  # M, at least 0: the own class is among them
        # d - M is eta minus its maximum, whatever the own class: with eta_y far below, d has lost what tells the
        # others apart.
        other = (eta - highest).exp_().scatter_(-1, index, 0.0)
        rest = other.sum(-1, keepdim=True)
        total = rest + torch.exp(-top)
        # top == 0: log1p keeps the precision of a tiny sum; otherwise the sum is at least one.
        value = torch.where(top > 0, top + torch.log(total), torch.log1p(rest)).squeeze(-1)
        first = other.div_(total).scatter_(-1, index, -rest / total)
        return value, first

    def value_first_margin(self, eta: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`value_first` and `margin`."""
        index, own = self._own(eta, target)
        value, first = self._value_first(eta, index, own)
        return value, first, self._margin(eta, index, own)

    def _probability(self, eta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``p (rows, M, K)``, which class is most probable ``(rows, M, 1)`` and its ``1 - p``, to relative precision.

        Only one class can have a ``p`` above a half, and lose digits in ``1 - p``; there it is a sum of the others.
        """
        highest, index = eta.max(-1, keepdim=True)
        other = (eta - highest).exp_().scatter_(-1, index, 0.0)
        rest = other.sum(-1, keepdim=True)
        total = 1 + rest
        return other.div_(total).scatter_(-1, index, 1 / total), index, rest / total

    def _with_complement(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        """``p`` and ``1 - p``."""
        p, index, rest = self._probability(eta)
        return p, (1 - p).scatter_(-1, index, rest)

    def curvature(self, eta: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """``diag(p (1 - p))`` and off-diagonals ``-p p'``."""
        p, complement = self._with_complement(eta)
        return complement.mul_(p), p

    def row_curvature(self, eta: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """``p``, and which class is the most probable."""
        return self._probability(eta)[:2]

    def curvature_product(self, curvature: tuple[Tensor, ...], direction: Tensor) -> Tensor:
        """``p * (v - p'v)`` with v taken relative to the most probable class: nothing cancels where its p is near 1."""
        p, index = curvature
        relative = direction - direction.gather(-1, index)
        mean = torch.linalg.vecdot(p, relative)[..., None]
        return relative.sub_(mean).mul_(p)

    def curvature_root(self, eta: Tensor, target: Tensor) -> Tensor:
        """``(I - q q') diag(q)`` with ``q = sqrt(p)``: a projector times a diagonal, so ``B'B = diag(p) - p p'``."""
        p, complement = self._with_complement(eta)
        q = p.sqrt()
        projector = -q[..., :, None] * q[..., None, :]
        projector.diagonal(dim1=-2, dim2=-1).copy_(complement)
        return projector * q[..., None, :]

    def probability(self, eta: Tensor) -> Tensor:
        """Softmax over the outputs."""
        return torch.softmax(eta, dim=-1)


def loss_for(classes: int) -> Loss:
    """Binomial for two classes, Multinomial for more."""
    return Binomial() if classes == 2 else Multinomial(classes)
