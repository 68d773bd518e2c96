"""Why a row gets the logit it gets, in the columns of the table that it came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from torchlogit.encode import TableEncoder
from torchlogit.errors import InputError
from torchlogit.estimator import LogisticRegression
from torchlogit.inputs import is_tensor, numeric_array
from torchlogit.lazy_prediction import aligned_batches
from torchlogit.model_parts import column_names, known_parts, steps_of
from torchlogit.prediction import Solution
from torchlogit.rows import LazyRows
from torchlogit.torch_objects import host_array

BASE = "(intercept)"


@dataclass(frozen=True)
class Explanation:
    """Shares of each column in the logit of each row; they add up to `decision_function`.

    Attributes
    ----------
    columns : list of str
        Columns of the table (or array), then ``"(intercept)"``, which holds the row's offset too.
    shares : ndarray of shape (n, columns), or (n, n_classes, columns), float64
    classes : ndarray of shape (n_classes,)
    """

    columns: list[str]
    shares: NDArray[np.float64]
    classes: NDArray[Any]

    def to_frame(self, label: Any = None) -> Any:
        """The shares as a pandas DataFrame, a row each (pandas must be installed).

        Parameters
        ----------
        label : object, default=None
            With more than two classes: whose logit.

        Raises
        ------
        ValueError
            If there is no such class, or one must be named.
        """
        import pandas as pd

        shares = self.shares
        if shares.ndim == 3:
            known = np.flatnonzero(self.classes == label)
            if known.size != 1:
                raise ValueError(f"label must be one of {self.classes.tolist()}, got {label!r}")
            shares = shares[:, int(known[0])]
        return pd.DataFrame(shares, columns=self.columns)


def explain(model: Any, X: Any, offset: Any = None) -> Explanation:
    """Each column's share of the logit, row by row, in the columns of the table.

    What an encoder made of a column (levels, month and weekday, words) is added up again. A numeric column's share is
    measured from its mean, as the encoder centred it.

    Parameters
    ----------
    model : LogisticRegression, or Pipeline of TableEncoder and LogisticRegression
        Fitted.
    X : frame, array, sparse matrix, tensor or scan of shape (n, p)
        As for ``model.predict``.
    offset : array-like of shape (n,) or (n, n_classes), default=None
        A scan brings its own.

    Returns
    -------
    Explanation

    Raises
    ------
    TypeError
        If it is another kind of model.

    See Also
    --------
    torchlogit.LogisticRegression.explain : Shares of the numbers that the model itself sees.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.pipeline import make_pipeline
    >>> from torchlogit import LogisticRegression, TableEncoder, explain
    >>> table = pd.DataFrame({"age": [31, 45, 28, 60, 39], "plan": ["basic", "plus", "basic", "pro", "pro"]})
    >>> model = make_pipeline(TableEncoder(), LogisticRegression()).fit(table, ["no", "yes", "no", "yes", "no"])
    >>> told = explain(model, table)
    >>> told.columns
    ['age', 'plan', '(intercept)']
    >>> bool(abs(told.shares.sum(axis=1) - model.decision_function(table)).max() < 1e-12)
    True
    """
    parts = known_parts(model)
    if parts is None:
        raise TypeError(
            "explain takes a LogisticRegression, or a Pipeline of TableEncoder and LogisticRegression, not "
            + " and ".join(type(step).__name__ for step in steps_of(model))
        )
    encoder, classifier = parts
    check_is_fitted(classifier)
    solution = classifier._current_solution()
    blocks = list(_matrices(encoder, classifier, X))
    columns, groups = _groups(encoder, classifier)
    given = [own for _, own in blocks if own is not None]
    if offset is None and given:
        offset = np.concatenate(given)
    rows = sum(matrix.shape[0] for matrix, _ in blocks)
    added = classifier._offsets(offset, rows)
    shares = np.empty((rows, solution.outputs, len(columns) + 1))
    start = 0
    for matrix, _ in blocks:
        stop = start + matrix.shape[0]
        _fill(shares[start:stop], solution, matrix, groups)
        start = stop
    if added is not None:
        shares[:, :, -1] += added
    return Explanation([*columns, BASE], shares[:, 0] if solution.outputs == 1 else shares, classifier.classes_)


def _matrices(
    encoder: TableEncoder | None, classifier: LogisticRegression, X: Any
) -> Iterator[tuple[Any, NDArray[np.float64] | None]]:
    """Blocks of encoded rows with the offsets that they bring."""
    if encoder is not None:
        X = encoder.transform(X)
    if isinstance(X, LazyRows):
        yield from ((matrix, batch.offset) for matrix, batch in aligned_batches(classifier, X))
        return
    array = numeric_array(classifier, host_array(X) if is_tensor(X) else X, reset=False)
    values = array.data if scipy.sparse.issparse(array) else array
    if not np.isfinite(values).all():
        raise InputError("X holds NaN or infinity, which no share can be given for: fill or drop those rows")
    yield array, None


def _groups(encoder: TableEncoder | None, classifier: LogisticRegression) -> tuple[list[str], list[Any]]:
    """Names of the table's columns, and the numeric columns that each was made into."""
    names = column_names(encoder, classifier)
    if encoder is None:
        return names, list(range(len(names)))
    made = np.asarray(encoder.feature_columns_, dtype=object)
    return names, [np.flatnonzero(made == name) for name in names]


def _fill(shares: NDArray[np.float64], solution: Solution, matrix: Any, groups: list[Any]) -> None:
    """Shares ``(rows, K, columns + 1)`` of one block, in place."""
    sparse = scipy.sparse.issparse(matrix)
    shares[:, :, -1] = solution.intercept if sparse else solution.base()
    if not sparse:
        matrix = np.asarray(matrix, dtype=np.float64)
        matrix = matrix if solution.centre is None else matrix - solution.centre
    else:
        matrix = scipy.sparse.csc_array(matrix, dtype=np.float64)
    for j, group in enumerate(groups):
        if isinstance(group, int):
            column = matrix[:, [group]].toarray()[:, 0] if sparse else matrix[:, group]
            shares[:, :, j] = column[:, None] * solution.coef[:, group]
        else:
            shares[:, :, j] = matrix[:, group] @ solution.coef[:, group].T
