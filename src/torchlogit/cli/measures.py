"""How good predictions are, against the base rate: added up block by block, as rows come from files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchlogit.prediction import log_probabilities

Array = NDArray[np.float64]
_MEANS = ("accuracy", "log_loss", "brier", "base_accuracy", "base_log_loss", "base_brier")
# Scores looked up at a time.
_PIECE = 1 << 18


class Measures:
    """Accuracy, log loss, AUC and Brier score, and what the base rate would have.

    Of a row only its class, its scores and its weight stay, for the AUC.

    Parameters
    ----------
    base : ndarray of shape (classes,)
        Class shares of the rows that were fitted.
    """

    def __init__(self, base: Array) -> None:
        self._base = base
        self._sums = dict.fromkeys(_MEANS, 0.0)
        self._weight = 0.0
        self._codes: list[NDArray[np.integer[Any]]] = []
        self._scores: list[Array] = []
        self._weights: list[Array] = []

    @classmethod
    def of_all(cls, parts: Sequence[Measures]) -> Measures:
        """Those of several parts of the rows together."""
        whole = cls(parts[0]._base)
        for part in parts:
            whole._weight += part._weight
            for name, value in part._sums.items():
                whole._sums[name] += value
            whole._codes += part._codes
            whole._scores += part._scores
            whole._weights += part._weights
        return whole

    def add(
        self, codes: NDArray[np.integer[Any]], predicted: NDArray[np.int64], eta: Array, weight: Array | None = None
    ) -> None:
        """Take some rows.

        Parameters
        ----------
        codes, predicted : ndarray of shape (rows,), integer
            True and predicted classes.
        eta : ndarray of shape (rows, K)
            Linear predictors.
        weight : ndarray of shape (rows,), optional
        """
        rows, log_probability = codes.size, log_probabilities(eta)
        hot = np.eye(self._base.size)[codes]
        with np.errstate(divide="ignore"):
            base_loss = -np.log(self._base)[codes]
        self._weight += float(rows) if weight is None else float(weight.sum())
        each = (
            predicted == codes,
            -log_probability[np.arange(rows), codes],
            _brier(np.exp(log_probability), hot),
            codes == int(self._base.argmax()),
            base_loss,
            _brier(np.broadcast_to(self._base, hot.shape), hot),
        )
        for name, values in zip(_MEANS, each, strict=True):
            self._sums[name] += float(values.sum() if weight is None else weight @ values)
        self._codes.append(codes)
        # Two classes: the linear predictor has the order of the probabilities, at half the size.
        self._scores.append(eta if eta.shape[1] == 1 else log_probability)
        if weight is not None:
            self._weights.append(weight)

    def figures(self) -> dict[str, Any]:
        """All of them.

        Returns
        -------
        dict
            ``auc`` (the mean over classes, one against the rest) is None where only one class occurs. ``brier`` is the
            mean squared error of the positive class's probability for two classes, the sum over classes for more.
        """
        sums = {name: total / self._weight if self._weight else float("nan") for name, total in self._sums.items()}
        codes = np.concatenate([np.empty(0, np.int64), *self._codes])
        weight = np.concatenate(self._weights) if self._weights else None
        areas = []
        for k in range(self._scores[0].shape[1] if self._scores else 0):
            score = np.concatenate([scores[:, k] for scores in self._scores])
            area = area_under_curve(codes == (1 if self._base.size == 2 else k), score, weight)
            if area is not None:
                areas.append(area)
        return {**sums, "auc": float(np.mean(areas)) if areas else None}


def area_under_curve(truth: NDArray[np.bool_], score: Array, weight: Array | None = None) -> float | None:
    """Share of the pairs of a true and an untrue row in which the true one scores higher; a tie counts half.

    The area under the ROC curve (Hanley and McNeil, 1982). That of scikit-learn holds some eighty bytes a row, which
    files larger than memory do not have.

    Parameters
    ----------
    truth : ndarray of shape (n,), bool
    score : ndarray of shape (n,)
    weight : ndarray of shape (n,), optional

    Returns
    -------
    float or None
        None where one of both sides has no weight.

    Examples
    --------
    >>> area_under_curve(np.array([False, True, False, True]), np.array([0.1, 0.2, 0.2, 0.4]))
    0.875
    """
    if weight is None:
        above, below = np.sort(score[truth]), np.sort(score[~truth])
        pairs = above.size * below.size
        # Of each untrue row twice the true rows that do not score higher.
        lower = sum(
            int(np.searchsorted(above, piece, side).sum()) for piece in _pieces(below) for side in ("left", "right")
        )
        return None if not pairs else 1.0 - 0.5 * lower / pairs
    order = np.argsort(score[truth])
    above = score[truth][order]
    total = np.concatenate([[0.0], np.cumsum(weight[truth][order])])
    below, mass = score[~truth], weight[~truth]
    won = 0.0
    for piece, own in zip(_pieces(below), _pieces(mass), strict=True):
        lower_or_tied = total[np.searchsorted(above, piece, "left")] + total[np.searchsorted(above, piece, "right")]
        won += float(own @ (total[-1] - 0.5 * lower_or_tied))
    mass_of_pairs = float(total[-1] * mass.sum())
    return None if not mass_of_pairs else won / mass_of_pairs


def _pieces(values: Array) -> list[Array]:
    return [values[start : start + _PIECE] for start in range(0, values.size, _PIECE)]


def _brier(probability: NDArray[Any], hot: NDArray[Any]) -> NDArray[Any]:
    squares = np.square(probability - hot)
    return np.asarray(squares[:, 1] if hot.shape[1] == 2 else squares.sum(1))
