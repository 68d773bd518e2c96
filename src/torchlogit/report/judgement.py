"""The verdict: is this fit good, can it be trusted, what to do next. Sentences, each with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from torchlogit.prediction import log_probabilities
from torchlogit.report.measures import Measures
from torchlogit.report.notices import Notice, Situation, fitted_rows, next_steps, notices
from torchlogit.report.rows import Seen
from torchlogit.report.text import counted, fixed, number, percent, percents, shown

# How much of the base rate's log loss must go before a word is used.
_WORDS = (
    (0.5, "strong", "far better than"),
    (0.2, "good", "clearly better than"),
    (0.05, "moderate", "somewhat better than"),
    (0.0, "weak", "barely better than"),
)
_OPENING = {"strong": "A strong model", "good": "A good model", "moderate": "A moderate model"}
_SAME_OBJECTIVE = 1e-7  # relative: other rows do not come so close


@dataclass(frozen=True)
class Verdict:
    """What the first screen says.

    Parameters
    ----------
    headline : str
    certified : bool
    certificate : str
        What the certificate means here, in plain words.
    quality : str
        One or two words for the mark: 'good', 'weak', ...
    good : str
    sure : str
    next_steps : list of str
    notices : list of Notice
    """

    headline: str
    certified: bool
    certificate: str
    quality: str
    good: str
    sure: str
    next_steps: list[str]
    notices: list[Notice]


def _quality(measures: Measures) -> tuple[str, str]:
    """A word, and how the model compares with the base rate."""
    gain, interval = measures.explained, measures.gain_interval
    if int((measures.shares > 0).sum()) < 2:
        return "undecided", "not comparable with the base rate (one class alone)"
    if interval is not None and interval[0] > 0:
        quality, text = next((word for least, *word in _WORDS if gain >= least))
        return quality, f"{text} the base rate"
    ranks = measures.auc_interval is not None and measures.auc_interval[0] > 0.5
    ranks = ranks or (measures.accuracy_interval is not None and measures.accuracy_interval[0] > measures.base_accuracy)
    if ranks and gain > 0:
        return "promising", "only probably better than the base rate"
    if ranks:
        return "mixed", "tells the classes apart with probabilities that are too extreme"
    if gain > 0:
        return "unproven", "not provably better than the base rate"
    return "poor", "no better than the base rate"


def is_training(seen: Seen) -> bool | None:
    """Whether these are the rows of the fit: their objective is the one that the fit ended with. None: unknown."""
    classifier, known = seen.source.classifier, fitted_rows(seen.source.classifier)
    if known is None or not math.isfinite(classifier.objective_):
        return None
    if known[0] != seen.rows:
        return False
    own = log_probabilities(seen.eta)[np.arange(seen.rows), seen.codes]
    strength = math.inf if classifier.penalty is None else float(classifier.C)
    penalty = float(np.square(classifier._current_solution().coef).sum()) / (2 * strength * seen.total)
    objective = float(-(seen.fitted @ own) / seen.total) + penalty
    return bool(abs(objective - classifier.objective_) <= _SAME_OBJECTIVE * abs(classifier.objective_))


def judge(seen: Seen, measures: Measures, classes: list[str], training: bool | None, coefficients: int) -> Verdict:
    """Put it into words."""
    classifier = seen.source.classifier
    certified = bool(classifier.converged_)
    quality, said = _quality(measures)
    situation = Situation(seen, measures, classes, training, coefficients, quality)
    rows = "on the rows it was fitted to" if training else f"on these {counted(seen.rows, 'row')}"
    if certified and quality in _OPENING:
        headline = f"{_OPENING[quality]}, and certified: {said} {rows}."
    elif certified:
        headline = f"Certified, but {said} {rows}."
    elif situation.separated:
        headline = "Not certified: the classes are separated, so without a penalty there is no optimum."
    else:
        headline = "Not certified: the fit stopped before its optimum, so these coefficients are not the answer."
    return Verdict(
        headline=headline,
        certified=certified,
        certificate=_certificate(classifier),
        quality=quality,
        good=_good(measures, classes),
        sure=_sure(seen, measures),
        next_steps=next_steps(situation),
        notices=list(notices(situation)),
    )


def _certificate(classifier: Any) -> str:
    if not classifier.converged_:
        return shown(classifier.status_, 2000)
    return (
        "No other coefficients give these data and this penalty a lower objective, to within "
        f"{number(max(classifier.excess_, 1e-16), 2)} of {number(classifier.objective_, 4)}: what it says is the "
        "data’s doing, not an unfinished computation’s."
    )


def _good(measures: Measures, classes: list[str]) -> str:
    right, base = percent(measures.accuracy), percent(measures.base_accuracy)
    text = f"{right} of rows are right; always the commonest class would be right for {base}."
    if measures.auc is None:
        return text
    pair = "Of a random pair of the two classes" if len(classes) == 2 else "Each class against the rest, on average,"
    return f"{text} {pair} it ranks the right row first {percent(measures.auc)} of the time: the AUC."


def _sure(seen: Seen, measures: Measures) -> str:
    parts = []
    if measures.accuracy_interval is not None:
        parts.append(f"accuracy {percents(measures.accuracy_interval)}")
    if measures.auc_interval is not None:
        low, high = measures.auc_interval
        parts.append(f"AUC {fixed(low)} to {fixed(high)}")
    return f"From {counted(seen.rows, 'row')}, at 95 %: {', '.join(parts)}."
