"""Blocks on disk: what a text file was decoded to, so that it is decoded once."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchlogit.available import processes_here
from torchlogit.errors import InputError
from torchlogit.problem import Block, CodedColumns, SparseRows


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where one array is."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A block without its arrays, and where they are."""

    block: Block
    arrays: dict[str, _Stored]


class BlockCache:
    """Blocks in a file without a name: the system removes it with the process, however that ends.

    Parameters
    ----------
    limit : int, optional
        Bytes it may take; None is half of what is free in the folder, shared by the processes of this machine.
    folder : str, optional
        Where; None is the system's folder for such files.
    """

    def __init__(self, limit: int | None, folder: str | None = None) -> None:
        self._folder = folder or tempfile.gettempdir()
        try:
            half = shutil.disk_usage(self._folder).free // 2
            self._limit = half // processes_here() if limit is None else limit
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 -- closed by close()
        except OSError as error:
            raise self._unwritable(error) from None
        weakref.finalize(self, self._file.close)
        self._entries: list[_Entry] = []
        self.nbytes = 0

    def _unwritable(self, error: OSError) -> InputError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return InputError(
                f"no space is left in {self._folder} for the cache of decoded rows; free some, or name another folder "
                "in the environment variable TMPDIR, or read the text every time (--cache 0)"
            )
        return InputError(
            f"the cache of decoded rows cannot be written in {self._folder} ({error.strerror or error}); name another "
            "folder in the environment variable TMPDIR, or read the text every time (--cache 0)"
        )

    def add(self, block: Block) -> bool:
        """Write a block; False, and nothing is kept, once the limit is passed."""
        arrays = _arrays(block)
        size = sum(array.nbytes for array in arrays.values())
        if self.nbytes + size > self._limit:
            self.close()
            return False
        stored = {}
        for name, array in arrays.items():
            stored[name] = _Stored(self.nbytes, array.shape, array.dtype)
            try:
                self._write(array)
            except OSError as error:
                self.close()
                raise self._unwritable(error) from None
        bare = replace(
            block,
            target=torch.zeros(1, dtype=torch.int64).expand(block.rows),
            dense=None,
            weight=None,
            offset=None,
            sparse=None,
            codes=None if block.codes is None else replace(block.codes, codes=torch.empty(0, 0, dtype=torch.int32)),
        )
        self._entries.append(_Entry(bare, stored))
        return True

    def _write(self, array: NDArray[Any]) -> None:
        view = array.reshape(-1).view(np.uint8).data
        while len(view):
            written = os.pwrite(self._file.fileno(), view, self.nbytes)
            self.nbytes += written
            view = view[written:]

    def blocks(self) -> Iterator[Block]:
        """All blocks, in order; their targets are placeholders."""
        for entry in self._entries:
            tensors = {name: self._tensor(stored) for name, stored in entry.arrays.items()}
            sparse, codes = None, entry.block.codes
            if "indptr" in tensors:
                columns = int(tensors["columns"][0])
                sparse = SparseRows(tensors["indptr"], tensors["indices"], tensors["values"], columns)
            if codes is not None:
                codes = CodedColumns(tensors["codes"], codes.first, codes.columns)
            yield replace(
                entry.block,
                dense=tensors.get("dense"),
                sparse=sparse,
                codes=codes,
                weight=tensors.get("weight"),
                offset=tensors.get("offset"),
            )

    def _tensor(self, stored: _Stored) -> Tensor:
        array = np.empty(stored.shape, stored.dtype)
        view = array.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(view):
            count = os.preadv(self._file.fileno(), [view[done:]], stored.offset + done)
            if not count:
                raise InputError(f"the cache of decoded rows in {self._folder} has lost its end; start again")
            done += count
        return torch.from_numpy(array)

    def close(self) -> None:
        """Give the space back."""
        self._file.close()
        self._entries = []


def _arrays(block: Block) -> dict[str, NDArray[Any]]:
    found: dict[str, Tensor | None] = {"dense": block.dense, "weight": block.weight, "offset": block.offset}
    if block.sparse is not None:
        sparse = block.sparse
        found |= {"indptr": sparse.indptr, "indices": sparse.indices, "values": sparse.values}
        found["columns"] = torch.tensor([sparse.columns])
    if block.codes is not None:
        found["codes"] = block.codes.codes
    return {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in found.items() if tensor is not None}
