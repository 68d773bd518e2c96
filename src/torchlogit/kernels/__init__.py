"""Kernels turn a block of rows into sums. Every one has the same functions and keeps the same promises.

To add one: write a class with the methods of `Kernel` in a new file and add one line to `KERNELS`. The contract tests
(``tests/contracts/test_kernels.py``) then hold it to the reference, at the extremes too.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from torchlogit.kernels.numba_cpu import NumbaKernel
from torchlogit.kernels.reference import ReferenceKernel
from torchlogit.kernels.torch_device import TorchKernel
from torchlogit.kernels.triton_cuda import TritonKernel, sweep_dtype
from torchlogit.losses import Loss
from torchlogit.problem import Block, Frame, RowStats


class Kernel(Protocol):
    """Block to sums. ``theta`` is ``(M, K, p + 1)`` in the frame's coordinates; ``lanes (M,)`` names, for each of the
    M evaluated points, the lane whose weights, target and offset it belongs to (None: lane 0 for all).
    """

    loss: Loss
    frame: Frame
    dtype: torch.dtype
    block_rows: int | None  # rows of a block in a sweep; None: the source's own choice

    def rounded(self, *, short: bool = False) -> Kernel:
        """The same with products of fewer digits, where those are faster; if ``short``, of very few."""
        ...

    def rounding(self) -> float:
        """Variance of what rounding its factors adds to a column, over the square of its entries; 0 for float32."""
        ...

    def design(self, block: Block) -> Tensor:
        """All columns written out in frame coordinates, ``(rows, p + 1)``, the intercept's ones last."""
        ...

    def linear_predictor(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> Tensor:
        """``eta (rows, M, K)``, offset included."""
        ...

    def value_gradient(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> RowStats:
        """Sums of the loss, its gradient, and the smallest margin."""
        ...

    def row_curvature(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> tuple[Tensor, ...]:
        """What a product needs of ``theta``, for as long as several directions are tried at one point."""
        ...

    def curvature_product(
        self,
        block: Block,
        theta: Tensor,
        direction: Tensor,
        lanes: Tensor | None = None,
        curvature: tuple[Tensor, ...] | None = None,
    ) -> RowStats:
        """Sum of the rows' curvature times ``direction (M, K, p + 1)``.

        ``curvature`` is what `row_curvature` gave for the same block, ``theta`` and lanes, if it was kept.
        """
        ...

    def gram(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> RowStats:
        """The curvature itself, ``(M, K * (p + 1), K * (p + 1))``."""
        ...

    def gram_diagonal(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> RowStats:
        """Its diagonal, and the products of each column with the intercept."""
        ...

    def score_gram(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> RowStats:
        """Sum of the outer products of the weighted row scores."""
        ...


KERNELS: dict[str, type[ReferenceKernel] | type[TorchKernel]] = {
    "reference": ReferenceKernel,
    "torch": TorchKernel,
    "numba": NumbaKernel,
    "triton": TritonKernel,
}


def kernel_of(name: str, loss: Loss, frame: Frame, dtype: torch.dtype, rows: int, tol: float) -> Kernel:
    """The kernel of that name, as precise as so many rows of that dtype and their certificate need."""
    if name == "triton":
        return TritonKernel(loss, frame, sweep_dtype=sweep_dtype(dtype, rows, tol))
    return KERNELS[name](loss, frame)


__all__ = ["KERNELS", "Kernel", "NumbaKernel", "ReferenceKernel", "TorchKernel", "TritonKernel", "kernel_of"]
