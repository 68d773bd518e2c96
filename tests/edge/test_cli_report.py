"""``--report``: the page of ``fit`` and ``evaluate``, on rows the fit has and has not seen."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from edge.command_line import fine, run


@pytest.fixture
def table(tmp_path, rng):
    path = tmp_path / "rows.csv"
    x = rng.normal(size=300)
    y = np.where(x + rng.normal(size=300) > 0, "yes", "no")
    lines = [f"{a!r},{rng.choice(['u', 'v', '<b>w</b>'])},{label}" for a, label in zip(x.tolist(), y, strict=True)]
    path.write_text("\n".join(["a,k,y", *lines]) + "\n")
    return path


def numbers(page):
    return json.loads(re.search(r'<script[^>]*id="report-numbers"[^>]*>(.*?)</script>', page, re.DOTALL)[1])


def test_of_a_fit(table, tmp_path):
    found = fine("fit", table, "--target", "y", "-o", tmp_path / "m", "--report", tmp_path / "r.html", "--json").json
    page = (tmp_path / "r.html").read_text()
    assert found["report"].endswith("r.html")
    assert 'id="verdict"' in page
    assert "<b>w</b>" not in page
    assert f"{found['n_test']}" in page
    assert any(value == pytest.approx(found["auc"], rel=1e-12) for value in flat(numbers(page)))
    assert "training" not in re.search(r"<h1.*?</h1>", page, re.DOTALL)[0]


def flat(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from flat(item)
    elif isinstance(value, list):
        for item in value:
            yield from flat(item)
    elif isinstance(value, (int, float)):
        yield float(value)


def test_of_an_evaluation(table, tmp_path):
    fine("fit", table, "--target", "y", "-o", tmp_path / "m", "--test-size", "0")
    wanted = ["--report", tmp_path / "r.html", "--threshold", "0.3", "--json"]
    found = fine("evaluate", tmp_path / "m", table, *wanted).json
    page = (tmp_path / "r.html").read_text()
    assert any(value == pytest.approx(found["log_loss"], rel=1e-12) for value in flat(numbers(page)))
    assert "report" in fine("evaluate", tmp_path / "m", table, "--report", tmp_path / "r.html").out


@pytest.mark.parametrize("place", ["nowhere/r.html", "rows.csv", "m"])
def test_where_it_cannot_go(table, tmp_path, place):
    before = table.read_text()
    outcome = run("fit", table, "--target", "y", "-o", tmp_path / "m", "--report", tmp_path / place)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert table.read_text() == before
    assert not (tmp_path / "m").exists()
