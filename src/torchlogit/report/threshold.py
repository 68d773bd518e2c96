"""Counts of right and wrong predictions at every stop of the slider: exact, not binned."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchlogit.report.rows import Seen

_RARE = 0.01  # below this share probabilities crowd near zero, and the slider needs finer stops


def stops(seen: Seen) -> NDArray[np.float64]:
    """Thresholds from 0 to 1: thousandths, or ten-thousandths where a class is rare."""
    share = float(seen.mass[seen.codes == 1].sum() / seen.mass.sum())
    parts = 10_000 if 0 < min(share, 1 - share) < _RARE else 1_000
    return np.arange(parts + 1) / parts


def counts(seen: Seen, thresholds: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows (or their weight) with a probability at or above each threshold: true positives, false positives."""
    result = []
    for truth in (True, False):
        here = (seen.codes == 1) == truth
        score = seen.probability[here, 1]
        order = np.argsort(score, kind="stable")
        below = np.searchsorted(score[order], thresholds, side="left")
        if seen.weight is None:
            result.append(score.size - below)
        else:
            ahead = np.append(np.cumsum(seen.weight[here][order][::-1])[::-1], 0.0)
            result.append(ahead[below])
    return result[0], result[1]


def matrix(seen: Seen, threshold: float) -> dict[str, float]:
    """The confusion matrix at one threshold."""
    true, false = (float(values[0]) for values in counts(seen, np.array([threshold])))
    ones, zeros = (float(seen.mass[seen.codes == k].sum()) for k in (1, 0))
    return {"tn": zeros - false, "fp": false, "fn": ones - true, "tp": true}


def slider(seen: Seen, threshold: float) -> dict[str, Any]:
    """What the script needs."""
    thresholds = stops(seen)
    true, false = counts(seen, thresholds)
    return {
        "parts": thresholds.size - 1,
        "true_positives": true.tolist(),
        "false_positives": false.tolist(),
        "positives": float(seen.mass[seen.codes == 1].sum()),
        "negatives": float(seen.mass[seen.codes == 0].sum()),
        "start": threshold,
        "whole": seen.weight is None,
    }
