"""How good predictions are, against what knowing only the class shares would give."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

Weights = NDArray[np.float64] | None


def measures(
    codes: NDArray[np.integer[Any]],
    predicted: NDArray[np.int64],
    log_probability: NDArray[np.float64],
    base: NDArray[np.float64],
    weight: Weights = None,
) -> dict[str, Any]:
    """Accuracy, log loss, AUC and Brier score, and what the base rate would have.

    Parameters
    ----------
    codes : ndarray of shape (n,), integer
        True classes.
    predicted : ndarray of shape (n,), int64
        Predicted classes.
    log_probability : ndarray of shape (n, K)
        Natural logarithms.
    base : ndarray of shape (K,)
        Class shares of the rows that were fitted.
    weight : ndarray of shape (n,), optional

    Returns
    -------
    dict
        ``auc`` (the mean over classes, one against the rest) is None where only one class occurs. ``brier`` is the
        mean squared error of the positive class's probability for two classes, the sum over classes for more.
    """
    rows, outputs = log_probability.shape
    probability = np.exp(log_probability)
    own = log_probability[np.arange(rows), codes]
    hot = np.eye(outputs)[codes]
    with np.errstate(divide="ignore"):
        base_loss = -np.log(base)[codes]
    result: dict[str, Any] = {
        "accuracy": _mean(predicted == codes, weight),
        "log_loss": _mean(-own, weight),
        "brier": _mean(_brier(probability, hot), weight),
        "base_accuracy": _mean(codes == int(base.argmax()), weight),
        "base_log_loss": _mean(base_loss, weight),
        "base_brier": _mean(_brier(np.broadcast_to(base, hot.shape), hot), weight),
    }
    areas = []
    for k in [1] if outputs == 2 else range(outputs):
        truth = codes == k
        if _varies(truth, weight):
            areas.append(float(roc_auc_score(truth, log_probability[:, k], sample_weight=weight)))
    return {**result, "auc": float(np.mean(areas)) if areas else None}


def _varies(truth: NDArray[Any], weight: Weights) -> bool:
    """Whether rows that count are both in and out of a class."""
    counting = truth if weight is None else truth[weight > 0]
    return bool(counting.any() and not counting.all())


def _brier(probability: NDArray[Any], hot: NDArray[Any]) -> NDArray[Any]:
    squares = np.square(probability - hot)
    return np.asarray(squares[:, 1] if hot.shape[1] == 2 else squares.sum(1))


def _mean(values: NDArray[Any], weight: Weights) -> float:
    if weight is not None and not weight.any():
        return float("nan")
    return float(np.average(values.astype(np.float64), weights=weight))
