"""Checkpoints: a tree of numbers, text and tensors in one file, written whole or not at all. No pickle."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised

from torchlogit.errors import InputError
from torchlogit.files import replacing
from torchlogit.plain import plain, restored

_FORMAT = "torchlogit checkpoint"
_VERSION = "1"


@dataclass
class Checkpoint:
    """Where the state of a training is kept, and how often.

    Parameters
    ----------
    path : path-like
        The file. It is replaced as a whole, so that there is always a complete one.
    seconds : float, default=30.0
        Least time between two. Longer where writing takes long: never more than a tenth of the time.
    steps : int, default=None
        Write after every so many steps instead.

    Examples
    --------
    >>> Checkpoint("run.checkpoint", steps=100)
    Checkpoint(path='run.checkpoint', seconds=30.0, steps=100)
    """

    path: str | os.PathLike[str]
    seconds: float = 30.0
    steps: int | None = None
    _last: float = field(default_factory=time.monotonic, repr=False, init=False)
    _cost: float = field(default=0.0, repr=False, init=False)

    def __post_init__(self) -> None:
        if self.seconds < 0 or (self.steps is not None and self.steps < 1):
            raise ValueError(f"seconds must be at least 0 and steps at least 1, got {self.seconds} and {self.steps}")

    def due(self, step: int) -> bool:
        """Whether it is time."""
        if self.steps is not None:
            return step % self.steps == 0
        return time.monotonic() - self._last >= max(self.seconds, 10 * self._cost)

    def exists(self) -> bool:
        """Whether there is one to go on from."""
        return Path(self.path).exists()

    def write(self, tree: dict[str, Any]) -> None:
        """Replace the file."""
        began = time.monotonic()
        tensors: dict[str, torch.Tensor] = {}
        try:
            text = json.dumps(plain(tree, tensors), allow_nan=False)
        except TypeError as error:
            raise ValueError(
                f"the state cannot be kept in a checkpoint ({error}): use an optimizer and a scheduler of torch.optim"
            ) from None
        content = serialised(tensors, metadata={"format": _FORMAT, "version": _VERSION, "state": text})
        with replacing(self.path) as temporary:
            temporary.write_bytes(content)
        self._last = time.monotonic()
        self._cost = self._last - began

    def read(self) -> dict[str, Any]:
        """What `write` was given.

        Raises
        ------
        InputError
            If the file is damaged or something else.
        """
        try:
            with safe_open(Path(self.path), framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT or metadata.get("version") != _VERSION:
                    raise InputError(f"{self.path} is not a checkpoint of this version; name another file")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            state: dict[str, Any] = restored(json.loads(metadata["state"]), tensors)
        except InputError:
            raise
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.path} is no checkpoint, or damaged ({error}); delete it or name another") from None
        return state
