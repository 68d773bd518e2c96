"""Reading: one sweep over whatever holds the rows, and single rows of it afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing, column_or_1d
from sklearn.utils.validation import check_is_fitted

from torchlogit import model_parts
from torchlogit.encode import TableEncoder
from torchlogit.errors import InputError
from torchlogit.explanation import Explanation, explain
from torchlogit.inputs import is_tensor, numeric_array
from torchlogit.lazy_prediction import aligned_batches
from torchlogit.prediction import linear_predictor, probabilities
from torchlogit.report.information import MOST_COEFFICIENTS, MOST_OPERATIONS, Sums
from torchlogit.row_values import as_array, checked_weights, known_codes
from torchlogit.rows import LazyRows
from torchlogit.table import Table
from torchlogit.torch_objects import host_array

Array = NDArray[np.float64]
_BLOCK = 65_536


@dataclass(frozen=True)
class Seen:
    """All that the report knows of the rows.

    Parameters
    ----------
    source : Source
        Gives single rows.
    codes : ndarray of shape (n,), int64
        Class of each row.
    weight : ndarray of shape (n,), optional
    total : float
        Sum of `fitted`.
    fitted : ndarray of shape (n,)
        Weight of each row as a fit would take it: times that of its class.
    offset : ndarray of shape (n, K), optional
    eta : ndarray of shape (n, K)
    probability : ndarray of shape (n, classes)
    sums : Sums
    """

    source: Source
    codes: NDArray[np.int64]
    weight: Array | None
    total: float
    fitted: Array
    offset: Array | None
    eta: Array
    probability: Array
    sums: Sums

    @property
    def rows(self) -> int:
        """How many."""
        return int(self.codes.size)

    @property
    def mass(self) -> Array:
        """Weight of each row, one where none were given."""
        return np.ones(self.rows) if self.weight is None else self.weight


class Source:
    """A model with rows that it can read.

    Parameters
    ----------
    model : LogisticRegression, or Pipeline of TableEncoder and LogisticRegression
        Fitted.
    X : array, sparse matrix, frame, tensor or scan
    """

    def __init__(self, model: Any, X: Any) -> None:
        parts = model_parts.known_parts(model)
        if parts is None:
            raise TypeError(
                "a report takes a LogisticRegression, or a Pipeline of TableEncoder and LogisticRegression, not "
                + " and ".join(type(step).__name__ for step in model_parts.steps_of(model))
            )
        self.encoder: TableEncoder | None = parts[0]
        self.classifier: Any = parts[1]
        for step in (self.encoder, self.classifier):
            if step is not None:
                check_is_fitted(step)
        self.model, self.rows = model, 0
        self.lazy = isinstance(X, LazyRows)
        if is_tensor(X):
            X = host_array(X)
        elif not self.lazy and not hasattr(X, "shape"):
            X = np.asarray(X, dtype=None if self.encoder is None else object)
        if scipy.sparse.issparse(X):
            X = scipy.sparse.csr_array(X)
        self.X = X

    def blocks(self) -> Iterator[tuple[Any, Array | None, Array | None]]:
        """Numeric rows as the classifier sees them, with the weights and offsets that they bring."""
        if self.lazy:
            rows: LazyRows = self.X if self.encoder is None else self.encoder.transform(self.X)
            for matrix, batch in aligned_batches(self.classifier, rows):
                yield matrix, batch.weight, batch.offset
            return
        numbers = self.X if self.encoder is None else self.encoder.transform(self.X)
        numbers = numeric_array(self.classifier, numbers, reset=False)
        for start in range(0, numbers.shape[0], _BLOCK):
            yield numbers[start : start + _BLOCK], None, None

    def explained(self, index: NDArray[np.intp], offset: Array | None) -> Explanation:
        """Shares of some rows, named by sorted numbers."""
        chosen = None if offset is None else offset[index]
        chosen = chosen[:, 0] if chosen is not None and chosen.shape[1] == 1 else chosen
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="X does not have valid feature names")
            if isinstance(self.X, Table):
                return explain(self.model, self._selected(index), offset=chosen)
            if self.lazy:
                return explain(self.classifier, self._numbers(index), offset=chosen)
            return explain(self.model, _safe_indexing(self.X, index, axis=0), offset=chosen)

    def cells(self, index: NDArray[np.intp]) -> tuple[list[str], list[list[Any]]]:
        """Names of the table's columns, and what stands in them in some rows, named by sorted numbers."""
        if isinstance(self.X, Table) and not self.X.is_sparse:
            batches = [batch.columns for batch in self._selected(index).table_batches()]
            rows = [list(row.values()) for batch in batches for row in batch.to_pylist()]
            return list(batches[0].schema.names), rows
        if self.lazy:
            numbers = self._numbers(index)
            return feature_names(self), (numbers.toarray() if scipy.sparse.issparse(numbers) else numbers).tolist()
        rows = _safe_indexing(self.X, index, axis=0)
        if scipy.sparse.issparse(rows):
            rows = rows.toarray()
        if hasattr(rows, "to_pylist"):
            names, values = rows.column_names, [list(row.values()) for row in rows.to_pylist()]
        else:
            names = getattr(rows, "columns", None)
            values = (rows.to_numpy() if hasattr(rows, "to_numpy") else np.asarray(rows)).tolist()
        # an array, or a frame whose names the classifier did not keep
        return table_columns(self) if names is None or self.encoder is None else [str(n) for n in names], values

    def _selected(self, index: NDArray[np.intp]) -> Table:
        mask = np.zeros(self.rows, dtype=bool)
        mask[index] = True
        chosen: Table = self.X.select(mask)
        return chosen

    def _numbers(self, index: NDArray[np.intp]) -> Any:
        pieces, start = [], 0
        for matrix, _, _ in self.blocks():
            here = index[(index >= start) & (index < start + matrix.shape[0])] - start
            if here.size:
                pieces.append(matrix[here])
            start += matrix.shape[0]
        if scipy.sparse.issparse(pieces[0]):
            return scipy.sparse.csr_array(scipy.sparse.vstack(pieces, format="csr"))
        return np.concatenate(pieces)


def feature_names(source: Source) -> list[str]:
    """Names of the numbers that the classifier sees."""
    return model_parts.feature_names(source.encoder, source.classifier)


def table_columns(source: Source) -> list[str]:
    """Names of the columns of the table."""
    return model_parts.column_names(source.encoder, source.classifier)


def read(source: Source, y: Any, sample_weight: Any, offset: Any, seed: int) -> Seen:
    """Predict every row and add up what the report tells of them."""
    classifier, solution = source.classifier, source.classifier._current_solution()
    if y is None and source.lazy and source.X.target is not None:
        y = source.X.labels()
    if y is None:
        raise ValueError("a report compares predictions with the truth: pass y (only a scan with a target brings it)")
    codes = _codes(column_or_1d(as_array(y)), classifier.classes_)
    rows = codes.size
    given = None if sample_weight is None else checked_weights(sample_weight, rows)
    if given is None and source.lazy and source.X.has_weight:
        given = np.concatenate([weight for _, weight, _ in source.blocks() if weight is not None])
    mass = np.ones(rows) if given is None else given
    fitted = mass * _class_factors(classifier, codes, mass)
    added = None if offset is None else classifier._offsets(offset, rows)
    size = solution.coef.size + solution.outputs
    sums = Sums(solution.outputs, solution.coef.shape[1], curvature=size <= MOST_COEFFICIENTS)
    share = min(1.0, MOST_OPERATIONS / max(rows * float(size) ** 2, 1.0))
    draw = np.random.default_rng(seed)
    pieces: list[Array] = []
    offsets: list[Array] = []
    start = 0
    for matrix, _, own in source.blocks():
        stop = start + matrix.shape[0]
        if stop > rows:
            raise ValueError(f"y has {rows:,} labels and X has more rows: pass one label a row")
        eta = linear_predictor(solution, matrix)
        if not np.isfinite(eta).all():
            row = start + int(np.flatnonzero(~np.isfinite(eta).all(1))[0])
            raise InputError(f"row {row} of X holds NaN or infinity: drop or fill it, or put a TableEncoder before")
        shift = added[start:stop] if added is not None else classifier._offsets(own, matrix.shape[0])
        if shift is not None:
            offsets.append(shift)
            eta = eta + shift
        pieces.append(eta)
        sums.add(matrix, mass[start:stop])
        if sums.gram is not None:
            chosen = np.flatnonzero(draw.random(matrix.shape[0]) < share) if share < 1 else np.arange(matrix.shape[0])
            sums.add_curvature(matrix[chosen], probabilities(eta[chosen]), fitted[start:stop][chosen])
        start = stop
    if start != rows or not rows:
        raise ValueError(f"y has {rows:,} labels and X has {start:,} rows: pass one label a row, and at least one row")
    source.rows = rows
    eta = np.concatenate(pieces)
    return Seen(
        source, codes, given, float(fitted.sum()), fitted, np.concatenate(offsets) if offsets else None, eta,
        probabilities(eta), sums,
    )  # fmt: skip


def _codes(labels: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.int64]:
    """Place of each label among the classes, which the command line may have put in another order than the sorted."""
    order = np.argsort(classes, kind="stable")
    return np.asarray(order[known_codes(labels, classes[order])], dtype=np.int64)


def _class_factors(classifier: Any, codes: NDArray[np.int64], mass: Array) -> Array:
    """What class_weight multiplies the weight of each row with, ``(n,)``."""
    chosen, count = classifier.class_weight, classifier.classes_.size
    if chosen is None:
        return np.ones(codes.size)
    if isinstance(chosen, str):  # balanced
        total = np.bincount(codes, weights=mass, minlength=count)
        factors = total.sum() / (count * np.where(total > 0, total, 1.0))
    else:
        factors = np.array([float(chosen.get(label, 1.0)) for label in classifier.classes_.tolist()])
    return np.asarray(factors[codes], dtype=np.float64)
