"""Products in TF32: the setting is the process's, and is what it was before when they are launched."""

from __future__ import annotations

import pytest
import torch

from torchlogit.kernels import TorchKernel, tf32
from torchlogit.losses import Binomial
from torchlogit.problem import Frame


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
