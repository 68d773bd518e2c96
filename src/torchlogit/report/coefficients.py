"""Coefficients with intervals, and how much each column of the table matters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchlogit.encode.columns import Date, Numeric
from torchlogit.report.charts import sampled
from torchlogit.report.information import MOST_COEFFICIENTS, standard_errors
from torchlogit.report.rows import Seen, Source, feature_names
from torchlogit.report.text import shown

Array = NDArray[np.float64]
_NORMAL = 1.959963984540054
_MOST_LISTED = 200  # coefficients in the table; with many classes five times as many among them
MOST_BARS = 15
_MOST_ELEMENTS = 8_000_000
_MOST_ROWS = 2_000
_FEW_COLUMNS = 3


@dataclass(frozen=True)
class Coefficients:
    """What the section shows.

    Parameters
    ----------
    panels : list of dict
        One an output: ``name``, ``rows`` (largest first), ``intercept``.
    total : int
        Number of coefficients of a panel; fewer may be listed.
    intervals : str
        '' where there are intervals, else why there are none.
    reach : float
        Largest size of a bar or its interval.
    """

    panels: list[dict[str, Any]]
    total: int
    intervals: str
    reach: float


def coefficients(seen: Seen, names: list[str], classes: list[str], total_weight: float) -> Coefficients:
    """Of every output, a standard deviation and raw, largest first."""
    classifier = seen.source.classifier
    solution = classifier._current_solution()
    unit = _units(seen.source, len(names))
    ridge = 1.0 / strength_of(classifier)  # 0 without a penalty
    why = _why_not(classifier, seen)
    errors = np.full((solution.outputs, len(names) + 1), np.nan)
    if not why:
        errors = standard_errors(seen.sums, solution, total_weight, ridge, intercept=bool(classifier.fit_intercept))
    deviation = seen.sums.deviation
    panels, reach = [], 1e-12
    most = max(MOST_BARS, min(_MOST_LISTED, 5 * _MOST_LISTED // solution.outputs))
    for k in range(solution.outputs):
        size = np.abs(solution.coef[k] * deviation)
        rows = []
        for place, j in enumerate(np.argsort(-size, kind="stable")[:most].tolist()):
            raw, spread = float(solution.coef[k, j] / unit[j]), float(errors[k, j] / unit[j])
            row = _row(shown(names[j]), raw, spread, float(deviation[j] * unit[j]))
            rows.append(row)
            if place < MOST_BARS:
                ends = [row["per_deviation"], row["per_deviation_low"], row["per_deviation_high"]]
                reach = max(reach, *(abs(end) for end in ends if end is not None))
        title = shown(classes[k]) if solution.outputs > 1 else ""
        intercept = _row("(intercept)", float(solution.intercept[k]), float(errors[k, -1]), 1.0)
        panels.append({"name": title, "rows": rows, "intercept": intercept})
    return Coefficients(panels, len(names), why, reach)


def strength_of(classifier: Any) -> float:
    """C, infinite where there is no penalty."""
    return float("inf") if classifier.penalty is None else float(classifier.C)


def _why_not(classifier: Any, seen: Seen) -> str:
    if seen.sums.gram is None:
        return f"there are more than {MOST_COEFFICIENTS:,} coefficients, and their joint curvature is not formed here"
    if "separated" in classifier.status_:
        return "the classes are separated, so the likelihood has no maximum to measure the curvature at"
    if math.isnan(classifier.kkt_):
        return "the coefficients were not fitted to data, so they are no maximum"
    return ""


def _row(name: str, raw: float, error: float, deviation: float) -> dict[str, Any]:
    known = math.isfinite(error) and error > 0
    low, high = (raw - _NORMAL * error, raw + _NORMAL * error) if known else (None, None)
    return {
        "name": name, "estimate": raw, "std_error": error if known else None, "low": low, "high": high,
        "odds_ratio": _exp(raw), "odds_low": _exp(low), "odds_high": _exp(high),
        "per_deviation": raw * deviation,
        "per_deviation_low": None if low is None else low * deviation,
        "per_deviation_high": None if high is None else high * deviation,
        "deviation": deviation,
        "clear": low is not None and high is not None and (low > 0 or high < 0),
    }  # fmt: skip


def _exp(value: float | None) -> float | None:
    return None if value is None else float(np.exp(min(value, 700.0)))


def _units(source: Source, columns: int) -> Array:
    """What one unit of each numeric column is in the table's own units: a standardised column's deviation."""
    unit = np.ones(columns)
    if source.encoder is None:
        return unit
    place = 0
    for encoding in source.encoder._encodings:  # the dense parts come first, column by column
        if encoding is None:
            continue
        if isinstance(encoding, Numeric | Date) and encoding.scale > 0:
            unit[place] = encoding.scale
        place += len(encoding.dense)
    return unit


def importance(seen: Seen, seed: int) -> tuple[list[dict[str, Any]], Array]:
    """How far each column of the table moves the logit, largest first, and mean shares ``(K, columns + 1)``.

    It is the standard deviation of a column's share; with many classes, the root mean square over them.
    """
    solution = seen.source.classifier._current_solution()
    width = len(seen.source.encoder.decisions_) if seen.source.encoder is not None else solution.coef.shape[1]
    most = int(np.clip(_MOST_ELEMENTS // (solution.outputs * (width + 1)), 20, _MOST_ROWS))
    told = seen.source.explained(sampled(seen.rows, most, seed), seen.offset)
    shares = told.shares[:, None] if told.shares.ndim == 2 else told.shares
    spread = np.sqrt(shares[:, :, :-1].var(0).mean(0))
    average = shares.mean(0)
    if len(spread) < _FEW_COLUMNS <= solution.coef.shape[1]:  # a text: which of its words?
        names = feature_names(seen.source)
        spread = np.sqrt(np.square(solution.coef * seen.sums.deviation).mean(0))
    else:
        names = told.columns
    order = np.argsort(-spread, kind="stable")[:MOST_BARS]
    return [{"name": shown(names[j]), "spread": float(spread[j])} for j in order.tolist()], average
