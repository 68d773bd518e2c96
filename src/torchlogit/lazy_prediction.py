"""Predictions for rows that are read as they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchlogit.errors import InputError
from torchlogit.prediction import linear_predictor
from torchlogit.rows import LazyRows, RowBatch
from torchlogit.table import Table

if TYPE_CHECKING:
    from torchlogit.estimator import LogisticRegression


def lazy_linear_predictor(model: LogisticRegression, X: LazyRows, offset: Any) -> NDArray[np.float64]:
    """``(n, K)``: batch after batch, so that only the results are held."""
    if offset is None:
        pieces = [eta for eta, _ in linear_predictor_batches(model, X)]
        return np.concatenate([np.empty((0, model._current_solution().outputs)), *pieces])
    eta = np.concatenate([eta for eta, _ in linear_predictor_batches(model, X, own_offset=False)])
    added = model._offsets(offset, eta.shape[0])
    return eta if added is None else eta + added


def linear_predictor_batches(
    model: LogisticRegression, X: LazyRows, *, own_offset: bool = True
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64] | None]]:
    """Linear predictors of each batch, with the weights it carries.

    Parameters
    ----------
    model : LogisticRegression
        Fitted.
    X : LazyRows
    own_offset : bool, default=True
        Whether to add the offsets that the rows carry; a model fitted with an offset then demands them.

    Yields
    ------
    eta : ndarray of shape (rows, K)
    weight : ndarray of shape (rows,), or None
    """
    solution, seen = model._current_solution(), 0
    for matrix, batch in aligned_batches(model, X):
        if matrix.shape[1] != model.n_features_in_:
            raise ValueError(
                f"X has {matrix.shape[1]} features, but {type(model).__name__} is expecting {model.n_features_in_} "
                "features as input."
            )
        eta = linear_predictor(solution, matrix)
        if not np.isfinite(eta).all():
            row = int(np.flatnonzero(~np.isfinite(eta).all(1))[0])
            raise InputError(
                f"{X.place(seen + row)}: a value is missing or infinite, and the model was fitted without a "
                "TableEncoder, which would know what to do with it"
            )
        added = model._offsets(batch.offset, batch.rows) if own_offset else None
        yield eta if added is None else eta + added, batch.weight
        seen += batch.rows


def aligned(model: LogisticRegression, X: LazyRows) -> tuple[LazyRows, list[int] | None]:
    """The rows, and where each of the model's columns is in them (None: in its place); columns are known by name."""
    known = getattr(model, "feature_names_in_", None)
    names, have = [str(name) for name in (() if known is None else known)], X.feature_names
    if known is None or names == have:
        return X, None
    if isinstance(X, Table) and X.is_sparse:  # its width depends on its rows
        return X.with_columns(names), None
    where = {name: j for j, name in enumerate(have)}
    lacking = [name for name in names if name not in where]
    if lacking:
        raise InputError(
            f"{X.place(0).split(', row')[0]} has no column '{lacking[0]}', which the model was fitted with"
        )
    return X, [where[name] for name in names]


def aligned_batches(model: LogisticRegression, X: LazyRows) -> Iterator[tuple[Any, RowBatch]]:
    """Each batch, with its numbers in the order of the model's columns before it."""
    X, order = aligned(model, X)
    for batch in X.numeric_batches():
        matrix = batch.matrix()
        yield (matrix if order is None else matrix[:, order]), batch


def lazy_labels(X: LazyRows, sample_weight: Any) -> tuple[Any, Any]:
    """Labels and weights that the rows bring."""
    if X.target is None:
        raise ValueError("the scan has no target column; name it: scan(..., target='...')")
    if sample_weight is None and X.has_weight:
        sample_weight = np.concatenate([b.weight for b in X.numeric_batches() if b.weight is not None])
    return X.labels(), sample_weight
