"""What a sweep does beside its sums: pieces and threads of second derivatives, layouts that are kept, first calls."""

from __future__ import annotations

import io
import sys
import time

import numpy as np
import pytest
import torch

from torchlogit.encode import plain_numbers
from torchlogit.kernels import NumbaKernel, ReferenceKernel, TorchKernel, first_use, symmetric, torch_device
from torchlogit.losses import loss_for
from torchlogit.problem import Block, Frame


def _rows(rng, rows, columns, classes, *, weighted=False):
    weight = torch.from_numpy(rng.choice([0.0, 0.5, 2.0], rows)) if weighted else None
    dense = torch.from_numpy(rng.normal(size=(rows, columns)))
    block = Block(torch.from_numpy(rng.integers(0, classes, rows)), dense=dense, weight=weight)
    frame = Frame(torch.linspace(-1, 1, columns).double(), torch.linspace(1, 3, columns).double())
    outputs = 1 if classes == 2 else classes
    return block, frame, torch.from_numpy(rng.normal(size=(2, outputs, columns + 1)))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 8])
@pytest.mark.parametrize("columns", [4, 40])
def test_second_derivatives_of_several_pieces_and_threads(rng, monkeypatch, columns, classes, weighted):
    block, frame, theta = _rows(rng, 1700, columns, classes, weighted=weighted)
    kernel, direction = TorchKernel(loss_for(classes), frame), torch.from_numpy(rng.normal(size=theta.shape))
    expected = kernel.curvature_product(block, theta, direction).product
    whole = kernel.gram(block, theta).gram
    monkeypatch.setattr(torch_device, "_CACHED_ELEMENTS", 1)
    assert len(kernel._pieces(block, theta)) > 2
    for least in (float("inf"), 0.0):  # on this thread, and on several
        monkeypatch.setattr(torch_device, "_SHARED_OPERATIONS", least)
        gram = kernel.gram(block, theta).gram
        torch.testing.assert_close(gram, whole, rtol=1e-12, atol=1e-12 * float(whole.abs().max()))
        product = (gram @ direction.reshape(2, -1, 1)).reshape(theta.shape)
        torch.testing.assert_close(product, expected, rtol=1e-11, atol=1e-11 * float(expected.abs().max()))


@pytest.mark.parametrize("together", [1, 7, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_pairs_of_classes(rng, monkeypatch, together, dtype):
    """However many classes are multiplied at once; what the probabilities of a row sum to is what is left of them."""
    monkeypatch.setattr(symmetric, "_PAIR_COLUMNS", together)
    p = torch.softmax(torch.from_numpy(rng.normal(size=(50, 5)) * 20), 1)
    z = torch.from_numpy(rng.normal(size=(50, 3)))
    scaled = (p.T[:, None] * z.T).to(dtype)
    total = symmetric.add_pairs(scaled, symmetric.add_pairs(scaled, None))
    assert total.dtype == torch.float64
    symmetric.with_diagonal_blocks(total, 3)
    others = torch.diag_embed(torch.stack([p[:, [k]].mul(p[:, np.arange(5) != k]).sum(1) for k in range(5)], 1))
    exact = torch.where(torch.eye(5, dtype=torch.bool), others, -p[:, :, None] * p[:, None, :])
    expected = 2 * torch.einsum("nkl,ni,nj->kilj", exact, z, z).reshape(15, 15)
    close = 1e-13 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(total, expected, rtol=close, atol=close * float(expected.abs().max()))


class TestLayouts:
    """Compiled loops lay a block out once, if it comes again."""

    @pytest.mark.parametrize("points", [1, 2])
    def test_kept_from_the_second_time_on(self, rng, points):
        block, frame, theta = _rows(rng, 300, 5, 2, weighted=True)
        theta = theta[:points]
        kernel = NumbaKernel(loss_for(2), frame)
        first = kernel.value_gradient(block, theta)
        assert kernel.last_layout is None
        kernel.value_gradient(block, theta)
        kept = kernel.last_layout
        assert kept is not None
        assert kept.block is block
        again = kernel.value_gradient(block, theta)
        kernel.curvature_product(block, theta, theta)
        assert kernel.last_layout is kept
        assert torch.equal(first.gradient, again.gradient)
        assert torch.equal(first.loss, again.loss)

    def test_not_of_blocks_that_pass_by(self, rng):
        """Nothing of a file's blocks is held beyond their sums."""
        block, frame, theta = _rows(rng, 300, 5, 2)
        kernel = NumbaKernel(loss_for(2), frame)
        for _ in range(2):
            for piece in block.cut(100):
                kernel.value_gradient(piece, theta)
                assert kernel.last_layout is None

    def test_another_lane_is_another_target(self, rng):
        block, frame, theta = _rows(rng, 300, 5, 2)
        target = torch.stack([block.target, 1 - block.target], 1)
        kernel, both = NumbaKernel(loss_for(2), frame), Block(target, dense=block.dense)
        lanes = [torch.tensor([0]), torch.tensor([1])]
        seen = [kernel.value_gradient(both, theta[:1], lane).gradient for lane in lanes * 3]
        for i, lane in enumerate(lanes * 3):
            alone = NumbaKernel(loss_for(2), frame).value_gradient(both, theta[:1], lane).gradient
            assert torch.equal(seen[i], alone)
        assert not torch.equal(seen[0], seen[1])

    def test_another_number_of_threads_divides_anew(self, rng):
        block, frame, theta = _rows(rng, 300, 5, 2)
        kernel, before = NumbaKernel(loss_for(2), frame), torch.get_num_threads()
        for _ in range(3):
            kernel.value_gradient(block, theta)
        try:
            torch.set_num_threads(before + 1)
            kept = kernel.last_layout
            kernel.value_gradient(block, theta)
            assert kernel.last_layout is not kept
        finally:
            torch.set_num_threads(before)


class _Terminal(io.StringIO):
    def isatty(self):
        return True


class TestFirstCalls:
    """A word where compilation takes its time, once, and only where someone reads it."""

    @pytest.mark.parametrize(("stream", "told"), [(_Terminal, True), (io.StringIO, False)])
    def test_announced(self, monkeypatch, stream, told):
        calls, written = [], stream()
        monkeypatch.setattr(first_use, "_PATIENCE", 0.0)
        monkeypatch.setattr(sys, "stderr", written)

        def loop(number):
            calls.append(number)
            until = time.monotonic() + 30.0  # as long as it takes to be told of, which is at once
            while told and not written.getvalue() and time.monotonic() < until:
                time.sleep(0.001)

        for number in (1, 2):
            first_use.make_ready(loop, ("d",), (number,))
        assert calls == [1]
        assert written.getvalue().count("compiling its loops") == told

    def test_of_columns_too(self, rng, monkeypatch):
        seen = []
        monkeypatch.setattr(first_use, "make_ready", lambda loop, types, arguments: seen.append((types, arguments[2])))
        values, whole = [rng.normal(size=50) for _ in range(2)], np.empty((50, 2))
        assert plain_numbers._compiled(values, np.arange(50), np.zeros(2), np.ones(2), whole)
        assert [(types, len(rows)) for types, rows in seen] == [(("d",), 0)]
        np.testing.assert_array_equal(whole, np.stack(values, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [511, 512, 513, 1024, 2049])
def test_rows_that_are_longer_than_what_is_asked_for_at_once(rng, columns, dtype):
    rows = torch.from_numpy(rng.normal(size=(40, columns))).to(dtype)
    block = Block(torch.from_numpy(rng.integers(0, 2, 40)), dense=rows)
    frame = Frame(torch.zeros(columns, dtype=torch.float64), torch.ones(columns, dtype=torch.float64))
    theta = torch.from_numpy(rng.normal(size=(1, 1, columns + 1)))
    found = NumbaKernel(loss_for(2), frame).linear_predictor(block, theta)[:, 0, 0]
    expected = rows.to(torch.float64) @ theta[0, 0, :-1] + theta[0, 0, -1]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("dtype", "columns"), [
    (torch.float64, 1), (torch.float64, 20), (torch.float64, 64), (torch.float64, 65), (torch.float64, 600),
    (torch.float32, 3), (torch.float32, 128), (torch.float32, 129), (torch.float32, 1_100),
])  # fmt: skip
def test_rows_are_asked_for_and_multiplied_in_any_number(rng, dtype, columns, centred):
    """Several batches and less than one; by fours, one by one, and what is left of either."""
    shift = torch.linspace(-1, 1, columns).double() if centred else torch.zeros(columns).double()
    frame = Frame(shift, torch.ones(columns).double())
    theta = torch.from_numpy(rng.normal(size=(1, 1, columns + 1))) / columns**0.5
    for rows in (1, 2, 3, 5, 511, 1_030):
        dense = torch.from_numpy(rng.normal(size=(rows, columns))).to(dtype)
        block = Block(torch.from_numpy(rng.integers(0, 2, rows)), dense=dense)
        compiled, exact = NumbaKernel(loss_for(2), frame), TorchKernel(loss_for(2), frame)
        found, expected = compiled.value_gradient(block, theta), exact.value_gradient(block, theta)
        size = float((dense.abs() + shift.abs()).double().sum(0).max()) + rows
        for field in ("loss", "gradient", "margin"):
            one, other = getattr(found, field), getattr(expected, field)
            torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-15 * size)
        product, other = (kernel.curvature_product(block, theta, theta).product for kernel in (compiled, exact))
        torch.testing.assert_close(product, other, rtol=1e-13, atol=1e-15 * size)
        # A row's predictor has the same bits wherever it stands.
        eta = compiled.linear_predictor(block, theta)
        for start, stop in ((0, 1), (rows // 3, rows), (rows // 2, rows // 2 + 1)):
            assert torch.equal(compiled.linear_predictor(block.slice(start, stop), theta), eta[start:stop])


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_hessian_of_rows_that_a_gradient_has_prepared(rng, classes, weighted):
    """In several pieces: the same as of rows that nobody has seen before, and as the reference's."""
    rows, columns = 6_000, 70
    loss = loss_for(classes)
    frame = Frame(torch.from_numpy(rng.normal(size=columns)), torch.from_numpy(rng.uniform(0.5, 2, columns)))
    block = Block(
        torch.from_numpy(rng.integers(0, classes, rows)),
        dense=torch.from_numpy(rng.normal(size=(rows, columns))),
        weight=torch.from_numpy(rng.integers(0, 3, rows).astype(float)) if weighted else None,
    )
    theta = torch.from_numpy(rng.normal(size=(1, loss.outputs, columns + 1))) / columns
    fresh, prepared = TorchKernel(loss, frame), TorchKernel(loss, frame)
    assert len(prepared._pieces(block, theta)) > 1
    prepared.value_gradient(block, theta)
    found = prepared.gram(block, theta).gram
    torch.testing.assert_close(found, ReferenceKernel(loss, frame).gram(block, theta).gram, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(found, fresh.gram(block, theta).gram, rtol=1e-13, atol=1e-10)
    prepared.value_gradient(block, theta + 1)  # elsewhere: the predictors are others
    assert torch.equal(prepared.gram(block, theta).gram, found)
