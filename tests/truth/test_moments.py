"""Means and deviations of columns against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from contracts.problems import coded_columns, sparse_rows
from torchlogit import moments as moments_module
from torchlogit.moments import column_moments, find_non_finite
from torchlogit.problem import Block
from torchlogit.sources import MemorySource


def exact(column, weight):
    """Weighted mean and deviation; the square root alone is rounded."""
    x, w = [Fraction(float(v)) for v in column], [Fraction(float(v)) for v in weight]
    total = sum(w)
    mean = sum(a * b for a, b in zip(w, x, strict=True)) / total
    variance = sum(a * (b - mean) ** 2 for a, b in zip(w, x, strict=True)) / total
    shift = 2**400
    return float(mean), float(Fraction(int(variance * shift**2)) / shift**2) ** 0.5


def moments_of(dense=None, sparse=None, codes=None, weight=None, lanes=1):
    rows = len(dense) if dense is not None else (sparse.rows if sparse is not None else codes.rows)
    block = Block(
        torch.zeros(rows, dtype=torch.int64),
        None if dense is None else torch.from_numpy(dense),
        sparse,
        codes,
        None if weight is None else torch.from_numpy(weight),
    )
    return column_moments(MemorySource(block), lanes)


RNG = np.random.default_rng(1)
COLUMNS = {
    "plain": RNG.normal(size=60),
    "year": RNG.integers(1950, 2025, 60).astype(float),
    "timestamp": 1.7e9 + RNG.uniform(0, 1e4, 60),
    "identifier": 9.1e14 + np.arange(60.0),
    "far outlier": np.append(RNG.normal(size=59), 1e9),
    "first row far away": np.append(1e12, RNG.normal(size=59)),
    "two values": np.repeat([3.0, 5.0], 30),
    "mostly zero": np.append(np.zeros(58), [1.0, 2.0]),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_against_rational_arithmetic(name, weighted, layout):
    column = COLUMNS[name]
    weight = np.random.default_rng(2).choice([0.0, 0.5, 3.0], 60) if weighted else np.ones(60)
    given = weight if weighted else None
    if layout == "dense":
        moments = moments_of(dense=column[:, None], weight=given)
    else:
        moments = moments_of(sparse=sparse_rows(column[:, None]), weight=given)
    mean, deviation = exact(column, weight)
    assert float(moments.mean[0, 0]) == pytest.approx(mean, rel=1e-13, abs=1e-13 * deviation)
    # A spread is known to the rounding of the values that it comes from.
    rounding = 1e-15 * np.abs(column).max() / deviation if deviation else 0
    assert float(moments.deviation[0, 0]) == pytest.approx(deviation, rel=1e-12 + rounding)
    assert float(moments.largest[0]) >= np.abs(column[weight > 0]).max() * (1 - 1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_pieces_of_a_block_are_added_up(monkeypatch, dtype, weighted):
    """Rows of more numbers than are centred together, the last piece a shorter one."""
    rng = np.random.default_rng(3)
    dense = (rng.normal(size=(701, 300)) * 10.0 ** rng.integers(-3, 4, 300) + 5).astype(dtype)
    dense[[3, 690], 7] = 1e6, -3e6
    weight = rng.choice([0.5, 1.0, 3.0], (701, 2)) if weighted else None
    lanes = 2 if weighted else 1
    found = moments_of(dense=dense, weight=weight, lanes=lanes)
    monkeypatch.setattr(moments_module, "_PIECE_ELEMENTS", 2**40)
    whole = moments_of(dense=dense, weight=weight, lanes=lanes)
    assert float(((found.mean - whole.mean) / whole.deviation).abs().max()) <= 1e-13
    torch.testing.assert_close(found.deviation, whole.deviation, rtol=1e-13, atol=0)
    assert torch.equal(found.largest, whole.largest)
    for lane in range(lanes):
        of_rows = np.ones(701) if weight is None else weight[:, lane]
        for column in (0, 7, 299):
            mean, deviation = exact(dense[:, column], of_rows)
            assert float(found.mean[lane, column]) == pytest.approx(mean, rel=0, abs=1e-13 * deviation)
            assert float(found.deviation[lane, column]) == pytest.approx(deviation, rel=1e-13)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e-300, 1e200, 1.7e9 + 0.123])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_a_constant_has_no_spread_at_all(value, layout):
    weight = np.random.default_rng(3).random(1000)
    column = np.full((1000, 1), value)
    arguments = {"dense": column} if layout == "dense" else {"sparse": sparse_rows(column)}
    moments = moments_of(**arguments, weight=weight)
    assert float(moments.deviation[0, 0]) == 0.0
    assert float(moments.mean[0, 0]) == pytest.approx(value, rel=1e-14)
    assert float(moments.scale(True)[0, 0]) == pytest.approx(max(abs(value), 1.0), rel=1e-14)


def test_constant_among_the_rows_that_count():
    column = np.array([5.0, 5.0, 9.0, 5.0])[:, None]
    moments = moments_of(dense=column, weight=np.array([1.0, 2.0, 0.0, 0.3]))
    assert float(moments.deviation[0, 0]) == 0.0


@pytest.mark.parametrize("size", [1e-290, 1e-200, 1e200, 1e300])
def test_values_whose_squares_leave_the_range(size):
    column = np.array([1.0, 2.0, 4.0, -3.0]) * size
    moments = moments_of(dense=column[:, None])
    mean, deviation = exact(column / size, np.ones(4))
    assert float(moments.mean[0, 0]) / size == pytest.approx(mean, rel=1e-12)
    assert float(moments.deviation[0, 0]) / size == pytest.approx(deviation, rel=1e-12)


def test_a_spread_too_small_for_a_coefficient_counts_as_none():
    moments = moments_of(dense=np.array([1.0, 2.0, 4.0])[:, None] * 1e-310)
    assert float(moments.deviation[0, 0]) == 0.0
    assert float(moments.scale(True)[0, 0]) == 1.0


def test_no_spread_around_zero_either():
    moments = moments_of(dense=np.array([1.0, 2.0, 3.0, -1.0])[:, None] * 1e-310)
    assert float(moments.scale(False)[0, 0]) == 1.0


SENTINELS = [1e10, 1e20, -1e160, 1e300]


@pytest.mark.parametrize("sentinel", SENTINELS)
@pytest.mark.parametrize("where", [0, 30, 60])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_a_row_that_does_not_count_is_not_there(sentinel, where, layout):
    column = 1.6e9 + 10 * np.random.default_rng(5).normal(size=60)
    wide = np.insert(column, where, sentinel)[:, None]
    weight = np.insert(np.ones(60), where, 0.0)
    moments = moments_of(**{"dense": wide} if layout == "dense" else {"sparse": sparse_rows(wide)}, weight=weight)
    mean, deviation = exact(column, np.ones(60))
    assert float(moments.mean[0, 0]) == pytest.approx(mean, rel=1e-15)
    assert float(moments.deviation[0, 0]) == pytest.approx(deviation, rel=1e-7)
    assert float(moments.largest[0]) <= 2 * column.max()


def test_a_row_that_does_not_count_need_not_store_a_column():
    column = 1.6e9 + 10 * np.random.default_rng(6).normal(size=60)
    rows = sparse_rows(np.append(column, [0.0, 0.0])[:, None])
    moments = moments_of(sparse=rows, weight=np.append(np.ones(60), [0.0, 0.0]))
    assert bool(moments.stored[0])
    assert float(moments.deviation[0, 0]) == pytest.approx(exact(column, np.ones(60))[1], rel=1e-7)
    assert float(moments.frame(True).shift[0]) == pytest.approx(column.mean())


@pytest.mark.parametrize("share", [2.0**-20, 2.0**-60, 1.0])
def test_a_far_column_that_some_rows_do_not_store(share):
    """The deviation is that of the zeros, however little they weigh, or of the others, where that is larger."""
    column = np.append(1.6e9 + 10 * np.random.default_rng(7).normal(size=60), [0.0])
    weight = np.append(np.ones(60), share)
    moments = moments_of(sparse=sparse_rows(column[:, None]), weight=weight)
    assert not bool(moments.stored[0])
    assert float(moments.mean[0, 0]) == pytest.approx(exact(column, weight)[0], rel=1e-15)
    # Weights of 2^-60 vanish in the sum of all: their part is lost, the part of the others is not.
    expected = exact(column[:60], weight[:60]) if share < 2.0**-50 else exact(column, weight)
    assert float(moments.deviation[0, 0]) == pytest.approx(expected[1], rel=1e-7)


def test_lanes_leave_out_rows_of_their_own():
    column = 1.6e9 + 10 * np.random.default_rng(8).normal(size=60)
    rows = sparse_rows(np.append(column, 0.0)[:, None])
    weight = np.ones((61, 2))
    weight[60, 0] = 0.0
    weight[0] = 0.0
    moments = moments_of(sparse=rows, weight=weight, lanes=2)
    assert not bool(moments.stored[0])
    for lane in range(2):
        expected = exact(np.append(column, 0.0), weight[:, lane])
        assert float(moments.deviation[lane, 0]) == pytest.approx(expected[1], rel=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_a_row_that_does_not_count_must_hold_numbers(value, layout):
    X = np.ones((5, 2))
    X[3, 1] = value
    arguments = {"dense": X} if layout == "dense" else {"sparse": sparse_rows(X)}
    with pytest.raises(FloatingPointError):
        moments_of(**arguments, weight=np.array([1.0, 1.0, 1.0, 0.0, 1.0]))


def test_lanes_have_weights_of_their_own():
    rng = np.random.default_rng(4)
    X, weight = rng.normal(size=(40, 3)), rng.choice([0.0, 1.0, 2.0], (40, 3))
    moments = moments_of(dense=X, weight=weight, lanes=3)
    for lane in range(3):
        alone = moments_of(dense=X, weight=weight[:, lane])
        torch.testing.assert_close(moments.mean[lane], alone.mean[0], rtol=1e-13, atol=1e-15)
        torch.testing.assert_close(moments.deviation[lane], alone.deviation[0], rtol=1e-13, atol=0)
    np.testing.assert_allclose(moments.weight, weight.sum(0))


def test_coded_columns_are_their_ones():
    codes = coded_columns(np.random.default_rng(5), 50)
    written = codes.as_sparse(torch.float64)
    a, b = moments_of(codes=codes), moments_of(sparse=written)
    torch.testing.assert_close(a.mean, b.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(a.deviation, b.deviation, rtol=1e-14, atol=0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_what_is_not_finite_is_found(value, layout):
    X = np.ones((30, 4))
    X[17, 2] = value
    block = (
        Block(torch.zeros(30, dtype=torch.int64), dense=torch.from_numpy(X))
        if layout == "dense"
        else Block(torch.zeros(30, dtype=torch.int64), sparse=sparse_rows(X))
    )
    source = MemorySource(block)
    with pytest.raises(FloatingPointError):
        column_moments(source)
    row, column, found = find_non_finite(source)
    assert (row, column) == (17, 2)
    assert np.array_equal([found], [value], equal_nan=True)


@pytest.mark.parametrize("columns", [1, 3, 20, 255, 256, 300])
@pytest.mark.parametrize("rows", [1, 2, 85, 86, 700])
def test_the_largest_value_of_narrow_rows(rows, columns):
    values = torch.from_numpy(np.random.default_rng(rows + columns).normal(size=(rows, columns)))
    assert torch.equal(moments_module._largest(values), values.abs().amax(0))
    values[rows // 2, columns // 2] = torch.nan
    assert moments_module._largest(values).isnan().nonzero().tolist() == [[columns // 2]]


def test_words_that_few_rows_have_are_read_once(monkeypatch):
    """Equal values of a rare column have no spread of their own; the absent ones are far from them."""
    values = np.where(np.random.default_rng(5).random((400, 30)) < 0.05, 0.3, 0.0)
    reads = []
    sweep = moments_module._sweep
    monkeypatch.setattr(moments_module, "_sweep", lambda *asked: (reads.append(1), sweep(*asked))[1])
    found = column_moments(MemorySource(Block(torch.zeros(400, dtype=torch.int64), sparse=sparse_rows(values))))
    assert len(reads) == 1
    np.testing.assert_allclose(found.mean[0], values.mean(0), rtol=1e-14)
    np.testing.assert_allclose(found.deviation[0], values.std(0), rtol=1e-13)
