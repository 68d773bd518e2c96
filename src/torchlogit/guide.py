"""The same problem over rows in eight bits an entry: it says where to go, and the rows themselves how far that led."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torchlogit.kernels import NumbaKernel, TorchKernel
from torchlogit.kernels.quantised import QuantisedKernel, quantised
from torchlogit.kernels.shortened import ShortenedKernel, block_rows, shortened
from torchlogit.objective import Objective
from torchlogit.problem import Block
from torchlogit.sources import MemorySource

# Variance that rounding may add to a column of variance one, before its curvature is another one.
_MOST_NOISE = 0.01
# How many times what rounding leaves of the gradient a start may: with eight bits, each step from there gains a digit,
# with bfloat16 two.
_BITS_DIGITS, _SHORT_DIGITS = 10.0, 30.0
# Bytes of rows in bfloat16 that are kept beside the others.
_MOST_KEPT = 2**28
_FLOATS = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Guide:
    """The problem over rounded rows.

    Parameters
    ----------
    objective : Objective
    tol : float
        Largest gradient entry of its optimum that is worth being found.
    """

    objective: Objective
    tol: float


def guide_for(objective: Objective) -> Guide | None:
    """The guide of a problem with one output over dense rows in memory that compiled loops read; None for others.

    Columns with values so far from their mean that the others' would be lost have none.
    """
    source = objective.source
    plain = type(objective.kernel) is NumbaKernel and isinstance(source, MemorySource) and objective.prior is None
    if not plain or objective.outputs * objective.lanes > 1 or objective.unpenalised:
        return None
    assert isinstance(source, MemorySource)
    if len(source.parts) != 1 or not _fits(source.parts[0]):
        return None
    frame = objective.moments.frame(objective.fit_intercept)
    block = source.parts[0]
    assert block.dense is not None
    rows, step = quantised(block.dense, frame)
    objective.effort.passes += 1.0
    noise = step.square() / 12
    if bool((noise > _MOST_NOISE).any()):
        return None
    kernel = QuantisedKernel(objective.kernel.loss, frame, step)
    guide = objective.on(MemorySource(replace(block, dense=rows)), kernel, _share(rows, block.dense))
    return Guide(guide, _BITS_DIGITS * _left(noise.max(), source.rows))


def short_guide_for(objective: Objective) -> Guide | None:
    """The guide of a problem with many outputs over dense rows in memory, in bfloat16; None for others.

    Where the penalty bends more than what rounding adds, and the processor multiplies them natively.
    """
    source, kernel = objective.source, objective.kernel
    if type(kernel) is not TorchKernel or not isinstance(source, MemorySource) or len(source.parts) != 1:
        return None
    block = source.parts[0]
    if block.device.type != "cpu" or block.dense is None or not _dense_alone(block) or objective.lanes > 1:
        return None
    if 2 * block.dense.numel() > _MOST_KEPT:
        return None
    short = objective.few_digits()
    if not isinstance(short, TorchKernel) or short.factor_dtype != torch.bfloat16:
        return None
    own = replace(block, dense=shortened(block.dense, kernel))
    objective.effort.passes += 1.0
    rows = MemorySource(own, source.outputs, block_rows=block_rows(source.rows))
    assert own.dense is not None
    guide = objective.on(rows, ShortenedKernel(kernel.loss, kernel.frame), _share(own.dense, block.dense))
    return Guide(guide, _SHORT_DIGITS * _left(short.rounding(), source.rows))


def _left(noise: Tensor | float, rows: int) -> float:
    """What rounding leaves of an entry of the gradient, roughly: one more random term of a sum over rows."""
    return math.sqrt(float(noise) / rows)


def _share(rounded: Tensor, dense: Tensor) -> float:
    return rounded.element_size() / dense.element_size()


def _dense_alone(block: Block) -> bool:
    return block.sparse is None and block.codes is None


def _fits(block: Block) -> bool:
    dense, weight = block.dense, block.weight
    if dense is None or not _dense_alone(block):
        return False
    # Nothing bounds the values of rows that do not count.
    counted = weight is None or bool((weight > 0).all())
    return counted and dense.dtype in _FLOATS and dense.is_contiguous()
