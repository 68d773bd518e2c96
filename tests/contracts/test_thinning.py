"""Few rows stand for all: their weights sum up to what the rows bend, however the rows come and whatever is held."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchlogit import thinning
from torchlogit.thinning import Thinning, thin

CLASSES, ROWS, WANTED = 11, 3_000, 120


@pytest.fixture(params=["many sizes", "sorted", "few that bend", "no length", "one that outweighs all"])
def rows(request, rng):
    bend = torch.from_numpy(rng.exponential(size=(CLASSES, ROWS)) ** 3)
    length = torch.from_numpy(rng.uniform(1, 4, ROWS))
    if request.param == "sorted":  # each class bends in a stretch of its own
        bend *= torch.from_numpy(np.arange(ROWS) * CLASSES // ROWS == np.arange(CLASSES)[:, None]) + 1e-6
    elif request.param == "few that bend":
        bend[3] = 0.0
        bend[4, torch.arange(ROWS) % 100 != 7] = 0.0
    elif request.param == "no length":
        length[::3] = 0.0
    elif request.param == "one that outweighs all":
        bend[:, 1234] *= 1e9
    return bend, length


def _chosen(bend, length, cuts):
    choice = Thinning(len(bend), bend.shape[1], WANTED, bend)
    for start, stop in zip([0, *cuts], [*cuts, bend.shape[1]], strict=True):
        choice.add(bend[:, start:stop], length[start:stop])
    return choice.rows()


@pytest.mark.parametrize("held", [2**21, 5_000])
def test_chosen_rows_weigh_what_all_do(rows, held, monkeypatch):
    monkeypatch.setattr(thinning, "_HELD_ENTRIES", held)
    bend, length = rows
    for k, own in enumerate(_chosen(bend, length, [700, 701, 2_500])):
        assert own.index.equal(own.index.unique())
        assert bool((own.weight > 0).all())
        assert own.length.equal(length[own.index])
        importance = bend[k] * length
        counts = int((importance > 0).sum())
        assert len(own.index) <= WANTED + 2
        if counts <= WANTED:
            assert own.index.equal(bend[k].nonzero()[:, 0])
            assert own.weight.equal(bend[k][own.index])
            continue
        assert len(own.index) >= WANTED - 2
        # Whatever is in proportion to the importance is known but for the rounding of one row of those not certain.
        share = float(importance.sum()) / WANTED
        assert float((own.weight * own.length).sum()) == pytest.approx(float(importance.sum()), abs=1.5 * share)
        # Rows that outweigh a share are all there, as they are.
        heavy = (importance > share).nonzero()[:, 0]
        assert bool(torch.isin(heavy, own.index).all())
        certain = torch.isin(own.index, (importance > 1.5 * share).nonzero()[:, 0])
        assert own.weight[certain].equal(bend[k][own.index[certain]]) or held < 2**21
        assert bool((own.weight >= bend[k][own.index] * (1 - 1e-12)).all())


@pytest.mark.parametrize("held", [2**21, 5_000])
def test_the_same_rows_whatever_the_pieces(rows, held, monkeypatch):
    monkeypatch.setattr(thinning, "_HELD_ENTRIES", held)
    first, second = _chosen(*rows, []), _chosen(*rows, list(range(1, ROWS, 37)))
    for one, other in zip(first, second, strict=True):
        assert one.index.equal(other.index)
        assert one.weight.equal(other.weight)


def test_no_more_is_held_than_a_stretch(monkeypatch):
    monkeypatch.setattr(thinning, "_HELD_ENTRIES", CLASSES * 1_000)
    choice = Thinning(CLASSES, 10**9, WANTED, torch.empty(0))
    assert choice._bend.shape == (CLASSES, 1_000)
    bend, length = torch.ones(CLASSES, 900, dtype=torch.float64), torch.ones(900, dtype=torch.float64)
    for _ in range(50):
        choice.add(bend, length)
        assert all(own is None or len(own.index) <= 2 * WANTED + 2 for own in choice._chosen)
    found = choice.rows()
    assert [len(own.index) for own in found] == [WANTED] * CLASSES
    assert float(found[0].weight.sum()) == pytest.approx(45_000)


def test_rows_of_a_range(rng):
    (own,) = _chosen(torch.from_numpy(rng.random((1, ROWS))), torch.ones(ROWS, dtype=torch.float64), [])
    parts = [own.between(start, start + 1_000) for start in (0, 1_000, 2_000)]
    joined = torch.cat([part.index + start for part, start in zip(parts, (0, 1_000, 2_000), strict=True)])
    assert joined.equal(own.index)
    assert torch.cat([part.weight for part in parts]).equal(own.weight)
    assert torch.cat([part.length for part in parts]).equal(own.length)


def test_on_average_every_row_counts_as_it_should():
    """Over many shifts of the running sum a row is taken as often as its probability says."""
    rng = np.random.default_rng(0)
    bend = torch.from_numpy(rng.exponential(size=200))
    total = torch.zeros(200, dtype=torch.float64)
    for _ in range(2_000):
        order = torch.from_numpy(rng.permutation(200))
        weight = thin(bend[order][None], bend[order][None], 20)[0]
        total[order] += weight
    deviation = float((bend.max() * bend.sum() / 20 / 2_000).sqrt())
    torch.testing.assert_close(total / 2_000, bend, rtol=0, atol=5 * deviation)
