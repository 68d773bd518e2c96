"""What several processes agree on before they fit together: columns, classes, weights, and where rows stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchlogit.comm import Communicator
from torchlogit.inputs import Features, training_features
from torchlogit.problem import Block, CodedColumns, SparseRows
from torchlogit.row_values import at_least_two, classes_and_codes, known_codes, own_classes
from torchlogit.rows import LazyRows

if TYPE_CHECKING:
    from torchlogit.estimator import LogisticRegression

# What must be the same everywhere, since all processes decide by it.
_PARAMETERS = ("C", "l1_ratio", "penalty", "tol", "fit_intercept", "max_iter", "class_weight", "solver", "warm_start")


@dataclass(frozen=True)
class Given:
    """What a process brings to a fit, checked.

    Parameters
    ----------
    features : Features
    y, sample_weight, offset : as given, for its rows
    """

    features: Features
    y: Any
    sample_weight: Any
    offset: Any


@dataclass(frozen=True)
class _Facts:
    """What a process tells the others."""

    rows: int
    columns: int
    layout: dict[str, Any]
    names: list[str] | None
    weighted: bool
    offset: bool
    parameters: dict[str, str]


def read(
    estimator: LogisticRegression, X: Any, y: Any, sample_weight: Any, offset: Any, device: Any, processes: Communicator
) -> Given:
    """The rows of this process: those that were given, or its share of a scan."""

    def own() -> Given:
        rows = X
        parts = [y, sample_weight, offset]
        if processes.world > 1 and isinstance(X, LazyRows):
            rows = X.portion(processes.rank, processes.world)
            parts = [part if part is None or np.ndim(part) == 0 else rows.own(np.asarray(part)) for part in parts]
        features = training_features(estimator, rows, device, none_is_fine=processes.world > 1)
        return Given(features, *parts)

    return processes.together(own)


def agreed(estimator: LogisticRegression, given: Given, processes: Communicator) -> tuple[Features, tuple[int, ...]]:
    """The features, of the same columns in all processes, and how many rows each has."""
    features = given.features
    if processes.world == 1:
        return features, (features.rows,)
    told = processes.gathered(lambda: _facts(estimator, given))
    # A share of a scan that holds no rows does not know its columns.
    known = next((rank for rank, facts in enumerate(told) if facts.layout), None)
    if known is None:
        raise ValueError("no process has any rows to fit: give at least one of them some")
    first = told[known]
    for rank, facts in enumerate(told):
        _check_same(facts, rank, first, known)
    if not features.parts:
        features = replace(features, parts=[_no_rows(first.layout)])
        estimator.n_features_in_ = first.columns
        if first.names is not None:
            estimator.feature_names_in_ = np.array(first.names, dtype=object)
    return features, tuple(facts.rows for facts in told)


def _facts(estimator: LogisticRegression, given: Given) -> _Facts:
    features = given.features
    names = getattr(estimator, "feature_names_in_", None)
    lazy = features.lazy
    return _Facts(
        features.rows,
        features.columns if features.parts else 0,
        _layout(features.parts[0]) if features.parts else {},
        None if names is None else [str(name) for name in names],
        given.sample_weight is not None or (lazy is not None and lazy.has_weight),
        given.offset is not None or (lazy is not None and lazy.has_offset),
        {name: str(getattr(estimator, name)) for name in _PARAMETERS},
    )


def _check_same(facts: _Facts, rank: int, first: _Facts, known: int) -> None:
    def differ(what: str, here: Any, there: Any) -> ValueError:
        return ValueError(f"process {rank} has {what} {here}, process {known} {there}: all must have the same")

    for name, value in facts.parameters.items():
        if value != first.parameters[name]:
            raise differ(f"the parameter {name}", value, first.parameters[name])
    if facts.weighted != first.weighted or facts.offset != first.offset:
        what = "sample_weight" if facts.weighted != first.weighted else "offset"
        raise ValueError(f"either all processes give {what} or none: processes {known} and {rank} differ")
    if not facts.layout:
        return
    if facts.columns != first.columns:
        raise differ("this many columns:", facts.columns, first.columns)
    if facts.names != first.names:
        raise differ("columns of these names:", facts.names, first.names)
    if facts.layout != first.layout:
        raise differ("rows of this form:", facts.layout, first.layout)


def _layout(block: Block) -> dict[str, Any]:
    """What it takes to make a block of no rows."""
    layout: dict[str, Any] = {}
    if block.dense is not None:
        layout["dense"] = (block.dense.shape[1], str(block.dense.dtype))
    if block.sparse is not None:
        layout["sparse"] = (block.sparse.columns, str(block.sparse.values.dtype))
    if block.codes is not None:
        layout["coded"] = (block.codes.first.tolist(), block.codes.columns)
    return layout


def _no_rows(layout: dict[str, Any]) -> Block:
    block = Block(torch.zeros(0, dtype=torch.int64))
    if "dense" in layout:
        width, dtype = layout["dense"]
        block = replace(block, dense=torch.zeros(0, width, dtype=getattr(torch, dtype.removeprefix("torch."))))
    if "sparse" in layout:
        width, dtype = layout["sparse"]
        values = torch.zeros(0, dtype=getattr(torch, dtype.removeprefix("torch.")))
        empty = torch.zeros(1, dtype=torch.int32)
        block = replace(block, sparse=SparseRows(empty, empty[:0], values, width))
    if "coded" in layout:
        first, width = layout["coded"]
        codes = torch.zeros(0, len(first), dtype=torch.int32)
        block = replace(block, codes=CodedColumns(codes, torch.tensor(first, dtype=torch.int64), width))
    return block


def classes_of(
    estimator: LogisticRegression, given: Given, processes: Communicator
) -> tuple[NDArray[Any], NDArray[np.integer[Any]] | Tensor]:
    """Sorted classes of all processes, and the class code of each row of this one."""
    features = given.features
    if processes.world == 1:
        return classes_and_codes(estimator, features, given.y)
    own, codes = processes.together(lambda: own_classes(estimator, features, given.y))
    values = [labels for labels in processes.gathered(lambda: own) if labels.size]
    if len({labels.dtype.kind in "OUS" for labels in values}) > 1:
        raise ValueError("some processes have labels that are texts and some have numbers; use one type")
    classes = at_least_two(np.unique(np.concatenate(values)))  # each process has checked its own labels
    place = known_codes(own, classes) if own.size else np.zeros(0, dtype=np.int64)
    # all processes together may have more classes than the codes of this one can count
    return classes, place[codes].astype(np.promote_types(codes.dtype, np.min_scalar_type(classes.size)))


def located(row: int, counts: Sequence[int]) -> tuple[int, int]:
    """The process that has a row which is counted among all, and the row's number there."""
    ends = np.cumsum(counts)
    rank = int(np.searchsorted(ends, row, side="right"))
    return rank, row - (int(ends[rank]) - counts[rank])
