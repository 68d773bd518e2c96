"""What `TableEncoder` promises of every kind of column, whatever holds the table and however it is cut."""

from __future__ import annotations

import calendar
import datetime
import itertools
import math
import re
from collections import Counter

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils import murmurhash3_32
from sklearn.utils.estimator_checks import check_estimator

from torchlogit import LogisticRegression, TableEncoder, load, save, scan
from torchlogit.encode.profile import ColumnProfile
from torchlogit.errors import InputError
from torchlogit.file_table import Roles
from torchlogit.scanning import open_table
from torchlogit.sources.text import TextOptions

WORDS = ["Free", "entry", "call", "now", "prize", "see", "you", "later", "ok", "thanks", "été", "lunch"]


def dense(matrix):
    return matrix.toarray() if scipy.sparse.issparse(matrix) else np.asarray(matrix)


def whole(rows):
    """What an encoded scan gives, block after block."""
    return np.concatenate([dense(batch.matrix()) for batch in rows.numeric_batches()])


def encoded(table, kinds=None):
    """Encoder and numbers, by name: ``{feature: column of numbers}``."""
    encoder = TableEncoder(kinds=kinds).fit(table)
    matrix = dense(encoder.transform(table))
    names = list(encoder.get_feature_names_out())
    assert matrix.shape == (len(table), len(names))
    assert len(set(names)) == len(names)
    return encoder, dict(zip(names, matrix.T, strict=True))


def kinds_of(encoder):
    return {decision.column: decision.kind for decision in encoder.decisions_}


def refusal(function, *arguments):
    with pytest.raises(InputError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert not message.endswith(".")
    return message


def texts(rng, rows, most=9):
    return [" ".join(rng.choice(WORDS, rng.integers(2, most))) for _ in range(rows)]


# -- scikit-learn -----------------------------------------------------------------------------------------------------


def test_check_estimator():
    results = check_estimator(TableEncoder(), on_skip=None)
    assert {result["status"] for result in results} <= {"passed", "skipped"}
    assert sum(result["status"] == "passed" for result in results) > 40


# -- the kinds, each against numbers made here ------------------------------------------------------------------------


def test_numeric(rng):
    values = rng.normal(3.0, 2.0, 400)
    gone = rng.random(400) < 0.3
    frame = pd.DataFrame({"a": np.where(gone, np.nan, values), "b": rng.integers(-5, 50, 400)})
    encoder, numbers = encoded(frame)
    assert kinds_of(encoder) == {"a": "numeric", "b": "numeric"}
    known = values[~gone]
    expected = np.where(gone, 0.0, (values - known.mean()) / known.std())
    np.testing.assert_allclose(numbers["a"], expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(numbers["a (missing)"], gone.astype(float))
    np.testing.assert_allclose(numbers["b"], (frame["b"] - frame["b"].mean()) / frame["b"].std(ddof=0), rtol=1e-13)
    assert list(numbers) == ["a", "a (missing)", "b"]


def test_numbers_far_from_zero_keep_their_digits(rng):
    near = np.round(rng.normal(size=10_000) * 1024) / 1024  # sums with the offset are exact
    encoder, numbers = encoded(pd.DataFrame({"stamp": 1.6e12 + near}))
    np.testing.assert_allclose(np.diff(numbers["stamp"]), np.diff(near) / near.std(), rtol=0, atol=1e-12)
    assert abs(numbers["stamp"].mean()) < 2 * np.spacing(1.6e12) / near.std()  # what rounding leaves of the mean


@pytest.mark.parametrize(
    ("values", "one"),
    [
        ([True, False, True, True], "true"),
        (["no", "yes", "no", "no"], "yes"),
        (["Y", "N", "N", "Y"], "Y"),
        (["female", "male", "male", "male"], "male"),
        (["on", "off", "off", "off"], "on"),
    ],
)
def test_boolean(values, one):
    encoder, numbers = encoded(pd.DataFrame({"x": [1.5, 2.5, 0.5, 4.5], "b": values}))
    assert kinds_of(encoder)["b"] == "boolean"
    np.testing.assert_array_equal(numbers[f"b = {one}"], [float(str(v).lower() == one.lower()) for v in values])


def test_boolean_missing_and_unseen():
    frame = pd.DataFrame({"b": ["yes", "no", None, "no", "no"]})
    encoder, numbers = encoded(frame)
    np.testing.assert_array_equal(numbers["b = yes"], [1, 0, 0.25, 0, 0])
    np.testing.assert_array_equal(numbers["b (missing)"], [0, 0, 1, 0, 0])
    new = dense(encoder.transform(pd.DataFrame({"b": ["YES", "perhaps", None]})))
    np.testing.assert_array_equal(new, [[1, 0], [0.25, 0], [0.25, 1]])


def test_category(rng):
    levels = np.array(["a", "b", "c", "d", "e"], dtype=object)
    values = levels[rng.choice(5, 300, p=[0.4, 0.3, 0.2, 0.06, 0.04])]
    values[:2] = ["once", "twice"]  # rarer than three times
    values[5:15] = None
    encoder, numbers = encoded(pd.DataFrame({"c": values}))
    counted = Counter(value for value in values if value is not None)
    frequent = [level for level, count in counted.most_common() if count >= 3]
    assert list(numbers) == [*(f"c = {level}" for level in frequent), "c = (other)", "c (missing)"]
    for level in frequent:
        np.testing.assert_array_equal(numbers[f"c = {level}"], (values == level).astype(float))
    np.testing.assert_array_equal(numbers["c = (other)"], np.isin(values, ["once", "twice"]).astype(float))
    np.testing.assert_array_equal(numbers["c (missing)"], pd.isna(values).astype(float))
    new = dense(encoder.transform(pd.DataFrame({"c": ["never seen", "a", " a "]})))
    assert new[:, list(numbers).index("c = (other)")].tolist() == [1, 0, 0]
    assert new[:, list(numbers).index("c = a")].tolist() == [0, 1, 1]


def test_an_unseen_level_and_a_first_missing_value_have_no_column_of_their_own():
    frame = pd.DataFrame({"c": ["a", "b", "c"] * 5, "n": np.arange(15.0) ** 2, "b": ["u", "v", "v"] * 5})
    encoder, numbers = encoded(frame)
    assert list(numbers) == ["n", "b = v", "c = a", "c = b", "c = c"]
    new = dense(encoder.transform(pd.DataFrame({"c": ["z", None], "n": [None, 1.0], "b": [None, "w"]})))
    mean, deviation = np.square(np.arange(15.0)).mean(), np.square(np.arange(15.0)).std()
    np.testing.assert_allclose(new, [[0, 2 / 3, 0, 0, 0], [(1 - mean) / deviation, 2 / 3, 0, 0, 0]], rtol=1e-13)


def test_categories_of_many_levels_are_hashed():
    levels = [f"level {i:04d}" for i in range(1500)]
    values = levels[:1000] * 4 + levels[1000:] * 3
    encoder, numbers = encoded(pd.DataFrame({"c": values}))
    assert kinds_of(encoder) == {"c": "category"}
    buckets = [name for name in numbers if "(bucket" in name]
    assert len(buckets) == 500 // 2 + 1
    assert len(numbers) == 1000 + len(buckets)
    for row in (0, 4000, 4321, 5499):
        value = values[row]
        if row < 4000:
            assert numbers[f"c = {value}"][row] == 1
        else:
            bucket = murmurhash3_32(value, positive=True) % len(buckets)
            assert numbers[f"c = (bucket {bucket})"][row] == 1
    np.testing.assert_array_equal(np.sum(list(numbers.values()), axis=0), 1)


DATE_FORMATS = {
    "%Y-%m-%d": False,
    "%Y-%m-%dT%H:%M:%S": True,
    "%Y-%m-%d %H:%M:%S.%f": True,
    "%Y-%m-%dT%H:%M:%SZ": True,
    "%Y-%m-%d %H:%M:%S UTC": True,
    "%Y/%m/%d": False,
    "%d.%m.%Y %H:%M": True,
    "%m/%d/%Y": False,
    "%d/%m/%Y": False,
    "%m/%d/%y": False,
    "%m/%d/%Y %I:%M %p": True,
    "%d %b %Y": False,
    "%d-%b-%Y": False,
    "%B %d, %Y": False,
    "%Y%m%dT%H%M%S": True,
    "%a, %d %b %Y %H:%M:%S GMT": True,
    "%a, %d %b %Y %H:%M:%S +0000": True,
}


@pytest.mark.parametrize("form", DATE_FORMATS)
def test_dates(form, rng):
    base = datetime.datetime(2019, 12, 30, 23, 30)
    times = [base + datetime.timedelta(minutes=int(m)) for m in rng.integers(0, 3 * 365 * 24 * 60, 250)]
    written = [time.strftime(form) for time in times]
    known = [datetime.datetime.strptime(text, form) for text in written]
    encoder, numbers = encoded(pd.DataFrame({"d": [*written, None]}))
    assert kinds_of(encoder) == {"d": "date"}
    days = np.array([(time - datetime.datetime(1970, 1, 1)) / datetime.timedelta(days=1) for time in known])
    np.testing.assert_allclose(numbers["d"][:-1], (days - days.mean()) / days.std(), rtol=0, atol=1e-9)
    months = list(calendar.month_name)[1:]
    weekdays = list(calendar.day_name)
    for row, time in enumerate(known):
        assert numbers[f"d: {months[time.month - 1]}"][row] == 1
        assert numbers[f"d: {weekdays[time.weekday()]}"][row] == 1
        assert not DATE_FORMATS[form] or numbers[f"d: hour {time.hour}"][row] == 1
    hours = 24 * DATE_FORMATS[form]
    assert len(numbers) == 2 + 12 + 7 + hours
    marks = np.sum([v for name, v in numbers.items() if ": " in name], axis=0)
    np.testing.assert_array_equal(marks, [2 + bool(hours)] * 250 + [0])
    np.testing.assert_array_equal(numbers["d (missing)"], [0] * 250 + [1])


@pytest.mark.parametrize("zone", ["+02:00", "+0200", "+02", " +0200", "-11:30"])
def test_zones_are_turned_into_utc(zone):
    local = ["2024-03-01T01:00:00", "2024-02-29T23:59:59.5", "2024-06-01T12:00:00"] * 4
    signed = 1 if "+" in zone else -1
    shift = datetime.timedelta(hours=2) if signed > 0 else -datetime.timedelta(hours=11, minutes=30)
    frame = pd.DataFrame({"d": [text + zone for text in local]})
    utc = pd.DataFrame({"d": [pd.Timestamp(text) - shift for text in local]})
    encoder, numbers = encoded(frame)
    assert kinds_of(encoder) == {"d": "date"}
    other, expected = encoded(utc)
    assert list(numbers) == list(expected)
    for name in numbers:
        np.testing.assert_array_equal(numbers[name], expected[name])


def test_day_and_month_are_told_apart_by_all_values():
    months_first = [f"{1 + i % 12:02d}/{1 + i % 12:02d}/2024" for i in range(40)]
    assert TableEncoder().fit(pd.DataFrame({"d": months_first})).decisions_[0].reason == "dates (%m/%d/%Y)"
    late = months_first * 10 + ["25/12/2024"]
    assert TableEncoder().fit(pd.DataFrame({"d": late})).decisions_[0].reason == "dates (%d/%m/%Y)"


def test_a_date_that_is_none_is_named():
    frame = pd.DataFrame({"d": [f"2024-02-{1 + i % 28:02d}" for i in range(60)]})
    encoder = TableEncoder().fit(frame)
    frame.loc[31, "d"] = "2024-02-30"
    message = refusal(TableEncoder().fit, frame)
    assert message.startswith("row 31, column 'd': '2024-02-30' is not a date")
    assert refusal(encoder.transform, frame).startswith("row 31, column 'd': '2024-02-30' is not a date")


def bag(text):
    words = re.findall(r"\w+", text.lower())
    return Counter(words) + Counter(f"{one} {two}" for one, two in itertools.pairwise(words))


def test_text(rng):
    column = [*texts(rng, 200, 12), None, "Free FREE, free!"]
    encoder, numbers = encoded(pd.DataFrame({"t": column}), {"t": "text"})
    bags = [Counter() if text is None else bag(text) for text in column]
    present = sum(text is not None for text in column)
    frequency = Counter(token for tokens in bags for token in tokens)
    kept = [token for token, count in frequency.items() if count >= 2]  # of 100 texts or more: twice at least
    assert set(numbers) == {f"t: '{token}'" for token in kept}
    for token in kept:
        idf = math.log((1 + present) / (1 + frequency[token])) + 1
        expected = [(1 + math.log(tokens[token])) * idf if tokens[token] else 0 for tokens in bags]
        np.testing.assert_allclose(numbers[f"t: '{token}'"], expected, rtol=1e-14)


def test_text_is_recognised(rng):
    frame = pd.DataFrame({"t": texts(rng, 300), "c": rng.choice(["free entry", "call now", "see you"], 300)})
    assert kinds_of(TableEncoder().fit(frame)) == {"t": "text", "c": "category"}


@pytest.mark.parametrize("share", [0.01, 0.4, 1.0])
def test_infinite_numbers_are_named_however_many(share):
    values = np.where(np.arange(200) >= 200 - 200 * share, -np.inf, np.arange(200.0) ** 2)
    message = refusal(TableEncoder().fit, pa.table({"a": values}))
    assert message.startswith(f"row {int(200 - 200 * share)}, column 'a': -inf is not a finite number")


def test_long_values_are_told_shortly():
    frame = pd.DataFrame({"same": ["x" * 10_000] * 40, "n": ["1", "2"] * 19 + ["3", "y" * 10_000]})
    assert "..." in refusal(TableEncoder().fit, frame)
    assert len(refusal(TableEncoder().fit, frame)) < 300
    assert len(TableEncoder().fit(frame[["same"]]).decisions_[0].reason) < 100


def test_what_is_left_out_and_why():
    frame = pd.DataFrame(
        {
            "x": np.tile([1.0, 4.0, 2.0], 40),
            "all missing": [None] * 120,
            "nan": [np.nan] * 120,
            "constant": [7] * 120,
            "word": ["same"] * 120,
            "row": np.arange(120) + 1000,
            "key": [f"K-{i * 7919 % 120:05d}" for i in range(120)],
            "day": [pd.Timestamp("2024-01-01")] * 120,
            "true": [True] * 120,
        }
    )
    encoder, numbers = encoded(frame)
    assert list(numbers) == ["x"]
    reasons = {decision.column: decision.reason for decision in encoder.decisions_}
    assert reasons["all missing"] == reasons["nan"] == "all 120 values are missing"
    assert reasons["constant"] == "constant (7)"
    assert reasons["word"] == "constant ('same')"
    assert reasons["row"] == "counts the rows, an identifier"
    assert reasons["key"] == "different in nearly every row, an identifier"
    assert reasons["day"] == reasons["true"] == "constant"
    assert str(encoder.decisions_[3]) == "constant: left out (constant (7))"
    assert encoder.feature_columns_ == ["x"]


def test_a_constant_with_missing_values_tells_by_them():
    _, numbers = encoded(pd.DataFrame({"n": [5.0, None] * 10, "c": ["k", None, None, "k"] * 5}))
    assert list(numbers) == ["n (missing)", "c = k", "c (missing)"]
    np.testing.assert_array_equal(numbers["n (missing)"], [0, 1] * 10)


# -- what columns look like in files ----------------------------------------------------------------------------------


def csv(folder, **columns):
    path = folder / "x.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return scan(path)


def test_digits_with_leading_zeros_are_codes(tmp_path):
    codes = ["02134", "90210", "10001", "00501"] * 30
    table = csv(tmp_path, zip=codes, hour=["0", "12", "23", "5"] * 30, x=[0.5, 0.25, 0.125, 10] * 30)
    encoder = TableEncoder().fit(table)
    assert kinds_of(encoder) == {"zip": "category", "hour": "numeric", "x": "numeric"}
    assert [name for name in encoder.get_feature_names_out() if name.startswith("zip")] == [
        f"zip = {code}" for code in sorted(set(codes))
    ]
    assert kinds_of(TableEncoder(kinds={"zip": "numeric"}).fit(table))["zip"] == "numeric"


@pytest.mark.parametrize("value", ["inf", "-inf", "1e400", "Infinity", "abc", "0x1F", "1_000", "12 000", "１２"])
@pytest.mark.parametrize("times", [1, 40])
def test_what_is_no_number_among_numbers(tmp_path, rng, value, times):
    column = [f"{number:.3f}" for number in rng.normal(size=1000)]
    column[200 : 200 + times] = [value] * times
    if times == 1 or value in ("inf", "-inf", "1e400", "Infinity"):
        message = refusal(TableEncoder().fit, csv(tmp_path, a=column))
        assert message.startswith(f"x.csv, row 201 (line 202), column 'a': '{value}' is not a finite number")
        assert "--na" in message


@pytest.mark.parametrize("marks", [["-"], ["unknown", "n.a."]])
def test_words_among_many_numbers_mean_missing(tmp_path, rng, marks):
    numbers = rng.normal(size=1000)
    column = [f"{number:.3f}" for number in numbers]
    gone = np.arange(1000) % 10 == 3
    for row in np.flatnonzero(gone):
        column[row] = marks[row // 10 % len(marks)]
    table = csv(tmp_path, a=column)
    encoder = TableEncoder().fit(table)
    matrix = whole(encoder.transform(table))
    assert list(encoder.get_feature_names_out()) == ["a", "a (missing)"]
    np.testing.assert_array_equal(matrix[:, 1], gone.astype(float))
    kept = np.array([float(value) for value in np.array(column)[~gone]])
    np.testing.assert_allclose(matrix[~gone, 0], (kept - kept.mean()) / kept.std(), rtol=1e-12, atol=1e-13)
    assert all(repr(mark) in encoder.decisions_[0].reason for mark in marks)
    assert all(repr(mark) in encoder.decisions_[0].encoding for mark in marks)
    column[7] = "other"
    assert "row 8 (line 9), column 'a': 'other' is not" in refusal(whole, encoder.transform(csv(tmp_path, a=column)))
    path = tmp_path / "model.safetensors"
    frame = pd.DataFrame({"a": column[8:]})
    labels = np.arange(len(frame)) % 2
    save(make_pipeline(encoder, LogisticRegression()).fit(frame, labels), path)
    assert load(path)[0].transform(frame).tobytes() == encoder.fit(frame).transform(frame).tobytes()


def test_few_levels_with_digits_among_them_are_a_category(tmp_path):
    table = csv(tmp_path, children=["0", "1", "2", "3+"] * 30)
    assert kinds_of(TableEncoder().fit(table)) == {"children": "category"}
    codes = [f"{i}" if i % 9 else f"V{i}" for i in range(100, 400)] * 3
    assert kinds_of(TableEncoder().fit(csv(tmp_path, diagnosis=codes))) == {"diagnosis": "category"}


def told(*columns, **more):
    """Decisions on columns of a frame, by name."""
    encoder = TableEncoder().fit(pd.DataFrame(*columns, **more))
    return {decision.column: decision for decision in encoder.decisions_}


def german(text):
    return text.replace(",", "x").replace(".", ",").replace("x", ".")


WRITTEN = {
    "1,234.5 $": lambda x: f"${x:,.2f}",
    "1,234.5 %": lambda x: f"{x:.2f} %",
    "1,234.5 EUR": lambda x: f"{x:.2f} EUR",
    "1,234.5": lambda x: f"{x:+,.2f}",
    "1.234,5": lambda x: german(f"{x:,.2f}"),
    "1.234,5 €": lambda x: german(f"{x:,.2f}") + "\u00a0€",
    "1 234,5": lambda x: f"{x:,.2f}".replace(",", "\u202f").replace(".", ","),
    "1'234.5 CHF": lambda x: f"CHF {x:,.2f}".replace(",", "’"),
}


@pytest.mark.parametrize("holder", ["frame", "comma", "semicolon", "parquet"])
@pytest.mark.parametrize("notation", WRITTEN)
def test_numbers_written_with_signs_and_commas_are_read(tmp_path, rng, notation, holder):
    numbers = np.round(rng.normal(0, 3000, 400), 2)
    numbers[:2] = 1234567.5, 0.5
    column = [None if j % 50 == 9 else WRITTEN[notation](number) for j, number in enumerate(numbers)]
    frame = pd.DataFrame({"a": column, "x": rng.choice(["u", "v", "w"], 400)})
    table = _holding(frame, tmp_path, holder)
    encoder = TableEncoder().fit(table)
    decision = encoder.decisions_[0]
    assert (decision.kind, decision.reason) == ("numeric", f"numbers written like {notation}, 8 missing")
    assert decision.encoding.startswith(f"numeric: written like {notation}, minus ")
    assert decision.hint == f"{column[0]!r} is read as 1234567.5"
    gone = np.array([value is None for value in column])
    known = numbers[~gone]
    expected = np.where(gone, 0, (numbers - known.mean()) / known.std())
    matrix = dense(encoder.transform(frame))
    np.testing.assert_allclose(matrix[:, 0], expected, rtol=1e-12, atol=1e-12)
    if holder != "frame":
        assert whole(encoder.transform(table)).tobytes() == matrix.tobytes()
    typed = frame.assign(a=np.where(gone, np.nan, numbers))
    np.testing.assert_array_equal(dense(encoder.transform(typed)), matrix)
    labels = np.arange(400) % 2
    save(make_pipeline(encoder, LogisticRegression()).fit(frame, labels), tmp_path / "model")
    assert dense(load(tmp_path / "model")[0].transform(frame)).tobytes() == matrix.tobytes()
    assert load(tmp_path / "model")[0].decisions_ == encoder.decisions_


def _holding(frame, folder, holder):
    if holder == "frame":
        return frame
    if holder == "parquet":
        frame.to_parquet(folder / "x.parquet")
        return scan(folder / "x.parquet")
    frame.to_csv(folder / "x.csv", index=False, sep={"comma": ",", "semicolon": ";"}[holder])
    return scan(folder / "x.csv")


def test_values_in_another_notation_than_the_fitted_are_named(rng):
    encoder = TableEncoder().fit(pd.DataFrame({"a": [german(f"{x:,.2f} €") for x in rng.normal(0, 3000, 50)]}))
    for value in ("5,00", "$5,00", "1.5 €", "1.23,5 €", "inf", "word", "1e999 €"):
        message = refusal(encoder.transform, pd.DataFrame({"a": ["7,00 €", value]}))
        assert message.startswith(f"row 1, column 'a': {value!r} is not a finite number written like 1.234,5 €")


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (["1,3", "2,4", "1", "2", "3,4"] * 20, "category"),  # choices from a list?
        (["1,234", "950", "15", "2,300", "7"] * 9, "category"),  # thousands, or decimals?
        (["1,234", "950", "15", "2,300", "7"] * 90, "numeric"),  # no decimal has three digits so often
        (["1,234", "5,678", "2,300"] * 9, "numeric"),  # both are the same column
        (["1,234", "5,678", "0,300"] * 9, "numeric"),
        (["1,23", "1.234", "17"] * 20, "numeric"),
        (["1,23", "1.23", "17"] * 20, "category"),
        (["$1.5", "€2.5", "$3.5"] * 20, "category"),
        (["1,5", "2,5", "n/a"] * 20, "category"),
        (["12:30", "08:00", "18:15"] * 20, "category"),
        (["V1,5", "V2,5", "V3,5"] * 20, "category"),
    ],
)
def test_only_what_is_unambiguous_is_read(column, kind):
    decision = told({"a": column})["a"]
    assert decision.kind == kind
    assert bool(decision.hint) == (re.match(r"[12$]", column[0]) is not None and ":" not in column[0] and (
        kind == "numeric" or "n/a" not in column))  # fmt: skip


def test_a_thousand_is_read_the_way_that_fits_every_value():
    for column, numbers in {
        ("1,234", "1,234,567", "7"): (1234, 1234567, 7),
        ("1,234", "5,5", "7"): (1.234, 5.5, 7),
        ("1.234", "1.234.567", "0,25"): (1234, 1234567, 0.25),
        ("12,25", "0,125", "7"): (12.25, 0.125, 7),
    }.items():
        _, encoded_numbers = encoded(pd.DataFrame({"a": list(column) * 20}))
        expected = (np.array(numbers) - np.mean(numbers)) / np.std(numbers)
        np.testing.assert_allclose(encoded_numbers["a"][:3], expected, rtol=1e-12)


def test_notations_do_not_depend_on_where_blocks_end(tmp_path):
    """The value that decides comes late."""
    for last in ("1.234,5", "1.5", "word"):
        path = tmp_path / "x.csv"
        lines = ["a;b", *(f"{j % 977},{j % 89:02d};1" for j in range(30_000)), f"{last};1", ""]
        path.write_text("\n".join(lines))
        outcomes = set()
        for block_bytes in (4_000, 1 << 20):
            encoder = TableEncoder().fit(open_table(path, Roles(), TextOptions(block_bytes=block_bytes)))
            outcomes.add(str(encoder.decisions_[0]))
        assert len(outcomes) == 1
        assert ("written like" in outcomes.pop()) == (last == "1.234,5")


def test_times_of_day_are_seconds_in_every_file(tmp_path, rng):
    minutes = rng.integers(0, 24 * 60, 300)
    for form, name in (("{:02d}:{:02d}", "h:mm"), ("{}:{:02d}:07", "h:mm:ss")):
        frame = pd.DataFrame({"t": [form.format(*divmod(minute, 60)) for minute in minutes.tolist()]})
        encoder = TableEncoder().fit(frame)
        assert encoder.decisions_[0].reason == f"numbers written like {name}"
        seconds = (minutes * 60 + 7 * (name != "h:mm")).astype(np.int32)
        typed = pa.table({"t": pa.array(seconds).cast(pa.time32("s"))})
        other = TableEncoder().fit(typed)
        np.testing.assert_allclose(dense(encoder.transform(frame)), dense(other.transform(typed)), rtol=1e-12)
        np.testing.assert_array_equal(dense(encoder.transform(frame)), dense(encoder.transform(typed)))
    assert "'7:60' is not" in refusal(encoder.transform, pd.DataFrame({"t": ["7:60"]}))


def test_numbers_can_be_asked_for_in_any_notation():
    frame = pd.DataFrame({"a": ["5 %", "7 %", "9 %"], "b": ["1,5", "x", "2"]})
    _, numbers = encoded(frame[["a"]], {"a": "numeric"})
    np.testing.assert_allclose(numbers["a"], np.array([-1, 0, 1]) / np.sqrt(2 / 3))
    assert refusal(TableEncoder({"b": "numeric"}).fit, frame).startswith("row 0, column 'b': '1,5' is not a finite")


@pytest.mark.parametrize("written", ["({:.0f},5)", "{:,.0f}.000,5"])
def test_numbers_with_signs_are_said_to_be_such(tmp_path, rng, written):
    column = [written.format(number) for number in rng.lognormal(8, 1, 400)]
    encoder = TableEncoder().fit(csv(tmp_path, a=column, x=rng.normal(size=400)))
    decision = encoder.decisions_[0]
    assert decision.kind != "numeric"
    assert f"to use it as a number, write {column[0]!r}" in decision.hint
    assert str(decision).endswith(decision.hint)
    assert encoder.decisions_[1].hint == ""


def test_strays_among_numbers_are_said_to_be_such(tmp_path, rng):
    column = np.where(np.arange(1000) % 50 == 7, "<5", rng.normal(size=1000).round(3).astype(str))
    decision = TableEncoder().fit(csv(tmp_path, a=column)).decisions_[0]
    assert decision.kind == "category"
    assert decision.hint == (
        "980 of 1,000 values are numbers and '<5' is none: to use it as a number, correct such values or declare them "
        "as missing (--na '<5')"
    )
    assert told({"children": ["0", "1", "2", "3+"] * 30})["children"].hint == ""


def test_dates_in_several_formats_are_said_to_be_such():
    days = pd.date_range("2022-01-13", periods=300)
    mixed = np.where(np.arange(300) % 2, days.strftime("%Y-%m-%d"), days.strftime("%d/%m/%Y"))
    words = np.where(np.arange(300) % 2, days.strftime("%Y-%m-%d"), "soon " + days.strftime("%d"))
    decisions = told({"mixed": mixed, "words": words})
    assert decisions["mixed"].hint == (
        "dates in several formats, such as '13/01/2022' and '2022-01-14': to use them, write all in one"
    )
    assert decisions["words"].hint == ""


def test_whole_numbers_that_are_all_different_may_be_an_identifier(tmp_path, rng):
    n = 9_000
    frame = pd.DataFrame(
        {
            "shuffled": rng.permutation(n) + 1000,
            "descending": np.arange(n)[::-1],
            "my steps": np.arange(n) * 3 + 7,
            "far": 10**15 + rng.permutation(n),
            "gaps": np.where(np.arange(n) % 5 == 0, np.nan, rng.permutation(n)),
            "counted": np.arange(n),
            "nearly": np.r_[rng.permutation(n - 1), 5],
            "fractions": rng.permutation(n) / 4,
            "age": rng.integers(0, 90, n),
        }
    )
    frame.to_parquet(tmp_path / "x.parquet")
    for table in (frame, csv(tmp_path, **frame), scan(tmp_path / "x.parquet")):
        decisions = {decision.column: decision for decision in TableEncoder().fit(table).decisions_}
        hinted = {name for name, decision in decisions.items() if decision.hint}
        assert hinted == {"shuffled", "descending", "my steps", "far", "gaps"}
        assert decisions["counted"].kind == "drop"
        assert all(decision.kind == "numeric" for name, decision in decisions.items() if name != "counted")
        words = "all different whole numbers: an identifier? leave it out with --drop "
        assert decisions["far"].hint == words + "far"
        assert decisions["my steps"].hint == words + "'my steps'"
    assert told({"few": rng.permutation(19)})["few"].hint == ""
    assert told({"enough": rng.permutation(20)})["enough"].hint
    assert TableEncoder({"few": "numeric"}).fit(pd.DataFrame({"few": rng.permutation(50)})).decisions_[0].hint == ""


@pytest.mark.parametrize(
    ("spellings", "one"),
    [(["True", "true", "FALSE", "false"], "true"), (["Yes", "yes", "NO"], "yes"), (["y", "N", "n"], "y"),
     (["ON", "off", "Off"], "on")],
)  # fmt: skip
def test_true_and_false_in_any_case_are_two_levels(tmp_path, rng, spellings, one):
    values = rng.choice(spellings, 300)
    path = tmp_path / "x.csv"
    pd.DataFrame({"b": values, "x": rng.normal(size=300)}).to_csv(path, index=False)
    encoder = TableEncoder().fit(scan(path))
    assert encoder.decisions_[0].reason == f"two levels in {len(spellings)} spellings"
    assert encoder.get_feature_names_out()[0] == f"b = {one}"
    matrix = whole(encoder.transform(scan(path)))
    np.testing.assert_array_equal(matrix[:, 0], np.char.lower(values) == one)
    frame = pd.read_csv(path)  # True and false are booleans there
    again = TableEncoder().fit(frame)
    assert list(again.get_feature_names_out()) == list(encoder.get_feature_names_out())
    assert dense(again.transform(frame)).tobytes() == matrix.tobytes()


def test_cases_of_other_words_are_levels():
    decisions = told({"a": ["A", "a", "b"] * 20, "b": ["yes", "Y", "no"] * 20, "c": ["True", "true"] * 30})
    assert {name: d.kind for name, d in decisions.items()} == {"a": "category", "b": "category", "c": "drop"}


def test_greek_words_in_capitals_are_known_again():
    frame = pd.DataFrame({"b": ["ΝΑΟΣ", "ΟΧΙ", "ΝΑΟΣ", "ΟΧΙ"]})
    _, numbers = encoded(frame)
    assert sorted(numbers["b = ΟΧΙ"].tolist()) == [0, 0, 1, 1]


def test_times_that_no_calendar_has():
    seconds = np.random.default_rng(0).integers(5 * 10**11, 9 * 10**11, 60)
    table = pa.table({"t": pa.array(seconds, pa.timestamp("s"))})
    encoder = TableEncoder().fit(table)
    assert re.match(r"date: days from 2\d{4}-\d\d-\d\d, month", encoder.decisions_[0].encoding)
    assert re.fullmatch(r"dates from the year 1\d{4} to 3\d{4}: is the unit .*\?", encoder.decisions_[0].hint)
    assert np.isfinite(dense(encoder.transform(table))).all()
    before = TableEncoder().fit(pa.table({"t": pa.array(-seconds, pa.timestamp("s"))})).decisions_[0]
    assert before.hint.startswith("dates from the year -")


def test_different_values_without_words_are_left_out(tmp_path, rng):
    column = [f"<{rng.integers(1 << 60)}>" for _ in range(200)]
    decision = TableEncoder().fit(csv(tmp_path, a=column)).decisions_[0]
    assert (decision.kind, decision.reason) == ("drop", "no value occurs 3 times")


def test_numbers_that_cannot_be_standardised_are_refused():
    for values in ([1e308, -1e308, 1.0], [1e-200, 2e-200, 5e-200], [1e200, 2e200, 7e200]):
        message = refusal(TableEncoder().fit, pd.DataFrame({"a": values * 10}))
        assert message.startswith("column 'a' holds numbers from")
        assert "power of ten" in message


def test_typed_columns(tmp_path, rng):
    from decimal import Decimal

    n = 200
    whole_numbers = rng.integers(0, 1000, n)
    gone = rng.random(n) < 0.2
    columns = {
        "decimal": pa.array([Decimal(int(i)) / 8 for i in whole_numbers], pa.decimal128(12, 4)),
        "half": pa.array(whole_numbers.astype(np.float16)),
        "unsigned": pa.array(whole_numbers.astype(np.uint64)),
        "duration": pa.array(whole_numbers, pa.duration("ms")),
        "clock": pa.array([None if g else int(i) for g, i in zip(gone, whole_numbers, strict=True)], pa.time32("s")),
        "level": pa.array([f"k{i % 7}" for i in whole_numbers]).dictionary_encode(),
        "long": pa.array([f"k{i % 5}" for i in whole_numbers], pa.large_string()),
        "view": pa.array([f"k{i % 5}" for i in whole_numbers], pa.string_view()),
        "flag": pa.array([None if g else bool(i % 2) for g, i in zip(gone, whole_numbers, strict=True)]),
        "day": pa.array(whole_numbers.astype(np.int32)).cast(pa.date32()),
        "null": pa.nulls(n),
    }
    table = pa.table(columns)
    encoder = TableEncoder().fit(table)
    kinds = kinds_of(encoder)
    assert [column for column, kind in kinds.items() if kind == "numeric"] == [
        "decimal", "half", "unsigned", "duration", "clock",
    ]  # fmt: skip
    assert {kinds["level"], kinds["long"], kinds["view"]} == {"category"}
    assert (kinds["flag"], kinds["day"], kinds["null"]) == ("boolean", "date", "drop")
    values = dict(zip(encoder.get_feature_names_out(), dense(encoder.transform(table)).T, strict=True))
    for name, exact in [("decimal", whole_numbers / 8), ("duration", whole_numbers / 1000), ("half", whole_numbers)]:
        np.testing.assert_allclose(values[name], (exact - exact.mean()) / exact.std(), rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(values["clock (missing)"], gone.astype(float))
    np.testing.assert_array_equal(values["flag (missing)"], gone.astype(float))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1], [2, 3]] * 15),
        pa.array([{"a": 1}, {"a": 2}] * 15),
        pa.array([b"a", b"b"] * 15),
        pa.array([(1, 2, 3)] * 30, pa.month_day_nano_interval()),
    ],
    ids=lambda column: str(column.type),
)
def test_columns_of_other_types_are_refused_unless_dropped(column):
    table = pa.table({"x": np.arange(30.0) ** 2, "a": column})
    message = refusal(TableEncoder().fit, table)
    assert message.startswith(f"column 'a' holds {column.type}, which cannot be encoded: leave it out (--drop a, or ")
    encoder = TableEncoder(kinds={"a": "drop"}).fit(table)
    assert list(encoder.get_feature_names_out()) == ["x"]


# -- the same table in every holder -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed():
    """A table of every kind that loses nothing on its way through CSV."""
    rng = np.random.default_rng(11)
    n = 5_000  # more than one block of the fit
    frame = pd.DataFrame(
        {
            "number": rng.normal(1e6, 1.0, n),
            "gaps": np.where(rng.random(n) < 0.6, np.nan, rng.lognormal(0, 3, n)),
            "count": rng.integers(0, 10, n),
            "flag": rng.random(n) < 0.3,
            "color": rng.choice(np.array(["red", "green", "blue", None, "café"], dtype=object), n),
            "rare": [f"v{min(int(k), 3000)}" for k in rng.zipf(1.6, n)],
            "time": pd.Timestamp("2020-02-28").as_unit("ns")
            + pd.to_timedelta(rng.integers(0, 10**15, n), unit="us").as_unit("ns"),
            "note": texts(rng, n),
            "key": [f"id-{i:05d}" for i in rng.permutation(n)],
            "same": ["x"] * n,
        }
    )
    frame.loc[rng.random(n) < 0.1, "note"] = None
    return frame


def _plain_csv(table, path, **options):
    pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(**options))


HOLDERS = {
    "pandas": lambda frame, folder: frame,
    "polars": lambda frame, folder: pl.from_pandas(frame),
    "arrow": lambda frame, folder: pa.Table.from_pandas(frame),
    "csv": lambda frame, folder: _written(frame, folder, "x.csv", _plain_csv),
    "parquet": lambda frame, folder: _written(frame, folder, "x.parquet", pyarrow.parquet.write_table),
    "parquet, row groups": lambda frame, folder: _written(
        frame, folder, "g.parquet", lambda table, path: pyarrow.parquet.write_table(table, path, row_group_size=321)
    ),
    "feather": lambda frame, folder: _written(frame, folder, "x.feather", pyarrow.feather.write_feather),
    "csv, small blocks": lambda frame, folder: _blocks(frame, folder, "csv", 2_000),
    "parquet, small blocks": lambda frame, folder: _blocks(frame, folder, "parquet", 2_000),
    "csv, three files": lambda frame, folder: _parts(frame, folder, "csv"),
    "parquet, three files": lambda frame, folder: _parts(frame, folder, "parquet"),
}


def _written(frame, folder, name, write):
    write(pa.Table.from_pandas(frame), folder / name)
    return scan(folder / name)


def _blocks(frame, folder, suffix, block_bytes):
    write = {"csv": _plain_csv, "parquet": pyarrow.parquet.write_table}[suffix]
    write(pa.Table.from_pandas(frame), folder / f"b.{suffix}")
    return open_table(folder / f"b.{suffix}", Roles(), TextOptions(block_bytes=block_bytes))


def _parts(frame, folder, suffix):
    write = {"csv": _plain_csv, "parquet": pyarrow.parquet.write_table}[suffix]
    for number, (start, stop) in enumerate([(0, 1), (1, 1_700), (1_700, len(frame))]):
        write(pa.Table.from_pandas(frame.iloc[start:stop].reset_index(drop=True)), folder / f"part{number}.{suffix}")
    return scan(folder / f"part*.{suffix}")


@pytest.mark.parametrize("holder", HOLDERS)
def test_the_same_numbers_to_the_bit_whatever_holds_the_table(mixed, holder, tmp_path):
    reference = TableEncoder().fit(mixed)
    assert kinds_of(reference) == {
        "number": "numeric", "gaps": "numeric", "count": "numeric", "flag": "boolean", "color": "category",
        "rare": "category", "time": "date", "note": "text", "key": "drop", "same": "drop",
    }  # fmt: skip
    table = HOLDERS[holder](mixed, tmp_path)
    encoder = TableEncoder().fit(table)
    assert kinds_of(encoder) == kinds_of(reference)
    assert [d.encoding for d in encoder.decisions_] == [d.encoding for d in reference.decisions_]
    assert list(encoder.get_feature_names_out()) == list(reference.get_feature_names_out())
    assert encoder.feature_columns_ == reference.feature_columns_
    expected = reference.transform(mixed)
    result = encoder.transform(table)
    if hasattr(result, "numeric_batches"):
        result = scipy.sparse.vstack([batch.matrix() for batch in result.numeric_batches()], format="csr")
    np.testing.assert_array_equal(result.indptr, expected.indptr)
    np.testing.assert_array_equal(result.indices, expected.indices)
    assert result.data.tobytes() == expected.data.tobytes()


def test_a_row_alone_is_encoded_as_among_others(mixed):
    encoder = TableEncoder().fit(mixed)
    together = dense(encoder.transform(mixed.iloc[:200]))
    for row in (0, 7, 123):
        assert dense(encoder.transform(mixed.iloc[row : row + 1]))[0].tobytes() == together[row].tobytes()


def test_names_and_widths_agree(mixed):
    encoder = TableEncoder().fit(mixed)
    matrix = encoder.transform(mixed)
    names = encoder.get_feature_names_out()
    assert matrix.shape == (len(mixed), len(names))
    assert len(encoder.feature_columns_) == len(names)
    assert sum(decision.features for decision in encoder.decisions_) == len(names)
    assert Counter(encoder.feature_columns_) == {d.column: d.features for d in encoder.decisions_ if d.features}
    assert all(name.startswith(column) for name, column in zip(names, encoder.feature_columns_, strict=True))
    assert encoder.n_features_in_ == mixed.shape[1]
    assert list(encoder.feature_names_in_) == list(mixed.columns)


def test_a_clone_learns_the_same_and_a_model_file_gives_the_same_bits(mixed, tmp_path):
    labels = (mixed["number"] > 1e6).to_numpy()
    model = make_pipeline(TableEncoder(kinds={"count": "category"}), LogisticRegression(max_iter=2))
    with pytest.warns(Warning, match=r"not converge|iteration"):
        model.fit(mixed, labels)
    encoder = model[0]
    again = clone(encoder).fit(mixed)
    save(model, tmp_path / "model.safetensors")
    for other in (again, load(tmp_path / "model.safetensors")[0]):
        assert list(other.get_feature_names_out()) == list(encoder.get_feature_names_out())
        assert other.feature_columns_ == encoder.feature_columns_
        assert [str(d) for d in other.decisions_] == [str(d) for d in encoder.decisions_]
        first, second = encoder.transform(mixed), other.transform(mixed)
        assert first.data.tobytes() == second.data.tobytes()
        assert first.indices.tobytes() == second.indices.tobytes()


def test_decisions_do_not_depend_on_where_blocks_end(tmp_path):
    """The first thousands of values look unlike the rest: an early look must not decide."""
    early_words = ["word"] * 1_500 + [str(i * 0.5) for i in range(160_000)]
    early_prose = [f"some words about number {i}" for i in range(1_100)] + ["three plain words"] * 8_000
    for column in (early_words, early_prose):
        path = tmp_path / "x.csv"
        path.write_text("a\n" + "\n".join(column) + "\n")
        outcomes = set()
        for block_bytes in (4_000, 1 << 20, 1 << 24):
            try:
                table = open_table(path, Roles(), TextOptions(block_bytes=block_bytes))
                outcomes.add(str(TableEncoder().fit(table).decisions_[0]))
            except InputError as error:
                outcomes.add(str(error))
        try:
            outcomes.add(str(TableEncoder().fit(pd.DataFrame({"a": column})).decisions_[0]))
        except InputError as error:  # a frame's rows are counted from 0
            outcomes.add(str(error).replace("row 0,", "x.csv, row 1 (line 2),"))
        assert len(outcomes) == 1


def test_numbers_that_turn_into_words_are_looked_at_again():
    column = [f"{i}.5" for i in range(20_000)] + ["red", "green", "blue"] * 8_000
    encoder = TableEncoder().fit(pd.DataFrame({"c": column}))
    assert kinds_of(encoder) == {"c": "category"}
    assert list(encoder.get_feature_names_out()) == ["c = blue", "c = green", "c = red", "c = (other)"]


def test_identifiers_are_known_by_the_levels_that_were_counted():
    profile = ColumnProfile("key", pa.string())
    for start in range(0, 400_000, 50_000):
        profile.add(pa.array([f"key-{i}" for i in range(start, start + 50_000)]))
    assert len(profile.levels) < 400_000  # no more are kept
    assert profile.decide() == ("drop", "different in nearly every row, an identifier")


def test_levels_of_numbers_do_not_fill_the_memory():
    profile = ColumnProfile("a", pa.string())
    for start in range(0, 60_000, 4_000):
        profile.add(pa.array([repr(i * 0.37) for i in range(start, start + 4_000)]))
    assert len(profile.levels) < 20_000
    assert profile.decide() == ("numeric", "numbers")
    assert not profile.undecided


# -- overrides, and what does not fit ---------------------------------------------------------------------------------


def test_kinds_can_be_asked_for():
    frame = pd.DataFrame({"n": [1, 2, 3, 2] * 10, "s": ["4", "5.5", "", "6"] * 10, "d": ["2024-01-05"] * 40})
    encoder, numbers = encoded(frame, {"n": "category", "s": "text", "d": "date"})
    assert kinds_of(encoder) == {"n": "category", "s": "text", "d": "date"}
    assert [decision.reason for decision in encoder.decisions_] == ["as asked"] * 3
    np.testing.assert_array_equal(numbers["n = 3"], frame["n"] == 3)
    encoder, numbers = encoded(frame, {"n": "drop", "s": "numeric"})
    assert kinds_of(encoder) == {"n": "drop", "s": "numeric", "d": "drop"}
    np.testing.assert_array_equal(numbers["s (missing)"], frame["s"] == "")


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ({"age": "number"}, "kinds['age'] is 'number'; it must be one of numeric, boolean, category, date, text, drop"),
        ({"agee": "numeric"}, "the column 'agee', but the table has none of that name; did you mean 'age'?"),
        ({"plan": "numeric"}, "row 0, column 'plan': 'basic' is not a finite number"),
        ({"plan": "date"}, "row 0, column 'plan': 'basic' is not a date"),
        ({"age": "date"}, "row 0, column 'age': '31' is not a date"),
        ({"plan": "boolean"}, "column 'plan' has 3 levels, a boolean column has two"),
        ({"none": "category"}, "column 'none' cannot be category: all its values are missing"),
        ({"day": "numeric"}, "column 'day' holds timestamp[us], which cannot be encoded as numeric"),
    ],
)
def test_kinds_that_cannot_be(kinds, words):
    frame = pd.DataFrame({"age": [31, 45, 28], "plan": ["basic", "plus", "pro"], "none": [None] * 3})
    frame["day"] = pd.Timestamp("2024-01-01")
    frame["day"] = frame["day"].astype("datetime64[us]")
    with pytest.raises(ValueError, match=re.escape(words)):
        TableEncoder(kinds=kinds).fit(frame)


def test_kinds_as_asked_in_files(tmp_path):
    pd.DataFrame({"a": ["1", "x", "3"], "b": [1, 2, 3]}).to_csv(tmp_path / "x.csv", index=False)
    message = refusal(TableEncoder(kinds={"a": "numeric"}).fit, scan(tmp_path / "x.csv"))
    assert message.startswith("x.csv, row 2 (line 3), column 'a': 'x' is not a finite number")


@pytest.fixture
def fitted(tmp_path):
    frame = pd.DataFrame(
        {
            "age": [31.5, 45.0, 28.0, 60.0] * 10,
            "plan": ["basic", "plus", "pro", "plus"] * 10,
            "since": ["2024-01-05", "2023-02-07", "2022-03-09", "2021-04-11"] * 10,
            "flag": ["yes", "no", "no", "no"] * 10,
        }
    )
    frame.to_csv(tmp_path / "train.csv", index=False)
    return frame, TableEncoder().fit(scan(tmp_path / "train.csv"))


def _new(frame, path):
    frame.to_csv(path, index=False)
    return scan(path)


def test_columns_of_a_scan_are_known_by_name(fitted, tmp_path):
    frame, encoder = fitted
    expected = whole(encoder.transform(scan(tmp_path / "train.csv")))
    shuffled = frame[["since", "flag", "age", "plan"]].assign(more=1)
    np.testing.assert_array_equal(whole(encoder.transform(_new(shuffled, tmp_path / "new.csv"))), expected)
    np.testing.assert_array_equal(dense(encoder.transform(frame)), expected)


def test_a_missing_column_is_named(fitted, tmp_path):
    frame, encoder = fitted
    message = refusal(encoder.transform, _new(frame.rename(columns={"plan": "plans"}), tmp_path / "new.csv"))
    assert message == "new.csv has no column 'plan', which the model was fitted with; did you mean 'plans'?"
    with pytest.raises(ValueError, match="plan"):
        encoder.transform(frame.drop(columns="plan"))
    dropped = TableEncoder(kinds={"plan": "drop"}).fit(frame)
    assert whole(dropped.transform(_new(frame.drop(columns="plan"), tmp_path / "new.csv"))).shape == (40, 22)


@pytest.mark.parametrize(
    ("column", "value", "wanted"),
    [
        ("age", "young", "a finite number, but the model was fitted with a numeric column"),
        ("age", "inf", "a finite number, but the model was fitted with a numeric column"),
        ("age", "1e400", "a finite number, but the model was fitted with a numeric column"),
        ("since", "yesterday", "a date (ISO 8601), but the model was fitted with a date column"),
        ("since", "2024-13-01", "a date (ISO 8601), but the model was fitted with a date column"),
    ],
)
def test_a_value_of_another_kind_is_named(fitted, tmp_path, column, value, wanted):
    frame, encoder = fitted
    frame = frame.astype(object)
    frame.loc[25, column] = value
    message = refusal(whole, encoder.transform(_new(frame, tmp_path / "new.csv")))
    assert message.startswith(f"new.csv, row 26 (line 27), column '{column}': '{value}' is not {wanted}")
    assert "leave it empty" in message
    assert refusal(encoder.transform, frame).startswith(f"row 25, column '{column}': '{value}' is not {wanted}")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("age", [pd.Timestamp("2024-01-01")] * 40),
        ("age", [[1.0]] * 40),
        ("age", [{"a": 1}] * 40),
        ("plan", [[1.0]] * 40),
        ("since", [[1.0]] * 40),
        ("since", [5] * 40),
        ("flag", [{"a": 1}] * 40),
    ],
)
def test_a_column_of_another_type_is_named(fitted, column, values):
    frame, encoder = fitted
    table = pa.Table.from_pandas(frame).set_column(frame.columns.get_loc(column), column, pa.array(values))
    message = refusal(encoder.transform, table)
    assert f"column '{column}'" in message
    assert "but the model was fitted with a" in message


def test_columns_that_are_not_used_may_hold_anything(fitted, tmp_path):
    frame, encoder = fitted
    odd = pa.Table.from_pandas(frame).append_column("odd", pa.array([[1.0, 2.0]] * 40))
    odd = odd.append_column("bytes", pa.array([b"\xff"] * 40))
    pyarrow.parquet.write_table(odd, tmp_path / "odd.parquet")
    expected = dense(encoder.transform(frame))
    table = scan(tmp_path / "odd.parquet")
    assert table.columns[-2:] == ["odd", "bytes"]
    np.testing.assert_array_equal(whole(encoder.transform(table)), expected)
    mask = np.arange(40) % 3 == 0
    np.testing.assert_array_equal(whole(encoder.transform(table.select(mask))), expected[mask])
    for name, words in (("odd", "holds list<element: double>"), ("bytes", "holds binary")):
        message = refusal(TableEncoder().fit, scan(tmp_path / "odd.parquet", drop={"odd", "bytes"} - {name}))
        assert message.startswith(f"column '{name}' of odd.parquet {words}, which cannot be encoded")
        assert f"--drop {name}" in message


def test_a_number_too_far_from_the_others_is_named(fitted):
    frame, encoder = fitted
    frame.loc[3, "age"] = 1.7e308
    far = pd.DataFrame({"n": [1e-9, 2e-9, 3e-9]})
    assert "row 1, column 'n': 1e+300 is not a number that float64 can hold" in refusal(
        TableEncoder().fit(far).transform, pd.DataFrame({"n": [1e-9, 1e300]})
    )
    assert np.isfinite(dense(encoder.transform(frame))).all()


def test_text_in_row_70_000_of_a_numeric_column(tmp_path, rng):
    column = [f"{number:.3f}" for number in rng.normal(size=80_000)]
    column[69_999] = "seven"
    (tmp_path / "x.csv").write_text("a,b\n" + "\n".join(f"{value},1" for value in column) + "\n")
    message = refusal(TableEncoder().fit, scan(tmp_path / "x.csv"))
    assert message.startswith("x.csv, row 70,000 (line 70,001), column 'a': 'seven' is not a finite number")
    typed = pa.table({"a": np.where(np.arange(80_000) == 69_999, np.inf, rng.normal(size=80_000))})
    pyarrow.parquet.write_table(typed, tmp_path / "x.parquet")
    message = refusal(TableEncoder().fit, scan(tmp_path / "x.parquet"))
    assert message.startswith("x.parquet, row 70,000, column 'a': inf is not a finite number")


def test_names_that_occur_twice():
    frame = pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"])
    assert refusal(TableEncoder().fit, frame) == "column 'a' occurs 2 times; rename or drop all but one"


def test_many_columns_take_no_more_than_their_share(rng):
    """Looking up each name among all names would take minutes here."""
    frame = pa.table({f"column_{j}": rng.normal(size=4) for j in range(20_000)})
    assert TableEncoder().fit_transform(frame).shape == (4, 20_000)


def test_a_lone_surrogate_is_refused():
    message = refusal(TableEncoder().fit, pd.DataFrame({"a": ["x", "y\ud800", "z"]}, dtype=object))
    assert message.startswith("column 'a'")
    assert "Unicode" in message


def test_objects_of_several_types_mean_the_same_in_every_part():
    frame = pd.DataFrame({"a": [1.0, False, 2, None] * 4, "b": ["00", 0.0, True, 5] * 4}, dtype=object)
    encoder, numbers = encoded(frame)
    assert kinds_of(encoder) == {"a": "numeric", "b": "category"}
    assert set(numbers) == {"a", "a (missing)", "b = 00", "b = 0", "b = true", "b = 5"}
    matrix = dense(encoder.transform(frame))
    for row in range(4):
        np.testing.assert_array_equal(dense(encoder.transform(frame.iloc[row : row + 1]))[0], matrix[row])
    for odd in (b"x", [1], {"k": 1}, np.zeros(2)):
        bad = pd.DataFrame({"a": pd.Series([1.0, odd, "text"], dtype=object)})
        assert refusal(TableEncoder().fit, bad).startswith(f"column 'a' holds {type(odd).__name__} objects among")
    lists = pd.DataFrame({"a": pd.Series([[1], [2], [1]], dtype=object)})
    assert refusal(TableEncoder().fit, lists).startswith("column 'a' holds list<")


def test_integers_beyond_64_bits_are_numbers_still():
    _, numbers = encoded(pd.DataFrame({"a": pd.Series([10**30, 2 * 10**30, 4 * 10**30], dtype=object)}))
    exact = np.array([1, 2, 4])
    np.testing.assert_allclose(numbers["a"], (exact - exact.mean()) / exact.std(), rtol=1e-12)


def test_sparse_files_need_no_encoder(tmp_path):
    (tmp_path / "x.libsvm").write_text("1 1:2\n0 2:1\n")
    assert "without an encoder" in refusal(TableEncoder().fit, scan(tmp_path / "x.libsvm"))


# -- any table at all -------------------------------------------------------------------------------------------------

CELLS = {
    "floats": st.one_of(st.none(), st.floats(-1e308, 1e308), st.just(math.nan)),
    "tame": st.one_of(st.none(), st.floats(-1e6, 1e6).map(lambda x: round(x, 3))),
    "integers": st.one_of(st.none(), st.integers(-(2**62), 2**62)),
    "huge integers": st.integers(-(10**40), 10**40),
    "booleans": st.one_of(st.none(), st.booleans()),
    "levels": st.sampled_from(["a", "b", "", " ", None, "NA", "été", "0", "-1.5", "2024-01-01"]),
    "text": st.one_of(st.none(), st.text(max_size=12)),
    "number texts": st.one_of(st.just(""), st.floats().map(repr), st.integers().map(str)),
    "dates": st.one_of(st.none(), st.dates().map(str), st.datetimes().map(str)),
    "times": st.one_of(st.none(), st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1))),
    "anything": st.one_of(
        st.none(), st.integers(), st.floats(), st.text(max_size=5), st.booleans(), st.dates(), st.binary(max_size=3)
    ),
}


@st.composite
def tables(draw):
    rows = draw(st.integers(1, 40))
    kinds = draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=5))
    columns = {}
    for j, kind in enumerate(kinds):
        # few values, drawn often: levels repeat
        pool = draw(st.lists(CELLS[kind], min_size=1, max_size=12))
        picks = draw(st.lists(st.integers(0, len(pool) - 1), min_size=rows, max_size=rows))
        columns[f"{kind} {j}"] = pd.Series([pool[pick] for pick in picks], dtype=object)
    return pd.DataFrame(columns)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(tables())
def test_any_table_becomes_finite_numbers_or_one_sentence(frame):
    try:
        encoder = TableEncoder().fit(frame)
        matrix = dense(encoder.transform(frame))
    except InputError as error:
        sentence = str(error)
        assert "\n" not in sentence
        return
    assert matrix.shape == (len(frame), len(encoder.get_feature_names_out()))
    assert len(encoder.feature_columns_) == matrix.shape[1]
    assert np.isfinite(matrix).all()
    part = dense(encoder.transform(frame.iloc[len(frame) // 2 :]))
    assert part.tobytes() == matrix[len(frame) // 2 :].tobytes()


@settings(deadline=None, max_examples=40, derandomize=True)
@given(frame=tables())
def test_any_table_in_a_text_file_too(frame, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "x.csv"
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        frame.to_csv(file, index=False)
    try:
        table = scan(path)
        encoder = TableEncoder().fit(table)
        matrix = whole(encoder.transform(table))
    except InputError as error:
        sentence = str(error)
        assert "\n" not in sentence
        return
    assert matrix.shape[1] == len(encoder.get_feature_names_out())
    assert np.isfinite(matrix).all()
