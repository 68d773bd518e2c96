"""Rows that do not fit into memory have the same optimum, and it takes few reads of their files."""

from __future__ import annotations

import threading

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
from sklearn.datasets import dump_svmlight_file
from sklearn.pipeline import Pipeline, make_pipeline

from torchlogit import LogisticRegression, TableEncoder, scan
from torchlogit.gathering import gather
from torchlogit.sampling import row_uniforms

TINY = "1.1MB"


def numbers(rows=20_000, columns=12, seed=0, *, ordered=False):
    """Columns of scales 1e-3 to 1e5, ten deviations from zero."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, columns))
    y = (z @ rng.normal(size=columns) * 0.5 + rng.logistic(size=rows) > 0.3).astype(int)
    scale = np.geomspace(1e-3, 1e5, columns)
    X = ((z + 10 * rng.normal(size=columns)) * scale).astype(np.float32)
    order = np.argsort(y, kind="stable") if ordered else np.arange(rows)
    return X[order], y[order]


def parquet(path, X, y, **more):
    names = {f"x{j}": X[:, j] for j in range(X.shape[1])}
    pq.write_table(pa.table({**names, "y": y, **more}), path, row_group_size=4_000)
    return path


def mixed(rows=24_000, seed=1):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({
        "age": rng.normal(50, 9, rows).round(3),
        "plan": rng.choice(list("abcde"), rows),
        "city": rng.choice([f"c{i}" for i in range(40)], rows),
        "money": rng.lognormal(8, 2, rows).round(2),
    })  # fmt: skip
    frame.loc[rng.random(rows) < 0.1, "age"] = np.nan
    frame.loc[rng.random(rows) < 0.05, "plan"] = None
    z = (frame["plan"] == "a") + frame["age"].fillna(50) / 20 - 2.5 + rng.logistic(size=rows)
    frame["y"] = np.where(z > 1, "high", np.where(z > 0, "middle", "low"))
    frame["two"] = np.where(z > 0, "yes", "no")
    frame["w"] = rng.random(rows) + 0.5
    frame["o"] = rng.normal(size=rows) * 0.3
    return frame


def coefficients(model):
    last = model[-1] if isinstance(model, Pipeline) else model
    assert last.converged_
    return np.c_[last.coef_, last.intercept_]


def streamed(model, table):
    """Whether the fit left the rows in their files."""
    rows = model[0].transform(table) if isinstance(model, Pipeline) else table
    return gather(rows, 0).stream is not None


@pytest.mark.parametrize("ordered", [False, True])
def test_parquet_has_the_optimum_of_the_same_rows_in_memory(tmp_path, ordered):
    X, y = numbers(ordered=ordered)
    path = parquet(tmp_path / "x.parquet", X, y)
    table = scan(path, target="y", memory=TINY)
    assert streamed(LogisticRegression(), table)
    lazy = LogisticRegression(tol=1e-10).fit(table)
    whole = LogisticRegression(tol=1e-10).fit(X.astype(np.float64), y)
    spread = X.std(0, dtype=np.float64)
    np.testing.assert_allclose(lazy.coef_ * spread, whole.coef_ * spread, rtol=0, atol=1e-8)
    assert lazy.predict(scan(path)).tolist() == whole.predict(X.astype(np.float64)).tolist()


def test_rows_that_fit_stay_in_memory_and_nothing_changes(tmp_path):
    X, y = numbers(2_000)
    path = parquet(tmp_path / "x.parquet", X, y)
    table = scan(path, target="y", memory="1GB")
    assert not streamed(LogisticRegression(), table)
    a, b = LogisticRegression().fit(table), LogisticRegression().fit(X.astype(np.float64), y)
    np.testing.assert_array_equal(a.coef_, b.coef_)


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet", "arrow"])
def test_an_encoded_table_has_the_optimum_of_the_same_rows_in_memory(tmp_path, suffix):
    frame, path = mixed().drop(columns=["y", "w", "o"]), tmp_path / f"x.{suffix}"
    if suffix.startswith("csv"):
        frame.to_csv(path, index=False)
    elif suffix == "parquet":
        frame.to_parquet(path)
    else:
        table = pa.Table.from_pandas(frame)
        with pa.ipc.new_file(path, table.schema) as out:
            out.write_table(table, max_chunksize=1_000)
    whole = make_pipeline(TableEncoder(), LogisticRegression(tol=1e-10)).fit(
        frame.drop(columns="two"), frame["two"]
    )
    lazy = make_pipeline(TableEncoder(), LogisticRegression(tol=1e-10))
    table = scan(path, target="two", memory="1MiB")
    lazy.fit(table)
    assert streamed(lazy, table)
    np.testing.assert_allclose(coefficients(lazy), coefficients(whole), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("roles", "parameters"),
    [
        ({"weight": "w"}, {}),
        ({"offset": "o"}, {}),
        ({}, {"class_weight": "balanced"}),
        ({"weight": "w", "offset": "o"}, {"class_weight": {"yes": 2.0, "no": 0.5}}),
        ({"weight": "w"}, {"class_weight": "balanced", "fit_intercept": False}),
    ],
)
def test_weights_and_offsets_stream_along(tmp_path, roles, parameters):
    frame = mixed().drop(columns="y")
    frame.to_csv(tmp_path / "x.csv", index=False)
    drop = [name for name in ("w", "o") if name not in roles.values()]
    fits = []
    for memory in (None, "1MiB"):
        table = scan(tmp_path / "x.csv", target="two", drop=drop, memory=memory, **roles)
        model = make_pipeline(TableEncoder(), LogisticRegression(tol=1e-10, **parameters)).fit(table)
        assert streamed(model, table) == (memory is not None)
        fits.append(coefficients(model))
    np.testing.assert_allclose(fits[0], fits[1], rtol=0, atol=1e-8)


def test_weights_and_labels_given_beside_the_files(tmp_path):
    X, y = numbers()
    path = parquet(tmp_path / "x.parquet", X, y)
    rng = np.random.default_rng(3)
    weight, labels = rng.random(len(y)), np.where(y == 1, "b", "a")
    spread = X.std(0, dtype=np.float64)
    lazy = LogisticRegression(tol=1e-10).fit(scan(path, drop="y", memory=TINY), labels, sample_weight=weight)
    whole = LogisticRegression(tol=1e-10).fit(X.astype(np.float64), labels, sample_weight=weight)
    assert lazy.classes_.tolist() == ["a", "b"]
    np.testing.assert_allclose(lazy.coef_ * spread, whole.coef_ * spread, rtol=0, atol=1e-8)


def test_many_classes(tmp_path):
    frame = mixed().drop(columns=["two", "w", "o"])
    frame.to_csv(tmp_path / "x.csv", index=False)
    fits = []
    for memory in (None, "1MiB"):
        model = make_pipeline(TableEncoder(), LogisticRegression(tol=1e-10))
        fits.append(coefficients(model.fit(scan(tmp_path / "x.csv", target="y", memory=memory))))
    assert fits[0].shape[0] == 3
    np.testing.assert_allclose(fits[0], fits[1], rtol=0, atol=1e-8)


def test_sparse_rows_stay_sparse(tmp_path):
    X = scipy.sparse.random(6_000, 300, density=0.05, random_state=0, format="csr")
    rng = np.random.default_rng(0)
    y = (X @ rng.normal(size=300) * 3 + rng.logistic(size=6_000) > 0).astype(int)
    dump_svmlight_file(X, y, str(tmp_path / "x.libsvm"), zero_based=False)
    table = scan(tmp_path / "x.libsvm", memory="1MiB")
    found = gather(table, 0)
    assert found.stream is not None
    assert found.stream.extent.widths == (0, 300, 0)
    assert found.stream.extent.nbytes < 20 * X.nnz
    lazy = LogisticRegression(tol=1e-10).fit(table)
    whole = LogisticRegression(tol=1e-10).fit(scan(tmp_path / "x.libsvm"))
    spread = np.sqrt(np.asarray(X.multiply(X).mean(0))).ravel()
    np.testing.assert_allclose(lazy.coef_ * spread, whole.coef_ * spread, rtol=0, atol=1e-8)


@pytest.mark.parametrize("columns", [3, 40])
def test_a_sample_with_all_that_belongs_to_its_rows_keeps_to_its_share(columns, tmp_path):
    """Of few columns, the hashes, numbers and classes take as much memory as the features."""
    rng = np.random.default_rng(2)
    rows = 4_800_000 // columns
    X, y = rng.normal(size=(rows, columns)).astype(np.float32), rng.integers(0, 2, rows)
    memory = X.nbytes // 3
    found = gather(scan(parquet(tmp_path / "x.parquet", X, y), target="y", memory=memory), 7)
    assert found.stream is not None
    sample = found.stream.sample
    sampled = sum(part.rows for part in sample.parts)
    taken = sum(part.dense.nbytes for part in sample.parts if part.dense is not None)
    taken += sum(array.nbytes for array in [*sample.hashes, *sample.numbers]) + 8 * sampled  # and int64 classes
    assert 0.15 * memory < taken <= 0.4 * memory


def test_the_sample_is_a_hash_of_the_row_however_often_it_had_to_shrink(tmp_path):
    X, y = numbers()
    found = gather(scan(parquet(tmp_path / "x.parquet", X, y), target="y", memory="1MiB"), 7)
    sample = found.stream.sample
    member = np.flatnonzero(row_uniforms(7, 0, 0, len(y)) < sample.fraction)
    rows = np.concatenate(sample.numbers)
    np.testing.assert_array_equal(rows, member)
    np.testing.assert_array_equal(np.concatenate([part.dense.numpy() for part in sample.parts]), X[member])
    assert sum(part.nbytes for part in sample.parts) <= 0.4 * (1 << 20)
    np.testing.assert_allclose(found.stream.moments.mean[0], X.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(found.stream.moments.deviation[0], X.std(0, dtype=np.float64), rtol=1e-10)


def bytes_read():
    with open("/proc/self/io") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("rchar"))


def test_at_most_six_reads_of_a_file(tmp_path):
    X, y = numbers(100_000, 20, ordered=True)
    path = parquet(tmp_path / "x.parquet", X, y)
    table = scan(path, target="y", memory="4MB")
    before = bytes_read()
    clf = LogisticRegression().fit(table)
    reads = (bytes_read() - before) / path.stat().st_size
    assert clf.converged_
    assert clf.plan_.warm_rows > 0
    assert reads <= 5.2  # the footer, and the labels' column by itself


def test_text_is_parsed_three_times_however_many_passes_a_fit_takes(tmp_path):
    frame = mixed().drop(columns=["y", "w", "o"])
    path = tmp_path / "x.csv"
    frame.to_csv(path, index=False)

    def reads(cache):
        table = scan(path, target="two", memory="1MiB", cache=cache)
        opened = 0
        file = table._files[0]
        parsed = file._parsed

        def counted(*arguments):
            nonlocal opened
            opened += 1
            return parsed(*arguments)

        file._parsed = counted
        model = make_pipeline(TableEncoder(), LogisticRegression(tol=1e-10)).fit(table)
        return opened, coefficients(model)

    cached, a = reads("1GB")
    uncached, b = reads(0)
    too_small, c = reads(100_000)
    assert cached == 3  # labels, what the encoder learns, numbers
    assert uncached > cached + 3
    assert too_small == uncached
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, c)


def test_no_thread_outlives_a_fit_that_ends_in_any_way(tmp_path):
    X, y = numbers()
    table = scan(parquet(tmp_path / "x.parquet", X, y), target="y", memory=TINY)
    for _ in LogisticRegression().steps(table):
        break
    LogisticRegression(max_iter=5).fit(table)
    assert [t.name for t in threading.enumerate() if t.name == "torchlogit-reader"] == []


def test_the_same_bits_every_time(tmp_path):
    X, y = numbers()
    path = parquet(tmp_path / "x.parquet", X, y)
    a, b = (LogisticRegression().fit(scan(path, target="y", memory=TINY)) for _ in range(2))
    np.testing.assert_array_equal(a.coef_, b.coef_)


def test_a_column_far_from_where_it_began(tmp_path):
    """The first rows lie a million deviations away from the others: the moments take another read."""
    rng = np.random.default_rng(0)
    x = 1e6 + rng.normal(size=40_000)
    x[:2] = -1e15
    y = (rng.random(40_000) < 0.5).astype(int)
    pq.write_table(pa.table({"x": x, "z": rng.normal(size=40_000), "y": y}), tmp_path / "x.parquet")
    found = gather(scan(tmp_path / "x.parquet", target="y", memory="1MiB"), 0)
    assert found.stream is not None
    lazy = LogisticRegression(tol=1e-8).fit(scan(tmp_path / "x.parquet", target="y", memory="1MiB"))
    whole = LogisticRegression(tol=1e-8).fit(scan(tmp_path / "x.parquet", target="y"))
    np.testing.assert_allclose(lazy.objective_, whole.objective_, rtol=1e-8)
