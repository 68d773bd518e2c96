"""The oracle: one row after the other, in Python floats, as the formulas stand in a textbook.

It shares no arithmetic with the other kernels (not even ``losses``), so that an error cannot hide in both. Slow on
purpose; used by the contract tests and for nothing else.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchlogit.losses import Loss
from torchlogit.problem import Block, Frame, RowStats


def _softmax_parts(scores: list[float], own: int) -> tuple[float, list[float], list[float]]:
    """Loss, probabilities and their complements of one row."""
    highest = max(scores)
    top = highest - scores[own]
    others = [0.0 if k == own else math.exp(score - highest) for k, score in enumerate(scores)]
    rest, mine = math.fsum(others), math.exp(-top)
    total = rest + mine
    loss = math.log1p(rest) if top == 0 else top + math.log(total)
    p = [mine / total if k == own else value / total for k, value in enumerate(others)]
    complement = [math.fsum(q for j, q in enumerate(p) if j != k) for k in range(len(p))]
    return loss, p, complement


class ReferenceKernel:
    """Row by row, float64."""

    block_rows: int | None = None

    def __init__(self, loss: Loss, frame: Frame, dtype: torch.dtype = torch.float64) -> None:
        self.loss, self.frame, self.dtype = loss, frame, torch.float64

    def rounded(self, *, short: bool = False) -> ReferenceKernel:
        """Itself."""
        return self

    def rounding(self) -> float:
        """Of nothing."""
        return 0.0

    def design(self, block: Block) -> Tensor:
        """All columns of the block as a dense float64 matrix in frame coordinates, intercept last."""
        design = torch.zeros(block.rows, block.features + 1, dtype=torch.float64)
        column = 0
        if block.dense is not None:
            column = block.dense.shape[1]
            design[:, :column] = block.dense.to(torch.float64).cpu()
        sparse_parts = [part for part in (block.sparse,) if part is not None]
        if block.codes is not None:
            sparse_parts.append(block.codes.as_sparse(torch.float64))
        for part in sparse_parts:
            for row in range(part.rows):
                for position in range(int(part.indptr[row]), int(part.indptr[row + 1])):
                    # Duplicate entries of a row add up, as everywhere in sparse formats.
                    design[row, column + int(part.indices[position])] += float(part.values[position])
            column += part.columns
        shift, scale = self.frame.shift.cpu(), self.frame.scale.cpu()
        design[:, :-1] = (design[:, :-1] - shift) / scale
        design[:, -1] = 1.0
        return design

    def _lane(self, block: Block, lanes: Tensor | None, m: int) -> tuple[Tensor, Tensor, Tensor | None]:
        lane = 0 if lanes is None else int(lanes[m])
        target = block.target if block.target.ndim == 1 else block.target[:, lane]
        if block.weight is None:
            weight = torch.ones(block.rows, dtype=torch.float64)
        else:
            weight = block.weight if block.weight.ndim == 1 else block.weight[:, lane]
        offset = None
        if block.offset is not None:
            offset = block.offset[:, 0 if block.offset.shape[1] == 1 else lane]
        return target.cpu(), weight.to(torch.float64).cpu(), None if offset is None else offset.cpu()

    def linear_predictor(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> Tensor:
        """``eta (rows, M, K)``."""
        design = self.design(block)
        eta = torch.empty(block.rows, *theta.shape[:2], dtype=torch.float64)
        for m in range(theta.shape[0]):
            offset = self._lane(block, lanes, m)[2]
            for i in range(block.rows):
                for k in range(theta.shape[1]):
                    products = [float(a) * float(b) for a, b in zip(design[i], theta[m, k].cpu(), strict=True)]
                    eta[i, m, k] = math.fsum(products) + (0.0 if offset is None else float(offset[i, k]))
        return eta

    def _row(self, eta: list[float], own: int) -> tuple[float, list[float], list[list[float]], float]:
        """Loss, first derivative, second derivative and margin of one row."""
        if self.loss.outputs == 1:
            margin = eta[0] if own == 1 else -eta[0]
            loss, (_, wrong), _ = _softmax_parts([0.0, -margin], 0)
            first = [-wrong if own == 1 else wrong]
            tail = math.exp(-abs(margin))
            return loss, first, [[tail / (1 + tail) ** 2]], margin
        loss, p, complement = _softmax_parts(eta, own)
        first = [-complement[k] if k == own else p[k] for k in range(len(p))]
        second = [
            [p[k] * complement[k] if k == other else -p[k] * p[other] for other in range(len(p))]
            for k in range(len(p))
        ]
        margin = eta[own] - max(value for k, value in enumerate(eta) if k != own)
        return loss, first, second, margin

    def _sweep(self, block: Block, theta: Tensor, lanes: Tensor | None, direction: Tensor | None) -> RowStats:
        outputs, width = theta.shape[1:]
        design, eta = self.design(block), self.linear_predictor(block, theta, lanes)
        shape = (theta.shape[0], outputs, width)
        square = (theta.shape[0], outputs * width, outputs * width)
        weight_sum, loss_sum = torch.zeros(shape[0]).double(), torch.zeros(shape[0]).double()
        margin_min = torch.full((shape[0],), torch.inf, dtype=torch.float64)
        gradient, product = torch.zeros(shape).double(), torch.zeros(shape).double()
        gram, score = torch.zeros(square).double(), torch.zeros(square).double()
        for m in range(shape[0]):
            target, weight, _ = self._lane(block, lanes, m)
            for i in range(block.rows):
                w, z = float(weight[i]), design[i]
                if w == 0:
                    continue  # a row that is not there, whatever it holds
                loss, first, second, margin = self._row(eta[i, m].tolist(), int(target[i]))
                weight_sum[m] += w
                loss_sum[m] += w * loss
                margin_min[m] = min(float(margin_min[m]), margin)
                slope = torch.tensor(first, dtype=torch.float64)
                curvature = torch.tensor(second, dtype=torch.float64)
                row_score = torch.kron(slope, z)
                gradient[m] += w * torch.outer(slope, z)
                gram[m] += w * torch.kron(curvature, torch.outer(z, z))
                score[m] += w * w * torch.outer(row_score, row_score)
                if direction is not None:
                    product[m] += w * torch.outer(curvature @ (direction[m].cpu() @ z), z)
        diagonal = gram.diagonal(dim1=1, dim2=2).reshape(shape)
        blocks = gram.reshape(shape[0], outputs, width, outputs, width)
        cross = torch.stack([blocks[:, k, :, k, -1] for k in range(outputs)], dim=1)
        return RowStats(
            block.rows, weight_sum, loss_sum, gradient, margin_min,
            None if direction is None else product, gram, diagonal, cross, score,
        )  # fmt: skip

    def value_gradient(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> RowStats:
        """Loss, gradient and margin."""
        return self._sweep(block, theta, lanes, None)

    def row_curvature(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> tuple[Tensor, ...]:
        """Nothing: a reference computes everything anew."""
        return ()

    def curvature_product(
        self,
        block: Block,
        theta: Tensor,
        direction: Tensor,
        lanes: Tensor | None = None,
        curvature: tuple[Tensor, ...] | None = None,
    ) -> RowStats:
        """Curvature times a direction."""
        return self._sweep(block, theta, lanes, direction)

    def gram(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> RowStats:
        """Curvature."""
        return self._sweep(block, theta, lanes, None)

    def gram_diagonal(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> RowStats:
        """Its diagonal."""
        return self._sweep(block, theta, lanes, None)

    def score_gram(self, block: Block, theta: Tensor, lanes: Tensor | None = None) -> RowStats:
        """Outer products of scores."""
        return self._sweep(block, theta, lanes, None)
