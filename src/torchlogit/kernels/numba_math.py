"""Compiled arithmetic: exponential and logarithm that vectorise, sums, extremes; and how anything here is compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

# Sums may change their order to be vectorised, where nothing cancels by design.
REORDER = ("reassoc", "nsz")
# A signed index might count from the end, and the test for that takes a quarter of a sparse product (14 million
# entries, one core: 21, not 16 ms; the transposed one 30, not 21). Numba makes floats of signed and unsigned together.
unsigned = np.uint64
# Degree 11 through the Chebyshev points of [-log(2) / 2, log(2) / 2], to 50 digits: relative error 1.7e-17.
_E2, _E3, _E4 = 0.5000000000000019, 0.1666666666666668, 0.0416666666664881
_E5, _E6, _E7 = 0.008333333333319601, 0.0013888888952314775, 0.00019841269890047113
_E8, _E9, _E10 = 2.4801485482328494e-05, 2.755724091857897e-06, 2.763263963904103e-07
_E11 = 2.5110037605963777e-08
# log(2) in two parts, the first with enough trailing zeros for an exact product, and the polynomial of log: fdlibm's.
_LN2_HIGH, _LN2_LOW, _LN2 = 6.93147180369123816490e-01, 1.90821492927058770002e-10, 0.6931471805599453
_L1, _L2, _L3 = 6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01
_L4, _L5, _L6 = 2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01
_L7 = 1.479819860511658591e-01
# Adding it rounds to an integer, which is then in the last bits.
_ROUND = 6755399441055744.0
_LEAST = -708.0  # below it an exponential is no normal number


# Numba caches a function under its name and looks at nothing but its own file: with the text of all these files in the
# name, compiled code never outlives a change in a function that it calls.
_TEXT = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("numba_*.py")))
_EDITION = hashlib.blake2b(_TEXT, digest_size=4).hexdigest()


def compiled(*flags: str, kept: bool = False, contract: bool = True) -> Callable[[F], F]:
    """Compile on first use without the GIL; ``kept`` on disk, if any directory for it can be written.

    Only those can be called from Python; the others are for compiled functions.

    ``contract``: a product and the sum that it joins may be rounded once.
    """

    def decorate(function: F) -> F:
        if kept:
            function.__qualname__ = f"{function.__name__}_{_EDITION}"
        fast = {"contract", *flags} if contract else set(flags)
        # Wrappers for what nothing calls would take a quarter of the time to compile.
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fast}
        options |= {"no_cpython_wrapper": not kept, "no_cfunc_wrapper": True}
        try:
            return numba.njit(cache=kept, **options)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # no directory
            return numba.njit(**options)(function)  # type: ignore[no-any-return]

    return decorate


@compiled()
def exponential(x: float) -> float:
    """``exp(x)`` for x <= 0, relative error below 2 units of rounding; zero where it is no normal number."""
    y = max(x, _LEAST) * 1.4426950408889634 + _ROUND
    n = y - _ROUND
    r = (max(x, _LEAST) - n * _LN2_HIGH) - n * _LN2_LOW
    p = _E11 * r + _E10
    p = ((p * r + _E9) * r + _E8) * r + _E7
    p = ((p * r + _E6) * r + _E5) * r + _E4
    p = ((p * r + _E3) * r + _E2) * r + 1.0
    p = p * r + 1.0
    power = np.int64((np.float64(y).view(np.int64) + 1023) << 52).view(np.float64)
    return p * power if x >= _LEAST else 0.0


@compiled()
def log_one_plus(u: float) -> float:
    """``log(1 + u)`` for u >= 0, relative error of a few units of rounding, however small u is."""
    bits = np.float64(1.0 + u).view(np.int64)
    steps = (bits - 4604544271217802189) >> 52  # from sqrt(1/2) upwards, in powers of two
    scaled = np.int64(bits - (steps << 52)).view(np.float64) - 1.0
    f = u if steps == 0 else scaled
    s = f / (2.0 + f)
    z = s * s
    p = ((_L7 * z + _L6) * z + _L5) * z + _L4
    p = ((p * z + _L3) * z + _L2) * z + _L1
    return np.float64(steps) * _LN2 + (2.0 * s + s * z * p)


@compiled(*REORDER)
def sum_of(x: Any, n: int) -> float:
    """Of the first n, in an order that vectorises."""
    total = 0.0
    for i in range(n):
        total += x[i]
    return total


@compiled(*REORDER, "nnan")
def smallest(x: Any, w: Any, n: int) -> float:
    """Of the first n that have a weight."""
    least = np.inf
    for i in range(n):
        least = min(least, x[i] if w[i] > 0 else np.inf)
    return least


@compiled(*REORDER, "nnan")
def largest(x: Any, start: int, stop: int) -> float:
    """Of some elements."""
    most = x[start]
    for i in range(start, stop):
        most = max(most, x[i])
    return most  # type: ignore[no-any-return]


@compiled(*REORDER)
def sum_range(x: Any, start: int, stop: int) -> float:
    """Of some elements."""
    total = 0.0
    for i in range(start, stop):
        total += x[i]
    return total
