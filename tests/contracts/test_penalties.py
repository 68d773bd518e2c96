"""What a penalty promises: its value, its gradient, its prox and its optimality condition belong together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from contracts.problems import classification, objective_from
from torchlogit.penalties import ElasticNet

PENALTIES = {
    "none": ElasticNet(),
    "L2": ElasticNet(l2=0.7),
    "L1": ElasticNet(l1=0.4),
    "elastic net": ElasticNet(l1=0.3, l2=1.5),
}


@pytest.fixture(params=sorted(PENALTIES))
def penalty(request):
    return PENALTIES[request.param]


POINTS = torch.tensor([-2.0, -0.5, -1e-3, 1e-3, 0.2, 3.0], dtype=torch.float64)


def test_what_it_is(penalty):
    assert penalty.is_none == (penalty.l1 == penalty.l2 == 0)
    assert penalty.is_smooth == (penalty.l1 == 0)


def test_value(penalty):
    w = POINTS.numpy()
    expected = penalty.l1 * np.abs(w).sum() + 0.5 * penalty.l2 * (w**2).sum()
    assert float(penalty.value(POINTS)) == pytest.approx(expected, rel=1e-15)
    assert penalty.value(POINTS.reshape(2, 3)).shape == (2,)


def test_smooth_gradient_is_that_of_the_l2_part(penalty):
    smooth, step = ElasticNet(l2=penalty.l2), 1e-6
    there, back = smooth.value((POINTS + step)[:, None]), smooth.value((POINTS - step)[:, None])
    torch.testing.assert_close((there - back) / (2 * step), penalty.smooth_gradient(POINTS), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("step", [0.1, 1.0, 10.0])
def test_prox_minimises(penalty, step):
    found = penalty.prox(POINTS, step)
    for w, v in zip(POINTS.tolist(), found.tolist(), strict=True):

        def cost(x, w=w):
            return (x - w) ** 2 / (2 * step) + penalty.l1 * abs(x) + 0.5 * penalty.l2 * x * x

        best = minimize_scalar(cost, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
        assert cost(v) <= best.fun + 1e-12
        assert v == pytest.approx(best.x, abs=1e-5)


@pytest.mark.parametrize("step", [0.1, 1.0])
def test_residual_is_zero_exactly_at_fixed_points_of_the_prox(penalty, step):
    """``w = prox(w - step * gradient)`` is the optimality condition of a proximal step."""
    w = torch.cat([POINTS, torch.zeros(3).double()])
    inside = torch.tensor([0.0, 0.99, -0.99]).double() * penalty.l1
    gradient = torch.cat([-penalty.l2 * POINTS - penalty.l1 * torch.sign(POINTS), inside])
    torch.testing.assert_close(penalty.prox(w - step * gradient, step), w, rtol=1e-13, atol=1e-15)
    assert float(penalty.kkt_residual(w, gradient).max()) < 1e-14
    off = penalty.kkt_residual(w, gradient + 0.1 + 2 * penalty.l1)
    assert float(off.min()) > 0.05


@pytest.mark.parametrize("bad", [-1.0, np.inf, np.nan])
@pytest.mark.parametrize("name", ["l1", "l2"])
def test_refuses_what_is_no_strength(name, bad):
    with pytest.raises(ValueError, match=name):
        ElasticNet(**{name: bad})


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_objective_adds_it_and_spares_the_intercept(rng, classes, fit_intercept):
    X, y = classification(rng, 60, 4, classes)
    bare, penalised = (objective_from(X, y, l2, fit_intercept=fit_intercept) for l2 in (0.0, 0.03))
    lanes = bare.all_lanes()
    u = bare.project(torch.from_numpy(rng.normal(size=tuple(bare.zeros().shape))))
    raw = bare.coordinates.to_raw(u, lanes)
    expected = ElasticNet(l2=0.03).value(raw[..., :-1]).sum(-1)
    difference = penalised.value_gradient(u, lanes).value - bare.value_gradient(u, lanes).value
    torch.testing.assert_close(difference, expected, rtol=1e-9, atol=1e-14 * float(bare.value_gradient(u, lanes).value))
    moved = torch.zeros_like(u)
    moved[..., -1] = torch.from_numpy(rng.normal(size=moved.shape[1]))
    moved = bare.project(moved)
    product = penalised.curvature_product(u, moved, lanes) - bare.curvature_product(u, moved, lanes)
    assert float(product.abs().max()) < 1e-14
