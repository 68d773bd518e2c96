"""The most confident wrong predictions, each with what led there."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special
from numpy.typing import NDArray

from torchlogit.report.measures import predictions
from torchlogit.report.rows import Seen
from torchlogit.report.text import shown

MOST_MISTAKES = 10
_MOST_SHARES = 6


def mistakes(seen: Seen, classes: list[str], average: NDArray[np.float64]) -> tuple[int, list[dict[str, Any]]]:
    """How many predictions are wrong, and the most confident of them.

    Parameters
    ----------
    seen : Seen
    classes : list of str
    average : ndarray of shape (K, columns + 1)
        Mean share of each column: what a share is measured from. The last is the base.

    Returns
    -------
    count : int
    told : list of dict
        ``row``, ``truth``, ``predicted``, ``probability``, ``shares``: for two classes towards the predicted one, for
        more the predicted one's logit minus the true one's.
    """
    predicted = predictions(seen)
    wrong = np.flatnonzero(predicted != seen.codes)
    if not wrong.size:
        return 0, []
    # by log odds: where probabilities round to one they still tell rows apart
    order = np.argsort(-_log_odds(seen.eta[wrong], predicted[wrong]), kind="stable")[:MOST_MISTAKES]
    chosen = wrong[order]
    index = np.sort(chosen)
    told = seen.source.explained(index, seen.offset)
    names, cells = seen.source.cells(index)
    values = [dict(zip(names, row, strict=True)) for row in cells]
    result = []
    for row in chosen.tolist():
        place, k, true = int(np.searchsorted(index, row)), int(predicted[row]), int(seen.codes[row])
        own = told.shares[place]
        centred = own - average[0] if own.ndim == 1 else own - average
        towards = centred * (1 if k else -1) if own.ndim == 1 else centred[k] - centred[true]
        parts = towards[:-1]
        largest = np.argsort(-np.abs(parts), kind="stable")[:_MOST_SHARES]
        rest = float(parts.sum() - parts[largest].sum())
        base = average[0].sum() * (1 if k else -1) if own.ndim == 1 else average[k].sum() - average[true].sum()
        result.append({
            "row": row, "truth": classes[true], "predicted": classes[k],
            "probability": float(seen.probability[row, k]), "true_probability": float(seen.probability[row, true]),
            "shares": [
                {"name": shown(told.columns[j]), "value": _cell(values[place].get(told.columns[j])),
                 "share": float(parts[j])}
                for j in largest.tolist() if parts[j] != 0
            ],
            "others": len(parts) - len(largest), "rest": rest, "base": float(base) + float(towards[-1]),
            "margin": float(parts.sum() + base + towards[-1]),
        })  # fmt: skip
    return int(wrong.size), result


def _log_odds(eta: NDArray[np.float64], k: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each row's class k against all others, ``(n,)``."""
    if eta.shape[1] == 1:
        return np.where(k == 1, eta[:, 0], -eta[:, 0])
    others = eta.copy()
    others[np.arange(k.size), k] = -np.inf
    return np.asarray(eta[np.arange(k.size), k] - scipy.special.logsumexp(others, axis=1))


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "missing"
    if isinstance(value, float):
        return f"{value:,.6g}".replace("-", "−")
    return shown(value, 80)
