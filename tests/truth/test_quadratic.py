"""An objective beside a quadratic that stands for earlier rows: derivatives by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchlogit.kernels import TorchKernel
from torchlogit.losses import loss_for
from torchlogit.moments import column_moments
from torchlogit.objective import Effort, Objective
from torchlogit.penalties import ElasticNet
from torchlogit.problem import Block, Frame, joined
from torchlogit.quadratic import Quadratic
from torchlogit.sources import MemorySource


def quadratic(rng, outputs, p, *, whole):
    frame = Frame(torch.tensor(rng.normal(size=p)), torch.tensor(rng.uniform(0.5, 2, p)))
    size = outputs * (p + 1)
    root = torch.tensor(rng.normal(size=(size, size)))
    curvature = root @ root.T if whole else torch.tensor(rng.uniform(0.1, 3, (outputs, p + 1)))
    return Quadratic(
        frame,
        torch.tensor(rng.normal(size=(outputs, p + 1))),
        3.0,
        torch.tensor(rng.normal(size=(outputs, p + 1))),
        curvature,
        50,
        50.0,
    )


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_derivatives(rng, classes, whole, fit_intercept):
    p, n = 3, 40
    loss = loss_for(classes)
    rows = rng.normal(size=(n, p)) * [1, 10, 0.1] + np.array([0, 30, 0]) * fit_intercept
    source = MemorySource(Block(torch.tensor(rng.integers(0, classes, n)), dense=torch.tensor(rows)), loss.outputs)
    moments = column_moments(source)
    prior = quadratic(rng, loss.outputs, p, whole=whole)
    if not fit_intercept:
        prior = Quadratic(Frame(0 * prior.frame.shift, prior.frame.scale), *[
            getattr(prior, name) for name in ("point", "value", "slope", "curvature", "rows", "weight")
        ])  # fmt: skip
    kernel = TorchKernel(loss, moments.frame(fit_intercept))
    objective = Objective(
        source, kernel, (ElasticNet(l2=0.01),), moments, fit_intercept, Effort(n), prior=prior
    )
    lanes = torch.zeros(1, dtype=torch.int64)
    u = torch.tensor(rng.normal(size=(1, loss.outputs, p + 1)))
    if not fit_intercept:
        u[..., -1] = 0
    free = torch.ones_like(u, dtype=torch.bool)
    free[..., -1] = fit_intercept
    evaluation = objective.value_gradient(u, lanes)
    hessian = objective.hessian(u, lanes)[0]
    diagonal = objective.hessian_diagonal(u, lanes)
    step = 1e-5
    for k in range(u.numel()):
        if not bool(free.reshape(-1)[k]):
            continue
        direction = torch.zeros_like(u)
        direction.reshape(-1)[k] = 1
        up, down = (objective.value_gradient(u + sign * step * direction, lanes) for sign in (1, -1))
        slope = float(up.value - down.value) / (2 * step)
        assert float(evaluation.gradient.reshape(-1)[k]) == pytest.approx(slope, rel=1e-6, abs=1e-6)
        bent = (up.gradient - down.gradient) / (2 * step)
        product = objective.curvature_product(u, direction, lanes)
        torch.testing.assert_close(product[free], bent[free], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(hessian[k], product.reshape(-1), rtol=1e-9, atol=1e-9)
        if whole:
            assert float(diagonal.reshape(-1)[k]) == pytest.approx(float(hessian[k, k]), rel=1e-9)
    # The value itself, from the raw coefficients.
    theta = objective.coordinates.to_raw(u, lanes)[0]
    v = torch.cat([theta[:, :-1] * prior.frame.scale, theta[:, -1:] + theta[:, :-1] @ prior.frame.shift[:, None]], 1)
    d = (v - prior.point).reshape(-1)
    own = 3.0 + float(prior.slope.reshape(-1) @ d + 0.5 * d @ prior.matrix() @ d)
    bare = Objective(source, kernel, (ElasticNet(l2=0.0),), moments, fit_intercept, Effort(n))
    mean = float(bare.value_gradient(u, lanes).value)
    expected = (n * mean + own) / (n + 50) + 0.005 * float(theta[:, :-1].square().sum())
    assert float(evaluation.value) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("whole", [True, False])
def test_the_same_function_around_another_point(rng, whole):
    prior = quadratic(rng, 2, 3, whole=whole)
    moved = prior.moved(torch.tensor(rng.normal(size=(2, 4))))
    ridged = prior.plus_ridge(torch.full((2, 4), 0.5, dtype=torch.float64))
    for _ in range(3):
        v = torch.tensor(rng.normal(size=(1, 2, 4)))
        value, gradient = prior.value_gradient(v)
        other, slope = moved.value_gradient(v)
        torch.testing.assert_close(other, value, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(slope, gradient, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ridged.value_gradient(v)[0], value + 0.25 * v.square().sum(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ridged.value_gradient(v)[1], gradient + 0.5 * v, rtol=1e-12, atol=1e-12)


def test_blocks_joined(rng):
    from torchlogit.problem import CodedColumns, SparseRows

    def block(n):
        counts = rng.integers(0, 3, n)
        indptr = torch.tensor(np.append(0, counts.cumsum()))
        stored = int(indptr[-1])
        sparse = SparseRows(indptr, torch.tensor(rng.integers(0, 5, stored)), torch.tensor(rng.normal(size=stored)), 5)
        codes = CodedColumns(torch.tensor(rng.integers(-1, 3, (n, 2)), dtype=torch.int32), torch.tensor([0, 3]), 6)
        dense, weight, offset = rng.normal(size=(n, 2)), rng.random(n), rng.normal(size=(n, 1, 1))
        target = torch.tensor(rng.integers(0, 2, n))
        return Block(target, torch.tensor(dense), sparse, codes, torch.tensor(weight), torch.tensor(offset))

    parts = [block(4), block(0), block(7).slice(2, 6)]
    whole = joined(parts)
    kernel = TorchKernel(loss_for(2), Frame(torch.zeros(13).double(), torch.ones(13).double()))
    torch.testing.assert_close(kernel.design(whole), torch.cat([kernel.design(part) for part in parts]))
    for name in ("target", "weight", "offset"):
        torch.testing.assert_close(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))
