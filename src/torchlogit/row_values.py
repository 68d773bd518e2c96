"""What users hand over for each row beside its features: labels, weights and offsets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

from torchlogit.comm import ALONE, Communicator
from torchlogit.gathering import weights_of
from torchlogit.inputs import Features
from torchlogit.rows import class_counts
from torchlogit.tensors import tensor_view

# Labels that are counted and not sorted: from so short a range, and with so many rows for each number in it.
_LONGEST_RANGE, _ROWS_PER_LABEL = 4096, 4
# Types of labels that torch counts; unsigned ones are made signed.
_COUNTED = tuple(np.dtype(name) for name in ("?", "i1", "i2", "i4", "i8", "f4", "f8"))
# Kinds of labels that are what they seem: numbers, booleans and texts.
_PLAIN_LABELS = "biufUS"


def as_array(values: Any) -> NDArray[Any]:
    """A NumPy array of whatever holds labels or weights: tensors, series, Arrow arrays, lists."""
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    if hasattr(values, "to_numpy") and type(values).__module__.split(".")[0] == "pyarrow":
        return np.asarray(values.to_pylist()) if hasattr(values, "chunks") else np.asarray(values.to_numpy(False))
    return np.asarray(values)


def classes_and_codes(
    estimator: Any, features: Features, y: Any
) -> tuple[NDArray[Any], NDArray[np.integer[Any]] | Tensor]:
    """Sorted classes, and the class code of each row: int64, or of as few bytes as they need beside a stream.

    Labels on a device are counted there, if they can be, and the codes stay.
    """
    stream, lazy = features.stream, features.lazy
    if stream is None or lazy is None:
        found = _few_codes(y.detach()) if _on_device(y) and y.shape == (features.rows,) else None
        if found is not None:
            return at_least_two(found[0]), found[1]
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
    return (_own_codes(labels) if narrow else None) or _counted_codes(labels) or _any_codes(labels)


def _on_device(y: Any) -> bool:
    """Whether these are a tensor that is not in the CPU's memory."""
    return isinstance(y, Tensor) and y.device.type != "cpu"


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


def _counted_codes(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
    """`_few_codes` of an array."""
    signed = labels.dtype.kind == "u" and int(labels.max(initial=0)) < 2**63
    values = labels.astype(np.int64) if signed else labels
    found = _few_codes(tensor_view(values)) if values.dtype in _COUNTED else None
    return None if found is None else (found[0].astype(labels.dtype), found[1].numpy())


def _few_codes(labels: Tensor) -> tuple[NDArray[Any], Tensor] | None:
    """The same for whole numbers from a short range, by counting where they are: 5,000,000 labels in 0.03 s, by sorting
    in 0.5 s.
    """
    if labels.numel() < _ROWS_PER_LABEL:
        return None
    low, high = (float(end) for end in labels.aminmax())
    if not high - low < min(labels.numel() / _ROWS_PER_LABEL, _LONGEST_RANGE) or not abs(low) < 2**53:
        return None
    whole = labels.to(torch.int64)
    if labels.is_floating_point() and not torch.equal(whole.to(labels.dtype), labels):
        return None
    codes = whole if low == 0 else whole - int(low)
    if high - low == 1:  # both ends occur
        return torch.tensor([low, high], dtype=labels.dtype).numpy(), codes
    present = torch.bincount(codes) > 0
    classes = (present.nonzero()[:, 0] + int(low)).to(labels.dtype).cpu().numpy()
    # Ranks of the labels that occur; the others are asked for by nobody.
    return classes, codes if bool(present.all()) else (present.cumsum(0) - 1)[codes]


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
    codes: NDArray[np.integer[Any]] | Tensor,
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
    own = as_array(codes)
    per_class = _class_weights(class_weight, classes, own, weight, processes)
    factors = np.asarray(per_class, dtype=np.float64)[own]
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
