"""Tensors over what NumPy and SciPy hold."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchlogit.problem import SparseRows


def tensor_view(array: NDArray[Any]) -> Tensor:
    """A tensor over the array's memory, read-only arrays and memory maps included (nothing here writes to it)."""
    if any(stride < 0 for stride in array.strides) or not array.dtype.isnative:
        array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    if array.flags.writeable:  # nothing to warn of
        return torch.from_numpy(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def sparse_rows(matrix: Any) -> SparseRows:
    """A CSR matrix as tensors, each entry once."""
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return SparseRows(
        tensor_view(matrix.indptr), tensor_view(matrix.indices), tensor_view(matrix.data), matrix.shape[1]
    )


def placeholder(rows: int, device: torch.device | str = "cpu") -> Tensor:
    """Targets that are not known yet."""
    return torch.zeros(1, dtype=torch.int64, device=device).expand(rows)
