"""The benchmarks run, and their judge cannot be fooled."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import approx_fprime
from scipy.special import expit, logsumexp
from sklearn.linear_model import LogisticRegression

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MODULES = ("judge", "problem", "workloads", "worker", "suite", "report", "picture", "peers", "fit", "streaming_fits")
QUICK = ("torchlogit", "scikit-learn lbfgs", "scikit-learn liblinear primal", "celer")


@pytest.fixture
def benchmarks(monkeypatch):
    """Their folder is on the path, as when a script there is run; their short names go afterwards."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in list(sys.modules):
        if name.partition(".")[0] in MODULES and str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def asked(X, y, **fields):
    from problem import Problem

    return Problem("test", "test", X, y, **fields)


def judged(problem, coef, intercept):
    from judge import Judge

    return Judge(problem).certificate(coef, intercept)


def table(rng, rows=300, columns=4, classes=2):
    """Columns of other units than one, far from zero."""
    X = rng.standard_normal((rows, columns)) * [1, 10, 0.1, 2][:columns] + [3, 100, 0, -5][:columns]
    y = (X[:, 0] - 3 + rng.logistic(size=rows) > 0).astype(int) if classes == 2 else rng.integers(classes, size=rows)
    return X, y


def run(*arguments):
    environment = dict(os.environ)
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "fit.py"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_a_small_workload_from_the_walk_to_the_picture(tmp_path):
    before = (BENCHMARKS / "RESULTS.md").read_text(encoding="utf-8")
    kept, picture = tmp_path / "kept.jsonl", tmp_path / "picture.png"
    flags = ["--scale", "0.002", "--keep", str(kept), "--plot", str(picture)]
    flags += [word for name in QUICK for word in ("--peer", name)]
    done = run("--workload", "dense", "--workload", "predict-row", *flags)
    assert done.returncode == 0, done.stderr
    fits, predictions = (json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines())
    assert fits["title"] == "dense, 400 x 50"
    entries = {entry["peer"]: entry for entry in fits["entries"]}
    assert list(entries) == list(QUICK)
    assert entries["celer"]["refusal"] in ("only the L1 penalty", "not installed")
    for peer in QUICK[:3]:
        best = min(answer["certificate"]["objective"] for answer in entries[peer]["answers"])
        assert (best - fits["best"]) / fits["best"] <= 1e-6, peer
        assert any(len(answer["seconds"]) == 5 for answer in entries[peer]["answers"]), peer
    ours = entries["torchlogit"]["answers"][0]
    assert ours["certificate"]["standardised"] <= 1e-6
    assert ours["effort"]["passes"] > 0
    assert ours["memory"] >= 0
    assert all(answer["error"] <= 1e-6 for entry in predictions["entries"] for answer in entry["answers"])
    assert "| torchlogit | tol=1e-06 |" in done.stdout
    assert "Not asked: " in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert (BENCHMARKS / "RESULTS.md").read_text(encoding="utf-8") == before


@pytest.mark.slow
def test_a_fit_that_takes_too_long_is_stopped_and_the_others_go_on():
    peers = ["--peer", "scikit-learn saga", "--peer", "scikit-learn newton-cg"]
    done = run("--workload", "cancer-raw", "--limit", "0.1", *peers)  # saga takes ten times as long on a fast machine
    assert done.returncode == 0, done.stderr
    assert "scikit-learn saga (over 0.1 s at tol=0.0001)" in done.stdout
    assert "scikit-learn newton-cg" in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workload", "nothing"], "no such workload: nothing"),
        (["--peer", "nothing"], "no such peer: nothing"),
        (["--repeats", "3"], "fewer than 5"),
        (["--scale", "2"], "--scale is a share"),
    ],
)
def test_a_wrong_flag_is_one_sentence(flags, message):
    done = run(*flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_streamed_file_is_fitted_in_fresh_processes_and_judged(benchmarks, tmp_path):
    """Counted reads, the same coefficients from file and memory, and an optimum that the judge finds itself."""
    from streaming_fits import Job, write

    path, found = tmp_path / "rows.parquet", {}
    write(path, 20_000, 10)
    job = {**Job(str(path), 20_000, 10, 1, "2MB", tol=1e-10).__dict__, "answers": []}
    for name in ("torchlogit", "in memory", "judge"):
        given, result = tmp_path / "job.json", tmp_path / "result.json"
        given.write_text(json.dumps(job), encoding="utf-8")
        script = str(BENCHMARKS / "streaming_fits.py")
        subprocess.run([sys.executable, script, name, str(given), str(result)], timeout=120, check=True)
        found[name] = json.loads(result.read_text(encoding="utf-8"))
        if name != "judge":
            job["answers"].append([found[name]["coef"], found[name]["intercept"]])
            assert found[name]["certificate"]["kkt"] <= 1e-10
            assert found[name]["rchar"] / path.stat().st_size >= 1
            if name == "in memory":  # a wrong answer, which the judge is to see
                job["answers"].append([[1.01 * value for value in found[name]["coef"]], found[name]["intercept"]])
    assert np.abs(np.subtract(found["torchlogit"]["coef"], found["in memory"]["coef"])).max() <= 1e-8
    excess = np.array(found["judge"]["objectives"]) / found["judge"]["best"] - 1
    assert np.abs(excess[:2]).max() <= 1e-12
    assert excess[2] > 1e-6


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("layout", [np.asarray, scipy.sparse.csr_array])
def test_the_judge_differentiates_the_objective(benchmarks, rng, classes, layout):
    X, y = table(rng, classes=classes)
    problem, outputs = asked(layout(X), y, C=0.1), 1 if classes == 2 else classes
    theta = 0.01 * rng.standard_normal((outputs, X.shape[1] + 1))

    def value(flat):
        w, b = flat.reshape(outputs, -1)[:, :-1], flat.reshape(outputs, -1)[:, -1]
        eta = X @ w.T + b
        if outputs == 1:
            loss = np.logaddexp(0, np.where(y == 1, -1, 1) * eta[:, 0])
        else:
            loss = logsumexp(eta, axis=1) - eta[np.arange(len(y)), y]
        return loss.mean() + (w**2).sum() / (2 * 0.1 * len(y))

    slopes = approx_fprime(theta.ravel(), value, 1e-7).reshape(outputs, -1)
    found = judged(problem, theta[:, :-1], theta[:, -1])
    assert found.objective == pytest.approx(value(theta.ravel()), rel=1e-12)
    assert found.raw == pytest.approx(np.abs(slopes).max(), rel=1e-4)
    centred = (slopes[:, :-1] - X.mean(0) * slopes[:, -1:]) / X.std(0)
    assert found.standardised == pytest.approx(max(np.abs(centred).max(), np.abs(slopes[:, -1]).max()), rel=1e-3)


def test_the_judge_rejects_wrong_answers(benchmarks, rng):
    X, y = table(rng)
    problem = asked(X, y, C=0.5)

    def fit(**kw):
        model = LogisticRegression(**{"C": 0.5, "solver": "newton-cholesky", "tol": 1e-12, **kw}).fit(X, y)
        return model.coef_, model.intercept_

    w, b = fit()
    best = judged(problem, w, b)
    assert best.small_gradient
    assert best.small_excess(best.objective)
    wrong = {
        "other sign": (-w, -b),
        "a coefficient off by a hundredth": (w * [1.01, 1, 1, 1], b),
        "no intercept": (w, [0.0]),
        "penalty without its half": fit(C=0.25),
        "penalty of a mean": fit(C=0.5 * len(y)),
        "intercept penalised": fit(solver="liblinear", max_iter=10_000),
        "not a number": (w * math.nan, b),
    }
    for what, (coef, intercept) in wrong.items():
        found = judged(problem, coef, intercept)
        assert not found.small_gradient, what
        assert not found.small_excess(best.objective), what
    with pytest.raises(ValueError, match="an answer has shapes"):
        judged(problem, w.T, b)


KINDS = {"l2": {}, "sparse": {}, "classes": {}, "none": {"C": math.inf}, "l1": {"l1": True, "intercept": False}}


@pytest.mark.parametrize("kind", KINDS)
def test_every_adapter_asks_the_same_question(benchmarks, rng, kind):
    """Penalties of sums and of means, halves, penalised intercepts: the judge finds all of them at one optimum."""
    from judge import Judge
    from peers import PEERS

    X = rng.standard_normal((300, 3)) * [1, 2, 0.5] + [0, 1, 0]
    y = (X[:, 0] + 1 + rng.logistic(size=300) > 0).astype(int) + (kind == "classes") * rng.integers(2, size=300)
    problem = asked(scipy.sparse.csr_array(X) if kind == "sparse" else X, y, **{"C": 0.05, **KINDS[kind]})
    judge, found = Judge(problem), {}
    for peer in PEERS:
        if not peer.installed or peer.refuses(problem) or (kind == "l1" and peer.name == "torchlogit"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer.prepare(problem)
            for setting in peer.settings[: 1 if peer.name == "PyTorch Adam" else 3]:
                peer.arrange(problem, setting)
                model = peer.fit(problem, **setting)
                found.setdefault(peer.name, []).append(judge.certificate(*peer.answer(problem, model)))
    best = min(one.objective for several in found.values() for one in several)
    far = {name: min(one.excess(best) for one in several) for name, several in found.items()}
    assert max(far.pop("PyTorch Adam", 0.0), 0.0) < 10  # it never gets there
    assert {name: excess for name, excess in far.items() if excess > 1e-6} == {}
    assert len(far) >= (2 if kind in ("l1", "none") else 4)


def test_the_judge_knows_l1_without_an_intercept(benchmarks, rng):
    X, y = rng.standard_normal((400, 6)), rng.integers(2, size=400)
    problem = asked(X, y, C=0.05, l1=True, intercept=False)
    model = LogisticRegression(
        C=0.05, l1_ratio=1, solver="saga", fit_intercept=False, tol=1e-12, max_iter=100_000, random_state=0
    ).fit(X, y)
    found = judged(problem, model.coef_, [0.0])
    assert (model.coef_ == 0).any()
    assert found.raw < 1e-9
    assert found.standardised < 1e-9
    pushed = np.where(model.coef_ == 0, 0.01, model.coef_)
    assert not judged(problem, pushed, [0.0]).small_gradient


def test_a_far_column_is_judged_in_its_own_spread(benchmarks, rng):
    """The null model of a year: its raw gradient is small beside its mean, and it is not at the optimum."""
    year = 2000 + rng.standard_normal((500, 1))
    y = (rng.random(500) < expit(3 * (year[:, 0] - 2000))).astype(int)
    found = judged(asked(year, y, C=math.inf), [[0.0]], [math.log(y.mean() / (1 - y.mean()))])
    assert found.standardised > 0.1


def test_wrong_probabilities_are_seen(benchmarks, rng):
    from judge import error_of_probabilities

    X = rng.standard_normal((50, 3))
    right = expit(X @ [1.0, -2.0, 0.5] + 0.25)
    assert error_of_probabilities(X, [[1.0, -2.0, 0.5]], [0.25], right) < 1e-12
    assert error_of_probabilities(X, [[1.0, -2.0, 0.5]], [0.25], 1 - right) > 0.1


def test_a_slower_package_that_reaches_further_is_not_compared_before_the_others_do(benchmarks):
    """The mark is the best answer of anybody; a row has a ratio only under a rule that its answer keeps."""
    from judge import Certificate
    from report import fits
    from suite import Answer, Entry, Outcome

    def answer(tol, objective, slope, seconds):
        return Answer({"tol": tol}, Certificate(objective, slope, slope), None, seconds, {}, [seconds] * 5)

    ours = Entry("torchlogit", answers=[answer(1e-6, 0.5, 1e-8, 1.0)])
    loose = Entry("loose", answers=[answer(1e-4, 0.5 + 1e-7, 1e-4, 2.0), answer(1e-6, 0.5, 1e-7, 4.0)])
    never = Entry("never", answers=[answer(1e-4, 0.6, 1e-2, 0.1)], ended="no tighter setting")
    rows = fits(Outcome("test", "test", "", 1, 0.5, 1.0, [ours, loose, never]))[2:]
    ends = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [(cells[0], *cells[-2:]) for cells in ends] == [
        ("torchlogit", "1.00", "1.00"),
        ("loose", "–", "2.00"),
        ("loose", "4.00", "–"),
        ("never", "–", "–"),
    ]
    assert "neither: no tighter setting" in rows[-1]


def test_every_workload_can_be_made_small(benchmarks):
    from workloads import WORKLOADS

    for name, workload in WORKLOADS.items():
        if workload.needs is not None and not workload.needs.exists():
            continue
        X, y = workload.make(0.001)
        assert X.shape[0] == len(y), name
        assert np.array_equal(np.unique(y), np.arange(y.max() + 1)), name
        if name.startswith("tfidf"):
            assert np.allclose(np.sqrt(X.power(2).sum(axis=1)), 1)
