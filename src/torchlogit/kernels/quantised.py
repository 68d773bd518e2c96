"""Rows in eight bits an entry, which are read in a sixth of the time of float64: they only ever shape a step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from torchlogit.kernels.first_use import make_ready
from torchlogit.kernels.numba_cpu import NumbaKernel
from torchlogit.losses import Loss
from torchlogit.problem import Block, Frame, RowStats
from torchlogit.threads import in_ranges

# Deviations on either side of the mean that eight bits hold at first: no ordinary column of 1e8 rows goes farther.
_DEVIATIONS = 6.0


class QuantisedKernel(NumbaKernel):
    """The compiled loops over dense rows of whole numbers of eight bits, for one output; products are in float32.

    Parameters
    ----------
    loss : Loss
    frame : Frame
        Coordinates that the rows had before they were divided by ``step``.
    step : Tensor of shape (p,), float64
        What one means.
    """

    def __init__(self, loss: Loss, frame: Frame, step: Tensor) -> None:
        super().__init__(loss, frame)
        self.stored = Frame(torch.zeros_like(step), 1 / step)

    def value_gradient(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> RowStats:
        """Sums of loss and gradient, and the smallest margin; several points one after the other."""
        if theta.shape[0] == 1:
            return super().value_gradient(block, theta, lanes)
        each = [
            super(QuantisedKernel, self).value_gradient(block, point[None], _lane(lanes, m))
            for m, point in enumerate(theta)
        ]

        def together(name: str) -> Tensor:
            return torch.cat([getattr(stats, name) for stats in each])

        return RowStats(
            block.rows,
            together("weight"),
            loss=together("loss"),
            gradient=together("gradient"),
            margin=together("margin"),
        )

    def linear_predictor(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> Tensor:
        """``eta (rows, M, K)``, offset included."""
        each = [
            super(QuantisedKernel, self).linear_predictor(block, point[None], _lane(lanes, m))
            for m, point in enumerate(theta)
        ]
        return torch.cat(each, 1)


def quantised(dense: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    """Dense rows in a frame's coordinates, to the next multiple of a step for each column.

    Parameters
    ----------
    dense : Tensor of shape (n, p), contiguous, of a floating dtype
    frame : Frame

    Returns
    -------
    rows : Tensor of shape (n, p), int8
    step : Tensor of shape (p,), float64
    """
    from torchlogit.kernels.numba_quantise import MOST

    step = torch.full_like(frame.scale, _DEVIATIONS / MOST)
    rows, largest = _rounded(dense, frame, step)
    if bool((largest > MOST).any()):
        step = step * torch.clamp(largest / MOST, min=1.0)
        rows, _ = _rounded(dense, frame, step, rows)
    return rows, step


def _rounded(dense: Tensor, frame: Frame, step: Tensor, into: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The rows as whole numbers, and the largest of each column before it was cut to eight bits."""
    from torchlogit.kernels.numba_quantise import quantise

    out = np.empty(dense.shape, np.int8) if into is None else into.numpy()
    source, shift = dense.numpy(), frame.shift.numpy()
    inverse = (1 / (frame.scale * step)).to(torch.float32).numpy()
    found: list[np.ndarray] = []
    make_ready(quantise, (source.dtype.char,), (source, shift, inverse, 0, 0, out, np.zeros(len(shift), np.float32)))

    def fill(start: int, stop: int) -> None:
        largest = np.zeros(len(shift), np.float32)
        quantise(source, shift, inverse, start, stop, out, largest)
        found.append(largest)

    in_ranges(dense.shape[0], fill, float(dense.numel()))
    return torch.from_numpy(out), torch.from_numpy(np.max(found, 0)).to(torch.float64)


def _lane(lanes: Tensor | None, point: int) -> Tensor | None:
    return None if lanes is None else lanes[point : point + 1]


__all__ = ["QuantisedKernel", "quantised"]
