"""Arithmetic of vectors lane by lane: the same whether they are long or short, next to each other or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchlogit.tensors import lane_dot, lane_largest, one_number, plus_along


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("columns", [7, 5_000])
@pytest.mark.parametrize("every", [1, 2])
def test_inner_products_lane_by_lane(rng, lanes, columns, every):
    a, b = (torch.from_numpy(rng.normal(size=(lanes, 2, every * columns)))[..., ::every] for _ in range(2))
    found = lane_dot(a, b)
    assert found.shape == (lanes,)
    np.testing.assert_allclose(found, np.einsum("akd,akd->a", a, b), rtol=1e-12, atol=1e-10)
    assert torch.equal(found, lane_dot(a, b))
    assert torch.equal(lane_largest(a), a.abs().amax((1, 2)))
    a[-1, 0, 3] = torch.nan
    assert bool(lane_largest(a)[-1].isnan())


@pytest.mark.parametrize("lanes", [1, 3])
def test_moves_along_a_direction(rng, lanes):
    point, direction = (torch.from_numpy(rng.normal(size=(lanes, 2, 50))) for _ in range(2))
    length, before = torch.arange(lanes).double() - 1, point.clone()
    moved = plus_along(point, length, direction)
    assert torch.equal(point, before)
    torch.testing.assert_close(moved, before + length[:, None, None] * direction, rtol=1e-15, atol=1e-15)
    assert plus_along(point, length, direction, into=point) is point
    assert torch.equal(point, moved)
    every = one_number(length)
    assert isinstance(every, float) == (lanes == 1)
    torch.testing.assert_close(plus_along(before, every, direction), moved, rtol=1e-15, atol=1e-15)
