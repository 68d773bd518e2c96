"""Small problems that several contract tests share."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch

from torchlogit.block_diagonal import BlockDiagonal
from torchlogit.class_curvature import ClassCholesky
from torchlogit.hessian_factors import HessianCholesky, PassingHessian, RoundedHessian
from torchlogit.kernels import KERNELS
from torchlogit.losses import loss_for
from torchlogit.moments import column_moments
from torchlogit.objective import Effort, Objective
from torchlogit.penalties import ElasticNet
from torchlogit.preconditioners import CentredDiagonal, GramEigenbasis, HessianDiagonal, Identity
from torchlogit.problem import Block, CodedColumns, SparseRows
from torchlogit.sources import MemorySource

PRECONDITIONERS = {
    "identity": lambda objective: Identity(),
    "diagonal": lambda objective: HessianDiagonal(),
    "centred diagonal": lambda objective: CentredDiagonal(),
    "block diagonal": lambda objective: BlockDiagonal(),
    "one block of all columns": lambda objective: BlockDiagonal(far=True),
    "Cholesky": lambda objective: HessianCholesky(),
    "Cholesky of a subsample": lambda objective: HessianCholesky(objective.source.subsample(0.5, 0)),
    "Cholesky from float32": lambda objective: RoundedHessian(),
    "Hessian of the first read": lambda objective: PassingHessian(objective.source.subsample(0.5, 0)),
    "eigenbasis": lambda objective: GramEigenbasis(objective.source),
    "Cholesky of each class": lambda objective: ClassCholesky(objective.source),
}
FOR_MANY_CLASSES = ("eigenbasis", "Cholesky of each class")
ROUNDED = ("Cholesky of each class",)  # solve in float32
LAYOUTS = ("dense", "sparse", "coded", "composite")


def sparse_rows(matrix, dtype=torch.float64):
    csr = scipy.sparse.csr_array(matrix)
    return SparseRows(
        torch.from_numpy(csr.indptr.astype(np.int64)),
        torch.from_numpy(csr.indices.astype(np.int64)),
        torch.from_numpy(csr.data.copy()).to(dtype),
        csr.shape[1],
    )


def coded_columns(rng, rows, levels=(3, 2)):
    """Categories with some absent ones (code -1)."""
    codes = np.column_stack([rng.integers(-1, level, rows) for level in levels]).astype(np.int32)
    first = np.concatenate([[0], np.cumsum(levels)[:-1]]).astype(np.int64)
    return CodedColumns(torch.from_numpy(codes), torch.from_numpy(first), int(sum(levels)))


def block_of(rng, layout, rows=23, classes=2, lanes=1, dtype=torch.float64, plain=False):
    """A block with weights (some zero), targets and offsets of its own for every lane."""
    K = 1 if classes == 2 else classes
    parts = {}
    if layout in ("dense", "composite"):
        parts["dense"] = torch.from_numpy(rng.normal(size=(rows, 3)) * [1.0, 20.0, 0.1] + [0, 5, 0]).to(dtype)
    if layout in ("sparse", "composite"):
        matrix = rng.normal(size=(rows, 4)) * (rng.random((rows, 4)) < 0.4)
        parts["sparse"] = sparse_rows(matrix, dtype)
    if layout in ("coded", "composite"):
        parts["codes"] = coded_columns(rng, rows)
    target = torch.from_numpy(rng.integers(0, classes, (rows, lanes)))
    if plain:
        return Block(target[:, 0], **parts)
    weight = torch.from_numpy(rng.choice([0.0, 0.5, 1.0, 3.0], (rows, lanes)))
    weight[0] = 1.0
    offset = torch.from_numpy(rng.normal(size=(rows, lanes, K)))
    return Block(target, weight=weight, offset=offset, **parts)


def objective_from(X, y, l2=0.0, weight=None, offset=None, fit_intercept=True, kernel="torch", classes=None):
    """An objective over dense rows; a sequence of ``l2`` makes lanes, two-dimensional y or weight give each its own."""
    y = np.asarray(y)
    classes = classes or int(y.max()) + 1
    loss = loss_for(classes)
    strengths = np.atleast_1d(np.asarray(l2, dtype=float))
    block = Block(
        torch.from_numpy(y.astype(np.int64)),
        dense=torch.from_numpy(np.ascontiguousarray(X, dtype=np.float64)),
        weight=None if weight is None else torch.from_numpy(np.asarray(weight, dtype=np.float64)),
        offset=None if offset is None else torch.from_numpy(np.asarray(offset, dtype=np.float64)),
    )
    source = MemorySource(block, loss.outputs * len(strengths))
    moments = column_moments(source, len(strengths))
    return Objective(
        source,
        KERNELS[kernel](loss, moments.frame(fit_intercept)),
        tuple(ElasticNet(l2=float(value)) for value in strengths),
        moments,
        fit_intercept,
        Effort(source.rows),
        offset is not None,
    )


def classification(rng, rows=300, columns=6, classes=2, noise=1.0):
    """Overlapping classes in columns of very different units."""
    X = rng.normal(size=(rows, columns))
    truth = rng.normal(size=(columns, classes)) / np.sqrt(columns)
    y = (X @ truth + noise * rng.gumbel(size=(rows, classes))).argmax(1)
    units = 10.0 ** rng.uniform(-3, 3, columns)
    return X * units + 5 * units * rng.normal(size=columns), y
