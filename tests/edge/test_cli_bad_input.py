"""What cannot be used ends in one sentence that names it, with exit code 2 and nothing written."""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from edge.command_line import ENVIRONMENT, fine, run
from torchlogit import LogisticRegression, save

ROWS = 120
FAR = 70_000


def table():
    random = np.random.default_rng(17)
    frame = pd.DataFrame(
        {
            "age": random.integers(20, 80, ROWS),
            "spend": random.gamma(2.0, 30.0, ROWS).round(2),
            "plan": random.choice(["basic", "plus", "pro"], ROWS),
            "joined": pd.date_range("2022-01-01", periods=ROWS, freq="D").strftime("%Y-%m-%d"),
            "w": random.integers(0, 3, ROWS),
            "o": random.normal(size=ROWS).round(3),
        }
    )
    frame["species"] = random.choice(["setosa", "virginica", "versicolor"], ROWS)
    return frame.assign(churn=np.where(frame["age"] + random.normal(0, 15, ROWS) > 50, "yes", "no"))


def far(bad=None):
    lines = [f"{row % 97 / 2},{row % 2}" for row in range(FAR + 100)]
    if bad is not None:
        lines[FAR - 1] = f"{bad},1"
    return "a,y\n" + "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Everything that can be wrong with a file, and sound models."""
    folder = tmp_path_factory.mktemp("bad")
    frame = table()

    def text(name, content):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    frame.to_csv(folder / "good.csv", index=False)
    frame.to_parquet(folder / "good.parquet")
    good = (folder / "good.csv").read_bytes()
    packed, stored = gzip.compress(good, mtime=0), (folder / "good.parquet").read_bytes()
    labels = [str(row % 2) for row in range(ROWS)]

    def labelled(value, row=30):
        return "a,y\n" + "".join(f"{j},{value if j == row else label}\n" for j, label in enumerate(labels))

    text("empty.csv", b"")
    text("blank.csv", b"\n\n  \n")
    text("header.csv", "a,b,y\n")
    text("one.csv", "a,y\n1,x\n2,x\n3,x\n")
    text("nan.csv", labelled("NaN"))
    text("gap.csv", labelled(""))
    text("inf.csv", labelled("inf"))
    text("ragged.csv", "a,b,y\n1,2,x\n3,4,z\n5,6,7,x\n8,9,z\n")
    text("short.csv", "a,b,y\n1,2,x\n3,z\n5,6,x\n")
    text("latin.csv", "name,y\nMüller,x\nSmith,z\n".encode("latin-1"))
    text("wide.csv", "a,y\n1,x\n2,z\n".encode("utf-16"))
    text("unmarked.csv", "a,y\n1,x\n2,z\n".encode("utf-16-le"))
    text("huge label.csv", labelled("1e999"))
    os.mkfifo(folder / "pipe")
    frame.assign(k=[b"\xff"] * ROWS).to_parquet(folder / "bytes.parquet")
    text("binary.csv", bytes(range(256)) * 40)
    text("open quote.csv", 'a,y\n1,"x, y"\n2,"z\n3,4\n')
    text("cut.csv.gz", packed[: len(packed) // 2])
    text("damaged.csv.gz", packed[:200] + bytes(40) + packed[240:])
    text("not.csv.gz", good)
    text("cut.parquet", stored[: len(stored) // 2])
    text("not.parquet", good)
    text("book.xlsx", b"PK\x03\x04" + bytes(100))
    text("twice.csv", "a,b,a,y\n1,2,3,x\n4,5,6,z\n")
    text("far.csv", far())
    text("far-text.csv", far("oops"))
    text("far-inf.csv", far("1e999"))
    text("constant.csv", "a,b,y\n1,x,p\n1,x,q\n1,x,p\n1,x,q\n")
    text("bad.libsvm", "1 1:0.5 3:1\n0 2:1 x\n1 1:1\n")
    text("missing w.csv", good.replace(b",0,", b",,", 1))
    frame.assign(w=np.where(np.arange(ROWS) == 5, -1, 1)).to_csv(folder / "negative w.csv", index=False)
    frame.assign(w="heavy").to_csv(folder / "text w.csv", index=False)
    frame.assign(w=0).to_csv(folder / "zero w.csv", index=False)
    frame.assign(o=np.where(np.arange(ROWS) == 7, np.nan, 0.5)).to_csv(folder / "missing o.csv", index=False)
    frame.assign(o=np.where(np.arange(ROWS) == 7, np.inf, 0.5)).to_csv(folder / "infinite o.csv", index=False)
    frame.drop(columns="spend").to_csv(folder / "no spend.csv", index=False)
    frame.rename(columns={"spend": "Spend"}).to_csv(folder / "renamed.csv", index=False)
    frame.assign(spend="plenty").to_csv(folder / "retyped.csv", index=False)
    frame.assign(joined="soon").to_csv(folder / "no date.csv", index=False)
    frame.assign(spend=pd.Series([[1.0]] * ROWS)).to_parquet(folder / "nested.parquet")
    maybe = np.where(np.arange(ROWS) == 9, "maybe", frame["churn"])
    frame.assign(churn=maybe).to_csv(folder / "maybe.csv", index=False)
    frame.drop(columns="churn").to_csv(folder / "no churn.csv", index=False)
    pd.DataFrame({"t": [[1], [2]] * 10, "a": range(20)}).to_parquet(folder / "nested target.parquet")
    (folder / "directory").mkdir()
    (folder / "directory" / "x.tsv").write_text("a\ty\n1\tx\n")
    (folder / "empty directory").mkdir()

    def fitted(name, *arguments):
        fine("fit", *arguments, "-o", folder / name, "--json")

    drops = ["--drop", "w", "--drop", "o", "--drop", "species"]
    fitted("model", folder / "good.csv", "--target", "churn", *drops)
    fitted("weighted", folder / "good.csv", "--target", "churn", "--weight", "w", "--offset", "o", "--drop", "species")
    fitted("three", folder / "good.csv", "--target", "species", *drops[:4], "--drop", "churn")
    fitted("far", folder / "far.csv", "--target", "y")
    content = (folder / "model").read_bytes()
    text("cut model", content[: len(content) // 2])
    text("empty model", b"")
    text("tampered model", content.replace(b"yes", b"yea", 1))
    text("newer model", content.replace(b'"format_version":"1"', b'"format_version":"7"', 1))
    X, y = frame[["age"]].to_numpy(float), frame["churn"]
    save(LogisticRegression().fit(X, y), folder / "array model")
    for name, notes in {"a": {"table": 3}, "b": {"table": {}}, "c": {"table": {"target": 1}, "shares": 1}}.items():
        save(LogisticRegression().fit(X, y), folder / f"odd notes {name}", notes=notes)
    return folder


@dataclass(frozen=True)
class Case:
    """A command, and what its sentence has to say. ``@name`` is a file of `place`, ``>name`` one to be written."""

    words: str
    needles: tuple[str, ...]

    def arguments(self, place, out):
        known = {"@": lambda name: place / name, ">": lambda name: out / name}
        parts = [part.replace("_", " ") if part[0] in "@>" else part for part in self.words.split()]
        return [known[part[0]](part[1:]) if part[0] in known else part for part in parts]


def case(words, *needles):
    return pytest.param(Case(words, needles), id=words[:70])


TO = "--target churn -o >m"
ON = "@good.csv -o >p.csv"
BAD = [
    # files that are not there, or not tables
    case("fit @nowhere.csv --target y -o >m", "no file", "nowhere.csv"),
    case("fit @god.csv --target y -o >m", "no file", "god.csv", "good.csv"),
    case("fit @no/such/folder.csv --target y -o >m", "no/such", "does not exist"),
    case("fit @*.nothing --target y -o >m", "no file matches", "*.nothing"),
    case("fit @directory --target y -o >m", "only one value", "'x'"),
    case("fit @empty_directory --target y -o >m", "is a directory without a file"),
    case("fit @empty.csv --target y -o >m", "empty.csv is empty"),
    case("fit @blank.csv --target y -o >m", "blank.csv", "empty"),
    case("fit @header.csv --target y -o >m", "header.csv", "no rows"),
    case("fit @ragged.csv --target y -o >m", "ragged.csv, row 3 (line 4)", "4 fields", "expected 3"),
    case("fit @short.csv --target y -o >m", "short.csv, row 2 (line 3)", "2 fields", "expected 3"),
    case("fit @latin.csv --target y -o >m", "latin.csv, line 2", "not UTF-8"),
    case("fit @wide.csv --target y -o >m", "wide.csv", "UTF-8"),
    case("fit @unmarked.csv --target y -o >m", "unmarked.csv is UTF-16", "UTF-8"),
    case("fit @pipe --target y -o >m", "pipe is a pipe", "save it to a file first"),
    case("predict @model @pipe -o >p.csv", "pipe is a pipe", "save it to a file first"),
    case("fit @binary.csv --target y -o >m", "binary.csv"),
    case("fit @open_quote.csv --target y -o >m", "open quote.csv, line 3", "quote"),
    case("fit @twice.csv --target y -o >m", "twice.csv", "two columns named 'a'", "rename"),
    case(f"fit @cut.csv.gz {TO}", "cut.csv.gz", "cut short"),
    case(f"fit @damaged.csv.gz {TO}", "damaged.csv.gz", "damaged"),
    case(f"fit @not.csv.gz {TO}", "not.csv.gz", "not a gzip file"),
    case(f"fit @cut.parquet {TO}", "cut.parquet", "cut short"),
    case(f"fit @not.parquet {TO}", "not.parquet", "not a Parquet file"),
    case(f"fit @book.xlsx {TO}", "book.xlsx", "Excel"),
    case("fit @bad.libsvm -o >m", "bad.libsvm", "line 2"),
    case(f"fit @good.csv @good.parquet {TO}", "good.parquet is Parquet", "good.csv is CSV"),
    case(f"fit @good.csv @no_spend.csv {TO}", "no spend.csv has no column 'spend'"),
    case(f"fit @good.csv @model {TO}", "model"),
    case(f"fit @model {TO}", "model"),
    # columns
    case("fit @good.csv -o >m", "--target", "churn"),
    case("fit @good.csv --target chrun -o >m", "good.csv has no column 'chrun'", "did you mean 'churn'"),
    case("fit @good.csv --target CHURN -o >m", "did you mean 'churn'"),
    case("fit @good.csv --target column_7 -o >m", "no column 'column_7'", "--no-header"),
    case("fit @good.csv --no-header --target churn -o >m", "no column 'churn'", "leave out --no-header"),
    case("fit @good.csv --sep ; --target churn -o >m", "no column 'churn'", "--sep"),
    case("fit @good.csv --sep ;; --target churn -o >m", "--sep", "';;'"),
    case(f"fit @good.csv {TO} --drop chrun", "'chrun'", "--drop", "did you mean 'churn'"),
    case(f"fit @good.csv {TO} --drop churn", "column 'churn' is named as target and as drop"),
    case(f"fit @good.csv {TO} --weight churn", "column 'churn' is named as target and as weight"),
    case(f"fit @good.csv {TO} --offset churn", "column 'churn' is named as target and as offset"),
    case(f"fit @good.csv {TO} --weight o --offset o", "column 'o' is named as weight and as offset"),
    case(f"fit @good.csv {TO} --weight weight", "no column 'weight' for --weight"),
    case("fit @far.csv --target y --drop a -o >m", "far.csv", "no columns left", "--drop"),
    case("fit @constant.csv --target y -o >m", "no column is left", "a is left out", "b is left out"),
    case("fit @nested.parquet --target churn -o >m", "nested.parquet", "'spend'", "--drop spend"),
    case("fit @bytes.parquet --target churn -o >m", "column 'k' of bytes.parquet holds binary", "--drop k"),
    # labels
    case("fit @one.csv --target y -o >m", "'y'", "only one value", "two classes"),
    case("fit @nan.csv --target y -o >m", "nan.csv, row 31 (line 32)", "'y'", "missing"),
    case("fit @gap.csv --target y -o >m", "gap.csv, row 31 (line 32)", "'y'", "missing"),
    case("fit @inf.csv --target y -o >m", "inf.csv, row 31 (line 32)", "'inf'", "'y'", "not finite"),
    case("fit @huge_label.csv --target y -o >m", "huge label.csv, row 31 (line 32)", "'1e999'", "'y'", "not finite"),
    case("fit @good.csv --target spend -o >m", "'spend'", "measurement", "--target"),
    case("fit @good.csv --target joined -o >m", "'joined'", "identifier"),
    case("fit @nested_target.parquet --target t -o >m", "'t'", "--target"),
    case("fit @good.csv --target species --positive Setosa -o >m", "'species'", "'Setosa'", "did you mean 'setosa'"),
    case("fit @good.csv --target species --positive rose -o >m", "'rose'", "setosa, versicolor, virginica"),
    case("fit @one.csv --target y --positive x -o >m", "'y'", "two classes"),
    case("evaluate @model @maybe.csv", "maybe.csv, row 10 (line 11)", "'maybe'", "no, yes"),
    case(f"fit @good.csv --test @maybe.csv {TO}", "maybe.csv, row 10 (line 11)", "'maybe'"),
    case("evaluate @model @no_churn.csv", "no churn.csv has no column 'churn'"),
    case("evaluate @array_model @good.csv", "from Python", "target"),
    # values
    case("fit @far-text.csv --target y -o >m", "far-text.csv, row 70,000 (line 70,001)", "'a'", "'oops'", "--drop"),
    case("predict @far @far-text.csv -o >p.csv", "far-text.csv, row 70,000 (line 70,001)", "'a'", "'oops'", "correct"),
    case("predict @far @far-text.csv -o >p.parquet", "far-text.csv, row 70,000 (line 70,001)", "'a'", "'oops'"),
    case("predict @far @far-inf.csv -o >p.csv", "far-inf.csv, row 70,000", "'a'"),
    case("evaluate @far @far-text.csv", "far-text.csv, row 70,000", "'a'", "'oops'"),
    case(f"fit @negative_w.csv {TO} --weight w", "negative w.csv, row 6 (line 7)", "'-1'", "'w'", "--weight"),
    case(f"fit @text_w.csv {TO} --weight w", "text w.csv, row 1 (line 2)", "'heavy'", "'w'", "--weight"),
    case(f"fit @zero_w.csv {TO} --weight w", "'w'", "weight 0", "--weight"),
    case("compare @zero_w.csv --target churn --weight w", "'w'", "weight 0", "--weight"),
    case(f"fit @missing_w.csv {TO} --weight w", "missing w.csv, row", "'w'", "missing"),
    case(f"fit @missing_o.csv {TO} --offset o", "missing o.csv, row 8 (line 9)", "'o'", "missing"),
    case(f"fit @infinite_o.csv {TO} --offset o", "infinite o.csv, row 8 (line 9)", "'inf'", "'o'", "--offset"),
    case("predict @weighted @missing_o.csv -o >p.csv", "missing o.csv, row 8 (line 9)", "'o'"),
    case("fit @good.csv --target churn --drop species -o >m --weight o", "good.csv, row", "'o'", "not negative"),
    # tables that do not fit the model
    case("predict @model @no_spend.csv -o >p.csv", "no spend.csv has no column 'spend'", "fitted"),
    case("explain @model @no_spend.csv", "no spend.csv has no column 'spend'", "fitted"),
    case("explain @model @renamed.csv", "renamed.csv has no column 'spend'", "did you mean 'Spend'"),
    case("explain @model @nested.parquet", "nested.parquet", "'spend'", "list<"),
    case("predict @model @renamed.csv -o >p.csv", "renamed.csv has no column 'spend'", "did you mean 'Spend'"),
    case("predict @model @retyped.csv -o >p.csv", "retyped.csv, row 1 (line 2)", "'spend'", "'plenty'", "numeric"),
    case("predict @model @no_date.csv -o >p.csv", "no date.csv, row 1 (line 2)", "'joined'", "'soon'", "date"),
    case("predict @model @nested.parquet -o >p.csv", "nested.parquet", "'spend'"),
    case("predict @weighted @far.csv -o >p.csv", "far.csv has no column 'o' for --offset"),
    case("predict @model @header.csv -o >p.csv", "header.csv", "no rows"),
    case("predict @model @cut.csv.gz -o >p.csv", "cut.csv.gz", "cut short"),
    case("predict @array_model @good.csv -o >p.csv", "good.csv has 8 columns", "fitted on 1"),
    case("explain @model @retyped.csv", "retyped.csv, row 1 (line 2)", "'spend'", "'plenty'"),
    case("explain @model @good.csv --row 120", "no row 120", "120 rows", "row 119"),
    # model files
    *(
        case(f"{command.replace('MODEL', model)}", *needles)
        for model, *needles in (
            ("@no_model", "no model file", "no model"),
            ("@directory", "directory", "is a directory"),
            ("@good.csv", "good.csv is not a model file"),
            ("@good.parquet", "good.parquet is not a model file"),
            ("@empty_model", "empty model is empty"),
            ("@cut_model", "cut model", "cut short"),
            ("@tampered_model", "tampered model", "checksum"),
            ("@newer_model", "newer model", "newer torchlogit", "update"),
            ("@odd_notes_a", "odd notes a", "notes"),
            ("@odd_notes_b", "odd notes b", "notes"),
            ("@odd_notes_c", "odd notes c", "notes"),
        )
        for command in (f"predict MODEL {ON}", "evaluate MODEL @good.csv", "inspect MODEL", "explain MODEL @good.csv")
    ),
    # where it should be written
    case("fit @good.csv --target churn -o >missing/m", "no folder", "missing"),
    case("fit @good.csv --target churn -o @directory", "directory is a directory", "-o"),
    case("fit @good.csv --target churn -o @good.csv", "good.csv is one of the files to read", "-o"),
    case("fit @good.csv --target churn --test @far.csv -o @far.csv", "far.csv is one of the files to read"),
    case("predict @model @good.csv -o >p.txt", "p.txt", ".csv or .parquet"),
    case("predict @model @good.csv -o >p", ".csv or .parquet"),
    case("predict @model @good.csv -o >missing/p.csv", "no folder", "missing"),
    case("predict @model @good.csv -o @good.csv", "good.csv is one of the files to read"),
    case("predict @model @g*.csv -o @good.csv", "good.csv is one of the files to read"),
    # options
    *(case(f"fit @good.csv {TO} --C {value}", "--C", f"'{value}'", "above 0") for value in ("0", "-1", "nan", "one")),
    *(case(f"fit @good.csv {TO} --tol {value}", "--tol", f"'{value}'") for value in ("0", "-1", "nan", "inf", "small")),
    *(
        case(f"fit @good.csv {TO} --test-size {value}", "--test-size", f"'{value}'", "0.99")
        for value in ("1", "-0.1", "20%", "nan")
    ),
    case(f"fit @good.csv {TO} --test @good.csv --test-size 0.5", "--test-size", "--test"),
    case(f"fit @good.csv {TO} --seed x", "--seed", "'x'"),
    case(f"fit @good.csv {TO} --device gpu", "--device", "'gpu'", "cpu"),
    case(f"fit @good.csv {TO} --nonsense", "--nonsense", "fit --help"),
    case(f"fit @good.csv {TO} --targte churn", "--targte", "--target"),
    case(f"fit @good.csv {TO} --C", "--C", "argument"),
    case("fit", "DATA", "fit --help"),
    case("predict @model", "DATA"),
    case("predict @model @good.csv", "-o"),
    case("compare @good.csv --target churn --C 0", "--C", "above 0"),
    case("compare @good.csv", "--target"),
    case("explain @model @good.csv --row -1", "--row", "'-1'"),
    case("explain @model @good.csv --row first", "--row", "'first'"),
    *(
        case(f"{command} --threshold {value}", "--threshold", f"'{value}'")
        for command in ("predict @model @good.csv -o >p.csv", "evaluate @model @good.csv")
        for value in ("1.5", "-0.1", "nan", "half")
    ),
    case("predict @three @good.csv -o >p.csv --threshold 0.3", "--threshold", "two labels", "3"),
    case("nonsense", "no such command 'nonsense'", "torchlogit --help"),
    case("--nonsense", "--nonsense"),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_one_sentence(place, tmp_path, bad):
    before = sorted(os.listdir(place)), {path.name: path.stat().st_mtime_ns for path in place.iterdir()}
    outcome = run(*bad.arguments(place, tmp_path))
    for needle in bad.needles:
        assert needle in outcome.sentence
    assert outcome.out == ""
    assert len(outcome.sentence) < 600
    assert os.listdir(tmp_path) == []
    assert (sorted(os.listdir(place)), {path.name: path.stat().st_mtime_ns for path in place.iterdir()}) == before


def test_an_empty_name_of_a_file():
    assert "empty" in run("fit", "", "--target", "y").sentence


SENSIBLE = [
    ("an extra column", lambda frame: frame.assign(extra="x")),
    ("an unseen category", lambda frame: frame.assign(plan="platinum")),
    ("values missing", lambda frame: frame.assign(plan=None, spend=None)),
    ("whole numbers as decimals", lambda frame: frame.assign(age=frame["age"].astype(float))),
    ("columns that were left out of the fit are not there", lambda frame: frame.drop(columns=["w", "o", "species"])),
    ("one row", lambda frame: frame[:1]),
    ("an extra column of lists", lambda frame: frame.assign(extra=[[1.0, 2.0]] * len(frame))),
    ("an extra column of bytes", lambda frame: frame.assign(extra=[b"\xff"] * len(frame))),
]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(("what", "change"), SENSIBLE, ids=[what for what, _ in SENSIBLE])
def test_what_can_be_predicted_is(place, tmp_path, what, change, suffix):
    frame = change(table())
    write = frame.to_csv if suffix == "csv" else frame.to_parquet
    write(tmp_path / f"rows.{suffix}", index=False)
    fine("predict", place / "model", tmp_path / f"rows.{suffix}", "-o", tmp_path / "p.csv")
    found = pd.read_csv(tmp_path / "p.csv")
    assert len(found) == len(frame)
    assert np.isfinite(found["probability_yes"]).all()
    assert sorted(os.listdir(tmp_path)) == ["p.csv", f"rows.{suffix}"]


def test_lists_that_are_not_used_stop_no_command(place, tmp_path):
    frame = table().assign(extra=[[1.0, 2.0]] * ROWS)
    frame.to_parquet(tmp_path / "rows.parquet")
    usual = fine("evaluate", place / "model", place / "good.csv", "--json").json
    found = fine("evaluate", place / "model", tmp_path / "rows.parquet", "--json").json
    assert {**found, "remarks": []} == {**usual, "remarks": []}
    assert fine("explain", place / "model", tmp_path / "rows.parquet").out.count("extra") == 0
    X, y = frame[["age"]], frame["churn"]
    save(LogisticRegression().fit(X, y), tmp_path / "named")
    fine("predict", tmp_path / "named", tmp_path / "rows.parquet", "-o", tmp_path / "p.csv")


def test_a_bad_value_among_held_out_rows_can_be_mended_like_any_other(place, tmp_path):
    """Whichever rows are held out, the sentence says what `fit` can do about it."""
    frame = table().astype({"spend": str})
    told = set()
    for row in range(0, ROWS, 6):
        frame.assign(spend=frame["spend"].where(frame.index != row, "oops")).to_csv(tmp_path / "x.csv", index=False)
        sentence = run("fit", tmp_path / "x.csv", "--target", "churn", "-o", tmp_path / "m").sentence
        assert sentence.startswith(f"x.csv, row {row + 1} (line {row + 2}), column 'spend': 'oops' is not a finite num")
        assert "--na 'oops'" in sentence
        assert "--drop 'spend'" in sentence
        told.add("as the other values" in sentence)
    assert told == {True, False}  # held out, and fitted
    fine("fit", tmp_path / "x.csv", "--target", "churn", "--na", "oops", "-o", tmp_path / "m")
    frame.assign(spend="oops").to_csv(tmp_path / "later.csv", index=False)
    arguments = ["--test", tmp_path / "later.csv", "--target", "churn", "-o", tmp_path / "m"]
    sentence = run("fit", place / "good.csv", *arguments).sentence
    assert "later.csv, row 1 (line 2), column 'spend': 'oops'" in sentence
    assert "--na 'oops'" in sentence


def test_a_full_device_is_named(place):
    for words in (writing(place, "m"), ["export", place / "model", "--to", "torch"]):
        assert run(*words, "-o", "/dev/full").sentence.startswith("/dev/full: no space left on the device")


UNBUFFERED = """
import resource, sys
from torchlogit.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
main()
"""


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_is_cut_short_is_an_error(place, tmp_path, options, unbuffered):
    """Without a buffer the system writes what it can, and Python takes that for all."""
    with (tmp_path / "out").open("w") as out:
        result = subprocess.run(
            [sys.executable, "-c", UNBUFFERED, "inspect", str(place / "model"), *options],
            env={**ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered},
            stdout=out, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert (tmp_path / "out").stat().st_size == 1000
    assert result.returncode == 2
    assert result.stderr.startswith("torchlogit: the output cannot be printed")
    assert result.stderr.count("\n") == 1


def writing(place, name):
    """A command that writes a file of this name."""
    if name == "m":
        return ["fit", place / "good.csv", "--target", "churn"]
    return ["predict", place / "model", place / "good.csv"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write and read everything")
def test_no_permission(place, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o500)
    for name in ("m", "p.csv"):
        assert "permission denied" in run(*writing(place, name), "-o", closed / name).sentence
    (tmp_path / "secret.csv").write_text("a,y\n1,2\n")
    (tmp_path / "secret.csv").chmod(0)
    assert "secret.csv" in run("fit", tmp_path / "secret.csv", "--target", "y", "-o", tmp_path / "m").sentence
    assert os.listdir(closed) == []


def test_no_permission_is_a_sentence(place, tmp_path, monkeypatch):
    """The same where root runs the tests: what the system would say is said for it."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for name in ("m", "p.csv"):
        sentence = run(*writing(place, name), "-o", tmp_path / name).sentence
        assert "permission denied" in sentence
        assert str(tmp_path) in sentence
    monkeypatch.undo()

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied", str(tmp_path / "m"))

    monkeypatch.setattr("torchlogit.files.os.fsync", refuse)
    sentence = run("fit", place / "good.csv", "--target", "churn", "-o", tmp_path / "m").sentence
    assert "permission denied" in sentence
    assert str(tmp_path / "m") in sentence
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT", "EIO"])
@pytest.mark.parametrize("name", ["m", "p.csv", "p.parquet"])
def test_a_full_disk_leaves_the_old_file(place, tmp_path, monkeypatch, name, number):
    (tmp_path / name).write_text("old")

    def refuse(descriptor):
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    monkeypatch.setattr("torchlogit.files.os.fsync", refuse)
    sentence = run(*writing(place, name), "-o", tmp_path / name).sentence
    assert str(tmp_path / name) in sentence
    assert ("no space left" in sentence) == (number != "EIO")
    assert (tmp_path / name).read_text() == "old"
    assert os.listdir(tmp_path) == [name]


LIMITED = """
import resource, sys
from torchlogit.cli import main
from torchlogit.cli.guard import guarded
import torchlogit.cli.workflow, torchlogit.model_file, torchlogit.scanning
from pyarrow import csv, parquet
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for arguments in sys.argv[1].split("|"):
    sys.argv[1:] = arguments.split()
    try:
        main()
    except SystemExit as end:
        print(end.code)
"""


def test_writes_that_fail_for_want_of_space(place, tmp_path):
    """A limit on the size of files stands for a full disk: real writes fail half-way, in one process for all three."""
    for name in ("good.csv", "model"):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    commands = ["fit good.csv --target churn -o m"]
    commands += [f"predict model good.csv -o p.{suffix}" for suffix in ("csv", "parquet")]
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, "|".join(commands)],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.stdout.split() == ["2", "2", "2"]
    lines = result.stderr.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["m", "p.csv", "p.parquet"]
    assert all("nothing was written" in line for line in lines)
    assert sorted(os.listdir(tmp_path)) == ["good.csv", "model"]


def test_a_disk_that_is_full(place, tmp_path):
    """A file system of two pages, where the tests may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system, and not everywhere")
    try:
        data = place / "good.csv"
        for words in (
            ["fit", data, "--target", "churn", "-o", disk / "m"],
            ["predict", place / "model", *[data] * 3, "-o", disk / "p.csv"],
            ["predict", place / "model", *[data] * 3, "-o", disk / "p.parquet"],
        ):
            sentence = run(*words).sentence
            assert "no space left" in sentence
            assert str(words[-1]) in sentence
            assert os.listdir(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_too_little_memory_is_a_sentence(place, monkeypatch):
    def refuse(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("torchlogit.cli.workflow.open_table", refuse)
    assert "memory" in run("fit", place / "good.csv", "--target", "churn").sentence


def test_a_fault_of_the_program_is_not_hidden(place, monkeypatch):
    """A sentence is for what people can mend; the rest must be reported with its traceback."""

    def fail(*arguments, **options):
        raise ZeroDivisionError

    monkeypatch.setattr("torchlogit.cli.workflow.open_table", fail)
    with pytest.raises(ZeroDivisionError):
        run("fit", place / "good.csv", "--target", "churn")
