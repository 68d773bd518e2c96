"""Values as JSON, and back: what files hold beside their arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

_WRAPPED = ({"float"}, {"pairs"}, {"tuple"}, {"tensor"})


def plain(value: Any, tensors: dict[str, torch.Tensor] | None = None) -> Any:
    """JSON values only.

    Infinities are ``{"float": "inf"}``, keys that are not strings ``{"pairs": ...}``. With ``tensors``, tensors are put
    aside there as ``{"tensor": name}``, and tuples stay tuples; without, tuples and arrays become lists.

    Raises
    ------
    TypeError
        If a value has no such form.
    """
    if tensors is not None and isinstance(value, torch.Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and set(value) not in _WRAPPED:
            return {key: plain(item, tensors) for key, item in value.items()}
        return {"pairs": [[plain(key, tensors), plain(item, tensors)] for key, item in value.items()]}
    if tensors is not None and isinstance(value, tuple):
        return {"tuple": [plain(item, tensors) for item in value]}
    if isinstance(value, (list, tuple)):
        return [plain(item, tensors) for item in value]
    if isinstance(value, np.ndarray):
        return [plain(item, tensors) for item in value.tolist()]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a file cannot hold {type(value).__name__}")


def restored(value: Any, tensors: Mapping[str, torch.Tensor] | None = None) -> Any:
    """The inverse of `plain`."""
    if isinstance(value, dict):
        if set(value) == {"float"}:
            return float(value["float"])
        if set(value) == {"pairs"}:
            return {restored(key, tensors): restored(item, tensors) for key, item in value["pairs"]}
        if tensors is not None and set(value) == {"tuple"}:
            return tuple(restored(item, tensors) for item in value["tuple"])
        if tensors is not None and set(value) == {"tensor"}:
            return tensors[value["tensor"]]
        return {key: restored(item, tensors) for key, item in value.items()}
    return [restored(item, tensors) for item in value] if isinstance(value, list) else value
