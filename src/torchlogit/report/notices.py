"""What the reader must know and what to do next: each a sentence, given when the rows and the fit ask for it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from torchlogit.report.measures import Measures
from torchlogit.report.rows import Seen
from torchlogit.report.text import counted, isolated, number, percent, shown

_IMBALANCE = 0.02
_ROWS_A_COEFFICIENT = 10  # of the rarest class: fewer leave coefficients and probabilities too extreme
_FAR = 0.05  # predicted and true share: of the rarer class's
_MOST_STEPS = 4


@dataclass(frozen=True)
class Notice:
    """Something the reader must know: ``level`` is 'stop', 'care' or 'note'."""

    level: str
    title: str
    text: str


@dataclass(frozen=True)
class Situation:
    """What all sentences depend on.

    Parameters
    ----------
    seen : Seen
    measures : Measures
    classes : list of str
    training : bool, optional
        Whether the rows are those of the fit; None where nobody knows.
    coefficients : int
    quality : str
        The verdict's word.
    """

    seen: Seen
    measures: Measures
    classes: list[str]
    training: bool | None
    coefficients: int
    quality: str

    @property
    def classifier(self) -> Any:
        """The model."""
        return self.seen.source.classifier

    @property
    def separated(self) -> bool:
        """Whether the fit ended so."""
        return "separated" in self.classifier.status_

    @property
    def rarest(self) -> float:
        """Share of the rarest class that occurs."""
        return float(self.measures.shares[self.measures.shares > 0].min())

    @property
    def several(self) -> bool:
        """Whether more than one class occurs."""
        return int((self.measures.shares > 0).sum()) > 1

    @property
    def rows_a_coefficient(self) -> float:
        """Rows of the rarest class in the fit for each coefficient; its share is taken from the rows at hand."""
        known = fitted_rows(self.classifier)
        rows = known[0] if known is not None else self.seen.rows if self.training else math.inf
        return rows * self.rarest / max(self.coefficients, 1)


def fitted_rows(classifier: Any) -> tuple[int, float] | None:
    """Rows and total weight of the fit, as the plan records them; None if it does not."""
    found = re.search(r"over ([\d,]+) rows \(total weight ([\d,.e+-]+)\)", classifier.plan_.objective)
    if found is None or "earlier ones" in classifier.plan_.objective:
        return None
    return int(found[1].replace(",", "")), float(found[2].replace(",", ""))


def notices(at: Situation) -> Iterator[Notice]:
    """The most urgent first."""
    status = shown(at.classifier.status_, 2000)
    if at.separated:
        yield Notice("stop", "The classes are separated", status)
    elif not at.classifier.converged_:
        yield Notice("stop", "The fit has not converged", status)
    if at.training:
        yield Notice(
            "care",
            "Measured on the rows of the fit",
            "The model has seen these rows and their classes, so every figure here flatters it. How good it is on new "
            "rows, only other rows can tell.",
        )
    elif at.training is None:
        yield Notice(
            "note",
            "Training rows or not?",
            "The model does not record which rows it was fitted to. If these are among them, the figures flatter it.",
        )
    lacking = len(at.classes) - int((at.measures.shares > 0).sum())
    if lacking:
        title = f"{counted(lacking, 'class', 'classes')} without a single row"
        yield Notice("care", title, "No figure here says anything about them.")
    if at.several and at.rarest < _IMBALANCE:
        yield Notice(
            "care",
            "Extreme imbalance",
            f"The rarest class is {percent(at.rarest, 2)} of the rows: accuracy says little, and a threshold of one "
            "half may never be reached. Look at precision and recall, and choose a threshold by its costs.",
        )
    if at.rows_a_coefficient < _ROWS_A_COEFFICIENT:
        followed = (
            "the figures here are of other rows and hold, but single coefficients"
            if at.training is False
            else "expect the model to be worse, and too sure, on new rows; its coefficients"
        )
        yield Notice(
            "care",
            "Few rows for so many coefficients",
            f"About {number(at.rows_a_coefficient, 2)} rows of the rarest class for each of {at.coefficients:,} "
            f"coefficients: {followed} follow the noise as far as the penalty lets them.",
        )
    if at.several and at.measures.auc == 1.0:
        yield Notice(
            "care",
            "Perfect separation of these rows",
            "Every row of one class scores above every row of the other. Real data rarely allow that: look for a "
            "column that knows the answer (a result, an identifier, a date after the event).",
        )
    if at.classifier.class_weight is not None:
        yield Notice(
            "care",
            "Classes were weighted",
            "class_weight shifts the probabilities towards the classes it favours. They no longer are shares to be "
            "expected; the order of the rows (AUC) is less affected.",
        )
    if at.seen.weight is not None:
        yield Notice("note", "Rows carry weights", "All figures and counts are weighted sums.")


def next_steps(at: Situation) -> list[str]:
    """What to do now, the most needed first."""
    return list(_steps(at))[:_MOST_STEPS]


def _steps(at: Situation) -> Iterator[str]:
    if at.separated:
        yield "Add a penalty (a finite C), or drop the column that gives the answer away; then fit again."
    elif not at.classifier.converged_:
        yield "Do not use the coefficients yet: raise max_iter or tol as the status says, and fit again."
    if at.training:
        yield "Measure on rows that the fit has not seen: clf.report(path, X_test, y_test)."
    if at.several and at.measures.auc == 1.0 and not at.training:
        yield "Check the leading columns for leakage before believing a perfect result."
    if at.quality == "mixed":
        yield "Lower C (a stronger penalty) or bring more rows: the probabilities are too extreme."
    if at.quality == "promising":
        yield "Measure on more rows: these are too few to be sure of the gain."
    if at.quality in ("unproven", "poor"):
        yield "Bring columns that say more about the class, or more rows: the base rate does as well."
    if len(at.classes) == 2 and at.several:
        predicted, true, z = calibration_words(at.seen, 1)
        far = abs(predicted - true) > _FAR * min(true, 1 - true)
        if abs(z) > 3 and far and at.classifier.class_weight is None:
            yield f"Mind the probabilities: {percent(predicted)} predicted on average, {percent(true)} true."
        yield "Set the two costs under Threshold: 0.5 is right only where both errors cost the same."
    elif at.several:
        yield from _confused(at.measures, at.classes)
    if at.rows_a_coefficient < _ROWS_A_COEFFICIENT:
        yield "Choose C by cross-validation: with so few rows a coefficient, the penalty decides much."
    yield "Read the most confident mistakes: often the label is wrong, or a column is missing."
    yield "Ask whether each leading column will be known when you predict; if not, drop it."


def _confused(measures: Measures, classes: list[str]) -> Iterator[str]:
    off = measures.confusion.astype(float)
    np.fill_diagonal(off, 0.0)
    if off.any():
        true, said = divmod(int(off.argmax()), len(classes))
        rows = counted(float(off[true, said]), "row")
        pair = f"{isolated(classes[true])} taken for {isolated(classes[said])}"
        yield f"Look at the pair it confuses most: {pair} ({rows})."


def calibration_words(seen: Seen, k: int) -> tuple[float, float, float]:
    """Mean prediction, share that came true, and the distance between them in standard errors."""
    truth, p, mass = seen.codes == k, seen.probability[:, k], seen.mass
    predicted, true = float(np.average(p, weights=mass)), float(np.average(truth, weights=mass))
    error = math.sqrt(float((np.square(mass) * p * (1 - p)).sum())) / float(mass.sum())
    return predicted, true, (predicted - true) / error if error > 0 else 0.0
