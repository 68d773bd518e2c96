"""One row opened up: what the model makes of it, and how it pulls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RowView:
    """The forward computation of one row.

    Attributes
    ----------
    row : int
        Its number in the data, from 0 (in the batch, where rows have no numbers).
    target : int, float or ndarray
        Class code, or the target as it was given to `train`.
    z : float or ndarray of shape (K,)
        Linear predictor (logit), offset included.
    probability : float, ndarray of shape (K,), or None
        Of class 1 for two classes; None under a loss that is not made of probabilities.
    loss : float
        The row's own loss, without its weight and without the penalty.
    residual : float or ndarray of shape (K,)
        Derivative of the loss with respect to z: probability minus target.
    """

    row: int
    target: Any
    z: Any
    probability: Any
    loss: float
    residual: Any
