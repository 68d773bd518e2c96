"""States of a fit as trees of plain values and tensors, and back: the types on a list, and no others."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from torchlogit.block_diagonal import CentredBlocks
from torchlogit.class_curvature import ClassInverse, _LaneInverse
from torchlogit.drive import HeldCertificate, LaneProgress, Outcome
from torchlogit.hessian_factors import HessianInverse, _Factor
from torchlogit.journal import Sweep
from torchlogit.keeping import Progress
from torchlogit.leading import Leading
from torchlogit.moments import Moments
from torchlogit.preconditioners import CentredInverse, DiagonalInverse, EigenbasisInverse, Recycled
from torchlogit.problem import RowStats, Status
from torchlogit.separation import Separation, SeparationKind
from torchlogit.solvers.base import State
from torchlogit.solvers.guided import GuidedState
from torchlogit.solvers.lbfgs import LBFGSState
from torchlogit.solvers.newton import NewtonState

# A new solver's state and a new curvature are one more line each.
KEPT: tuple[type, ...] = (
    Progress, Moments, Sweep, RowStats,
    Outcome, LaneProgress, HeldCertificate, Separation,
    State, GuidedState, LBFGSState, NewtonState,
    DiagonalInverse, CentredInverse, CentredBlocks, Recycled, _Factor, HessianInverse, EigenbasisInverse,
    ClassInverse, _LaneInverse, Leading,
)  # fmt: skip
_RECORDS = {kind.__name__: kind for kind in KEPT}
_ENUMS: dict[str, type[enum.Enum]] = {"Status": Status, "SeparationKind": SeparationKind}
_RECORD, _ENUM, _TENSOR = "__record__", "__enum__", "__tensor__"
# Sums depend on how their terms lie in memory: which way a matrix runs, and where in a vector register it begins.
_ALIGNMENT = 64


def as_tree(value: Any) -> Any:
    """Dictionaries, lists, tuples, tensors and plain values only.

    Raises
    ------
    TypeError
        If a record is of a type that is not on the list.
    """
    if isinstance(value, Tensor):
        return _tensor_tree(value)
    if isinstance(value, enum.Enum):
        return {_ENUM: [type(value).__name__, value.name]}
    if is_dataclass(value):
        name = type(value).__name__
        if _RECORDS.get(name) is not type(value):
            raise TypeError(f"a checkpoint cannot hold {name}")
        return {_RECORD: name, **{f.name: as_tree(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, dict):
        return {key: as_tree(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(as_tree(item) for item in value)
    return value


def from_tree(tree: Any, device: Any = "cpu") -> Any:
    """The inverse of `as_tree`, tensors on a device.

    Raises
    ------
    ValueError, TypeError, KeyError
        If the tree is not one that `as_tree` made.
    """
    if isinstance(tree, dict):
        if _TENSOR in tree:
            return _tensor(tree).to(device)
        if _ENUM in tree:
            kind, name = tree[_ENUM]
            return _ENUMS[kind][name]
        given = {key: from_tree(item, device) for key, item in tree.items() if key != _RECORD}
        return _made(_RECORDS[tree[_RECORD]], given) if _RECORD in tree else given
    if isinstance(tree, (list, tuple)):
        return type(tree)(from_tree(item, device) for item in tree)
    return tree


def _made(kind: Callable[..., Any], given: dict[str, Any]) -> Any:
    wanted = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if set(given) != wanted:
        raise ValueError(f"{kind.__name__} lacks {sorted(wanted ^ set(given))}")
    return kind(**given)


def _tensor_tree(value: Tensor) -> dict[str, Any]:
    """A tensor with its place in memory, unless it is a small part of something large."""
    size, stride = tuple(value.shape), tuple(value.stride())
    extent = 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if value.numel() else 0
    if extent > 2 * value.numel() + _ALIGNMENT:
        value = value.contiguous()
        stride, extent = tuple(value.stride()), value.numel()
    start = value.data_ptr() % _ALIGNMENT // value.element_size() if extent else 0
    base = value.as_strided((extent,), (1,), value.storage_offset())
    return {_TENSOR: base, "size": size, "stride": stride, "start": start}


def _tensor(tree: dict[str, Any]) -> Tensor:
    base, start = tree[_TENSOR], int(tree["start"])
    place = torch.empty(start + base.shape[0], dtype=base.dtype)
    place[start:] = base
    return place.as_strided(tree["size"], tree["stride"], start)
