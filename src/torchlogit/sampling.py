"""Which rows belong to a subsample, a fold or a held-out part: a hash of (seed, file, row in file), nothing else.

Never the rank, the block or the thread, so that one process and seven draw the same rows, and a larger fraction
always contains the smaller one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), modulo 2^64."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


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
    with np.errstate(over="ignore"):
        key = _mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64) + _GOLDEN)
        key = _mix(key + np.uint64(file + 1) * _GOLDEN)
        state = _mix(key + (np.arange(start, stop, dtype=np.uint64) + np.uint64(1)) * _GOLDEN)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


# Rows hashed at a time: their numbers stay in the cache, and no array of all rows is held.
_PIECE = 65_536


def sampled_rows(
    seed: int, file: int, start: int, rows: int, fraction: float, known: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which of the rows ``start <= row < start + rows`` of a file have a hash below ``fraction``.

    Parameters
    ----------
    seed, file, start, rows : int
    fraction : float
    known : ndarray of shape (rows,), float64, optional
        Their hashes, where the rows are not those of a file any more.

    Returns
    -------
    index : ndarray of int64
        Counted from 0, rising.
    hashes : ndarray of float64
        Of these rows.

    Examples
    --------
    >>> index, hashes = sampled_rows(0, 0, 0, 1000, 0.5)
    >>> inner = sampled_rows(0, 0, 0, len(index), 0.25, hashes)[0]
    >>> bool((index[inner] == sampled_rows(0, 0, 0, 1000, 0.25)[0]).all())
    True
    """
    found, hashes = [np.empty(0, np.int64)], [np.empty(0)]
    for first in range(0, rows, _PIECE):
        last = min(first + _PIECE, rows)
        piece = row_uniforms(seed, file, start + first, start + last) if known is None else known[first:last]
        index = np.flatnonzero(piece < fraction)
        found.append(index + first)
        hashes.append(piece[index])
    return np.concatenate(found), np.concatenate(hashes)
