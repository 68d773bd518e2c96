"""The same problem over rows in eight bits an entry: it says where to go, and the rows themselves how far that led."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torchlogit.kernels import NumbaKernel, TorchKernel
from torchlogit.kernels.integer_rows import IntegerKernel, integer_frame, integer_rows, most_block_rows
from torchlogit.kernels.integers import has_integer_products
from torchlogit.kernels.numba_cpu import FLOATS
from torchlogit.kernels.quantised import QuantisedKernel, quantised
from torchlogit.kernels.shortened import BLOCK_ROWS, ShortenedKernel, shortened
from torchlogit.objective import Objective
from torchlogit.preconditioners import InverseCurvature
from torchlogit.problem import Block, even_block_rows
from torchlogit.sources import MemorySource

# Variance that rounding may add to a column of variance one, before its curvature is another one.
_MOST_NOISE = 0.01
# The share that it may have of the curvature in flat directions; rows that tell, as many together as a cache holds, and
# random directions; and what a row bends at zero.
_MOST_MISLEADING, _COMPARED_ROWS, _WRITTEN_ROWS, _DIRECTIONS, _MOST_BEND = 0.05, 256, 32, 4, 0.25
# How many times what rounding leaves of the gradient a start may: with eight bits, each step from there gains a digit,
# with bfloat16 two. With many outputs, where a read of the rows themselves takes longest, no more than that.
_BITS_DIGITS, _SHORT_DIGITS, _MANY_DIGITS = 10.0, 30.0, 1.0
# The variance of a column beside which slopes cut to fifteen bits are noticed: columns that lose nothing have less.
_LEAST_NOISE = 3e-9
# Rows that tell what rounding would do to all, and the share of it that is to be as little: they are not all.
_TELLING_ROWS, _TELLING_SHARE = 1_000, 0.5
# How much more of its unit a column may vary than another where factors of one part of eight bits see both (embeddings:
# 3; pixels, words and other columns of which some are rare: 50).
_UNEQUAL = 10.0
# Outputs from which whole numbers repay being cut into parts.
_OUTPUTS = 8
# Bytes of rounded rows for many outputs that are kept beside the others.
_MOST_KEPT = 2**28


@dataclass(frozen=True)
class Guide:
    """The problem over rounded rows.

    Parameters
    ----------
    objective : Objective
    tol : float
        Largest gradient entry of its optimum that is worth being found.
    rounded_to : str
        What is left of an entry.
    """

    objective: Objective
    tol: float
    rounded_to: str = "eight bits"

    def misleads(self, objective: Objective, curvature: InverseCurvature) -> bool:
        """Whether rounding bends the objective in the flattest directions by much of what the rows do there.

        Parameters
        ----------
        objective : Objective
            Over the rows themselves.
        curvature : InverseCurvature
            Of either at zero.
        """
        block, rounded, lanes = objective.only_block, self.objective.only_block, objective.all_lanes()
        assert block is not None and rounded is not None
        random = torch.Generator().manual_seed(0)
        shape = (_DIRECTIONS, *objective.zeros().shape)
        flat = torch.stack([curvature.solve(one) for one in torch.randn(shape, generator=random, dtype=torch.float64)])
        directions = flat.reshape(_DIRECTIONS, -1).to(torch.float32).T
        own = float((objective.ridge * flat[:, 0, 0, :-1].square()).sum())
        noise, index = 0.0, torch.arange(0, block.rows, max(1, block.rows // _COMPARED_ROWS))
        share = _MOST_BEND / len(index)
        for some in torch.split(index, _WRITTEN_ROWS):
            along = objective.written_at(block, some, lanes).to(torch.float32) @ directions
            own += share * float(along.square().sum())
            along -= self.objective.written_at(rounded, some, lanes).to(torch.float32) @ directions
            noise += share * float(along.square().sum())
        return noise > _MOST_MISLEADING * own


def takes_guide(objective: Objective) -> bool:
    """Whether there may be a guide of one output: over dense rows in memory that compiled loops read."""
    block = objective.only_block
    if block is None or type(objective.kernel) is not NumbaKernel or objective.outputs > 1:
        return False
    return objective.prior is None and not objective.unpenalised and _fits(block)


def guide_for(objective: Objective) -> Guide | None:
    """The guide of a problem that takes one.

    Columns with values so far from their mean that the others' would be lost have none.
    """
    block = objective.only_block
    if block is None or not takes_guide(objective):
        return None
    frame = objective.moments.frame(objective.fit_intercept)
    assert block.dense is not None
    rows, step = quantised(block.dense, frame)
    objective.effort.passes += 1.0
    noise = step.square() / 12
    if bool((noise > _MOST_NOISE).any()):
        return None
    kernel = QuantisedKernel(objective.kernel.loss, frame, step)
    guide = objective.on(MemorySource(replace(block, dense=rows)), kernel)
    return Guide(guide, _BITS_DIGITS * _left(noise.max(), block.rows))


def short_guide_for(objective: Objective) -> Guide | None:
    """The guide of a problem with many outputs over dense rows in memory, in fewer bits; None for others.

    Where the penalty bends more than what rounding adds, and the processor multiplies numbers of so few bits.
    """
    block = objective.only_block
    if block is None or type(objective.kernel) is not TorchKernel or block.device.type != "cpu":
        return None
    return _in_integers(objective, block) or _in_bfloat16(objective, block)


def _in_integers(objective: Objective, block: Block) -> Guide | None:
    dense, loss = block.dense, objective.kernel.loss
    assert dense is not None
    worth = has_integer_products() and objective.outputs >= _OUTPUTS and not objective.unpenalised
    if not worth or not block.counts or dense.numel() > _MOST_KEPT:
        return None
    frame = integer_frame(dense)
    unit = frame.scale / objective.moments.scale(objective.fit_intercept)[0]
    some = slice(None, None, max(1, block.rows // _TELLING_ROWS))
    _, noise = integer_rows(dense[some], frame, None if block.weight is None else block.weight[some])
    objective.effort.passes += 1.0
    if not objective.bends_more_than(_TELLING_SHARE * noise * unit.square()):
        return None
    rows, noise = integer_rows(dense, frame, block.weight)
    objective.effort.passes += 1.0
    noise = noise * unit.square()
    if not objective.bends_more_than(noise):
        return None
    middle = ((objective.moments.mean[0] - frame.shift) / frame.scale).round()
    size = even_block_rows(block.rows, most_block_rows(block.features, objective.outputs))
    own = MemorySource(replace(block, dense=rows), objective.outputs, block_rows=size)
    varying = unit[objective.moments.deviation[0] > 0]
    unequal = bool(varying.numel()) and float(varying.max() / varying.min()) > _UNEQUAL
    guide = objective.on(own, IntegerKernel(loss, frame, middle, unequal=unequal))
    return Guide(guide, _MANY_DIGITS * _left(torch.clamp(noise.max(), min=_LEAST_NOISE), block.rows))


def _in_bfloat16(objective: Objective, block: Block) -> Guide | None:
    kernel, dense = objective.kernel, block.dense
    assert dense is not None and isinstance(kernel, TorchKernel)
    short = objective.few_digits()
    if 2 * dense.numel() > _MOST_KEPT or not isinstance(short, TorchKernel) or short.factor_dtype != torch.bfloat16:
        return None
    rows = shortened(dense, kernel)
    objective.effort.passes += 1.0
    size = even_block_rows(block.rows, BLOCK_ROWS)
    own = MemorySource(replace(block, dense=rows), objective.outputs, block_rows=size)
    guide = objective.on(own, ShortenedKernel(kernel.loss, kernel.frame))
    return Guide(guide, _SHORT_DIGITS * _left(short.rounding(), block.rows), "bfloat16")


def _left(noise: Tensor | float, rows: int) -> float:
    """What rounding leaves of an entry of the gradient, roughly: one more random term of a sum over rows."""
    return math.sqrt(float(noise) / rows)


def _fits(block: Block) -> bool:
    """Whether the rows lie as the loops want them."""
    dense = block.dense
    return dense is not None and block.counts and dense.dtype in FLOATS and dense.is_contiguous()
