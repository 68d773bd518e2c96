"""The same problem over rows in eight bits an entry: it says where to go, and the rows themselves how far that led."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torchlogit.kernels import NumbaKernel, TorchKernel
from torchlogit.kernels.numba_cpu import FLOATS
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
    block = _only_block(objective)
    if block is None or type(objective.kernel) is not NumbaKernel or objective.outputs > 1:
        return None
    if objective.prior is not None or objective.unpenalised or not _fits(block):
        return None
    frame = objective.moments.frame(objective.fit_intercept)
    assert block.dense is not None
    rows, step = quantised(block.dense, frame)
    objective.effort.passes += 1.0
    noise = step.square() / 12
    if bool((noise > _MOST_NOISE).any()):
        return None
    kernel = QuantisedKernel(objective.kernel.loss, frame, step)
    guide = objective.on(MemorySource(replace(block, dense=rows)), kernel, _share(rows, block.dense))
    return Guide(guide, _BITS_DIGITS * _left(noise.max(), block.rows))


def short_guide_for(objective: Objective) -> Guide | None:
    """The guide of a problem with many outputs over dense rows in memory, in bfloat16; None for others.

    Where the penalty bends more than what rounding adds, and the processor multiplies them natively.
    """
    kernel, block = objective.kernel, _only_block(objective)
    if block is None or type(kernel) is not TorchKernel or block.device.type != "cpu":
        return None
    assert block.dense is not None
    if 2 * block.dense.numel() > _MOST_KEPT:
        return None
    short = objective.few_digits()
    if not isinstance(short, TorchKernel) or short.factor_dtype != torch.bfloat16:
        return None
    own = replace(block, dense=shortened(block.dense, kernel))
    objective.effort.passes += 1.0
    rows = MemorySource(own, objective.outputs, block_rows=block_rows(block.rows))
    assert own.dense is not None
    guide = objective.on(rows, ShortenedKernel(kernel.loss, kernel.frame), _share(own.dense, block.dense))
    return Guide(guide, _SHORT_DIGITS * _left(short.rounding(), block.rows))


def _left(noise: Tensor | float, rows: int) -> float:
    """What rounding leaves of an entry of the gradient, roughly: one more random term of a sum over rows."""
    return math.sqrt(float(noise) / rows)


def _share(rounded: Tensor, dense: Tensor) -> float:
    return rounded.element_size() / dense.element_size()


def _only_block(objective: Objective) -> Block | None:
    """All rows of a single lane, if they are in memory, in one piece, and dense alone."""
    source = objective.source
    if not isinstance(source, MemorySource) or len(source.parts) != 1 or objective.lanes > 1:
        return None
    (block,) = source.parts
    return None if block.dense is None or block.sparse is not None or block.codes is not None else block


def _fits(block: Block) -> bool:
    """Whether the rows lie as the loops want them."""
    dense, weight = block.dense, block.weight
    # Nothing bounds the values of rows that do not count.
    counted = weight is None or bool((weight > 0).all())
    return dense is not None and counted and dense.dtype in FLOATS and dense.is_contiguous()
