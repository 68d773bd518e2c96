"""From what users hand to `train` to batches of tensors: in memory, sparse, loaders, files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from torchlogit.rows import LazyRows

# Rows of a batch where all of them are evaluated at once.
EVALUATED_ROWS = 65_536
_FINGERPRINT_ROWS = 64


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one update.

    Parameters
    ----------
    x : Tensor of shape (rows, ...)
    y : Tensor of shape (rows, ...)
    weight : Tensor of shape (rows,), optional
    rows : Tensor of shape (rows,), int64, optional
        Their numbers in the data, where rows have numbers.
    """

    x: Tensor
    y: Tensor
    weight: Tensor | None = None
    rows: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of rows."""
        return int(self.x.shape[0])

    def slice(self, start: int, stop: int) -> Batch:
        """Some of the rows; all of them are the batch itself."""
        if start == 0 and stop >= self.size:
            return self
        here = slice(start, stop)
        weight = None if self.weight is None else self.weight[here]
        return Batch(self.x[here], self.y[here], weight, None if self.rows is None else self.rows[here])


class Batches(Protocol):
    """Rows that can be gone through once an epoch, in an order that depends on seed and epoch alone."""

    @property
    def size(self) -> int | None:
        """Number of rows, where it is known."""
        ...

    @property
    def mean_weight(self) -> float | None:
        """Of all rows, where it is known; None also where there are no weights."""
        ...

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch."""
        ...

    def everything(self) -> Iterator[Batch] | None:
        """All rows in order, in large batches, or None where a pass costs an epoch."""
        ...

    def row(self, number: int) -> Batch | None:
        """One row by its number; None where rows have none."""
        ...

    def generators(self) -> list[torch.Generator]:
        """Random generators of its own, whose state is part of where a training stands."""
        ...

    def fingerprint(self) -> str:
        """Tells other data from these, as far as a glance can."""
        ...


@dataclass(frozen=True)
class Form:
    """What the model wants: the device, and the dtype of floating-point input."""

    device: torch.device
    dtype: torch.dtype

    def features(self, x: Tensor) -> Tensor:
        """Input on the device, in the model's dtype; integers that came as tensors stay integers (embeddings)."""
        if x.is_floating_point():
            return x.to(self.device, self.dtype)
        return x.to(self.device)

    def target(self, y: Tensor) -> Tensor:
        """Targets on the device; booleans become numbers."""
        return y.to(self.device, self.dtype if y.dtype == torch.bool or y.is_floating_point() else y.dtype)


def tensor_of(values: Any, name: str, *, features: bool = False) -> Tensor:
    """A tensor of whatever holds numbers; arrays and frames of features become floating-point."""
    if isinstance(values, Tensor):
        return values.detach()
    array = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} holds {array.dtype}, not numbers"
            + ("; put a TableEncoder before the module, or give class codes" if features else ": give class codes")
        )
    if features and array.dtype.kind != "f":
        array = array.astype(np.float64)
    if array.dtype.kind == "u":
        array = array.astype(np.int64)
    if any(stride < 0 for stride in array.strides) or not array.flags.writeable or not array.dtype.isnative:
        array = np.array(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(array)


class MemoryBatches:
    """Rows in memory, dense or sparse: a batch is a slice of one permuted index.

    Parameters
    ----------
    x : Tensor of shape (n, ...), or CSR matrix
    y : Tensor of shape (n, ...)
    weight : Tensor of shape (n,), optional
    batch_size : int, optional
        None: all rows, in their order.
    seed : int
    form : Form
    """

    def __init__(
        self, x: Any, y: Tensor, weight: Tensor | None, batch_size: int | None, seed: int, form: Form
    ) -> None:
        self.sparse = scipy.sparse.csr_array(x) if scipy.sparse.issparse(x) else None
        self.x, self.y, self.weight = x, y, weight
        self.batch_size, self.seed, self.form = batch_size, seed, form
        self.size = int(x.shape[0])
        self.mean_weight = None if weight is None else float(weight.double().mean())
        if batch_size is None:
            self._whole: Batch | None = self._taken(slice(0, self.size), None)
        else:
            self._whole = None

    def _taken(self, rows: Any, numbers: Tensor | None) -> Batch:
        if self.sparse is not None:
            chosen = rows if isinstance(rows, slice) else rows.numpy()
            x = torch.from_numpy(self.sparse[chosen].toarray())
        else:
            x = self.x[rows] if numbers is None else self.x.index_select(0, rows)
        weight = None if self.weight is None else self.weight[rows].to(self.form.device)
        return Batch(self.form.features(x), self.form.target(self.y[rows]), weight, numbers)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch."""
        if self._whole is not None:
            yield self._whole
            return
        assert self.batch_size is not None
        order = epoch_order(self.size, self.seed, number)
        index = order if self.sparse is not None else order.to(self.x.device)
        for start in range(0, self.size, self.batch_size):
            here = slice(start, start + self.batch_size)
            yield self._taken(index[here], order[here])

    def everything(self) -> Iterator[Batch] | None:
        """All rows in order."""
        if self._whole is not None:
            return iter([self._whole])
        return (
            self._taken(slice(start, start + EVALUATED_ROWS), None) for start in range(0, self.size, EVALUATED_ROWS)
        )

    def row(self, number: int) -> Batch | None:
        """One row."""
        if not 0 <= number < self.size:
            raise IndexError(f"there is no row {number}: the data have {self.size:,} rows, counted from 0")
        return self._taken(slice(number, number + 1), None)

    def generators(self) -> list[torch.Generator]:
        """None: the order is a function of seed and epoch."""
        return []

    def fingerprint(self) -> str:
        """Of shapes, types and some rows."""
        rows = torch.linspace(0, self.size - 1, min(self.size, _FINGERPRINT_ROWS)).to(torch.int64)
        digest = hashlib.sha256(f"{tuple(self.x.shape)} {self.x.dtype} {tuple(self.y.shape)}".encode())
        shown = self.sparse[rows.numpy()].toarray() if self.sparse is not None else self.x[rows.to(self.x.device)]
        for part in (shown, self.y[rows.to(self.y.device)], self.weight if self.weight is not None else torch.zeros(0)):
            values = part.double().cpu().numpy() if isinstance(part, Tensor) else part
            digest.update(np.ascontiguousarray(values, dtype=np.float64).tobytes())
        return digest.hexdigest()


def epoch_order(rows: int, seed: int, epoch: int) -> Tensor:
    """The order of the rows in an epoch, ``(rows,)`` int64: a function of these three numbers alone."""
    generator = torch.Generator()
    generator.manual_seed(_epoch_seed(seed, epoch) >> 1)  # torch takes signed seeds
    return torch.randperm(rows, generator=generator)


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed % 2**64, epoch]).generate_state(1, np.uint64)[0])


class LoaderBatches:
    """A `DataLoader`, or any iterable of ``(x, y)`` or ``(x, y, weight)`` that can be gone through again."""

    mean_weight: float | None = None

    def __init__(self, loader: Any, form: Form) -> None:
        self.loader, self.form = loader, form

    @property
    def size(self) -> int | None:
        """Rows of a loader whose data set knows them."""
        data: Any = getattr(self.loader, "dataset", None)
        return len(data) if hasattr(data, "__len__") and not isinstance(data, IterableDataset) else None

    def epoch(self, number: int) -> Iterator[Batch]:
        """What the loader yields."""
        sampler: Any = getattr(self.loader, "sampler", None)
        if hasattr(sampler, "set_epoch"):  # DistributedSampler
            sampler.set_epoch(number)
        count = 0
        for item in self.loader:
            count += 1
            yield self._batch(item)
        if not count:
            raise ValueError(
                f"the loader gave no batches in epoch {number}: an iterator is used up after one epoch, and an empty "
                "data set has none; give a DataLoader or a list of batches"
            )

    def _batch(self, item: Any) -> Batch:
        if not isinstance(item, (tuple, list)) or len(item) not in (2, 3):
            shape = f"{len(item)} parts" if isinstance(item, (tuple, list)) else type(item).__name__
            raise ValueError(f"a loader must yield (x, y) or (x, y, weight); it yielded {shape}")
        x, y = tensor_of(item[0], "x", features=True), tensor_of(item[1], "y")
        weight = None if len(item) == 2 else tensor_of(item[2], "weight").to(self.form.device)
        if x.shape[0] != y.shape[0]:
            raise ValueError(f"a loader yielded {x.shape[0]} rows with {y.shape[0]} targets")
        return Batch(self.form.features(x), self.form.target(y), weight)

    def everything(self) -> Iterator[Batch] | None:
        """None: a pass over a loader is an epoch."""
        return None

    def row(self, number: int) -> Batch | None:
        """None: its rows have no numbers."""
        return None

    def generators(self) -> list[torch.Generator]:
        """The loader's, and its sampler's."""
        sampler = getattr(self.loader, "sampler", None)
        found = [getattr(self.loader, "generator", None), getattr(sampler, "generator", None)]
        return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())

    def fingerprint(self) -> str:
        """Of its size, if it has one."""
        return f"loader of {self.size} rows"


class ScanBatches:
    """Rows of files, read block by block; rows change places within a block.

    Parameters
    ----------
    rows : LazyRows
        With a target.
    batch_size : int
    seed : int
    form : Form
    """

    mean_weight: float | None = None
    size: int | None = None

    def __init__(self, rows: LazyRows, batch_size: int, seed: int, form: Form) -> None:
        if rows.target is None:
            raise ValueError("the scan has no target column; name it: scan(..., target='...')")
        self.rows, self.batch_size, self.seed, self.form = rows, batch_size, seed, form
        self.classes = np.unique(rows.labels())
        if self.classes.size < 2:
            raise ValueError(f"the target column '{rows.target}' has only one label: {self.classes.tolist()}")

    def epoch(self, number: int) -> Iterator[Batch]:
        """Blocks in the files' order."""
        random = np.random.default_rng(_epoch_seed(self.seed, number))
        for batch in self.rows.numeric_batches():
            order = random.permutation(batch.rows)
            matrix = batch.matrix()
            assert batch.target is not None
            codes = np.searchsorted(self.classes, batch.target).astype(np.int64)
            for start in range(0, batch.rows, self.batch_size):
                here = order[start : start + self.batch_size]
                yield self._batch(matrix[here], codes[here], None if batch.weight is None else batch.weight[here])

    def _batch(self, matrix: Any, codes: NDArray[np.int64], weight: NDArray[np.float64] | None) -> Batch:
        dense = matrix.toarray() if scipy.sparse.issparse(matrix) else matrix
        x, y = torch.from_numpy(np.ascontiguousarray(dense)), torch.from_numpy(codes)
        y = y.to(self.form.dtype) if self.classes.size == 2 else y
        own = None if weight is None else torch.from_numpy(weight).to(self.form.device)
        return Batch(self.form.features(x), self.form.target(y), own)

    def everything(self) -> Iterator[Batch] | None:
        """None: a pass over files is an epoch."""
        return None

    def row(self, number: int) -> Batch | None:
        """None: a row of a file is not at hand."""
        return None

    def generators(self) -> list[torch.Generator]:
        """None: the order is a function of seed and epoch."""
        return []

    def fingerprint(self) -> str:
        """Of columns and classes."""
        return hashlib.sha256(f"{self.rows.feature_names} {self.classes.tolist()}".encode()).hexdigest()


def batches_of(
    X: Any, y: Any, sample_weight: Any, batch_size: int | None, seed: int, form: Form
) -> Batches:
    """Choose by what X is.

    Raises
    ------
    ValueError
        If the parts do not go together.
    """
    if batch_size is not None and (not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1):
        raise ValueError(f"batch_size must be an integer of at least 1, or None for all rows, got {batch_size!r}")
    streams = isinstance(X, (LazyRows, Dataset, DataLoader)) or y is None
    if streams and (y is not None or sample_weight is not None):
        raise ValueError(f"a {type(X).__name__} brings its own targets and weights: leave y and sample_weight out")
    if isinstance(X, LazyRows):
        return ScanBatches(X, batch_size or 1024, seed, form)
    if isinstance(X, Dataset):
        if batch_size is None:
            raise ValueError(f"a {type(X).__name__} yields single rows: give batch_size")
        shuffled = not isinstance(X, IterableDataset)
        return LoaderBatches(DataLoader(X, batch_size=batch_size, shuffle=shuffled), form)
    if isinstance(X, Tensor) and y is None:
        raise ValueError("y is missing: give the targets of the rows")
    if streams:
        if batch_size is not None:
            raise ValueError(f"a {type(X).__name__} makes its own batches: leave batch_size out")
        if not hasattr(X, "__iter__") or isinstance(X, (str, bytes, dict, np.ndarray)) or hasattr(X, "columns"):
            raise ValueError("y is missing: give the targets of the rows")
        return LoaderBatches(X, form)
    return _in_memory(X, y, sample_weight, batch_size, seed, form)


def _in_memory(
    X: Any, y: Any, sample_weight: Any, batch_size: int | None, seed: int, form: Form
) -> MemoryBatches:
    x = X if scipy.sparse.issparse(X) else tensor_of(X, "X", features=True)
    target = tensor_of(y, "y")
    if x.shape[0] == 0 or x.ndim < 2:
        raise ValueError(f"X must have rows and columns, got shape {tuple(x.shape)}")
    if target.ndim == 0 or target.shape[0] != x.shape[0]:
        raise ValueError(f"X has {x.shape[0]:,} rows, y has shape {tuple(target.shape)}")
    weight = None
    if sample_weight is not None:
        weight = tensor_of(sample_weight, "sample_weight").to(form.dtype)
        if weight.shape != (x.shape[0],):
            raise ValueError(f"sample_weight has shape {tuple(weight.shape)}, expected ({x.shape[0]},)")
        if not bool(torch.isfinite(weight).all() & (weight >= 0).all() & (weight.sum() > 0)):
            raise ValueError("sample_weight must be finite, not negative, and not all zero")
    if isinstance(x, Tensor) and x.layout != torch.strided:
        x = x.to_dense()
    return MemoryBatches(x, target, weight, batch_size, seed, form)
