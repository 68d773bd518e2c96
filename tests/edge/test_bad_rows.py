"""Rows that cannot be used: an error that names them, or left out, counted and listed."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.pipeline import make_pipeline

from edge.command_line import run
from torchlogit import LogisticRegression, TableEncoder, scan
from torchlogit.errors import InputError
from torchlogit.model_file import read

ROWS = 600


def frame(seed=0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.normal(size=(ROWS, 3)).round(6), columns=["a", "b", "c"])
    table["y"] = np.where(table["a"] + rng.logistic(size=ROWS) > 0, "yes", "no")
    table["w"] = rng.random(ROWS).round(3) + 0.5
    return table


@pytest.fixture
def text(tmp_path):
    """A CSV file with bad rows of every kind; the good ones are those of `good`."""
    lines = frame().to_csv(index=False).splitlines()
    lines[1 + 5] += ",7"  # row 6 has a field too many
    lines[1 + 9] = "1.0"  # row 10 has one
    lines[1 + 20] = "0.1,0.2,0.3,,1"  # row 21 has no label
    lines[1 + 30] = "0.1,0.2,0.3,yes,heavy"
    lines[1 + 31] = "0.1,0.2,0.3,yes,-1"
    lines[1 + 32] = "0.1,0.2,0.3,yes,"
    path = tmp_path / "x.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


BAD = [5, 9, 20, 30, 31, 32]
LISTED = [
    ("x.csv", 6, "6 fields, expected 5"),
    ("x.csv", 10, "1 field, expected 5"),
    ("x.csv", 21, "no label in column 'y'"),
    ("x.csv", 31, "a weight in column 'w' that is not a finite number from 0"),
    ("x.csv", 32, "a weight in column 'w' that is not a finite number from 0"),
    ("x.csv", 33, "no weight in column 'w'"),
]


def good():
    return frame().drop(index=BAD)


def test_an_error_names_the_row(text):
    with pytest.raises(InputError, match=r"x.csv, row 6 \(line 7\)"):
        scan(text, target="y", weight="w").labels()


@pytest.mark.parametrize("memory", [None, "1MiB"])
def test_skipped_rows_are_not_there(text, memory):
    table = scan(text, target="y", weight="w", on_bad_row="skip", memory=memory)
    model = make_pipeline(TableEncoder(), LogisticRegression(tol=1e-10)).fit(table)
    rows = good()
    whole = make_pipeline(TableEncoder(), LogisticRegression(tol=1e-10))
    whole.fit(rows[["a", "b", "c"]], rows["y"], logisticregression__sample_weight=rows["w"])
    np.testing.assert_allclose(model[-1].coef_, whole[-1].coef_, rtol=0, atol=1e-9)


def test_they_are_counted_and_listed(text):
    table = scan(text, target="y", weight="w", on_bad_row="skip")
    usable = table.usable(numeric=False)
    assert usable.skipped.count == 6
    assert list(usable.skipped.listed) == LISTED
    assert usable.n_rows() == ROWS - 6
    assert usable.usable(numeric=False) is usable
    assert usable.place(5) == "x.csv, row 7 (line 8)"
    assert usable.place(ROWS - 7) == f"x.csv, row {ROWS} (line {ROWS + 1})"
    assert usable.labels().tolist() == good()["y"].tolist()


def test_the_command_line_says_so_and_the_model_file_lists_them(text):
    model = text.parent / "m.safetensors"
    arguments = ("fit", text, "--target", "y", "--weight", "w", "-o", model, "--json")
    assert "row 6 (line 7)" in run(*arguments).sentence
    assert not model.exists()
    outcome = run(*arguments, "--on-bad-row", "skip")
    assert outcome.code == 0
    figures = json.loads(outcome.out)
    assert figures["skipped_rows"] == 6
    assert figures["n_rows"] + figures["n_test"] == ROWS - 6
    assert outcome.err == (
        "torchlogit: 6 rows could not be used and were skipped: the first is x.csv, row 6, which has 6 fields, "
        "expected 5\n"
    )
    assert [tuple(entry) for entry in read(model).notes["skipped"]] == LISTED


def test_numbers_without_an_encoder(tmp_path):
    table = frame().drop(columns="w")
    table.loc[3, "a"], table.loc[4, "b"], table.loc[5, "c"] = np.nan, np.inf, -np.inf
    pq.write_table(pa.Table.from_pandas(table), tmp_path / "x.parquet")
    lazy = scan(tmp_path / "x.parquet", target="y", on_bad_row="skip")
    model = LogisticRegression(tol=1e-10).fit(lazy)
    rows = table.drop(index=[3, 4, 5])
    whole = LogisticRegression(tol=1e-10).fit(rows[["a", "b", "c"]], rows["y"])
    np.testing.assert_allclose(model.coef_, whole.coef_, rtol=0, atol=1e-9)
    assert [entry[1:] for entry in lazy.usable(numeric=True).skipped.listed] == [
        (4, "no value in column 'a'"),
        (5, "a value in column 'b' that is not a finite number"),
        (6, "a value in column 'c' that is not a finite number"),
    ]
    # to an encoder a missing value is a value like others
    assert [entry[1] for entry in lazy.usable(numeric=False).skipped.listed] == [5, 6]
    with pytest.raises(ValueError, match=r"x\.parquet, row 4, column 'a'"):
        LogisticRegression().fit(scan(tmp_path / "x.parquet", target="y"))


def test_labels_that_are_not_finite(tmp_path):
    y = [0.0, 1.0, np.inf, np.nan, None, 1.0]
    pq.write_table(pa.table({"x": [1.0, 2, 3, 4, 5, 6], "y": pa.array(y, pa.float64())}), tmp_path / "x.parquet")
    table = scan(tmp_path / "x.parquet", target="y", on_bad_row="skip").usable(numeric=True)
    assert table.labels().tolist() == [0, 1, 1]
    assert table.skipped.count == 3


def test_several_files_and_a_held_out_part(tmp_path):
    rows = frame()
    for i in range(3):
        part = rows.iloc[200 * i : 200 * (i + 1)].copy()
        part.loc[part.index[i], "y"] = None
        part.to_parquet(tmp_path / f"{i}.parquet")
    arguments = ("--target", "y", "--on-bad-row", "skip", "-o", tmp_path / "m", "--json")
    outcome = run("fit", tmp_path / "*.parquet", *arguments)
    figures = json.loads(outcome.out)
    assert (figures["skipped_rows"], figures["n_rows"] + figures["n_test"]) == (3, 597)
    listed = scan(tmp_path, target="y", on_bad_row="skip").usable(numeric=False).skipped.listed
    assert [entry[:2] for entry in listed] == [("0.parquet", 1), ("1.parquet", 2), ("2.parquet", 3)]


def test_libsvm(tmp_path):
    path = tmp_path / "x.libsvm"
    path.write_text("1 1:2 3:1\n0 2:1\nlabel 1:1\n1 1:1 1:2\n# only a comment\n0 3:x\n1 2:2\n0 1:1\n")
    table = scan(path, on_bad_row="skip")
    assert table.labels().tolist() == [1, 0, 1, 0]
    assert [entry[:2] for entry in table.skipped.listed] == [("x.libsvm", 3), ("x.libsvm", 4), ("x.libsvm", 5)]
    assert table.place(2) == "x.libsvm, row 6 (line 7)"
    assert LogisticRegression().fit(table).classes_.tolist() == [0, 1]
    with pytest.raises(InputError, match="line 3"):
        scan(path).labels()


def test_more_bad_rows_than_are_listed(tmp_path):
    y = np.where(np.arange(5_000) % 2, None, "a")
    y[0] = "b"
    pq.write_table(pa.table({"x": np.arange(5_000.0), "y": pa.array(y)}), tmp_path / "x.parquet")
    skipped = scan(tmp_path / "x.parquet", target="y", on_bad_row="skip").usable(numeric=True).skipped
    assert skipped.count == 2_500
    assert len(skipped.listed) == 1_000
    assert [row for _, row, _ in skipped.listed] == list(range(2, 2_001, 2))


def test_no_row_is_good(tmp_path):
    pq.write_table(pa.table({"x": [1.0, 2.0], "y": pa.array([None, None], pa.string())}), tmp_path / "x.parquet")
    outcome = run("fit", tmp_path / "x.parquet", "--target", "y", "--on-bad-row", "skip", "-o", tmp_path / "m")
    assert outcome.sentence == (
        "no row can be used: x.parquet, row 1 has no label in column 'y', and the others are no better"
    )


def test_a_policy_that_is_none(text):
    with pytest.raises(InputError, match="'error' or 'skip'"):
        scan(text, on_bad_row="ignore")
    assert "is not error or skip" in run("fit", text, "--target", "y", "--on-bad-row", "ignore").sentence
