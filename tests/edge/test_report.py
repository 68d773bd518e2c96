"""The report: its figures against scikit-learn's, what it says of itself, and hostile data; no browser here."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import statsmodels.api as sm
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, make_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression as OtherRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edge.report_cases import HOSTILE, SHARED, write
from torchlogit import LogisticRegression, TableEncoder, load, save, scan
from torchlogit.report import write_report
from torchlogit.report.information import standard_errors
from torchlogit.report.rows import Source, read
from torchlogit.report.text import number, percent, script_json, shown
from torchlogit.report.threshold import counts, stops

SECTIONS = ["verdict", "sigmoid", "training", "coefficients", "discrimination", "calibration", "threshold", "mistakes",
            "encoding", "reproduce"]  # fmt: skip


class Page(HTMLParser):
    """What a browser would make of the page: elements, attributes, and texts of scripts."""

    def __init__(self, path):
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.elements, self.scripts, self.words = [], [], []
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] == "script" and self.get_starttag_text().startswith("<script"):
            self.scripts[-1] += data
        else:
            self.words.append(data)

    def json(self, name):
        found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', self.text, re.DOTALL)
        return json.loads(found[1])

    @property
    def sections(self):
        return [attrs["id"] for tag, attrs in self.elements if tag == "section"]

    @property
    def testids(self):
        return [attrs["data-testid"] for _, attrs in self.elements if "data-testid" in attrs]

    @property
    def plain(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def report(tmp_path):
    """Write a report of anything, and read it."""

    def made(model, X, y=None, **options):
        path = tmp_path / "report.html"
        write_report(model, path, X, y, **options)
        return Page(path)

    return made


def check_numbers(numbers, y, classes, probability, weight=None):
    """Every figure against scikit-learn's."""
    codes = np.array([list(classes).index(label) for label in y])
    exact = {"rel": 1e-12, "abs": 1e-12}
    predicted = probability.argmax(1)
    shares = np.bincount(codes, weights=weight, minlength=len(classes)) / (
        codes.size if weight is None else weight.sum()
    )
    assert numbers["accuracy"] == pytest.approx(accuracy_score(codes, predicted, sample_weight=weight), **exact)
    assert numbers["log_loss"] == pytest.approx(log_loss(codes, probability, sample_weight=weight), **exact)
    base = np.tile(shares, (codes.size, 1))
    assert numbers["base_log_loss"] == pytest.approx(log_loss(codes, base, sample_weight=weight), **exact)
    assert numbers["base_accuracy"] == pytest.approx(shares.max(), **exact)
    found = precision_recall_fscore_support(codes, predicted, sample_weight=weight, zero_division=0)
    for k, row in enumerate(numbers["per_class"]):
        for name, values in zip(("precision", "recall", "f1", "support"), found, strict=True):
            assert row[name] == pytest.approx(values[k], **exact)
    np.testing.assert_allclose(
        numbers["confusion"], confusion_matrix(codes, predicted, sample_weight=weight), rtol=1e-12
    )
    if len(classes) == 2:
        score = probability[:, 1]
        assert numbers["auc"] == pytest.approx(roc_auc_score(codes, score, sample_weight=weight), **exact)
        average = average_precision_score(codes, score, sample_weight=weight)
        assert numbers["average_precision"] == pytest.approx(average, **exact)
        assert numbers["brier"] == pytest.approx(brier_score_loss(codes, score, sample_weight=weight), **exact)
    else:
        area = roc_auc_score(codes, probability, multi_class="ovr", sample_weight=weight)
        assert numbers["auc"] == pytest.approx(area, **exact)
        brier = brier_score_loss(codes, probability, sample_weight=weight)
        assert numbers["brier"] == pytest.approx(brier, **exact)
        for k, row in enumerate(numbers["per_class"]):
            one = roc_auc_score(codes == k, probability[:, k], sample_weight=weight)
            assert row["auc"] == pytest.approx(one, **exact)


# -- figures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["blobs", "breast_cancer", "digits", "four_blobs", "hostile"])
def test_figures_are_those_of_scikit_learn(tmp_path, name):
    model, X, y = write(name, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert page.sections == SECTIONS
    assert {"training-step", "confusion"} <= set(page.testids)
    numbers = page.json("report-numbers")
    check_numbers(numbers, y, model.classes_, model.predict_proba(X))
    assert numbers["n_rows"] == len(y)
    assert numbers["converged"]


@pytest.mark.slow
def test_census_from_files(shared_data, tmp_path):
    model, table, labels = write("census", tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert page.sections == SECTIONS
    check_numbers(page.json("report-numbers"), labels, model.classes_, model.predict_proba(table))
    assert "Married-civ-spouse" in page.plain
    assert "a different set of 16,281 rows" in page.plain


def test_weights(report, rng):
    X, y = make_classification(300, 5, random_state=0)
    weight = rng.integers(0, 4, 300).astype(float)
    clf = LogisticRegression().fit(X, y, sample_weight=weight)
    page = report(clf, X, y, sample_weight=weight)
    check_numbers(page.json("report-numbers"), y, clf.classes_, clf.predict_proba(X), weight)
    assert "Measured on the rows of the fit" in page.plain
    assert "Rows carry weights" in page.plain
    again = report(clf, np.repeat(X, weight.astype(int), 0), np.repeat(y, weight.astype(int)))
    for name in ("accuracy", "auc", "log_loss", "brier"):
        assert again.json("report-numbers")[name] == pytest.approx(page.json("report-numbers")[name], rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rare", [False, True])
def test_counts_at_every_stop(rng, weighted, rare):
    X = rng.normal(size=(2000, 2)).round(1)  # ties
    y = X[:, 0] + rng.normal(size=2000) > (3.4 if rare else 0.2)
    weight = rng.random(2000) if weighted else None
    clf = LogisticRegression().fit(X, y)
    seen = read(Source(clf, X), y, weight, None, 0)
    thresholds = stops(seen)
    assert len(thresholds) == (10_001 if rare else 1_001)
    seen = replace(seen, probability=seen.probability.round(3))  # on the stops themselves
    true, false = counts(seen, thresholds)
    score = seen.probability[:, 1]
    for place in rng.integers(0, len(thresholds), 30).tolist() + [0, len(thresholds) - 1]:
        (_, fp), (_, tp) = confusion_matrix(y, score >= thresholds[place], labels=[False, True], sample_weight=weight)
        assert (true[place], false[place]) == pytest.approx((tp, fp), rel=0 if weight is None else 1e-12, abs=1e-12)


def test_the_threshold_asked_for(report):
    X, y = make_classification(300, 5, random_state=0)
    clf = LogisticRegression().fit(X, y)
    page = report(clf, X, y, threshold=0.12345)
    cells = {attrs["data-cell"]: float(attrs["data-value"]) for _, attrs in page.elements if "data-cell" in attrs}
    (tn, fp), (fn, tp) = confusion_matrix(y, clf.predict_proba(X)[:, 1] >= 0.12345)
    assert cells == {"tn": tn, "fp": fp, "fn": fn, "tp": tp}
    with pytest.raises(ValueError, match="it is a probability"):
        report(clf, X, y, threshold=1.5)


# -- intervals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
def test_standard_errors_without_a_penalty(intercept, sparse):
    X, y = load_breast_cancer(return_X_y=True)
    X = X[:, [0, 1, 4, 8]]
    clf = LogisticRegression(C=np.inf, tol=1e-10, fit_intercept=intercept).fit(X, y)
    seen = read(Source(clf, scipy.sparse.csr_array(X) if sparse else X), y, None, None, 0)
    errors = standard_errors(seen.sums, clf._current_solution(), seen.total, 0.0, intercept=intercept)[0]
    expected = sm.Logit(y, sm.add_constant(X) if intercept else X).fit(disp=0, maxiter=100, tol=1e-12).bse
    expected = np.append(expected[1:], expected[0]) if intercept else np.append(expected, 0.0)
    np.testing.assert_allclose(errors, expected, rtol=1e-6)


def test_standard_errors_of_many_classes_with_a_penalty():
    """Against the Hessian written out, in raw units."""
    X, y = load_iris(return_X_y=True)
    clf = LogisticRegression(C=2.0, tol=1e-10).fit(X, y)
    seen = read(Source(clf, X), y, None, None, 0)
    errors = standard_errors(seen.sums, clf._current_solution(), seen.total, 0.5, intercept=True)
    whole, p = np.column_stack([X, np.ones(len(y))]), clf.predict_proba(X)
    hessian = sum(np.kron(np.diag(q) - np.outer(q, q), np.outer(x, x)) for q, x in zip(p, whole, strict=True))
    hessian += np.diag(np.tile([0.5] * 4 + [0.0], 3))
    expected = np.sqrt(np.diag(np.linalg.pinv(hessian, rcond=1e-12, hermitian=True))).reshape(3, 5)
    np.testing.assert_allclose(errors[:, :4], expected[:, :4], rtol=1e-6)


def test_an_undetermined_coefficient_has_no_interval(rng):
    X = rng.normal(size=(200, 3))
    X[:, 2] = X[:, 1]
    y = X[:, 0] + rng.normal(size=200) > 0
    clf = LogisticRegression(C=np.inf).fit(X, y)
    seen = read(Source(clf, X), y, None, None, 0)
    errors = standard_errors(seen.sums, clf._current_solution(), seen.total, 0.0, intercept=True)[0]
    np.testing.assert_array_equal(np.isnan(errors), [False, True, True, False])


def test_intervals_on_other_rows_are_scaled_to_the_fit(report):
    X, y = make_classification(4000, 4, n_informative=4, n_redundant=0, random_state=0)
    clf = LogisticRegression(C=np.inf).fit(X[:3000], y[:3000])
    own, other = ([float(attrs["data-error"]) for _, attrs in page.elements if "data-error" in attrs]
                  for page in (report(clf, X[:3000], y[:3000]), report(clf, X[3000:], y[3000:])))  # fmt: skip
    np.testing.assert_allclose(own, other, rtol=0.15)


def test_what_intervals_mean_is_said(report):
    X, y = make_classification(300, 4, random_state=0)
    assert "What the intervals mean under a penalty" in report(LogisticRegression().fit(X, y), X, y).plain
    free = report(LogisticRegression(C=np.inf).fit(X, y), X, y).plain
    assert "What the intervals mean under a penalty" not in free
    assert "95 % confidence intervals" in free


# -- what it says of itself -----------------------------------------------------------------------------------------


def test_training_rows_are_recognised(report):
    X, y = load_breast_cancer(return_X_y=True)
    told = "measured on rows it has seen"
    clf = LogisticRegression(class_weight="balanced").fit(X[::2], y[::2])
    same = report(clf, X[::2], y[::2]).plain
    assert told in same
    assert "Classes were weighted" in same
    assert told not in report(clf, X[1::2], y[1::2]).plain
    assert told not in report(clf, X[1:286], y[1:286]).plain
    assert told in report(clf, X[1::2], y[1::2], training_rows=True).plain


def test_training_rows_after_loading(report, tmp_path):
    X, y = load_breast_cancer(return_X_y=True)
    save(LogisticRegression().fit(X, y), tmp_path / "model")
    page = report(load(tmp_path / "model"), X, y)
    assert "measured on rows it has seen" in page.plain
    assert page.json("report-data")["training"]["steps"][-1]["kkt"] <= 1e-6


def test_separated_and_unfinished_fits_say_so(report):
    X, y = load_iris(return_X_y=True)
    with pytest.warns(ConvergenceWarning):
        clf = LogisticRegression(C=np.inf).fit(X[:100], y[:100])
    page = report(clf, X[:100], y[:100]).plain
    assert "Not certified" in page
    assert "The classes are separated" in page
    assert "No intervals: the classes are separated" in page
    assert "Perfect separation of these rows" in page
    with pytest.warns(ConvergenceWarning):
        clf = LogisticRegression(max_iter=2).fit(X, y)
    page = report(clf, X, y).plain
    assert "The fit has not converged" in page
    assert "Not certified: the fit stopped before its optimum" in page


def test_imbalance_and_few_rows(report, rng):
    X = rng.normal(size=(3000, 30))
    y = X[:, 0] + rng.normal(size=3000) > 3.2
    page = report(LogisticRegression().fit(X, y), X, y).plain
    assert "Extreme imbalance" in page
    assert "Few rows for so many coefficients" in page


def test_no_better_than_the_base_rate(report, rng):
    X, y = rng.normal(size=(400, 3)), rng.random(400) > 0.5
    clf = LogisticRegression().fit(X[:200], y[:200])
    assert re.search(r"but (no|not provably) better than the base rate", report(clf, X[200:], y[200:]).plain)


def test_one_class_alone(report):
    X, y = load_iris(return_X_y=True)
    clf = LogisticRegression().fit(X, y)
    page = report(clf, X[:50], y[:50])
    assert "2 classes without a single row" in page.plain
    assert page.json("report-numbers")["auc"] is None
    clf = LogisticRegression().fit(X[50:], y[50:])
    page = report(clf, X[50:100], y[50:100])
    assert "nothing can be told apart" in page.plain
    assert page.json("report-numbers")["accuracy"] == pytest.approx(clf.score(X[50:100], y[50:100]))


def test_steps_are_those_of_the_trace(report):
    X, y = load_breast_cancer(return_X_y=True)
    clf = LogisticRegression().fit(X, y)
    steps = report(clf, X, y).json("report-data")["training"]["steps"]
    assert [step["step"] for step in steps] == [record["step"] for record in clf.trace_]
    for field in ("objective", "kkt", "excess"):
        assert [step[field] for step in steps] == [record[field] for record in clf.trace_]


def test_models_without_a_fit(report):
    clf = LogisticRegression.from_module(torch.nn.Linear(2, 1), classes=["no", "yes"])
    page = report(clf, np.random.default_rng(0).normal(size=(50, 2)), np.repeat(["no", "yes"], 25))
    assert "the coefficients were taken from a module" in page.plain
    assert "There is no step to show" in page.plain


def test_partial_fit(report):
    X, y = load_breast_cancer(return_X_y=True)
    clf = LogisticRegression()
    for rows in np.array_split(np.arange(len(y)), 3):
        clf.partial_fit(X[rows], y[rows], classes=[0, 1])
    assert report(clf, X, y).sections == SECTIONS


# -- whatever holds the rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["list", "float32", "csr", "csc", "tensor", "sparse tensor", "pandas", "integer names", "polars", "arrow"]
)
def test_rows_of_every_kind(report, kind):
    X, y = load_digits(n_class=2, return_X_y=True)
    X = X[:, 20:30] + np.random.default_rng(0).normal(size=(len(y), 10))
    make = {
        "list": lambda X: X.tolist(),
        "float32": lambda X: X.astype(np.float32),
        "csr": scipy.sparse.csr_matrix,
        "csc": scipy.sparse.csc_array,
        "tensor": torch.from_numpy,
        "sparse tensor": lambda X: torch.from_numpy(X).to_sparse_coo(),
        "pandas": lambda X: pd.DataFrame(X, columns=[f"<b>{j}" for j in range(10)]),
        "integer names": pd.DataFrame,
        "polars": lambda X: pl.DataFrame(X, schema=[f"c{j}" for j in range(10)]),
        "arrow": lambda X: pa.table({f"c{j}": X[:, j] for j in range(10)}),
    }[kind]
    clf = LogisticRegression().fit(make(X[:200]), y[:200])
    page = report(clf, make(X[200:]), torch.from_numpy(y[200:]) if kind == "tensor" else y[200:])
    numbers = page.json("report-numbers")
    assert numbers["accuracy"] == clf.score(make(X[200:]), y[200:])
    assert numbers["n_features"] == 10
    if kind == "pandas":
        assert "<b>3" in page.plain


def test_libsvm_and_its_encoded_kin(shared_data, report, tmp_path):
    rows = scan(SHARED / "agaricus.train.libsvm")
    clf = LogisticRegression().fit(rows)
    page = report(clf, scan(SHARED / "agaricus.test.libsvm"))
    assert page.json("report-numbers")["n_rows"] == 1611
    table = scan(SHARED / "telco_churn.csv", target="Churn")
    encoder = TableEncoder().fit(table)
    clf = LogisticRegression().fit(encoder.transform(table))
    page = report(clf, encoder.transform(table))
    assert "measured on rows it has seen" in page.plain
    whole = report(make_pipeline(encoder, clf), table)
    assert whole.json("report-numbers") == page.json("report-numbers")
    assert "tenure" in whole.plain


def test_offsets_and_weights_of_a_scan(report, tmp_path, rng):
    frame = pd.DataFrame({"a": rng.normal(size=300), "w": rng.integers(1, 3, 300), "o": rng.normal(size=300)})
    frame["y"] = np.where(frame["a"] + frame["o"] + rng.logistic(size=300) > 0, "yes", "no")
    frame.to_csv(tmp_path / "t.csv", index=False)
    table = scan(tmp_path / "t.csv", target="y", weight="w", offset="o")
    model = make_pipeline(TableEncoder(), LogisticRegression()).fit(table)
    page = report(model, table)
    check_numbers(
        page.json("report-numbers"), frame["y"], ["no", "yes"], model.predict_proba(table), frame["w"].to_numpy(float)
    )
    assert "measured on rows it has seen" in page.plain
    clf = LogisticRegression().fit(frame[["a"]], frame["y"], offset=frame["o"])
    assert report(clf, frame[["a"]], frame["y"], offset=frame["o"]).sections == SECTIONS
    with pytest.raises(ValueError, match="fitted with an offset"):
        report(clf, frame[["a"]], frame["y"])


def test_many_columns_have_no_intervals(report, rng):
    X = scipy.sparse.random_array((300, 5000), density=0.01, rng=rng, format="csr")
    y = rng.random(300) > 0.5
    page = report(LogisticRegression().fit(X, y), X, y)
    assert "No intervals: there are more than 1,500 coefficients" in page.plain
    assert "The trace keeps no coefficients" in page.plain
    assert len(page.text) < 1_000_000


def test_many_classes(report, rng):
    X = rng.normal(size=(600, 4))
    y = np.arange(600) % 30
    page = report(LogisticRegression().fit(X, y), X, y)
    assert page.testids.count("confusion") == 1
    assert "pairs that are confused most" in page.plain


# -- errors ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_reported(report, tmp_path):
    X, y = load_iris(return_X_y=True)
    clf = LogisticRegression().fit(X, y)
    with pytest.raises(ValueError, match="label 7"):
        report(clf, X, np.where(y == 2, 7, y))
    with pytest.raises(ValueError, match="pass y"):
        report(clf, X)
    with pytest.raises(ValueError, match="150 rows"):
        report(clf, X, np.append(y, 0))
    with pytest.raises(ValueError, match="more rows"):
        report(clf, X, y[:-1])
    with pytest.raises(ValueError, match="NaN"):
        report(clf, np.where(X > 6, np.nan, X), y)
    with pytest.raises(NotFittedError):
        report(LogisticRegression(), X, y)
    with pytest.raises(TypeError, match="not StandardScaler and LogisticRegression"):
        report(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y), X, y)
    with pytest.raises(TypeError, match="a report takes"):
        report(OtherRegression(), X, y)
    with pytest.raises(IsADirectoryError):
        write_report(clf, tmp_path, X, y)
    assert not list(tmp_path.iterdir())


def test_the_method_is_the_function(tmp_path):
    X, y = load_iris(return_X_y=True)
    clf = LogisticRegression().fit(X, y)
    clf.report(tmp_path / "a.html", X, y, title="flowers", seed=3)
    write_report(clf, tmp_path / "b.html", X, y, title="flowers", seed=3)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


# -- hostile data ---------------------------------------------------------------------------------------------------


def test_nothing_of_the_data_becomes_markup(tmp_path):
    write("hostile", tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    known = {"html", "head", "meta", "link", "title", "style", "body", "a", "nav", "p", "span", "ul", "li", "main",
             "section", "h1", "h2", "h3", "strong", "em", "i", "bdi", "small", "div", "ol", "details", "summary", "dl",
             "dt", "dd", "figure", "figcaption", "svg", "path", "text", "label", "output", "input", "table", "thead",
             "tbody", "tr", "th", "td", "caption", "button", "pre", "code", "script"}  # fmt: skip
    assert {tag for tag, _ in page.elements} <= known
    assert len(page.scripts) == 3
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert "http" not in page.text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "49{% raw %}" not in page.plain  # the template did not read them
    assert "\u202e" not in page.text
    assert "\u2028" not in page.text
    for name in ("script", "image", "hebrew", "arabic", "comment"):
        assert HOSTILE[name] in page.plain
    bdi = re.findall(r"<bdi>(.*?)</bdi>", page.text, re.DOTALL)
    assert any(HOSTILE["arabic"] in text for text in bdi)


def test_texts():
    assert shown("a\u202eb\x00c") == "a⟨U+202E⟩b⟨U+0000⟩c"
    assert shown("\ud800") == "⟨U+D800⟩"
    assert shown("") == "“”"
    assert len(shown("x" * 1000)) == 200
    assert script_json({"</script>": [1.5, float("nan"), np.float64(2)], "&": "\u2028"}) == (
        '{"\\u003c/script\\u003e":[1.5,null,2.0],"\\u0026":"\\u2028"}'
    )
    assert [number(value) for value in (0, 1234.5, -0.01234, 1e-9, float("nan"))] == [
        "0", "1,234", "−0.0123", "1.00e−9", "–"
    ]  # fmt: skip
    assert (percent(0.99999), percent(0.00001), percent(1.0)) == ("above 99.9 %", "below 0.1 %", "100.0 %")


# -- size -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_million_rows(tmp_path):
    model, X, y = write("million", tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert len(page.text) < 500_000
    check = page.json("report-numbers")
    assert check["n_rows"] == 1_000_000
    assert check["accuracy"] == pytest.approx(model.score(X, y), abs=1e-12)
    assert "300 of the rows, by chance" in page.plain
