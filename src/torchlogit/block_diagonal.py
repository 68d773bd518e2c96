"""Curvature of neighbouring columns together: hardly more than a diagonal to build, half the steps if they correlate.

Columns that lie side by side often have to do with each other: pixels, lags, powers, the groups of a table. Blocks of
them along the Hessian's diagonal are inverted together. Their correlations are those of a few rows, drawn towards zero
by as much as so few leave uncertain (Schaefer and Strimmer, 2005): where there are none, the diagonal remains.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

from torchlogit.objective import Objective
from torchlogit.preconditioners import CentredDiagonal, CentredInverse

# Columns of a block, rows whose correlations count, and those that are written out together, in a core's cache.
# (20,000 x 2,000, neighbours correlated by 0.6, products: 68 with the diagonal, 34, 34 and 35 with 16, 32 and 64
# columns, three less with twice the rows. 10,000 x 784 pixels, two classes, reads: 30 with the diagonal, 23, 19, 21.)
_COLUMNS, _ROWS, _PIECE_ROWS = 32, 1_024, 32
# The share of its correlations that has to be left of a block's for blocks to be worth a product with every gradient.
_WORTH = 0.5


@dataclass(frozen=True)
class CentredBlocks(CentredInverse):
    """Blocks after each column is centred: ``blocks (B, b, b)``, of one output of one lane.

    Beyond the last column they are ones.
    """

    blocks: Tensor = field(kw_only=True)

    def scaled(self, columns: Tensor) -> Tensor:
        """Block by block."""
        count, size, _ = self.blocks.shape
        padded = pad(columns.reshape(-1), (0, count * size - columns.numel()))
        return torch.bmm(self.blocks, padded.view(count, size, 1)).view(-1)[: columns.numel()].view_as(columns)

    def take(self, keep: Tensor) -> CentredBlocks:
        """There is one lane only."""
        return self


@dataclass(frozen=True)
class BlockDiagonal:
    """The centred diagonal, and beside it what neighbouring columns have in common.

    Where they have nothing, or it does not fit, it is the diagonal.
    """

    name: str = "block diagonal of the Hessian"

    @staticmethod
    def fits(objective: Objective) -> bool:
        """Whether there is one output over dense rows in memory, no fewer of them than columns.

        Fewer bend the objective in other ways than their columns vary together (400 x 5,000, smooth curves: 861 reads
        around blocks, 359 around the diagonal).
        """
        enough = objective.source.rows >= objective.width
        return enough and objective.outputs == 1 and objective.only_block is not None

    def build(self, objective: Objective, u: Tensor, lanes: Tensor) -> CentredInverse:
        """At ``u``; correlations are those of rows that all bend alike."""
        diagonal = CentredDiagonal().build(objective, u, lanes)
        if not self.fits(objective):
            return diagonal
        common, left = _correlations(objective, lanes)
        if not bool((left >= _WORTH).any()):
            return diagonal
        # The penalty bends each column alone.
        inverse = diagonal.inverse[0, 0, :-1]
        by_rows = torch.clamp(1 - objective.ridge[0] * inverse, 0.0, 1.0).sqrt()
        root, by_rows = (_by_block(part, common) for part in (inverse.sqrt(), by_rows))
        common.mul_(by_rows[:, :, None]).mul_(by_rows[:, None, :]).diagonal(dim1=1, dim2=2).fill_(1.0)
        blocks = torch.cholesky_inverse(torch.linalg.cholesky_ex(common)[0])
        blocks.mul_(root[:, :, None]).mul_(root[:, None, :])
        return CentredBlocks(diagonal.inverse, diagonal.centre, blocks=blocks)


def _by_block(columns: Tensor, blocks: Tensor) -> Tensor:
    """A number for each column, ``(B, b)``, ones beyond the last."""
    count, size, _ = blocks.shape
    return pad(columns, (0, count * size - columns.numel()), value=1.0).view(count, size)


def _correlations(objective: Objective, lanes: Tensor) -> tuple[Tensor, Tensor]:
    """Those within each block, ``(B, b, b)`` float64, and the share ``(B,)`` of them that was left."""
    block = objective.only_block
    assert block is not None
    chosen = torch.arange(0, block.rows, max(1, block.rows // _ROWS), device=block.device)
    weight = None if block.weight is None else block.weight.reshape(-1)
    if weight is not None:
        chosen = chosen[weight[chosen] > 0]
    rows, columns = max(1, chosen.shape[0]), objective.width - 1
    count = -(-columns // _COLUMNS)
    # On this thread alone, and over the same memory: a second one would save milliseconds, and need as much again.
    both = torch.zeros(2 * count, _PIECE_ROWS, _COLUMNS, device=block.device)
    total = torch.zeros(2 * count, _COLUMNS, _COLUMNS, device=block.device)
    for index in torch.split(chosen, _PIECE_ROWS):
        values = objective.written_at(block, index, lanes)[:, :-1].to(torch.float32)
        if weight is not None:
            values *= weight[index, None].sqrt()
        part = both[:, : len(index)]
        part[:count] = pad(values, (0, count * _COLUMNS - columns)).view(-1, count, _COLUMNS).transpose(0, 1)
        torch.square(part[:count], out=part[count:])
        total.baddbmm_(part.transpose(1, 2), part)
    objective.effort.passes += objective.share * rows / objective.effort.total_rows
    found, variance = total.to(torch.float64).chunk(2)
    # A column's variance is one among all rows. Where these have less of it, they have missed what is rare.
    least = rows if weight is None else max(float(weight[chosen].sum()), 1e-30)
    size = torch.clamp(found.diagonal(dim1=1, dim2=2), min=least).rsqrt()
    found.mul_(size[:, :, None]).mul_(size[:, None, :])
    variance.mul_(size.square()[:, :, None]).mul_(size.square()[:, None, :])
    variance.addcmul_(found, found, value=-1 / rows)
    for part in (found, variance):
        part.diagonal(dim1=1, dim2=2).zero_()
    strength = torch.clamp(found.square().sum((1, 2)), min=1e-30)
    # Never all of them: columns that are equal in these rows may not be in others.
    left = torch.clamp(1 - variance.sum((1, 2)) / strength, 0.0, 1 - 1 / rows)
    return found.mul_(left[:, None, None]), left


__all__ = ["BlockDiagonal", "CentredBlocks"]
