"""Files that do not fit into memory, and what can happen to them; threads, disk and descriptors afterwards."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import threading
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.pipeline import make_pipeline

from edge.command_line import run
from torchlogit import LogisticRegression, TableEncoder, scan
from torchlogit.available import available_memory, parsed_size
from torchlogit.errors import InputError
from torchlogit.gathering import gather
from torchlogit.progress import told_read
from torchlogit.sources import block_cache
from torchlogit.sources.ahead import ahead
from torchlogit.sources.streaming import Pass

TINY = "1MiB"


def refusal(function, *arguments, **options):
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    return str(caught.value)


@pytest.fixture
def path(tmp_path):
    """A Parquet file of 20,000 rows that do not fit into a megabyte."""
    return write(tmp_path / "x.parquet")


def write(path, rows=20_000, columns=10, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, columns))
    y = (X[:, 0] + rng.logistic(size=rows) > 0).astype(int)
    table = pa.table({**{f"x{j}": X[:, j] for j in range(columns)}, "y": y})
    pq.write_table(table, path, row_group_size=rows // 5, compression="none")
    return path


class TestReadingAhead:
    def test_items_in_order(self):
        assert list(ahead(lambda: iter(range(1000)), 3)) == list(range(1000))

    def test_an_error_comes_in_its_turn(self):
        def items():
            yield 1
            yield 2
            raise KeyError("three")

        seen = []
        with pytest.raises(KeyError, match="three"):
            seen.extend(iter_into(seen, ahead(items)))
        assert seen == [1, 2]

    def test_an_error_before_the_first_item(self):
        def items():
            raise KeyError("none")

        with pytest.raises(KeyError, match="none"):
            next(ahead(items))

    @pytest.mark.parametrize("taken", [1, 2, 50])
    def test_whoever_stops_early_leaves_nothing_behind(self, taken):
        closed = []

        def items():
            try:
                yield from itertools.count()
            finally:
                closed.append(threading.current_thread().name)

        reader = ahead(items)
        assert list(itertools.islice(reader, taken)) == list(range(taken))
        reader.close()
        assert closed == ["torchlogit-reader"]
        assert not readers()

    def test_only_so_many_wait(self):
        made = []

        def items():
            for i in range(100):
                made.append(i)
                yield i

        reader = ahead(items, 3)
        next(reader)
        while len(made) < 5:  # one taken, three waiting, one in the thread's hand
            time.sleep(0.001)
        time.sleep(0.05)
        assert len(made) == 5
        reader.close()


def iter_into(seen, items):
    for item in items:
        seen.append(item)
    return []


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "torchlogit-reader"]


class TestFilesThatChange:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda path: write(path, seed=1), "x.parquet changed between two reads"),
            (lambda path: os.utime(path, (1, 1)), "x.parquet changed between two reads"),
            (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "x.parquet changed between two reads"),
            (lambda path: path.unlink(), "there is no file x.parquet"),
        ],
    )
    def test_in_the_middle_of_a_fit(self, path, change, said):
        table = scan(path, target="y", memory=TINY)

        def fit():
            for step in LogisticRegression(tol=1e-10).steps(table):
                if step.number == 0:
                    change(path)

        assert said in refusal(fit)
        assert not readers()

    def test_a_sparse_file(self, tmp_path):
        path = tmp_path / "x.libsvm"
        path.write_text("1 1:2\n0 2:1\n" * 100)
        table = scan(path)
        table.labels()
        path.write_text("1 1:3\n0 2:1\n" * 100)
        assert "x.libsvm changed between two reads" in refusal(lambda: list(table.numeric_batches()))


class TestDamagedFiles:
    @pytest.mark.parametrize("memory", ["1MiB", "1GB"])
    def test_a_damaged_row_group(self, path, memory):
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 40_000] = b"\xff" * 40_000
        path.write_bytes(data)
        outcome = run("fit", path, "--target", "y", "--memory", memory, "-o", path.parent / "m.safetensors")
        assert outcome.code == 2
        assert "x.parquet" in outcome.sentence
        assert os.listdir(path.parent) == ["x.parquet"]

    def test_a_file_without_its_end(self, path):
        path.write_bytes(path.read_bytes()[:-5000])
        outcome = run("fit", path, "--target", "y", "-o", path.parent / "m.safetensors")
        assert outcome.code == 2
        assert "x.parquet is not a complete Parquet file" in outcome.sentence

    def test_files_of_different_encodings(self, tmp_path):
        (tmp_path / "a.csv").write_text("name,y\nZoë,1\nMax,0\n" * 1)
        (tmp_path / "b.csv").write_bytes("name,y\nZoë,1\nMax,0\n".encode("latin-1"))
        outcome = run("fit", tmp_path / "a.csv", tmp_path / "b.csv", "--target", "y", "-o", tmp_path / "m")
        assert outcome.code == 2
        assert "b.csv" in outcome.sentence
        assert "UTF-8" in outcome.sentence

    def test_an_empty_file_among_others_is_mentioned(self, tmp_path, path):
        pq.write_table(pq.read_table(path).slice(0, 0), tmp_path / "none.parquet")
        outcome = run("fit", path, tmp_path / "none.parquet", "--target", "y", "-o", tmp_path / "m.safetensors")
        assert outcome.code == 0
        assert "none.parquet has no rows" in outcome.out


class TestTheCache:
    @pytest.fixture
    def text(self, tmp_path):
        rng = np.random.default_rng(0)
        frame = pd.DataFrame(rng.normal(size=(15_000, 8)).round(6), columns=list("abcdefgh"))
        frame["y"] = np.where(frame["a"] + rng.logistic(size=len(frame)) > 0, "yes", "no")
        frame.to_csv(tmp_path / "x.csv", index=False)
        return tmp_path / "x.csv"

    def test_nothing_of_it_is_left(self, text, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        gc.collect()
        before = os.listdir("/proc/self/fd")
        LogisticRegression().fit(scan(text, target="y", memory=TINY))
        gc.collect()
        assert os.listdir(tmp_path) == ["x.csv"]
        assert len(os.listdir("/proc/self/fd")) == len(before)

    def test_a_full_disk_is_one_sentence(self, text, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(block_cache.os, "pwrite", full)
        outcome = run("fit", text, "--target", "y", "--memory", TINY, "-o", text.parent / "m.safetensors")
        assert outcome.code == 2
        assert "no space is left" in outcome.sentence
        assert "--cache 0" in outcome.sentence
        assert os.listdir(text.parent) == ["x.csv"]

    def test_a_folder_that_is_not_there(self, text, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(text.parent / "nowhere"))
        table = scan(text, target="y", memory=TINY)
        assert "TMPDIR" in refusal(LogisticRegression().fit, table)

    def test_it_is_bounded(self, text):
        found = gather(scan(text, target="y", memory=TINY, cache=10_000), 0)
        assert "BlockCache" not in repr(found.stream.read)
        found = gather(scan(text, target="y", memory=TINY), 0)
        assert "BlockCache" in repr(found.stream.read)


class TestFoldersAndArrays:
    def test_a_folder_is_its_files(self, tmp_path):
        (tmp_path / "year=1").mkdir()
        (tmp_path / "_temporary").mkdir()
        rows = [(tmp_path / "year=1" / "a.csv", 1), (tmp_path / "b.csv", 2), (tmp_path / "_temporary" / "c.csv", 9)]
        for path, value in rows:
            path.write_text(f"x,y\n{value},0\n")
        (tmp_path / "_SUCCESS").touch()
        (tmp_path / "notes.md").write_text("# notes")
        values = [batch.columns["x"].to_pylist() for batch in scan(tmp_path).table_batches()]
        assert values == [["2"], ["1"]]

    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "?"])
    def test_an_array(self, tmp_path, order, dtype):
        X = np.asarray(np.random.default_rng(0).normal(size=(700, 5)) * 3, dtype=dtype, order=order)
        np.save(tmp_path / "x.npy", X)
        batches = list(scan(tmp_path / "x.npy").numeric_batches())
        assert len(batches) > 0
        np.testing.assert_array_equal(np.concatenate([batch.dense for batch in batches]), X.astype(np.float64))

    def test_an_array_is_fitted_by_the_number_of_its_target(self, tmp_path):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(20_000, 10)).astype(np.float32)
        X[:, 3] = X[:, 0] + rng.logistic(size=len(X)) > 0
        np.save(tmp_path / "x.npy", X)
        others = np.delete(X, 3, 1).astype(np.float64)
        lazy = LogisticRegression(tol=1e-10).fit(scan(tmp_path / "x.npy", target="column_3", memory="1.1MB"))
        whole = LogisticRegression(tol=1e-10).fit(others, X[:, 3].astype(int))
        assert "column_3" not in lazy.feature_names_in_
        np.testing.assert_allclose(lazy.coef_, whole.coef_, rtol=0, atol=1e-8)

    @pytest.mark.parametrize(
        ("array", "said"),
        [
            (np.zeros(3), "1 dimensions"),
            (np.zeros((3, 2), "U4"), "U4"),
            (np.zeros((3, 2), complex), "complex128"),
            (np.array([[1, None]], dtype=object), "objects"),
            (np.zeros((0, 2)), "no rows"),
            (np.zeros((2, 0)), "no columns"),
        ],
    )
    def test_arrays_that_are_no_tables(self, tmp_path, array, said):
        np.save(tmp_path / "x.npy", array, allow_pickle=True)
        assert said in refusal(scan, tmp_path / "x.npy")

    def test_an_array_that_is_cut_short(self, tmp_path):
        np.save(tmp_path / "x.npy", np.zeros((100, 3)))
        (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-8])
        assert "cut short" in refusal(scan, tmp_path / "x.npy")


class TestOptions:
    def test_sizes(self):
        assert parsed_size("1KiB") == 1024
        assert parsed_size("2.5 gb") == 2_500_000_000
        assert parsed_size(".5M") == 500_000
        assert parsed_size("12") == 12
        assert [parsed_size(text) for text in ("", "GB", "-1GB", "1PB", "1iB", "1 G B", "inf")] == [None] * 7
        assert 1 << 20 < available_memory() < 1 << 50

    @pytest.mark.parametrize("given", ["lots", "-1", "100", 100, "0"])
    def test_memory_that_is_none(self, path, given):
        assert "memory is a size such as '2GB'" in refusal(scan, path, memory=given)
        if isinstance(given, str):
            outcome = run("fit", path, "--target", "y", f"--memory={given}")
            assert outcome.code == 2
            assert "is not a size of memory" in outcome.sentence

    def test_the_command_line_streams(self, path):
        command = ("fit", path, "--target", "y", "--test-size", "0", "--tol", "1e-10", "--json")
        streamed = run(*command, "--memory", TINY, "-o", path.parent / "a.safetensors")
        whole = run(*command, "-o", path.parent / "b.safetensors")
        a, b = streamed.json, whole.json
        assert a["skipped_rows"] == 0
        assert a["converged"]
        assert a["objective"] == pytest.approx(b["objective"], rel=1e-12)
        assert a["solver"] == "lbfgs"

    def test_a_read_that_is_under_way(self):
        text = told_read(Pass(3, 500_000, 2_000_000, 4e8, 2.0))
        assert text == "pass 3  25 % of 2,000,000 rows  250 k rows/s  200 MB/s  6 s left"

    def test_whoever_watches_hears_of_every_block(self, path):
        model = LogisticRegression()
        heard = []
        model._reads = heard.append
        model.fit(scan(path, target="y", memory=TINY))
        assert {read.total for read in heard} == {20_000}
        assert [read.number for read in heard] == sorted(read.number for read in heard)
        assert heard[-1].rows == 20_000

    def test_other_devices_are_refused(self, path):
        with pytest.raises(ValueError, match="fitted on the CPU"):
            LogisticRegression(device="meta").fit(scan(path, target="y", memory=TINY))


def test_scores_and_predictions_of_a_model_that_was_streamed(path):
    table = scan(path, target="y", memory=TINY)
    model = make_pipeline(TableEncoder(), LogisticRegression()).fit(table)
    frame = pd.read_parquet(path)
    assert model.score(table) == model.score(frame.drop(columns="y"), frame["y"])


def test_a_folder_of_many_files_has_one_thread_that_decodes(tmp_path, monkeypatch):
    """A thread for each file would take longer than small files do."""
    started = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: (started.append(thread.name), start(thread))[1])
    for i in range(40):
        columns = {"x": pa.array(np.arange(5.0) + i), "y": pa.array(np.arange(5) % 2)}
        pq.write_table(pa.table(columns), tmp_path / f"{i:02d}.parquet")
    table = scan(str(tmp_path), target="y")
    table.labels()
    started.clear()
    batches = list(table.table_batches())
    assert [batch.file for batch in batches] == list(range(40))
    assert sum(batch.rows for batch in batches) == 200
    assert started.count("torchlogit-reader") == 1
