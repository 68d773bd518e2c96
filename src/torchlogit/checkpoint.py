"""Checkpoints: a tree of numbers, text and tensors in one file, written whole or not at all. No pickle."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
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
_VERSION = "2"


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
        try:
            write_tree(self.path, tree, _FORMAT)
        except TypeError as error:
            raise ValueError(
                f"the state cannot be kept in a checkpoint ({error}): use an optimizer and a scheduler of torch.optim"
            ) from None
        self._last = time.monotonic()
        self._cost = self._last - began

    def read(self) -> dict[str, Any]:
        """What `write` was given.

        Raises
        ------
        InputError
            If the file is damaged or something else.
        """
        return read_tree(self.path, _FORMAT)


def write_tree(path: str | os.PathLike[str], tree: dict[str, Any], kind: str) -> None:
    """Write a tree of plain values and tensors to a file of a kind, whole or not at all.

    Raises
    ------
    TypeError
        If the tree holds anything else.
    """
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(plain(tree, tensors), allow_nan=False)
    metadata = {"format": kind, "version": _VERSION, "state": text, "sha256": _digest(text, tensors)}
    content = serialised(tensors, metadata=metadata)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def read_tree(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """What `write_tree` was given.

    Raises
    ------
    InputError
        If the file is damaged or something else.
    """
    try:
        with safe_open(Path(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != kind or metadata.get("version") != _VERSION:
                raise InputError(f"{path} is not a checkpoint of this version; name another file")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if metadata["sha256"] != _digest(metadata["state"], tensors):
            raise InputError(f"{path} is damaged (its checksum does not fit); delete it or name another")
        state: dict[str, Any] = restored(json.loads(metadata["state"]), tensors)
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no checkpoint, or damaged ({error}); delete it or name another") from None
    return state


def _digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
