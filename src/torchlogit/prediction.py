"""Linear predictors and probabilities of a fitted model, each row by itself.

A row's result must not depend on which rows stand around it: a file predicted in blocks, an array in one call and a
single row must agree to the last bit. BLAS does not promise that, so dense rows go through `numpy.einsum`, whose
inner loop sees one row at a time (and is no slower than a matrix-vector product, which memory bounds: 1,000,000 x 100
took 0.035 s against OpenBLAS's 0.039 s). SciPy's sparse product walks row by row by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import scipy.special
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchlogit.tensors import check_columns, check_row_ends
from torchlogit.threads import in_ranges

_CHUNK_ELEMENTS = 262_144
# Rows whose logits and exponentials stay in the cache.
_CACHED_ROWS = 32_768
# Entries of a sparse matrix for which loops that were compiled once are loaded.
_WORTH_LOOPS = 1_000_000
# Elements of a product that an exponential takes as long as.
_EXPONENTIALS = 16


@dataclass(frozen=True)
class Solution:
    """Coefficients in float64, raw units.

    Parameters
    ----------
    coef : ndarray of shape (K, p)
    intercept : ndarray of shape (K,)
    centre : ndarray of shape (p,), optional
        Where columns are so far from zero that ``x @ coef + intercept`` would lose digits: the linear predictor is
        then ``(x - centre) @ coef + centred_intercept``.
    centred_intercept : ndarray of shape (K,), optional
    """

    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    centre: NDArray[np.float64] | None = None
    centred_intercept: NDArray[np.float64] | None = None

    @property
    def outputs(self) -> int:
        """K."""
        return int(self.coef.shape[0])

    def base(self) -> NDArray[np.float64]:
        """The linear predictor of a row whose shares are all zero, ``(K,)``."""
        return self.intercept if self.centred_intercept is None else self.centred_intercept


def linear_predictor(solution: Solution, X: Any) -> NDArray[np.float64]:
    """``(n, K)`` float64 for a dense array or CSR matrix."""
    eta = np.empty((X.shape[0], solution.outputs))
    fill = _predictors(solution, X)
    in_ranges(X.shape[0], lambda start, stop: fill(start, stop, eta[start:stop]), _work(solution, X))
    return eta


def array_probabilities(
    solution: Solution, X: Any, offset: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    """`probabilities` of `linear_predictor` plus the offset ``(n, K)``; None where one of these is not finite."""
    rows, outputs = X.shape[0], solution.outputs
    result = np.empty((rows, max(outputs, 2)))
    fill, finite = _predictors(solution, X), []

    def fill_chunks(start: int, stop: int) -> None:
        room = np.empty((min(stop - start, _CACHED_ROWS), outputs))
        for here in range(start, stop, _CACHED_ROWS):
            there = min(here + _CACHED_ROWS, stop)
            eta = room[: there - here]
            fill(here, there, eta)
            if offset is not None:
                eta += offset[here:there]
            finite.append(bool(np.isfinite(eta).all()))
            if finite[-1]:
                _fill_probabilities(eta, result[here:there])

    in_ranges(rows, fill_chunks, _work(solution, X) + rows * outputs * _EXPONENTIALS)
    return result if all(finite) else None


def _work(solution: Solution, X: Any) -> float:
    """Products of a prediction."""
    stored = X.nnz if scipy.sparse.issparse(X) else X.shape[0] * X.shape[1]
    return float(stored * solution.outputs)


def _predictors(solution: Solution, X: Any) -> Callable[[int, int, NDArray[np.float64]], None]:
    """A function that writes linear predictors of rows start to stop ``(stop - start, K)``."""
    if scipy.sparse.issparse(X):
        coef = np.ascontiguousarray(solution.coef.T)

        def fill_sparse(start: int, stop: int, out: NDArray[np.float64]) -> None:
            out[:] = _product(X, start, stop, coef)
            out += solution.intercept

        return fill_sparse
    step = max(1, _CHUNK_ELEMENTS // max(X.shape[1], 1))

    def fill_dense(start: int, stop: int, out: NDArray[np.float64]) -> None:
        for here in range(start, stop, step):
            there = min(here + step, stop)
            rows = np.ascontiguousarray(X[here:there], dtype=np.float64)
            if solution.centre is not None:
                rows = rows - solution.centre
            for k in range(solution.outputs):
                np.einsum("ij,j->i", rows, solution.coef[k], out=out[here - start : there - start, k])
        out += solution.base()

    return fill_dense


def _product(X: Any, start: int, stop: int, coef: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(stop - start, K)``: some rows of a CSR matrix times coefficients ``(p, K)``."""
    indptr = X.indptr[start : stop + 1]
    check_row_ends(indptr, X.indices.size, start)
    if coef.shape[1] == 1 and X.indices.size >= _WORTH_LOOPS:
        from torchlogit.kernels.numba_cpu import sparse_product

        eta = sparse_product(indptr, X.indices, X.data, coef[:, 0])
        if eta is not None:
            return eta[:, None]
    check_columns(indptr, X.indices, X.shape[1], start)
    return np.asarray(_rows_of(X, start, stop) @ coef)


def _rows_of(X: Any, start: int, stop: int) -> Any:
    """Rows of a CSR matrix, without a copy of what they hold."""
    if start == 0 and stop == X.shape[0]:
        return X
    first, last = X.indptr[start], X.indptr[stop]
    rows = scipy.sparse.csr_array((stop - start, X.shape[1]), dtype=X.dtype)
    # Set one by one: the constructor copies what is a part of something larger.
    rows.data, rows.indices = X.data[first:last], X.indices[first:last]
    rows.indptr = X.indptr[start : stop + 1] - first
    return rows


def tensor_linear_predictor(solution: Solution, X: Tensor) -> Tensor:
    """``(n, K)`` float64 on X's device."""
    if X.device.type == "cpu":
        if X.layout == torch.sparse_csr:
            parts = (X.values().numpy(), X.col_indices().numpy(), X.crow_indices().numpy())
            return torch.from_numpy(linear_predictor(solution, scipy.sparse.csr_array(parts, shape=tuple(X.shape))))
        return torch.from_numpy(linear_predictor(solution, X.numpy()))
    coef = torch.from_numpy(solution.coef).to(X.device)
    base = torch.from_numpy(solution.base()).to(X.device)
    if X.layout != torch.strided:
        return X.to(torch.float64) @ coef.T + torch.from_numpy(solution.intercept).to(X.device)
    step = max(1, 64 * _CHUNK_ELEMENTS // max(X.shape[1], 1))
    centre = None if solution.centre is None else torch.from_numpy(solution.centre).to(X.device)
    pieces = []
    for start in range(0, X.shape[0], step):
        rows = X[start : start + step].to(torch.float64)
        pieces.append((rows if centre is None else rows - centre) @ coef.T + base)
    return torch.cat(pieces)


def probabilities(eta: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(n, classes)`` from ``(n, K)``; each entry to its own relative precision."""
    rows, outputs = eta.shape
    result = np.empty((rows, max(outputs, 2)))

    def fill(start: int, stop: int) -> None:
        for here in range(start, stop, _CACHED_ROWS):
            chunk = slice(here, min(here + _CACHED_ROWS, stop))
            _fill_probabilities(eta[chunk], result[chunk])

    in_ranges(rows, fill, float(rows * outputs * _EXPONENTIALS))
    return result


def _fill_probabilities(eta: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    if eta.shape[1] > 1:
        out[:] = scipy.special.softmax(eta, axis=1)
        return
    # With t = exp(-|logit|) the larger probability is 1 / (1 + t), the smaller t / (1 + t): one factor is t, the other
    # exactly one. Choosing between two arrays would take three times as long as a second exponential.
    logit = np.ascontiguousarray(eta[:, 0])
    negative, positive = np.minimum(-logit, 0.0), np.minimum(logit, 0.0)
    np.exp(negative, out=negative)
    np.exp(positive, out=positive)
    share = 1 / (negative + positive)
    np.multiply(negative, share, out=out[:, 0])
    np.multiply(positive, share, out=out[:, 1])


def likeliest(eta: NDArray[np.float64]) -> NDArray[np.int64]:
    """The most probable class of each row, ``(n,)``, from ``(n, K)``."""
    return (eta[:, 0] > 0).astype(np.int64) if eta.shape[1] == 1 else np.asarray(eta.argmax(1), dtype=np.int64)


def log_probabilities(eta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of `probabilities`, finite wherever eta is."""
    if eta.shape[1] == 1:
        return np.concatenate([scipy.special.log_expit(-eta), scipy.special.log_expit(eta)], axis=1)
    return np.asarray(scipy.special.log_softmax(eta, axis=1))


def tensor_probabilities(eta: Tensor) -> Tensor:
    """`probabilities` for tensors."""
    if eta.shape[1] == 1:
        return torch.cat([torch.sigmoid(-eta), torch.sigmoid(eta)], dim=1)
    return torch.softmax(eta, dim=1)


def tensor_log_probabilities(eta: Tensor) -> Tensor:
    """`log_probabilities` for tensors."""
    if eta.shape[1] == 1:
        return torch.cat([torch.nn.functional.logsigmoid(-eta), torch.nn.functional.logsigmoid(eta)], dim=1)
    return torch.log_softmax(eta, dim=1)


def shares(solution: Solution, X: Any, offset: NDArray[np.float64] | None) -> Any:
    """What each column adds to each row's linear predictor, the base (and offset) last.

    Returns
    -------
    ndarray of shape (n, p + 1) for one output, (n, K, p + 1) for more; csr_array for a sparse X with one output.
    """
    rows = X.shape[0]
    alone = solution.intercept if scipy.sparse.issparse(X) else solution.base()
    base = np.broadcast_to(alone, (rows, solution.outputs))
    base = base if offset is None else base + offset
    if scipy.sparse.issparse(X) and solution.outputs == 1:
        scaled = scipy.sparse.csr_array(X, dtype=np.float64, copy=True)
        scaled.data *= solution.coef[0][scaled.indices]
        return scipy.sparse.csr_array(scipy.sparse.hstack([scaled, scipy.sparse.csr_array(base)], format="csr"))
    dense = X.toarray() if scipy.sparse.issparse(X) else np.asarray(X)
    dense = dense.astype(np.float64)
    if solution.centre is not None and not scipy.sparse.issparse(X):
        dense = dense - solution.centre
    parts = dense[:, None, :] * solution.coef[None]
    whole = np.concatenate([parts, base[:, :, None]], axis=2)
    return whole[:, 0] if solution.outputs == 1 else whole
