"""Every source gives the same rows, in order, in blocks of any size, and draws the same subsamples."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from contracts.sources import SOURCES, make_table
from torchlogit import problem, sampling
from torchlogit.kernels import ReferenceKernel, TorchKernel
from torchlogit.losses import Binomial
from torchlogit.problem import Block, Frame
from torchlogit.sampling import row_uniforms
from torchlogit.sources import MemorySource, block_cache

SIZES = (None, 1, 7, 64, 10_000)


@pytest.fixture(params=sorted(SOURCES))
def pair(request, tmp_path):
    table = make_table()
    return SOURCES[request.param](table, tmp_path), table


def _kernel(columns):
    return ReferenceKernel(Binomial(), Frame(torch.zeros(columns).double(), torch.ones(columns).double()))


def _read(source, rows=None):
    """Design, target, weight and offset of all blocks, one below the other."""
    blocks = list(source.blocks(rows))
    kernel = _kernel(source.features)
    return (
        torch.cat([kernel.design(block)[:, :-1] for block in blocks]).numpy(),
        torch.cat([block.target for block in blocks]).numpy(),
        torch.cat([block.weight for block in blocks]).numpy(),
        torch.cat([block.offset for block in blocks]).numpy(),
    )


def _assert_rows(read, table, index):
    np.testing.assert_array_equal(read[0], table.design[index])
    np.testing.assert_array_equal(read[1], table.y[index])
    np.testing.assert_array_equal(read[2], table.weight[index])
    np.testing.assert_array_equal(read[3][:, 0, 0], table.offset[index])


def test_says_what_it_holds(pair):
    source, table = pair
    assert source.rows == table.rows
    assert source.features == 7
    assert source.dtype == torch.float64
    assert source.device.type == "cpu"
    assert source.nbytes > 0


@pytest.mark.parametrize("size", SIZES)
def test_all_rows_in_order_in_blocks_of_any_size(pair, size):
    source, table = pair
    _assert_rows(_read(source, size), table, slice(None))
    if size is not None:
        assert max(block.rows for block in source.blocks(size)) <= size


def _sizes(rows, columns, outputs=1):
    block = Block(torch.zeros(rows, dtype=torch.int64), dense=torch.zeros(rows, columns))
    return [part.rows for part in MemorySource(block, outputs).blocks()]


def test_few_rows_are_one_block_many_are_an_even_number_of_equal_ones():
    assert _sizes(11_000, 100) == [11_000]
    shapes = (12_000, 100, 1), (30_001, 100, 1), (9_999, 60, 20), (70_000, 2, 1), (701, 3_000, 3)
    for rows, columns, outputs in shapes:
        sizes = _sizes(rows, columns, outputs)
        assert len(sizes) % 2 == 0
        assert sum(sizes) == rows
        assert max(sizes) - min(sizes) <= len(sizes)
        assert max(sizes) * (columns + 2 * outputs) <= 800_000


def test_every_read_is_the_same(pair):
    source, _ = pair
    first, second = _read(source), _read(source)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_blocks_know_where_their_rows_come_from(pair, size):
    source, table = pair
    seen = [(block.file, block.start + i) for block in source.blocks(size) for i in range(block.rows)]
    assert seen == [(0, i) for i in range(table.rows)]


@pytest.mark.parametrize("seed", [0, 1, 2**40])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_a_subsample_is_a_hash_of_the_row(pair, fraction, seed):
    source, table = pair
    member = np.flatnonzero(row_uniforms(seed, 0, 0, table.rows) < fraction)
    sample = source.subsample(fraction, seed)
    assert sample.rows == len(member)
    _assert_rows(_read(sample), table, member)


def test_a_subsample_may_be_in_fewer_digits(pair):
    source, _ = pair
    dense, everything = source.widths[0], []
    for dtype in (None, torch.float32):
        sample = source.subsample(0.5, 0, dtype)
        assert sample.widths == source.widths
        assert {b.dense.dtype for b in sample.blocks() if dense} <= {dtype or torch.float64}
        everything.append(_read(sample))
    (plain, *others), (short, *same) = everything
    np.testing.assert_array_equal(short[:, :dense], plain[:, :dense].astype(np.float32))
    np.testing.assert_array_equal(short[:, dense:], plain[:, dense:])
    for one, other in zip(others, same, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray, lambda X: np.repeat(X, 2, 0)[::2]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rows_are_taken_in_any_digits(rng, monkeypatch, layout, dtype):
    monkeypatch.setattr(problem, "_CONVERTED_ELEMENTS", 20)  # six rows at a time
    X = rng.normal(size=(40, 3))
    block = Block(torch.arange(40), torch.from_numpy(layout(X)))
    for index in (np.flatnonzero(rng.random(40) < 0.5), np.arange(40), np.array([], np.int64)):
        taken = block.take(torch.from_numpy(index), dtype)
        assert torch.equal(taken.dense, torch.from_numpy(X[index]).to(dtype))
        assert torch.equal(taken.target, torch.from_numpy(index))


def test_subsamples_are_nested(pair):
    source, _ = pair
    previous = set()
    for fraction in (0.05, 0.2, 0.4, 0.8, 1.0):
        # Weights are continuous draws: each names its row.
        rows = set(_read(source.subsample(fraction, 3))[2].tolist())
        assert previous < rows
        previous = rows
    assert len(previous) == source.rows


def test_different_seeds_draw_different_rows(pair):
    source, _ = pair
    draws = [frozenset(_read(source.subsample(0.5, seed))[2].tolist()) for seed in range(5)]
    assert len(set(draws)) == 5


@pytest.mark.parametrize("size", [None, 1, 13])
def test_sums_do_not_depend_on_the_blocks(pair, size):
    source, table = pair
    kernel = TorchKernel(Binomial(), Frame(torch.zeros(7).double(), torch.ones(7).double()))
    theta = torch.linspace(-1, 1, 8).double().reshape(1, 1, 8)
    total = None
    for block in source.blocks(size):
        stats = kernel.value_gradient(block, theta)
        total = stats if total is None else total + stats
    eta = table.design @ theta[0, 0, :-1].numpy() + 1 + table.offset
    margin = eta * (2 * table.y - 1)
    np.testing.assert_allclose(float(total.loss), table.weight @ np.logaddexp(0, -margin), rtol=1e-13)
    assert total.rows == table.rows


class TestRowUniforms:
    def test_uniform_and_independent_of_the_file(self):
        draws = np.stack([row_uniforms(seed, file, 0, 20_000) for seed in (0, 1) for file in (0, 1)])
        assert ((draws >= 0) & (draws < 1)).all()
        for row in draws:  # Kolmogorov-Smirnov at about one in ten thousand
            assert np.abs(np.sort(row) - np.linspace(0, 1, 20_000)).max() < 2.3 / np.sqrt(20_000)
        correlation = np.corrcoef(draws)
        assert np.abs(correlation - np.eye(4)).max() < 5 / np.sqrt(20_000)

    def test_the_hash_is_splitmix64(self):
        """Of whole numbers without an end, as Python has them."""

        def mix(state):
            state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
            state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
            return state ^ (state >> 31)

        golden = 0x9E3779B97F4A7C15
        for seed, file, start in ((0, 0, 0), (2**32 - 1, 5, 10**9), (-1, 0, 2**40)):
            key = mix((mix((seed + golden) % 2**64) + (file + 1) * golden) % 2**64)
            expected = [(mix((key + (row + 1) * golden) % 2**64) >> 11) / 2**53 for row in range(start, start + 50)]
            assert row_uniforms(seed, file, start, start + 50).tolist() == expected

    @pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
    def test_a_device_draws_the_same_rows(self, fraction):
        """As whole numbers with a sign, which is what it has; here the CPU stands in for it."""
        index, hashes = sampling.sampled_rows(-5, 3, 2**33, 5000, fraction)
        below, key = int(np.ceil(fraction * 2**53)), sampling._key(-5, 3)
        there = sampling._chosen_on(torch.device("cpu"), key, 2**33, 2**33 + 5000, below)
        assert torch.equal(there[0], index)
        assert torch.equal(there[1], hashes)
        assert hashes.dtype == torch.float64
        assert len(index) == (row_uniforms(-5, 3, 2**33, 2**33 + 5000) < fraction).sum()

    def test_any_cut_gives_the_same_numbers(self):
        whole = row_uniforms(7, 3, 0, 1000)
        pieces = [row_uniforms(7, 3, a, b) for a, b in ((0, 1), (1, 500), (500, 1000))]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_processes_of_a_machine_share_its_disk(monkeypatch, tmp_path):
    """Without a limit, the caches of all of them take half of what is free."""
    free = 8 << 20
    monkeypatch.setattr(block_cache.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    for processes, share in ((None, free // 2), ("4", free // 8)):
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
        if processes:
            monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        block = Block(torch.zeros(1000, dtype=torch.int64), dense=torch.zeros(1000, 64, dtype=torch.float64))
        cache = block_cache.BlockCache(None, str(tmp_path))
        added = 0
        while cache.add(block):
            added += 1
        assert share - 2 * block.nbytes < added * block.nbytes <= share
