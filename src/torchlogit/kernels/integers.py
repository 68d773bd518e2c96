"""Symmetric products of rows rounded to eight bits: exact sums of integers, four times as fast as float32.

Only where the processor has instructions for them. They only ever shape a step, as those of `bfloat16` do; unlike
theirs, which round the result too, their matrices have no negative eigenvalues.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from torchlogit.kernels.bfloat16 import processor_flags
from torchlogit.kernels.symmetric import STRIPE
from torchlogit.tensors import largest_along

_INSTRUCTIONS = {"avx512_vnni", "avx_vnni", "amx_int8"}
# The largest of eight bits, of either sign.
MOST = 127
# Rows that are rounded together, in a core's cache.
_PIECE_ROWS = 512


@cache
def has_integer_products() -> bool:
    """Whether this processor, and this version of torch, multiply matrices of eight bits."""
    if not (_INSTRUCTIONS & processor_flags() and hasattr(torch, "_int_mm")):
        return False
    try:
        rows = torch.arange(-48, 48, dtype=torch.int8).reshape(32, 3)
        found = torch._int_mm(rows.T, rows)
    except (RuntimeError, TypeError, NotImplementedError):
        return False
    wide = rows.to(torch.int32)
    return bool(torch.equal(found, wide.T @ wide))


def add_upper_integers(rows: Tensor, most: Tensor, into: Tensor) -> bool:
    """Add ``rows.T @ rows``, on and above the diagonal, to ``into``, unless rounding adds more than ``most``.

    Parameters
    ----------
    rows : Tensor of shape (r, p), float32
    most : Tensor of shape (p,), float32
        Largest variance, times r, that rounding may add.
    into : Tensor of shape (p, p), float32

    Returns
    -------
    bool
        Whether it was added.
    """
    step = torch.clamp(largest_along(rows, 0), min=1e-30).div_(MOST)
    if bool((step.square() * (rows.shape[0] / 12) > most).any()):
        return False
    width = rows.shape[1]
    whole = torch.empty(rows.shape, dtype=torch.int8)
    for start in range(0, rows.shape[0], _PIECE_ROWS):
        here = slice(start, start + _PIECE_ROWS)
        whole[here].copy_(torch.div(rows[here], step).round_())
    stripe = width if width < 2 * STRIPE else STRIPE  # as `mirrored` expects it
    for start in range(0, width, stripe):
        stop = min(start + stripe, width)
        product = torch._int_mm(whole[:, start:stop].T, whole[:, start:]).to(torch.float32)
        into[start:stop, start:] += product.mul_(step[start:]).mul_(step[start:stop, None])
    return True
