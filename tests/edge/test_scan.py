"""Files as people have them: dialects, labels, and what is said about a file that cannot be used."""

from __future__ import annotations

import gzip
import os
from collections import Counter

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest

from torchlogit import scan
from torchlogit.errors import InputError
from torchlogit.file_table import Roles
from torchlogit.scanning import open_table
from torchlogit.sources.text import TextOptions


@pytest.fixture
def write(tmp_path):
    def write(content, name="x.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def strings(table):
    columns = {name: [] for name in table.columns}
    for batch in table.table_batches():
        for name in table.columns:
            columns[name] += batch.columns.column(name).to_pylist()
    return columns


def numbers(table):
    return np.concatenate([batch.matrix() for batch in table.numeric_batches()])


def refusal(function, *arguments, **options):
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert not message.endswith(".")
    return message


# -- how text tables are written --------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_separator_and_ends_of_lines_are_found(write, separator, newline):
    content = newline.join(separator.join(row) for row in (["a", "b c", "d"], ["1", "x", "2"], ["3", "", "4"]))
    assert strings(scan(write(content))) == {"a": ["1", "3"], "b c": ["x", None], "d": ["2", "4"]}
    assert strings(scan(write(content + newline + newline))) == {"a": ["1", "3"], "b c": ["x", None], "d": ["2", "4"]}


@pytest.mark.parametrize("given", ["|", "\t", "\\t", "tab", " "])
def test_a_separator_can_be_given(write, given):
    separator = {"\\t": "\t", "tab": "\t"}.get(given, given)
    path = write(f"a{separator}b\n1,5{separator}2\n")
    assert strings(scan(path, separator=given)) == {"a": ["1,5"], "b": ["2"]}


@pytest.mark.parametrize("given", ["", "||", '"', "\n", "é"])
def test_an_impossible_separator_is_refused(write, given):
    assert "--sep" in refusal(scan, write("a,b\n1,2\n"), separator=given)


def test_decimal_commas_do_not_hide_semicolons(write):
    assert strings(scan(write("a;b\n1,5;2,5\n3,5;4,5\n"))) == {"a": ["1,5", "3,5"], "b": ["2,5", "4,5"]}


def test_prose_with_commas_is_one_column(write):
    path = write("text\nhello, you\nbye\nwell, well, well\n")
    assert strings(scan(path)) == {"text": ["hello, you", "bye", "well, well, well"]}
    path = write('text\n"hello\nyou"\n"x, y"\n')
    assert strings(scan(path)) == {"text": ["hello\nyou", "x, y"]}


def test_a_byte_order_mark_is_no_part_of_the_first_name(write):
    assert numbers(scan(write(b"\xef\xbb\xbfa,b\n1,2\n"))).tolist() == [[1, 2]]
    assert scan(write(b'\xef\xbb\xbf"a",b\n1,2\n')).columns == ["a", "b"]
    assert strings(scan(write(b"\xef\xbb\xbf1,2\n"), header=False)) == {"column_0": ["1"], "column_1": ["2"]}


def test_names_are_stripped_and_empty_ones_numbered(write):
    assert scan(write(",  b , \n1,2,3\n")).columns == ["column_0", "b", "column_2"]
    assert scan(write("1,2\n3,4\n"), header=False).columns == ["column_0", "column_1"]


def test_quoted_values_hold_separators_newlines_and_quotes(write):
    content = 'a,b\n1,"x\ny"\n2,"z, ""w"""\n3,"5"" pipe"\n'
    table = scan(write(content))
    assert strings(table) == {"a": ["1", "2", "3"], "b": ["x\ny", 'z, "w"', '5" pipe']}
    assert table.place(1) == "x.csv, row 2 (line 4)"


def test_quotes_after_a_space_are_quotes(write):
    assert strings(scan(write('"Name", "Sex"\n"Al", "M"\n"Bo",   "F"\n'))) == {"Name": ["Al", "Bo"], "Sex": ["M", "F"]}


def test_quotes_within_a_value_are_characters(write):
    assert strings(scan(write('a,b\n5" pipe,3\n6,7\n'))) == {"a": ['5" pipe', "6"], "b": ["3", "7"]}


def test_stray_quotes_do_not_join_lines(write):
    lines = [f"ham\tmessage {i}" for i in range(50)]
    lines[10], lines[20], lines[30] = 'ham\t"Keep ur problems', 'spam\t"WIN" a prize', 'ham\t"x'
    table = scan(write("\n".join(lines), "chat.tsv"), target="column_0", header=False)
    assert strings(table)["column_1"] == [line.split("\t")[1] for line in lines]


def test_a_file_that_quotes_everything_is_unquoted_in_spite_of_a_flaw(write):
    rows = "".join(f'"{i}","{i + 1}"\n' for i in range(3000))
    assert numbers(scan(write('"a","b"\n' + rows))).sum() == sum(2 * i + 1 for i in range(3000))
    message = refusal(strings, scan(write('"a","b"\n' + rows + '"1","2\n"3","4"\n')))
    assert message.startswith("x.csv, row 3,001 (line 3,002)")


@pytest.mark.parametrize("content", ['a,b\n1,"x, y"\n2,"z\n3,4\n', 'a,b\n1,"x, y"\n2,"z\n3,4'])
def test_a_quote_that_is_never_closed_is_found(write, content):
    message = refusal(strings, scan(write(content)))
    assert message.startswith("x.csv, line 3 opens a quote that is never closed")


def test_spaces_around_values_do_not_count(write):
    table = scan(write("a, b ,c\n1, ?, x y \n2,\tNA , \n"))
    assert strings(table) == {"a": ["1", "2"], "b": [None, None], "c": ["x y", None]}


def test_what_is_missing(write):
    tokens = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "?"]
    path = write("a,b\n" + "".join(f"{token},1\n" for token in [*tokens, "None", "-", "na"]))
    assert strings(scan(path))["a"] == [None] * len(tokens) + ["None", "-", "na"]
    assert strings(scan(path, missing=["-"]))["a"] == [None, *tokens[1:], "None", None, "na"]
    assert strings(scan(path, missing="None"))["a"] == [None, *tokens[1:], None, "-", "na"]


def test_records_longer_than_a_block_are_read_once(write):
    text = "a,b\n1,x\n2," + "y" * 3_000_000 + "\n3,z\n"
    table = scan(write(text))
    for _ in range(2):
        assert [len(value) for value in strings(table)["b"]] == [1, 3_000_000, 1]


def test_a_header_longer_than_the_first_look(write):
    names = [f"a_rather_long_name_{i}" for i in range(20_000)]
    table = scan(write(",".join(names) + "\n" + ",".join(["1"] * len(names)) + "\n"))
    assert table.columns == names
    assert numbers(table).sum() == len(names)


def test_gzip_is_known_by_content(write):
    content = gzip.compress(b"a,b\n1,2\n")
    for name in ("x.csv.gz", "x.csv", "x"):
        assert numbers(scan(write(content, name))).tolist() == [[1, 2]]


def test_formats_are_known_by_content_where_the_suffix_says_nothing(write, tmp_path):
    frame = pa.table({"a": [1.0, 2.0]})
    pyarrow.parquet.write_table(frame, tmp_path / "part-0000")
    pyarrow.feather.write_feather(frame, tmp_path / "part.dat")
    for name in ("part-0000", "part.dat"):
        assert numbers(scan(tmp_path / name)).tolist() == [[1], [2]]
    for name in ("agaricus.txt.train", "some.data", "some.txt"):
        assert scan(write("1 1:0.5 3:2\n0 2:1\n", name)).is_sparse
    assert not scan(write("time,b\n12:30,4\n", "some.txt")).is_sparse


# -- labels, weights, offsets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected", "kind"),
    [
        (["0", "1"], [0, 1], "i"),
        (["+1", "-1"], [1, -1], "i"),
        (["1.0", "0.0"], [1, 0], "i"),
        (["1", "1.0", "2e0"], [1, 1, 2], "i"),
        (["0.5", "1"], [0.5, 1.0], "f"),
        (["007", "12"], ["007", "12"], "O"),
        ([" yes ", "no"], ["yes", "no"], "O"),
        (["1", "yes"], ["1", "yes"], "O"),
        (["None", "1"], ["None", "1"], "O"),
        (["True", "False"], ["True", "False"], "O"),
        (["12345678901234567890", "1"], ["12345678901234567890", "1"], "O"),
    ],
)
def test_the_kind_of_text_labels(write, given, expected, kind):
    table = scan(write("x,y\n" + "".join(f"1,{label}\n" for label in given)), target="y")
    labels = table.labels()
    assert labels.tolist() == expected
    assert labels.dtype.kind == kind
    assert labels.dtype.itemsize == 8
    assert [type(label) for label in labels.tolist()] == [type(label) for label in expected]


def test_the_kind_of_labels_is_that_of_the_whole_column(write):
    path = write("x,y\n" + "1,0\n" * 5000 + "1,other\n")
    batches = list(open_table(path, Roles("y"), TextOptions(block_bytes=512)).table_batches())
    assert len(batches) > 10
    assert {batch.target.dtype.kind for batch in batches} == {"O"}
    assert batches[0].target[0] == "0"


@pytest.mark.parametrize(
    ("values", "expected", "kind"),
    [
        (pa.array([1, 0], pa.int8()), [1, 0], "i"),
        (pa.array([True, False]), [True, False], "b"),
        (pa.array([1.0, 0.0], pa.float32()), [1, 0], "i"),
        (pa.array([0.5, 0.0]), [0.5, 0], "f"),
        (pa.array(["a", "b"], pa.large_string()), ["a", "b"], "O"),
        (pa.array(["a", "b"], pa.string_view()), ["a", "b"], "O"),
        (pa.array(["b", "a"]).dictionary_encode(), ["b", "a"], "O"),
        (pa.array(["1", "0"]), ["1", "0"], "O"),
    ],
)
def test_the_kind_of_typed_labels(tmp_path, values, expected, kind):
    pyarrow.feather.write_feather(pa.table({"x": [1.0, 2.0], "y": values}), tmp_path / "x.feather")
    table = scan(tmp_path / "x.feather", target="y")
    assert table.labels().tolist() == expected
    assert table.labels().dtype.kind == next(table.table_batches()).target.dtype.kind == kind


@pytest.mark.parametrize("label", ["", "NaN", " ? "])
def test_a_missing_label_is_named(write, label):
    table = scan(write(f"x,y\n1,0\n2,1\n3,{label}\n"), target="y")
    assert refusal(table.labels).startswith("x.csv, row 3 (line 4) has no label in column 'y'")
    assert "row 3" in refusal(strings, table)


def test_an_infinite_label_is_named(write, tmp_path):
    table = scan(write("x,y\n1,0\n2,1\n3,-inf\n"), target="y")
    assert refusal(table.labels).startswith("x.csv, row 3 (line 4) has the label '-inf' in column 'y'")
    for value in (np.nan, np.inf):
        pyarrow.parquet.write_table(pa.table({"x": [1, 2, 3], "y": [0.0, 1.0, value]}), tmp_path / "x.parquet")
        assert "x.parquet, row 3 has the label" in refusal(scan(tmp_path / "x.parquet", target="y").labels)


@pytest.mark.parametrize("value", ["1e999", "-1e400"])
def test_a_label_that_no_number_can_hold_is_infinite(write, value):
    table = scan(write(f"x,y\n1,0\n2,1\n3,{value}\n"), target="y")
    assert refusal(table.labels).startswith(f"x.csv, row 3 (line 4) has the label '{value}' in column 'y', which is")
    only = scan(write(f"x,y\n1,{value}\n2,1e500\n"), target="y")
    assert "row 1 (line 2)" in refusal(only.labels)
    words = scan(write(f"x,y\n1,{value}\n2,word\n"), target="y")
    assert words.labels().tolist() == [value, "word"]


def test_a_target_alone(write):
    path = write("y\nu\nv\n")
    assert refusal(scan, path, target="y").startswith("x.csv has no column to learn from besides 'y'; give it more")
    path = write("y,a\nu,1\nv,2\n")
    assert refusal(scan, path, target="y", drop="a").endswith("no columns left to learn from; name fewer with --drop")


def test_labels_without_a_target(write):
    assert "target='...'" in refusal(scan(write("x,y\n1,0\n")).labels)


@pytest.mark.parametrize(("role", "words"), [("weight", "not a finite number that is not negative"), ("offset", "")])
@pytest.mark.parametrize("value", ["", "abc", "inf", "-1"])
def test_bad_weights_and_offsets_are_named(write, role, words, value):
    table = scan(write(f"x,w\n1,2\n3,{value}\n"), **{role: "w"})
    if (role, value) == ("offset", "-1"):
        assert next(table.table_batches()).offset.tolist() == [2, -1]
        return
    message = refusal(strings, table)
    assert message.startswith("x.csv, row 2 (line 3) has")
    assert "column 'w'" in message
    assert value in message
    assert value in ("", "abc") or words in message


def test_text_among_numbers_is_named(write):
    rows = ["1,2\n"] * 70_000
    rows[69_999] = "1,abc\n"
    message = refusal(numbers, scan(write("a,b\n" + "".join(rows), "big.csv")))
    assert message.startswith(
        "big.csv, row 70,000 (line 70,001) has 'abc' in column 'b', not a number; put a TableEncoder"
    )


def test_numbers_as_text_writes_them(write):
    table = scan(write("a,b\n+1,-.5\n?,1e3\n 2 ,\n"))
    np.testing.assert_array_equal(numbers(table), [[1, -0.5], [np.nan, 1000], [2, np.nan]])


# -- typed files ------------------------------------------------------------------------------------------------------


def test_types_of_parquet_and_arrow_are_kept(tmp_path):
    frame = pd.DataFrame(
        {"i": [1, 2], "f": [0.5, None], "s": ["a", None], "c": pd.Categorical(["u", "v"]), "b": [True, False]},
        index=[4, 9],
    )
    frame["t"] = pd.Timestamp("2024-01-01")
    frame.to_parquet(tmp_path / "x.parquet")
    table = scan(tmp_path / "x.parquet")
    assert table.columns == ["i", "f", "s", "c", "b", "t"]  # the index of pandas is none
    schema = next(table.table_batches()).columns.schema
    assert [str(kind) for kind in schema.types[:5]] == ["int64", "double", "string", "string", "bool"]
    assert pa.types.is_timestamp(schema.types[5])
    message = refusal(numbers, scan(tmp_path / "x.parquet", drop=["s", "c"]))
    assert message.startswith("column 't' of x.parquet holds timestamp[")


@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.feather"])
def test_a_column_without_a_name_is_numbered_in_every_file(tmp_path, name):
    table = pa.table([["u", "v"], [1, 2], [3, 4]], names=["y", "", "b"])
    write = {"csv": pyarrow.csv.write_csv, "parquet": pyarrow.parquet.write_table}
    write = write.get(name[2:], pyarrow.feather.write_feather)
    write(table, tmp_path / name)
    rows = scan(tmp_path / name, target="y")
    assert rows.columns == ["column_1", "b"]
    assert numbers(rows).tolist() == [[1, 3], [2, 4]]
    assert numbers(scan(tmp_path / name, drop=["column_1", "y"])).tolist() == [[3], [4]]
    twice = pa.table([[1], [2]], names=["column_1", ""])
    write(twice, tmp_path / name)
    assert "two columns named 'column_1'" in refusal(scan, tmp_path / name)


def test_some_columns_of_a_table_are_left_out_of_its_reads(tmp_path):
    columns = {"a": [1, 2, 3], "b": [[1], [2], [3]], "y": ["u", "v", "u"]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    table = scan(tmp_path / "x.parquet", target="y")
    shares = []
    table.listener = shares.append
    assert table.labels().tolist() == ["u", "v", "u"]
    some = table.select(np.array([True, False, True]))
    for part, rows in ((table.without(["b"]), [1, 2, 3]), (some.without(["b"]), [1, 3])):
        heard = len(shares)
        assert numbers(part).ravel().tolist() == rows
        assert len(shares) > heard
        assert (part.columns, part.target, part.n_rows()) == (["a"], "y", len(rows))
        assert part.place(len(rows) - 1) == "x.parquet, row 3"


@pytest.mark.parametrize("suffix", ["parquet", "feather", "arrow"])
def test_what_polars_writes(tmp_path, suffix):
    frame = pl.DataFrame({"i": [1, 2], "s": ["a", None], "c": ["u", "v"], "e": ["p", "q"], "y": [True, False]})
    frame = frame.with_columns(pl.col("c").cast(pl.Categorical), pl.col("e").cast(pl.Enum(["q", "p"])))
    path = tmp_path / f"x.{suffix}"
    {"parquet": frame.write_parquet, "feather": frame.write_ipc, "arrow": frame.write_ipc_stream}[suffix](path)
    table = scan(path, target="y")
    assert table.labels().tolist() == [True, False]
    assert strings(table) == {"i": [1, 2], "s": ["a", None], "c": ["u", "v"], "e": ["p", "q"]}


def test_numeric_types_of_files_may_differ_in_width(tmp_path):
    pyarrow.parquet.write_table(pa.table({"a": pa.array([1, 2], pa.int32())}), tmp_path / "1.parquet")
    pyarrow.parquet.write_table(pa.table({"a": [0.5]}), tmp_path / "2.parquet")
    table = scan(tmp_path / "*.parquet")
    assert {str(batch.columns.schema.types[0]) for batch in table.table_batches()} == {"double"}
    assert numbers(table).ravel().tolist() == [1, 2, 0.5]
    pyarrow.parquet.write_table(pa.table({"a": ["x"]}), tmp_path / "3.parquet")
    message = refusal(scan, tmp_path / "*.parquet")
    assert message.startswith("column 'a' holds string in 3.parquet")


def test_nested_columns_are_refused_where_they_are_used(tmp_path):
    pyarrow.parquet.write_table(pa.table({"a": [[1], [2]], "b": [1, 2]}), tmp_path / "x.parquet")
    message = refusal(numbers, scan(tmp_path / "x.parquet"))
    assert message.startswith("column 'a' of x.parquet holds list<element: int64>, not a number")
    assert message.endswith("leave the column out with --drop")
    assert strings(scan(tmp_path / "x.parquet"))["a"] == [[1], [2]]
    assert numbers(scan(tmp_path / "x.parquet", drop="a")).tolist() == [[1], [2]]


@pytest.mark.parametrize("suffix", ["parquet", "feather", "arrow"])
@pytest.mark.parametrize("damage", ["short", "half", "garbage"])
def test_damaged_typed_files(tmp_path, suffix, damage):
    table, path = pa.table({"a": np.random.default_rng(0).normal(size=50_000)}), tmp_path / f"x.{suffix}"
    if suffix == "parquet":
        pyarrow.parquet.write_table(table, path)
    elif suffix == "feather":
        pyarrow.feather.write_feather(table, path, compression="lz4")
    else:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    data = path.read_bytes()
    path.write_bytes({"short": data[:-30], "half": data[: len(data) // 2], "garbage": b"hello\n1\n"}[damage])
    if (suffix, damage) == ("arrow", "short"):
        path.write_bytes(data[:-3000])
    message = refusal(lambda: numbers(scan(path)))
    assert message.startswith(f"x.{suffix} is not a")


# -- libsvm -----------------------------------------------------------------------------------------------------------


def test_libsvm_lines(write):
    table = scan(write("+1 1:0.5 3:2\n-1 2:1 # a comment\n\n# another\n+1 qid:3 1:1e-1\n-1\n", "x.svm"))
    matrices = [batch.sparse.toarray() for batch in table.numeric_batches()]
    assert np.concatenate(matrices).tolist() == [[0.5, 0, 2], [0, 1, 0], [0.1, 0, 0], [0, 0, 0]]
    assert table.feature_names == ["feature_1", "feature_2", "feature_3"]
    assert table.target == "label"
    assert table.labels().tolist() == [1, -1, 1, -1]
    assert table.place(2) == "x.svm, row 3 (line 5)"


def test_libsvm_indices_from_zero_and_out_of_order(write):
    table = scan(write("1.5 3:2 0:1\r\n0 2:1", "x.libsvm"), target="label")
    assert table.feature_names == [f"feature_{i}" for i in range(4)]
    matrices = [batch.sparse.toarray() for batch in table.numeric_batches()]
    assert np.concatenate(matrices).tolist() == [[1, 0, 0, 2], [0, 0, 1, 0]]
    assert table.labels().tolist() == [1.5, 0]


def test_libsvm_with_the_columns_of_a_model(write):
    table = scan(write("1 1:0.5 3:2 7:1\n0 2:1\n1 0:4\n", "x.libsvm"))
    aligned = table.with_columns(["feature_3", "other", "feature_1", "feature_99"])
    assert aligned.feature_names == ["feature_3", "other", "feature_1", "feature_99"]
    matrix = next(aligned.numeric_batches()).sparse
    assert matrix.toarray().tolist() == [[2, 0, 0.5, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert matrix.has_sorted_indices
    view = table.select(np.array([True, False, True])).with_columns(["feature_0"])
    assert next(view.numeric_batches()).sparse.toarray().tolist() == [[0], [4]]
    assert "feature_1, feature_2" in refusal(table.with_columns, ["age", "sex"])
    dropped = scan(write("1 1:0.5 3:2\n", "y.libsvm"), drop=["feature_1"])
    assert next(dropped.numeric_batches()).sparse.toarray().tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1 a:1", "has 'a:1' where"),
        ("1 2:x", "has '2:x' where"),
        ("1 2:3:4", "has '2:3:4' where"),
        ("1 2: 3", "has '2:' where"),
        ("1 :2", "has ':2' where"),
        ("1 2", "has '2' where"),
        ("1 2:inf", "has '2:inf' where"),
        ("1 -1:2", "has '-1:2' where"),
        ("1 5:1 5:2", "has the index 5 twice ('5:2')"),
        ("1 99999999999:1", "is too high"),
        ("x 2:1", "has the label 'x'"),
        ("nan 2:1", "has the label 'nan'"),
        ("2:1 3:1", "begins with '2:1', not with a label"),
    ],
)
def test_bad_libsvm_lines_are_named(write, line, words):
    message = refusal(scan(write(f"0 1:1\n\n{line}\n0 1:1\n", "x.libsvm")).labels)
    assert message.startswith("x.libsvm, line 3 ")
    assert words in message


def test_what_libsvm_files_do_not_have(write):
    path = write("1 1:1\n0 2:1\n", "x.libsvm")
    assert "--weight" in refusal(scan, path, weight="w")
    assert "--offset" in refusal(scan, path, offset="w")
    assert "'label'" in refusal(scan, path, target="y")
    assert "did you mean 'feature_2'" in refusal(scan, path, drop=["feature_22"])
    assert "TableEncoder" in refusal(lambda: next(iter(scan(path).table_batches())))
    assert "no rows" in refusal(scan(write("# nothing\n", "e.libsvm")).n_rows)


# -- files that cannot be used ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "x.csv is empty"),
        ("\n\n", "x.csv is empty"),
        (b"\xef\xbb\xbf", "x.csv is empty"),
        ("a,b\n", "no rows of data, only a header; if its first line is data, say --no-header"),
        ("a,b,a\n1,2,3\n", "two columns named 'a' (number 1 and 3)"),
        (b"a,caf\xe9\n1,2\n", "line 1 (byte 5) is not UTF-8; save it as UTF-8"),
        (b"a,b\n1,2\n3,caf\xe9\n", "line 3 (byte 13) is not UTF-8; save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "is UTF-16, not UTF-8; save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), "is UTF-16, not UTF-8; save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-be"), "is UTF-16, not UTF-8; save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-32"), "is UTF-32, not UTF-8; save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-32-le"), "is UTF-32, not UTF-8; save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-32-be"), "is UTF-32, not UTF-8; save it as UTF-8"),
        ("имя,b\n1,2\n".encode("utf-16-le"), "line 1 holds a zero byte"),
        (b"a,b\n1,2\n1,\0\n", "line 3 holds a zero byte"),
        ("a,b,c\n1,2,3\n\n4,5\n", "x.csv, row 2 (line 4) has 2 fields, expected 3"),
        ("a,b\n1,2\n1,2,3\n", "x.csv, row 2 (line 3) has 3 fields, expected 2"),
        ('a,b\n"x\ny",2\n1,2,3\n', "x.csv, row 2 (line 4) has 3 fields, expected 2"),
        (b"PK\x03\x04abcd", "x.csv is a zip archive or an Excel workbook"),
    ],
)
def test_bad_text_files(write, content, words):
    path = write(content)
    assert words in refusal(lambda: strings(scan(path)))


def test_a_bad_character_far_into_a_file(write):
    data = b"a,b\n" + b"1,\xc3\xa9\n" * 400_000 + b"1,\xe9\n"
    message = refusal(lambda: strings(scan(write(data))))
    assert message.startswith("x.csv, line 400,002 (byte 2,000,006) is not UTF-8")


@pytest.mark.parametrize("cut", [5, 40, 0.5, -1, -9])
def test_truncated_gzip(write, cut):
    packed = gzip.compress("".join(f"{i},{i * 7 % 1001}\n" for i in range(50_000)).encode())
    part = packed[: int(len(packed) * cut) if isinstance(cut, float) else cut]
    message = refusal(lambda: strings(scan(write(part, "x.csv.gz"), header=False)))
    assert message.startswith("x.csv.gz is cut short")


def test_other_bad_gzip(write):
    assert "is not a gzip file" in refusal(scan, write("a,b\n1,2\n", "x.csv.gz"))
    packed = bytearray(gzip.compress(np.random.default_rng(0).bytes(100_000)))
    packed[50_000] ^= 255
    assert "is damaged" in refusal(lambda: strings(scan(write(bytes(packed), "y.csv.gz"))))


def test_missing_files_and_folders(write, tmp_path):
    write("a,b\n1,2\n", "train.csv")
    assert "did you mean" in refusal(scan, tmp_path / "trian.csv")
    assert "train.csv" in refusal(scan, tmp_path / "Train.CSV") or (tmp_path / "Train.CSV").exists()
    assert "there is no file" in refusal(scan, tmp_path / "something_else.parquet")
    assert "does not exist" in refusal(scan, tmp_path / "nowhere" / "x.csv")
    (tmp_path / "empty").mkdir()
    assert "without a file of a table" in refusal(scan, tmp_path / "empty")
    assert "no file matches" in refusal(scan, str(tmp_path / "*.nope"))
    assert "no file is given" in refusal(scan, [])


def test_a_pipe_is_to_be_saved_first(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null"):
        assert refusal(scan, path) == (
            f"{path} is a pipe or a device, which cannot be read again; save it to a file first"
        )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(write):
    path = write("a,b\n1,2\n")
    path.chmod(0)
    assert "permission denied" in refusal(scan, path)


def test_permission_denied_is_a_sentence(write, monkeypatch):
    path = write("a,b\n1,2\n")

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("torchlogit.sources.files.open", refuse, raising=False)
    assert "x.csv may not be read by you (permission denied)" in refusal(scan, path)


def test_wrong_columns(write):
    path = write("age,income,sex\n1,2,3\n")
    message = refusal(scan, path, target="incme")
    assert "no column 'incme'" in message
    assert "did you mean 'income'?" in message
    assert "'age', 'income', 'sex'" in message
    assert "--target" in message
    for role in ("weight", "offset"):
        assert f"--{role}" in refusal(scan, path, **{role: "zzz"})
    assert "--drop" in refusal(scan, path, drop=["zzz"])
    assert "did you mean 'age'?" in refusal(scan, path, target="AGE")
    assert "say --no-header" in refusal(scan, path, target="column_2")
    assert "leave out --no-header" in refusal(scan, path, target="age", header=False)
    assert "named as target and as weight" in refusal(scan, path, target="age", weight="age")
    assert "no columns left" in refusal(scan, path, target="age", drop=["income", "sex"])
    assert "--sep" in refusal(scan, write("a|b\n1|2\n"), target="a")


def test_many_columns_are_not_all_listed(write):
    path = write(",".join(f"c{i}" for i in range(500)) + "\n" + ",".join(["1"] * 500) + "\n")
    message = refusal(scan, path, target="zzz")
    assert "and 492 more" in message
    assert len(message) < 300


def test_files_of_one_table_agree(write):
    one = write("a,b\n1,2\n", "1.csv")
    assert numbers(scan([one, write("b,a\n4,3\n", "2.csv")])).tolist() == [[1, 2], [3, 4]]
    assert numbers(scan([one, write("a,b\n", "2.csv")])).tolist() == [[1, 2]]
    assert numbers(scan([one, write("a,b,c\n3,4,5\n", "2.csv")], drop=["c"])).tolist() == [[1, 2], [3, 4]]
    assert "2.csv has no column 'b', but 1.csv has" in refusal(scan, [one, write("a\n1\n", "2.csv")])
    assert "1.csv has no column 'c', but 2.csv has" in refusal(scan, [one, write("a,b,c\n1,2,3\n", "2.csv")])
    assert "2.csv has 3 columns, but 1.csv has 2" in refusal(scan, [one, write("1,2,3\n", "2.csv")], header=False)
    assert "2.svm is libsvm, but 1.csv is CSV" in refusal(scan, [one, write("1 1:2\n", "2.svm")])


def test_a_file_that_changes_between_reads_is_noticed(write):
    path = write("a,y\n1,0\n2,1\n")
    table = scan(path, target="y")
    table.labels()
    path.write_text("a,y\n1,0\n2,1\n3,1\n")
    assert "changed between two reads" in refusal(strings, table)


NO_HEADER = {"header": False}

# -- real files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "rows", "columns", "missing", "labels"),
    [
        ("spambase.csv", {"target": "spam"}, 4601, 57, 0, {1: 1813, 0: 2788}),
        ("telco_churn.csv", {"target": "Churn"}, 7043, 20, 11, {"Yes": 1869, "No": 5174}),
        ("adult_train.csv.gz", {"target": "column_14", **NO_HEADER}, 32561, 14, 4262, {">50K": 7841, "<=50K": 24720}),
        ("adult_test.csv.gz", {"target": "column_14", **NO_HEADER}, 16281, 14, 2203, {">50K.": 3846, "<=50K.": 12435}),
        ("higgs_7k.train.tsv.gz", {"target": "column_0", **NO_HEADER}, 7000, 28, 0, {1: 3716, 0: 3284}),
        ("sms_spam.tsv", {"target": "column_0", **NO_HEADER}, 5574, 1, 0, {"spam": 747, "ham": 4827}),
        ("wells.csv", {"target": "switch"}, 3020, 6, 0, {1: 1737, 0: 1283}),
        ("fertility.parquet", {"target": "morekids", "drop": "rownames"}, 254654, 7, 0, {"yes": 96912, "no": 157742}),
    ],
)  # fmt: skip
def test_real_tables(shared_data, name, options, rows, columns, missing, labels):
    table = scan(shared_data / name, **options)
    counts = Counter(table.labels().tolist())
    assert counts == labels
    batches = list(table.table_batches())
    assert sum(batch.rows for batch in batches) == rows == table.n_rows()
    assert len(table.columns) == columns
    assert sum(column.null_count for batch in batches for column in batch.columns.columns) == missing


@pytest.mark.parametrize("name", ["agaricus.train.libsvm", "a9a.libsvm.gz"])
def test_real_libsvm_files(shared_data, name):
    from sklearn.datasets import load_svmlight_file

    expected, labels = load_svmlight_file(str(shared_data / name))
    table = scan(shared_data / name)
    batches = list(table.numeric_batches())
    start = 0
    for batch in batches:
        difference = abs(batch.sparse - expected[start : start + batch.rows])
        assert difference.nnz == 0
        start += batch.rows
    assert start == expected.shape[0]
    np.testing.assert_array_equal(table.labels(), labels)
    assert table.labels().dtype == np.int64
