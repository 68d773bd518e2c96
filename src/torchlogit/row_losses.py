"""Row losses of `train`: the stable ones on logits, and any criterion taken apart into rows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Criterion = Callable[[Tensor, Tensor], Tensor]


def aligned(output: Tensor, y: Tensor) -> Tensor:
    """The target in the shape that goes with the output: ``(n,)`` and ``(n, 1)`` mean the same."""
    if y.shape == output.shape:
        return y
    if y.numel() == output.numel():
        return y.reshape(output.shape)
    if y.ndim == 2 and y.shape[1] == 1 and output.ndim == 2:
        return y[:, 0]
    return y


def log_loss(output: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The log loss of logits, stable for every size of them.

    Parameters
    ----------
    output : Tensor of shape (n,), (n, 1) or (n, K)
    y : Tensor
        Of the output's shape: zeros and ones, for each logit by itself. Of shape ``(n,)`` for K outputs: class codes.
    reduction : {'mean', 'none'}, default='mean'
    """
    if y.shape == output.shape:
        return functional.binary_cross_entropy_with_logits(output, y.to(output.dtype), reduction=reduction)
    if y.ndim != 1 or output.ndim != 2:
        raise ValueError(
            f"a target of shape {tuple(y.shape)} does not go with an output of shape {tuple(output.shape)}"
        )
    return functional.cross_entropy(output, y.to(torch.int64), reduction=reduction)


def check_targets(y: Tensor, outputs: int, *, each: bool) -> None:
    """Zeros and ones (or shares between them) for each logit, or class codes: for the default loss.

    Raises
    ------
    ValueError
        If they are anything else.
    """
    low, high = float(y.min()), float(y.max())
    if each:
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"y holds values from {low:g} to {high:g}, but a logit wants 0 and 1: recode the labels, or give class "
                "codes to a model with one output a class"
            )
    elif not 0 <= low <= high <= outputs - 1 or (y.is_floating_point() and bool((y != y.round()).any())):
        raise ValueError(
            f"y holds values from {low:g} to {high:g}, but the model's {outputs} outputs want class codes from 0 to "
            f"{outputs - 1}"
        )


def by_row(loss: Criterion | None) -> Criterion:
    """The losses of single rows, unreduced.

    Raises
    ------
    ValueError
        If a criterion cannot be taken apart.
    """
    if loss is None:
        return lambda output, y: log_loss(output, y, reduction="none")
    if hasattr(loss, "reduction"):
        parted: Any = copy.copy(loss)
        parted.reduction = "none"
        return parted  # type: ignore[no-any-return]

    def each(output: Tensor, y: Tensor) -> Tensor:
        values = loss(output, y)
        if values.ndim == 0 and output.shape[0] != 1:
            raise ValueError(
                "the losses of single rows are needed here, but this loss gives only their mean: give a criterion with "
                "a `reduction`, or one that returns a value a row"
            )
        return values

    return each


def row_mean(values: Tensor, size: int) -> Tensor:
    """``(n,)``: the mean over what a row has several of (yes-or-no questions)."""
    return values.reshape(size, -1).mean(1)
