"""Portions of tables: together all rows, each once, with the numbers that they have in the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from numpy.typing import NDArray

from torchlogit import TableEncoder, scan
from torchlogit.rows import LazyRows
from torchlogit.table import Table

ROWS = 230


def _tables(folder: Path) -> dict[str, Table]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "a": rng.normal(size=ROWS),
            "b": rng.integers(0, 9, ROWS).astype(float),
            "weight": rng.integers(0, 3, ROWS).astype(float),
            "label": rng.integers(0, 2, ROWS),
        }
    )
    cuts = [0, 70, 71, ROWS]
    for i in range(3):
        part = frame.iloc[cuts[i] : cuts[i + 1]]
        part.to_parquet(folder / f"{i}.parquet", row_group_size=50)
        part.to_csv(folder / f"{i}.csv", index=False)
        lines = [f"{y} 1:{a} {'2:' + str(b) if b else ''}" for a, b, _, y in part.itertuples(index=False)]
        (folder / f"{i}.libsvm").write_text("\n".join(lines) + "\n")
    roles = {"target": "label", "weight": "weight"}
    return {
        "Parquet": scan(str(folder / "*.parquet"), **roles),
        "CSV": scan(str(folder / "*.csv"), **roles),
        "libsvm": scan(str(folder / "*.libsvm")),
    }


def _rows(rows: LazyRows) -> NDArray[np.float64]:
    """File, number, label, weight and columns of every row."""
    written = []
    for batch in rows.numeric_batches():
        matrix = batch.matrix()
        matrix = matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
        weight = np.ones(batch.rows) if batch.weight is None else batch.weight
        place = np.arange(batch.start, batch.start + batch.rows)
        written.append(np.column_stack([np.full(batch.rows, batch.file), place, batch.target, weight, matrix]))
    return np.concatenate(written) if written else np.empty((0, 0))


@pytest.mark.parametrize("world", [1, 2, 3, 7, 300])
@pytest.mark.parametrize("kind", ["Parquet", "CSV", "libsvm"])
@pytest.mark.parametrize("selected", [False, True])
def test_together_all_rows(kind: str, world: int, selected: bool, tmp_path: Path) -> None:
    table = _tables(tmp_path)[kind]
    if selected:
        table = table.select(np.random.default_rng(1).random(ROWS) < 0.7)
    whole = _rows(table)
    portions = [table.portion(rank, world) for rank in range(world)]
    parts = [_rows(portion) for portion in portions]
    np.testing.assert_array_equal(np.concatenate([part for part in parts if part.size]), whole)
    values = np.arange(len(whole))
    np.testing.assert_array_equal(np.concatenate([portion.own(values) for portion in portions]), values)
    np.testing.assert_array_equal(np.concatenate([portion.labels() for portion in portions]), table.labels())
    uniforms = np.concatenate([portion.uniforms(3) for portion in portions])
    np.testing.assert_array_equal(uniforms, table.uniforms(3))
    for portion, part in zip(portions, parts, strict=True):
        assert portion.n_rows() == len(part)
    last = next(portion for portion in reversed(portions) if portion.n_rows())
    assert last.place(last.n_rows() - 1) == table.place(len(whole) - 1)
    with pytest.raises(IndexError):
        last.place(last.n_rows())


def test_encoded(tmp_path: Path) -> None:
    """What an encoder makes of portions is what it makes of the whole."""
    encoded = TableEncoder(kinds={"b": "category"}).fit_transform(_tables(tmp_path)["Parquet"])
    parts = [_rows(encoded.portion(rank, 3)) for rank in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), _rows(encoded))


def test_row_groups(tmp_path: Path) -> None:
    """A process begins with a row group where one begins near its share, and reads no other's."""
    frame = pd.DataFrame({"a": np.arange(1000.0), "label": np.arange(1000) % 2})
    frame.to_parquet(tmp_path / "table.parquet", row_group_size=260)
    table = scan(tmp_path / "table.parquet", target="label")
    assert table.edges().tolist() == [0, 260, 520, 780]
    first, second = table.portion(0, 2), table.portion(1, 2)
    assert (first.n_rows(), second.n_rows()) == (520, 480)
    groups: list[list[int]] = []
    original = pyarrow.parquet.ParquetFile.iter_batches

    def iter_batches(self, *arguments, row_groups=None, **options):
        groups.append(row_groups)
        return original(self, *arguments, row_groups=row_groups, **options)

    first.labels()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", iter_batches)
        assert _rows(second)[:, 4].tolist() == list(range(520, 1000))
    assert groups == [[2, 3]]
