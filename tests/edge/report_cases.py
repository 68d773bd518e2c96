"""Models and rows that reports are made of: one function a case, which writes the page to a path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_digits, make_blobs
from sklearn.pipeline import make_pipeline

from torchlogit import LogisticRegression, TableEncoder, scan
from torchlogit.report import write_report

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
# Names, levels and labels. Each tries to run, to break out of where it stands, or to turn the text around.
HOSTILE = {
    "script": "<script>window.attacked = 'script'</script>",
    "image": "<img src=x onerror=\"window.attacked = 'image'\">",
    "closing": "</script><script>window.attacked = 'closing'</script>",
    "attribute": '" onmouseover="window.attacked = \'attribute\'" x="',
    "template": "{{ 7 * 7 }}{% raw %}${window.attacked = 'template'}",
    "lines": "a\u2028b\u2029window.attacked = 'lines'//",
    "hebrew": "גיל הלקוח <b>",
    "arabic": "عمر العميل",
    "override": "safe\u202e\u2066gpj.exe",
    "comment": "<!-- <svg/onload=alert(1)> -->",
}


def blobs():
    X, y = make_blobs(600, centers=[[0, 0], [2.2, 1.4]], cluster_std=1.1, random_state=3)
    return LogisticRegression().fit(X[:400], y[:400]), X, y


def breast_cancer():
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    y = y.map({0: "malignant", 1: "benign"})
    return LogisticRegression().fit(X[::2], y[::2]), X[1::2], y[1::2]


def census():
    model = make_pipeline(TableEncoder(), LogisticRegression())
    model.fit(scan(SHARED / "adult_train.csv.gz", target="column_14", header=False))
    test = scan(SHARED / "adult_test.csv.gz", target="column_14", header=False)
    return model, test, np.array([str(label).rstrip(".") for label in test.labels()], dtype=object)


def digits():
    X, y = load_digits(return_X_y=True)
    return LogisticRegression().fit(X[:1200], y[:1200]), X[1200:], y[1200:]


def hostile():
    rng = np.random.default_rng(0)
    texts = list(HOSTILE.values())
    table = pd.DataFrame({name: rng.choice(texts, 400) for name in texts[:5]})
    for name in texts[5:]:
        table[name] = rng.normal(size=400)
    labels = np.where(table[texts[6]] + rng.normal(size=400) > 0, HOSTILE["script"], HOSTILE["hebrew"])
    return make_pipeline(TableEncoder(), LogisticRegression()).fit(table[:300], labels[:300]), table[300:], labels[300:]


def three_blobs():
    X, y = make_blobs(500, centers=4, cluster_std=1.6, random_state=1)
    return LogisticRegression().fit(X, y), X, y


def separated():
    X, y = load_breast_cancer(return_X_y=True)
    return LogisticRegression(C=np.inf, max_iter=30), X, y


def million(rows=1_000_000):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, 8))
    y = (X @ np.linspace(-1, 1, 8) - 4 + rng.logistic(size=rows) > 0).astype(int)
    return LogisticRegression().fit(X[::10], y[::10]), X, y


CASES = {
    "blobs": blobs, "breast_cancer": breast_cancer, "census": census, "digits": digits, "hostile": hostile,
    "four_blobs": three_blobs, "million": million,
}  # fmt: skip


def write(name, path):
    model, X, y = CASES[name]()
    write_report(model, path, X, y, title=name.replace("_", " "))
    return model, X, y
