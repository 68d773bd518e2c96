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
