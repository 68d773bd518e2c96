"""Everything people hand over, and one clear sentence where it cannot be used."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError

import torchlogit.solvers.newton
from torchlogit import LogisticRegression

NAMES = ["age", "dose", "weight"]


@pytest.fixture
def rows(rng):
    X = np.round(rng.normal(size=(90, 3)) * [1, 5, 20], 3)
    X[rng.random((90, 3)) < 0.3] = 0.0
    return X, (X @ [1, -0.1, 0.02] + rng.logistic(size=90) > 0).astype(int)


def _frames():
    pd = pytest.importorskip("pandas")
    pl = pytest.importorskip("polars")
    pa = pytest.importorskip("pyarrow")
    return {
        "pandas": lambda X: pd.DataFrame(X, columns=NAMES),
        "polars": lambda X: pl.DataFrame(X, schema=NAMES),
        "arrow table": lambda X: pa.table(dict(zip(NAMES, X.T, strict=True))),
        "arrow batch": lambda X: pa.RecordBatch.from_pydict(dict(zip(NAMES, X.T, strict=True))),
    }


def _strided(X):
    doubled = np.repeat(np.repeat(X, 2, axis=0), 2, axis=1)
    return doubled[::2, ::2]


ARRAYS = {
    "list": lambda X: X.tolist(),
    "tuple of tuples": lambda X: tuple(map(tuple, X.tolist())),
    "Fortran order": np.asfortranarray,
    "every other row and column": _strided,
    "reversed": lambda X: np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
    "big endian": lambda X: X.astype(">f8"),
    "objects": lambda X: X.astype(object),
}


@pytest.mark.parametrize("form", ARRAYS)
def test_arrays(rows, form):
    X, y = rows
    expected = LogisticRegression().fit(X, y)
    model = LogisticRegression().fit(ARRAYS[form](X), y)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-12)
    np.testing.assert_array_equal(model.predict_proba(ARRAYS[form](X)), model.predict_proba(X))


def test_read_only(rows, tmp_path):
    X, y = rows
    expected = LogisticRegression().fit(X, y).coef_
    X.setflags(write=False)
    y.setflags(write=False)
    weight = np.ones(90)
    weight.setflags(write=False)
    np.testing.assert_array_equal(LogisticRegression().fit(X, y).coef_, expected)
    LogisticRegression(class_weight="balanced").fit(X, y, sample_weight=weight)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    np.testing.assert_array_equal(LogisticRegression().fit(mapped, y).coef_, expected)


def test_nothing_is_changed(rows):
    X, y = rows
    weight, offset = np.linspace(0, 2, 90), np.linspace(-1, 1, 90)
    given = [X, y, weight, offset]
    before = [value.copy() for value in given]
    model = LogisticRegression().fit(X, y, sample_weight=weight, offset=offset)
    model.predict_proba(X, offset=offset)
    model.explain(X, offset=offset)
    for value, copy in zip(given, before, strict=True):
        np.testing.assert_array_equal(value, copy)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint8, bool, np.float16])
def test_other_dtypes_become_floats(rows, dtype):
    X, y = rows
    given = (np.abs(X) * 3).astype(dtype)
    model = LogisticRegression().fit(given, y)
    assert model.coef_.dtype.kind == "f"
    np.testing.assert_allclose(model.coef_, LogisticRegression().fit(given.astype(float), y).coef_, rtol=1e-5)


@pytest.mark.parametrize("container", ["matrix", "array"])
@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "lil", "dok", "dia"])
def test_every_sparse_format(rows, form, container):
    X, y = rows
    expected = LogisticRegression(tol=1e-10).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.sparse.SparseEfficiencyWarning)
        given = getattr(scipy.sparse, f"{form}_{container}")(X)
    model = LogisticRegression(tol=1e-10).fit(given, y)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-8)
    np.testing.assert_allclose(model.predict_proba(given), expected.predict_proba(X), rtol=1e-8)


def test_sparse_details(rows):
    X, y = rows
    expected = LogisticRegression(tol=1e-10).fit(X, y).coef_
    csr = scipy.sparse.csr_array(X)
    rest = scipy.sparse.csr_array(X / 2)
    twice = scipy.sparse.csr_array(
        (np.repeat(rest.data, 2), np.repeat(rest.indices, 2), 2 * rest.indptr), shape=X.shape
    )
    stored = csr.copy()
    stored.data[:5] = 0.0
    wide = scipy.sparse.csr_array((csr.data, csr.indices.astype(np.int64), csr.indptr.astype(np.int64)), X.shape)
    for given in (twice, wide, csr.astype(np.float32)):
        before = given.nnz
        model = LogisticRegression(tol=1e-10).fit(given, y)
        np.testing.assert_allclose(model.coef_, expected, rtol=1e-5 if given.dtype == np.float32 else 1e-8)
        assert given.nnz == before
    np.testing.assert_allclose(
        LogisticRegression(tol=1e-10).fit(stored, y).coef_,
        LogisticRegression(tol=1e-10).fit(stored.toarray(), y).coef_,
        rtol=1e-8,
    )
    model = LogisticRegression().fit(csr, y).sparsify()
    np.testing.assert_allclose(model.decision_function(csr), LogisticRegression().fit(csr, y).decision_function(csr))


@pytest.mark.parametrize("form", ["pandas", "polars", "arrow table", "arrow batch"])
def test_frames_keep_their_names(rows, form):
    X, y = rows
    make = _frames()[form]
    expected = LogisticRegression().fit(X, y)
    model = LogisticRegression().fit(make(X), y)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-10)
    assert list(model.feature_names_in_) == NAMES
    np.testing.assert_allclose(model.predict_proba(make(X)), expected.predict_proba(X), rtol=1e-9)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)


def test_names_must_match(rows):
    pd = pytest.importorskip("pandas")
    X, y = rows
    frame = pd.DataFrame(X, columns=NAMES)
    model = LogisticRegression().fit(frame, y)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame.rename(columns={"dose": "amount"}))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["dose", "age", "weight"]])


def test_a_column_of_words_is_named(rows):
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"age": [1.0, 2.0], "town": ["a", "b"]})
    with pytest.raises(ValueError, match=r"column 'town' holds string.*TableEncoder"):
        LogisticRegression().fit(table, [0, 1])


# -- tensors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("layout", ["dense", "csr", "coo"])
def test_tensors_give_tensors(rows, dtype, layout):
    X, y = rows
    tensor = torch.from_numpy(X).to(dtype)
    if layout != "dense":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
            tensor = tensor.to_sparse_csr() if layout == "csr" else tensor.to_sparse_coo()
    model = LogisticRegression().fit(tensor, torch.from_numpy(y))
    wide = torch.float64 if dtype in (torch.float64, torch.int64) else torch.float32
    plain = torch.from_numpy(X).to(dtype).to(wide)
    expected = LogisticRegression().fit(plain.numpy(), y)
    assert isinstance(model.coef_, np.ndarray)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-5)
    for method in ("decision_function", "predict_proba", "predict_log_proba"):
        found = getattr(model, method)(tensor)
        assert isinstance(found, torch.Tensor)
        assert found.dtype == wide
        np.testing.assert_allclose(found.numpy(), getattr(expected, method)(plain.numpy()), rtol=1e-4, atol=1e-6)
    labels = model.predict(tensor)
    assert isinstance(labels, torch.Tensor)
    np.testing.assert_array_equal(labels.numpy(), expected.predict(plain.numpy()))
    assert model.score(tensor, torch.from_numpy(y)) == expected.score(plain.numpy(), y)


@pytest.mark.parametrize("layout", ["sparse_bsr", "sparse_bsc", "hybrid"])
def test_tensors_in_layouts_of_blocks(rows, layout):
    X, y = rows
    tensor = torch.from_numpy(X[: len(X) // 2 * 2, :2].copy())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse .* tensor support")
        given = tensor.to_sparse(1) if layout == "hybrid" else getattr(tensor, f"to_{layout}")((2, 2))
    model = LogisticRegression().fit(tensor, y[: len(tensor)])
    for function in (lambda: LogisticRegression().fit(given, y[: len(tensor)]), lambda: model.predict(given)):
        with pytest.raises(ValueError, match=rf"X is a .*{layout}.*give it as X.to_dense\(\)"):
            function()


def test_tensors_with_gradients_and_strides(rows):
    X, y = rows
    base = torch.from_numpy(np.repeat(X, 2, axis=1)).requires_grad_()
    model = LogisticRegression().fit(base[:, ::2], y)
    np.testing.assert_allclose(model.coef_, LogisticRegression().fit(X, y).coef_, rtol=1e-12)
    assert not model.predict_proba(base[:, ::2]).requires_grad


def test_tensors_and_words(rows):
    X, y = rows
    words = np.array(["no", "yes"])[y]
    predicted = LogisticRegression().fit(torch.from_numpy(X), words).predict(torch.from_numpy(X))
    assert isinstance(predicted, np.ndarray)
    assert set(predicted) == {"no", "yes"}


def test_torch_default_dtype_does_not_matter(rows):
    X, y = rows
    expected = LogisticRegression().fit(X, y).coef_
    torch.set_default_dtype(torch.float64)
    np.testing.assert_array_equal(LogisticRegression().fit(X, y).coef_, expected)
    with torch.inference_mode():
        np.testing.assert_array_equal(LogisticRegression().fit(X, y).coef_, expected)


def test_device(rows):
    assert LogisticRegression(device="cpu").fit(*rows).plan_.device == "cpu"
    with pytest.raises(ValueError, match="device"):
        LogisticRegression(device="abacus").fit(*rows)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            LogisticRegression(device="cuda").fit(*rows)


# -- labels ---------------------------------------------------------------------------------------------------------

LABELS = {
    "words": ["no", "yes"],
    "booleans": [False, True],
    "minus and plus": [-1, 1],
    "floats": [1.0, 2.0],
    "objects": np.array(["x", "y"], dtype=object),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels(rows, kind):
    X, codes = rows
    y = np.asarray(LABELS[kind])[codes]
    model = LogisticRegression().fit(X, y)
    assert list(model.classes_) == list(LABELS[kind])
    assert model.classes_.dtype == y.dtype
    expected = LogisticRegression().fit(X, codes)
    np.testing.assert_array_equal(model.coef_, expected.coef_)
    np.testing.assert_array_equal(model.predict(X), np.asarray(LABELS[kind])[expected.predict(X)])
    assert model.predict(X).dtype == y.dtype


def test_labels_of_frames(rows):
    pd, pl, pa = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))
    X, codes = rows
    words = np.array(["no", "yes"])[codes]
    expected = LogisticRegression().fit(X, codes).coef_
    for y in (pd.Series(words), pd.Series(words, dtype="category"), pl.Series(words), pa.array(words), words.tolist()):
        model = LogisticRegression().fit(X, y)
        assert list(model.classes_) == ["no", "yes"]
        np.testing.assert_array_equal(model.coef_, expected)


def test_a_column_of_labels_is_flattened_with_a_warning(rows):
    X, y = rows
    with pytest.warns(DataConversionWarning):
        model = LogisticRegression().fit(X, y[:, None])
    np.testing.assert_array_equal(model.coef_, LogisticRegression().fit(X, y).coef_)


def test_bytes_are_refused_as_in_scikit_learn(rows):
    with pytest.raises(TypeError, match="Convert the labels to a string or integer"):
        LogisticRegression().fit(rows[0], np.array([b"a", b"b"])[rows[1]])


BAD_LABELS = {
    "one class": (np.zeros(90), "only one class"),
    "too few": (np.zeros(89), "inconsistent numbers of samples"),
    "continuous": (np.linspace(0, 1, 90), "continuous"),
    "missing": (np.append(np.arange(89) % 2.0, np.nan), "NaN"),
    "missing object": (np.array(["a", None] * 45, dtype=object), "NaN.*row 1"),
    "mixed": (np.array(["a", 1] * 45, dtype=object), r"mixes labels that cannot be sorted \(int, str\)"),
    "matrix": (np.zeros((90, 2)), "1d array|multioutput|shape"),
    "none": (None, "requires y"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels(rows, case):
    y, message = BAD_LABELS[case]
    with pytest.raises(ValueError, match=message):
        LogisticRegression().fit(rows[0], y)


# -- shapes and parameters ------------------------------------------------------------------------------------------

BAD_SHAPES = {
    "one dimension": (lambda X: X[:, 0], "Expected 2D array"),
    "three dimensions": (lambda X: X[None], "dim|got 3D"),
    "no rows": (lambda X: X[:0], r"0 sample|inconsistent"),
    "no columns": (lambda X: X[:, :0], r"0 feature"),
    "complex": (lambda X: X + 1j, "Complex data not supported"),
    "words": (lambda X: np.full(X.shape, "a"), "could not convert|not support"),
}


@pytest.mark.parametrize("kind", ["array", "tensor"])
@pytest.mark.parametrize("case", BAD_SHAPES)
def test_bad_shapes(rows, case, kind):
    make, message = BAD_SHAPES[case]
    X = make(rows[0])
    if kind == "tensor":
        if case == "words":
            pytest.skip("no such tensor")
        X = torch.from_numpy(X)
    with pytest.raises(ValueError, match=message):
        LogisticRegression().fit(X, rows[1])


FORMS = {"array": np.asarray, "tensor": torch.from_numpy, "sparse": scipy.sparse.csr_array}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_wrong_number_of_columns(rows, form):
    model = LogisticRegression().fit(*rows)
    with pytest.raises(ValueError, match="2 features, but LogisticRegression is expecting 3"):
        model.predict(form(np.ascontiguousarray(rows[0][:, :2])))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function", "score", "explain"])
def test_not_fitted(rows, method):
    arguments = rows if method == "score" else rows[:1]
    with pytest.raises(NotFittedError):
        getattr(LogisticRegression(), method)(*arguments)


BAD_PARAMETERS = [
    ({"C": 0.0}, "C must be"), ({"C": -1}, "C must be"), ({"C": np.nan}, "C must be"), ({"C": "1"}, "C must be"),
    ({"tol": -1.0}, "tol must be"), ({"max_iter": 1.5}, "max_iter must be"), ({"max_iter": -1}, "max_iter must be"),
    ({"solver": "magic"}, "solver must be"), ({"l1_ratio": 2.0}, "l1_ratio must be"),
    ({"fit_intercept": 3}, "fit_intercept must be"), ({"class_weight": "heavy"}, "class_weight must be"),
    ({"penalty": "l3"}, "penalty must be"),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "message"), BAD_PARAMETERS, ids=str)
def test_bad_parameters(rows, parameters, message):
    with pytest.raises(ValueError, match=message) as caught:
        LogisticRegression(**parameters).fit(*rows)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("l1_ratio", [1e-3, 0.5, 1.0])
def test_l1_is_one_clear_sentence(rows, l1_ratio):
    with pytest.raises(ValueError, match=r"^l1_ratio=.*not available yet; use l1_ratio=0") as caught:
        LogisticRegression(l1_ratio=l1_ratio).fit(*rows)
    assert "\n" not in str(caught.value)


def test_parameters_without_effect_say_so(rows):
    expected = LogisticRegression().fit(*rows).coef_
    idle = [("n_jobs", 2, FutureWarning), ("dual", True, UserWarning), ("intercept_scaling", 3, UserWarning)]
    for name, value, kind in idle:
        with pytest.warns(kind, match=f"'{name}' has no effect"):
            model = LogisticRegression(**{name: value}).fit(*rows)
        np.testing.assert_array_equal(model.coef_, expected)


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg", "newton-cholesky", "sag", "saga"])
def test_solver_names_mean_auto(rows, solver):
    expected = LogisticRegression().fit(*rows).coef_
    np.testing.assert_array_equal(LogisticRegression(solver=solver).fit(*rows).coef_, expected)


BAD_WEIGHTS = {
    "negative": (np.where(np.arange(90) == 7, -1.0, 1.0), "row 7 has weight -1"),
    "missing": (np.where(np.arange(90) == 8, np.nan, 1.0), "row 8"),
    "infinite": (np.where(np.arange(90) == 9, np.inf, 1.0), "row 9"),
    "too few": (np.ones(89), r"expected \(90,\)"),
    "matrix": (np.ones((90, 2)), "1D array"),
    "all zero": (np.zeros(90), "non-zero"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_bad_weights(rows, case):
    weight, message = BAD_WEIGHTS[case]
    with pytest.raises(ValueError, match=message):
        LogisticRegression().fit(*rows, sample_weight=weight)


@pytest.mark.parametrize("form", [list, torch.from_numpy, np.asarray], ids=["list", "tensor", "array"])
def test_weights_and_offsets_in_any_form(rows, form):
    weight, offset = np.linspace(0.1, 2, 90), np.linspace(-1, 1, 90)
    expected = LogisticRegression().fit(*rows, sample_weight=weight, offset=offset)
    model = LogisticRegression().fit(*rows, sample_weight=form(weight), offset=form(offset))
    np.testing.assert_array_equal(model.coef_, expected.coef_)


def test_offset_rules(rows):
    X, y = rows
    offset = np.linspace(-2, 2, 90)
    model = LogisticRegression().fit(X, y, offset=offset)
    plain = X @ model.coef_[0] + model.intercept_[0]
    np.testing.assert_allclose(model.decision_function(X, offset=offset), plain + offset, rtol=1e-10)
    for method in (model.predict, model.predict_proba, model.decision_function, model.explain):
        with pytest.raises(ValueError, match="fitted with an offset"):
            method(X)
    with pytest.raises(ValueError, match="fitted with an offset"):
        model.score(X, y)
    assert model.score(X, y, offset=offset) == np.mean(model.predict(X, offset=offset) == y)
    # A model without one takes one all the same.
    bare = LogisticRegression().fit(X, y)
    np.testing.assert_allclose(bare.decision_function(X, offset=offset), bare.decision_function(X) + offset)
    for bad, message in ((offset[:5], "offset has shape"), (np.full(90, np.nan), "row 0"), (np.ones((90, 3)), "shape")):
        with pytest.raises(ValueError, match=message):
            LogisticRegression().fit(X, y, offset=bad)


def test_offsets_of_many_classes(rng, rows):
    X = rows[0]
    y = rng.integers(0, 3, 90)
    same = LogisticRegression(tol=1e-10).fit(X, y, offset=np.linspace(-1, 1, 90))
    none = LogisticRegression(tol=1e-10).fit(X, y)
    np.testing.assert_allclose(same.coef_, none.coef_, rtol=1e-7)  # one number for all classes changes nothing
    each = rng.normal(size=(90, 3))
    model = LogisticRegression().fit(X, y, offset=each)
    assert model.decision_function(X, offset=each).shape == (90, 3)


# -- state ----------------------------------------------------------------------------------------------------------


def test_warm_start(rows):
    X, y = rows
    model = LogisticRegression(warm_start=True).fit(X, y)
    first = model.n_iter_[0]
    model.fit(X, y)
    assert model.n_iter_[0] <= 1 < first
    assert model.trace_[0]["objective"] == pytest.approx(model.objective_, rel=1e-9)
    with pytest.raises(ValueError, match="warm_start"):
        model.fit(X[:, :2], y)
    cold = LogisticRegression().fit(X, y)
    cold.fit(X, y)
    assert cold.n_iter_[0] == first


def test_written_coefficients_are_used(rows):
    X, y = rows
    model = LogisticRegression().fit(X, y)
    model.coef_ = np.array([[1.0, 0.0, 0.0]])
    model.intercept_ = np.array([0.5])
    np.testing.assert_allclose(model.decision_function(X), X[:, 0] + 0.5)


def test_a_refit_forgets_names(rows):
    pd = pytest.importorskip("pandas")
    X, y = rows
    model = LogisticRegression().fit(pd.DataFrame(X, columns=NAMES), y)
    model.fit(torch.from_numpy(X), y)
    assert not hasattr(model, "feature_names_in_")
    model.fit(X, y)
    assert not hasattr(model, "feature_names_in_")


@pytest.mark.parametrize("after", [0, 1, 2])
def test_control_c_leaves_a_fitted_model(rows, monkeypatch, after):
    X, y = rows
    complete = LogisticRegression(tol=1e-12).fit(X, y)
    step, calls = torchlogit.solvers.newton.Newton.step, []

    def interrupted(self, objective, state):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(state)
        return step(self, objective, state)

    monkeypatch.setattr(torchlogit.solvers.newton.Newton, "step", interrupted)
    model = LogisticRegression(tol=1e-12)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert not model.converged_
    assert "interrupted" in model.status_
    assert model.n_iter_[0] == after
    np.testing.assert_array_equal(model.classes_, [0, 1])
    assert np.isfinite(model.coef_).all()
    assert model.objective_ >= complete.objective_
    model.predict_proba(X)
    monkeypatch.undo()
    assert model.fit(X, y).converged_


@pytest.mark.parametrize("K", [2, 4])
@pytest.mark.parametrize("layout", [np.asarray, scipy.sparse.csr_array], ids=["dense", "sparse"])
def test_the_same_bits_every_time(rng, K, layout):
    X, y = rng.normal(size=(20_000, 5)), rng.integers(0, K, 20_000)
    X[np.abs(X) < 0.5] = 0
    first, second, copied = (LogisticRegression().fit(layout(rows), y) for rows in (X, X, X.copy()))
    for other in (second, copied):
        np.testing.assert_array_equal(first.coef_, other.coef_)
        np.testing.assert_array_equal(first.intercept_, other.intercept_)
    assert pickle.loads(pickle.dumps(first)).objective_ == first.objective_


@pytest.mark.parametrize("K", [2, 3])
def test_a_row_is_predicted_the_same_in_any_company(rng, K):
    X, y = rng.normal(size=(500, 7)), rng.integers(0, K, 500)
    model = LogisticRegression().fit(X, y)
    whole = model.decision_function(X)
    np.testing.assert_array_equal(np.concatenate([model.decision_function(X[i : i + 1]) for i in range(500)]), whole)
    np.testing.assert_array_equal(model.decision_function(X[::-1])[::-1], whole)


def test_random_state_is_only_a_route(rng):
    X, y = rng.normal(size=(40_000, 3)), rng.integers(0, 2, 40_000)
    models = [LogisticRegression(random_state=state).fit(X, y) for state in (None, 0, 1, np.random.RandomState(3))]
    np.testing.assert_array_equal(models[0].coef_, models[1].coef_)
    for model in models[2:]:
        assert model.objective_ == pytest.approx(models[0].objective_, rel=1e-7)


def test_verbose_goes_to_standard_error(rows, capsys):
    LogisticRegression(verbose=1).fit(*rows)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "kkt" in captured.err
    LogisticRegression().fit(*rows)
    assert capsys.readouterr().err == ""


def test_what_a_fit_says_about_itself(rows):
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        model = LogisticRegression(max_iter=1).fit(*rows)
    assert model.n_iter_.tolist() == [1]
    model = LogisticRegression().fit(*rows)
    assert model.status_ == "Converged: the certificate holds."
    assert "mean log loss over 90 rows" in repr(model.plan_)
    assert len(model.trace_) == model.n_iter_[0] + 1
    assert model.trace_[-1]["objective"] == model.objective_
    assert model.trace_[-1]["kkt"] == model.kkt_


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.uint16, np.int64, np.uint64, np.float32, np.float64])
@pytest.mark.parametrize("values", [(0, 1), (1, 2), (5, 9, 100), (0, 3)])
def test_labels_are_counted_as_they_would_be_sorted(rng, dtype, values):
    from torchlogit.row_values import encode_labels

    labels = rng.choice(values, 1000).astype(dtype)
    labels[: len(values)] = values
    if np.unique(labels).size < 2:
        pytest.skip("one label as a boolean")
    classes, codes = encode_labels(labels)
    expected, inverse = np.unique(labels, return_inverse=True)
    assert classes.dtype == labels.dtype
    np.testing.assert_array_equal(classes, expected)
    np.testing.assert_array_equal(codes, inverse)
    assert codes.dtype == np.int64


@pytest.mark.parametrize("labels", [[-3, 7] * 50, [2**60, 2**60 + 1] * 50, [-1.0, 1.0] * 50, [0, 5000] * 9])
def test_labels_of_every_size(labels):
    X = np.arange(len(labels), dtype=float)[:, None]
    assert LogisticRegression().fit(X, labels).classes_.tolist() == sorted(set(labels))


@pytest.mark.parametrize("labels", [
    torch.tensor([3, 1, 7, 1] * 30), torch.tensor([True, False, False] * 40), torch.tensor([0.0, -2.0] * 60),
    torch.tensor([2**60, 0] * 60),
])  # fmt: skip
def test_labels_on_a_device_are_those_of_an_array(rng, monkeypatch, labels):
    """Counted where they are; here the CPU stands in for the device."""
    from torchlogit import row_values

    X = torch.from_numpy(rng.normal(size=(120, 3)))
    expected = LogisticRegression(class_weight="balanced").fit(X, labels)
    monkeypatch.setattr(row_values, "_on_device", lambda y: isinstance(y, torch.Tensor))
    model = LogisticRegression(class_weight="balanced").fit(X, labels)
    assert model.classes_.tolist() == expected.classes_.tolist() == np.unique(labels.numpy()).tolist()
    assert model.classes_.dtype == labels.numpy().dtype
    assert torch.equal(torch.as_tensor(model.coef_), torch.as_tensor(expected.coef_))
    with pytest.raises(ValueError, match="only one class"):
        LogisticRegression().fit(X, torch.ones(120))
    with pytest.raises(ValueError, match="NaN"):
        LogisticRegression().fit(X, torch.full((120,), torch.nan))


def test_numbers_between_whole_ones_are_no_labels():
    with pytest.raises(ValueError, match="Unknown label type"):
        LogisticRegression().fit(np.arange(100.0)[:, None], [0.5, 1.5] * 50)


def test_labels_that_may_not_be_written(rng):
    X, y = rng.normal(size=(60, 2)), rng.integers(0, 2, 60)
    X.setflags(write=False)
    y.setflags(write=False)
    assert LogisticRegression().fit(X, y).converged_
    assert LogisticRegression().partial_fit(X, y, classes=[0, 1]).converged_
