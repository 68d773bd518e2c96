"""How good the predictions are: scikit-learn's measures, the base rate's, and how certain they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from torchlogit.prediction import likeliest, log_probabilities
from torchlogit.report.rows import Seen

Array = NDArray[np.float64]
Interval = tuple[float, float] | None
_NORMAL = 1.959963984540054  # 97.5 %: an interval of 95 %


@dataclass(frozen=True)
class Measures:
    """Figures of the rows, with intervals of 95 % where there are any.

    Parameters
    ----------
    accuracy, log_loss, brier : float
    auc, average_precision : float, optional
        Means over classes, one against the rest; None where only one class occurs.
    base_accuracy, base_log_loss, base_brier : float
        Of a model that knows only the class shares of the same rows.
    accuracy_interval, auc_interval, gain_interval : tuple of two float, optional
        `gain` is the mean log loss that the model saves a row.
    shares : ndarray of shape (classes,)
        Of each class.
    confusion : ndarray of shape (classes, classes)
        Truth by row, prediction by column.
    per_class : list of dict
        precision, recall, f1, support, auc, average_precision.
    """

    accuracy: float
    log_loss: float
    brier: float
    auc: float | None
    average_precision: float | None
    base_accuracy: float
    base_log_loss: float
    base_brier: float
    accuracy_interval: Interval
    auc_interval: Interval
    gain_interval: Interval
    shares: Array
    confusion: NDArray[Any]
    per_class: list[dict[str, Any]]

    @property
    def explained(self) -> float:
        """Share of the base rate's log loss that the model removes (McFadden's R²)."""
        return 1.0 - self.log_loss / self.base_log_loss if self.base_log_loss > 0 else float("nan")


def measured(seen: Seen) -> Measures:
    """All of them."""
    codes, weight, probability = seen.codes, seen.weight, seen.probability
    classes = probability.shape[1]
    labels = np.arange(classes)
    predicted = predictions(seen)
    shares = np.bincount(codes, weights=seen.mass, minlength=classes) / seen.mass.sum()
    base = np.broadcast_to(shares, probability.shape)
    per_class = _per_class(seen, predicted)
    areas = [row["auc"] for row in per_class if row["auc"] is not None]
    precisions = [row["average_precision"] for row in per_class if row["average_precision"] is not None]
    two = classes == 2
    accuracy = float(accuracy_score(codes, predicted, sample_weight=weight))
    return Measures(
        accuracy=accuracy,
        log_loss=float(log_loss(codes, probability, labels=labels, sample_weight=weight)),
        brier=_brier(codes, probability, weight),
        auc=(per_class[1]["auc"] if two else float(np.mean(areas))) if areas else None,
        average_precision=(per_class[1]["average_precision"] if two else float(np.mean(precisions)))
        if precisions
        else None,
        base_accuracy=float(shares.max()),
        base_log_loss=float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum()),
        base_brier=_brier(codes, base, weight),
        accuracy_interval=_wilson(accuracy, _effective(seen)),
        auc_interval=_delong(codes == 1, seen.eta[:, 0]) if two and weight is None and areas else None,
        gain_interval=_gain(seen, shares),
        shares=shares,
        confusion=confusion_matrix(codes, predicted, labels=labels, sample_weight=weight),
        per_class=per_class,
    )


def predictions(seen: Seen) -> NDArray[np.int64]:
    """The likeliest class of each row, as `LogisticRegression.predict` has it."""
    return likeliest(seen.eta)


def _brier(codes: NDArray[np.int64], probability: Array, weight: Array | None) -> float:
    """The positive class's mean squared error for two classes, the sum over classes for more."""
    if probability.shape[1] == 2:
        return float(brier_score_loss(codes == 1, probability[:, 1], sample_weight=weight, pos_label=True))
    return float(
        brier_score_loss(
            codes, probability, sample_weight=weight, labels=np.arange(probability.shape[1]), scale_by_half=False
        )
    )


def _per_class(seen: Seen, predicted: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Each class against the rest."""
    classes = seen.probability.shape[1]
    precision, recall, f1, support = precision_recall_fscore_support(
        seen.codes, predicted, labels=np.arange(classes), sample_weight=seen.weight, zero_division=0.0
    )
    rows = []
    counting = seen.codes if seen.weight is None else seen.codes[seen.weight > 0]
    for k in range(classes):
        truth, own = seen.codes == k, counting == k
        auc = average = None
        # of two classes, the first's figures mirror the second's, and a sort of a million rows takes a second
        if own.any() and not own.all() and (classes > 2 or k == 1):
            score = seen.probability[:, k]
            auc = float(roc_auc_score(truth, score, sample_weight=seen.weight))
            average = float(average_precision_score(truth, score, sample_weight=seen.weight))
        rows.append(
            {
                "precision": float(precision[k]),
                "recall": float(recall[k]),
                "f1": float(f1[k]),
                "support": float(support[k]),
                "auc": auc,
                "average_precision": average,
            }
        )
    return rows


def _effective(seen: Seen) -> float:
    """Number of rows that equal weights would have to be spread over (Kish)."""
    return float(seen.mass.sum() ** 2 / np.square(seen.mass).sum())


def _wilson(share: float, rows: float) -> Interval:
    """For a share of so many rows."""
    square = _NORMAL**2
    middle = (share + square / (2 * rows)) / (1 + square / rows)
    half = _NORMAL / (1 + square / rows) * np.sqrt(share * (1 - share) / rows + square / (4 * rows**2))
    return float(max(middle - half, 0.0)), float(min(middle + half, 1.0))


def _delong(truth: NDArray[np.bool_], score: Array) -> Interval:
    """For the area under the ROC curve, by DeLong's variance (Sun and Xu's form: by ranks), on the logit scale."""
    positive, negative = score[truth], score[~truth]
    ones, zeros = positive.size, negative.size
    if min(ones, zeros) < 2:
        return None
    ranks = scipy.stats.rankdata(np.concatenate([positive, negative]))
    above = (ranks[:ones] - scipy.stats.rankdata(positive)) / zeros
    below = 1 - (ranks[ones:] - scipy.stats.rankdata(negative)) / ones
    area = float(above.mean())
    deviation = float(np.sqrt(above.var(ddof=1) / ones + below.var(ddof=1) / zeros))
    if not 0 < area < 1 or deviation == 0:
        return None
    logit, half = np.log(area / (1 - area)), _NORMAL * deviation / (area * (1 - area))
    low, high = 1 / (1 + np.exp(-(logit - half))), 1 / (1 + np.exp(-(logit + half)))
    return float(low), float(high)


def _gain(seen: Seen, shares: Array) -> Interval:
    """For the mean log loss saved a row, against the class shares."""
    if seen.rows < 2:
        return None
    own = log_probabilities(seen.eta)[np.arange(seen.rows), seen.codes]
    with np.errstate(divide="ignore"):
        gain = own - np.log(shares)[seen.codes]
    counting = seen.mass > 0
    mass, gain = seen.mass[counting], gain[counting]
    mean = float(np.average(gain, weights=mass))
    half = _NORMAL * float(np.sqrt(np.average(np.square(gain - mean), weights=mass) / _effective(seen)))
    return mean - half, mean + half
