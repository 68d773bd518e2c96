"""From what a user hands to `fit` to the problem that is solved."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchlogit.comm import ALONE, Communicator, current
from torchlogit.fit import Fit, NonFiniteError, Problem
from torchlogit.gathering import weights_of
from torchlogit.incremental import Incremental
from torchlogit.inputs import Features, training_features
from torchlogit.losses import loss_for
from torchlogit.parameters import check_parameters, device_of, seed_of
from torchlogit.penalties import ElasticNet
from torchlogit.problem import FitOptions
from torchlogit.row_values import known_codes, row_offsets, row_weights, training_labels
from torchlogit.sharing import agreed, classes_of, located, read
from torchlogit.sources import shared

if TYPE_CHECKING:
    from torchlogit.estimator import LogisticRegression


@dataclass(frozen=True)
class Prepared:
    """A checked problem with what is needed to publish its result.

    Parameters
    ----------
    problem : Problem
    options : FitOptions
    dtype : numpy dtype
        Of the published coefficients.
    classes : ndarray of shape (n_classes,)
    columns : sequence of str, optional
        Their names.
    features : Features
    processes : Communicator
    counts : tuple of int
        How many rows each has.
    """

    problem: Problem
    options: FitOptions
    dtype: np.dtype[Any]
    classes: NDArray[Any]
    columns: Any
    features: Features
    processes: Communicator = ALONE
    counts: tuple[int, ...] = ()

    def begin(self, estimator: LogisticRegression) -> Fit:
        """The fit, before its first step; a value that is not finite is named."""
        names = self.columns
        try:
            return Fit(
                self.problem,
                self.options,
                None if names is None else lambda j: str(names[j]),
                getattr(estimator, "_keeper", None),  # the command line's checkpoint
            )
        except NonFiniteError as error:
            rank, row = (error.rank, error.row) if error.rank is not None else located(error.row, self.counts)
            own = NonFiniteError(row, error.column, error.value)
            # The row's process knows where it stands.
            told = self.processes.gathered(
                lambda: str(_non_finite_message(estimator, self, own)) if rank == self.processes.rank else ""
            )
            raise ValueError(told[rank]) from None


def prepare(
    estimator: LogisticRegression, X: Any, y: Any, sample_weight: Any, offset: Any
) -> Prepared:
    """Check everything that was given, and state the problem.

    Parameters
    ----------
    estimator : LogisticRegression
        Its ``n_features_in_`` and ``feature_names_in_`` are set.
    X, y, sample_weight, offset : as in `LogisticRegression.fit`
    """
    processes = current()
    strength = check_parameters(estimator)
    given = read(estimator, X, y, sample_weight, offset, device_of(estimator.device), processes)
    features, counts = agreed(estimator, given, processes)
    classes, codes = classes_of(estimator, given, processes)
    if estimator.solver == "liblinear" and classes.size > 2:
        raise ValueError(
            "The 'liblinear' solver does not support multiclass classification (n_classes >= 3). Leave solver at "
            "'auto' for the multinomial model, or wrap the estimator in a OneVsRestClassifier."
        )
    weight = row_weights(features, given.sample_weight, estimator.class_weight, classes, codes, processes)
    loss = loss_for(int(classes.size))
    offsets = processes.together(lambda: row_offsets(_offset_of(features, given.offset), features.rows, loss.outputs))
    total = sum(processes.gathered(lambda: _total(features, weight)))
    if not total:
        raise ValueError("Sample weights must contain at least one non-zero number.")
    own = features.source(codes, weight, offsets, loss.outputs, first=sum(counts[: processes.rank]))
    source = shared(own, processes)
    problem = Problem(
        source,
        loss,
        [ElasticNet(l2=0.0 if np.isinf(strength) else 1.0 / (strength * total))],
        bool(estimator.fit_intercept),
        _start(estimator, loss.outputs, source.features),
        offsets is not None or (features.stream is not None and features.brings_offsets),
    )
    options = processes.from_first(lambda: _options(estimator))
    names = _names(estimator, features)
    return Prepared(problem, options, features.dtype, classes, names, features, processes, counts)


def prepare_more(
    estimator: LogisticRegression, X: Any, y: Any, classes: Any, sample_weight: Any, offset: Any
) -> tuple[Prepared, Incremental]:
    """The problem of a further batch, and the memory that it joins."""
    if current().world > 1:
        raise ValueError(
            "partial_fit takes the rows of one process: call it outside of distributed(), or use fit there, which "
            "takes those of all"
        )
    strength = check_parameters(estimator)
    if isinstance(estimator.class_weight, str):
        raise ValueError(
            "class_weight='balanced' needs the share of each class in all rows, which partial_fit does not know: "
            "give a dict of weights"
        )
    memory: Incremental | None = getattr(estimator, "_memory", None)
    features = training_features(estimator, X, device_of(estimator.device), reset=memory is None)
    labels = training_labels(estimator, features, y)
    known = _known_classes(estimator, classes, memory)
    codes = known_codes(labels, known)
    weight = row_weights(features, sample_weight, estimator.class_weight, known, codes)
    loss = loss_for(int(known.size))
    offsets = row_offsets(_offset_of(features, offset), features.rows, loss.outputs)
    blocks = features.blocks(codes, weight, offsets)
    if memory is None:
        memory = Incremental(loss, features.columns, bool(estimator.fit_intercept), offsets is not None)
    _check_same(memory, features, offsets is not None)
    problem = memory.problem(blocks, strength)
    names = _names(estimator, features)
    more = Prepared(problem, _options(estimator), features.dtype, known, names, features, counts=(features.rows,))
    return more, memory


def _check_same(memory: Incremental, features: Features, has_offset: bool) -> None:
    if memory.has_offset != has_offset:
        raise ValueError(
            "either all calls of partial_fit have an offset or none: "
            + ("the earlier ones had one" if memory.has_offset else "the earlier ones had none, use zeros there")
        )
    if memory.window is not None and memory.window.widths != features.parts[0].widths:
        raise ValueError(
            "X is sparse in some calls of partial_fit and dense in others: give all batches in the same form"
        )


def _known_classes(estimator: LogisticRegression, classes: Any, memory: Incremental | None) -> NDArray[Any]:
    if memory is None:
        if hasattr(estimator, "classes_"):
            warnings.warn(
                "fit keeps no curvature to go on from, so partial_fit begins anew with this batch; use partial_fit "
                "from the first batch on, or fit on all rows",
                UserWarning,
                stacklevel=4,
            )
            classes = estimator.classes_ if classes is None else classes
        if classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        known = np.unique(np.asarray(classes))
        if known.size < 2:
            raise ValueError(f"classes must hold at least two labels, got {known.tolist()}")
        return known
    current: NDArray[Any] = estimator.classes_
    if classes is not None and not np.array_equal(np.unique(np.asarray(classes)), current):
        raise ValueError(
            f"`classes={np.asarray(classes).tolist()}` is not the same as on last call to partial_fit, was: "
            f"{current.tolist()}"
        )
    return current


def _options(estimator: LogisticRegression) -> FitOptions:
    return FitOptions(float(estimator.tol), int(estimator.max_iter), seed_of(estimator.random_state))


def _names(estimator: LogisticRegression, features: Features) -> Any:
    return getattr(estimator, "feature_names_in_", None) if features.lazy is None else features.lazy.feature_names


def _start(estimator: LogisticRegression, outputs: int, width: int) -> Tensor | None:
    """Raw coefficients ``(1, K, p + 1)`` to start from, or None."""
    if not estimator.warm_start or not hasattr(estimator, "coef_"):
        return None
    current = estimator._current_solution()
    if current.coef.shape != (outputs, width):
        raise ValueError(
            f"warm_start=True, but the last fit's coefficients have shape {current.coef.shape} and these data "
            f"need {(outputs, width)}; fit a fresh estimator"
        )
    return torch.from_numpy(np.concatenate([current.coef, current.intercept[:, None]], axis=1))[None]


def _total(features: Features, weight: NDArray[np.float64] | None) -> float:
    """Total weight."""
    if weight is None and features.stream is not None and features.brings_weights:
        moments = features.stream.moments
        return float(weights_of(features.original).sum() if moments is None else moments.weight[0])
    return float(features.rows if weight is None else weight.sum())


def _offset_of(features: Features, offset: Any) -> Any:
    if offset is None and features.stream is None and features.brings_offsets:
        return features.brought("offset")
    return offset


def _non_finite_message(estimator: LogisticRegression, prepared: Prepared, error: NonFiniteError) -> ValueError:
    """scikit-learn's first sentence, then where."""
    features, names, processes = prepared.features, prepared.columns, prepared.processes
    what = "NaN" if np.isnan(error.value) else "infinity or a value too large for its dtype"
    column = f"column {error.column}" if names is None else f"column '{names[error.column]}'"
    where = f"row {error.row}" if features.lazy is None else features.lazy.place(error.row)
    where += f" of process {processes.rank}" if processes.world > 1 and features.lazy is None else ""
    return ValueError(
        f"Input X contains {what}. The first is in {where}, {column}. {type(estimator).__name__} does not accept "
        "missing values: drop or fill those rows, or put a TableEncoder before the model, which does."
    )
