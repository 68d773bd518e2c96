"""Predictions for rows that are read as they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchlogit.prediction import linear_predictor
from torchlogit.rows import LazyRows

if TYPE_CHECKING:
    from torchlogit.estimator import LogisticRegression


def lazy_linear_predictor(model: LogisticRegression, X: LazyRows, offset: Any) -> NDArray[np.float64]:
    """``(n, K)``: batch after batch, so that only the results are held."""
    solution = model._current_solution()
    pieces, offsets = [np.empty((0, solution.outputs))], []
    for batch in X.numeric_batches():
        matrix = batch.matrix()
        if matrix.shape[1] != model.n_features_in_:
            raise ValueError(
                f"X has {matrix.shape[1]} features, but {type(model).__name__} is expecting {model.n_features_in_} features "
                "as input."
            )
        eta = linear_predictor(solution, matrix)
        if not np.isfinite(eta).all():
            row = int(np.flatnonzero(~np.isfinite(eta).all(1))[0])
            raise ValueError(f"Input X contains NaN or infinity in {X.place(sum(map(len, pieces)) + row)}.")
        pieces.append(eta)
        if batch.offset is not None:
            offsets.append(batch.offset)
    eta = np.concatenate(pieces)
    if offset is None and offsets:
        offset = np.concatenate(offsets)
    added = model._offsets(offset, eta.shape[0])
    return eta if added is None else eta + added


def lazy_labels(X: LazyRows, sample_weight: Any) -> tuple[Any, Any]:
    """Labels and weights that the rows bring."""
    if X.target is None:
        raise ValueError("the scan has no target column; name it: scan(..., target='...')")
    batches = [(batch.target, batch.weight) for batch in X.numeric_batches()]
    labels = np.concatenate([target for target, _ in batches if target is not None])
    if sample_weight is None and X.has_weight:
        sample_weight = np.concatenate([weight for _, weight in batches if weight is not None])
    return labels, sample_weight
