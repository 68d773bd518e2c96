"""Products of few bits: which have them, and that nothing but steps are shaped by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from contracts.problems import objective_from
from torchlogit import LogisticRegression, plan
from torchlogit.kernels import TorchKernel, tf32, torch_device
from torchlogit.losses import Binomial, Multinomial
from torchlogit.problem import Block, Frame


@pytest.fixture
def settings():
    """The process's, as they were afterwards: they have no attributes that monkeypatch could take back."""
    matmul = torch.backends.cuda.matmul
    kept = matmul.fp32_precision
    yield matmul
    matmul.fp32_precision = kept


@pytest.mark.parametrize("before", ["none", "ieee", "tf32"])
def test_the_setting_is_left_as_it_was(settings, before):
    settings.fp32_precision = before
    with tf32._tf32():
        assert settings.fp32_precision == "tf32"
    assert settings.fp32_precision == before
    with pytest.raises(RuntimeError, match="inner"), tf32._tf32():
        raise RuntimeError("inner")
    assert settings.fp32_precision == before


def test_an_older_torch_has_another_name_for_it(monkeypatch):
    class Older:
        allow_tf32 = False

    monkeypatch.setattr(torch.backends.cuda, "matmul", Older)
    with tf32._tf32():
        assert Older.allow_tf32
    assert not Older.allow_tf32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cpu_has_none(rng, dtype):
    left, right = (torch.from_numpy(rng.normal(size=(5, 5))).to(dtype) for _ in range(2))
    assert torch.equal(tf32.short_product(left, right), left @ right)


def test_only_what_shapes_a_step_has_them():
    frame = Frame(torch.zeros(2).double(), torch.ones(2).double())
    kernel = TorchKernel(Binomial(), frame)
    assert kernel._multiplied is torch.matmul
    assert TorchKernel(Binomial(), frame, torch.float32)._multiplied is torch.matmul
    assert kernel.rounded()._multiplied is torch.matmul
    assert kernel.rounded(short=True)._multiplied is tf32.short_product


# -- bfloat16 on processors --------------------------------------------------------------------------------------------


@pytest.fixture
def native(monkeypatch):
    """Any processor multiplies it, if slowly."""
    monkeypatch.setattr(torch_device, "coarse_dtype", lambda: torch.bfloat16)


def _many_classes(rng, layout="dense", classes=9):
    X = rng.normal(size=(400, 12)) * np.linspace(0.5, 2, 12) + 0.3
    y = (X @ rng.normal(size=(12, classes)) + rng.gumbel(size=(400, classes))).argmax(1)
    return (sparse.csr_matrix(X) if layout == "sparse" else X), y


@pytest.mark.parametrize("framed", [False, True])
def test_eight_bits_of_many_outputs(rng, native, framed):
    """Products are off by less than a per cent, and one point's curvature is one symmetric matrix up to that."""
    X, y = _many_classes(rng)
    rows, theta = torch.from_numpy(X), torch.from_numpy(rng.normal(size=(2, 9, 13))) / 4
    block = Block(torch.from_numpy(y), dense=rows)
    shift, scale = (rows.mean(0), rows.std(0)) if framed else (torch.zeros(12).double(), torch.ones(12).double())
    exact = TorchKernel(Multinomial(9), Frame(shift, scale))
    short = exact.rounded(short=True)
    assert (short.factor_dtype, short.dtype) == (torch.bfloat16, torch.float32)
    assert exact.rounded().factor_dtype == torch.float32
    assert short.rounding() > 0
    assert exact.rounding() == exact.rounded().rounding() == 0
    at, along = theta[:1], theta[1:]
    expected = exact.curvature_product(block, at, along).product
    for kept in (None, short.row_curvature(block, at)):
        found = short.curvature_product(block, at, along, None, kept).product
        assert (found - expected).abs().max() < 0.01 * expected.abs().max()
        assert found.dtype == torch.float64


def test_few_outputs_keep_float32(native):
    frame = Frame(torch.zeros(2).double(), torch.ones(2).double())
    short = TorchKernel(Multinomial(3), frame).rounded(short=True)
    assert (short.factor_dtype, short.rounding()) == (torch.float32, 0.0)


@pytest.mark.parametrize(("C", "dtype"), [(1.0, torch.bfloat16), (1e6, torch.float32)])
def test_the_penalty_decides(rng, native, C, dtype):
    """Rounded rows bend every direction; beside a penalty that bends less they would hide the flat ones."""
    X, y = _many_classes(rng)
    objective = objective_from(X, y, 1 / (C * len(y)), kernel="torch")
    assert objective.few_digits().factor_dtype == dtype


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_the_optimum_is_the_same(rng, native, monkeypatch, layout):
    X, y = _many_classes(rng, layout)
    short, exact = (LogisticRegression(tol=1e-9) for _ in range(2))
    monkeypatch.setattr(plan, "_LARGEST_MATRIX", 20)  # conjugate gradients, not the whole Hessian
    short.fit(X, y)
    monkeypatch.setattr(torch_device, "coarse_dtype", lambda: torch.float32)
    exact.fit(X, y)
    assert short.converged_
    assert exact.converged_
    np.testing.assert_allclose(short.predict_proba(X), exact.predict_proba(X), rtol=0, atol=2e-6)
