"""Which rows belong to a subsample, a fold or a held-out part: a hash of (seed, file, row in file), nothing else.

Never the rank, the block or the thread, so that one process and seven draw the same rows, and a larger fraction
always contains the smaller one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchlogit.threads import in_ranges

_GOLDEN = 0x9E3779B97F4A7C15
# Shifts and factors of the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
# Rows hashed at a time: on a CPU their numbers stay in the cache, on a device they are worth the calls. No array of all
# rows is held.
_PIECE, _DEVICE_PIECE = 65_536, 8_388_608
# Elements that a row's hash goes through.
_WORK = 16.0


def _mix(state: Any, shifted: Callable[[Any, int], Any], number: Callable[[int], Any]) -> Any:
    """The finaliser, in place: of an array, or of a tensor."""
    for shift, factor in _ROUNDS:
        state ^= shifted(state, shift)
        if factor != 1:
            state *= number(factor)
    return state


def _key(seed: int, file: int) -> int:
    state = np.array([seed % 2**64], dtype=np.uint64)
    for step in (_GOLDEN, (file + 1) * _GOLDEN % 2**64):
        state = _mix(state + np.uint64(step), _shifted, np.uint64)
    return int(state[0])


def _shifted(state: NDArray[np.uint64], by: int) -> NDArray[np.uint64]:
    return state >> np.uint64(by)


def _hashes(key: int, start: int, stop: int) -> NDArray[np.uint64]:
    """Of some rows: whole numbers of 53 bits."""
    room = np.empty(stop - start, dtype=np.uint64)

    def shifted(state: NDArray[np.uint64], by: int) -> NDArray[np.uint64]:
        return np.right_shift(state, np.uint64(by), out=room)

    state = np.arange(start + 1, stop + 1, dtype=np.uint64)
    state *= np.uint64(_GOLDEN)
    state += np.uint64(key)
    return shifted(_mix(state, shifted, np.uint64), 11)


def _signed(number: int) -> int:
    """Modulo 2^64, as torch holds it: its products wrap around, and have the bits of unsigned ones."""
    return (number + 2**63) % 2**64 - 2**63


def _device_hashes(key: int, start: int, stop: int, device: torch.device) -> Tensor:
    """The same on a device."""
    room = torch.empty(stop - start, dtype=torch.int64, device=device)

    def shifted(state: Tensor, by: int) -> Tensor:
        return torch.bitwise_right_shift(state, by, out=room).bitwise_and_(2 ** (64 - by) - 1)

    state = torch.arange(start + 1, stop + 1, device=device)
    state.mul_(_signed(_GOLDEN)).add_(_signed(key))
    return shifted(_mix(state, shifted, _signed), 11)


def _chosen(key: int, start: int, stop: int, below: int) -> tuple[Tensor, Tensor]:
    """Which rows of a range have a smaller hash, counted from its first, and their hashes as fractions."""
    piece = _hashes(key, start, stop)
    index = np.flatnonzero(piece < below)
    return torch.from_numpy(index), torch.from_numpy(piece[index] * 2.0**-53)


def _chosen_on(device: torch.device, key: int, start: int, stop: int, below: int) -> tuple[Tensor, Tensor]:
    """The same on a device."""
    piece = _device_hashes(key, start, stop, device)
    index = (piece < below).nonzero()[:, 0]
    return index, piece[index].to(torch.float64) * 2.0**-53


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
    return _hashes(_key(seed, file), start, stop).astype(np.float64) * 2.0**-53


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
    if known is not None:
        index = (known < fraction).nonzero()[:, 0]
        return index, known[index]
    key, device = _key(seed, file), torch.device(device)
    below = math.ceil(fraction * 2**53)  # of whole numbers: those that are chosen become fractions, not all
    here = device.type == "cpu"
    step, choose = (_PIECE, _chosen) if here else (_DEVICE_PIECE, partial(_chosen_on, device))
    parts: dict[int, tuple[Tensor, Tensor]] = {}

    def fill(first: int, last: int) -> None:
        for a in range(first, max(last, 1), step):  # of no rows an empty part
            index, hashes = choose(key, start + a, start + min(a + step, last), below)
            parts[a] = index + a, hashes

    if here:
        in_ranges(rows, fill, _WORK * rows)
    else:
        fill(0, rows)
    index, hashes = (torch.cat([parts[a][i] for a in sorted(parts)]) for i in range(2))
    return index, hashes


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
