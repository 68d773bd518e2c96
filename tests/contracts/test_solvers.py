"""Every solver, around every preconditioner that fits it: the optimum, alone and in lanes, in steps one can repeat."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from contracts.problems import FOR_MANY_CLASSES, PRECONDITIONERS, classification, objective_from
from torchlogit.drive import Run, describe, iterate
from torchlogit.fit import Fit, Problem
from torchlogit.hessian_factors import HessianCholesky, PassingHessian, RoundedHessian
from torchlogit.losses import loss_for
from torchlogit.penalties import ElasticNet
from torchlogit.preconditioners import Identity
from torchlogit.problem import FitOptions, Status
from torchlogit.solvers import SOLVERS
from torchlogit.solvers.newton import Newton
from truth.newton_reference import certificate_of, objective_of, optimum

FIELDS = {
    "step", "objective", "gradient_norm", "kkt", "excess", "step_length", "trials", "passes", "rows_per_second",
    "bytes_per_second", "seconds", "theta",
}  # fmt: skip
ROUTES = [(solver, around) for solver in sorted(SOLVERS) for around in PRECONDITIONERS]


def _run(objective, route, tol=1e-9, max_iter=1000):
    solver = SOLVERS[route[0]](PRECONDITIONERS[route[1]](objective), tol)
    return Run(objective, solver, FitOptions(tol=tol, max_iter=max_iter))


def _solve(objective, route, tol=1e-9, max_iter=1000):
    run = _run(objective, route, tol, max_iter)
    steps = list(iterate(run, objective.zeros()))
    describe(objective, steps)
    return run, steps


def _raw(run, lane=0):
    lanes = torch.tensor([lane])
    return run.objective.coordinates.to_raw(run.objective.project(run.outcomes[lane].u[None]), lanes)[0].numpy()


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
@pytest.mark.parametrize("classes", [2, 4])
def test_reaches_the_optimum(route, classes, rng):
    if route[1] in FOR_MANY_CLASSES and classes == 2:
        pytest.skip("made for many classes")
    X, y = classification(rng, 240, 5, classes)
    run, steps = _solve(objective_from(X, y, 1e-3), route)
    best = optimum(X, y, 1e-3, classes=classes)
    outcome, theta = run.outcomes[0], _raw(run)
    assert outcome.status is Status.CONVERGED
    assert objective_of(theta, X, y, 1e-3) <= best.objective * (1 + 1e-12)
    assert certificate_of(theta, X, y, 1e-3) <= 1e-9
    assert outcome.value == pytest.approx(best.objective, rel=1e-12)
    assert outcome.kkt <= 1e-9
    assert outcome.excess <= 1e-10 * outcome.value
    scale = X.std(0)
    np.testing.assert_allclose(theta[:, :-1] * scale, best.theta[:, :-1] * scale, atol=1e-5)
    values = [record["objective"] for _, record in steps]
    assert all(b <= a * (1 + 1e-13) for a, b in itertools.pairwise(values)), "a step went uphill"


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
@pytest.mark.parametrize("classes", [2, 3])
def test_lanes_equal_separate_fits(route, classes, rng):
    if route[1] in FOR_MANY_CLASSES and classes == 2:
        pytest.skip("made for many classes")
    X, y = classification(rng, 150, 4, classes)
    targets = np.column_stack([y, rng.permutation(y), y])
    weights = np.column_stack([np.ones(150), np.arange(150) % 5 != 0, rng.random(150)]).astype(float)
    strengths = [1e-3, 1e-1, 1e-2]
    # Without any curvature the penalty's spread over the columns' units (a condition number of 1e7) is too much for
    # a tight tolerance: steps end below the rounding of the objective.
    tol, digits = (1e-5, 1e-8) if route[1] == "identity" else (1e-9, 1e-12)
    together, _ = _solve(objective_from(X, targets, strengths, weights, classes=classes), route, tol)
    for lane in range(3):
        y_, w_ = targets[:, lane], weights[:, lane]
        alone, _ = _solve(objective_from(X, y_, strengths[lane], w_, classes=classes), route, tol)
        assert together.outcomes[lane].status is Status.CONVERGED
        best = optimum(X, y_, strengths[lane], weight=w_, classes=classes)
        assert together.outcomes[lane].value == pytest.approx(best.objective, rel=digits)
        difference = (_raw(together, lane) - _raw(alone))[:, :-1] * X.std(0)
        assert np.abs(difference).max() < 1e3 * tol


@pytest.mark.parametrize("route", [("newton", "Cholesky"), ("newton", "diagonal"), ("lbfgs", "diagonal")], ids=" ".join)
class TestSteps:
    def test_records(self, route, rng):
        X, y = classification(rng, 120, 4)
        run, steps = _solve(objective_from(X, y, 1e-2), route)
        records = [record for _, record in steps]
        assert [record["step"] for record in records] == list(range(len(records)))
        assert run.iterations == len(records) - 1
        previous = 0.0
        for (state, record), nxt in zip(steps, [*steps[1:], None], strict=True):
            assert set(record) == FIELDS
            theta = np.array(record["theta"])
            assert record["objective"] == pytest.approx(objective_of(theta, X, y, 1e-2), rel=1e-12)
            assert record["kkt"] == pytest.approx(certificate_of(theta, X, y, 1e-2), rel=1e-5, abs=1e-13)
            eta = X @ theta[0, :-1] + theta[0, -1]
            slope = (1 / (1 + np.exp(-eta)) - y) / len(y)
            raw = np.append(slope @ X + 1e-2 * theta[0, :-1], slope.sum())
            assert record["gradient_norm"] == pytest.approx(np.linalg.norm(raw), rel=1e-6, abs=1e-9 * np.abs(X).max())
            assert record["passes"] >= previous
            previous = record["passes"]
            assert record["seconds"]["total"] >= record["seconds"]["read"] >= 0
            if nxt is None:
                assert record["step_length"] == 0
                assert record["trials"] == 0
            else:
                assert record["step_length"] > 0
                assert record["trials"] >= 1
                assert record["step_length"] == float(nxt[0].step_length[0])
            assert float(state.excess[0]) == record["excess"]

    def test_a_state_is_all_that_a_step_needs(self, route, rng):
        X, y = classification(rng, 120, 4, noise=0.3)
        objective = objective_from(X, y, 1e-4)
        run, steps = _solve(objective, route)
        states = [state for state, _ in steps]
        assert len(states) > 4
        again = states[2]
        for expected in states[3:]:
            again = run.solver.step(objective, again)
            assert torch.equal(again.u, expected.u)
            assert torch.equal(again.value, expected.value)
            assert torch.equal(again.direction, expected.direction)

    def test_the_same_bits_every_time(self, route, rng):
        X, y = classification(rng, 120, 4)
        first, second = (_solve(objective_from(X, y, 1e-3), route)[0] for _ in range(2))
        assert torch.equal(first.outcomes[0].u, second.outcomes[0].u)

    def test_interrupted_between_two_states(self, route, rng):
        X, y = classification(rng, 120, 4)
        run = _run(objective_from(X, y, 1e-3), route)
        start = run.objective.value_gradient(run.objective.zeros(), run.objective.all_lanes()).value
        for _, record in iterate(run, run.objective.zeros()):
            if record["step"] == 1:
                break
        outcome = run.interrupted()[0]
        assert outcome.status is Status.INTERRUPTED
        assert not outcome.status.converged
        assert torch.equal(outcome.u, run.state.u[0])
        assert float(start[0]) > outcome.value > 0

    def test_budget(self, route, rng):
        X, y = classification(rng, 120, 4, noise=0.2)
        run, steps = _solve(objective_from(X, y, 1e-5), route, max_iter=1)
        assert run.outcomes[0].status is Status.MAX_ITER
        assert run.outcomes[0].iterations == 1
        assert len(steps) == 2

    def test_lanes_leave_when_they_have_converged(self, route, rng):
        X, y = classification(rng, 120, 4, noise=0.3)
        run, steps = _solve(objective_from(X, y, [10.0, 1e-5]), route)
        active = [state.lanes.tolist() for state, _ in steps]
        assert active[0] == [0, 1]
        assert active[-1] == [1]
        assert run.outcomes[0].iterations < run.outcomes[1].iterations


def test_newton_lengthens_its_steps_in_an_exponential_tail(rng):
    """Classes that a weak penalty alone keeps from infinity: a unit step leaves 1 / e of the slope, every time."""
    X, y = classification(rng, 200, 3)
    X[:, 0] += 100 * (2 * y - 1)
    objective = objective_from(X, y, 1e-12)
    run, steps = _solve(objective, ("newton", "Cholesky"), tol=1e-6)
    best = optimum(X, y, 1e-12)
    assert run.outcomes[0].status is Status.CONVERGED
    assert run.outcomes[0].value == pytest.approx(best.objective, rel=1e-6)
    assert max(record["step_length"] for _, record in steps) > 1
    assert len(steps) < 12


def test_many_classes_on_many_rows_are_guided_by_each_class(rng):
    """Where a subsample's Hessian would cost more than ten products."""
    X, y = classification(rng, 14_400, 60, 24)
    fit = Fit(Problem(objective_from(X, y).source, loss_for(24), [ElasticNet(l2=1e-4)]), FitOptions(tol=1e-6))
    assert "class" in fit.plan.preconditioner
    for _ in fit.steps():
        pass
    result = fit.results()[0]
    assert result.converged
    assert certificate_of(result.theta.numpy(), X, y, 1e-4) <= 1e-6


OUTLIER_ROUTES = [
    (2, ("newton", "Cholesky")),
    (2, ("newton", "centred diagonal")),
    (2, ("lbfgs", "centred diagonal")),
    (2, ("lbfgs", "Cholesky of a subsample")),
    (3, ("newton", "Cholesky")),
    (3, ("newton", "centred diagonal")),
    (3, ("newton", "Cholesky of a subsample")),
    (3, ("newton", "Cholesky of each class")),
]


@pytest.mark.parametrize("l2", [0.0, 1 / 300])
@pytest.mark.parametrize(("classes", "route"), OUTLIER_ROUTES, ids=str)
def test_outliers_are_no_certificate(classes, route, l2):
    """Every step moves their margin by one, and gains next to nothing, long before the others have their say."""
    # A subsample's curvature bounds that of all rows near where it was built: a fit starts there, at its optimum.
    for seed in range(4) if "subsample" in route[1] else (0, 1, 2, 3, 12, 16, 29, 130, 242, 354):
        rng = np.random.default_rng(seed)
        X, y = rng.normal(size=(300, 3)), rng.gumbel(size=(300, classes))
        y = (X @ rng.normal(size=(3, classes)) + y).argmax(1)
        X[:2, 0], y[:2] = 1e8, 1
        run, steps = _solve(objective_from(X, y, l2), route, tol=1e-7)
        assert run.outcomes[0].status is Status.CONVERGED
        assert run.outcomes[0].value == pytest.approx(optimum(X, y, l2, classes=classes).objective, rel=1e-8)
        assert len(steps) <= 150


def test_columns_that_a_subsample_cannot_tell_apart():
    """It sees no curvature along their difference; other rows do."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4))
    y = (X @ [1, -1, 0.5, 0] + rng.logistic(size=400) > 0).astype(int)
    X[:, 3] = X[:, 0]
    sample = torch.cat([block.dense for block in objective_from(X, y).source.subsample(0.5, 0).blocks()]).numpy()
    others = np.flatnonzero(~(X[:, None] == sample[None]).all(2).any(1))
    X[others[:20], 3] += 1
    best = optimum(X, y, 0.0)
    for solver in ("lbfgs", "newton"):
        run, _ = _solve(objective_from(X, y), (solver, "Cholesky of a subsample"))
        assert run.outcomes[0].status is Status.CONVERGED
        assert run.outcomes[0].value == pytest.approx(best.objective, rel=1e-12)


def test_a_tighter_tolerance_costs_lbfgs_a_few_steps_more():
    """Products with the true curvature begin where they are worth it, not where the fit is about to end."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(500, 60)) @ (rng.normal(size=(60, 60)) * 10 ** -np.linspace(0, 1, 60))
    y = (X[:, 0] / X[:, 0].std() + rng.logistic(size=500) > 0).astype(int)
    objective = objective_from(X, y, 1e-6)
    loose, tight = (_solve(objective, ("lbfgs", "centred diagonal"), tol)[0].outcomes[0] for tol in (1e-6, 1e-10))
    assert loose.status is tight.status is Status.CONVERGED
    assert tight.value <= loose.value * (1 + 1e-13)
    assert tight.iterations <= loose.iterations + 15


@pytest.mark.parametrize("classes", [2, 3])
def test_a_sample_saves_the_second_of_newtons_steps(classes, rng):
    """Where it knows how the curvature changes, one gradient and one Hessian lead as far as two of each."""
    X, y = classification(rng, 4_000, 4, classes)
    objective = objective_from(X, y, 1e-3, classes=classes)
    lanes, best = objective.all_lanes(), _solve(objective, ("newton", "Cholesky"), 1e-12)[0].outcomes[0]
    away = objective.project(best.u + 0.1 * torch.from_numpy(rng.normal(size=best.u.shape)))[None]

    def left(solver):
        state = solver.init(objective, away, lanes)
        assert float(state.value) > best.value + 1e-4
        return float(solver.step(objective, state).u.sub(best.u).norm())

    newton = left(SOLVERS["newton"](HessianCholesky(), 1e-9))
    for share, gain in ((1.0, 20), (0.25, 5)):
        sample = objective.source.subsample(share, 0)
        assert left(SOLVERS["lbfgs"](PassingHessian(sample), 1e-9)) < newton / gain


class TestStarts:
    """A start is used where it is better than zero, lane by lane, and costs one read."""

    def test_lane_by_lane(self, rng):
        X, y = classification(rng, 120, 4)
        objective = objective_from(X, y, [1e-3, 1e-3, 1e-3])
        good = _solve(objective_from(X, y, 1e-3), ("newton", "Cholesky"))[0].outcomes[0].u
        run = _run(objective, ("newton", "Cholesky"))
        before = objective.effort.passes
        state, record = next(iterate(run, torch.stack([good, -1e3 * good, good * torch.nan])))
        assert torch.equal(state.u[0], good)
        assert not state.u[1:].any()
        assert record["passes"] - before <= 2  # both points, and the curvature

    def test_the_value_of_zero_may_be_known(self, rng):
        X, y = classification(rng, 120, 4)
        objective = objective_from(X, y, 1e-3)
        good = _solve(objective, ("newton", "Cholesky"))[0].outcomes[0].u[None]
        for start, used in ((good, good), (-1e3 * good, 0 * good)):
            run = _run(objective, ("newton", "Cholesky"))
            run.null_value = float(np.log(2))
            assert torch.equal(next(iterate(run, start))[0].u, used)

    def test_a_small_gradient_is_not_all_of_a_subsamples_optimum(self):
        """Where columns differ in little and the penalty is weak, much is left to gain below a small gradient."""
        rng = np.random.default_rng(0)
        X = rng.normal(size=(400, 1)) + 1e-3 * rng.normal(size=(400, 30))
        y = (X[:, :3].sum(1) + 2e3 * (X[:, 4] - X[:, 5]) + rng.logistic(size=400) > 0).astype(int)
        objective = objective_from(X, y, 1e-6)
        run = _run(objective, ("newton", "centred diagonal"), 1e-3)
        run.sampled = True
        states = [state for state, _ in iterate(run, objective.zeros())]
        assert run.outcomes[0].kkt <= 1e-3
        assert run.outcomes[0].excess <= 1e-2 * run.outcomes[0].value
        assert sum(bool(state.kkt[0] <= 1e-3) for state in states) > 1, "the gradient alone would have ended it before"

    def test_saturated(self, rng):
        """Curvature underflows where gradients do not: steps would be longer by a hundred decades."""
        X, y = classification(rng, 120, 4, classes=2)
        objective = objective_from(X, y, 1e-3, offset=1e3 * rng.normal(size=(120, 1, 1)))
        run = _run(objective, ("newton", "Cholesky"))
        for _ in iterate(run, objective.zeros()):
            pass
        assert run.outcomes[0].status is Status.CONVERGED


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("classes", [2, 3])
def test_centred_diagonal_is_exact_for_a_column_and_its_intercept(rng, classes, fit_intercept):
    """Class by class it inverts the second derivative of one column beside the intercept."""
    X, y = classification(rng, 200, 1, classes)
    objective = objective_from(X, y, 1e-2, fit_intercept=fit_intercept)
    u = objective.project(torch.from_numpy(rng.normal(size=(1, objective.outputs, 2))))
    lanes = objective.all_lanes()
    hessian = objective.hessian(u, lanes)[0]
    inverse = PRECONDITIONERS["centred diagonal"](objective).build(objective, u, lanes)
    v = objective.project(torch.from_numpy(rng.normal(size=tuple(u.shape)))) if classes == 2 else torch.ones_like(u)
    if not fit_intercept:
        v[..., -1] = 0
    bent = torch.stack([hessian[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] @ v[0, k] for k in range(objective.outputs)])
    torch.testing.assert_close(inverse.solve(bent[None]), v, rtol=1e-9, atol=1e-12)


def test_curvature_is_built_anew_ever_more_rarely():
    """After as many products as it costs, then after twice as many."""
    rng = np.random.default_rng(4)
    X, y = classification(rng, 400, 12, 4)
    X = X @ rng.normal(size=(12, 12))
    objective = objective_from(X, y, 1e-6)
    solver = Newton(Identity(), 1e-9, patience=3.0)
    states = [solver.init(objective, objective.zeros(), objective.all_lanes())]
    while float(states[-1].kkt) > 1e-9:
        states.append(solver.step(objective, states[-1]))
    steps = list(itertools.pairwise(states))
    builds = [(before.spent, before.built) for before, after in steps if after.built > before.built]
    kept = [(before.spent, before.built) for before, after in steps if after.built == before.built]
    assert len(builds) >= 3
    assert all(spent >= 3 * 2 ** (built - 1) for spent, built in builds)
    assert all(spent < 3 * 2 ** (built - 1) for spent, built in kept)


@pytest.mark.parametrize("close", [False, True])
def test_a_hessian_in_float32_is_kept_and_an_exact_one_is_not(close):
    """Conjugate gradients around a Hessian of some steps ago; where float32 hides a direction, Newton's own steps."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(400, 12))
    y = (6 * X @ rng.normal(size=12) + rng.logistic(size=400) > 0).astype(int)
    if close:
        X = np.column_stack([X, X[:, 0] + 1e-5 * X[:, 0].std() * rng.normal(size=400)])
    objective, best = objective_from(X, y, 1e-9), optimum(X, y, 1e-9)
    solver = Newton(RoundedHessian(), 1e-9, patience=4.0)
    run = Run(objective, solver, FitOptions(tol=1e-9))
    states = [state for state, _ in iterate(run, objective.zeros())]
    assert run.outcomes[0].status is Status.CONVERGED
    assert run.outcomes[0].value == pytest.approx(best.objective, rel=1e-12)
    assert run.outcomes[0].excess <= 1e-10 * best.objective
    kept = [a.curvature is b.curvature for a, b in itertools.pairwise(states)]
    assert any(state.curvature.exact for state in states) == close
    if close:  # but at the very end, where the last one tells that nothing is left
        assert not any(kept[:-4])
    else:
        assert sum(kept) > len(kept) / 2
        assert all(state.spent for state in states)
