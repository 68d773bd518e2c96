"""Means, deviations and curvature of the rows, block by block, and the standard errors that follow from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from torchlogit.prediction import Solution

Array = NDArray[np.float64]
# Coefficients up to which the curvature is formed and inverted: beyond, that would take longer than the fit.
MOST_COEFFICIENTS = 1_500
# Multiplications that the curvature may cost, about two seconds; of more rows a sample gives it.
MOST_OPERATIONS = 4e9
_SINGULAR = 1e-12  # of the largest eigenvalue, in standardised units


class Sums:
    """Weighted sums over blocks of rows.

    Parameters
    ----------
    outputs, columns : int
    curvature : bool
        Whether to add up the curvature too.
    """

    def __init__(self, outputs: int, columns: int, *, curvature: bool) -> None:
        self.weight = 0.0
        self.curvature_weight = 0.0
        self.shift: Array | None = None
        self.first, self.second = np.zeros(columns), np.zeros(columns)
        size = columns + 1
        self.gram = np.zeros((outputs, size, outputs, size)) if curvature else None

    def add(self, matrix: Any, weight: Array) -> None:
        """Means and squares of a block."""
        sparse = scipy.sparse.issparse(matrix)
        if self.shift is None:  # a timestamp squared has lost its digits
            self.shift = np.zeros(matrix.shape[1]) if sparse else np.asarray(matrix[:1], dtype=np.float64).mean(0)
        self.weight += float(weight.sum())
        if sparse:
            self.first += matrix.T @ weight
            self.second += matrix.power(2).T @ weight
        else:
            centred = np.asarray(matrix, dtype=np.float64) - self.shift
            self.first += weight @ centred
            self.second += weight @ np.square(centred)

    def add_curvature(self, matrix: Any, probability: Array, weight: Array) -> None:
        """Second derivatives of a block's log loss; ``probability`` is ``(rows, classes)``."""
        assert self.gram is not None and self.shift is not None
        self.curvature_weight += float(weight.sum())
        if scipy.sparse.issparse(matrix):
            whole: Any = scipy.sparse.csr_array(
                scipy.sparse.hstack([matrix, np.ones((matrix.shape[0], 1))], format="csr")
            )
        else:
            whole = np.column_stack([np.asarray(matrix, dtype=np.float64) - self.shift, np.ones(matrix.shape[0])])
        if self.gram.shape[0] == 1:
            self.gram[0, :, 0] += _weighted_gram(whole, weight * probability[:, 0] * probability[:, 1])
            return
        for k in range(self.gram.shape[0]):
            for other in range(k + 1):
                bent = probability[:, k] * ((k == other) - probability[:, other])
                part = _weighted_gram(whole, weight * bent)
                self.gram[k, :, other] += part
                if other != k:
                    self.gram[other, :, k] += part

    @property
    def mean(self) -> Array:
        """Mean of each column."""
        assert self.shift is not None
        return self.shift + self.first / max(self.weight, 1e-300)

    @property
    def deviation(self) -> Array:
        """Standard deviation of each column."""
        total = max(self.weight, 1e-300)
        variance = np.maximum(self.second / total - np.square(self.first / total), 0.0)
        # what cancellation leaves of a constant column is not spread
        return np.asarray(np.where(variance <= 1e-14 * self.second / total, 0.0, np.sqrt(variance)))


def _weighted_gram(matrix: Any, weight: Array) -> Array:
    if scipy.sparse.issparse(matrix):
        product = matrix.T @ (scipy.sparse.diags_array(weight) @ matrix)
        return np.asarray(product.toarray())
    return np.asarray(matrix.T @ (weight[:, None] * matrix))


def standard_errors(sums: Sums, solution: Solution, total_weight: float, ridge: float, *, intercept: bool) -> Array:
    """Square roots of the diagonal of the inverse observed information, ``(K, p + 1)``, the intercept last.

    Parameters
    ----------
    sums : Sums
        With the curvature at the solution.
    solution : Solution
    total_weight : float
        Of the rows that were fitted; the curvature is scaled to it.
    ridge : float
        ``1 / C``: curvature of the penalty, on the scale of a sum over rows.
    intercept : bool
        Whether there is one.
    """
    assert sums.gram is not None and sums.shift is not None
    outputs, width = sums.gram.shape[:2]
    scale = np.where(sums.deviation > 0, sums.deviation, 1.0)
    # from the shifted columns to centred, standardised ones: z = (x - mean) / scale
    change = np.diag(np.append(1.0 / scale, 1.0))
    change[:-1, -1] = (sums.shift - sums.mean if intercept else sums.shift) / scale
    gram = np.einsum("ij,kjlm,nm->kiln", change, sums.gram, change, optimize=True)
    gram *= total_weight / max(sums.curvature_weight, 1e-300)
    penalty = np.append(ridge / np.square(scale), 0.0)
    for k in range(outputs):
        gram[k, np.arange(width), k, np.arange(width)] += penalty
    if not intercept:
        gram = gram[:, :-1, :, :-1]
    kept = gram.shape[1]
    inverse, free = _inverse(gram.reshape(outputs * kept, outputs * kept), outputs)
    covariance = inverse.reshape(outputs, kept, outputs, kept)
    back = np.diag(np.append(1.0 / scale, 1.0))
    back[-1, :-1] = -sums.mean / scale
    errors = np.zeros((outputs, width))
    for k in range(outputs):
        own = back[:kept, :kept] @ covariance[k, :, k] @ back[:kept, :kept].T
        errors[k, :kept] = np.sqrt(np.maximum(np.diag(own), 0.0))
    errors[:, :kept][free] = np.nan
    return errors


def _inverse(matrix: Array, outputs: int) -> tuple[Array, NDArray[np.bool_]]:
    """The (pseudo-)inverse, and which coefficients ``(K, kept)`` the rows do not determine at all.

    A shift that all classes share changes no probability of a softmax; it is left out, and leaves nothing undetermined.
    """
    values, vectors = scipy.linalg.eigh(matrix)
    usable = values > _SINGULAR * max(float(values[-1]), 1e-300)
    null = vectors[:, ~usable].T.reshape(-1, outputs, matrix.shape[0] // outputs)
    if outputs > 1:
        null = null - null.mean(1, keepdims=True)
    free = np.sqrt(np.square(null).sum(0)) > 1e-6
    return np.asarray((vectors[:, usable] / values[usable]) @ vectors[:, usable].T), free
