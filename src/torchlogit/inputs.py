"""From what users hand over (arrays, frames, tensors, files) to blocks; labels and weights are in `row_values`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data
from torch import Tensor

from torchlogit.gathering import Stream, gather
from torchlogit.parameters import seed_of
from torchlogit.problem import Block, CodedColumns, SparseRows
from torchlogit.rows import LazyRows, RowBatch
from torchlogit.sources import MemorySource, StreamSource
from torchlogit.sources.streaming import RowState
from torchlogit.table import Table
from torchlogit.tensors import check_sparse, placeholder, sparse_rows, tensor_view

_FLOATS = (np.dtype(np.float64), np.dtype(np.float32))
_PLAIN = (np.ndarray, scipy.sparse.csr_array, scipy.sparse.csr_matrix)


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
        codes: NDArray[np.integer[Any]] | Tensor,
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
        assert not isinstance(codes, Tensor)  # labels of files are never on a device
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
        self,
        codes: NDArray[np.integer[Any]] | Tensor,
        weight: NDArray[np.float64] | None,
        offset: NDArray[np.float64] | None,
    ) -> list[Block]:
        """The rows with class codes, weights and offsets ``(n, K)``."""
        device, start, blocks = self.parts[0].device, 0, []
        target = codes if isinstance(codes, Tensor) else tensor_view(codes)
        for part in self.parts:
            stop = start + part.rows
            blocks.append(
                replace(
                    part,
                    target=target[start:stop].to(device),
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
    if type(X) in _PLAIN and X.ndim == 2 and X.dtype in _FLOATS and min(X.shape) > 0:
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
        check_sparse(array.indptr, array.indices, array.shape[1])
        block = Block(placeholder(rows), sparse=sparse_rows(array))
    else:
        block = Block(placeholder(rows), dense=tensor_view(array))
    return Features([_to_device(block, device)], rows, array.dtype, X)


def _tensor_block(tensor: Tensor) -> Block:
    target = placeholder(tensor.shape[0], tensor.device)
    if tensor.layout == torch.sparse_csr:
        rows = SparseRows(tensor.crow_indices(), tensor.col_indices(), tensor.values(), tensor.shape[1])
        check_sparse(rows.indptr.cpu().numpy(), rows.indices.cpu().numpy(), rows.columns)
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
