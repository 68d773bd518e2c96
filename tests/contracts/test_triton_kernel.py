"""What only the loops for CUDA devices promise; Triton's interpreter runs them on CPU tensors."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from contracts.problems import block_of, objective_from
from torchlogit.kernels import KERNELS, ReferenceKernel, TorchKernel, kernel_of, triton_cuda
from torchlogit.losses import Binomial, Multinomial
from torchlogit.problem import Block, Frame

pytestmark = pytest.mark.skipif(not triton_cuda.installed(), reason="Triton is not installed: it runs these loops")
FIELDS = ("weight", "loss", "gradient", "margin")


def _problem(rng, rows=45, columns=21, lanes=3, dtype=torch.float64):
    dense = torch.from_numpy(rng.normal(size=(rows, columns)) * 3 + 40).to(dtype)
    block = Block(
        torch.from_numpy(rng.integers(0, 2, (rows, lanes))),
        dense=dense,
        weight=torch.from_numpy(rng.choice([0.0, 0.5, 2.0], (rows, lanes))),
        offset=torch.from_numpy(rng.normal(size=(rows, lanes, 1))),
    )
    frame = Frame(torch.linspace(39, 41, columns).double(), torch.linspace(1, 4, columns).double())
    return block, torch.from_numpy(rng.normal(size=(4, 1, columns + 1))), frame, torch.tensor([2, 0, 1, 2])


def _never(*_arguments, **_named):
    raise AssertionError("these rows were left to the torch kernel")


@pytest.mark.parametrize("columns", [1, 5, 8, 17, 32, 33, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rows_that_fit_the_registers(rng, monkeypatch, columns, dtype):
    """One to four tiles of columns, eight of float64, whole ones or not, more rows than the programs take at once."""
    monkeypatch.setattr(triton_cuda, "_HELD_AT_ONCE", 2)
    monkeypatch.setattr(triton_cuda, "_LINE_BYTES", 8 * dtype.itemsize)
    block, theta, frame, lanes = _problem(rng, 100, columns, dtype=dtype)
    expected = ReferenceKernel(Binomial(), frame).value_gradient(block, theta[:1], lanes[:1])
    monkeypatch.setattr(TorchKernel, "value_gradient", _never)
    for precision, close in ((torch.float64, 1e-12), (torch.float32, 3e-6)):
        kernel = triton_cuda.TritonKernel(Binomial(), frame, sweep_dtype=precision)
        held = precision.itemsize <= dtype.itemsize and (columns <= 32 or dtype == torch.float64)
        shape = triton_cuda.Shape.of(block.dense, 1, precision)
        assert shape.strips == (-(-columns // 8) if held else 0)
        assert shape.chunk == (8 if held and columns > 32 else 32)
        assert shape.vector == (16 // dtype.itemsize if columns % 8 == 0 else 1)
        swept = kernel.value_gradient(block, theta[:1], lanes[:1])
        for field in FIELDS:
            mine, wanted = getattr(swept, field), getattr(expected, field)
            torch.testing.assert_close(mine, wanted, rtol=close, atol=close * float(wanted.abs().max()))


@pytest.mark.parametrize("columns", [1, 8, 37])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_moments_of_columns(rng, monkeypatch, columns, dtype, weighted):
    """Sums of distances from an anchor; constants stay exact, and what is not finite is seen."""
    monkeypatch.setattr(triton_cuda, "_MOMENTS_AT_ONCE", 3)
    monkeypatch.setattr(triton_cuda, "_LINE_BYTES", 8 * dtype.itemsize)
    x = torch.from_numpy(rng.normal(size=(200, columns)) * 3 + 1000).to(dtype)
    x[:, 0] = 0.1
    weight = torch.from_numpy(rng.uniform(0.5, 2.0, (200, 1)))
    block = Block(torch.zeros(200, dtype=torch.int64), dense=x, weight=weight if weighted else None)
    held, first, second, largest, stored = triton_cuda.dense_moments(block, x[0].double())
    distance, share = x.double() - x[0].double(), weight if weighted else torch.ones(200, 1, dtype=torch.float64)
    torch.testing.assert_close(held, share.sum().expand(1, columns), rtol=1e-13, atol=0)
    torch.testing.assert_close(first, (share * distance).sum(0)[None], rtol=1e-12, atol=1e-11)
    torch.testing.assert_close(second, (share * distance.square()).sum(0)[None], rtol=1e-13, atol=0)
    assert torch.equal(largest, distance.abs().amax(0))
    assert torch.equal(stored, torch.full((1, columns), 200.0).double())
    assert float(first[0, 0]) == float(second[0, 0]) == 0.0
    x[17, -1] = float("inf")
    assert not bool(torch.isfinite(triton_cuda.dense_moments(block, torch.zeros(columns).double())[1][0, -1]))


def test_moments_that_the_loops_do_not_find(rng):
    """Of several lanes' weights, of no columns and of whole numbers."""
    for change in ({"weight": torch.ones(5, 2)}, {"dense": torch.ones(5, 0)}, {"dense": torch.ones(5, 2).half()}):
        block = Block(torch.zeros(5, dtype=torch.int64), **({"dense": torch.ones(5, 2)} | change))
        assert triton_cuda.dense_moments(block, torch.zeros(2).double()) is None


def test_rounding_in_float32_products_averages_out(rng):
    """Of sums of n rows at most some 1e-7 times their root is left; a device's fused products do better."""
    dense = torch.from_numpy(rng.normal(size=(3000, 4))).float()
    block, frame = Block(torch.from_numpy(rng.integers(0, 2, 3000)), dense=dense), Frame(
        torch.zeros(4).double(), torch.ones(4).double()
    )  # fmt: skip
    theta = torch.tensor([[[1 + 2e-8, -1 + 3e-8, 1 / 3, 1e-8, 0.5]]], dtype=torch.float64)
    kernel = triton_cuda.TritonKernel(Binomial(), frame, sweep_dtype=torch.float32)
    swept = kernel.value_gradient(block, theta)
    expected = ReferenceKernel(Binomial(), frame).value_gradient(block, theta)
    torch.testing.assert_close(swept.gradient / 3000, expected.gradient / 3000, rtol=0, atol=1e-8)
    torch.testing.assert_close(swept.loss, expected.loss, rtol=3e-8, atol=0)
    assert kernel.dtype == torch.float64


@pytest.mark.parametrize(
    ("dtype", "rows", "tol", "expected"),
    [
        (torch.float32, 1_000_000, 1e-6, torch.float32),
        (torch.float32, 1_000_000, 1e-9, torch.float64),
        (torch.float32, 1_000, 1e-6, torch.float64),
        (torch.float64, 1_000_000, 1e-6, torch.float64),
    ],
)
def test_products_are_as_precise_as_the_certificate_needs(dtype, rows, tol, expected):
    frame = Frame(torch.zeros(1).double(), torch.ones(1).double())
    assert kernel_of("triton", Binomial(), frame, dtype, rows, tol).sweep_dtype == expected


@pytest.mark.parametrize("shape", [(4096, 32, 128), (2, 8, 32)], ids=["one tile", "many tiles"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_loops_themselves_agree_with_the_reference(rng, monkeypatch, shape, dtype):
    """Programs that take chunk after chunk, rows of more columns than a tile has."""
    for name, value in zip(("_PROGRAMS", "_CHUNK", "_LINE_BYTES"), shape, strict=True):
        monkeypatch.setattr(triton_cuda, name, value)
    block, theta, frame, lanes = _problem(rng, dtype=dtype)
    oracle = ReferenceKernel(Binomial(), frame).curvature_product(block, theta, theta.flip(0), lanes)
    for name in ("value_gradient", "curvature_product", "row_curvature"):
        monkeypatch.setattr(TorchKernel, name, _never)
    for precision, close in ((torch.float64, 1e-12), (torch.float32, 3e-6)):
        kernel = KERNELS["triton"](Binomial(), frame, precision)
        swept = kernel.value_gradient(block, theta, lanes)
        bent = kernel.curvature_product(block, theta, theta.flip(0), lanes, kernel.row_curvature(block, theta, lanes))
        pairs = [(getattr(swept, field), getattr(oracle, field)) for field in FIELDS]
        for mine, expected in [*pairs, (bent.product, oracle.product)]:
            torch.testing.assert_close(mine, expected, rtol=close, atol=close * float(expected.abs().max()))
        again = kernel.value_gradient(block, theta, lanes)
        assert all(torch.equal(getattr(swept, field), getattr(again, field)) for field in FIELDS)


def test_the_objective_keeps_what_the_loops_give_it(rng):
    """Which is nothing: their row curvatures cost no read."""
    X = rng.normal(size=(60, 3))
    y = (X[:, 0] + rng.logistic(size=60) > 0).astype(int)
    direction = torch.from_numpy(rng.normal(size=(1, 1, 4)))
    bent = {}
    for name in ("triton", "reference"):
        objective = objective_from(X, y, 0.01, kernel=name)
        product = objective.curvature_at(objective.zeros() + 0.1, objective.all_lanes())
        bent[name] = product(direction)
        assert torch.equal(product(direction), bent[name])
    torch.testing.assert_close(bent["triton"], bent["reference"], rtol=1e-12, atol=1e-14)


def test_what_the_loops_do_not_take_is_cut_for_the_torch_kernel(rng, monkeypatch):
    monkeypatch.setattr(triton_cuda, "_PIECE_ROWS", 64)
    monkeypatch.setattr(triton_cuda, "MOST_POINTS", 3)
    block, theta, frame, lanes = _problem(rng, rows=170)
    mine, other = KERNELS["triton"](Binomial(), frame), KERNELS["torch"](Binomial(), frame)
    kept = mine.row_curvature(block, theta, lanes)
    assert kept[0].shape == (170, 4, 1)
    for stats, expected in (
        (mine.value_gradient(block, theta, lanes), other.value_gradient(block, theta, lanes)),
        (mine.curvature_product(block, theta, theta, lanes, kept), other.curvature_product(block, theta, theta, lanes)),
        (mine.gram_diagonal(block, theta, lanes), other.gram_diagonal(block, theta, lanes)),
    ):
        for field in ("weight", "loss", "gradient", "margin", "product", "diagonal", "cross"):
            if getattr(expected, field) is not None:
                torch.testing.assert_close(getattr(stats, field), getattr(expected, field), rtol=1e-11, atol=1e-9)


def test_a_timestamp_keeps_its_digits_in_single_precision(rng):
    """Rows in float32 minus a mean that float32 does not hold."""
    dense = torch.from_numpy(1.7e6 + rng.integers(0, 40, (90, 1)) / 8).float()
    block, frame = Block(torch.from_numpy(rng.integers(0, 2, 90)), dense=dense), Frame(
        torch.tensor([1700002.5123456789]).double(), torch.tensor([1.5]).double()
    )  # fmt: skip
    theta = torch.tensor([[[0.7, -0.1]]]).double()
    swept = KERNELS["triton"](Binomial(), frame, torch.float32).value_gradient(block, theta)
    expected = ReferenceKernel(Binomial(), frame).value_gradient(block, theta)
    torch.testing.assert_close(swept.loss, expected.loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(swept.gradient, expected.gradient, rtol=2e-6, atol=2e-5)


def test_a_device_without_it_has_the_torch_kernel(rng, monkeypatch):
    block = block_of(rng, "dense", plain=True)
    seen = SimpleNamespace(
        device=torch.device("cuda", 0), dense=block.dense, sparse=None, codes=None, dtype=block.dense.dtype
    )
    assert triton_cuda.device_kernel(seen, Binomial(), 1)[0] == "triton"
    assert triton_cuda.device_kernel(seen, Multinomial(3), 1)[0] == "torch"
    assert triton_cuda.device_kernel(seen, Binomial(), 100)[0] == "torch"
    monkeypatch.setattr(triton_cuda, "installed", lambda: False)
    name, reason = triton_cuda.device_kernel(seen, Binomial(), 1)
    assert (name, reason.split(",")[0]) == ("torch", "the rows are on cuda:0")
    assert "not installed" in reason


def test_nothing_of_it_is_imported_before_rows_are_swept():
    code = "import sys, torchlogit.fit, torchlogit.kernels; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


COMPILE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from torchlogit.kernels.triton_rows import column_moments, sweep, sweep_held

doubles = "weight offset coefficients constant directions direction_constant shift rest sums totals anchor".split()
common = {"x_column": 1, "CHUNK": 32, "COLUMNS": 32, "VECTOR": 4, "WEIGHTED": True, "OFFSET": True, "FRAMED": True}
for loop, single, own in (
    (sweep, False, {"POINTS": 1, "CURVED": False}),
    (sweep, True, {"POINTS": 1, "CURVED": True}),
    (sweep_held, True, {"STRIPS": 1}),
    (sweep_held, True, {"STRIPS": 4}),
    (column_moments, False, {"VECTOR": 1}),
    (column_moments, True, {"VECTOR": 4}),
):
    fixed = common | own | {"DTYPE": tl.float32 if single else tl.float64}
    fixed = {name: fixed[name] for name in loop.arg_names if name in fixed}
    types = dict.fromkeys(loop.arg_names, "i32") | dict.fromkeys(doubles, "*fp64")
    types |= {"x": "*fp32", "target": "*i64", "lanes": "*i64"} | dict.fromkeys(fixed, "constexpr")
    types |= dict.fromkeys(["shift", "rest"], "*fp32") if single else {}
    source = ASTSource(loop, {name: types[name] for name in loop.arg_names},
                       {(loop.arg_names.index(name),): value for name, value in fixed.items()})
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    assert "atom." not in ptx and "red.global" not in ptx and "tf32" not in ptx
"""


def test_the_device_compiler_takes_the_loops(tmp_path):
    """No device is needed for it; the interpreter is more lenient."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_interpreter_counts_as_no_device(rng):
    """A kernel on a CPU without it leaves everything to the torch kernel."""
    block, theta, frame, _ = _problem(rng, lanes=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRITON_INTERPRET", raising=False)
        mine = KERNELS["triton"](Binomial(), frame).value_gradient(block, theta)
    expected = KERNELS["torch"](Binomial(), frame).value_gradient(block, theta)
    assert np.array_equal(mine.gradient, expected.gradient)
