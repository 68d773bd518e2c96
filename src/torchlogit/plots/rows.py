"""Rows as pictures need them: column names, plain numbers, and new rows in the container of the old ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from torch import Tensor

from torchlogit.rows import LazyRows
from torchlogit.torch_objects import host_array


def checked_rows(X: Any) -> Any:
    """X with two dimensions: lists become arrays, everything else stays what it is."""
    if isinstance(X, LazyRows):
        return X
    if not hasattr(X, "shape"):
        X = np.asarray(X)
    if len(X.shape) != 2:
        raise ValueError(
            f"X has shape {tuple(X.shape)} and must have two dimensions, rows and columns; one column is "
            "X.reshape(-1, 1), one row is X.reshape(1, -1)"
        )
    if X.shape[0] == 0:
        raise ValueError("X has no rows; pass at least one")
    return X


def column_names(X: Any) -> list[str] | None:
    """Names of a frame's columns; None for arrays and tensors."""
    names = getattr(X, "column_names", None)  # Arrow: its `columns` are the values
    names = getattr(X, "columns", None) if names is None else names
    return None if names is None else [str(name) for name in names]


def axis_names(model: Any, X: Any) -> list[str]:
    """Names of X's columns: its own, else those that the model was fitted with, else x0, x1, ..."""
    names = column_names(X)
    if names is None:
        known = getattr(model, "feature_names_in_", None)
        names = [f"x{j}" for j in range(X.shape[1])] if known is None else [str(name) for name in known]
    return names


def as_host_array(X: Any) -> Any:
    """A tensor as an array; everything else stays what it is."""
    return host_array(X) if isinstance(X, Tensor) else X


def as_numbers(X: Any) -> NDArray[np.float64]:
    """``(n, p)`` finite float64.

    Raises
    ------
    ValueError
        If a value is not a finite number.
    """
    plain = X.toarray() if scipy.sparse.issparse(X) else as_host_array(X)
    try:
        values = np.asarray(plain, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            "X holds values that are not numbers, which cannot be placed along an axis; choose numeric columns"
        ) from None
    if not np.isfinite(values).all():
        row, column = (int(index[0]) for index in np.nonzero(~np.isfinite(values)))
        names = column_names(X)
        where = f"column {column}" if names is None else f"column '{names[column]}'"
        raise ValueError(
            f"X holds NaN or infinity, first in row {row}, {where}, which cannot be drawn; drop or fill those rows"
        )
    return values


def like(X: Any, values: NDArray[np.float64]) -> Any:
    """New rows ``(m, p)`` in X's kind of frame, so that a model finds its column names; an array for all others."""
    if column_names(X) is None:
        return values
    names = getattr(X, "column_names", None) or X.columns
    build = getattr(type(X), "from_pydict", type(X))
    return build({name: values[:, j] for j, name in enumerate(names)})


def class_codes(y: Any, classes: NDArray[Any], rows: int) -> NDArray[np.int64]:
    """Position in `classes` of each row's label, ``(n,)``; y may be ``(n,)`` or ``(n, 1)``."""
    from torchlogit.row_values import as_array

    labels = as_array(y)
    if labels.shape not in ((rows,), (rows, 1)):
        raise ValueError(f"y has shape {labels.shape} and X has {rows} rows; pass one label a row")
    labels = labels.ravel()
    codes = np.full(rows, -1, dtype=np.int64)
    for k, label in enumerate(classes):
        codes[labels == label] = k
    if (codes < 0).any():
        row = int(np.flatnonzero(codes < 0)[0])
        raise ValueError(
            f"y holds {labels[row : row + 1].tolist()[0]!r} in row {row}, which is none of the model's classes "
            f"({listed(classes)}); pass labels as the model was fitted to them"
        )
    return codes


def class_number(classes: NDArray[Any], class_: Any) -> int:
    """Position of a class."""
    for k, label in enumerate(classes):
        if label == class_:
            return k
    raise ValueError(f"class_={class_!r} is none of the model's classes; choose one of {listed(classes)}")


def class_texts(classes: NDArray[Any], names: Any) -> list[str]:
    """What the picture calls the classes."""
    if names is None:
        return [str(label) for label in classes]
    if len(names) != classes.size:
        raise ValueError(
            f"class_names has {len(names)} entries and the model has {classes.size} classes; name each, in the order "
            f"{listed(classes)}"
        )
    return [str(name) for name in names]


def listed(values: NDArray[Any], most: int = 10) -> str:
    """Labels in a sentence."""
    shown = ", ".join(repr(value) for value in values[:most].tolist())
    return shown + (", ..." if values.size > most else "")
