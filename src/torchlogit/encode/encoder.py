"""`TableEncoder`: numbers from tables, in memory or on disk."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, validate_data

from torchlogit.comm import Communicator, current
from torchlogit.encode.columns import Boolean, Category, Date, Encoding, Numeric, Text
from torchlogit.encode.frames import arrow_table, even_blocks, frame_batches, is_frame
from torchlogit.encode.lazy import EncodedTable, without
from torchlogit.encode.parse import strings
from torchlogit.encode.plain_numbers import is_plain, side_by_side, spread, standardised
from torchlogit.encode.profile import KINDS, CellError, ColumnProfile, Reading, chosen, shown
from torchlogit.encode.text import TextCounter
from torchlogit.errors import InputError
from torchlogit.rows import LazyRows, RowBatch
from torchlogit.sources.ahead import ahead
from torchlogit.table import Table, TableBatch
from torchlogit.threads import in_ranges

_AS_ASKED = "as asked"
_WORTH_TOGETHER = 4  # columns
Place = Callable[[int], str]
Blocks = Callable[[], Iterator[pa.RecordBatch]]


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one column.

    Parameters
    ----------
    column, kind : str
    reason : str
        What was seen in it.
    encoding : str
        What it becomes, in words.
    features : int
        Number of numeric columns.
    hint : str, default=""
        What to look at, or to do about it.
    """

    column: str
    kind: str
    reason: str
    encoding: str
    features: int
    hint: str = ""

    def __str__(self) -> str:
        """A line for people."""
        hint = f"; {self.hint}" if self.hint else ""
        if self.kind == "drop":
            return f"{self.column}: left out ({self.reason}){hint}"
        return f"{self.column}: {self.encoding} ({self.features:,} column{'s' if self.features != 1 else ''}){hint}"


class TableEncoder(TransformerMixin, BaseEstimator):
    """Encode the columns of a table as numbers: numeric, boolean, category, date and text.

    Every column's kind is decided from all of its values, and every decision is recorded in words (``decisions_``):

    - *numeric*: minus the mean, over the standard deviation; missing values become the mean and are marked, and so
      does a word that recurs among many numbers (``-``, ``unknown``); decimal commas, thousands separators, one
      currency or per cent sign and times of day are read where all values of the column are written so;
    - *boolean* (two levels, whatever the case of words for true and false): 0 or 1;
    - *category*: one column a level, rare and unseen levels share one, missing is a level; beyond 1,000 levels the
      others are hashed; digits with leading zeros are levels, not numbers;
    - *date*: days, month, weekday and hour;
    - *text*: hashed words and pairs of words, ``(1 + log count)`` times inverse document frequency;
    - identifiers, constant and empty columns are left out.

    Parameters
    ----------
    kinds : dict, default=None
        Overrides, column name to one of 'numeric', 'boolean', 'category', 'date', 'text', 'drop'.

    Attributes
    ----------
    decisions_ : list of Decision
        One a column of the table, in order.
    feature_columns_ : list of str
        For each numeric column, the column of the table that it was made from.
    n_features_in_ : int
        Number of columns of the table.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if they had any.

    See Also
    --------
    torchlogit.scan : Tables in files.

    Examples
    --------
    >>> import pandas as pd
    >>> from torchlogit import TableEncoder
    >>> table = pd.DataFrame({"age": [31, 45, None, 28], "plan": ["basic", "plus", "basic", "pro"]})
    >>> encoder = TableEncoder().fit(table)
    >>> list(encoder.get_feature_names_out())
    ['age', 'age (missing)', 'plan = basic', 'plan = plus', 'plan = pro']
    >>> print(encoder.decisions_[1])
    plan: category: 3 levels (3 columns)
    >>> encoder.transform(table).toarray().round(2)
    array([[-0.49,  0.  ,  1.  ,  0.  ,  0.  ],
           [ 1.39,  0.  ,  0.  ,  1.  ,  0.  ],
           [ 0.  ,  1.  ,  1.  ,  0.  ,  0.  ],
           [-0.9 ,  0.  ,  0.  ,  0.  ,  1.  ]])
    """

    def __init__(self, kinds: Mapping[str, str] | None = None) -> None:
        self.kinds = kinds

    def __sklearn_tags__(self) -> Any:
        """Any table, missing values included."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    # -- fitting ------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> TableEncoder:
        """Learn every column's kind and numbers.

        Parameters
        ----------
        X : frame, ndarray of shape (n, p), or scan
        y : ignored

        Returns
        -------
        TableEncoder
            The fitted encoder.

        Raises
        ------
        InputError
            If a column cannot be encoded; the message names the column, the row and the value.
        """
        if isinstance(X, Table):
            self._check_encodable(X)
            names, blocks, place = list(X.columns), (lambda: _table_blocks(X)), X.place
            self.feature_names_in_ = np.array(names, dtype=object)
            self.n_features_in_ = len(names)
        elif current().world > 1:
            raise ValueError(
                "a TableEncoder learns from all rows, and a frame holds those of one process: give it a scan inside of "
                "distributed(), or fit it outside"
            )
        else:
            table = self._frame(X, reset=True)
            names, blocks, place = list(table.column_names), (lambda: even_blocks(table.to_batches())), _row_of_frame
        self._check_kinds(names)
        if isinstance(X, Table) and current().world > 1:
            self._set(*self._learn_together(X, names, current()))
        else:
            self._set(*self._learn(names, blocks, place))
        return self

    def _learn_together(
        self, table: Table, names: list[str], processes: Communicator
    ) -> tuple[list[Encoding | None], list[Decision]]:
        """Each process learns some of the columns from all rows: what a column is depends on all of its values."""

        def learn() -> tuple[list[Encoding | None], list[Decision]]:
            own = names[processes.rank :: processes.world]
            if not own:
                return [], []
            part = without(table, [name for name in names if name not in set(own)])
            return self._learn(own, lambda: _table_blocks(part, len(names)), part.place)

        learnt = processes.gathered(learn)
        order = [(j % processes.world, j // processes.world) for j in range(len(names))]
        return [learnt[rank][0][i] for rank, i in order], [learnt[rank][1][i] for rank, i in order]

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Fit, then `transform` the same rows."""
        X = X.usable(numeric=False) if isinstance(X, Table) else X
        return self.fit(X, y).transform(X)

    def _learn(
        self, names: list[str], blocks: Blocks, place: Place
    ) -> tuple[list[Encoding | None], list[Decision]]:
        profiles: list[ColumnProfile] = []
        for batch in blocks():
            if not profiles:
                profiles = [
                    ColumnProfile(name, field.type, (self.kinds or {}).get(name))
                    for name, field in zip(names, batch.schema, strict=True)
                ]
            _show_all(profiles, batch, place)
        again = [j for j, profile in enumerate(profiles) if profile.undecided]
        if again:
            for j in again:
                profiles[j] = ColumnProfile(names[j], profiles[j].kind, patient=True)
            for batch in blocks():
                for j in again:
                    _show(profiles[j], batch.column(j), place)
        _read_notations(profiles, blocks)
        decided = [self._decide(profile, place) for profile in profiles]
        prose = [j for j, (kind, _) in enumerate(decided) if kind == "text"]
        counters = {j: TextCounter() for j in prose}
        if prose:
            for batch in blocks():
                for j in prose:
                    counters[j].add(strings(batch.column(j)).to_pylist())
        encodings: list[Encoding | None] = []
        decisions: list[Decision] = []
        for j, (profile, (kind, reason)) in enumerate(zip(profiles, decided, strict=True)):
            encoding = self._encoding(profile, kind, counters.get(j), place)
            width = 0 if encoding is None else _width(encoding)
            told = "left out" if encoding is None else encoding.describe()
            hint = "" if reason == _AS_ASKED else profile.hint(kind)
            encodings.append(encoding)
            decisions.append(Decision(profile.name, kind, reason, told, width, hint))
        return encodings, decisions

    def _set(self, encodings: list[Encoding | None], decisions: list[Decision]) -> None:
        """The fitted state; a model file brings it back through here too."""
        self._encodings = encodings
        self.decisions_ = decisions
        layout: list[list[tuple[str, str]]] = [[], [], []]
        for encoding, decision in zip(encodings, decisions, strict=True):
            if encoding is None:
                continue
            layout[0] += [(name, decision.column) for name in encoding.dense]
            layout[1] += [(name, decision.column) for name in encoding.sparse]
            layout[2] += [(name, decision.column) for group in encoding.coded for name in group]
        whole = layout[0] + layout[1] + layout[2]
        self._feature_names = [name for name, _ in whole]
        self.feature_columns_ = [column for _, column in whole]

    def _check_kinds(self, names: list[str]) -> None:
        for column, kind in (self.kinds or {}).items():
            if kind not in KINDS:
                raise ValueError(f"kinds['{column}'] is {kind!r}; it must be one of {', '.join(KINDS)}")
            if column not in names:
                raise ValueError(
                    f"kinds names the column '{column}', but the table has none of that name{_near(column, names)}"
                )

    def _decide(self, profile: ColumnProfile, place: Place) -> tuple[str, str]:
        wanted = (self.kinds or {}).get(profile.name)
        if wanted is not None:
            if wanted != "drop" and not profile.present:
                raise InputError(f"column '{profile.name}' cannot be {wanted}: all its values are missing")
            return wanted, _AS_ASKED
        try:
            return profile.decide()
        except CellError as error:
            raise _cell_message(error, profile.name, place(error.row)) from None

    def _encoding(
        self, profile: ColumnProfile, kind: str, counter: TextCounter | None, place: Place
    ) -> Encoding | None:
        try:
            if kind == "numeric":
                if profile.number.bad and profile.reading is None and not profile.marks():
                    assert profile.number.first is not None
                    raise CellError(*profile.number.first, "a finite number")
                if not profile.measured.representable:
                    raise InputError(
                        f"column '{profile.name}' holds numbers from {profile.measured.low:g} to "
                        f"{profile.measured.high:g}, whose spread float64 cannot hold: "
                        "multiply or divide the column by a power of ten"
                    )
                return Numeric.learn(profile)
            if kind == "date":
                return Date.learn(profile)
        except CellError as error:
            raise _cell_message(error, profile.name, place(error.row)) from None
        if kind == "boolean":
            return Boolean.learn(profile)
        if kind == "category":
            return Category.learn(profile)
        if kind == "text":
            assert counter is not None
            return Text.learn(profile.name, counter)
        return None

    # -- transforming -------------------------------------------------------------------------------------------

    def transform(self, X: Any) -> Any:
        """Encode rows.

        Parameters
        ----------
        X : frame, ndarray of shape (n, p), or scan
            A scan may have its columns in any order, and more of them than the encoder knows.

        Returns
        -------
        ndarray or csr_array of shape (n, features), float64
            Sparse where there are categories, dates or texts. For a scan, lazy rows that carry its target.

        Raises
        ------
        InputError
            If a column is missing, or a value does not fit its column's kind.
        """
        check_is_fitted(self)
        if isinstance(X, Table):
            return EncodedTable(self, X)
        table = self._frame(X, reset=False)
        pieces = [
            self.encode_batch(TableBatch(batch, start=start), start, _row_of_frame).matrix()
            for start, batch in frame_batches(table)
        ]
        if not pieces:
            return np.zeros((table.num_rows, len(self._feature_names)))
        if scipy.sparse.issparse(pieces[0]):
            return scipy.sparse.csr_array(scipy.sparse.vstack(pieces, format="csr"))
        return np.concatenate(pieces)

    def encode_batch(self, batch: TableBatch, start: int, place: Place, *, fitting: bool = False) -> RowBatch:
        """One block of a table.

        Parameters
        ----------
        batch : TableBatch
        start : int
            Number of its first row, over all files.
        place : callable
            Says where a row stands.
        fitting : bool, default=False
            Whether the rows belong to the fit, so that columns may still be left out of it.
        """
        dense: list[NDArray[np.float64]] = []
        sparse: list[scipy.sparse.csr_array] = []
        codes: list[NDArray[np.int32]] = []
        first: list[int] = []
        width = 0
        ready = self._plain_numbers(batch, start)
        if ready is None or len(ready[0]) < len(self.decisions_):
            batch = batch.sieved()
        by_name = not set(batch.columns.schema.names).isdisjoint(d.column for d in self.decisions_)
        for j, (encoding, decision) in enumerate(zip(self._encodings, self.decisions_, strict=True)):
            if encoding is None:
                continue
            if ready is not None and j in ready[0]:
                if j == ready[0][0]:
                    dense.append(ready[1])
                continue
            try:
                part = encoding.encode(batch.columns.column(decision.column if by_name else j))
            except CellError as error:
                fitted_as = None if fitting else decision.kind
                raise _cell_message(error, decision.column, place(start + error.row), fitted_as) from None
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
                kind = batch.columns.column(decision.column if by_name else j).type
                raise InputError(
                    f"{place(start).split(', row')[0]}, column '{decision.column}' holds {kind}, but the model was "
                    f"fitted with a {decision.kind} column: give it the type that it had"
                ) from None
            if part.dense is not None:
                dense.append(part.dense)
            if part.sparse is not None:
                sparse.append(part.sparse)
            if part.codes is not None:
                codes.append(part.codes)
                for group in encoding.coded:
                    first.append(width)
                    width += len(group)
        return RowBatch(
            rows=batch.rows,
            dense=side_by_side(dense, batch.rows) if dense else None,
            sparse=scipy.sparse.csr_array(scipy.sparse.hstack(sparse, format="csr")) if sparse else None,
            codes=np.concatenate(codes, axis=1) if codes else None,
            first=tuple(first),
            coded_columns=width,
            target=batch.target,
            weight=batch.weight,
            offset=batch.offset,
            file=batch.file,
            start=batch.start,
        )

    def _plain_numbers(self, batch: TableBatch, before: int) -> tuple[range, NDArray[np.float64]] | None:
        """The first columns that are numbers as they stand, as many as follow each other, and what becomes of them."""
        columns, count = batch.columns, 0
        by_name = set(columns.schema.names) >= {d.column for d in self.decisions_}
        for encoding, decision in zip(self._encodings, self.decisions_, strict=True):
            if not by_name or encoding is None or not is_plain(encoding, columns.column(decision.column)):
                break
            count += 1
        if count < _WORTH_TOGETHER:
            return None
        numeric = [encoding for encoding in self._encodings[:count] if isinstance(encoding, Numeric)]
        plain = [columns.column(d.column) for d in self.decisions_[:count]]
        values = standardised(numeric, plain, batch.sieve, before)
        return None if values is None else (range(count), values)

    def check_columns(self, table: Table) -> None:
        """Raise `InputError` unless a scan has every column that is encoded."""
        self._check_encodable(table)
        have = set(table.columns)
        for encoding, decision in zip(self._encodings, self.decisions_, strict=True):
            if encoding is not None and decision.column not in have:
                raise InputError(
                    f"{table.place(0).split(',')[0]} has no column '{decision.column}', which the model was fitted "
                    f"with{_near(decision.column, list(table.columns))}"
                )

    @staticmethod
    def _check_encodable(table: Table) -> None:
        if table.is_sparse:
            raise InputError(
                "a libsvm file holds numbers already: fit LogisticRegression on the scan, without an encoder"
            )

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Names of the numeric columns, such as ``age``, ``age (missing)``, ``plan = basic``, ``note: 'free'``.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Checked against the names that were seen in `fit`.

        Returns
        -------
        ndarray of str objects
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features)
        return np.array(self._feature_names, dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` has run."""
        return hasattr(self, "_encodings")

    # -- frames -------------------------------------------------------------------------------------------------

    def _frame(self, X: Any, *, reset: bool) -> pa.Table:
        """X as an Arrow table with the encoder's column names, checked as scikit-learn checks."""
        if isinstance(X, LazyRows):
            raise TypeError("these rows are encoded already")
        if isinstance(X, pa.RecordBatch):
            X = pa.Table.from_batches([X])
        if is_frame(X):
            names = [str(name) for name in (X.column_names if isinstance(X, pa.Table) else X.columns)]
            name, count = Counter(names).most_common(1)[0] if names else ("", 0)
            if count > 1:
                raise InputError(f"column '{name}' occurs {count} times; rename or drop all but one")
            validate_data(self, X, reset=reset, skip_check_array=True)
            if min(X.shape) == 0:
                validate_data(self, np.zeros(X.shape), reset=reset, ensure_min_features=1)
        else:
            X = validate_data(self, X, reset=reset, dtype=None, ensure_all_finite=False)
            if X.dtype.kind == "f" and np.isinf(X).any():
                assert_all_finite(X, allow_nan=True, estimator_name="TableEncoder", input_name="X")
            names = [f"x{j}" for j in range(X.shape[1])]
        if not reset:
            names = [decision.column for decision in self.decisions_]
        return arrow_table(X, names)


def _table_blocks(table: Table, columns: int | None = None) -> Iterator[pa.RecordBatch]:
    names = list(table.columns)

    def selected() -> Iterator[pa.RecordBatch]:
        for batch in table.table_batches():
            yield batch.columns.select(names)

    return even_blocks(ahead(selected), columns)


def _show_all(profiles: list[ColumnProfile], batch: pa.RecordBatch, place: Place) -> None:
    """Each column to its profile, several at once where they are long."""
    columns = batch.columns

    def show(first: int, last: int) -> None:
        for j in spread(profiles[first:last], columns[first:last]):
            _show(profiles[first + j], columns[first + j], place)

    in_ranges(len(profiles), show, float(batch.num_rows * len(profiles)))


def _show(profile: ColumnProfile, column: pa.Array, place: Place) -> None:
    try:
        profile.add(column)
    except (TypeError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        file, name = place(0).split(", row")[0], profile.name
        of = "" if file == _row_of_frame(0) else f" of {file}"
        raise InputError(
            f"column '{name}'{of} holds {column.type}, which cannot be encoded"
            + (f" as {profile.wanted}" if profile.wanted else "")
            + f": leave it out (--drop {shlex.quote(name)}, or kinds={{{name!r}: 'drop'}}), or spread it over several "
            "columns first"
        ) from None


def _read_notations(profiles: list[ColumnProfile], blocks: Blocks) -> None:
    """Another look at columns that may be numbers written in some other way."""
    readings = {j: [Reading(name) for name in profile.notations()] for j, profile in enumerate(profiles)}
    readings = {j: some for j, some in readings.items() if some}
    for batch in blocks() if readings else ():
        for j, some in readings.items():
            text = strings(batch.column(j))
            for reading in some:
                reading.add(text)
    for j, some in readings.items():
        profiles[j].reading = chosen(some)


def _row_of_frame(row: int) -> str:
    return f"row {row}"


def _width(encoding: Encoding) -> int:
    return len(encoding.dense) + len(encoding.sparse) + sum(map(len, encoding.coded))


def _near(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, 1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _cell_message(error: CellError, column: str, where: str, fitted_as: str | None = None) -> InputError:
    cell = shown(error.value)
    token = cell if cell == repr(error.value) else "VALUE"
    if fitted_as is not None:
        return InputError(
            f"{where}, column '{column}': {cell} is not {error.wanted}, but the model was fitted with a {fitted_as} "
            "column: correct the value, or leave it empty if it is missing"
        )
    if isinstance(error.value, float):
        return InputError(f"{where}, column '{column}': {cell} is not {error.wanted}: correct it, or leave it empty")
    return InputError(
        f"{where}, column '{column}': {cell} is not {error.wanted}: correct it, declare it as missing (--na {token} "
        f"or scan(..., missing=[...])), or leave the column out (--drop {column!r})"
    )
