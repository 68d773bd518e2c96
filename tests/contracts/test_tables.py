"""What every format of files promises, whatever the size of its blocks.

To add a format: a function that writes a frame to a path, and one line in ``FORMATS``.
"""

from __future__ import annotations

import gzip
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
import scipy.sparse
from sklearn.datasets import dump_svmlight_file

from torchlogit import scan
from torchlogit.file_table import Roles
from torchlogit.scanning import open_table
from torchlogit.sources.files import Bytes
from torchlogit.sources.text import TextOptions

ROWS = (700, 1, 453)
FEATURES = ["a", "b", "c"]


def _csv(frame, path, separator=","):
    text = frame.to_csv(index=False, sep=separator)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def _quoted(frame, path):
    frame.assign(note='two\nlines, and a ""quote""').to_csv(path, index=False, quoting=1)


def _parquet(frame, path):
    pyarrow.parquet.write_table(pa.Table.from_pandas(frame), path, row_group_size=200)


def _feather(frame, path):
    pyarrow.feather.write_feather(pa.Table.from_pandas(frame), path, chunksize=300)


def _stream(frame, path):
    table = pa.Table.from_pandas(frame)
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=300)


def _libsvm(frame, path):
    matrix = scipy.sparse.csr_array(np.nan_to_num(frame[FEATURES].to_numpy()))
    plain = path.with_suffix(".raw")
    dump_svmlight_file(matrix, (frame["y"] == "yes").astype(int), str(plain), zero_based=False)
    content = plain.read_bytes()
    plain.unlink()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@dataclass(frozen=True)
class Format:
    name: str
    suffix: str
    write: object
    drop: tuple[str, ...] = ()


FORMATS = [
    Format("csv", ".csv", _csv),
    Format("csv.gz", ".csv.gz", _csv),
    Format("tsv", ".tsv", lambda frame, path: _csv(frame, path, "\t")),
    Format("semicolons", ".txt", lambda frame, path: _csv(frame, path, ";")),
    Format("quoted", ".csv", _quoted, ("note",)),
    Format("parquet", ".parquet", _parquet),
    Format("feather", ".feather", _feather),
    Format("stream", ".arrow", _stream),
    Format("libsvm", ".libsvm", _libsvm),
    Format("libsvm.gz", ".svm.gz", _libsvm),
]
BLOCKS = [256, 5000, 1 << 20]


@dataclass
class Case:
    format: Format
    paths: list[Path]
    frames: list[pd.DataFrame]

    @property
    def sparse(self):
        return "svm" in self.format.suffix

    def table(self, block_bytes=1 << 20):
        if self.sparse:
            roles = Roles()
        else:
            roles = Roles("y", "w", "o", self.format.drop)
        return open_table(self.paths, roles, TextOptions(block_bytes=block_bytes))

    @property
    def matrix(self):
        values = pd.concat(self.frames)[FEATURES].to_numpy()
        return np.nan_to_num(values) if self.sparse else values

    @property
    def labels(self):
        y = pd.concat(self.frames)["y"].to_numpy(dtype=object)
        return (y == "yes").astype(np.int64) if self.sparse else y


@pytest.fixture(params=FORMATS, ids=lambda format: format.name)
def case(request, tmp_path):
    rng = np.random.default_rng(5)
    frames, paths = [], []
    for number, rows in enumerate(ROWS):
        frame = pd.DataFrame(rng.normal(size=(rows, 3)).round(6), columns=FEATURES)
        frame.loc[rng.random(rows) < 0.1, "b"] = np.nan
        frame["c"] = (frame["c"] + 1).round(6)
        frame["w"] = rng.integers(0, 4, rows)
        frame["o"] = rng.normal(size=rows)
        frame["y"] = rng.choice(["yes", "no"], rows)
        path = tmp_path / f"part{number}{request.param.suffix}"
        request.param.write(frame, path)
        frames.append(frame)
        paths.append(path)
    return Case(request.param, paths, frames)


def _dense(batches):
    return np.concatenate([batch.sparse.toarray() if batch.sparse is not None else batch.dense for batch in batches])


@pytest.mark.parametrize("block_bytes", BLOCKS)
def test_same_rows_in_the_same_order_whatever_the_blocks(case, block_bytes):
    batches = list(case.table(block_bytes).numeric_batches())
    np.testing.assert_array_equal(_dense(batches), case.matrix)
    np.testing.assert_array_equal(np.concatenate([batch.target for batch in batches]), case.labels)
    if block_bytes == BLOCKS[0]:
        assert len(batches) > len(ROWS)
    if not case.sparse:
        whole = pd.concat(case.frames)
        np.testing.assert_array_equal(np.concatenate([batch.weight for batch in batches]), whole["w"])
        np.testing.assert_array_equal(np.concatenate([batch.offset for batch in batches]), whole["o"])
        assert batches[0].weight.dtype == batches[0].offset.dtype == np.float64


@pytest.mark.parametrize("block_bytes", BLOCKS)
def test_every_read_gives_the_same_blocks(case, block_bytes):
    table = case.table(block_bytes)
    first, second = list(table.numeric_batches()), list(table.numeric_batches())
    assert [(batch.file, batch.start, batch.rows) for batch in first] == [
        (batch.file, batch.start, batch.rows) for batch in second
    ]
    assert _dense(first).tobytes() == _dense(second).tobytes()


@pytest.mark.parametrize("block_bytes", BLOCKS)
def test_blocks_say_where_they_come_from(case, block_bytes):
    expected = dict.fromkeys(range(len(ROWS)), 0)
    for batch in case.table(block_bytes).numeric_batches():
        assert batch.rows > 0
        assert batch.start == expected[batch.file]
        expected[batch.file] += batch.rows
    assert tuple(expected.values()) == ROWS


def test_blocks_are_ready_for_arithmetic(case):
    for batch in case.table(5000).numeric_batches():
        if case.sparse:
            assert isinstance(batch.sparse, scipy.sparse.csr_array)
            assert batch.sparse.dtype == np.float64
            assert batch.sparse.shape == (batch.rows, 3)
            assert batch.sparse.has_canonical_format
        else:
            assert batch.dense.dtype == np.float64
            assert batch.dense.flags.c_contiguous
            assert batch.dense.shape == (batch.rows, 3)


def test_columns_have_names_and_roles(case):
    table = case.table()
    names = [f"feature_{i}" for i in (1, 2, 3)] if case.sparse else FEATURES
    assert table.columns == table.feature_names == names
    assert table.target == ("label" if case.sparse else "y")
    assert (table.has_weight, table.has_offset) == (not case.sparse, not case.sparse)
    assert table.is_sparse == case.sparse
    assert "scan(3 " in repr(table)


def test_table_batches_hold_the_feature_columns(case):
    if case.sparse:
        pytest.skip("sparse rows have no Arrow columns")
    table = case.table(5000)
    for batch, numeric in zip(table.table_batches(), table.numeric_batches(), strict=True):
        assert batch.columns.schema.names == FEATURES
        assert batch.rows == numeric.rows
        assert batch.columns.column("b").null_count == int(np.isnan(numeric.dense[:, 1]).sum())
        np.testing.assert_array_equal(batch.target, numeric.target)


@pytest.mark.parametrize("block_bytes", BLOCKS)
def test_labels_are_the_targets(case, block_bytes):
    table = case.table(block_bytes)
    labels = table.labels()
    np.testing.assert_array_equal(labels, case.labels)
    assert labels.dtype == case.labels.dtype
    assert all(batch.target.dtype == labels.dtype for batch in table.numeric_batches())
    assert table.n_rows() == sum(ROWS)


@pytest.mark.parametrize("block_bytes", BLOCKS)
def test_select_gives_the_rows_of_the_mask(case, block_bytes):
    table = case.table(block_bytes)
    mask = np.random.default_rng(1).random(sum(ROWS)) < 0.3
    mask[300:600] = False
    view = table.select(mask)
    batches = list(view.numeric_batches())
    np.testing.assert_array_equal(_dense(batches), case.matrix[mask])
    np.testing.assert_array_equal(np.concatenate([batch.target for batch in batches]), case.labels[mask])
    np.testing.assert_array_equal(view.labels(), case.labels[mask])
    assert view.n_rows() == mask.sum()
    counted = {}
    for batch in batches:
        assert batch.start == counted.get(batch.file, 0)
        counted[batch.file] = batch.start + batch.rows
    chosen = np.flatnonzero(mask)
    for row in (0, chosen.size // 2, chosen.size - 1):
        assert view.place(row) == table.place(int(chosen[row]))
    again = np.arange(chosen.size) % 3 == 1
    np.testing.assert_array_equal(_dense(view.select(again).numeric_batches()), case.matrix[chosen[again]])
    if not case.sparse:
        assert sum(batch.rows for batch in view.table_batches()) == mask.sum()


def test_a_mask_of_the_wrong_length_is_refused(case):
    with pytest.raises(ValueError, match=r"the mask has 3 entries, but the table has 1,154 rows"):
        case.table().select(np.ones(3, dtype=bool))


def test_place_names_file_and_row(case):
    table = case.table(5000)
    name = case.paths[2].name
    text = table.place(ROWS[0] + ROWS[1] + 4)
    assert text.startswith(f"{name}, row 5")
    if case.format.name == "quoted":
        assert text.endswith("(line 10)")  # each row has two lines, after a header of one
    elif case.sparse:
        assert text.endswith("(line 5)")
    elif case.format.suffix not in (".parquet", ".feather", ".arrow"):
        assert text.endswith("(line 6)")
    with pytest.raises(IndexError):
        table.place(sum(ROWS))


def test_the_listener_hears_each_read_to_its_end(case):
    table, heard = case.table(5000), []
    table.listener = heard.append
    for _ in table.numeric_batches():
        pass
    for _ in table.select(np.ones(sum(ROWS), dtype=bool)).numeric_batches():
        pass
    assert all(0 <= share <= 1 for share in heard)
    falls = [i for i in range(1, len(heard)) if heard[i] < heard[i - 1]]
    reads = [heard[start:stop] for start, stop in zip([0, *falls], [*falls, len(heard)], strict=True)]
    assert len(reads) >= 2
    assert all(read[-1] == 1.0 and read[0] < 0.9 for read in reads)


def test_the_share_of_a_file_never_falls_beside_a_reading_thread(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 400_000)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(500):
            with Bytes(path, "a") as stream:
                reader = threading.Thread(target=lambda: all(iter(lambda: stream.read(5000), b"")))
                reader.start()
                shares = [stream.share()]
                while reader.is_alive():
                    shares.append(stream.share())
                assert shares == sorted(shares)
                assert stream.share() == 1.0
    finally:
        sys.setswitchinterval(interval)


def test_a_read_may_be_left_unfinished(case):
    table = case.table(256)
    for _ in range(20):
        next(table.numeric_batches())
    np.testing.assert_array_equal(_dense(table.numeric_batches()), case.matrix)


def test_one_file_a_list_and_a_pattern_are_the_same(case):
    kinds = {} if case.sparse else {"target": "y", "drop": case.format.drop}
    pattern = scan(str(case.paths[0].parent / f"part*{case.format.suffix}"), **kinds)
    listed = scan([str(path) for path in case.paths], **kinds)
    np.testing.assert_array_equal(pattern.labels(), listed.labels())
    np.testing.assert_array_equal(scan(case.paths[0], **kinds).labels(), case.labels[: ROWS[0]])
