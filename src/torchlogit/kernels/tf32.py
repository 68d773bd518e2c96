"""Products of float32 factors in TF32, ten bits of each factor, on CUDA devices: six times as fast or more.

For what shapes a step alone: gradients and certificates never see them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_LOCK = threading.Lock()


def short_product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right``; float32 factors on a CUDA device are rounded to ten bits, where it is faster so."""
    if left.device.type != "cuda" or left.dtype != torch.float32:
        return left @ right
    with _tf32():
        return left @ right


@contextmanager
def _tf32() -> Iterator[None]:
    """The setting belongs to the process, so it is changed for the launch alone, by one thread at a time."""
    settings = torch.backends.cuda.matmul
    name, wanted = ("fp32_precision", "tf32") if hasattr(settings, "fp32_precision") else ("allow_tf32", True)
    with _LOCK:
        before = getattr(settings, name)
        setattr(settings, name, wanted)
        try:
            yield
        finally:
            setattr(settings, name, before)
