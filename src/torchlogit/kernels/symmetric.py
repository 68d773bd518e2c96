"""Sums of symmetric products, of which little more than half is computed: second derivatives, and blocks of them."""

from __future__ import annotations

import torch
from scipy.linalg.lapack import spotrf, spotri
from torch import Tensor

from torchlogit.kernels.small_matrices import transposed_product
from torchlogit.tensors import in_type

# Columns of a product that are computed at once, and those of several classes.
STRIPE, _PAIR_COLUMNS = 256, 32


def is_wide(width: int) -> bool:
    """Whether only half of a product is computed."""
    return width >= 2 * STRIPE


def add_upper(left: Tensor, right: Tensor, into: Tensor | None = None) -> Tensor:
    """``left.T @ right``, known to be symmetric, added to ``into`` or to zeros in float64.

    Of wide ones little more than half is computed: `mirrored` fills in what is below the diagonal.
    """
    width = right.shape[1]
    if not is_wide(width):
        product = in_type(transposed_product(left, right), torch.float64)
        return product if into is None else into.add_(product)
    total = torch.zeros(width, width, dtype=torch.float64, device=right.device) if into is None else into
    for start in range(0, width, STRIPE):
        stop = min(start + STRIPE, width)
        total[start:stop, start:] += left[:, start:stop].T @ right[:, start:]
    return total


def mirrored(total: Tensor) -> Tensor:
    """Sums of `add_upper`, ``(S, S)``, with all that they did not compute, in place."""
    width = total.shape[0]
    if is_wide(width):
        for start in range(0, width, STRIPE):
            stop = min(start + STRIPE, width)
            total[stop:, start:stop] = total[start:stop, stop:].T
    return total


def inverted(matrix: Tensor) -> Tensor | None:
    """The inverse of a positive matrix in float32 on the CPU, in its own memory; None where rounding left no such."""
    # What is above a matrix's diagonal is below it for LAPACK, which counts along columns.
    factor, failed = spotrf(matrix.numpy().T, lower=1, clean=0, overwrite_a=1)
    if failed:
        return None
    inverse = torch.from_numpy(spotri(factor, lower=1, overwrite_c=1)[0].T)
    for start in range(0, inverse.shape[0], STRIPE):
        stop = start + STRIPE
        own = inverse[start:stop, start:stop]
        own.copy_(own.triu() + own.triu(1).T)
        inverse[stop:, start:stop] = inverse[start:stop, stop:].T
    return inverse


def add_pairs(scaled: Tensor, into: Tensor | None) -> Tensor:
    """For each two classes minus the product of their rows ``scaled (K, D, n)``, added to ``into`` or to zeros.

    Only blocks above the diagonal are made: `with_diagonal_blocks` makes the others of them.
    """
    outputs, width, rows = scaled.shape
    flat, size = scaled.view(outputs * width, rows), outputs * width
    total = torch.zeros(size, size, dtype=torch.float64, device=scaled.device) if into is None else into
    stripe = max(1, _PAIR_COLUMNS // width) * width
    for start in range(0, size - width, stripe):
        stop, after = min(start + stripe, size), start + width
        here, left, right = total[start:stop, after:], flat[start:stop], flat[after:].T
        if scaled.dtype == total.dtype:
            here.addmm_(left, right, alpha=-1)
        else:
            here -= left @ right
    return total


def with_diagonal_blocks(total: Tensor, width: int) -> None:
    """Fill in what `add_pairs` leaves out, in place.

    The probabilities of a row sum to one: a class's own curvature is that which it has with all others, and what is
    ``p (1 - p)`` there is a sum of products, in which nothing cancels.
    """
    outputs = total.shape[0] // width
    for start in range(width, total.shape[0], width):
        total[start : start + width, :start] = total[:start, start : start + width].T
    blocks = total.view(outputs, width, outputs, width)
    own = blocks.diagonal(dim1=0, dim2=2)  # (D, D, K)
    own.zero_()
    own.copy_(blocks.sum(2).neg_().permute(1, 2, 0))


__all__ = ["STRIPE", "add_pairs", "add_upper", "inverted", "is_wide", "mirrored", "with_diagonal_blocks"]
