"""Curvature of columns together: of neighbours, hardly more than a diagonal to build, or of all.

Columns that lie side by side often have to do with each other: pixels, lags, powers, the groups of a table. Blocks of
them along the Hessian's diagonal are inverted together; where columns far apart correlate just as much (factors,
smooth curves), all of them are one block. Correlations are those of a few rows, drawn towards zero by as much as so
few leave uncertain (Schaefer and Strimmer, 2005): where there are none, the diagonal remains.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

from torchlogit.kernels.symmetric import STRIPE, inverted, is_wide, mirrored
from torchlogit.objective import Objective
from torchlogit.preconditioners import CentredDiagonal, CentredInverse
from torchlogit.problem import Block

# Columns of a block, rows whose correlations count, and those that are written out together, in a core's cache.
# (20,000 x 2,000, neighbours correlated by 0.6, products: 68 with the diagonal, 34, 34 and 35 with 16, 32 and 64
# columns, three less with twice the rows. 10,000 x 784 pixels, two classes, reads: 30 with the diagonal, 23, 19, 21.)
_COLUMNS, _ROWS, _PIECE_ROWS = 32, 1_024, 32
# The share of its correlations that has to be left of a block's for blocks to be worth a product with every gradient.
_WORTH = 0.5
# Rows that tell whether columns of different blocks correlate, and how much they must: the sum of a column's squared
# correlations with them.
_FAR_ROWS, _FAR = 128, 4.0
# Rows for each column of one block of all: no direction's curvature is off by more than a factor of six. What that
# costs at most, in reads of all rows, and reads that as many operations take as a read has entries (40,000 x 1,000: 20
# reads in all). And rows that are multiplied together.
_ROWS_PER_COLUMN, _MOST_READS, _READS_PER_OPERATION = 3, 60.0, 0.25
_MULTIPLIED_ROWS = 256
# The least that correlations are drawn towards zero: float32 inverts what is left.
_LEAST_DRAWN = 3e-4


@dataclass(frozen=True)
class CentredBlocks(CentredInverse):
    """Blocks after each column is centred: ``blocks (B, b, b)``, of one output of one lane.

    Beyond the last column they are ones.
    """

    blocks: Tensor = field(kw_only=True)

    def scaled(self, columns: Tensor) -> Tensor:
        """Block by block."""
        count, size, _ = self.blocks.shape
        padded = pad(columns.reshape(-1), (0, count * size - columns.numel())).to(self.blocks.dtype)
        solved = torch.bmm(self.blocks, padded.view(count, size, 1)).view(-1)[: columns.numel()]
        return solved.to(columns.dtype).view_as(columns)

    def take(self, keep: Tensor) -> CentredBlocks:
        """There is one lane only."""
        return self


@dataclass(frozen=True)
class BlockDiagonal:
    """The centred diagonal, and beside it what neighbouring columns have in common.

    Where they have nothing, or it does not fit, it is the diagonal.

    Parameters
    ----------
    far : bool, default=False
        Whether all columns may be one block, if those far apart correlate, too: it repays its cost where a direction
        takes many products.
    """

    far: bool = False
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
        if self.far and _reach_far(objective, lanes, common):
            common, left = _of_all(objective, lanes)
        if not bool((left >= _WORTH).any()):
            return diagonal
        # The penalty bends each column alone.
        inverse = diagonal.inverse[0, 0, :-1]
        by_rows = torch.clamp(1 - objective.ridge[0] * inverse, 0.0, 1.0).sqrt()
        root, by_rows = (_by_block(part, common) for part in (inverse.sqrt(), by_rows))
        common.mul_(by_rows[:, :, None]).mul_(by_rows[:, None, :]).diagonal(dim1=1, dim2=2).fill_(1.0)
        blocks = _inverted(common)
        if blocks is None:
            return diagonal
        blocks.mul_(root[:, :, None]).mul_(root[:, None, :])
        return CentredBlocks(diagonal.inverse, diagonal.centre, blocks=blocks)


def _inverted(blocks: Tensor) -> Tensor | None:
    """Their inverses; that of all columns, which is in float32, in its own memory."""
    if blocks.dtype != torch.float32:
        return torch.cholesky_inverse(torch.linalg.cholesky_ex(blocks)[0])
    inverse = inverted(blocks[0])
    return None if inverse is None else inverse[None]


def _by_block(columns: Tensor, blocks: Tensor) -> Tensor:
    """A number for each column, ``(B, b)``, ones beyond the last."""
    count, size, _ = blocks.shape
    return pad(columns, (0, count * size - columns.numel()), value=1.0).view(count, size).to(blocks.dtype)


def _some_rows(objective: Objective, wanted: int) -> tuple[Block, Tensor]:
    """All rows, and the numbers of about so many that count."""
    block = objective.only_block
    assert block is not None
    chosen = torch.arange(0, block.rows, max(1, block.rows // wanted), device=block.device)
    weight = block.weight
    return block, chosen if weight is None else chosen[weight.reshape(-1)[chosen] > 0]


def _written(objective: Objective, block: Block, index: Tensor, lanes: Tensor) -> Tensor:
    """Rows in standardised units, times the root of their weight, float32."""
    rows = objective.written_at(block, index, lanes)[:, :-1].to(torch.float32)
    return rows if block.weight is None else rows.mul_(block.weight.reshape(-1)[index, None].sqrt())


def _few_written(objective: Objective, block: Block, index: Tensor, lanes: Tensor) -> Tensor:
    """The same, a piece after the other: each takes several times its own memory on the way."""
    return torch.cat([_written(objective, block, some, lanes) for some in torch.split(index, _PIECE_ROWS)])


def _weight_of(block: Block, index: Tensor) -> float:
    """What rows count in all."""
    return float(len(index)) if block.weight is None else max(float(block.weight.reshape(-1)[index].sum()), 1e-30)


def _correlations(objective: Objective, lanes: Tensor) -> tuple[Tensor, Tensor]:
    """Those within each block, ``(B, b, b)`` float64, and the share ``(B,)`` of them that was left."""
    block, chosen = _some_rows(objective, _ROWS)
    rows, columns = max(1, chosen.shape[0]), objective.width - 1
    count = -(-columns // _COLUMNS)
    # On this thread alone, and over the same memory: a second one would save milliseconds, and need as much again.
    both = torch.zeros(2 * count, _PIECE_ROWS, _COLUMNS, device=block.device)
    total = torch.zeros(2 * count, _COLUMNS, _COLUMNS, device=block.device)
    for index in torch.split(chosen, _PIECE_ROWS):
        values = _written(objective, block, index, lanes)
        part = both[:, : len(index)]
        part[:count] = pad(values, (0, count * _COLUMNS - columns)).view(-1, count, _COLUMNS).transpose(0, 1)
        torch.square(part[:count], out=part[count:])
        total.baddbmm_(part.transpose(1, 2), part)
    _count_rows(objective, rows)
    found, variance = total.to(torch.float64).chunk(2)
    size = _unit(found, _weight_of(block, chosen))
    found.mul_(size[:, :, None]).mul_(size[:, None, :])
    variance.mul_(size.square()[:, :, None]).mul_(size.square()[:, None, :])
    variance.addcmul_(found, found, value=-1 / rows)
    for part in (found, variance):
        part.diagonal(dim1=1, dim2=2).zero_()
    return _drawn_to_zero(found, variance.sum((1, 2)), rows)


def _unit(found: Tensor, weight: float) -> Tensor:
    """What makes correlations of sums of products.

    A column's variance is one among all rows. Where these have less of it, they have missed what is rare.
    """
    return torch.clamp(found.diagonal(dim1=1, dim2=2), min=weight).rsqrt()


def _strength(correlations: Tensor) -> Tensor:
    """Sum of the squares, block by block; nothing is kept of a large one's."""
    norm: Tensor = torch.linalg.vector_norm(correlations, dim=(1, 2))
    return norm.square()


def _drawn_to_zero(found: Tensor, variance: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Correlations ``(B, b, b)`` less what so few rows leave uncertain of them, and the share that is left ``(B,)``."""
    strength = torch.clamp(_strength(found), min=1e-30)
    # Never all of them: columns that are equal in these rows may not be in others.
    left = torch.clamp(1 - variance / strength, 0.0, 1 - max(1 / rows, _LEAST_DRAWN))
    return found.mul_(left[:, None, None]), left


def _count_rows(objective: Objective, rows: int) -> None:
    objective.effort.passes += objective.share * rows / objective.effort.total_rows


def _all_rows(objective: Objective) -> int:
    """Rows that one block of all columns may be made of."""
    columns = objective.width - 1
    affordable = _MOST_READS * objective.source.rows / (_READS_PER_OPERATION * columns)
    return int(min(_ROWS_PER_COLUMN * columns, affordable))


def _reach_far(objective: Objective, lanes: Tensor, near: Tensor) -> bool:
    """Whether columns of different blocks have much in common, and one block of all can be afforded.

    The squared products of pairs of rows are on average what the squared correlations of all columns add up to.
    """
    columns = objective.width - 1
    if objective.source.device.type != "cpu" or _all_rows(objective) < columns:
        return False
    block, chosen = _some_rows(objective, _FAR_ROWS)
    values = _few_written(objective, block, chosen, lanes)
    _count_rows(objective, len(chosen))
    products = (values @ values.T).to(torch.float64)
    products.diagonal().zero_()
    pairs = _weight_of(block, chosen) ** 2 * (1 - 1 / max(len(chosen), 2))
    return float(products.square().sum()) / pairs - columns - float(_strength(near).sum()) > _FAR * columns


def _of_all(objective: Objective, lanes: Tensor) -> tuple[Tensor, Tensor]:
    """Correlations of all columns, ``(1, p, p)`` float32, and the share ``(1,)`` of them that was left."""
    block, chosen = _some_rows(objective, _all_rows(objective))
    rows, columns = max(1, len(chosen)), objective.width - 1
    total, fourth = torch.zeros(columns, columns), 0.0
    stripe = STRIPE if is_wide(columns) else columns  # as `mirrored` expects it
    for index in torch.split(chosen, _MULTIPLIED_ROWS):
        values = _few_written(objective, block, index, lanes)
        for start in range(0, columns, stripe):
            stop = min(start + stripe, columns)
            total[start:stop, start:].addmm_(values[:, start:stop].T, values[:, start:])
        square = values.square_()
        fourth += float(square.sum(1).square().sum()) - float(square.square_().sum())
    _count_rows(objective, rows)
    weight = _weight_of(block, chosen)
    found = mirrored(total)[None]
    size = _unit(found, weight)
    found.mul_(size[:, :, None]).mul_(size[:, None, :])
    found.diagonal(dim1=1, dim2=2).zero_()
    # Of the sum over all pairs of columns, a row at a time.
    variance = fourth / weight**2 - _strength(found) / rows
    return _drawn_to_zero(found, variance, rows)


__all__ = ["BlockDiagonal", "CentredBlocks"]
