"""Columns of floating numbers taken together: the bits of each taken by itself."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from torchlogit import TableEncoder, scan
from torchlogit.encode import plain_numbers
from torchlogit.encode.columns import Numeric
from torchlogit.encode.plain_numbers import spread, standardised
from torchlogit.encode.profile import ColumnProfile

ROWS = 1_003  # no multiple of a tile


def _columns(kinds: list[str], rows: int = ROWS) -> list[pa.Array]:
    rng = np.random.default_rng(11)
    scales, centres = 10.0 ** rng.integers(-3, 6, len(kinds)), rng.normal(size=len(kinds)) * 100
    return [
        pa.array((centre + scale * rng.normal(size=rows)).astype(kind))
        for kind, scale, centre in zip(kinds, scales, centres, strict=True)
    ]


def _numeric(column: pa.Array) -> Numeric:
    values = column.to_numpy().astype(float)
    return Numeric("column", mean=float(values.mean()), scale=float(values.std()), marked=False)


@pytest.mark.parametrize("width", [1, 4, 7])
@pytest.mark.parametrize("kinds", [["f4"], ["f8"], ["f4", "f8"]], ids="-".join)
@pytest.mark.parametrize("sieved", [False, True])
def test_standardised_together_as_one_by_one(
    width: int, kinds: list[str], sieved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = _columns([kinds[j % len(kinds)] for j in range(width)])
    columns = [column.slice(3) for column in columns]  # no column begins where its memory does
    encodings = [_numeric(column) for column in columns]
    sieve = np.random.default_rng(2).random(ROWS - 3) < 0.8 if sieved else None
    wanted = [
        encoding.encode(column if sieve is None else column.filter(pa.array(sieve))).dense
        for encoding, column in zip(encodings, columns, strict=True)
    ]
    for before in (0, 10**12):  # NumPy, unless Numba is there already; compiled loops
        found = standardised(encodings, columns, sieve, before)
        assert found is not None
        assert np.array_equal(found, np.hstack([part for part in wanted if part is not None]))
    monkeypatch.setattr(plain_numbers, "_compiled", plain_numbers_in_pieces)
    found = standardised(encodings, columns, sieve, 10**12)
    assert found is not None
    assert np.array_equal(found, np.hstack([part for part in wanted if part is not None]))


def plain_numbers_in_pieces(values: object, rows: object, *others: object) -> bool:
    """NumPy where compiled loops would be taken."""
    assert isinstance(values, list)
    return plain_numbers._in_pieces([own[rows] for own in values], *others)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("before", [0, 10**12])
def test_a_value_that_is_no_number_is_left_to_its_column(value: float, before: int) -> None:
    columns = _columns(["f8"] * 5)
    encodings = [_numeric(column) for column in columns]
    damaged = columns[3].to_numpy().copy()
    damaged[700] = value
    columns[3] = pa.array(damaged)
    assert standardised(encodings, columns, None, before) is None
    sieve = np.ones(ROWS, dtype=bool)
    sieve[700] = False  # a row of others may hold anything
    assert standardised(encodings, columns, sieve, before) is not None


def test_spread_together_as_one_by_one() -> None:
    kinds = ["f4", "f8", "f8", "f4", "f8", "f8"]
    blocks = [_columns(kinds, rows) for rows in (500, 1_001, 64)]
    blocks[1][2] = pa.array(np.round(blocks[1][2].to_numpy()))  # a block of whole numbers among others
    hole = blocks[2][4].to_numpy().copy()
    hole[5] = np.nan
    blocks[2][4] = pa.array(hole)
    blocks[2][5] = pa.array([None, *hole[6:], 1.0, 2.0, 3.0, 4.0, 5.0])
    alone = [ColumnProfile(str(j), pa.type_for_alias({"f4": "float", "f8": "double"}[k])) for j, k in enumerate(kinds)]
    together = [ColumnProfile(profile.name, profile.kind) for profile in alone]
    left = []
    for block in blocks:
        for profile, column in zip(alone, block, strict=True):
            profile.add(column)
        left.append(spread(together, block))
        for j in left[-1]:
            together[j].add(block[j])
    assert left == [[0, 1, 2, 3, 4, 5], [], [4, 5]]
    for one, other in zip(alone, together, strict=True):
        assert astuple(one.spread) == astuple(other.spread)
        assert (one.rows, one.missing, one.number.good, one.number.bad) == (
            other.rows, other.missing, other.number.good, other.number.bad
        )  # fmt: skip
        assert (one.integers, one.running) == (other.integers, other.running)


def test_held_out_rows_leave_no_trace(tmp_path: object) -> None:
    path = f"{tmp_path}/numbers.parquet"
    columns = _columns(["f4"] * 6, 30_000)
    table = pa.table({**{f"x{j}": column for j, column in enumerate(columns)}, "y": pa.array(np.arange(30_000) % 2)})
    pyarrow.parquet.write_table(table, path)
    rows = scan(path, target="y")
    mask = np.random.default_rng(5).random(30_000) < 0.8
    encoder = TableEncoder().fit(rows.select(mask))
    lazily = np.concatenate([batch.dense for batch in encoder.transform(rows.select(mask)).numeric_batches()])
    assert np.array_equal(lazily, encoder.transform(table.drop_columns("y").filter(pa.array(mask))))
