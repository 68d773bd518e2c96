"""The right optimum, on raw columns: against an independent Newton method, with the certificate recomputed."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import sklearn.datasets

from torchlogit import LogisticRegression
from truth.newton_reference import certificate_of, objective_of, optimum, row_terms, standardise

DEFAULT, TIGHT = 1e-6, 1e-10


def strength(C, weight_total):
    return 0.0 if np.isinf(C) else 1 / (C * weight_total)


def exact_theta(model):
    """Raw float64 coefficients ``(K, p + 1)``."""
    return np.column_stack([model.coef_.astype(float), model.intercept_.astype(float)])


def condition(X, y, theta, l2):
    """Condition number of the second derivative in standardised units, on the directions that the objective sees."""
    n, weight = len(y), np.ones(len(y))
    Z, mean, scale = standardise(X, weight, True)
    Z = np.column_stack([Z, np.ones(n)])
    eta = X @ theta[:, :-1].T + theta[:, -1]
    K = theta.shape[0]
    ridge = np.append(l2 / scale**2, 0.0)
    if K == 1:
        bend = np.exp(-np.abs(eta[:, 0])) / (1 + np.exp(-np.abs(eta[:, 0]))) ** 2
        H = (Z * bend[:, None]).T @ Z / n + np.diag(ridge)
        values = np.linalg.eigvalsh(H)
        return values[-1] / max(values[0], 1e-300)
    p = row_terms(eta, y)[2]
    D = Z.shape[1]
    H = np.empty((K * D, K * D))
    for a in range(K):
        for b in range(K):
            bend = p[:, a] * ((a == b) - p[:, b])
            H[a * D : (a + 1) * D, b * D : (b + 1) * D] = (Z * bend[:, None]).T @ Z / n + (a == b) * np.diag(ridge)
    values = np.linalg.eigvalsh(H)[D if l2 == 0 else 1 :]  # shifts of all classes are free
    return values[-1] / max(values[0], 1e-300)


def check(X, y, C, tight=True):
    """Both tolerances of the contract; warnings are errors."""
    X, y = np.asarray(X, dtype=float), np.asarray(y)
    l2 = strength(C, len(y))
    best = optimum(X, y, l2)
    assert not best.separated
    assert best.decrement < 1e-13
    model = LogisticRegression(C=C).fit(X, y)
    theta = exact_theta(model)
    assert model.converged_
    assert objective_of(theta, X, y, l2) <= best.objective * (1 + 1e-6)
    assert model.objective_ == pytest.approx(best.objective, rel=1e-6)
    assert certificate_of(theta, X, y, l2) <= DEFAULT
    if theta.shape[0] > 1:
        assert np.abs(theta.sum(0)).max() <= 1e-9 * np.abs(theta).max()
    if not tight:
        return
    model = LogisticRegression(C=C, tol=TIGHT).fit(X, y)
    theta = exact_theta(model)
    assert model.converged_
    assert objective_of(theta, X, y, l2) == pytest.approx(best.objective, rel=1e-11)
    assert certificate_of(theta, X, y, l2) <= TIGHT
    if condition(X, y, best.theta, l2) <= 1e6:
        largest = np.abs(best.theta[:, :-1]).max()
        np.testing.assert_allclose(theta[:, :-1], best.theta[:, :-1], rtol=0, atol=1e-6 * largest)


BUNDLED = {
    "breast cancer": sklearn.datasets.load_breast_cancer,
    "iris": sklearn.datasets.load_iris,
    "wine": sklearn.datasets.load_wine,
}


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("name", BUNDLED)
def test_bundled(name, C):
    X, y = BUNDLED[name](return_X_y=True)
    check(X, y, C)


def test_digits():
    X, y = sklearn.datasets.load_digits(return_X_y=True)
    check(X[:250, 16:48], y[:250], 1e-3, tight=False)


@pytest.mark.parametrize("C", [1e-3, 1e3, np.inf])
def test_spambase(shared_data, C):
    rows = np.loadtxt(shared_data / "spambase.csv", delimiter=",", skiprows=1)
    check(rows[:, :-1], rows[:, -1].astype(int), C)


@pytest.mark.parametrize("C", [1.0, np.inf])
def test_higgs(shared_data, C):
    with gzip.open(shared_data / "higgs_7k.train.tsv.gz") as file:
        rows = np.loadtxt(file)
    check(rows[:, 1:], rows[:, 0].astype(int), C)


@pytest.mark.parametrize("C", [1e-3, np.inf])
def test_a_quarter_of_a_million_mothers(shared_data, C):
    """Yes and no, ages and weeks: 254,654 rows in raw units, and the identifier among the columns."""
    pd = pytest.importorskip("pandas")
    frame = pd.read_parquet(shared_data / "fertility.parquet")
    y = (frame.pop("morekids") == "yes").astype(int).to_numpy()
    X = frame.apply(lambda column: column if column.dtype.kind in "if" else (column.isin(["yes", "male"])).astype(int))
    X = X.astype(float)
    check(X.to_numpy(), y, C, tight=np.isinf(C))


def test_sparse_zeros_and_ones(a9a):
    X, y = a9a[0][:8000], a9a[1][:8000]
    columns = np.asarray(X.sum(0)).ravel() > 0
    l2 = strength(1.0, len(y))
    model = LogisticRegression().fit(X, y)
    dense = X.toarray()
    theta = exact_theta(model)
    assert certificate_of(theta, dense, y, l2) <= DEFAULT
    best = optimum(dense[:, columns], y, l2)
    assert objective_of(theta, dense, y, l2) <= best.objective * (1 + 1e-6)


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3, np.inf])
@pytest.mark.parametrize("name", ["wells", "birthwt"])
def test_textbook(wells, birthwt, name, C):
    if name == "wells":
        frame, columns, target = wells, ["arsenic", "dist100", "assoc", "educ"], "switch"
    else:
        frame, columns = birthwt, ["age", "lwt", "race2", "race3", "smoke", "ptl", "ht", "ui", "ftv"]
        target = "low"
    check(frame[columns].to_numpy(float), frame[target].to_numpy(), C)


# -- generated ------------------------------------------------------------------------------------------------------


def generated(seed, n, p, K=2, log_condition=0.0, far=0.0):
    """Overlapping classes; columns mixed so that their condition number is as asked, then moved and rescaled."""
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(n, p))
    y = np.append(np.arange(K), rng.integers(0, K, n - K))
    if n > 10 * p * K:
        y = (Z @ rng.normal(size=(p, K)) / np.sqrt(p) + rng.gumbel(size=(n, K))).argmax(1)
    if log_condition:
        left, right = (np.linalg.qr(rng.normal(size=(p, p)))[0] for _ in range(2))
        Z = Z @ (left * 10 ** -np.linspace(0, log_condition / 2, p)) @ right
    units = 10.0 ** rng.uniform(-4, 4, p)
    return (Z + far * rng.normal(size=p)) * units, y


SHAPES = [
    # seed, n, p, K, log10 of the condition number, distance of the means in deviations
    (0, 3, 1, 2, 0, 0),
    (1, 5, 4, 3, 0, 1),
    (2, 40, 3, 2, 0, 1e3),
    (3, 400, 8, 2, 4, 10),
    (4, 400, 8, 3, 6, 0),
    (5, 600, 10, 2, 12, 0),
    (6, 60, 150, 2, 0, 1),
    (7, 800, 5, 12, 0, 5),
    (8, 5000, 30, 2, 0, 100),
]


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"n={s[1]} p={s[2]} K={s[3]} cond=1e{s[4]} far={s[5]:g}")
def test_generated(shape, C):
    X, y = generated(*shape)
    check(X, y, C)


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[1] > 10 * s[2] * s[3]], ids=str)
def test_generated_without_a_penalty(shape):
    X, y = generated(*shape)
    check(X, y, np.inf)


@pytest.mark.parametrize("shape", [(20, 200_000, 4, 2, 0, 3), (21, 60_000, 6, 3, 0, 3)], ids=str)
def test_many_rows(shape):
    X, y = generated(*shape)
    check(X, y, np.inf, tight=False)


def test_many_columns():
    """2,000 columns, fewer rows. The penalty is round, so the reference may turn the rows into 300 columns first."""
    rng = np.random.default_rng(22)
    X = (rng.normal(size=(300, 2000)) + 5 * rng.normal(size=2000)) * 10.0 ** rng.uniform(-1, 1, 2000)
    y = rng.integers(0, 2, 300)
    l2 = strength(1e-3, len(y))
    model = LogisticRegression(C=1e-3).fit(X, y)
    theta = exact_theta(model)
    assert model.converged_
    assert certificate_of(theta, X, y, l2) <= DEFAULT
    turned = np.linalg.svd(X, full_matrices=False)
    best = optimum(turned[0] * turned[1], y, l2, iterations=40)
    assert objective_of(theta, X, y, l2) == pytest.approx(best.objective, rel=1e-6)


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
def test_fifty_classes(C):
    X, y = generated(23, 400, 3, 50, 0, 2)
    check(X, y, C, tight=C == 1.0)


def test_years_timestamps_and_identifiers():
    rng = np.random.default_rng(30)
    n = 2000
    year = rng.integers(1950, 2025, n).astype(float)
    time = 1.6e9 + rng.uniform(0, 3e7, n)
    identifier = 9.1e11 + rng.permutation(n)
    eta = 0.05 * (year - 1990) + (time - 1.615e9) / 1e7 + rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int)
    X = np.column_stack([year, time, identifier])
    centre = np.array([1990.0, 1.615e9, 9.1e11 + n / 2])
    units = np.array([10.0, 1e7, 1e3])
    for C in (1.0, np.inf):
        model = LogisticRegression(C=C, tol=TIGHT).fit(X, y)
        assert model.converged_
        Z = (X - centre) / units  # exact differences: the reference sees harmless columns
        if np.isinf(C):
            best = optimum(Z, y, 0.0)
            ours = model.decision_function(X)
            theirs = Z @ best.theta[0, :-1] + best.theta[0, -1]
            np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-7)
        assert np.abs(model.predict_proba(X)[:, 1].mean() - y.mean()) < 1e-9


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("K", [2, 3])
def test_weights_offsets_and_no_intercept(rng, fit_intercept, K):
    X, y = generated(31, 500, 4, K, 0, 2)
    weight = rng.choice([0.0, 0.3, 1.0, 5.0], len(y))
    offset = rng.normal(size=(len(y), 1 if K == 2 else K))
    l2 = strength(2.0, weight.sum())
    best = optimum(X, y, l2, weight, offset, fit_intercept, K)
    model = LogisticRegression(C=2.0, tol=TIGHT, fit_intercept=fit_intercept)
    model.fit(X, y, sample_weight=weight, offset=offset if K > 2 else offset[:, 0])
    theta = exact_theta(model)
    assert objective_of(theta, X, y, l2, weight, offset) == pytest.approx(best.objective, rel=1e-11)
    assert certificate_of(theta, X, y, l2, weight, offset, fit_intercept) <= TIGHT
    if not fit_intercept:
        assert (model.intercept_ == 0).all()
