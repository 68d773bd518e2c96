"""Exported models give the model's own answers, in ONNX Runtime and in torch, without torchlogit."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression as Other
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edge.command_line import ENVIRONMENT, fine, run
from edge.exported import agree, export_onnx, export_torch, onnx_session
from torchlogit import LogisticRegression, TableEncoder, save, scan
from torchlogit.errors import InputError
from torchlogit.export import export, onnx_inputs, torch_inputs

NEEDS_ONNX = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("onnx") is None, reason="needs onnx, which writes ONNX files"
)


def messy_table(rng, rows):
    """Every kind of column that can be exported, with values missing in each."""
    stamps = pd.Timestamp("1969-03-01") + pd.to_timedelta(rng.integers(-(10**9), 3 * 10**9, rows), unit="s")
    days = pd.Timestamp("1895-01-01") + pd.to_timedelta(rng.integers(0, 60_000, rows), unit="D")
    frame = pd.DataFrame(
        {
            "a number": rng.normal(50, 20, rows),
            "with blanks": np.where(rng.random(rows) < 0.1, "unknown", rng.integers(0, 10**6, rows).astype(str)),
            "constant": np.full(rows, 3.5),
            "stamp": stamps,
            "day": days.strftime("%d.%m.%Y"),
            "zoned": stamps.strftime("%Y-%m-%dT%H:%M:%S+02:00"),
            "spelled": rng.choice(["Yes", "no"], rows),
            "größe": rng.choice(["GROẞ ÄÖ", "klein"], rows),
            "да": rng.choice(["Да", "нет"], rows),
            "truth": rng.choice(np.array([True, False], dtype=object), rows),
            "by case": rng.choice(["y", "Y"], rows),
            "forced": rng.choice([0.0, 1.0], rows),
            "level": rng.choice(["a", "b", "c", "d", "rare 1", "rare 2"], rows, p=[0.4, 0.3, 0.2, 0.09, 0.005, 0.005]),
            "numbered": rng.choice([1.0, 2.5, 3.0], rows),
            "one level": "only",
            "same": "same",
        }
    )
    for name in frame.columns[:-1]:
        frame.loc[rng.random(rows) < 0.08, name] = None
    return frame


MESSY_KINDS = {"forced": "boolean", "numbered": "category"}


def new_rows(frame):
    """Other spellings, unseen values, nothing but missing values; one row."""
    other = frame.head(40).copy()
    other["spelled"] = other["spelled"].str.swapcase()
    other["größe"] = ["groß äö", "GROẞ Äö", "KLEIN", "mittel"] * 10
    other["да"] = ["ДА", "да", "Нет", "может"] * 10
    other["level"] = ["unseen", " a ", "rare 1", None] * 10
    other["numbered"] = [7.0, 1.0, None, 2.5] * 10
    other["by case"] = ["y", "Y", "z", None] * 10
    empty = frame.head(3).copy()
    for name in frame.columns:
        empty[name] = pd.Series([None] * 3, dtype=frame[name].dtype if name != "constant" else float)
    return [other, empty, frame.head(1)]


# -- agreement ------------------------------------------------------------------------------------------------------


def test_census(shared_data, tmp_path):
    """All rows of both files; the test file has levels that the fit has not seen, and missing values."""
    train, test = (
        scan(shared_data / f"adult_{part}.csv.gz", header=False, target="column_14") for part in ("train", "test")
    )
    model = make_pipeline(TableEncoder(), LogisticRegression()).fit(train)
    agree(model, [train, test], tmp_path)


@pytest.mark.parametrize(
    "labels",
    [["no", "yes"], ["été", "b", "c"], [3, 7], [-1, 0, 5], [False, True], [1.0, 2.0]],
    ids=["text", "texts", "integer", "integers", "boolean", "float"],
)
def test_every_kind_of_column(rng, tmp_path, labels):
    frame = messy_table(rng, 600)
    y = np.array(labels)[rng.integers(0, len(labels), 600)]
    model = make_pipeline(TableEncoder(MESSY_KINDS), LogisticRegression()).fit(frame, y)
    kinds = {decision.kind for decision in model[0].decisions_}
    assert kinds == {"numeric", "boolean", "category", "date", "drop"}
    assert any(encoding.other for encoding in model[0]._encodings if hasattr(encoding, "other"))
    agree(model, [frame, *new_rows(frame)], tmp_path)
    label = onnx_session(tmp_path / "model.onnx").run(["label"], onnx_inputs(model, frame))[0]
    assert label.dtype.kind == {"U": "O"}.get(model.classes_.dtype.kind, model.classes_.dtype.kind)


@pytest.mark.parametrize("columns", [["a number"], ["level"], ["stamp"], ["spelled", "truth"], ["one level", "day"]])
def test_few_columns(rng, tmp_path, columns):
    """Where one half of the inputs is empty."""
    frame = messy_table(rng, 200)[columns]
    model = make_pipeline(TableEncoder(), LogisticRegression()).fit(frame, np.arange(200) % 2)
    agree(model, [frame, frame.head(1)], tmp_path)


def test_names_that_a_graph_could_use_itself(rng, tmp_path):
    """Inputs are named as the columns, whatever these are."""
    names = ["label", "probabilities", "probabilities_2", "X", "offset", "numbers", "missing", "slots", "logit", "zero"]
    frame = pd.DataFrame({name: rng.normal(size=80) for name in [*names, "a b/ü"]})
    frame["whole"] = frame["slot_of_whole"] = rng.choice(["a", "b", "c"], 80)
    offset = rng.normal(size=80)
    model = make_pipeline(TableEncoder(), LogisticRegression())
    model.fit(frame, np.arange(80) % 2, logisticregression__offset=offset)
    written, session = export_onnx(model, tmp_path / "model.onnx")
    assert [port.name for port in written.inputs] == [*frame.columns, "offset_2"]
    assert [port.name for port in written.outputs] == ["label_2", "probabilities_3"]
    expected = model[-1].predict_proba(model[0].transform(frame), offset)
    probability = session.run(["probabilities_3"], onnx_inputs(model, frame, offset))[0]
    np.testing.assert_allclose(probability, expected, rtol=0, atol=1e-12)
    _, program = export_torch(model, tmp_path / "model.pt2")
    traced = program(*torch_inputs(model, frame, offset)).detach().numpy()
    np.testing.assert_allclose(traced, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_arrays(rng, tmp_path, classes, dtype):
    X = rng.normal(size=(150, 6)).astype(dtype)
    model = LogisticRegression().fit(X, rng.integers(0, classes, 150))
    tables = [X, X[:1], X[:1].tolist(), torch.from_numpy(X), scipy.sparse.csr_array(X)]
    if dtype == np.float64:
        agree(model, tables[:3] + tables[4:], tmp_path)
        assert torch.equal(torch_inputs(model, tables[3])[0], tables[3])
    else:  # predict_proba rounds to float32; the programs do not
        agree(model, [X.astype(np.float64)], tmp_path)
        agree(model, [X], tmp_path, atol=1e-7)


@pytest.mark.parametrize("classes", [2, 3])
def test_far_from_zero(rng, tmp_path, classes):
    """Timestamps: a product with their raw values would keep few of the digits."""
    X = 1.7e9 + rng.normal(size=(300, 2)) * [1.0, 0.01]
    y = np.digitize((X - 1.7e9) @ [1.0, 100.0] + rng.logistic(size=300), [0.0, 1.0][: classes - 1])
    model = LogisticRegression(C=np.inf).fit(X, y)
    assert model._current_solution().centre is not None
    agree(model, [X], tmp_path)


@pytest.mark.parametrize("classes", [2, 3])
def test_offsets(rng, tmp_path, classes):
    X, offset = rng.normal(size=(120, 3)), rng.normal(size=(120, 1 if classes == 2 else 3))
    offset = offset[:, 0] if classes == 2 else offset
    model = LogisticRegression().fit(X, rng.integers(0, classes, 120), offset=offset)
    agree(model, [X, X[:1]], tmp_path, offsets=[offset, offset[:1]])
    with pytest.raises(ValueError, match="fitted with an offset"):
        onnx_inputs(model, X)


def test_an_offset_from_a_file(rng, tmp_path):
    frame = pd.DataFrame({"x": rng.normal(size=90), "exposure": rng.normal(size=90), "y": np.arange(90) % 2})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    table = scan(tmp_path / "rows.csv", target="y", offset="exposure")
    agree(make_pipeline(TableEncoder(), LogisticRegression()).fit(table), [table], tmp_path)
    agree(LogisticRegression().fit(table), [table], tmp_path)


def test_sparse_files(shared_data, tmp_path):
    train, test = (scan(shared_data / f"agaricus.{part}.libsvm") for part in ("train", "test"))
    model = LogisticRegression().fit(train)
    agree(model, [train, test], tmp_path)


def test_small_probabilities_keep_their_digits(tmp_path):
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    model.coef_, model.intercept_ = np.array([[1.0]]), np.array([0.0])
    X = np.array([[-700.0], [-300.0], [-40.0], [0.0], [40.0], [300.0], [700.0]])
    expected = model.predict_proba(X)
    _, session = export_onnx(model, tmp_path / "model.onnx")
    label, probability = session.run(None, onnx_inputs(model, X))
    np.testing.assert_allclose(probability, expected, rtol=1e-13)
    assert label.tolist() == model.predict(X).tolist() == [0, 0, 0, 0, 1, 1, 1]
    _, program = export_torch(model, tmp_path / "model.pt2")
    np.testing.assert_allclose(program(*torch_inputs(model, X)).detach().numpy(), expected, rtol=1e-13)


# -- dates ----------------------------------------------------------------------------------------------------------


def calendar_model(folder):
    """A model whose logit tells month, weekday and hour of a date, and nothing else, with both programs."""
    stamps = pd.date_range("2020-01-01", periods=200, freq="31h")
    model = make_pipeline(TableEncoder(), LogisticRegression()).fit(pd.DataFrame({"t": stamps}), np.arange(200) % 2)
    assert model[0].get_feature_names_out().tolist()[:2] == ["t", "t: January"]
    assert model[-1].n_features_in_ == 1 + 12 + 7 + 24
    told = np.concatenate([[0], np.arange(12), 12 * np.arange(7), 84 * np.arange(24)]) / 1000
    model[-1].coef_, model[-1].intercept_ = told[None], np.zeros(1)
    return export_onnx(model, folder / "model.onnx")[1], export_torch(model, folder / "model.pt2")[1]


def calendar(probability):
    """Month, weekday and hour that a probability tells."""
    told = np.log(probability[:, 1] / probability[:, 0]) * 1000
    whole = np.rint(told).astype(int)
    np.testing.assert_allclose(told, whole, atol=1e-9)
    return np.column_stack([whole % 12 + 1, whole // 12 % 7, whole // 84])


def test_dates_against_the_calendar(rng, tmp_path):
    """20,000 random moments of the years 1 to 9999, the ends of all days among some, by Python's own calendar."""
    zero, ends = datetime.datetime(1970, 1, 1), (datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31, 23, 59))
    low, high = ((moment - zero) // datetime.timedelta(seconds=1) for moment in ends)
    seconds = rng.integers(low, high, 20_000).astype(float)
    seconds[:5_000] = np.floor(seconds[:5_000] / 86_400) * 86_400  # midnight
    seconds[5_000:10_000] = np.floor(seconds[5_000:10_000] / 86_400) * 86_400 - 1
    seconds[5_000:10_000] = np.maximum(seconds[5_000:10_000], low)
    seconds[10_000:11_000] += 0.5
    turns = [datetime.datetime(year, month, day, 12) for year in (4, 100, 400, 1600, 1900, 1969, 2000, 2023, 2024, 9996)
             for month, day in ((1, 1), (2, 28), (3, 1), (12, 31))]  # fmt: skip
    seconds = np.concatenate([seconds, [(turn - zero).total_seconds() for turn in turns]])
    moments = [zero + datetime.timedelta(seconds=value) for value in seconds.tolist()]
    expected = [[moment.month, moment.weekday(), moment.hour] for moment in moments]
    session, program = calendar_model(tmp_path)
    found = session.run(["probabilities"], {"t": seconds[:, None]})[0]
    np.testing.assert_array_equal(calendar(found), expected)
    traced = program(torch.tensor(seconds[:, None]), torch.empty((seconds.size, 0), dtype=torch.int64))
    np.testing.assert_array_equal(calendar(traced.detach().numpy()), expected)


def test_dates_before_the_year_one(rng, tmp_path):
    days = rng.integers(-10**8, -719_162, 2_000)
    months = days.astype("datetime64[D]").astype("datetime64[M]").astype(int) % 12 + 1
    session, program = calendar_model(tmp_path)
    seconds = days[:, None] * 86_400.0
    for found in (
        session.run(["probabilities"], {"t": seconds})[0],
        program(torch.tensor(seconds), torch.empty((2_000, 0), dtype=torch.int64)).detach().numpy(),
    ):
        np.testing.assert_array_equal(calendar(found)[:, :2], np.column_stack([months, (days + 3) % 7]))


# -- inputs ---------------------------------------------------------------------------------------------------------


def test_the_same_inputs_from_every_table(rng, tmp_path):
    frame = pd.DataFrame(
        {"x": rng.normal(size=60), "word": rng.choice(["a", "b", "c"], 60), "flag": rng.choice(["Yes", "No"], 60)}
    )
    frame.loc[3, ["x", "word", "flag"]] = None
    y = np.arange(60) % 2
    frame.assign(y=y).to_csv(tmp_path / "rows.csv", index=False)
    model = make_pipeline(TableEncoder(), LogisticRegression()).fit(frame, y)
    tables = [pl.from_pandas(frame), pa.Table.from_pandas(frame), scan(tmp_path / "rows.csv", target="y")]
    feed, tensors = onnx_inputs(model, frame), torch_inputs(model, frame)
    assert {name: (values.dtype.kind, values.shape) for name, values in feed.items()} == {
        "x": ("f", (60, 1)), "word": ("O", (60, 1)), "flag": ("O", (60, 1))
    }  # fmt: skip
    assert np.isnan(feed["x"][3, 0])
    assert feed["word"][3, 0] == feed["flag"][3, 0] == ""
    assert tensors[1][3].tolist() == [-1, -1]
    for table in tables:
        for name, values in onnx_inputs(model, table).items():
            np.testing.assert_array_equal(values, feed[name])
        for found, expected in zip(torch_inputs(model, table), tensors, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_what_predict_refuses_is_refused(rng):
    frame = pd.DataFrame({"x": rng.normal(size=60)})
    y = np.arange(60) % 2
    table = make_pipeline(TableEncoder(), LogisticRegression()).fit(frame, y)
    array = LogisticRegression().fit(frame.to_numpy(), y)
    for inputs in (onnx_inputs, torch_inputs):
        with pytest.raises(InputError, match="row 1, column 'x': 'much' is not a finite number"):
            inputs(table, pd.DataFrame({"x": ["1", "much"]}))
        with pytest.raises(ValueError, match="contains NaN"):
            inputs(array, [[np.nan]])
        with pytest.raises(ValueError, match="expecting 1 features"):
            inputs(array, [[1.0, 2.0]])


@NEEDS_ONNX
def test_metadata_suffice_to_feed_by_hand(rng, tmp_path):
    """Another language has the file alone."""
    import onnx

    frame = messy_table(rng, 400)
    model = make_pipeline(TableEncoder(MESSY_KINDS), LogisticRegression()).fit(frame, rng.choice(["n", "ü"], 400))
    export(model, tmp_path / "model.onnx")
    loaded = onnx.load(tmp_path / "model.onnx")
    metadata = {entry.key: entry.value for entry in loaded.metadata_props}
    assert json.loads(metadata["classes"]) == ["n", "ü"]
    assert metadata["torchlogit_version"] == loaded.producer_version
    columns = {column["name"]: column for column in json.loads(metadata["columns"])}
    assert list(columns) == [port.name for port in loaded.graph.input]
    assert columns["day"]["format"] == "%d.%m.%Y"
    assert columns["spelled"] == {
        "name": "spelled", "kind": "boolean", "levels": ["no", "yes"], "missing": "", "ignore_case": True,
        "input": "string",
    }  # fmt: skip
    assert "ignore_case" not in columns["by case"]
    assert "NaN" in loaded.doc_string
    assert "empty string" in loaded.doc_string


def test_an_archive_suffices_to_feed_by_hand(rng, tmp_path):
    words = {"word": rng.choice(list("abc"), 80), "ok": rng.choice(["NO", "Yes"], 80)}
    frame = pd.DataFrame({"x": rng.normal(size=80)} | words)
    model = make_pipeline(TableEncoder(), LogisticRegression()).fit(frame, np.arange(80) % 2)
    export(model, tmp_path / "model.pt2", to="torch")
    extra = {"torchlogit.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    document = json.loads(extra["torchlogit.json"])
    assert document["features"] == model[0].get_feature_names_out().tolist()
    new = pd.DataFrame({"x": [0.5, None, 1.0], "word": ["c", None, "new"], "ok": ["yes", "no", None]})
    numbers = torch.tensor([[value] for value in new[document["numbers"][0]["name"]]], dtype=torch.float64)
    codes = torch.empty((3, 2), dtype=torch.int64)
    for j, column in enumerate(document["codes"]):
        for i, value in enumerate(new[column["name"]]):
            known = value in column["levels"]
            codes[i, j] = -1 if pd.isna(value) else column["levels"].index(value) if known else -2
    np.testing.assert_allclose(program(numbers, codes).detach().numpy(), model.predict_proba(new), rtol=0, atol=1e-12)


# -- archives -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
def test_the_head_is_one_linear_layer(rng, tmp_path, classes):
    frame = messy_table(rng, 300)
    model = make_pipeline(TableEncoder(MESSY_KINDS), LogisticRegression()).fit(frame, rng.integers(0, classes, 300))
    export(model, tmp_path / "model.pt2", to="torch")
    state = torch.export.load(tmp_path / "model.pt2").state_dict
    layer = torch.nn.Linear(model[-1].n_features_in_, 1 if classes == 2 else classes, dtype=torch.float64)
    layer.load_state_dict({"weight": state["head.weight"], "bias": state["head.bias"]})
    features = torch.tensor(model[0].transform(frame).toarray())
    expected = model.decision_function(frame).reshape(300, -1)
    np.testing.assert_allclose(layer(features).detach().numpy(), expected, rtol=0, atol=1e-12)


def test_an_archive_holds_no_pickle_and_no_folder(rng, tmp_path):
    frame = messy_table(rng, 200)
    model = make_pipeline(TableEncoder(MESSY_KINDS), LogisticRegression()).fit(frame, np.arange(200) % 2)
    export(model, tmp_path / "model.pt2", to="torch")
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert not any(b'"use_pickle": true' in part for part in parts.values())
    assert not any(part.startswith((b"PK", b"\x80\x02c", b"\x80\x04")) for part in parts.values())
    assert not any(b"torchlogit/export/" in part or b"site-packages" in part for part in parts.values())


def test_the_same_model_gives_the_same_bytes(rng, tmp_path):
    frame = messy_table(rng, 200)
    model = make_pipeline(TableEncoder(MESSY_KINDS), LogisticRegression()).fit(frame, np.arange(200) % 2)
    pytest.importorskip("onnx", reason="needs onnx, which writes ONNX files")
    for to in ("onnx", "torch"):
        for name in ("one", "two"):
            export(model, tmp_path / name, to)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_it_runs_without_torchlogit(rng, tmp_path, to):
    X = rng.normal(size=(50, 3))
    model = LogisticRegression().fit(X, np.arange(50) % 2)
    path = tmp_path / ("model.onnx" if to == "onnx" else "model.pt2")
    (export_onnx if to == "onnx" else export_torch)(model, path)
    np.save(tmp_path / "X.npy", X)
    code = "import sys; sys.modules['torchlogit'] = None\nimport numpy as np; X = np.load(sys.argv[2])\n" + (
        "import onnxruntime as o; p = o.InferenceSession(sys.argv[1]).run(['probabilities'], {'X': X})[0]\n"
        if to == "onnx"
        else "import torch; p = torch.export.load(sys.argv[1]).module()(torch.tensor(X)).detach().numpy()\n"
    ) + "np.save(sys.argv[3], p)"
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "X.npy"), str(tmp_path / "p.npy")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), model.predict_proba(X), rtol=0, atol=1e-12)


# -- what cannot be exported ----------------------------------------------------------------------------------------


def worded_model(rng):
    texts = [" ".join(rng.choice(["win", "free", "cash", "call", "mum", "home", "late"], 6)) for _ in range(300)]
    frame = pd.DataFrame({"note": texts, "x": rng.normal(size=300)})
    return make_pipeline(TableEncoder({"note": "text"}), LogisticRegression()).fit(frame, np.arange(300) % 2), frame


def hashed_model(rng):
    levels = [f"level {j}" for j in range(1_200) for _ in range(4)]
    frame = pd.DataFrame({"zip": rng.permutation(levels)})
    model = make_pipeline(TableEncoder({"zip": "category"}), LogisticRegression())
    return model.fit(frame, rng.integers(0, 2, 4_800)), frame


@pytest.mark.parametrize("to", [pytest.param("onnx", marks=NEEDS_ONNX), "torch"])
def test_texts_and_hashed_levels_are_refused(rng, tmp_path, to):
    (tmp_path / "model").write_text("precious")
    for make, words in (
        (worded_model, "column 'note' is text, and .*--drop 'note', or kinds="),
        (hashed_model, "column 'zip' has more than 1,000 levels, and .* merge the rare ones .*--drop 'zip'"),
    ):
        model, _ = make(rng)
        with pytest.raises(InputError, match=words):
            export(model, tmp_path / "model", to)
    assert (tmp_path / "model").read_text() == "precious"
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("make", [worded_model, hashed_model])
def test_what_no_coefficient_depends_on_is_left_out(rng, tmp_path, make):
    model, frame = make(rng)
    coef = model[-1].coef_.copy()
    names = model[0].get_feature_names_out()
    coef[:, [name.startswith("note") or "(bucket" in name for name in names]] = 0.0
    model[-1].coef_ = coef
    agree(model, [frame], tmp_path)
    assert "note" not in onnx_inputs(model, frame)


def test_other_models_are_refused(tmp_path):
    X, y = [[0.0], [1.0]], [0, 1]
    scaled = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    for model in (Other().fit(X, y), scaled, make_pipeline(TableEncoder()), TableEncoder(), None):
        with pytest.raises(TypeError, match="a LogisticRegression can be exported, and a Pipeline of"):
            export(model, tmp_path / "model", "torch")
    for model in (LogisticRegression(), make_pipeline(TableEncoder(), LogisticRegression())):
        with pytest.raises(NotFittedError):
            export(model, tmp_path / "model", "torch")
    with pytest.raises(ValueError, match="to is 'pmml'; it must be 'onnx' or 'torch'"):
        export(LogisticRegression().fit(X, y), tmp_path / "model", "pmml")
    assert os.listdir(tmp_path) == []


@NEEDS_ONNX
def test_a_column_without_a_name(tmp_path):
    model = make_pipeline(TableEncoder(), LogisticRegression()).fit(pd.DataFrame({"": [1.0, 2.0, 4.0]}), [0, 1, 1])
    with pytest.raises(InputError, match="a column has no name, and an ONNX input needs one"):
        export(model, tmp_path / "model.onnx")


def test_it_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    path = tmp_path / "model.pt2"
    path.write_text("precious")

    def full(self, content):
        with open(self, "wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        export(model, path, to="torch")
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["model.pt2"]


# -- the command line -----------------------------------------------------------------------------------------------


@pytest.fixture
def model_file(rng, tmp_path):
    frame = pd.DataFrame({"age": rng.normal(size=60), "plan": rng.choice(["a", "b", "c"], 60)})
    model = make_pipeline(TableEncoder(), LogisticRegression()).fit(frame, rng.choice(["no", "yes"], 60))
    save(model, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors", model, frame


@NEEDS_ONNX
def test_command_onnx(model_file, tmp_path):
    path, model, frame = model_file
    outcome = fine("export", path, "--to", "onnx", "-o", tmp_path / "model.onnx")
    lines = [line.split() for line in outcome.out.splitlines()]
    assert lines[0] == [f"{tmp_path / 'model.onnx'}:", "an", "ONNX", "graph"]
    assert ["age", "double", "rows", "x", "1", "number;", "missing:", "NaN"] in lines
    assert [line[:2] for line in lines if line[:1] in (["plan"], ["label"], ["probabilities"])] == [
        ["plan", "string"], ["label", "string"], ["probabilities", "double"]
    ]  # fmt: skip
    _, probability = onnx_session(tmp_path / "model.onnx").run(None, onnx_inputs(model, frame))
    np.testing.assert_allclose(probability, model.predict_proba(frame), rtol=0, atol=1e-12)


def test_command_torch_as_json(model_file, tmp_path):
    path, model, frame = model_file
    record = fine("export", path, "--to", "torch", "-o", tmp_path / "model.pt2", "--json").json
    assert record["to"] == "torch"
    assert record["classes"] == ["no", "yes"]
    assert [(port["name"], port["type"], port["shape"]) for port in record["inputs"]] == [
        ("numbers", "double", ["rows", 1]), ("codes", "int64", ["rows", 1])
    ]  # fmt: skip
    program = torch.export.load(record["output"]).module()
    found = program(*torch_inputs(model, frame)).detach().numpy()
    np.testing.assert_allclose(found, model.predict_proba(frame), rtol=0, atol=1e-12)


def test_command_help():
    text = fine("export", "--help").out
    assert "torchlogit export model.safetensors --to onnx -o model.onnx" in text
    assert "<onnx|torch>" in text


@NEEDS_ONNX
def test_command_refuses_in_one_sentence(model_file, tmp_path, rng):
    path, _, _ = model_file
    worded = tmp_path / "worded.safetensors"
    save(worded_model(rng)[0], worded)
    (tmp_path / "bad").write_text("no model")
    out = tmp_path / "out.onnx"
    for arguments, words in (
        ([tmp_path / "none", "--to", "onnx", "-o", out], "there is no model file"),
        ([tmp_path / "bad", "--to", "onnx", "-o", out], "is not a model file"),
        ([path, "--to", "pmml", "-o", out], "'pmml' is not one of 'onnx', 'torch'"),
        ([path, "-o", out], "missing option '--to'"),
        ([path, "--to", "onnx"], "missing option '--output'"),
        ([path, "--to", "onnx", "-o", tmp_path], "is a directory"),
        ([path, "--to", "onnx", "-o", tmp_path / "no" / "out"], "there is no folder"),
        ([path, "--to", "onnx", "-o", path], "is one of the files to read"),
        ([worded, "--to", "onnx", "-o", out], "column 'note' is text"),
    ):
        assert words in run("export", *arguments).sentence.replace("Missing", "missing")
    assert not out.exists()


def test_command_where_nothing_may_be_written(model_file, tmp_path, monkeypatch):
    def forbidden(self, content):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(tmp_path), "write_bytes", forbidden)
    sentence = run("export", model_file[0], "--to", "torch", "-o", tmp_path / "model.pt2").sentence
    assert sentence == f"{tmp_path / 'model.pt2'}: permission denied; name a file in a folder that is yours"


def test_command_without_onnx(model_file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in ("onnx_graph", "onnx_table", "onnx_nodes"):
        monkeypatch.delitem(sys.modules, f"torchlogit.export.{name}", raising=False)
        monkeypatch.delattr(f"torchlogit.export.{name}", raising=False)
    outcome = run("export", model_file[0], "--to", "onnx", "-o", tmp_path / "model.onnx")
    assert 'pip install "torchlogit[onnx]"' in outcome.sentence
    assert not (tmp_path / "model.onnx").exists()
