"""Every kernel keeps the same promises: it agrees with the reference, with its own differences, at the extremes too."""

from __future__ import annotations

import functools
import itertools

import mpmath
import numpy as np
import pytest
import torch

from contracts.problems import LAYOUTS, block_of, coded_columns, sparse_rows
from torchlogit.kernels import KERNELS, ReferenceKernel
from torchlogit.kernels.triton_cuda import installed
from torchlogit.losses import Binomial, Multinomial, loss_for
from torchlogit.problem import Block, Frame, SparseRows

EXTREMES = (0.0, 1e-3, -1e-3, 40.0, -40.0, 800.0, -800.0, 1e4, -1e4)
DTYPES = (torch.float32, torch.float64)
LANES = torch.tensor([2, 0, 1, 2])

ABSENT = pytest.mark.skipif(not installed(), reason="Triton is not installed: its interpreter runs these loops")
pytestmark = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=ABSENT if name == "triton" else ()) for name in sorted(KERNELS)]
)


def _frame(block):
    """Shift and scale the dense columns, as a fit does, and leave the others alone."""
    dense = block.widths[0]
    shift, scale = torch.zeros(block.features).double(), torch.ones(block.features).double()
    shift[:dense] = torch.linspace(-1, 4, dense).double()
    scale[:dense] = torch.linspace(0.5, 10, dense).double()
    return Frame(shift, scale)


def _case(seed, layout, classes, lanes=3, points=4, rows=13):
    rng = np.random.default_rng(seed)
    block = block_of(rng, layout, rows, classes, lanes)
    K = 1 if classes == 2 else classes
    theta = torch.from_numpy(rng.normal(size=(points, K, block.features + 1)))
    direction = torch.from_numpy(rng.normal(size=theta.shape))
    return block, theta, direction, _frame(block)


def _close(actual, expected, rtol=1e-12):
    scale = float(expected.abs().max()) or 1.0
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
class TestSums:
    def test_agrees_with_the_reference(self, name, layout, classes):
        block, theta, direction, frame = _case(1, layout, classes)
        loss = loss_for(classes)
        kernel, oracle = KERNELS[name](loss, frame), ReferenceKernel(loss, frame)
        _close(kernel.design(block), oracle.design(block))
        _close(kernel.linear_predictor(block, theta, LANES), oracle.linear_predictor(block, theta, LANES))
        expected = oracle.curvature_product(block, theta, direction, LANES)
        swept = kernel.value_gradient(block, theta, LANES)
        for field in ("weight", "loss", "gradient", "margin"):
            _close(getattr(swept, field), getattr(expected, field))
        _close(kernel.curvature_product(block, theta, direction, LANES).product, expected.product)
        kept = kernel.row_curvature(block, theta, LANES)
        for _ in range(2):
            _close(kernel.curvature_product(block, theta, direction, LANES, kept).product, expected.product)
        _close(kernel.gram(block, theta, LANES).gram, expected.gram)
        diagonal = kernel.gram_diagonal(block, theta, LANES)
        _close(diagonal.diagonal, expected.diagonal)
        _close(diagonal.cross, expected.cross)
        _close(kernel.score_gram(block, theta, LANES).score_gram, expected.score_gram)
        assert swept.rows == block.rows

    def test_derivatives_are_those_of_its_own_value(self, name, layout, classes):
        block, theta, direction, frame = _case(2, layout, classes, rows=11)
        kernel = KERNELS[name](loss_for(classes), frame)
        step = 1e-5

        def at(t):
            return kernel.value_gradient(block, theta + t * direction, LANES)

        there, back = at(step), at(-step)
        slope = (kernel.value_gradient(block, theta, LANES).gradient * direction).sum((1, 2))
        torch.testing.assert_close((there.loss - back.loss) / (2 * step), slope, rtol=1e-7, atol=1e-6)
        bent = kernel.curvature_product(block, theta, direction, LANES).product
        _close((there.gradient - back.gradient) / (2 * step), bent, rtol=1e-6)

    def test_its_curvatures_are_one_matrix(self, name, layout, classes):
        block, theta, direction, frame = _case(3, layout, classes, rows=11)
        kernel = KERNELS[name](loss_for(classes), frame)
        gram = kernel.gram(block, theta, LANES).gram
        _close(gram, gram.transpose(1, 2), rtol=1e-13)
        product = kernel.curvature_product(block, theta, direction, LANES).product
        _close((gram @ direction.reshape(4, -1, 1)).reshape(product.shape), product)
        diagonal = kernel.gram_diagonal(block, theta, LANES)
        _close(gram.diagonal(dim1=1, dim2=2).reshape(product.shape), diagonal.diagonal)
        assert float(torch.linalg.eigvalsh(gram).min()) > -1e-10 * float(gram.abs().max())

    def test_score_gram_is_the_sum_over_rows(self, name, layout, classes):
        block, theta, _, frame = _case(4, layout, classes, rows=7)
        kernel = KERNELS[name](loss_for(classes), frame)
        rows = [kernel.value_gradient(block.slice(i, i + 1), theta, LANES).gradient.flatten(1) for i in range(7)]
        expected = sum(row[:, :, None] * row[:, None, :] for row in rows)
        _close(kernel.score_gram(block, theta, LANES).score_gram, expected)

    @pytest.mark.parametrize("cuts", [(0, 1, 13), (0, 3, 4, 9, 13)])
    def test_blocks_add_up_in_any_number_and_order(self, name, layout, classes, cuts):
        block, theta, direction, frame = _case(5, layout, classes)
        kernel = KERNELS[name](loss_for(classes), frame)
        functions = {
            "loss": kernel.value_gradient, "gradient": kernel.value_gradient, "margin": kernel.value_gradient,
            "weight": kernel.value_gradient, "gram": kernel.gram, "diagonal": kernel.gram_diagonal,
            "cross": kernel.gram_diagonal, "score_gram": kernel.score_gram,
            "product": lambda b, t, lanes: kernel.curvature_product(b, t, direction, lanes),
        }  # fmt: skip
        pieces = [block.slice(a, b) for a, b in itertools.pairwise(cuts)]
        for order in (pieces, pieces[::-1]):
            for field, function in functions.items():
                total = None
                for piece in order:
                    stats = function(piece, theta, LANES)
                    total = stats if total is None else total + stats
                assert total.rows == block.rows
                _close(getattr(total, field), getattr(function(block, theta, LANES), field))

    def test_a_lane_is_a_problem_of_its_own(self, name, layout, classes):
        block, theta, direction, frame = _case(6, layout, classes, points=3)
        kernel = KERNELS[name](loss_for(classes), frame)
        lanes = torch.tensor([0, 1, 2])
        together = kernel.value_gradient(block, theta, lanes)
        bent = kernel.curvature_product(block, theta, direction, lanes).product
        for lane in range(3):
            own = Block(
                block.target[:, lane],
                block.dense,
                block.sparse,
                block.codes,
                block.weight[:, lane],
                block.offset[:, lane : lane + 1],
            )
            here = slice(lane, lane + 1)
            alone = kernel.value_gradient(own, theta[here])
            for field in ("weight", "loss", "gradient", "margin"):
                _close(getattr(alone, field), getattr(together, field)[here])
            _close(kernel.curvature_product(own, theta[here], direction[here]).product, bent[here])

    def test_without_weights_and_offsets(self, name, layout, classes):
        rng = np.random.default_rng(7)
        block = block_of(rng, layout, 17, classes, plain=True)
        K = 1 if classes == 2 else classes
        theta = torch.from_numpy(rng.normal(size=(2, K, block.features + 1)))
        loss, frame = loss_for(classes), _frame(block)
        stats = KERNELS[name](loss, frame).value_gradient(block, theta)
        expected = ReferenceKernel(loss, frame).value_gradient(block, theta)
        assert stats.weight.tolist() == [17.0, 17.0]
        _close(stats.loss, expected.loss)
        _close(stats.gradient, expected.gradient)

    def test_single_precision_products(self, name, layout, classes):
        block, theta, direction, frame = _case(8, layout, classes)
        single = KERNELS[name](loss_for(classes), frame, torch.float32)
        double = KERNELS[name](loss_for(classes), frame)
        mine, other = single.value_gradient(block, theta, LANES), double.value_gradient(block, theta, LANES)
        assert mine.loss.dtype == mine.gradient.dtype == torch.float64
        _close(mine.loss, other.loss, 2e-6)
        _close(mine.gradient, other.gradient, 1e-5)
        _close(single.gram(block, theta, LANES).gram, double.gram(block, theta, LANES).gram, 1e-5)
        mine = single.curvature_product(block, theta, direction, LANES)
        _close(mine.product, double.curvature_product(block, theta, direction, LANES).product, 1e-5)


# -- extremes, against 50 digits ------------------------------------------------------------------------------------


def _binomial_truth(eta, own):
    """Loss, slope and curvature."""
    with mpmath.workdps(50):
        margin = mpmath.mpf(eta if own else -eta)
        wrong = 1 / (1 + mpmath.exp(margin))
        loss = mpmath.log1p(mpmath.exp(-margin))
        return float(loss), float(-wrong if own else wrong), float(wrong * (1 - wrong))


@functools.cache
def _multinomial_truth(eta, own):
    """Loss, slopes, matrix of second derivatives and margin."""
    with mpmath.workdps(50):
        z = [mpmath.mpf(value) for value in eta]
        total = mpmath.fsum(mpmath.exp(v - z[own]) for k, v in enumerate(z) if k != own)
        top = max(z)
        weights = [mpmath.exp(v - top) for v in z]
        p = [w / mpmath.fsum(weights) for w in weights]
        rest = [mpmath.fsum(q for j, q in enumerate(p) if j != k) for k in range(len(z))]
        loss = mpmath.log1p(total)
        slope = [-rest[k] if k == own else p[k] for k in range(len(z))]
        bend = [[p[k] * rest[k] if j == k else -p[k] * p[j] for j in range(len(z))] for k in range(len(z))]
        margin = z[own] - max(v for k, v in enumerate(z) if k != own)
        return float(loss), [float(v) for v in slope], [[float(v) for v in row] for row in bend], float(margin)


def _assert_precise(actual, expected, dtype, ulps):
    """Within ``ulps`` units of relative rounding; what lies below the normal range may become zero."""
    info = torch.finfo(dtype)
    actual, expected = np.asarray(actual, dtype=float), np.asarray(expected, dtype=float)
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual, expected, rtol=ulps * info.eps, atol=float(info.tiny))


def _identity_frame(columns):
    return Frame(torch.zeros(columns).double(), torch.ones(columns).double())


def _exact(value, dtype):
    """The number that a kernel of this dtype really sees."""
    return float(torch.tensor(value, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("eta", EXTREMES)
@pytest.mark.parametrize("own", [0, 1])
class TestBinomialExtremes:
    def test_kernel(self, name, eta, own, dtype):
        kernel = KERNELS[name](Binomial(), _identity_frame(1), dtype)
        eta = _exact(eta, dtype)
        block = Block(torch.tensor([own]), dense=torch.tensor([[eta]], dtype=dtype))
        theta, direction = torch.tensor([[[1.0, 0.0]]]).double(), torch.tensor([[[0.0, 1.0]]]).double()
        loss, slope, bend = _binomial_truth(eta, own)
        stats = kernel.value_gradient(block, theta)
        assert float(stats.margin) == (eta if own else -eta)
        _assert_precise(float(stats.loss), loss, dtype, 4)
        _assert_precise(float(stats.gradient[0, 0, -1]), slope, dtype, 4)
        _assert_precise(stats.gradient[0, 0, 0], slope * eta, dtype, 6)
        _assert_precise(kernel.curvature_product(block, theta, direction).product[0, 0, -1], bend, dtype, 6)
        _assert_precise(kernel.gram(block, theta).gram[0, -1, -1], bend, dtype, 6)
        _assert_precise(kernel.gram_diagonal(block, theta).diagonal[0, 0, -1], bend, dtype, 6)
        _assert_precise(kernel.score_gram(block, theta).score_gram[0, -1, -1], slope**2, dtype, 10)

    def test_loss_formulas(self, name, eta, own, dtype):
        point, target = torch.tensor([[[eta]]], dtype=dtype), torch.tensor([[own]])
        eta = float(point)
        loss, slope, bend = _binomial_truth(eta, own)
        value, first = Binomial().value_first(point, target)
        assert value.dtype == first.dtype == dtype
        _assert_precise(value, [[loss]], dtype, 4)
        _assert_precise(first, [[[slope]]], dtype, 4)
        _assert_precise(Binomial().curvature(point, target)[0], [[[bend]]], dtype, 6)
        root = float(Binomial().curvature_root(point, target))
        with mpmath.workdps(50):
            expected = float(1 / (2 * mpmath.cosh(mpmath.mpf(eta) / 2)))
        _assert_precise(root, expected, dtype, 6)
        probability = Binomial().probability(point)[0, 0].tolist()
        _assert_precise(probability[1 - own], abs(slope), dtype, 4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
class TestMultinomialExtremes:
    def test_kernel_and_formulas(self, name, dtype):
        kernel = KERNELS[name](Multinomial(3), _identity_frame(1), dtype)
        worst = 2e-3 if dtype == torch.float32 else 1e-11
        for eta in itertools.product((0.0, 1e-3, 40.0, -800.0, 1e4), repeat=3):
            eta = tuple(_exact(v, dtype) for v in eta)
            theta = torch.tensor([[[0.0, v] for v in eta]], dtype=torch.float64)
            # Differences of the outputs are rounded before they are exponentiated: that is conditioning, not error.
            gaps = [abs(a - b) for a, b in itertools.combinations(eta, 2)]
            ulps = 10 + 2 * max((gap for gap in gaps if gap < 750), default=0)
            for own in range(3):
                loss, slope, bend, margin = _multinomial_truth(eta, own)
                block = Block(torch.tensor([own]), dense=torch.zeros(1, 1, dtype=dtype))
                stats = kernel.value_gradient(block, theta)
                _assert_precise(stats.loss[0], loss, dtype, ulps)
                _assert_precise(stats.gradient[0, :, -1], slope, dtype, ulps)
                _assert_precise(stats.margin[0], margin, dtype, 2)
                gram = kernel.gram(block, theta).gram.reshape(3, 2, 3, 2)[:, 1, :, 1]
                _assert_precise(gram, bend, dtype, 2 * ulps)
                diagonal = kernel.gram_diagonal(block, theta).diagonal[0, :, -1]
                _assert_precise(diagonal, np.diag(bend), dtype, 2 * ulps)
                direction = torch.tensor([[[0.0, 1.0], [0.0, -2.0], [0.0, 0.5]]]).double()
                product = kernel.curvature_product(block, theta, direction).product[0, :, -1]
                np.testing.assert_allclose(
                    product, np.array(bend) @ [1.0, -2.0, 0.5], atol=worst * np.abs(bend).max() + 1e-300
                )


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_of_weight_zero_is_not_there_whatever_its_predictor(name, classes, dtype):
    """Its linear predictor may even overflow."""
    rng = np.random.default_rng(11)
    loss, frame = loss_for(classes), _identity_frame(2)
    K = loss.outputs
    dense = torch.from_numpy(rng.normal(size=(6, 2))).to(dtype)
    dense[3] = torch.finfo(dtype).max / 2
    weight = torch.tensor([1.0, 2, 1, 0, 1, 0.5]).double()
    target = torch.from_numpy(rng.integers(0, classes, 6))
    theta = torch.from_numpy(rng.normal(size=(1, K, 3))) * 100
    theta[..., :2] = theta[..., :2].abs() + 10
    kept = torch.tensor([0, 1, 2, 4, 5])
    kernel = KERNELS[name](loss, frame, dtype)
    with_it = kernel.value_gradient(Block(target, dense=dense, weight=weight), theta)
    without = kernel.value_gradient(Block(target[kept], dense=dense[kept], weight=weight[kept]), theta)
    assert torch.isfinite(with_it.loss).all()
    for field in ("weight", "loss", "gradient", "margin"):
        _close(getattr(with_it, field), getattr(without, field), 4 * torch.finfo(dtype).eps)


def test_deterministic_whatever_the_alignment(name):
    rng = np.random.default_rng(12)
    storage = torch.zeros(64 * 5 + 8).double()
    rows = torch.from_numpy(rng.normal(size=(64, 5)))
    theta = torch.from_numpy(rng.normal(size=(1, 1, 6)))
    target = torch.from_numpy(rng.integers(0, 2, 64))
    kernel = KERNELS[name](Binomial(), _identity_frame(5))
    seen = []
    for start in range(4):
        view = storage[start : start + 320].view(64, 5)
        view.copy_(rows)
        seen.append(kernel.value_gradient(Block(target, dense=view), theta))
    for stats in seen[1:]:
        assert torch.equal(stats.loss, seen[0].loss)
        assert torch.equal(stats.gradient, seen[0].gradient)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("layout", ["dense", "sparse", "composite"])
def test_a_row_of_weight_zero_may_hold_anything(name, layout, classes):
    """Nothing bounds its values: an infinity times a weight of zero is no zero."""
    if name == "reference":
        pytest.skip("the oracle multiplies out every row, there or not")
    rng = np.random.default_rng(13)
    block = block_of(rng, layout, 9, classes, lanes=1)
    weight = torch.ones(9).double()
    weight[4] = 0.0
    loss, frame = loss_for(classes), _identity_frame(block.features)
    theta = torch.from_numpy(rng.normal(size=(1, loss.outputs, block.features + 1)))
    bad = Block(block.target[:, 0], block.dense, block.sparse, block.codes, weight)
    if block.dense is not None:
        bad.dense[4] = torch.inf
    if block.sparse is not None:
        bad.sparse.values[int(bad.sparse.indptr[4]) : int(bad.sparse.indptr[5])] = torch.inf
    kept = torch.tensor([0, 1, 2, 3, 5, 6, 7, 8])
    kernel, good = KERNELS[name](loss, frame), bad.take(kept)
    for field, function in (
        ("gradient", kernel.value_gradient), ("loss", kernel.value_gradient), ("diagonal", kernel.gram_diagonal),
        ("cross", kernel.gram_diagonal), ("product", lambda b, t: kernel.curvature_product(b, t, t)),
    ):  # fmt: skip
        _close(getattr(function(bad, theta), field), getattr(function(good, theta), field))


@pytest.mark.parametrize("classes", [2, 3])
def test_duplicate_entries_add_up_before_they_are_squared(name, classes):
    rng = np.random.default_rng(14)
    rows = SparseRows(
        torch.tensor([0, 3, 4, 6]), torch.tensor([2, 0, 2, 1, 1, 1]), torch.from_numpy(rng.normal(size=6)), 3
    )
    block = Block(torch.tensor([0, 1, 1]), sparse=rows)
    loss, frame = loss_for(classes), _identity_frame(3)
    theta = torch.from_numpy(rng.normal(size=(1, loss.outputs, 4)))
    mine = KERNELS[name](loss, frame).gram_diagonal(block, theta)
    expected = ReferenceKernel(loss, frame).gram_diagonal(block, theta)
    _close(mine.diagonal, expected.diagonal)
    _close(mine.cross, expected.cross)


@pytest.mark.parametrize("classes", [2, 11])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("integer", [torch.int32, torch.int64], ids=str)
def test_every_width_and_index(name, classes, dtype, integer):
    """Long rows, frames that move sparse columns, many points, rows of which the last batch is short."""
    rng = np.random.default_rng(15)
    matrix = rng.normal(size=(131, 300))
    matrix[:, 5:] *= rng.random((131, 295)) < 0.9
    sparse = sparse_rows(matrix, dtype)
    block = Block(
        torch.from_numpy(rng.integers(0, classes, 131)),
        dense=torch.from_numpy(rng.normal(size=(131, 270))).to(dtype),
        sparse=SparseRows(sparse.indptr.to(integer), sparse.indices.to(integer), sparse.values, 300),
        codes=coded_columns(rng, 131),
    )
    shift, scale = torch.zeros(block.features).double(), torch.ones(block.features).double()
    shift[:275], scale[:300] = 3.0, 1.5
    loss, frame = loss_for(classes), Frame(shift, scale)
    for points in (1, 3, 40 // loss.outputs):
        theta = 0.1 * torch.from_numpy(rng.normal(size=(points, loss.outputs, block.features + 1)))
        if name == "reference":
            return  # it is what others are compared with, and slow
        mine, other = KERNELS[name](loss, frame), KERNELS["torch"](loss, frame)
        swept, expected = mine.value_gradient(block, theta), other.value_gradient(block, theta)
        for field in ("weight", "loss", "gradient", "margin"):
            _close(getattr(swept, field), getattr(expected, field), 1e-11)
        _close(mine.linear_predictor(block, theta), other.linear_predictor(block, theta), 1e-11)
        _close(mine.gram_diagonal(block, theta).diagonal, other.gram_diagonal(block, theta).diagonal, 1e-11)
        bent = mine.curvature_product(block, theta, theta).product
        _close(bent, other.curvature_product(block, theta, theta).product, 1e-11)


def test_rows_that_lie_column_by_column(name):
    rng = np.random.default_rng(16)
    dense = torch.from_numpy(rng.normal(size=(50, 4)))
    target = torch.from_numpy(rng.integers(0, 2, 50))
    theta = torch.from_numpy(rng.normal(size=(1, 1, 5)))
    kernel = KERNELS[name](Binomial(), _identity_frame(4))
    mine = kernel.value_gradient(Block(target, dense=dense.T.contiguous().T), theta)
    expected = kernel.value_gradient(Block(target, dense=dense), theta)
    _close(mine.loss, expected.loss)
    _close(mine.gradient, expected.gradient)


def test_any_margin_to_a_few_units_of_rounding(name):
    """Between the extremes: where exponentials are reduced, and logarithms change their branch."""
    rng = np.random.default_rng(17)
    kernel = KERNELS[name](Binomial(), _identity_frame(1))
    theta = torch.tensor([[[1.0, 0.0]]]).double()
    for eta in np.concatenate([rng.uniform(-3, 3, 60), rng.uniform(-700, 700, 40), 0.88137 + rng.normal(0, 1e-3, 10)]):
        loss, slope, _ = _binomial_truth(float(eta), 1)
        stats = kernel.value_gradient(Block(torch.tensor([1]), dense=torch.tensor([[eta]]).double()), theta)
        _assert_precise(float(stats.loss), loss, torch.float64, 4)
        _assert_precise(float(stats.gradient[0, 0, -1]), slope, torch.float64, 4)
