"""The nouns of the project: frozen data that every other module passes around.

Shapes, once (DESIGN of the whole package):

- ``theta`` is ``(L, K, p + 1)``: lanes, outputs (``K = 1`` for two classes), coefficients with the intercept last.
- ``eta``, the linear predictor, is ``(rows, L, K)``.
- A *lane* is one of L independent problems over the same rows. A plain fit has one.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from torch import Tensor

from torchlogit.threads import in_ranges

# Elements of rows that become another dtype while they are in a core's cache.
_CONVERTED_ELEMENTS = 32_768


@dataclass(frozen=True, slots=True)
class SparseRows:
    """Compressed sparse rows: ``indptr (rows + 1,)``, ``indices (nnz,)``, ``values (nnz,)``."""

    indptr: Tensor
    indices: Tensor
    values: Tensor
    columns: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.indptr.shape[0] - 1

    def slice(self, start: int, stop: int) -> SparseRows:
        """Rows ``start:stop``; the values are views."""
        indptr = self.indptr[start : stop + 1]
        first, last = int(indptr[0]), int(indptr[-1])
        return SparseRows(indptr - first, self.indices[first:last], self.values[first:last], self.columns)

    def take(self, index: Tensor) -> SparseRows:
        """The rows named by ``index``, copied."""
        counts = self.indptr[1:] - self.indptr[:-1]
        chosen = counts[index]
        indptr = torch.zeros(index.shape[0] + 1, dtype=self.indptr.dtype, device=index.device)
        torch.cumsum(chosen, 0, out=indptr[1:])
        # Position of each kept non-zero: its row's old start plus its rank within the row.
        rank = torch.arange(int(indptr[-1]), device=index.device) - indptr[:-1].repeat_interleave(chosen)
        position = self.indptr[:-1][index].repeat_interleave(chosen) + rank
        return SparseRows(indptr, self.indices[position], self.values[position], self.columns)


@dataclass(frozen=True, slots=True)
class CodedColumns:
    """Categories as integers: column ``c`` of a row with code ``v`` means "column ``first[c] + v`` is one".

    ``codes`` is ``(rows, C)`` int32; a code of -1 means that none of that category's columns is one. ``first`` is
    ``(C,)`` int64, and ``columns`` the total number of one-hot columns that are never materialised.
    """

    codes: Tensor
    first: Tensor
    columns: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.codes.shape[0]

    def slice(self, start: int, stop: int) -> CodedColumns:
        """Rows ``start:stop``, as views."""
        return replace(self, codes=self.codes[start:stop])

    def take(self, index: Tensor) -> CodedColumns:
        """The rows named by ``index``, copied."""
        return replace(self, codes=self.codes[index])

    def as_sparse(self, dtype: torch.dtype) -> SparseRows:
        """The same columns as compressed sparse rows of ones."""
        rows, width = self.codes.shape
        columns = self.codes.to(torch.int64) + self.first
        present = self.codes >= 0
        indptr = torch.zeros(rows + 1, dtype=torch.int64, device=self.codes.device)
        torch.cumsum(present.sum(1), 0, out=indptr[1:])
        indices = columns.reshape(rows * width)[present.reshape(rows * width)]
        ones = torch.ones(indices.shape[0], dtype=dtype, device=self.codes.device)
        return SparseRows(indptr, indices, ones, self.columns)


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a problem. The columns are, in this order: dense, sparse, coded.

    Parameters
    ----------
    target : Tensor of shape (rows,) or (rows, L), integer
        Class codes ``0 .. classes - 1``.
    dense : Tensor of shape (rows, p_dense), floating, optional
    sparse : SparseRows, optional
    codes : CodedColumns, optional
    weight : Tensor of shape (rows,) or (rows, L), float64, optional
        Row weights; None means one each.
    offset : Tensor of shape (rows, 1 or L, K), float64, optional
        Added to the linear predictor.
    file, start : int
        Where the first row comes from: the number of the file and the row in it. A row's membership in a subsample
        is a hash of these.
    """

    target: Tensor
    dense: Tensor | None = None
    sparse: SparseRows | None = None
    codes: CodedColumns | None = None
    weight: Tensor | None = None
    offset: Tensor | None = None
    file: int = 0
    start: int = 0

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.target.shape[0]

    @property
    def widths(self) -> tuple[int, int, int]:
        """Number of dense, sparse and coded columns."""
        return (
            0 if self.dense is None else self.dense.shape[1],
            0 if self.sparse is None else self.sparse.columns,
            0 if self.codes is None else self.codes.columns,
        )

    @property
    def counts(self) -> bool:
        """Whether all rows count: nothing bounds the values of others."""
        return self.weight is None or bool((self.weight > 0).all())

    @property
    def features(self) -> int:
        """Number of columns, p."""
        return sum(self.widths)

    @property
    def device(self) -> torch.device:
        """Where the rows live."""
        return self.target.device

    @property
    def dtype(self) -> torch.dtype:
        """The rows' floating dtype."""
        if self.dense is not None:
            return self.dense.dtype
        return torch.float64 if self.sparse is None else self.sparse.values.dtype

    def lane_weights(self) -> Tensor:
        """Row weights ``(rows, L or 1)``, float64; ones where there are none."""
        if self.weight is None:
            return torch.ones(1, 1, dtype=torch.float64, device=self.device).expand(self.rows, 1)
        return self.weight.to(torch.float64).reshape(self.rows, -1)

    @property
    def nbytes(self) -> int:
        """Bytes that one read of the features moves."""
        total = 0
        if self.dense is not None:
            total += self.dense.nbytes
        if self.sparse is not None:
            total += self.sparse.values.nbytes + self.sparse.indices.nbytes + self.sparse.indptr.nbytes
        if self.codes is not None:
            total += self.codes.codes.nbytes
        return total

    def slice(self, start: int, stop: int) -> Block:
        """Rows ``start:stop``; nothing is copied."""
        return Block(
            target=self.target[start:stop],
            dense=None if self.dense is None else self.dense[start:stop],
            sparse=None if self.sparse is None else self.sparse.slice(start, stop),
            codes=None if self.codes is None else self.codes.slice(start, stop),
            weight=None if self.weight is None else self.weight[start:stop],
            offset=None if self.offset is None else self.offset[start:stop],
            file=self.file,
            start=self.start + start,
        )

    def cut(self, rows: int) -> Iterator[Block]:
        """Itself where it has no more rows, else pieces of at most so many."""
        if self.rows <= rows:  # the same object: a kernel may know it again
            yield self
            return
        for start in range(0, self.rows, rows):
            yield self.slice(start, min(start + rows, self.rows))

    def cut_evenly(self, rows: int) -> Iterator[Block]:
        """`cut`, but of more rows an even number of equal pieces."""
        return self.cut(rows if self.rows <= rows else even_block_rows(self.rows, rows))

    def take(self, index: Tensor, dtype: torch.dtype | None = None) -> Block:
        """The rows named by ``index``, copied, dense columns in another ``dtype`` if asked for.

        ``file`` and ``start`` no longer name rows afterwards.
        """
        return Block(
            target=self.target[index],
            dense=None if self.dense is None else _rows_of(self.dense, index, dtype or self.dense.dtype),
            sparse=None if self.sparse is None else self.sparse.take(index),
            codes=None if self.codes is None else self.codes.take(index),
            weight=None if self.weight is None else self.weight[index],
            offset=None if self.offset is None else self.offset[index],
        )


def even_block_rows(rows: int, most: int) -> int:
    """Of so many rows, those of a block: an even number of blocks, all alike, for two threads or four."""
    return -(-rows // (2 * -(-rows // (2 * most))))


def _rows_of(dense: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows copied, in that dtype."""
    rows, columns = index.shape[0], dense.shape[1]
    out = uninitialised((rows, columns), dense.new_empty(0, dtype=dtype))
    same = dense.dtype == dtype
    step = max(1, rows if same else _CONVERTED_ELEMENTS // max(1, columns))
    if dense.device.type != "cpu" or not dense.is_contiguous() or torch.bfloat16 in (dense.dtype, dtype):
        if same:
            return torch.index_select(dense, 0, index, out=out)
        for into, some in zip(torch.split(out, step), torch.split(index, step), strict=True):
            into.copy_(torch.index_select(dense, 0, some))
        return out
    # In less than half the time (100,000 rows of 100 columns: 24 ms, not 58), and threads share it.
    source, chosen, copied = dense.numpy(), index.numpy(), out.numpy()

    def copy(start: int, stop: int) -> None:
        room = None if same else np.empty((step, columns), source.dtype)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            into = copied[first:last] if room is None else room[: last - first]
            # The indices are known to be rows; "raise" would write to a buffer first.
            np.take(source, chosen[first:last], axis=0, out=into, mode="clip")
            if room is not None:
                copied[first:last] = into

    in_ranges(rows, copy, float(copied.size))
    return out


def uninitialised(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A tensor of the device and dtype of ``like``; on a CPU NumPy's memory, whose large pages are four times as fast
    to come by.
    """
    if like.device.type != "cpu" or not hasattr(np, name := str(like.dtype).removeprefix("torch.")):
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    return torch.from_numpy(np.empty(shape, name))


def joined(blocks: Sequence[Block]) -> Block:
    """Blocks of the same columns as one, copied. ``file`` and ``start`` no longer name rows afterwards."""

    def together(parts: list[Tensor | None]) -> Tensor | None:
        known = [part for part in parts if part is not None]
        return torch.cat(known) if len(known) == len(parts) else None

    sparse, codes = blocks[0].sparse, blocks[0].codes
    if sparse is not None:
        parts = [block.sparse for block in blocks if block.sparse is not None]
        ends = torch.tensor([part.values.shape[0] for part in parts]).cumsum(0).tolist()
        starts = [part.indptr[1:] - part.indptr[0] for part in parts]
        shifted = [start + end for start, end in zip(starts[1:], ends, strict=False)]
        indptr = torch.cat([starts[0].new_zeros(1), starts[0], *shifted])
        sparse = SparseRows(
            indptr, torch.cat([p.indices for p in parts]), torch.cat([p.values for p in parts]), sparse.columns
        )
    if codes is not None:
        codes = replace(codes, codes=torch.cat([block.codes.codes for block in blocks if block.codes is not None]))
    return Block(
        target=torch.cat([block.target for block in blocks]),
        dense=together([block.dense for block in blocks]),
        sparse=sparse,
        codes=codes,
        weight=together([block.weight for block in blocks]),
        offset=together([block.offset for block in blocks]),
    )


@dataclass(frozen=True, slots=True)
class RowStats:
    """What a sweep over rows adds up. ``M`` is the number of lanes evaluated, ``D = p + 1``.

    All sums are float64 and *unnormalised*: dividing by ``weight`` is the objective's business. Adding two records
    adds every field (``margin``, a minimum, excepted), so a new field touches no solver.
    """

    rows: int
    weight: Tensor  # (M,)
    loss: Tensor | None = None  # (M,)
    gradient: Tensor | None = None  # (M, K, D)
    # (M,) smallest signed margin among rows of positive weight
    margin: Tensor | None = field(default=None, metadata={"reduce": "min"})
    product: Tensor | None = None  # (M, K, D) curvature times a direction
    gram: Tensor | None = None  # (M, K * D, K * D) curvature
    diagonal: Tensor | None = None  # (M, K, D) its diagonal
    cross: Tensor | None = None  # (M, K, D) its column of the intercept, class by class
    score_gram: Tensor | None = None  # (M, K * D, K * D) sum of w^2 times the outer product of row scores

    def __add__(self, other: RowStats) -> RowStats:
        """Add two records field by field."""
        total: dict[str, object] = {}
        for item in fields(self):
            a, b = getattr(self, item.name), getattr(other, item.name)
            if a is None or b is None:
                total[item.name] = None
            elif item.metadata.get("reduce") == "min":
                total[item.name] = torch.minimum(a, b)
            else:
                total[item.name] = a + b
        return RowStats(**total)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Frame:
    """The coordinates in which kernels see the columns: ``z = (x - shift) / scale``. For rounding only.

    Both are ``(p,)`` float64. Centring here is what keeps a timestamp (mean 1.7e9, deviation 1e4) from losing six
    digits in every product. Sparse columns keep ``shift = 0`` (unless they are stored in every row), coded columns
    also ``scale = 1``.
    """

    shift: Tensor
    scale: Tensor

    def moves(self, start: int = 0, stop: int | None = None) -> bool:
        """Whether any of these columns is seen otherwise than as it is."""
        here = slice(start, stop)
        return bool((self.shift[here] != 0).any() or (self.scale[here] != 1).any())

    def to(self, device: torch.device) -> Frame:
        """The same frame on another device."""
        return Frame(self.shift.to(device), self.scale.to(device))


class Status(enum.Enum):
    """How a fit ended. Every value is a sentence for the person who reads it."""

    CONVERGED = "Converged: the certificate holds."
    MAX_ITER = (
        "Not converged: the budget of {max_iter} iterations is used up (certificate {kkt:.2g} and excess "
        "{excess:.2g}, wanted {tol:.2g} and {excess_limit:.2g}). "
        "Increase the number of iterations (max_iter), or accept a larger tol."
    )
    SEPARATED = (
        "Not converged: the classes are completely separated by {columns}, so without a penalty the likelihood has no "
        "maximum and the coefficients grow without end. Add a penalty (a finite C), or use the rule itself."
    )
    QUASI_SEPARATED = (
        "Not converged: the classes are quasi-completely separated by {columns}: without a penalty {its} no "
        "finite best value. Add a penalty (a finite C), drop or merge the column, or collect more rows."
    )
    PRECISION = (
        "Not converged: floating-point precision is exhausted (certificate {kkt:.2g} and excess {excess:.2g}, wanted "
        "{tol:.2g} and {excess_limit:.2g}); no step improves the objective any more. Accept a larger tol."
    )
    UNDECIDED = (
        "Not converged: the certificate holds, but whether the classes are separated could not be decided within the "
        "limits of the linear programme. Add a penalty (a finite C)."
    )
    INTERRUPTED = "Not converged: interrupted after {iterations} iterations; the coefficients are the last one's."

    @property
    def converged(self) -> bool:
        """Whether this is the optimum."""
        return self is Status.CONVERGED


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What a fit may spend and how exact it must be."""

    tol: float = 1e-6
    max_iter: int = 1000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LaneResult:
    """The end of one lane, in raw units.

    ``theta`` is ``(K, p + 1)`` float64. ``centre`` is ``(p,)`` float64 and ``centred_intercept`` ``(K,)``: the same
    linear predictor written as ``(x - centre) @ w + centred_intercept``, which loses nothing to large means.
    """

    theta: Tensor
    centre: Tensor
    centred_intercept: Tensor
    objective: float
    kkt: float
    excess: float
    iterations: int
    status: Status
    message: str
    separated_columns: tuple[int, ...] = ()

    @property
    def converged(self) -> bool:
        """Whether the certificate holds."""
        return self.status.converged
