"""Tensors and modules that belong to the caller: copied to the host, evaluated without leaving a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def host_array(X: Tensor) -> NDArray[Any]:
    """A tensor of any layout, on any device, as a dense array; halves become float32, since NumPy has no bfloat16."""
    dense = (X if X.layout == torch.strided else X.to_dense()).detach().cpu()
    half = dense.is_floating_point() and dense.element_size() < 4
    array: NDArray[Any] = dense.float().numpy() if half else dense.numpy()
    return array


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Every layer in evaluation mode and no gradients; afterwards each layer has the mode it had."""
    modes = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for layer, mode in modes:
            layer.training = mode
