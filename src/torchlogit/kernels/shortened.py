"""Rows in bfloat16, in the frame's coordinates already: products that need few digits read a quarter of the memory."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from torchlogit.kernels.bfloat16 import coarse_dtype
from torchlogit.kernels.torch_device import TorchKernel
from torchlogit.losses import Loss
from torchlogit.problem import Frame
from torchlogit.threads import in_ranges, one_thread_each

# Columns to which a row is padded: every block begins at an address that torch's memory would have, too.
_ALIGNED_COLUMNS = 32
# Rows of a block at most: each costs its calls, and one that is longer leaves the cache (10,000 x 784, ten classes, a
# product: 7.1 ms with 1,000 rows, 4.8 ms with 2,000).
BLOCK_ROWS = 2_000


class ShortenedKernel(TorchKernel):
    """Sums over rows that `shortened` made, in float32; products with few digits multiply them as they are.

    Parameters
    ----------
    loss : Loss
    frame : Frame
        Coordinates that the rows are in.
    short : bool, default=False
        As in `TorchKernel`.
    """

    def __init__(self, loss: Loss, frame: Frame, *, short: bool = False) -> None:
        super().__init__(loss, frame, torch.float32, short=short)
        self.stored = Frame(torch.zeros_like(frame.shift), torch.ones_like(frame.scale))

    def _in_float32(self, *, short: bool) -> ShortenedKernel:
        return ShortenedKernel(self.loss, self.frame, short=short)


def shortened(dense: Tensor, kernel: TorchKernel) -> Tensor:
    """Dense rows in the kernel's coordinates, ``(n, p)`` bfloat16.

    Parameters
    ----------
    dense : Tensor of shape (n, p), floating
    kernel : TorchKernel
    """
    rows, columns = dense.shape
    width = -(-columns // _ALIGNED_COLUMNS) * _ALIGNED_COLUMNS
    out = torch.empty(rows, width, dtype=coarse_dtype())[:, :columns]
    with one_thread_each():
        in_ranges(rows, partial(_fill, dense, kernel, out), float(dense.numel()))
    return out


def _fill(dense: Tensor, kernel: TorchKernel, out: Tensor, start: int, stop: int) -> None:
    kernel.write_framed(dense[start:stop], out[start:stop])


__all__ = ["BLOCK_ROWS", "ShortenedKernel", "shortened"]
