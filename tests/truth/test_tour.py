"""The chapters' computations against other means: finite differences, scikit-learn, NumPy loops."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Peer

from torchlogit.tour import doors, layers, optimizers, points, sliders, step
from truth.tour_reference import adam, descend, log_loss, network_loss, with_momentum


def slope(function, at, width=1e-5):
    return (function(at + width) - function(at - width)) / (2 * width)


def test_points_of_ones_own_come_after_the_others():
    X, y = points.two_groups()
    more, labels = points.with_own(X, y, [(1.0, -2.0, 1.0), (0.5, 3.0, 0.0)])
    assert torch.equal(more[:-2], X)
    assert more[-2:].tolist() == [[1.0, -2.0], [0.5, 3.0]]
    assert labels[-2:].tolist() == [1.0, 0.0]
    assert points.with_own(X, y, []) == (X, y)


@pytest.mark.parametrize("angle", [-2.0, 0.3, 1.9])
def test_a_line_is_judged(angle):
    X, y = points.two_groups()
    judged = points.judge(X, y, angle, 0.4)
    along = X.numpy() @ [math.cos(angle), math.sin(angle)] - 0.4
    np.testing.assert_array_equal(judged.wrong.numpy(), (along > 0) != y.numpy())
    assert judged.loss == pytest.approx(log_loss(2 * along, y.numpy()), rel=1e-12)


def test_the_best_line_is_scikit_learns():
    X, y = points.two_groups()
    w, b = points.best_line(X, y)
    peer = Peer(tol=1e-10).fit(X.numpy(), y.numpy())
    np.testing.assert_allclose(w, peer.coef_[0], rtol=1e-5)
    np.testing.assert_allclose(b, peer.intercept_, rtol=1e-5)


@pytest.mark.parametrize(("w", "b"), [(0.0, 0.0), (1.3, -4.0), (5.0, 4.0), (-1.0, -12.0)])
def test_loss_and_slopes_of_a_point_on_a_line(w, b):
    x, y = sliders.hours()
    seen = sliders.forward(x, y, w, b)
    assert seen.loss == pytest.approx(log_loss(w * x.numpy() + b, y.numpy()), rel=1e-12)
    assert seen.slope_w == pytest.approx(slope(lambda v: sliders.forward(x, y, v, b).loss, w), rel=1e-6, abs=1e-9)
    assert seen.slope_b == pytest.approx(slope(lambda v: sliders.forward(x, y, w, v).loss, b), rel=1e-6, abs=1e-9)
    along = sliders.loss_along_w(x, y, torch.tensor([9.0, w], dtype=torch.float64), b)
    assert float(along[1]) == pytest.approx(seen.loss, rel=1e-12)


def test_every_gradient_of_a_step_is_a_difference_quotient():
    X, y = step.four_points()
    w, b = torch.tensor([0.7, -0.2]).double(), torch.tensor(0.3).double()
    opened = step.training_step(X, y, w, b, 0.5)

    def from_losses(losses):
        return losses.mean()

    def from_p(p):
        return from_losses(-(y * p.log() + (1 - y) * (1 - p).log()))

    def from_z(z):
        return from_p(1 / (1 + (-z).exp()))

    tails = {
        "losses": from_losses, "p": from_p, "z": from_z,
        "w": lambda v: from_z(X @ v + b), "b": lambda v: from_z(X @ w + v),
    }  # fmt: skip
    for name, tail in tails.items():
        value = opened.values[name]
        for j in range(value.numel()):
            nudge = torch.zeros_like(value)
            nudge.reshape(-1)[j] = 1e-6
            expected = float(tail(value + nudge) - tail(value - nudge)) / 2e-6
            assert float(opened.gradients[name].reshape(-1)[j]) == pytest.approx(expected, rel=1e-7, abs=1e-9)
    assert float(opened.gradients["loss"]) == 1
    torch.testing.assert_close(opened.w, w - 0.5 * opened.gradients["w"], rtol=0, atol=0)
    assert opened.graph[0] == "MeanBackward"
    assert "SigmoidBackward" in opened.graph


def test_steps_follow_each_other():
    X, y = step.four_points()
    for number, opened in enumerate(step.training_steps(X, y, 1.3, 9)):
        theta, gradient = descend(X.numpy(), y.numpy(), 1.3, number)
        np.testing.assert_allclose(opened.values["w"], theta[:2], rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(opened.gradients["b"], gradient[2], rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_both_doors_lead_to_scikit_learns_optimum(C):
    X, y = points.two_groups()
    easy, loop = doors.easy_button(X, y, C), doors.engine_room(X, y, C, 1.0)
    peer = Peer(C=C, tol=1e-12, max_iter=10_000).fit(X.numpy(), y.numpy())
    expected = np.append(peer.coef_[0], peer.intercept_)
    np.testing.assert_allclose(easy.theta, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loop[-1].theta, easy.theta, rtol=1e-8, atol=1e-9)
    assert loop[-1].objective == pytest.approx(easy.objective, rel=1e-12)
    assert len(loop) == doors.STEPS + 1
    l2 = 1 / (C * len(y))
    np.testing.assert_allclose(loop[40].theta, with_momentum(X.numpy(), y.numpy(), 1.0, 40, l2), rtol=1e-9, atol=1e-12)


def test_paths_are_those_of_loops_by_hand():
    x, y = optimizers.ages()
    for column in (x, optimizers.standardised(x)):
        seen = optimizers.landscape(column, y, 0.1, 50)
        X, truth = column.numpy()[:, None], y.numpy()
        for name, theta in (
            ("SGD", descend(X, truth, 0.1, 50)[0]), ("momentum", with_momentum(X, truth, 0.1, 50)),
            ("Adam", adam(X, truth, 0.1, 50)),
        ):  # fmt: skip
            np.testing.assert_allclose(seen.paths[name][-1], theta, rtol=1e-8)
        assert np.abs(descend(seen.x.numpy()[:, None], truth, 0.1, 0)[1]).max() > 0.01
        np.testing.assert_allclose(
            slope(lambda w, at=seen: float(optimizers.loss_at(torch.stack([w, at.best[1]]), at.x, y)), seen.best[0]),
            0,
            atol=1e-6,
        )
        curvature = (p := torch.sigmoid(seen.best[0] * column + seen.best[1])) * (1 - p)
        design = torch.stack([column, torch.ones_like(column)], dim=1)
        assert seen.condition == pytest.approx(
            float(torch.linalg.cond(design.T @ (curvature[:, None] * design))), rel=1e-6
        )


def test_standardised_columns_are_the_easier_landscape():
    x, y = optimizers.ages()
    raw, easy = (optimizers.landscape(column, y, 0.3, 60) for column in (x, optimizers.standardised(x)))
    assert easy.condition < 3 < 100 < raw.condition
    assert float(optimizers.standardised(x).mean()) == pytest.approx(0, abs=1e-12)
    assert len(raw.paths["solver"]) == len(easy.paths["solver"])


def test_a_level_curve_has_its_level():
    x, y = optimizers.ages()
    best = optimizers.landscape(x, y, 0.1, 1).best
    level = float(optimizers.loss_at(best, x, y)) + 0.05
    curve = optimizers.level_curve(best, level, x, y, torch.tensor([2.0, 8.0]).double())
    np.testing.assert_allclose(optimizers.loss_at(curve, x, y), level, rtol=1e-9)


@pytest.mark.parametrize(("depth", "width"), [(0, 0), (1, 3), (2, 8)])
def test_a_network_is_the_sequential_one(depth, width):
    X, y = layers.moons()
    seen = layers.trained(X, y, depth, width, 40)
    assert seen.loss == pytest.approx(network_loss(X, y, depth, width, 40), rel=1e-4)
    sizes = [2, *[width] * depth, 1]
    assert seen.parameters == sum(a * b + b for a, b in pairwise(sizes))
    assert torch.equal(seen.wrong, (seen.model.probability(X)[:, 0] > 0.5) != (y == 1))
    across, up = torch.linspace(-1, 1, 5), torch.linspace(0, 2, 3)
    grid = layers.probabilities(seen.model, across, up)
    assert grid.shape == (3, 5)
    assert float(grid[2, 1]) == pytest.approx(
        float(seen.model.probability(torch.tensor([[-0.5, 2.0]])).detach()), rel=1e-6
    )


def test_hidden_layers_do_what_a_line_cannot():
    X, y = layers.moons()
    wrong = partial(layers.trained, X, y, epochs=140)
    assert int(wrong(0, 0).wrong.sum()) > 15
    assert int(wrong(1, 8).wrong.sum()) < 5
