"""``torchlogit plan``: what it foretells, against what a fit then does."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from edge.command_line import fine, run
from torchlogit.cost import Job, Speed, cost
from torchlogit.sources import samples


def _table(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    table = pd.DataFrame({f"x{j}": rng.normal(size=rows) for j in range(6)})
    table["kind"] = rng.choice(["a", "b", "c"], rows)
    table["label"] = np.where(table.x0 - table.x1 + (table.kind == "b") + rng.logistic(size=rows) > 0, "yes", "no")
    return table.sort_values("label")


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz"])
def test_a_sample_tells_the_whole(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, columns, solver and passes of the fit, from a part of files that are sorted by their label."""
    monkeypatch.setattr(samples, "_TEXT_BYTES", 400_000)
    monkeypatch.setattr(samples, "_NUMBERS", 24_000)
    monkeypatch.setattr(samples, "_LEAST_ROWS", 100)
    table, path = _table(12_000), tmp_path / f"table.{kind}"
    if kind == "parquet":
        table.to_parquet(path, row_group_size=1000)
    else:
        table = table.sample(frac=1.0, random_state=0) if kind == "csv.gz" else table  # gzip is read from its start
        text = table.to_csv(index=False).encode()
        path.write_bytes(gzip.compress(text) if kind == "csv.gz" else text)
    told = fine("plan", path, "--target", "label", "--processes", 2, "--json").json
    done = fine("fit", path, "--target", "label", "-o", tmp_path / "model", "--json").json
    assert told["n_sample"] < 6000
    assert told["n_rows_estimated"] == (kind != "parquet")
    assert told["n_rows"] == pytest.approx(12_000, rel=0.05 if kind != "parquet" else 0)
    assert (told["n_features"], told["solver"]) == (done["n_features"], done["solver"])
    assert told["passes"] == pytest.approx(done["passes"], abs=3)
    assert told["bytes_files"] == path.stat().st_size
    assert told["bytes_read"] == told["bytes_files"] * (3 if kind == "parquet" else 6)
    parts = [told[f"seconds_{part}"] for part in ("learning", "reading", "passes", "exchanging", "measuring", "fixed")]
    assert told["seconds"] == pytest.approx(sum(parts))


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_rows_that_stay_in_their_files(kind: str, tmp_path: Path) -> None:
    """Passes are reads of Parquet, and none of text, which is decoded once."""
    table, path = _table(30_000), tmp_path / f"table.{kind}"
    if kind == "parquet":
        table.to_parquet(path, row_group_size=1000)
    else:
        table.to_csv(path, index=False)
    options = [path, "--target", "label", "--memory", "1.1MB", "--json"]
    told = fine("plan", *options).json
    done = fine("fit", *options, "-o", tmp_path / "model").json
    assert told["from_files"]
    assert (told["n_features"], told["solver"]) == (done["n_features"], done["solver"])
    assert told["passes"] == pytest.approx(done["steps"] + 1, abs=1)  # the start and each step are a read
    assert told["file_reads"] == 3 + (told["passes"] if kind == "parquet" else 0)
    assert told["bytes_read"] == told["bytes_files"] * told["file_reads"]
    words = fine("plan", *options[:-1]).out
    assert "read from files by a process" in words
    assert not fine("plan", *options[:3], "--memory", "1GB", "--json").json["from_files"]
    assert not fine("plan", *options[:3], "--memory", "1.1MB", "--processes", 8, "--json").json["from_files"]


def test_in_words(tmp_path: Path) -> None:
    _table(500).to_parquet(tmp_path / "table.parquet")
    told = fine("plan", tmp_path / "table.parquet", "--target", "label").out
    assert "500, of which 400 are fitted, as 9 numbers each" in told
    assert "processes 1" in told


def test_what_cannot_be_planned(tmp_path: Path) -> None:
    _table(50).assign(label="yes").to_csv(tmp_path / "one.csv", index=False)
    assert "only one class" in run("plan", tmp_path / "one.csv", "--target", "label").sentence
    assert "--target" in run("plan", tmp_path / "one.csv").sentence
    assert "--processes" in run("plan", tmp_path / "one.csv", "--target", "label", "--processes", 0).sentence
    assert "nope.csv" in run("plan", tmp_path / "nope.csv", "--target", "label").sentence


def test_cost() -> None:
    """Passes are shared among processes, learning is not, and sums travel twice around."""
    speed = Speed(label=1e-8, learn=2e-6, decode=1e-6, encode=3e-6, row_pass=1e-7, fixed=0.5)
    job = Job(10**7, 1.0, 400.0, 4 * 10**9, True, 10, 50, False)
    one, four = cost(job, speed, 1), cost(job, speed, 4)
    assert one.passes == pytest.approx(10.0)
    assert one.reading == pytest.approx(40.0)
    assert (four.passes, four.reading) == pytest.approx((one.passes / 4, one.reading / 4))
    assert (one.learning, four.learning) == pytest.approx((20.1, 5.1))
    assert one.exchanging == 0
    assert four.exchanging == pytest.approx(10 * (4 * 1e-4 + 2 * 0.75 * 8 * 50 / 1.25e9))
    assert four.memory < one.memory
    files = cost(Job(10**7, 1.0, 400.0, 4 * 10**9, True, 3, 50, False, 1e9), speed, 4)
    assert files.passes == pytest.approx(3 * 10.0)  # each a read, longer than its computation
    assert (files.file_reads, files.bytes_read) == (5, 5 * 4e9)
    assert files.memory < four.memory
    text = cost(Job(10**7, 1.0, 400.0, 4 * 10**9, False, 10, 50, False), speed, 4)
    assert text.reading == pytest.approx(10.0 + 30.0 / 4)  # every process parses all
    assert text.learning == pytest.approx(0.1 + 10.0 + 10.0 / 4)
    assert text.bytes_read == 2 * 4 * 4e9
