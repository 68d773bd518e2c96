"""The page: gathers what every section shows, fills the template, writes one file."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from torchlogit.files import replacing
from torchlogit.report import charts, reproduce, text
from torchlogit.report.coefficients import coefficients, importance, strength_of
from torchlogit.report.judgement import is_training, judge
from torchlogit.report.measures import Measures, measured, predictions
from torchlogit.report.mistakes import mistakes
from torchlogit.report.notices import calibration_words, fitted_rows
from torchlogit.report.rows import Seen, Source, feature_names, read
from torchlogit.report.threshold import matrix, slider
from torchlogit.report.training import training

_FOLDER = Path(__file__).parent / "templates"
_MOST_MATRIX = 12  # classes whose confusion matrix is shown whole
_MOST_PAIRS = 20
_MOST_SIGMOIDS = 12


def write_report(
    model: Any,
    path: str | os.PathLike[str],
    X: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    offset: Any = None,
    title: str | None = None,
    threshold: float = 0.5,
    seed: int = 0,
    training_rows: bool | None = None,
    command: str | None = None,
) -> None:
    """Write a page about a fitted model and how it does on rows with known classes.

    The page is one file that needs no network and no other file. Every figure is computed from all rows; where a
    picture shows a sample, it says so.

    Parameters
    ----------
    model : LogisticRegression, or Pipeline of TableEncoder and LogisticRegression
        Fitted.
    path : path-like
        Written whole or not at all.
    X : {array-like, sparse matrix, frame, Tensor, scan} of shape (n, p)
        Rows to measure on, as for ``model.predict``: rows that the fit has not seen, if there are any.
    y : array-like of shape (n,), default=None
        Their labels; a scan brings its own.
    sample_weight : array-like of shape (n,), default=None
    offset : array-like of shape (n,) or (n, n_classes), default=None
        A scan brings its own.
    title : str, default=None
    threshold : float, default=0.5
        Where the slider starts: a row is called positive from this probability on.
    seed : int, default=0
        Of the samples that are drawn.
    training_rows : bool, default=None
        Whether the fit has seen these rows; None finds out whether they are its rows by comparing the objective.
    command : str, default=None
        What to repeat to get this page; None gives lines of Python.

    Raises
    ------
    ValueError
        If labels, weights or the threshold cannot be used; the message says where.
    TypeError
        If it is another kind of model.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_breast_cancer
    >>> from torchlogit import LogisticRegression
    >>> from torchlogit.report import write_report
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> clf = LogisticRegression().fit(X[::2], y[::2])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(clf, f"{folder}/report.html", X[1::2], y[1::2], title="Tumours")
    ...     "Tumours" in Path(f"{folder}/report.html").read_text()
    True
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; it is a probability, from 0 to 1")
    seen = read(Source(model, X), y, sample_weight, offset, seed)
    page = render(seen, title, float(threshold), seed, training_rows, command)
    with replacing(path) as temporary:
        temporary.write_bytes(page.encode("utf-8", "backslashreplace"))


def render(
    seen: Seen, title: str | None, threshold: float, seed: int, training_rows: bool | None, command: str | None
) -> str:
    """The page as text."""
    style = "".join((_FOLDER / f"{name}.css").read_text(encoding="utf-8") for name in ("palette", "charts", "style"))
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    context = _context(seen, title, threshold, seed, training_rows, command)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = _environment().get_template("page.html")
    return page.render(style=text.trusted(style), script=text.trusted(script), script_digest=digest, **context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    for name in ("number", "fixed", "percent", "percents", "isolated", "shown", "plain", "digits"):
        environment.filters[name] = getattr(text, name)
    environment.globals["counted"] = text.counted
    return environment


def _context(
    seen: Seen, title: str | None, threshold: float, seed: int, training_rows: bool | None, command: str | None
) -> dict[str, Any]:
    classifier, encoder = seen.source.classifier, seen.source.encoder
    names = feature_names(seen.source)
    classes = [text.shown(label, 60) for label in classifier.classes_]
    measures = measured(seen)
    on_training = is_training(seen) if training_rows is None else training_rows
    known = fitted_rows(classifier)
    spread, average = importance(seen, seed)
    wrong, told = mistakes(seen, classes, average)
    total_weight = seen.total if known is None else known[1]
    told_coefficients = coefficients(seen, names, classes, total_weight)
    course = training(seen, names, classes, seed)
    two = len(classes) == 2
    sliding = slider(seen, threshold) if two else None
    data: dict[str, Any] = {"training": course.data, "threshold": sliding}
    verdict = judge(seen, measures, classes, on_training, classifier.coef_.size)
    return {
        "title": text.shown(title) if title else "", "classes": classes, "two": two, "seen": seen, "m": measures,
        "classifier": classifier, "encoder": encoder, "names": names, "verdict": verdict, "on_training": on_training,
        "fitted": known, "importance": spread, "coefficients": told_coefficients,
        "penalised": not math.isinf(strength_of(classifier)),
        "training": course, "sigmoids": _sigmoids(seen, classes, seed), "curves": _curves(seen, classes),
        "calibration": _calibration(seen, classes), "threshold": threshold,
        "step": 1 / sliding["parts"] if sliding else 0.001,
        "matrix": matrix(seen, threshold) if two else None, "confusion": _confusion(measures, classes),
        "wrong": wrong, "mistakes": told, "columns": _columns(seen, names),
        "reproduce": {"versions": reproduce.versions(), "parameters": reproduce.parameters(classifier),
                      "fingerprint": reproduce.fingerprint(seen), "code": reproduce.code(seen),
                      "plan": text.shown(repr(classifier.plan_), 4000),
                      "command": text.shown(command, 4000) if command else "", "seed": seed},
        "data": text.script_json(data), "numbers": text.script_json(_numbers(seen, measures)),
        "dots": charts.MOST_DOTS,
    }  # fmt: skip


def _sigmoids(seen: Seen, classes: list[str], seed: int) -> list[dict[str, Any]]:
    if len(classes) == 2:
        return [{"name": classes[1], "picture": charts.sigmoid(seen, 1, classes[1], classes[0], seed)}]
    return [
        {"name": name, "picture": charts.sigmoid(seen, k, name, f"not {name}", seed, small=True)}
        for k, name in enumerate(classes[:_MOST_SIGMOIDS])
    ]


def _curves(seen: Seen, classes: list[str]) -> dict[str, Any]:
    chosen = [1] if len(classes) == 2 else list(range(min(len(classes), charts.MOST_CURVES)))
    return {
        "roc": charts.roc(seen, classes, chosen),
        "precision_recall": charts.precision_recall(seen, classes, chosen),
        "legend": [{"name": classes[k], "look": charts.look(k)} for k in chosen] if len(chosen) > 1 else [],
        "left_out": 0 if len(classes) == 2 else len(classes) - len(chosen),
    }


def _calibration(seen: Seen, classes: list[str]) -> dict[str, Any]:
    """Of the positive class; with more than two, of the class that was predicted."""
    if len(classes) == 2:
        truth, probability = seen.codes == 1, seen.probability[:, 1]
        predicted, true, z = calibration_words(seen, 1)
    else:
        said = predictions(seen)
        truth, probability = said == seen.codes, seen.probability[np.arange(seen.rows), said]
        predicted, true = (float(np.average(values, weights=seen.mass)) for values in (probability, truth))
        error = math.sqrt(float((np.square(seen.mass) * probability * (1 - probability)).sum())) / seen.mass.sum()
        z = (predicted - true) / error if error > 0 else 0.0
    groups = charts.reliability_bins(truth, probability, seen.mass)
    rows = sum(group["rows"] for group in groups)
    gap = sum(group["rows"] * abs(group["predicted"] - group["came_true"]) for group in groups) / rows
    what = classes[1] if len(classes) == 2 else "the predicted class"
    return {
        "groups": groups, "picture": charts.reliability(groups, text.isolated(what)), "gap": gap,
        "predicted": predicted, "true": true, "z": z, "what": what,
        "histogram": charts.probability_histogram(probability, seen.mass),
    }  # fmt: skip


def _confusion(measures: Measures, classes: list[str]) -> dict[str, Any]:
    """Whole for a few classes; the most confused pairs for many."""
    table = measures.confusion.astype(float)
    totals = np.where(table.sum(1) > 0, table.sum(1), 1.0)
    off = table.copy()
    np.fill_diagonal(off, 0.0)
    order = np.argsort(-off.ravel(), kind="stable")[:_MOST_PAIRS].tolist()
    pairs = [(*divmod(place, len(classes)), float(off.ravel()[place])) for place in order if off.ravel()[place] > 0]
    return {
        "whole": len(classes) <= _MOST_MATRIX, "rows": table.tolist(), "shares": (table / totals[:, None]).tolist(),
        "pairs": [{"truth": classes[k], "said": classes[j], "count": count} for k, j, count in pairs],
    }  # fmt: skip


def _columns(seen: Seen, names: list[str]) -> list[dict[str, Any]]:
    """Without an encoder: mean and deviation of each number."""
    if seen.source.encoder is not None:
        return []
    mean, deviation = seen.sums.mean, seen.sums.deviation
    return [
        {"name": text.shown(name), "mean": float(mean[j]), "deviation": float(deviation[j])}
        for j, name in enumerate(names[:200])
    ]


def _numbers(seen: Seen, measures: Measures) -> dict[str, Any]:
    """Every figure to its last digit, for programs."""
    classifier = seen.source.classifier
    kept = ["accuracy", "log_loss", "brier", "auc", "average_precision"]
    kept += ["base_accuracy", "base_log_loss", "base_brier"]
    return {
        **{field: getattr(measures, field) for field in kept},
        "explained": measures.explained, "accuracy_interval": measures.accuracy_interval,
        "auc_interval": measures.auc_interval, "confusion": measures.confusion, "per_class": measures.per_class,
        "classes": [text.shown(label) for label in classifier.classes_], "n_rows": seen.rows,
        "n_features": int(classifier.n_features_in_), "objective": classifier.objective_, "kkt": classifier.kkt_,
        "excess": classifier.excess_, "converged": bool(classifier.converged_),
    }  # fmt: skip
