"""Model files: what comes back, what is refused, and what a write that fails leaves behind."""

from __future__ import annotations

import errno
import gzip
import json
import os
import pickle
import shutil
import stat
import tracemalloc
import zipfile
from functools import cache
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from safetensors import safe_open
from safetensors.numpy import save as serialised
from safetensors.numpy import save_file
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression as Peer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from torchlogit import LogisticRegression, TableEncoder, load, save, scan
from torchlogit.errors import InputError
from torchlogit.model_file import _digest, read

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "explain")
RESULTS = ("classes_", "coef_", "intercept_", "n_iter_", "n_features_in_", "converged_", "kkt_", "excess_", "status_")


# -- models ---------------------------------------------------------------------------------------------------------


def table(rows=150):
    random = np.random.default_rng(3)
    spend = random.normal(50, 10, rows)
    frame = pd.DataFrame(
        {
            "größe": random.normal(1.7, 0.1, rows),
            "spend [€]": np.where(np.arange(rows) % 7 == 0, np.nan, spend),
            "город": random.choice(["Осло", "Ämsterdam", "東京", "a, \"b\"\nc"], rows),
            "member": random.choice([True, False], rows),
            "joined": pd.date_range("2020-01-01 05:00", periods=rows, freq="31h").strftime("%Y-%m-%d %H:%M:%S"),
            "note": [f"please ring me again about order {i} · naïve" if i % 3 else f"all is well, thanks {i}"
                     for i in range(rows)],
            "id": [f"id-{i}" for i in range(rows)],
        }
    )  # fmt: skip
    frame.loc[::11, "город"] = None
    labels = np.where(spend + random.normal(0, 8, rows) > 50, "да ✓", "nein")
    return frame, labels


def numbers(rows=80, columns=4, classes=2, dtype=np.float64):
    random = np.random.default_rng(columns + classes)
    X = random.normal(size=(rows, columns)).astype(dtype)
    y = (X @ random.normal(size=(columns, classes)) + random.gumbel(size=(rows, classes))).argmax(1)
    return X, y


def dense():
    X, y = numbers()
    return LogisticRegression(C=0.5).fit(X, y), X, {}


def single_precision():
    X, y = numbers(dtype=np.float32)
    return LogisticRegression().fit(X, y), X, {}


def far_from_zero():
    X, y = numbers()
    X += 1e6
    return LogisticRegression(C=np.inf).fit(X, y), X, {}


def sparse():
    X, y = numbers(columns=9)
    X = scipy.sparse.csr_array(np.where(np.abs(X) > 0.8, X, 0))
    return LogisticRegression().fit(X, y), X, {}


def tensors():
    X, y = (torch.from_numpy(array) for array in numbers())
    return LogisticRegression().fit(X, y), X, {}


def names_of_columns():
    X, y = numbers()
    frame = pd.DataFrame(X, columns=["a", "Ä", "{\"float\": 1}", "x y\n"])
    return LogisticRegression().fit(frame, y), frame, {}


def many_classes():
    X, y = numbers(classes=4)
    return LogisticRegression().fit(X, y), X, {}


def text_labels():
    X, y = numbers(classes=3)
    return LogisticRegression().fit(X, np.array(["a", "ß", "日本"])[y].astype("U20")), X, {}


def object_labels():
    X, y = numbers()
    return LogisticRegression().fit(X, np.array(["no", "ýes"], dtype=object)[y]), X, {}


def boolean_labels():
    X, y = numbers()
    return LogisticRegression().fit(X, y == 1), X, {}


def small_integer_labels():
    X, y = numbers()
    return LogisticRegression().fit(X, (y * 7 - 3).astype(np.int8)), X, {}


def huge_integer_labels():
    X, y = numbers()
    return LogisticRegression().fit(X, np.array([2**63 + 1, 2**63 + 5], dtype=np.uint64)[y]), X, {}


def offsets():
    X, y = numbers()
    offset = np.linspace(-1, 1, 80)
    return LogisticRegression().fit(X, y, offset=offset), X, {"offset": offset}


def offsets_of_classes():
    X, y = numbers(classes=3)
    offset = np.random.default_rng(0).normal(size=(80, 3))
    return LogisticRegression().fit(X, y, offset=offset), X, {"offset": offset}


def every_parameter():
    X, y = numbers()
    weight = {0: 2.0, 1: np.float64(1.5)}
    model = LogisticRegression(
        C=np.float32(0.25), tol=1e-9, fit_intercept=False, class_weight=weight, random_state=np.int64(3), max_iter=77,
        solver="lbfgs", device=torch.device("cpu"),
    )  # fmt: skip
    return model.fit(X, y), X, {}


def separated():
    X, y = numbers()
    with pytest.warns(ConvergenceWarning, match="separated"):
        model = LogisticRegression(C=np.inf).fit(X, X[:, 0] > 0)
    return model, X, {}


def stopped_early():
    X, y = numbers()
    with pytest.warns(ConvergenceWarning):
        model = LogisticRegression(max_iter=1, tol=1e-12).fit(X, y)
    return model, X, {}


def encoded_table():
    frame, labels = table()
    return make_pipeline(TableEncoder(), LogisticRegression()).fit(frame, labels), frame, {}


def encoded_table_of_classes():
    frame, _ = table()
    labels = np.arange(150) % 3
    steps = [("кодер", TableEncoder(kinds={"member": "category", "note": "drop"})), ("model", LogisticRegression())]
    return Pipeline(steps).fit(frame, labels), frame, {}


def encoded_array():
    X, y = numbers()
    X[::9, 1] = np.nan
    return make_pipeline(TableEncoder(), LogisticRegression()).fit(X, y), X, {}


def pipeline_of_one():
    X, y = numbers()
    return Pipeline([("alone", LogisticRegression())]).fit(X, y), X, {}


MODELS = (
    dense, single_precision, far_from_zero, sparse, tensors, names_of_columns, many_classes, text_labels, object_labels,
    boolean_labels, small_integer_labels, huge_integer_labels, offsets, offsets_of_classes, every_parameter, separated,
    stopped_early, encoded_table, encoded_table_of_classes, encoded_array, pipeline_of_one,
)  # fmt: skip
built = cache(lambda build: build())


def bits(result):
    if isinstance(result, torch.Tensor):
        result = result.numpy()
    if scipy.sparse.issparse(result):
        return bits(result.data), bits(result.indices), bits(result.indptr), result.shape
    result = np.asarray(result)
    return result.dtype, result.shape, result.tolist() if result.dtype.kind == "O" else result.tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def content(tmp_path):
    """A small model file of a table."""
    model, _, _ = built(encoded_table)
    save(model, tmp_path / "sound.safetensors", notes={"key": 1})
    return (tmp_path / "sound.safetensors").read_bytes()


def refusal(path):
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert Path(path).name in message
    assert "\n" not in message
    assert len(message) < 400
    return message


# -- what comes back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_every_prediction_has_the_same_bits(build, path):
    model, X, options = built(build)
    save(model, path)
    again = load(path)
    assert type(again) is type(model)
    for method in METHODS:
        if hasattr(model, method):
            assert bits(getattr(again, method)(X, **options)) == bits(getattr(model, method)(X, **options)), method
    one = X[:1] if not isinstance(X, pd.DataFrame) else X.iloc[:1]
    few = {name: value[:1] for name, value in options.items()}
    assert bits(again.predict_proba(one, **few)) == bits(model.predict_proba(one, **few))


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_the_fit_comes_back_too(build, path, tmp_path):
    model, _, _ = built(build)
    save(model, path)
    again = load(path)
    if isinstance(model, Pipeline):
        assert [name for name, _ in again.steps] == [name for name, _ in model.steps]
    theirs, mine = (found.steps[-1][1] if isinstance(found, Pipeline) else found for found in (again, model))
    for name in RESULTS:
        assert bits(getattr(theirs, name)) == bits(getattr(mine, name)), name
    assert hasattr(theirs, "feature_names_in_") == hasattr(mine, "feature_names_in_")
    if hasattr(mine, "feature_names_in_"):
        assert theirs.feature_names_in_.tolist() == mine.feature_names_in_.tolist()
    parameters = {**mine.get_params(), "device": str(mine.device)}
    assert theirs.get_params() == parameters
    assert repr(theirs.plan_) == repr(mine.plan_)
    assert list(theirs.trace_) == list(mine.trace_)
    second = tmp_path / "second.safetensors"
    save(again, second)
    for one, other in zip(opened(second), opened(path), strict=True):
        assert one.keys() == other.keys()
        assert all(bits(one[name]) == bits(other[name]) for name in one)


def test_the_encoder_comes_back_with_its_decisions(path):
    model, frame, _ = built(encoded_table)
    save(model, path)
    again = load(path)
    assert again[0].decisions_ == model[0].decisions_
    assert again[0].get_feature_names_out().tolist() == model[0].get_feature_names_out().tolist()
    assert again[0].feature_names_in_.tolist() == list(frame.columns)
    changed = frame.copy()
    changed["город"] = "nowhere seen"
    changed["note"] = None
    assert bits(again.predict_proba(changed)) == bits(model.predict_proba(changed))


def test_a_scan_of_a_file_is_predicted_with_the_same_bits(path, tmp_path):
    frame, labels = table()
    frame.assign(y=labels).to_csv(tmp_path / "rows.csv", index=False)
    rows = scan(tmp_path / "rows.csv", target="y")
    model = make_pipeline(TableEncoder(), LogisticRegression()).fit(rows)
    save(model, path)
    assert bits(load(path).predict_proba(rows)) == bits(model.predict_proba(rows))


def test_notes_come_back(path):
    model, _, _ = built(dense)
    notes = {"a": [1, None, True, "ü"], "b": {"inf": np.inf, 3: -np.inf, "pairs": 1}, "float": np.float64(0.1)}
    save(model, path, notes=notes)
    assert read(path).notes == {**notes, "float": 0.1}
    assert read(path).version


def test_loading_runs_no_code(path, monkeypatch):
    model, frame, _ = built(encoded_table)
    save(model, path)
    expected = bits(model.predict_proba(frame))

    def refuse(*arguments, **options):
        raise AssertionError("a model file was unpickled or executed")

    class Refuse:
        def __init__(self, *arguments, **options):
            refuse()

    for module, name in ((pickle, "loads"), (pickle, "load"), (torch, "load"), (joblib, "load"), (np, "load")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(pickle, "Unpickler", Refuse)
    monkeypatch.setattr("builtins.eval", refuse)
    monkeypatch.setattr("builtins.exec", refuse)
    again = load(path)
    monkeypatch.undo()
    assert bits(again.predict_proba(frame)) == expected


def test_a_pickle_is_not_opened(path, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    for write in (pickle.dump, joblib.dump, torch.save):
        with path.open("wb") as file:
            write(Bomb(), file)
        assert "is not a model file" in refusal(path)
    assert not (tmp_path / "exploded").exists()


# -- damage ---------------------------------------------------------------------------------------------------------


def test_a_file_cut_short_at_any_length(path, content):
    for length in {*range(24), *range(24, len(content), 101), len(content) - 1}:
        path.write_bytes(content[:length])
        refusal(path)
    path.write_bytes(content + b"\0")
    refusal(path)


def test_any_flipped_bit_is_noticed(path, content):
    random = np.random.default_rng(7)
    places = [*range(80), *random.integers(0, 8 * len(content), 300).tolist()]
    for place in places:
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        refusal(path)


def test_any_zeroed_stretch_is_noticed(path, content):
    random = np.random.default_rng(8)
    for start in random.integers(0, len(content) - 64, 40).tolist():
        path.write_bytes(content[:start] + bytes(64) + content[start + 64 :])
        if path.read_bytes() != content:
            refusal(path)


STRANGERS = {
    "text": b"hello\n",
    "csv": b"a,b,y\n" + b"1,2,x\n" * 1000,
    "json": b'{"format": "torchlogit model"}',
    "png": b"\x89PNG\r\n\x1a\n" + bytes(1000),
    "gzip": gzip.compress(b"a,b\n1,2\n", mtime=0),
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "a length and no header": (10**6).to_bytes(8, "little") + b"{",
    "a length of all": (2**64 - 1).to_bytes(8, "little") + b"{}",
    "an empty header": (2).to_bytes(8, "little") + b"{}",
    "a header that is no JSON": (8).to_bytes(8, "little") + b"{'a': 1}",
    "safetensors without metadata": serialised({"a": np.zeros(3)}),
    "safetensors of another program": serialised({"a": np.zeros(3)}, metadata={"format": "pt"}),
    "safetensors of a type that NumPy lacks": (66).to_bytes(8, "little")
    + b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]},"__metada":{}}'[:66] + bytes(2),
}  # fmt: skip


@pytest.mark.parametrize("stranger", STRANGERS)
def test_another_kind_of_file(path, stranger):
    path.write_bytes(STRANGERS[stranger])
    assert "model" in refusal(path) or "damaged" in refusal(path)


def test_no_file_at_all(path, tmp_path):
    assert "there is no model file" in refusal(path)
    assert "is a directory" in refusal(tmp_path)
    path.touch()
    assert "is empty" in refusal(path)
    path.unlink()
    os.mkfifo(path)
    assert "not a regular file" in refusal(path)
    assert "not a regular file" in refusal("/dev/null")
    with pytest.raises(InputError):
        load(tmp_path / ("x" * 300))
    with pytest.raises(InputError):
        load("")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(path, content):
    path.write_bytes(content)
    path.chmod(0)
    assert "permission" in refusal(path)


def test_a_file_that_may_not_be_read_is_a_sentence(path, content, monkeypatch):
    path.write_bytes(content)

    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("torchlogit.model_file.safe_open", refuse)
    assert "permission denied" in refusal(path)


def test_a_zip_of_a_model(path, content):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("model", content)
    assert "is not a model file" in refusal(path)


# -- sound files with nonsense in them --------------------------------------------------------------------------------


def opened(path):
    with safe_open(path, framework="np") as file:
        return dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def forged(path, change=None, text=None, **metadata_changes):
    """The file again with something changed, under a digest that fits."""
    metadata, arrays = opened(path)
    document = json.loads(metadata["model"])
    if change is not None:
        document = change(document, arrays) or document
    metadata |= {"model": json.dumps(document) if text is None else text, **metadata_changes}
    metadata = {name: value for name, value in metadata.items() if value is not None}
    metadata["sha256"] = _digest(metadata, arrays)
    path.write_bytes(serialised(arrays, metadata=metadata))


@pytest.mark.parametrize("version", ["2", "17", "999999999"])
def test_a_file_of_a_newer_version(path, content, version):
    path.write_bytes(content)
    forged(path, format_version=version, torchlogit="9.8")
    message = refusal(path)
    assert "newer torchlogit (9.8" in message
    assert message.endswith("update torchlogit")


@pytest.mark.parametrize("version", ["0", "-1", "", "1.0", "one", "²", "9" * 5000, None])
def test_a_file_of_no_version(path, content, version):
    path.write_bytes(content)
    forged(path, format_version=version)
    assert "newer" not in refusal(path)


@pytest.mark.parametrize("name", ["sha256", "model", "torchlogit", "format"])
def test_a_file_without_a_part(path, content, name):
    path.write_bytes(content)
    metadata, arrays = opened(path)
    path.write_bytes(serialised(arrays, metadata={key: value for key, value in metadata.items() if key != name}))
    refusal(path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", '"model"', "{}", "[" * 100_000, '{"notes": 1' + "0" * 5000 + "}", '{"a": NaN}', "\0"],
    ids=lambda text: text[:12] or "nothing",
)
def test_a_sound_file_without_a_document(path, content, text):
    path.write_bytes(content)
    forged(path, text=text)
    assert "does not hold a valid model" in refusal(path)


def setting(*keys, to):
    def change(document, arrays):
        inner = document
        for key in keys[:-1]:
            inner = inner[key]
        assert keys[-1] in inner if isinstance(inner, dict) else True
        inner[keys[-1]] = to

    change.__name__ = f"{'.'.join(map(str, keys))}={str(to)[:40]}"
    return change


def without(*keys):
    def change(document, arrays):
        inner = document
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]

    change.__name__ = f"{'.'.join(map(str, keys))} is gone"
    return change


def array(name, build):
    def change(document, arrays):
        arrays[name] = build(arrays[name])

    change.__name__ = f"{name} {build.__name__}"
    return change


def named(name):
    def decorate(function):
        function.__name__ = name
        return function

    return decorate


@named("cut")
def cut(values):
    return values.ravel()[:-1].copy()


@named("of another shape")
def reshaped(values):
    return values[None, ...]


@named("of nothing")
def emptied(values):
    return values[:0]


@named("not a number")
def holed(values):
    values = values.copy()
    values.flat[0] = np.nan
    return values


@named("infinite")
def unbounded(values):
    values = values.copy()
    values.flat[-1] = -np.inf
    return values


@named("single precision")
def single(values):
    return values.astype(np.float32)


@named("integer")
def integers(values):
    return values.astype(np.int64)


@named("complex")
def imaginary(values):
    return values.astype(np.complex64)


@named("reversed")
def backwards(values):
    return values[::-1].copy()


@named("negative")
def negative(values):
    return -values - 1


# the columns of `table`: 0 numeric, 1 numeric with values missing, 2 category, 3 boolean, 4 date, 5 text, 6 dropped
COLUMN = ("encoder", "columns")
NONSENSE = [
    *(array("coef", build) for build in (cut, reshaped, emptied, holed, unbounded, single, integers, imaginary)),
    *(array("intercept", build) for build in (reshaped, emptied, holed, single)),
    *(array("column_5.idf", build) for build in (cut, reshaped, emptied, holed, unbounded, single)),
    *(array("column_5.buckets", build) for build in (cut, reshaped, emptied, backwards, negative, integers)),
    *(array("column_5.labels", build) for build in (emptied, integers)),
    setting("steps", to="ab"),
    setting("steps", to=["a"]),
    setting("steps", to=["a", "b", "c"]),
    setting("steps", to=["a", "a"]),
    setting("steps", to=[1, 2]),
    setting("notes", to=[]),
    setting("encoder", to=None),
    setting("encoder", to=3),
    setting("classifier", to=None),
    setting("classifier", to=[]),
    *(without(name) for name in ("steps", "notes", "encoder", "classifier")),
    *(without("classifier", name) for name in ("parameters", "classes", "dtype", "features", "plan", "result")),
    *(setting("classifier", "features", to=value) for value in (-1, 0, 1, 10**12, 10**400, 2.0, True, "3", None)),
    *(setting("classifier", "dtype", to=value) for value in ("<f2", "<i8", "O", "V1000000000", "nonsense", 8, "")),
    setting("classifier", "parameters", to=[]),
    setting("classifier", "parameters", "C", to=[1]),
    setting("classifier", "parameters", "C", to={"float": "one"}),
    setting("classifier", "parameters", to={"nonsense": 1}),
    setting("classifier", "feature_names", to=["a"]),
    setting("classifier", "feature_names", to=5),
    setting("classifier", "uses_offset", to=1),
    setting("classifier", "iterations", to=5),
    setting("classifier", "iterations", to=[10**30]),
    setting("classifier", "iterations", to=["1"]),
    setting("classifier", "result", "kkt_", to="0"),
    setting("classifier", "result", "converged_", to=1),
    setting("classifier", "result", "status_", to=None),
    setting("classifier", "plan", to=None),
    setting("classifier", "plan", "solver", to=3),
    setting("classifier", "trace", to={}),
    setting("classifier", "trace", to=[1]),
    *(
        setting("classifier", "classes", "values", to=value)
        for value in ([], ["a"], ["a", "a"], ["a", "b", "c"], ["a", None], ["a", ["b"]], "ab", [1, 2], {"0": "a"})
    ),
    *(
        setting("classifier", "classes", "dtype", to=value)
        for value in ("<i8", "<M8[s]", "V8", "<U1", "<U9999999", "<U99999999999999", "i4,(9999999,)f8", "", None)
    ),
    setting("encoder", "kinds", to={"a": "nonsense"}),
    setting("encoder", "kinds", to={"a": ["numeric"]}),
    setting("encoder", "kinds", to=[]),
    setting("encoder", "named", to="yes"),
    setting("encoder", "columns", to=[]),
    setting("encoder", "columns", to=[3]),
    setting("encoder", "columns", to=None),
    without("encoder", "columns", 0),
    without(*COLUMN, 0, "decision"),
    without(*COLUMN, 0, "learned"),
    without(*COLUMN, 0, "learned", "scale"),
    without(*COLUMN, 5, "learned", "name"),
    setting(*COLUMN, 0, "decision", "kind", to="nonsense"),
    setting(*COLUMN, 0, "decision", "kind", to="text"),
    setting(*COLUMN, 0, "decision", "kind", to="drop"),
    setting(*COLUMN, 0, "decision", "kind", to="__class__"),
    setting(*COLUMN, 0, "decision", "column", to=5),
    setting(*COLUMN, 0, "decision", "features", to=-3),
    setting(*COLUMN, 0, "decision", "features", to=10**9),
    setting(*COLUMN, 0, "learned", to=None),
    setting(*COLUMN, 0, "learned", to=[]),
    setting(*COLUMN, 6, "learned", to={"name": "id"}),
    *(setting(*COLUMN, 0, "learned", "scale", to=value) for value in (-1.0, {"float": "nan"}, {"float": "inf"}, "1")),
    setting(*COLUMN, 0, "learned", "scale", to=0.0),
    setting(*COLUMN, 0, "learned", "mean", to={"float": "-inf"}),
    setting(*COLUMN, 0, "learned", "mean", to=10**400),
    setting(*COLUMN, 0, "learned", "marked", to=1),
    setting(*COLUMN, 0, "learned", "marked", to=True),
    setting(*COLUMN, 2, "learned", "levels", to="abc"),
    setting(*COLUMN, 2, "learned", "levels", to=[]),
    setting(*COLUMN, 2, "learned", "levels", to=[1, 2, 3, 4]),
    setting(*COLUMN, 2, "learned", "levels", to=["a", "a", "a", "a"]),
    *(setting(*COLUMN, 2, "learned", "buckets", to=value) for value in (-1, 3, 10**9, 10**18, 2.5, True, "3")),
    setting(*COLUMN, 2, "learned", "other", to=None),
    setting(*COLUMN, 3, "learned", "share", to=-0.1),
    setting(*COLUMN, 3, "learned", "share", to=2.0),
    setting(*COLUMN, 3, "learned", "one", to=7),
    setting(*COLUMN, 4, "learned", "form", to="%Y %Q"),
    setting(*COLUMN, 4, "learned", "form", to=3),
    setting(*COLUMN, 4, "learned", "hours", to="no"),
    setting(*COLUMN, 0, "learned", "notation", to="1_234.5"),
    setting(*COLUMN, 0, "learned", "notation", to=None),
    setting(*COLUMN, 0, "decision", "hint", to=3),
]


def test_the_table_of_nonsense_fits_the_table(path, content):
    path.write_bytes(content)
    document = json.loads(opened(path)[0]["model"])
    kinds = [column["decision"]["kind"] for column in document["encoder"]["columns"]]
    assert kinds == ["numeric", "numeric", "category", "boolean", "date", "text", "drop"]
    forged(path)
    load(path)


@pytest.mark.parametrize("change", NONSENSE, ids=lambda change: change.__name__)
def test_nonsense_under_a_digest_that_fits(path, content, change):
    path.write_bytes(content)
    forged(path, change)
    tracemalloc.start()
    try:
        assert "does not hold a valid model" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 25
    finally:
        tracemalloc.stop()


def test_files_of_earlier_versions_are_read(path, content):
    """They lack what has been added since."""
    path.write_bytes(content)
    model = load(path)

    def without_additions(document, arrays):
        for column in document["encoder"]["columns"]:
            column["decision"].pop("hint")
            if column["decision"]["kind"] == "numeric":
                column["learned"].pop("notation")

    forged(path, without_additions)
    earlier = load(path)
    assert [str(d) for d in earlier[0].decisions_] == [str(d) for d in model[0].decisions_]
    assert earlier[0]._encodings[0] == model[0]._encodings[0]


def test_a_fault_of_the_program_does_not_blame_the_file(path, content, monkeypatch):
    path.write_bytes(content)

    def fail(*arguments):
        raise AttributeError("a slip")

    for name in ("_model", "_check_format"):
        monkeypatch.setattr(f"torchlogit.model_file.{name}", fail)
        with pytest.raises(AttributeError, match="a slip"):
            load(path)
        monkeypatch.undo()


@pytest.mark.parametrize("name", ["coef", "intercept", "column_5.idf", "column_5.buckets", "column_5.labels"])
def test_a_missing_array(path, content, name):
    path.write_bytes(content)
    forged(path, lambda document, arrays: arrays.pop(name) is None)
    assert "does not hold a valid model" in refusal(path)


@pytest.mark.parametrize("build", [holed, cut, single])
@pytest.mark.parametrize("name", ["centre", "centred_intercept"])
def test_a_bad_centre(path, name, build):
    save(built(far_from_zero)[0], path)
    assert name in opened(path)[1]
    forged(path, array(name, build))
    assert "does not hold a valid model" in refusal(path)


# -- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [Peer(), Pipeline([("scale", StandardScaler()), ("model", LogisticRegression())]), 5, None, "model", TableEncoder(),
     Pipeline([("model", LogisticRegression()), ("encoder", TableEncoder())])],
    ids=lambda model: type(model).__name__,
)  # fmt: skip
def test_other_objects_are_refused(path, model):
    with pytest.raises(TypeError, match="a model file holds a LogisticRegression"):
        save(model, path)
    assert not path.exists()


def test_unfitted_models_are_refused(path):
    fitted = built(dense)[0]
    for model in (
        LogisticRegression(),
        make_pipeline(TableEncoder(), LogisticRegression()),
        Pipeline([("encoder", TableEncoder()), ("model", fitted)]),
    ):
        with pytest.raises(NotFittedError):
            save(model, path)
    assert not path.exists()


@pytest.mark.parametrize("note", [object(), {1, 2}, b"bytes", 1j])
def test_notes_that_a_file_cannot_hold(path, note):
    with pytest.raises(TypeError, match="a file cannot hold"):
        save(built(dense)[0], path, notes={"a": note})
    assert not path.exists()


def test_places_that_cannot_be_written(tmp_path):
    model = built(dense)[0]
    (tmp_path / "file").write_text("x")
    for place, kind in (("missing/m", FileNotFoundError), ("", IsADirectoryError), ("file/m", NotADirectoryError)):
        with pytest.raises(kind) as caught:
            save(model, tmp_path / place)
        assert str(tmp_path / place) in str(caught.value)
    assert os.listdir(tmp_path) == ["file"]


def no_space(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def half(self, content):
    with self.open("wb") as file:
        file.write(content[: len(content) // 2])
    raise OSError(errno.ENOSPC, "No space left on device", str(self))


def interrupted(self, content):
    half_of_it = content[: len(content) // 2]
    with self.open("wb") as file:
        file.write(half_of_it)
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("name", "failure", "error"),
    [
        ("pathlib.Path.write_bytes", half, OSError),
        ("pathlib.Path.write_bytes", interrupted, KeyboardInterrupt),
        ("os.fsync", no_space, OSError),
        ("pathlib.Path.replace", no_space, OSError),
    ],
)
def test_a_write_that_fails_leaves_the_old_file(path, monkeypatch, name, failure, error):
    save(built(dense)[0], path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(name, failure)
        with pytest.raises(error) as caught:
            save(built(sparse)[0], path)
    if error is OSError:
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_any_name_will_do(tmp_path):
    model, X, _ = built(dense)
    for name in ("model", "a b.csv", "ü✓.x", "[1]*?", "-o", "x" * 255, ".hidden"):
        save(model, tmp_path / name)
        assert bits(load(str(tmp_path / name)).predict(X)) == bits(model.predict(X))
    assert len(os.listdir(tmp_path)) == 7


def test_a_link_and_the_permissions_of_a_file_stay(path, tmp_path):
    link = tmp_path / "link"
    save(built(dense)[0], path)
    path.chmod(0o640)
    link.symlink_to(path)
    save(built(sparse)[0], link)
    assert link.is_symlink()
    assert load(path).n_features_in_ == 9
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    """As root, a file renamed onto /dev/null would take its place."""
    model, pipe = built(dense)[0], tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        save(model, pipe)
        content = os.read(reader, 1 << 20)
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    (tmp_path / "copy").write_bytes(content)
    assert load(tmp_path / "copy").n_features_in_ == 4


def test_a_model_can_be_written_over_itself_and_moved(path, tmp_path):
    model, X, _ = built(dense)
    save(model, path)
    save(load(path), path)
    shutil.move(path, tmp_path / "elsewhere")
    assert bits(load(tmp_path / "elsewhere").predict_proba(X)) == bits(model.predict_proba(X))


def test_arrays_are_little_and_plain(path):
    """Other programs can read the coefficients."""
    model, _, _ = built(dense)
    save(model, path)
    _, arrays = opened(path)
    assert arrays["coef"].tolist() == model.coef_.tolist()
    save_file(arrays, path)
    assert "not a torchlogit model" in refusal(path)
