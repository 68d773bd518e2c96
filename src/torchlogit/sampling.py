"""Which rows belong to a subsample, a fold or a held-out part: a hash of (seed, file, row in file), nothing else.

Never the rank, the block or the thread, so that one process and seven draw the same rows, and a larger fraction
always contains the smaller one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def _signed(number: int) -> int:
    """Modulo 2^64, as torch holds it: its products wrap around, and have the bits of unsigned ones."""
    return (number + 2**63) % 2**64 - 2**63


_GOLDEN = 0x9E3779B97F4A7C15
# Shifts and factors of the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
_ROUNDS = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)), (31, 1))
# Rows hashed at a time: on a CPU their numbers stay in the cache, on a device they are worth the calls. No array of all
# rows is held.
_PIECE, _DEVICE_PIECE = 65_536, 8_388_608


def _mix(state: Tensor) -> Tensor:
    """The finaliser, in place."""
    room = torch.empty_like(state)
    for shift, factor in _ROUNDS:
        state.bitwise_xor_(_shifted(state, shift, room))
        if factor != 1:
            state.mul_(factor)
    return state


def _shifted(state: Tensor, by: int, out: Tensor) -> Tensor:
    """To the right, zeros coming in."""
    return torch.bitwise_right_shift(state, by, out=out).bitwise_and_(2 ** (64 - by) - 1)


def _uniforms(seed: int, file: int, start: int, stop: int, device: torch.device | str) -> Tensor:
    key = _mix(torch.tensor([_signed(seed + _GOLDEN)]))
    key = _mix(key.add_(_signed((file + 1) * _GOLDEN)))
    state = torch.arange(start + 1, stop + 1, device=device)
    state = _mix(state.mul_(_signed(_GOLDEN)).add_(int(key)))
    return _shifted(state, 11, state).to(torch.float64).mul_(2.0**-53)


def row_uniforms(seed: int, file: int, start: int, stop: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each row ``start <= row < stop`` of a file.

    Parameters
    ----------
    seed, file : int
        The fit's seed and the number of the file among the fit's files.
    start, stop : int
        Rows of the file.

    Returns
    -------
    ndarray of shape (stop - start,), float64

    Examples
    --------
    >>> whole = row_uniforms(0, 0, 0, 1000)
    >>> bool((row_uniforms(0, 0, 400, 500) == whole[400:500]).all())
    True
    >>> 0.2 < float((whole < 0.25).mean()) < 0.3
    True
    """
    found: NDArray[np.float64] = _uniforms(seed, file, start, stop, "cpu").numpy()
    return found


def sampled_rows(
    seed: int,
    file: int,
    start: int,
    rows: int,
    fraction: float,
    known: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Which of the rows ``start <= row < start + rows`` of a file have a hash below ``fraction``.

    Parameters
    ----------
    seed, file, start, rows : int
    fraction : float
    known : Tensor of shape (rows,), float64, optional
        Their hashes, where the rows are not those of a file any more.
    device : torch.device or str, default="cpu"
        Where the rows are, and what is returned.

    Returns
    -------
    index : Tensor, int64
        Counted from 0, rising.
    hashes : Tensor, float64
        Of these rows.

    Examples
    --------
    >>> index, hashes = sampled_rows(0, 0, 0, 1000, 0.5)
    >>> inner = sampled_rows(0, 0, 0, len(index), 0.25, hashes)[0]
    >>> bool((index[inner] == sampled_rows(0, 0, 0, 1000, 0.25)[0]).all())
    True
    """
    step = _PIECE if torch.device(device).type == "cpu" else _DEVICE_PIECE
    found, hashes = [], []
    for first in range(0, max(rows, 1), step):
        last = min(first + step, rows)
        piece = _uniforms(seed, file, start + first, start + last, device) if known is None else known[first:last]
        index = (piece < fraction).nonzero()[:, 0]
        found.append(index + first)
        hashes.append(piece[index])
    return torch.cat(found), torch.cat(hashes)


def file_uniforms(seed: int, counts: Sequence[int]) -> NDArray[np.float64]:
    """The hashes of all rows of several files, one after the other.

    Parameters
    ----------
    seed : int
    counts : sequence of int
        Rows of each file.
    """
    hashes = np.empty(sum(counts))
    done = 0
    for file, rows in enumerate(counts):
        for start in range(0, rows, _PIECE):  # in pieces, whose intermediate results are small
            stop = min(start + _PIECE, rows)
            hashes[done : done + stop - start] = row_uniforms(seed, file, start, stop)
            done += stop - start
    return hashes
