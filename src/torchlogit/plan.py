"""The decision table: problem, source and device to solver, preconditioner and start, with the reason in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torchlogit import row_space
from torchlogit.block_diagonal import BlockDiagonal
from torchlogit.class_curvature import ClassCholesky, product_operations
from torchlogit.description import Plan, describe_objective
from torchlogit.guide import Guide, guide_for, short_guide_for, takes_guide
from torchlogit.hessian_factors import HessianCholesky, PassingHessian, RoundedHessian
from torchlogit.kernels import Kernel
from torchlogit.kernels.numba_cpu import DENSE_OUTPUTS
from torchlogit.kernels.triton_cuda import device_kernel
from torchlogit.losses import Loss
from torchlogit.objective import Objective
from torchlogit.preconditioners import CentredDiagonal, GramEigenbasis, HandedOn
from torchlogit.problem import FitOptions
from torchlogit.row_space import RowCholesky
from torchlogit.solvers import LBFGS, Guided, Newton, Solver
from torchlogit.sources import Source

# A matrix of S x S must fit (128 MiB at 4,000), and its factor cost little beside the reads of the rows.
_LARGEST_MATRIX = 4_000
# Multiplications of a second derivative over all rows up to which it is built at every step: L-BFGS around a
# subsample's would spend as long on its own arithmetic. With many classes, conjugate gradients are the rival
# (benchmarks: digits, 7.6e8).
_EXACT_OPERATIONS = 1e8
# The same where no subsample is large enough; and up to which it is built when nothing else has led anywhere.
_EXACT_OPERATIONS_ALONE, _LAST_OPERATIONS = 1e9, 1e12
# The same with many classes where one is (20,000 x 20 with three, 8e7: 0.6 to 0.8 of the time).
_EXACT_OPERATIONS_CLASSES = 3e7
# With many classes, those up to which the whole Hessian is an alternative to products.
_ALTERNATIVE_OPERATIONS = 3e10
# Rows a subsample needs for its curvature to resemble the whole: ten for each coefficient, and never too few. For two
# classes a tenth of all rows where its matrix costs no more than a few reads of them: twice the rows take two thirds
# of the steps (`benchmarks/`).
_ROWS_PER_COEFFICIENT, _LEAST_ROWS, _SHARE, _SHARE_COLUMNS = 10, 5_000, 0.1, 250
# The same share with many classes, whose subsample takes longer to solve (1,000,000 x 50 with five: two thirds of the
# time that 5,000 rows lead to).
_SHARE_CLASSES = 0.04
# The share of the rarer class from which rows are as good as any. Of fewer, a subsample has too few: it is all but
# separated, and its optimum and its Hessian lead astray (80,000 x 700, one of 43: 8 s, not 0.3).
_USUAL_SHARE = 0.3
# Coefficients up to which a read of files takes longer than the products of its Hessian.
_PASSING_MATRIX = 256
# Products with the curvature that a subsample's Hessian may cost at every step of Newton's method with many classes: it
# saves about as many; and where it is built once, for gradients (50,000 x 50 with ten classes: a third of the time that
# products take, 100,000 x 100, at 16: half, 50,000 x 50 with twenty, at 52: 0.8; 50,000 x 30 with fifty, at 190: 2.5
# times as long).
_WORTH_PRODUCTS, _WORTH_ONCE = 10.0, 60.0
# The share of the loss without any column below which gradients around it are not tried: most rows are decided, and the
# few that bend the objective are fewer still in a subsample (ten classes of pixels: 1.3 times as long).
_DECIDED = 0.2
# Numbers stored, times outputs, from which compiled loops repay their import: 0.6 s, once, where a pass gains 1.4 ns a
# number (one core, 1,000,000 x 100) and the fastest fits take six. Below that nothing of Numba is touched.
_WORTH_LOOPS = 2e7
# A start from a subsample pays when all rows are at least this many times as many. Its certificate is this over the
# root of its rows, a tenth of its sampling error, and its steps are few: it may be separated where the whole is not.
_WARM_RATIO, _WARM_DIGITS, _WARM_STEPS = 5, 0.1, 15
# Columns from which rows in eight bits are worth more than a subsample that takes less memory, where they are an eighth
# of the rows. (Time in place of a subsample's: 110,000 x 700 0.3 to 1, whether columns correlate or not; 150,000 x 500
# 0.7 to 1.3, a tenth where one class is rare or columns are; 250,000 x 300 twice.)
_GUIDED_COLUMNS, _GUIDED_BYTES = 450, 8
# Multiplications of a second derivative from which fewer rows than columns are worth a thought (30 x 150: 7e5), what is
# left of the tolerance in a problem of as few columns as rows, whose units are others, and its steps.
_ROW_SPACE_OPERATIONS, _ROW_SPACE_TOL, _ROW_SPACE_STEPS = 1e6, 1e-3, 100
# Products of all rows for which a Hessian in float32 is kept, for each column (9,000 x 2,500: it takes 0.8 s, a product
# and a solution 20 ms; half as many or twice make no difference).
_HESSIAN_PRODUCTS = 0.01
# What a matrix costs, in products, from which few rows have conjugate gradients around the diagonal until they have
# taken as many; and products for which that is kept. (Embeddings of 384 columns, 500 to 2,000 rows, two to ten classes:
# 0.4 to 0.8 of the time; independent columns 0.7, pixels 0.65 to 0.8; neighbours that correlate by 0.95 0.96 to 1.3.)
_WORTH_TRYING, _DIAGONAL_PRODUCTS = 4.0, 4.0
# The same where columns are too many for a matrix: their diagonal takes longer; and numbers stored up to which two
# classes have products too. (Time in place of L-BFGS around the diagonal, two classes: 5,574 x 8,713 texts 0.7,
# 20,000 x 1,000,000 0.45, one-hot columns of clicks 0.4 to 0.6, words 1.0 to 1.2; four to twenty 0.35 to 1.0.)
_SPARSE_PRODUCTS, _FEW_STORED = 8.0, 3e5
# Slow steps in a row of L-BFGS around the diagonal of so many columns, after which products take over: two are no sign
# yet (40,000 x 30,000 words: 1.1 times the time without products, not 1.4).
_SLOW_STEPS = 3
# Products of a guide that a whole Hessian costs, for each column (20,000 x 2,000, bfloat16: 0.25 s; a product 2.5 ms),
# and those that it may always take.
_GUIDE_PRODUCTS, _LEAST_GUIDE_PRODUCTS = 0.05, 40


@dataclass(frozen=True)
class Choice:
    """A plan with the objects it stands for."""

    plan: Plan
    solver: Solver
    warm: WarmStart | None


@dataclass(frozen=True)
class WarmStart:
    """A smaller problem: its optimum is where the whole one starts, with its curvature ``hand_on`` if that is wanted.

    A subsample's is planned by the same table. Where its columns are others, ``lift`` takes a point to what it is among
    those of the whole.
    """

    objective: Objective
    solver: Solver
    options: FitOptions
    below: WarmStart | None = None  # where it starts itself
    hand_on: HandedOn | None = None
    lift: Callable[[Tensor], Tensor] | None = None


def kernel_for(source: Source, loss: Loss, lanes: int = 1) -> tuple[str, str]:
    """The kernel for rows that are where they are, and why.

    Parameters
    ----------
    source : Source
    loss : Loss
    lanes : int, default=1

    Returns
    -------
    name : str
        A key of `torchlogit.kernels.KERNELS`.
    reason : str
    """
    if source.device.type != "cpu":
        return device_kernel(next(iter(source.blocks(1))), loss, lanes)
    dense, sparse, coded = source.widths
    outputs = loss.outputs * lanes
    if outputs >= DENSE_OUTPUTS and not (sparse or coded):
        return "torch", f"dense rows times {outputs:,} outputs are what matrix products are for"
    stored = dense * source.rows if not (sparse or coded) else source.nbytes // 8
    if stored * outputs < _WORTH_LOOPS:
        return "torch", "so few numbers are read before compiled loops would be loaded"
    return "numba", f"about {stored:,} numbers, read once a pass by compiled loops"


def choose(
    objective: Objective, options: FitOptions, kernel_name: str, may_warm: bool, kernel_reason: str = ""
) -> Choice:
    """Apply the table.

    ==========================  =============================  ==================================================
    coefficients S = K (p + 1)  rows                           solver and curvature
    ==========================  =============================  ==================================================
    any                         after others, of which only    L-BFGS around the Hessian's diagonal
                                the diagonal is known
    S > 2 rows, two classes     up to 4,000, dense, in memory  Newton around the Cholesky factor of the rows' products,
    p > 4 rows, many classes    and penalised; their products  from the optimum of a problem of as few columns as rows
                                take little memory
    S <= 4,000, two classes     rows * S^2 <= 1e8, or 1e9      Newton, Cholesky of the whole Hessian at every step
                                where rows < 20 S
    S <= 4,000, two classes     more, and a subsample takes    L-BFGS around the subsample's Hessian; Newton-CG around
                                less memory than all rows in   one of all rows in float32 should that mislead
                                eight bits, and S < 450 or the
                                rows are in float32; or
                                rounding hides what tells
                                columns apart
    S <= 4,000, two classes     otherwise                      Newton-CG along rows of eight bits, where there are
                                                               such; else L-BFGS around the diagonal; around the
                                                               whole Hessian should that be slow; then as above
    S <= 4,000, many classes    rows * S^2 <= 1e8, or 3e7      Newton, Cholesky of the whole Hessian at every step
                                where a subsample is large
                                enough
    S <= 4,000, many classes    more, and a subsample's        L-BFGS around the subsample's Hessian; as follows where
                                Hessian costs no more than     most rows are decided, or should that be slow
                                sixty products; penalised
    S <= 4,000, many classes    up to 3e10                     Newton-CG, Cholesky of each class's Hessian; of the whole
                                                               one if products turn out to cost more than that
    S <= 4,000, many classes    more                           Newton-CG preconditioned by a subsample's Hessian, where
                                                               that costs no more than ten products
    p < 4,000                   otherwise, many classes        Newton-CG, Cholesky of each class's Hessian; where those
                                                               cost too much, in the Gram eigenbasis
    S > 4,000                   otherwise, two classes         L-BFGS around the Hessian's diagonal; Newton-CG around
                                                               it should that be slow, or where few numbers are stored
    S > 4,000                   otherwise, many classes        Newton-CG around the Hessian's diagonal
    ==========================  =============================  ==================================================

    Where a matrix that is built at every step costs some products or more (the whole Hessian from 206 columns of two
    classes), of dense rows in memory that are few and penalised, conjugate gradients around the Hessian's diagonal come
    first, until they have taken as many products as it costs.

    A subsample has ten rows for each coefficient (more where a class is rare), or a tenth of all (a twenty-fifth with
    many classes), at most half of them.
    Beside the diagonal of dense rows of two classes, no fewer than columns, stands what neighbouring columns have in
    common, or all. Many classes whose products need few digits have them from rows in bfloat16, and start from the
    optimum of those. Rows that stay in their files have L-BFGS in every case, around what the sample in memory tells of
    the curvature.
    """
    way = (
        _along_row_space(objective, options, may_warm)
        or _along_rounded_rows(objective, options.tol, may_warm)
        or _along_sample(objective, options)
    )
    solver, reason, guide, sample = way.solver, way.reason, way.guide, way.sample
    rows, outputs, width = objective.source.rows, objective.outputs, objective.width
    shape = f"{rows:,} rows, {width - 1:,} columns, {outputs} output{'s' if outputs > 1 else ''}"
    warm = way.start
    worth = sample is not None and (rows >= _WARM_RATIO * sample.rows or not objective.source.resident)
    if may_warm and sample is not None and worth:
        # What a subsample's optimum has in common with the whole one is worth no more digits than this.
        tol = max(options.tol, _WARM_DIGITS / sample.rows**0.5)
        own, brief = objective.on(sample), FitOptions(tol=tol, max_iter=_WARM_STEPS, seed=options.seed)
        chosen = choose(own, brief, kernel_name, True)
        warm = WarmStart(own, chosen.solver, brief, chosen.warm)
    elif may_warm and guide is not None:
        assert isinstance(solver, Guided | Newton)
        warm = start_of(guide, solver, options)
    plan = Plan(
        solver=solver.name,
        preconditioner=solver.preconditioner.name,
        kernel=kernel_name,
        device=str(objective.source.device),
        warm_rows=0 if warm is None else warm.objective.source.rows,
        reason=f"{shape}: {reason}",
        objective=describe_objective(objective),
        kernel_reason=kernel_reason,
    )
    return Choice(plan, solver, warm)


@dataclass(frozen=True)
class _Way:
    """A solver and why; rounded rows that it goes along, a subsample that it starts from, or another start."""

    solver: Guided | LBFGS | Newton
    reason: str
    guide: Guide | None = None
    sample: Source | None = None
    start: WarmStart | None = None


def _along_row_space(objective: Objective, options: FitOptions, may_warm: bool) -> _Way | None:
    """The solver of few rows of many columns, through the products of the rows; None for others."""
    whole = objective.source.rows * float(objective.outputs * objective.width) ** 2
    if whole <= _ROW_SPACE_OPERATIONS or not row_space.fits(objective):
        return None
    space = row_space.row_space(objective)
    if space is None:
        return None
    solver = Newton(RowCholesky(space), options.tol)
    start, brief = None, FitOptions(tol=_ROW_SPACE_TOL * options.tol, max_iter=_ROW_SPACE_STEPS, seed=options.seed)
    if may_warm:
        few = space.reduced
        own = Newton(HessianCholesky(), brief.tol) if few.outputs == 1 else choose(few, brief, "torch", False).solver
        start = WarmStart(few, own, brief, lift=space.lifted)
    return _Way(solver, "fewer rows than columns: the products of the rows are all that counts", start=start)


def _along_sample(objective: Objective, options: FitOptions) -> _Way:
    """The table's solver around a subsample, where there is one; many classes go along rounded rows."""
    sample = _sample(objective, options.seed)
    solver, reason = _solver(objective, options.tol, sample)
    blocks = solver.preconditioner
    if isinstance(solver, Newton) and isinstance(blocks, ClassCholesky) and blocks.sample is objective.source:
        many = float(objective.source.rows) * objective.width * objective.outputs >= _WORTH_LOOPS
        guide = short_guide_for(objective) if many else None
        if guide is not None:
            blocks = ClassCholesky(guide.objective.source, guide.objective.kernel)
            along = replace(solver, guide=guide.objective, preconditioner=HandedOn(blocks))
            return _Way(along, f"{reason}; rows rounded to {guide.rounded_to} show the way", guide, sample)
    return _Way(solver, reason, None, sample)


def _along_rounded_rows(objective: Objective, tol: float, may_warm: bool) -> _Way | None:
    """The solver of two classes along rows of eight bits, in place of a subsample; None where another way is better.

    Where the subsample would be no smaller than those, or there are so many columns that it is only ten times as many
    rows, whose Hessian takes long to make and says little.
    """
    rows, width = objective.source.rows, objective.width
    if not takes_guide(objective) or width > _LARGEST_MATRIX or rows * float(width) ** 2 <= _EXACT_OPERATIONS_ALONE:
        return None
    sampled, itemsize = _wanted_rows(objective), objective.source.dtype.itemsize
    may_sample = 2 * sampled <= rows
    much_to_gain = width >= _GUIDED_COLUMNS and itemsize >= _GUIDED_BYTES
    if may_sample and sampled * itemsize <= rows and not much_to_gain:
        return None
    solver, reason = _solver(objective, tol, None)
    assert isinstance(solver, LBFGS)
    guide = guide_for(objective)
    if guide is None:
        return _Way(solver, reason)
    handed = HandedOn(_diagonal(guide.objective, far=True))
    if may_sample:
        curvature = handed.around.build(guide.objective, objective.zeros(), objective.all_lanes())
        if guide.misleads(objective, curvature):
            return None
        if may_warm:
            handed.give(curvature)
    # Where conjugate gradients around the diagonal are slow, gradients around it would be, too.
    last_resort = solver.last_resort if isinstance(solver.last_resort, LBFGS) else solver
    products = max(_LEAST_GUIDE_PRODUCTS, int(_GUIDE_PRODUCTS * width))
    first = Guided(handed, tol, guide.objective, last_resort, products)
    return _Way(first, "its rows rounded to eight bits show the way, and are read in a sixth of the time", guide)


def start_of(guide: Guide, solver: Guided | Newton, options: FitOptions) -> WarmStart:
    """The optimum of the rounded rows, as far as it has digits in common with that of the rows themselves."""
    objective, handed = guide.objective, solver.preconditioner
    assert isinstance(handed, HandedOn)
    brief = FitOptions(tol=max(options.tol, guide.tol), max_iter=_WARM_STEPS, seed=options.seed)
    own = replace(solver, tol=brief.tol, guide=None, last_resort=None, starting=True)
    return WarmStart(objective, own, brief, hand_on=handed)


def _sample(objective: Objective, seed: int) -> Source | None:
    """Rows that stand for all, or None where all are too few, or where nothing would be made of them.

    A prior stands beside all rows, not beside a sample.
    """
    rows, size = objective.source.rows, objective.outputs * objective.width
    if not objective.source.resident and objective.prior is None:  # a read costs more than any sample in memory
        sample = objective.source.subsample(1.0, seed)
        return sample if 2 * sample.rows >= _least_rows(objective) else None
    if size > _LARGEST_MATRIX and objective.outputs == 1:
        return None
    if objective.prior is not None or 2 * _least_rows(objective) > rows:  # small problems count no labels
        return None
    wanted = _wanted_rows(objective)
    if 2 * wanted > rows or (rows < _WARM_RATIO * wanted and not _wants_sample(objective)):
        return None
    return objective.source.subsample(wanted / objective.effort.total_rows, seed, _sampled_dtype(objective))


def _wants_sample(objective: Objective) -> bool:
    """Whether a subsample is wanted for its curvature, which need not be a start."""
    size, blocks = objective.outputs * objective.width, ClassCholesky(objective.source)
    if size <= _LARGEST_MATRIX:  # of two classes the whole Hessian may be built anyway
        return objective.outputs > 1 or objective.source.rows * float(size) ** 2 > _EXACT_OPERATIONS
    return objective.width <= _LARGEST_MATRIX and not (blocks.fits(objective) and blocks.affords_reading(objective))


def _sampled_dtype(objective: Objective) -> torch.dtype | None:
    """What dense rows of a subsample are rounded to: float32 where it says of the curvature what the rows do.

    They are half the memory, and read in half the time. None leaves them as they are: columns whose digits are spent on
    how far they are from zero, and those whose flat directions hold no more than the rounding.
    """
    source, moments = objective.source, objective.moments
    if source.device.type != "cpu" or source.dtype != torch.float64 or any(source.widths[1:]):
        return None
    distance = moments.mean / moments.scale(objective.fit_intercept)
    noise = torch.finfo(torch.float32).eps ** 2 / 12 * (1 + distance.square())
    near = moments.near_zero(objective.fit_intercept)
    return torch.float32 if near and objective.bends_more_than(noise) else None


def _least_rows(objective: Objective) -> float:
    """Rows whose curvature resembles that of all."""
    size = objective.outputs * objective.width
    return float(max(_ROWS_PER_COEFFICIENT * min(size, _LARGEST_MATRIX), _LEAST_ROWS))


def _wanted_rows(objective: Objective) -> float:
    """Rows that a subsample in memory should have."""
    least, size = _least_rows(objective), objective.outputs * objective.width
    if size > _LARGEST_MATRIX:
        return least
    share = _SHARE_CLASSES
    if objective.outputs == 1:
        share = _SHARE
        least = max(least, _ROWS_PER_COEFFICIENT * size * max(1.0, _USUAL_SHARE / objective.rarer_share))
    return max(least, share * objective.source.rows * min(1.0, _SHARE_COLUMNS / size))


def _solver(objective: Objective, tol: float, sample: Source | None) -> tuple[LBFGS | Newton, str]:
    """The table's solver, and why."""
    rows, outputs, width = objective.source.rows, objective.outputs, objective.width
    size = outputs * width
    whole = rows * float(size) ** 2
    if sample is not None and not objective.source.resident:
        return _streaming(objective, tol, sample)
    if objective.prior is not None and not objective.prior.whole:
        return LBFGS(CentredDiagonal(), tol), "of earlier rows only the diagonal of the curvature is known"
    if outputs == 1 and size <= _LARGEST_MATRIX:
        if whole <= (_EXACT_OPERATIONS if sample is not None else _EXACT_OPERATIONS_ALONE):
            reason = f"the whole Hessian ({size:,} x {size:,}) costs less than the steps it saves"
            return _after_products(objective, Newton(HessianCholesky(), tol), reason)
        last_resort = _last_resort(objective, tol) if whole <= _LAST_OPERATIONS else None
        if sample is not None:
            return LBFGS(HessianCholesky(sample), tol, last_resort=last_resort), (
                "the Hessian fits, a subsample's is enough"
            )
        once = LBFGS(HessianCholesky(rounded=True, coarse=True), tol, last_resort=last_resort)
        return LBFGS(_diagonal(objective), tol, last_resort=once), (
            "the Hessian fits, and is built once its diagonal turns out not to be enough"
        )
    slower, reason = _with_products(objective, tol, sample)
    fits = size <= _LARGEST_MATRIX and whole > _EXACT_OPERATIONS_CLASSES
    # Without a penalty, products that begin where gradients have led may not find what is left along columns that are
    # all but equal: their blocks hide it, and the gradient has next to nothing of it by then.
    if sample is None or not fits or objective.unpenalised or _products(objective, sample) > _WORTH_ONCE:
        return slower, reason
    least_value = _DECIDED * math.log(objective.kernel.loss.classes)
    return LBFGS(HessianCholesky(sample), tol, last_resort=slower, least_value=least_value), (
        "a subsample's Hessian is enough, unless most rows turn out to be decided"
    )


def _with_products(objective: Objective, tol: float, sample: Source | None) -> tuple[LBFGS | Newton, str]:
    """The table's solver for many classes where no subsample's Hessian will do, and for too many columns."""
    rows, outputs, width = objective.source.rows, objective.outputs, objective.width
    size = outputs * width
    whole = rows * float(size) ** 2
    if size <= _LARGEST_MATRIX and whole <= _ALTERNATIVE_OPERATIONS:
        small = _small(objective, tol)
        reason = f"the whole Hessian ({size:,} x {size:,}) costs less than the steps it saves"
        if not isinstance(small.preconditioner, HessianCholesky):
            reason = "the Hessians of single classes guide products at a fraction of the whole one's cost"
        return _after_products(objective, small, reason)
    if size <= _LARGEST_MATRIX and _products(objective, sample or objective.source) <= _WORTH_PRODUCTS:
        return Newton(HessianCholesky(sample), tol), (
            "many classes bend too much for a memory of gradients; a subsample's Hessian guides products"
        )
    if outputs > 1 and width <= _LARGEST_MATRIX:
        reason = f"the Hessian ({size:,} x {size:,}) costs too much, its blocks do not"
        return _after_products(objective, _many_classes(objective, tol, sample), reason)
    return _many_columns(objective, tol), "too many columns for a matrix of their products"


def _many_columns(objective: Objective, tol: float) -> LBFGS | Newton:
    """Around the diagonal: conjugate gradients, whose few vectors cost less than a memory's; or, for two classes,
    gradients alone, of which easy problems need fewer, and products once they turn out to be slow.
    """
    if objective.unpenalised or objective.source.device.type != "cpu":  # a device writes sparse rows out for a diagonal
        return LBFGS(_diagonal(objective), tol)
    products = Newton(CentredDiagonal(), tol, patience=_SPARSE_PRODUCTS)
    stored = objective.source.nbytes / objective.source.dtype.itemsize
    if objective.outputs > 1 or stored < _FEW_STORED:
        return products
    return LBFGS(_diagonal(objective), tol, patience=_SLOW_STEPS, last_resort=products)


def _last_resort(objective: Objective, tol: float) -> Newton:
    """Newton's method for two classes: what is left where curvature from elsewhere, or from some rows, has failed.

    Where a penalty keeps the Hessian from being singular, one in float32 preconditions until products with the true
    curvature have cost as much.
    """
    if objective.unpenalised:
        return Newton(HessianCholesky(), tol)
    return Newton(RoundedHessian(), tol, patience=_HESSIAN_PRODUCTS * objective.width)


def _diagonal(objective: Objective, *, far: bool = False) -> BlockDiagonal | CentredDiagonal:
    """What a diagonal can be made of, in hardly more time, or in that of a few reads."""
    return BlockDiagonal(far) if BlockDiagonal.fits(objective) else CentredDiagonal()


def _streaming(objective: Objective, tol: float, sample: Source) -> tuple[LBFGS, str]:
    """For rows that are read from their files: a step is a read, and nothing but gradients asks for one."""
    outputs, width = objective.outputs, objective.width
    size = outputs * width
    blocks = ClassCholesky(sample)
    if size <= _LARGEST_MATRIX:
        alone = outputs == 1 and objective.source.rows * float(size) ** 2 <= _LAST_OPERATIONS
        last_resort = Newton(HessianCholesky(), tol) if alone else None
        if size <= _PASSING_MATRIX:
            return LBFGS(PassingHessian(sample), tol, last_resort=last_resort), (
                "every step is a read of the files, and the first one has the time for the whole Hessian"
            )
        return LBFGS(HessianCholesky(sample), tol, last_resort=last_resort), (
            "every step is a read of the files, so the sample's Hessian guides it"
        )
    if outputs > 1 and width <= _LARGEST_MATRIX:
        curvature = blocks if blocks.fits(objective) else GramEigenbasis(sample)
        return LBFGS(curvature, tol), "every step is a read of the files, so the sample's Hessians guide it"
    return LBFGS(CentredDiagonal(), tol), "too many columns for a matrix of their products"


def _small(objective: Objective, tol: float) -> Newton:
    """Where the whole Hessian could be built at every step."""
    size, blocks = float(objective.outputs * objective.width), ClassCholesky(objective.source)
    few = objective.source.rows * size**2 <= _EXACT_OPERATIONS
    few = few or objective.prior is not None  # whose curvature the blocks of single classes do not see
    exact = Newton(HessianCholesky(), tol)
    if few or not blocks.fits(objective):
        return exact
    return Newton(
        blocks,
        tol,
        patience=blocks.products(objective),
        last_resort=exact,
        last_resort_products=_products(objective, objective.source),
    )


def _after_products(objective: Objective, solver: Newton, reason: str) -> tuple[Newton, str]:
    """Conjugate gradients around the diagonal, and the solver only should they take many products, where that is worth
    the attempt; else the solver as it is. With the reason.
    """
    rows, outputs, width = objective.source.rows, objective.outputs, objective.width
    here = objective.source.resident and objective.source.device.type == "cpu"
    little = here and rows * float(width) * outputs < _WORTH_LOOPS
    alone = objective.only_block is not None and objective.prior is None and not objective.unpenalised
    whole = isinstance(solver.preconditioner, HessianCholesky)
    cost = _products(objective, objective.source) if whole else solver.patience
    if not (little and alone and cost >= _WORTH_TRYING):
        return solver, reason
    first = Newton(
        CentredDiagonal(), solver.tol, patience=_DIAGONAL_PRODUCTS, last_resort=solver, last_resort_products=cost
    )
    return first, "products cost little beside a matrix, which is built once they turn out to be many"


def _products(objective: Objective, sample: Source) -> float:
    """What the Hessian of a sample costs, in products with the curvature of all rows."""
    size = float(objective.outputs * objective.width)
    return 2.0 * sample.rows * size**2 / product_operations(objective)


def _many_classes(objective: Objective, tol: float, sample: Source | None) -> Newton:
    """Conjugate gradients preconditioned by each class's own curvature.

    Its blocks choose their rows themselves, and choose better among all than among a subsample.
    """
    blocks = ClassCholesky(objective.source)
    if not blocks.affords_reading(objective) and sample is not None:
        blocks = ClassCholesky(sample)
    if blocks.fits(objective):
        return Newton(blocks, tol, patience=blocks.products(objective))
    return Newton(GramEigenbasis(sample or objective.source), tol)


__all__ = ["Choice", "Kernel", "Plan", "WarmStart", "choose", "describe_objective", "kernel_for"]
