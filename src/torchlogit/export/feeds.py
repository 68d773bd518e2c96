"""What exported models are fed with, from tables and arrays; what `predict` refuses is refused here too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse
import torch
from numpy.typing import NDArray
from sklearn.utils import assert_all_finite
from torch import Tensor

from torchlogit.encode import TableEncoder
from torchlogit.encode.frames import frame_batches
from torchlogit.encode.parse import ISO, numbers, strings, times
from torchlogit.estimator import LogisticRegression
from torchlogit.export.layout import Layout, NumberColumn, WordColumn, table_layout
from torchlogit.export.signature import fitted_parts, free_name
from torchlogit.inputs import numeric_array
from torchlogit.lazy_prediction import aligned_batches
from torchlogit.rows import LazyRows
from torchlogit.table import Table, TableBatch
from torchlogit.torch_objects import host_array

Arrays = dict[str, NDArray[Any]]


def onnx_inputs(model: Any, X: Any, offset: Any = None) -> Arrays:
    """What ONNX Runtime is to be fed with, for the exported model.

    Parameters
    ----------
    model : LogisticRegression, or Pipeline of TableEncoder and LogisticRegression
        The fitted model that was exported.
    X : {array-like, frame, Tensor, scan} of shape (n, p)
        Anything that ``model.predict`` takes. Of a scan all rows are read.
    offset : array-like of shape (n,) or (n, n_classes), default=None
        For a model that was fitted with one; a scan brings its own.

    Returns
    -------
    dict of str to ndarray
        One array ``(n, 1)`` a column, float64 or str objects; for a model without an encoder one array ``X`` of shape
        ``(n, p)``, float64.

    Raises
    ------
    InputError
        If a value does not fit its column's kind, or the model cannot be exported.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.pipeline import make_pipeline
    >>> from torchlogit import LogisticRegression, TableEncoder
    >>> table = pd.DataFrame({"age": [31, 45, None, 28], "plan": ["basic", "plus", "basic", "pro"]})
    >>> model = make_pipeline(TableEncoder(), LogisticRegression()).fit(table, [0, 1, 0, 1])
    >>> onnx_inputs(model, table.tail(2))
    {'age': array([[nan],
           [28.]]), 'plan': array([['basic'],
           ['pro']], dtype=object)}
    """
    encoder, classifier = fitted_parts(model)
    if encoder is None:
        feed, offsets = _array_feed(classifier, X, offset)
    else:
        layout = table_layout(encoder, classifier._current_solution().coef)
        feed, offsets = _table_feed(encoder, classifier, layout, X, offset)
    return feed if offsets is None else feed | {free_name("offset", feed): offsets}


def torch_inputs(model: Any, X: Any, offset: Any = None) -> tuple[Tensor, ...]:
    """What the exported program is to be called with.

    Parameters
    ----------
    model : LogisticRegression, or Pipeline of TableEncoder and LogisticRegression
        The fitted model that was exported.
    X : {array-like, frame, Tensor, scan} of shape (n, p)
        Anything that ``model.predict`` takes. Of a scan all rows are read.
    offset : array-like of shape (n,) or (n, n_classes), default=None
        For a model that was fitted with one; a scan brings its own.

    Returns
    -------
    tuple of Tensor
        ``(numbers, codes)``, float64 and int64, of shape ``(n, numeric and date columns)`` and ``(n, boolean and
        category columns)``; for a model without an encoder ``(X,)``, float64. Then the offset ``(n, K)``, if any.

    Raises
    ------
    InputError
        If a value does not fit its column's kind, or the model cannot be exported.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.pipeline import make_pipeline
    >>> from torchlogit import LogisticRegression, TableEncoder
    >>> table = pd.DataFrame({"age": [31, 45, None, 28], "plan": ["basic", "plus", "basic", "pro"]})
    >>> model = make_pipeline(TableEncoder(), LogisticRegression()).fit(table, [0, 1, 0, 1])
    >>> torch_inputs(model, table.tail(2))
    (tensor([[nan],
            [28.]], dtype=torch.float64), tensor([[0],
            [2]]))
    """
    encoder, classifier = fitted_parts(model)
    if encoder is None:
        feed, offsets = _array_feed(classifier, X, offset)
        parts = [feed["X"]]
    else:
        layout = table_layout(encoder, classifier._current_solution().coef)
        feed, offsets = _table_feed(encoder, classifier, layout, X, offset)
        rows = next(iter(feed.values())).shape[0]
        figures = [feed[column.name] for column in layout.numbers]
        codes = [_codes(feed[column.name], column) for column in layout.words]
        parts = [np.concatenate([np.empty((rows, 0)), *figures], axis=1),
                 np.concatenate([np.empty((rows, 0), dtype=np.int64), *codes], axis=1)]  # fmt: skip
    return tuple(torch.tensor(part) for part in (*parts, *([] if offsets is None else [offsets])))


def _array_feed(classifier: LogisticRegression, X: Any, offset: Any) -> tuple[Arrays, NDArray[np.float64] | None]:
    if isinstance(X, LazyRows):
        batches = list(aligned_batches(classifier, X))
        own = [batch.offset for _, batch in batches if batch.offset is not None]
        offset = np.concatenate(own) if offset is None and own else offset
        array = np.concatenate([m.toarray() if scipy.sparse.issparse(m) else m for m, _ in batches])
    else:
        array = numeric_array(classifier, host_array(X) if isinstance(X, Tensor) else X, reset=False)
        array = array.toarray() if scipy.sparse.issparse(array) else array
    assert_all_finite(array, estimator_name=type(classifier).__name__, input_name="X")
    return {"X": np.array(array, dtype=np.float64)}, classifier._offsets(offset, array.shape[0])


def _table_feed(
    encoder: TableEncoder, classifier: LogisticRegression, layout: Layout, X: Any, offset: Any
) -> tuple[Arrays, NDArray[np.float64] | None]:
    """Column by column; blocks are encoded too, for the sake of what the encoder refuses."""
    blocks, place = _blocks(encoder, X)
    pieces: dict[str, list[NDArray[Any]]] = {
        column.name: [np.empty(0, dtype=np.float64 if isinstance(column, NumberColumn) else object)]
        for column in layout.columns
    }
    offsets, rows = [], 0
    for batch in blocks:
        encoder.encode_batch(batch, rows, place)
        for column in layout.columns:
            pieces[column.name].append(_values(batch.columns.column(column.name), column))
        if batch.offset is not None:
            offsets.append(batch.offset)
        rows += batch.rows
    if offset is None and offsets:
        offset = np.concatenate(offsets)
    feed = {name: np.concatenate(parts)[:, None] for name, parts in pieces.items()}
    return feed, classifier._offsets(offset, rows)


def _blocks(encoder: TableEncoder, X: Any) -> tuple[Iterator[TableBatch], Callable[[int], str]]:
    if isinstance(X, Table):
        encoder.check_columns(X)
        return X.table_batches(), X.place
    table = encoder._frame(X, reset=False)
    return (TableBatch(batch, start=start) for start, batch in frame_batches(table)), "row {}".format


def _values(column: pa.Array, kind: NumberColumn | WordColumn) -> NDArray[Any]:
    if isinstance(kind, NumberColumn):
        return numbers(column, kind.form)[0] if kind.kind == "numeric" else times(column, kind.form or ISO)[0]
    return np.asarray(strings(column).fill_null("").to_numpy(zero_copy_only=False), dtype=object)


def _codes(words: NDArray[Any], column: WordColumn) -> NDArray[np.int64]:
    text = pa.array(words[:, 0], pa.string())
    text = pc.utf8_lower(text) if column.fold_case else text
    places = pc.fill_null(pc.index_in(text, value_set=pa.array(column.levels, pa.string())), -2)
    codes = np.array(places.to_numpy(zero_copy_only=False), dtype=np.int64)
    codes[words[:, 0] == ""] = -1
    return codes[:, None]
