"""The compiled kernel among threads, forks and processes, without a cache to write to, and where it must not be."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

import torchlogit.plan
from contracts.problems import objective_from, sparse_rows
from torchlogit.fit import Fit, Problem
from torchlogit.kernels import KERNELS, numba_cpu
from torchlogit.losses import loss_for
from torchlogit.penalties import ElasticNet
from torchlogit.plan import kernel_for
from torchlogit.problem import Block, FitOptions, Frame
from torchlogit.sources import MemorySource
from torchlogit.threads import add_in_order, at_once, one_thread_each, standing_helpers, sweepers

KINDS = ("dense", "sparse", "text")


def _block(kind, rows=3_000):
    rng = np.random.default_rng(0)
    classes = 5 if kind == "text" else 2
    target = torch.from_numpy(rng.integers(0, classes, rows))
    if kind == "dense":
        return Block(target, dense=torch.from_numpy(rng.normal(size=(rows, 20)))), classes
    matrix = scipy.sparse.random_array((rows, 60), density=0.1, format="csr", rng=rng)
    return Block(target, sparse=sparse_rows(matrix)), classes


def _sums(kind):
    """Everything the kernel sums for a block, as bytes."""
    block, classes = _block(kind)
    loss = loss_for(classes)
    frame = Frame(torch.linspace(-1, 1, block.features).double(), torch.linspace(0.5, 2, block.features).double())
    theta = torch.from_numpy(np.random.default_rng(1).normal(size=(1, loss.outputs, block.features + 1)))
    kernel = KERNELS["numba"](loss, frame)
    swept, bent = kernel.value_gradient(block, theta), kernel.curvature_product(block, theta, theta)
    diagonal = kernel.gram_diagonal(block, theta)
    parts = (swept.loss, swept.gradient, swept.margin, bent.product, diagonal.diagonal, diagonal.cross)
    return b"".join(part.numpy().tobytes() for part in parts)


def _fitted(kind, kernel="numba"):
    block, classes = _block(kind)
    loss = loss_for(classes)
    fit = Fit(Problem(MemorySource(block, loss.outputs), loss, [ElasticNet(l2=0.01)], kernel=kernel), FitOptions())
    for _ in fit.steps():
        pass
    assert fit.results()[0].converged
    return fit.results()[0].theta.numpy()


@pytest.fixture
def _two_threads(monkeypatch):
    """Small blocks on two threads all the same."""
    monkeypatch.setattr(numba_cpu, "_ELEMENTS_PER_THREAD", 100)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _in_child(function):
    """What a forked child computes."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns where other threads run
        child = os.fork()
    if child == 0:
        status = 1
        try:
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(function(), pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        result = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return pickle.loads(result)


@pytest.mark.usefixtures("_two_threads")
class TestSameBits:
    @pytest.mark.parametrize("kind", KINDS)
    def test_again_and_in_four_threads_at_once(self, kind):
        once = _sums(kind)
        assert once == _sums(kind)
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(_sums, [kind] * 8)) == {once}

    @pytest.mark.parametrize("kind", KINDS)
    def test_in_a_forked_child(self, kind):
        once = _sums(kind)
        assert _in_child(lambda: _sums(kind)) == once

    def test_in_another_process(self):
        code = (
            "import sys, torch; sys.path.insert(0, 'tests')\n"
            "from edge import test_threads_and_forks as here\n"
            "torch.set_num_threads(2); here.numba_cpu._ELEMENTS_PER_THREAD = 100\n"
            "sys.stdout.buffer.write(b''.join(map(here._sums, here.KINDS)))"
        )
        root = Path(__file__).parents[2]
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=root, check=True, timeout=600)
        assert done.stdout == b"".join(map(_sums, KINDS))

    @pytest.mark.parametrize("kind", KINDS)
    def test_as_one_thread_up_to_rounding(self, kind):
        two = np.frombuffer(_sums(kind))
        torch.set_num_threads(1)
        one = np.frombuffer(_sums(kind))
        np.testing.assert_allclose(two, one, rtol=1e-12, atol=1e-12 * np.abs(one).max())


@pytest.mark.parametrize("kind", KINDS)
def test_fits_agree_with_the_torch_kernel_also_in_a_forked_child(kind):
    mine = _fitted(kind)
    np.testing.assert_allclose(mine, _fitted(kind, "torch"), rtol=1e-7, atol=1e-9)
    if kind == "dense":  # BLAS in a child of a process that has used it may hang: only the loops are at issue
        torch.set_num_threads(1)
    np.testing.assert_array_equal(_in_child(lambda: _fitted(kind)), mine)


def test_an_error_in_a_thread_arrives():
    def fail():
        raise RuntimeError("in the second range")

    with pytest.raises(RuntimeError, match="second range"):
        at_once([lambda: None, fail])


@pytest.fixture
def threads():
    """Sets torch's number of threads; the old one comes back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_are_added_in_order_by_whichever_thread(count, threads):
    """Later items may be ready long before earlier ones."""
    threads(count)
    added, first = [], threading.Event()

    def slow_at_first(i, item):
        if i == 0 and count > 1:
            assert first.wait(60)  # another thread has an item
        elif i == 1:
            first.set()
        assert torch.get_num_threads() == 1
        return i, item * 2

    add_in_order(slow_at_first, iter(range(10, 60)), added.append, count)
    assert added == [(i, 20 + 2 * i) for i in range(50)]
    assert torch.get_num_threads() == count


def _idents(count=3):
    """The threads that so many calls run on, all at the same time."""
    found, together = [], threading.Barrier(count)

    def call():
        together.wait(60)
        found.append(threading.get_ident())

    at_once([call] * count)
    return set(found)


def test_helpers_stay_as_long_as_they_are_wanted():
    before = threading.active_count()
    with standing_helpers():
        first = _idents()
        with standing_helpers():
            assert _idents() == first
        assert _idents(2) < first
        assert first < _idents(5)
        inner = []
        at_once([lambda: inner.append(_idents(2)), lambda: inner.append(_idents(2))])  # those of one beside the other's
        assert len(inner) == 2
    assert threading.active_count() == before
    _idents()
    assert threading.active_count() == before


def test_helpers_that_were_left_at_work_are_not_asked_again(monkeypatch):
    """An interruption does not wait for them."""
    going, before = threading.Event(), threading.active_count()
    with standing_helpers():
        with monkeypatch.context() as interrupted:
            interrupted.setattr(torchlogit.threads._Helper, "join", _interrupt)
            with pytest.raises(KeyboardInterrupt):
                at_once([lambda: None, lambda: going.wait(60)])
        assert len(_idents()) == 3
        going.set()
    _wait_until(lambda: threading.active_count() == before)


def _interrupt(helper):
    raise KeyboardInterrupt


def _wait_until(true):
    for _ in range(6_000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never was")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_helpers_of_its_own():
    with standing_helpers():
        _idents()
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if len(_idents()) == 3 else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0


def test_nobody_is_far_ahead_of_what_has_been_added(threads):
    """Results that wait would be all the memory there is."""
    threads(3)
    made, added, ahead = [], [], []

    def make(i, item):
        made.append(i)
        return i

    def add(i):
        time.sleep(0.001)
        added.append(i)
        ahead.append(len(made) - len(added))

    add_in_order(make, range(200), add, 3)
    assert added == list(range(200))
    assert max(ahead) <= 4 * 3 + 3


def test_an_error_in_adding_arrives():
    """Nobody waits for ever for what is not added any more."""

    def fails(i):
        if i == 40:
            raise MemoryError("sum 40")

    with pytest.raises(MemoryError, match="sum 40"):
        add_in_order(lambda i, item: item, range(100_000), fails, 3)


def test_an_error_in_a_sweep_arrives():
    """Of a block that another thread was given."""

    def fails_late(i, item):
        if i == 7:
            raise MemoryError("block 7")
        return item

    with pytest.raises(MemoryError, match="block 7"):
        add_in_order(fails_late, range(100), lambda _: None, 3)


def test_sweeps_have_the_same_bits_for_any_number_of_threads(threads):
    """Blocks are shared among threads, and added up in their order; a BLAS that shares a product may not."""
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(12_000, 120)), rng.integers(0, 8, 12_000)
    objective = objective_from(X, y, 1e-3, weight=rng.random(12_000))
    assert len(list(objective.source.blocks())) == 4
    lanes, u, v = objective.all_lanes(), *torch.from_numpy(rng.normal(size=(2, 1, 8, 121)) / 10)
    found = []
    for count in (1, 2, 3):
        threads(count)
        assert sweepers(objective.source, 8) == count
        with one_thread_each():
            evaluation = objective.value_gradient(u, lanes)
            product = objective.curvature_at(u, lanes, rounded=True)
            with ThreadPoolExecutor(2) as pool:  # and so for whoever asks beside another
                both = list(pool.map(lambda _: objective.curvature_product(u, v, lanes), range(2)))
            found.append((evaluation.value, evaluation.gradient, product(v), product(v), *both))
    for others in found[1:]:
        assert all(torch.equal(here, there) for here, there in zip(found[0], others, strict=True))


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_grid_search_in_two_workers(backend):
    import joblib
    from sklearn.model_selection import GridSearchCV

    from torchlogit import LogisticRegression

    class Compiled(LogisticRegression):  # local, so that it travels to the workers by value
        def fit(self, X, y):
            import torchlogit.plan as table

            table._WORTH_LOOPS = 0
            fitted = super().fit(X, y)
            assert fitted.plan_.kernel == "numba"
            return fitted

    block, _ = _block("dense")
    X, y = block.dense.numpy(), block.target.numpy()
    threshold = torchlogit.plan._WORTH_LOOPS
    try:
        with joblib.parallel_backend(backend, n_jobs=2):
            grid = GridSearchCV(Compiled(), {"C": [0.1, 1.0]}, cv=2, error_score="raise").fit(X, y)
    finally:
        torchlogit.plan._WORTH_LOOPS = threshold
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()


class TestWhereItIsUsed:
    def test_small_fits_do_not_import_numba(self):
        code = (
            "import sys, numpy as np, torchlogit\n"
            "rng = np.random.default_rng(0)\n"
            "X, y = rng.normal(size=(5000, 20)), rng.integers(0, 3, 5000)\n"
            "torchlogit.LogisticRegression().fit(X, y).predict(X)\n"
            "torchlogit.LogisticRegression().fit(X, y > 0)\n"
            "assert 'numba' not in sys.modules and 'llvmlite' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=300)

    def test_importing_the_estimator_imports_nothing_that_fits(self):
        code = (
            "import sys\n"
            "from torchlogit import LogisticRegression\n"
            "assert 'torchlogit.fit' not in sys.modules and 'torchlogit.solvers' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=300)

    def test_the_plan_says_why(self):
        target = torch.zeros(1, dtype=torch.int64).expand(3_000_000)
        long = Block(target, dense=torch.zeros(1, 20).expand(3_000_000, -1))
        name, why = kernel_for(MemorySource(long), loss_for(2))
        assert name == "numba"
        assert "60,000,000 numbers" in why
        assert kernel_for(MemorySource(long), loss_for(10))[0] == "torch"
        assert kernel_for(MemorySource(long), loss_for(2), lanes=10)[0] == "torch"
        assert kernel_for(MemorySource(long.slice(0, 1000)), loss_for(2))[0] == "torch"

    def test_without_a_directory_for_what_is_compiled(self, tmp_path):
        """Package, home and cache cannot be written: compiled again in every process, and that is all."""
        code = (
            "import numba.core.caching as caching\n"
            "class Unwritable:\n"
            "    @classmethod\n"
            "    def from_function(cls, *_): return None\n"
            "caching.CacheImpl._locator_classes = [Unwritable]\n"
            "import torch\n"
            "from torchlogit.kernels import KERNELS\n"
            "from torchlogit.losses import loss_for\n"
            "from torchlogit.problem import Block, Frame\n"
            "kernel = KERNELS['numba'](loss_for(2), Frame(torch.zeros(2).double(), torch.ones(2).double()))\n"
            "block = Block(torch.tensor([0, 1]), dense=torch.eye(2).double())\n"
            "print(float(kernel.value_gradient(block, torch.zeros(1, 1, 3).double()).loss))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600, cwd=tmp_path
        )
        assert float(done.stdout) == pytest.approx(2 * np.log(2))
        assert done.stderr == ""
