"""From what users hand over (arrays, frames, tensors, files) to blocks, labels and weights."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data
from torch import Tensor

from torchlogit.comm import ALONE, Communicator
from torchlogit.gathering import Stream, gather, weights_of
from torchlogit.parameters import seed_of
from torchlogit.problem import Block, CodedColumns, SparseRows
from torchlogit.rows import LazyRows, RowBatch, class_counts
from torchlogit.sources import MemorySource, StreamSource
from torchlogit.sources.streaming import RowState
from torchlogit.table import Table
from torchlogit.tensors import placeholder, sparse_rows, tensor_view

# Labels that are counted and not sorted: from so short a range, and with so many rows for each number in it.
_LONGEST_RANGE, _ROWS_PER_LABEL = 4096, 4
_FLOATS = (np.dtype(np.float64), np.dtype(np.float32))
# Kinds of labels that are what they seem: numbers, booleans and texts.
_PLAIN_LABELS = "biufUS"


@dataclass(frozen=True)
class Features:
    """Rows ready for a fit, without their labels.

    Parameters
    ----------
    parts : list of Block
        Their targets are placeholders.
    rows : int
    dtype : numpy dtype
        Of what the estimator publishes: the rows' own floating dtype.
    original : object
        What the user gave, for messages.
    lazy : LazyRows, optional
    batches : list of RowBatch
        Labels, weights and offsets that came with lazy rows, where all of them are in memory.
    stream : Stream, optional
        Where they are not: ``parts`` are a sample of them then.
    """

    parts: list[Block]
    rows: int
    dtype: np.dtype[Any]
    original: Any
    lazy: LazyRows | None = None
    batches: list[RowBatch] = field(default_factory=list)
    stream: Stream | None = None

    @property
    def columns(self) -> int:
        """Number of features."""
        return self.parts[0].features

    def source(
        self,
        codes: NDArray[np.integer[Any]],
        weight: NDArray[np.float64] | None,
        offset: NDArray[np.float64] | None,
        outputs: int,
        first: int = 0,
    ) -> MemorySource | StreamSource:
        """The rows with class codes, weights and offsets ``(n, K)``; None: what a stream's rows bring.

        ``first`` rows of other processes come before those of an array.
        """
        if self.stream is None:
            blocks = self.blocks(codes, weight, offset)
            if self.lazy is None:
                blocks = [replace(block, start=block.start + first) for block in blocks]
            return MemorySource(blocks, outputs)
        stream = self.stream
        state = RowState(codes, weight, offset, outputs)
        moments = stream.moments if weight is None else None
        return StreamSource(stream.read, stream.extent, state, stream.sample, moments)

    def brought(self, name: str) -> NDArray[Any]:
        """Labels, weights or offsets of all rows, which came with them into memory."""
        parts = [part for batch in self.batches if (part := getattr(batch, name)) is not None]
        return np.concatenate(parts) if parts else np.empty(0)

    @property
    def brings_weights(self) -> bool:
        """Whether the rows bring weights."""
        return self.lazy is not None and self.lazy.has_weight

    @property
    def brings_offsets(self) -> bool:
        """Whether the rows bring offsets."""
        return self.lazy is not None and self.lazy.has_offset

    def blocks(
        self, codes: NDArray[np.integer[Any]], weight: NDArray[np.float64] | None, offset: NDArray[np.float64] | None
    ) -> list[Block]:
        """The rows with class codes, weights and offsets ``(n, K)``."""
        device, start, blocks = self.parts[0].device, 0, []
        for part in self.parts:
            stop = start + part.rows
            blocks.append(
                replace(
                    part,
                    target=tensor_view(codes[start:stop]).to(device),
                    weight=None if weight is None else torch.from_numpy(weight[start:stop]).to(device),
                    offset=None if offset is None else torch.from_numpy(offset[start:stop, None]).to(device),
                )
            )
            start = stop
        return blocks


# Tensors that are dense already or become CSR.
_LAYOUTS = (torch.strided, torch.sparse_csr, torch.sparse_csc, torch.sparse_coo)


# -- features -------------------------------------------------------------------------------------------------------


def is_tensor(X: Any) -> bool:
    """Whether results are to be tensors."""
    return isinstance(X, Tensor)


def dense_tensor(estimator: Any, X: Tensor, *, reset: bool, none_is_fine: bool = False) -> Tensor:
    """A two-dimensional floating tensor with the right number of columns; halves become float32, integers float64."""
    if X.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D tensor instead. Reshape your data: X.reshape(-1, 1) if it has one "
            "feature, X.reshape(1, -1) if it is one row."
        )
    if X.is_complex():
        raise ValueError("Complex data not supported")
    X = X.detach()
    if X.layout not in _LAYOUTS or (X.layout == torch.sparse_coo and X.dense_dim()):
        kind = "a hybrid sparse tensor" if X.layout == torch.sparse_coo else f"a tensor of layout {X.layout}"
        raise ValueError(
            f"X is {kind}, which is not supported; give it as X.to_dense(), or as a tensor in CSR, CSC or COO format."
        )
    if X.layout != torch.strided:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            X = X.to_sparse_csr()
    if X.dtype in (torch.float16, torch.bfloat16):
        X = X.to(torch.float32)
    elif X.dtype not in (torch.float32, torch.float64):
        X = X.to(torch.float64)
    if reset:
        estimator.n_features_in_ = X.shape[1]
        if hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
        if min(X.shape[int(none_is_fine) :]) == 0:
            raise ValueError(
                f"Found array with {X.shape[0]} sample(s) and {X.shape[1]} feature(s) (shape={tuple(X.shape)}) while a "
                "minimum of 1 is required."
            )
    elif X.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {type(estimator).__name__} is expecting {estimator.n_features_in_} "
            "features as input."
        )
    return X


def _from_arrow(X: Any) -> Any:
    """An Arrow table or batch as a two-dimensional object that scikit-learn takes names from."""
    if type(X).__module__.split(".")[0] == "pyarrow" and hasattr(X, "column_names"):
        import pyarrow as pa

        for name, column in zip(X.column_names, X.columns, strict=True):
            kind = column.type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
                raise ValueError(
                    f"column '{name}' holds {kind}, not numbers; put a TableEncoder before the model: "
                    "make_pipeline(TableEncoder(), LogisticRegression())"
                )
        return X if isinstance(X, pa.Table) else pa.Table.from_batches([X])
    return X


def numeric_array(estimator: Any, X: Any, *, reset: bool, none_is_fine: bool = False) -> Any:
    """A two-dimensional float array or CSR matrix, names and width checked; finite values are checked later."""
    if type(X) is np.ndarray and X.ndim == 2 and X.dtype in _FLOATS and min(X.shape) > 0:
        # What is there to check of such an array takes a tenth of the time that finding out what it is takes.
        named = hasattr(estimator, "feature_names_in_")
        if reset:
            estimator.n_features_in_ = X.shape[1]
            if named:
                del estimator.feature_names_in_
            return X
        if not named and X.shape[1] == estimator.n_features_in_:
            return X
    return validate_data(
        estimator,
        _from_arrow(X),
        accept_sparse="csr",
        dtype=[np.float64, np.float32],
        ensure_all_finite=False,
        ensure_min_samples=0 if none_is_fine else 1,
        reset=reset,
    )


def training_features(
    estimator: Any, X: Any, device: torch.device | None, *, reset: bool = True, none_is_fine: bool = False
) -> Features:
    """What a fit reads, on the device it runs on.

    With ``reset`` it sets ``n_features_in_`` and ``feature_names_in_``, without it checks them. With ``none_is_fine``
    there need not be any rows; a scan without any then has no parts.
    """
    if isinstance(X, LazyRows):
        if not reset:
            raise ValueError("partial_fit takes arrays, frames and tensors; fit reads a scan of any size")
        return _lazy_features(estimator, X, device, none_is_fine)
    if isinstance(X, Tensor):
        tensor = dense_tensor(estimator, X, reset=reset, none_is_fine=none_is_fine)
        tensor = tensor if device is None else tensor.to(device)
        block = _tensor_block(tensor)
        dtype = np.dtype(np.float32 if tensor.dtype == torch.float32 else np.float64)
        return Features([block], X.shape[0], dtype, X)
    array = numeric_array(estimator, X, reset=reset, none_is_fine=none_is_fine)
    rows = array.shape[0]
    if scipy.sparse.issparse(array):
        block = Block(placeholder(rows), sparse=sparse_rows(array))
    else:
        block = Block(placeholder(rows), dense=tensor_view(array))
    return Features([_to_device(block, device)], rows, array.dtype, X)


def _tensor_block(tensor: Tensor) -> Block:
    target = placeholder(tensor.shape[0], tensor.device)
    if tensor.layout == torch.sparse_csr:
        rows = SparseRows(tensor.crow_indices(), tensor.col_indices(), tensor.values(), tensor.shape[1])
        return Block(target, sparse=rows)
    return Block(target, dense=tensor)


def _to_device(block: Block, device: torch.device | None) -> Block:
    if device is None or device.type == "cpu":
        return block
    sparse = block.sparse
    codes = block.codes
    return replace(
        block,
        target=block.target.to(device),
        dense=None if block.dense is None else block.dense.to(device),
        sparse=None if sparse is None else SparseRows(
            sparse.indptr.to(device), sparse.indices.to(device), sparse.values.to(device), sparse.columns
        ),
        codes=None if codes is None else CodedColumns(codes.codes.to(device), codes.first.to(device), codes.columns),
    )  # fmt: skip


def _lazy_features(estimator: Any, X: LazyRows, device: torch.device | None, none_is_fine: bool) -> Features:
    X = X.usable(numeric=True) if isinstance(X, Table) else X
    found = gather(X, seed_of(estimator.random_state))
    if not found.rows and none_is_fine:
        return Features([], 0, np.dtype(np.float64), X, lazy=X)
    if not found.rows:
        raise ValueError("the files hold no rows (only a header, or nothing at all)")
    if found.stream is not None and device is not None and device.type != "cpu":
        raise ValueError(
            f"the rows do not fit into the memory that they may take, and such are fitted on the CPU: choose "
            f"device='auto', not '{device}', or allow more memory (scan(..., memory=...))"
        )
    parts = [_to_device(part, device) for part in found.parts]
    widths = max(part.sparse.columns for part in parts if part.sparse is not None) if parts[0].sparse else 0
    if widths:  # the width of a sparse file is known when all of it has been read
        parts = [replace(part, sparse=replace(part.sparse, columns=widths)) for part in parts if part.sparse]
    estimator.n_features_in_ = parts[0].features
    if X.named:
        estimator.feature_names_in_ = np.array(X.feature_names, dtype=object)
    elif hasattr(estimator, "feature_names_in_"):
        del estimator.feature_names_in_
    return Features(
        parts, found.rows, np.dtype(np.float64), X, lazy=X, batches=found.batches, stream=found.stream
    )


# -- labels, weights, offsets ---------------------------------------------------------------------------------------


def as_array(values: Any) -> NDArray[Any]:
    """A NumPy array of whatever holds labels or weights: tensors, series, Arrow arrays, lists."""
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    if hasattr(values, "to_numpy") and type(values).__module__.split(".")[0] == "pyarrow":
        return np.asarray(values.to_pylist()) if hasattr(values, "chunks") else np.asarray(values.to_numpy(False))
    return np.asarray(values)


def classes_and_codes(estimator: Any, features: Features, y: Any) -> tuple[NDArray[Any], NDArray[np.integer[Any]]]:
    """Sorted classes, and the class code of each row: int64, or of as few bytes as they need beside a stream."""
    stream, lazy = features.stream, features.lazy
    if stream is None or lazy is None:
        return encode_labels(training_labels(estimator, features, y))
    if y is None and lazy.target is not None:
        classes, codes = lazy.coded_labels()
        check_classification_targets(classes)
        return at_least_two(classes), codes
    classes, codes = _codes(training_labels(estimator, features, y), narrow=True)
    return at_least_two(classes), codes.astype(np.min_scalar_type(classes.size - 1), copy=False)


def own_classes(estimator: Any, features: Features, y: Any) -> tuple[NDArray[Any], NDArray[np.integer[Any]]]:
    """Sorted labels of this process's rows, however few, and the number of each row's among them."""
    stream, lazy = features.stream, features.lazy
    if y is None and stream is not None and lazy is not None and lazy.target is not None:
        return lazy.coded_labels()
    labels = training_labels(estimator, features, y)
    if not labels.size:
        return labels, np.zeros(0, dtype=np.int64)
    return _codes(labels, narrow=stream is not None)


def _codes(labels: NDArray[Any], *, narrow: bool = False) -> tuple[NDArray[Any], NDArray[np.integer[Any]]]:
    """Sorted classes, and each row's: in int64, or where ``narrow`` perhaps in the few bytes that they came in."""
    return (_own_codes(labels) if narrow else None) or _few_codes(labels) or _any_codes(labels)


def _own_codes(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.integer[Any]]] | None:
    """Of labels of a byte or two that are their own codes: nothing of eight bytes a row is made of them."""
    if labels.dtype.kind != "u" or labels.dtype.itemsize > 2 or not labels.size:
        return None
    counts = class_counts(labels)
    return (np.arange(counts.size, dtype=labels.dtype), labels) if counts.all() else None


def training_labels(estimator: Any, features: Features, y: Any) -> NDArray[Any]:
    """The labels of all rows, checked."""
    if y is None and features.lazy is not None:
        if features.lazy.target is None:
            raise ValueError("the scan has no target column; name it: scan(..., target='...')")
        return features.brought("target")
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None."
        )
    labels = as_array(y)
    plain = labels.shape == (features.rows,) and labels.dtype.kind in _PLAIN_LABELS and labels.flags.c_contiguous
    if not plain:  # scikit-learn finds out what they are, which takes longer than a step of a small fit
        labels = column_or_1d(labels, warn=True)
        check_consistent_length(_Sized(features.rows), labels)
    return check_labels(estimator, labels)


@dataclass(frozen=True)
class _Sized:
    """Something with a length, for scikit-learn's message about inconsistent numbers of samples."""

    rows: int

    def __len__(self) -> int:
        return self.rows

    @property
    def shape(self) -> tuple[int]:
        return (self.rows,)


def check_labels(estimator: Any, labels: NDArray[Any]) -> NDArray[Any]:
    """Labels without missing or infinite values, of a kind that names classes."""
    if labels.dtype.kind == "f":
        assert_all_finite(labels, estimator_name=type(estimator).__name__, input_name="y")
    elif labels.dtype.kind == "O":
        missing = np.array([value is None or value != value for value in labels], dtype=bool)
        if missing.any():
            raise ValueError(f"Input y contains NaN: the label of row {int(np.flatnonzero(missing)[0])} is missing.")
        _check_sortable(labels)
    return labels


def _check_sortable(labels: NDArray[Any]) -> None:
    """Classes are published in sorted order: labels of different types have none."""
    try:
        np.unique(labels)
    except TypeError:
        kinds = sorted({type(value).__name__ for value in labels})
        raise ValueError(f"y mixes labels that cannot be sorted ({', '.join(kinds)}); use one type") from None


def encode_labels(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.integer[Any]]]:
    """Sorted classes, and the class code of each row.

    Raises
    ------
    ValueError
        If there are fewer than two classes.
    """
    classes, codes = _codes(labels)
    return at_least_two(classes), codes


def at_least_two(classes: NDArray[Any]) -> NDArray[Any]:
    """The classes, or a `ValueError` where there is only one."""
    if classes.size < 2:
        raise ValueError(
            f"This solver needs samples of at least 2 classes in the data, but the data contains only one class: "
            f"{classes[0]!r}"
        )
    return classes


def _few_codes(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
    """The same for whole numbers from a short range, by counting: 5,000,000 labels in 0.03 s, by sorting in 0.5 s."""
    if labels.dtype.kind not in "biuf" or labels.size < _ROWS_PER_LABEL:
        return None
    low, high = labels.min(), labels.max()
    span = float(high) - float(low)
    if not span < min(labels.size / _ROWS_PER_LABEL, _LONGEST_RANGE) or not abs(float(low)) < 2**53:
        return None
    whole = labels.astype(np.int64, copy=False)
    if labels.dtype.kind == "f" and not np.array_equal(whole, labels):
        return None
    codes = whole if int(low) == 0 else whole - int(low)
    counts = np.bincount(codes)
    present = np.flatnonzero(counts)
    classes = (present + int(low)).astype(labels.dtype)
    if present.size == counts.size:
        return classes, codes
    # Ranks of the labels that occur; the others are asked for by nobody.
    return classes, (np.cumsum(counts > 0) - 1)[codes]


def _any_codes(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    check_classification_targets(labels)
    classes, codes = np.unique(labels, return_inverse=True)
    return classes, codes.astype(np.int64).ravel()


def known_codes(labels: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.int64]:
    """The code of each label among ``classes``, which are sorted.

    Raises
    ------
    ValueError
        If a label is not among them.
    """
    unknown = ~np.isin(labels, classes)
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        raise ValueError(
            f"y holds the label {labels[row : row + 1].tolist()[0]!r} (row {row}), which is not among the known "
            f"classes: {classes.tolist()}"
        )
    return np.searchsorted(classes, labels).astype(np.int64)


def row_weights(
    features: Features,
    sample_weight: Any,
    class_weight: Any,
    classes: NDArray[Any],
    codes: NDArray[np.integer[Any]],
    processes: Communicator = ALONE,
) -> NDArray[np.float64] | None:
    """Sample weights times class weights, float64, or None where all are one, or a stream's rows bring them."""
    weight: NDArray[np.float64] | None = None
    if sample_weight is None and features.brings_weights and features.lazy is not None:
        if features.stream is None:
            sample_weight = features.brought("weight")
        elif class_weight is not None:
            sample_weight = weights_of(features.lazy)
    if sample_weight is not None:
        weight = processes.together(lambda: _allowed(sample_weight, features.rows))
        _check_some(weight, processes)
    if class_weight is None:
        return weight
    per_class = _class_weights(class_weight, classes, codes, weight, processes)
    factors = np.asarray(per_class, dtype=np.float64)[codes]
    weight = factors if weight is None else weight * factors
    _check_finite(weight)
    _check_some(weight, processes)
    return weight


def _class_weights(
    class_weight: Any,
    classes: NDArray[Any],
    codes: NDArray[np.integer[Any]],
    weight: NDArray[np.float64] | None,
    processes: Communicator,
) -> Any:
    """One number a class."""
    if processes.world == 1:
        return compute_class_weight(class_weight, classes=classes, y=classes[codes], sample_weight=weight)
    if not isinstance(class_weight, str):
        return compute_class_weight(class_weight, classes=classes, y=classes)
    counts = sum(processes.gathered(lambda: np.bincount(codes, weights=weight, minlength=classes.size)))
    return np.sum(counts) / (classes.size * counts)


def checked_weights(sample_weight: Any, rows: int) -> NDArray[np.float64]:
    """Weights as a float64 array of their own; a single number counts for every row."""
    weight = _allowed(sample_weight, rows)
    _check_some(weight, ALONE)
    return weight


def _allowed(sample_weight: Any, rows: int) -> NDArray[np.float64]:
    """Finite, not negative, one a row."""
    given = as_array(sample_weight)
    weight = np.full(rows, float(given)) if given.ndim == 0 else np.array(given, dtype=np.float64)
    if weight.ndim != 1:
        raise ValueError(f"Sample weights must be 1D array or scalar, got {weight.ndim}D array.")
    if weight.shape[0] != rows:
        raise ValueError(f"sample_weight.shape == {weight.shape}, expected ({rows},)!")
    _check_finite(weight)
    return weight


def _check_finite(weight: NDArray[np.float64]) -> None:
    if not np.isfinite(weight).all():
        row = int(np.flatnonzero(~np.isfinite(weight))[0])
        raise ValueError(f"Input sample_weight contains NaN or infinity: row {row} has weight {weight[row]}.")
    if (weight < 0).any():
        row = int(np.flatnonzero(weight < 0)[0])
        raise ValueError(f"Sample weights must not be negative: row {row} has weight {weight[row]}.")


def _check_some(weight: NDArray[np.float64], processes: Communicator) -> None:
    """Not all zero."""
    if not any(processes.gathered(lambda: bool(weight.any()))):
        raise ValueError("Sample weights must contain at least one non-zero number.")


def row_offsets(offset: Any, rows: int, outputs: int) -> NDArray[np.float64] | None:
    """Offsets as ``(n, K)`` float64; ``(n,)`` is one for two classes and means the same for each of more."""
    if offset is None:
        return None
    values = np.array(as_array(offset), dtype=np.float64)
    if values.ndim == 1 and values.shape[0] == rows:
        values = np.repeat(values[:, None], outputs, axis=1)
    if values.shape != (rows, outputs):
        raise ValueError(
            f"offset has shape {as_array(offset).shape}; expected ({rows},)"
            + (f" or ({rows}, {outputs}), one a class" if outputs > 1 else "")
        )
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        raise ValueError(f"Input offset contains NaN or infinity: row {row}.")
    return values
